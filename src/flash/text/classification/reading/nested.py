"""Values inside nested objects: `data.text`, `subjects[].label`, and dicts of scores such as spaCy's `cats`.

A path consists of keys joined by dots; `[]` after a key stands for each element of its list. If a column has exactly the
path as its name, the path means that column.
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
    """Return the column in which a path begins.

    >>> first_key("subjects[].label"), first_key("text")
    ('subjects', 'text')
    """
    return path.partition(".")[0].removesuffix("[]")


def is_path(path: str, columns: Collection[str]) -> bool:
    """Whether a path leads into one of the columns; False if a column has exactly this name."""
    return path not in columns and path != first_key(path) and first_key(path) in columns


def add_paths(table: pa.Table, wanted: Sequence[str] | None, name: str) -> pa.Table:
    """Add a column for each path in `wanted` that leads to a value; `name` is the table's name in messages.

    Raises:
        DataError: a path leads through a list and lacks the `[]`.
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
    """Raise an error if a path leads through a list and lacks the `[]`.

    Raises:
        DataError: names the correct path.
    """
    written, value = [], row
    for part in path.split("."):
        value = value.get(part.removesuffix("[]")) if isinstance(value, dict) else None
        is_list = isinstance(value, list)
        written.append(f"{part.removesuffix('[]')}[]" if is_list else part)
        value = value[0] if is_list and value else value
    whole = ".".join([*written[:-1], path.rpartition(".")[2]])  # the last key may be a list of names
    if whole != path and value is not None:
        raise DataError(
            f"{name}: {path!r} leads through a list, each of whose elements has a value there; write {whole!r}"
        )


def value_at(row: Any, path: str) -> Any:
    """Return the value at a path in a JSON object; None if there is none."""
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
    """Turn a target column of objects of numbers, `{"toxic": 1.0, "insult": 0.0}`, into one column per key.

    Args:
        source: the source.
        fields: the target columns.

    Returns:
        The source and the target columns; unchanged unless `fields` is a single column of this type.

    Raises:
        DataError: a key has the name of another column.
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
    """Raise an error for columns of objects, which are neither texts nor targets; the message suggests a path.

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
    """Split a path into its keys, with `[]` after each key that is a list."""
    steps: list[str] = []
    for part in path.split("."):
        steps += [part.removesuffix("[]"), "[]"] if part.endswith("[]") else [part]
    return steps


def _inner(column: pa.Array, steps: list[str]) -> pa.Array | None:
    """Return the value at a path in each row; None if the type has no such key."""
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
