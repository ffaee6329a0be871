"""Columns whose cells are lists written as text."""

import io
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.encoding import encode_targets
from flash.text.classification.targets.formats import infer_format
from flash.text.classification.targets.list_cells import read_list_cells

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
    lambda name: name == name.strip()
)
LABEL_ROWS = st.lists(st.lists(NAMES, max_size=4, unique=True), min_size=1, max_size=12).filter(any)


def source(values: Any, name: str = "train.csv") -> Source:
    return Source(pa.table({"y": pa.array(values)}), ((name, len(values)),))


def read(values: Sequence[str | None], **options: Any) -> tuple[list[Any], list[str]]:
    """The column as it is read, and what is said of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sources, _ = read_list_cells({"train": source(values)}, "y", **options)
    return sources["train"].table["y"].to_pylist(), [str(warning.message) for warning in said]


def refused(values: list[str], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_list_cells({"train": source(values)}, "y", **options)
    return str(caught.value)


def matrix(column: Source, **options: Any) -> tuple[tuple[str, ...], list[list[float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources, delimiter = read_list_cells({"train": column}, "y", **options)
        target_format = infer_format(sources["train"], "y", label_delimiter=delimiter)
    return target_format.label_set.names, encode_targets(
        target_format, sources["train"], "y"
    ).toarray().tolist()


@settings(deadline=None)
@given(rows=LABEL_ROWS)
def test_a_written_list_is_the_list(rows: list[list[str]]) -> None:
    """json.dumps, repr and pandas' to_csv give the matrix that the column of lists gives."""
    expected = matrix(source(pa.array(rows, pa.list_(pa.string()))))
    through_csv = io.StringIO(pd.DataFrame({"y": rows}).to_csv(index=False))
    written = [
        [json.dumps(row) for row in rows],
        [repr(row) for row in rows],
        [repr(tuple(row)) for row in rows],
        [str(np.array(row, object)) for row in rows],
        pd.read_csv(through_csv, keep_default_na=False)["y"].tolist(),
    ]
    for cells in written:
        assert matrix(source(cells)) == expected


def test_one_line_says_that_cells_are_read_as_lists() -> None:
    assert read(["['a', 'b']", "[]", "", None, "['b']"]) == (
        [["a", "b"], [], [], None, ["b"]],
        [
            "train.csv: column 'y' holds lists written as text in 2 rows (train.csv, rows 1 and 5: the first is "
            "\"['a', 'b']\"), which are read as lists"
        ],
    )


@pytest.mark.parametrize(
    ("cells", "options", "lists"),
    [
        (['{"choices": ["a", "b, c"]}', "b, c", ""], {}, [["a", "b, c"], ["b, c"], []]),
        (["<a><b>", "<b>"], {}, [["a", "b"], ["b"]]),
        (["<http://a> <http://b>", "<http://b>"], {}, [["http://a", "http://b"], ["http://b"]]),
        (["<a>", "<b>"], {"labels": ["a", "b"]}, [["a"], ["b"]]),
        (["[a, b]", "[b]", "[]"], {"label_delimiter": ","}, [["a", "b"], ["b"], []]),
        (['{"x, y",b}', "{1}"], {"label_delimiter": ","}, [["x, y", "b"], ["1"]]),
        (["[0, 1, 0]", "[1 0 0]"], {}, [[0, 1, 0], [1, 0, 0]]),
        (["[0.5, 1]", "[0, 0]"], {}, [[0.5, 1.0], [0.0, 0.0]]),
        (["[True, False]"], {}, [[True, False]]),
        (["0 1 0", "1 0 0"], {}, [[0, 1, 0], [1, 0, 0]]),
        (["1.0,0.0", ".5,0"], {}, [[1.0, 0.0], [0.5, 0.0]]),
        (["['a']", "nan", "['b']"], {}, [["a"], None, ["b"]]),
        (["['a']", "['b']"], {"multi_label": False}, [["a"], ["b"]]),
    ],
)
def test_forms_that_are_lists(cells: list[str], options: dict[str, Any], lists: list[Any]) -> None:
    found, said = read(cells, **options)
    assert found == lists
    assert len(said) == 1
    assert "written as text" in said[0]


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        (["a,b", "", "(none)"], {}),
        (["<pos>", "<neg>"], {}),
        (["(a)", "(b)"], {}),
        (["[PER]", "[LOC]"], {"multi_label": False}),
        (["['a']", "b"], {"labels": ["['a']", "b"]}),
        (["1,2", "0"], {}),
        (["0 1", "1"], {}),
        (["1,0", "0,1"], {"labels": ["0", "1"]}),
        (["nan", "None"], {}),
        (["'tis", "a"], {}),
    ],
)
def test_names_stay_names(cells: list[str], options: dict[str, Any]) -> None:
    assert read(cells, **options) == (cells, [])


def test_one_name_in_brackets_turns_nothing_around() -> None:
    cells = ["[removed]", "b", "c", "[removed]"]
    found, said = read(cells)
    assert found == cells
    assert said == [
        "train.csv: column 'y' holds a name in brackets in 2 rows (train.csv, rows 1 and 4: the first is "
        "'[removed]'), which stays as it is; correct the cells unless this is meant"
    ]


