"""The training options that are saved in a model file: names and plain values, but not the user's own code."""

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
    """Return the training options for a model file, from which `TextClassifier` restores them.

    Args:
        optimizer: the user's option.
        lr_scheduler: the user's option.
        loss: the user's option.
        trained: the loss that was used in training, with its weights; None before training.

    Returns:
        The options by name, None for the user's own code; `"not_kept"`, the names of the options that are code; and
        `"loss"`, the trained loss with its weights, if it is one of the library's.
    """
    given = {"optimizer": _named(optimizer), "lr_scheduler": lr_scheduler, "loss_fn": loss}
    kept = {name: _plain_or_none(name, value) for name, value in given.items()}
    not_kept = [name for name, value in given.items() if value is not None and kept[name] is None]
    numbers = {"loss": trained.content()} if isinstance(trained, Loss) else {}
    return {**kept, "not_kept": not_kept, **numbers}


def not_kept_sentence(names: Sequence[str]) -> str:
    """Explain what to do about options that a model file cannot contain."""
    verb, they = ("is", "it") if len(names) == 1 else ("are", "they")
    return (
        f"A model file cannot hold {' and '.join(names)} where {they} {verb} code of your own: to train on, or to measure "
        f"the same loss, pass {', '.join(f'{name}=' for name in names)} to load_from_checkpoint."
    )


def choices_of(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model file's training options; report those that it could not contain, unless `overrides` has them."""
    from lightning.pytorch.utilities import rank_zero_info

    not_kept = settings.get("not_kept")
    lost = [name for name in CHOICES if isinstance(not_kept, list) and name in not_kept]
    if lost := [name for name in lost if name not in overrides]:
        rank_zero_info(not_kept_sentence(lost))
    return {name: settings.get(name) for name in CHOICES}


def kept_loss(settings: Mapping[str, Any]) -> Loss | None:
    """Return the loss that a model file was trained with; None if the file has none.

    Raises:
        CheckpointError: the saved loss is damaged.
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
    """Replace an optimizer class of torch, or a `functools.partial` of one, by its name and arguments."""
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
