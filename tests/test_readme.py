"""The README's code runs as it stands there, and every command and option it names exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

from flash.__main__ import main
from flash.cli.serve import build_parser
from flash.text.classification.predictor import Predictor
from flash.text.classification.sample import LABELS, sample_table

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
JIGSAW = Path("data/jigsaw_toxic_comments/train.csv")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def a_folder_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Synthetic comments in the shape of the toxic comments' file, at the path that the README names."""
    monkeypatch.chdir(tmp_path)
    JIGSAW.parent.mkdir(parents=True)
    pyarrow.csv.write_csv(sample_table(600), JIGSAW)
    return tmp_path


def test_it_is_short() -> None:
    assert len(README.split()) <= 700


@pytest.mark.filterwarnings("ignore:Trainer.gpus=0. is deprecated:DeprecationWarning")
def test_the_python_code_runs_as_written(a_folder_with_the_data: Path) -> None:
    names: dict[str, Any] = {}
    [code] = blocks("python")
    exec(compile(code, "README.md", "exec"), names)
    [batch] = names["predictions"]
    assert len(batch) == 3
    assert all(label in LABELS for text in batch for label in text)


@pytest.mark.filterwarnings("ignore:Trainer.gpus=0. is deprecated:DeprecationWarning")
def test_the_python_code_runs_on_the_genuine_comments(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table that it prints is the one that the documentation explains."""
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(shared_data)
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    [shown] = blocks("text", (REPOSITORY / "docs" / "explanation" / "table.md").read_text(encoding="utf-8"))
    assert capsys.readouterr().out.endswith(shown)
    assert [set(labels) for labels in names["predictions"][0]] == [
        set(),
        {"toxic", "obscene", "insult"},
        set(),
    ]
    predictor = Predictor.load("text_classification_multi_label_model.pt")
    assert predictor.predict(["You are wonderful", "You absolute turnip", "you", "a", "Thanks!"]) == [[]] * 5


def test_the_commands_run_as_written(a_folder_with_the_data: Path) -> None:
    for name in ("train.csv", "comments.csv"):
        pyarrow.csv.write_csv(sample_table(300, seed=len(name)), name)
    commands, question = blocks("sh")
    for line in commands.splitlines():
        command, *words = shlex.split(line)
        assert command == "flash"
        assert main(words) == 0
    assert Path("predictions.csv").read_text().startswith('"comment_text"')
    assert question.startswith("curl http://127.0.0.1:8000/v1/classify -d")  # answered in test_docs.py
    assert f"`flash serve {build_parser().parse(['text_classification_model.pt']).model}`" in README


def test_the_first_two_commands_are_what_ci_runs() -> None:
    first, second = blocks("bash")
    assert "flash text_classification from_sample" in first
    assert second.rstrip().endswith("-m pytest")
    assert all(
        "-c constraints.txt" in command and command.startswith("python3 -m venv")
        for command in (first, second)
    )


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 10
    assert all((REPOSITORY / link).exists() for link in links)
