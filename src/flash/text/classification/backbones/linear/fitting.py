"""The linear backbone's fit: C by a held-out fold, the exact optimum, out-of-fold scores.

One `step` of a `LinearSolver` is one pass of coordinate descent over the rows, or one fold; `label_blocks` computes it.
Imports neither torch nor lightning.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from flash.core.errors import DataError, FlashError
from flash.text.classification.arguments import current_names
from flash.text.classification.backbones.linear.evidence import evidence_units, fit_evidence
from flash.text.classification.backbones.linear.features import Rows, Texts
from flash.text.classification.backbones.linear.held_out import (
    CLEARLY_BETTER,
    GRID,
    MIDDLE,
    calibrated_loss,
    fold_of_each,
    growth_of_scores,
)
from flash.text.classification.backbones.linear.label_blocks import (
    Floats,
    Indices,
    LabelBlocks,
    per_label,
    relative_costs,
)
from flash.text.classification.backbones.linear.model import Linear, check_arrays
from flash.text.classification.backbones.linear.stacking import Stacking, fit_stacking
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.targets.known import without_unknown

SAMPLE = 8_000
"""Maximum number of rows, both outside and inside the held-out fold, that are used to choose C."""
ROUGH = 2.0
"""How much more than the tolerance is tolerated when choosing C."""
FEWEST_TO_CHOOSE = 200
"""With fewer rows a held-out fold says nothing: the middle C is taken, and scores stay as they are."""
ENOUGH, LEAST_FOLDS = 30_000, 2
"""Number of out-of-fold scores that suffices for calibration and thresholds: no further folds are scored. At least two
folds are needed, because each fold's stacking is fitted on the others."""
FOLD_PASSES = 2
"""Maximum passes over the rows outside a fold, starting from the optimum of all rows without the fold's share."""
SMALL_FOLDS = 10
"""One of so many parts of the rows is also scored by a fit on the others, to measure how scores grow with the rows."""
SMALL_NUMBER = 2**20
"""Number that seeds the order of its passes; no other pass has it."""


