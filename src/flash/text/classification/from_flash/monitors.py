"""Names of logged metrics: Lightning Flash's names beside this library's, and which names a callback may monitor."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.scores.metrics import CALIBRATION, PER_LABEL

if TYPE_CHECKING:
    from flash.text.classification.scores.own_metrics import OwnMetrics

OURS = ("flash", "lightning", "torch")
"""Packages whose callbacks log no metrics that a callback could monitor."""
ALWAYS = ("train_loss", "epoch", "step")


class Measured(Protocol):
    """The attributes of a classifier that determine the names of its metrics."""

    labels: list[str]
    multi_label: bool
    loss_fn: Any

    @property
    def metrics(self) -> Any:
        """The user's own metrics, under the keys "val" and "test"."""


def flash_names(scores: Mapping[str, Any], stage: str, model: Measured) -> dict[str, Any]:
    """Return the metrics under the names of Lightning Flash, if these differ from ours.

    `val_f1score` and `val_f1` are the micro-averaged F1; `val_accuracy` is the share of right cells (multi-label) or
    rows; the loss has the name of its function, and a torchmetrics metric that of its class in lower case.

    Args:
        scores: metrics by our names.
        stage: prefix of the names: "val" or "test".
        model: the classifier.
    """
    cells = scores.get(f"{stage}_{'hamming_loss' if model.multi_label else 'subset_accuracy'}")
    accuracy = 1 - cells if model.multi_label and cells is not None else cells
    f1 = scores.get(f"{stage}_micro_f1")
    named = {"f1score": f1, "f1": f1, "accuracy": accuracy, loss_name(model): scores.get(f"{stage}_loss")}
    found = {f"{stage}_{name}": value for name, value in named.items() if value is not None}
    found |= {name.lower(): value for name, value in scores.items() if "/" not in name}
    return {name: value for name, value in found.items() if name not in scores}


def loss_name(model: Measured) -> str:
    """Return the name under which Lightning Flash logged the loss."""
    loss = model.loss_fn
    if loss is None or loss in ("binary_cross_entropy", "cross_entropy"):
        return "binary_cross_entropy_with_logits" if model.multi_label else "cross_entropy"
    if isinstance(loss, Mapping | list | tuple):
        return str(next(iter(loss))) if isinstance(loss, Mapping) and len(loss) == 1 else "total_loss"
    if isinstance(loss, str):
        return loss
    module = getattr(loss, "module", loss)
    while hasattr(module, "func"):  # functools.partial
        module = module.func
    return str(getattr(module, "__name__", type(module).__name__)).lower()


def known_names(model: Measured, *, validation: bool) -> list[str]:
    """Return the names that a callback may monitor while this model is fitted, without the per-label names.

    Args:
        model: the classifier.
        validation: whether there are validation rows.
    """
    if not validation:
        return list(ALWAYS)
    overall = [f"micro_{name}" for name in PER_LABEL[:3]] + [f"macro_{name}" for name in PER_LABEL[:5]]
    calibration = [*CALIBRATION, *(f"uncalibrated_{name}" for name in CALIBRATION)]
    names = [f"val_{name}" for name in ("loss", *overall, "subset_accuracy", "hamming_loss", *calibration)]
    names += _own_names(model)
    return [*names, *flash_names(dict.fromkeys(names, 0.0), "val", model), *ALWAYS]


def check_monitors(model: Measured, callbacks: Iterable[Any], *, validation: bool) -> None:
    """Raise an error if a callback or scheduler monitors a metric that is never logged.

    Nothing is checked if the user has a callback of their own, since it may log metrics too.

    Raises:
        FlashError: the monitored name is unknown, or needs validation rows.
    """
    callbacks = list(callbacks)
    if any(type(one).__module__.partition(".")[0] not in OURS for one in callbacks):
        return
    asked = [(type(one).__name__, getattr(one, "monitor", None)) for one in callbacks]
    asked.append(("lr_scheduler", _monitored(getattr(model, "lr_scheduler", None))))
    for who, name in asked:
        if isinstance(name, str) and not _is_known(name, model, validation=validation):
            _refuse(who, name, model, validation=validation)


def _monitored(lr_scheduler: Any) -> Any:
    words = lr_scheduler[2] if isinstance(lr_scheduler, tuple | list) and len(lr_scheduler) == 3 else {}
    return words.get("monitor") if isinstance(words, dict) else None


def _is_known(name: str, model: Measured, *, validation: bool) -> bool:
    measure, slash, label = name.partition("/")
    if not slash:
        return name in known_names(model, validation=validation)
    return (
        validation
        and measure in [f"val_{each}" for each in PER_LABEL] + _own_names(model)
        and label in model.labels
    )


def _own_names(model: Measured) -> list[str]:
    return cast("OwnMetrics", model.metrics["val"]).names


def _refuse(who: str, name: str, model: Measured, *, validation: bool) -> None:
    if not validation and _is_known(name, model, validation=True):
        raise FlashError(
            f"{who} monitors {name!r}, and there are no validation rows; pass val_split=0.1 or val_file= to the datamodule"
        )
    known = known_names(model, validation=validation)
    raise FlashError(f"{unknown_name(f'monitor of {who}', name, known)}; and val_f1/LABEL for each label")
