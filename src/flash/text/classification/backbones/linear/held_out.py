"""What a fit learns from rows that it has not seen: folds of the training rows, and the regularisation.

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
"""Regularisations that are tried, from the strongest; the last is for clean labels, the first for doubtful ones."""
MIDDLE = 0.25
"""The one that is taken where there are too few rows to tell."""
CLEARLY_BETTER = 0.002
"""By which share of the loss on the held-out fold a weaker regularisation must be better to be preferred."""
GROWTH_DEVIATION = 0.2
"""Of the prior of the growth of calibrated logits, about 0."""
GROWTH_POSITIVES = 200.0
"""With so many, half of the growth of all labels is a label's own."""
GROWTH_STEPS = 4
"""Of Newton's method; the growth is small."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def fold_of_each(rows: Rows, folds: int, seed: int) -> Indices | None:
    """The fold (N,) of each row, the same for identical ones; None if there are too few different ones.

    Rows, not texts: those that differ in case or spaces alone are one to the model.
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
    """By how much scores of unseen rows are higher with a fit of all rows than with one of fewer: (L,).

    Calibrated probabilities of the same unseen rows should sum to the same whatever was fitted: to the positives. So the
    logits of the fit of more rows have to fall by one number, for all labels, but less for one with few positives, whose
    decisions hang on few rows. That number is taken on to all rows with the logarithm of their number, and drawn towards 0
    as far as it may be chance.

    Args:
        fewer: (M, L) scores of rows by fits that have not seen them.
        more: The same rows by a fit of more rows.
        calibration: What makes probabilities of `fewer`.
        positives: (L,), how many the calibration has seen.
        shares: Of all rows, those that the two were fitted to, the lower first.
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
    """A number (N,) for each row, the same for identical ones."""
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
    """Take the rows `inside` out of `texts` (F,), how many rows have each feature."""
    for row in inside:
        for i in range(row_start(ends, row), ends[row]):
            texts[features[i]] -= 1


def as_unseen(
    rows: Rows, inside: Indices, texts: Indices, kinds: Int32s, word_share: float, norms: Floats
) -> Rows:
    """The rows `inside` as they are to a fit of others, which has no feature that none of these has.

    A new text's words that training has not seen are no part of its row, which is normalised without them: a row
    of training that kept its own would have smaller margins than a new text, and calibration would be overconfident.

    Args:
        rows: The TF-IDF rows of all texts.
        inside: Which to return, in this order.
        texts: (F,), how many of the rows that were fitted have each feature.
        kinds: (F,), 0 for words and 1 for characters.
        word_share: The share of words in the squared length of a row that has both.
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
    """The loops of `as_unseen`: fills the last five, and returns how many features remain."""
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
    """The mean cross-entropy in nats of (N, L) cells, the known ones, once the scores are calibrated on these rows."""
    truth = csc_array(targets)
    logits = fit_calibration(scores, truth, multi_label=True, threads=threads).apply(scores)
    known = known_cells(truth)
    truth = without_unknown(truth)
    hot = (truth.data * logits[truth.indices, column_of_each(truth)]).sum(dtype=np.float64)
    cells = logits if known is None else logits[known]
    total = np.logaddexp(np.float32(0), cells).sum(dtype=np.float64)  # softplus(z) - t z
    return float(total - hot) / cells.size
