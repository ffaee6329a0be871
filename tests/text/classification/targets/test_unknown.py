"""Targets that say that nothing is known: which they are, what becomes of them, and the sentences about them."""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flash.core.errors import DataError, FlashError
from flash.text.classification.reading.odd_rows import kept_rows
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.encoding import KnownTargets, encode_known
from flash.text.classification.targets.formats import infer_format
from flash.text.classification.targets.unknown import UnknownTargets, UnknownValues

NAN = np.nan
AS_WRITTEN = [
    "-1",
    "",
    " ",
    "NA",
    "n/a",
    "N/A",
    "nan",
    "NaN",
    "null",
    "None",
    "<NA>",
    "?",
    "#N/A",
    "-1.0",
    None,
]


def source(kind: str = "csv", **columns: Any) -> Source:
    table = pa.table(
        {name: value if isinstance(value, pa.Array) else pa.array(value) for name, value in columns.items()}
    )
    return Source(table, (("train.csv", table.num_rows),), kind=kind)


def encode(
    data: Source, fields: Any, action: str = "mask", values: UnknownValues = None, **options: Any
) -> tuple[KnownTargets, str]:
    """The targets, and what was said of rows that are left out."""
    unknown = UnknownTargets.from_options(action, values)
    target_format = infer_format(data, fields, unknown=unknown, **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        known = encode_known(target_format, data, fields, unknown=unknown)
    return known, "; ".join(str(warning.message) for warning in said)


def dense(known: KnownTargets) -> list[list[float]]:
    shown: list[list[float]] = known.targets.toarray().tolist()
    return shown


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        encode(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("value", AS_WRITTEN)
def test_the_usual_spellings_in_columns_of_text(value: str | None) -> None:
    data = source(a=pa.array(["1", value, "0"], pa.string()), b=["0", "1", "true"])
    known, said = encode(data, ["a", "b"])
    np.testing.assert_array_equal(known.targets.toarray(), [[1, 0], [NAN, 1], [0, 1]])
    assert (known.rows, said) == (None, "")
    assert dense(encode(data, ["a", "b"], "negative")[0]) == [[1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, -1, 0, None]),
        pa.array([1.0, NAN, 0.0, None]),
        pa.array([1.0, -1.0, 0.0, NAN], from_pandas=True),
        pa.array([True, None, False, None]),
        pa.array([1, -1, 0, -1], pa.int8()),
        pa.array(["1", "-1", "0", "?"]).dictionary_encode(),
    ],
)
def test_numbers_nulls_and_categories(column: pa.Array) -> None:
    known, _ = encode(source(a=column, b=[0, 1, 0, 1]), ["a", "b"])
    np.testing.assert_array_equal(known.targets.toarray(), [[1, 0], [NAN, 1], [0, 0], [NAN, 1]])


def test_unknown_cells_are_stored() -> None:
    known, _ = encode(source(a=[1, -1, 0], b=[0, 0, -1]), ["a", "b"])
    assert known.targets.format == "csr"
    assert known.targets.dtype == np.float32
    assert known.targets.nnz == 3


def test_by_default_they_are_an_error_that_offers_both() -> None:
    data = source(a=["1", "-1", "", "-1"], b=["NA", "0", "1", "1"], c=["0", "0", "?", "-1"])
    assert refused(data, ["a", "b", "c"], "error") == (
        "train.csv: 6 targets say neither 0 nor 1: '-1' in 3 cells (the first train.csv, row 2, column 'a'), 'NA' in 1 "
        "cell (the first row 1, column 'b'), '?' in 1 cell (the first row 3, column 'c') and 1 more value; such values "
        "often mean \"not known\": pass unknown_targets='mask' if it is not known there whether the label applies, or "
        "unknown_targets='negative' if it does not (rows are counted from 1, the header not)"
    )
    one = refused(source("json", a=[1, -1], b=[0, 1]), ["a", "b"], "error")
    assert one.startswith(
        "train.csv: 1 target says neither 0 nor 1: -1 in 1 cell (the first train.csv, row 2, column 'a');"
    )


def test_other_values_stay_mistakes() -> None:
    data = source(a=["1", "-2", "-1"], b=["0", "1", "1"])
    assert refused(data, ["a", "b"]) == (
        "train.csv: 1 target is not 0, 1, true, false, yes, no or a number between 0 and 1 (train.csv, row 2, column 'a': '-2'); "
        "write 0 or 1, or name it in unknown_values= if it says that nothing is known (rows are counted from 1, the "
        "header not)"
    )


