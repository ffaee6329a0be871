"""The linear backbone's fit: regularisation by a held-out fold, the exact optimum, scores of unseen rows.

One `step` of a `LinearSolver` is one pass of coordinate descent over the rows, or one fold. Imports neither torch
nor lightning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import cpu_count
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from flash.core.errors import DataError, FlashError
from flash.text.classification.backbones.features import Rows, Texts, in_threads
from flash.text.classification.backbones.held_out import (
    CLEARLY_BETTER,
    GRID,
    MIDDLE,
    as_unseen,
    calibrated_loss,
    fold_of_each,
)
from flash.text.classification.backbones.linear import Linear, check_arrays
from flash.text.classification.backbones.solver import (
    OFFSET,
    add_rows,
    balance_rows,
    optimal_duals,
    score_rows,
    solve_pass,
)
from flash.text.classification.backbones.stacking import fit_stacking
from flash.text.classification.calibration import fit_calibration
from flash.text.classification.thresholds import column_of_each

SAMPLE = 8_000
"""Rows outside the held-out fold that are enough to choose by, and the most of it that are scored."""
ROUGH = 2.5
"""How much more than the tolerance is tolerated when choosing the regularisation."""
FEWEST_TO_CHOOSE = 200
"""With fewer rows a held-out fold says nothing about the regularisation, and the middle one is taken."""
ENOUGH = 30_000
"""Rows with scores that are enough to calibrate and choose thresholds on: no further folds are scored after these."""
FOLD_PASSES = 2
"""Most passes over the rows outside a fold, from the optimum of all rows less the fold's share."""
COUNTED = 2**24
"""Entries of rows that are counted at a time."""
STILL = 0.1
"""A gradient below this share of the tolerance is left alone in a pass."""
NARROW = 0.75
"""Once no more than this share of a block's labels still moves, a pass takes them out of it and puts them back."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass
class Block:
    """The labels that one thread solves side by side, and where their fit stands."""

    labels: slice
    targets: tuple[Indices, npt.NDArray[np.int32], Floats]  # CSR
    duals: Floats  # (N, K)
    weight: Floats  # (F, K)
    bias: Floats  # (K,)
    violations: Floats  # (K,), of the last pass of this stage; infinite before it


class LinearSolver:
    """One fit of a `Linear`, step by step, so that a training loop can show progress, stop and resume.

    Its stages: with `regularization="auto"`, fits without the first fold, at the values of `GRID` in turn, until the
    next is not clearly better on that fold; the fit of all rows, which makes the weights of `model`; for each fold the
    scores that its rows have without it; and from these the mixture of labels that goes into the weights
    (`stacking`). Starts from the weights that `model` has, if it was trained before.

    The same seed and data give the same numbers bit for bit at any number of threads.

    Args:
        model: What to fit. Its features are chosen anew, its weights change with each `step`, and its
            `config.regularization` becomes the one that was chosen.
        texts: N training texts.
        targets: (N, L), 1.0 where a label applies, soft targets in [0, 1] as they are.
        seed: Of the order of the rows, and of the folds.

    Attributes:
        held_out_rows: (M,) the rows whose scores without themselves are wanted, those of the first folds that have
            `ENOUGH` together.
        held_out: (M, L) float32 scores of these rows by a fit without their fold, in the end mixed as the weights are,
            by a mixture of the other folds; NaN until they are known.

    Raises:
        DataError: No rows, numbers of rows or labels that differ, or a target outside [0, 1].
        FlashError: Weights of another number of labels.
    """

    def __init__(self, model: Linear, texts: Texts, targets: csr_array, *, seed: int = 0) -> None:
        if 0 in targets.shape or targets.shape != (len(texts), model.num_labels):
            raise DataError(
                f"{len(texts)} texts with targets of shape {targets.shape} for {model.num_labels} labels; "
                f"expected targets of shape (texts, labels), and at least one of each"
            )
        if targets.nnz and not (targets.data.min() >= 0 and targets.data.max() <= 1):
            raise DataError(
                f"targets lie between {targets.data.min()} and {targets.data.max()}; expected 0 to 1"
            )
        self.model, self.seed, self.passes = model, seed, 0
        columns = csc_array(targets, dtype=np.float32)
        columns.eliminate_zeros()
        columns.sort_indices()
        self._targets = columns
        count = len(texts)
        self._relative = self._relative_costs()
        earlier = model.logits(texts) if len(model.arrays()["idf"]) else None
        self.rows: Rows = model.fit_features(texts, columns)
        self._folds = fold_of_each(self.rows, model.config.folds, seed) if model.config.folds else None
        chooses = (
            model.config.regularization == "auto" and self._folds is not None and count >= FEWEST_TO_CHOOSE
        )
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
        features, labels = len(model.arrays()["idf"]), model.num_labels
        width = min(max(-(-labels // (model.threads or cpu_count() or 1)), 4), 128)
        self._blocks = [
            Block(
                slice(first, last),
                _rows_of(columns[:, first:last]),
                np.zeros((count, last - first), np.float32),
                np.zeros((features, last - first), np.float32),
                np.zeros(last - first, np.float32),
                np.full(last - first, np.inf, np.float32),
            )
            for first, last in ((first, min(first + width, labels)) for first in range(0, labels, width))
        ]
        if earlier is not None:
            self._start_from(earlier)

    # ---- stages ---------------------------------------------------------------------------------------------

    @property
    def _scored_folds(self) -> int:
        """How many folds are scored, the first so many."""
        folds = self.model.config.folds
        return 0 if self._folds is None else min(folds, -(-ENOUGH * folds // len(self._folds)))

    @property
    def converged(self) -> bool:
        """Whether the last stage is done."""
        return self._stage > len(GRID) + self._scored_folds

    @property
    def regularization(self) -> Floats:
        """C of each label (L,) in the present stage."""
        given = self.model.config.regularization
        if given != "auto":
            return np.asarray(self._one_a_label("regularization", given), np.float32)
        present = GRID[self._stage if self._stage < len(GRID) else self._choice]
        return np.full(self.model.num_labels, present, np.float32)

    def step(self) -> float:
        """One pass over the rows for the labels that still move, or the scores of one fold.

        Returns:
            The mean of max(0, 1 - y z)^2 a row and label in the last pass, each taken just before its row's update.
        """
        if self.converged:
            return self._loss
        if self._stage > len(GRID):
            self._score_fold(self._stage - len(GRID) - 1)
            self._stage += 1
            if self.converged:
                self._finish()
        else:
            self._pass()
            config = self.model.config
            if self._is_solved() or self._stage_passes >= config.max_passes:
                self._next_stage()
                if self.converged:
                    self._finish()
        self.passes += 1
        return self._loss

    @property
    def _tolerance(self) -> float:
        """Of the present stage: to choose the regularisation, a rough optimum will do."""
        return self.model.config.tolerance * (ROUGH if self._stage < len(GRID) else 1)

    def _is_solved(self) -> bool:
        return all(block.violations.max() < self._tolerance for block in self._blocks)

    def _pass(self) -> None:
        """One pass of the present stage's fit."""
        rows = self._outside if self._stage < len(GRID) else np.arange(len(self.rows.ends))
        order = self._shuffled(rows, self.passes)

        def solve(block: Block) -> tuple[npt.NDArray[np.float64], int]:
            summed = self._solve(block, order)
            self._show(block)
            return summed

        losses, counts = zip(*in_threads(self.model.threads, solve, self._blocks), strict=True)
        self._loss = float(np.concatenate(losses).sum()) / (len(order) * sum(counts))
        self._stage_passes += 1

    def _next_stage(self) -> None:
        """Go on from a fit that has reached its optimum."""
        self._stage_passes = 0
        if self._stage < len(GRID):
            self._choose()
        else:
            self._keep_choice()
            self._stage += 1
        for block in self._blocks:
            block.violations[:] = np.inf

    def _keep_choice(self) -> None:
        """Make what the data has chosen an option of the model; "auto" stays where it was not asked."""
        if self.model.config.regularization == "auto" and self._chooses:
            self.model.choose(regularization=GRID[self._choice])

    def _choose(self) -> None:
        """Go on to the next regularisation if this one is clearly better than the last."""
        inside = self._inside
        scores = np.empty((len(inside), self.model.num_labels), np.float32)
        unseen = self._as_unseen(inside)
        in_threads(
            self.model.threads,
            lambda block: self._write_scores(unseen, block, scores, slice(None)),
            self._blocks,
        )
        loss = calibrated_loss(scores, self._targets[inside], self.model.threads)
        if loss < (1 - CLEARLY_BETTER) * self._inside_loss:
            self._choice, self._inside_loss = self._stage, loss
            self._stage += 1
        else:
            self._stage = len(GRID)

    def _score_fold(self, fold: int) -> None:
        """The scores of a fold's rows by the fit of all rows from which they are taken out."""
        inside, outside = np.flatnonzero(self._folds == fold), np.flatnonzero(self._folds != fold)
        orders = [self._shuffled(outside, self.passes * FOLD_PASSES + again) for again in range(FOLD_PASSES)]

        unseen, places = self._as_unseen(inside), np.searchsorted(self.held_out_rows, inside)

        def score(block: Block) -> None:
            part = replace(
                block,
                duals=block.duals.copy(),
                weight=block.weight.copy(),
                bias=block.bias.copy(),
                violations=np.full_like(block.violations, np.inf),
            )
            rows, value = self.rows, self.model.config.bias
            add_rows(
                inside, rows.ends, rows.features, rows.values, part.duals, part.weight, part.bias, value, -1.0
            )
            wanted = part.duals.sum(axis=0, dtype=np.float64) * (len(outside) / len(rows.ends))
            balance_rows(
                outside,
                rows.ends,
                rows.features,
                rows.values,
                part.duals,
                part.weight,
                part.bias,
                value,
                wanted,
            )
            for order in orders:
                self._solve(part, order)
            self._write_scores(unseen, part, self._scores, places)

        in_threads(self.model.threads, score, self._blocks)

    def _finish(self) -> None:
        """What happens to the weights in the model after the last stage."""
        if len(self._scores):
            self._stack()
        if self.model.config.quantize:
            self.model.quantize()

    def _stack(self) -> None:
        """Mix the labels' weights in the model; and each fold's scores, as the others have it."""
        threads, arrays = self.model.threads, self.model.arrays()
        rows = self.held_out_rows
        targets, folds = csr_array(self._targets)[rows], np.asarray(self._folds)[rows]
        columns = csc_array(targets)
        calibration = fit_calibration(self._scores, columns, multi_label=True, threads=threads)
        stacking = fit_stacking(self._scores, columns, calibration=calibration, threads=threads)
        if stacking is None:
            return
        stacking.mix(arrays["weight"], threads)
        stacking.mix(arrays["bias"][np.newaxis])
        arrays["bias"] += stacking.shift
        self.held_out = self._scores.copy()
        for fold in range(self._scored_folds if self._scored_folds > 1 else 0):
            others = folds != fold
            columns = csc_array(targets[others])
            stacking = fit_stacking(self._scores[others], columns, calibration=calibration, threads=threads)
            if stacking is not None:
                mixed = self._scores[~others]
                stacking.mix(mixed, threads)
                self.held_out[~others] = mixed + stacking.shift

    # ---- the compiled loops ---------------------------------------------------------------------------------

    def _solve(self, block: Block, order: Indices) -> tuple[npt.NDArray[np.float64], int]:
        """One pass over those labels of a block that still move; losses (K,), 0 of the others, and how many move."""
        moving = np.flatnonzero(block.violations >= self._tolerance)
        if len(moving) <= NARROW * len(block.bias):
            losses = np.zeros(len(block.bias))
            if not len(moving):
                return losses, 0
            narrow = Block(
                block.labels,
                _rows_of(self._targets[:, np.arange(block.labels.start, block.labels.stop)[moving]]),
                np.ascontiguousarray(block.duals[:, moving]),
                np.ascontiguousarray(block.weight[:, moving]),
                block.bias[moving],
                block.violations[moving],
            )
            losses[moving] = self._solve_all(narrow, self._costs(block.labels)[:, moving], order)
            block.duals[:, moving], block.weight[:, moving] = narrow.duals, narrow.weight
            block.bias[moving], block.violations[moving] = narrow.bias, narrow.violations
            return losses, len(moving)
        return self._solve_all(block, self._costs(block.labels), order), len(moving)

    def _solve_all(self, block: Block, costs: Floats, order: Indices) -> npt.NDArray[np.float64]:
        """One pass over all labels of a block; their losses (K,)."""
        config, rows = self.model.config, self.rows
        losses = np.zeros(len(block.bias))
        solve_pass(
            order,
            rows.ends,
            rows.features,
            rows.values,
            block.targets,
            block.duals,
            block.weight,
            block.bias,
            np.ascontiguousarray(costs),
            config.bias,
            self._tolerance,
            STILL,
            block.violations,
            losses,
        )
        return losses

    def _show(self, block: Block) -> None:
        """Copy a block's weights to the model."""
        arrays = self.model.arrays()
        arrays["weight"][:, block.labels] = block.weight
        arrays["bias"][block.labels] = block.bias * np.float32(self.model.config.bias) + np.float32(OFFSET)

    def _as_unseen(self, inside: Indices) -> tuple[Rows, Indices]:
        """Rows, and which of them, as texts that are new to a fit of all others: see `held_out.as_unseen`."""
        kinds = self.model.arrays()["buckets"] & 1
        unseen = as_unseen(self.rows, inside, self._texts, kinds, self.model.word_share)
        return unseen, np.arange(len(inside))

    @cached_property
    def _texts(self) -> Indices:
        """How many rows have each feature, counted part by part: `bincount` makes 8 bytes of each entry."""
        features, total = self.rows.features, np.zeros(len(self.model.arrays()["idf"]), np.int64)
        for first in range(0, len(features), COUNTED):
            total += np.bincount(features[first : first + COUNTED], minlength=len(total))
        return total

    def _write_scores(
        self, unseen: tuple[Rows, Indices], block: Block, scores: Floats, places: Indices | slice
    ) -> None:
        """The margins of some rows by a block's weights, to the block's labels and some places of `scores`."""
        sparse, rows = unseen
        margins = np.empty((len(sparse.ends), len(block.bias)), np.float32)
        value = self.model.config.bias
        score_rows(
            rows, sparse.ends, sparse.features, sparse.values, block.weight, block.bias, value, margins
        )
        scores[places, block.labels] = margins[rows]

    def _start_from(self, earlier: Floats) -> None:
        """Begin with the dual variables that an optimum with the scores of an earlier model has.

        An earlier fit ended with small gradients, whose sum over all rows is not small. So the duals of rows with a
        label and of those without are scaled apart, to the lowest dual objective. Both scales are at or above 0, as
        no feature is negative; without one of the two sides, the objective has no mixed term.
        """
        rows = self._outside if self._stage < len(GRID) else np.arange(len(self.rows.ends))
        sparse, value = self.rows, self.model.config.bias

        def start(block: Block) -> None:
            margins = np.ascontiguousarray(earlier[:, block.labels])
            duals = margins.copy()
            optimal_duals(block.targets, self._costs(block.labels), duals)
            sides, squares = [], []
            for sign in (1, -1):
                side = np.zeros_like(duals)
                side[rows] = np.maximum(sign * duals[rows], 0) * np.float32(sign)
                weight, bias = np.zeros_like(block.weight), np.zeros_like(block.bias)
                add_rows(rows, sparse.ends, sparse.features, sparse.values, side, weight, bias, value, 1.0)
                sides.append((side, weight, bias))
                squares.append(
                    _dots(weight, weight) + bias.astype(np.float64) ** 2 + _dots(side, sign - margins)
                )
            (with_label, weight, bias), (without, weight_without, bias_without) = sides
            mixed = _dots(weight, weight_without) + bias.astype(np.float64) * bias_without
            ratio = np.divide(-mixed, squares[1], out=np.zeros_like(mixed), where=squares[1] > 0)
            first = squares[0] + ratio * mixed
            # the objective's linear term; that of rows without the label is 1 + OFFSET, nothing
            linear = (1 - OFFSET) * with_label.sum(axis=0, dtype=np.float64)
            scale = np.divide(linear, first, out=np.zeros_like(first), where=first > 0)
            one, other = scale.astype(np.float32), (scale * ratio).astype(np.float32)
            block.duals[:] = with_label * one + without * other
            block.weight[:] = weight * one + weight_without * other
            block.bias[:] = bias * one + bias_without * other
            self._show(block)

        in_threads(self.model.threads, start, self._blocks)

    def _sample(self) -> tuple[Indices, Indices]:
        """The rows of the first fold to score, and those outside it to fit, when choosing the regularisation."""
        order = np.random.Generator(np.random.PCG64([self.seed])).permutation(len(self.rows.ends))
        first = np.asarray(self._folds)[order] == 0
        inside, outside = order[first], order[~first]
        return np.sort(inside[:SAMPLE]), np.sort(outside[:SAMPLE])

    def _shuffled(self, rows: Indices, number: int) -> Indices:
        """Rows in the order of a pass."""
        return rows[np.random.Generator(np.random.PCG64([self.seed, number])).permutation(len(rows))]

    def _costs(self, labels: slice) -> Floats:
        """(2, K) costs of a row without and with each label, at the present regularisation."""
        return self._relative[:, labels] * self.regularization[labels]

    def _relative_costs(self) -> Floats:
        """(2, L): what each label's rows without and with it count for, relative to C."""
        config, (rows, labels) = self.model.config, self._targets.shape
        if config.regularization != "auto":
            self._one_a_label(
                "regularization", config.regularization
            )  # refuses a wrong number of them at once
        each: Floats = np.asarray(self._one_a_label("label_weight", config.label_weight), np.float32)
        if config.positive_weight == "balanced":
            certain = column_of_each(self._targets)[self._targets.data >= 0.5]
            positives = np.maximum(np.bincount(certain, minlength=labels), 1)
            positive = np.maximum((rows - positives) / positives, 1 / rows).astype(np.float32)
        else:
            positive = np.asarray(self._one_a_label("positive_weight", config.positive_weight), np.float32)
        return np.stack([each, each * positive])

    def _one_a_label(self, name: str, value: Any) -> Any:
        """A number a label, from one for all or one each."""
        count = self.model.num_labels
        if isinstance(value, tuple) and len(value) != count:
            raise FlashError(
                f"option {name} of the linear backbone has {len(value)} numbers for {count} labels"
            )
        return np.broadcast_to(np.asarray(value, np.float32), (count,))

    # ---- the state ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """A copy of everything that the next step depends on, beside the model's options and the data.

        `duals` (N, L) are a y; `weight` (F, L) and `bias` (L,) are the float32 sums that the passes so far
        have left, which no recomputation would give bit for bit.
        """
        return {
            "passes": self.passes,
            "seed": self.seed,
            "checksum": self._checksum,
            "progress": np.array([self._stage, self._stage_passes], np.int64),
            "choice": np.array([self._choice], np.int64),
            "inside_loss": np.array([self._inside_loss]),
            "loss": np.array([self._loss]),
            "regularization": self.regularization.astype(np.float64),
            "violations": np.hstack([block.violations for block in self._blocks]),
            "folds": np.zeros(0, np.int64) if self._folds is None else self._folds.copy(),
            "held_out": self._scores.copy(),
            "duals": np.hstack([block.duals for block in self._blocks]),
            "weight": np.hstack([block.weight for block in self._blocks]),
            "bias": np.hstack([block.bias for block in self._blocks]),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`, bit for bit as the solver that gave it would have.

        Raises:
            FlashError: The state is of other data or options, or lacks a part.
        """
        current = self.state()
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
        # how many rows they are of depends on the seed
        wanted_rows = int((arrays["folds"] < self._scored_folds).sum()) if self._folds is not None else 0
        check_arrays("solver state", arrays, {"held_out": ((wanted_rows, labels), dtype)})
        choice = int(arrays["choice"][0])
        if not 0 <= choice < len(GRID):
            raise FlashError(foreign)
        given, regularization = self.model.config.regularization, arrays["regularization"]
        wanted = (
            GRID[stage if stage < len(GRID) else choice] if given == "auto" else current["regularization"]
        )
        if (given != "auto" and stage < len(GRID)) or (regularization != wanted).any():
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
        if model_arrays["weight"].dtype == np.int8:  # of a fit that had ended
            plain = {name: np.ones(array.shape, np.float32) for name, array in model_arrays.items()}
            model_arrays.update(weight=plain["weight"], scale=plain["scale"])
            self.model.load_arrays(model_arrays)
        for block in self._blocks:
            block.duals[:] = arrays["duals"][:, block.labels]
            block.weight[:] = arrays["weight"][:, block.labels]
            block.bias[:] = arrays["bias"][block.labels]
            block.violations[:] = arrays["violations"][block.labels]
            self._show(block)
        if self.converged:
            self._finish()

    @cached_property
    def _checksum(self) -> int:
        """Tells apart training data, and the options that weights and dual variables depend on."""
        checksum = 0
        rows, targets, config = self.rows, self._targets, self.model.config
        options = np.array([config.bias, config.folds, config.tolerance])
        hot = (targets.indptr, targets.indices, targets.data)
        for array in (options, self._relative, rows.ends, rows.features, rows.values, *hot):
            checksum = crc32(np.ascontiguousarray(array).data.cast("B"), checksum)
        return checksum


def _rows_of(columns: csc_array) -> tuple[Indices, npt.NDArray[np.int32], Floats]:
    rows = csr_array(columns)
    return rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data.astype(np.float32)


def _dots(left: Floats, right: Floats) -> npt.NDArray[np.float64]:
    """The scalar product of each column of one matrix with that of another."""
    products: npt.NDArray[np.float64] = np.einsum("nk,nk->k", left, right, dtype=np.float64)
    return products
