import random
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from flash.core.errors import DataError
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.encoding import encode_targets
from flash.text.classification.targets.formats import TargetFormat, infer_format
from flash.text.classification.targets.labels import LabelSet

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).map(str.strip).filter(bool)
LABEL_ROWS = st.lists(st.lists(NAMES, max_size=4, unique=True), min_size=1, max_size=10).filter(any)


def source(values: Any, name: str = "train.csv", **columns: Any) -> Source:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    table = pa.table({"y": column, **columns})
    return Source(table, ((name, table.num_rows),))


def encode(values: Any, fields: Any = "y", **options: Any) -> tuple[TargetFormat, list[list[float]]]:
    data = values if isinstance(values, Source) else source(values)
    target_format = infer_format(data, fields, **options)
    targets = encode_targets(target_format, data, fields)
    assert isinstance(targets, csr_array)
    assert targets.dtype == np.float32
    return target_format, targets.toarray().tolist()


def refused(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises(DataError) as caught:
        encode(*arguments, **keywords)
    return str(caught.value)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ---- the table of formats: one worked example a line


def test_several_columns_are_labels_in_the_order_given() -> None:
    data = source(["1", "0"], b=pa.array(["0.0", " TRUE "]), a=pa.array(["false", "0.25"]))
    target_format, targets = encode(data, ["y", "b", "a"])
    assert target_format == TargetFormat("columns", LabelSet(("y", "b", "a"), True))
    assert targets == [[1, 0, 0], [0, 1, 0.25]]


@pytest.mark.parametrize(
    "values", [[1, 0], [1.0, 0.0], [True, False], ["1", "0"], ["1.0", "0.0"], ["true", "False"]]
)
def test_one_column_in_a_list_is_one_label(values: list[Any]) -> None:
    target_format, targets = encode(values, ["y"], multi_label=True)
    assert target_format == TargetFormat("columns", LabelSet(("y",), True))
    assert targets == [[1], [0]]


def test_labels_may_reorder_the_columns() -> None:
    data = source([1, 0], b=pa.array([0, 0]))
    assert encode(data, ["y", "b"], labels=["b", "y"])[1] == [[0, 1], [0, 0]]


def test_columns_with_exactly_one_label_can_be_single_label() -> None:
    data = source([1, 0], b=pa.array([0, 1]))
    assert encode(data, ["y", "b"], multi_label=False)[0].label_set.multi_label is False


def test_delimited_names() -> None:
    target_format, targets = encode(["b, a", "", "a,,b ,", '"x, y",a', "a,a"])
    assert target_format == TargetFormat("delimited", LabelSet(("a", "b", "x, y"), True), ",")
    assert targets == [[1, 1, 0], [0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]]


def test_another_delimiter_and_spaces_that_split_nothing() -> None:
    assert encode(["big cat|dog", "dog"], label_delimiter="|")[0].label_set.names == ("big cat", "dog")
    assert encode(["big cat", "dog"])[0] == TargetFormat("single", LabelSet(("big cat", "dog"), False))
    assert encode(["big cat", "dog"], label_delimiter=" ")[0].label_set.names == ("big", "cat", "dog")
    assert encode(["a :: b,c"], label_delimiter="::")[0].label_set.names == ("a", "b,c")


def test_one_label_a_row_is_multi_label_where_the_arguments_say_so() -> None:
    for options in ({"multi_label": True}, {"label_delimiter": ","}):
        target_format, targets = encode(["b", "a"], **options)
        assert target_format == TargetFormat("delimited", LabelSet(("a", "b"), True), ",")
        assert targets == [[0, 1], [1, 0]]
    assert encode([["b"], ["a"]])[0] == TargetFormat("lists", LabelSet(("a", "b"), True))


def test_a_single_label_may_hold_a_comma() -> None:
    assert encode(["Paris, France", "Rome"], multi_label=False)[0].label_set.names == (
        "Paris, France",
        "Rome",
    )


def test_lists_of_names() -> None:
    target_format, targets = encode([["b", "a"], [], ["b"]])
    assert target_format == TargetFormat("lists", LabelSet(("a", "b"), True))
    assert targets == [[1, 1], [0, 0], [0, 1]]
    assert encode([[], []], labels=["a", "b"])[1] == [[0, 0], [0, 0]]


def test_lists_of_class_indices() -> None:
    assert encode([[2, 0], [], [1]], labels=["x", "y", "z"])[1] == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    target_format, targets = encode([[2, 0], [1]], num_classes=4)
    assert target_format.label_set.names == ("0", "1", "2", "3")
    assert targets == [[1, 0, 1, 0], [0, 1, 0, 0]]
    # Names that are numbers themselves are names.
    assert encode([[20], [10, 20]], labels=["10", "20"])[1] == [[0, 1], [1, 1]]


def test_vectors() -> None:
    assert encode([[1, 0, 1], [0, 0, 0]])[0].label_set.names == ("0", "1", "2")
    assert encode([[1, 0, 1], [0, 0, 0]], labels=["x", "y", "z"])[1] == [[1, 0, 1], [0, 0, 0]]
    assert encode([[0.25, 1.0]], labels=["x", "y"])[1] == [[0.25, 1]]
    assert encode([[True, False]])[1] == [[1, 0]]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array([0, 1, 1, 0]), 2)
    assert encode(fixed)[1] == [[0, 1], [1, 0]]


