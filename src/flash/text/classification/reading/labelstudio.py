"""The reader of Label Studio's exports, JSON and JSON-MIN: a table with the columns `text` and `labels` (lists of names).

A JSON export contains tasks, each with its annotations; a JSON-MIN export contains one object per annotation, with the
results beside the task's data. Both are converted to `Task`, so that a project gives the same rows in both formats.
The formats follow Label Studio's converter (label-studio-sdk, `converter.py` and `prettify_result`).
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from flash.core.errors import DataError, listed, unknown_name
from flash.text.classification.reading.fields import InputField, field_names
from flash.text.classification.reading.files import Files, find_files, read_bytes
from flash.text.classification.reading.mistakes import ROWS, SHOWN, count_rows, rows_of
from flash.text.classification.reading.source import Source, to_array
from flash.text.classification.reading.tables import parse_json

Annotators: TypeAlias = Literal["error", "first", "majority", "union"]

ANNOTATORS = ("error", "first", "majority", "union")
LEVELS = " / "  # joins the levels of a taxonomy path to one label
# keys that JSON-MIN writes beside the task's data and the results
NOT_DATA = {
    *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "inner_id", "project"),
    *("file_upload", "total_annotations", "cancelled_annotations", "total_predictions", "agreement"),
    *("comment_count", "unresolved_comment_count", "history"),
}
TAGS = {
    "labels": "Labels (spans of a text)",
    "hypertextlabels": "HyperTextLabels (spans of a text)",
    "paragraphlabels": "ParagraphLabels (spans of a text)",
    "textarea": "TextArea (free text)",
    "text": "TextArea (free text)",
    "rating": "Rating",
    "number": "Number",
    "pairwise": "Pairwise",
    "ranker": "Ranker",
}
"""Results that do not label a whole text: type or key of the result, and the tag in the labeling interface."""


@dataclass(frozen=True)
class Annotation:
    """One annotator's labels for a task.

    Attributes:
        choices: (name of the Choices tag in the labeling interface, label), in order.
        created: time of creation as in the export; empty if missing.
        ground_truth: whether it is marked as ground truth.
    """

    choices: tuple[tuple[str, str], ...]
    created: str = ""
    ground_truth: bool = False


@dataclass
class Task:
    """One text with its annotations, without the cancelled ones.

    Attributes:
        place: the file.
        number: number of its row in the file, from 1.
        texts: values of its text fields, as in the export, not checked yet.
        annotations: in the order of the file.
        cancelled: whether the task has a cancelled annotation.
    """

    place: str
    number: int
    texts: list[Any]
    annotations: list[Annotation] = field(default_factory=list)
    cancelled: bool = False


@dataclass
class Found:
    """The kinds of results in an export, for messages: names of Choices, names of taxonomies, other tags by name."""

    choices: set[str] = field(default_factory=set)
    taxonomies: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)


def read_labelstudio(
    files: Files,
    *,
    input_field: InputField | None = None,
    target_field: str | None = None,
    annotators: Annotators = "error",
    annotated: bool = True,
) -> Source:
    """Read the tasks of one or more exports, one row per task.

    A task's labels are the choices of its annotation. An annotation without choices is an empty label set. Tasks
    without an annotation, and tasks whose annotations were all cancelled, are left out; a warning counts both kinds.
    If a task has several annotations and some are marked as ground truth, only these count. A path in a taxonomy is
    one label, with its levels joined by ` / `.

    Args:
        files: as in `source.read_csv`.
        input_field: the key of the text in a task's data, or a list of keys, which become the columns instead of
            `text`; None for `text`, or for the only text in the data.
        target_field: name of the Choices tag in the labeling interface; None if there is only one.
        annotators: what to do if a task's annotations differ: raise an error (`"error"`), take the annotation that was
            created first (`"first"`), the labels of more than half of the annotations (`"majority"`), or all labels
            (`"union"`).
        annotated: False reads every task's text without labels.

    Raises:
        DataError: no such file, not an export, no text under the key, several Choices tags, no choices but spans or
            other results, or annotations that differ.
    """
    if annotators not in ANNOTATORS:
        raise DataError(unknown_name("annotators", str(annotators), ANNOTATORS))
    found = Found()
    fields = ["text"] if input_field is None else field_names(input_field)
    tasks = list(_tasks(files, input_field, target_field, found).values())
    place = tasks[0].place
    kept = tasks
    if annotated:
        _check_results(found, target_field, place)
        kept = [task for task in tasks if task.annotations]
        _report_left_out(place, [task for task in tasks if not task.annotations], len(kept))
    labels = [_labels_of(task, annotators) if annotated else [] for task in kept]
    if annotated:
        _report_conflicts(place, [task for task in kept if _differ(task)], annotators)
    parts = Counter(task.place for task in kept)  # in the order of the files
    table = pa.table(
        {name: to_array([task.texts[i] for task in kept], name, place) for i, name in enumerate(fields)}
        | {"labels": pa.array(labels, pa.list_(pa.large_string()))}
    )
    return Source(table, tuple(parts.items()), numbers=np.array([task.number for task in kept], np.int64))


# ------------------------------------------------------------------------------------- from file to tasks


def _tasks(
    files: Files, input_field: InputField | None, target_field: str | None, found: Found
) -> dict[tuple[str, str], Task]:
    """Group the records by task id and texts: JSON-MIN has one object, a storage export one file per annotation."""
    tasks: dict[tuple[str, str], Task] = {}
    for path in find_files(files, "json"):
        objects = _objects(parse_json(path, read_bytes(path)), str(path))
        keys = _text_keys(objects, input_field, target_field, str(path))
        for number, task in enumerate(objects, 1):
            texts = [task.get("data", task).get(key) for key in keys]
            same = (repr(task.get("id", f"{path}:{number}")), repr(texts))
            known = tasks.setdefault(same, Task(str(path), number, texts))
            if "data" in task:
                _add_annotations(known, task, target_field, found)
            else:
                _add_minimal(known, task, keys, target_field, found)
    return tasks


def _objects(value: Any, place: str) -> list[dict[str, Any]]:
    """Return the tasks of a file, which contains an array or, in a storage export, a single task."""
    tasks = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    wrong = [number for number, task in enumerate(tasks, 1) if not isinstance(task, dict)]
    if wrong or not tasks:
        problem = (
            f"{count_rows(len(wrong))} not a task ({rows_of(wrong[:SHOWN], len(wrong))}; {ROWS})"
            if wrong
            else "no tasks"
        )
        raise DataError(f"{place}: {problem}; export the project from Label Studio as JSON or JSON-MIN")
    return [_task_of(task) for task in tasks]


def _task_of(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task in the form of JSON exports; storage exports have an annotation that contains its task."""
    inner = task.get("task")
    if isinstance(inner, dict) and isinstance(inner.get("data"), dict) and "result" in task:
        return {"id": inner.get("id"), "data": inner["data"], "annotations": [task]}
    if "data" in task and not isinstance(task["data"], dict):
        return {name: value for name, value in task.items() if name != "data"} | {"data": {}}
    return task


