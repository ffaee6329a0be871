"""`Source`, the result of every reader: a table that knows the file and row number of each of its rows.

Row 1 is the first data row of its file; headers and blank lines are not counted.
"""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError, shortened, unknown_name
from flash.text.classification.reading.mistakes import (
    HEADER,
    ROWS,
    SHOWN,
    count_rows,
    mixture,
    rows_of,
    short_type,
    some_of,
)

FEW = 1_000  # up to this many texts, a list is converted through buffers, without importing pandas


@dataclass(frozen=True)
class Source:
    """A table and the origin of its rows.

    Attributes:
        table: the rows, with the column names of the file.
        parts: (name, number of rows) of each file or object, in the order of the rows.
        class_names: class names of integer columns, if the source has them (a Hugging Face `ClassLabel`).
        numbers: row number of each row in its part, from 1; None if no row was removed.
        kind: what it was read from, for messages: `csv`, `json`, `parquet`, `frame`, or "".
    """

    table: pa.Table
    parts: tuple[tuple[str, int], ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: npt.NDArray[np.int64] | None = None
    kind: str = ""

    @property
    def name(self) -> str:
        """The first part's name, and how many more parts there are."""
        return self.parts[0][0] + (f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else "")

    @property
    def counting(self) -> str:
        """How rows are counted, for the end of a message that names rows."""
        return HEADER if self.kind == "csv" else ROWS

    def locate(self, row: int) -> tuple[str, int]:
        """Return the part of row `row` (from 0) of the table, and its row number in that part."""
        ends = np.cumsum([rows for _, rows in self.parts]).tolist()
        part = bisect_right(ends, row)
        number = row - ends[part] + self.parts[part][1] + 1 if self.numbers is None else self.numbers[row]
        return self.parts[part][0], int(number)

    def where(self, row: int) -> str:
        """Format row `row` (from 0) of the table for a message, such as `train.csv, row 17`."""
        part, number = self.locate(row)
        return f"{part}, row {number}"

    def places(self, rows: npt.ArrayLike, first: int = SHOWN) -> str:
        """Format the first few of `rows` (from 0), grouped by file, and add how many more there are."""
        found = np.asarray(rows)
        parts: dict[str, list[int]] = {}
        for part, number in map(self.locate, found[:first].tolist()):
            parts.setdefault(part, []).append(number)
        if len(parts) == 1:
            return "".join(f"{part}, {rows_of(numbers, len(found))}" for part, numbers in parts.items())
        places = [f"{part}, {rows_of(numbers, len(numbers))}" for part, numbers in parts.items()]
        more = len(found) - min(first, len(found))
        return "; ".join(places) + (f"; and {more:,} more" if more else "")


def text_column(source: Source, name: str) -> pa.LargeStringArray:
    """Return a text column as one array without nulls.

    Raises:
        DataError: the column has another type, or rows have no text; such rows are counted.
    """
    column = plain_column(source, name)
    nulls = column.null_count if not pa.types.is_null(column.type) else len(column)
    if nulls:
        places = source.places(np.flatnonzero(pc.is_null(column)))
        rows = count_rows(nulls, "row has")
        raise DataError(
            f"{source.name}: {rows} no text in column {name!r} ({places}); fill these cells or remove these "
            f"rows ({source.counting})"
        )
    if not (pa.types.is_large_string(column.type) or len(column) == 0):
        raise DataError(
            f"{source.name}: column {name!r} holds {short_type(column.type)}, not text ({source.where(0)}: "
            f"{shortened(repr(column[0].as_py()), 60)}); name the column of texts, or turn its values into text "
            f"({source.counting})"
        )
    return column.cast(pa.large_string())


def text_array(texts: Any, name: str) -> pa.LargeStringArray:
    """Convert N texts (N may be 0) to one array; `name` is their name in messages.

    Raises:
        DataError: not a sequence of texts (one text, a dict, a set, a generator, a table), or an element that is null,
            is not a text, or contains half a surrogate pair.
    """
    if hint := _not_texts(texts):
        raise DataError(f"{name} is a {type(texts).__name__}, not a list of texts; pass {hint}")
    if isinstance(texts, pa.LargeStringArray) and not texts.null_count:
        return texts
    if isinstance(texts, list) and set(map(type, texts)) == {str}:
        with suppress(UnicodeEncodeError):  # half a surrogate pair: the code below finds out which text
            return _few_texts(texts) if len(texts) <= FEW else pa.array(texts, pa.large_string())
    table = pa.table({"text": to_array(texts, "text", name)})
    if pa.types.is_nested(table["text"].type):
        raise DataError(
            f"{name}[0] is a {_kind(texts[0])}, not a text; pass a flat list such as ['a text', ...]"
        )
    return text_column(Source(table, ((name, table.num_rows),)), "text")


def _not_texts(texts: Any) -> str | None:
    """Return advice if the argument is not a sequence of texts; None for a list, tuple, array or Series."""
    shape = getattr(texts, "shape", None)
    if isinstance(texts, Mapping):
        return "the texts alone, as a list such as ['a text', ...]"
    if isinstance(texts, pa.Table | pa.RecordBatch) or (isinstance(shape, tuple) and len(shape) == 2):
        return "one column of it, or a list such as ['a text', ...]"
    if isinstance(texts, Set):
        return "a list such as ['a text', ...]: a set has no order, and the answers come in the order of the texts"
    flat = isinstance(texts, Sequence | pa.Array | pa.ChunkedArray) or (
        isinstance(shape, tuple) and len(shape) == 1
    )
    if isinstance(texts, str | bytes | bytearray | memoryview) or not flat:
        return "a list such as ['a text', ...]"
    return None


def _kind(value: Any) -> str:
    """Return the name of a value's Python type."""
    return type(value.as_py() if isinstance(value, pa.Scalar) else value).__name__


def _few_texts(texts: Sequence[str]) -> pa.LargeStringArray:
    """Like `pa.array`, which would import pandas, if installed, to check for its types."""
    encoded = [text.encode() for text in texts]
    ends = array("q", accumulate(map(len, encoded), initial=0))
    return pa.LargeStringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def plain_column(source: Source, name: str) -> pa.Array:
    """Return a column as one array: any string type as large strings, dictionary-encoded values decoded."""
    column = source.table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())  # one array may exceed 2 GB
    return column.combine_chunks()


