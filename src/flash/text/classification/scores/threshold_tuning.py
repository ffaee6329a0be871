"""Tune per-label thresholds for an objective, on scores of rows that the model was not trained on.

Method. One threshold per label, each at the label's best F1, improves macro-F1 for labels with many positives. For
labels with few positives it overfits, and the false positives of rare labels lower micro-F1 (Yang 2001; Fan & Lin
2007). Therefore:

1. A label's true positives at a cut are a mix of the observed number, with weight n / (n + 300) for n positives, and
   the number expected from its calibrated probabilities. With expectations alone, the optimal threshold is half the
   best F1 (Lipton et al. 2014); a label with few positives is close to that, a label with thousands is at its own
   optimum. The global threshold, one for all labels, is chosen from such a mix too, with weight n / (n + 3000) for
   the positives of all labels.
2. The cut maximises a weighted sum of the label's share in macro-F1 and, to first order, the change of micro-F1
   relative to the global threshold. This prevents rare labels from being applied to many rows.
3. The threshold is then moved towards the global threshold, in logits.
4. The weight in 2 and the step in 3 are chosen by cross-validation over rows. A setting is allowed if micro-F1, two
   standard errors below its estimate, loses at most 0.005, and macro-F1 gains more than one standard error. The
   allowed setting with the largest gain in macro-F1 plus twice the gain in micro-F1 is taken; if none is allowed,
   the global threshold is used.

Cuts are on a grid in logits, so that one pass over the scores is sufficient. F-beta instead of F1 works the same way.
A required precision or recall is searched for among all cuts between a label's own scores: it counts as met if the
lower bound of Wilson's interval (1927) reaches it.

Sources: Yang, "A study of thresholding strategies for text categorization" (SIGIR 2001); Fan & Lin, "A study on
threshold selection for multi-label classification" (2007); Lipton, Elkan & Naryanaswamy, "Optimal thresholding of
classifiers to maximize F1 measure" (ECML 2014); Wilson, "Probable inference" (JASA 1927).

Imports neither torch nor lightning.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.scores.thresholds import BLOCK_CELLS, check_arrays, column_of_each

Objective: TypeAlias = str | Sequence[str] | Mapping[str, str]
Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

DEFAULT_OBJECTIVE = "macro_f1"
EXAMPLES = ("macro_f1", "micro_f1", "macro_f2", "macro_f0.5", "precision>=0.9", "recall>=0.9")
NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
F_SCORE = re.compile(rf"(macro|micro)_f{NUMBER}")
REQUIREMENT = re.compile(rf"(precision|recall)\s*>=\s*{NUMBER}")

# 0, then steps of 0.05 in logits: much finer than the data can resolve, and coarse enough to count in one pass
CUTS = np.append(0, 1 / (1 + np.exp(-np.linspace(-12, 12, 481)))).astype(np.float32)
FOLDS = 5
PRIOR_POSITIVES = 300  # number of positives at which observed and expected hits have equal weight
PRIOR_POSITIVES_OF_ALL = 3000  # the same for the global threshold, with the positives of all labels
MICRO_WEIGHTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
STEPS = (0.25, 0.5, 0.75, 1.0)  # fraction of the way from the global threshold to the label's own
MOST_MICRO_LOSS = 0.005
# standard errors for a required value; more for precision, because choosing among many cuts favours lucky ones
WIDTHS = {"precision": 1.645, "recall": 1.0}


@dataclass(frozen=True)
class ThresholdChoice:
    """Tuned thresholds and their objectives.

    Attributes:
        thresholds: (L,) float32 in [0, 1], for `outputs.applies`.
        global_threshold: the single threshold with the best micro-F1, from observed and expected hits.
        objectives: the objective of each label.
        unmet: columns whose required precision or recall could not be shown on these rows. They get the closest cut
            (the highest lower bound of precision; all positives found), or the global threshold if there is no positive
            row.
    """

    thresholds: NDArray[np.float32]
    global_threshold: float
    objectives: tuple[str, ...]
    unmet: tuple[int, ...] = ()

    def unmet_sentence(self, labels: Sequence[str]) -> str:
        """Return the warning about `unmet`; empty if there is none."""
        if not self.unmet:
            return ""
        shown = ", ".join(f"{self.objectives[column]} for {labels[column]!r}" for column in self.unmet[:5])
        more = f" and {len(self.unmet) - 5} more" if len(self.unmet) > 5 else ""
        return (
            f"the rows for tuning cannot show {shown}{more}; the closest threshold was taken there "
            "(too few positive rows, or scores that do not separate them: ask for less or label more rows)"
        )


@dataclass(frozen=True)
class Goal:
    """A parsed objective: `kind` macro or micro with beta, or precision or recall with the required value."""

    kind: str
    value: float


def parse_objective(objective: Objective, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the objective of each label, in label order.

    Args:
        objective: one for all labels: "macro_f1", "micro_f1", the same with another beta ("macro_f2", "micro_f0.5"),
            "precision>=0.9", "recall>=0.9"; a list with one per label, in label order; or a dict by label name, in which
            missing labels get "macro_f1".
        labels: the L names in order.

    Raises:
        FlashError: an unknown objective or label, or a number of objectives that differs from the number of labels.
    """
    if isinstance(objective, Mapping):
        strangers = [str(label) for label in objective if label not in set(labels)]
        if strangers:
            raise FlashError(unknown_name("label", strangers[0], labels))
        objective = [objective.get(label, DEFAULT_OBJECTIVE) for label in labels]
    texts = _one_per_label(objective, len(labels))
    for text in set(texts):
        _read(text)
    return texts


