import csv
import gzip
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from flash.__main__ import main
from flash.cli import parse_thresholds
from flash.cli.predict import build_parser, described
from flash.core.errors import FlashError
from flash.text.classification.predict_files.streams import Summary
from flash.text.classification.predictor import Predictor

TEXTS = ["a zebra and a banana", 'no "such", thing', "the hammer\nof the zebra"]
NAMES = ["animal,fruit", "", "animal,tool"]
NEW = ["labels", "animal_probability", "fruit_probability", "tool_probability"]


@pytest.fixture
def comments(tmp_path: Path) -> Path:
    path = tmp_path / "comments.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "comment_text"])
        writer.writerows([f"00{row}", text] for row, text in enumerate(TEXTS, 1))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("option", ["--input_field", "--input-field"])
def test_the_command_of_the_readme(
    model: Path, comments: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = comments.parent / "predictions.csv"
    words = ["predict", str(model), "--input", str(comments), option, "comment_text", "--output", str(output)]
    assert main(words) == 0
    # no bar where nobody watches
    said = "flash: note: 3 rows, 2 with a label: animal 2, fruit 1, tool 1\n"
    assert capsys.readouterr() == ("", said)
    rows = rows_of(output)
    assert list(rows[0]) == ["id", "comment_text", *NEW]
    assert [row["id"] for row in rows] == ["001", "002", "003"]
    assert [row["comment_text"] for row in rows] == TEXTS
    assert [row["labels"] for row in rows] == NAMES
    expected = Predictor.load(model).probabilities(TEXTS)
    assert [row["tool_probability"] for row in rows] == [str(value) for value in expected[:, 2]]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["id", "text", "comment_text"], "text"),
        (["id", "comment_text", "date"], "comment_text"),
        (["animal", "body", "fruit", "tool"], "body"),
        (["label", "body"], "body"),
    ],
)
def test_the_column_of_texts_is_found_as_evaluate_finds_it(
    model: Path, tmp_path: Path, columns: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    row = {name: "a zebra" if name == found else "0" for name in columns}
    source.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    assert main(["predict", str(model), "--input", str(source), "--output", str(target)]) == 0
    assert json.loads(target.read_text())["labels"] == ["animal"]
    if not {"label", "animal"} & set(columns):
        source.write_text(f"{','.join(row)},label\n{','.join(row.values())},animal\n")
    else:
        source.write_text(
            source.read_text().replace("0,a zebra", "animal,a zebra" if "label" in columns else "1,a zebra")
        )
    assert main(["evaluate", str(model), str(source), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["input_field"], shown["subset_accuracy"]) == (found, 1.0)


def test_a_column_of_texts_that_cannot_be_told_is_asked_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,body,label\n1,a zebra,animal\n")
    assert main(["predict", str(model), "--input", str(source)]) == 2
    assert capsys.readouterr().err.endswith(
        "in.csv has 3 columns (id, body, label); type --input_field with the one of texts\n"
    )


def test_standard_output_is_the_default(
    model: Path, comments: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["predict", str(model), "--input", str(comments), "--input_field", "comment_text"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode(), newline="")))
    assert [row["labels"] for row in rows] == NAMES


def test_formats_prefix_encoding_and_thresholds(model: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.dat", tmp_path / "out.parquet"
    source.write_bytes("text\tlabels\nœuf and zebra\tx\n".encode("cp1252"))
    words = ["--input", str(source), "--input_format", "tsv", "--encoding", "cp1252", "--input_field", "text"]
    words += [
        "--output",
        str(target),
        "--prefix",
        "new_",
        "--thresholds",
        "fruit=0",
        "animal=1",
        "--batch_size",
        "1",
    ]
    assert main(["predict", str(model), *words]) == 0
    (row,) = pa.parquet.read_table(target).to_pylist()
    assert list(row) == ["text", "labels", *(f"new_{name}" for name in NEW)]
    assert (row["text"], row["labels"], row["new_labels"]) == ("œuf and zebra", "x", ["fruit"])


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_delimiter_and_quoting_as_in_training(model: Path, tmp_path: Path, ending: str) -> None:
    source, target = tmp_path / f"in.{ending}", tmp_path / "out.jsonl"
    source.write_text('id;text\n1;"a zebra, "and" a\n2;5" of banana\n')
    words = ["--input", str(source), "--output", str(target), "--input_field", "text"]
    assert main(["predict", str(model), *words, "--delimiter", ";", "--quoting", "false"]) == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["text"] for row in rows] == ['"a zebra, "and" a', '5" of banana']
    assert [row["labels"] for row in rows] == [["animal"], ["fruit"]]


@pytest.mark.parametrize("tab", ["\t", r"\t"])
def test_a_tab_may_be_typed(model: Path, tmp_path: Path, tab: str) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("id\ttext\n1\ta zebra, a banana\n")
    words = ["--input", str(source), "--output", str(target), "--input_field", "text", "--delimiter", tab]
    assert main(["predict", str(model), *words]) == 0
    assert json.loads(target.read_text())["labels"] == ["animal", "fruit"]


def test_another_delimiter_is_suggested(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id;text\n1;a zebra\n")
    assert main(["predict", str(model), "--input", str(source), "--input_field", "text"]) == 2
    assert capsys.readouterr().err.endswith("Known: id;text; the header holds ';': type --delimiter ';'\n")
    assert main(["predict", str(model), "--input", str(source)]) == 2
    assert capsys.readouterr().err == (
        f"flash: error: {source} has one column, 'id;text': the header holds ';': type --delimiter ';', or "
        "--input_field 'id;text' if it is the one of texts\n"
    )
    assert main(["predict", str(model), "--input", str(source), "--input_field", "id;text"]) == 0
    capsys.readouterr()
    assert main(["predict", str(model), "--input", str(source), "--delimiter", ";;"]) == 2
    assert "--delimiter ';;' is not one character of ASCII; pass one such as ';'" in capsys.readouterr().err
    source.write_text('id,text\n1,"a zebra\n')
    assert main(["predict", str(model), "--input", str(source), "--input_field", "text"]) == 2
    assert 'twice (""), or type --quoting false if quotes are ordinary' in capsys.readouterr().err
    source.write_text("id,text\n1\n")
    assert main(["predict", str(model), "--input", str(source), "--input_field", "text"]) == 2
    assert (
        "put a cell that holds ',' in double quotes, or type another --delimiter" in capsys.readouterr().err
    )


def test_the_input_is_never_overwritten(
    model: Path, comments: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = comments.read_bytes()
    (comments.parent / "link.csv").symlink_to(comments)
    for output in (
        comments,
        comments.parent / "link.csv",
        comments.parent / ".." / comments.parent.name / comments.name,
    ):
        words = ["--input", str(comments), "--input_field", "comment_text", "--output", str(output)]
        assert main(["predict", str(model), *words]) == 2
        assert capsys.readouterr().err == (
            f"flash: error: {output} is the input itself, which would be lost; name another file for the output\n"
        )
    assert comments.read_bytes() == before


def test_the_model_and_the_file_behind_a_pipe_are_never_overwritten(
    model: Path,
    comments: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = model.read_bytes(), comments.read_bytes()
    (tmp_path / "link.csv").symlink_to(model)
    words = ["predict", str(model), "--input_field", "comment_text", "--input"]
    assert main([*words, str(comments), "--output", str(tmp_path / "link.csv")]) == 2
    ending = "which would be lost; name another file for the output\n"
    assert capsys.readouterr().err == f"flash: error: {tmp_path / 'link.csv'} is the model, {ending}"
    with comments.open() as opened, comments.open("a") as appended:
        monkeypatch.setattr(sys, "stdin", opened)
        assert main([*words, "-", "--output", str(comments)]) == 2
        assert capsys.readouterr().err == f"flash: error: {comments} is the input itself, {ending}"
        monkeypatch.setattr(sys, "stdout", appended)  # >> comments.csv
        assert main([*words, str(comments)]) == 2
    assert capsys.readouterr().err == f"flash: error: standard output is the input itself, {ending}"
    assert (model.read_bytes(), comments.read_bytes()) == before


@pytest.mark.parametrize(("thresholds", "shown"), [("0.5", 1), ("auto", 0)])
def test_thresholds_of_a_single_label_model(
    single_label_model: Path, comments: Path, thresholds: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", str(comments), "--input_field", "comment_text", "--thresholds", thresholds]
    assert main(["predict", str(single_label_model), *words]) == 0
    sentence = (
        "flash: note: --thresholds changes nothing: this model gives each text its one most probable label\n"
    )
    said = capsys.readouterr().err
    assert said.startswith(sentence * shown + "flash: note: 3 rows: ")


def test_an_unknown_ending(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.dat").write_text("text\na\n")
    assert main(["predict", str(model), "--input", str(tmp_path / "in.dat")]) == 2
    assert capsys.readouterr().err.endswith(
        "; type --input_format csv, or tsv, jsonl or parquet in its place\n"
    )


def test_packed_json_lines(model: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl"
    source.write_bytes(gzip.compress(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)))
    assert main(["predict", str(model), "--input", str(source), "--output", str(target)]) == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["labels"] for row in rows] == [["animal", "fruit"], [], ["animal", "tool"]]
    assert list(rows[0]) == ["text", *NEW]


def test_single_label(single_label_model: Path, comments: Path) -> None:
    output = comments.parent / "out.csv"
    words = ["--input", str(comments), "--input_field", "comment_text", "--output", str(output)]
    assert main(["predict", str(single_label_model), *words]) == 0
    rows = rows_of(output)
    assert rows[2]["labels"] in ("animal", "tool")
    assert all(abs(sum(float(row[name]) for name in NEW[1:]) - 1) < 1e-5 for row in rows)


class Terminal(io.StringIO):
    """A screen that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_the_bar_on_a_terminal_knows_how_many_rows_there_are(
    model: Path, comments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    words = ["predict", str(model), "--input", str(comments), "--output", str(comments.parent / "out.jsonl")]
    assert main(words) == 0
    assert "100%" in screen.getvalue()
    assert "3.00/3.00 [" in screen.getvalue()
    assert "rows/s]" in screen.getvalue()
    assert main(["predict", str(model), "--input", "comments.what"]) == 2
    assert "comments.what: the ending tells no format" in screen.getvalue()


def test_a_header_without_rows_gets_a_note(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("text\n")
    words = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert main(["predict", str(model), *words]) == 0
    note = "has no rows; neither has the output\n"
    assert capsys.readouterr().err == f"flash: note: {tmp_path / 'in.csv'} {note}"
    piped = [sys.executable, "-m", "flash", "predict", str(model), "--input", "-"]
    done = subprocess.run(piped, input="text\n", capture_output=True, text=True, check=True)
    assert done.stderr == f"flash: note: standard input {note}"
    assert (tmp_path / "out.csv").read_text().startswith('"text","labels","animal_probability"')


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: MODEL, --input; see flash predict --help"),
        (["m.pt"], "the following arguments are required: --input; see flash predict --help"),
        (
            ["m.pt", "--input", "a.csv", "--ouput", "b"],
            "unknown option '--ouput'; did you mean '--output'? Known: --output, --input, ",
        ),
        (["m.pt", "n.pt", "--input", "a.csv"], "'n.pt' is one argument too many; see flash predict --help"),
        (
            ["m.pt", "--input", "a.csv", "--batch_size", "x"],
            "argument --batch_size: invalid int value: 'x'; see",
        ),
        (
            ["m.pt", "--input", "a.csv", "--input_format", "cvs"],
            "argument --input_format: invalid choice: 'cvs' (cho",
        ),
        (["m.pt", "--input", "a.csv"], "the checkpoint m.pt does not exist"),
        (
            ["m.pt", "--input", "a.csv", "--thresholds", "x"],
            "--thresholds x is not understood; type one number for",
        ),
    ],
)
def test_mistakes_of_the_command_line(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"flash: error: {sentence}")
    assert shown.count("\n") == 1


def test_mistakes_in_the_file(model: Path, comments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        (
            ["--input_field", "coment_text"],
            "comments.csv: unknown column 'coment_text'; did you mean 'comment_text'? Known: id, co",
        ),
        (["--input_field", "id", "--batch_size", "0"], "batch_size is 0; expected 1 or more"),
        (["--input_field", "id", "--thresholds", "2"], "thresholds has 2.0 for 'animal'"),
    ):
        output = comments.parent / "out.csv"
        assert main(["predict", str(model), "--input", str(comments), "--output", str(output), *words]) == 2
        assert sentence in capsys.readouterr().err
        assert not output.exists()


def test_thresholds_as_typed() -> None:
    assert parse_thresholds(None) is None
    assert parse_thresholds(["auto"]) is None
    assert parse_thresholds(["0.5"]) == 0.5
    assert parse_thresholds(["0.5", "1"]) == [0.5, 1.0]
    assert parse_thresholds(["a=b=0.5", "c=0"]) == {"a=b": 0.5, "c": 0.0}
    for words in (["x"], ["0.5", "a=1"], ["a=x"]):
        with pytest.raises(
            FlashError, match="is not understood; type one number for all labels, one per label"
        ):
            parse_thresholds(words)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "--help"])
    shown = capsys.readouterr().out
    parser = build_parser()
    assert shown == parser.format_help()
    assert all(action.help for action in parser._actions)
    assert "whether cells may be enclosed in double quotes [true]" in shown  # the words of from_csv
    assert max(map(len, shown.splitlines())) <= 85
    assert len(shown.splitlines()) <= 90


# ----------------------------------------------------------------------------------- as a process


def test_imports_neither_torch_nor_lightning(
    model: Path, comments: Path, imported: Callable[..., set[str]]
) -> None:
    words = ["--input", comments, "--input_field", "comment_text", "--output", comments.parent / "out.csv"]
    assert imported("predict", model, *words) & {"torch", "lightning", "pytorch_lightning"} == set()
    assert [row["labels"] for row in rows_of(comments.parent / "out.csv")] == NAMES


def test_a_broken_pipe_is_silent(model: Path, flash: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    with flash("predict", model, "--input", "-", "--input_field", "t") as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"t\na zebra\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'"t","labels"')
        process.stdout.close()
        with pytest.raises(BrokenPipeError):  # far more than pipes hold: it must stop reading
            process.stdin.writelines(b"a banana\n" * 1000 for _ in range(10_000))
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_leaves_the_earlier_file_and_nothing_else(
    number: signal.Signals,
    code: int,
    word: str,
    model: Path,
    tmp_path: Path,
    flash: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    output = tmp_path / "out.csv"
    output.write_text("earlier")
    with flash("predict", model, "--input", "-", "--output", output) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(b"t\na zebra\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(list(tmp_path.iterdir())) == 2  # the temporary file is there
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr.read().decode() == f"{word}; no half-written file is left behind\n"
    assert list(tmp_path.iterdir()) == [output]
    assert output.read_text() == "earlier"


def test_several_files_and_an_output_for_excel(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_bytes("id;text\n1;a zebra in a café\n".encode("cp1252"))
    Path("b.csv").write_bytes("id;text\n2;nothing\n".encode("cp1252"))
    words = [
        "--delimiter",
        ";",
        "--encoding",
        "cp1252",
        "--output",
        "out.csv",
        "--output_encoding",
        "utf-8-sig",
    ]
    # the model may stand behind the files
    assert main(["predict", "--input", "a.csv", "b.csv", str(model), *words]) == 0
    assert capsys.readouterr().err == (
        "flash: note: 2 rows of 2 files, 1 with a label: animal 1, fruit 0, tool 0\n"
    )
    header, *rows = Path("out.csv").read_bytes().decode("utf-8").splitlines()
    assert header.startswith('\ufeff"id";"text";"labels";"animal_probability"')
    assert [row.split(";")[1] for row in rows] == ['"a zebra in a café"', '"nothing"']
    Path("b.csv").write_text("id;text\n2;an \u2192 arrow\n", encoding="utf-8")
    words = ["--delimiter", ";", "--output", "new.csv", "--output_encoding", "cp1252"]
    assert main(["predict", str(model), "--input", "b.csv", *words]) == 2
    assert capsys.readouterr().err == (
        "flash: error: b.csv: row 1, column 'text', holds '\u2192' (U+2192), which is not in cp1252; type "
        "--output_encoding utf-8-sig, which Excel reads too\n"
    )
    assert not Path("new.csv").exists()


def test_what_was_predicted_is_told_short_for_many_labels() -> None:
    labels = [f"label {index}" for index in range(14)]
    counts = np.arange(14) * 1000
    done = Summary(14_000, 13_000, counts, 3)
    said = described(done, labels, ["a", "b", "c"], multi_label=True)
    assert said == (
        "14,000 rows of 3 files, 13,000 with a label: label 13 13,000, label 12 12,000, label 11 11,000, label 10 "
        "10,000, label 9 9,000, label 8 8,000, label 7 7,000, label 6 6,000, label 5 5,000, label 4 4,000, and 4 other "
        "labels"
    )
