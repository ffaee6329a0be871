"""`pos_weight`: the weight of a label's positive rows in training, for both kinds of backbones.

Imports neither torch nor Lightning.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from flash.core.errors import FlashError, unknown_name

PosWeight: TypeAlias = float | Sequence[float] | Mapping[str, float] | Literal["balanced"] | None
Floats: TypeAlias = npt.NDArray[np.float32]

EXPECTED = "expected a number above 0, a list with one per label, a dict by label, or 'balanced'"


def label_weights(
    pos_weight: PosWeight, labels: Sequence[str], positives: Any = None, rows: Any = None
) -> Floats:
    """The (L,) float32 weights of the positive targets of each label.

    `"balanced"` is (rows - positives) / positives, as torch's `BCEWithLogitsLoss` advises, with 1 for a label that no
    training row has, and at least one row without the label.

    Args:
        pos_weight: one number for all labels, L numbers, a dict by label (the others weigh 1), or `"balanced"`.
        labels: the L names, in order.
        positives: (L,), the sum of the known training targets of each label; for `"balanced"`.
        rows: in how many training rows those were counted: one number, or (L,) where some targets are not known.

    Raises:
        FlashError: weights that are not L numbers above 0, or no `positives` and `rows` where they are needed.
    """
    if isinstance(pos_weight, str):
        if pos_weight != "balanced":
            raise FlashError(f"pos_weight={pos_weight!r} is not understood; {EXPECTED}")
        counted, total = checked_counts(positives, rows, "pos_weight='balanced'", len(labels))
        without, present = np.maximum(total - counted, np.float32(1)), counted > 0
        weights: Floats = np.divide(without, counted, out=np.ones_like(counted), where=present)
        return weights
    values = _values(pos_weight, labels)
    if len(values) != len(labels):
        raise FlashError(
            f"pos_weight has {len(values)} numbers and the model {len(labels)} labels; pass one per label, in the "
            "order of the labels, or a dict by label"
        )
    for name, value in zip(labels, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < float("inf"):
            raise FlashError(f"the pos_weight of label {name!r} is {value!r}; {EXPECTED}")
    return np.array([float(value) for value in values], np.float32)


def checked_counts(positives: Any, rows: Any, what: str, labels: int) -> tuple[Floats, Floats]:
    """(L,) float32 positives and the number of rows, or (L,) of them.

    Args:
        positives: as for `label_weights`.
        rows: the same.
        what: what needs them, as a sentence calls it.
        labels: L.

    Raises:
        FlashError: they are missing or impossible.
    """
    if positives is None or rows is None:
        raise FlashError(
            f"{what} needs to know how often each label applies; fit on a datamodule whose rows have targets"
        )
    counted, total = np.asarray(positives, np.float32).ravel(), np.asarray(rows, np.float32)
    fitting = len(counted) == labels and total.size in (1, labels) and bool((total >= 1).all())
    if not fitting or not bool(((counted >= 0) & (counted <= total)).all()):
        raise FlashError(
            f"{what} was given {len(counted)} counts in {short(rows)} rows for {labels} labels; expected one count per "
            "label, from 0 to the number of rows"
        )
    return counted, total


def short(value: Any) -> str:
    """A value as a sentence shows it, in 60 characters at most."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _values(pos_weight: Any, labels: Sequence[str]) -> list[Any]:
    """One value per label, of a number, a dict by label, a list, a tuple, an array or a tensor."""
    if isinstance(pos_weight, Mapping):
        if unknown := [name for name in pos_weight if name not in labels]:
            raise FlashError(f"in pos_weight: {unknown_name('label', str(unknown[0]), labels)}")
        return [pos_weight.get(name, 1.0) for name in labels]
    if isinstance(pos_weight, Real):
        return [pos_weight] * len(labels)
    values = pos_weight.tolist() if hasattr(pos_weight, "tolist") else pos_weight
    if not isinstance(values, list | tuple):
        raise FlashError(f"pos_weight={short(pos_weight)} is not understood; {EXPECTED}")
    return list(values)
