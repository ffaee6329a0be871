"""Texts in several columns: joined, asked for, and given to a model."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from flash.core.errors import DataError
from flash.text import TextClassificationData
from flash.text.classification.backbones.linear import kernels
from flash.text.classification.reading.fields import (
    field_names,
    given_texts,
    joined_texts,
    match_fields,
)
from flash.text.classification.reading.source import Source

FIELDS = ["title", "body"]


def source(**columns: Any) -> Source:
    table = pa.table(columns)
    return Source(table, (("rows.csv", table.num_rows),))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "input_field= holds an empty list; name a column of texts such as 'text', or several"),
        (["title", 3], "input_field= holds 3; name a column of texts"),
        (["title", "title"], "input_field= names 'title' more than once; name each column once"),
    ],
)
def test_columns_that_cannot_be_meant(given: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        field_names(given)
    assert words in str(caught.value)


def test_a_null_is_an_empty_field_and_a_separator_in_a_cell_a_space() -> None:
    rows = source(title=["a", None, "x\x1fy"], body=pa.chunked_array([["b"], ["", None]]), none=pa.nulls(3))
    assert joined_texts(rows, FIELDS).to_pylist() == ["a\x1fb", "\x1f", "x y\x1f"]
    assert joined_texts(rows, ["body", "none", "title"]).to_pylist() == [
        "b\x1f\x1fa",
        "\x1f\x1f",
        "\x1f\x1fx y",
    ]


def test_rows_without_any_text_are_counted() -> None:
    with pytest.raises(DataError) as caught:
        joined_texts(source(title=["a", None, None], body=["b", None, "c"]), FIELDS)
    assert str(caught.value) == (
        "rows.csv: 1 row has no text in any of the columns 'title', 'body' (rows.csv, row 2); fill one of these cells or "
        "remove these rows (rows are counted from 1)"
    )
    with pytest.raises(DataError, match="column 'body' holds int64, not text"):
        joined_texts(source(title=["a"], body=[1]), FIELDS)


def test_texts_as_objects_lists_and_strings() -> None:
    given = [{"title": "a", "body": None, "id": 7}, ["a", "b"], ("c", "d"), "e\x1ff"]
    assert given_texts(given, "texts", FIELDS).to_pylist() == ["a\x1f", "a\x1fb", "c\x1fd", "e\x1ff"]
    assert given_texts(pa.array(["e\x1ff"], pa.large_string()), "texts", FIELDS).to_pylist() == ["e\x1ff"]
    assert given_texts([{"text": "a"}, "b"], "texts", ["text"]).to_pylist() == ["a", "b"]
    assert given_texts(["a"], "texts", None).to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["plain"], "texts[0] is one plain text, and this model reads 2 fields: 'title', 'body'; give an object such as "
         '{"title": "...", "body": "..."}, or a list of the 2 texts in this order'),
        (pa.array(["a\x1fb", "plain"], pa.large_string()), "texts[1] is one plain text, and this model reads 2 fields"),
        ([{"title": "a"}], "texts[0] has no field 'body' (it has 'title'); this model reads 'title', 'body'"),
        ([["a"]], "texts[0] is a list of 1, and this model reads 2 fields: 'title', 'body'"),
        ([["a", 3]], "texts[0]: the field 'body' is 3 (int), not a text"),
    ],
)  # fmt: skip
def test_what_is_no_text_of_these_fields(texts: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        given_texts(texts, "texts", FIELDS)
    assert words in str(caught.value)


def test_columns_of_other_names_stand_for_the_fields_in_order() -> None:
    assert match_fields(["headline", "content"], FIELDS, "in.csv") == ["headline", "content"]
    assert match_fields(["body", "title"], FIELDS, "in.csv") == FIELDS
    assert match_fields(["post"], None, "in.csv") == ["post"]
    with pytest.raises(
        DataError, match=r"trained on one column of texts, and 2 are named \('a', 'b'\); name as many"
    ):
        match_fields(["a", "b"], None, "in.csv")


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "frame", "lists"])
def test_every_source_joins_the_columns(tmp_path: Path, kind: str) -> None:
    rows = [("a", "b", "x"), ("c", "d", "y")]
    if kind == "csv":
        (tmp_path / "t.csv").write_text("title,body,labels\na,b,x\nc,d,y\n")
        data = TextClassificationData.from_csv(FIELDS, "labels", str(tmp_path / "t.csv"))
    elif kind == "json":
        lines = [
            f'{{"title": "{a}", "body": "{b}", "labels": {str(c.split(",")).replace(chr(39), chr(34))}}}'
            for a, b, c in rows
        ]
        (tmp_path / "t.json").write_text("\n".join(lines))
        data = TextClassificationData.from_json(FIELDS, "labels", str(tmp_path / "t.json"))
    elif kind == "parquet":
        table = pa.table({"title": ["a", "c"], "body": ["b", "d"], "labels": [["x"], ["y"]]})
        pa.parquet.write_table(table, tmp_path / "t.parquet")
        data = TextClassificationData.from_parquet(FIELDS, "labels", str(tmp_path / "t.parquet"))
    elif kind == "frame":
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"title": ["a", "c"], "body": ["b", "d"], "labels": [["x"], ["y"]]})
        data = TextClassificationData.from_data_frame(FIELDS, "labels", frame)
    else:
        data = TextClassificationData.from_lists(
            [{"title": "a", "body": "b"}, ["c", "d"]], [["x"], ["y"]], input_field=FIELDS
        )
    assert data.input_field == FIELDS
    assert data.train_dataset is not None
    assert data.train_dataset.texts.to_pylist() == ["a\x1fb", "c\x1fd"]


def test_a_target_among_the_columns_of_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'body' is both input_field and one of target_fields"):
        TextClassificationData.from_csv(FIELDS, "body", str(tmp_path / "t.csv"))


def test_the_separator_is_white_space_to_the_linear_backbone() -> None:
    classes = kernels.character_classes()
    grams = [
        kernels.count_texts(
            np.frombuffer(text, np.uint8), np.array([0, len(text)]), classes, (2, 2, 5), 2**12
        )
        for text in (b"a title\x1fa body", b"a title a body")
    ]
    assert all((ours == theirs).all() for ours, theirs in zip(*grams, strict=True))
