"""Label Studio's exports, JSON and JSON_MIN, as a table of the columns `text` and `labels` (lists of names).

Imports the readers, and neither torch nor lightning.
"""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa

from flash.core.errors import DataError, unknown_name
from flash.text.classification.reading.files import Files, find_files, read_bytes
from flash.text.classification.reading.mistakes import ROWS, SHOWN, count_rows, rows_of
from flash.text.classification.reading.source import Source, to_array
from flash.text.classification.reading.tables import read_json_array

# What JSON_MIN writes beside the task's data and the choices.
NOT_DATA = {
    *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "inner_id", "project"),
    *("file_upload", "total_annotations", "cancelled_annotations", "total_predictions"),
    *("comment_count", "unresolved_comment_count"),
}


def read_labelstudio(
    files: Files, *, input_field: str | None = None, target_field: str | None = None, annotated: bool = True
) -> Source:
    """The tasks of one or more exports, one row a task.

    A task's labels are the choices of its first annotation that was not cancelled; an annotation without
    choices is an empty label set. Tasks without an annotation are left out with a counted warning.

    Args:
        files: as in `source.read_csv`.
        input_field: the key of the text in a task's data; None for `text`, or the only text there.
        target_field: the name of the choices in the labeling interface; None where there is one.
        annotated: False to read every task's text and no labels.

    Raises:
        DataError: no such file, not an export, no text under the key, choices of several names.
    """
    texts: list[Any] = []
    labels: list[list[str]] = []
    numbers: list[int] = []
    parts = []
    for path in find_files(files, "json"):
        tasks = read_json_array(path, read_bytes(path), None)
        wrong = [number for number, task in enumerate(tasks, 1) if not isinstance(task, dict)]
        if wrong or not tasks:
            found = (
                f"{count_rows(len(wrong))} not a task ({rows_of(wrong[:SHOWN], len(wrong))}; {ROWS})"
                if wrong
                else "no tasks"
            )
            raise DataError(f"{path}: {found}; export the project from Label Studio as JSON or JSON-MIN")
        key = _text_key(tasks, input_field, str(path))
        chosen = [_choices(task, key, target_field) for task in tasks] if annotated else [[] for _ in tasks]
        kept = [row for row, choice in enumerate(chosen) if choice is not None]
        _report_left_out(str(path), [row for row, choice in enumerate(chosen) if choice is None], len(kept))
        _check_names([chosen[row] for row in kept], target_field, str(path))
        texts.extend(tasks[row].get("data", tasks[row]).get(key) for row in kept)
        labels.extend([label for _, label in chosen[row] or []] for row in kept)
        numbers.extend(row + 1 for row in kept)
        parts.append((str(path), len(kept)))
    table = pa.table(
        {
            "text": to_array(texts, "text", parts[0][0]),
            "labels": pa.array(labels, pa.list_(pa.large_string())),
        }
    )
    return Source(table, tuple(parts), numbers=np.array(numbers, np.int64))


def _text_key(tasks: list[dict[str, Any]], input_field: str | None, place: str) -> str:
    minimal = "data" not in tasks[0]
    data = tasks[0] if minimal else tasks[0]["data"]
    keys = [
        key for key, value in data.items() if isinstance(value, str) and not (minimal and key in NOT_DATA)
    ]
    if input_field is not None:
        if not any(input_field in task.get("data", task) for task in tasks):
            raise DataError(f"{place}: {unknown_name('input_field', input_field, keys)}")
        return input_field
    if "text" in keys or not keys:
        return "text"
    if len(keys) > 1:
        raise DataError(
            f"{place}: several keys of a task hold text: {', '.join(keys)}; pass input_field= with one of "
            "them"
        )
    return keys[0]


def _choices(task: dict[str, Any], key: str, target_field: str | None) -> list[tuple[str, str]] | None:
    """(name in the interface, choice) of a task's annotation; None where it has none."""
    if "annotations" in task or "completions" in task or "data" in task:
        annotations = task.get("annotations", task.get("completions")) or []
        done = next((a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")), None)
        if done is None:
            return None
        found = [
            (str(result.get("from_name", "")), str(choice))
            for result in done.get("result", [])
            if "choices" in result.get("value", {})
            for choice in result["value"]["choices"]
        ]
        return [pair for pair in found if target_field in (None, pair[0])]
    values = {name: value for name, value in task.items() if name not in NOT_DATA and name != key}
    if target_field is not None:
        values = {name: value for name, value in values.items() if name == target_field}
    choices: list[tuple[str, str]] = []
    for name, value in values.items():
        listed = (
            value.get("choices", []) if isinstance(value, dict) else [value] if isinstance(value, str) else []
        )
        choices.extend((name, str(choice)) for choice in ([listed] if isinstance(listed, str) else listed))
    return choices or ([] if any(isinstance(value, dict) for value in values.values()) else None)


def _check_names(chosen: list[list[tuple[str, str]] | None], target_field: str | None, place: str) -> None:
    names = sorted({name for choices in chosen for name, _ in choices or []})
    if target_field is None and len(names) > 1:
        raise DataError(
            f"{place}: the choices belong to several names: {', '.join(names)}; pass target_field= with one"
        )


def _report_left_out(place: str, left_out: list[int], kept: int) -> None:
    if not left_out:
        return
    rows = rows_of([row + 1 for row in left_out[:SHOWN]], len(left_out))
    if not kept:
        raise DataError(
            f"{place}: none of the {len(left_out):,} tasks has an annotation; annotate some and export again"
        )
    tasks = "1 task has" if len(left_out) == 1 else f"{len(left_out):,} tasks have"
    warnings.warn(
        f"{place}: {tasks} no annotation and {'is' if len(left_out) == 1 else 'are'} left out ({rows}; {ROWS})",
        UserWarning,
        stacklevel=6,
    )
