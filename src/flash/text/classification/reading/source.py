"""A source becomes a table: `Source`, its columns, and the reader of CSV; `tables` has the others.

`Source` is an Arrow table that still knows which file and row each of its rows came from, so that every
message can say so. One rule for rows: row 1 is the first data row of its file; headers and blank lines are
not counted.

Imports nothing of the project but errors and the wording of mistakes; neither torch nor lightning.
"""

import codecs
import csv
import glob
import io
import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from flash.core.errors import DataError, unknown_name
from flash.text.classification.reading.mistakes import (
    HEADER,
    MAGIC,
    ROWS,
    SHOWN,
    UTF8_MARK,
    count_rows,
    first_of,
    foreign,
    missing_file,
    mixture,
    not_utf8,
    raise_for_quotes,
    rows_of,
)

Files: TypeAlias = str | Path | Sequence[str | Path]

PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}  # file endings that are unpacked while reading
QUOTE, NEWLINES = ord('"'), (ord("\n"), ord("\r"))
BLOCK = 1 << 22  # bytes parsed at once; 4 MiB measured as quick as larger ones, with less memory
LARGEST_BLOCK = 2**31 - 1  # Arrow's own limit
FEW = 1_000  # texts up to which a list becomes an array by way of buffers


@dataclass(frozen=True)
class Source:
    """A table and where its rows came from.

    Attributes:
        table: column names as in the file.
        parts: (name, number of rows) of each file or object, in the order of the rows.
        class_names: names of the classes that a column's integers stand for, where the source itself knows
            them (a Hugging Face `ClassLabel`).
        numbers: the row number, counted from 1, of each row in its part; None when no row was left out.
        kind: what it was read from, for messages: `csv`, `json`, `parquet`, `frame`, or nothing of these.
    """

    table: pa.Table
    parts: tuple[tuple[str, int], ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: npt.NDArray[np.int64] | None = None
    kind: str = ""

    @property
    def name(self) -> str:
        """The first part's name, with the number of the others."""
        return self.parts[0][0] + (f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else "")

    @property
    def counting(self) -> str:
        """How rows are numbered, for the end of a message that names some."""
        return HEADER if self.kind == "csv" else ROWS

    def locate(self, row: int) -> tuple[str, int]:
        """The part of row `row` of the table (counted from 0), and its number in that part."""
        ends = np.cumsum([rows for _, rows in self.parts]).tolist()
        part = bisect_right(ends, row)
        number = row - ends[part] + self.parts[part][1] + 1 if self.numbers is None else self.numbers[row]
        return self.parts[part][0], int(number)

    def where(self, row: int) -> str:
        """Row `row` of the table (counted from 0) in the user's words, such as `train.csv, row 17`."""
        part, number = self.locate(row)
        return f"{part}, row {number}"

    def places(self, rows: npt.ArrayLike, first: int = SHOWN) -> str:
        """The first few of `rows` (counted from 0) by file, then how many more there are."""
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
    """The texts of a source, one array without nulls.

    Raises:
        DataError: the column holds numbers or another type, or a row has no text; such rows are counted.
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
            f"{source.name}: column {name!r} holds {column.type}, not text ({source.where(0)}: "
            f"{column[0].as_py()!r}); name the column of texts, or turn its values into text "
            f"({source.counting})"
        )
    return column.cast(pa.large_string())


def text_array(texts: Any, name: str) -> pa.LargeStringArray:
    """N texts, N may be 0, as one array; `name` is what messages call them.

    Raises:
        DataError: one text instead of a list, an element that is null or no text, half a surrogate pair.
    """
    if isinstance(texts, str | bytes) or not hasattr(texts, "__len__"):
        raise DataError(
            f"{name} is a {type(texts).__name__}, not a list of texts; pass a list such as ['a text', ...]"
        )
    if isinstance(texts, pa.LargeStringArray) and not texts.null_count:
        return texts
    if isinstance(texts, list) and set(map(type, texts)) == {str}:
        with suppress(UnicodeEncodeError):  # half a surrogate pair: said which below
            return _few_texts(texts) if len(texts) <= FEW else pa.array(texts, pa.large_string())
    table = pa.table({"text": to_array(texts, "text", name)})
    return text_column(Source(table, ((name, table.num_rows),)), "text")


def _few_texts(texts: Sequence[str]) -> pa.LargeStringArray:
    """As `pa.array`, which looks whether a list is one of pandas', and imports it for that where it is installed."""
    encoded = [text.encode() for text in texts]
    ends = array("q", accumulate(map(len, encoded), initial=0))
    return pa.LargeStringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def plain_column(source: Source, name: str) -> pa.Array:
    """A column as one array, texts of any kind as large strings; dictionary-encoded values are decoded."""
    column = source.table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())  # one array may pass 2 GB
    return column.combine_chunks()


