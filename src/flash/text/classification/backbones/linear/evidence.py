"""How much a text says, and what that changes in its scores: the linear backbone's probabilities of short texts.

The evidence of a text is how long its row of n-grams that training knows is before it is normalised, words and
characters each relative to training texts, so that a usual text has 1. Three things follow from it, all learned from
scores of rows that the weights have not seen, and none from the texts beside it:

- For each label, a score s becomes s + u (slope s + shift), where u is the logarithm of the evidence: logistic
  regression on the calibrated score, u and their product, under a normal prior about no change at all, so that a label
  with few texts keeps its scores.
- Below the evidence that all but few training texts have, a score goes back towards that of the label's base rate, with
  the square of the evidence: training says little of such texts, and a text without a known n-gram has the base rate.
- Outside of what nearly all training texts have, u stays where it is.

For texts of the same evidence, no order of scores changes. Imports neither torch nor lightning.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from flash.core.threads import in_threads
from flash.text.classification.backbones.linear.kernels import Floats, compiled, weigh_evidence_of_rows
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import Calibration

SLOPE_DEVIATION, SHIFT_DEVIATION = 0.05, 0.1
"""Of the priors of a label's slope and shift for one standard deviation of u; of calibrated scores."""
CENTRE_DEVIATION = 0.5
"""Of the prior of what is added whatever the evidence: calibration takes care of that afterwards."""
FEWEST_POSITIVES = 10.0
"""A label with fewer keeps its scores."""
LEAST_SLOPE = 0.25
"""Of a score, whatever the evidence: scores keep their order."""
EDGES = 0.01
"""The share of training texts on either side whose evidence counts as that of the last ones inside."""
LITTLE = 0.05
"""The share of training texts whose evidence is too little for their scores to count in full."""
STEPS = 20

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What the evidence of a text is, and what each label makes of it; see the module's docstring.

    Attributes:
        places: (6,) what a word's and a character's length count for, the lowest and highest u, the centre of the
            logarithm, and the evidence that is enough; see `kernels.weigh_evidence`.
        by_label: (3, L) slope, shift and the score of the base rate.
    """

    places: Floats
    by_label: Floats

    def apply(self, amounts: Doubles, scores: Floats) -> Floats:
        """(N, L) scores of texts with so much evidence (N,)."""
        changed = scores.copy()
        weigh_evidence_of_rows(amounts, self.places, self.by_label, changed)
        return changed


def evidence_units(lengths: Doubles, word_share: float) -> Doubles:
    """(2,): what a word's and a character's length count for, so that a usual text has 1.

    Args:
        lengths: (N, 2) of training rows.
        word_share: The share of words, in texts that have both.
    """
    has = lengths.any(axis=0)
    shares = np.array([word_share, 1 - word_share]) if has.all() else has.astype(np.float64)
    means: Doubles = lengths.mean(axis=0)
    return np.divide(shares, means, out=np.zeros(2), where=means > 0)


def fit_evidence(
    scores: Floats,
    targets: csc_array,
    lengths: Doubles,
    units: Doubles,
    *,
    calibration: Calibration | None = None,
    threads: int | None = None,
) -> Evidence | None:
    """What the evidence of (N, L) scores of rows not fitted on changes.

    Args:
        scores: Finite.
        targets: In [0, 1], or NaN where it is not known.
        lengths: (N, 2) of the rows' parts before normalisation.
        units: (2,) from `evidence_units`.
        calibration: What makes probabilities of the scores, if it is known; else it is fitted.
        threads: At most so many; None for one a processor. No result depends on it.

    Returns:
        None where no row says anything.
    """
    amounts = lengths @ units
    if not amounts.any():
        return None
    known = calibration or fit_calibration(scores, targets, multi_label=True, threads=threads)
    logarithms = np.log(amounts[amounts > 0])
    low, high = np.quantile(logarithms, [EDGES, 1 - EDGES])
    bounded = np.clip(np.log(np.maximum(amounts, 1e-30)), low, high)
    centre, deviation = bounded.mean(), bounded.std()
    enough = np.quantile(amounts[amounts > 0], LITTLE)
    standard = (bounded - centre) / max(deviation, 1e-6)

    def fit(label: int) -> tuple[float, float, float]:
        truth = np.zeros(len(scores))
        column = slice(targets.indptr[label], targets.indptr[label + 1])
        truth[targets.indices[column]] = targets.data[column]
        logits = scores[:, label].astype(np.float64) * known.scale[label] + known.shift[label]
        told = np.flatnonzero(~np.isnan(truth))
        truth, slope, shift = truth[told], 0.0, 0.0
        if deviation > 1e-6 and truth.sum() >= FEWEST_POSITIVES:
            slope, shift = _fit_label(logits[told], standard[told], truth)
            slope, shift = slope / deviation, shift / deviation
        furthest = max(high - centre, centre - low, 1e-6)
        slope = float(np.clip(slope, -(1 - LEAST_SLOPE) / furthest, (1 - LEAST_SLOPE) / furthest))
        return slope, shift, _base_score(logits, truth)

    slopes, shifts, bases = np.array(in_threads(threads, fit, range(scores.shape[1]))).T
    scale, shift = known.scale.astype(np.float64), known.shift.astype(np.float64)
    by_label = [slopes, (shifts + slopes * shift) / scale, (bases - shift) / scale]
    return Evidence(
        np.array([*units, low, high, centre, enough], np.float32), np.array(by_label).astype(np.float32)
    )


def _base_score(logits: Doubles, truth: Doubles) -> float:
    """The logit of a label's base rate, of rows whose logits it lies among."""
    rate = (truth.sum() + 0.5) / (len(truth) + 1)
    return float(np.clip(np.log(rate / (1 - rate)), logits.min(), logits.max()))


