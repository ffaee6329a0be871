"""`precision="auto"`: measured on a processor, known of a GPU."""

from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator

import flash
from flash.core import precision
from flash.core.errors import FlashError
from flash.core.precision import (
    OF_PREDICTION,
    Choice,
    check_precision,
    matrices_of,
    measured_choice,
    precision_of_accelerator,
    predicts_in_bfloat16,
)

SHAPES = {(64, 64): 4, (128, 64): 1}


@pytest.fixture(autouse=True)
def nothing_measured_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measured", {})


@pytest.mark.parametrize(("speedup", "bfloat16"), [(0.6, False), (1.19, False), (1.2, True), (2.1, True)])
def test_bfloat16_has_to_be_clearly_faster(
    speedup: float, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_product_times", lambda outputs, inputs: (speedup, 1.0))
    choice = measured_choice(SHAPES)
    assert choice.bfloat16 == bfloat16
    assert choice.reason.startswith(f"bfloat16 is {speedup:.2f} times as fast as float32 here, measured at ")
    assert choice.reason.endswith("shapes" if bfloat16 else ", and 1.2 is wanted")
    name = "bfloat16" if bfloat16 else "float32"
    assert choice.sentence.startswith(f"the encoder predicts in {name}, as bfloat16 is ")
    assert choice.sentence.endswith("; precision='32' always gives float32")


def test_every_weight_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {(64, 64): (1.0, 1.0), (128, 64): (10.0, 2.0)}
    monkeypatch.setattr(precision, "_product_times", lambda *shape: times[shape])
    assert precision.measured_speedup(SHAPES) == pytest.approx((4 * 1 + 10) / (4 * 1 + 2))


def test_a_measurement_is_taken_once_and_moves_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.random.get_rng_state()
    speedup = precision.measured_speedup(SHAPES)
    assert 0 < speedup < 1000
    assert torch.equal(torch.random.get_rng_state(), state)
    monkeypatch.setattr(precision, "_product_times", lambda *shape: pytest.fail("measured again"))
    assert precision.measured_speedup(SHAPES) == speedup


def test_the_flags_of_a_processor_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"avx512_bf16": True, "amx_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    monkeypatch.setattr(precision, "_product_times", lambda *shape: (1.0, 1.7))
    assert not measured_choice(SHAPES).bfloat16


def test_the_matrices_of_a_network() -> None:
    shapes = [(30522, 384), *[(384, 384)] * 4, (1536, 384), (384, 1536), (384,), (6, 384), (2, 3, 4), (0, 5)]
    assert matrices_of(shapes) == {(384, 384): 4, (1536, 384): 1, (384, 1536): 1}
    assert matrices_of([(30522, 384), (384,)]) == {}
    assert measured_choice({}) == Choice(False, "it has no large matrices")


@pytest.mark.parametrize("accelerator", ["auto", "cpu", CPUAccelerator()])
def test_a_processor_is_to_be_measured(accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert precision_of_accelerator(accelerator) is None


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16-mixed"), (False, "16-mixed")])
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_a_gpu(bf16: bool, expected: str, accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    chosen, reason = precision_of_accelerator(accelerator) or ("", "")
    assert chosen == expected
    assert reason.startswith("Some GPU multiplies")


def test_other_hardware_keeps_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sentence = "nothing faster is known for the accelerator 'mps'"
    assert precision_of_accelerator("mps") == ("32-true", sentence)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (precision_of_accelerator("auto") or ("",))[0] == "32-true"


def test_a_trainer_waits_for_the_encoder() -> None:
    assert flash.Trainer(accelerator="cpu", precision="auto", logger=False).precision == "32-true"
    assert flash.Trainer(accelerator="cpu", logger=False).precision == "32-true"


@pytest.mark.parametrize("name", OF_PREDICTION)
def test_precisions_of_prediction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for speedup in (2.0, 0.5):
        monkeypatch.setattr(precision, "measured_speedup", lambda matrices, speedup=speedup: speedup)
        expected = speedup > 1 if name == "auto" else name.startswith("bf16")
        choice = predicts_in_bfloat16(check_precision(name), SHAPES)
        assert (choice.bfloat16, choice.measured) == (expected, name == "auto")


def test_precisions_by_number() -> None:
    assert check_precision(32) == "32"
    with pytest.raises(FlashError, match=r"unknown precision '16'"):
        check_precision(16)
