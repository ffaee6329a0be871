from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from sklearn.metrics import f1_score, fbeta_score, precision_recall_curve

from flash.core.errors import FlashError
from flash.text.classification.scores import threshold_tuning as tuning
from flash.text.classification.scores.outputs import applies
from flash.text.classification.scores.threshold_tuning import (
    ThresholdChoice,
    choose_thresholds,
    parse_objective,
)

Rows = tuple[NDArray[np.float32], NDArray[np.float32]]
LABELS = ["toxic", "obscene", "threat"]
OBJECTIVES = ["macro_f1", "micro_f1", "macro_f2", "micro_f0.5", "precision>=0.9", "recall>=0.9"]
SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32))


@st.composite
def scored_rows(draw: st.DrawFn, max_side: int = 7) -> Rows:
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=max_side))
    scores = draw(arrays(np.float32, shape, elements=SCORES))
    return scores, draw(arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0])))


def calibrated_rows(rows: int, centres: Sequence[float], spread: float, seed: int) -> Rows:
    """Calibrated probabilities and targets drawn from them: logits about a centre per label."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(centres, spread, (rows, len(centres)))
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return scores, (rng.random(scores.shape) < scores).astype(np.float32)


def micro_macro(scores: Any, targets: Any, thresholds: Any) -> tuple[float, float]:
    predicted = applies(scores, thresholds)
    seen = targets.sum(axis=0) > 0
    return (
        float(f1_score(targets.ravel(), predicted.ravel(), zero_division=0)),
        float(f1_score(targets[:, seen], predicted[:, seen], average="macro", zero_division=0)),
    )


def naive(scores: Any, targets: Any) -> NDArray[np.float64]:
    """Each label's own cut with the best F1 on these rows."""
    return np.array([best_cut(own, truth) for own, truth in zip(scores.T, targets.T, strict=True)])


