"""Values inside of objects: `data.text`, `subjects[].label`, and dicts of scores such as spaCy's `cats`.

A path is a key, a point and a key within that, and so on; `[]` behind a key stands for each element of its list. A
column whose whole name has points in it is that column.

Imports nothing of the project but errors, the wording of mistakes and `Source`; neither torch nor lightning.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError, shortened
from flash.text.classification.reading.mistakes import is_list_type, short_type
from flash.text.classification.reading.source import Source, plain_column


def first_key(path: str) -> str:
    """The column that a path begins in.

    >>> first_key("subjects[].label"), first_key("text")
    ('subjects', 'text')
    """
    return path.partition(".")[0].removesuffix("[]")


def is_path(path: str, columns: Collection[str]) -> bool:
    """Whether it leads into one of some columns, none of which has this name."""
    return path not in columns and path != first_key(path) and first_key(path) in columns


def add_paths(table: pa.Table, wanted: Sequence[str] | None, name: str) -> pa.Table:
    """The table, which messages call `name`, with a column for each path of `wanted` that leads to a value in it.

    Raises:
        DataError: a path leads through a list without saying so.
    """
    for path in wanted or ():
        if is_path(path, table.column_names):
            column = table[first_key(path)].combine_chunks()
            found = _inner(column, _steps(path)[1:])
            if found is not None:
                table = table.append_column(path, found)
            else:
                filled = (one for one in column if one.is_valid and one.as_py() != [])
                first = next(filled, pa.scalar(None)).as_py()
                refuse_skipped_list(path, {first_key(path): first}, name)
    return table


def refuse_skipped_list(path: str, row: Any, name: str) -> None:
    """Refuse a path through a list that lacks the `[]` of its elements.

    Raises:
        DataError: the path to write in place of it.
    """
    written, value = [], row
    for part in path.split("."):
        value = value.get(part.removesuffix("[]")) if isinstance(value, dict) else None
        is_list = isinstance(value, list)
        written.append(f"{part.removesuffix('[]')}[]" if is_list else part)
        value = value[0] if is_list and value else value
    whole = ".".join([*written[:-1], path.rpartition(".")[2]])  # the last key may hold a list of names
    if whole != path and value is not None:
        raise DataError(
            f"{name}: {path!r} leads through a list, each of whose elements has a value there; write {whole!r}"
        )


def value_at(row: Any, path: str) -> Any:
    """The value that a path leads to in an object of JSON; None where there is none."""
    if path in row:
        return row[path]
    value = row
    steps = _steps(path)
    for number, step in enumerate(steps):
        if step == "[]":
            rest = ".".join(steps[number + 1 :])
            elements = value if isinstance(value, list) else []
            return [value_at(element, rest) if rest else element for element in elements]
        value = value.get(step) if isinstance(value, dict) else None
    return value


def spread_scores(source: Source, fields: list[str]) -> tuple[Source, list[str]]:
    """One column of objects of numbers, `{"toxic": 1.0, "insult": 0.0}`, as a column for each key.

    Args:
        source: as it was read.
        fields: the target columns.

    Returns:
        The source and the target columns, both as they were unless `fields` is one such column.

    Raises:
        DataError: a key is named as another column of the source.
    """
    if len(fields) != 1 or not _is_scores(source.table[fields[0]].type):
        return source, fields
    column = source.table[fields[0]].combine_chunks()
    names = [field.name for field in column.type]
    table = source.table.drop_columns(fields)
    taken = [name for name in names if name in table.column_names]
    if taken:
        raise DataError(
            f"{source.name}: the key {taken[0]!r} in column {fields[0]!r} is the name of another column, too; rename one"
        )
    for name in names:
        table = table.append_column(name, pc.struct_field(column, name))
    return replace(source, table=table), names


def refuse_objects(source: Source, fields: Sequence[str]) -> None:
    """Columns of objects are neither texts nor targets; the message holds a path to what is in them.

    Raises:
        DataError: one of `fields` is such a column.
    """
    for name in fields:
        kind = source.table[name].type
        inner = kind.value_type if is_list_type(kind) else kind
        if not pa.types.is_struct(inner):
            continue
        keys = [field.name for field in inner]
        row = plain_column(source, name).drop_null()
        path = f"{name}{'[]' if inner is not kind else ''}.{_likely_key(keys)}"
        example = f" (the first is {shortened(str(row[0].as_py()), 60)})" if len(row) else ""
        raise DataError(
            f"{source.name}: column {name!r} holds {short_type(kind)}{example}; name what is in them by its path, such as "
            f"{path!r} in place of {name!r}"
        )


def _likely_key(keys: Sequence[str]) -> str:
    usual = ("label", "labels", "name", "text", "value", "title")
    return next((key for key in usual if key in keys), keys[0] if keys else "key")


def _is_scores(kind: pa.DataType) -> bool:
    return (
        pa.types.is_struct(kind)
        and kind.num_fields > 0
        and all(
            pa.types.is_floating(field.type)
            or pa.types.is_integer(field.type)
            or pa.types.is_boolean(field.type)
            for field in kind
        )
    )


def _steps(path: str) -> list[str]:
    """The keys of a path, and `[]` behind each that is a list."""
    steps: list[str] = []
    for part in path.split("."):
        steps += [part.removesuffix("[]"), "[]"] if part.endswith("[]") else [part]
    return steps


def _inner(column: pa.Array, steps: list[str]) -> pa.Array | None:
    """What the steps of a path lead to in each row; None where the type has no such key."""
    if not steps:
        return column
    if steps[0] != "[]":
        keys = [field.name for field in column.type] if pa.types.is_struct(column.type) else []
        return _inner(pc.struct_field(column, steps[0]), steps[1:]) if steps[0] in keys else None
    if not is_list_type(column.type):
        return None
    values = _inner(pc.list_flatten(column), steps[1:])
    if values is None or is_list_type(values.type):
        return None
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    offsets_array = pa.array(offsets, pa.int32(), mask=np.append(np.asarray(pc.is_null(column)), False))
    return pa.ListArray.from_arrays(offsets_array, values)