def test_vectors_of_exactly_one_label_stay_multi_label() -> None:
    assert encode([[0, 1, 0], [1, 0, 0]])[0] == TargetFormat("vectors", LabelSet(("0", "1", "2"), True))


def test_single_names_and_indices() -> None:
    assert encode(["pos", " neg "])[1] == [[0, 1], [1, 0]]
    target_format, targets = encode([10, 9, 10])
    assert target_format == TargetFormat("single", LabelSet(("9", "10"), False))
    assert targets == [[0, 1], [1, 0], [0, 1]]
    assert encode(["1", "0"], labels=["neg", "pos"])[1] == [[0, 1], [1, 0]]
    assert encode([2, 0], num_classes=3)[1] == [[0, 0, 1], [1, 0, 0]]
    assert encode([1.0, 0.0])[0].label_set.names == ("0", "1")
    assert encode([True, False])[0].label_set == LabelSet(("false", "true"), False)
    assert encode([10, 9], multi_label=True)[0] == TargetFormat("single", LabelSet(("9", "10"), True))


def test_num_classes_verifies_the_names_found() -> None:
    assert encode(["2457,4274", "2457"], num_classes=2)[0].label_set.names == ("2457", "4274")
    assert encode(["2,0", "1"], num_classes=4)[0].label_set.names == ("0", "1", "2", "3")
    assert refused(["a,b"], num_classes=3) == "train.csv: column 'y' has 2 labels, but num_classes=3"


def test_class_names_of_the_source() -> None:
    # Positions are those of the source, even where its names are numbers: 1 to 3 stars are stored as 0 to 2.
    stars = Source(pa.table({"y": [0, 2]}), (("train", 2),), {"y": ("1", "2", "3")})
    target_format, targets = encode(stars)
    assert target_format.label_set.names == ("1", "2", "3")
    assert targets == [[1, 0, 0], [0, 0, 1]]
    other = Source(pa.table({"y": [0]}), (("val", 1),), {"y": ("3", "2", "1")})
    words = r"the classes of column 'y' \(3; 2; 1\) are not the labels \(1; 2; 3\) in their order"
    with pytest.raises(DataError, match=words):
        encode_targets(target_format, other, "y")
    assert "has the classes 1; 2; 3, and labels= are others or in another order" in refused(
        stars, labels=["a", "b", "c"]
    )
    assert encode(stars, labels=["1", "2", "3"])[1] == targets
    assert (
        "1 value in column 'y' is no class index from 0 to 2: -1 (1 row, the first train, row 2)"
        in refused(Source(pa.table({"y": [0, -1]}), (("train", 2),), {"y": ("1", "2", "3")}))
    )


