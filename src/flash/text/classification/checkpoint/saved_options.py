"""The options of a training that a model file holds: names and plain values, and what to say of the others.

Imports torch, and of the project the errors, arguments, what a file may hold, losses and optimisers; Lightning when there
is something to say.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flash.core.errors import CheckpointError
from flash.text.classification.arguments import plain_value
from flash.text.classification.checkpoint.content import flatten
from flash.text.classification.losses import LOSSES, Loss
from flash.text.classification.optimization import OPTIMIZERS

CHOICES = ("optimizer", "lr_scheduler", "loss_fn")


def saved_options(optimizer: Any, lr_scheduler: Any, loss: Any, trained: Any) -> dict[str, Any]:
    """What a model file says of how it was trained, which `TextClassifier` takes again.

    Args:
        optimizer: the user's.
        lr_scheduler: the user's.
        loss: the user's.
        trained: what a training has made of `loss`; None before one.

    Returns:
        The choices by name, None for one that is code of the user's own; `"not_kept"`, the names of these; and
        `"loss"`, the trained loss with its numbers, where it is one by name.
    """
    given = {"optimizer": _named(optimizer), "lr_scheduler": lr_scheduler, "loss_fn": loss}
    kept = {name: _plain_or_none(name, value) for name, value in given.items()}
    not_kept = [name for name, value in given.items() if value is not None and kept[name] is None]
    numbers = {"loss": trained.content()} if isinstance(trained, Loss) else {}
    return {**kept, "not_kept": not_kept, **numbers}


def not_kept_sentence(names: Sequence[str]) -> str:
    """What to do about choices that a model file could not hold."""
    verb, they = ("is", "it") if len(names) == 1 else ("are", "they")
    return (
        f"A model file cannot hold {' and '.join(names)} where {they} {verb} code of your own: to train on, or to measure "
        f"the same loss, pass {', '.join(f'{name}=' for name in names)} to load_from_checkpoint."
    )


def choices_of(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of a model file by name; says which it could not hold and `overrides` does not give anew."""
    from lightning.pytorch.utilities import rank_zero_info

    not_kept = settings.get("not_kept")
    lost = [name for name in CHOICES if isinstance(not_kept, list) and name in not_kept]
    if lost := [name for name in lost if name not in overrides]:
        rank_zero_info(not_kept_sentence(lost))
    return {name: settings.get(name) for name in CHOICES}


def kept_loss(settings: Mapping[str, Any]) -> Loss | None:
    """The loss that a model file was trained with; None where it says of none.

    Raises:
        CheckpointError: what the file says of it is damaged.
    """
    content = settings.get("loss")
    if content is None:
        return None
    try:
        return Loss.from_content(content)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the model file is damaged: its loss is none of {', '.join(LOSSES)} with its numbers; copy or save it again"
        ) from error


def _named(optimizer: Any) -> Any:
    """A class of torch, or a `functools.partial` of one, by its name, with the arguments that it was given."""
    function: Any = optimizer
    options: dict[str, Any] = {}
    if type(optimizer) in (tuple, list) and len(optimizer) == 2 and isinstance(optimizer[1], dict):
        function, options = optimizer
    while isinstance(function, partial) and not function.args:
        function, options = function.func, {**function.keywords, **options}
    name = function if isinstance(function, str) else _name_of(function)
    if name is None:
        return optimizer
    return (name, options) if options else name


def _name_of(function: Callable[..., Any]) -> str | None:
    return next((name for name, kind in OPTIMIZERS.items() if kind is function), None)


def _plain_or_none(name: str, value: Any) -> Any:
    try:
        plain = plain_value(value)
        flatten(plain, name)
    except CheckpointError:
        return None
    return plain
