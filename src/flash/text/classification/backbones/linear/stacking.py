"""Stacking: add to each label's score a linear combination of the other labels' scores.

After Godbole and Sarawagi, "Discriminative methods for multi-labeled classification", PAKDD 2004: a second linear
classifier per label whose features are the out-of-fold scores of all labels. Theirs is fitted from scratch; ours starts
from the label's own calibrated score and makes one Newton step of the cross-entropy, with a normal prior that keeps each
share near 0, so that a label with few texts hardly changes. Since scores are linear in the features, the combination is
merged into the model's weights, and prediction costs nothing more.

Imports neither torch nor lightning.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from flash.core.threads import in_threads
from flash.text.classification.backbones.linear.kernels import Floats, Int32s, Int64s, compiled
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import Calibration, to_probabilities
from flash.text.classification.targets.known import known_cells, without_unknown

MOST_SOURCES = 32
"""Maximum number of other labels per label: those that correlate most with the errors of its own score."""
PRECISION = 1000.0
"""Prior precision of the share of a standardised score, worth as many rows with probability 0.5 and score 2."""
FEWEST_TEXTS = 10.0
"""A label with fewer texts is no source: its scores of new texts have another scale than out-of-fold scores."""
SETTLED = 0.005
"""A row whose probability is this close to its target is left out."""
CELLS = 2**20
"""Number of cells per task."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stacking:
    """A linear combination of scores: a label's own score, plus shares of other labels' scores, plus a shift.

    Attributes:
        sources: (L, K), the source labels of each label.
        shares: (L, K), factor of each source's score.
        shift: (L,).
    """

    sources: Int32s
    shares: Floats
    shift: Floats

    def mix(self, matrix: Floats, threads: int | None = None) -> None:
        """Replace scores (N, L), or weights (F, L), by their combination, in place and without the shift."""
        step = max(1, CELLS // matrix.shape[1])
        in_threads(
            threads,
            lambda first: mix_rows(matrix[first : first + step], self.sources, self.shares),
            range(0, len(matrix), step),
        )


def fit_stacking(
    scores: Floats,
    targets: csc_array,
    *,
    calibration: Calibration | None = None,
    threads: int | None = None,
) -> Stacking | None:
    """Fit the stacking on (N, L) out-of-fold scores.

    Args:
        scores: (N, L), finite, of rows that the model was not fitted on.
        targets: (N, L), in [0, 1], sorted; NaN for an unknown target, which is ignored.
        calibration: Calibration of the scores; None to fit it.
        threads: Maximum number of threads; None for one per processor. The result does not depend on it.

    Returns:
        The stacking; None for a single label and for exclusive labels (no row has two), which softmax covers.
    """
    labels = scores.shape[1]
    told, truth = known_cells(targets), without_unknown(targets)
    if labels < 2 or (truth.sum(axis=1) <= 1).all():
        return None
    known = calibration or fit_calibration(scores, targets, multi_label=True, threads=threads)
    mean: Doubles = scores.mean(axis=0, dtype=np.float64)
    deviation: Doubles = scores.std(axis=0, dtype=np.float64)
    speaks = (deviation > 1e-6) & (np.asarray(truth.sum(axis=0)) >= FEWEST_TEXTS)
    unit: Doubles = np.divide(1.0, deviation, out=np.zeros(labels), where=speaks)
    count = min(MOST_SOURCES, labels - 1)

    def fit(label: int) -> tuple[npt.NDArray[np.intp], Doubles]:
        logits = scores[:, label] * known.scale[label] + known.shift[label]
        probability: Doubles = to_probabilities(logits[:, np.newaxis], True)[:, 0].astype(np.float64)
        wrong = -probability
        hot = slice(truth.indptr[label], truth.indptr[label + 1])
        wrong[truth.indices[hot]] += truth.data[hot]
        unsettled = np.flatnonzero(np.abs(wrong) > SETTLED)
        if told is not None:
            unsettled = unsettled[told[unsettled, label]]
        wrong, probability = wrong[unsettled], probability[unsettled]
        said = slopes(scores, unsettled, wrong, mean, unit)
        rank = np.abs(said)
        rank[label] = -1  # a label is not its own source
        chosen = np.sort(np.argsort(-rank, kind="stable")[:count])
        bend = curvature(scores, unsettled, probability * (1 - probability), chosen, mean, unit)
        step = np.asarray(np.linalg.solve(bend + PRECISION * np.eye(count), said[chosen]), np.float64)
        return chosen, step * unit[chosen] / np.float64(known.scale[label])

    sources, shares = map(np.array, zip(*in_threads(threads, fit, range(labels)), strict=True))
    shift = -(shares * mean[sources]).sum(axis=1)
    return Stacking(sources.astype(np.int32), shares.astype(np.float32), shift.astype(np.float32))


@compiled
def slopes(scores: Floats, rows: Int64s, wrong: Doubles, mean: Doubles, unit: Doubles) -> Doubles:
    """Return (L,): the sum over rows of a label's error times each label's standardised score."""
    total = np.zeros(len(mean))
    for i in range(len(rows)):
        line = scores[rows[i]]
        for k in range(len(mean)):
            total[k] += wrong[i] * ((line[k] - mean[k]) * unit[k])
    return total


@compiled
def curvature(
    scores: Floats, rows: Int64s, weight: Doubles, chosen: Int64s, mean: Doubles, unit: Doubles
) -> Doubles:
    """Return (K, K): the weighted sum over rows of products of the standardised scores of K labels."""
    count = len(chosen)
    total = np.zeros((count, count))
    line = np.empty(count)
    for i in range(len(rows)):
        for k in range(count):
            line[k] = (scores[rows[i], chosen[k]] - mean[chosen[k]]) * unit[chosen[k]]
        for j in range(count):
            scaled = weight[i] * line[j]
            for k in range(j + 1):
                total[j, k] += scaled * line[k]
    for j in range(count):
        for k in range(j):
            total[k, j] = total[j, k]
    return total


@compiled
def mix_rows(matrix: Floats, sources: Int32s, shares: Floats) -> None:
    """Add to each column its shares of the other columns' original values."""
    labels, count = sources.shape
    line = np.empty(labels, dtype=np.float32)
    for row in range(len(matrix)):
        for k in range(labels):
            line[k] = matrix[row, k]
        for k in range(labels):
            total = line[k]
            for i in range(count):
                total += shares[k, i] * line[sources[k, i]]
            matrix[row, k] = total
