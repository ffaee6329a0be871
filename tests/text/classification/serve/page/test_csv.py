"""The page's reader and writer of CSV, in a real browser, against Python's."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

IMPORT = "import(new URL('static/csv.js', location).href)"
CELLS = st.text(st.sampled_from('ab",;\t\r\n \u00e9\U0001f9a6'), max_size=6)
TABLES = st.lists(st.lists(CELLS, min_size=2, max_size=3), min_size=1, max_size=4)


@pytest.fixture
def run(page: Any, url: str) -> Any:
    """Calls a function of csv.js with JSON values."""
    page.go(url)

    def call(name: str, *arguments: Any) -> Any:
        words = ", ".join(json.dumps(argument) for argument in arguments)
        return page.js(f"{IMPORT}.then((csv) => {name.replace('$', 'csv')}({words}))")

    return call


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=TABLES,
    delimiter=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_reads_what_python_writes(run: Any, rows: list[list[str]], delimiter: str, quoting: Any) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows(rows)
    assert run("((text, mark) => [...$.records(text, mark)])", file.getvalue(), delimiter) == rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=TABLES)
def test_python_reads_what_it_writes(run: Any, rows: list[list[str]]) -> None:
    written = run("((rows) => rows.map((row) => $.formatRow(row)).join(''))", rows)
    assert list(csv.reader(io.StringIO(written, newline=""))) == rows
    assert written.endswith("\r\n")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1,2", [["a", "b"], ["1", "2"]]),
        ("\ufeffa\r\n1\r\n\r\n2\r\n", [["a"], ["1"], ["2"]]),
        ("a\r1\r2", [["a"], ["1"], ["2"]]),
        ('a\n""\n" "', [["a"], [""], [" "]]),
        ("a,\n,b\n,", [["a", ""], ["", "b"], ["", ""]]),
        ('"a ""b""",c"d"\n"x"y,"z"', [['a "b"', 'c"d"'], ["xy", "z"]]),
        ('"one\ntwo","three\r\nfour"', [["one\ntwo", "three\r\nfour"]]),
    ],
)
def test_reads_what_people_write(run: Any, text: str, rows: list[list[str]]) -> None:
    assert run("((text) => [...$.records(text)])", text) == rows


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("text\nnothing, really; nothing", ","),
        ("id;text\n1;one, two", ";"),
        ("id\ttext\n1\tone, two; three", "\t"),
        ("id,text\n1;2,one; two; three", ","),
        ("id;text, or so\n1;one\n2;two", ";"),
        ('id,"text;text;text"\n1,2', ","),
        ('id;text\n1;"never closed, and so on', ";"),
        ("", ","),
    ],
)
def test_finds_the_delimiter(run: Any, text: str, delimiter: str) -> None:
    assert run("$.findDelimiter", text) == delimiter


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["id", "text"], 1),
        (["comment_text", "text"], 1),
        (["id", "comment_text", "x"], 1),
        (["anything"], 0),
        (["toxic", "body"], 1),
        (["body", "labels"], 0),
        (["title", "body"], -1),
        (["toxic", "label"], -1),
    ],
)
def test_finds_the_column_of_texts(run: Any, names: list[str], found: int) -> None:
    assert run("$.findTexts", names, ["toxic", "insult"]) == found


def test_rows_of_different_widths_become_equal(run: Any) -> None:
    made = run("$.readTable", "a,,c\n1\n1,2,3,4\n", ",")
    assert made == {
        "names": ["a", "column 2", "c", "column 4"],
        "rows": [["1", "", "", ""], ["1", "2", "3", "4"]],
    }


@pytest.mark.parametrize(
    ("content", "text", "encoding"),
    [
        ("caf\u00e9 \U0001f9a6".encode(), "caf\u00e9 \U0001f9a6", "UTF-8"),
        ("caf\u00e9".encode("utf-8-sig"), "caf\u00e9", "UTF-8"),
        ("caf\u00e9".encode("utf-16"), "caf\u00e9", "UTF-16"),
        (b"\xfe\xff" + "caf\u00e9".encode("utf-16-be"), "caf\u00e9", "UTF-16"),
        ("caf\u00e9 \u201cquoted\u201d".encode("cp1252"), "caf\u00e9 \u201cquoted\u201d", "Windows-1252"),
    ],
)
def test_characters_are_read_as_they_were_written(run: Any, content: bytes, text: str, encoding: str) -> None:
    assert run("((bytes) => $.decode(new Uint8Array(bytes)))", list(content)) == {
        "text": text,
        "encoding": encoding,
    }


@pytest.mark.parametrize(
    ("cell", "guarded"),
    [
        ("=1+1", "'=1+1"),
        ("+49 151", "'+49 151"),
        ("@name", "'@name"),
        ("-", "'-"),
        ("\t=1", "'\t=1"),
        ("-2.5e3", "-2.5e3"),
        ("+3,5", "+3,5"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_what_a_spreadsheet_would_run_is_guarded(run: Any, cell: str, guarded: str) -> None:
    assert run("$.guard", cell) == guarded


def test_labels_are_joined_as_flash_predict_joins_them(run: Any) -> None:
    assert run("$.joinLabels", ["a", "b, c", 'd "e"', " f"]) == 'a,"b, c","d ""e"""," f"'
