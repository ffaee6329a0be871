import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification import readers
from flash.text.classification.readers import (
    Source,
    find_files,
    read_csv,
    read_data_frame,
    read_hf_dataset,
    read_json,
    read_lists,
    read_parquet,
    text_array,
    text_column,
)

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
    assert source.places([1, 3]) == "train.csv, row 2; train.csv, row 4"
    assert source.places(range(5)) == "train.csv, row 1; train.csv, row 2; train.csv, row 3; and 2 more"


# ---- CSV


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        ("a.csv.gz", gzip.compress(b"text,y\nhello,1\n"), {}),
        ("a.tsv.gz", gzip.compress(b"text\ty\nhello\t1\n"), {}),
    ],
)
def test_csv_dialects(tmp_path: Path, name: str, content: str | bytes, options: dict[str, Any]) -> None:
    table = read_csv(write(tmp_path / name, content), **options).table
    assert table.to_pydict() == {"text": ["hello"], "y": ["1"]}


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
    long = "x" * (readers.BLOCK + 10)
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
        "5 has 1; and 1 more); put a cell that holds ',' in double quotes, or pass another delimiter="
    )


@pytest.mark.parametrize("last", ["\n", ""])
def test_a_quote_that_is_never_closed(tmp_path: Path, last: str) -> None:
    path = write(tmp_path / "a.csv", 'text,y\n"a",1\n\nb,"unclosed\nc,3\nd,4' + last)
    assert refused(read_csv, path) == (
        f"{path}, row 2: a cell opens with a quote that is never closed; write a quote inside a quoted cell "
        "twice "
        '(""), or pass quoting=False if quotes are ordinary characters here'
    )


def test_cells_that_go_on_after_their_closing_quote(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,y\nfine,1\n"Well" he said,1\n"multi\nline",2\n"No" no,3\n')
    message = refused(read_csv, path)
    assert message.startswith(
        f"{path}: 2 cells go on after their closing quote (row 2; row 4); write a quote"
    )


def test_rows_that_an_unclosed_quote_would_swallow_in_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,y\na,"unclosed\nb,2\nc,"unclosed\nd,4\n')
    assert "1 cell goes on after its closing quote (row 1)" in refused(read_csv, path)


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
    assert "at offset 0; pass encoding='utf-16'" in refused(read_csv, path)


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
        ("", " is empty; is it the right file?"),
        ("\n\n", " is empty; is it the right file?"),
        ("\ufeff", " is empty; is it the right file?"),
        ("text,y", " has no rows, only column names; is it the right file?"),
        ("text,y\n", " has no rows, only column names; is it the right file?"),
        (
            "text,y,y\na,1,2\n",
            ": the same column name is there more than once: 'y' (2 times); rename all but one",
        ),
        ("txt,y\na,1\n", ": unknown column 'text'; did you mean 'txt'? Known: txt, y"),
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


def test_unnamed_columns_at_the_edge_are_no_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,y,,\na,1,,\n")
    assert read_csv(path, columns=["text", "y"]).table.to_pydict() == {"text": ["a"], "y": ["1"]}


@pytest.mark.parametrize("delimiter", ["", "||", "é", '"'])
def test_a_delimiter_is_one_character(tmp_path: Path, delimiter: str) -> None:
    message = refused(read_csv, tmp_path / "a.csv", delimiter=delimiter)
    assert message == f"delimiter={delimiter!r} is not one character of ASCII; pass one such as ';' or '\\t'"


# ---- finding files


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text\na\n")
    assert refused(find_files, f"{tmp_path}/trian.csv", "csv") == (
        f"{tmp_path}/trian.csv does not exist; did you mean '{tmp_path}/train.csv'?"
    )
    assert refused(find_files, f"{tmp_path}/zzzzzz", "csv") == (
        f"{tmp_path}/zzzzzz does not exist; check its path"
    )
    assert f"there is no folder '{tmp_path}/none'" in refused(find_files, f"{tmp_path}/none/a.csv", "csv")
    assert refused(find_files, f"{tmp_path}/*.tsv", "csv") == (
        f"no file matches '{tmp_path}/*.tsv'; check the folder and the ending"
    )
    assert refused(find_files, tmp_path, "csv") == (
        f"{tmp_path} is a folder, not a file; for every file in it pass '{tmp_path}/*.csv'"
    )
    assert refused(find_files, [], "csv") == (
        "no file given; pass a path such as 'train.csv', a list of paths, or a glob"
    )
    assert (
        "is a URL; download it first: flash.core.data.download_data('https://x.org/a.csv', 'data/')"
        in refused(find_files, "https://x.org/a.csv", "csv")
    )


def test_a_name_with_brackets_is_itself_before_it_is_a_glob(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].csv", "text\na\n")
    assert find_files(str(path), "csv") == [path]


# ---- JSON

OBJECTS = [{"text": "a", "labels": ["x"]}, {"text": "é\n\u2028", "labels": []}]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("\n".join(json.dumps(row) for row in OBJECTS), None),
        ("\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in OBJECTS) + "\n", None),
        ("\n".join(json.dumps(row, indent=1) for row in OBJECTS), None),
        (json.dumps(OBJECTS), None),
        ("\ufeff  " + json.dumps(OBJECTS, indent=2), None),
        (json.dumps({"version": 1, "data": OBJECTS}), "data"),
    ],
)
def test_json_shapes(tmp_path: Path, content: str, field: str | None) -> None:
    path = write(tmp_path / "a.json", content)
    assert read_json(path, columns=["text", "labels"], field=field).table.to_pylist() == OBJECTS


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=8), lines=st.booleans())
def test_json_round_trip(tmp_path: Path, texts: list[str], lines: bool) -> None:
    rows = [{"text": text} for text in texts]
    content = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    assert read_json(write(tmp_path / "round.json", content)).table["text"].to_pylist() == texts


