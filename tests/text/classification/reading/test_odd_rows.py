"""Empty rows, repeated headers, and rows inside of cells."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flash.core.errors import DataError
from flash.text.classification.predict_files.blocks import read_blocks
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.reading.odd_rows import (
    headers_in_other_order,
    repeated_headers,
    swallowed_rows,
    without_odd_rows,
)
from flash.text.classification.reading.source import Source

FIELDS = ["text", "labels"]


def test_empty_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,labels\na,x\n,\n , \nb,\n,y\n")
    with pytest.warns(UserWarning, match=" row") as caught:
        source = without_odd_rows(read_csv(path), FIELDS)
    assert str(caught[0].message) == (
        f"{path}: 2 rows are empty ({path}, rows 2 and 3) and left out (rows are counted from 1, the header not)"
    )
    assert source.table.to_pydict() == {"text": ["a", "b", ""], "labels": ["x", "", "y"]}
    assert [source.where(row) for row in range(3)] == [f"{path}, row {row}" for row in (1, 4, 5)]


def test_places_after_empty_rows_of_several_files() -> None:
    table = pa.table({"text": ["a", None, "b", None], "labels": ["x", None, "y", None]})
    with pytest.warns(UserWarning, match="2 rows are empty \\(p, row 2; q, row 2\\)"):
        source = without_odd_rows(Source(table, (("p", 2), ("q", 2))), FIELDS)
    assert [source.where(row) for row in range(2)] == ["p, row 1", "q, row 1"]


def test_nothing_but_empty_rows() -> None:
    with pytest.raises(DataError, match="t has no rows but empty ones; check its path, or put rows into it"):
        without_odd_rows(Source(pa.table({"text": [" "], "labels": [""]}), (("t", 1),)), FIELDS)


def test_a_header_in_the_middle_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,labels\na,x\ntext,labels\nb,y\n")
    with pytest.warns(UserWarning, match="1 row is the header again .*, row 2\\) and left out"):
        source = without_odd_rows(read_csv(path), FIELDS)
    assert source.table["text"].to_pylist() == ["a", "b"]
    with pytest.warns(UserWarning, match="1 row is the header again \\(row 2\\) and left out"):
        blocks = list(read_blocks(path, "csv"))
    assert [(block.first, block.table["text"].to_pylist()) for block in blocks] == [(1, ["a"]), (3, ["b"])]


def test_a_text_that_is_the_name_of_its_only_column_stays(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("text\na\ntext\n")
    (block,) = read_blocks(path, "csv")
    assert block.table["text"].to_pylist() == ["a", "text"]


def test_rows_that_two_stray_quotes_swallow(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('text,labels\na,sport\n"b,sport\nc,food\nd,sport\ne",food\n')
    with pytest.warns(UserWarning, match=" row") as caught:
        assert read_csv(path).table.num_rows == 2
    assert str(caught[0].message) == (
        f"{path}, row 2: the cell in column 'text' runs over 4 lines, 3 of which look like rows that it has swallowed; "
        'if a quote there stands by mistake, remove it or write it twice in a quoted cell (""), or pass quoting=False '
        "if quotes are ordinary characters here (rows are counted from 1, the header not)"
    )
    with pytest.warns(UserWarning, match=r"row 2: the cell in column 'text' runs over 4 lines"):
        list(read_blocks(path, "csv"))


def test_poems_and_letters_are_no_rows() -> None:
    texts = ["Dear all,\nthanks, and\nbye, Bob", "plain"]
    assert swallowed_rows(pa.table({"text": texts, "labels": ["x", ""]}), FIELDS, ",") == []
    assert swallowed_rows(pa.table({"text": texts}), ["text"], ",") == []


def test_a_header_is_one_in_any_case_and_with_spaces_around_it() -> None:
    long = "text" + " and text" * 20
    rows = [
        ("a", "labels"),
        (" Text", "LABELS "),
        ("text", "x"),
        (long, "labels"),
        (None, "labels"),
        ("text", "labels"),
    ]
    texts, labels = zip(*rows, strict=True)
    columns = {"text": pa.chunked_array([texts[:2], texts[2:]], pa.large_string()), "labels": list(labels)}
    assert repeated_headers(pa.table(columns)).tolist() == [1, 5]
    assert repeated_headers(pa.table({"text": ["text", "b"]})).tolist() == []
    none = repeated_headers(pa.table({"text": ["b", "c"], "labels": ["text", "labels"]}))
    assert none.dtype == np.int64
    assert none.tolist() == []


def test_a_long_text_with_some_lines_like_rows_has_swallowed_none() -> None:
    lines = ["A list, a short one", *["an ordinary line of a long comment"] * 9, "one, two", "three, x"]
    table = pa.table({"text": ["\n\n".join(lines), "b"], "labels": ["x", "y"]})
    assert swallowed_rows(table, FIELDS, ",") == []


def test_rows_in_cells_are_those_that_a_look_at_each_cell_finds() -> None:
    """Whole columns at a time find what the rule says of one cell."""
    generator = np.random.default_rng(0)
    pieces = ["x", "a,x", "a,b,x", "", " ", "one, two", "y,z\r"]
    for names in (["text", "labels"], ["id", "text", "labels"]):
        texts = ["\n".join(generator.choice(pieces, generator.integers(1, 9))) for _ in range(300)]
        table = pa.table({"text": texts, "labels": generator.choice(["x", "y", ""], 300).tolist()})
        expected = []
        for row, text in enumerate(texts):
            lines = text.split("\n")
            wide = [line.rstrip("\r").split(",") for line in lines if line.count(",") == len(names) - 1]
            columns = [
                (names.index(name), set(table[name].to_pylist()) - {""}) for name in table.column_names
            ]
            alike = sum(any(line[place] in known for place, known in columns) for line in wide)
            alike = len(wide) if len(names) > 2 and len(wide) >= 3 else alike
            written = sum(bool(line.strip()) for line in lines) - 1
            if len(lines) > 1 and alike and 2 * alike >= written:
                expected.append((row, "text", len(lines), alike))
        assert expected
        assert swallowed_rows(table, names, ",") == expected


def test_a_column_of_lists_holds_no_header() -> None:
    table = pa.table({"text": ["labels", "b"], "labels": [["text"], []]})
    assert headers_in_other_order(table).tolist() == []


def test_a_header_in_another_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pasted.csv"
    path.write_text("text,labels\na,x\nLabels, text\nx,b\n")
    with pytest.raises(DataError) as caught:
        without_odd_rows(read_csv(path), FIELDS)
    sentence = (
        f"{path}: the header stands again in another order ({{}}), and the cells below it stand in other columns; cut the "
        "file there into several, and pass them together (rows are counted from 1, the header not)"
    )
    assert str(caught.value) == sentence.format(f"{path}, row 2")
    with pytest.raises(DataError) as caught:
        list(read_blocks(path, "csv"))
    assert str(caught.value) == sentence.format("row 2")
