"""Settings and weights of a checkpoint that no fit can have left there: each is named."""

from pathlib import Path
from typing import Any

import pytest
import torch

from flash.text.classification import checkpoint

nan = float("nan")
WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"format": True}, "its format is True, expected a number from 1"),
    ({"format": 0}, "its format is 0, expected"),
    ({"format": None}, "its format is missing, expected"),
    ({"labels": None}, "its labels are missing, expected a list of one or more different names"),
    ({"labels": 5}, "its labels are 5, expected"),
    ({"labels": "ab"}, "its labels are 'ab', expected"),
    ({"labels": []}, "its labels are [], expected"),
    ({"labels": ["a", "a"]}, "its labels are ['a', 'a'], expected"),
    ({"labels": ["a", ""]}, "its labels are ['a', ''], expected"),
    ({"labels": ["a", []]}, "its labels are a list, expected"),
    ({"multi_label": 1}, "its multi_label is 1, expected a bool"),
    ({"backbone": None}, "its backbone is missing, expected a str"),
    ({"backbone": "lineer"}, "unknown backbone 'lineer'; did you mean 'linear'?"),
    ({"backbone_options": []}, "its backbone_options is [], expected a dict"),
    ({"backbone_options": {1: 2}}, "unknown option '1'"),
    ({"encoder": {}}, "its max_length is missing, expected a number from 1"),
    ({"encoder": {}, "max_length": True}, "its max_length is True, expected a number from 1"),
    ({"encoder": [], "max_length": 1}, "its encoder is []"),
    (
        {"backbone_options": {"buckets": "x"}},
        "option buckets of the linear backbone is 'x'; expected a value such as 4194304",
    ),
    (
        {"backbone_options": {"buckets": 100}},
        "option buckets of the linear backbone is 100; expected a power of two",
    ),
    (
        {"backbone_options": {"buckets": 2**30}},
        "option buckets of the linear backbone is 1073741824; expected a power of two from 64 to 16777216",
    ),
    (
        {"backbone_options": {"char_ngrams": [1, None]}},
        "option char_ngrams of the linear backbone is (1, None); expected a value such as (2",
    ),
    (
        {"backbone_options": {"word_ngrams": 2**40}},
        "option word_ngrams of the linear backbone is 1099511627776; expected a value such",
    ),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG_SETTINGS, ids=[words for _, words in WRONG_SETTINGS])
def test_wrong_settings(
    make_content: Any, refusals: Any, tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    path, saved = tmp_path / "model.pt", make_content()
    checkpoint.save({**saved, "flash": saved["flash"] | wrong}, path)
    assert f"the checkpoint {path} is damaged: {words}" in refusals(path)


WRONG_STATES: list[tuple[dict[Any, Any], str]] = [
    (
        {"thresholds": torch.ones(3)},
        "thresholds are a tensor of float32 and shape (3,), expected 2 numbers, one per",
    ),
    ({"thresholds": torch.tensor([0.5, nan])}, "its thresholds are nan to nan, expected numbers from 0 to 1"),
    ({"thresholds": torch.tensor([0.5, 1.5])}, "its thresholds are 0.5 to 1.5, expected numbers from 0 to 1"),
    ({"thresholds": torch.tensor([0, 1])}, "its thresholds are a tensor of int64"),
    (
        {"thresholds": torch.ones(2).to(torch.float8_e5m2)},
        "its thresholds are a tensor of float8_e5m2 and shape (2,)",
    ),
    *(
        (wrong, f"its calibration_{name} {words}")
        for name in ("scale", "shift")
        for wrong, words in [
            (
                {f"calibration_{name}": torch.ones(3)},
                "is a tensor of float32 and shape (3,), expected 2 numbers",
            ),
            (
                {f"calibration_{name}": torch.tensor([1, 1])},
                "is a tensor of int64 and shape (2,), expected 2",
            ),
            ({f"calibration_{name}": torch.ones(2).to(torch.float8_e5m2)}, "is a tensor of float8_e5m2"),
            ({f"calibration_{name}": torch.tensor([1, nan])}, "holds nan to nan, expected finite numbers"),
            ({f"calibration_{name}": torch.tensor([1, float("inf")])}, "holds 1.0 to inf, expected finite"),
            (
                {f"calibration_{name}": torch.tensor([1, 1e300], dtype=torch.float64)},
                "holds 1.0 to 1e+300, expected finite numbers",
            ),
        ]
    ),
    (
        {"calibration_scale": torch.tensor([1.0, 0.0])},
        "its calibration_scale holds 0.0 to 1.0, expected finite numbers above 0",
    ),
    (
        {"calibration_scale": torch.tensor([1e-300, 1.0], dtype=torch.float64)},
        "its calibration_scale holds 1e-300 to 1.0, expected finite numbers above 0",
    ),
    ({"thresholds": [0.5, 0.5]}, "its weights hold a list under 'thresholds', expected only tensors"),
    (
        {3: torch.ones(1)},
        "its weights hold a tensor of float32 and shape (1,) under 3, expected only tensors",
    ),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG_STATES, ids=[words for _, words in WRONG_STATES])
def test_wrong_weights(
    make_content: Any, refusals: Any, tmp_path: Path, wrong: dict[Any, Any], words: str
) -> None:
    path, saved = tmp_path / "model.pt", make_content()
    checkpoint.save({**saved, "state_dict": saved["state_dict"] | wrong}, path)
    assert words in refusals(path)


@pytest.mark.parametrize("name", ["thresholds", "calibration_scale", "calibration_shift"])
def test_missing_weights(make_content: Any, refusals: Any, tmp_path: Path, name: str) -> None:
    path, saved = tmp_path / "model.pt", make_content()
    del saved["state_dict"][name]
    checkpoint.save(saved, path)
    verb = "are" if name == "thresholds" else "is"
    assert f"is damaged: its {name} {verb} missing, expected 2 numbers, one per label" in refusals(path)