@pytest.mark.parametrize("values", [[-1, 9], ["-1", "9"], ["9.0", -1.0]])
def test_the_values_that_count_can_be_named(values: UnknownValues) -> None:
    data = source(a=["1", "9", "-1", "0"], b=["0", "1", "1", "1"])
    known, _ = encode(data, ["a", "b"], "mask", values)
    np.testing.assert_array_equal(known.targets.toarray()[:, 0], [1, NAN, NAN, 0])
    assert "row 4, column 'a': ''" in refused(
        source(a=["1", "9", "-1", ""], b=["0", "1", "1", "1"]), ["a", "b"], "mask", values
    )


def test_a_value_that_is_a_target_can_be_named() -> None:
    known, _ = encode(source(a=[1, 0.5, 0], b=[0, 1, 1]), ["a", "b"], "mask", 0.5)
    np.testing.assert_array_equal(known.targets.toarray(), [[1, 0], [NAN, 1], [0, 1]])
    known, _ = encode(source(a=["1", "unsure", ""], b=["0", "1", "1"]), ["a", "b"], "mask", ["Unsure", None])
    np.testing.assert_array_equal(known.targets.toarray()[:, 0], [1, NAN, NAN])


def test_rows_of_which_nothing_is_known_are_left_out_and_counted() -> None:
    data = source(a=["1", "-1", "-1", "0", ""], b=["0", "-1", "1", "", ""])
    known, said = encode(data, ["a", "b"])
    assert known.rows is not None
    assert known.rows.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(known.targets.toarray(), [[1, 0], [NAN, 1], [0, NAN]])
    assert said == (
        "train.csv: 2 of 5 rows have no target that is known, and are left out (train.csv, rows 2 and 5; rows are counted "
        "from 1, the header not)"
    )
    assert encode(source(a=[1, -1], b=[0, -1]), ["a", "b"])[1].startswith(
        "train.csv: 1 of 2 rows has no target that is known, and is left out (train.csv, row 2; "
    )
    assert refused(source(a=[-1, -1], b=[-1, -1]), ["a", "b"]) == (
        "train.csv: no row has a target that is known (there are 2 rows); leave the file out, or name other target_fields="
    )


def test_one_column_that_says_whether_its_label_applies() -> None:
    for values in (["1", "-1", "0"], ["1", "NA", "0"], [1, -1, 0], [1.0, NAN, 0.5]):
        data = source(a=pa.array(values, from_pandas=True))
        for fields in ("a", ["a"]):
            known, _ = encode(data, fields, multi_label=True)
            assert known.rows is not None
            assert known.rows.tolist() == [0, 2]
            assert len(encode(data, fields, "negative", multi_label=True)[0].targets.toarray()) == 3
            assert "says neither 0 nor 1" in refused(data, fields, "error", multi_label=True)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, -1, 0], [-1, -1, -1], None, [0, 1, 1]]),
        pa.array([[1.0, NAN, 0.0], [None, NAN, -1.0], None, [0.0, 1.0, 1.0]]),
        pa.array([[1, -1, 0], [-1, -1, -1], [-1, None, -1], [0, 1, 1]], pa.list_(pa.int64(), 3)),
        pa.array([[1, -1, 0], [-1, -1, -1], None, [0, 1, 1]], pa.list_(pa.int64(), 3)),
    ],
)
def test_vectors(column: pa.Array) -> None:
    known, said = encode(source(y=column), "y")
    np.testing.assert_array_equal(known.targets.toarray(), [[1, NAN, 0], [0, 1, 1]])
    assert said.startswith("train.csv: 2 of 4 rows have no target that is known")
    negative, _ = encode(source(y=column), "y", "negative")
    assert dense(negative) == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1]]