def test_json_texts_that_look_like_dates_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "2020-01-01", "labels": ["2021-02-03"]}\n')
    assert read_json(path).table.to_pylist() == [{"text": "2020-01-01", "labels": ["2021-02-03"]}]


def test_json_with_a_text_longer_than_a_block(tmp_path: Path) -> None:
    long = "x" * (readers.BLOCK + 10)
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "a"}) + "\n" + json.dumps({"text": long}))
    assert read_json(path).table["text"].to_pylist() == ["a", long]


@pytest.mark.parametrize(
    ("content", "field", "words"),
    [
        (" \n", None, " is empty; is it the right file?"),
        ("[]", None, " has no rows; is it the right file?"),
        (
            '{"text": "a"}\nnonsense\n{"text"\n',
            None,
            ": 2 rows are not JSON (row 2: Expecting value at column 1; row 3: Expecting ':' delimiter at "
            "column 8); write one object a line, or one array of objects",
        ),
        ("[1, {}]", None, ": 1 row is not an object (row 1); write {...}"),
        ('[{"text": "a"},]', None, " is not JSON: Expecting value at line 1, column 16"),
        ('{"data": []}', "dat", ": unknown field 'dat'; did you mean 'data'? Known: data"),
        ('{"data": 3}', "data", ": expected an array of objects, found int; pass another field="),
        ("[1]", "data", " is a JSON list, not an object; leave field='data' out"),
        (
            '{"data": [{"text": "a"}]}',
            None,
            ": unknown column 'text'. Known: data; if the rows stand under one of these, pass field=",
        ),
        (
            '{"text": "a"}\n{"text": 1}\n{"text": "b"}',
            None,
            ": column 'text' mixes types: str in 2 rows, but int in 1 row ({path}, row 2); give every row "
            "the same type",
        ),
        (
            '[{"text": ["a"]}, {"text": "b"}, {"text": ["c"]}]',
            None,
            ": column 'text' mixes types: list of str in 2 rows, but str in 1 row ({path}, row 2); give "
            "every row the same type",
        ),
    ],
)
def test_json_files_that_are_refused(tmp_path: Path, content: str, field: str | None, words: str) -> None:
    path = write(tmp_path / "a.json", content)
    assert (
        refused(read_json, path, columns=["text"], field=field)
        == f"{path}{words.replace('{path}', str(path))}"
    )


