import re
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.preprocessing import MultiLabelBinarizer

from flash.core.errors import DataError
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.encoding import encode_targets
from flash.text.classification.targets.formats import TargetFormat, infer_format

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).map(str.strip).filter(bool)
LABEL_ROWS = st.lists(st.lists(NAMES, max_size=4, unique=True), min_size=1, max_size=10).filter(any)


def source(values: Any, name: str = "train.csv", **columns: Any) -> Source:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    table = pa.table({"y": column, **columns})
    return Source(table, ((name, table.num_rows),))


def decode(target_format: TargetFormat, targets: csr_array) -> list[list[str]]:
    names = target_format.label_set.names
    return [
        [names[j] for j in targets.indices[a:b]]
        for a, b in zip(targets.indptr, targets.indptr[1:], strict=False)
    ]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ---- round trips, with scikit-learn as the oracle


@pytest.mark.filterwarnings("ignore:.*in column 'y' labels")  # random names may look like mistakes
@settings(deadline=None)
@given(rows=LABEL_ROWS)
def test_lists_round_trip(rows: list[list[str]]) -> None:
    data = source(pa.array(rows, pa.list_(pa.string())))
    target_format = infer_format(data, "y")
    targets = encode_targets(target_format, data, "y")
    assert [sorted(row) for row in decode(target_format, targets)] == [sorted(row) for row in rows]
    binarizer = MultiLabelBinarizer(classes=list(target_format.label_set.names))
    np.testing.assert_array_equal(targets.toarray(), binarizer.fit_transform(rows))


@pytest.mark.filterwarnings("ignore:.*in column 'y' labels")
@settings(deadline=None)
@given(rows=LABEL_ROWS, delimiter=st.sampled_from([",", ";", "|", "::", "\t", " "]), spaces=st.booleans())
def test_delimited_round_trip(rows: list[list[str]], delimiter: str, spaces: bool) -> None:
    glue = f" {delimiter} " if spaces else delimiter
    data = source(pa.array([glue.join(map(quoted, row)) for row in rows]))
    target_format = infer_format(data, "y", label_delimiter=delimiter)
    decoded = decode(target_format, encode_targets(target_format, data, "y"))
    assert [sorted(row) for row in decoded] == [sorted(row) for row in rows]


@settings(deadline=None)
@given(
    matrix=st.lists(
        st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=3, max_size=3), min_size=1, max_size=8
    )
)
def test_vectors_and_columns_round_trip(matrix: list[list[float]]) -> None:
    columns = {name: [str(row[j]) for row in matrix] for j, name in enumerate("abc")}
    data, fields = source(matrix, "train.csv", **columns), list("abc")
    for target_fields in ("y", fields):
        targets = encode_targets(infer_format(data, target_fields), data, target_fields)
        assert targets.dtype == np.float32
        assert targets.toarray().tolist() == matrix


# ---- mistakes, by their words


def test_bad_cells_of_several_columns_come_in_the_order_of_rows() -> None:
    data = source(["1", "x"], b=pa.array(["!", ""]))
    with pytest.raises(DataError) as caught:
        encode_targets(infer_format(data, ["y", "b"]), data, ["y", "b"])
    assert str(caught.value) == (
        "train.csv: 2 targets are not 0, 1, true, false, yes, no or a number between 0 and 1 (train.csv, row 1, "
        "column 'b': '!'; row 2, column 'y': 'x'); write 0 or 1, or pass unknown_targets='mask' and unknown_values=['!'] "
        "if it says that nothing is known; 1 target says neither 0 nor 1: a blank in 1 cell (the "
        "first train.csv, row 2, column 'b'); such values often mean \"not known\": pass unknown_targets='mask' if it "
        "is not known there whether the label applies, or unknown_targets='negative' if it does not (rows are counted "
        "from 1)"
    )


# ---- val and test follow train