@pytest.mark.parametrize(
    "values",
    [[1, 0], [1.0, 0.0], [True, False], ["1", "0"], ["1.0", " 0.0"], ["true", "False"]],
)
def test_one_column_of_yes_and_no_is_one_label_where_the_arguments_say_so(values: list[Any]) -> None:
    choices: list[dict[str, Any]] = [{}, {"labels": ["y"]}, {"num_classes": 1}]
    for options in choices:
        target_format, targets = encode(values, "y", multi_label=True, **options)
        assert target_format == TargetFormat("columns", LabelSet(("y",), True))
        assert targets == [[1], [0]]


def test_what_makes_yes_and_no_names_all_the_same() -> None:
    assert encode(["1", "0"], "y")[0] == TargetFormat("single", LabelSet(("0", "1"), False))
    names = encode(["1", "0"], "y", multi_label=True, labels=["0", "1"])
    assert names == (TargetFormat("delimited", LabelSet(("0", "1"), True), ","), [[0, 1], [1, 0]])
    assert encode([1, 0], "y", multi_label=True, num_classes=2)[0].label_set.names == ("0", "1")
    assert encode(["1,0", "0"], "y", multi_label=True)[0].label_set.names == ("0", "1")
    assert encode([1, 2], "y", multi_label=True)[0].label_set.names == ("1", "2")
    assert encode([0.25, 1.0], "y", multi_label=True)[1] == [[0.25], [1]]


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (["Sports; Football", "News; World"], {}),
        (["a|b", "a", "c"], {}),
        (["a|b", "a", "b"], {"multi_label": False}),
        (["a|b", "a", "b"], {"labels": ["a|b", "a", "b"]}),
        (["a|b", "a", "b"], {"label_delimiter": ","}),
        (["a|b, c", "a", "x"], {}),
    ],
)
def test_names_may_hold_another_delimiter(values: list[str], options: dict[str, Any]) -> None:
    assert values[0].split(", ")[0] in encode(values, **options)[0].label_set.names


def test_a_null_target_of_a_frame_says_what_to_type() -> None:
    for values in (["a,b", None], [None, None]):
        table = pa.table({"y": pa.array(values)})
        message = refused(Source(table, (("train_data_frame", 2),), kind="frame"))
        assert (
            'if these are rows without labels, type frame["y"] = frame["y"].fillna("") with your frame\'s '
            "name, otherwise remove them, or pass unknown_targets='mask' to leave them out (rows are counted from 1)"
            in message
        )
    numbers = Source(pa.table({"y": [1, None]}), (("train_data_frame", 2),), kind="frame")
    assert "write an empty list or an empty text" in refused(numbers)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            ["TOXIC,insult", "toxic,Insult", "threat"],
            "train.csv: in column 'y' labels differ only by case or spaces: 'Insult'/'insult'; "
            "'TOXIC'/'toxic'; correct the cells unless this is meant",
        ),
        ([["a b"], ["a  b "]], "differ only by case or spaces: 'a  b '/'a b'; correct"),
        (
            ["nan", "None", "x", "null"],
            "labels are named like a missing value: 'None'; 'nan'; 'null'; correct the cells",
        ),
        (["NaN", "nan"], "differ only by case or spaces: 'NaN'/'nan', and labels are named like a missing"),
    ],
)
def test_names_that_look_like_mistakes(values: Any, words: str) -> None:
    with pytest.warns(UserWarning, match="in column 'y' labels") as caught:
        infer_format(source(values), "y")
    assert [words in str(warning.message) for warning in caught] == [True], str(caught[0].message)
    names = sorted(
        {name for value in values for name in (value if isinstance(value, list) else value.split(","))}
    )
    infer_format(source(values), "y", labels=names)  # whoever types the names means them


# ---- what never flips a format