@pytest.mark.parametrize(
    "content", [b'{"text": "a"}\n{"text": "\xff"}', b'[{"text": "a"}, {"text": "\xff"}]']
)
def test_json_that_is_not_utf8(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a.json", content)
    assert f"{path} is not UTF-8: byte 0xff at offset {content.index(255)}" in refused(read_json, path)


def test_json_with_half_a_surrogate_pair(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n')
    assert "holds half of a surrogate pair, which is no text, in 1 row" in refused(read_json, path)


# ---- Parquet


def test_parquet_and_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"text": ["a", "b"], "y": [1, 0]}), path)
    assert read_parquet(path, columns=["y"]).table.to_pydict() == {"y": [1, 0]}
    assert "unknown column 'txt'; did you mean 'text'? Known: text, y" in refused(
        read_parquet, path, columns=["txt"]
    )
    pa.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert refused(read_parquet, path) == f"{path} has no rows, only column names; is it the right file?"
    assert f"{path} cannot be read as Parquet: it is empty" in refused(read_parquet, write(path, ""))
    assert "cannot be read as Parquet: Parquet magic bytes not found" in refused(
        read_parquet, write(path, "text\nno\n")
    )


def test_parquet_files_of_different_types(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "1.parquet")
    pa.parquet.write_table(pa.table({"text": [1]}), tmp_path / "2.parquet")
    assert "1.parquet and the other files differ in a column's type" in refused(
        read_parquet, f"{tmp_path}/*.parquet"
    )


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pa.parquet.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    assert "Invalid UTF8" in refused(read_parquet, tmp_path / "a.parquet")


# ---- frames, data sets, lists


def test_data_frames() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "y": pd.Categorical(["x", "z"]), "n": [1, 2]}, index=[5, 6])
    source = read_data_frame(frame, "train_data_frame", columns=["text", "y"])
    assert source.table.to_pydict() == {"text": ["a", "b"], "y": ["x", "z"]}
    assert source.where(1) == "train_data_frame, row 2"


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pd.DataFrame({"text": ["a", 1, "b"]}),
            "frame: column 'text' mixes types: str in 2 rows, but int in 1 row (frame, row 2); give every "
            "row the same type",
        ),
        (pd.DataFrame({"txt": ["a"]}), "frame: unknown column 'text'; did you mean 'txt'? Known: txt"),
        (
            pd.DataFrame([["a", "b"]], columns=["text", "text"]),
            "frame: the same column name is there more than once: 'text' (2 times); rename all but one",
        ),
        (pd.DataFrame({"text": []}), "frame has no rows; pass at least one"),
        (["a"], "frame is a list, not a pandas DataFrame; pass one, or use from_lists"),
    ],
)
def test_frames_that_are_refused(frame: Any, words: str) -> None:
    assert refused(read_data_frame, frame, "frame", columns=["text"]) == words


