import gzip
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification.reading import files
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.reading.files import ending
from flash.text.classification.reading.tables import read_json

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


# ---- CSV


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), newline=st.sampled_from(["\n", "\r\n"])
)
def test_csv_round_trip(tmp_path: Path, rows: list[tuple[str, str]], newline: str) -> None:
    lines = ["text,other", *(f"{quoted(a)},{quoted(b)}" for a, b in rows)]
    path = write(tmp_path / "round.csv", newline.join(lines))
    table = read_csv(path).table
    assert list(zip(table["text"].to_pylist(), table["other"].to_pylist(), strict=True)) == rows


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "text,y\nhello,1\n", {}),
        ("a.csv", "\ufefftext,y\nhello,1\n", {}),
        ("a.csv", '\ufeff"text",y\n"hello",1', {}),
        ("a.csv", "\n\ntext,y\n\nhello,1\n\n", {}),
        ("a.tsv", "text\ty\nhello\t1\n", {}),
        ("a.txt", "text\ty\nhello\t1\n", {}),
        ("a.txt", "text,y\nhello,1\n", {}),
        ("a.csv", "text;y\nhello;1\n", {"delimiter": ";"}),
        ("a.csv", "text,y\rhello,1\r", {}),
        ("a.csv", "text,y\nhello,1\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("a.csv.gz", gzip.compress(b"text,y\nhello,1\n", mtime=0), {}),
        ("a.tsv.gz", gzip.compress(b"text\ty\nhello\t1\n", mtime=0), {}),
        ("a.tab", "text\ty\nhello\t1\n", {}),
    ],
)
def test_csv_dialects(tmp_path: Path, name: str, content: str | bytes, options: dict[str, Any]) -> None:
    table = read_csv(write(tmp_path / name, content), **options).table
    assert table.to_pydict() == {"text": ["hello"], "y": ["1"]}


@pytest.mark.parametrize("name", ["a.tsv", "a.TSV", "a.tsv.gz", "a.TSV.GZ"])
def test_tsv_is_always_tab_separated(tmp_path: Path, name: str) -> None:
    def save(content: bytes) -> Path:
        return write(tmp_path / name, gzip.compress(content) if name.lower().endswith(".gz") else content)

    assert read_csv(save(b"a,b\nx,y\n")).table.to_pydict() == {"a,b": ["x,y"]}
    assert "Known: a,b; the header holds ',': pass delimiter=','" in refused(
        read_csv, save(b"a,b\nx,y\n"), columns=["a"]
    )
    assert read_csv(save(b"a,b\nx,y\n"), delimiter=",").table.to_pydict() == {"a": ["x"], "b": ["y"]}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_header_of_txt_decides(tmp_path: Path, newline: str) -> None:
    commas = newline.join(["a,b", "x,y\tz", ""])
    assert read_csv(write(tmp_path / "a.txt", commas)).table.to_pydict() == {"a": ["x"], "b": ["y\tz"]}
    tabs = newline.join(["a\tb", "x,y\tz", ""])
    assert read_csv(write(tmp_path / "a.txt", tabs)).table.to_pydict() == {"a": ["x,y"], "b": ["z"]}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("a.csv", ".csv"),
        ("b/a.CSV", ".csv"),
        ("a.txt.ZST", ".txt"),
        ("a", ""),
        ("a.gz", ""),
        ("a.tsv.csv", ".csv"),
    ],
)
def test_the_ending_without_that_of_packing(path: str, told: str) -> None:
    assert ending(path) == told


def test_csv_cells_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,y\n007,NA\n2020-01-01,\nnull,true\n")
    assert read_csv(path).table.to_pydict() == {
        "text": ["007", "2020-01-01", "null"],
        "y": ["NA", "", "true"],
    }


def test_csv_reads_only_the_columns_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,text\n\xff,a\n")  # what is not needed may be in any encoding
    assert read_csv(path, columns=["text"]).table.to_pydict() == {"text": ["a"]}


def test_csv_with_a_cell_longer_than_a_block(tmp_path: Path) -> None:
    long = "x" * (files.BLOCK + 10)
    path = write(tmp_path / "a.csv", f"text,y\nshort,1\n{long},2\n")
    assert read_csv(path).table["text"].to_pylist() == ["short", long]


