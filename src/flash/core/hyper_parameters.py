"""Hyperparameters of a training run and the size of its data, as plain values under stable names for any logger.

Imports nothing above it: models and datamodules are read by attribute.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST_LABELS = 100
"""Up to this many labels are logged one by one; beyond it, the smallest, median and largest count."""

LONGEST_VALUE = 250  # characters; MLflow cuts longer ones
TRAINER_OPTIONS = (
    "max_epochs", "max_steps", "num_devices", "num_nodes", "precision", "accumulate_grad_batches",
    "gradient_clip_val", "check_val_every_n_epoch", "limit_train_batches", "limit_val_batches",
)  # fmt: skip


def log_hyper_parameters(trainer: Any, parameters: Mapping[str, Any]) -> None:
    """Log the parameters with every logger of a trainer, from the first process only."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_hyperparams(dict(parameters))


def flat_parameters(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested parameters to plain values of bounded size, named by their path, without None.

    >>> flat_parameters({"model": {"backbone": "linear", "char_ngrams": (2, 5), "learning_rate": None}})
    {'model/backbone': 'linear', 'model/char_ngrams': '2, 5'}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            inner = value if len(value) <= MOST_LABELS else {"count": len(value)}
            flat |= {f"{name}/{rest}": found for rest, found in flat_parameters(inner).items()}
        elif value is not None:
            flat[name] = _plain(value)
    return flat


def trainer_options(trainer: Any) -> dict[str, Any]:
    """The settings of a Lightning trainer, by the names of its arguments."""
    found = {name: getattr(trainer, name, None) for name in TRAINER_OPTIONS}
    finetuning = getattr(trainer, "finetuning", None)
    return {
        **found,
        "accelerator": type(trainer.accelerator).__name__,
        "strategy": type(trainer.strategy).__name__,
        "finetuning": getattr(finetuning, "name", type(finetuning).__name__),
    }


def data_options(datamodule: Any) -> dict[str, Any]:
    """A datamodule's files, options, rows per split, and positives per label in training."""
    splits = {split: getattr(datamodule, f"{split}_dataset", None) for split in ("train", "val", "test")}
    rows = {f"{split}_rows": len(dataset) for split, dataset in splits.items() if dataset is not None}
    found = {name: getattr(datamodule, name, None) for name in ("input_field", "batch_size", "seed")}
    targets = getattr(splits["train"], "targets", None)
    labels = getattr(datamodule, "labels", None) or []
    counts = {} if targets is None else label_counts(labels, targets)
    return {**getattr(datamodule, "files", {}), **found, **rows, "labels": len(labels), **counts}


def label_counts(labels: Sequence[str], targets: Any) -> dict[str, Any]:
    """The number of rows with each label; for many labels, summary statistics.

    Args:
        labels: L names.
        targets: (N, L) sparse targets; from 0.5 on a label applies.
    """
    positive = targets.indices[targets.data >= 0.5]
    counts = np.bincount(positive, minlength=len(labels))
    if len(labels) <= MOST_LABELS:
        names = _distinct([re.sub(r"[^\w -]", "_", label) for label in labels])
        return {"train_positives": dict(zip(names, counts.tolist(), strict=True))}
    return {
        "train_positives_smallest": int(counts.min()),
        "train_positives_median": float(np.median(counts)),
        "train_positives_largest": int(counts.max()),
        "labels_without_positives": int((counts == 0).sum()),
    }


def _distinct(names: list[str]) -> list[str]:
    """The names, with the index appended to repeated ones."""
    return [name if name not in names[:place] else f"{name}_{place}" for place, name in enumerate(names)]


def _plain(value: Any) -> Any:
    """A number, a bool, or a text short enough for every logger."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple | set):
        value = ", ".join(map(str, value))
    elif not isinstance(value, str | Path):
        value = getattr(value, "__name__", None) or type(value).__name__
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
