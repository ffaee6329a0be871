"""Finetuning strategies by name: which layers train, from which epoch on.

Imports nothing of the project but errors, and neither torch nor Lightning; `layer_finetuning` does what a strategy
says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from flash.core.errors import FlashError, unknown_name

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import BaseFinetuning

STRATEGIES = {
    "no_freeze": "every layer trains from the start",
    "freeze": "only the head trains",
    "freeze_unfreeze": '("freeze_unfreeze", epoch): the head alone until `epoch`, then every layer',
    "unfreeze_milestones": '("unfreeze_milestones", ((first, second), layers)): the head alone until epoch `first`, '
    "then the last `layers` layers too, and every layer from epoch `second` on",
    "lora": "matrices of low rank train beside the layers, which stay as they are",
}


@dataclass(frozen=True)
class FinetuningStrategy:
    """A strategy's name, the epochs at which it unfreezes, and how many layers it unfreezes first."""

    name: str
    epochs: tuple[int, ...] = ()
    layers: int = 0


@overload
def parse_strategy(strategy: str | tuple[Any, ...] | list[Any]) -> FinetuningStrategy: ...
@overload
def parse_strategy(strategy: "BaseFinetuning") -> "BaseFinetuning": ...
@overload
def parse_strategy(
    strategy: "str | tuple[Any, ...] | list[Any] | BaseFinetuning",
) -> "FinetuningStrategy | BaseFinetuning": ...
def parse_strategy(strategy: Any) -> "FinetuningStrategy | BaseFinetuning":
    """What `finetune(strategy=...)` was given, checked; a callback of Lightning's is returned as it is.

    Raises:
        FlashError: no such name, or not the numbers that it takes.

    >>> parse_strategy(("freeze_unfreeze", 2))
    FinetuningStrategy(name='freeze_unfreeze', epochs=(2,), layers=0)
    """
    if not isinstance(strategy, str | tuple | list):
        return _callback(strategy)
    name, *numbers = [strategy] if isinstance(strategy, str) else list(strategy) or [""]
    if not name:
        raise FlashError(f"the strategy {strategy!r} is empty; expected a name, such as 'freeze'")
    if name == "unfreeze_milestones" and len(numbers) == 1:
        numbers = list(numbers[0])  # Flash's own spelling nests the pair: (name, ((first, second), layers))
    if name not in STRATEGIES:
        raise FlashError(unknown_name("finetuning strategy", str(name), STRATEGIES))
    match name, numbers:
        case (("no_freeze" | "freeze" | "lora"), []):
            return FinetuningStrategy(name)
        case "freeze_unfreeze", [int(epoch)] if epoch >= 0:
            return FinetuningStrategy(name, (epoch,))
        case "unfreeze_milestones", [[int(first), int(second)], int(layers)] if (
            0 <= first <= second and layers > 0
        ):
            return FinetuningStrategy(name, (first, second), layers)
    raise FlashError(f"the strategy {strategy!r} is not complete; expected {name}: {STRATEGIES[name]}")


def _callback(strategy: Any) -> "BaseFinetuning":
    """A callback that freezes and unfreezes by rules of its own."""
    from lightning.pytorch.callbacks import BaseFinetuning  # takes a second: only where it is not a name

    if isinstance(strategy, BaseFinetuning):
        return strategy
    hint = "; pass an object of it" if isinstance(strategy, type) else ""
    raise FlashError(
        f"the strategy {strategy!r} is not understood; expected one of {', '.join(STRATEGIES)}, a tuple of one and "
        f"its epochs, or an object of lightning.pytorch.callbacks.BaseFinetuning{hint}"
    )
