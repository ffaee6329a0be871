"""Resolve thresholds from the model's tuned ones and the user's option, and check arrays for metrics and tuning.

Thresholds are for `outputs.applies`: a label applies if its probability reaches its threshold, compared as float32.
Imports neither torch nor lightning.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.targets.known import known_cells

if TYPE_CHECKING:  # scipy.sparse is slow to import, and prediction does not need it
    from scipy.sparse import csc_array

Thresholds: TypeAlias = float | Sequence[float] | Mapping[str, float] | Literal["auto"] | None

BLOCK_CELLS = 2**22  # cells per block: 16 MB of float32, whatever the number of rows and labels
EXPECTED = "expected a number in [0, 1], a list with one per label, a dict by label, or 'auto'"


def resolve_thresholds(
    thresholds: Thresholds, labels: Sequence[str], tuned: ArrayLike
) -> NDArray[np.float32]:
    """Return the (L,) float32 thresholds to use.

    Args:
        thresholds: None or "auto" for the tuned ones; one number for all labels; one number per label in label order (a
            list, an array); or a dict by label name, in which missing labels keep their tuned threshold.
        labels: the L names in order.
        tuned: the model's tuned thresholds: (L,), or one for all labels.

    Raises:
        FlashError: an unknown label, a number of values that differs from the number of labels, or a value outside
            [0, 1].
    """
    resolved = np.array(np.broadcast_to(np.asarray(tuned, np.float32), (len(labels),)))
    asked: Any = thresholds
    if hasattr(asked, "tolist"):  # numbers and columns of NumPy, torch and pandas
        asked = asked.tolist()
    if asked is None or (isinstance(asked, str) and asked == "auto"):
        return resolved
    if isinstance(asked, Mapping):
        values = dict(asked)
    elif isinstance(asked, Sequence) and not isinstance(asked, str | bytes):
        if len(asked) != len(labels):
            raise FlashError(f"thresholds has {len(asked)} values for {len(labels)} labels; {EXPECTED}")
        values = dict(zip(labels, asked, strict=True))
    elif isinstance(asked, Real) and not isinstance(asked, bool):
        values = dict.fromkeys(labels, asked)
    else:
        raise FlashError(f"thresholds={asked!r} is not understood; {EXPECTED}")
    _check_values(values, labels)
    index = {label: column for column, label in enumerate(labels)}
    for label, value in values.items():
        resolved[index[label]] = value
    return resolved


def _check_values(values: Mapping[Any, Any], labels: Sequence[str]) -> None:
    """Raise FlashError for unknown labels and for values that are not numbers in [0, 1], all at once."""
    known = set(labels)
    strangers = [str(label) for label in values if label not in known]
    if strangers:
        more = f" ({len(strangers)} such labels in thresholds)" if len(strangers) > 1 else ""
        raise FlashError(unknown_name("label", strangers[0], labels) + more)
    wrong = {
        label: value
        for label, value in values.items()
        if isinstance(value, bool | np.bool_) or not isinstance(value, Real) or not 0 <= float(value) <= 1
    }
    if wrong:
        shown = ", ".join(f"{value!r} for {label!r}" for label, value in list(wrong.items())[:3])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise FlashError(f"thresholds has {shown}{more}; {EXPECTED}")


def check_arrays(
    probabilities: ArrayLike, targets: Any
) -> "tuple[NDArray[np.float32], csc_array, NDArray[np.bool_] | None]":
    """Return probabilities as (N, L) float32, targets as an (N, L) boolean csc_array, and a mask of known targets.

    Targets are positive from 0.5 and unknown if NaN. The mask is None if all are known.

    Raises:
        FlashError: the shapes differ, or a value is not finite or outside [0, 1].
    """
    from scipy.sparse import csc_array, csr_array, issparse

    scores = np.asarray(probabilities, np.float32)
    truth: Any = csr_array(targets) if issparse(targets) else np.asarray(targets, np.float32)
    if scores.ndim != 2 or scores.shape != truth.shape:
        raise FlashError(
            f"probabilities have shape {scores.shape} and targets {truth.shape}; "
            "expected the same (rows, labels) for both"
        )
    _check_range("probabilities", scores, "logits become probabilities by outputs.to_probabilities")
    known, values = known_cells(truth), truth.data if issparse(truth) else truth
    if known is not None:
        values = values[~np.isnan(values)]
    _check_range("targets", values, "1 where a label applies, else 0")
    return scores, csc_array(truth >= 0.5), known


def _check_range(name: str, values: NDArray[Any], hint: str) -> None:
    """Raise FlashError unless every value is in [0, 1] and not NaN; minimum and maximum need no temporary array."""
    if not values.size or (values.min() >= 0 and values.max() <= 1):
        return
    wrong = values[~((values >= 0) & (values <= 1))]
    found = "1 other value" if wrong.size == 1 else f"{wrong.size:,} other values"
    raise FlashError(f"{name} must be numbers in [0, 1]; found {found} (the first is {wrong[0]}); {hint}")


def column_of_each(truth: "csc_array") -> NDArray[np.int64]:
    """Return the column of each stored entry of a csc_array, in storage order; `truth.indices` has the rows."""
    columns: NDArray[np.int64] = np.repeat(np.arange(truth.shape[1]), np.diff(truth.indptr))
    return columns
