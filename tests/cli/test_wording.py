"""Python's keywords as what is typed in a shell."""

import argparse
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash.cli import evaluate, predict
from flash.cli.options import build_parser
from flash.cli.training import SOURCES
from flash.cli.wording import as_options, option_names


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("encoding='cp1252'", "--encoding cp1252"),
        ("multi_label=True", "--multi_label true"),
        ("quoting=False", "--quoting false"),
        ("labels=[...]", "--labels"),
        ("labels=['a', ...]", "--labels a ..."),
        ("labels=['0', '1']", "--labels 0 1"),
        ("val_file=...", "--val_file"),
        ("delimiter=';'", "--delimiter ';'"),
        (r"delimiter='\t'", r"--delimiter $'\t'"),
        ("label_delimiter='|'", "--label_delimiter '|'"),
        (r"label_delimiter='\n'", r"--label_delimiter $'\n'"),
        (r"label_delimiter='\\n'", r"--label_delimiter '\n'"),
        (r"label_delimiter='\xa0'", r"--label_delimiter $'\u00a0'"),
        (r"labels=['a\tb', 'it\'s\n']", r"--labels $'a\tb' $'it\'s\n'"),
        ("target_fields=['toxic']", "--target_fields toxic"),
        ("target_fields=['my label', \"it's\"]", "--target_fields 'my label' 'it'\"'\"'s'"),
        ("target_fields='tags'", "--target_fields tags"),
        ("unknown_labels='ignore'", "--unknown_labels ignore"),
        ("val_split=0.1", "--val_split 0.1"),
        ("num_classes=3", "--num_classes 3"),
        ("labels=None", "--labels null"),
        ("annotators='first'", "--annotators first"),
        ("target_fields=", "--target_fields"),
        ("another delimiter=", "another --delimiter"),
        ("max_length=40", "--model.max_length 40"),
        ("lr_scheduler='constant'", "--model.lr_scheduler constant"),
        ("backbone='linear'", "--model.backbone linear"),
    ],
)
@pytest.mark.parametrize(
    "frame", ["{}", "a.csv: row 3; pass {}, or another", "is wrong ({})", "leave {} out."]
)
def test_a_keyword_is_an_option(python: str, shell: str, frame: str) -> None:
    assert as_options(frame.format(python)) == frame.format(shell).replace("pass", "type")


@pytest.mark.parametrize(
    "sentence",
    [
        "a.csv: unknown column 'encoding=utf-8'; did you mean \"labels=[...]\"?",
        "the model's encoding is not the file's; the users' labels='",
        "pass datamodule=..., or shuffle=True",
        "type --encoding='cp1252'",
        "model.labels=['a']",
        "data/encoding='x'",
        "relabels=['a'] and multi_labels=True",
        "",
    ],
)
def test_the_rest_stays(sentence: str) -> None:
    assert as_options(sentence) == sentence


def test_several_in_one_sentence() -> None:
    sentence = (
        "t.csv: column 'delimiter=;' holds nothing but 0 and 1; pass target_fields=['t'] if it says whether one "
        "label applies, or labels=['0', '1'] if these are names; leave val_split=0.1 out"
    )
    assert as_options(sentence) == (
        "t.csv: column 'delimiter=;' holds nothing but 0 and 1; type --target_fields t if it says whether one "
        "label applies, or --labels 0 1 if these are names; leave --val_split 0.1 out"
    )


@given(st.text(max_size=8).filter(lambda text: not set(text) & set("\t\n\r\u00a0\u3000")))
def test_a_shell_reads_back_every_text(text: str) -> None:
    assert shlex.split(as_options(f"delimiter={text!r}")) == ["--delimiter", text]


@given(st.text(alphabet="labels=['a]., \"\\", max_size=30))
def test_no_sentence_breaks_it(sentence: str) -> None:
    assert as_options(sentence) is not None


def test_each_is_an_option_of_a_command() -> None:
    parsers: list[argparse.ArgumentParser] = [predict.build_parser(), evaluate.build_parser()]
    command, sources = build_parser(SOURCES)
    parsers += [command, *sources.values()]
    known = {name for parser in parsers for action in parser._actions for name in action.option_strings}
    assert set(option_names().values()) <= known
    assert {"--encoding", "--output_delimiter", "--ckpt_path", "--model.max_length"} <= set(
        option_names().values()
    )
