"""Fit all labels in parallel: blocks of labels, which threads process with the compiled loops.

This module runs a step on every block; `fitting` decides on the rows and the sequence of steps. Imports neither torch
nor lightning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import cpu_count
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

from flash.core.errors import FlashError
from flash.core.threads import in_threads
from flash.text.classification.backbones.linear.features import Rows
from flash.text.classification.backbones.linear.held_out import as_unseen, take_out
from flash.text.classification.backbones.linear.model import Linear, LinearConfig
from flash.text.classification.backbones.linear.solver import (
    OFFSET,
    add_rows,
    balance_rows,
    optimal_duals,
    score_rows,
    solve_pass,
)
from flash.text.classification.label_weights import label_weights
from flash.text.classification.scores.thresholds import column_of_each
from flash.text.classification.targets.known import any_unknown, known_rows

COUNTED = 2**24
"""Number of entries that are counted at a time."""
SCORED = 2048
"""Number of rows that are converted to unseen ones and scored at a time."""
STILL = 0.1
"""A gradient below this share of the tolerance causes no update."""
NARROW = 0.75
"""If at most this share of a block's labels is still unsolved, a pass copies them out of the block and back."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def relative_costs(config: LinearConfig, targets: csc_array) -> Floats:
    """(2, L): what each label's rows without and with it count for, relative to C.

    Raises:
        FlashError: An option has another number of numbers than there are labels.
    """
    labels = targets.shape[1]
    each = per_label("label_weight", config.label_weight, labels)
    if config.pos_weight is None:
        return np.stack([each, each])
    positives = rows = None
    if config.pos_weight == "balanced":
        certain = column_of_each(targets)[targets.data >= 0.5]
        positives, rows = np.bincount(certain, minlength=labels), np.maximum(known_rows(targets), 1)
    weights = label_weights(config.pos_weight, [str(label) for label in range(labels)], positives, rows)
    return np.stack([each, each * weights])


def per_label(name: str, value: Any, labels: int) -> Floats:
    """One number per label (L,), from one for all or one each."""
    if isinstance(value, tuple) and len(value) != labels:
        raise FlashError(f"option {name} of the linear backbone has {len(value)} numbers for {labels} labels")
    return np.broadcast_to(np.asarray(value, np.float32), (labels,))


@dataclass
class Block:
    """A block of labels that one thread solves together, and the state of their fit."""

    labels: slice
    targets: tuple[Indices, npt.NDArray[np.int32], Floats]  # CSR
    duals: Floats  # (N, K)
    weight: Floats  # (F, K)
    bias: Floats  # (K,)
    violations: Floats  # (K,), of the last pass of this stage; infinite before the first


