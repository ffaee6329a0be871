import dataclasses
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    hamming_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from flash.core.errors import FlashError
from flash.text.classification.scores import metrics, thresholds
from flash.text.classification.scores.metrics import Evaluation, evaluate

SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32))


@st.composite
def supported_cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.float32]]:
    """Probabilities with ties, targets in which every label has a positive and a negative, thresholds."""
    rows, labels = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))
    rows = max(rows, 2)
    scores = draw(arrays(np.float32, (rows, labels), elements=SCORES))
    targets = draw(arrays(np.int8, (rows, labels), elements=st.integers(0, 1)))
    targets[0], targets[1] = 1, 0
    order = draw(st.permutations(range(rows)))
    return scores, targets[order], draw(arrays(np.float32, (labels,), elements=SCORES))


def names(count: int) -> list[str]:
    return [f"label {column}" for column in range(count)]


def assert_equals_sklearn(
    result: Evaluation, targets: NDArray[np.int8], predicted: NDArray[np.bool_], scores: NDArray[np.float32]
) -> None:
    per_label = precision_recall_fscore_support(targets, predicted, average=None, zero_division=0)
    for name, expected in zip(("precision", "recall", "f1", "support"), per_label, strict=True):
        np.testing.assert_allclose(getattr(result, name), expected, rtol=1e-12, err_msg=name)
    for average in ("micro", "macro"):
        expected = precision_recall_fscore_support(targets, predicted, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert getattr(result, f"{average}_{name}") == pytest.approx(value), f"{average} {name}"
    average_precision = [average_precision_score(targets[:, j], scores[:, j]) for j in range(scores.shape[1])]
    np.testing.assert_allclose(result.average_precision, average_precision, rtol=1e-9)
    assert result.macro_average_precision == pytest.approx(np.mean(average_precision))
    roc_auc = [roc_auc_score(targets[:, j], scores[:, j]) for j in range(scores.shape[1])]
    np.testing.assert_allclose(result.roc_auc, roc_auc, rtol=1e-9, atol=1e-12)
    assert result.macro_roc_auc == pytest.approx(np.mean(roc_auc))
    brier = [brier_score_loss(targets[:, j], scores[:, j]) for j in range(scores.shape[1])]
    np.testing.assert_allclose(result.brier, brier, rtol=1e-6, atol=1e-9)
    assert result.macro_brier == pytest.approx(np.mean(brier), rel=1e-6, abs=1e-9)
    assert result.subset_accuracy == pytest.approx((targets == predicted).all(axis=1).mean())
    assert result.hamming_loss == pytest.approx((targets != predicted).mean())
    if scores.shape[1] > 1:  # of one column scikit-learn makes a binary problem
        assert result.subset_accuracy == pytest.approx(accuracy_score(targets, predicted))
        assert result.hamming_loss == pytest.approx(hamming_loss(targets, predicted))
    np.testing.assert_array_equal(result.predicted, predicted.sum(axis=0))


# scikit-learn takes one column for a binary problem, so these are compared with two columns or more.
class TestAgainstScikitLearn:
    @settings(max_examples=80, deadline=None)
    @given(supported_cases())
    def test_multi_label(
        self, case: tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.float32]]
    ) -> None:
        scores, targets, in_force = case
        if scores.shape[1] == 1:
            scores, targets, in_force = np.tile(scores, 2), np.tile(targets, 2), np.tile(in_force, 2)
        result = evaluate(
            scores, csr_array(targets), labels=names(len(in_force)), thresholds=in_force, multi_label=True
        )
        assert_equals_sklearn(result, targets, scores >= in_force, scores)

    @settings(max_examples=50, deadline=None)
    @given(st.data())
    def test_single_label(self, data: st.DataObject) -> None:
        labels = data.draw(st.integers(2, 5))
        classes = data.draw(
            st.permutations([*range(labels), *data.draw(st.lists(st.integers(0, labels - 1)))])
        )
        scores = data.draw(arrays(np.float32, (len(classes), labels), elements=SCORES))
        targets = np.eye(labels, dtype=np.int8)[classes]
        result = evaluate(scores, targets, labels=names(labels), thresholds=None, multi_label=False)
        predicted = np.eye(labels, dtype=bool)[[row.index(max(row)) for row in scores.tolist()]]
        assert_equals_sklearn(result, targets, predicted, scores)
        assert result.micro_f1 == pytest.approx(result.subset_accuracy)
        assert np.isnan(result.thresholds).all()

    def test_many_rows_and_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = np.random.default_rng(3)
        targets = (generator.random((400, 9)) < np.linspace(0.02, 0.9, 9)).astype(np.int8)
        targets[0], targets[1] = 1, 0
        scores = np.round(generator.random((400, 9)) * 0.6 + targets * 0.4, 2).astype(np.float32)
        in_force = np.linspace(0.2, 0.8, 9).astype(np.float32)
        for cells in (1, 900, thresholds.BLOCK_CELLS):
            monkeypatch.setattr(metrics, "BLOCK_CELLS", cells)
            result = evaluate(
                scores, csr_array(targets), labels=names(9), thresholds=in_force, multi_label=True
            )
            assert_equals_sklearn(result, targets, scores >= in_force, scores)


