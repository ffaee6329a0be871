"""Stacking beside the formula that it stands for, and what it does to labels that know about each other."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy.sparse import csc_array, csr_array
from sklearn.metrics import roc_auc_score

from flash.text.classification.backbones.linear import stacking
from flash.text.classification.backbones.linear.fitting import LinearSolver
from flash.text.classification.backbones.linear.model import Linear, LinearConfig
from flash.text.classification.backbones.linear.solver import OFFSET
from flash.text.classification.backbones.linear.stacking import Stacking, fit_stacking
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import to_probabilities

Floats = npt.NDArray[np.float32]


def drawn(rows: int, labels: int, seed: int = 0) -> tuple[Floats, npt.NDArray[np.float64]]:
    """Margins, and targets that depend on a label's own margin and on that of the next."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(-1, 1, (rows, labels)).astype(np.float32)
    logits = 2 * scores + np.roll(scores, 1, axis=1)
    return scores, (generator.random((rows, labels)) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def fitted(scores: Floats, targets: npt.NDArray[np.float64], threads: int | None = 1) -> Stacking:
    found = fit_stacking(scores, csc_array(targets), threads=threads)
    assert found is not None
    return found


def matrix(found: Stacking) -> npt.NDArray[np.float64]:
    """(L, L): what multiplies a row of scores."""
    mixing = np.eye(len(found.shift))
    for label, (sources, shares) in enumerate(zip(found.sources, found.shares, strict=True)):
        mixing[sources, label] += shares
    return mixing


def test_it_is_one_newton_step_from_the_calibrated_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "SETTLED", -1.0)  # all rows
    scores, targets = drawn(500, 5)
    targets[::7] = 0.3  # soft ones too
    calibration = fit_calibration(scores, targets, multi_label=True)
    probability = to_probabilities(calibration.apply(scores), True).astype(np.float64)
    standard = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    expected = np.eye(5)
    for label in range(5):
        others = np.arange(5) != label
        weight = probability[:, label] * (1 - probability[:, label])
        slope = standard[:, others].T @ (targets[:, label] - probability[:, label])
        bend = (standard[:, others] * weight[:, None]).T @ standard[:, others]
        step = np.linalg.solve(bend + stacking.PRECISION * np.eye(4), slope)
        expected[others, label] = step / scores.std(axis=0)[others] / calibration.scale[label]
    found = fitted(scores, targets)
    np.testing.assert_allclose(matrix(found), expected, atol=1e-5)
    np.testing.assert_allclose(found.shift, scores.mean(axis=0) @ (np.eye(5) - expected), atol=1e-5)


def test_mixing_scores_and_weights_is_the_same() -> None:
    scores, targets = drawn(300, 40)
    found = fitted(scores, targets)
    assert found.sources.shape == (40, stacking.MOST_SOURCES)
    mixed = scores.copy()
    found.mix(mixed)
    np.testing.assert_allclose(mixed, scores @ matrix(found), atol=1e-4)
    words = np.random.default_rng(0).random((300, 6)) < 0.3
    texts = pa.array([" ".join(np.array(list("abcdef"))[row]) for row in words])
    labels = csr_array((words[:, :3] | words[:, 3:]).astype(np.float32))
    model = Linear(3, LinearConfig(buckets=2**12, C=1.0, quantize=False))
    solver = LinearSolver(model, texts, labels, multi_label=False)
    while not solver.converged:
        solver.step()
    raw = solver.state()
    final = fit_stacking(raw["held_out"], csc_array(labels))
    assert final is not None
    np.testing.assert_allclose(model.arrays()["weight"], raw["weight"] @ matrix(final), atol=1e-5)
    arrays = model.arrays()
    unmixed = {**arrays, "weight": raw["weight"], "bias": raw["bias"] + np.float32(OFFSET)}
    plain = Linear(3, model.config)
    plain.load_arrays({name: np.ascontiguousarray(array) for name, array in unmixed.items()})
    np.testing.assert_allclose(
        model.logits(texts), plain.logits(texts) @ matrix(final) + final.shift, rtol=1e-4, atol=1e-4
    )


