"""What the commands say of files that are not what their names say, as processes."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

Run: TypeAlias = Callable[..., tuple[int, str]]


@pytest.fixture
def run(forked: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path) -> Run:
    """The exit code of a command line, and its errors."""

    def run(*words: str) -> tuple[int, str]:
        done = forked(*words, folder=tmp_path)
        return done.returncode, done.stderr

    return run


def test_training_on_a_file_without_a_header(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a goal in the last minute of play\tsport\tid1\na soup\tfood\tid2\n")
    words = ("--input_field", "text", "--target_fields", "labels", "--train_file", "t.tsv")
    code, said = run("text_classification", "from_csv", *words)
    assert code == 2
    assert said.endswith(
        "flash: error: t.tsv looks like it has no header: there is no column 'text', and its first line is like a row "
        "('a goal in the last minute of play', 'sport', 'id1'); pass the names of its 3 columns in their order, such as "
        "--column_names text labels column_3\n"
    )


def test_training_on_a_file_behind_a_url_that_needs_a_package(run: Run) -> None:
    words = ("--input_field", "text", "--target_fields", "labels", "--train_file", "s3://bucket/t.csv")
    code, said = run("text_classification", "from_csv", *words)
    assert code == 2
    assert said.endswith('s3://, which is not installed; type: pip install "fsspec[s3]"\n')