class TestCalibration:
    @pytest.mark.parametrize("decimals", [1, 2, 7])
    def test_expected_calibration_error_is_of_scikit_learns_bins(self, decimals: int) -> None:
        generator = np.random.default_rng(decimals)
        scores = np.round(generator.random((500, 3)) ** 3, decimals).astype(np.float32)
        targets = (generator.random((500, 3)) < scores**2).astype(np.int8)
        result = evaluate(scores, targets, labels="abc", thresholds=[0.5] * 3, multi_label=True)
        for column in range(3):
            wide = scores[:, column].astype(np.float64)
            share, mean = calibration_curve(targets[:, column], wide, n_bins=15, strategy="quantile")
            # scikit-learn does not tell how many rows are in each bin; its bins end at the same quantiles.
            ends = np.percentile(wide, np.linspace(0, 100, 16))[1:-1]
            sizes = np.bincount(np.searchsorted(ends, wide), minlength=15)
            expected = np.sum(sizes[sizes > 0] * np.abs(share - mean)) / 500
            assert result.expected_calibration_error[column] == pytest.approx(expected, rel=1e-9)
        assert result.macro_expected_calibration_error == pytest.approx(
            result.expected_calibration_error.mean()
        )

    def test_worked_example(self) -> None:
        """Thirty scores of two values: two bins hold all rows, 20 at 0.25 and 10 at 0.75."""
        scores = np.array([0.25] * 20 + [0.75] * 10, np.float32)[:, None]
        targets = np.zeros((30, 1))
        targets[:10] = targets[20:29] = 1
        result = evaluate(scores, targets, labels="a", thresholds=[0.5], multi_label=True)
        # |10/20 - 0.25| of 20 rows and |9/10 - 0.75| of 10.
        assert result.expected_calibration_error[0] == pytest.approx((20 * 0.25 + 10 * 0.15) / 30)
        assert result.brier[0] == pytest.approx((10 * 0.75**2 + 10 * 0.25**2 + 9 * 0.25**2 + 0.75**2) / 30)

    @settings(max_examples=40, deadline=None)
    @given(supported_cases(), st.randoms(use_true_random=False))
    def test_order_of_rows_does_not_matter(
        self, case: tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.float32]], chance: Any
    ) -> None:
        scores, targets, in_force = case
        order = chance.sample(range(len(scores)), len(scores))
        options: dict[str, Any] = {
            "labels": names(len(in_force)),
            "thresholds": in_force,
            "multi_label": True,
        }
        once, again = evaluate(scores, targets, **options), evaluate(scores[order], targets[order], **options)
        np.testing.assert_array_equal(again.expected_calibration_error, once.expected_calibration_error)
        assert ((once.expected_calibration_error >= 0) & (once.expected_calibration_error <= 1)).all()

    @pytest.mark.parametrize("multi_label", [True, False])
    def test_before_calibration(self, multi_label: bool) -> None:
        generator = np.random.default_rng(0)
        scores, raw = generator.random((2, 60, 3)).astype(np.float32)
        targets = np.eye(3)[generator.integers(0, 3, 60)]
        options: dict[str, Any] = {"labels": "abc", "thresholds": [0.5] * 3, "multi_label": multi_label}
        result = evaluate(scores, targets, uncalibrated=raw, **options)
        alone = evaluate(raw, targets, **options)
        assert result.uncalibrated_brier is not None
        assert result.uncalibrated_expected_calibration_error is not None
        np.testing.assert_array_equal(result.uncalibrated_brier, alone.brier)
        np.testing.assert_array_equal(
            result.uncalibrated_expected_calibration_error, alone.expected_calibration_error
        )
        assert result.macro_uncalibrated_brier == alone.macro_brier
        assert result.macro_uncalibrated_expected_calibration_error == alone.macro_expected_calibration_error
        np.testing.assert_array_equal(result.f1, evaluate(scores, targets, **options).f1)
        scalars = result.scalars("val")
        assert scalars["val_uncalibrated_brier"] == alone.macro_brier
        assert (
            scalars["val_uncalibrated_expected_calibration_error"]
            == alone.scalars("val")["val_expected_calibration_error"]
        )
        assert result.to_dict()["macro"]["uncalibrated_brier"] == alone.macro_brier
        assert result.to_dict()["labels"][1]["uncalibrated_brier"] == alone.brier[1]

    def test_before_calibration_is_checked_too(self) -> None:
        with pytest.raises(FlashError, match=r"found 1 other value \(the first is 2\.0\)"):
            evaluate([[0.5]], [[1]], labels="a", thresholds=[0.5], multi_label=True, uncalibrated=[[2.0]])

    def test_a_label_without_positives_stays_out_of_the_averages(self, worked: Evaluation) -> None:
        assert worked.expected_calibration_error[2] == pytest.approx(0.25)  # 0.6, 0.1, 0.1 and 0.2 for none
        assert worked.macro_brier == pytest.approx(worked.brier[[0, 1, 3]].mean())
        assert np.isnan(worked.label_values("brier")[2])
        assert np.isnan(worked.label_values("uncalibrated_brier")).all()