def test_held_out_scores_are_mixed_by_other_folds() -> None:
    """Labels drawn by lot: what a mixture learns from a row's own score must not be in it."""
    generator = np.random.default_rng(0)
    texts = pa.array(
        [" ".join(row) for row in np.array(list("abcdefghijkl"))[generator.integers(0, 12, (600, 5))]]
    )
    targets = csr_array((generator.random((600, 30)) < 0.2).astype(np.float32))
    solver = LinearSolver(Linear(30, LinearConfig(buckets=2**12, C=1.0)), texts, targets)
    while not solver.converged:
        solver.step()
    truth, raw = targets.toarray(), solver.state()["held_out"]
    in_sample = fit_stacking(raw, csc_array(targets))
    assert in_sample is not None
    area, before, flattered = (
        np.mean([roc_auc_score(truth[:, k], scores[:, k]) for k in range(30)])
        for scores in (solver.held_out, raw, raw @ matrix(in_sample))
    )
    assert (solver.held_out != raw).any()
    assert before < 0.5  # a label that a fold has more often, the others have less often
    assert flattered > 0.53
    assert area == pytest.approx(0.5, abs=0.02)


def test_a_label_learns_from_the_scores_of_another() -> None:
    scores, targets = drawn(20_000, 3)
    found = fitted(scores[:10_000], targets[:10_000])
    mixed = scores[10_000:] @ matrix(found)
    for label in range(3):
        truth, alone = targets[10_000:, label], scores[10_000:, label]
        assert roc_auc_score(truth, mixed[:, label]) > roc_auc_score(truth, alone) + 0.01


def test_a_rare_label_stays_almost_as_it_was() -> None:
    scores, targets = drawn(2_000, 3)
    targets[:, 0] = 0
    targets[0, 0] = 1
    away = matrix(fitted(scores, targets)) - np.eye(3)
    assert np.abs(away[:, 0]).max() < 0.1 * np.abs(away[:, 1]).max()


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = drawn(1_000, 9)
    one, four = fitted(scores, targets), fitted(scores, targets, 4)
    for name in ("sources", "shares", "shift"):
        assert getattr(one, name).tobytes() == getattr(four, name).tobytes()
    left, right = scores.copy(), scores.copy()
    one.mix(left, 1)
    monkeypatch.setattr(stacking, "CELLS", 50)
    one.mix(right, 4)
    assert left.tobytes() == right.tobytes()
    np.testing.assert_allclose(left, scores @ matrix(one), atol=1e-4)


def test_constant_scores_say_nothing() -> None:
    scores, targets = drawn(200, 3)
    scores[:, 1] = 0.25
    found = fitted(scores, targets)
    assert (matrix(found)[1] == [0, 1, 0]).all()
    assert np.isfinite(found.shares).all()
    without = fitted(scores[:, [0, 2]], targets[:, [0, 2]])
    np.testing.assert_allclose(matrix(found)[np.ix_([0, 2], [0, 2])], matrix(without), rtol=0.1)


def test_a_label_of_few_texts_tells_others_nothing() -> None:
    scores, targets = drawn(2_000, 3)
    scores[:, 0] *= 0.01  # held-out scores of what nothing else has are all alike
    targets[:, 0] = 0
    targets[:9, 0] = 1
    assert (matrix(fitted(scores, targets))[0] == [1, 0, 0]).all()
    targets[9, 0] = 1
    assert (matrix(fitted(scores, targets))[0, 1:] != 0).all()


def test_labels_that_exclude_each_other_are_left_to_softmax() -> None:
    scores, _ = drawn(200, 3)
    assert fit_stacking(scores, csc_array(np.eye(3)[scores.argmax(axis=1)])) is None
    assert fit_stacking(scores[:, :1], csc_array(csr_array(scores[:, :1] > 0))) is None


def test_rows_whose_target_is_unknown_say_nothing_about_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "SETTLED", -1.0)  # all rows
    scores, targets = drawn(500, 5)
    partial = targets.copy()
    partial[np.random.default_rng(1).random(targets.shape) < np.linspace(0, 0.8, 5)] = np.nan
    calibration = fit_calibration(scores, partial, multi_label=True)
    probability = to_probabilities(calibration.apply(scores), True).astype(np.float64)
    standard = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    expected = np.eye(5)
    for label in range(5):
        others, known = np.arange(5) != label, ~np.isnan(partial[:, label])
        # the slope is of the known rows; the curvature, too
        weight = (probability * (1 - probability))[known, label]
        slope = standard[known][:, others].T @ (partial - probability)[known, label]
        bend = (standard[known][:, others] * weight[:, None]).T @ standard[known][:, others]
        step = np.linalg.solve(bend + stacking.PRECISION * np.eye(4), slope)
        expected[others, label] = step / scores.std(axis=0)[others] / calibration.scale[label]
    np.testing.assert_allclose(matrix(fitted(scores, partial)), expected, atol=1e-5)
