import csv
import datetime
import decimal
import io
import json
import os
import sys
import threading
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError, FlashError
from flash.text.classification.predict_files import blocks, writers
from flash.text.classification.predict_files.inputs import ENDINGS
from flash.text.classification.predict_files.streams import predict_file
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.targets.cells import read_cells
from flash.text.classification.targets.encoding import encode_targets
from flash.text.classification.targets.formats import infer_format

LABELS = ("long", "a, b", 'say "hi"')
NUL = "" if sys.version_info < (3, 11) else "\x00"  # which the csv of Python 3.10, the oracle, refuses
TEXTS = st.text(
    st.one_of(
        st.sampled_from(list('",\n\r\t;\\ ' + NUL)),
        st.characters(exclude_categories=["Cs"], exclude_characters="" if NUL else "\x00"),
    ),
    max_size=12,
)
SLOW_IS_FINE = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Lengths:
    """A backbone whose logits follow from the number of characters."""

    def logits(self, texts: pa.LargeStringArray) -> np.ndarray:
        """(N, 3): above 0 where a text is longer than 3, 5 and 7 characters."""
        lengths = np.asarray(pc.utf8_length(texts)).astype(np.float32)
        return np.stack([lengths - 3, lengths - 5, lengths - 7], axis=1)


def make_predictor(*, multi_label: bool = True) -> Predictor:
    backbone: Any = Lengths()
    return Predictor(backbone, LABELS, multi_label=multi_label, thresholds=np.full(3, 0.6, np.float32))


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    """A file written by others' code: Python's csv and json, Arrow's Parquet."""
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return path


def read(path: Path) -> dict[str, list[Any]]:
    """The counterpart of `write`; cells of CSV are text."""
    if path.suffix == ".parquet":
        return dict(pa.parquet.read_table(path).to_pydict())
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        return {name: [row[name] for row in rows] for name in rows[0]}
    with path.open(encoding="utf-8", newline="") as file:
        header, *cells = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    return {name: [row[column] for row in cells] for column, name in enumerate(header)}


@pytest.mark.parametrize("source", ["in.csv", "in.tsv", "in.jsonl", "in.parquet"])
@pytest.mark.parametrize("target", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
def test_all_columns_then_labels_then_probabilities(tmp_path: Path, source: str, target: str) -> None:
    given_columns = {"id": ["007", "", "1e3", "x"], "text": ["ab", "abcd", "abcdef\n", "abcdefgh, i"]}
    write(tmp_path / source, given_columns)
    assert predict_file(make_predictor(), tmp_path / source, tmp_path / target, input_field="text").rows == 4
    found = read(tmp_path / target)
    assert list(found) == ["id", "text", "labels", *(f"{label}_probability" for label in LABELS)]
    assert {name: found[name] for name in given_columns} == given_columns
    names: list[Any] = [[], ["long"], ["long", "a, b"], ["long", "a, b", 'say "hi"']]
    if target.endswith(("csv", "tsv")):
        names = ["", "long", 'long,"a, b"', 'long,"a, b","say ""hi"""']
    assert found["labels"] == names
    logits = np.array([2, 4, 7, 11], np.float32) - 3
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert np.allclose([float(value) for value in found["long_probability"]], expected, rtol=1e-6)


def test_labels_read_back_as_targets(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"text": ["a" * length for length in range(12)]})
    predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / "out.csv")
    source = read_csv(tmp_path / "out.csv")
    target_format = infer_format(source, "labels", multi_label=True, labels=LABELS)
    targets = encode_targets(target_format, source, "labels").toarray()
    assert (targets == (np.arange(12)[:, None] > np.array([3, 5, 7]))).all()


@pytest.mark.parametrize("target", ["out.csv", "out.jsonl", "out.parquet"])
def test_single_label_is_one_name(tmp_path: Path, target: str) -> None:
    write(tmp_path / "in.csv", {"text": ["ab", "abcdefghij"]})
    predict_file(make_predictor(multi_label=False), tmp_path / "in.csv", tmp_path / target)
    assert read(tmp_path / target)["labels"] == ["long", "long"]


def test_numbers_have_the_fewest_digits_that_give_the_float32_back(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"text": ["abcd", "abc"]})
    expected = np.array([1 / (1 + np.exp(np.float32(-1))), 0.5], np.float32)
    for target in ("out.csv", "out.jsonl"):
        predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / target)
        shown = [str(value) for value in read(tmp_path / target)["long_probability"]]
        assert shown == [str(value) for value in expected]


