"""Join label names in several columns, such as `label1`, `label2`, `label3`, to one column of lists."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import short_type, some_of
from flash.text.classification.reading.source import Source, plain_column
from flash.text.classification.targets.labels import is_text

VALUE = r"(?i)^(?:[+-]?[0-9.]+(?:e[+-]?[0-9]+)?|true|false|yes|no|y|n|t|f|on|off|nan|none|null|<na>|n/a|na)$"
"""Values that are not names in a target column: numbers, words for yes and no, and words for a missing value."""


def join_name_columns(
    sources: Mapping[str, Source], fields: Sequence[str]
) -> tuple[dict[str, Source], list[str]]:
    """Join several columns of names to one column of lists; return the sources and the name of that column.

    Args:
        sources: the sources with targets; the first, normally train, decides.
        fields: the target columns.

    Returns:
        The sources and the target columns; unchanged if the columns contain numbers, yes and no, or a mark.

    Raises:
        DataError: the columns contain names but are not numbered, so that their meaning is unclear.

    Warns:
        UserWarning: the columns are read as one list per row.
    """
    first = next(iter(sources.values()))
    example = _first_name(first, fields) if len(fields) > 1 else None
    if example is None:
        return dict(sources), list(fields)
    row, field, name = example
    if len({re.sub(r"[\W_]*[0-9]+$", "", one).rstrip("s") for one in fields}) > 1:
        columns = ", ".join(map(repr, fields))
        raise DataError(
            f"{first.name}: the target columns hold names ({first.where(row)}, column {field!r}: {name!r}) where 0 or "
            f"1 is expected; if they are names of labels, join them into one column, in pandas: "
            f"frame['labels'] = frame[[{columns}]].fillna('').agg(','.join, axis=1), and pass "
            f"target_fields='labels' ({first.counting})"
        )
    warnings.warn(
        f"{first.name}: the names in the columns {some_of(list(map(repr, fields)))} are read as one list per row, as in "
        f"{first.where(row)}: {name!r}",
        UserWarning,
        stacklevel=5,
    )
    joined = " + ".join(fields)
    return {key: _join(source, fields, joined) for key, source in sources.items()}, [joined]


def _first_name(source: Source, fields: Sequence[str]) -> tuple[int, str, str] | None:
    """Return row, column and text of the first name; None if the columns do not contain names."""
    columns = [plain_column(source, field) for field in fields]
    if not all(is_text(column.type) or pa.types.is_null(column.type) for column in columns):
        return None
    distinct = [pc.unique(pc.utf8_trim_whitespace(column.cast(pa.large_string()))) for column in columns]
    names = [name for column in distinct for name in column.to_pylist() if name]
    # if each column has a single distinct one-character value, such as x, these are marks
    marks = all(len(name) == 1 for name in names) and len(names) <= len(fields)
    if len({name.casefold() for name in names}) < 2 or marks or any(re.match(VALUE, name) for name in names):
        return None
    for field, column in zip(fields, columns, strict=True):
        if not pa.types.is_null(column.type):
            filled = np.flatnonzero(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(column), ""), False))
            if len(filled):
                return int(filled[0]), field, column[int(filled[0])].as_py()
    return None


def _join(source: Source, fields: Sequence[str], joined: str) -> Source:
    rows, values = [], []
    for field in fields:
        column = plain_column(source, field)
        if not (is_text(column.type) or pa.types.is_null(column.type)):
            raise DataError(
                f"{source.name}: column {field!r} holds {short_type(column.type)}, but the training rows hold names; give every split "
                f"the same structure ({source.counting})"
            )
        trimmed = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
        filled = np.flatnonzero(pc.fill_null(pc.not_equal(trimmed, ""), False))
        rows.append(filled)
        values.append(trimmed.take(pa.array(filled)))
    order = np.argsort(np.concatenate(rows), kind="stable")
    counts = np.bincount(np.concatenate(rows), minlength=source.table.num_rows)
    ends = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    lists = pa.ListArray.from_arrays(ends, pa.concat_arrays(values).take(pa.array(order)))
    return replace(source, table=source.table.drop_columns(list(fields)).append_column(joined, lists))
