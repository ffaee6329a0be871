"""Texts in several rows: contrary labels, and rows on both sides."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

from flash.text.classification.data import TextClassificationData
from flash.text.classification.targets.repeated_texts import contrary_rows


def rows_of(texts: list[str], targets: list[list[float]]) -> list[int]:
    rows: list[int] = contrary_rows(
        pa.array(texts, pa.large_string()), csr_array(np.array(targets, np.float32))
    ).tolist()
    return rows


def test_rows_that_contradict_each_other() -> None:
    assert rows_of(["a", "b", "a", "c", "b", "a"], [[1, 0], [1, 0], [0, 1], [0, 0], [1, 0], [1, 0]]) == [
        0,
        2,
        5,
    ]
    assert rows_of(["", ""], [[1, 0], [0, 1]]) == []
    assert rows_of(["a", "a"], [[0.9, 0], [0.6, 0.4]]) == []  # soft targets that say the same
    assert rows_of(["a", "a", "a"], [[1, np.nan], [0, 1], [0, 1]]) == []  # not known


def test_contradictory_rows_warn_once() -> None:
    with pytest.warns(UserWarning, match="rows") as caught:
        TextClassificationData.from_lists(["a", "b", "a", "b", "c"], [["x"], ["x"], ["y"], [], ["y"]])
    assert [str(warning.message) for warning in caught] == [
        "train_data: 2 texts stand in several rows with different labels (train_data, rows 1, 2 and 3, and 1 more), "
        "which contradict each other; give each one label set, or remove the wrong rows (rows are counted from 1)"
    ]


def test_texts_on_both_sides_warn_by_split() -> None:
    with pytest.warns(UserWarning, match="rows") as caught:
        TextClassificationData.from_lists(
            *(["a", "b"], [["x"], []]),
            val_data=["c", "a"],
            val_targets=[[], ["x"]],
            test_data=["a", "b"],
            test_targets=[["x"], []],
        )
    assert [str(warning.message) for warning in caught] == [
        "val_data: 1 of the 2 validation texts is in the training rows of train_data, too (val_data, row 2); the model "
        "has seen it, so that the scores are too good: leave these rows out of one of both (rows are counted from 1)",
        "test_data: 2 of the 2 test texts are in the training rows of train_data, too (test_data, rows 1 and 2); the "
        "model has seen them, so that the scores are too good: leave these rows out of one of both (rows are counted "
        "from 1)",
    ]
