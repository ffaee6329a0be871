"""Target cells as people write them, read by the commands in processes of their own."""

import csv
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from flash.text.classification.predictor import Predictor

LABELS = ("animal", "fruit", "tool")
WORDS = {"animal": "zebra", "fruit": "banana", "tool": "hammer"}
Cells = Callable[[list[str]], Sequence[str]]
Run: TypeAlias = Callable[..., tuple[int, str, str]]


def lists(names: list[str]) -> Sequence[str]:
    return [str(names)]


def spread(names: list[str]) -> Sequence[str]:
    return [*names, "", "", ""][:3]


def marks(names: list[str]) -> Sequence[str]:
    return ["x" if label in names else "" for label in LABELS]


def write(folder: Path, columns: Sequence[str], cells: Cells) -> None:
    """`t.csv`: 48 texts with every set of three labels six times."""
    with (folder / "t.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *columns])
        for row in range(48):
            names = [label for bit, label in enumerate(LABELS) if row >> bit & 1]
            words = " and ".join([WORDS[name] for name in names] or ["nothing"])
            writer.writerow([f"row {row} has {words}", *cells(names)])


@pytest.fixture
def run(forked: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path) -> Run:
    """The exit code of a command line, and what it has written on both streams."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        done = forked(*words, folder=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return run


def train(run: Run, *options: str) -> tuple[int, str, str]:
    words = [
        "text_classification",
        "--output",
        "m.pt",
        "from_csv",
        "--input_field",
        "text",
        "--train_file",
        "t.csv",
    ]
    return run(*words, *options)


FORMS = {
    "lists": (
        lists,
        ["labels"],
        (),
        "t.csv: column 'labels' holds lists written as text in 42 rows (t.csv, rows 2, 3 and 4, and 39 more: the first "
        "is \"['animal']\"), which are read as lists\n",
    ),
    "names over columns": (
        spread,
        ["label1", "label2", "label3"],
        (),
        "t.csv: the names in the columns 'label1'; 'label2'; 'label3' are read as one list per row, as in t.csv, row 2: "
        "'animal'\n",
    ),
    "marks": (marks, LABELS, ("--unknown_targets", "negative"), ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_training_and_evaluating(form: str, model: Path, run: Run, tmp_path: Path) -> None:
    cells, columns, options, said = FORMS[form]
    write(tmp_path, columns, cells)
    code, printed, errors = train(run, "--target_fields", *columns, *options)
    assert code == 0, errors
    assert (f"flash: warning: {said}" in errors) == bool(said)
    assert errors.count("flash: warning:") == bool(said)
    assert "3 labels, multi-label" in printed
    assert Predictor.load(tmp_path / "m.pt").labels == LABELS

    words: list[str | Path] = ["evaluate", model, "t.csv", "--json", "--target_fields", *columns, *options]
    code, printed, errors = run(*words)
    assert code == 0, errors
    assert errors == (f"flash: warning: {said}" if said else "")
    rows = json.loads(printed)["labels"]
    assert [(row["label"], row["support"]) for row in rows] == [(label, 24) for label in LABELS]
    assert min(row["average_precision"] for row in rows) > 0.9


def test_marks_are_refused_with_the_option_that_reads_them(model: Path, run: Run, tmp_path: Path) -> None:
    write(tmp_path, LABELS, marks)
    expected = (
        "flash: error: t.csv: the target columns 'animal'; 'fruit'; 'tool' hold nothing but a mark (t.csv, row 2, column "
        "'animal': 'x') and blanks: type --unknown_targets negative if a blank says that the label does not apply, or "
        "write 1 and 0 (rows are counted from 1, the header not)\n"
    )
    code, _, errors = train(run, "--target_fields", *LABELS)
    assert (code, errors[-len(expected) :]) == (2, expected)
    code, _, errors = run("evaluate", model, "t.csv")
    assert (code, errors) == (2, expected)


def test_single_names_beside_empty_cells_and_texts_in_two_columns(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "body", "labels"])
        for row in range(80):
            name = (*LABELS, "")[row % 4]
            writer.writerow([f"row {row}", f"it has a {WORDS.get(name, 'nothing')}", name])
    words = ["text_classification", "from_csv", "--input_field", "title", "body", "--train_file", "t.csv"]
    code, printed, errors = run(*words, "--target_fields", "labels")
    assert code == 0, errors
    assert (
        "flash: warning: t.csv: 20 rows have no label in column 'labels' (t.csv, rows 4, 8 and 12, and 17 more), and no "
        "row has several; read as multi-label, where a text may have no label; type --multi_label false and "
        "--unknown_targets mask if each text has exactly one, to leave these rows out" in errors
    )
    assert "3 labels, multi-label" in printed