def to_array(values: Any, column: str, name: str) -> pa.Array | pa.ChunkedArray:
    """Python values as an Arrow array; values that do not go together are counted by kind."""
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


# ---------------------------------------------------------------------------------------------- CSV


def read_csv(
    files: Files,
    *,
    columns: Iterable[str] | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoting: bool = True,
) -> Source:
    """Comma- or tab-separated files, every cell as text and an empty cell as the empty text.

    Args:
        files: a file, a list of files, or a glob such as `"data/*.csv"`; .gz, .bz2 and .zst are unpacked.
        columns: the columns needed; None for all. Others are not materialised.
        encoding: the text encoding; a byte-order mark is fine.
        delimiter: None for a tab in `.tsv` and `.tab`, and in `.txt` whose header holds one; otherwise a
            comma.
        quoting: whether a cell may stand in double quotes. False for files in which a quote is an ordinary
            character; no cell can then hold the delimiter or a newline.

    Raises:
        DataError: no such file or column, a duplicate column, an empty file, a file that is no text, a header
            without rows, rows of another width than the header, a quote that is never closed, bytes that are
            not in the encoding.
    """
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise DataError(
            f"delimiter={delimiter!r} is not one character of ASCII; pass one such as ';' or '\\t'"
        )
    wanted = None if columns is None else list(columns)
    return read_each(files, "csv", lambda path: _csv_table(path, wanted, encoding, delimiter, quoting))


def _csv_table(
    path: Path, columns: list[str] | None, encoding: str, delimiter: str | None, quoting: bool
) -> pa.Table:
    buffer = _utf8(path, encoding)
    start = bytes(buffer.slice(0, min(len(buffer), 4096)))
    if start.startswith(tuple(MAGIC)):
        raise DataError(foreign(path, start))
    buffer = buffer.slice(len(start) - len(start.removeprefix(UTF8_MARK).lstrip(b"\r\n")))
    text = bytes(buffer.slice(0, min(len(buffer), BLOCK))).decode(errors="surrogateescape")
    if not text.strip():
        raise DataError(f"{path} is empty; is it the right file?")
    if delimiter is None:
        kind, first = ending(path), re.split("[\r\n]", text, maxsplit=1)[0]
        delimiter = "\t" if kind in (".tsv", ".tab") or (kind == ".txt" and "\t" in first) else ","
    names = csv_header(str(path), text, delimiter, quoting)
    # Bytes that are not UTF-8 were decoded as surrogates; elsewhere than in the header Arrow finds them.
    if any("\udc80" <= character <= "\udcff" for character in "".join(names)):
        raise DataError(not_utf8(path, read_bytes(path)))
    others = [other for other in ";\t|," if len(names) == 1 and other in names[0] and other != delimiter]
    hint = f"; the header holds {others[0]!r}: pass delimiter={others[0]!r}" if others else ""
    if "".join(text[:50].split()).startswith(('{"', "[{")):
        hint = "; the file looks like JSON: use from_json"
    wanted = check_columns(names, columns, str(path), hint)
    if quoting:
        _check_quotes(path, buffer, delimiter)
    table, ragged = _parse_csv(path, buffer, names, wanted, delimiter, quoting, threads=True)
    if ragged:  # only a serial parse numbers the rows
        _, ragged = _parse_csv(path, buffer, names, wanted, delimiter, quoting, threads=False)
        rows = [f"row {row.number - 1} has {row.actual_columns}" for row in ragged[:SHOWN]]
        raise DataError(
            f"{path}: {count_rows(len(ragged))} not as wide as the header, which has {len(names)} columns "
            f"({first_of(rows, len(ragged))}); put a cell that holds {delimiter!r} in double quotes, or "
            f"pass another delimiter= ({HEADER})"
        )
    return table


