"""The compiled loops of the linear backbone's solver: exact L2-regularised squared-hinge classifiers in parallel.

For each label, with y = 1 where it applies and -1 elsewhere, the solver minimises over w and b

    1/2 |w|^2 + 1/2 b^2 + sum_i cost_i * max(0, 1 - y_i (w.x_i + B b - 1))^2

by coordinate descent on the dual (Hsieh et al., "A dual coordinate descent method for large-scale linear SVM",
ICML 2008, the L2-loss SVM). There is one dual variable a_i >= 0 per row, with w = sum_i a_i y_i x_i, and at the
optimum a_i = 2 cost_i max(0, 1 - y_i z_i). The decision value of a text without features is -1, because most labels
are rare: rows without the label, and without features of its positives, are at their optimum from the start and need
no update. All labels visit the rows in the same order, so that one memory access to a feature's weights serves a block
of labels. A label's result does not depend on the other labels of its block.
"""

import numpy as np
import numpy.typing as npt

from flash.text.classification.backbones.linear.kernels import Floats, Int32s, Int64s, add_scores, compiled

Doubles = npt.NDArray[np.float64]

OFFSET = -1.0
"""The decision value of every text before training."""
LEAST_WEIGHT = 1e-6
"""Minimum weight of a row with a soft target near 0.5, which has no information about the label."""


@compiled
def row_start(ends: Int64s, row: int) -> int:
    """Return the index of a row's first feature."""
    return ends[row - 1] if row > 0 else 0


@compiled
def solve_pass(
    order: Int64s,
    ends: Int64s,
    features: Int32s,
    values: Floats,
    squares: Floats,
    targets: tuple[Int64s, Int32s, Floats],
    duals: Floats,
    weight: Floats,
    bias: Floats,
    costs: Floats,
    bias_value: float,
    tolerance: float,
    still: float,
    violations: Floats,
    losses: Doubles,
) -> None:
    """Make one pass of dual coordinate descent over some rows, for one block of K labels.

    Args:
        order: The rows in the order of this pass.
        ends: End of each row in `features` and `values`.
        features: The rows' features.
        values: The rows' values.
        squares: (N,), squared length of each row.
        targets: The block's (N, K) targets in [0, 1] as a CSR matrix: row pointers, labels, values. A row's cost for a
            label is cost * |2 t - 1|, and 0 if t is NaN, which means unknown.
        duals: (N, K), changed: a y, the coefficient of a row in w.
        weight: (F, K), changed: w.
        bias: (K,), changed: b.
        costs: (2, K): costs of rows without the label, and with it.
        bias_value: B, the value of the constant feature.
        tolerance: A label whose violation is below this is solved and not updated.
        still: A gradient below this share of the tolerance causes no update.
        violations: (K,), of the last pass; receives the largest projected gradient of this pass, 0 at the optimum.
        losses: (K,), zeros; receives the sum over the rows of max(0, 1 - y z)^2, each before the row's update.
    """
    labels = len(bias)
    one, nothing = np.float32(1), np.float32(0)
    constant, smallest = np.float32(bias_value), np.float32(still * tolerance)
    moves = violations >= np.float32(tolerance)
    softness = np.float32(0.5) / costs  # the dual's own diagonal, 1 / (2 cost)
    z = np.empty(labels, dtype=np.float32)
    change = np.empty(labels, dtype=np.float32)
    gradient = np.empty(labels, dtype=np.float32)
    moved = np.empty(labels, dtype=np.int64)
    for k in range(labels):
        if moves[k]:
            violations[k] = nothing
    for row in order:
        start, stop = row_start(ends, row), ends[row]
        for k in range(labels):
            z[k] = constant * bias[k] + np.float32(OFFSET)
        add_scores(features, values, start, stop, weight, z)
        square = squares[row] + constant * constant
        dual = duals[row]
        for k in range(labels):  # first as if the row had no label: a y = -a <= 0
            slope = -(z[k] + one) + softness[0, k] * -dual[k]
            after = max(-dual[k] - slope / (square + softness[0, k]), nothing)
            change[k] = -after - dual[k]
            gradient[k] = slope if dual[k] < nothing else min(slope, nothing)
            short = max(z[k] + one, nothing)
            losses[k] += short * short
        for place in range(targets[0][row], targets[0][row + 1]):
            k, t = targets[1][place], targets[2][place]
            wrong = max(z[k] + one, nothing)
            if t != t:
                change[k], gradient[k] = nothing, nothing
                losses[k] -= wrong * wrong
                continue
            y = one if t >= 0.5 else -one
            sure = max(abs(t + t - one), np.float32(LEAST_WEIGHT))
            soft = softness[1 if t >= 0.5 else 0, k] / sure
            before = dual[k] * y
            slope = y * z[k] - one + soft * before
            after = max(before - slope / (square + soft), nothing)
            change[k] = (after - before) * y
            gradient[k] = slope if before > nothing else min(slope, nothing)
            right = max(one - y * z[k], nothing)
            losses[k] += right * right - wrong * wrong
        count = 0
        for k in range(labels):
            size = abs(gradient[k])
            if moves[k]:
                violations[k] = max(violations[k], size)
            if moves[k] and size > smallest:
                moved[count] = k
                count += 1
            else:
                change[k] = nothing
        for j in range(count):
            k = moved[j]
            dual[k] += change[k]
            bias[k] += change[k] * constant
        if count > 0:
            add_row(features, values, start, stop, weight, change, moved, count)
    for k in range(labels):
        if not moves[k]:
            losses[k] = 0.0