def best_cut(scores: Any, targets: Any) -> float:
    """The score from which on F1 is the best."""
    precision, recall, cuts = precision_recall_curve(targets, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return float(cuts[f1[:-1].argmax()])


class TestMacroF1:
    def test_rare_labels_gain_and_micro_f1_does_not_suffer(self) -> None:
        # Two frequent labels that scores separate well, one less well, and forty rare ones.
        centres = [-2.0, -1.0, -3.0] + [-7.5] * 40
        spread = 2.5
        scores, targets = calibrated_rows(4000, centres, spread, 0)
        unseen, truth = calibrated_rows(20000, centres, spread, 1)
        choice = choose_thresholds(scores, csr_array(targets))
        micro, macro = micro_macro(unseen, truth, choice.thresholds)
        single_micro, single_macro = micro_macro(unseen, truth, choice.global_threshold)
        naive_micro, _ = micro_macro(unseen, truth, naive(scores, targets))
        assert naive_micro < single_micro - 0.005
        assert micro > single_micro - 0.005
        assert macro > single_macro + 0.005

    def test_labels_that_differ_get_their_own(self) -> None:
        # Frequent but hard, and easy: the best F1 and so its half are far apart.
        scores, targets = calibrated_rows(3000, [-1.5, -1.5], 0.5, 2)
        easy, found = calibrated_rows(3000, [-1.5, -1.5], 6.0, 3)
        choice = choose_thresholds(np.hstack([scores, easy]), np.hstack([targets, found]))
        assert choice.thresholds[:2].max() < choice.thresholds[2:].min() - 0.05

    def test_without_evidence_it_is_the_global_threshold(self) -> None:
        scores, targets = calibrated_rows(40, [-1.0, -1.0, -1.0], 1.0, 4)
        choice = choose_thresholds(scores, targets)
        assert choice.thresholds.tolist() == [np.float32(choice.global_threshold)] * 3

    def test_a_label_without_positives_has_the_global_threshold(self) -> None:
        scores, targets = calibrated_rows(3000, [-2.0, -6.0, -6.0, -6.0], 2.5, 5)
        targets[:, 2] = 0
        choice = choose_thresholds(scores, targets)
        assert choice.thresholds[2] == np.float32(choice.global_threshold)
        assert len(set(choice.thresholds.tolist())) > 1  # the others did get their own

    def test_column_order_does_not_matter(self) -> None:
        scores, targets = calibrated_rows(4000, [-2.0, -1.0, -5.0, -5.0, -6.0, -6.0], 2.5, 6)
        order = np.array([3, 5, 0, 4, 1, 2])
        straight = choose_thresholds(scores, targets)
        shuffled = choose_thresholds(scores[:, order], targets[:, order])
        assert len(set(straight.thresholds.tolist())) > 1
        assert shuffled.thresholds.tolist() == straight.thresholds[order].tolist()

    def test_the_seed_decides(self) -> None:
        scores, targets = calibrated_rows(1500, [-2.0] + [-5.0] * 12, 2.5, 7)
        answers = [choose_thresholds(scores, targets, seed=seed).thresholds.tolist() for seed in range(8)]
        again = [choose_thresholds(scores, targets, seed=seed).thresholds.tolist() for seed in range(8)]
        assert answers == again
        assert len({tuple(answer) for answer in answers}) > 1

    def test_beta_moves_the_thresholds(self) -> None:
        scores, targets = calibrated_rows(3000, [-2.0, -3.0], 2.5, 8)
        low, middle, high = (
            choose_thresholds(scores, targets, text).thresholds
            for text in ("macro_f2", "macro_f1", "macro_f0.5")
        )
        assert (low < middle).all()
        assert (middle < high).all()


class TestGlobalThreshold:
    def test_of_many_rows_it_has_nearly_the_best_micro_f1(self) -> None:
        scores, targets = calibrated_rows(20000, [-1.0, -2.0, -3.0], 2.5, 9)
        choice = choose_thresholds(scores, targets, "micro_f1")
        best = micro_macro(scores, targets, best_cut(scores.ravel(), targets.ravel()))[0]
        assert micro_macro(scores, targets, choice.global_threshold)[0] > best - 0.002
        assert choice.thresholds.tolist() == [np.float32(choice.global_threshold)] * 3

    def test_of_few_rows_it_is_half_of_the_expected_f1(self) -> None:
        # Of calibrated probabilities, half of the best F1 is the cut of the best F1 (Lipton et al. 2014).
        scores, targets = calibrated_rows(150, [-1.0, -2.0], 2.5, 10)
        found = choose_thresholds(scores, targets).global_threshold
        cuts = np.linspace(0.01, 0.99, 99)
        expected = [2 * scores[scores >= cut].sum() / ((scores >= cut).sum() + scores.sum()) for cut in cuts]
        assert found == pytest.approx(max(expected) / 2, abs=0.05)

    @pytest.mark.parametrize(
        ("scores", "targets"),
        [
            ([[0.1, 0.9]], [[0, 0]]),
            ([[0.0, 0.0]], [[1, 0]]),
            ([[1.0, 0.0]], [[1, 0]]),
            (np.zeros((0, 3)),) * 2,
        ],
    )
    def test_where_all_cuts_are_alike_it_is_a_half(self, scores: Any, targets: Any) -> None:
        assert choose_thresholds(scores, targets).global_threshold == pytest.approx(0.5, abs=0.01)


class TestAnyRows:
    @settings(max_examples=80, deadline=None)
    @given(scored_rows(), st.sampled_from(OBJECTIVES))
    def test_thresholds_are_numbers_in_0_1(self, rows: Rows, objective: str) -> None:
        choice = choose_thresholds(*rows, objective)
        assert choice.thresholds.shape == (rows[0].shape[1],)
        assert choice.thresholds.dtype == np.float32
        assert ((choice.thresholds >= 0) & (choice.thresholds <= 1)).all()
        assert 0 < choice.global_threshold < 1
        assert choice.objectives == (objective,) * rows[0].shape[1]

    @pytest.mark.parametrize("objective", OBJECTIVES)
    @pytest.mark.parametrize(
        ("scores", "targets"),
        [
            (np.full((9, 2), 0.3), np.zeros((9, 2))),
            (np.full((9, 2), 0.3), np.ones((9, 2))),
            (np.full((9, 2), 0.3), np.eye(9, 2)),
            (np.zeros((9, 2)), np.eye(9, 2)),
            (np.ones((9, 2)), np.eye(9, 2)),
            ([[0.7, 0.2]], [[1, 0]]),
            (np.zeros((0, 2)), np.zeros((0, 2))),
            (np.zeros((3, 0)), np.zeros((3, 0))),
        ],
        ids=["none", "all", "one", "zero", "certain", "one row", "no row", "no label"],
    )
    def test_extremes(self, scores: Any, targets: Any, objective: str) -> None:
        choice = choose_thresholds(scores, targets, objective)
        assert choice.thresholds.shape == np.shape(scores)[1:]
        assert ((choice.thresholds >= 0) & (choice.thresholds <= 1)).all()

    def test_soft_targets_count_from_a_half(self) -> None:
        scores, targets = calibrated_rows(500, [-1.0, -2.0], 2.0, 9)
        soft = np.where(targets > 0, np.float32(0.5), np.float32(0.4))
        soft_choice, choice = choose_thresholds(scores, soft), choose_thresholds(scores, targets)
        assert soft_choice.thresholds.tolist() == choice.thresholds.tolist()

    @settings(max_examples=30, deadline=None)
    @given(scored_rows())
    def test_blocks_do_not_show(self, rows: Rows) -> None:
        truth = csc_array(rows[1] > 0)
        whole = tuning._count_folds(rows[0], truth, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tuning, "BLOCK_CELLS", 1)
            assert tuning._count_folds(rows[0], truth, 0) == pytest.approx(whole)


class TestCounts:
    @settings(max_examples=30, deadline=None)
    @given(scored_rows())
    def test_against_counting_one_by_one(self, rows: Rows) -> None:
        scores, targets = rows
        counts = tuning._count_folds(scores, csc_array(targets > 0), 3)
        assert counts.shape == (3, tuning.FOLDS, scores.shape[1], tuning.CUTS.size)
        reached = scores[:, :, None] >= tuning.CUTS  # the rule of `applies`
        whole = counts.sum(axis=1)
        assert (whole[0] == reached.sum(axis=0)).all()
        assert (whole[1] == (reached * targets[:, :, None]).sum(axis=0)).all()
        assert whole[2] == pytest.approx((reached * scores[:, :, None].astype(float)).sum(axis=0))
        members = counts[0, :, 0, 0]  # every row reaches the cut at 0
        assert members.sum() == len(scores)
        assert members.max() - members.min() <= 1

    @settings(max_examples=30, deadline=None)
    @given(scored_rows(), st.sampled_from([0.5, 1.0, 2.0]))
    def test_the_global_cut_is_the_best(self, rows: Rows, beta: float) -> None:
        scores, targets = rows
        whole = tuning._count_folds(scores, csc_array(targets > 0), 0).sum(axis=1)
        cut, level = tuning._global_cut(whole, beta**2)
        positives = targets.sum()
        own = positives / (positives + tuning.PRIOR_POSITIVES_OF_ALL)

        def mixed(value: float) -> float:
            """F-beta by hits that are in part observed and in part expected."""
            reached = scores >= value
            likely, all_likely = (
                own * targets[cells].sum() + (1 - own) * scores[cells].sum(dtype=np.float64)
                for cells in (reached, slice(None))
            )
            return float((1 + beta**2) * likely / max(reached.sum() + beta**2 * all_likely, 1e-9))

        assert level == pytest.approx(mixed(tuning.CUTS[cut]), abs=1e-5)
        assert level >= max(mixed(value) for value in tuning.CUTS[1::20]) - 1e-5

    @settings(max_examples=15, deadline=None)
    @given(scored_rows(4), st.sampled_from([0.5, 1.0, 2.0]))
    def test_settings_against_a_plain_reference(self, rows: Rows, beta: float) -> None:
        scores, targets = rows
        whole = tuning._count_folds(scores, csc_array(targets > 0), 0).sum(axis=1)
        chosen = tuning._settings(whole, beta**2)
        base, level = tuning._global_cut(whole, beta**2)
        size = (scores >= tuning.CUTS[base]).sum() + beta**2 * targets.sum()
        for number, weight in enumerate(tuning.MICRO_WEIGHTS):
            cuts = chosen[len(tuning.STEPS) * number + 3]  # the full step
            for column in range(scores.shape[1]):
                if not targets[:, column].any():
                    assert cuts[column] == base
                    continue
                worth = reference(scores[:, column], targets[:, column], weight, beta, level, size)
                worth_per_label = worth(np.count_nonzero(targets.any(axis=0)))
                assert worth_per_label[cuts[column]] == pytest.approx(max(worth_per_label), abs=1e-6)


def reference(scores: Any, targets: Any, weight: float, beta: float, level: float, size: float) -> Any:
    """Steps 1 and 2 of the method for one label, cut by cut."""
    own = targets.sum() / (targets.sum() + tuning.PRIOR_POSITIVES)
    mixed = own * targets.astype(float) + (1 - own) * scores.astype(float)

    def worth(labels: int) -> list[float]:
        answers = []
        for cut in tuning.CUTS:
            reached = scores >= cut
            hits = (1 + beta**2) * mixed[reached].sum()
            total = max(reached.sum() + beta**2 * mixed.sum(), 1e-9)
            micro = (hits - level * reached.sum()) / size
            answers.append((1 - weight) * hits / total / labels + weight * micro)
        return answers

    return worth


class TestSettingChoice:
    def best(self, own: Any, moved: Any) -> int | None:
        # One label with 100 positives; the global cut reaches 100 rows, 60 of them positive: F1 is 0.6.
        single = np.array([[[100.0]], [[60.0]]])
        return tuning._best_setting(np.array(own), single, np.array(moved), np.array([100.0]), 1.0)

    def test_a_clear_gain_is_taken(self) -> None:
        # Setting 1 finds 90 of 120 reached: 2 * 90 / 220, a gain of 0.22, with 30 of 30 moved positive.
        own = [[[100.0], [120.0]], [[60.0], [90.0]]]
        assert self.best(own, [[[0.0], [30.0]], [[0.0], [30.0]]]) == 1

    def test_a_gain_within_its_error_is_not(self) -> None:
        # 64 of 104: F1 0.627, but 40 decisions differ: an error of about sqrt(22 * 1.96 + 18 * 0.36) / 200 = 0.035.
        own = [[[104.0]], [[64.0]]]
        assert self.best(own, [[[40.0]], [[22.0]]]) is None

    def test_nothing_gained_is_the_global_threshold(self) -> None:
        assert self.best([[[100.0]], [[60.0]]], [[[0.0]], [[0.0]]]) is None

    def best_of_two(self, rows: Any, hits: Any, moves: Any, hit_moves: Any) -> int | None:
        # A label with 10,000 positives, F1 0.9, and one with 10, F1 2 / 12. All (settings, 2).
        single = np.array([[[10000.0, 2.0]], [[9000.0, 1.0]]])
        own, moved = np.array([rows, hits], float), np.array([moves, hit_moves], float)
        return tuning._best_setting(own, single, moved, np.array([10000.0, 10.0]), 1.0)

    def test_macro_f1_may_not_cost_micro_f1(self) -> None:
        rare = {"moves": [[0, 18]], "hit_moves": [[0, 8]]}
        assert self.best_of_two([[10000, 20]], [[9000, 9]], **rare) == 0
        # 400 rows more for 40 hits: micro-F1 goes from 0.900 to 0.886.
        assert self.best_of_two([[10400, 20]], [[9040, 9]], **rare) is None

    def test_what_may_cost_micro_f1_is_not_taken(self) -> None:
        # Half of the moved ones are hits: two errors are 2 * sqrt(moves * (1.21 + 0.81) / 2) / 20,000.
        few, many = [[1000, 18]], [[4000, 18]]
        assert self.best_of_two([[10000, 20]], [[9000, 9]], few, [[500, 8]]) == 0  # 0.003
        assert self.best_of_two([[10000, 20]], [[9000, 9]], many, [[2000, 8]]) is None  # 0.006

    def test_macro_f1_of_a_few_rows_is_not_taken(self) -> None:
        # 2 hits of 3: a gain of (4 / 13 - 2 / 12) / 2 = 0.07; 6 moved hits are an error of 0.17.
        assert self.best_of_two([[10000, 3]], [[9000, 2]], [[0, 1]], [[0, 0]]) == 0
        assert self.best_of_two([[10000, 3]], [[9000, 2]], [[0, 10]], [[0, 6]]) is None

    def test_micro_f1_counts_twice(self) -> None:
        # Setting 0 has 0.007 more macro-F1, setting 1 0.0045 more micro-F1.
        rows, hits = [[10000, 20], [10000, 21]], [[8955, 9], [9000, 9]]
        assert self.best_of_two(rows, hits, [[0, 18], [0, 19]], [[0, 8], [0, 8]]) == 1


class TestMicroF1:
    def test_another_beta_is_one_threshold_too(self) -> None:
        scores, targets = calibrated_rows(300, [-1.0, -3.0], 2.0, 10)
        (threshold,) = set(choose_thresholds(scores, targets, "micro_f2").thresholds.tolist())
        found = fbeta_score(targets.ravel(), applies(scores, threshold).ravel(), beta=2)
        others = [
            fbeta_score(targets.ravel(), applies(scores, other).ravel(), beta=2)
            for other in np.linspace(0.01, 0.99, 99)
        ]
        assert threshold < choose_thresholds(scores, targets).global_threshold
        assert found >= max(others) - 0.02  # others have luck with these rows


class TestRequirements:
    @pytest.mark.parametrize("value", [0.6, 0.8])
    def test_precision_against_every_cut(self, value: float) -> None:
        scores, targets = calibrated_rows(400, [-1.5], 2.5, 11)
        choice = choose_thresholds(scores, targets, f"precision>={value}")
        found = {}
        for cut in np.unique(scores):
            reached = scores[:, 0] >= cut
            hits, rows = targets[reached, 0].sum(), reached.sum()
            if wilson(hits, rows, 1.645) >= value:
                found[hits] = rows
        reached = applies(scores, choice.thresholds)[:, 0]
        assert targets[reached, 0].sum() == max(found)
        assert reached.sum() == found[max(found)]
        assert choice.unmet == ()

    @pytest.mark.parametrize("value", [0.7, 0.9])
    def test_recall_against_every_cut(self, value: float) -> None:
        scores, targets = calibrated_rows(400, [-1.5], 2.5, 12)
        choice = choose_thresholds(scores, targets, f"recall>={value}")
        every = [scores[:, 0] >= cut for cut in np.unique(scores)]
        met = [
            targets[reached, 0].mean()
            for reached in every
            if wilson(targets[reached, 0].sum(), targets.sum(), 1.0) >= value
        ]
        reached = applies(scores, choice.thresholds)[:, 0]
        assert wilson(targets[reached, 0].sum(), targets.sum(), 1.0) >= value
        assert targets[reached, 0].mean() == pytest.approx(max(met))

    def test_worked_example(self) -> None:
        # 20 positives at 0.75 and 20 negatives at 0.25, the threshold between them: 20 of 20 shows 20 / (20 + z * z).
        scores = np.repeat([[0.75], [0.25]], 20, axis=0)
        targets = np.repeat([[1], [0]], 20, axis=0)
        for objective in ("precision>=0.88", "recall>=0.95"):
            choice = choose_thresholds(scores, targets, objective)
            assert (choice.thresholds.tolist(), choice.unmet) == ([0.5], ())
        for objective in ("precision>=0.89", "recall>=0.96"):
            choice = choose_thresholds(scores, targets, objective)
            assert (choice.thresholds.tolist(), choice.unmet) == ([0.5], (0,))

    def test_what_cannot_be_had_is_told(self) -> None:
        scores, targets = calibrated_rows(300, [-1.0, -4.0, -4.0], 2.0, 13)
        targets[:, 1] = 0
        targets[:, 2] = np.arange(300) < 2
        choice = choose_thresholds(scores, targets, "recall>=0.9")
        assert choice.unmet == (1, 2)
        assert choice.thresholds[1] == np.float32(choice.global_threshold)
        assert applies(scores, choice.thresholds)[:2, 2].all()  # both positives are found
        sentence = choice.unmet_sentence(LABELS)
        assert "cannot show recall>=0.9 for 'obscene', recall>=0.9 for 'threat'" in sentence
        assert "label more rows" in sentence

    def test_nothing_unmet_is_nothing_to_tell(self) -> None:
        assert ThresholdChoice(np.zeros(3, np.float32), 0.5, ("macro_f1",) * 3).unmet_sentence(LABELS) == ""

    def test_many_unmet_are_counted(self) -> None:
        many = ThresholdChoice(np.zeros(7, np.float32), 0.5, ("recall>=0.9",) * 7, tuple(range(7)))
        assert "for '4' and 2 more;" in many.unmet_sentence([str(column) for column in range(7)])

    def test_scores_beyond_a_tie_stay_apart(self) -> None:
        # Neighbouring float32 scores: their middle rounds down, onto the one that is not to be reached.
        high = np.float32(0.7)
        scores = np.repeat([high, np.nextafter(high, np.float32(0))], 30)[:, None]
        targets = np.repeat([[1], [0]], 30, axis=0)
        choice = choose_thresholds(scores, targets, "precision>=0.9")
        assert applies(scores, choice.thresholds).tolist() == (targets > 0).tolist()

    def test_each_label_its_own(self) -> None:
        scores, targets = calibrated_rows(3000, [-2.0, -4.0, -1.0], 2.5, 14)
        texts = ["macro_f1", "precision>=0.8", "micro_f1"]
        mixed = choose_thresholds(scores, targets, texts)
        alone = [choose_thresholds(scores, targets, text).thresholds for text in texts]
        assert mixed.objectives == tuple(texts)
        assert mixed.thresholds.tolist() == [alone[column][column] for column in range(3)]


def wilson(hits: float, trials: float, width: float) -> float:
    """The smaller root p of (hits / trials - p)^2 = width^2 p (1 - p) / trials, which defines Wilson's interval."""
    share, part = hits / trials, width**2 / trials
    return float(np.roots([1 + part, -(2 * share + part), share**2]).real.min())


class TestParseObjective:
    def test_one_for_all(self) -> None:
        assert parse_objective("recall>=0.9", LABELS) == ("recall>=0.9",) * 3

    def test_a_list(self) -> None:
        assert parse_objective(["macro_f2", "micro_f1", "recall >= .9"], LABELS)[2] == "recall >= .9"

    def test_a_dict_leaves_the_others_the_default(self) -> None:
        assert parse_objective({"threat": "recall>=0.9"}, LABELS) == ("macro_f1", "macro_f1", "recall>=0.9")

    @pytest.mark.parametrize(
        ("objective", "words"),
        [
            (
                "makro_f1",
                "unknown objective 'makro_f1'; did you mean 'macro_f1'\\? Known: macro_f1, micro_f1",
            ),
            ("macro_f", "unknown objective 'macro_f'"),
            ("precision>0.9", "did you mean 'precision>=0.9'"),
            ("precision>=90", "'precision>=90' asks for a precision of 90; expected one in \\(0, 1\\]"),
            ("recall>=0", "asks for a recall of 0; expected"),
            ("macro_f0", "'macro_f0' has beta 0; expected one in \\[0.01, 100\\], such as 1"),
            (["macro_f1"], "objective has 1 values for 3 labels; expected one per label"),
            (["macro_f1", "macro_f1", 3], "unknown objective '3'"),
            ({"treat": "macro_f1"}, "unknown label 'treat'; did you mean 'threat'"),
            ({"threat": "f1"}, "unknown objective 'f1'"),
            (0.9, "objective=0.9 is not understood; expected one such as 'macro_f1', a list"),
        ],
    )
    def test_mistakes(self, objective: Any, words: str) -> None:
        with pytest.raises(FlashError, match=words):
            parse_objective(objective, LABELS)

    def test_choosing_tells_them_too(self) -> None:
        with pytest.raises(FlashError, match="unknown objective 'f1'"):
            choose_thresholds([[0.5]], [[1]], "f1")
        with pytest.raises(FlashError, match="probabilities must be numbers in \\[0, 1\\]"):
            choose_thresholds([[np.nan]], [[1]])
        with pytest.raises(FlashError, match="expected the same \\(rows, labels\\)"):
            choose_thresholds([[0.5]], [[1, 0]])
