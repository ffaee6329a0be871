"""Write blocks of rows with their predictions to CSV, TSV, JSON lines or Parquet, in constant memory.

The input's columns come first, in order; values of text formats stay text.
"""

import codecs
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from flash.core.errors import DataError, FlashError
from flash.core.files import atomic_file
from flash.text.classification.reading import arrow_values
from flash.text.classification.reading.remote import RemoteFile, is_url

ROW_GROUP = 2**16  # rows per Parquet row group
ROW_GROUP_BYTES = 2**26  # a row group of this size is written even if it has fewer rows


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        first: number of the first row; a file's rows count from 1, without the header.
        rows: a table, or a list of JSON objects.
        lines: for JSON lines, the original lines.
        delimiter: for CSV, the delimiter.
    """

    first: int
    rows: pa.Table | list[dict[str, Any]]
    lines: tuple[bytes, ...] = ()
    delimiter: str | None = None

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns, or the keys of all objects in order of appearance."""
        if isinstance(self.rows, pa.Table):
            return list(self.rows.column_names)
        return list(dict.fromkeys(key for row in self.rows for key in row))

    @cached_property
    def table(self) -> pa.Table:
        """The rows as a table; JSON values other than strings and null become JSON text."""
        if isinstance(self.rows, pa.Table):
            return self.rows
        columns = [[_as_text(row.get(name)) for row in self.rows] for name in self.names]
        try:
            return pa.table([pa.array(column, pa.large_string()) for column in columns], names=self.names)
        except UnicodeEncodeError as error:
            raise DataError(
                f"rows {self.first:,} to {self.first + len(self.rows) - 1:,} hold half of a surrogate pair "
                f"({error.object[error.start :][:1]!r}), which is no text; repair it or write JSON lines"
            ) from error


class Writer(Protocol):
    """Writes blocks and their new columns, (N, K), in order."""

    def write(self, block: Block, added: pa.Table) -> None:
        """Append a block."""

    def close(self) -> None:
        """Write buffered rows; the file stays open."""


@contextmanager
def open_output(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for atomic writing (see `atomic_file`); `-` is standard output.

    The file replaces an earlier one only once it is complete; after an error or Ctrl-C the earlier file remains.
    Pipes and devices are written directly, URLs through fsspec.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    if is_url(path):
        with RemoteFile(str(path)).open("wb") as remote:
            yield remote
        return
    path = Path(path).expanduser()
    with ExitStack() as stack:
        try:
            file = stack.enter_context(atomic_file(path))
        except OSError as error:
            raise FlashError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
        yield file


def make_folder(path: str | Path) -> None:
    """Create the folder of the outputs if it does not exist.

    Raises:
        FlashError: the folder cannot be created.
    """
    if "://" in str(path):  # an object store has no folders
        return
    try:
        Path(path).expanduser().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlashError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def check_cells(delimiter: str | None, encoding: str) -> None:
    """Check the delimiter and the encoding of a CSV output.

    Raises:
        FlashError: the delimiter is not one ASCII character, or the encoding is unknown.
    """
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise FlashError(
            f"output_delimiter={delimiter!r} is not one character of ASCII; pass one such as ';' or '\\t'"
        )
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)  # raises LookupError also for codecs such as base64
    except LookupError as error:
        raise FlashError(
            f"output_encoding={encoding!r} is none that Python knows; pass one such as 'utf-8-sig' or 'cp1252'"
        ) from error


