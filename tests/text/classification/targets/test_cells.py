"""Target cells as people write them, on the way from a source to a datamodule."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flash.core.errors import DataError
from flash.text import TextClassificationData

TEXTS = ["a", "b", "c", "d"]


def targets(tmp_path: Path, columns: dict[str, list[str]], **options: Any) -> Any:
    rows = ["\t".join(["text", *columns])]
    rows += ["\t".join(row) for row in zip(TEXTS, *columns.values(), strict=True)]
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    data = TextClassificationData.from_csv(
        "text", list(columns), train_file=str(tmp_path / "t.tsv"), **options
    )
    assert data.labels == list(columns)
    assert data.train_dataset is not None
    assert data.train_dataset.targets is not None
    return data.train_dataset.targets.toarray()


def test_a_mark_beside_blanks_is_1_where_blanks_are_negative(tmp_path: Path) -> None:
    columns = {"spam": ["x", "", "X", ""], "rude": ["", "x", " x ", ""]}
    found = targets(tmp_path, columns, unknown_targets="negative")
    assert found.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    one = targets(tmp_path, {"spam": columns["spam"]}, multi_label=True, unknown_targets="negative")
    assert one.tolist() == [[1], [0], [1], [0]]


@pytest.mark.parametrize("unknown_targets", ["error", "mask"])
def test_a_mark_beside_blanks_needs_negative(tmp_path: Path, unknown_targets: str) -> None:
    columns = {"spam": ["x", "", "x", ""], "rude": ["", "x", "x", ""]}
    with pytest.raises(
        DataError, match="nothing but a mark .*'x'. and blanks: pass unknown_targets='negative'"
    ):
        targets(tmp_path, columns, unknown_targets=unknown_targets)


def test_yes_and_no_beside_what_is_not_known(tmp_path: Path) -> None:
    columns = {"spam": ["yes", "No", "n/a", "YES"], "rude": ["no", "-1", "yes", ""]}
    found = targets(tmp_path, columns, unknown_targets="mask")
    np.testing.assert_array_equal(found, [[1, 0], [0, np.nan], [np.nan, 1], [1, np.nan]])
    found = targets(tmp_path, columns, unknown_targets="negative")
    assert found.tolist() == [[1, 0], [0, 0], [0, 1], [1, 0]]
    with pytest.raises(DataError, match="3 targets say neither 0 nor 1: "):
        targets(tmp_path, columns)


def test_words_that_are_neither_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="1 target is not 0, 1, true, false, yes, no or a number between 0 and 1 .*'maybe'"
    ):
        targets(tmp_path, {"spam": ["yes", "no", "maybe", "no"], "rude": ["no", "no", "yes", "no"]})