def _parse_csv(
    path: Path,
    buffer: pa.Buffer,
    names: list[str],
    wanted: list[str],
    delimiter: str,
    quoting: bool,
    *,
    threads: bool,
) -> tuple[pa.Table, list[Any]]:
    ragged: list[Any] = []
    parse = pa.csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if quoting else False,
        newlines_in_values=quoting,  # block boundaries are then found serially; parsing stays parallel
        ignore_empty_lines=len(names) > 1,  # in a file of one column an empty line is an empty text
        invalid_row_handler=lambda row: ragged.append(row) or "skip",  # type: ignore[func-returns-value]
    )
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.large_string()),
        include_columns=wanted,
        strings_can_be_null=False,
    )
    block = BLOCK
    while True:
        options = pa.csv.ReadOptions(block_size=block, use_threads=threads)
        try:
            return pa.csv.read_csv(pa.BufferReader(buffer), options, parse, convert), ragged
        except pa.ArrowInvalid as error:
            ragged.clear()
            message = str(error)
            if "straddl" in message and block < min(len(buffer), LARGEST_BLOCK):
                block = min(block * 16, LARGEST_BLOCK)  # a cell longer than a block
            elif "UTF8" in message:
                raise DataError(not_utf8(path, read_bytes(path))) from error
            elif "Empty CSV" in message:
                raise DataError(f"{path} has no rows, only column names; is it the right file?") from error
            else:
                raise DataError(f"{path} cannot be read as CSV: {message}") from error


def csv_header(name: str, text: str, delimiter: str, quoting: bool = True) -> list[str]:
    """The column names in the first record of `text`, the start of what messages call `name`."""
    records = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
    )
    try:
        return next(records)
    except csv.Error as error:
        raise DataError(f"{name} has no header that can be read: {error}") from error


def _check_quotes(path: Path, buffer: pa.Buffer, delimiter: str) -> None:
    """Arrow reads a quote that is never closed to the end of the file, and swallows the rows between.

    In a well-formed file quotes come in pairs, the first after a delimiter or newline, the second before one.
    That much is checked on arrays; only a file that fails it is walked quote by quote.
    """
    data = np.frombuffer(buffer, np.uint8)
    step = 1 << 24  # the comparison's temporary stays small
    quotes = np.concatenate(
        [np.flatnonzero(data[i : i + step] == QUOTE) + i for i in range(0, len(data), step)]
    )
    edge = np.zeros(256, bool)
    edge[[ord(delimiter), *NEWLINES]] = True
    starts = edge[data[quotes - 1]] | (quotes == 0)
    stops = edge[data[np.minimum(quotes + 1, len(data) - 1)]] | (quotes == len(data) - 1)
    quoted = np.diff(quotes, prepend=-2) == 1  # the quote before it is its neighbour
    before, after = quoted, np.append(quoted[1:], False)
    if len(quotes) % 2 == 0 and (starts | before)[0::2].all() and (stops | after)[1::2].all():
        return
    raise_for_quotes(path, data, quotes, (starts, stops, after), delimiter)