def _text_keys(
    tasks: list[dict[str, Any]], input_field: InputField | None, target_field: str | None, place: str
) -> list[str]:
    minimal = "data" not in tasks[0]
    data = tasks[0] if minimal else tasks[0]["data"]
    hidden = {*NOT_DATA, target_field} if minimal else set()
    keys = [key for key, value in data.items() if isinstance(value, str) and key not in hidden]
    if input_field is not None:
        for name in (wanted := field_names(input_field)):
            if not any(name in task.get("data", task) for task in tasks):
                raise DataError(f"{place}: {unknown_name('input_field', name, keys)}")
        return wanted
    if "text" in keys or "text" in data or not data:
        return ["text"]
    if not keys:
        held = ", ".join(f"{key!r} ({type(value).__name__})" for key, value in list(data.items())[:SHOWN])
        raise DataError(
            f"{place}: the first task's data hold no text but {held}; write each task's text under one key, such as 'text', "
            "and import the tasks with it"
        )
    if len(keys) > 1:
        raise DataError(
            f"{place}: several keys of a task hold text: {', '.join(keys)}; pass input_field= with one of "
            "them"
        )
    return keys


def _add_annotations(known: Task, task: dict[str, Any], target_field: str | None, found: Found) -> None:
    """Add the annotations of a task of a JSON export."""
    for annotation in task.get("annotations", task.get("completions")) or []:
        if not isinstance(annotation, dict):
            raise DataError(
                f"{known.place}, row {known.number}: an annotation is {annotation!r}, not an object with its "
                "results; export the project from Label Studio as JSON with its annotations"
            )
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            known.cancelled = True
            continue
        pairs = [
            (str(result.get("from_name") or ""), label)
            for result in annotation.get("result") or []
            if isinstance(result, dict)
            for label in _result(result, found)
        ]
        known.annotations.append(
            Annotation(
                tuple(pair for pair in pairs if target_field in (None, pair[0])),
                str(annotation.get("created_at") or ""),
                annotation.get("ground_truth") is True,
            )
        )