@compiled
def add_row(
    features: Int32s,
    values: Floats,
    start: int,
    stop: int,
    weight: Floats,
    change: Floats,
    moved: Int64s,
    count: int,
) -> None:
    """Add a row times `change` to the weights (F, K); `moved` lists the `count` labels for which it is not 0."""
    labels = len(change)
    if 4 * count > labels:
        for i in range(start, stop):
            value, weights = values[i], weight[features[i]]
            for k in range(labels):
                weights[k] += value * change[k]
    else:
        for i in range(start, stop):
            value, weights = values[i], weight[features[i]]
            for j in range(count):
                weights[moved[j]] += value * change[moved[j]]


@compiled
def add_rows(
    rows: Int64s,
    ends: Int64s,
    features: Int32s,
    values: Floats,
    duals: Floats,
    weight: Floats,
    bias: Floats,
    bias_value: float,
    sign: float,
) -> None:
    """Add duals (N, K) times rows times `sign` to `weight` (F, K) and `bias` (K,)."""
    labels = len(bias)
    change = np.empty(labels, dtype=np.float32)
    moved = np.empty(labels, dtype=np.int64)
    for row in rows:
        count = 0
        for k in range(labels):
            change[k] = duals[row, k] * np.float32(sign)
            bias[k] += change[k] * np.float32(bias_value)
            if change[k] != 0:
                moved[count] = k
                count += 1
        if count:
            add_row(features, values, row_start(ends, row), ends[row], weight, change, moved, count)


@compiled
def balance_rows(
    rows: Int64s,
    ends: Int64s,
    features: Int32s,
    values: Floats,
    duals: Floats,
    weight: Floats,
    bias: Floats,
    bias_value: float,
    wanted: Doubles,
) -> None:
    """Scale the duals of rows with a label and without it in opposite directions, to the sum `wanted` (K,).

    At an optimum, the duals of rows with a label and of rows without it nearly cancel. This does not hold for a part of
    the rows, and since most texts share features, the difference shifts every decision value. Both groups change by the
    same share, at most a half. Changes `duals`, `weight` and `bias`.
    """
    labels = len(bias)
    total, size = np.zeros(labels), np.zeros(labels)
    for row in rows:
        for k in range(labels):
            total[k] += duals[row, k]
            size[k] += abs(duals[row, k])
    shrunk, growth = np.ones(labels, dtype=np.float32), np.zeros(labels, dtype=np.float32)
    for k in range(labels):
        if size[k] > 0:
            share = min(max((wanted[k] - total[k]) / size[k], -0.5), 0.5)
            shrunk[k] = 1 - share
            growth[k] = (1 + share) / (1 - share) - 1
    for k in range(labels):
        bias[k] *= shrunk[k]
    for line in weight:
        for k in range(labels):
            line[k] *= shrunk[k]
    change = np.empty(labels, dtype=np.float32)
    moved = np.empty(labels, dtype=np.int64)
    for row in rows:
        count = 0
        for k in range(labels):
            duals[row, k] *= shrunk[k]
            change[k] = max(duals[row, k], np.float32(0)) * growth[k]
            if change[k] != 0:
                duals[row, k] += change[k]
                bias[k] += change[k] * np.float32(bias_value)
                moved[count] = k
                count += 1
        if count:
            add_row(features, values, row_start(ends, row), ends[row], weight, change, moved, count)


@compiled
def score_rows(
    rows: Int64s,
    ends: Int64s,
    features: Int32s,
    values: Floats,
    weight: Floats,
    bias: Floats,
    bias_value: float,
    scores: Floats,
) -> None:
    """Write the decision values of some rows to their rows of `scores` (N, K)."""
    for row in rows:
        z = scores[row]
        for k in range(len(bias)):
            z[k] = np.float32(bias_value) * bias[k] + np.float32(OFFSET)
        add_scores(features, values, row_start(ends, row), ends[row], weight, z)


@compiled
def optimal_duals(targets: tuple[Int64s, Int32s, Floats], costs: Floats, scores: Floats) -> None:
    """Replace decision values (N, K) by the dual variables a y of an optimum with these values; 0 for unknown targets."""
    one, nothing = np.float32(1), np.float32(0)
    for row in range(len(scores)):
        line = scores[row]
        margins = line.copy()
        for k in range(len(line)):
            line[k] = -(costs[0, k] + costs[0, k]) * max(margins[k] + one, nothing)
        for place in range(targets[0][row], targets[0][row + 1]):
            k, t = targets[1][place], targets[2][place]
            if t != t:
                line[k] = nothing
                continue
            y = one if t >= 0.5 else -one
            cost = costs[1 if t >= 0.5 else 0, k] * max(abs(t + t - one), np.float32(LEAST_WEIGHT))
            line[k] = y * (cost + cost) * max(one - y * margins[k], nothing)
