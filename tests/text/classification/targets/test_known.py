from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, csr_array

from flash.text.classification.targets.known import (
    any_unknown,
    known_cells,
    known_per_row,
    known_rows,
    without_unknown,
)

TARGETS = np.array([[1, np.nan, 0], [np.nan, np.nan, 1], [0, 0.5, 0]], np.float32)


@pytest.mark.parametrize("form", [np.asarray, csr_array, csc_array, coo_array])
def test_known_cells_of_every_form(form: Any) -> None:
    assert any_unknown(form(TARGETS))
    known = known_cells(form(TARGETS))
    assert known is not None
    np.testing.assert_array_equal(known, ~np.isnan(TARGETS))


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_nothing_unknown_is_none(form: Any) -> None:
    for targets in (
        np.eye(3),
        np.zeros((2, 3)),
        np.zeros((0, 3)),
        np.eye(3, dtype=bool),
        np.eye(3, dtype=int),
    ):
        assert not any_unknown(form(targets))
        assert known_cells(form(targets)) is None


@pytest.mark.parametrize("form", [csr_array, csc_array])
def test_counts_and_what_is_left_without(form: Any) -> None:
    assert known_rows(form(TARGETS)).tolist() == [2, 1, 3]
    assert known_per_row(form(TARGETS)).tolist() == [2, 1, 3]
    left = without_unknown(form(TARGETS))
    expected: NDArray[np.float32] = np.nan_to_num(TARGETS)
    np.testing.assert_array_equal(left.toarray(), expected)
    assert left.nnz == 3
    assert type(left) is form
    whole = form(np.eye(2))
    assert without_unknown(whole) is whole
    assert known_rows(whole).tolist() == known_per_row(whole).tolist() == [2, 2]
