"""Calibrated probabilities: a scale and a shift for each label's logits.

`fit_calibration` takes the logits (or decision values) of rows that the model was not fitted on, and returns an
`outputs.Calibration`. Sigmoid or softmax of the logits that its `apply` returns are calibrated probabilities. Imports
neither torch nor lightning.

Multi-label: Platt scaling per label (Platt, "Probabilistic outputs for support vector machines", 1999, with its
smoothed targets), by Newton's method with backtracking as in Lin, Lin and Weng, "A note on Platt's probabilistic
outputs for support vector machines", Machine Learning 2007. In addition, a prior draws each label towards the scale
and shift that are fitted on all labels together, which determines labels with 0 to 3 positives: the logarithm of the
label's scale relative to the common one is normal with standard deviation 0.5, and its logit at the pivot, near the
decision boundary, is normal about the common one with standard deviation 2. Single-label: vector scaling (Guo, Pleiss,
Sun and Weinberger, "On calibration of modern neural networks", ICML 2017) with one scale for all classes and one shift
per class.

Unknown targets (NaN) are ignored: a label is calibrated on the rows where its target is known; a label without known
targets gets the common scale and shift.

Scales are exponentials and thus positive: in multi-label mode the order of a label's rows does not change, and
neither do ROC AUC and average precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array, csr_array

from flash.core.errors import FlashError
from flash.core.threads import in_threads
from flash.text.classification.scores.outputs import Calibration, to_probabilities
from flash.text.classification.targets.known import known_cells, without_unknown

Doubles: TypeAlias = NDArray[np.float64]

SCALE_DEVIATION = 0.5  # prior standard deviation of the log of a label's scale about the common one
SHIFT_DEVIATION = 2.0  # prior standard deviation of a label's logit at the pivot about the common one
COMMON_DEVIATIONS = 3.0, 10.0  # the same for the common scale and shift, about 1 and 0: a weak prior
CELLS = 2**17  # cells per block: 1 MB of float64, which fits into a processor's cache
TOLERANCE = 1e-8  # remaining loss per label, in nats summed over its rows, at which Newton's method stops
LARGEST = 1e30  # limit of scales and shifts, within float32


@dataclass(frozen=True)
class Common:
    """The scale and shift that are fitted on all labels together: sigmoid(scale * (z - pivot) + shift).

    Attributes:
        scale: above 0.
        shift: the logit at the pivot.
        pivot: mean logit weighted by p (1 - p), at which scale and shift are uncorrelated.
    """

    scale: float
    shift: float
    pivot: float


def fit_calibration(
    logits: ArrayLike, targets: Any, *, multi_label: bool, threads: int | None = None
) -> Calibration:
    """Fit the maximum a posteriori scale and shift of each label's logits; see the module's docstring.

    On these rows, calibration never makes the Brier score worse: a label for which it would (in single-label mode, all
    labels) keeps its logits.

    Args:
        logits: (N, L), finite, converted to float32, of rows that the model was not fitted on.
        targets: (N, L), sparse or dense, in [0, 1]; a soft target is the probability of a positive. NaN for an unknown
            target, in multi-label mode only.
        multi_label: sigmoid, or softmax. With softmax all scales are equal, and the shifts may change the most
            probable class of a row.
        threads: maximum number of threads; None for one per processor. The result does not depend on it.

    Raises:
        FlashError: no rows or labels, no known target, different shapes, or logits that are not finite.
    """
    values = np.asarray(logits, np.float32)
    if values.ndim != 2 or 0 in values.shape or values.shape != targets.shape:
        raise FlashError(
            f"logits have shape {values.shape} and targets {targets.shape}; expected the same (rows, labels) "
            "for both, with at least one row and one label"
        )
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise FlashError("logits to calibrate are not all finite; expected those of a model that was trained")
    if not multi_label:
        return _fit_softmax(values, csr_array(targets), threads)
    truth = csc_array(targets, dtype=np.float64)
    truth.sum_duplicates()
    known = known_cells(truth)
    if known is not None:
        if not known.any():
            raise FlashError(
                "no target is known; expected at least one row with a known target to calibrate on"
            )
        truth = without_unknown(truth)
    common = _fit_common(values, truth, known, threads)
    step = max(1, CELLS // len(values))

    def fit(start: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        block = slice(start, start + step)
        if known is None or known[:, block].all():
            return _fit_labels(values[:, block], truth[:, block], common)
        labels = range(values.shape[1])[block]
        fitted = [_fit_labels(*_known_of(label, values, truth, known[:, label]), common) for label in labels]
        scales, shifts = zip(*fitted, strict=True)
        return np.concatenate(scales), np.concatenate(shifts)

    scales, shifts = zip(*in_threads(threads, fit, range(0, values.shape[1], step)), strict=True)
    return Calibration(np.concatenate(scales), np.concatenate(shifts))


def _known_of(
    label: int, logits: NDArray[np.float32], truth: csc_array, known: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], csc_array]:
    """Return (M, 1) logits and targets of one label for the rows where its target is known."""
    own = slice(truth.indptr[label], truth.indptr[label + 1])
    rows = (np.cumsum(known) - 1)[truth.indices[own]]
    targets = csc_array((truth.data[own], rows, [0, len(rows)]), shape=(np.count_nonzero(known), 1))
    return logits[known, label : label + 1], targets


def _fit_common(
    logits: NDArray[np.float32], truth: csc_array, known: NDArray[np.bool_] | None, threads: int | None
) -> Common:
    """Fit one scale and one shift for all known cells, on logits standardised to mean 0 and variance 1."""
    cells = (logits if known is None else logits[known]).reshape(1, -1)
    chunks = np.array_split(cells, -(-cells.size // CELLS), axis=1)
    mean, deviation = _centre(cells)

    def moments(scale: Doubles, shift: Doubles) -> Doubles:
        def of_chunk(chunk: NDArray[np.float32]) -> Doubles:
            return _moments((chunk.astype(np.float64) - mean) / deviation, scale, shift)

        total: Doubles = np.sum(in_threads(threads, of_chunk, chunks), axis=0)
        return total

    columns = np.repeat(np.arange(logits.shape[1]), np.diff(truth.indptr))
    margins = (logits[truth.indices, columns].astype(np.float64) - mean) / deviation
    sums = np.array([[truth.data.sum()], [(truth.data * margins).sum()]])
    smoothed = _smooth(sums, cells.size, np.zeros(1))
    scale, shift, sums = _newton(moments, smoothed, np.zeros(1), *COMMON_DEVIATIONS)
    pivot = sums[4, 0] / max(sums[3, 0], np.finfo(np.float64).tiny)
    return Common(float(scale[0] / deviation), float(shift[0] + scale[0] * pivot), mean + deviation * pivot)


def _centre(logits: NDArray[np.float32]) -> tuple[float, float]:
    """Return mean and standard deviation of all cells; the deviation is 1 if all cells are equal."""
    lowest, highest = float(logits.min()), float(logits.max())
    if lowest == highest:
        return lowest, 1.0
    parts = np.array_split(logits.reshape(-1), -(-logits.size // CELLS))
    mean = sum(float(part.sum(dtype=np.float64)) for part in parts) / logits.size
    squares = sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in parts)
    deviation = float(np.sqrt(squares / logits.size))
    return mean, max(deviation, float(np.finfo(np.float32).tiny))  # safe as a divisor of float32


def _fit_labels(
    logits: NDArray[np.float32], truth: csc_array, common: Common
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit scale and shift of a block of K labels, (K,) each."""
    margins = np.ascontiguousarray(logits.T)
    # (K, N): the common model is sigmoid(offsets + shift)
    offsets = (margins.astype(np.float64) - common.pivot) * common.scale
    column = np.repeat(np.arange(len(margins)), np.diff(truth.indptr))
    weighted = truth.data * offsets[column, truth.indices]
    sums = np.array([np.bincount(column, part, len(margins)) for part in (truth.data, weighted)])
    smoothed = _smooth(sums, offsets.shape[1], offsets.sum(axis=1))
    start = np.full(len(margins), common.shift)
    ratio, shift, _ = _newton(
        lambda *at: _moments(offsets, *at), smoothed, start, SCALE_DEVIATION, SHIFT_DEVIATION
    )
    found = _within_float32(ratio * common.scale, shift - ratio * common.scale * common.pivot)

    def brier(values: NDArray[np.float32]) -> Doubles:
        wrong = to_probabilities(values, True).astype(np.float64)
        wrong[column, truth.indices] -= truth.data
        total: Doubles = np.einsum("kn,kn->k", wrong, wrong)
        return total

    worse = brier(found.apply(logits).T) > brier(margins)
    return np.where(worse, np.float32(1), found.scale), np.where(worse, np.float32(0), found.shift)