@pytest.mark.filterwarnings("ignore:.*in column 'y' labels")  # random names may look like mistakes
@settings(deadline=None)
@given(rows=LABEL_ROWS, seed=st.integers(0, 9))
def test_rows_of_one_label_never_flip_the_format(rows: list[list[str]], seed: int) -> None:
    """Whatever rows stand beside them, and in whatever order: the structure and the arguments decide."""
    one_label = [row[:1] for row in rows if row]
    lists = source(pa.array(one_label, pa.list_(pa.string())))
    assert infer_format(lists, "y").label_set.multi_label is True
    shuffled = random.Random(seed).sample([*rows, *one_label], len(rows) + len(one_label))
    for label_rows in (one_label, shuffled):
        cells = source(pa.array([",".join(map(quoted, row)) for row in label_rows]))
        target_format = infer_format(cells, "y", label_delimiter=",")
        assert (target_format.kind, target_format.label_set.multi_label) == ("delimited", True)


# ---- mistakes, by their words


@pytest.mark.parametrize(
    ("values", "fields", "options", "words"),
    [
        (
            ["1", "maybe", "0", "2", "no", "-1"],
            ["y"],
            {"multi_label": True},
            "train.csv: 3 targets are not 0, 1, true, false, yes, no or a number between 0 and 1 (train.csv, row 2, "
            "column 'y': 'maybe'; row 4, column 'y': '2'; row 5, column 'y': 'no'); write 0 or 1, "
            "or pass target_fields='y' if it holds names, or pass unknown_targets='mask' and unknown_values=['maybe'] if it "
            "says that nothing is known; 1 target says neither 0 nor 1: '-1' in 1 cell (the first "
            "train.csv, row 6, column 'y'); such values",
        ),
        (
            [1, 7],
            ["y"],
            {"multi_label": True},
            "train.csv: 1 target is not 0, 1, true, false, yes, no or a number between 0 and 1 (train.csv, row 2, "
            "column 'y': 7)",
        ),
        (
            ["1", "nan"],
            ["y"],
            {"multi_label": True},
            "1 target says neither 0 nor 1: 'nan' in 1 cell (the first train.csv, row 2, column 'y'); such values often",
        ),
        (
            ["1", " "],
            ["y"],
            {"multi_label": True},
            "train.csv: 1 target says neither 0 nor 1: a blank in 1 cell (the first train.csv, row 2, column 'y'); "
            "such values often mean \"not known\": pass unknown_targets='mask' if it is not known there whether the "
            "label applies, or unknown_targets='negative' if it does not (rows are counted from 1)",
        ),
        (
            [1, None, None],
            ["y"],
            {"multi_label": True},
            "train.csv: 2 targets say neither 0 nor 1: null in 2 cells (the first train.csv, row 2, column 'y'); such",
        ),
        (
            [["a"], None],
            "y",
            {},
            "train.csv: 1 row has a null target in column 'y' (train.csv, row 2); write an empty list or an "
            "empty text for a row without labels, remove these rows, or pass unknown_targets='mask' to leave them "
            "out (rows are counted from 1)",
        ),
        (
            ["a", None, "b", None],
            "y",
            {},
            "train.csv: 2 rows have a null target in column 'y' (train.csv, rows 2 and 4)",
        ),
        (
            [["a"], ["b", None], [""]],
            "y",
            {},
            "train.csv: 2 rows have an empty or null name in the list of column 'y' (train.csv, rows 2 "
            "and 3); leave it out of the list (rows are counted from 1)",
        ),
        (
            ["a", "", "b"],
            "y",
            {"multi_label": False},
            "train.csv: 1 row has no label in column 'y' (train.csv, row 2), but a single-label row has "
            "exactly one; pass multi_label=True if rows with none or several are meant, or unknown_targets='mask' to "
            "leave these rows out (rows are counted from 1)",
        ),
        (
            [["a", "b"], ["a"]],
            "y",
            {"multi_label": False},
            "train.csv: 1 row has several labels in column 'y' (train.csv, row 1), but a single-label row "
            "has exactly one",
        ),
        (
            [[0, 3], [1]],
            "y",
            {},
            "train.csv: column 'y' holds lists of class indices, and how many classes there are is not "
            "known; pass labels=[...] or num_classes=",
        ),
        (
            [[0, 3], [5], [3]],
            "y",
            {"num_classes": 3},
            "train.csv: 2 values in column 'y' are no class index from 0 to 2: 3 (2 rows, the first "
            "train.csv, row 1); 5 (1 row, the first row 2); add them to labels=[...]",
        ),
        (
            [[0, 3], [-1]],
            "y",
            {"labels": ["a", "b"]},
            "train.csv: 2 values in column 'y' are no class index from 0 to 1: ",
        ),
        (
            [[0, 1], [1, 0]],
            "y",
            {"num_classes": 2},
            "train.csv: the lists in column 'y' can be class indices or 0/1 vectors of 2 labels (train.csv, "
            "row 1: [0, 1]); pass names instead of indices, or vectors as fractions such as [0.0, 1.0] (rows "
            "are counted from 1)",
        ),
        ([[0], [1]], "y", {}, "can be class indices or 0/1 vectors of 1 label (train.csv, row 1: [0])"),
        (
            [[0.5, 0.5], [1.0]],
            "y",
            {"labels": ["a", "b"]},
            "train.csv: 1 row has a target in column 'y' that is not 2 long, one value per label (train.csv, "
            "row 2); the first is 1 long",
        ),
        (
            [[0.5, 1.5], [0.1, None]],
            "y",
            {},
            "train.csv: 1 row has a value in column 'y' that is no number between 0 and 1 (train.csv, "
            "row 1); the first target is [0.5, 1.5] (rows are counted from 1)",
        ),
        (
            [0.5, 1.0],
            "y",
            {},
            "train.csv: 1 row has a fraction in column 'y' (train.csv, row 1; the first is 0.5); for a "
            "soft target between 0 and 1 pass multi_label=True (rows are counted from 1)",
        ),
        (
            ["0", "", "1"],
            "y",
            {"multi_label": True},
            "train.csv: 1 target says neither 0 nor 1: a blank in 1 cell (the first train.csv, row 2, column 'y'); such",
        ),
        (
            [[1, 0], [0, 1]],
            "y",
            {"labels": ["a", "b", "c"]},
            "train.csv: each target in column 'y' is a list of 2 numbers 0 or 1, but there are 3 labels "
            "(train.csv, row 1: [1, 0]); write 3 values per row, one per label, or, if these are class indices, "
            "names instead of them (rows are counted from 1)",
        ),
        (
            [[0, 1], [1, 0]],
            "y",
            {"num_classes": 1},
            "is a list of 2 numbers 0 or 1, but there is 1 label (train.csv, row 1: [0, 1]); write 1 value "
            "per row, one per label",
        ),
        (
            [[0, 1], [1, 0, 1], [0]],
            "y",
            {"num_classes": 3},
            "train.csv: column 'y' holds lists of 0 and 1 of several lengths, but there are 3 "
            "labels (train.csv, row 2: [1, 0, 1]); write 3 values per row",
        ),
        (
            [[1, 0], [1, 1, 0]],
            "y",
            {},
            "train.csv: column 'y' holds lists of 0 and 1 of several lengths (train.csv, row 2: "
            "[1, 1, 0]); write as many values in each row, one per label, or, if",
        ),
        ([[1, None], [None, 0, 1]], "y", {"num_classes": 3}, "2 rows have an empty or null name in the list"),
        (
            ["threat|toxic", "toxic", "threat", "insult|toxic"],
            "y",
            {},
            "train.csv: column 'y' holds '|' in 2 rows: pass label_delimiter='|' if it separates labels, or "
            "multi_label=False if names hold it",
        ),
        (
            ["a; b", "a", "b", "c", "d;e"],
            "y",
            {},
            "train.csv: column 'y' holds ';' in 2 rows: pass label_delimiter=';' if it separates labels, or "
            "multi_label=False",
        ),
        (
            ["a;b", "b;c", "a;c", "a;b;c"],
            "y",
            {},
            "train.csv: column 'y' holds ';' in 4 rows: pass label_delimiter=';'",
        ),
        (["a;b", "c", ""], "y", {}, "train.csv: column 'y' holds ';' in 1 row: pass label_delimiter=';'"),
        (
            ["a;b", "a", "b", ""],
            "y",
            {"multi_label": True},
            "train.csv: column 'y' holds ';' in 1 row: pass label_delimiter=';' if it separates labels, or "
            "label_delimiter=',' if names hold it",
        ),
        (
            ["", ","],
            "y",
            {},
            "train.csv: no row has a label in column 'y'; pass labels=[...] or another column",
        ),
        ([[], []], "y", {}, "train.csv: no row has a label in column 'y'"),
        (
            [["a"]],
            "y",
            {"label_delimiter": ","},
            "train.csv: column 'y' holds lists; leave label_delimiter=',' out",
        ),
        (
            [1, 2],
            "y",
            {"label_delimiter": ","},
            "train.csv: column 'y' holds int64, which label_delimiter=',' cannot split; leave it out",
        ),
        (
            ["a"],
            "y",
            {"label_delimiter": ""},
            "label_delimiter='' cannot be used: it is empty; leave one of them out",
        ),
        (
            ["a"],
            "y",
            {"label_delimiter": ",", "multi_label": False},
            "label_delimiter=',' cannot be used: multi_label=False",
        ),
        (
            ["a"],
            ["y", "z"],
            {"label_delimiter": ","},
            "label_delimiter=',' cannot be used: there are several target columns",
        ),
        (
            ["a"],
            "y",
            {"labels": "abc"},
            "labels='abc' is one text; pass a list of names: labels=['abc', ...]",
        ),
        (["a"], "y", {"labels": []}, "there are no labels; pass labels=[...] with at least one name"),
        (
            ["a"],
            "y",
            {"labels": ["a", ""]},
            "a label name is text and neither empty nor blank, found ''; pass labels=['first', ...]",
        ),
        (["a"], "y", {"labels": ["a", 3]}, "a label name is text and neither empty nor blank, found 3"),
        (
            ["a"],
            "y",
            {"labels": ["a", "b", "a"]},
            "label names are there more than once: 'a'; keep one of each",
        ),
        (
            ["a"],
            "y",
            {"num_classes": 0},
            "num_classes=0 is not a number of labels; pass a whole number of at least 1",
        ),
        (
            ["a"],
            "y",
            {"labels": ["a"], "num_classes": 2},
            "there are 1 labels, but num_classes=2; leave num_classes out",
        ),
        (
            [{"a": 1}],
            "y",
            {},
            "train.csv: column 'y' holds objects with the keys a (train.csv, row 1: {'a': 1}); expected names, "
            "class indices, or lists of them (rows are counted from 1)",
        ),
        (
            [[{"a": 1}]],
            "y",
            {},
            "train.csv: column 'y' holds lists of objects with the keys a; expected lists of names or of numbers",
        ),
        ([[1], [2]], ["y"], {"multi_label": True}, "holds lists of class indices"),
    ],
)
def test_mistakes(values: Any, fields: Any, options: dict[str, Any], words: str) -> None:
    message = refused(source(values, z=pa.array(["a"] * len(values))), fields, **options)
    assert words in message, message