def choose_thresholds(
    probabilities: ArrayLike,
    targets: Any,
    objective: str | Sequence[str] = DEFAULT_OBJECTIVE,
    *,
    seed: int = 0,
) -> ThresholdChoice:
    """Tune thresholds for an objective; see the module's docstring for the method.

    "macro_f1" hardly lowers micro-F1: if per-label thresholds are not clearly better, it is the global threshold.
    "micro_f1" is one threshold for all labels, as per-label thresholds were not better on unseen rows.

    Args:
        probabilities: (N, L), in [0, 1], calibrated, of rows that the model was not trained on (out-of-fold or
            validation).
        targets: (N, L), sparse or dense, in [0, 1]; positive from 0.5. NaN for an unknown target, which is ignored.
        objective: one for all labels or one per label, as in `parse_objective`.
        seed: seed of the folds. The same rows and seed give the same thresholds.

    Raises:
        FlashError: the shapes differ, a value is not finite or outside [0, 1], or the objective is unknown.
    """
    scores, truth, known = check_arrays(probabilities, targets)
    texts = _one_per_label(objective, scores.shape[1])
    goals = {text: _read(text) for text in dict.fromkeys(texts)}
    counts, single = None, np.float32(0.5)
    if truth.nnz:
        counts = _count_folds(scores, truth, seed, known)
        single = CUTS[_global_cut(counts.sum(axis=1), 1)[0]]
    chosen = np.full(scores.shape[1], single, np.float32)
    unmet: list[int] = []
    for text, goal in goals.items():
        columns = np.flatnonzero([own == text for own in texts])
        if goal.kind in ("precision", "recall"):
            unmet += _require(chosen, columns, scores, truth, known, goal)
        elif counts is not None:
            chosen[columns] = _tune(counts, goal)[columns]
    return ThresholdChoice(chosen, float(single), texts, tuple(sorted(unmet)))


def _one_per_label(objective: Any, labels: int) -> tuple[str, ...]:
    """Expand one objective, or check a sequence of objectives, to a tuple with one per label."""
    if isinstance(objective, str):
        _read(objective)  # check it even if there are no labels
        return (objective,) * labels
    if not isinstance(objective, Sequence) or isinstance(objective, bytes):
        raise FlashError(
            f"objective={objective!r} is not understood; expected one such as {EXAMPLES[0]!r}, a list with one per "
            "label, or a dict by label"
        )
    if len(objective) != labels:
        raise FlashError(f"objective has {len(objective)} values for {labels} labels; expected one per label")
    return tuple(objective)


def _read(text: Any) -> Goal:
    """Parse one objective."""
    score = F_SCORE.fullmatch(text) if isinstance(text, str) else None
    need = REQUIREMENT.fullmatch(text) if isinstance(text, str) else None
    found = score or need
    if found is None:
        raise FlashError(unknown_name("objective", str(text), EXAMPLES))
    goal = Goal(found[1], float(found[2]))
    if need and not 0 < goal.value <= 1:
        raise FlashError(
            f"objective {text!r} asks for a {goal.kind} of {goal.value:g}; expected one in (0, 1]"
        )
    if score and not 0.01 <= goal.value <= 100:
        raise FlashError(
            f"objective {text!r} has beta {goal.value:g}; expected one in [0.01, 100], such as 1"
        )
    return goal