def test_json_lines_stay_as_they_stood(tmp_path: Path) -> None:
    lines = [
        '{"n": 1.10, "text":"abcd",  "deep": {"x": [1, null]}, "big": 123456789012345678901234}',
        '{"text": "\\u00e9"} ',
    ]
    (tmp_path / "in.jsonl").write_text("\ufeff" + "\r\n\n".join(lines), "utf-8")
    predict_file(make_predictor(), tmp_path / "in.jsonl", tmp_path / "out.jsonl", input_field="text")
    found = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    for line, before in zip(found, lines, strict=True):
        assert line.startswith(before.rstrip()[:-1] + ', "labels": [')
        assert set(json.loads(line)) == {
            *json.loads(before),
            "labels",
            *(f"{label}_probability" for label in LABELS),
        }


def test_json_values_that_are_not_text_become_json_text_in_tables(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"text": "a", "n": 1.5, "d": {"é": [1]}}\n{"n": null, "text": "b"}\n', "utf-8"
    )
    predict_file(make_predictor(), tmp_path / "in.jsonl", tmp_path / "out.parquet", input_field="text")
    found = read(tmp_path / "out.parquet")
    assert (found["n"], found["d"]) == (["1.5", None], ['{"é": [1]}', None])


def test_parquet_types_pass_through_and_have_words_in_text_formats(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["abcd", "é"]).dictionary_encode(),
            "n": pa.array([1.5, float("nan")]),
            "list": pa.array([["x"], None]),
            "day": pa.array([0, 1], pa.date32()),
            "raw": pa.array([b"\xff", None]),
        }
    )
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    for target in ("out.parquet", "out.jsonl", "out.csv"):
        predict_file(make_predictor(), tmp_path / "in.parquet", tmp_path / target, input_field="text")
    assert (
        pa.parquet.read_table(tmp_path / "out.parquet").select(table.column_names).schema.equals(table.schema)
    )
    lines = read(tmp_path / "out.jsonl")
    assert [lines[name] for name in ("n", "list", "day", "raw")] == [
        [1.5, None], [["x"], None], ["1970-01-01", "1970-01-02"], ["ff", None],
    ]  # fmt: skip
    cells = read(tmp_path / "out.csv")
    assert [cells[name] for name in ("text", "list", "day", "raw")] == [
        ["abcd", "é"], ['["x"]', ""], ["1970-01-01", "1970-01-02"], ["ff", ""],
    ]  # fmt: skip


@SLOW_IS_FINE
@given(texts=st.lists(TEXTS, min_size=1, max_size=8), rows=st.integers(1, 5), chunk=st.integers(1, 40))
def test_hostile_texts_survive_every_format(tmp_path: Path, texts: list[str], rows: int, chunk: int) -> None:
    predictor = make_predictor()
    names = ["a.csv", "b.tsv", "c.jsonl", "d.parquet", "e.jsonl", "f.csv"]
    write(tmp_path / names[0], {"text": texts, 't,\n"': texts})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CHUNK", chunk)
        for step, (source, target) in enumerate(pairwise(names)):
            done = predict_file(
                predictor,
                tmp_path / source,
                tmp_path / target,
                input_field="text",
                rows=rows,
                prefix=f"{step} ",
            )
            assert done.rows == len(texts)
            assert read(tmp_path / target)["text"] == texts
    assert read(tmp_path / names[-1])['t,\n"'] == texts


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_other_encodings(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHUNK", 3)
    (tmp_path / "in.csv").write_bytes("text\nça\nœuf".encode(encoding))
    predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / "out.csv", encoding=encoding)
    assert read(tmp_path / "out.csv")["text"] == ["ça", "œuf"]


@pytest.mark.parametrize("source", ["in.csv", "in.parquet"])
@pytest.mark.parametrize("target", ["out.csv", "out.jsonl", "out.parquet"])
def test_header_without_rows(tmp_path: Path, source: str, target: str) -> None:
    if source == "in.csv":
        (tmp_path / source).write_text("id,text\n\n")
    else:
        pa.parquet.write_table(
            pa.table({"id": pa.array([], pa.int8()), "text": pa.array([], pa.string())}), tmp_path / source
        )
    assert predict_file(make_predictor(), tmp_path / source, tmp_path / target, input_field="text").rows == 0
    written = (tmp_path / target).read_bytes()
    if target == "out.csv":
        assert written.startswith(b'"id","text","labels"')
        assert written.count(b"\n") == 1
    elif target == "out.jsonl":
        assert written == b""
    else:
        assert pa.parquet.read_table(tmp_path / target).column_names[:3] == ["id", "text", "labels"]