def test_columns_and_labels_that_do_not_match() -> None:
    data = source([1, 0], b=pa.array([0, 0]))
    tail = "; with several target columns labels= may only put their names in another order"
    assert refused(data, ["y", "b"], labels=["y"]) == f"labels= lacks the target column 'b'{tail}"
    assert refused(data, ["y", "b"], labels=["y", "bb"]) == (
        f"unknown label 'bb'; did you mean 'b'? Known: y, b{tail}"
    )


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["caf\u00e9", "cafe\u0301", "tech"], r"'cafe\u0301'/'caf\xe9'"),
        (["tech", "te\u200bch"], r"'tech'/'te\u200bch'"),
        (["\ufefftech", "tech"], r"'tech'/'\ufefftech'"),
        (["\uff34ech", "tech"], r"'tech'/'\uff34ech'"),
        (["\uff76\uff7e", "カセ"], r"'\u30ab\u30bb'/'\uff76\uff7e'"),
    ],
)
def test_names_that_look_the_same(names: list[str], shown: str) -> None:
    words = (
        f"in column 'y' labels look the same and are written with different characters: {shown}; correct the"
    )
    for values in (names, [[name] for name in names]):
        with pytest.warns(UserWarning, match=re.escape(words)):
            infer_format(source(values), "y")
    infer_format(source(["a b", "ab", "a²", "a2"]), "y")  # these can be told apart


