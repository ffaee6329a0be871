"""`precision="auto"`: what is chosen on which hardware, and that the trainer says so."""

from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator

import flash
from flash.core import precision
from flash.core.errors import FlashError
from flash.core.precision import OF_PREDICTION, check_precision, fastest_precision, predicts_in_bfloat16


@pytest.mark.parametrize(
    ("can", "expected"),
    [
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"bf16": True, "architecture": "arm64"}, "bf16-mixed"),
        ({"avx2": True, "avx512_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
@pytest.mark.parametrize("accelerator", ["auto", "cpu", CPUAccelerator()])
def test_a_processor(
    can: dict[str, Any], expected: str, accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_instructions", lambda: can)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    chosen, reason = fastest_precision(accelerator)
    assert chosen == expected
    assert reason.startswith("this processor")


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16-mixed"), (False, "16-mixed")])
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_a_gpu(bf16: bool, expected: str, accelerator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    chosen, reason = fastest_precision(accelerator)
    assert chosen == expected
    assert reason.startswith("Some GPU multiplies")


def test_other_hardware_keeps_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fastest_precision("mps") == ("32-true", "nothing faster is known for the accelerator 'mps'")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert fastest_precision("auto")[0] == "32-true"


def test_a_torch_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision._instructions() == {}


def test_the_trainer_says_what_it_took(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "_instructions", lambda: {"avx512_bf16": True})
    with caplog.at_level("INFO"):
        trainer = flash.Trainer(accelerator="cpu", precision="auto", logger=False)
    assert trainer.precision == "bf16-mixed"
    assert (
        "precision='bf16-mixed', as this processor multiplies bfloat16 matrices in hardware." in caplog.text
    )
    assert flash.Trainer(accelerator="cpu", logger=False).precision == "32-true"


@pytest.mark.parametrize("name", OF_PREDICTION)
def test_precisions_of_prediction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for can in (True, False):
        monkeypatch.setattr(precision, "_instructions", lambda can=can: {"amx_bf16": can})
        expected = can if name == "auto" else name.startswith("bf16")
        assert predicts_in_bfloat16(check_precision(name)) == expected


def test_precisions_by_number() -> None:
    assert check_precision(32) == "32"
    with pytest.raises(FlashError, match=r"unknown precision '16'"):
        check_precision(16)
