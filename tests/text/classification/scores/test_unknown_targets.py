"""Targets that are not known (NaN): what is found for a label is what the rows find where its target is known."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    hamming_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from flash.core.errors import FlashError
from flash.text.classification.scores import calibration, metrics, threshold_tuning, thresholds
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.metrics import evaluate
from flash.text.classification.scores.table import format_table
from flash.text.classification.scores.threshold_tuning import choose_thresholds

SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32))
TARGETS = st.sampled_from([0.0, 1.0, np.nan])
Floats = NDArray[np.float32]


def case(rows: int = 400, labels: int = 4, seed: int = 0) -> tuple[Floats, Floats]:
    """Logits, and targets that follow them, of which each label knows another share."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 2, (rows, labels)).astype(np.float32)
    targets = (random.random((rows, labels)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    targets[random.random((rows, labels)) < np.linspace(0, 0.8, labels)] = np.nan
    return logits, targets


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("block_cells", [1, 2**22])
def test_metrics_equal_scikit_learns_on_the_known_rows(
    form: Any, block_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK_CELLS", block_cells)
    logits, targets = case()
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    in_force = np.array([0.5, 0.3, 0.6, 0.4], np.float32)
    found = evaluate(scores, form(targets), labels=list("abcd"), thresholds=in_force, multi_label=True)
    assert found.partly_known
    for j in range(4):
        rows = ~np.isnan(targets[:, j])
        truth, own = targets[rows, j].astype(int), scores[rows, j]
        predicted = own >= in_force[j]
        assert (found.known[j], found.support[j]) == (rows.sum(), truth.sum())
        assert found.predicted[j] == predicted.sum()
        assert found.precision[j] == pytest.approx(precision_score(truth, predicted))
        assert found.recall[j] == pytest.approx(recall_score(truth, predicted))
        assert found.f1[j] == pytest.approx(f1_score(truth, predicted))
        assert found.average_precision[j] == pytest.approx(average_precision_score(truth, own))
        assert found.roc_auc[j] == pytest.approx(roc_auc_score(truth, own))
        assert found.brier[j] == pytest.approx(brier_score_loss(truth, own), rel=1e-6)
        alone = evaluate(
            own[:, None], truth[:, None], labels=["a"], thresholds=in_force[j : j + 1], multi_label=True
        )
        assert found.expected_calibration_error[j] == alone.expected_calibration_error[0]
    known = ~np.isnan(targets)
    truth, predicted = targets[known].astype(int), (scores >= in_force)[known]
    assert found.micro_f1 == pytest.approx(f1_score(truth, predicted))
    assert found.micro_precision == pytest.approx(precision_score(truth, predicted))
    assert found.hamming_loss == pytest.approx(hamming_loss(truth, predicted))
    right = ((scores >= in_force) == targets) | ~known
    assert found.subset_accuracy == pytest.approx(right[known.any(axis=1)].all(axis=1).mean())


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (6, 3), elements=SCORES), arrays(np.float32, (6, 3), elements=TARGETS))
def test_metrics_of_a_label_are_those_of_its_known_rows(scores: Floats, targets: Floats) -> None:
    found = evaluate(scores, targets, labels=list("abc"), thresholds=[0.5] * 3, multi_label=True)
    for j in range(3):
        rows = ~np.isnan(targets[:, j])
        assert found.known[j] == rows.sum()
        if rows.any():
            alone = evaluate(
                scores[rows, j : j + 1],
                targets[rows, j : j + 1],
                labels=["a"],
                thresholds=[0.5],
                multi_label=True,
            )
            for name in (*metrics.PER_LABEL, "support", "predicted"):
                np.testing.assert_array_equal(getattr(found, name)[j], getattr(alone, name)[0], err_msg=name)


def test_a_row_and_a_label_of_which_nothing_is_known() -> None:
    nan = np.nan
    targets = np.array([[1, nan], [0, nan], [nan, nan]])
    found = evaluate(
        [[0.9, 0.9], [0.9, 0.1], [0.9, 0.9]],
        targets,
        labels=["a", "b"],
        thresholds=[0.5, 0.5],
        multi_label=True,
        uncalibrated=[[0.8, 0.9], [0.9, 0.1], [0.9, 0.9]],
    )
    assert found.known.tolist() == [2, 0]
    assert (found.subset_accuracy, found.hamming_loss) == (0.5, 0.5)
    assert found.without_positives == ("b",)
    assert found.without_negatives == ()
    shown = found.to_dict()["labels"][1]
    assert (shown["known"], shown["support"], shown["brier"], shown["f1"]) == (0, 0, None, None)


def test_the_table_has_the_known_rows_where_some_are_unknown() -> None:
    logits, targets = case()
    scores = 1 / (1 + np.exp(-logits))
    options: dict[str, Any] = {"labels": list("abcd"), "thresholds": [0.5] * 4, "multi_label": True}
    table = format_table(evaluate(scores, targets, uncalibrated=scores**2, **options), title="Test")
    lines = table.splitlines()
    header = next(line for line in lines if line.startswith("label"))
    assert header.split() == ["label", "known", "support", "thresh", "P", "R", "F1", "AP", "AUC", "ECE"]
    known = (~np.isnan(targets)).sum(axis=0)
    assert [line.split()[1] for line in lines if line[:2] in ("a ", "b ", "c ", "d ")] == list(
        map(str, known)
    )
    assert "known: rows where the label's target is known, the only ones that count for it." in " ".join(
        lines
    )
    assert max(map(len, lines)) <= 80
    whole = format_table(evaluate(scores, np.nan_to_num(targets), **options), title="Test")
    assert "known" not in whole


def test_one_threshold_for_all_is_that_of_the_known_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = case()
    scores, known = 1 / (1 + np.exp(-logits)), ~np.isnan(targets)
    expected = choose_thresholds(scores[known][:, None], targets[known][:, None]).global_threshold
    for form in (targets, csr_array(targets)):
        assert choose_thresholds(scores, form).global_threshold == expected
    monkeypatch.setattr(threshold_tuning, "BLOCK_CELLS", 5)
    assert choose_thresholds(scores, targets).global_threshold == expected


@pytest.mark.parametrize("objective", ["precision>=0.7", "recall>=0.9"])
def test_a_required_value_is_shown_on_the_known_rows(objective: str) -> None:
    logits, targets = case()
    scores = 1 / (1 + np.exp(-logits))
    found = choose_thresholds(scores, targets, objective)
    for j in range(4):
        rows = ~np.isnan(targets[:, j])
        alone = choose_thresholds(scores[rows, j : j + 1], targets[rows, j : j + 1], objective)
        assert (found.thresholds[j], j in found.unmet) == (alone.thresholds[0], bool(alone.unmet))


@pytest.mark.parametrize("block_cells", [3, 2**22])
def test_cross_validation_counts_the_known_cells(block_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold_tuning, "BLOCK_CELLS", block_cells)
    logits, targets = case(rows=60, labels=3)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    _, truth, known = thresholds.check_arrays(scores, targets)
    found = threshold_tuning._count_folds(scores, truth, 0, known)
    fold = np.random.default_rng(0).permutation(60) % threshold_tuning.FOLDS
    for j in range(3):
        for number in range(threshold_tuning.FOLDS):
            rows = (fold == number) & ~np.isnan(targets[:, j])
            reaching = scores[rows, j][:, None] >= threshold_tuning.CUTS
            np.testing.assert_array_equal(found[0, number, j], reaching.sum(axis=0))
            np.testing.assert_array_equal(found[1, number, j], reaching[targets[rows, j] == 1].sum(axis=0))
            sums = (reaching * scores[rows, j][:, None]).sum(axis=0)
            np.testing.assert_allclose(found[2, number, j], sums, rtol=1e-5)


def test_the_scores_of_unknown_cells_do_not_matter() -> None:
    logits, targets = case()
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    other = np.where(np.isnan(targets), 1 - scores, scores)
    np.testing.assert_array_equal(
        choose_thresholds(scores, targets).thresholds, choose_thresholds(other, targets).thresholds
    )
    moved = np.where(np.isnan(targets), 7, logits)
    for kept, changed in zip(
        vars(fit_calibration(logits, targets, multi_label=True)).values(),
        vars(fit_calibration(moved, targets, multi_label=True)).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(kept, changed)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("cells", [16, 2**17])
def test_calibration_of_a_label_is_that_of_its_known_rows(
    form: Any, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "CELLS", cells)
    logits, targets = case()
    found = fit_calibration(logits, form(targets), multi_label=True)
    known = ~np.isnan(targets)
    cells_alone = csc_array(np.nan_to_num(targets[known])[:, None])
    common = calibration._fit_common(logits[known][:, None], cells_alone, None, None)
    for j in range(4):
        rows = known[:, j]
        scale, shift = calibration._fit_labels(
            logits[rows, j : j + 1], csc_array(targets[rows, j : j + 1].astype(float)), common
        )
        np.testing.assert_allclose([found.scale[j], found.shift[j]], [scale[0], shift[0]], rtol=1e-5)
    one = fit_calibration(logits, form(targets), multi_label=True, threads=1)
    np.testing.assert_array_equal(found.scale, one.scale)


def test_calibration_of_one_label_alone() -> None:
    logits, targets = case(labels=2)
    targets[:, 0] = np.nan
    rows = ~np.isnan(targets[:, 1])
    found = fit_calibration(logits, targets, multi_label=True)
    alone = fit_calibration(logits[rows, 1:], targets[rows, 1:], multi_label=True)
    assert (found.scale[1], found.shift[1]) == (alone.scale[0], alone.shift[0])
    assert found.scale[0] > 0  # of which nothing is known: what suits all labels together
    with pytest.raises(FlashError, match="no target is known; expected at least one row with a known target"):
        fit_calibration(logits, np.full_like(targets, np.nan), multi_label=True)