#          a: two of three found, one wrong. b: nothing predicted. c: no positives. d: no negatives.
TARGETS = [[1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]]
PROBABILITIES = [[0.9, 0.2, 0.6, 0.9], [0.8, 0.1, 0.1, 0.9], [0.3, 0.2, 0.1, 0.9], [0.5, 0.3, 0.2, 0.1]]


@pytest.fixture
def worked() -> Evaluation:
    return evaluate(PROBABILITIES, TARGETS, labels="abcd", thresholds=[0.5, 0.5, 0.5, 0.5], multi_label=True)


class TestWorkedExample:
    def test_per_label(self, worked: Evaluation) -> None:
        assert worked.labels == ("a", "b", "c", "d")
        assert worked.rows == 4
        assert worked.support.tolist() == [3, 1, 0, 4]
        assert worked.predicted.tolist() == [3, 0, 1, 3]
        assert worked.precision.tolist() == pytest.approx([2 / 3, 0, 0, 1])
        assert worked.recall.tolist() == pytest.approx([2 / 3, 0, 0, 3 / 4])
        assert worked.f1.tolist() == pytest.approx([2 / 3, 0, 0, 6 / 7])
        # a: positives at ranks 1, 2 and 4: (1/1 + 2/2 + 3/4) / 3. b: 0.2 twice behind 0.3: 1/3.
        assert worked.average_precision.tolist() == pytest.approx([11 / 12, 1 / 3, np.nan, 1], nan_ok=True)
        # a: 2 of 3 pairs in order. b: against 0.1, 0.2, 0.3: 1 + 1/2 + 0 of 3.
        assert worked.roc_auc.tolist() == pytest.approx([2 / 3, 1 / 2, np.nan, np.nan], nan_ok=True)

    def test_averages(self, worked: Evaluation) -> None:
        assert worked.micro_precision == pytest.approx(5 / 7)
        assert worked.micro_recall == pytest.approx(5 / 8)
        assert worked.micro_f1 == pytest.approx(10 / 15)
        assert worked.macro_precision == pytest.approx((2 / 3 + 0 + 1) / 3)
        assert worked.macro_recall == pytest.approx((2 / 3 + 0 + 3 / 4) / 3)
        assert worked.macro_f1 == pytest.approx((2 / 3 + 0 + 6 / 7) / 3)
        assert worked.macro_average_precision == pytest.approx((11 / 12 + 1 / 3 + 1) / 3)
        assert worked.macro_roc_auc == pytest.approx((2 / 3 + 1 / 2) / 2)
        assert worked.subset_accuracy == pytest.approx(1 / 4)
        assert worked.hamming_loss == pytest.approx(5 / 16)

    def test_what_the_averages_lack(self, worked: Evaluation) -> None:
        assert worked.without_positives == ("c",)
        assert worked.without_negatives == ("d",)
        assert worked.left_out_of_averages == {"precision_recall_f1": 1, "average_precision": 1, "roc_auc": 2}

    def test_to_dict_is_json(self, worked: Evaluation) -> None:
        result = worked.to_dict()
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        assert list(result) == [
            "rows",
            "multi_label",
            "micro",
            "macro",
            "subset_accuracy",
            "hamming_loss",
            "left_out_of_averages",
            "calibration_by_length",
            "labels",
        ]
        assert result["micro"] == {
            "precision": worked.micro_precision,
            "recall": worked.micro_recall,
            "f1": worked.micro_f1,
        }
        assert list(result["macro"]) == [
            "precision",
            "recall",
            "f1",
            "average_precision",
            "roc_auc",
            "expected_calibration_error",
            "brier",
            "uncalibrated_expected_calibration_error",
            "uncalibrated_brier",
        ]
        assert result["macro"]["brier"] == worked.macro_brier
        assert result["macro"]["uncalibrated_brier"] is None
        assert result["calibration_by_length"] is None
        assert result["labels"][2] == {
            "label": "c",
            "support": 0,
            "known": 4,
            "predicted": 1,
            "hits": 0,
            "threshold": 0.5,
            "precision": None,
            "recall": None,
            "f1": None,
            "average_precision": None,
            "roc_auc": None,
            "expected_calibration_error": None,
            "brier": None,
            "uncalibrated_expected_calibration_error": None,
            "uncalibrated_brier": None,
        }
        assert result["labels"][3]["roc_auc"] is None
        assert result["labels"][3]["recall"] == 0.75

    def test_to_dict_shows_a_threshold_as_it_was_typed(self) -> None:
        result = evaluate([[0.5]], [[1]], labels=["a"], thresholds=[0.3], multi_label=True).to_dict()
        assert result["labels"][0]["threshold"] == 0.3

    def test_counts_and_measures_are_attributes_too(self, worked: Evaluation) -> None:
        assert worked.support is worked.counts.support
        assert worked.f1 is worked.per_label["f1"]
        assert worked.micro_f1 == worked.micro["f1"]
        assert worked.macro_roc_auc == worked.macro["roc_auc"]
        assert worked.uncalibrated is worked.uncalibrated_brier is None
        assert math.isnan(worked.macro_uncalibrated_brier)
        assert {"hits", "recall", "micro_recall", "macro_brier", "uncalibrated_brier"} <= set(dir(worked))
        copied = pickle.loads(pickle.dumps(worked))
        assert copied.to_dict() == worked.to_dict()
        with pytest.raises(
            AttributeError, match="an Evaluation has no 'macro_f2'; it has labels, multi_label, rows, thr"
        ):
            worked.macro_f2  # noqa: B018

    def test_scalars(self, worked: Evaluation) -> None:
        scalars = worked.scalars("val")
        assert scalars["val_micro_f1"] == worked.micro_f1
        assert scalars["val_macro_average_precision"] == worked.macro_average_precision
        assert scalars["val_f1/a"] == pytest.approx(2 / 3)
        assert scalars["val_f1/b"] == 0
        assert scalars["val_brier"] == worked.macro_brier
        assert scalars["val_expected_calibration_error/a"] == worked.expected_calibration_error[0]
        assert not any("uncalibrated" in name for name in scalars)
        assert "val_f1/c" not in scalars
        assert "val_roc_auc/d" not in scalars
        assert all(type(value) is float and math.isfinite(value) for value in scalars.values())
        assert [name for name in worked.scalars("test") if "/" not in name] == [
            "test_micro_precision",
            "test_micro_recall",
            "test_micro_f1",
            "test_macro_precision",
            "test_macro_recall",
            "test_macro_f1",
            "test_macro_average_precision",
            "test_macro_roc_auc",
            "test_subset_accuracy",
            "test_hamming_loss",
            "test_expected_calibration_error",
            "test_brier",
        ]