def _within_float32(scale: Doubles, shift: Doubles) -> Calibration:
    """Convert (K,) scales and shifts to float32, clipped so that nothing overflows and no scale becomes 0."""
    return Calibration(
        np.clip(scale, 1 / LARGEST, LARGEST).astype(np.float32),
        np.clip(shift, -LARGEST, LARGEST).astype(np.float32),
    )


def _moments(margins: Doubles, scale: Doubles, shift: Doubles) -> Doubles:
    """Compute the sums over rows that one step of Newton's method needs, for K labels.

    Args:
        margins: (K, N) x.
        scale: (K,).
        shift: (K,).

    Returns:
        (6, K): the sums over the rows of softplus(y), p, p x, w, w x and w x x, where y = scale * x + shift,
        p = sigmoid(y) and w = p (1 - p).
    """
    logits = margins * scale[:, None]
    logits += shift[:, None]
    above = np.maximum(logits, 0).sum(axis=1)
    positive = logits >= 0
    np.abs(logits, out=logits)
    shrunk = np.exp(np.negative(logits, out=logits), out=logits)
    bottom = 1 + shrunk
    sums = [above + np.log(bottom).sum(axis=1)]
    weight = shrunk / bottom  # sigmoid(-|y|)
    probability = np.where(positive, 1 - weight, weight)
    sums += [probability.sum(axis=1), np.einsum("kn,kn->k", probability, margins)]
    weight *= np.subtract(1, weight, out=shrunk)
    sums.append(weight.sum(axis=1))
    weight *= margins
    sums += [weight.sum(axis=1), np.einsum("kn,kn->k", weight, margins)]
    return np.stack(sums)