def test_a_no_break_space_is_a_space() -> None:
    with pytest.warns(
        UserWarning, match=re.escape(r"differ only by case or spaces: 'a b'/'a\xa0b'; correct")
    ):
        infer_format(source(["a b", "a\u00a0b"]), "y")


def test_vectors_with_nothing_between_their_values_are_no_names() -> None:
    data = source(["011", "", "100", "011"])
    with pytest.raises(DataError) as caught:
        infer_format(data, "y")
    assert str(caught.value) == (
        "train.csv: column 'y' holds nothing but digits 0 and 1 with nothing between them (train.csv, row 1: '011'); if "
        "each is the target of one label, put spaces between them, in pandas: frame['y'] = frame['y'].map(' '.join), or "
        "pass multi_label=False if these are names (rows are counted from 1)"
    )
    for options in ({"labels": ["a", "b", "c"]}, {"multi_label": True}):
        with pytest.raises(DataError, match="nothing but digits 0 and 1"):
            infer_format(data, "y", **options)
    assert infer_format(data, "y", multi_label=False).label_set.names == ("011", "100")
    assert infer_format(data, "y", multi_label=True, labels=["011", "100"]).label_set.names == ("011", "100")
    for names in (["10", "11"], ["0", "1"], ["01", "100"], ["01", "12"]):
        assert infer_format(source(names), "y").label_set.names == tuple(names)


