"""Finetuning strategies by name: which layers train, from which epoch on."""

from dataclasses import dataclass
from typing import Any

from flash.core.errors import FlashError, unknown_name

STRATEGIES = {
    "no_freeze": "every layer trains from the start",
    "freeze": "only the head trains",
    "freeze_unfreeze": '("freeze_unfreeze", epoch): the head alone until `epoch`, then every layer',
    "unfreeze_milestones": '("unfreeze_milestones", ((first, second), layers)): the head alone until epoch `first`, '
    "then the last `layers` layers too, and every layer from epoch `second` on",
}


@dataclass(frozen=True)
class FinetuningStrategy:
    """A strategy's name, the epochs at which it unfreezes, and how many layers it unfreezes first."""

    name: str
    epochs: tuple[int, ...] = ()
    layers: int = 0


def parse_strategy(strategy: str | tuple[Any, ...] | list[Any]) -> FinetuningStrategy:
    """What `finetune(strategy=...)` was given, checked.

    Raises:
        FlashError: no such name, or not the numbers that it takes.

    >>> parse_strategy(("freeze_unfreeze", 2))
    FinetuningStrategy(name='freeze_unfreeze', epochs=(2,), layers=0)
    """
    name, *numbers = [strategy] if isinstance(strategy, str) else list(strategy) or [""]
    if not name:
        raise FlashError(f"the strategy {strategy!r} is empty; expected a name, such as 'freeze'")
    if name == "unfreeze_milestones" and len(numbers) == 1:
        numbers = list(numbers[0])  # Flash's own spelling nests the pair: (name, ((first, second), layers))
    if name not in STRATEGIES:
        raise FlashError(unknown_name("finetuning strategy", str(name), STRATEGIES))
    match name, numbers:
        case (("no_freeze" | "freeze"), []):
            return FinetuningStrategy(name)
        case "freeze_unfreeze", [int(epoch)] if epoch >= 0:
            return FinetuningStrategy(name, (epoch,))
        case "unfreeze_milestones", [[int(first), int(second)], int(layers)] if (
            0 <= first <= second and layers > 0
        ):
            return FinetuningStrategy(name, (first, second), layers)
    raise FlashError(f"the strategy {strategy!r} is not complete; expected {name}: {STRATEGIES[name]}")
