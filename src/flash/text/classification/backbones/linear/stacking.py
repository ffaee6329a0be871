"""What the scores of other labels say about a label, mixed into its own: stacking.

After Godbole and Sarawagi, "Discriminative methods for multi-labeled classification", PAKDD 2004: a second linear
classifier a label whose features are all labels' scores of rows that the first has not seen. Theirs is fitted anew;
ours starts from the label's own calibrated score and goes one Newton step of the cross-entropy from there, under a
normal prior that keeps each share near 0: a label with few texts stays as it was. As scores are linear, so is the
mixture, and it goes into the model's weights: prediction does not know of it.

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
"""How many other labels a label listens to, those that say most about what its own score gets wrong."""
PRECISION = 1000.0
"""Of the prior of a share of a standardised score, as so many rows at probability 0.5 with a score of 2."""
FEWEST_TEXTS = 10.0
"""A label with fewer texts tells other labels nothing: its scores of new texts are on another scale than these."""
SETTLED = 0.005
"""A row whose probability is within this of its target is left out."""
CELLS = 2**20
"""Of a matrix that one task mixes."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stacking:
    """New scores are a label's own, plus shares of other labels' scores, plus a shift.

    Attributes:
        sources: (L, K), the labels that each label listens to.
        shares: (L, K), what each source's score is multiplied by.
        shift: (L,).
    """

    sources: Int32s
    shares: Floats
    shift: Floats

    def mix(self, matrix: Floats, threads: int | None = None) -> None:
        """Replace scores (N, L), or weights (F, L), by their mixture, without the shift."""
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
    """The mixture of (N, L) scores that rows not fitted on ask for.

    Args:
        scores: Finite margins of rows that the model was not fitted on.
        targets: In [0, 1], sorted; NaN where one is not known, which then says nothing about its label.
        calibration: What makes probabilities of the scores, if it is known; else it is fitted.
        threads: At most so many; None for one a processor. No result depends on it.

    Returns:
        None where labels exclude each other (no row has two), as softmax says that, or there is a single one.
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
        rank[label] = -1  # never its own source
        chosen = np.sort(np.argsort(-rank, kind="stable")[:count])
        bend = curvature(scores, unsettled, probability * (1 - probability), chosen, mean, unit)
        step = np.asarray(np.linalg.solve(bend + PRECISION * np.eye(count), said[chosen]), np.float64)
        return chosen, step * unit[chosen] / np.float64(known.scale[label])

    sources, shares = map(np.array, zip(*in_threads(threads, fit, range(labels)), strict=True))
    shift = -(shares * mean[sources]).sum(axis=1)
    return Stacking(sources.astype(np.int32), shares.astype(np.float32), shift.astype(np.float32))


@compiled
def slopes(scores: Floats, rows: Int64s, wrong: Doubles, mean: Doubles, unit: Doubles) -> Doubles:
    """(L,): of some rows, the sum of what a label got wrong times each label's standardised score."""
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
    """(K, K): of some rows, the weighted sum of products of the standardised scores of K labels."""
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
    """Add to each column its shares of other columns, as they were."""
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