class LabelBlocks:
    """The dual variables and weights of all labels, in blocks; all labels visit the rows in the same order.

    `costs` in the methods are (2, L): the cost of a row without and with each label. A label whose violation is below
    `tolerance` is not updated. Results do not depend on the number of threads.

    Args:
        model: Receives the weights; has the number of threads, and the value of the constant feature.
        rows: The N training rows.
        targets: (N, L), in [0, 1]; NaN for an unknown target, which excludes the row from the label's fit.
    """

    def __init__(self, model: Linear, rows: Rows, targets: csc_array) -> None:
        self.model, self.rows, self.targets = model, rows, targets
        self._partial = any_unknown(targets)
        features, labels, count = len(model.arrays()["idf"]), model.num_labels, len(rows.ends)
        width = min(max(-(-labels // (model.threads or cpu_count() or 1)), 4), 128)
        self.blocks = [
            Block(
                slice(first, last),
                _rows_of(targets[:, first:last]),
                np.zeros((count, last - first), np.float32),
                np.zeros((features, last - first), np.float32),
                np.zeros(last - first, np.float32),
                np.full(last - first, np.inf, np.float32),
            )
            for first, last in ((first, min(first + width, labels)) for first in range(0, labels, width))
        ]

    # ---- one fit --------------------------------------------------------------------------------------------

    def run_pass(self, order: Indices, costs: Floats, tolerance: float) -> float:
        """Make one pass over the rows `order` for the unsolved labels, and copy the weights to the model.

        Returns:
            The mean of max(0, 1 - y z)^2 over rows and labels with known targets, each before the row's update.
        """

        def solve(block: Block) -> tuple[Doubles, int]:
            summed = self._solve(block, order, costs, tolerance)
            self._show(block)
            return summed

        losses, cells = zip(*in_threads(self.model.threads, solve, self.blocks), strict=True)
        mean: float = float(np.concatenate(losses).sum()) / max(sum(cells), 1)
        return mean

    def is_solved(self, tolerance: float) -> bool:
        """Whether all labels are solved."""
        return all(block.violations.max() < tolerance for block in self.blocks)

    def unsettle(self) -> None:
        """Mark all labels as unsolved, for the next stage."""
        for block in self.blocks:
            block.violations[:] = np.inf

    def start_from(self, earlier: Floats, rows: Indices, costs: Floats) -> None:
        """Start from the dual variables that correspond to an earlier model's scores (N, L) at its optimum.

        The earlier fit ended with small gradients, but their sum over all rows is not small. Therefore the duals of rows
        with a label and of rows without it are scaled separately, to minimise the dual objective. Both scales are >= 0,
        because no feature is negative; if one of the two groups is empty, the objective has no mixed term.
        """
        sparse, value = self.rows, self.model.config.bias

        def start(block: Block) -> None:
            margins = np.ascontiguousarray(earlier[:, block.labels])
            duals = margins.copy()
            optimal_duals(block.targets, np.ascontiguousarray(costs[:, block.labels]), duals)
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
            # linear term of the objective; for rows without the label it is 1 + OFFSET = 0
            linear = (1 - OFFSET) * with_label.sum(axis=0, dtype=np.float64)
            scale = np.divide(linear, first, out=np.zeros_like(first), where=first > 0)
            one, other = scale.astype(np.float32), (scale * ratio).astype(np.float32)
            block.duals[:] = with_label * one + without * other
            block.weight[:] = weight * one + weight_without * other
            block.bias[:] = bias * one + bias_without * other
            self._show(block)

        in_threads(self.model.threads, start, self.blocks)

    # ---- scores of rows as if they were new texts --------------------------------------------------------------

    def score(self, inside: Indices) -> Floats:
        """Return (M, L) decision values of the rows `inside` with the current weights."""
        scores = np.empty((len(inside), self.model.num_labels), np.float32)
        known, places = self._texts_outside(inside), np.arange(len(inside))
        in_threads(
            self.model.threads,
            lambda block: self._write_scores(inside, known, block, scores, places),
            self.blocks,
        )
        return scores

    def score_without(
        self,
        taken_out: npt.NDArray[np.bool_],
        orders: Sequence[Indices],
        costs: Floats,
        tolerance: float,
        scores: Floats,
        places: Indices,
    ) -> None:
        """Write the decision values of some rows, from a fit without them, to `places` of `scores`.

        Args:
            taken_out: (N,), mask of the rows to score.
            orders: Order of the other rows in each further pass.
            costs: See the class.
            tolerance: See the class.
            scores: (M, L), changed.
            places: Index in `scores` of each row that is taken out.
        """
        inside = np.flatnonzero(taken_out)
        known = self._texts_outside(inside)

        def score(block: Block) -> None:
            part = self._without(block, taken_out)
            for order in orders:
                self._solve(part, order, costs, tolerance)
            self._write_scores(inside, known, part, scores, places)

        in_threads(self.model.threads, score, self.blocks)

    def _without(self, block: Block, taken_out: npt.NDArray[np.bool_]) -> Block:
        """Copy a block, and subtract the contributions of the rows that are taken out."""
        inside, outside = np.flatnonzero(taken_out), np.flatnonzero(~taken_out)
        part = replace(
            block,
            duals=block.duals.copy(),
            weight=block.weight.copy(),
            bias=block.bias.copy(),
            violations=np.full_like(block.violations, np.inf),
        )
        rows, value = self.rows, self.model.config.bias
        matrix, state = (rows.ends, rows.features, rows.values), (part.duals, part.weight, part.bias)
        add_rows(inside, *matrix, *state, value, -1.0)
        wanted = part.duals.T.copy().sum(axis=1, dtype=np.float64) * self._share(block.labels, outside)
        balance_rows(outside, *matrix, *state, value, wanted)
        return part

    def _share(self, labels: slice, rows: Indices) -> float | Doubles:
        """Return the share of `rows` among the rows with a known target: one number, or one per label."""
        if not self._partial:
            return len(rows) / len(self.rows.ends)
        targets = csr_array(self.targets[:, labels])
        share: Doubles = known_rows(targets[rows]) / np.maximum(known_rows(targets), 1)
        return share

    def _texts_outside(self, inside: Indices) -> Indices:
        """Return the number of rows outside `inside` with each feature (F,)."""
        texts = self._texts.copy()
        take_out(inside, self.rows.ends, self.rows.features, texts)
        return texts

    @cached_property
    def _texts(self) -> Indices:
        """Number of rows with each feature, counted in parts, because `bincount` converts each entry to 8 bytes."""
        features, total = self.rows.features, np.zeros(len(self.model.arrays()["idf"]), np.int64)
        for first in range(0, len(features), COUNTED):
            total += np.bincount(features[first : first + COUNTED], minlength=len(total))
        return total

    def _write_scores(
        self, inside: Indices, known: Indices, block: Block, scores: Floats, places: Indices
    ) -> None:
        """Write the decision values of rows, treated as new texts, for a block's labels to `places` of `scores`."""
        for first in range(0, len(inside), SCORED):
            part = slice(first, first + SCORED)
            unseen = self._as_unseen(inside[part], known)
            margins = np.empty((len(unseen.ends), len(block.bias)), np.float32)
            matrix = unseen.ends, unseen.features, unseen.values
            every, value = np.arange(len(unseen.ends)), self.model.config.bias
            score_rows(every, *matrix, block.weight, block.bias, value, margins)
            scores[places[part], block.labels] = margins

    def _as_unseen(self, inside: Indices, known: Indices) -> Rows:
        """Return the rows `inside` as if they were new texts to a fit on the rows that `known` (F,) counts."""
        arrays = self.model.arrays()
        kinds, share = arrays["buckets"] & 1, self.model.word_share
        return as_unseen(self.rows, inside, known, kinds, share, arrays["norms"])

    def unseen_lengths(self, inside: Indices) -> Doubles:
        """Return (M, 2) lengths before normalisation of the rows `inside`, without features that no other row has."""
        known = self._texts_outside(inside)
        parts = [inside[first : first + SCORED] for first in range(0, len(inside), SCORED)]
        found = in_threads(self.model.threads, lambda part: self._as_unseen(part, known).lengths, parts)
        return np.concatenate([np.zeros((0, 2)), *found])

    # ---- the compiled pass ------------------------------------------------------------------------------------

    def _solve(self, block: Block, order: Indices, costs: Floats, tolerance: float) -> tuple[Doubles, int]:
        """Make one pass for a block's unsolved labels; return losses (K,), 0 for solved labels, and the number of cells."""
        moving = np.flatnonzero(block.violations >= tolerance)
        own = costs[:, block.labels]
        if len(moving) > NARROW * len(block.bias):
            return self._solve_all(block, order, own, tolerance), self._cells(block, order, moving)
        losses = np.zeros(len(block.bias))
        if not len(moving):
            return losses, 0
        narrow = Block(
            block.labels,
            _rows_of(self.targets[:, np.arange(block.labels.start, block.labels.stop)[moving]]),
            np.ascontiguousarray(block.duals[:, moving]),
            np.ascontiguousarray(block.weight[:, moving]),
            block.bias[moving],
            block.violations[moving],
        )
        losses[moving] = self._solve_all(narrow, order, own[:, moving], tolerance)
        block.duals[:, moving], block.weight[:, moving] = narrow.duals, narrow.weight
        block.bias[moving], block.violations[moving] = narrow.bias, narrow.violations
        return losses, self._cells(block, order, moving)

    def _cells(self, block: Block, order: Indices, moving: Indices) -> int:
        """Return the number of known targets of some rows for a block's labels `moving`."""
        if not self._partial:
            return len(order) * len(moving)
        columns = np.arange(block.labels.start, block.labels.stop)[moving]
        return int(known_rows(csr_array(self.targets[:, columns])[order]).sum())

    def _solve_all(self, block: Block, order: Indices, costs: Floats, tolerance: float) -> Doubles:
        """Make one pass for all labels of a block, with costs (2, K); return their losses (K,)."""
        rows, losses = self.rows, np.zeros(len(block.bias))
        solve_pass(
            order,
            rows.ends,
            rows.features,
            rows.values,
            rows.squares,
            block.targets,
            block.duals,
            block.weight,
            block.bias,
            np.ascontiguousarray(costs),
            self.model.config.bias,
            tolerance,
            STILL,
            block.violations,
            losses,
        )
        return losses

    # ---- the state --------------------------------------------------------------------------------------------

    def gather(self, name: Literal["duals", "weight", "bias", "violations"]) -> Floats:
        """Return a copy of an array for all labels, along its last axis."""
        return np.hstack([getattr(block, name) for block in self.blocks])

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Load the four arrays of `gather`, and copy the weights to the model."""
        for block in self.blocks:
            block.duals[:] = arrays["duals"][:, block.labels]
            block.weight[:] = arrays["weight"][:, block.labels]
            block.bias[:] = arrays["bias"][block.labels]
            block.violations[:] = arrays["violations"][block.labels]
            self._show(block)

    def _show(self, block: Block) -> None:
        """Copy a block's weights to the model."""
        arrays = self.model.arrays()
        arrays["weight"][:, block.labels] = block.weight
        arrays["bias"][block.labels] = block.bias * np.float32(self.model.config.bias) + np.float32(OFFSET)


def _rows_of(columns: csc_array) -> tuple[Indices, npt.NDArray[np.int32], Floats]:
    rows = csr_array(columns)
    return rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data.astype(np.float32)


def _dots(left: Floats, right: Floats) -> Doubles:
    """Return the dot products of corresponding columns of two matrices."""
    products: Doubles = np.einsum("nk,nk->k", left, right, dtype=np.float64)
    return products
