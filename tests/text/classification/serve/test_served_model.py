"""A model as the server holds it, of each kind that there is."""

from pathlib import Path

import numpy as np
import pytest

from flash.core.errors import CheckpointError, FlashError
from flash.text.classification.predictor import Predictor
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.served_model import ServedModel

TEXTS = ["it tells of banana", "", "it tells of zebra " * 200]


def test_a_checkpoint(model_file: Path) -> None:
    model = ServedModel.load(model_file, ServeOptions())
    predictor = Predictor.load(model_file)
    assert (model.name, model.path, model.backbone) == ("words", model_file, "linear")
    scores = model.scores(TEXTS)
    assert np.array_equal(scores.probabilities, predictor.probabilities(TEXTS))
    assert np.array_equal(scores.logits, predictor.logits(TEXTS))
    assert np.array_equal(model.thresholds, predictor.thresholds)
    assert model.costs(TEXTS) == [len(text) // 4 + 2 for text in TEXTS]
    assert model.cut(TEXTS) == []
    assert model.max_length is None


def test_its_file_may_be_overwritten_in_place(model_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(model_file.read_bytes())
    model = ServedModel.load(copy, ServeOptions())
    before = model.scores(TEXTS).probabilities
    copy.write_bytes(b"")  # the pages of a memory map would be gone
    assert np.array_equal(model.scores(TEXTS).probabilities, before)


def test_what_cannot_be_served_fails_when_it_is_loaded(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        ServedModel.load(tmp_path / "none.pt", ServeOptions())
    (tmp_path / "half.pt").write_bytes(model_file.read_bytes()[:1_000])
    with pytest.raises(CheckpointError):
        ServedModel.load(tmp_path / "half.pt", ServeOptions())
    with pytest.raises(FlashError, match="unknown label 'fruits'"):
        ServedModel.load(model_file, ServeOptions(thresholds={"fruits": 0.5}))
    with pytest.raises(FlashError, match="output gave 1 values for 2 texts"):
        ServedModel.load(model_file, ServeOptions(output=lambda probabilities: [0]))
    with pytest.raises(FlashError, match="output gives what JSON has no form for"):
        ServedModel.load(model_file, ServeOptions(output=lambda probabilities: list(probabilities)))
    with pytest.raises(FlashError, match="the output list is a class; pass an object of it"):
        ServedModel.load(model_file, ServeOptions(output=list))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"output": "label"}, "unknown output 'label'"),
        ({"log_level": "loud"}, "unknown log_level 'loud'"),
        ({"port": 70_000}, "port is 70000"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": True}, "workers is True"),
        ({"request_timeout": float("nan")}, "request_timeout is nan"),
        ({"max_waiting": 10, "max_texts": 11}, "max_waiting is 10, less than the 11 texts"),
        ({"api_keys": ("short",)}, "an API key has 5 characters"),
        ({"api_keys": ("with a space",)}, "an API key has 12 characters"),
        ({"cors_origins": ("example.org",)}, "cors_origins has 'example.org'"),
        ({"precision": "8"}, "unknown precision '8'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(FlashError) as error:
        ServeOptions(**options).check()  # type: ignore[arg-type]
    assert sentence in str(error.value)


def test_the_default_options_can_be() -> None:
    ServeOptions().check()