class TestEdges:
    def test_no_positive_at_all(self) -> None:
        result = evaluate([[0.1, 0.9]], [[0, 0]], labels="ab", thresholds=[0.5, 0.5], multi_label=True)
        assert result.micro_f1 == 0
        assert math.isnan(result.macro_f1)
        assert math.isnan(result.macro_roc_auc)
        assert result.to_dict()["macro"]["f1"] is None
        assert "val_macro_f1" not in result.scalars("val")

    def test_nothing_predicted_and_nothing_true(self) -> None:
        result = evaluate([[0.1, 0.2]], [[0, 0]], labels="ab", thresholds=[0.5, 0.5], multi_label=True)
        assert (result.micro_precision, result.micro_recall, result.micro_f1) == (0, 0, 0)
        assert (result.subset_accuracy, result.hamming_loss) == (1, 0)

    def test_soft_targets_count_from_a_half(self) -> None:
        soft = csr_array(np.array([[0.5, 0.49], [0.0, 1.0]], np.float32))
        result = evaluate([[0.9, 0.1], [0.1, 0.9]], soft, labels="ab", thresholds=[0.5] * 2, multi_label=True)
        assert result.support.tolist() == [1, 1]
        assert result.subset_accuracy == 1

    def test_single_label_ties_take_the_first(self) -> None:
        result = evaluate([[0.5, 0.5]], [[1, 0]], labels="ab", thresholds=None, multi_label=False)
        assert result.predicted.tolist() == [1, 0]
        assert result.to_dict()["labels"][0]["threshold"] is None

    def test_a_score_at_the_threshold_is_predicted_in_float32(self) -> None:
        scores = np.array([[0.7]], np.float32)
        assert evaluate(scores, [[1]], labels="a", thresholds=[0.7], multi_label=True).micro_f1 == 1

    def test_frozen(self, worked: Evaluation) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            worked.rows = 5  # type: ignore[misc]

    def test_arguments_stay_as_they_were(self) -> None:
        scores, targets = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), csr_array([[1.0, 0.4], [0.0, 1.0]])
        before = scores.copy(), targets.toarray()
        evaluate(scores, targets, labels="ab", thresholds=[0.5, 0.5], multi_label=True)
        np.testing.assert_array_equal(scores, before[0])
        np.testing.assert_array_equal(targets.toarray(), before[1])

    @pytest.mark.parametrize(
        ("scores", "targets", "options", "words"),
        [
            (
                np.zeros((0, 2)),
                np.zeros((0, 2)),
                {},
                "no rows to evaluate; expected at least one text with its",
            ),
            (
                [[0.1, 0.2]],
                [[1]],
                {},
                "probabilities have shape (1, 2) and targets (1, 1); expected the same",
            ),
            (
                [[0.1, np.nan]],
                [[1, 0]],
                {},
                "probabilities must be numbers in [0, 1]; found 1 other value (the first is nan)",
            ),
            (
                [[0.1, 0.2]],
                [[1, 0]],
                {"labels": "abc"},
                "3 labels for probabilities of 2 columns; expected a name",
            ),
            (
                [[0.1, 0.2]],
                [[1, 0]],
                {"thresholds": None},
                "thresholds are None; expected one number in [0, 1] for",
            ),
            (
                [[0.1, 0.2]],
                [[1, 0]],
                {"thresholds": [0.5]},
                "thresholds are of shape (1,); expected one number",
            ),
            (
                [[0.1, 0.2]],
                [[1, 0]],
                {"thresholds": [0, 2]},
                "thresholds are from 0.0 to 2.0; expected one number",
            ),
        ],
    )
    def test_mistakes(self, scores: Any, targets: Any, options: dict[str, Any], words: str) -> None:
        arguments = {"labels": "ab", "thresholds": [0.5, 0.5], "multi_label": True, **options}
        with pytest.raises(FlashError) as error:
            evaluate(scores, targets, **arguments)
        assert words in str(error.value)
