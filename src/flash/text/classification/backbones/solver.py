"""The compiled loop of the linear backbone's solver: exact L2-regularised logistic regressions side by side.

Imports nothing of the project but its own kernels. For each label the solver minimises over w

    1/2 |w|^2 + cost * sum_i [softplus(w.x_i) - t_i (w.x_i)],    t_i in [0, 1],

by coordinate descent on the dual (Yu, Huang and Lin, "Dual coordinate descent methods for logistic regression
and maximum entropy models", Machine Learning 2011; Hsieh et al., "A dual coordinate descent method for
large-scale linear SVM", ICML 2008). There is one dual variable b_i in (0, 1) a row, with
w = cost * sum_i (t_i - b_i) x_i, and at the optimum b_i = sigmoid(w.x_i). All labels visit the rows in the
same order, so that one fetch of a feature's weights serves a block of labels.
"""

import numpy as np
import numpy.typing as npt

from flash.text.classification.backbones.kernels import Floats, Int32s, Int64s, compiled

Doubles = npt.NDArray[np.float64]


@compiled
def settle(z: float, q: float, t: float, b: float) -> np.float32:
    """The best t - b of one row and label: b = sigmoid(u) with u + q * sigmoid(u) = z + q * (b before).

    Newton's method in u, where the slope lies between 1 and 1 + q / 4, kept within the bracket that the root
    cannot leave (Yu, Huang and Lin 2011, section 3, in the variable log(b / (1 - b)) instead of b, so that it
    loses no digits near 0 and 1).
    """
    high = z + q * b
    low = high - q
    u = min(max(z, low), high)
    target = high
    moved = q
    for _ in range(60):
        e = np.exp(-abs(u))
        s = 1.0 / (1.0 + e)
        excess = u + q * (s if u >= 0 else e * s) - target
        if excess > 0:
            high = u
        else:
            low = u
        guess = u - excess / (1.0 + q * e * s * s)
        if guess < low or guess > high or abs(guess - u) > 0.5 * moved:
            guess = 0.5 * (low + high)  # Newton left the bracket, or goes round in it
        moved = abs(guess - u)
        u = guess
        if moved < 1e-5:  # its square, about, is what is still missing
            break
    e = np.exp(-abs(u))
    near, far = 1.0 / (1.0 + e), e / (1.0 + e)  # sigmoid(|u|) and sigmoid(-|u|): both keep their digits
    b = near if u >= 0 else far
    return np.float32(t * (far if u >= 0 else near) - (1.0 - t) * b)


@compiled
def solve_pass(
    order: Int64s,
    ends: Int64s,
    features: Int32s,
    values: Floats,
    targets: Floats,
    duals: Floats,
    weight: Floats,
    bias: Floats,
    losses: Doubles,
    cost: float,
    bias_value: float,
    still: float,
) -> float:
    """One pass of dual coordinate descent over all rows, for one block of K labels.

    Args:
        order: The rows in the order of this pass.
        ends: Where each row ends among `features` and `values`.
        features: The rows' features.
        values: Their values; a row has length one, or no features.
        targets: (N, K), in [0, 1].
        duals: (N, K), changed: t - b, the share of row i in w = cost * sum_i (t_i - b_i) x_i.
        weight: (F, K), changed: w.
        bias: (K,), changed: w of the constant feature.
        losses: (K,), receives the sum over the rows of softplus(z) - t z, taken just before a row's update.
        cost: The weight of the losses against half the squared length of w.
        bias_value: The value of the constant feature.
        still: A dual variable with |b - sigmoid(z)| below this is left alone in this pass.

    Returns:
        The largest |b - sigmoid(z)| seen: 0 at the optimum.
    """
    labels = len(losses)
    losses[:] = 0.0
    largest = 0.0
    z = np.empty(labels, dtype=np.float32)
    change = np.empty(labels, dtype=np.float32)
    for row in order:
        start = ends[row - 1] if row > 0 else 0
        stop = ends[row]
        for k in range(labels):
            z[k] = bias_value * bias[k]
        for i in range(start, stop):
            value = values[i]
            weights = weight[features[i]]
            for k in range(labels):
                z[k] += value * weights[k]
        q = cost * ((1.0 if stop > start else 0.0) + bias_value * bias_value)
        moved = False
        for k in range(labels):
            t = np.float64(targets[row, k])
            logit = np.float64(z[k])
            e = np.exp(-abs(logit))
            losses[k] += max(logit, 0.0) + np.log1p(e) - t * logit
            b = t - duals[row, k]
            violation = abs(b - (1.0 if logit >= 0 else e) / (1.0 + e))
            largest = max(largest, violation)
            change[k] = 0.0
            if violation >= still:
                dual = settle(logit, q, t, b)
                change[k] = cost * (dual - duals[row, k])
                duals[row, k] = dual
                bias[k] += change[k] * bias_value
                moved = True
        if moved:
            for i in range(start, stop):
                value = values[i]
                weights = weight[features[i]]
                for k in range(labels):
                    weights[k] += value * change[k]
    return largest
