"""The form of predictions: label names, class indices, probabilities or logits.

`Calibration` calibrates a backbone's logits. `applies` is the decision rule of predictions, metrics and threshold
tuning. Shared by the trainer, the predictor and the command line. Imports neither torch nor lightning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.scores.output_objects import ClassificationOutput, names_in_force
from flash.text.classification.scores.output_objects import Output as OwnOutput

Logits: TypeAlias = NDArray[np.float32]
Output: TypeAlias = str | Callable[[NDArray[np.float32]], Any]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of logits: logits * scale + shift.

    Attributes:
        scale: (L,) float32, above 0.
        shift: (L,) float32.
    """

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]

    @classmethod
    def identity(cls, count: int) -> "Calibration":
        """Return the calibration that leaves the logits of `count` labels unchanged."""
        return cls(np.ones(count, np.float32), np.zeros(count, np.float32))

    def apply(self, logits: ArrayLike) -> NDArray[np.float32]:
        """Return calibrated logits, (N, L) float32, from (N, L) logits; infinite beyond float32's range."""
        with np.errstate(over="ignore"):
            calibrated: NDArray[np.float32] = np.asarray(logits, np.float32) * self.scale + self.shift
        return calibrated


def applies(probabilities: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Decide where a label applies: its probability is at least its threshold, both converted to float32.

    Shapes follow NumPy's broadcasting: (N, L) probabilities with (L,) thresholds give (N, L).
    """
    decided: NDArray[np.bool_] = np.asarray(probabilities, np.float32) >= np.asarray(thresholds, np.float32)
    return decided


def to_probabilities(logits: ArrayLike, multi_label: bool) -> NDArray[np.float32]:
    """Return the sigmoid of each logit (multi-label) or the softmax of each row (single-label).

    Args:
        logits: (N, L); large values do not overflow.
        multi_label: sigmoid or softmax.

    Returns:
        (N, L) float32 in [0, 1].

    Raises:
        FlashError: a logit is NaN.
    """
    values: Any = np.asarray(logits, np.float32)  # Any: NumPy's type stubs lose float32 below
    if values.size and np.isnan(values.min()):
        broken = np.flatnonzero(np.isnan(values).any(axis=1))
        raise FlashError(
            f"the model's output is not a number for {broken.size:,} of {len(values):,} texts (the first is "
            f"number {broken[0] + 1}), so its weights are broken; train it again with a smaller learning rate"
        )
    if multi_label:
        # exp of numbers <= 0 cannot overflow, and 1 / (1 + e) and e / (1 + e) are exact to rounding
        shrunk = np.exp(-np.abs(values))
        probabilities: NDArray[np.float32] = np.where(values >= 0, np.float32(1), shrunk) / (1 + shrunk)
        return probabilities
    values = np.clip(values, -1e30, 1e30)  # infinity minus infinity would be NaN
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    softmax: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return softmax


def _as_classes(
    logits: Logits, labels: Sequence[Any], multi_label: bool, thresholds: ArrayLike | None
) -> list[list[int]] | list[int]:
    """Return column indices, ascending in each row; see `_as_labels`."""
    classes: list[list[int]] | list[int] = _as_labels(logits, range(len(labels)), multi_label, thresholds)
    return classes


def _as_labels(logits: Logits, labels: Sequence[Any], multi_label: bool, thresholds: ArrayLike | None) -> Any:
    """Return the names that apply to each row, in label order (multi-label), or the most probable name."""
    probabilities = to_probabilities(logits, multi_label)
    names = np.empty(len(labels), dtype=object)
    names[:] = labels
    if not multi_label:
        return names[probabilities.argmax(axis=1)].tolist()
    if thresholds is None:
        raise FlashError(
            "labels need thresholds; give one number in [0, 1] per label, such as thresholds=0.5"
        )
    rows, columns = np.nonzero(applies(probabilities, thresholds))
    chosen = names[columns].tolist()
    ends = np.bincount(rows, minlength=len(probabilities)).cumsum().tolist()
    return [chosen[start:end] for start, end in pairwise([0, *ends])]


def _as_probabilities(
    logits: Logits, labels: Sequence[Any], multi_label: bool, thresholds: ArrayLike | None
) -> NDArray[np.float32]:
    """(N, L) float32."""
    return to_probabilities(logits, multi_label)


def _as_logits(
    logits: Logits, labels: Sequence[Any], multi_label: bool, thresholds: ArrayLike | None
) -> NDArray[np.float32]:
    """(N, L) float32, unchanged."""
    return logits


OUTPUTS: dict[str, Callable[[Logits, Sequence[Any], bool, ArrayLike | None], Any]] = {
    "labels": _as_labels,
    "classes": _as_classes,
    "probabilities": _as_probabilities,
    "logits": _as_logits,
    "preds": _as_logits,  # Lightning Flash's name for the raw outputs
}


def check_output(output: Any) -> None:
    """Check an output.

    Raises:
        FlashError: neither a name in `OUTPUTS` nor a callable, or a class instead of an object of it.
    """
    if isinstance(output, type):
        raise FlashError(
            f"the output {output.__name__} is a class; pass an object of it: {output.__name__}()"
        )
    if not callable(output) and (not isinstance(output, str) or output not in OUTPUTS):
        raise FlashError(unknown_name("output", str(output), OUTPUTS))


def convert(
    logits: ArrayLike,
    output: Output,
    *,
    labels: Sequence[str],
    multi_label: bool,
    thresholds: ArrayLike | None,
    as_rows: Callable[[Logits], Any] = np.asarray,
) -> Any:
    """Convert logits to the requested output.

    Args:
        logits: (N, L).
        output: "labels" (a list of names per row; in single-label mode one name per row), "classes" (the same with
            column indices), "probabilities" or "logits" ((N, L) float32), "preds" (as "logits"), a function that
            gets the (N, L) probabilities and whose result is returned, or an object of `output_objects`: one that
            stands for a name, with its own labels and threshold, or the user's own, which gets the logits row by row.
        labels: the L names in order.
        multi_label: sigmoid and thresholds, or softmax and the most probable label.
        thresholds: (L,); a label applies if its probability reaches its threshold. Unused (may be None) in
            single-label mode, which takes the first among equals.
        as_rows: converts the logits to the rows that a user's own output object gets.

    Raises:
        FlashError: an unknown output, a number of columns that differs from the number of labels, or NaN logits.

    >>> logits = [[2.0, -1.0], [-3.0, -4.0]]
    >>> convert(logits, "labels", labels=["toxic", "threat"], multi_label=True, thresholds=[0.5, 0.5])
    [['toxic'], []]
    """
    values = np.asarray(logits, np.float32)
    if values.ndim != 2 or values.shape[1] != len(labels):
        raise FlashError(
            f"logits have shape {values.shape}; expected (rows, {len(labels)}), a column per label"
        )
    if isinstance(output, ClassificationOutput):
        labels = names_in_force(output, labels)
        thresholds = thresholds if output.thresholds is None else output.thresholds
        output = output.name
    check_output(output)
    if isinstance(output, str):
        return OUTPUTS[output](values, labels, multi_label, thresholds)
    if isinstance(output, OwnOutput):
        return [output.transform(row) for row in as_rows(values)]
    return output(to_probabilities(values, multi_label))
