"""Out-of-fold scores: folds of the training rows, rows as a fit without them sees them, and the choice of C.

Imports neither torch nor lightning.
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from flash.text.classification.backbones.linear.features import Rows
from flash.text.classification.backbones.linear.kernels import (
    MULTIPLIER,
    SHIFT,
    WORD_SEED,
    Doubles,
    Int32s,
    compiled,
    normalize,
    part_scale,
)
from flash.text.classification.backbones.linear.solver import row_start
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import Calibration, to_probabilities
from flash.text.classification.scores.thresholds import column_of_each
from flash.text.classification.targets.known import known_cells, without_unknown

GRID = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Candidates for C, from the strongest regularisation, for noisy labels, to the weakest, for clean labels."""
MIDDLE = 0.25
"""C if there are too few rows to choose."""
CLEARLY_BETTER = 0.002
"""Relative improvement of the loss on the held-out fold that is required for a larger C."""
GROWTH_DEVIATION = 0.2
"""Prior standard deviation of the growth of calibrated logits, about 0."""
GROWTH_POSITIVES = 200.0
"""Number of positives at which a label gets half of the common growth."""
GROWTH_STEPS = 4
"""Steps of Newton's method; few suffice, because the growth is small."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def fold_of_each(rows: Rows, folds: int, seed: int) -> Indices | None:
    """Return the fold (N,) of each row, the same for identical rows; None if there are too few distinct rows.

    Rows are compared, not texts, because texts that differ only in case or spaces are identical to the model.
    """
    different, codes = np.unique(hash_rows(rows.ends, rows.features, rows.values), return_inverse=True)
    if len(different) < folds:
        return None
    order = np.random.Generator(np.random.PCG64([seed, folds])).permutation(len(different))
    fold: Indices = order[codes] % folds
    return fold


def growth_of_scores(
    fewer: Floats,
    more: Floats,
    calibration: Calibration,
    positives: Doubles,
    shares: tuple[float, float],
) -> Floats:
    """Estimate (L,): how much higher the scores of unseen rows are with a fit on all rows than with fewer rows.

    The calibrated probabilities of the same unseen rows should have the same sum with any fit: the number of positives.
    The logits of a fit on more rows are therefore lowered by one number for all labels, scaled down for labels with few
    positives. The number is extrapolated to all rows, linearly in the logarithm of the number of rows, and shrunk
    towards 0 according to its uncertainty.

    Args:
        fewer: (M, L) scores of rows from fits without them.
        more: (M, L) scores of the same rows from a fit on more rows, also without them.
        calibration: Calibration of `fewer`.
        positives: (L,), number of positives in the calibration.
        shares: Shares of all rows on which the two were fitted, the lower first.
    """
    wanted = to_probabilities(calibration.apply(fewer), multi_label=True).astype(np.float64)
    logits, part = calibration.apply(more), positives / (positives + GROWTH_POSITIVES)
    growth, slope, excess = 0.0, 0.0, np.zeros(len(fewer))
    for _ in range(GROWTH_STEPS):
        shifted = (logits - growth * part).astype(np.float32)
        found = to_probabilities(shifted, multi_label=True).astype(np.float64)
        excess, slope = (found - wanted).sum(axis=1), float((found * (1 - found) @ part).sum())
        if slope <= 0:
            return np.zeros(len(part), np.float32)
        growth += float(np.clip(excess.sum() / slope, -1, 1))
    onward = np.log(1 / shares[0]) / np.log(shares[1] / shares[0])
    variance = float(np.square(excess - excess.mean()).sum()) * (onward / slope) ** 2
    likely = growth * onward * GROWTH_DEVIATION**2 / (GROWTH_DEVIATION**2 + variance)
    growths: Floats = (likely * part / calibration.scale).astype(np.float32)
    return growths


@compiled
def hash_rows(ends: Indices, features: Int32s, values: Floats) -> npt.NDArray[np.uint64]:
    """Return a hash (N,) of each row."""
    bits = values.view(np.uint32)
    hashes = np.empty(len(ends), dtype=np.uint64)
    for row in range(len(ends)):
        state = WORD_SEED
        for i in range(row_start(ends, row), ends[row]):
            state = (state ^ np.uint64(features[i])) * MULTIPLIER
            state = (state ^ (state >> SHIFT) ^ np.uint64(bits[i])) * MULTIPLIER
        hashes[row] = state ^ (state >> SHIFT)
    return hashes


@compiled
def take_out(inside: Indices, ends: Indices, features: Int32s, texts: Indices) -> None:
    """Subtract the rows `inside` from `texts` (F,), the number of rows with each feature."""
    for row in inside:
        for i in range(row_start(ends, row), ends[row]):
            texts[features[i]] -= 1


def as_unseen(
    rows: Rows, inside: Indices, texts: Indices, kinds: Int32s, word_share: float, norms: Floats
) -> Rows:
    """Return the rows `inside` without the features that occur in no other row, like rows of new texts.

    A new text's row lacks words that training has not seen, and is normalised without them. A training row that kept its
    unique words would have smaller decision values than a new text, and calibration would be overconfident.

    Args:
        rows: The TF-IDF rows of all texts.
        inside: Indices of the rows to return, in this order.
        texts: (F,), number of fitted rows with each feature.
        kinds: (F,), 0 for words and 1 for characters.
        word_share: Share of words in the squared length of a row that has both.
        norms: (2, 2), see `kernels.part_scale`.
    """
    sizes = np.diff(rows.ends, prepend=0)[inside]
    found = Rows(
        np.empty(sizes.sum(), np.int32),
        np.empty(sizes.sum(), np.float32),
        np.empty(len(inside), np.int64),
        np.empty((len(inside), 2)),
        np.empty(len(inside), np.float32),
    )
    end = keep_known(
        inside,
        rows.ends,
        rows.features,
        rows.values,
        rows.lengths,
        texts,
        kinds,
        word_share,
        norms,
        found.features,
        found.values,
        found.ends,
        found.lengths,
        found.squares,
    )
    return Rows(found.features[:end], found.values[:end], found.ends, found.lengths, found.squares)


@compiled
def keep_known(
    inside: Indices,
    ends: Indices,
    features: Int32s,
    values: Floats,
    lengths: Doubles,
    texts: Indices,
    kinds: Int32s,
    word_share: float,
    norms: Floats,
    new_features: Int32s,
    new_values: Floats,
    new_ends: Indices,
    new_lengths: Doubles,
    new_squares: Floats,
) -> int:
    """Compute `as_unseen`: fill the last five arguments, and return the number of remaining features."""
    end = 0
    for place in range(len(inside)):
        row, begin = inside[place], end
        before = np.ones(2)
        for kind in range(2):
            if lengths[row, kind] > 0:
                before[kind] = part_scale(lengths[row], kind, word_share, norms)
        squares = np.zeros(2)
        for i in range(row_start(ends, row), ends[row]):
            if texts[features[i]] > 0:
                kind = kinds[features[i]]
                value = np.float64(values[i]) / before[kind]
                new_features[end] = 2 * features[i] + kind
                new_values[end] = value
                squares[kind] += value * value
                end += 1
        new_lengths[place] = np.sqrt(squares)
        part = slice(begin, end)
        new_squares[place] = normalize(
            new_features[part], new_values[part], new_lengths[place], word_share, norms
        )
        new_ends[place] = end
    return end


def calibrated_loss(scores: Floats, targets: csr_array, threads: int | None = None) -> float:
    """Return the mean cross-entropy, in nats per known cell of (N, L), after calibrating the scores on the same rows."""
    truth = csc_array(targets)
    logits = fit_calibration(scores, truth, multi_label=True, threads=threads).apply(scores)
    known = known_cells(truth)
    truth = without_unknown(truth)
    hot = (truth.data * logits[truth.indices, column_of_each(truth)]).sum(dtype=np.float64)
    cells = logits if known is None else logits[known]
    total = np.logaddexp(np.float32(0), cells).sum(dtype=np.float64)  # softplus(z) - t z
    return float(total - hot) / cells.size