def to_array(values: Any, column: str, name: str) -> pa.Array | pa.ChunkedArray:
    """Convert Python values to an Arrow array; the error for mixed types counts each type."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if getattr(values, "ndim", 1) == 2:
        matrix = np.ascontiguousarray(values.toarray() if hasattr(values, "toarray") else values)
        if not matrix.shape[1]:
            raise DataError(
                f"{name}: column {column!r} is an array of shape {matrix.shape}; pass (N, L), L >= 1"
            )
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    try:
        return pa.array(np.asarray(values) if hasattr(values, "detach") else values, from_pandas=True)
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        UnicodeEncodeError,
        OverflowError,
    ) as error:
        raise DataError(f"{name}: column {column!r} {mixture(list(values), name, error)}") from error


def check_columns(
    known: Sequence[str], wanted: Iterable[str] | None, place: str, hint: str = ""
) -> list[str]:
    """Return the wanted columns, or all; raise DataError for unknown and duplicate columns."""
    wanted = list(known) if wanted is None else list(dict.fromkeys(wanted))
    there, asked = set(known), set(wanted)
    missing = [name for name in wanted if name not in there]
    if missing:
        others = ", ".join(map(repr, missing[: min(10, len(missing) - 1)]))
        others += f", {len(missing) - 11:,} more" * (len(missing) > 11)
        kind = f"columns {others} and" if others else "column"
        raise DataError(f"{place}: {unknown_name(kind, missing[-1], known)}{hint}")
    # ignore duplicate columns without a name: spreadsheets leave them at the right edge
    twice = [
        f"{name!r} ({count} times)"
        for name, count in Counter(known).items()
        if count > 1 and (name or "" in asked)
    ]
    if twice:
        raise DataError(
            f"{place}: the same column name is there more than once: {some_of(twice)}; rename all but one"
        )
    return wanted
