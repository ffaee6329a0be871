from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from flash.core.errors import FlashError
from flash.text.classification.scores import calibration
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import to_probabilities

Floats = NDArray[np.float32]


@pytest.fixture
def drawn() -> tuple[Floats, Floats, Floats]:
    """Margins of 4,000 rows, the probabilities they were drawn for, and the targets: of 1 to 2,000 positives."""
    generator = np.random.default_rng(5)
    logits = generator.normal(-0.8, 0.5, (4000, 5)).astype(np.float32)
    scale, shift = np.array([3, 4, 5, 4, 6]), np.array([-7, -3, 0, 1, 4.5])
    truth = 1 / (1 + np.exp(-(logits * scale + shift)))
    return logits, truth.astype(np.float32), (generator.random(truth.shape) < truth).astype(np.float32)


def brier(logits: Floats, targets: Floats, multi_label: bool = True) -> NDArray[np.float64]:
    wrong = to_probabilities(logits, multi_label).astype(np.float64) - targets
    scores: NDArray[np.float64] = (wrong**2).mean(axis=0)
    return scores


class TestMultiLabel:
    def test_close_to_what_the_rows_were_drawn_from(self, drawn: tuple[Floats, Floats, Floats]) -> None:
        logits, truth, targets = drawn
        found = to_probabilities(fit_calibration(logits, targets, multi_label=True).apply(logits), True)
        assert np.abs(found - truth).mean() < 0.006
        assert np.abs(to_probabilities(logits, True) - truth).mean() > 0.1

    def test_is_scikit_learns_platt_scaling_where_there_are_many_positives(
        self, drawn: tuple[Floats, Floats, Floats]
    ) -> None:
        logits, _, targets = drawn
        found = to_probabilities(fit_calibration(logits, targets, multi_label=True).apply(logits), True)
        for column in (3, 4):
            plain = LogisticRegression(C=1e6).fit(logits[:, [column]], targets[:, column])
            expected = plain.predict_proba(logits[:, [column]])[:, 1]
            np.testing.assert_allclose(found[:, column], expected, atol=0.01)

    def test_is_the_minimum_of_the_stated_loss(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Against scipy's general minimiser, of one label, with the common scale and shift as given."""
        monkeypatch.setattr(
            calibration, "_fit_common", lambda *_: calibration.Common(scale=2.0, shift=-0.5, pivot=0.3)
        )
        generator = np.random.default_rng(1)
        logits = generator.normal(size=(50, 1)).astype(np.float32)
        targets = generator.random((50, 1)).astype(np.float32) * (logits > -0.3)
        positives = targets.sum()
        low, high = 1 / (50 - positives + 2), 1 - 1 / (positives + 2)
        smooth = low + (high - low) * targets[:, 0].astype(np.float64)

        def loss(at: NDArray[np.float64]) -> float:
            y = np.exp(at[0]) * 2 * (logits[:, 0].astype(np.float64) - 0.3) + at[1]
            prior = (at[0] / 0.5) ** 2 / 2 + ((at[1] + 0.5) / 2) ** 2 / 2
            return float(np.sum(np.logaddexp(0, y) - smooth * y) + prior)

        expected = minimize(loss, [0, -0.5], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x
        found = fit_calibration(logits, targets, multi_label=True)
        scale = 2 * np.exp(expected[0])
        assert found.scale[0] == pytest.approx(scale, rel=1e-3)
        assert found.shift[0] == pytest.approx(expected[1] - scale * 0.3, abs=1e-3)

    def test_scores_improve_and_order_stays(self, drawn: tuple[Floats, Floats, Floats]) -> None:
        logits, _, targets = drawn
        found = fit_calibration(logits, csr_array(targets), multi_label=True)
        before, after = to_probabilities(logits, True), to_probabilities(found.apply(logits), True)
        for column in range(1, 5):
            truth = targets[:, column]
            assert log_loss(truth, after[:, column]) < log_loss(truth, before[:, column])
            assert brier_score_loss(truth, after[:, column]) < brier_score_loss(truth, before[:, column])
            for measure in (roc_auc_score, average_precision_score):
                expected = measure(truth, logits[:, column])
                assert measure(truth, after[:, column]) == pytest.approx(expected, rel=1e-4)

    def test_rare_labels_lean_on_the_others(self) -> None:
        generator = np.random.default_rng(2)
        logits = generator.normal(-0.8, 0.5, (3000, 9)).astype(np.float32)
        targets = (generator.random(logits.shape) < 1 / (1 + np.exp(-(5 * logits - 1)))).astype(np.float32)
        for column, positives in enumerate((0, 1, 2, 3)):
            rows = np.argsort(-logits[:, column])
            targets[:, column] = 0
            targets[rows[:positives], column] = 1  # separable: by itself its scale would have no end
        found = fit_calibration(logits, targets, multi_label=True)
        np.testing.assert_allclose(found.scale[4:], 5, rtol=0.15)
        assert ((found.scale[:4] > 2) & (found.scale[:4] < 15)).all()
        mean = to_probabilities(found.apply(logits), True)[:, :4].mean(axis=0) * 3000
        assert (mean > [0.1, 0.5, 1, 1.5]).all()
        assert (mean < [3, 4, 5, 6]).all()

    def test_soft_targets_are_shares(self) -> None:
        logits = np.tile(np.array([[-1], [0], [1]], np.float32), (4, 1))
        hard = np.array([[0, 0, 1], [0, 1, 1], [0, 0, 0], [1, 1, 1]], np.float32).reshape(-1, 1)
        soft = np.tile(np.array([[0.25], [0.5], [0.75]], np.float32), (4, 1))
        found, expected = (fit_calibration(logits, each, multi_label=True) for each in (soft, hard))
        np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-5)
        np.testing.assert_allclose(found.shift, expected.shift, atol=1e-5)

    def test_nothing_depends_on_threads_blocks_or_the_kind_of_matrix(
        self, drawn: tuple[Floats, Floats, Floats], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logits, _, targets = drawn
        once = fit_calibration(logits, targets, multi_label=True, threads=1)
        for matrix in (targets, csr_array(targets)):
            again = fit_calibration(logits, matrix, multi_label=True, threads=3)
            np.testing.assert_array_equal(again.scale, once.scale)
            np.testing.assert_array_equal(again.shift, once.shift)
        monkeypatch.setattr(calibration, "CELLS", 1000)
        blocks = fit_calibration(logits, targets, multi_label=True)
        np.testing.assert_allclose(blocks.scale, once.scale, rtol=1e-5)
        np.testing.assert_allclose(blocks.shift, once.shift, rtol=1e-5, atol=1e-5)

    def test_margins_of_another_unit_make_the_same_probabilities(
        self, drawn: tuple[Floats, Floats, Floats]
    ) -> None:
        logits, _, targets = drawn
        first = fit_calibration(logits, targets, multi_label=True).apply(logits)
        other = (logits * 64 + 32).astype(np.float32)
        second = fit_calibration(other, targets, multi_label=True).apply(other)
        # The label of the one positive may keep its own logits in one unit and not in the other.
        np.testing.assert_allclose(
            to_probabilities(second, True)[:, 1:], to_probabilities(first, True)[:, 1:], atol=1e-4
        )

    def test_a_label_that_would_lose_keeps_its_logits(self) -> None:
        logits = np.array([[60, -60, 1], [-60, 60, -1], [60, -60, 2], [-60, -60, 0]], np.float32)
        targets = (logits > 0).astype(np.float32)
        found = fit_calibration(logits, targets, multi_label=True)
        assert found.scale[:2].tolist() == [1, 1]
        assert found.shift[:2].tolist() == [0, 0]

    def test_arguments_stay_as_they_were(self, drawn: tuple[Floats, Floats, Floats]) -> None:
        logits, _, targets = drawn
        sparse = csr_array(targets)
        before = logits.copy(), sparse.copy().toarray()
        fit_calibration(logits, sparse, multi_label=True)
        fit_calibration(logits, sparse, multi_label=False)
        np.testing.assert_array_equal(logits, before[0])
        np.testing.assert_array_equal(sparse.toarray(), before[1])


class TestSingleLabel:
    @pytest.fixture
    def classes(self) -> tuple[Floats, Floats]:
        generator = np.random.default_rng(7)
        logits = generator.normal(0, 0.6, (3000, 4)).astype(np.float32)
        truth = to_probabilities(logits * 4 + np.array([0, 1, -1, -2], np.float32), False)
        drawn = (truth.cumsum(axis=1) > generator.random((3000, 1))).argmax(axis=1)
        return logits, np.eye(4, dtype=np.float32)[drawn]

    def test_finds_one_scale_and_the_shifts(self, classes: tuple[Floats, Floats]) -> None:
        found = fit_calibration(*classes, multi_label=False)
        assert len(set(found.scale.tolist())) == 1
        assert found.scale[0] == pytest.approx(4, rel=0.05)
        np.testing.assert_allclose(found.shift - found.shift.mean(), [0.5, 1.5, -0.5, -1.5], atol=0.2)

    def test_the_slope_is_the_loss_s(self, classes: tuple[Floats, Floats]) -> None:
        logits, targets = classes[0][:40], csr_array(classes[1][:40])
        shift = np.array([0.5, -1, 2, 0])
        loss, *slope = calibration._softmax_moments(logits, targets, 1.5, shift)
        assert loss == pytest.approx(
            40 * log_loss(targets.toarray(), to_probabilities(logits * 1.5 + shift, False))
        )
        small = 1e-5
        above = calibration._softmax_moments(logits, targets, 1.5 + small, shift)[0]
        assert (above - loss) / small == pytest.approx(slope[0], abs=1e-2)
        for place in range(4):
            moved = shift + small * (np.arange(4) == place)
            above = calibration._softmax_moments(logits, targets, 1.5, moved)[0]
            assert (above - loss) / small == pytest.approx(slope[1 + place], abs=1e-3)

    def test_threads_and_blocks_change_nothing(
        self, classes: tuple[Floats, Floats], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calibration, "CELLS", 1000)
        once, again = (fit_calibration(*classes, multi_label=False, threads=threads) for threads in (1, 3))
        np.testing.assert_array_equal(again.scale, once.scale)
        np.testing.assert_array_equal(again.shift, once.shift)

    def test_what_is_perfect_stays(self) -> None:
        logits = np.array([[60, -60], [-60, 60]], np.float32)
        found = fit_calibration(logits, np.eye(2, dtype=np.float32), multi_label=False)
        assert (brier(found.apply(logits), np.eye(2, dtype=np.float32), False) == 0).all()

    def test_rows_without_a_class_say_nothing(self, classes: tuple[Floats, Floats]) -> None:
        logits, targets = classes
        more = (
            np.concatenate([logits, logits[:500]]),
            np.concatenate([targets, np.zeros((500, 4), np.float32)]),
        )
        assert fit_calibration(*more, multi_label=False).scale[0] == pytest.approx(
            fit_calibration(*classes, multi_label=False).scale[0], rel=0.02
        )


NUMBERS = st.one_of(st.sampled_from([0.0, -1.0, 1.0, 3e38, -3e38, 1e-30, 1e5]), st.floats(-20, 20, width=32))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Anything finite: constant columns, no positives, no negatives, one row, soft targets, huge logits."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8))
    logits = draw(arrays(np.float32, shape, elements=NUMBERS))
    share = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
    return logits, draw(arrays(np.float32, shape, elements=share))


class TestAnything:
    @settings(max_examples=150, deadline=None)
    @given(cases(), st.booleans())
    def test_positive_finite_and_never_worse(self, case: tuple[Floats, Floats], multi_label: bool) -> None:
        logits, targets = case
        found = fit_calibration(logits, targets, multi_label=multi_label)
        assert found.scale.dtype == found.shift.dtype == np.float32
        assert found.scale.shape == found.shift.shape == (logits.shape[1],)
        assert (found.scale > 0).all()
        assert np.isfinite(found.scale).all()
        assert np.isfinite(found.shift).all()
        after, before = (brier(values, targets, multi_label) for values in (found.apply(logits), logits))
        if multi_label:
            assert (after <= before + 1e-12).all()
        else:
            assert after.sum() <= before.sum() + 1e-12

    @settings(max_examples=50, deadline=None)
    @given(cases(), st.data())
    def test_the_order_of_columns_does_not_matter(
        self, case: tuple[Floats, Floats], data: st.DataObject
    ) -> None:
        logits, targets = np.clip(case[0], -20, 20), case[1]
        order = data.draw(st.permutations(range(logits.shape[1])))
        once = fit_calibration(logits, targets, multi_label=True)
        again = fit_calibration(logits[:, order], targets[:, order], multi_label=True)
        # Rounding may decide whether a label at the border of getting worse keeps its logits.
        gap = brier(once.apply(logits), targets)[order] - brier(
            again.apply(logits[:, order]), targets[:, order]
        )
        np.testing.assert_allclose(gap, 0, atol=1e-4)

    @pytest.mark.parametrize("multi_label", [True, False])
    def test_logits_closer_than_float32_can_scale(self, multi_label: bool) -> None:
        found = fit_calibration(
            np.array([[1e-45, 0]], np.float32), np.array([[1, 0]]), multi_label=multi_label
        )
        assert np.isfinite(found.scale).all()
        assert (found.scale > 0).all()

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_only_negatives_or_only_positives(self, share: float) -> None:
        logits = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
        targets = np.full((100, 2), share, np.float32)
        found = to_probabilities(fit_calibration(logits, targets, multi_label=True).apply(logits), True)
        assert np.abs(found - share).mean() < 0.05

    def test_constant_logits_become_the_share(self) -> None:
        targets = np.zeros((1000, 1), np.float32)
        targets[:200] = 1
        found = fit_calibration(np.full((1000, 1), 7, np.float32), targets, multi_label=True)
        assert to_probabilities(found.apply([[7]]), True)[0, 0] == pytest.approx(0.2, abs=0.01)

    def test_one_row(self) -> None:
        found = fit_calibration([[3.0, -2.0]], csr_array([[1.0, 0.0]]), multi_label=True)
        assert (found.scale > 0).all()

    @pytest.mark.parametrize(
        ("logits", "targets", "words"),
        [
            (
                np.zeros((2, 3)),
                np.zeros((2, 2)),
                "logits have shape (2, 3) and targets (2, 2); expected the same",
            ),
            (
                np.zeros((0, 3)),
                np.zeros((0, 3)),
                "expected the same (rows, labels) for both, with at least one row",
            ),
            (
                [[np.nan]],
                np.zeros((1, 1)),
                "logits to calibrate are not all finite; expected those of a model",
            ),
            ([[np.inf]], np.zeros((1, 1)), "logits to calibrate are not all finite"),
        ],
    )
    def test_mistakes(self, logits: Any, targets: Any, words: str) -> None:
        with pytest.raises(FlashError) as error:
            fit_calibration(logits, targets, multi_label=True)
        assert words in str(error.value)
