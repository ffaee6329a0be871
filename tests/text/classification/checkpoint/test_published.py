"""Every format that was published stays readable: the files in `published/`, one set for each, and what they answered."""

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flash import Trainer
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.predictor import Predictor

PUBLISHED = Path(__file__).parent / "published"
ANSWERS = json.loads((PUBLISHED / "answers.json").read_text("utf-8"))
TEXTS = ["a zebra eats a banana", "the hammer", "", "nothing of the kind"]
FILES = [name for name in ANSWERS if not (PUBLISHED / name).is_dir()]


@pytest.fixture(autouse=True)
def of_all_formats() -> Iterator[None]:
    """Files of format 3 come with a warning, which `test_legacy` reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is a torch file, as version 0.1.0")
        yield


def test_there_are_files_of_each_format() -> None:
    formats = range(checkpoint.OLDEST_FORMAT, checkpoint.FORMAT_VERSION + 1)
    expected = [
        name.format(number)
        for number in formats
        for name in (
            "linear-{}.pt",
            "linear-{}-stopped.ckpt",
            "encoder-{}.pt",
            "encoder-{}-stopped.ckpt",
            "onnx-{}",
        )
    ]
    assert sorted(ANSWERS) == sorted(expected)
    assert {path.name for path in PUBLISHED.iterdir()} >= set(expected)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_predictor_gives_the_answers_of_then(name: str) -> None:
    if not name.startswith("linear"):
        pytest.importorskip("transformers")
    if name.startswith("onnx"):
        pytest.importorskip("onnxruntime")
    logits = Predictor.load(PUBLISHED / name, precision="32").logits(TEXTS)
    np.testing.assert_allclose(logits, np.array(ANSWERS[name]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_a_classifier_gives_the_answers_of_then(name: str) -> None:
    if not name.startswith("linear"):
        pytest.importorskip("transformers")
    loaded = TextClassifier.load_from_checkpoint(PUBLISHED / name)
    np.testing.assert_allclose(loaded(TEXTS).numpy(), np.array(ANSWERS[name]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".ckpt")])
def test_a_stopped_run_goes_on(name: str, tmp_path: Path) -> None:
    words = {"fruit": "banana", "animal": "zebra", "tool": "hammer"}
    rows = [[label for bit, label in enumerate(words) if row >> bit & 1] for row in range(64)]
    texts = [
        f"row {row % 5} tells of " + " and ".join([words[label] for label in found] or ["nothing"])
        for row, found in enumerate(rows)
    ]
    data = TextClassificationData.from_lists(
        train_data=texts, train_targets=rows, labels=list(words), batch_size=16
    )
    model = TextClassifier(labels=list(words), multi_label=True, tolerance=1e-3)
    if name.startswith("encoder"):
        pytest.importorskip("transformers")
        model = TextClassifier.load_from_checkpoint(PUBLISHED / name)
    path = shutil.copy(PUBLISHED / name, tmp_path / "stopped.ckpt")
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, **quiet)
    trainer.fit(model, datamodule=data, ckpt_path=path)
    assert trainer.global_step > 3
    steps = [step["step"] for step in _states(trainer, "step")] if name.startswith("encoder") else []
    assert all(int(step) == trainer.global_step for step in steps)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("linear")])
def test_options_are_read_under_their_names_of_today(name: str) -> None:
    assert b"regularization" in (PUBLISHED / name).read_bytes()
    loaded: list[Any] = [checkpoint.load(PUBLISHED / name), checkpoint.read(PUBLISHED / name)]
    for content in loaded:
        options = content["flash"]["backbone_options"]
        assert {"C": "auto", "pos_weight": 1.0}.items() <= options.items()
        assert not {"regularization", "positive_weight"} & options.keys()


def _states(trainer: Trainer, key: str) -> list[dict[str, float]]:
    """What the optimiser has counted for each parameter."""
    return [state for state in trainer.optimizers[0].state.values() if key in state]


@pytest.mark.parametrize("name", FILES)
def test_a_converted_file_is_the_same_model_and_run(name: str, tmp_path: Path) -> None:
    checkpoint.convert(PUBLISHED / name, tmp_path / "new.pt")
    before, after = checkpoint.load(PUBLISHED / name), checkpoint.load(tmp_path / "new.pt")
    assert after["flash"] == {**before["flash"], "format": checkpoint.FORMAT_VERSION}
    assert set(before) == set(after)
    logits = Predictor.load(tmp_path / "new.pt", precision="32").logits(TEXTS) if "linear" in name else None
    if logits is not None:
        np.testing.assert_allclose(logits, np.array(ANSWERS[name]), rtol=0, atol=1e-5)
