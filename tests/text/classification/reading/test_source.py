from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.reading.source import Source, check_columns, text_array, text_column

# Everything a file can hold but surrogates, which no encoding has.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(read: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*arguments, **keywords)
    return str(caught.value)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


# ---- rows and their places


def test_where_counts_rows_from_one_in_each_file(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\nx\ny\n")
    write(tmp_path / "b.csv", "text\nz\n")
    source = read_csv(str(tmp_path / "*.csv"))
    assert [source.where(row) for row in range(3)] == [
        f"{tmp_path}/a.csv, row 1",
        f"{tmp_path}/a.csv, row 2",
        f"{tmp_path}/b.csv, row 1",
    ]
    assert source.name == f"{tmp_path}/a.csv and 1 more"


def test_places_counts_what_it_does_not_name() -> None:
    source = Source(pa.table({"text": ["a"] * 9}), (("train.csv", 9),))
    assert source.places([1]) == "train.csv, row 2"
    assert source.places([1, 3]) == "train.csv, rows 2 and 4"
    assert source.places(range(5)) == "train.csv, rows 1, 2 and 3, and 2 more"
    two = Source(source.table, (("a.csv", 2), ("b.csv", 7)), kind="csv")
    assert two.places([1, 2, 4, 5, 6]) == "a.csv, row 2; b.csv, rows 1 and 3; and 2 more"
    assert (source.counting, two.counting) == (
        "rows are counted from 1",
        "rows are counted from 1, the header not",
    )


# ---- texts


def test_texts_are_large_strings_whatever_the_column(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        source = Source(pa.table({"text": pa.array(["a", " ", ""]).cast(kind)}), (("a", 3),))
        column = text_column(source, "text")
        assert column.type == pa.large_string()
        assert column.to_pylist() == ["a", " ", ""]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (
            pa.array(["a", None, "b", None, None, None]),
            "f.json: 4 rows have no text in column 'text' (f.json, rows 2, 4 and 5, and 1 more); fill these "
            "cells or remove these rows (rows are counted from 1)",
        ),
        (
            pa.nulls(1),
            "f.json: 1 row has no text in column 'text' (f.json, row 1); fill these cells or remove these "
            "rows (rows are counted from 1)",
        ),
        (
            pa.array([7, 8]),
            "f.json: column 'text' holds int64, not text (f.json, row 1: 7); name the column of texts, or "
            "turn its values into text (rows are counted from 1)",
        ),
        (
            pa.array([b"x"]),
            "f.json: column 'text' holds binary, not text (f.json, row 1: b'x'); name the column of texts, "
            "or turn its values into text (rows are counted from 1)",
        ),
    ],
)
def test_columns_that_are_no_text(column: pa.Array, words: str) -> None:
    source = Source(pa.table({"text": column}), (("f.json", len(column)),))
    assert refused(text_column, source, "text") == words


def test_text_array_of_nothing_and_of_a_null() -> None:
    assert len(text_array([], "texts")) == 0
    assert "texts: 1 row has no text in column 'text' (texts, row 2)" in refused(
        text_array, ["a", None], "texts"
    )
    assert "texts is a str, not a list of texts" in refused(text_array, "a", "texts")


def test_genuine_comments(shared_data: Path) -> None:
    source = read_csv(shared_data / "jigsaw_toxic_comments" / "train.csv", columns=["comment_text", "toxic"])
    assert source.table.num_rows == 16_000
    assert text_column(source, "comment_text")[0].as_py().startswith("Explanation\nWhy the edits")


def test_columns_by_the_hundred_thousand_are_checked() -> None:
    names = [f"column {number}" for number in range(100_000)]
    assert check_columns(names, reversed(names), "a.csv") == names[::-1]
    twice = [*names, *names]
    with pytest.raises(DataError) as found:
        check_columns(twice, None, "a.csv")
    assert str(found.value) == (
        "a.csv: the same column name is there more than once: 'column 0' (2 times); 'column 1' (2 times); 'column 2' "
        "(2 times); and 99,997 more; rename all but one"
    )
    with pytest.raises(DataError, match="a.csv: unknown column 'none'"):
        check_columns(names, ["none"], "a.csv")
