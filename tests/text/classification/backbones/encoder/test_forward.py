"""Rows through an encoder in parts: neither padding nor parts change an answer, and no text is too long."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from flash import Trainer
from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import batching
from flash.text.classification.backbones.encoder.forward import training_logits
from flash.text.classification.backbones.encoder.model import Encoder
from flash.text.classification.backbones.encoder.module import PREDICT_ROWS, EncoderModule
from flash.text.classification.backbones.memory import Work
from flash.text.classification.batching import TokenRows

LABELS = ["toxic", "insult", "threat"]
TEXTS = ["w1 w2 w3 short", "w7", "w9 w9 w1 a text w30 w31"]
LONG = " ".join(f"w{place % 40}" for place in range(600))
CPU = torch.device("cpu")


def module_of(folder: Path, **options: Any) -> EncoderModule:
    torch.manual_seed(1)
    module = EncoderModule.from_pretrained(folder, LABELS, 12, options)
    torch.nn.init.normal_(module.encoder.head.weight)
    return module


def texts(*found: str) -> pa.Array:
    return pa.array(found, pa.large_string())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows an encoder was given, each time."""
    rows: list[int] = []
    features = Encoder.features

    def counted(self: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows.append(len(ids))
        return features(self, ids, mask)

    monkeypatch.setattr(Encoder, "features", counted)
    return rows


@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta", "llama"])
def test_answers_do_not_depend_on_the_batch_whatever_the_tokenizers_side(
    kind: str, make_folder: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path, kind)
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**stored, "padding_side": "left"}))
    module = module_of(folder)
    alone = np.concatenate([module.logits(texts(text)) for text in TEXTS])
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    np.testing.assert_allclose(module.logits(texts(*TEXTS)), alone, rtol=1e-4, atol=1e-5)
    assert module.encoder.content()["tokenizer"]["padding_side"] == "right"


@pytest.mark.parametrize("how", ["max", "mean"])
def test_windows_of_a_text_are_scored_in_batches_and_pooled_afterwards(
    how: str, make_folder: Any, tmp_path: Path, seen: list[int]
) -> None:
    module = module_of(make_folder(tmp_path), long_text="window", window_pooling=how)
    found = module.logits(texts("w5", LONG, "w7 w8"))
    assert sum(seen) > 2 * PREDICT_ROWS
    assert max(seen) == PREDICT_ROWS
    tokens = module.tokenize(texts(LONG))
    with torch.no_grad():
        windows = module.encoder(*tokens.batch(np.arange(len(tokens)))).numpy()
    expected = windows.max(axis=0) if how == "max" else windows.mean(axis=0)
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-5)
    alone = np.concatenate([module.logits(texts(text)) for text in ("w5", "w7 w8")])
    np.testing.assert_allclose(found[[0, 2]], alone, rtol=1e-4, atol=1e-5)


def test_scores_keep_to_the_users_batch_size(make_folder: Any, tmp_path: Path, seen: list[int]) -> None:
    module = module_of(make_folder(tmp_path), long_text="window")
    module.margins_of_many(texts("w5", LONG), 3)
    assert max(seen) == 3


