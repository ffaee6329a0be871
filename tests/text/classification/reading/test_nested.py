"""Paths into objects, dicts of scores, and objects that are neither texts nor targets."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flash.core.errors import DataError
from flash.text.classification.data import TextClassificationData
from flash.text.classification.reading.mistakes import short_type
from flash.text.classification.reading.nested import spread_scores, value_at
from flash.text.classification.reading.source import Source
from flash.text.classification.reading.tables import read_json, read_parquet

ROWS: list[dict[str, Any]] = [
    {"data": {"text": "a"}, "subjects": [{"label": "x", "id": 1}, {"label": "y", "id": 2}]},
    {"data": {"text": "b"}, "subjects": []},
    {"data": {"text": "c"}, "subjects": [{"label": "y", "id": 2}]},
]
PATHS = ["data.text", "subjects[].label"]
VALUES = {"data.text": ["a", "b", "c"], "subjects[].label": [["x", "y"], [], ["y"]]}


def test_paths_in_json_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    for name in ("lines.jsonl", "array.json"):
        assert read_json(tmp_path / name, columns=PATHS).table.to_pydict() == VALUES
    pq.write_table(read_json(tmp_path / "lines.jsonl").table, tmp_path / "rows.parquet")
    assert read_parquet(tmp_path / "rows.parquet", columns=PATHS).table.to_pydict() == VALUES
    assert [[value_at(row, path) for row in ROWS] for path in PATHS] == list(VALUES.values())
    with pytest.raises(DataError, match=r"unknown column 'data\.txet'"):
        read_json(tmp_path / "lines.jsonl", columns=["data.txet"])


def test_training_on_paths(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data = TextClassificationData.from_json("data.text", "subjects[].label", train_file=str(path))
    assert data.labels == ["x", "y"]
    assert data.train_dataset is not None
    assert data.train_dataset.texts.to_pylist() == ["a", "b", "c"]


def test_a_dict_of_scores_is_a_column_for_each_key(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [{"text": "a", "cats": {"x": 1.0, "y": 0.0}}, {"text": "b", "cats": {"x": 0.0, "y": 1.0}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = TextClassificationData.from_json("text", "cats", train_file=str(path))
    assert (data.labels, data.multi_label) == (["x", "y"], True)
    assert data.train_dataset is not None
    assert data.train_dataset.targets is not None
    assert data.train_dataset.targets.toarray().tolist() == [[1, 0], [0, 1]]


def test_a_key_that_is_named_as_another_column() -> None:
    table = pa.table({"text": ["a"], "cats": [{"text": 1.0}]})
    with pytest.raises(
        DataError, match="t: the key 'text' in column 'cats' is the name of another column, too"
    ):
        spread_scores(Source(table, (("t", 1),)), ["cats"])


def test_objects_answer_with_a_path(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"text": "a", **row}) + "\n" for row in ROWS))
    with pytest.raises(DataError) as caught:
        TextClassificationData.from_json("text", "subjects", train_file=str(path))
    assert str(caught.value) == (
        f"{path}: column 'subjects' holds lists of objects with the keys label, id (the first is [{{'label': 'x', 'id': "
        "1}, {'label': 'y', 'id': 2}]); name what is in them by its path, such as 'subjects[].label' in place of 'subjects'"
    )
    with pytest.raises(DataError, match=r"such as 'data\.text' in place of 'data'"):
        TextClassificationData.from_json("data", "text", train_file=str(path))


def test_a_type_of_many_keys_is_short() -> None:
    kind = pa.list_(pa.struct([(f"key{number}", pa.string()) for number in range(2000)]))
    assert short_type(kind) == "lists of objects with the keys key0, key1, key2, key3, key4 and 1,995 more"


@pytest.mark.parametrize(
    "content",
    [
        '{"text":{"0":"a","1":"b"},"labels":{"0":["x"],"1":[]}}',
        '{"columns":["text","labels"],"index":[0,1],"data":[["a",["x"]],["b",[]]]}',
        '{"0":{"text":"a","labels":["x"]},"1":{"text":"b","labels":[]}}',
    ],
    ids=["columns", "split", "index"],
)
def test_what_pandas_writes_by_default(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert read_json(tmp_path / "a.json").table.to_pydict() == {"text": ["a", "b"], "labels": [["x"], []]}


def test_lines_whose_first_value_is_numbered_are_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"p":{"0":1.0},"text":"a"}\n{"p":{"0":0.0},"text":"b"}\n')
    assert read_json(tmp_path / "a.jsonl", columns=["text"]).table.to_pydict() == {"text": ["a", "b"]}
