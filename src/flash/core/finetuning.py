"""Finetuning strategies by name: which layers train, from which epoch on.

Imports nothing of the project but errors, and neither torch nor Lightning; `layer_finetuning` implements
the strategies.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from inspect import signature
from typing import TYPE_CHECKING, Any, overload

from flash.core.errors import FlashError, MovedNameError, unknown_name

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import BaseFinetuning

STRATEGIES = {
    "no_freeze": "every layer trains from the start",
    "freeze": "only the head trains",
    "freeze_unfreeze": '("freeze_unfreeze", epoch): the head alone until `epoch`, then every layer',
    "unfreeze_milestones": '("unfreeze_milestones", ((first, second), layers)): the head alone until epoch `first`, '
    "then the last `layers` layers too, and every layer from epoch `second` on",
    "lora": '"lora", ("lora", rank) or ("lora", {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": "all-linear"}): '
    "matrices of low rank train beside the layers, which stay as they are until the fit ends and they take these up",
}

ALL_LINEAR = "all-linear"


MOVED = ("FlashBaseFinetuning", "Freeze", "FreezeUnfreeze", "NoFreeze", "UnfreezeMilestones")
"""Strategy classes of Lightning Flash."""


def __getattr__(name: str) -> Any:
    if name in MOVED:
        raise MovedNameError(
            f"flash.core.finetuning has no {name}; pass a strategy by name, such as strategy='freeze', or derive your own "
            "from lightning.pytorch.callbacks.BaseFinetuning"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds or (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class LoraOptions:
    """The options of the strategy `lora`, under the names that Hu et al. gave them ("LoRA", ICLR 2022, section 4.1).

    Raises:
        FlashError: a value is out of range.
    """

    rank: int = 8
    """Rank of the two matrices whose product is added to a layer's weights."""
    alpha: float | None = None
    """The product is scaled by alpha / rank; None for twice the rank."""
    dropout: float = 0.05
    """Dropout rate of an adapter's inputs in training, at least 0 and below 1."""
    targets: str | tuple[str, ...] = ALL_LINEAR
    """Layers with adapters: "all-linear" for all but the head, or suffixes of their names, such as ("query", "value")."""

    def __post_init__(self) -> None:
        names = self.targets if isinstance(self.targets, tuple) else (self.targets,)
        expected = {
            "rank": (_is_number(self.rank, int) and self.rank >= 1, "a whole number from 1 on"),
            "alpha": (
                self.alpha is None or (_is_number(self.alpha) and 0 < self.alpha < float("inf")),
                "a number above 0, or None",
            ),
            "dropout": (_is_number(self.dropout) and 0 <= self.dropout < 1, "a number from 0 on and below 1"),
            "targets": (
                bool(names) and all(isinstance(name, str) and name for name in names),
                f"{ALL_LINEAR!r}, or names of linear layers",
            ),
        }
        for option, (holds, wanted) in expected.items():
            if not holds:
                raise FlashError(
                    f"option {option} of the strategy 'lora' is {getattr(self, option)!r}; expected {wanted}"
                )

    @property
    def scaling(self) -> float:
        """The factor of the product of an adapter's matrices."""
        return 2.0 if self.alpha is None else self.alpha / self.rank

    def plain(self) -> dict[str, Any]:
        """The options as `parse_strategy` accepts them, with the value of alpha that None means."""
        targets = list(self.targets) if isinstance(self.targets, tuple) else self.targets
        return {**asdict(self), "alpha": self.scaling * self.rank, "targets": targets}


@dataclass(frozen=True)
class FinetuningStrategy:
    """A strategy's name, the epochs at which it unfreezes, how many layers it unfreezes first, and adapters."""

    name: str
    epochs: tuple[int, ...] = ()
    layers: int = 0
    lora: LoraOptions = LoraOptions()


@overload
def parse_strategy(strategy: str | tuple[Any, ...] | list[Any]) -> FinetuningStrategy: ...
@overload
def parse_strategy(strategy: "BaseFinetuning") -> "BaseFinetuning": ...
@overload
def parse_strategy(
    strategy: "str | tuple[Any, ...] | list[Any] | BaseFinetuning",
) -> "FinetuningStrategy | BaseFinetuning": ...
def parse_strategy(strategy: Any) -> "FinetuningStrategy | BaseFinetuning":
    """Parse the argument of `finetune(strategy=...)`; a Lightning callback is returned unchanged.

    Raises:
        FlashError: an unknown name, or invalid numbers.

    >>> parse_strategy(("freeze_unfreeze", 2)).epochs
    (2,)
    >>> parse_strategy(("lora", 4)).lora
    LoraOptions(rank=4, alpha=None, dropout=0.05, targets='all-linear')
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
        case "lora", [int(rank)]:
            return FinetuningStrategy(name, lora=LoraOptions(rank))
        case "lora", [{**options}]:
            return FinetuningStrategy(name, lora=_lora_options(options))
    raise FlashError(f"the strategy {strategy!r} is not complete; expected {name}: {STRATEGIES[name]}")


def _lora_options(given: Mapping[Any, Any]) -> LoraOptions:
    """Options from a user's dict, whose targets may be one name or a list."""
    known = [field.name for field in fields(LoraOptions)]
    for option in given:
        if option not in known:
            raise FlashError(unknown_name("option of the strategy 'lora'", str(option), known))
    options = dict(given)
    targets = options.get("targets", ALL_LINEAR)
    if isinstance(targets, list) or (isinstance(targets, str) and targets != ALL_LINEAR):
        options["targets"] = tuple(targets) if isinstance(targets, list) else (targets,)
    return LoraOptions(**options)


def _callback(strategy: Any) -> "BaseFinetuning":
    """Check a user's own finetuning callback."""
    from lightning.pytorch.callbacks import BaseFinetuning  # slow to import, and not needed for a name

    if isinstance(strategy, BaseFinetuning):
        if len(signature(strategy.finetune_function).parameters) > 3:
            raise FlashError(
                f"finetune_function of {type(strategy).__name__} takes opt_idx, which Lightning no longer gives; define "
                "it as: def finetune_function(self, pl_module, epoch, optimizer)"
            )
        return strategy
    hint = "; pass an object of it" if isinstance(strategy, type) else ""
    raise FlashError(
        f"the strategy {strategy!r} is not understood; expected one of {', '.join(STRATEGIES)}, a tuple of one and "
        f"its epochs, or an object of lightning.pytorch.callbacks.BaseFinetuning{hint}"
    )
