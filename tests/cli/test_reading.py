"""What the commands say of files that are not what their names say, as processes."""

import subprocess
import sys
from pathlib import Path


def run(*words: str, folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "flash", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_training_on_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a goal in the last minute of play\tsport\tid1\na soup\tfood\tid2\n")
    words = ("--input_field", "text", "--target_fields", "labels", "--train_file", "t.tsv")
    code, said = run("text_classification", "from_csv", *words, folder=tmp_path)
    assert code == 2
    assert said.endswith(
        "flash: error: t.tsv looks like it has no header: there is no column 'text', and its first line is like a row "
        "('a goal in the last minute of play', 'sport', 'id1'); pass the names of its 3 columns in their order, such as "
        "--column_names text labels column_3\n"
    )


def test_training_on_a_file_behind_a_url_that_needs_a_package(tmp_path: Path) -> None:
    words = ("--input_field", "text", "--target_fields", "labels", "--train_file", "s3://bucket/t.csv")
    code, said = run("text_classification", "from_csv", *words, folder=tmp_path)
    assert code == 2
    assert said.endswith('s3://, which is not installed; type: pip install "fsspec[s3]"\n')
