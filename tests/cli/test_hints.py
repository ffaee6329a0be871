"""The commands that a training prints at its end run as they stand."""

import csv
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flash.__main__ import main
from flash.cli.hints import closing_words, printed_text

LABELS = ["rude", "dirty"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def commands(printed: str) -> list[str]:
    return [line.strip() for line in printed.splitlines() if re.match(r"  (printf|\S*flash) ", line)]


def run_as_typed(lines: Sequence[str], folder: Path) -> list[str]:
    """What each line of a shell prints, in which `flash` is this one."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "flash"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flash "$@"\n')
    script.chmod(0o755)
    path = {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
    done = [
        subprocess.run(line, shell=True, env={**os.environ, **path}, capture_output=True, text=True)
        for line in lines
    ]
    said = [re.sub(r"^flash: note: \d+ rows?, .* with a label: .*\n", "", each.stderr) for each in done]
    assert [(each.returncode, words) for each, words in zip(done, said, strict=True)] == [(0, "")] * len(done)
    return [each.stdout for each in done]


QUIET = ["text_classification", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


def test_those_after_from_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["flash"])
    assert main([*QUIET, "from_sample", "--rows", "600"]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith("To answer over HTTP, type: flash serve text_classification_model.pt")
    lines = commands(printed)
    assert [line.split()[:2] for line in lines] == [
        ["printf", lines[0].split()[1]],
        ["flash", "predict"],
        ["flash", "evaluate"],
    ]
    *_, table = run_as_typed(lines, tmp_path)
    assert "try_flash.csv: 2 rows, 6 labels" in table
    with Path("predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["Thank you for your help", "You are an idiot"]
    assert rows[0]["labels"] == ""


def test_those_after_a_file_that_needs_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["flash"])
    for name, start in (("my train.dat", 0), ("held out.csv", 80)):
        rows = [
            f'{row};{"naïve" if row % 2 else "kind"} "{row};{"rude|dirty" if row % 2 else ""}'
            for row in range(start, start + 80)
        ]
        Path(name).write_bytes("\n".join(["id;body;tags", *rows, ""]).encode("cp1252"))
    data = ["from_csv", "--input_field", "body", "--target_fields", "tags", "--label_delimiter", "|"]
    data += ["--delimiter", ";", "--encoding", "cp1252", "--quoting", "false"]
    data += ["--train_file", "my train.dat", "--val_file", "held out.csv"]
    assert main([*QUIET, "--output", "my model.pt", *data]) == 0
    lines = commands(capsys.readouterr().out)
    assert lines[1] == (
        "flash predict 'my model.pt' --input 'my train.dat' --input_field body --input_format csv --delimiter ';' "
        "--encoding cp1252 --quoting false --output predictions.csv"
    )
    assert lines[2] == (
        "flash evaluate 'my model.pt' 'held out.csv' --input_field body --delimiter ';' --encoding cp1252 "
        "--quoting false --target_fields tags --label_delimiter '|'"
    )
    piped, _, table = run_as_typed(lines, tmp_path)
    assert piped.startswith('"text","labels"')
    assert "held out.csv: 80 rows, 2 labels" in table
    assert "subset accuracy  1.000" in table


@pytest.mark.parametrize(
    ("source", "data", "predict", "evaluate"),
    [
        (
            "from_csv",
            {
                "input_field": "t",
                "train_file": ["a.tsv", "b.tsv"],
                "target_fields": ["rude", "dirty"],
                "delimiter": "\t",
            },
            r"a.tsv --input_field t --delimiter '\t' --output predictions.csv",
            r"test.csv --input_field t --delimiter '\t'",
        ),
        (
            "from_json",
            {
                "input_field": "t",
                "train_file": "a.json.gz",
                "target_fields": "labels",
                "unknown_labels": "ignore",
            },
            "a.json.gz --input_field t --prefix predicted_ --output predictions.csv",
            "test.jsonl --input_field t --unknown_labels ignore",
        ),
        (
            "from_json",
            {"input_field": "t", "train_file": "a.json", "field": "rows", "test_file": "b.json"},
            "comments.jsonl --input_field t --output predictions.csv",
            "test.jsonl --input_field t",
        ),
        (
            "from_parquet",
            {
                "input_field": "t",
                "train_file": "*.parquet",
                "predict_file": "p.parquet",
                "test_file": "t.parquet",
            },
            "p.parquet --input_field t --output predictions.csv",
            "t.parquet --input_field t",
        ),
        (
            "from_hf_datasets",
            {"input_field": "t", "target_fields": "rude", "train_hf_dataset": "x"},
            "comments.csv --input_field t --output predictions.csv",
            "test.csv --input_field t",
        ),
        (
            "from_csv",
            {"input_field": "t", "target_fields": ["label1", "label2"], "train_file": "a.csv"},
            "a.csv --input_field t --output predictions.csv",
            "test.csv --input_field t --target_fields label1 label2",
        ),
    ],
)
def test_what_files_of_a_source_need(
    source: str, data: dict[str, Any], predict: str, evaluate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["flash"])
    lines = commands(closing_words("m.pt", Path("m.yaml"), source, data, LABELS))
    assert lines[1:] == [f"flash predict m.pt --input {predict}", f"flash evaluate m.pt {evaluate}"]
    assert all(shlex.split(line)[0] in ("flash", "printf") for line in lines)


def test_a_text_of_several_columns_is_printed_with_them() -> None:
    assert printed_text("post") == printed_text(["post"]) == "printf 'text\\n\"Thank you for your help\"\\n'"
    assert printed_text(["title", "100%"]) == (
        'printf \'"title","100%%"\\n"Thank you for your help","Thank you for your help"\\n\''
    )
