"""An export is refused as soon as one of its files is not as it was written."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flash.core.errors import CheckpointError
from flash.text.classification.checkpoint import digest
from flash.text.classification.checkpoint.export_folder import read_settings, seal
from flash.text.classification.predictor import Predictor, precision_for

PUBLISHED = Path(__file__).parent / "published"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An ONNX export of today's format."""
    made = Path(shutil.copytree(PUBLISHED / "onnx-3", tmp_path / "export"))
    settings = json.loads((made / "flash.json").read_text("utf-8"))
    (made / "flash.json").write_text(json.dumps({**settings, "export_format": 2}), "utf-8")
    seal(made)
    return made


def test_all_files_have_checksums(folder: Path) -> None:
    settings, _ = read_settings(folder)
    assert sorted(settings["checksums"]) == ["model.onnx", "tokenizer.json"]
    written = (folder / "flash.json").read_bytes()
    seal(folder)
    assert (folder / "flash.json").read_bytes() == written


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_flipped_bit_anywhere_is_refused(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(0, 8))
        (folder / name).write_bytes(damaged)
        for load in (Predictor.load, precision_for):
            with pytest.raises(CheckpointError) as caught:
                load(folder)
            assert str(caught.value) == (
                f"the export {folder} is damaged: its {name} is not as it was written; export the model again"
            )
    (folder / name).write_bytes(whole)
    read_settings(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": [0.1, 0.1, 0.1]},
        {"checksums": {}},
        {"checksums": None},
        {"checksum": 1},
        {"max_length": 15},
    ],
    ids=str,
)
def test_changed_settings_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    settings = json.loads((folder / "flash.json").read_text("utf-8"))
    (folder / "flash.json").write_text(json.dumps({**settings, **changes}), "utf-8")
    with pytest.raises(
        CheckpointError, match=r"is damaged: its flash\.json is not as it was written; export"
    ):
        Predictor.load(folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"is damaged: it lacks model\.onnx; export the model again"):
        Predictor.load(folder)


def test_other_files_beside_it_are_nobodys_business(folder: Path) -> None:
    (folder / "README.md").write_text("A model card.")
    read_settings(folder)


def test_the_files_are_read_once_for_their_checksums(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    file_digest = digest.file_digest
    monkeypatch.setattr(digest, "file_digest", lambda path: read.append(path) or file_digest(path))  # type: ignore[func-returns-value]
    for _ in range(3):
        read_settings(folder)
    assert len(read) == 2