@pytest.mark.parametrize(
    ("cells", "options", "words"),
    [
        (
            ["['a']", "b", "c"],
            {},
            "train.csv: column 'y' holds what looks like a list in 1 row (train.csv, row 1: \"['a']\") and plain names "
            "in 2 rows (train.csv, rows 2 and 3: the first is 'b'); write every cell in one form, such as ['a', 'b'] "
            "in all, or a,b in all (rows are counted from 1)",
        ),
        (
            ["[]", "b", "c"],
            {},
            "what looks like a list in 1 row (train.csv, row 1: '[]') and plain names in 2 rows",
        ),
        (["[b]", "b", "c"], {}, "what looks like a list in 1 row (train.csv, row 1: '[b]') and plain names"),
        (["[b; c]", "b", "c"], {"label_delimiter": ";"}, "what looks like a list in 1 row"),
        (["[b, c]", "b"], {}, "what looks like a list in 1 row"),
        (["<a><b>", "c"], {}, "what looks like a list in 1 row (train.csv, row 1: '<a><b>') and plain names"),
        (["['a']", "<b>"], {}, "in 1 row (train.csv, row 1: \"['a']\") and other lists in 1 row"),
        (
            ["{'a': 1}", "c"],
            {},
            "what looks like a list in 1 row (train.csv, row 1: \"{'a': 1}\") and plain names",
        ),
        (
            ["[a, b]", "[b]"],
            {},
            "train.csv: column 'y' holds names in brackets without quotes in 2 rows (train.csv, rows 1 and 2: the "
            "first is '[a, b]'): pass label_delimiter=',' if the brackets enclose lists of names, or multi_label=False "
            "if they belong to the names",
        ),
        (["{a;b}"], {}, "pass label_delimiter=';' if the brackets"),
        (["(a, b)", "(c)"], {}, "holds names in brackets without quotes in 2 rows"),
        (
            ["[{'id': 28, 'name': 'Action'}]", "[]"],
            {},
            "column 'y' holds lists of objects written as text in 1 row (train.csv, row 1: \"[{'id': 28, 'name': "
            "'Action'}]\"); keep the names alone, in pandas: frame['y'] = frame['y'].fillna('[]').map(lambda cell: "
            "[item['name'] for item in ast.literal_eval(cell)])",
        ),
        (['[{"title": "x", "n": 2}]'], {}, "[item['title'] for item in json.loads(cell)])"),
        (
            ["{'a': 1, 'b': 0}"],
            {},
            "holds objects written as text in 1 row (train.csv, row 1: \"{'a': 1, 'b': 0}\"); make a 0/1 column for "
            "each label, in pandas: frame = frame.join(pd.json_normalize(frame['y'].fillna('{}').map(ast.literal_eval)"
            ")), and name these columns as target_fields",
        ),
        (['{"labels": ["a"]}'], {}, "keep the list alone, in pandas: frame['y'] = frame['y'].dropna().map("),
        (["[['a'], ['b']]"], {}, "holds lists of lists written as text in 1 row"),
        (
            ["['a' ... 'b']"],
            {},
            "holds arrays that NumPy wrote with '...' for their middle, which is lost in 1 row",
        ),
        (["['it's', 'b']"], {}, "holds lists whose quotes do not pair up in 1 row (train.csv, row 1: "),
        (
            ["['" + "a" * 50_001 + "']"],
            {},
            "holds lists of more than 50,000 characters in 1 row (train.csv, row 1: ",
        ),
        (
            ["['a']", "['a', 3]"],
            {},
            "the lists in column 'y' hold names in 2 rows (train.csv, rows 1 and 2: the first is \"['a']\") and numbers "
            "in 1 row (train.csv, row 2: \"['a', 3]\"); put numbers that are names in quotes",
        ),
    ],
)
def test_forms_that_are_refused(cells: list[str], options: dict[str, Any], words: str) -> None:
    message = refused(cells, **options)
    assert words in message, message


@pytest.mark.parametrize(
    ("train", "other", "lists"),
    [
        (["['a']", "['b']"], ['["b", "a"]', ""], [["b", "a"], []]),
        (["['a']", "['b']"], ["", ""], [[], []]),
        (['{"choices": ["a", "b"]}', "a"], ["b", "a"], [["b"], ["a"]]),
        (["<a><b>", "<b>"], ["<a>"], [["a"]]),
        (["0 1 0"], ["0 0 1", "[1, 0, 0]"], [[0, 0, 1], [1, 0, 0]]),
    ],
)
def test_other_splits_are_read_as_train_is(train: list[str], other: list[str], lists: list[Any]) -> None:
    given = {"train": source(train), "val": source(other, "val.csv")}
    with pytest.warns(UserWarning, match="train.csv: .* written as text") as said:
        sources, _ = read_list_cells(given, "y")
    assert sources["val"].table["y"].to_pylist() == lists
    assert len(said) == 1


@pytest.mark.filterwarnings("ignore:.*written as text")
def test_another_form_in_another_split() -> None:
    given = {"train": source(["['a']", "['b']"]), "val": source(["a", "['b']", "b"], "val.csv")}
    words = (
        r"val.csv: column 'y' holds other cells than lists in 2 rows \(val.csv, rows 1 and 3: the first is 'a'\), but "
        "the training rows hold lists written as text; write every cell as they do"
    )
    with pytest.raises(DataError, match=words):
        read_list_cells(given, "y")


def test_a_delimiter_that_was_used_inside_brackets_is_used_up() -> None:
    with pytest.warns(UserWarning, match="written as text"):
        sources, delimiter = read_list_cells({"train": source(["{a;b}"])}, "y", label_delimiter=";")
    assert (sources["train"].table["y"].to_pylist(), delimiter) == ([["a", "b"]], None)
    assert read_list_cells({"train": source(["a;b"])}, "y", label_delimiter=";")[1] == ";"


def test_a_column_that_is_no_text_is_left_alone() -> None:
    given = {"train": source([["a"], ["b"]])}
    assert read_list_cells(given, "y") == (given, None)