def test_vectors_by_default_are_an_error_that_offers_both() -> None:
    for values in ([[1, 0, -1], [0, 1, 0]], [[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]):
        assert refused(source("json", y=values), "y", "error", labels=["a", "b", "c"]) == (
            "train.csv: 1 target says neither 0 nor 1: -1 in 1 cell (the first train.csv, row 1, column 'y'); such values "
            "often mean \"not known\": pass unknown_targets='mask' if it is not known there whether the label applies, "
            "or unknown_targets='negative' if it does not (rows are counted from 1)"
        )


def test_an_empty_cell_of_a_column_of_label_lists_is_an_empty_label_set() -> None:
    text = source(y=["a,b", "", "b", "NA"])
    known, said = encode(text, "y")
    assert dense(known) == [[1, 1], [0, 0], [0, 1]]
    assert said.startswith(
        "train.csv: 1 of 4 rows has no target that is known, and is left out (train.csv, row 4;"
    )
    assert dense(encode(text, "y", "negative")[0]) == [[1, 1], [0, 0], [0, 1], [0, 0]]
    lists = source("json", y=pa.array([["a", "b"], [], None, ["b"]]))
    known, said = encode(lists, "y")
    assert dense(known) == [[1, 1], [0, 0], [0, 1]]
    assert "train.csv, row 3" in said
    assert dense(encode(lists, "y", "negative")[0]) == [[1, 1], [0, 0], [0, 0], [0, 1]]
    assert refused(lists, "y", "error").endswith(
        "write an empty list or an empty text for a row without labels, remove these rows, or pass "
        "unknown_targets='mask' to leave them out (rows are counted from 1)"
    )


@pytest.mark.parametrize("values", [["x", "", "y", "?"], ["x", None, "y", "NA"]])
def test_rows_without_their_single_label_are_left_out(values: list[str | None]) -> None:
    data = source(y=values)
    known, said = encode(data, "y")
    assert dense(known) == [[1, 0], [0, 1]]
    assert said.startswith(
        "train.csv: 2 of 4 rows have no target that is known, and are left out (train.csv, rows 2 and 4"
    )
    assert "or unknown_targets='mask' to leave these rows out" in refused(
        source(y=["x", "", "y"]), "y", "error", multi_label=False
    )
    assert refused(data, "y", "negative", multi_label=False) == (
        "unknown_targets='negative' says that a label does not apply, and in single-label targets each row has exactly one "
        "that does; pass unknown_targets='mask' to leave the rows out whose label is not known"
    )


def test_class_indices_of_rows_without_a_label() -> None:
    names = {"y": ("neg", "pos")}
    table = pa.table({"y": [1, -1, 0, -1]})
    data = Source(table, (("test_hf_dataset", 4),), class_names=names)
    known, _ = encode(data, "y")
    assert dense(known) == [[0, 1], [1, 0]]
    message = refused(data, "y", "error")
    assert "is no class index from 0 to 1: -1 (2 rows" in message
    assert "pass unknown_targets='mask' to leave the rows out whose label is not known" in message
    floats = source(y=pa.array([1.0, NAN, 0.0, None], from_pandas=True))
    assert dense(encode(floats, "y", labels=["a", "b"])[0]) == [[0, 1], [1, 0]]


def test_one_hot_columns_of_rows_without_a_label() -> None:
    data = source(a=[1, -1, 0, -1], b=[-1, -1, 1, 0])
    known, _ = encode(data, ["a", "b"], multi_label=False)
    assert dense(known) == [[1, 0], [0, 1]]
    assert known.rows is not None
    assert known.rows.tolist() == [0, 2]


def test_rows_keep_their_numbers() -> None:
    table = pa.table({"y": list("abcdef")})
    data = Source(table, (("one", 2), ("two", 4)), kind="csv")
    kept = kept_rows(data, np.array([False, True, False, True, True, False]))
    assert [kept.where(row) for row in range(3)] == ["one, row 2", "two, row 2", "two, row 3"]
    assert kept.parts == (("one", 1), ("two", 2))
    again = kept_rows(kept, np.array([True, False, True]))
    assert [again.where(row) for row in range(2)] == ["one, row 2", "two, row 3"]


def test_messages_about_other_rows_name_them_as_the_file_has_them() -> None:
    data = source(y=["a", "NA", "a;b", "b"])
    assert "in 1 row" in refused(data, "y")  # another delimiter
    train = infer_format(source(y=["a", "b"]), "y")
    unknown = UnknownTargets.from_options("mask")
    with pytest.raises(DataError, match="the first train.csv, row 3"):
        encode_known(train, source(y=["a", "NA", "z"]), "y", unknown=unknown)


def test_options_that_cannot_be() -> None:
    with pytest.raises(FlashError, match="unknown unknown_targets 'maks'.*did you mean 'mask'"):
        UnknownTargets.from_options("maks")
    with pytest.raises(FlashError) as caught:
        UnknownTargets.from_options("error", [-1])
    assert str(caught.value) == (
        "unknown_values=[-1] says which targets are not known, and not what to make of them; pass unknown_targets='mask' "
        "to leave them out, or unknown_targets='negative' to take them as 0"
    )