def _count_folds(
    scores: NDArray[np.float32], truth: csc_array, seed: int, known: NDArray[np.bool_] | None = None
) -> Floats:
    """Return (3, folds, L, cuts): known rows that reach each cut, positives among them, and their expected positives."""
    rows, labels = scores.shape
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    size = labels * CUTS.size
    counts = np.zeros((3, FOLDS, size))
    columns = np.arange(labels) * CUTS.size
    for number in range(FOLDS):
        members = np.flatnonzero(fold == number)
        step = max(1, BLOCK_CELLS // labels)
        for start in range(0, members.size, step):
            part = members[start : start + step]
            block = scores[part]
            places = (np.searchsorted(CUTS, block, side="right") - 1 + columns).ravel()
            block = block.ravel()
            if known is not None:
                here = known[part].ravel()
                places, block = places[here], block[here]
            counts[0, number] += np.bincount(places, minlength=size)
            counts[2, number] += np.bincount(places, block, minlength=size)
    of_each = column_of_each(truth)
    places = np.searchsorted(CUTS, scores[truth.indices, of_each], side="right") - 1 + columns[of_each]
    places += fold[truth.indices] * size
    counts[1] = np.bincount(places, minlength=FOLDS * size).reshape(FOLDS, size)
    counts = counts.reshape(3, FOLDS, labels, CUTS.size)
    reaching: Floats = np.cumsum(counts[..., ::-1], axis=-1, out=counts[..., ::-1])[..., ::-1]
    return reaching


def _tune(counts: Floats, goal: Goal) -> NDArray[np.float32]:
    """Return the (L,) thresholds for an F-beta, from (3, folds, L, cuts) counts with at least one positive."""
    whole = counts.sum(axis=1)
    squared = goal.value**2
    best = _cross_validate(counts, squared) if goal.kind == "macro" else None
    if best is None:
        return np.full(counts.shape[2], CUTS[_global_cut(whole, squared)[0]])
    chosen: NDArray[np.float32] = CUTS[_settings(whole, squared)[best]]
    return chosen


def _global_cut(counts: Floats, squared: float) -> tuple[int, float]:
    """Return the cut with the best micro-F-beta for (3, L, cuts) counts, and that F-beta; 0.5 if all are equal.

    Micro-F1 is nearly flat around its maximum, so that the observed best cut is partly chance. Therefore observed hits
    are mixed with expected ones here as well.
    """
    predicted, hits, expected = counts.sum(axis=1)
    own = hits[0] / (hits[0] + PRIOR_POSITIVES_OF_ALL)
    likely = own * hits + (1 - own) * expected
    scores = (1 + squared) * likely / np.maximum(predicted + squared * likely[0], 1e-9)
    scores[0] = 0  # exclude this cut, at which each label applies to each row
    best = np.flatnonzero(scores == scores.max())
    chosen = int(best[np.abs(CUTS[best] - 0.5).argmin()])
    return chosen, float(scores[chosen])


def _settings(counts: Floats, squared: float) -> Indices:
    """Return the (settings, L) cuts that each weight and step choose for (3, L, cuts) counts."""
    predicted, hits, expected = counts
    positives = hits[:, :1]
    own = positives / (positives + PRIOR_POSITIVES)
    likely = own * hits + (1 - own) * expected  # at the first cut, which all rows reach: the positives
    base, level = _global_cut(counts, squared)
    score = (1 + squared) * likely / np.maximum(predicted + squared * likely[:, :1], 1e-9)
    macro = score / max(1, np.count_nonzero(positives))
    size = predicted[:, base].sum() + squared * positives.sum()
    micro = ((1 + squared) * likely - level * predicted) / max(size, 1e-9)
    chosen = []
    for weight in MICRO_WEIGHTS:
        worth = (1 - weight) * macro + weight * micro
        cuts = worth.argmax(
            axis=1
        )  # among equal cuts, in a gap between two scores, the lowest has the best recall
        cuts = np.where(positives[:, 0] > 0, cuts, base)
        chosen += [base + np.rint(step * (cuts - base)).astype(np.int64) for step in STEPS]
    return np.stack(chosen)


def _cross_validate(counts: Floats, squared: float) -> int | None:
    """Return the best setting by cross-validation over the folds; None for the global threshold."""
    whole = counts.sum(axis=1)
    columns = np.arange(counts.shape[2])
    own: Any = 0  # rows reaching the cut and hits among them, (2, settings, L)
    single: Any = 0  # the same for the global cut, (2, 1, L)
    moved: Any = 0  # decisions in which the two differ, and positives among them
    for number in range(FOLDS):
        others, here = whole - counts[:, number], counts[:2, number]
        base, _ = _global_cut(others, squared)
        with_own = here[:, columns, _settings(others, squared)]
        with_single = here[:, None, :, base]
        own, single = own + with_own, single + with_single
        moved = moved + np.abs(with_own - with_single)
    return _best_setting(own, single, moved, whole[1, :, 0], squared)


def _best_setting(
    own: Floats, single: Floats, moved: Floats, positives: Floats, squared: float
) -> int | None:
    """Step 4 of the method, from the out-of-fold counts of `_cross_validate`."""
    has = positives > 0
    (own_rows, own_hits), (rows, hits), (moves, hit_moves) = own[..., has], single[..., has], moved[..., has]
    gain = 1 + squared
    # a label without positives keeps the global cut; its false positives still count in micro-F-beta
    alone = single[0, 0, ~has].sum()
    sizes, own_sizes = rows + squared * positives[has], own_rows + squared * positives[has]
    size = sizes.sum() + alone
    level = gain * hits.sum() / size
    micro = gain * own_hits.sum(axis=1) / (own_sizes.sum(axis=1) + alone) - level
    # to first order, a changed decision on a positive changes F-beta by (gain - F) / size, on a negative by F / size
    variance = (gain - level) ** 2 * hit_moves + level**2 * (moves - hit_moves)
    micro_error = np.sqrt(variance.sum(axis=1)) / size
    levels = gain * hits / sizes
    macro = (gain * own_hits / own_sizes - levels).mean(axis=1)
    variances = (gain - levels) ** 2 * hit_moves + levels**2 * (moves - hit_moves)
    macro_error = np.sqrt((variances / np.maximum(sizes, own_sizes) ** 2).sum(axis=1)) / has.sum()
    allowed = (micro - 2 * micro_error >= -MOST_MICRO_LOSS) & (macro > macro_error)
    # rounded, so that ties do not depend on the order of the labels
    worth = np.where(allowed, np.round(macro + 2 * micro, 9), 0)
    best = int(worth.argmax())
    return best if worth[best] > 0 else None


def _require(
    chosen: NDArray[np.float32],
    columns: Indices,
    scores: NDArray[np.float32],
    truth: csc_array,
    known: NDArray[np.bool_] | None,
    goal: Goal,
) -> list[int]:
    """Set the columns' thresholds for a required precision or recall; return the columns that do not meet it."""
    unmet = []
    for column in columns.tolist():
        rows = truth.indices[truth.indptr[column] : truth.indptr[column + 1]]
        met = False
        if rows.size:
            own = scores[:, column] if known is None else scores[known[:, column], column]
            chosen[column], met = _requirement_cut(np.sort(own), np.sort(scores[rows, column]), goal)
        if not met:
            unmet.append(column)
    return unmet


def _requirement_cut(
    scores: NDArray[np.float32], positive: NDArray[np.float32], goal: Goal
) -> tuple[np.float32, bool]:
    """Return one label's threshold, and whether it meets the goal; both arrays ascend, `positive` is not empty."""
    cuts = np.unique(positive)  # a cut between two negatives is never better
    place = np.searchsorted(scores, cuts, side="left")
    reaching = scores.size - place
    hits = positive.size - np.searchsorted(positive, cuts, side="left")
    trials = reaching if goal.kind == "precision" else np.full(cuts.size, positive.size)
    bound = _wilson_lower(hits, trials, WIDTHS[goal.kind])
    met = np.flatnonzero(bound >= goal.value)
    if goal.kind == "precision":
        best = met[0] if met.size else bound.argmax()  # the lowest cut has the best recall
    else:
        best = met[(hits / reaching)[met].argmax()] if met.size else 0
    below = scores[place[best] - 1] if place[best] else np.float32(0)
    middle = np.float32((float(below) + float(cuts[best])) / 2)
    return (middle if middle > below else cuts[best]), bool(met.size)


def _wilson_lower(hits: Indices, trials: Indices, width: float) -> Floats:
    """Return the lower bound of Wilson's interval for a proportion, at `width` standard errors."""
    share, squared = hits / trials, width**2
    spread = width * np.sqrt(share * (1 - share) / trials + squared / (4 * trials**2))
    lower: Floats = (share + squared / (2 * trials) - spread) / (1 + squared / trials)
    return lower
