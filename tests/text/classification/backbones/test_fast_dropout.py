"""Dropout and attention with dropout against torch's, and against their formulas in plain operations."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from flash.text.classification.backbones import fast_dropout
from flash.text.classification.backbones.encoder import Encoder
from flash.text.classification.backbones.fast_dropout import (
    FastDropout,
    attention,
    draw,
    dropout,
    gain_of,
    mask_of,
)

CPU = torch.device("cpu")


# ---- dropout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked(probability: float) -> None:
    count = 1_000_003  # not a multiple of four
    mask = mask_of(draw(count), probability, torch.Size((count,)), torch.float32)
    assert bool(((mask == 0) | (mask == 1)).all())
    spread = math.sqrt(probability * (1 - probability) / count)
    assert float(mask.mean()) == pytest.approx(1 - probability, abs=5 * spread + 1e-5)
    for lag in (1, 2, 3, 4):  # neighbours of the same random word, and of others
        both = float((mask[lag:] * mask[:-lag]).mean())
        assert both == pytest.approx((1 - probability) ** 2, abs=10 * spread + 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 7), (3, 2, 4), (0, 4), (1,)])
def test_what_is_kept_is_scaled_and_so_is_its_gradient(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.randn(shape).to(dtype).requires_grad_()
    torch.manual_seed(3)
    found = dropout(values, 0.3)
    torch.manual_seed(3)
    mask = mask_of(draw(values.numel()), 0.3, values.shape, dtype)
    assert found.dtype == dtype
    assert torch.equal(found, values.detach() * mask * gain_of(0.3))
    gradient = torch.randn(shape).to(dtype)
    found.backward(gradient)  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert torch.equal(values.grad, gradient * mask * gain_of(0.3))


def test_the_mean_stays() -> None:
    assert gain_of(0.5) == 2
    assert gain_of(0.1) == pytest.approx(1 / 0.9, rel=1e-4)
    assert float(dropout(torch.ones(1_000_000), 0.2).mean()) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(
    ("probability", "training", "inplace"),
    [(0.0, True, False), (1.0, True, False), (0.5, False, False), (1e-9, True, False), (0.5, True, True)],
)
def test_the_rest_is_torchs(probability: float, training: bool, inplace: bool) -> None:
    values = torch.randn(50)
    torch.manual_seed(1)
    found = dropout(values.clone(), probability, training, inplace)
    torch.manual_seed(1)
    assert torch.equal(found, functional.dropout(values.clone(), probability, training, inplace))


# ---- attention ------------------------------------------------------------------------------------------------------

TEXTS, HEADS, LENGTH, WIDTH = 3, 4, 6, 5


Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(dtype: torch.dtype = torch.float32) -> Parts:
    """Query, key and value as models have them: transposed."""

    def made() -> torch.Tensor:
        return torch.randn(TEXTS, LENGTH, HEADS, WIDTH).to(dtype).transpose(1, 2).requires_grad_()

    return made(), made(), made()


def masks() -> dict[str, torch.Tensor | None]:
    seen = torch.ones(TEXTS, 1, 1, LENGTH, dtype=torch.bool)
    seen[0, ..., 4:] = False
    seen[2, ..., 1:] = False
    return {
        "none": None,
        "padding": seen,
        "padding of each row": seen.expand(TEXTS, 1, LENGTH, LENGTH),
        "one for all": torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool).tril(),
        "of each head": (torch.rand(TEXTS, HEADS, LENGTH, LENGTH) > 0.5)
        | torch.eye(LENGTH, dtype=torch.bool),
    }


def plainly(parts: Parts, allowed: torch.Tensor | None, probability: float, scale: float) -> torch.Tensor:
    """The formula, with the random numbers that `attention` draws after the same seed."""
    query, key, value = (part.float() for part in parts)
    products = query @ key.transpose(-1, -2) * scale
    if allowed is not None:
        products = products.masked_fill(~allowed, float("-inf"))
    mask = mask_of(draw(products.numel()), probability, products.shape, torch.float32)
    return (products.softmax(-1) * mask * gain_of(probability)) @ value


@pytest.mark.parametrize("kind", list(masks()))
def test_attention_and_its_gradients_follow_the_formula(kind: str) -> None:
    parts, allowed, gradient = inputs(), masks()[kind], torch.randn(TEXTS, HEADS, LENGTH, WIDTH)
    torch.manual_seed(7)
    found = attention(*parts, attn_mask=allowed, dropout_p=0.3, scale=0.4)
    torch.manual_seed(7)
    expected = plainly(parts, allowed, 0.3, 0.4)
    torch.testing.assert_close(found, expected)
    given = gradient.clone()
    for one, other in zip(
        torch.autograd.grad(found, parts, given), torch.autograd.grad(expected, parts, gradient), strict=True
    ):
        torch.testing.assert_close(one, other)
    assert torch.equal(given, gradient)  # it belongs to the caller


@pytest.mark.parametrize("autocast", [False, True])
def test_halves_are_computed_in_float32(autocast: bool) -> None:
    parts = inputs(torch.bfloat16)
    gradient = torch.randn(TEXTS, HEADS, LENGTH, WIDTH).bfloat16()
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        found = attention(*parts, attn_mask=masks()["padding"], dropout_p=0.3)
    torch.manual_seed(7)
    expected = plainly(parts, masks()["padding"], 0.3, WIDTH**-0.5).bfloat16()
    assert found.dtype == torch.bfloat16
    assert float((found == expected).float().mean()) > 0.9  # but for what lies between two of its numbers
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, parts, gradient),
        torch.autograd.grad(expected, parts, gradient),
        strict=True,
    ):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout_p": 0.0},
        {"dropout_p": 0.5, "is_causal": True},
        {"dropout_p": 0.5, "attn_mask": torch.zeros(TEXTS, 1, LENGTH, LENGTH)},
    ],
)
def test_other_attention_is_torchs(options: dict[str, Any]) -> None:
    parts = inputs()
    torch.manual_seed(1)
    found = attention(*parts, **options)
    torch.manual_seed(1)
    assert torch.equal(found, functional.scaled_dot_product_attention(*parts, **options))


# ---- in a model -----------------------------------------------------------------------------------------------------


def test_inside_they_stand_for_torchs_and_outside_they_do_not() -> None:
    values, parts, layer = torch.randn(200), inputs(), nn.Dropout(0.5)

    def work() -> list[torch.Tensor]:
        torch.manual_seed(2)
        return [layer(values), functional.scaled_dot_product_attention(*parts, dropout_p=0.5)]

    with FastDropout():
        inside = work()
    torch.manual_seed(2)
    expected = [dropout(values, 0.5), attention(*parts, dropout_p=0.5)]
    assert all(map(torch.equal, inside, expected))
    assert not any(map(torch.equal, work(), expected))


def test_not_where_it_cannot_be(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = Encoder.from_pretrained(make_folder(tmp_path), ("toxic", "insult")).model
    assert isinstance(fast_dropout.fast_dropout(model, CPU), FastDropout)
    assert isinstance(fast_dropout.fast_dropout(model, torch.device("cuda")), nullcontext)
    model.train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    assert isinstance(fast_dropout.fast_dropout(model, CPU), nullcontext)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "deberta-v2", "modernbert", "t5", "gpt2", "llama"])
def test_encoders_train_inside(
    kind: str, make_folder: Callable[..., Path], batch: Callable[..., Any], tmp_path: Path
) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path, kind), ("toxic", "insult", "threat")).train()
    ids, mask = batch(encoder)
    with FastDropout():
        logits = encoder(ids, mask)
    logits.sum().backward()
    gradients = [each.grad for each in encoder.parameters() if each.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
