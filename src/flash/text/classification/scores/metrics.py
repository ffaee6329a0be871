"""Metrics of a classifier. Imports neither torch nor lightning.

`evaluate` compares (N, L) probabilities with targets and returns an `Evaluation`, from which the table
(`table.format_table`), the loggers (`scalars`) and JSON (`to_dict`) take all their values.

The expected calibration error follows Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks",
ICML 2017, with 15 bins, for each label against the rest. The bins have equal numbers of rows instead of equal width
(Nixon, Dusenberry, Zhang, Jerfel and Tran, "Measuring calibration in deep learning", CVPR Workshops 2019), because
nearly all rows of a rare label would be in the first bin of equal width. Bins end at quantiles of the probabilities, so
that equal probabilities share a bin and the result does not depend on the order of the rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array

from flash.core.errors import FlashError
from flash.text.classification.scores.by_length import LengthBin, rows_by_length
from flash.text.classification.scores.outputs import applies
from flash.text.classification.scores.thresholds import BLOCK_CELLS, check_arrays, column_of_each

CALIBRATION = ("expected_calibration_error", "brier")
PER_LABEL = ("precision", "recall", "f1", "average_precision", "roc_auc", *CALIBRATION)
BINS = 15  # of the expected calibration error, as in Guo et al.


@dataclass(frozen=True, eq=False)
class Counts:
    """Numbers of rows per label, (L,) in label order.

    Attributes:
        known: rows with a known target for the label; N unless some targets are NaN.
        support: positive rows (target at least 0.5).
        predicted: rows for which the label was predicted.
        hits: true positives.
    """

    known: NDArray[np.int64]
    support: NDArray[np.int64]
    predicted: NDArray[np.int64]
    hits: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of (N, L) probabilities against targets. Arrays are (L,), in label order; values in [0, 1].

    Each count and metric is also an attribute: `support` is `counts.support`, `f1` is `per_label["f1"]`, `micro_f1` and
    `macro_f1` are the values in `micro` and `macro`, `uncalibrated_brier` is `uncalibrated["brier"]`.

    0/0 counts as 0 in precision, recall and F1. A label without positive rows has NaN for average precision and ROC AUC
    and is left out of all macro averages; a label without negative rows has NaN for ROC AUC and is left out of its macro
    average. A macro average over no label is NaN. Unknown targets are ignored: each label is evaluated on the rows where
    its target is known.

    Attributes:
        labels: the L names.
        multi_label: False if each row has one label and the most probable one is predicted.
        rows: N.
        thresholds: (L,), the thresholds in use; NaN in single-label mode.
        counts: numbers of rows per label.
        per_label: (L,) for each metric in `PER_LABEL`: precision, the share of the predicted rows that are positive;
            recall, the share of the positive rows that are predicted; f1, the harmonic mean of the two;
            average_precision, the area under the precision-recall steps, ties taken together; roc_auc, the probability
            that a positive row outranks a negative one, a tie counting half; expected_calibration_error, the distance
            between mean probability and share of positive rows, averaged over 15 bins of rows (see the module's
            docstring); brier, the mean squared difference between probability and target.
        uncalibrated: (L,) for each metric in `CALIBRATION`, before calibration; None if it was not given.
        micro: precision, recall and f1 over all cells of all labels together.
        macro: for each metric in `PER_LABEL` the mean over the labels with positives (for roc_auc also negatives), and
            `uncalibrated_...` for each metric in `CALIBRATION`, NaN if `uncalibrated` is None.
        subset_accuracy: share of the rows whose whole label set is right, as far as their targets are known; rows
            without a known target do not count.
        hamming_loss: share of the known ones of the N x L cells that are wrong, also in single-label mode.
        calibration_by_length: calibration in bins of text length with at least 300 rows; empty if there are fewer than
            two such bins, None if the lengths of the texts were not given.
    """

    labels: tuple[str, ...]
    multi_label: bool
    rows: int
    thresholds: NDArray[np.float32]
    counts: Counts
    per_label: Mapping[str, NDArray[np.float64]]
    uncalibrated: Mapping[str, NDArray[np.float64]] | None
    micro: Mapping[str, float]
    macro: Mapping[str, float]
    subset_accuracy: float
    hamming_loss: float
    calibration_by_length: tuple[LengthBin, ...] | None

    def __getattr__(self, name: str) -> Any:
        if "macro" in vars(self) and name in (flat := self._flat()):
            return flat[name]
        raise AttributeError(f"an Evaluation has no {name!r}; it has {', '.join(vars(self))}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._flat()]

    def _flat(self) -> dict[str, Any]:
        """Return counts and metrics by their attribute names."""
        before: Mapping[str, Any] = self.uncalibrated or dict.fromkeys(CALIBRATION)
        parts = (("uncalibrated_", before), ("micro_", self.micro), ("macro_", self.macro))
        named = {f"{prefix}{name}": value for prefix, values in parts for name, value in values.items()}
        return {**vars(self.counts), **self.per_label, **named}

    @property
    def without_positives(self) -> tuple[str, ...]:
        """The labels without positive rows."""
        return tuple(self.labels[column] for column in np.flatnonzero(self.support == 0))

    @property
    def partly_known(self) -> bool:
        """Whether any target is unknown."""
        return bool((self.known < self.rows).any())

    @property
    def without_negatives(self) -> tuple[str, ...]:
        """The labels without negative rows."""
        return tuple(
            self.labels[column] for column in np.flatnonzero((self.support == self.known) & (self.known > 0))
        )

    @property
    def left_out_of_averages(self) -> dict[str, int]:
        """For each macro average, the number of labels that are left out of it."""
        empty = len(self.without_positives)
        return {
            "precision_recall_f1": empty,
            "average_precision": empty,
            "roc_auc": empty + len(self.without_negatives),
        }

    def label_values(self, name: str) -> NDArray[np.float64]:
        """Return one of the (L,) metrics by name, with NaN for labels without positive rows.

        For such a label, the arrays of precision, recall and F1 contain 0, as in scikit-learn, and those of calibration
        the distance of its probabilities from 0. Here, in the table, in `to_dict` and in `scalars` it has no value.
        """
        found = getattr(self, name)
        values: NDArray[np.float64] = np.where(self.support > 0, np.nan if found is None else found, np.nan)
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON: no NumPy types, and None for undefined values."""
        names = [*PER_LABEL, *(f"uncalibrated_{name}" for name in CALIBRATION)]
        columns = {name: self.label_values(name).tolist() for name in names}
        # float32 thresholds in their shortest decimal form: 0.3, not 0.30000001192092896
        thresholds = [float(str(value)) for value in self.thresholds]
        labels = [
            {
                "label": label,
                "support": int(self.support[row]),
                "known": int(self.known[row]),
                "predicted": int(self.predicted[row]),
                "hits": int(self.hits[row]),
                "threshold": _or_none(thresholds[row]),
                **{name: _or_none(columns[name][row]) for name in names},
            }
            for row, label in enumerate(self.labels)
        ]
        return {
            "rows": self.rows,
            "multi_label": self.multi_label,
            "micro": dict(self.micro),
            "macro": {name: _or_none(self.macro[name]) for name in names},
            "subset_accuracy": self.subset_accuracy,
            "hamming_loss": self.hamming_loss,
            "left_out_of_averages": self.left_out_of_averages,
            "calibration_by_length": self._by_length(),
            "labels": labels,
        }

    def _by_length(self) -> list[dict[str, Any]] | None:
        """`calibration_by_length` as plain values."""
        if self.calibration_by_length is None:
            return None
        return [
            {
                "from": one.start,
                "below": one.stop,
                "rows": one.rows,
                "expected_calibration_error": _or_none(one.expected_calibration_error),
                "mean_gap": _or_none(one.mean_gap),
            }
            for one in self.calibration_by_length
        ]

    def scalars(self, prefix: str) -> dict[str, float]:
        """Return the metrics under stable names for loggers, such as `val_micro_f1` and `val_f1/toxic`.

        The macro averages of calibration are `val_expected_calibration_error` and `val_brier`; those before calibration
        have `uncalibrated_` after the prefix. Undefined values are left out, because a logger must not get a NaN: a
        label without positives has no entry, and neither has an average over no label.

        Args:
            prefix: prefix of each name, such as "val" or "test".
        """
        named = {f"{prefix}_micro_{name}": value for name, value in self.micro.items()}
        named |= {f"{prefix}_macro_{name}": self.macro[name] for name in PER_LABEL[:5]}
        named |= {f"{prefix}_{name}": getattr(self, name) for name in ("subset_accuracy", "hamming_loss")}
        named |= {
            f"{prefix}_{name}": value for name, value in self.macro.items() if name not in PER_LABEL[:5]
        }
        for name in PER_LABEL:
            values = self.label_values(name).tolist()
            named |= {
                f"{prefix}_{name}/{label}": value for label, value in zip(self.labels, values, strict=True)
            }
        return {name: float(value) for name, value in named.items() if not math.isnan(value)}


def evaluate(
    probabilities: ArrayLike,
    targets: Any,
    *,
    labels: Sequence[str],
    thresholds: ArrayLike | None,
    multi_label: bool,
    uncalibrated: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
) -> Evaluation:
    """Compare probabilities with targets; the values equal scikit-learn's if every label has positive rows.

    Works in blocks of columns, so that extra memory stays at some tens of megabytes.

    Args:
        probabilities: (N, L), in [0, 1], converted to float32.
        targets: (N, L), sparse or dense, in [0, 1]; positive from 0.5. In multi-label mode NaN for an unknown target,
            which is ignored.
        labels: the L names in order.
        thresholds: (L,); a label is predicted if its probability reaches its threshold (`outputs.applies`). Unused in
            single-label mode, where it may be None: the most probable label is predicted, the first among equals.
        multi_label: whether a row may have any number of labels.
        uncalibrated: (N, L) probabilities of the same rows before calibration, for comparison.
        lengths: (N,) lengths of the texts in characters, to evaluate calibration by length.

    Raises:
        FlashError: no rows, shapes that do not match, or values outside [0, 1].
    """
    scores, truth, known = check_arrays(probabilities, targets)
    rows, count = scores.shape
    if rows == 0:
        raise FlashError("no rows to evaluate; expected at least one text with its targets")
    if len(labels) != count:
        raise FlashError(
            f"{len(labels)} labels for probabilities of {count} columns; expected a name for each"
        )
    in_force = _check_thresholds(thresholds, count) if multi_label else np.full(count, np.nan, np.float32)
    support = np.diff(truth.indptr).astype(np.int64)
    known_rows = np.full(count, rows) if known is None else np.count_nonzero(known, axis=0)
    judged = rows if known is None else np.count_nonzero(known.any(axis=1))
    predicted, hits, exact = _decide(scores, truth, in_force if multi_label else None, known)
    exact -= rows - judged  # rows without known targets were counted as exact
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    f1 = _ratio(2 * hits, predicted + support)
    average_precision, roc_auc, *calibrated = _rank(scores, truth, known)
    before = (
        None if uncalibrated is None else _calibration(check_arrays(uncalibrated, targets)[0], truth, known)
    )
    total_hits, total_predicted, total_support = int(hits.sum()), int(predicted.sum()), int(support.sum())
    supported = support > 0
    measures = dict(
        zip(PER_LABEL, (precision, recall, f1, average_precision, roc_auc, *calibrated), strict=True)
    )
    raw = None if before is None else dict(zip(CALIBRATION, before[:2], strict=True))
    macro = {name: _mean(values[supported & ~np.isnan(values)]) for name, values in measures.items()}
    macro |= {
        f"uncalibrated_{name}": math.nan if raw is None else _mean(raw[name][supported])
        for name in CALIBRATION
    }
    return Evaluation(
        labels=tuple(labels),
        multi_label=multi_label,
        rows=rows,
        thresholds=in_force,
        counts=Counts(known_rows.astype(np.int64), support, predicted, hits),
        per_label=measures,
        uncalibrated=raw,
        micro={
            "precision": total_hits / max(total_predicted, 1),
            "recall": total_hits / max(total_support, 1),
            "f1": 2 * total_hits / max(total_predicted + total_support, 1),
        },
        macro=macro,
        subset_accuracy=exact / max(judged, 1),
        hamming_loss=(total_predicted + total_support - 2 * total_hits) / max(int(known_rows.sum()), 1),
        calibration_by_length=None if lengths is None else _by_length(scores, truth, known, lengths),
    )


def _check_thresholds(thresholds: ArrayLike | None, count: int) -> NDArray[np.float32]:
    """Return thresholds as (L,) float32; raise FlashError unless there is one in [0, 1] per label."""
    values = np.array(np.nan if thresholds is None else thresholds, np.float32)
    if values.shape == (count,) and ((values >= 0) & (values <= 1)).all():
        return values
    found = "None" if thresholds is None else f"of shape {values.shape}"
    if values.shape == (count,):
        found = f"from {values.min()} to {values.max()}"
    raise FlashError(f"thresholds are {found}; expected one number in [0, 1] for each of {count} labels")


def _decide(
    scores: NDArray[np.float32],
    truth: csc_array,
    thresholds: NDArray[np.float32] | None,
    known: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return predicted rows (L,), true positives (L,), and the number of rows whose known targets are all right.

    Without thresholds, each row gets its most probable label. True positives are looked up at the few positive cells,
    so that no second (N, L) array is needed.
    """
    count_rows, count = scores.shape
    rows, columns = truth.indices, column_of_each(truth)
    if thresholds is None:
        top = scores.argmax(axis=1)
        predicted, row_predicted = np.bincount(top, minlength=count), np.ones(count_rows, np.int64)
        hit = top[rows] == columns
    else:
        predicted, row_predicted = np.zeros(count, np.int64), np.zeros(count_rows, np.int64)
        step = max(1, BLOCK_CELLS // count)
        for start in range(0, count_rows, step):
            block = applies(scores[start : start + step], thresholds)
            if known is not None:
                block &= known[start : start + step]
            predicted += np.count_nonzero(block, axis=0)
            row_predicted[start : start + step] = np.count_nonzero(block, axis=1)
        hit = applies(scores[rows, columns], thresholds[columns])
    row_hits = np.bincount(rows[hit], minlength=count_rows)
    row_support = np.bincount(rows, minlength=count_rows)
    exact = np.count_nonzero((row_hits == row_support) & (row_hits == row_predicted))
    return predicted, np.bincount(columns[hit], minlength=count), int(exact)


def _rank(
    scores: NDArray[np.float32], truth: csc_array, known: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return average precision, ROC AUC, expected calibration error and Brier score, (L,) each.

    The first two are NaN if positives or negatives are missing. They follow from the rank of each positive among all
    scores of its label: average precision is the mean, over the positives, of the precision at their score; ROC AUC is
    the share of (positive, negative) pairs in the right order (the Mann-Whitney U statistic), ties counting half.
    """
    count = scores.shape[1]
    average_precision, roc_auc = np.full(count, np.nan), np.full(count, np.nan)
    calibration = np.empty((3, count))
    for column, ranked, positive in _sorted_columns(scores, truth, known):
        calibration[:, column] = _reliability(ranked, positive)
        rows, support = ranked.size, positive.size
        if support == 0:
            continue
        below, up_to = np.searchsorted(ranked, positive), np.searchsorted(ranked, positive, side="right")
        own_below = np.searchsorted(positive, positive)
        own_up_to = np.searchsorted(positive, positive, side="right")
        average_precision[column] = np.mean((support - own_below) / (rows - below))
        if support < rows:
            outranked = np.sum((below - own_below) + (up_to - own_up_to)) / 2
            roc_auc[column] = outranked / (support * (rows - support))
    return average_precision, roc_auc, calibration[0], calibration[1]


def _calibration(
    scores: NDArray[np.float32], truth: csc_array, known: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Return (3, L): the values of `_reliability` for each label."""
    found = np.empty((3, scores.shape[1]))
    for column, ranked, positive in _sorted_columns(scores, truth, known):
        found[:, column] = _reliability(ranked, positive)
    return found


def _by_length(
    scores: NDArray[np.float32], truth: csc_array, known: NDArray[np.bool_] | None, lengths: ArrayLike
) -> tuple[LengthBin, ...]:
    """Evaluate calibration in each bin of text length, averaged over the labels with positive rows in the bin."""
    found = []
    for start, stop, rows in rows_by_length(lengths, len(scores)):
        inside = truth[rows]
        supported = np.flatnonzero(np.diff(inside.indptr))
        values, step = [np.empty((3, 0))], max(1, BLOCK_CELLS // len(rows))
        for first in range(0, supported.size, step):
            columns = supported[first : first + step]
            cells = np.ix_(rows, columns)
            own = None if known is None else known[cells]
            values.append(_calibration(scores[cells], inside[:, columns], own))
        error, _, gap = np.concatenate(values, axis=1)
        found.append(LengthBin(start, stop, len(rows), _mean(error), _mean(gap)))
    return tuple(found)


def _sorted_columns(
    scores: NDArray[np.float32], truth: csc_array, known: NDArray[np.bool_] | None
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield each label's column, its scores, and the scores of its positives, ascending, for rows with a known target."""
    rows, count = scores.shape
    step = max(1, BLOCK_CELLS // rows)
    for start in range(0, count, step):
        # sorting a contiguous row per label is several times as fast as sorting a column
        block = np.sort(scores[:, start : start + step].T, axis=1)
        for column, ranked in enumerate(block, start):
            positive = scores[truth.indices[truth.indptr[column] : truth.indptr[column + 1]], column]
            if known is not None:
                ranked = np.sort(scores[known[:, column], column])
            yield column, ranked, np.sort(positive)


def _reliability(ranked: NDArray[np.float32], positive: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return expected calibration error, Brier score and |mean probability - share of positives| of one label.

    Args:
        ranked: (N,) scores, ascending.
        positive: scores of the positive rows, ascending.
    """
    rows, wide = ranked.size, ranked.astype(np.float64)
    if not rows:
        return math.nan, math.nan, math.nan
    # quantile k of 15 is at index (N - 1) k / 15 of the sorted scores, interpolated between two of them
    whole, rest = np.divmod((rows - 1) * np.arange(1, BINS), BINS)
    lower, upper = wide[whole], wide[np.minimum(whole + 1, rows - 1)]
    ends = lower + (upper - lower) * (rest / BINS)  # inclusive: a score at the end of a bin belongs to it
    inside = np.searchsorted(wide, ends, side="right")
    hits = np.searchsorted(positive.astype(np.float64), ends, side="right")
    totals = np.concatenate([[0.0], np.cumsum(wide)])[[0, *inside, rows]]
    gaps = np.diff(totals) - np.diff([0, *hits, positive.size])
    # p ** 2 for every row, and 1 - 2 p more for a positive, which makes (1 - p) ** 2
    brier = (np.einsum("n,n->", wide, wide) + np.sum(1 - 2 * positive.astype(np.float64))) / rows
    return float(np.abs(gaps).sum() / rows), max(float(brier), 0.0), abs(float(gaps.sum())) / rows


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the elementwise quotient with 0/0 = 0, like scikit-learn's `zero_division=0`."""
    return numerator / np.maximum(denominator, 1)


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean; NaN, without NumPy's warning, for no values."""
    return float(values.mean()) if values.size else math.nan


def _or_none(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)
