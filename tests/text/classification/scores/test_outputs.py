import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.special import expit, softmax

from flash.core.errors import FlashError
from flash.text.classification.scores.outputs import OUTPUTS, Calibration, convert, to_probabilities

LABELS = ("zebra", "apple", "모욕")
HALVES = np.full(3, 0.5, np.float32)
LOGITS = np.array([[2.0, -1.0, 0.5], [-3.0, -4.0, -5.0], [-1.0, 3.0, 1.0]], np.float32)

ANY_LOGITS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.one_of(st.floats(-30, 30, width=32), st.sampled_from([-1e4, 1e4, 0.0, np.inf, -np.inf])),
)


def predict(output: Any, logits: Any = LOGITS, multi_label: bool = True, **options: Any) -> Any:
    options = {"labels": LABELS, "thresholds": HALVES, **options}
    return convert(logits, output, multi_label=multi_label, **options)


class TestCalibration:
    def test_apply(self) -> None:
        found = Calibration(np.array([2, 1], np.float32), np.array([1, -1], np.float32)).apply(
            [[3, 4], [0, 1]]
        )
        assert found.dtype == np.float32
        assert found.tolist() == [[7, 3], [1, 0]]

    def test_identity(self) -> None:
        logits = np.array([[0.1, -7, 1e38]], np.float32)
        np.testing.assert_array_equal(Calibration.identity(3).apply(logits), logits)

    def test_beyond_float32_is_infinite_without_a_warning(self) -> None:
        found = Calibration(np.full(2, 1e30, np.float32), np.zeros(2, np.float32)).apply([[1e30, -1e30]])
        assert found.tolist() == [[np.inf, -np.inf]]

    def test_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Calibration.identity(1).scale = np.zeros(1, np.float32)  # type: ignore[misc]


class TestToProbabilities:
    @given(ANY_LOGITS)
    def test_sigmoid_is_scipys(self, logits: NDArray[np.float32]) -> None:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            probabilities = to_probabilities(logits, multi_label=True)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, expit(logits.astype(np.float64)), rtol=1e-6, atol=1e-38)

    @given(ANY_LOGITS)
    def test_softmax_is_scipys(self, logits: NDArray[np.float32]) -> None:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            probabilities = to_probabilities(logits, multi_label=False)
        assert probabilities.dtype == np.float32
        finite = np.clip(logits.astype(np.float64), -1e30, 1e30)
        np.testing.assert_allclose(probabilities, softmax(finite, axis=1), rtol=1e-5, atol=1e-38)

    def test_known_values(self) -> None:
        assert to_probabilities([[0.0, np.log(3)]], True).tolist() == [[0.5, pytest.approx(0.75)]]
        assert to_probabilities([[0.0, np.log(3)]], False).tolist() == [
            [pytest.approx(0.25), pytest.approx(0.75)]
        ]

    @pytest.mark.parametrize("multi_label", [True, False])
    def test_no_rows(self, multi_label: bool) -> None:
        assert to_probabilities(np.zeros((0, 3)), multi_label).shape == (0, 3)

    @pytest.mark.parametrize("output", ["labels", "classes", "probabilities", len])
    def test_nan_is_no_probability(self, output: Any) -> None:
        with pytest.raises(FlashError) as error:
            predict(output, [[0, 0, 0], [0, np.nan, 0], [np.nan, np.nan, 1]])
        assert str(error.value) == (
            "the model's output is not a number for 2 of 3 texts (the first is number 2), so its weights are "
            "broken; train it again with a smaller learning rate"
        )


class TestConvert:
    def test_labels_are_in_label_order(self) -> None:
        assert predict("labels") == [["zebra", "모욕"], [], ["apple", "모욕"]]

    def test_classes(self) -> None:
        classes = predict("classes")
        assert classes == [[0, 2], [], [1, 2]]
        assert all(type(column) is int for row in classes for column in row)

    def test_single_label(self) -> None:
        assert predict("labels", multi_label=False, thresholds=None) == ["zebra", "zebra", "apple"]
        assert predict("classes", multi_label=False, thresholds=None) == [0, 0, 1]
        assert predict("classes", [[1.0, 1.0, 0.0]], multi_label=False) == [0]

    @pytest.mark.parametrize("multi_label", [True, False])
    def test_arrays(self, multi_label: bool) -> None:
        np.testing.assert_array_equal(
            predict("probabilities", multi_label=multi_label), to_probabilities(LOGITS, multi_label)
        )
        for output in ("logits", "preds"):
            logits = predict(output, LOGITS.astype(np.float64), multi_label=multi_label)
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(logits, LOGITS)

    def test_a_function_receives_the_probabilities(self) -> None:
        received = predict(lambda probabilities: ("mine", probabilities))
        assert received[0] == "mine"
        np.testing.assert_array_equal(received[1], to_probabilities(LOGITS, True))

    def test_thresholds_are_per_label_and_reached_is_enough(self) -> None:
        assert predict("labels", [[0.0, 0.0, 0.0]]) == [list(LABELS)]
        assert predict("labels", [[0.0, 0.0, 0.0]], thresholds=[0.6, 0.4, 0.5]) == [["apple", "모욕"]]

    @given(ANY_LOGITS, st.floats(0, 1, width=32))
    def test_labels_agree_with_a_plain_loop(self, logits: NDArray[np.float32], threshold: float) -> None:
        labels = [f"label {column}" for column in range(logits.shape[1])]
        thresholds = np.full(len(labels), threshold, np.float32)
        probabilities = to_probabilities(logits, True)
        expected = [
            [label for label, value in zip(labels, row, strict=True) if value >= np.float32(threshold)]
            for row in probabilities
        ]
        assert convert(logits, "labels", labels=labels, multi_label=True, thresholds=thresholds) == expected

    @pytest.mark.parametrize("output", ["labels", "classes"])
    def test_no_rows(self, output: str) -> None:
        for multi_label in (True, False):
            assert predict(output, np.zeros((0, 3)), multi_label=multi_label) == []

    def test_one_label(self) -> None:
        assert predict("labels", [[1.0], [-1.0]], labels=["only"], thresholds=[0.5]) == [["only"], []]

    @pytest.mark.parametrize(
        ("output", "logits", "options", "words"),
        [
            (
                "label",
                LOGITS,
                {},
                "unknown output 'label'; did you mean 'labels'? "
                "Known: labels, classes, probabilities, logits, preds",
            ),
            (["labels"], LOGITS, {}, "unknown output \"['labels']\""),
            (None, LOGITS, {}, "unknown output 'None'. Known: labels, classes,"),
            ("labels", LOGITS[:, :2], {}, "logits have shape (3, 2); expected (rows, 3), a column per label"),
            ("labels", LOGITS[0], {}, "logits have shape (3,); expected (rows, 3), a column per label"),
            (
                "labels",
                LOGITS,
                {"thresholds": None},
                "labels need thresholds; give one number in [0, 1] per label",
            ),
        ],
    )
    def test_mistakes(self, output: Any, logits: Any, options: dict[str, Any], words: str) -> None:
        with pytest.raises(FlashError) as error:
            predict(output, logits, **options)
        assert words in str(error.value)

    def test_names(self) -> None:
        assert list(OUTPUTS) == ["labels", "classes", "probabilities", "logits", "preds"]
