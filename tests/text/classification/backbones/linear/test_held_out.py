"""The compiled loops that make held-out rows, beside plain ones."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.text.classification.backbones.linear.features import Rows, pivoted_norms
from flash.text.classification.backbones.linear.held_out import (
    as_unseen,
    growth_of_scores,
    hash_rows,
    take_out,
)
from flash.text.classification.backbones.linear.kernels import normalize_rows
from flash.text.classification.scores.outputs import Calibration

Drawn = list[dict[int, float]]
Singles = npt.NDArray[np.float32]
rows_of_features = st.lists(
    st.dictionaries(st.integers(0, 7), st.floats(0.125, 1, width=32), max_size=6), min_size=1, max_size=9
)


KINDS = np.array([0, 1, 0, 1, 0, 1, 1, 0], np.int32)


def sparse(drawn: Drawn, word_share: float = 0.5, slope: float = 1.0) -> tuple[Rows, Singles]:
    """Rows of (feature, value), normalised, and their norms."""
    features = np.array([2 * feature + KINDS[feature] for row in drawn for feature in row], np.int32)
    values = np.array([value for row in drawn for value in row.values()], np.float32)
    ends = np.cumsum([len(row) for row in drawn]).astype(np.int64)
    lengths = np.array([lengths_of(row) for row in drawn])
    norms, squares = pivoted_norms(lengths, slope), np.empty(len(drawn), np.float32)
    normalize_rows(0, ends, features, values, lengths, word_share, norms, squares)
    return Rows(features, values, ends, lengths, squares), norms


def lengths_of(row: dict[int, float]) -> list[float]:
    """Of words and of characters."""
    return [float(np.sqrt(sum(v * v for f, v in row.items() if KINDS[f] == kind))) for kind in (0, 1)]


@settings(deadline=None)  # the first call compiles
@given(rows_of_features, st.sampled_from([0.5, 0.75]), st.sampled_from([1.0, 0.8]), st.data())
def test_rows_as_new_texts_are_what_the_plain_loops_say(
    drawn: Drawn, word_share: float, slope: float, data: st.DataObject
) -> None:
    count = len(drawn)
    inside = data.draw(st.lists(st.integers(0, count - 1), unique=True, min_size=1).map(sorted))
    outside = {feature for row in range(count) if row not in inside for feature in drawn[row]}
    rows, norms = sparse(drawn, word_share, slope)
    texts = np.bincount(rows.features, minlength=8).astype(np.int64)
    rows_inside = np.array(inside, np.int64)
    take_out(rows_inside, rows.ends, rows.features, texts)
    assert texts.tolist() == [
        sum(feature in row for place, row in enumerate(drawn) if place not in inside) for feature in range(8)
    ]
    found = as_unseen(rows, rows_inside, texts, KINDS, word_share, norms)
    start = 0
    for place, row in enumerate(inside):
        known = {feature: value for feature, value in drawn[row].items() if feature in outside}
        lengths = lengths_of(known)
        shares = [word_share, 1 - word_share] if all(lengths) else [1, 1]
        stop = found.ends[place]
        assert found.features[start:stop].tolist() == list(known)
        divisors = norms[:, 0] + norms[:, 1] * lengths
        expected = [
            value * np.sqrt(shares[KINDS[feature]]) / divisors[KINDS[feature]]
            for feature, value in known.items()
        ]
        assert found.values[start:stop].tolist() == pytest.approx(expected, rel=1e-5)
        assert found.lengths[place].tolist() == pytest.approx(lengths, rel=1e-5)
        assert found.squares[place] == pytest.approx(sum(value**2 for value in expected), rel=1e-5)
        start = stop


@settings(deadline=None)
@given(rows_of_features)
def test_rows_have_the_same_number_only_if_they_are_the_same(drawn: Drawn) -> None:
    twice = [*drawn, *drawn]
    features = np.array([feature for row in twice for feature in row], np.int32)
    values = np.array([value for row in twice for value in row.values()], np.float32)
    numbers = hash_rows(np.cumsum([len(row) for row in twice]), features, values)
    count = len(drawn)
    assert numbers[:count].tolist() == numbers[count:].tolist()
    single = [tuple((feature, np.float32(value)) for feature, value in row.items()) for row in drawn]
    for one in range(count):
        for other in range(count):
            assert (numbers[one] == numbers[other]) == (single[one] == single[other])


FREQUENT = np.array([1e9, 1e9, 1e9])
SCALES = Calibration(np.array([1.0, 2.0, 4.0], np.float32), np.array([-1.0, 0.5, 0.0], np.float32))


def drawn_scores(rows: int) -> Singles:
    """Scores of three labels."""
    return np.random.default_rng(0).normal(-1, 1, (rows, 3)).astype(np.float32)


def test_scores_that_all_grow_by_as_much_fall_by_it() -> None:
    """From half of the rows to all but one in a hundred logits grow by 0.3: to all rows it is a little more."""
    fewer = drawn_scores(20_000)
    found = growth_of_scores(fewer, fewer + 0.3 / SCALES.scale, SCALES, FREQUENT, (0.5, 0.99))
    onward = 0.3 * np.log(2) / np.log(0.99 / 0.5)
    assert (found * SCALES.scale).tolist() == pytest.approx([onward] * 3, rel=0.01)
    doubled = growth_of_scores(fewer, fewer + 0.3 / SCALES.scale, SCALES, FREQUENT, (0.25, 0.5))
    assert (doubled * SCALES.scale).tolist() == pytest.approx([0.6] * 3, rel=0.01)


def test_growth_that_may_be_chance_is_drawn_towards_none() -> None:
    """Of scores that only move at random, few say nothing; a label with few positives keeps its own."""
    noise = np.random.default_rng(1).normal(0.4, 2, (20_000, 3)).astype(np.float32)
    fewer = drawn_scores(20_000)
    many, few = (
        growth_of_scores(fewer[:count], (fewer + noise)[:count], SCALES, FREQUENT, (0.5, 0.9))
        for count in (20_000, 20)
    )
    assert 0 < abs(few).max() < abs(many).max()
    positives = np.array([200.0, 2e9, 1.0])
    found = growth_of_scores(fewer, fewer + 0.3, SCALES, positives, (0.5, 0.9)) * SCALES.scale
    assert found[0] == pytest.approx(found[1] / 2, rel=1e-4)
    assert 0 < found[2] < 0.01


@pytest.mark.parametrize("extreme", [-1e30, 1e30])
def test_scores_without_doubt_do_not_grow(extreme: float) -> None:
    scores = np.full((4, 3), extreme, np.float32)
    assert growth_of_scores(scores, scores, SCALES, FREQUENT, (0.5, 0.9)).tolist() == [0, 0, 0]
