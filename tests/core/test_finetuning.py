"""Finetuning strategies by name."""

from typing import Any

import pytest

from flash.core.errors import FlashError
from flash.core.finetuning import STRATEGIES, FinetuningStrategy, parse_strategy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("no_freeze", FinetuningStrategy("no_freeze")),
        ("freeze", FinetuningStrategy("freeze")),
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