def test_hugging_face_datasets(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "one": datasets.ClassLabel(names=["neg", "pos"]),
            "many": datasets.Sequence(datasets.ClassLabel(names=["x", "y", "z"])),
        }
    )
    rows = {"text": ["a", "b", "c"], "one": [1, 0, 1], "many": [[2], [], [0, 1]]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    source = read_hf_dataset(dataset.select([2, 0]), "data", columns=["text", "one", "many"])
    assert source.table.to_pydict() == {"text": ["c", "a"], "one": [1, 1], "many": [[0, 1], [2]]}
    assert source.class_names == {"one": ("neg", "pos"), "many": ("x", "y", "z")}

    dataset.save_to_disk(str(tmp_path / "saved"))
    assert read_hf_dataset(str(tmp_path / "saved"), "data").table["text"].to_pylist() == ["a", "b", "c"]
    both = datasets.DatasetDict({"train": dataset})
    assert refused(read_hf_dataset, both, "data") == (
        "data holds several splits; pass one of them: dataset['train']"
    )
    assert "data is a list, not a datasets.Dataset" in refused(read_hf_dataset, [1], "data")
    assert "unknown column 'txt'; did you mean 'text'?" in refused(
        read_hf_dataset, dataset, "data", columns=["txt"]
    )
    (tmp_path / "empty").mkdir()
    assert "empty', split 'train', cannot be loaded" in refused(
        read_hf_dataset, str(tmp_path / "empty"), "data"
    )


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        pd.Series(["a", "b"]),
        pa.array(["a", "b"]),
        pa.chunked_array([["a"], ["b"]]),
    ],
)
def test_kinds_of_lists(texts: Any) -> None:
    source = read_lists(texts, [["x"], []], "train_data")
    assert source.table.to_pydict() == {"text": ["a", "b"], "targets": [["x"], []]}
    assert text_array(texts, "texts").to_pylist() == ["a", "b"]
    assert text_array(texts, "texts").type == pa.large_string()


def test_matrices_are_lists_of_one_size() -> None:
    import torch

    matrix = np.array([[1, 0], [0, 1]])
    for targets in (matrix, torch.tensor(matrix), scipy.sparse.csr_array(matrix), pd.DataFrame(matrix)):
        column = read_lists(["a", "b"], targets, "train_data").table["targets"]
        assert pa.types.is_fixed_size_list(column.type)
        assert column.to_pylist() == [[1, 0], [0, 1]]
    assert read_lists(["a", "b"], torch.tensor([1, 0]), "train_data").table["targets"].to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("texts", "targets", "words"),
    [
        ("one text", None, "data is a str, not a list of texts; pass a list such as ['a text', ...]"),
        (
            iter(["a"]),
            None,
            "data is a list_iterator, not a list of texts; pass a list such as ['a text', ...]",
        ),
        ([], None, "data has no rows; pass at least one"),
        (["a"], ["x", "y"], "data holds 1 texts, and there are 2 targets; pass one a text"),
        (["a"], "x", "the targets of data are a str; pass a list, one target a text"),
        (["a"], np.zeros((1, 0)), "data: column 'targets' is an array of shape (1, 0); pass (N, L), L >= 1"),
        (
            ["a", 1, None, "b"],
            None,
            "data: column 'text' mixes types: str in 2 rows, but int in 1 row (data, row 2); give every row "
            "the same type",
        ),
        (
            ["a", "\ud800", "b\udfff"],
            None,
            "data: column 'text' holds half of a surrogate pair, which is no text, in 2 rows (data, row 2; "
            "data, row 3); repair it: text.encode('utf-8', 'replace').decode()",
        ),
        (
            ["a", "b"],
            [["x"], [1]],
            "data: column 'targets' mixes types: list of str in 1 row, but list of int in 1 row (data, row "
            "2); give every row the same type",
        ),
    ],
)
def test_lists_that_are_refused(texts: Any, targets: Any, words: str) -> None:
    assert refused(read_lists, texts, targets, "data") == words


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
            "f.json: 4 rows have no text in column 'text' (f.json, row 2; f.json, row 4; f.json, row 5; and "
            "1 more); fill these cells or remove these rows",
        ),
        (
            pa.nulls(1),
            "f.json: 1 row has no text in column 'text' (f.json, row 1); fill these cells or remove these "
            "rows",
        ),
        (
            pa.array([7, 8]),
            "f.json: column 'text' holds int64, not text (f.json, row 1: 7); name the column of texts, or "
            "turn its values into text",
        ),
        (
            pa.array([b"x"]),
            "f.json: column 'text' holds binary, not text (f.json, row 1: b'x'); name the column of texts, "
            "or turn its values into text",
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