class _CsvWriter:
    """Writes texts in double quotes, numbers without, nulls as empty cells, and lists and objects as JSON text."""

    def __init__(self, file: IO[bytes], delimiter: str = ",", encoding: str = "utf-8") -> None:
        self.file, self.delimiter, self.encoding = file, delimiter, encoding
        self.names: list[str] | None = None
        # one encoder for all blocks, so that only the first block gets a byte-order mark
        self.encoder = None if is_utf8(encoding) else codecs.getincrementalencoder(encoding)()

    def write(self, block: Block, added: pa.Table) -> None:
        rows = _fit(block, self.names)
        header, self.names = self.names is None, rows.column_names
        columns = [_flat(column) for column in rows.columns]
        columns += [_join(column) if pa.types.is_list(column.type) else column for column in added.columns]
        table = pa.table(columns, names=rows.column_names + added.column_names)
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(table, sink, pa.csv.WriteOptions(include_header=header, delimiter=self.delimiter))
        written = sink.getvalue()
        self.file.write(
            written if self.encoder is None else self._encoded(self.encoder, written, table, block.first)
        )

    def _encoded(
        self, encoder: codecs.IncrementalEncoder, written: pa.Buffer, table: pa.Table, first: int
    ) -> bytes:
        try:
            return encoder.encode(bytes(written).decode())
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            raise DataError(
                f"{_place_of(character, table, first)} holds {character!r} (U+{ord(character):04X}), which is not in "
                f"{self.encoding}; pass output_encoding='utf-8-sig', which Excel reads too"
            ) from error

    def close(self) -> None:
        """Nothing is held back."""


class _JsonLinesWriter:
    """Adds the new keys before the closing brace of each JSON line, and keeps the rest of the line unchanged."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, block: Block, added: pa.Table) -> None:
        # convert float32 through its shortest decimal form: 0.98, not 0.9800000190734863
        columns = [
            column.cast(pa.string()).cast(pa.float64()) if pa.types.is_float32(column.type) else column
            for column in added.columns
        ]
        new = pa.table(columns, names=added.column_names).to_pylist()
        if block.lines:
            pairs = zip(block.lines, block.rows, new, strict=True)
            lines = [
                line.rstrip()[:-1]
                + (b", " if row else b"")
                + json.dumps(keys, ensure_ascii=False).encode()[1:]
                for line, row, keys in pairs
            ]
        else:
            columns = [_values(column) for column in block.table.columns]
            old = [dict(zip(block.names, row, strict=True)) for row in zip(*columns, strict=True)]
            lines = [_as_json(row | keys).encode() for row, keys in zip(old, new, strict=True)]
        self.file.write(b"".join(line + b"\n" for line in lines))

    def close(self) -> None:
        """Nothing is held back."""


class _ParquetWriter:
    """Collects blocks into row groups of a useful size."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.names: list[str] | None = None
        self.writer: Any = None
        self.held: list[pa.Table] = []

    def write(self, block: Block, added: pa.Table) -> None:
        table = _fit(block, self.names)
        self.names = table.column_names
        for name, column in zip(added.column_names, added.columns, strict=True):
            table = table.append_column(name, column)
        if self.writer is None:
            from pyarrow.parquet import ParquetWriter  # slow to import

            self.writer = ParquetWriter(self.file, table.schema)
        self.held.append(table)
        full = (
            sum(map(len, self.held)) >= ROW_GROUP or sum(held.nbytes for held in self.held) >= ROW_GROUP_BYTES
        )
        if full:
            self._write_group()

    def _write_group(self) -> None:
        if self.writer is not None and self.held:
            self.writer.write_table(pa.concat_tables(self.held))
            self.held.clear()

    def close(self) -> None:
        self._write_group()
        if self.writer is not None:
            self.writer.close()


WRITERS: dict[str, Callable[[IO[bytes]], Writer]] = {
    "csv": _CsvWriter,
    "tsv": lambda file: _CsvWriter(file, "\t"),
    "jsonl": _JsonLinesWriter,
    "parquet": _ParquetWriter,
}


BYTES = (
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view),
)
"""Tests for Arrow's binary types."""
TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Units of a duration per second."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
"""Default delimiters."""


