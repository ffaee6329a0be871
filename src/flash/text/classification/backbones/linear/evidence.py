"""Correction of scores by the evidence in a text, which improves the linear backbone's probabilities of short texts.

The evidence of a text is the length of its row of known n-grams before normalisation, with words and characters each
relative to training texts, so that a typical text has evidence 1. The correction is learned from out-of-fold scores, and
depends on nothing but the text itself:

- For each label, a score s becomes s + u (slope s + shift), where u is the centred logarithm of the evidence. This is
  logistic regression on the calibrated score, u and their product, with a normal prior centred on no change, so that a
  label with few texts keeps its scores.
- If the evidence is lower than that of nearly all training texts, the score is drawn towards that of the label's base
  rate, with the square of the evidence; a text without a known n-gram gets the base rate.
- u is clipped to the range of nearly all training texts.

The order of scores of texts with equal evidence does not change. Imports neither torch nor lightning.
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
"""Prior standard deviations of a label's slope and shift, for calibrated scores and standardised u."""
CENTRE_DEVIATION = 0.5
"""Prior standard deviation of the intercept, which is discarded: calibration follows."""
FEWEST_POSITIVES = 10.0
"""A label with fewer positives keeps its scores."""
LEAST_SLOPE = 0.25
"""Minimum factor of a score at any evidence, so that scores keep their order."""
EDGES = 0.01
"""Share of training texts on either side whose evidence is clipped."""
LITTLE = 0.05
"""Share of training texts whose evidence is so low that their scores are drawn towards the base rate."""
STEPS = 20

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Parameters of the evidence and of its effect on each label; see the module's docstring.

    Attributes:
        places: (6,) weights of the lengths of words and characters, lower and upper limit of the logarithm, its centre,
            and the evidence from which on scores are not drawn towards the base rate; see `kernels.weigh_evidence`.
        by_label: (3, L) slope, shift and score of the base rate.
    """

    places: Floats
    by_label: Floats

    def apply(self, amounts: Doubles, scores: Floats) -> Floats:
        """Return corrected scores (N, L) of texts with the evidence `amounts` (N,)."""
        changed = scores.copy()
        weigh_evidence_of_rows(amounts, self.places, self.by_label, changed)
        return changed


def evidence_units(lengths: Doubles, word_share: float) -> Doubles:
    """Return (2,) weights of the lengths of words and characters, so that a typical text has evidence 1.

    Args:
        lengths: (N, 2) lengths of the parts of training rows.
        word_share: Share of words, in texts that have both.
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
    """Fit the correction by evidence on (N, L) out-of-fold scores.

    Args:
        scores: (N, L), finite, out-of-fold.
        targets: (N, L), in [0, 1], NaN for an unknown target.
        lengths: (N, 2) lengths of the rows' parts before normalisation.
        units: (2,) from `evidence_units`.
        calibration: Calibration of the scores; None to fit it.
        threads: Maximum number of threads; None for one per processor. The result does not depend on it.

    Returns:
        The correction; None if no row has a known n-gram.
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
    """Return the logit of a label's base rate, clipped to the range of the rows' logits."""
    rate = (truth.sum() + 0.5) / (len(truth) + 1)
    return float(np.clip(np.log(rate / (1 - rate)), logits.min(), logits.max()))


def _fit_label(logits: Doubles, standard: Doubles, truth: Doubles) -> tuple[float, float]:
    """Fit slope and shift of one label by Newton's method; the loss is convex.

    The slope is relative to the mean logit weighted by p (1 - p), at which slope and shift are uncorrelated.
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
    """Return the cross-entropy at slope, shift and intercept `at` (3,), its gradient (3,) and its Hessian (3, 3)."""
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
