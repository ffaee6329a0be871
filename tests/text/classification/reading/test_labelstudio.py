"""Label Studio's exports: which tasks become rows, with which labels, and what cannot be one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flash.core.errors import FlashError
from flash.text.classification.data import TextClassificationData
from flash.text.classification.reading.labelstudio import read_labelstudio


def refused(make: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(FlashError) as caught:
        make(*arguments, **keywords)
    return str(caught.value)


def export(folder: Path, rows: Any, **extra: Any) -> Path:
    def annotation(names: list[str]) -> dict[str, Any]:
        result = {"type": "choices", "from_name": "topic", "to_name": "text", "value": {"choices": names}}
        return {"id": 1, "was_cancelled": False, "result": [result] if names else []}

    cancelled = {**annotation(["wrong"]), "was_cancelled": True}
    tasks = [
        {
            "id": i,
            "data": {"text": text, **extra},
            "annotations": [cancelled, annotation(names)] if names is not None else [],
        }
        for i, (text, names) in enumerate(rows)
    ]
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


def test_labelstudio_minimal_export(dataset_rows: Any, tmp_path: Path) -> None:
    tasks = [
        {"id": 1, "review": "a", "topic": "x", "annotator": 1, "created_at": "2020-01-01"},
        {
            "id": 2,
            "review": "b",
            "topic": {"choices": ["x", "y"]},
            "annotator": 1,
            "created_at": "2020-01-01",
        },
        {"id": 3, "review": "c", "topic": "y", "annotator": 1, "created_at": "2020-01-01"},
    ]
    (tmp_path / "min.json").write_text(json.dumps(tasks))
    data = TextClassificationData.from_labelstudio(
        train_export_json=str(tmp_path / "min.json"), input_field="review", target_field="topic"
    )
    assert dataset_rows(data.train_dataset) == [("a", [1, 0]), ("b", [1, 1]), ("c", [0, 1])]


def test_labelstudio_tasks_without_annotation_are_left_out_and_counted(
    dataset_rows: Any, tmp_path: Path
) -> None:
    path = export(tmp_path, [("a", ["x"]), ("b", None), ("c", []), ("d", None)])
    with pytest.warns(
        UserWarning,
        match=r"2 tasks have no annotation and are left out \(rows 2 and 4; rows are counted from 1\)",
    ) as caught:
        data = TextClassificationData.from_labelstudio(str(path))
    assert [Path(warning.filename).name for warning in caught] == ["test_labelstudio.py"]
    assert dataset_rows(data.train_dataset) == [("a", [1]), ("c", [0])]
    with pytest.warns(UserWarning, match="2 tasks have no annotation"):
        assert read_labelstudio(path).where(1) == f"{path}, row 3"
    assert (
        len(TextClassificationData.from_labelstudio(predict_export_json=str(path)).predict_dataset or []) == 4
    )


def test_labelstudio_single_label(tmp_path: Path) -> None:
    path = export(tmp_path, [("a", ["x"]), ("b", ["y"])])
    data = TextClassificationData.from_labelstudio(export_json=str(path), multi_label=False)
    assert (data.multi_label, data.labels) == (False, ["x", "y"])


def test_labelstudio_mistakes(tmp_path: Path) -> None:
    path = export(tmp_path, [("a", None)])
    assert "none of the 1 tasks has an annotation; annotate some and export again" in refused(
        read_labelstudio, path
    )
    path = export(tmp_path, [("a", ["x"])], title="t")
    assert "unknown input_field 'titel'; did you mean 'title'? Known: text, title" in refused(
        read_labelstudio, path, input_field="titel"
    )
    both = refused(TextClassificationData.from_labelstudio, str(path), train_export_json=str(path))
    assert both == "export_json and train_export_json are the same thing; pass one of them"
    path.write_text('[{"data": {"one": "a", "two": "b"}, "annotations": []}]')
    assert "several keys of a task hold text: one, two; pass input_field= with one of them" in refused(
        read_labelstudio, path
    )
    path.write_text("[3, {}]")
    assert "1 row is not a task" in refused(read_labelstudio, path)
    path.write_text("[]")
    assert "no tasks; export the project from Label Studio as JSON or JSON-MIN" in refused(
        read_labelstudio, path
    )
    result = [{"from_name": name, "value": {"choices": ["x"]}} for name in ("topic", "tone")]
    path.write_text(json.dumps([{"data": {"text": "a"}, "annotations": [{"result": result}]}]))
    assert "the choices belong to several names: tone, topic; pass target_field= with one" in refused(
        read_labelstudio, path
    )
    assert read_labelstudio(path, target_field="tone").table["labels"].to_pylist() == [["x"]]