class LinearSolver:
    """One fit of a `Linear`, step by step, so that a training loop can show progress, stop and resume.

    Its stages: with `C="auto"`, fits without the first fold, at the values of `GRID` in turn, until the
    next is not clearly better on that fold; the fit of all rows, which makes the weights of `model`; for each fold the
    scores that its rows have without it; and from these the mixture of labels that goes into the weights
    (`stacking`). Starts from the weights that `model` has, if it was trained before.

    The same seed and data give the same numbers bit for bit at any number of threads.

    Args:
        model: What to fit. Its features are chosen anew, its weights change with each `step`, and its
            `config.C` becomes the one that was chosen.
        texts: N training texts.
        targets: (N, L), 1.0 where a label applies, soft targets in [0, 1] as they are, NaN where one is not known:
            that row is then no part of the label's fit, of its scores without itself, or of its mixture.
        seed: Of the order of the rows, and of the folds.
        multi_label: Whether scores become probabilities by a sigmoid; else by a softmax, to which it is all the same if
            they grow with the rows.

    Attributes:
        held_out_rows: (M,) the rows whose scores without themselves are wanted, those of the first folds that have
            `ENOUGH` together.
        held_out: (M, L) float32 scores of these rows by a fit without their fold, in the end mixed as the weights are,
            by a mixture of the other folds; NaN until they are known.

    Raises:
        DataError: No rows, numbers of rows or labels that differ, or a target outside [0, 1].
        FlashError: Weights of another number of labels.
    """

    def __init__(
        self, model: Linear, texts: Texts, targets: csr_array, *, seed: int = 0, multi_label: bool = True
    ) -> None:
        if 0 in targets.shape or targets.shape != (len(texts), model.num_labels):
            raise DataError(
                f"{len(texts)} texts with targets of shape {targets.shape} for {model.num_labels} labels; "
                f"expected targets of shape (texts, labels), and at least one of each"
            )
        known = without_unknown(targets)
        if known.nnz and not (known.data.min() >= 0 and known.data.max() <= 1):
            raise DataError(f"targets lie between {known.data.min()} and {known.data.max()}; expected 0 to 1")
        self.model, self.seed, self.passes, self.multi_label = model, seed, 0, multi_label
        columns = csc_array(targets, dtype=np.float32)
        columns.eliminate_zeros()
        columns.sort_indices()
        self._targets = columns
        count, config = len(texts), model.config
        if config.C != "auto":  # refuses a wrong number of them at once
            per_label("C", config.C, model.num_labels)
        self._relative = relative_costs(config, columns)
        earlier = model.logits(texts) if len(model.arrays()["idf"]) else None
        self.rows: Rows = model.fit_features(texts, without_unknown(columns))
        self._folds = fold_of_each(self.rows, config.folds, seed) if config.folds else None
        chooses = config.C == "auto" and self._folds is not None and count >= FEWEST_TO_CHOOSE
        self._chooses = chooses
        self._stage, self._stage_passes = 0 if chooses else len(GRID), 0
        self._choice, self._inside_loss = GRID.index(MIDDLE), np.inf
        self._inside, self._outside = self._sample() if chooses else (np.arange(0), np.arange(count))
        self.held_out_rows = np.arange(0)
        if self._folds is not None:
            self.held_out_rows = np.flatnonzero(self._folds < self._scored_folds)
        self.held_out = self._scores = np.full(
            (len(self.held_out_rows), model.num_labels), np.nan, np.float32
        )
        self._loss = 0.0
        self._blocks = LabelBlocks(model, self.rows, columns)
        if earlier is not None:
            self._blocks.start_from(earlier, self._fitted_rows, self._costs)

    # ---- stages ---------------------------------------------------------------------------------------------

    @property
    def _scored_folds(self) -> int:
        """The number of folds that are scored, counted from the first."""
        folds = self.model.config.folds
        if self._folds is None:
            return 0
        return min(folds, max(LEAST_FOLDS, -(-ENOUGH * folds // len(self._folds))))

    @property
    def converged(self) -> bool:
        """Whether the last stage is finished."""
        return self._stage > len(GRID) + self._scored_folds

    @property
    def C(self) -> Floats:
        """C of each label (L,) in the present stage."""
        given = self.model.config.C
        if given != "auto":
            return per_label("C", given, self.model.num_labels)
        present = GRID[self._stage if self._stage < len(GRID) else self._choice]
        return np.full(self.model.num_labels, present, np.float32)

    @property
    def _costs(self) -> Floats:
        """(2, L) costs of a row without and with each label, in the current stage."""
        return self._relative * self.C

    @property
    def _tolerance(self) -> float:
        """Of the present stage: to choose C, a rough optimum will do."""
        return self.model.config.tolerance * (ROUGH if self._stage < len(GRID) else 1)

    @property
    def _fitted_rows(self) -> Indices:
        """The rows that the current stage fits."""
        return self._outside if self._stage < len(GRID) else np.arange(len(self.rows.ends))

    def step(self) -> float:
        """Make one pass over the rows for the unsolved labels, or score one fold.

        Returns:
            The mean of max(0, 1 - y z)^2 over rows and labels in the last pass, each before the row's update.
        """
        if self.converged:
            return self._loss
        if self._stage > len(GRID):
            self._score_fold(self._stage - len(GRID) - 1)
            self._stage += 1
            if self.converged:
                self._finish()
        else:
            order = self._shuffled(self._fitted_rows, self.passes)
            self._loss = self._blocks.run_pass(order, self._costs, self._tolerance)
            self._stage_passes += 1
            solved = self._blocks.is_solved(self._tolerance)
            if solved or self._stage_passes >= self.model.config.max_passes:
                self._next_stage()
                if self.converged:
                    self._finish()
        self.passes += 1
        return self._loss

    def _next_stage(self) -> None:
        """Go to the next stage after a fit has reached its optimum."""
        self._stage_passes = 0
        if self._stage < len(GRID):
            self._choose()
        else:
            self._keep_choice()
            self._stage += 1
        self._blocks.unsettle()

    def _keep_choice(self) -> None:
        """Make what the data has chosen an option of the model; "auto" stays where it was not asked."""
        if self.model.config.C == "auto" and self._chooses:
            self.model.choose(C=GRID[self._choice])

    def _choose(self) -> None:
        """Go on to the next C if this one is clearly better than the last."""
        scores = self._blocks.score(self._inside)
        loss = calibrated_loss(scores, self._targets[self._inside], self.model.threads)
        if loss < (1 - CLEARLY_BETTER) * self._inside_loss:
            self._choice, self._inside_loss = self._stage, loss
            self._stage += 1
        else:
            self._stage = len(GRID)

    def _score_fold(self, fold: int) -> None:
        """Score a fold's rows by the fit on all rows, with these rows taken out."""
        inside = np.asarray(self._folds) == fold
        places = np.searchsorted(self.held_out_rows, np.flatnonzero(inside))
        self._score_without(inside, self.passes, self._scores, places)

    def _score_without(
        self, inside: npt.NDArray[np.bool_], number: int, scores: Floats, places: Indices
    ) -> None:
        """Write the scores of the rows `inside` (N,), from a fit on the others, to `places`; `number` seeds its passes."""
        outside = np.flatnonzero(~inside)
        orders = [self._shuffled(outside, number * FOLD_PASSES + again) for again in range(FOLD_PASSES)]
        self._blocks.score_without(inside, orders, self._costs, self._tolerance, scores, places)

    def _finish(self) -> None:
        """Apply the out-of-fold corrections and the quantization to the model after the last stage."""
        if len(self._scores):
            stacking = self._stack()
            if self.multi_label and len(self.rows.ends) >= FEWEST_TO_CHOOSE:
                self._follow_growth(stacking)
            self._weigh_evidence()
        if self.model.config.quantize:
            self.model.quantize()

    def _stack(self) -> Stacking | None:
        """Stack the labels' weights in the model, and each fold's scores with a stacking fitted on the other folds."""
        threads, arrays = self.model.threads, self.model.arrays()
        targets = csr_array(self._targets)[self.held_out_rows]
        columns = csc_array(targets)
        calibration = fit_calibration(self._scores, columns, multi_label=True, threads=threads)
        stacking = fit_stacking(self._scores, columns, calibration=calibration, threads=threads)
        if stacking is None:
            return None
        stacking.mix(arrays["weight"], threads)
        stacking.mix(arrays["bias"][np.newaxis])
        arrays["bias"] += stacking.shift
        self.held_out = self._scores.copy()
        for others in self._other_folds():
            columns = csc_array(targets[others])
            own = fit_stacking(self._scores[others], columns, calibration=calibration, threads=threads)
            if own is not None:
                mixed = self._scores[~others]
                own.mix(mixed, threads)
                self.held_out[~others] = mixed + own.shift
        return stacking

    def _follow_growth(self, stacking: Stacking | None) -> None:
        """Subtract from the model's bias the growth of scores from a fit without a fold to the fit on all rows.

        Calibration and thresholds are based on fits with fewer rows than the model's, and fits on more rows give new
        texts higher scores on average. The growth is measured on rows that are scored twice: by a fit without their
        fold, and by a fit without a small part of the rows.
        """
        folds, small = self.model.config.folds, fold_of_each(self.rows, SMALL_FOLDS, self.seed)
        if small is None or folds >= SMALL_FOLDS:
            return
        inside = (small == 0) & (np.asarray(self._folds) < self._scored_folds)
        shares = 1 - 1 / folds, 1 - float(inside.mean())
        smallest = np.bincount(np.asarray(self._folds)).min() / len(small)
        if not inside.any() or inside.mean() > 0.75 * smallest:  # many texts are identical
            return
        fewer = self._scores[inside[self.held_out_rows]]
        more = np.empty_like(fewer)
        self._score_without(inside, SMALL_NUMBER, more, np.arange(len(more)))
        threads, columns = self.model.threads, csc_array(csr_array(self._targets)[self.held_out_rows])
        if stacking is not None:
            for scores in (fewer, more):
                stacking.mix(scores, threads)
                scores += stacking.shift
        calibration = fit_calibration(self.held_out, columns, multi_label=True, threads=threads)
        positives = np.asarray(without_unknown(columns).sum(axis=0), np.float64)
        self.model.arrays()["bias"][:] -= growth_of_scores(fewer, more, calibration, positives, shares)

    def _weigh_evidence(self) -> None:
        """Fit the model's correction by evidence, and correct each fold's scores with one fitted on the other folds."""
        threads, targets = self.model.threads, csr_array(self._targets)[self.held_out_rows]
        lengths, folds = np.zeros((len(targets.indptr) - 1, 2)), np.asarray(self._folds)
        for fold in range(self._scored_folds):
            inside = np.flatnonzero(folds == fold)
            lengths[np.searchsorted(self.held_out_rows, inside)] = self._blocks.unseen_lengths(inside)
        units, columns = evidence_units(lengths, self.model.word_share), csc_array(targets)
        calibration = fit_calibration(self.held_out, columns, multi_label=True, threads=threads)
        evidence = fit_evidence(
            self.held_out, columns, lengths, units, calibration=calibration, threads=threads
        )
        if evidence is None:
            return
        arrays = {"evidence": evidence.places, "evidence_by_label": evidence.by_label}
        self.model.load_arrays({**self.model.arrays(), **arrays})
        changed = evidence.apply(lengths @ units, self.held_out)
        for others in self._other_folds():
            columns = csc_array(targets[others])
            own = self.held_out[others], columns, lengths[others], units
            evidence = fit_evidence(*own, calibration=calibration, threads=threads)
            if evidence is not None:
                changed[~others] = evidence.apply(lengths[~others] @ units, self.held_out[~others])
        self.held_out = changed

    def _other_folds(self) -> list[npt.NDArray[np.bool_]]:
        """Return, for each scored fold, a mask (M,) of the scored rows in other folds; empty for a single fold."""
        folds = np.asarray(self._folds)[self.held_out_rows]
        scored = self._scored_folds if self._scored_folds > 1 else 0
        return [folds != fold for fold in range(scored)]

    def _sample(self) -> tuple[Indices, Indices]:
        """The rows of the first fold to score, and those outside it to fit, when choosing C."""
        order = np.random.Generator(np.random.PCG64([self.seed])).permutation(len(self.rows.ends))
        first = np.asarray(self._folds)[order] == 0
        inside, outside = order[first], order[~first]
        return np.sort(inside[:SAMPLE]), np.sort(outside[:SAMPLE])

    def _shuffled(self, rows: Indices, number: int) -> Indices:
        """Return rows in the order of a pass."""
        return rows[np.random.Generator(np.random.PCG64([self.seed, number])).permutation(len(rows))]

    # ---- the state ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that the next step depends on, beside the model's options and the data.

        `duals` (N, L) are a y; `weight` (F, L) and `bias` (L,) are the accumulated float32 sums, which could not be
        recomputed bit for bit.
        """
        return {
            "passes": self.passes,
            "seed": self.seed,
            "checksum": self._checksum,
            "progress": np.array([self._stage, self._stage_passes], np.int64),
            "choice": np.array([self._choice], np.int64),
            "inside_loss": np.array([self._inside_loss]),
            "loss": np.array([self._loss]),
            "C": self.C.astype(np.float64),
            "violations": self._blocks.gather("violations"),
            "folds": np.zeros(0, np.int64) if self._folds is None else self._folds.copy(),
            "held_out": self._scores.copy(),
            "duals": self._blocks.gather("duals"),
            "weight": self._blocks.gather("weight"),
            "bias": self._blocks.gather("bias"),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state`, bit for bit.

        Raises:
            FlashError: The state belongs to other data or options, or is incomplete.
        """
        current, state = self.state(), current_names(state)
        missing = sorted(current.keys() - state.keys())
        if missing:
            raise FlashError(f"the solver's state lacks {', '.join(missing)}; give what state() returned")
        foreign = (
            "the solver's state belongs to other texts, targets or options; resume with the data and "
            "options that the run began with, or start afresh"
        )
        if state["checksum"] != self._checksum:
            raise FlashError(foreign)
        known = {name: value for name, value in current.items() if isinstance(value, np.ndarray)}
        arrays = {name: np.asarray(state[name]) for name in known}
        expected = {name: (array.shape, array.dtype.type) for name, array in known.items()}
        (_, labels), dtype = expected.pop("held_out")
        check_arrays("solver state", arrays, expected)
        stage, stage_passes = arrays["progress"].tolist()
        # the number of rows depends on the seed
        wanted_rows = int((arrays["folds"] < self._scored_folds).sum()) if self._folds is not None else 0
        check_arrays("solver state", arrays, {"held_out": ((wanted_rows, labels), dtype)})
        choice = int(arrays["choice"][0])
        if not 0 <= choice < len(GRID):
            raise FlashError(foreign)
        given = self.model.config.C
        wanted = GRID[stage if stage < len(GRID) else choice] if given == "auto" else current["C"]
        if (given != "auto" and stage < len(GRID)) or np.any(arrays["C"] != wanted):
            raise FlashError(foreign)
        self.passes, self.seed = int(state["passes"]), int(state["seed"])
        self._stage, self._stage_passes = stage, stage_passes
        self._choice, self._inside_loss = choice, float(arrays["inside_loss"][0])
        self._loss = float(arrays["loss"][0])
        if self._stage > len(GRID):
            self._keep_choice()
        if self._folds is not None:
            self._folds = arrays["folds"].copy()
            self._inside, self._outside = self._sample()
            self.held_out_rows = np.flatnonzero(self._folds < self._scored_folds)
        self.held_out = self._scores = arrays["held_out"].copy()
        model_arrays = self.model.arrays()
        if model_arrays["weight"].dtype == np.int8:  # the fit had ended and was quantized
            plain = {name: np.ones(array.shape, np.float32) for name, array in model_arrays.items()}
            model_arrays.update(weight=plain["weight"], scale=plain["scale"])
            self.model.load_arrays(model_arrays)
        self._blocks.load(arrays)
        if self.converged:
            self._finish()

    @cached_property
    def _checksum(self) -> int:
        """Checksum of the training data and of the options that weights and dual variables depend on."""
        checksum = 0
        rows, targets, config = self.rows, self._targets, self.model.config
        options = np.array([config.bias, config.folds, config.tolerance])
        hot = (targets.indptr, targets.indices, targets.data)
        for array in (options, self._relative, rows.ends, rows.features, rows.values, *hot):
            checksum = crc32(np.ascontiguousarray(array).data.cast("B"), checksum)
        return checksum
