"""Names of labels in several columns."""

from typing import Any

import pyarrow as pa
import pytest

from flash.core.errors import DataError
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.encoding import encode_targets
from flash.text.classification.targets.formats import infer_format
from flash.text.classification.targets.name_columns import join_name_columns


def source(columns: dict[str, Any], name: str = "train.csv") -> Source:
    table = pa.table(columns)
    return Source(table, ((name, table.num_rows),))


def test_numbered_columns_of_names_are_one_list_a_row() -> None:
    train = source({"label1": ["", "b", "a"], "label2": ["", "a ", "a"], "label3": ["c", None, ""]})
    test = source({"label1": ["c"], "label2": ["b"], "label3": pa.nulls(1)}, "test.csv")
    words = r"^train.csv: the names in the columns 'label1'; 'label2'; 'label3' are read as one list per row, as in "
    with pytest.warns(UserWarning, match=words + "train.csv, row 2: 'b'$"):
        sources, fields = join_name_columns({"train": train, "test": test}, ["label1", "label2", "label3"])
    assert fields == ["label1 + label2 + label3"]
    target_format = infer_format(sources["train"], fields[0])
    assert target_format.label_set.names == ("a", "b", "c")
    assert encode_targets(target_format, sources["train"], fields).toarray().tolist() == [
        [0, 0, 1],
        [1, 1, 0],
        [1, 0, 0],
    ]
    assert encode_targets(target_format, sources["test"], fields).toarray().tolist() == [[0, 1, 1]]


def test_columns_of_names_that_are_not_numbered() -> None:
    given = {"train": source({"topic": ["", "sport"], "mood": ["glad", ""]})}
    with pytest.raises(DataError) as caught:
        join_name_columns(given, ["topic", "mood"])
    assert str(caught.value) == (
        "train.csv: the target columns hold names (train.csv, row 2, column 'topic': 'sport') where 0 or 1 is expected; "
        "if they are names of labels, join them into one column, in pandas: frame['labels'] = frame[['topic', "
        "'mood']].fillna('').agg(','.join, axis=1), and pass target_fields='labels' (rows are counted from 1)"
    )


@pytest.mark.parametrize(
    "columns",
    [
        {"y1": ["0", "1"], "y2": ["1", ""]},
        {"y1": ["yes", "no"], "y2": ["no", "no"]},
        {"y1": ["x", ""], "y2": ["", "X"]},
        {"y1": ["x", ""], "y2": ["", "✓"]},
        {"y1": ["a", "b"], "y2": [0, 1]},
        {"y1": ["a", "-1"], "y2": ["", "b"]},
        {"y1": ["", ""], "y2": ["", ""]},
    ],
)
def test_numbers_words_and_marks_are_no_names(columns: dict[str, Any]) -> None:
    given = {"train": source(columns)}
    assert join_name_columns(given, ["y1", "y2"]) == (given, ["y1", "y2"])


@pytest.mark.filterwarnings("ignore:.*are read as one list per row")
def test_another_type_in_another_split() -> None:
    given = {
        "train": source({"y1": ["aa", ""], "y2": ["", "bb"]}),
        "val": source({"y1": ["aa"], "y2": [1]}, "val.csv"),
    }
    with pytest.raises(DataError, match="val.csv: column 'y2' holds int64, but the training rows hold names"):
        join_name_columns(given, ["y1", "y2"])
