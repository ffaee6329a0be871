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
    path.write_text('[{"data": {"dialogue": [{"text": "a"}], "id": 1}, "annotations": []}]')
    assert refused(read_labelstudio, path) == (
        f"{path}: the first task's data hold no text but 'dialogue' (list), 'id' (int); write each task's text under one "
        "key, such as 'text', and import the tasks with it"
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


# ------------------------------------------------------------------- one project, exported in both ways


def choices(*names: str, key: str = "choices") -> dict[str, Any]:
    value = {key: list(names)}
    return {"type": key, "from_name": "topic", "to_name": "text", "value": value}


def annotation(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 7, "was_cancelled": False, "result": list(results), **more}


PROJECT = [
    ("one choice", [annotation(choices("food"))]),
    ("two choices in one result", [annotation(choices("food", "tech"))]),
    ("two results", [annotation(choices("sport"), choices("tech", "food"))]),
    ("nothing chosen", [annotation()]),
    ("an empty result", [annotation(choices())]),
    ("not annotated", []),
    ("cancelled", [annotation(choices("food"), was_cancelled=True)]),
    (
        "cancelled, then annotated",
        [annotation(choices("tech"), was_cancelled=True), annotation(choices("food"))],
    ),
]
LABELS = [["food"], ["food", "tech"], ["sport", "tech", "food"], [], [], ["food"]]


def write_json(path: Path, project: Any) -> Path:
    tasks = [
        {"id": 10 + i, "data": {"text": text}, "annotations": annotations, "predictions": []}
        for i, (text, annotations) in enumerate(project)
    ]
    path.write_text(json.dumps(tasks))
    return path


def write_minimal(path: Path, project: Any) -> Path:
    """As Label Studio's converter does it: one object per annotation that was not cancelled."""
    records = []
    for i, (text, annotations) in enumerate(project):
        done = [one for one in annotations if not one["was_cancelled"]]
        for one in [{}] if not annotations else done:
            record = {"text": text, "id": 10 + i, "annotator": 1 if one else None}
            record |= {"annotation_id": one.get("id"), "created_at": one.get("created_at")}
            if values := [result["value"] for result in one.get("result", [])]:
                short = [value["choices"][0] if len(value["choices"]) == 1 else value for value in values]
                record["topic"] = short[0] if len(short) == 1 else short
            records.append(record)
    path.write_text(json.dumps(records))
    return path


def test_both_exports_of_a_project_give_the_same_rows(tmp_path: Path) -> None:
    full, minimal = write_json(tmp_path / "full.json", PROJECT), write_minimal(tmp_path / "min.json", PROJECT)
    with pytest.warns(
        UserWarning,
        match=r"1 task has no annotation and is left out \(row 6; rows are counted from 1\), and 1 task has only "
        r"cancelled annotations and is left out \(row 7; ",
    ):
        of_full = read_labelstudio(full)
    with pytest.warns(UserWarning, match=r"1 task has no annotation and is left out \(row 6; "):
        of_minimal = read_labelstudio(minimal)
    assert of_full.table["labels"].to_pylist() == LABELS
    assert of_minimal.table.equals(of_full.table)


def test_a_string_is_one_choice_and_not_its_letters(tmp_path: Path) -> None:
    one = {**choices(), "value": {"choices": "sport"}}
    none = {**choices(), "value": {"choices": ""}}
    path = write_json(tmp_path / "a.json", [("a", [annotation(one)]), ("b", [annotation(none)])])
    assert read_labelstudio(path).table["labels"].to_pylist() == [["sport"], []]


def test_null_beside_an_annotation_is_nothing_chosen(tmp_path: Path) -> None:
    rows = [
        {"id": i, "text": f"t{i}", "topic": topic, "annotation_id": i} for i, topic in enumerate([None, "x"])
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert read_labelstudio(tmp_path / "a.json").table["labels"].to_pylist() == [[], ["x"]]


def test_exports_to_a_storage_hold_one_task_or_one_annotation_a_file(tmp_path: Path) -> None:
    task = {"id": 3, "data": {"text": "a"}, "annotations": [annotation(choices("x"))]}
    (tmp_path / "1.json").write_text(json.dumps(task))
    (tmp_path / "2.json").write_text(
        json.dumps({**annotation(choices("y")), "task": {"id": 4, "data": {"text": "b"}}})
    )
    source = read_labelstudio(str(tmp_path / "*.json"))
    assert source.table.to_pydict() == {"text": ["a", "b"], "labels": [["x"], ["y"]]}
    assert source.where(1) == f"{tmp_path / '2.json'}, row 1"


# ----------------------------------------------------------------------------------- several annotators

SEVERAL = [
    ("agree", [annotation(choices("x", "y")), annotation(choices("y", "x"))]),
    (
        "differ",
        [
            annotation(choices("y", "z"), created_at="2024-05-02T10:00:00Z"),
            annotation(choices("x", "z"), created_at="2024-05-01T10:00:00Z"),
            annotation(choices("x"), created_at="2024-05-03T10:00:00Z"),
        ],
    ),
]


@pytest.mark.parametrize("write", [write_json, write_minimal])
def test_annotations_that_differ_are_refused_until_it_is_said_which_count(
    write: Callable[[Path, Any], Path], tmp_path: Path
) -> None:
    path = write(tmp_path / "several.json", SEVERAL)
    sentence = refused(read_labelstudio, path)
    assert f"{path}: 1 task has several annotations that differ (row " in sentence
    assert "the first: [x, z] against [y, z] against [x]" in sentence
    assert "pass annotators='first', 'majority' (labels of more than half of them) or 'union'" in sentence
    for annotators, labels, words in (
        ("first", ["x", "z"], "the annotation created first was taken"),
        ("majority", ["x", "z"], "labels that more than half of the annotations have were taken"),
        ("union", ["x", "z", "y"], "all their labels were taken"),
    ):
        with pytest.warns(UserWarning, match=words):
            source = read_labelstudio(path, annotators=annotators)  # type: ignore[arg-type]
        assert source.table.to_pydict() == {"text": ["agree", "differ"], "labels": [["x", "y"], labels]}


def test_annotators_on_the_datamodule(tmp_path: Path) -> None:
    others = [("one", [annotation(choices("z"))]), ("none", [annotation()])]
    path = str(write_json(tmp_path / "several.json", [*SEVERAL, *others]))
    with pytest.warns(UserWarning, match="1 task has several annotations that differ"):
        data = TextClassificationData.from_labelstudio(path, annotators="union")
    assert data.labels == ["x", "y", "z"]
    assert "unknown annotators 'vote'" in refused(
        TextClassificationData.from_labelstudio, path, annotators="vote"
    )


def test_ground_truth_wins(tmp_path: Path) -> None:
    wrong, right = annotation(choices("x")), annotation(choices("y"), ground_truth=True)
    path = write_json(tmp_path / "a.json", [("a", [wrong, wrong, right]), ("b", [annotation(choices("x"))])])
    assert read_labelstudio(path).table["labels"].to_pylist() == [["y"], ["x"]]


# ------------------------------------------------------------------------------- results that are no choices


def test_spans_are_named_as_such(tmp_path: Path) -> None:
    span = {"type": "labels", "from_name": "entity", "value": {"start": 0, "end": 1, "labels": ["x"]}}
    (tmp_path / "full.json").write_text(
        json.dumps([{"data": {"text": "a"}, "annotations": [annotation(span), annotation()]}])
    )
    record = {"id": 1, "text": "a", "entity": [span["value"]], "annotation_id": 1}
    (tmp_path / "min.json").write_text(json.dumps([record]))
    for name in ("full.json", "min.json"):
        assert (
            "the annotations are Labels (spans of a text) named 'entity', not Choices, so there is no label of a whole "
            "text; add Choices to the labeling interface"
        ) in refused(read_labelstudio, tmp_path / name)


def test_choices_beside_spans_are_read(tmp_path: Path) -> None:
    span = {"type": "labels", "from_name": "entity", "value": {"start": 0, "end": 1, "labels": ["x"]}}
    path = write_json(tmp_path / "a.json", [("a", [annotation(span, choices("y"))])])
    assert read_labelstudio(path).table["labels"].to_pylist() == [["y"]]
    assert "are Labels (spans of a text) named 'entity'" in refused(
        read_labelstudio, path, target_field="entity"
    )
    assert "unknown target_field 'topik'; did you mean 'topic'" in refused(
        read_labelstudio, path, target_field="topik"
    )


def test_a_path_of_a_taxonomy_is_one_label(tmp_path: Path) -> None:
    value = {"taxonomy": [["top", "sport"], ["top"]]}
    result = {"type": "taxonomy", "from_name": "tax", "value": value}
    path = write_json(tmp_path / "full.json", [("a", [annotation(result)])])
    record = {"id": 10, "text": "a", "tax": [value], "annotation_id": 7}
    (tmp_path / "min.json").write_text(json.dumps([record]))
    for name in (path, tmp_path / "min.json"):
        with pytest.warns(UserWarning, match=r"'tax' is a Taxonomy: each path in it is read as one label"):
            source = read_labelstudio(name)
        assert source.table["labels"].to_pylist() == [["top / sport", "top"]]


def test_annotations_without_their_results_are_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [("a", [17])])
    assert f"{path}, row 1: an annotation is 17, not an object with its results" in refused(
        read_labelstudio, path
    )


def test_several_fields_of_text(tmp_path: Path) -> None:
    task = {"id": 1, "data": {"title": "a", "body": "b"}, "annotations": [annotation(choices("x"))]}
    other = {"id": 2, "data": {"title": "c", "body": "d"}, "annotations": [annotation()]}
    (tmp_path / "a.json").write_text(json.dumps([task, other]))
    data = TextClassificationData.from_labelstudio(str(tmp_path / "a.json"), input_field=["title", "body"])
    assert data.input_field == ["title", "body"]
    assert data.train_dataset is not None
    assert data.train_dataset.texts.to_pylist() == ["a\x1fb", "c\x1fd"]
    assert "unknown input_field 'bodi'; did you mean 'body'" in refused(
        read_labelstudio, tmp_path / "a.json", input_field=["title", "bodi"]
    )