def _fit_label(logits: Doubles, standard: Doubles, truth: Doubles) -> tuple[float, float]:
    """The most probable slope and shift of one label, by Newton's method; the loss is convex.

    The slope turns about the mean logit weighted by p (1 - p), where it and the shift do not mix.
    """
    weight = np.exp(-np.abs(logits)) / (1 + np.exp(-np.abs(logits))) ** 2
    pivot = float(weight @ logits / max(weight.sum(), np.finfo(np.float64).tiny))
    precision = np.array([SLOPE_DEVIATION, SHIFT_DEVIATION, CENTRE_DEVIATION]) ** -2.0
    at: Doubles = np.zeros(3)
    loss, slope, bend = _moments(logits, standard, truth, pivot, at)
    for _ in range(STEPS):
        gradient = slope + precision * at
        step = -np.linalg.solve(bend + np.diag(precision), gradient)
        drop = float(gradient @ step)
        if -drop < 1e-8 * len(logits) ** 0.5:
            break
        size, here = 1.0, loss + float(precision @ at**2) / 2
        while size > 1e-4:
            trial = at + size * step
            found = _moments(logits, standard, truth, pivot, trial)
            if found[0] + float(precision @ trial**2) / 2 <= here + 1e-4 * size * drop:
                at, (loss, slope, bend) = trial, found
                break
            size /= 2
        else:
            break
    return float(at[0]), float(at[1] - at[0] * pivot)


@compiled
def _moments(
    logits: Doubles, standard: Doubles, truth: Doubles, pivot: float, at: Doubles
) -> tuple[float, Doubles, Doubles]:
    """The cross-entropy at slope, shift and centre `at` (3,), its gradient (3,) and its second derivatives (3, 3)."""
    loss, gradient, bend = 0.0, np.zeros(3), np.zeros((3, 3))
    line = np.ones(3)
    for row in range(len(logits)):
        line[0] = (logits[row] - pivot) * standard[row]
        line[1] = standard[row]
        logit = logits[row] + at[0] * line[0] + at[1] * line[1] + at[2]
        shrunk = np.exp(-abs(logit))
        loss += max(logit, 0.0) + np.log1p(shrunk) - truth[row] * logit
        probability = 1 / (1 + shrunk) if logit >= 0 else shrunk / (1 + shrunk)
        wrong, weight = probability - truth[row], probability * (1 - probability)
        for j in range(3):
            gradient[j] += wrong * line[j]
            for k in range(3):
                bend[j, k] += weight * line[j] * line[k]
    return loss, gradient, bend