def _result(result: dict[str, Any], found: Found) -> list[str]:
    """The labels of one result of an annotation."""
    value = result.get("value")
    name, kind = str(result.get("from_name") or ""), str(result.get("type") or "").lower()
    if isinstance(value, dict) and ("choices" in value or "taxonomy" in value):
        return _value(name, value, found)
    if name:
        found.others.setdefault(name, TAGS.get(kind, kind.capitalize() or "results of another kind"))
    return []


def _add_minimal(
    known: Task, record: dict[str, Any], keys: list[str], target_field: str | None, found: Found
) -> None:
    """Add the annotation of an object of a JSON-MIN export, if the object has one."""
    values = {name: value for name, value in record.items() if name not in NOT_DATA and name not in keys}
    pairs = [
        (name, label)
        for name, value in values.items()
        if target_field in (None, name)
        for item in (value if isinstance(value, list) else [value])
        for label in _value(name, item, found)
    ]
    marks = [record[mark] for mark in ("annotation_id", "annotator") if mark in record]
    if any(mark is not None for mark in marks) or pairs or (not marks and values):
        known.annotations.append(Annotation(tuple(pairs), str(record.get("created_at") or "")))


def _value(name: str, value: Any, found: Found) -> list[str]:
    """Return the labels of a value: a string, `{"choices": [...]}`, or `{"taxonomy": [[level, ...], ...]}`."""
    if isinstance(value, str):
        found.choices.add(name)
        return [value] if value else []
    if not isinstance(value, dict):
        return []
    if "taxonomy" in value:
        found.choices.add(name)
        found.taxonomies.add(name)
        return list(map(_label, _listed(value["taxonomy"])))
    if "choices" in value:
        found.choices.add(name)
        return list(map(_label, _listed(value["choices"])))
    kind = next((kind for kind in TAGS if kind in value), None)
    if kind is not None:
        found.others.setdefault(name, TAGS["labels"] if "start" in value else TAGS[kind])
    return []


def _listed(value: Any) -> list[Any]:
    """Return choices as a list; a single string is one choice."""
    return value if isinstance(value, list) else [value] if value not in (None, "") else []


def _label(choice: Any) -> str:
    """Return the label of a choice; the levels of a taxonomy path are joined."""
    return LEVELS.join(map(str, choice)) if isinstance(choice, list) else str(choice)


# -------------------------------------------------------------------------------------- several annotators


def _labels_of(task: Task, annotators: Annotators) -> list[str]:
    """Return the labels of a task without duplicates, in the order in which they were chosen."""
    sets = _label_sets(task)
    counts = Counter(label for labels in sets for label in labels)
    if annotators == "majority":
        return [label for label, count in counts.items() if 2 * count > len(sets)]
    return list(counts) if annotators == "union" else sets[0]


