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
from flash.text.classification.reading import files
from flash.text.classification.reading.source import text_array
from flash.text.classification.reading.tables import (
    read_data_frame,
    read_hf_dataset,
    read_json,
    read_lists,
    read_parquet,
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


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(TEXTS, min_size=1, max_size=8), lines=st.booleans())
def test_json_round_trip(tmp_path: Path, texts: list[str], lines: bool) -> None:
    rows = [{"text": text} for text in texts]
    content = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    assert read_json(write(tmp_path / "round.json", content)).table["text"].to_pylist() == texts


def test_json_texts_that_look_like_dates_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "2020-01-01", "labels": ["2021-02-03"]}\n')
    assert read_json(path).table.to_pylist() == [{"text": "2020-01-01", "labels": ["2021-02-03"]}]


def test_json_with_a_text_longer_than_a_block(tmp_path: Path) -> None:
    long = "x" * (files.BLOCK + 10)
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "a"}) + "\n" + json.dumps({"text": long}))
    assert read_json(path).table["text"].to_pylist() == ["a", long]


@pytest.mark.parametrize(
    ("content", "field", "words"),
    [
        (" \n", None, " is empty; check its path, or put rows into it"),
        ("[]", None, " has no rows; check its path, or put rows into it"),
        (
            '{"text": "a"}\nnonsense\n{"text"\n',
            None,
            ": 2 rows are not JSON (row 2: Expecting value at column 1; row 3: Expecting ':' delimiter at "
            "column 8); write one object per line, or one array of objects (rows are counted from 1)",
        ),
        ("[1, {}]", None, ": 1 row is not an object (row 1); write {...} (rows are counted from 1)"),
        (
            "text,labels\na,b\n",
            None,
            " holds no JSON objects, it begins with 'text,labels'; if it is CSV, use from_csv",
        ),
        (
            '"text"\t"y"\n',
            None,
            """ holds no JSON objects, it begins with '"text"\\t"y"'; if it is CSV, use from_csv""",
        ),
        ('[{"text" "a"}]', None, " is not JSON: Expecting ':' delimiter at line 1, column 10"),
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
            "the same type (rows are counted from 1)",
        ),
        (
            '[{"text": ["a"]}, {"text": "b"}, {"text": ["c"]}]',
            None,
            ": column 'text' mixes types: list of str in 2 rows, but str in 1 row ({path}, row 2); give "
            "every row the same type (rows are counted from 1)",
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
    assert (
        refused(read_parquet, path)
        == f"{path} has no rows, only column names; check its path, or put rows into it"
    )
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
            "row the same type (rows are counted from 1)",
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
        (["a"], ["x", "y"], "data holds 1 texts, and there are 2 targets; pass one per text"),
        (["a"], "x", "the targets of data are a str; pass a list with one target per text"),
        (["a"], np.zeros((1, 0)), "data: column 'targets' is an array of shape (1, 0); pass (N, L), L >= 1"),
        (
            ["a", 1, None, "b"],
            None,
            "data: column 'text' mixes types: str in 2 rows, but int in 1 row (data, row 2); give every row "
            "the same type (rows are counted from 1)",
        ),
        (
            ["a", "\ud800", "b\udfff"],
            None,
            "data: column 'text' holds half of a surrogate pair, which is no text, in 2 rows (data, rows 2 "
            "and 3); repair it: text.encode('utf-8', 'replace').decode() (rows are counted from 1)",
        ),
        (
            ["a", "b"],
            [["x"], [1]],
            "data: column 'targets' mixes types: list of str in 1 row, but list of int in 1 row (data, row "
            "2); give every row the same type (rows are counted from 1)",
        ),
    ],
)
def test_lists_that_are_refused(texts: Any, targets: Any, words: str) -> None:
    assert refused(read_lists, texts, targets, "data") == words


NESTED = "lists or objects that are nested too deeply"


@pytest.mark.parametrize("nested", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_json_that_is_nested_deeper_than_a_parser_can(nested: str, tmp_path: Path) -> None:
    """Arrow's would end the process."""
    (tmp_path / "a.json").write_text(
        '{"text": "a", "more": 1}\n' * 100 + f'{{"text": "a", "more": {nested}}}\n'
    )
    said = refused(read_json, tmp_path / "a.json")
    assert said.startswith(f"{tmp_path}/a.json: 1 row is not JSON (row 101: {NESTED} at column 1)")
    (tmp_path / "a.json").write_text(f'{{"text": "a",\n"more": {nested}}}\n')
    assert "not JSON" in refused(read_json, tmp_path / "a.json")
    (tmp_path / "a.json").write_text(f'[{{"text": "a", "more": {nested}}}]')
    assert (
        refused(read_json, tmp_path / "a.json")
        == f"{tmp_path}/a.json is not JSON: {NESTED} at line 1, column 1"
    )


def test_brackets_within_texts_are_no_nesting(tmp_path: Path) -> None:
    row = {"text": "[{" * 5_000, "more": [[number] for number in range(3_000)]}
    (tmp_path / "a.json").write_text(f"{json.dumps(row)}\n" * 3)
    assert read_json(tmp_path / "a.json", columns=["text"]).table["text"].to_pylist() == [row["text"]] * 3


def test_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'[{{"text": "a", "number": {"1" * 5_000}}}]')
    said = refused(read_json, tmp_path / "a.json")
    assert said.endswith("is not JSON: a number of 5,000 digits, which is too long at line 1, column 26")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_json_in_utf_16(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"text": "a"}\n'.encode(encoding))
    said = refused(read_json, tmp_path / "a.json")
    assert said.endswith("is not UTF-8 but UTF-16; save it as UTF-8: iconv -f utf-16 -t utf-8")
