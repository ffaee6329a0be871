"""Columns that say yes and no, or have a mark, where others have 1 and 0."""

from typing import Any

import pyarrow as pa
import pytest

from flash.core.errors import DataError
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.yes_no import read_yes_no


def source(columns: dict[str, Any], name: str = "train.csv") -> Source:
    table = pa.table(columns)
    return Source(table, ((name, table.num_rows),))


def read(given: dict[str, Any], **options: Any) -> dict[str, Any]:
    defaults = {"columns": True, "multi_label": None, "labels": None, "blank_is_negative": False}
    read = read_yes_no({"train": source(given)}, list(given), **{**defaults, **options})
    found: dict[str, Any] = read["train"].table.to_pydict()
    return found


@pytest.mark.parametrize(
    ("yes", "no"), [("yes", "no"), ("Y", "N"), ("t", "f"), ("T", "F"), ("ON", "Off"), (" Yes ", "NO")]
)
def test_words_are_numbers(yes: str, no: str) -> None:
    assert read({"a": [yes, no, None], "b": [no, "1", ""]}) == {"a": ["1", "0", None], "b": ["0", "1", ""]}
    assert read({"a": [yes, no]}, columns=False, multi_label=True) == {"a": ["1", "0"]}
    assert read({"a": [yes, no]}, columns=False, multi_label=True, labels=["a"]) == {"a": ["1", "0"]}


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        (["yes", "no"], {}),
        (["yes", "no"], {"multi_label": True, "labels": ["no", "yes"]}),
        (["y", "f"], {"multi_label": True}),
        (["yes", "no", "maybe"], {"multi_label": True}),
        (["x", ""], {"labels": ["x"]}),
        (["bug", ""], {"multi_label": True}),
        (["x", "y"], {"multi_label": True}),
        ([1, 0], {}),
    ],
)
def test_one_column_may_hold_names(cells: list[Any], options: dict[str, Any]) -> None:
    assert read({"a": cells}, columns=False, **options) == {"a": cells}


@pytest.mark.parametrize("marks", [("x", "X"), ("✓", "✓"), ("checked", "Checked"), ("x", "*")])
def test_marks_and_blanks(marks: tuple[str, str]) -> None:
    columns = {"spam": ["", marks[0], None], "rude": [marks[1], "", ""]}
    with pytest.raises(DataError) as caught:
        read(columns)
    assert str(caught.value) == (
        f"train.csv: the target columns 'spam'; 'rude' hold nothing but a mark (train.csv, row 2, column 'spam': "
        f"{marks[0]!r}) and blanks: pass unknown_targets='negative' if a blank says that the label does not apply, or "
        "write 1 and 0 (rows are counted from 1)"
    )
    assert read(columns, blank_is_negative=True) == {"spam": ["", "1", None], "rude": ["1", "", ""]}


def test_a_mark_in_one_column() -> None:
    with pytest.raises(
        DataError, match="column 'urgent' holds .*: pass multi_label=True and unknown_targets='negative'"
    ):
        read({"urgent": ["x", ""]}, columns=False)
    with pytest.raises(DataError, match=r"blanks: pass unknown_targets='negative' if a blank"):
        read({"urgent": ["x", ""]}, columns=False, multi_label=True)
    options = {"columns": False, "multi_label": True, "blank_is_negative": True}
    assert read({"urgent": ["x", ""]}, **options) == {"urgent": ["1", ""]}


def test_other_cells_stay_for_their_own_sentence() -> None:
    columns = {"a": ["maybe", "yes", "-1"], "b": [0, 1, 0]}
    assert read(columns) == {"a": ["maybe", "1", "-1"], "b": [0, 1, 0]}