def test_in_a_file_of_one_column_an_empty_line_is_an_empty_text(tmp_path: Path) -> None:
    assert read_csv(write(tmp_path / "a.csv", "text\na\n\nb\n")).table["text"].to_pylist() == ["a", "", "b"]


def test_csv_without_quoting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\ty\n"Well" he said\t1\n"never closed\t2\n')
    assert read_csv(path, quoting=False).table["text"].to_pylist() == ['"Well" he said', '"never closed']


def test_a_quote_inside_a_bare_cell_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,y\na 5" pipe,1\n"a, ""b""",2\nsay "hi" now,3\n')
    assert read_csv(path).table["text"].to_pylist() == ['a 5" pipe', 'a, "b"', 'say "hi" now']


def test_several_files_in_the_order_given(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1.csv", "y,text\n1,a\n"), write(tmp_path / "2.csv", "text,y\nb,2\n")
    source = read_csv([second, str(first)], columns=["text", "y"])
    assert source.table.to_pydict() == {"text": ["b", "a"], "y": ["2", "1"]}


def test_ragged_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,y\na,1\nb\n\nc,2\nd,3,4\ne\nf,1,1\n")
    assert refused(read_csv, path) == (
        f"{path}: 4 rows are not as wide as the header, which has 2 columns (row 2 has 1; row 4 has 3; row "
        "5 has 1; and 1 more); put a cell that holds ',' in double quotes, or pass another delimiter= (rows "
        "are counted from 1, the header not)"
    )


@pytest.mark.parametrize("last", ["\n", ""])
def test_a_quote_that_is_never_closed(tmp_path: Path, last: str) -> None:
    path = write(tmp_path / "a.csv", 'text,y\n"a",1\n\nb,"unclosed\nc,3\nd,4' + last)
    assert refused(read_csv, path) == (
        f"{path}, row 2: a cell opens with a quote that is never closed; write a quote inside a quoted cell "
        "twice "
        '(""), or pass quoting=False if quotes are ordinary characters here (rows are counted from 1, the '
        "header not)"
    )


def test_cells_that_go_on_after_their_closing_quote(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,y\nfine,1\n"Well" he said,1\n"multi\nline",2\n"No" no,3\n')
    message = refused(read_csv, path)
    assert message.startswith(
        f"{path}: 2 cells go on after their closing quote (rows 2 and 4); write a quote"
    )


def test_rows_that_an_unclosed_quote_would_swallow_in_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,y\na,"unclosed\nb,2\nc,"unclosed\nd,4\n')
    assert "1 cell goes on after its closing quote (row 1)" in refused(read_csv, path)


def test_a_cell_before_a_quote_may_hold_a_nul(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,y\na\0b,1\nb,"unclosed\n')
    assert f"{path}, row 2: a cell opens with a quote that is never closed" in refused(read_csv, path)


def test_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,y\na,1\ncafé,2\n".encode("cp1252"))
    assert refused(read_csv, path) == (
        f"{path} is not UTF-8: byte 0xe9 at offset 14; pass encoding='cp1252', or the one it was saved in"
    )
    assert read_csv(path, encoding="cp1252").table["text"].to_pylist() == ["a", "café"]


def test_not_utf8_in_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "café,y\na,1\n".encode("latin-1"))
    assert "byte 0xe9 at offset 3; pass encoding='cp1252'" in refused(read_csv, path, columns=["y"])


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,y\na,1\n".encode("utf-16"))
    assert refused(read_csv, path) == (
        f"{path} is not UTF-8 but UTF-16: pass encoding='utf-16', or save it as UTF-8"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PAR1\x15\x04", "is a Parquet file: use from_parquet"),
        (b"PK\x03\x04\x14\0a.csv", "is a ZIP archive: unpack it and pass the file in it"),
        (
            b"PK\x03\x04\x14\0[Content_Types].xml",
            "is an Excel file: give its name the ending .xlsx, or save it as CSV",
        ),
        (
            b"PK\x03\x04\x14\0xl/workbook.xml",
            "is an Excel file: give its name the ending .xlsx, or save it as CSV",
        ),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "is an Excel file: give its name the ending .xls, or save it as CSV",
        ),
        (
            pickle.dumps(["a"], protocol=4),
            "is a pickle: load it, and pass it to from_data_frame or from_lists",
        ),
        (
            pickle.dumps(["a"], protocol=5),
            "is a pickle: load it, and pass it to from_data_frame or from_lists",
        ),
        (b"%PDF-1.7\n", "is a PDF file: save the table in it as CSV"),
        (b"SQLite format 3\0", "is an SQLite database: save the table in it as CSV"),
        (gzip.compress(b"text\na\n", mtime=0), "is packed by gzip: add .gz to its name, or unpack it"),
    ],
)
def test_files_that_are_no_text_are_recognised(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path / "a.csv", content)
    assert refused(read_csv, path) == f"{path} {words}"
    if "encoding=" not in words:
        assert refused(read_json, path) == f"{path} {words}"


def test_a_genuine_zip_and_parquet_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr("train.csv", "text\na\n")
    assert "a.csv is a ZIP archive: unpack it" in refused(read_csv, tmp_path / "a.csv")
    pa.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    assert "a.parquet is a Parquet file: use from_parquet" in refused(read_csv, tmp_path / "a.parquet")


@pytest.mark.parametrize("content", ['{"text": "a"}\n', '[\n  {"text": "a"}]'])
def test_json_read_as_csv(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.json", content)
    assert refused(read_csv, path, columns=["text"]).endswith(" looks like JSON, not CSV; use from_json")


def test_another_encoding_that_does_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"text,y\n\x81,1\n")
    message = refused(read_csv, path, encoding="cp1252")
    assert message.startswith(
        f"{path} is not in encoding='cp1252': 'charmap' codec can't decode byte 0x81 in position 7"
    )
    for unknown in ("utf-nine", "base64"):
        assert f"encoding='{unknown}' is none that Python knows" in refused(read_csv, path, encoding=unknown)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", " is empty; check its path, or put rows into it"),
        ("\n\n", " is empty; check its path, or put rows into it"),
        ("\ufeff", " is empty; check its path, or put rows into it"),
        ("text,y", " has no rows, only column names; check its path, or put rows into it"),
        ("text,y\n", " has no rows, only column names; check its path, or put rows into it"),
        (
            "text,y,y\na,1,2\n",
            ": the same column name is there more than once: 'y' (2 times); rename all but one",
        ),
        ("txt,y\na,1\n", ": unknown column 'text'; did you mean 'txt'? Known: txt, y"),
        ("a,b\n1,2\n", ": unknown column 'text'. Known: a, b"),
        (
            "id|text\na|1\n",
            ": unknown column 'text'; did you mean 'id|text'? Known: id|text; the header holds '|': pass "
            "delimiter='|'",
        ),
    ],
)
def test_csv_files_that_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path / "a.csv", content)
    assert refused(read_csv, path, columns=["text"]) == f"{path}{words}"


def test_several_unknown_columns_are_named_before_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,toxic\na,1\n")
    assert refused(read_csv, path, columns=["text", "insult", "threat", "toxi"]) == (
        f"{path}: unknown columns 'insult', 'threat' and 'toxi'; did you mean 'toxic'? Known: text, toxic"
    )
    assert "unknown columns '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 2 more and '12'. Known" in (
        refused(read_csv, path, columns=[str(number) for number in range(13)])
    )


def test_unnamed_columns_at_the_edge_are_no_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,y,,\na,1,,\n")
    assert read_csv(path, columns=["text", "y"]).table.to_pydict() == {"text": ["a"], "y": ["1"]}


@pytest.mark.parametrize("delimiter", ["", "||", "é", '"'])
def test_a_delimiter_is_one_character(tmp_path: Path, delimiter: str) -> None:
    message = refused(read_csv, tmp_path / "a.csv", delimiter=delimiter)
    assert message == f"delimiter={delimiter!r} is not one character of ASCII; pass one such as ';' or '\\t'"
