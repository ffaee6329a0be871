"""The options file that a training saves reads back to the same options, whatever labels and columns are called."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.cli.config import dump, load
from flash.cli.options import build_parser, parse
from flash.cli.training import SOURCES

STRANGE = [
    *(
        "no",
        "NO",
        "Yes",
        "on",
        "off",
        "y",
        "true",
        "null",
        "NULL",
        "~",
        "",
        " a ",
        "007",
        "0x1F",
        "0o17",
        "1e5",
    ),
    *(
        "12e03",
        "1_000",
        "1.",
        ".5",
        "+1",
        "-1",
        "1e400",
        "nan",
        ".inf",
        "1:30",
        "2024-01-01",
        "2024-13-45",
        "?",
        ":",
        "=",
        "<<",
        "-",
        "- a",
    ),
    *(
        "a: b",
        "#",
        "#x",
        "a #b",
        "*a",
        "&a",
        "!t",
        "%x",
        "@x",
        "`x",
        "{a}",
        "[a]",
        "|",
        ">",
        "it's",
        'say "x"',
        "\t",
    ),
    *("a\nb", "é", "☃", "🙂", "\x85", "\u2028", "\x1b"),
]
WORDS = st.one_of(st.sampled_from(STRANGE), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))


@given(st.lists(WORDS, max_size=6))
@settings(deadline=None)
def test_text_comes_back_as_the_same_text(words: list[str]) -> None:
    options = {"data": {"labels": words, "one": dict.fromkeys(words, 0.5)}, "number": 1e5}
    assert load(dump(options)) == options
    assert yaml.safe_load(dump(options)) == options  # as others' readers of YAML have it


@pytest.mark.parametrize("word", ["1e5", "~", "#", "007", "{a}", "\x85", "?", "2024-13-45"])
def test_what_is_typed_is_kept_and_read_again(word: str, tmp_path: Path) -> None:
    labels = [label for label in STRANGE if not label.startswith("-")]
    typed = ["from_csv", "--input_field", word, "--target_fields", word, "b", "--label_delimiter", word]
    parser, given_options = parse(SOURCES, [*typed, "--labels", *labels, "--train_file", "t.csv"])
    source = given_options.from_csv
    assert (source.input_field, source.label_delimiter) == (word, word)
    assert (source.target_fields, source.labels) == ([word, "b"], labels)
    parser.save(given_options, str(tmp_path / "m.yaml"))
    _, again = parse(SOURCES, ["--config", str(tmp_path / "m.yaml")])
    assert again.from_csv == source


def test_a_list_of_json_as_python_writes_it() -> None:
    words = ["\N{SMILING FACE WITH SUNGLASSES}", "caf\u00e9", "?"]
    given_options = parse(SOURCES, ["from_csv", "--input_field", "a", "--labels", json.dumps(words)])[1]
    assert given_options.from_csv.labels == words


def test_one_label_is_a_list_of_one() -> None:
    assert parse(SOURCES, ["from_csv", "--input_field", "a", "--labels", "no"])[1].from_csv.labels == ["no"]
    assert parse(SOURCES, ["from_csv", "--input_field", "a", "--labels=1e5"])[1].from_csv.labels == ["1e5"]


def test_printed_options_are_those_that_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parser, _ = build_parser(SOURCES)
    words = ["from_csv", "--input_field", "x", "--labels", '["1e5", "~"]']
    with pytest.raises(SystemExit):
        parser.parse_args(["--print_config", *words])
    (tmp_path / "o.yaml").write_text(capsys.readouterr().out, "utf-8")
    found: Any = parse(SOURCES, ["--config", str(tmp_path / "o.yaml")])[1]
    assert found.from_csv.labels == ["1e5", "~"]