def test_a_batch_that_is_too_large_is_halved(
    make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(make_folder(tmp_path))
    many = texts(*[f"w{row % 40} w{row % 7}" for row in range(40)], *TEXTS)
    expected = module.logits(many)
    rows: list[int] = []
    features = Encoder.features

    def failing(self: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if len(ids) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        rows.append(len(ids))
        return features(self, ids, mask)

    monkeypatch.setattr(Encoder, "features", failing)
    np.testing.assert_allclose(module.logits(many), expected, rtol=1e-4, atol=1e-5)
    assert sum(rows) == len(many)
    assert max(rows) <= 9
    assert module.at_hand is None


def test_other_mistakes_are_not_tried_again(
    make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, calls = module_of(make_folder(tmp_path)), []

    def failing(*_: Any) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Encoder, "features", failing)
    with pytest.raises(RuntimeError, match="shapes"):
        module.logits(texts(*TEXTS))
    assert len(calls) == 1


# ---- training -------------------------------------------------------------------------------------------------------


def gradients(encoder: Encoder, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    encoder.zero_grad()
    total: Any = (logits.max(dim=0).values * torch.tensor([1.0, -2.0, 3.0])).sum()
    total.backward()
    return {name: part.grad.clone() for name, part in encoder.named_parameters() if part.grad is not None}


def test_a_long_text_trains_in_parts_with_the_gradients_of_the_whole(
    make_folder: Any, tmp_path: Path, seen: list[int]
) -> None:
    module = module_of(make_folder(tmp_path), long_text="window")
    encoder, tokens = module.encoder.eval(), module.tokenize(texts(LONG))
    rows = np.arange(len(tokens))
    expected = gradients(encoder, encoder(*tokens.batch(rows)))
    seen.clear()
    found = gradients(encoder, training_logits(encoder, tokens, rows, 4, CPU))
    assert max(seen) == 4
    assert sum(seen) == 2 * len(rows)  # once forward, and once more for the gradients
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


def test_the_second_time_has_the_dropout_of_the_first(make_folder: Any, tmp_path: Path) -> None:
    module = module_of(make_folder(tmp_path), long_text="window")
    encoder, tokens = module.encoder.train(), module.tokenize(texts(LONG))
    rows = np.arange(len(tokens))

    def whole() -> torch.Tensor:
        """All parts, with all that they hold kept."""
        parts = [tokens.batch(rows[start : start + 4]) for start in range(0, len(rows), 4)]
        return torch.cat([encoder(*part) for part in parts])

    torch.manual_seed(7)
    expected = gradients(encoder, whole())
    torch.manual_seed(7)
    logits = training_logits(encoder, tokens, rows, 4, CPU)
    torch.manual_seed(8)  # whatever is drawn before the gradients
    found = gradients(encoder, logits)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


def test_a_fit_never_computes_more_rows_than_a_batch_at_once(
    make_folder: Any, tmp_path: Path, seen: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "encoder")
    model = TextClassifier(
        backbone=str(folder), labels=LABELS, multi_label=True, max_length=12, long_text="window"
    )
    targets = [["toxic"], ["insult"], [], ["threat"]]
    found = [LONG, "w1", "w2 w3", "w4"]
    data = TextClassificationData.from_lists(
        found, targets, found, targets, labels=LABELS, multi_label=True, batch_size=4
    )
    before = {name: part.clone() for name, part in model.backbone.named_parameters()}
    off = {"logger": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **off)
    trainer.fit(model, datamodule=data)
    assert max(seen) == 4
    assert all(not torch.equal(part, before[name]) for name, part in model.backbone.named_parameters())


# ---- too little memory ----------------------------------------------------------------------------------------------


def tokens_of(*windows: int) -> TokenRows:
    """Rows of five tokens, as many for each text as it has windows."""
    count = sum(windows)
    ends = 5 * np.arange(1, count + 1)
    owner = np.repeat(np.arange(len(windows)), np.array(windows, np.int64))
    return TokenRows(np.zeros(5 * count, np.int32), ends, owner, len(windows), 0, 0)


@pytest.mark.parametrize(
    ("windows", "rows", "accumulated", "batch_size", "expected"),
    [
        # a whole batch, and the last of an epoch, which has fewer rows
        (
            (1,) * 20,
            8,
            1,
            8,
            "pass batch_size=4 to .* accumulate_grad_batches=2 to .* learns the same, or a sm",
        ),
        (
            (1,) * 20,
            4,
            1,
            8,
            "pass batch_size=2 to .* accumulate_grad_batches=4 to .* learns the same, or a sm",
        ),
        (
            (1,) * 20,
            7,
            2,
            7,
            "pass batch_size=3 to .* accumulate_grad_batches=4 to .* learns nearly the same",
        ),
        ((1,) * 20, 1, 1, 8, "of 1 row, the longest of 5 tokens; pass a smaller max_length, or precision"),
        # one text of a hundred windows
        (
            (100, 1),
            100,
            1,
            8,
            'of 100 rows, .* pass batch_size=4 .* nearly .*_length, or long_text="truncate", or p',
        ),
        (
            (100, 1),
            100,
            1,
            1,
            'of 100 rows, .*; pass a smaller max_length, or long_text="truncate", or precision',
        ),
    ],
)
def test_the_advice_is_smaller_than_what_failed(
    windows: tuple[int, ...], rows: int, accumulated: int, batch_size: int, expected: str
) -> None:
    work = Work(tokens_of(*windows), np.arange(rows), CPU, accumulated, batch_size)
    assert re.search(expected, work.too_much()), work.too_much()


@pytest.mark.parametrize("how", ["max", "mean"])
def test_pooling_all_rows_is_pooling_those_of_each_batch(how: str) -> None:
    tokens = tokens_of(1, 3, 2, 1, 7)
    logits = np.random.default_rng(0).standard_normal((14, 3)).astype(np.float32)
    expected = batching.pool_windows(torch.from_numpy(logits), torch.from_numpy(tokens.owner), 5, how)
    found = tokens.pooled(logits, how)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(tokens_of(1, 1).pooled(logits[:2], how), logits[:2])
    assert tokens_of().pooled(logits[:0], how).shape == (0, 3)
    with pytest.raises(FlashError, match="unknown window_pooling 'sum'"):
        tokens.pooled(logits, "sum")