def test_empty_cells_beside_single_names_are_read_as_multi_label_and_said() -> None:
    data = source(["sport", "", "tech", ""])
    expected = (
        "train.csv: 2 rows have no label in column 'y' \\(train.csv, rows 2 and 4\\), and no row has several; "
        "read as multi-label, where a text may have no label; pass multi_label=False and unknown_targets='mask' "
        "if each text has exactly one"
    )
    with pytest.warns(UserWarning, match=expected):
        found = infer_format(data, "y")
    assert found.label_set == LabelSet(("sport", "tech"), True)
    assert encode_targets(found, data, "y").toarray().tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]


def test_empty_cells_beside_joined_names_are_refused() -> None:
    with pytest.raises(
        DataError, match="column 'y' holds '#' in 2 rows: pass label_delimiter='#' if it separates"
    ):
        infer_format(source(["a#b", "", "c#d"]), "y")


@pytest.mark.parametrize("end", ["", ", and more of it"])
def test_a_column_of_texts_is_refused_before_its_names_are_searched(end: str) -> None:
    texts = [f"this is the comment with number {row}{end} for {row}" for row in range(120)]
    words = refused(source(texts), "y")
    assert (
        "train.csv: column 'y' holds texts rather than labels (train.csv, row 1: 'this is the comment"
        in words
    )
    assert (
        "check that target_fields= names the column of labels, or pass labels=[...] if these are names"
        in words
    )
    infer_format(source(texts), "y", labels=texts, multi_label=False)
    infer_format(source(["a label of many words, and another one of many words"] * 120), "y")
