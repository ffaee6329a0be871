"""Finetuning strategies by name."""

import subprocess
import sys
from typing import Any

import pytest
from lightning.pytorch.callbacks import BackboneFinetuning

from flash.core.errors import FlashError
from flash.core.finetuning import STRATEGIES, FinetuningStrategy, parse_strategy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("no_freeze", FinetuningStrategy("no_freeze")),
        ("freeze", FinetuningStrategy("freeze")),
        ("lora", FinetuningStrategy("lora")),
        (("freeze_unfreeze", 2), FinetuningStrategy("freeze_unfreeze", (2,))),
        (["unfreeze_milestones", [[3, 7], 5]], None),
        (("unfreeze_milestones", (3, 7), 5), FinetuningStrategy("unfreeze_milestones", (3, 7), 5)),
        (("unfreeze_milestones", ((3, 7), 5)), FinetuningStrategy("unfreeze_milestones", (3, 7), 5)),
    ],
)
def test_known_strategies(given: Any, expected: FinetuningStrategy | None) -> None:
    assert parse_strategy(given) == (expected or FinetuningStrategy("unfreeze_milestones", (3, 7), 5))


def test_unknown_name_answers_with_the_closest() -> None:
    with pytest.raises(FlashError, match="unknown finetuning strategy 'frezze'; did you mean 'freeze'"):
        parse_strategy("frezze")


@pytest.mark.parametrize(
    "given",
    [
        "freeze_unfreeze",
        ("freeze_unfreeze", "2"),
        ("freeze", 1),
        ("lora", 8),
        ("unfreeze_milestones", ((7, 3), 5)),
        ("freeze_unfreeze", -1),
    ],
)
def test_incomplete_strategy_says_what_it_takes(given: Any) -> None:
    name = given if isinstance(given, str) else given[0]
    with pytest.raises(FlashError, match="is not complete; expected") as error:
        parse_strategy(given)
    assert STRATEGIES[name] in str(error.value)


def test_an_empty_tuple() -> None:
    with pytest.raises(FlashError, match="expected a name, such as 'freeze'"):
        parse_strategy(())


def test_a_callback_passes_through() -> None:
    callback = BackboneFinetuning(unfreeze_backbone_at_epoch=3)
    assert parse_strategy(callback) is callback


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "the strategy 3 is not understood; expected one of no_freeze, freeze, freeze_unfreeze"),
        (None, "the strategy None is not understood; expected one of no_freeze"),
        (BackboneFinetuning, "lightning.pytorch.callbacks.BaseFinetuning; pass an object of it"),
    ],
)
def test_neither_a_name_nor_a_callback(given: Any, words: str) -> None:
    with pytest.raises(FlashError) as error:
        parse_strategy(given)
    assert words in str(error.value)


def test_names_need_neither_torch_nor_lightning() -> None:
    code = "import sys; from flash.core.finetuning import parse_strategy; parse_strategy('lora'); "
    code += "sys.exit(bool({'torch', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