def _smooth(sums: Doubles, rows: int, total: Doubles) -> Doubles:
    """Return the (2, K) sums of t and t x with Platt's smoothed targets: t is 1 / (negatives + 2) or 1 - 1 / (positives + 2).

    The smoothing keeps the scale of separable labels finite. `total` is the (K,) sum of x.
    """
    low, high = 1 / (rows - sums[0] + 2), 1 - 1 / (sums[0] + 2)
    smoothed: Doubles = (high - low) * sums + low * np.array([np.full_like(total, rows), total])
    return smoothed


def _newton(
    moments: Callable[[Doubles, Doubles], Doubles],
    targets: Doubles,
    centre: Doubles,
    scale_deviation: float,
    shift_deviation: float,
) -> tuple[Doubles, Doubles, Doubles]:
    """Fit scale and shift of K labels in parallel, starting at the prior's mode: scale 1 and shift `centre`.

    Minimises the sum over the rows of softplus(y) - t y, plus the prior, over the logarithm of the scale and the
    shift. The second derivative omits the terms that could be negative (Fisher scoring), so that each step is a descent
    direction; a step that does not decrease the loss enough is halved.

    Args:
        moments: function of (K,) scale and (K,) shift that returns the sums of `_moments`.
        targets: (2, K), the sums over the rows of t and t x.
        centre: (K,), mean of the shift's prior.
        scale_deviation: prior standard deviation of log(scale).
        shift_deviation: prior standard deviation of the shift.

    Returns:
        (K,) scale, (K,) shift, and the (6, K) moments there.
    """
    tightness = np.array([[scale_deviation**-2], [shift_deviation**-2]])
    middle = np.array([np.zeros_like(centre), centre])
    best, here = middle.copy(), middle
    loss, slope, size = np.full(len(centre), np.inf), np.zeros(len(centre)), np.ones(len(centre))
    step = np.zeros_like(best)
    kept = np.zeros((6, len(centre)))
    settled = np.zeros(len(centre), bool)
    for _ in range(100):
        scale, shift = np.exp(here[0]), here[1]
        sums = moments(scale, shift)
        away = here - middle
        value = sums[0] - scale * targets[1] - shift * targets[0] + (tightness * away**2).sum(axis=0) / 2
        # the tolerance prevents rounding errors from rejecting tiny steps
        down = value <= loss + 1e-4 * size * slope + TOLERANCE * 1e-2 + 1e-13 * np.abs(value)
        gradient = np.array([scale * (sums[2] - targets[1]), sums[1] - targets[0]]) + tightness * away
        first, mixed, second = scale**2 * sums[5] + tightness[0], scale * sums[4], sums[3] + tightness[1]
        determinant = first * second - mixed**2
        aim = (
            np.array([mixed * gradient[1] - second * gradient[0], mixed * gradient[0] - first * gradient[1]])
            / determinant
        )
        aim /= np.maximum(np.abs(aim[0]), 1)  # the scale changes by at most a factor of e
        kept, best, step = np.where(down, sums, kept), np.where(down, here, best), np.where(down, aim, step)
        loss, slope = np.where(down, value, loss), np.where(down, (aim * gradient).sum(axis=0), slope)
        size = np.where(down, 1.0, size / 2)
        settled |= -slope * size < TOLERANCE
        if settled.all():
            break
        # a converged label no longer moves, so that its result does not depend on the other labels of the block
        here = np.where(settled, best, best + size * step)
    return np.exp(best[0]), best[1], kept


