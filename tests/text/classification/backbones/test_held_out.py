"""The compiled loops that make held-out rows, beside plain ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.text.classification.backbones.features import Rows
from flash.text.classification.backbones.held_out import as_unseen, hash_rows, take_out

Drawn = list[dict[int, float]]
rows_of_features = st.lists(
    st.dictionaries(st.integers(0, 7), st.floats(0.125, 1, width=32), max_size=6), min_size=1, max_size=9
)


def sparse(drawn: Drawn) -> Rows:
    """Rows of (feature, value), as they come."""
    features = [feature for row in drawn for feature in row]
    values = [value for row in drawn for value in row.values()]
    ends = np.cumsum([len(row) for row in drawn])
    return Rows(np.array(features, np.int32), np.array(values, np.float32), ends.astype(np.int64))


@settings(deadline=None)  # the first call compiles
@given(rows_of_features, st.sampled_from([0.5, 0.75]), st.data())
def test_rows_as_new_texts_are_what_the_plain_loops_say(
    drawn: Drawn, word_share: float, data: st.DataObject
) -> None:
    count = len(drawn)
    inside = data.draw(st.lists(st.integers(0, count - 1), unique=True, min_size=1).map(sorted))
    kinds = np.array([0, 1, 0, 1, 0, 1, 1, 0], np.int32)
    outside = {feature for row in range(count) if row not in inside for feature in drawn[row]}
    rows = sparse(drawn)
    texts = np.bincount(rows.features, minlength=8).astype(np.int64)
    rows_inside = np.array(inside, np.int64)
    take_out(rows_inside, rows.ends, rows.features, texts)
    assert texts.tolist() == [
        sum(feature in row for place, row in enumerate(drawn) if place not in inside) for feature in range(8)
    ]
    found = as_unseen(rows, rows_inside, texts, kinds, word_share)
    start = 0
    for place, row in enumerate(inside):
        known = {feature: value for feature, value in drawn[row].items() if feature in outside}
        squares = [sum(v * v for f, v in known.items() if kinds[f] == kind) for kind in (0, 1)]
        shares = [word_share, 1 - word_share] if all(squares) else [1, 1]
        stop = found.ends[place]
        assert found.features[start:stop].tolist() == list(known)
        expected = [
            value * np.sqrt(shares[kinds[feature]] / squares[kinds[feature]])
            for feature, value in known.items()
        ]
        assert found.values[start:stop].tolist() == pytest.approx(expected, rel=1e-5)
        start = stop


@settings(deadline=None)
@given(rows_of_features)
def test_rows_have_the_same_number_only_if_they_are_the_same(drawn: Drawn) -> None:
    rows = sparse([*drawn, *drawn])
    numbers = hash_rows(rows.ends, rows.features, rows.values)
    count = len(drawn)
    assert numbers[:count].tolist() == numbers[count:].tolist()
    single = [tuple((feature, np.float32(value)) for feature, value in row.items()) for row in drawn]
    for one in range(count):
        for other in range(count):
            assert (numbers[one] == numbers[other]) == (single[one] == single[other])
