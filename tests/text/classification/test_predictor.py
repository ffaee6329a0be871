"""The predictor: what it says of itself, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import CheckpointError
from flash.text.classification import checkpoint
from flash.text.classification.predictor import Predictor


def save(path: Path, labels: list[str], *, multi_label: bool = True, **state: Any) -> Path:
    count = len(labels)
    arrays = {
        "buckets": torch.zeros(0, dtype=torch.int32),
        "idf": torch.zeros(0),
        "weight": torch.zeros(0, count),
        "scale": torch.zeros(0),
        "bias": torch.arange(count) - 0.5,
        **state,
    }
    flash = {
        "format": checkpoint.FORMAT_VERSION,
        "version": "0.1.0",
        "labels": labels,
        "multi_label": multi_label,
        "backbone": "linear",
        "backbone_options": {},
    }
    weights = {f"backbone.{name}": array for name, array in arrays.items()}
    chosen = {
        "thresholds": torch.linspace(0.25, 0.75, count),
        "calibration_scale": torch.full((count,), 2.0),
        "calibration_shift": torch.arange(count) * 1.0,
    }
    checkpoint.save({"flash": flash, "state_dict": {**chosen, **weights}}, path)
    return path


def test_load(tmp_path: Path) -> None:
    predictor = Predictor.load(save(tmp_path / "m.pt", ["toxic", "insult"]))
    assert predictor.labels == ("toxic", "insult")
    np.testing.assert_array_equal(predictor.thresholds, np.array([0.25, 0.75], np.float32))
    np.testing.assert_array_equal(predictor.logits(["a"]), [[-1, 2]])  # twice (-0.5, 0.5), and (0, 1) more
    np.testing.assert_allclose(predictor.probabilities(["a"]), 1 / (1 + np.exp([[1, -2]])), rtol=1e-6)
    assert predictor.predict(["a"]) == [["toxic", "insult"]]
    assert predictor.predict(["a"], thresholds={"toxic": 0.27}) == [["insult"]]


def test_without_calibration_a_predictor_says_what_its_backbone_does(tmp_path: Path) -> None:
    loaded = Predictor.load(save(tmp_path / "m.pt", ["toxic", "insult"]))
    plain = Predictor(loaded.backbone, loaded.labels, multi_label=True, thresholds=loaded.thresholds)
    np.testing.assert_array_equal(plain.logits(["a"]), [[-0.5, 0.5]])


@pytest.mark.parametrize("name", ["calibration_scale", "calibration_shift"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_calibration_of_another_precision(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    path = save(tmp_path / "m.pt", ["a"])
    content = checkpoint.load(path)
    content["state_dict"][name] = torch.tensor([3.0], dtype=dtype)
    checkpoint.save(content, path)
    logits = Predictor.load(path).logits(["a"])
    assert logits.dtype == np.float32
    assert logits.item() == {"calibration_scale": -1.5, "calibration_shift": 2.0}[name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_thresholds_of_another_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    path = save(tmp_path / "m.pt", ["a"])
    content = checkpoint.load(path)
    content["state_dict"]["thresholds"] = torch.tensor([0.5], dtype=dtype)
    checkpoint.save(content, path)
    assert Predictor.load(path).thresholds.dtype == np.float32


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"idf": torch.zeros(1)}, r"is damaged: the model's arrays do not fit: idf is float32 \(1,\), expected"),
    (
        {"weight": torch.zeros(0, 2).to(torch.float8_e5m2)},
        "is damaged: .* weight is float8_e5m2 \\(0, 2\\), expected",
    ),
    ({"buckets": torch.zeros(0, 1)}, "is damaged: .* buckets is float32"),
    ({"buckets": torch.tensor(1)}, "is damaged: a backbone array is a single number; copy or save it again"),
]


@pytest.mark.parametrize(("state", "words"), WRONG, ids=[words for _, words in WRONG])
def test_arrays_that_do_not_fit(tmp_path: Path, state: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        Predictor.load(save(tmp_path / "m.pt", ["a", "b"], **state))


def test_repr(tmp_path: Path) -> None:
    assert repr(Predictor.load(save(tmp_path / "m.pt", ["toxic", "insult"]))) == (
        "Predictor(2 labels: toxic, insult; any number of labels a text; thresholds 0.250 to 0.750)"
    )
    labels = [f"label{number}" for number in range(9)]
    assert repr(Predictor.load(save(tmp_path / "m.pt", labels, multi_label=False))) == (
        "Predictor(9 labels: label0, label1, label2, label3, label4, label5, ... 3 more; one label a text; "
        "thresholds 0.250 to 0.750)"
    )
    assert "(1 label: a; any number of labels a text; thresholds 0.250)" in repr(
        Predictor.load(save(tmp_path / "m.pt", ["a"]))
    )