def _label_sets(task: Task) -> list[list[str]]:
    """Return the labels of each annotation by time of creation; only those marked as ground truth, if there are any."""
    marked = [annotation for annotation in task.annotations if annotation.ground_truth]
    ordered = sorted(marked or task.annotations, key=lambda annotation: annotation.created)
    return [list(dict.fromkeys(label for _, label in annotation.choices)) for annotation in ordered]


def _differ(task: Task) -> bool:
    return len({frozenset(labels) for labels in _label_sets(task)}) > 1


# --------------------------------------------------------------------------------------------- messages


def _check_results(found: Found, target_field: str | None, place: str) -> None:
    """Raise DataError if the results are not labels of whole texts, or if it is unclear which Choices to read."""
    others = [f"{tag} named {name!r}" for name, tag in sorted(found.others.items())]
    if target_field is not None and target_field not in found.choices:
        if target_field in found.others:
            raise _no_choices(place, [f"{found.others[target_field]} named {target_field!r}"])
        if found.choices or found.others:
            known = sorted(found.choices | set(found.others))
            raise DataError(f"{place}: {unknown_name('target_field', target_field, known)}")
    if not found.choices and others:
        raise _no_choices(place, others)
    if target_field is None and len(found.choices) > 1:
        raise DataError(
            f"{place}: the choices belong to several names: {listed(sorted(found.choices))}; pass "
            "target_field= with one"
        )
    names = found.taxonomies if target_field is None else found.taxonomies & {target_field}
    if names:
        warnings.warn(
            f"{place}: {', '.join(map(repr, sorted(names)))} is a Taxonomy: each path in it is read as one label, its "
            f"levels joined by {LEVELS!r}",
            UserWarning,
            stacklevel=6,
        )


def _no_choices(place: str, others: Iterator[str] | list[str]) -> DataError:
    return DataError(
        f"{place}: the annotations are {', '.join(others)}, not Choices, so there is no label of a whole text; add "
        "Choices to the labeling interface, annotate, and export again"
    )


def _report_left_out(place: str, left_out: list[Task], kept: int) -> None:
    """Warn about tasks without annotations; raise DataError if no task has one."""
    if not left_out:
        return
    if not kept:
        only = " that was not cancelled" if all(task.cancelled for task in left_out) else ""
        raise DataError(
            f"{place}: none of the {len(left_out):,} tasks has an annotation{only}; annotate some and export again"
        )
    reasons = []
    for cancelled, reason in ((False, "no annotation"), (True, "only cancelled annotations")):
        numbers = [task.number for task in left_out if task.cancelled is cancelled]
        if numbers:
            verb = "1 task has" if len(numbers) == 1 else f"{len(numbers):,} tasks have"
            rows = rows_of(numbers[:SHOWN], len(numbers))
            reasons.append(
                f"{verb} {reason} and {'is' if len(numbers) == 1 else 'are'} left out ({rows}; {ROWS})"
            )
    warnings.warn(f"{place}: {', and '.join(reasons)}", UserWarning, stacklevel=6)


def _report_conflicts(place: str, conflicts: list[Task], annotators: Annotators) -> None:
    """Raise DataError for tasks whose annotations differ, or warn how many there are."""
    if not conflicts:
        return
    numbers = [task.number for task in conflicts]
    rows = rows_of(numbers[:SHOWN], len(numbers))
    tasks = "1 task has" if len(numbers) == 1 else f"{len(numbers):,} tasks have"
    first = " against ".join(f"[{', '.join(labels)}]" for labels in _label_sets(conflicts[0])[:SHOWN])
    problem = f"{place}: {tasks} several annotations that differ ({rows}; {ROWS}; the first: {first})"
    if annotators == "error":
        raise DataError(
            f"{problem}; pass annotators='first', 'majority' (labels of more than half of them) or 'union' (all labels), "
            "or mark the right annotation as ground truth in Label Studio"
        )
    taken = {
        "first": "the annotation created first was taken",
        "majority": "labels that more than half of the annotations have were taken",
        "union": "all their labels were taken",
    }
    warnings.warn(f"{problem}: {taken[annotators]}", UserWarning, stacklevel=6)