def open_writer(kind: str, file: IO[bytes], delimiter: str | None = None, encoding: str = "utf-8") -> Writer:
    """Return the writer for a format, a key of `WRITERS`; delimiter and encoding apply to CSV and TSV only."""
    if kind in DELIMITERS:
        return _CsvWriter(file, delimiter or DELIMITERS[kind], encoding)
    return WRITERS[kind](file)


def is_utf8(encoding: str) -> bool:
    """Return whether an encoding is UTF-8 without a byte-order mark."""
    return codecs.lookup(encoding).name == "utf-8"


def _place_of(character: str, table: pa.Table, first: int) -> str:
    """Return the first place of a character in rows whose numbers start at `first`."""
    if found := [name for name in table.column_names if character in name]:
        return f"the column name {found[0]!r}"
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            row = pc.index(pc.match_substring(column, character), True).as_py()
            if row >= 0:
                return f"row {first + row}, column {name!r},"
    return "a row"


def _fit(block: Block, names: list[str] | None) -> pa.Table:
    """Return a block's table with exactly the columns `names`; only JSON lines can have other columns."""
    table = block.table
    if names is None or table.column_names == names:
        return table
    new = [name for name in table.column_names if name not in names]
    if new:
        raise DataError(
            f"the rows from {block.first:,} on have the key {new[0]!r}, which no earlier row has; "
            "a table's columns are fixed by its first rows, so write JSON lines: pass output_format='jsonl'"
        )
    absent = pa.nulls(len(table), pa.large_string())
    return pa.table([table[name] if name in table.column_names else absent for name in names], names=names)


def _join(column: pa.ChunkedArray) -> pa.Array:
    """Join each list of names into one text, in the form that the target formats read: `"a, b",c`."""
    lists = column.combine_chunks()
    names = lists.flatten()
    mark, comma = arrow_values.text('"'), arrow_values.text(",")
    quoted = pc.binary_join_element_wise(
        mark, pc.replace_substring(names, '"', '""'), mark, arrow_values.text("")
    )
    edged = pc.not_equal(pc.utf8_trim_whitespace(names), names)
    names = pc.if_else(pc.or_(pc.match_substring_regex(names, '[,"]'), edged), quoted, names)
    return pc.binary_join(pa.ListArray.from_arrays(lists.offsets, names), comma)


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Convert a column for CSV: lists and objects to JSON text, bytes to hexadecimal digits, durations to seconds."""
    column = _plain(column)
    nested = pa.types.is_nested(column.type) or pa.types.is_interval(column.type)
    return pa.array(map(_as_text, column.to_pylist()), pa.large_string()) if nested else column


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Convert types that only Arrow has to plain ones: dictionary and extension types, views, bytes and durations."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        readable = pa.types.is_string(kind.storage_type) or pa.types.is_nested(kind.storage_type)
        texts = [None if value is None else _as_text(value) for value in column.to_pylist()]
        return column.cast(kind.storage_type) if readable else pa.array(texts, pa.large_string())
    if pa.types.is_dictionary(kind):
        parts = [part.dictionary.take(part.indices) for part in column.chunks]
        return _plain(pa.chunked_array(parts, kind.value_type))
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if any(test(kind) for test in BYTES):
        return pa.array(map(_as_text, column.to_pylist()), pa.large_string())
    if pa.types.is_duration(kind):
        ticks = column.cast(pa.int64()).cast(pa.float64(), safe=False)
        return pc.divide(ticks, pa.scalar(TICKS[kind.unit]))
    return column


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values for JSON; NaN and infinity become None."""
    column = _plain(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):  # a time outside the range of Python's datetime
        values = column.cast(pa.string()).to_pylist()
    return values


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return (
        _as_json(value) if isinstance(value, dict | list | tuple | bool | int | float) else _as_plain(value)
    )


def _as_json(value: Any) -> str:
    """Return JSON text, with null for NaN and infinity."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_plain)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_as_plain)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_plain(value: Any) -> Any:
    """Convert a value that JSON cannot represent."""
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
