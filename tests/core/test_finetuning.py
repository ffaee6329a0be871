"""Finetuning strategies by name."""

import subprocess
import sys
from typing import Any

import pytest
from lightning.pytorch.callbacks import BackboneFinetuning

from flash.core.errors import FlashError
from flash.core.finetuning import STRATEGIES, FinetuningStrategy, LoraOptions, parse_strategy


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
        ("lora", "8"),
        ("lora", 8, 16),
        ("unfreeze_milestones", ((7, 3), 5)),
        ("freeze_unfreeze", -1),
    ],
)
def test_incomplete_strategy_says_what_it_takes(given: Any) -> None:
    name = given if isinstance(given, str) else given[0]
    with pytest.raises(FlashError, match="is not complete; expected") as error:
        parse_strategy(given)
    assert STRATEGIES[name] in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("lora", LoraOptions()),
        (("lora", 4), LoraOptions(rank=4)),
        (["lora", {}], LoraOptions()),
        (("lora", {"rank": 2, "alpha": 3, "dropout": 0}), LoraOptions(2, 3, 0)),
        (("lora", {"targets": "all-linear"}), LoraOptions()),
        (("lora", {"targets": "query"}), LoraOptions(targets=("query",))),
        (("lora", {"targets": ["query", "value"]}), LoraOptions(targets=("query", "value"))),
    ],
)
def test_options_of_lora(given: Any, expected: LoraOptions) -> None:
    strategy = parse_strategy(given)
    assert strategy == FinetuningStrategy("lora", lora=expected)
    assert parse_strategy(("lora", strategy.lora.plain())).lora.plain() == expected.plain()


def test_alpha_is_twice_the_rank_unless_given() -> None:
    assert LoraOptions(rank=4).scaling == 2
    assert LoraOptions(rank=4).plain()["alpha"] == 8
    assert LoraOptions(rank=4, alpha=2).scaling == 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (0, "option rank of the strategy 'lora' is 0; expected a whole number from 1 on"),
        (True, "option rank of the strategy 'lora' is True; expected a whole number"),
        ({"rank": "8"}, "option rank of the strategy 'lora' is '8'; expected a whole number"),
        ({"alpha": 0}, "option alpha of the strategy 'lora' is 0; expected a number above 0, or None"),
        (
            {"dropout": 1},
            "option dropout of the strategy 'lora' is 1; expected a number from 0 on and below 1",
        ),
        ({"targets": []}, "option targets of the strategy 'lora' is (); expected 'all-linear', or names"),
        ({"targets": [3]}, "option targets of the strategy 'lora' is (3,); expected 'all-linear'"),
        ({"targets": None}, "option targets of the strategy 'lora' is None; expected 'all-linear'"),
        ({"rang": 8}, "unknown option of the strategy 'lora' 'rang'; did you mean 'rank'"),
    ],
)
def test_options_of_lora_that_cannot_be(options: Any, words: str) -> None:
    with pytest.raises(FlashError) as error:
        parse_strategy(("lora", options))
    assert words in str(error.value)


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