def test_unknown_labels_are_counted_and_named() -> None:
    target_format = infer_format(source(["a,b"]), "y")
    val = source(["a,new", "new", "b,other", "", "third,fourth"], "val.csv")
    with pytest.raises(DataError) as caught:
        encode_targets(target_format, val, "y")
    assert str(caught.value) == (
        "val.csv: 4 values in column 'y' are none of the 2 labels (a, b): 'new' (2 rows, the first val.csv, "
        "row 1); 'fourth' (1 row, the first row 5); 'other' (1 row, the first row 3); and 1 more; add them "
        "to labels=[...], or pass unknown_labels='ignore' to leave them out (rows are counted from 1)"
    )
    with pytest.warns(
        UserWarning, match="are none of the 2 labels .a, b.: 'new' .2 rows, .*left out of these rows"
    ):
        targets = encode_targets(target_format, val, "y", unknown_labels="ignore")
    assert targets.toarray().tolist() == [[1, 0], [0, 0], [0, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("cafe\u0301", r"'cafe\u0301'"),
        ("caf\u00e9\u200b", r"'caf\xe9\u200b'"),
        ("Caf\u00e9", r"'Caf\xe9'"),
    ],
)
@pytest.mark.parametrize("lists", [False, True])
def test_a_known_label_in_another_form_is_named_as_it_is_written(
    written: str, shown: str, lists: bool
) -> None:
    train, val = ["caf\u00e9", "bar"], ["bar", written]
    if lists:
        train, val = [[name] for name in train], [[name] for name in val]  # type: ignore[misc]
    target_format = infer_format(source(train), "y", multi_label=True)
    sentence = f"; {shown} is the label 'caf\\xe9' but for case, spaces or characters that look the same: write it as the label"
    with pytest.raises(DataError, match=re.escape(f"{sentence}; add them to labels=[...]")):
        encode_targets(target_format, source(val, "val.csv"), "y")
    with pytest.warns(UserWarning, match=re.escape(f"{sentence}; left out of these rows")):
        encode_targets(target_format, source(val, "val.csv"), "y", unknown_labels="ignore")


def test_of_many_known_labels_ten_are_named() -> None:
    target_format = infer_format(source([[f"n{i}" for i in range(12)]]), "y")
    words = r"are none of the 12 labels \(n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, and 2 more\): 'a'"
    with pytest.raises(DataError, match=words):
        encode_targets(target_format, source([["a"], ["b"]]), "y")
    with pytest.raises(DataError, match=r"is none of the 1 label \(a\): 'b'"):
        encode_targets(infer_format(source([["a"]]), "y"), source([["b"]]), "y")


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_unknown_names_hint_at_delimiters(delimiter: str) -> None:
    words = re.escape(f"pass label_delimiter='{delimiter}' if it separates labels")
    with pytest.raises(DataError, match=words):
        encode_targets(infer_format(source(["a", "b"]), "y"), source([f"a{delimiter}b"], "val.csv"), "y")
    if delimiter != ",":
        delimited = infer_format(source(["a,b"]), "y")
        with pytest.raises(DataError, match=words):
            encode_targets(delimited, source([f"a{delimiter}b"], "val.csv"), "y")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            [[0.0, 1.0], [0.3, 0.0], [0.5, 0.5]],
            "train.csv: 2 rows have a fraction in column 'y' (train.csv, rows 2 and 3; the first is 0.3), but "
            "a single-label row has one 1 and else 0; pass multi_label=True if soft targets are meant (rows "
            "are counted from 1)",
        ),
        ([[0.0, 1.0], [0.0, 0.0]], "1 row has no label in column 'y' (train.csv, row 2), but a single-label"),
        ([[0.0, 1.0], [1.0, 1.0]], "1 row has several labels in column 'y' (train.csv, row 2), but a single"),
    ],
)
def test_a_single_label_vector_has_one_1(values: list[list[float]], words: str) -> None:
    data = source(values)
    with pytest.raises(DataError) as caught:
        encode_targets(infer_format(data, "y", multi_label=False), data, "y")
    assert words in str(caught.value)
    columns = source([value[0] for value in values], b=pa.array([value[1] for value in values]))
    with pytest.raises(DataError, match="in 2 target columns"):
        encode_targets(infer_format(columns, ["y", "b"], multi_label=False), columns, ["y", "b"])


def test_known_labels_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_targets(infer_format(source(["a,b"]), "y"), source(["b"]), "y", unknown_labels="ignore")


def test_val_has_the_structure_of_train() -> None:
    names = infer_format(source([["a"]]), "y")
    words = "column 'y' holds text .val.csv, row 1: 'a'., but the training rows hold lists; give every split"
    with pytest.raises(DataError, match=words):
        encode_targets(names, source(["a"], "val.csv"), "y")
    single = infer_format(source(["a", "b"]), "y")
    with pytest.raises(DataError, match="but the training rows hold single values"):
        encode_targets(single, source([["a"]], "val.csv"), "y")


def test_a_val_split_without_any_label_is_ordinary() -> None:
    target_format = infer_format(source([["a"], ["b"]]), "y")
    assert encode_targets(target_format, source([[], []]), "y").toarray().tolist() == [[0, 0], [0, 0]]