def test_one_row_of_a_megabyte_and_many_labels(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"text": ["a" * 10_000_000, "b", "c\n" * 5_000_000]})
    predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / "out.parquet")
    assert [len(text) for text in read(tmp_path / "out.parquet")["text"]] == [10_000_000, 1, 10_000_000]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHUNK", 2**14)
    monkeypatch.setattr(writers, "ROW_GROUP", 500)
    (tmp_path / "small.csv").write_text("text\nabc\n")
    predict_file(
        make_predictor(), tmp_path / "small.csv", tmp_path / "out.csv"
    )  # what is imported on first use
    line = f"{'word ' * 20},7\n"
    (tmp_path / "in.csv").write_text("text,n\n" + line * (100 * 2**14 // len(line)))
    peaks: dict[str, int] = {}
    for target in ("out.csv", "out.jsonl", "out.parquet"):
        sizes: list[int] = []
        arrow: list[int] = []

        def record(rows: int, sizes: list[int] = sizes, arrow: list[int] = arrow) -> None:
            sizes.append(rows)
            arrow.append(pa.total_allocated_bytes())

        before = pa.total_allocated_bytes()
        tracemalloc.start()
        predict_file(
            make_predictor(), tmp_path / "in.csv", tmp_path / target, input_field="text", progress=record
        )
        peaks[target] = tracemalloc.get_traced_memory()[1] + max(arrow) - before
        tracemalloc.stop()
        assert len(sizes) >= 50
    size = (tmp_path / "in.csv").stat().st_size
    assert max(peaks.values()) < size / 2, (peaks, size)


# ------------------------------------------------------------------------------------------ the mistakes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"text;n\na,b;1\n", "in double quotes, or pass another delimiter=; the "
         "header holds ';': pass delimiter=';'"),
        (b"text\na, b\n", "another delimiter=; if each line is one text, pass delimiter='\\t', which no text"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "a.csv is Git LFS's pointer to a file, and not"),
        (b"<!DOCTYPE html><html></html>\nx\n", "a.csv is a web page: download the file itself"),
    ],
)  # fmt: skip
def test_files_of_one_column_that_are_something_else(
    tmp_path: Path, content: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_bytes(content)
    for read in (lambda: list(blocks.read_blocks("a.csv", "csv")), lambda: read_csv("a.csv")):
        with pytest.raises(DataError) as caught:
            read()
        assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_nothing_is_piped_in(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(b"")))
    with pytest.raises(DataError, match="^standard input is empty; check what is piped into it, or put "):
        list(blocks.read_blocks("-", kind))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "a.csv is empty; check its path, or put column names and rows into it"),
        ("a.csv", b"\n\n", "a.csv is empty"),
        ("a.jsonl", b"\n", "a.jsonl is empty; check its path, or put one JSON object per line into it"),
        ("a.csv", b"txet,b\n1,2\n", "unknown column 'text'; did you mean 'txet'? Known: txet, b"),
        ("a.csv", b"text,text\n1,2\n", "the same column name is there more than once: 'text' (2 times)"),
        ("a.csv", b"text,n\n1,2\nx\n3,4\n", "a.csv, row 2: 1 cell where the header has 2 columns; put"),
        ("a.csv", b"text,n\n1,2\n3,4\nx,y,z\n1\n", "row 3: 3 cells where the header has 2 columns (2 such"),
        ("a.csv", b'text,n\n1,2\n"x\n,3\n4,5\n', "row 2: a cell opens with a quote that is never closed"),
        ("a.csv", b'text,"n\n1,2\n', "a.csv, the header: a cell opens with a quote"),
        ("a.csv", b"text\nok\ncaf\xe9\n", "byte 0xe9 at offset 11; pass encoding='cp1252'"),
        ("a.csv", b"text\nok\ncaf\xc3", "a.csv is not UTF-8: byte 0xc3 at offset 11"),
        ("a.csv", "text\nok\n".encode("utf-16"), "offset 0; pass encoding='utf-16'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": nul}\n', "row 2: not JSON (Expecting value at column 10)"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "a.jsonl, row 2: [1] is not an object; expected {...}"),
        ("a.jsonl", b'[{"text": "a"}]', "a.jsonl is a JSON array, which cannot be read a row"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', "row 2: 'text' is null, not a text; give such a row"),
        ("a.jsonl", b'{"text": 5}\n{"x": 1}\n', "'text' is 5, not a text (2 such rows from there to row 2)"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', "row 2: 'text' holds half of a surrogate pair"),
        ("a.parquet", b"", "a.parquet is not a Parquet file: Parquet file size is 0 bytes; check its path"),
        ("a.parquet", b"text\n1\n", "a.parquet is not a Parquet file: "),
        ("a.csv", b"text,labels\n1,2\n", "a.csv has a column named 'labels' already; pass prefix="),
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [3, 2**20])
def test_unreadable_files(
    tmp_path: Path, name: str, content: bytes, words: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    Path("out.csv").write_text("earlier")
    monkeypatch.setattr(blocks, "CHUNK", max(chunk, len(content)) if "(2 such" in words else chunk)
    with pytest.raises(DataError) as caught:
        predict_file(make_predictor(), name, "out.csv", input_field="text")
    assert words in str(caught.value)
    assert Path("out.csv").read_text() == "earlier"
    assert {path.name for path in Path().iterdir()} == {name, "out.csv"}


def test_null_and_foreign_texts_of_parquet_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", {"text": ["a", "b", None, "c", None], "n": [1, 2, 3, 4, 5]})
    with pytest.raises(
        DataError, match=r"2 rows have no text in column 'text' \(.*in.parquet, rows 3 and 5\)"
    ):
        predict_file(make_predictor(), tmp_path / "in.parquet", tmp_path / "out.csv", input_field="text")
    with pytest.raises(
        DataError, match=r"row 3; fill|in.parquet, row 3\)"
    ):  # in the second block, and still row 3
        predict_file(
            make_predictor(), tmp_path / "in.parquet", tmp_path / "out.csv", input_field="text", rows=2
        )
    with pytest.raises(DataError, match=r"column 'n' holds int64, not text \(.*row 1: 1\)"):
        predict_file(make_predictor(), tmp_path / "in.parquet", tmp_path / "out.csv", input_field="n")
    assert not (tmp_path / "out.csv").exists()


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", {"text": [f"{row:0100}" for row in range(1000)]})
    content = bytearray(path.read_bytes())
    content[100:5000] = bytes(4900)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"in.parquet is damaged behind row 0: .*; copy it again"):
        predict_file(make_predictor(), path, tmp_path / "out.csv")


def test_several_files_are_one_output(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", {"id": ["1", "3"], "text": ["ab", "abcd"]})
    write(tmp_path / "in" / "b.csv", {"text": ["abcdef"], "id": ["2"]})  # its columns in another order
    for source in (
        tmp_path / "in",
        str(tmp_path / "in" / "*.csv"),
        [tmp_path / "in/a.csv", tmp_path / "in/b.csv"],
    ):
        done = predict_file(make_predictor(), source, tmp_path / "out.csv", source_field="file")
        assert (done.rows, done.labelled, done.counts.tolist(), done.files) == (3, 2, [2, 1, 0], 2)
        made = read(tmp_path / "out.csv")
        assert list(made)[:4] == ["id", "text", "file", "labels"]
        assert made["id"] == ["1", "3", "2"]
        assert made["labels"] == ["", "long", 'long,"a, b"']
        assert made["file"] == [str(tmp_path / "in" / name) for name in ("a.csv", "a.csv", "b.csv")]


def test_a_folder_gets_an_output_for_each_file(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", {"text": ["abcd"]})
    write(tmp_path / "b.jsonl", {"text": ["ab"], "id": [1]})
    sources = [tmp_path / "a.csv", tmp_path / "b.jsonl"]
    done = predict_file(make_predictor(), sources, f"{tmp_path}/new/out/")
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == ["a.csv", "b.jsonl"]
    assert done.rows == 2
    predict_file(make_predictor(), sources, tmp_path / "new" / "out", output_format="parquet")
    assert read(tmp_path / "new" / "out" / "b.parquet")["labels"] == [[]]


@pytest.mark.parametrize(
    ("name", "columns", "target", "words"),
    [
        ("b.csv", {"text": ["a"]}, "out.csv", "b.csv has no column 'id', and {first} has; give the files the same"),
        ("b.csv", {"text": ["a"], "id": ["1"], "new": ["2"]}, "out.csv", "b.csv has the column 'new', and {first} has not"),
        ("b.parquet", {"text": ["a"], "id": [1]}, "out.parquet",
         "b.parquet holds int64 in the column 'id', and {first} large_string; give the files"),
    ],
)  # fmt: skip
def test_files_of_other_columns_are_no_one_output(
    tmp_path: Path, name: str, columns: dict[str, list[Any]], target: str, words: str
) -> None:
    first = write(tmp_path / "a.csv", {"id": ["1"], "text": ["ab"]})
    other = write(tmp_path / name, columns)
    with pytest.raises(DataError) as caught:
        predict_file(make_predictor(), [first, other], tmp_path / target)
    assert words.format(first=first) in str(caught.value)
    assert "name a folder that gets an output for each of them, such as predictions/" in str(caught.value)
    assert not (tmp_path / target).exists()


def test_files_of_other_endings_in_a_folder_are_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", {"text": ["abcd"]})
    (tmp_path / "in" / "notes.md").write_text("no data")
    (tmp_path / "in" / ".hidden.csv").write_text("no data")
    with pytest.warns(UserWarning, match=r"in: 1 file of other endings left out \(notes.md\)"):
        assert predict_file(make_predictor(), tmp_path / "in", tmp_path / "out.csv").rows == 1


@pytest.mark.parametrize(
    ("source", "target", "delimiter", "asked", "found"),
    [
        ("in.csv", "out.csv", ";", None, b";"),
        ("in.csv", "out.csv", None, None, b","),
        ("in.csv", "out.tsv", ";", None, b"\t"),
        ("in.tsv", "out.csv", None, None, b","),
        ("in.csv", "out.csv", ";", "|", b"|"),
        ("in.txt", "out.txt", "\t", None, b"\t"),
        ("in.txt", "out.csv", "\t", None, b","),
    ],
)
def test_the_delimiter_of_the_output_is_that_of_the_input(
    tmp_path: Path, source: str, target: str, delimiter: str | None, asked: str | None, found: bytes
) -> None:
    used = delimiter or {"in.tsv": "\t"}.get(source, ",")
    (tmp_path / source).write_text(f"id{used}text\n1{used}abcd\n")
    predict_file(
        make_predictor(), tmp_path / source, tmp_path / target, delimiter=delimiter, output_delimiter=asked
    )
    assert (tmp_path / target).read_bytes().startswith(b'"id"%b"text"%b"labels"' % (found, found))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_the_output_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    write(tmp_path / "in.csv", {"text": ["café", "naïve € text"]})
    predict_file(
        make_predictor(), tmp_path / "in.csv", tmp_path / "out.csv", output_encoding=encoding, rows=1
    )
    content = (tmp_path / "out.csv").read_bytes()
    lines = content.decode(encoding).splitlines()
    assert [line.split(",")[0] for line in lines] == ['"text"', '"café"', '"naïve € text"']
    assert content.count("\ufeff".encode("utf-8")) == (encoding == "utf-8-sig")


def test_a_character_that_the_output_cannot_hold(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"id": ["1", "2"], "text": ["fine", "an → arrow"]})
    (tmp_path / "out.csv").write_text("earlier")
    with pytest.raises(DataError) as caught:
        predict_file(
            make_predictor(), tmp_path / "in.csv", tmp_path / "out.csv", output_encoding="cp1252", rows=1
        )
    assert str(caught.value) == (
        f"{tmp_path / 'in.csv'}: row 2, column 'text', holds '→' (U+2192), which is not in cp1252; pass "
        "output_encoding='utf-8-sig', which Excel reads too"
    )
    assert (tmp_path / "out.csv").read_text() == "earlier"


class Fields(Lengths):
    """As `Lengths` of what stands behind the separator."""

    def logits(self, texts: pa.LargeStringArray) -> np.ndarray:
        seconds = [text.split("\x1f")[1] for text in texts.to_pylist()]
        return super().logits(pa.array(seconds, pa.large_string()))


def make_two_field_predictor() -> Predictor:
    backbone: Any = Fields()
    return Predictor(
        backbone,
        LABELS,
        multi_label=True,
        thresholds=np.full(3, 0.6, np.float32),
        input_fields=["title", "body"],
    )


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_the_columns_that_the_model_remembers_are_found(tmp_path: Path, name: str) -> None:
    columns: dict[str, list[Any]] = {"body": ["abcd", "ab"], "text": ["x", "y"], "title": ["long enough", ""]}
    write(tmp_path / name, columns)
    done = predict_file(make_two_field_predictor(), tmp_path / name, tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")["labels"] == [["long"], []]
    assert done.counts.tolist() == [1, 0, 0]
    for asked in (["title", "body"], ["body", "title"], ["text", "body"]):
        predict_file(make_two_field_predictor(), tmp_path / name, tmp_path / "out.jsonl", input_field=asked)
        assert read(tmp_path / "out.jsonl")["labels"] == [["long"], []]


def test_null_fields_are_empty_texts(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"title": [None, "a"], "body": ["abcd", None]})
    predict_file(make_two_field_predictor(), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")["labels"] == [["long"], []]
    write(tmp_path / "in.jsonl", {"title": ["a", None], "body": ["abcd", None]})
    with pytest.raises(DataError, match=r"in.jsonl, row 2: 'title' is null, not a text"):
        predict_file(make_two_field_predictor(), tmp_path / "in.jsonl", tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (None, "in.csv has no column 'title', and the model was trained on the columns 'title', 'body'; its columns are "
         "id, text, body; pass input_field=[...] with the 2 that stand for these, in this order"),
        ("text", "in.csv: the model was trained on 2 columns of texts, 'title', 'body', and 1 is named ('text'); name as "
         "many, in this order, or pass input_field=['title', 'body']"),
        (["body", "text"], "the columns 'body', 'text' stand in another order than in training ('title', 'body'): 'body' "
         "is the model's field number 2; pass input_field=['title', 'body']"),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_is_named(tmp_path: Path, asked: Any, words: str) -> None:
    write(tmp_path / "in.csv", {"id": ["1"], "text": ["a"], "body": ["b"]})
    with pytest.raises(DataError) as caught:
        predict_file(make_two_field_predictor(), tmp_path / "in.csv", tmp_path / "out.csv", input_field=asked)
    assert words in str(caught.value)


def test_one_remembered_column_is_found_before_others(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"text": ["a"], "post": ["abcd"]})
    predictor = make_predictor()
    predictor.input_fields = ("post",)
    predict_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")["labels"] == ["long"]
    write(tmp_path / "in.csv", {"text": ["abcd"], "id": ["1"]})  # it is not there: as ever
    predict_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")["labels"] == ["long"]


def test_which_column(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"id": ["1"], "body": ["a"]})
    with pytest.raises(
        DataError, match=r"has 2 columns \(id, body\); pass input_field=\.\.\. with the one of texts"
    ):
        predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / "out.csv")


def test_a_new_key_cannot_join_a_table_that_has_begun(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a", "n": 1}\n{"text": "b"}\n{"text": "c", "new": 1}\n')
    for target in ("out.csv", "out.parquet"):
        with pytest.raises(
            DataError,
            match=r"rows from 3 on have the key 'new', which no earlier row has; .*: pass output_format=.jsonl.",
        ):
            predict_file(
                make_predictor(), tmp_path / "in.jsonl", tmp_path / target, input_field="text", rows=1
            )
    predict_file(make_predictor(), tmp_path / "in.jsonl", tmp_path / "o.jsonl", input_field="text", rows=1)
    assert json.loads((tmp_path / "o.jsonl").read_text().splitlines()[2])["new"] == 1


def test_half_a_surrogate_pair_in_another_column(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a", "n": "\\ud800"}\n')
    with pytest.raises(
        DataError, match=r"rows 1 to 1 hold half of a surrogate pair .*repair it or write JSON lines"
    ):
        predict_file(make_predictor(), tmp_path / "in.jsonl", tmp_path / "out.csv", input_field="text")


def test_a_row_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONGEST_ROW", 1000)
    monkeypatch.setattr(blocks, "CHUNK", 100)
    (tmp_path / "in.csv").write_text('text\n"' + "a\n" * 2000)
    with pytest.raises(DataError, match="a row is longer than 1,000 bytes"):
        predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"source": "a.dat"}, "a.dat: the ending tells no format (known: .csv, .txt, .tsv, .tab, .json,"),
        ({"target": "out"}, "out: the ending tells no format .* pass output_format='csv', or tsv, jsonl or"),
        ({"target": "out.csv.gz"}, "out.csv.gz: output is not packed; name a file without '.gz'"),
        ({"input_format": "cvs"}, "unknown format 'cvs'; did you mean 'csv'? Known: csv, tsv, jsonl"),
        ({"source": "b.csv"}, "b.csv does not exist; did you mean 'a.csv'?"),
        ({"source": "folder"}, "the folder folder holds no file to read (it is empty); expected endings are .csv,"),
        ({"source": ["a.csv", "a.csv"]}, "a.csv is named more than once, and would be predicted so"),
        ({"source": ["a.csv", "-"]}, "- is standard input, and stands alone"),
        ({"source": "-", "target": "folder"}, "folder is a folder; name a file in it for the rows of standard"),
        ({"source": ["a.csv", "a.dat"], "target": "folder", "input_format": "csv", "output_format": "csv"},
         "a.csv and a.dat would both become folder/a.csv; name files of different names, or one output for all"),
        ({"output_delimiter": "||"}, "output_delimiter='||' is not one character of ASCII; pass one such as ';'"),
        ({"output_delimiter": ";", "target": "out.jsonl"}, "output_delimiter=';' is for CSV and TSV, and out.jsonl is"),
        ({"output_encoding": "cp1251", "target": "out.parquet"}, "output_encoding='cp1251' is for CSV and TSV"),
        ({"output_encoding": "utf-88"}, "output_encoding='utf-88' is none that Python knows; pass one such as"),
        ({"output_encoding": "base64"}, "output_encoding='base64' is none that Python knows"),
        ({"source_field": "text"}, "a.csv has a column named 'text' already"),
        ({"target": "none/out.csv"}, "out.csv cannot be written: No such file or directory; choose"),
        ({"encoding": "utf-88"}, "encoding='utf-88' is not known; pass encoding='cp1252' or the like"),
        ({"encoding": "base64"}, "encoding='base64' is not known"),
        ({"rows": 0}, "batch_size is 0; expected 1 or more"),
        ({"thresholds": {"lnog": 0.5}}, "unknown label 'lnog'; did you mean 'long'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(
    tmp_path: Path, keywords: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text\nabc\n")
    Path("a.dat").write_text("text\nabc\n")
    Path("folder").mkdir()
    with pytest.raises(FlashError) as caught:
        predict_file(make_predictor(), **{"source": "a.csv", "target": "out.csv", **keywords})
    for part in words.split(" .* "):
        assert part in str(caught.value)
    assert not Path("out.csv").exists()


# -------------------------------------------------------------------------------------- files and pipes


def test_the_output_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "in.csv", {"text": ["abcd", "b"]})
    (tmp_path / "file.csv").write_text("earlier")
    (tmp_path / "file.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to(tmp_path / "file.csv")
    predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert read(tmp_path / "file.csv")["labels"] == ["long", ""]
    assert (tmp_path / "file.csv").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.csv", "in.csv", "link.csv"]


@pytest.mark.parametrize("source", ["file.csv", "fil*.csv", "link.csv"])
def test_the_output_is_never_the_input(tmp_path: Path, source: str) -> None:
    write(tmp_path / "file.csv", {"text": ["abcd", "b"]})
    before = (tmp_path / "file.csv").read_bytes()
    (tmp_path / "link.csv").symlink_to(tmp_path / "file.csv")
    with pytest.raises(
        FlashError, match="file.csv is the input itself, which would be lost; name another file"
    ):
        predict_file(make_predictor(), tmp_path / source, tmp_path / "file.csv")
    assert (tmp_path / "file.csv").read_bytes() == before


def test_an_error_late_in_the_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text,n\n" + "a,1\n" * 10 + "b\n")
    (tmp_path / "out.csv").write_text("earlier")
    with pytest.raises(DataError, match="row 11: 1 cell"):
        predict_file(make_predictor(), tmp_path / "in.csv", tmp_path / "out.csv", input_field="text", rows=1)
    assert (tmp_path / "out.csv").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 2


def test_named_pipes_are_read_and_written_directly(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    os.mkfifo(source)
    os.mkfifo(target)
    received: list[bytes] = []
    threads = [
        threading.Thread(target=source.write_bytes, args=(b"text\nabcd\n",)),
        threading.Thread(target=lambda: received.append(target.read_bytes())),
    ]
    for thread in threads:
        thread.start()
    assert predict_file(make_predictor(), source, target).rows == 1
    for thread in threads:
        thread.join(10)
    assert received[0].split(b"\n")[1].startswith(b'"abcd","long",0.73105')
    assert target.is_fifo()


class Pipe:
    """What `sys.stdin` or `sys.stdout` is to us: a name for a binary file."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer


@pytest.mark.parametrize(
    ("content", "input_format", "begins"),
    [
        (b"text\nabcd\n", None, b'"text","labels"'),
        (b"text\tn\na\tb\n", "tsv", b'"text"\t"n"\t"labels"'),
        (b'{"text": "a"}\n', "jsonl", b'{"text": "a", "labels": []'),
    ],
)
def test_standard_input_to_standard_output(
    content: bytes, input_format: str | None, begins: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(content)))
    monkeypatch.setattr(sys, "stdout", Pipe(output))
    assert predict_file(make_predictor(), "-", "-", input_field="text", input_format=input_format).rows == 1
    assert output.getvalue().startswith(begins)


def test_parquet_to_standard_output_is_csv_and_from_standard_input_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Pipe(output))
    write(tmp_path / "in.parquet", {"text": ["abcd"]})
    predict_file(make_predictor(), tmp_path / "in.parquet")
    assert output.getvalue().startswith(b'"text","labels"')
    with pytest.raises(
        DataError, match="standard input: Parquet is read from its end, so it cannot be piped"
    ):
        predict_file(make_predictor(), "-", input_format="parquet")


def test_rows_of_a_slow_pipe_come_through_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [os.pipe(), os.pipe()]
    monkeypatch.setattr(sys, "stdin", Pipe(os.fdopen(ends[0][0], "rb")))
    monkeypatch.setattr(sys, "stdout", Pipe(os.fdopen(ends[1][1], "wb")))
    thread = threading.Thread(target=predict_file, args=(make_predictor(), "-"))
    thread.start()
    with os.fdopen(ends[0][1], "wb", 0) as ours, os.fdopen(ends[1][0], "rb", 0) as theirs:
        ours.write(b"text\n")
        assert theirs.read(1000).startswith(b'"text","labels"')
        for text in (b"abcd", b"efghij"):
            ours.write(text + b"\n")  # the answer comes although the pipe stays open
            assert theirs.read(1000).startswith(b'"' + text + b'","long')
        ours.close()
        thread.join(10)
        assert not thread.is_alive()
    sys.stdin.buffer.close()
    sys.stdout.buffer.close()


def test_unknown_formats_have_neither_reader_nor_writer() -> None:
    assert list(blocks.READERS) == [*writers.WRITERS, "excel", "fasttext"]
    assert {*ENDINGS.values(), "fasttext"} == set(blocks.READERS)


NAMES = st.text(st.sampled_from(' \t\n\r,;|"ab\u00a0\u3000'), min_size=1, max_size=6).filter(str.strip)


@SLOW_IS_FINE
@given(names=st.lists(NAMES, min_size=3, max_size=3, unique_by=str.strip), multi_label=st.booleans())
@pytest.mark.filterwarnings("ignore:.*the cell in column 'labels' runs over:UserWarning")
def test_labels_of_any_characters_are_read_back_from_csv(
    names: list[str], multi_label: bool, tmp_path: Path
) -> None:
    """Line ends, white space at the edges, delimiters and quotes in names."""
    backbone: Any = Lengths()
    thresholds = np.full(3, 0.6, np.float32)
    predictor = Predictor(backbone, names, multi_label=multi_label, thresholds=thresholds)
    texts = ["a", "abcd", "abcdef", "abcdefgh"]
    predict_file(predictor, write(tmp_path / "in.csv", {"text": texts}), tmp_path / "out.csv", prefix="p ")
    source = read_csv(tmp_path / "out.csv")
    options: dict[str, Any] = {"multi_label": multi_label, "labels": names, "label_delimiter": None}
    cells, field, delimiter = read_cells({"": source}, "p labels", **options)
    target_format = infer_format(cells[""], field, **{**options, "label_delimiter": delimiter})
    found = encode_targets(target_format, cells[""], field).toarray()
    probabilities = predictor.probabilities(texts)
    if multi_label:
        assert (found == (probabilities >= thresholds)).all()
    else:
        assert (found.argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_types_that_csv_does_not_know(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 1, 31)
    columns = {
        "text": ["abcd"],
        "list": pa.array([[1.5, float("nan")]]),
        "struct": pa.array([{"a": b"\xff", "b": [day]}]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "dictionary": pa.array(["x"]).dictionary_encode(),
        "duration": pa.array([1_500], pa.duration("ms")),
        "durations": pa.array([[1_500]], pa.list_(pa.duration("ms"))),
        "decimal": pa.array([decimal.Decimal("1.20")]),
        "bytes": pa.array([b"\xff\x00"]),
        "two bytes": pa.array([b"ab"], pa.binary(2)),
        "view": pa.array(["x"], pa.string_view()),
        "late": pa.array([2**60], pa.timestamp("us")),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    for ending in ("csv", "jsonl"):
        predict_file(
            make_predictor(), tmp_path / "in.parquet", tmp_path / f"out.{ending}", input_field="text"
        )
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    expected = {
        "list": "[1.5, null]",
        "struct": '{"a": "ff", "b": ["2024-01-31T00:00:00"]}',
        "map": '[["k", 1]]',
        "dictionary": "x",
        "duration": "1.5",
        "durations": "[1.5]",
        "decimal": "1.20",
        "bytes": "ff00",
        "two bytes": "6162",
        "view": "x",
    }
    assert {name: row[name] for name in expected} == expected
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    values = json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert values["list"] == [1.5, None]
    assert values["duration"] == 1.5
    assert values["late"] == row["late"]


def test_bytes_that_are_no_text_in_parquet(tmp_path: Path) -> None:
    content = pa.py_buffer(b"\xff")
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), content])
    pa.parquet.write_table(pa.table({"text": ["abcd"], "note": bad}), tmp_path / "a.parquet")
    for target in ("b.csv", "b.jsonl"):
        with pytest.raises(
            DataError, match="the column 'note' holds bytes that are not UTF-8 in rows 1 to 1"
        ):
            predict_file(make_predictor(), tmp_path / "a.parquet", tmp_path / target, input_field="text")


@pytest.mark.parametrize("header", ["text", "text,labels_of_mine"])
def test_a_header_without_a_line_end(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(header)
    assert (
        predict_file(make_predictor(), tmp_path / "a.csv", tmp_path / "b.csv", input_field="text").rows == 0
    )
    assert next(iter(read(tmp_path / "b.csv"))) == "text"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("content", ["text,label\na b,c\n", "文本,标签\n你好,好\n"])
def test_utf_16_without_a_mark(encoding: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode(encoding))
    sentence = f"is not UTF-8 but UTF-16 without a mark: pass encoding='{encoding}', or save it as UTF-8"
    for attempt in (
        lambda: predict_file(make_predictor(), tmp_path / "a.csv", tmp_path / "b.csv"),
        lambda: read_csv(tmp_path / "a.csv"),
    ):
        with pytest.raises(DataError, match=sentence):
            attempt()
    assert read_csv(tmp_path / "a.csv", encoding=encoding).table.num_rows == 1


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("[" * 100_000 + "]" * 100_000, "lists or objects that are nested too deeply at column 1"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "lists or objects that are nested too deeply at column 1"),
        ("1" * 5_000, "a number of 5,000 digits, which is too long at column 23"),
    ],
    ids=["lists", "objects", "digits"],
)
def test_json_lines_that_no_parser_takes(value: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "more": {value}}}\n')
    with pytest.raises(DataError) as found:
        predict_file(make_predictor(), tmp_path / "a.jsonl", tmp_path / "b.jsonl", input_field="text")
    assert str(found.value) == f"{tmp_path}/a.jsonl, row 1: not JSON ({problem}); write one object per line"