def _fit_softmax(logits: NDArray[np.float32], truth: csr_array, threads: int | None) -> Calibration:
    """Fit one scale, and one shift per class, for softmax.

    Minimises the multinomial cross-entropy plus the prior over the logarithm of the scale and the L shifts by L-BFGS,
    with parameters rescaled so that the second derivatives are near 1.
    """
    from scipy.optimize import minimize  # slow to import, and not needed for prediction

    rows, count = logits.shape
    _, deviation = _centre(logits)
    step = max(1, CELLS // count)
    starts = range(0, rows, step)
    support = np.asarray(truth.sum(axis=0), np.float64)
    unit = np.concatenate(
        [[np.sqrt(rows)], np.sqrt(support * (1 - support / rows).clip(0) + SHIFT_DEVIATION**-2)]
    )

    def objective(scaled: Doubles) -> tuple[float, Doubles]:
        at = scaled / unit
        log_scale, shift = min(float(at[0]), 50.0), at[1:]

        def of_chunk(start: int) -> Doubles:
            block = slice(start, start + step)
            return _softmax_moments(logits[block] / deviation, truth[block], np.exp(log_scale), shift)

        loss, along, *below = np.sum(in_threads(threads, of_chunk, starts), axis=0)
        tightness = np.array([COMMON_DEVIATIONS[0] ** -2] + [SHIFT_DEVIATION**-2] * count)
        gradient = np.array([along * np.exp(log_scale), *below]) + tightness * at
        return loss + float(tightness @ at**2) / 2, gradient / unit

    found = minimize(
        objective,
        np.zeros(count + 1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 200, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-3},
    )
    scale = np.full(count, np.exp(found.x[0] / unit[0]) / deviation)
    calibration = _within_float32(scale, found.x[1:] / unit[1:])

    def brier(calibration: Calibration) -> float:
        total = 0.0
        for start in starts:
            block = slice(start, start + step)
            probabilities = to_probabilities(calibration.apply(logits[block]), False)
            wrong = probabilities.astype(np.float64) - truth[block].toarray()
            total += float(np.square(wrong).sum())
        return total

    identity = Calibration.identity(count)
    return calibration if brier(calibration) <= brier(identity) else identity


def _softmax_moments(margins: NDArray[Any], truth: csr_array, scale: float, shift: Doubles) -> Doubles:
    """Return (2 + L,): the cross-entropy of some rows, then its derivatives by the scale and by each shift."""
    margins = margins.astype(np.float64)
    logits = margins * scale + shift
    logits -= logits.max(axis=1, keepdims=True)
    weight = np.asarray(truth.sum(axis=1), np.float64)  # 1, unless a row's targets do not sum to 1
    row = np.repeat(np.arange(len(margins)), np.diff(truth.indptr))
    fit = float((truth.data * logits[row, truth.indices]).sum())
    probability = np.exp(logits, out=logits)
    total = probability.sum(axis=1)
    probability *= (weight / total)[:, None]
    along = float(np.einsum("nl,nl->", probability, margins)) - float(
        (truth.data * margins[row, truth.indices]).sum()
    )
    below = probability.sum(axis=0) - np.asarray(truth.sum(axis=0), np.float64)
    return np.array([float((weight * np.log(total)).sum()) - fit, along, *below])