def _utf8(path: Path, encoding: str) -> pa.Buffer:
    """The bytes of a file as UTF-8: mapped, not copied, unless packed or in another encoding."""
    buffer = read_bytes(path)
    try:
        if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
            return buffer
        return pa.py_buffer(bytes(buffer).decode(encoding).encode())
    except LookupError as error:
        raise DataError(
            f"encoding={encoding!r} is none that Python knows; pass one such as 'cp1252'"
        ) from error
    except UnicodeError as error:
        raise DataError(f"{path} is not in encoding={encoding!r}: {error}; pass another one") from error


# --------------------------------------------------------------------------------- for every reader


def read_each(files: Files, kind: str, read: Callable[[Path], pa.Table]) -> Source:
    """The tables of all the files that `files` names, one below the other."""
    tables, parts = [], []
    for path in find_files(files, kind):
        try:
            table = read(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if not table.num_rows:
            header = ", only column names" if table.num_columns else ""
            raise DataError(f"{path} has no rows{header}; is it the right file?")
        tables.append(table)
        parts.append((str(path), table.num_rows))
    try:
        return Source(pa.concat_tables(tables, promote_options="permissive"), tuple(parts), kind=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{parts[0][0]} and the other files differ in a column's type: {error}") from error


def check_columns(
    known: Sequence[str], wanted: Iterable[str] | None, place: str, hint: str = ""
) -> list[str]:
    """The wanted columns, or all; says which are unknown or there twice."""
    wanted = list(known) if wanted is None else list(dict.fromkeys(wanted))
    missing = [name for name in wanted if name not in known]
    if missing:
        others = ", ".join(map(repr, missing[: min(10, len(missing) - 1)]))
        others += f", {len(missing) - 11:,} more" * (len(missing) > 11)
        kind = f"columns {others} and" if others else "column"
        raise DataError(f"{place}: {unknown_name(kind, missing[-1], known)}{hint}")
    # Columns without a name are what a spreadsheet leaves at the right edge; nobody asks for one by mistake.
    twice = [
        f"{name!r} ({count} times)"
        for name, count in Counter(known).items()
        if count > 1 and (name or "" in wanted)
    ]
    if twice:
        raise DataError(
            f"{place}: the same column name is there more than once: {', '.join(twice)}; rename all but one"
        )
    return wanted


def find_files(files: Files, kind: str) -> list[Path]:
    """The files that a path, a glob or a list of them names, in order; the files of one glob are sorted."""
    found: list[Path] = []
    for entry in [files] if isinstance(files, str | Path) else list(files):
        path = Path(entry).expanduser()
        if path.is_dir():
            raise DataError(
                f"{entry} is a folder, not a file; for every file in it pass '{path / f'*.{kind}'}'"
            )
        if path.exists():
            found.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  (pathlib's: no absolute one)
        if not matches:
            raise DataError(missing_file(str(entry), path))
        found.extend(Path(match) for match in matches if not Path(match).is_dir())
    if not found:
        raise DataError(f"no file given; pass a path such as 'train.{kind}', a list of paths, or a glob")
    return found


def read_bytes(path: Path) -> pa.Buffer:
    """The bytes of a file, mapped where it is an ordinary one."""
    if path.suffix.lower() in PACKED:
        with open_packed(path) as stream:
            return stream.read_buffer()
    if path.is_file() and path.stat().st_size:
        with pa.memory_map(str(path)) as mapped:
            return mapped.read_buffer()
    return pa.py_buffer(path.read_bytes())


def open_packed(path: Path) -> pa.NativeFile:
    """The unpacked bytes of a file whose ending is in `PACKED`."""
    return pa.input_stream(str(path), compression=PACKED[path.suffix.lower()])


def ending(path: str | Path) -> str:
    """The ending that tells a file's format, in lower case: `.csv` of `a.CSV` and of `a.csv.gz`."""
    path = Path(path)
    return (Path(path.stem) if path.suffix.lower() in PACKED else path).suffix.lower()
