from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array

from flash.core.errors import FlashError
from flash.text.classification.scores.outputs import applies
from flash.text.classification.scores.thresholds import check_arrays, resolve_thresholds

LABELS = ["toxic", "obscene", "threat"]
TUNED = np.array([0.2, 0.3, 0.4], np.float32)
ALMOST_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


class TestApplies:
    def test_reaching_the_threshold_is_enough(self) -> None:
        assert applies([[0.3, 0.29, 0.31]], [0.3, 0.3, 0.3]).tolist() == [[True, False, True]]

    def test_compares_as_float32_whatever_it_gets(self) -> None:
        # float32(0.7) is below the double 0.7: a comparison in doubles would say no.
        assert np.float64(np.float32(0.7)) < 0.7
        assert applies(np.array([[0.7]], np.float32), np.array([0.7], np.float64)).tolist() == [[True]]
        assert applies(np.array([[0.7]], np.float64), np.array([0.7], np.float32)).tolist() == [[True]]


class TestResolveThresholds:
    @pytest.mark.parametrize("asked", [None, "auto"])
    def test_tuned(self, asked: Any) -> None:
        resolved = resolve_thresholds(asked, LABELS, TUNED)
        assert resolved.dtype == np.float32
        assert resolved.tolist() == TUNED.tolist()
        resolved[0] = 1
        assert TUNED[0] == np.float32(0.2)

    def test_one_tuned_for_all(self) -> None:
        assert resolve_thresholds(None, LABELS, np.float32(0.25)).tolist() == [0.25] * 3

    @pytest.mark.parametrize(
        "asked", [0.5, np.float32(0.5), np.array(0.5), [0.5] * 3, (0.5,) * 3, np.full(3, 0.5)]
    )
    def test_numbers_and_lists(self, asked: Any) -> None:
        assert resolve_thresholds(asked, LABELS, TUNED).tolist() == [0.5, 0.5, 0.5]

    def test_the_ends_are_thresholds_too(self) -> None:
        assert resolve_thresholds([0, 1, 0.75], LABELS, TUNED).tolist() == [0, 1, 0.75]

    def test_a_dict_keeps_the_tuned_others(self) -> None:
        resolved = resolve_thresholds({"threat": 0.125}, LABELS, TUNED)
        assert resolved.tolist() == [float(TUNED[0]), float(TUNED[1]), 0.125]
        assert resolve_thresholds({}, LABELS, TUNED).tolist() == TUNED.tolist()

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"thret": 0.5}, "unknown label 'thret'; did you mean 'threat'? Known: toxic, obscene, threat"),
            ({"x": 0.5, "y": 1}, "Known: toxic, obscene, threat (2 such labels in thresholds)"),
            ({3: 0.5}, "unknown label '3'. Known:"),
            (
                [0.5, 0.5],
                "thresholds has 2 values for 3 labels; expected a number in [0, 1], a list with one",
            ),
            (1.5, "thresholds has 1.5 for 'toxic', 1.5 for 'obscene', 1.5 for 'threat'; expected a number"),
            ([0.5, -0.1, 0.5], "thresholds has -0.1 for 'obscene'; expected a number in [0, 1]"),
            ({"toxic": float("nan")}, "thresholds has nan for 'toxic'; expected"),
            ({"toxic": "0.5"}, "thresholds has '0.5' for 'toxic'; expected"),
            ([0.5, True, 0.5], "thresholds has True for 'obscene'; expected"),
            ([0.5, np.True_, None], "for 'obscene', None for 'threat'; expected"),
            (
                True,
                "thresholds=True is not understood; expected a number in [0, 1], a list with one per label",
            ),
            ("best", "thresholds='best' is not understood; expected a number in [0, 1], a list"),
            ({0.5}, "thresholds={0.5} is not understood; expected"),
        ],
    )
    def test_mistakes(self, asked: Any, words: str) -> None:
        with pytest.raises(FlashError) as error:
            resolve_thresholds(asked, LABELS, TUNED)
        assert words in str(error.value)

    def test_many_wrong_values_are_counted(self) -> None:
        with pytest.raises(FlashError, match=r"2 for 'b', 2 for 'c' and 2 more; expected"):
            resolve_thresholds(2, list("abcde"), 0.5)


class TestCheckArrays:
    @pytest.mark.parametrize("form", [np.asarray, csr_array, coo_array])
    def test_targets_of_every_form(self, form: Any) -> None:
        targets = np.array([[0.5, 0.0], [0.49, 1.0]], np.float32)
        scores, truth, known = check_arrays([[0.0, 1.0], [0.5, 0.25]], form(targets))
        assert scores.dtype == np.float32
        assert truth.format == "csc"
        assert truth.toarray().tolist() == [[True, False], [False, True]]
        assert truth.nnz == 2
        assert known is None

    def test_stored_zeros_are_no_positives(self) -> None:
        stored = csr_array((np.array([0.0, 1.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
        assert check_arrays([[0, 1]], stored)[1].toarray().tolist() == [[False, True]]

    @pytest.mark.parametrize("form", [np.asarray, csr_array, coo_array])
    def test_unknown_targets_are_no_positives(self, form: Any) -> None:
        _, truth, known = check_arrays([[0.9, 0.8]] * 2, form([[np.nan, 0.0], [1.0, np.nan]]))
        assert truth.toarray().tolist() == [[False, False], [True, False]]
        assert known is not None
        assert known.tolist() == [[False, True], [True, False]]

    @pytest.mark.parametrize(
        ("scores", "targets", "words"),
        [
            (
                [[0.5, 0.5]],
                [[1, 0, 1]],
                "probabilities have shape (1, 2) and targets (1, 3); expected the same",
            ),
            (
                [0.5, 0.5],
                [1, 0],
                "probabilities have shape (2,) and targets (2,); expected the same (rows, labels)",
            ),
            (
                [[0.5, np.nan]],
                [[1, 0]],
                "probabilities must be numbers in [0, 1]; found 1 other value (the first is nan)",
            ),
            (
                [[0.5, np.inf]],
                [[1, 0]],
                "probabilities must be numbers in [0, 1]; found 1 other value (the first is inf)",
            ),
            (
                [[-3.0, 4.5]],
                [[1, 0]],
                "found 2 other values (the first is -3.0); logits become probabilities by outputs.to_probab",
            ),
            (
                [[0.5, 0.5]],
                csr_array([[2.0, 0]]),
                "targets must be numbers in [0, 1]; found 1 other value (the first is 2.0)",
            ),
        ],
    )
    def test_mistakes(self, scores: Any, targets: Any, words: str) -> None:
        with pytest.raises(FlashError) as error:
            check_arrays(scores, targets)
        assert words in str(error.value)
