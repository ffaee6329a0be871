"""Read files of any size block by block: CSV, TSV, JSON lines, Parquet, Excel and fastText.

Values of text formats stay text ("007" stays "007"). Reading is synchronous: Arrow's streaming reader has a thread that
waits on a pipe, and Python crashes if it exits meanwhile. Imports neither torch nor lightning.
"""

import codecs
import io
import json
import lzma
import re
import select
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv

from flash.core.errors import DataError
from flash.text.classification.predict_files.writers import Block
from flash.text.classification.reading.excel import read_sheet
from flash.text.classification.reading.fasttext import fasttext_rows
from flash.text.classification.reading.files import find_files, open_file
from flash.text.classification.reading.layout import UNUSED, Layout, find_layout, first_record, sep_line
from flash.text.classification.reading.mistakes import (
    HEADER,
    MAGIC,
    SHOWN,
    UTF8_MARK,
    count_rows,
    decoded,
    foreign,
    json_value,
    one_column_hint,
    rows_of,
    utf16_without_mark,
)
from flash.text.classification.reading.odd_rows import (
    headers_in_other_order,
    other_order,
    repeated_headers,
    swallowed_rows,
    swallowed_warning,
)
from flash.text.classification.reading.source import check_columns

ROWS = 4096  # maximum number of rows per block
CHUNK = 2**22  # bytes read at once
LONGEST_ROW = 2**27  # bytes; otherwise a quote that is never closed would read the whole file into memory

_PLAIN = rb'"[^"]*"\s*:\s*(?:"[^"]*"|[-+.\w]+)\s*,\s*'
_ROWS_OF_KEY = re.compile(
    rb"\s*\{\s*(?:" + _PLAIN + rb')*"([^"]*)"\s*:\s*\[\s*\{'
)  # {"version": 1, "data": [{


@dataclass(frozen=True)
class Dialect:
    """Options for reading a file.

    Attributes:
        encoding: encoding of text formats; a byte-order mark is accepted.
        delimiter: for CSV; None means a tab for a `.txt` file with a tab in its header, otherwise a comma.
        quoting: for CSV, whether a cell may be in double quotes.
        column_names: for CSV and Excel without a header, the names of the columns in order.
        sheet: for Excel, the sheet; None for the first.
        known: for CSV and Excel, names of columns or labels that distinguish a header from a row.

    Raises:
        DataError: the delimiter is not one ASCII character.
    """

    encoding: str = "utf-8"
    delimiter: str | None = None
    quoting: bool = True
    column_names: tuple[str, ...] | None = None
    known: tuple[str, ...] = ()
    sheet: str | None = None

    def __post_init__(self) -> None:
        given = self.delimiter
        if given is not None and (len(given) != 1 or not given.isascii() or given in '"\r\n'):
            raise DataError(f"delimiter={given!r} is not one character of ASCII; pass one such as ';'")


def read_blocks(
    path: str | Path, kind: str, dialect: Dialect = Dialect(), *, rows: int = ROWS
) -> Iterator[Block]:
    """Yield the rows of a file in order; at least one block, which is empty for a header without rows.

    Args:
        path: a file, a pipe, or `-` for standard input.
        kind: the format, a key of `READERS`.
        dialect: options for reading.
        rows: maximum number of rows per block.

    Raises:
        DataError: the file cannot be read; names the row if there is one.
    """
    if str(path) == "-":
        if kind == "parquet":
            raise DataError(
                "standard input: Parquet is read from its end, so it cannot be piped; save it as a file first"
            )
        yield from READERS[kind](sys.stdin.buffer, "standard input", dialect, rows)
        return
    found, *others = find_files(str(path), kind)
    if others:
        raise DataError(f"{len(others) + 1} files match, the first is {found}; name one of them")
    try:
        with open_file(found) as file:
            yield from READERS[kind](file, str(found), dialect, rows)
    except (EOFError, lzma.LZMAError) as error:  # raised for .xz; Arrow raises OSError for the others
        raise DataError(f"{found} cannot be unpacked: {error}; copy it again") from error


def _where(file: IO[bytes]) -> str:
    """What an error message about empty input tells the user to check."""
    return "what is piped into it" if file is sys.stdin.buffer else "its path"


def _read_csv(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """Read every cell as text; an empty cell is an empty text."""
    chunks = _read_text(file, name, dialect.encoding)
    start, skipped = b"", 0
    for chunk in chunks:  # until the first line is complete, which decides the layout
        start = (start + chunk).removeprefix(UTF8_MARK).lstrip(b"\r\n")
        skipped, _ = sep_line(start[:16].decode(errors="replace"))
        if re.search(b"[\r\n]", start[skipped:]):
            break
    if not start.strip():
        raise DataError(f"{name} is empty; check {_where(file)}, or put column names and rows into it")
    # A pipe's first chunk varies in size; use its first line only, so that the layout is deterministic.
    seen = start if file is not sys.stdin.buffer else start[:skipped] + start[skipped:].splitlines()[0]
    layout = find_layout(
        name,
        seen.decode(errors="ignore"),  # may end inside a character
        delimiter=dialect.delimiter,
        quoting=dialect.quoting,
        column_names=dialect.column_names,
        known=dialect.known,
    )
    start = start[layout.skipped :]
    first, warned = 1, False
    repeated: list[int] = []
    ends = _CsvEnds(layout.delimiter, quoting=layout.quoting)
    names: list[str] = [] if layout.headed else list(layout.names)
    for data in _whole_rows(chain([start], chunks), name, ends):
        if ends.unclosed is not None:
            place = f"row {first}" if names else "the header"
            raise DataError(
                f"{name}, {place}: a cell opens with a quote that is never closed ({ends.unclosed[:40]}); "
                'write a quote inside a quoted cell twice (""), or pass quoting=False if quotes are ordinary '
                "characters here"
            )
        table = _parse_csv(data, name, layout, names, first)
        if layout.quoting and b'"' in data and not warned:
            warned = _warn_of_swallowed_rows(table, layout, name, first)
        headers = repeated_headers(table).tolist() if layout.headed else []
        if layout.headed and len(moved := headers_in_other_order(table)):
            raise DataError(other_order(name, f"row {first + int(moved[0])}", HEADER))
        delimiter = "," if layout.delimiter == UNUSED else layout.delimiter
        for begin, end in zip([0, *(row + 1 for row in headers)], [*headers, table.num_rows], strict=True):
            part = table.slice(begin, end - begin)
            yield from _slices(part, first + begin, rows, delimiter, even_empty=not names)
        repeated += [first + row for row in headers]
        names = names or table.column_names
        first += table.num_rows
    if repeated:
        places = rows_of(repeated[:SHOWN], len(repeated))
        warnings.warn(
            f"{name}: {count_rows(len(repeated))} the header again ({places}) and left out ({HEADER})",
            UserWarning,
            stacklevel=2,
        )


def _warn_of_swallowed_rows(table: pa.Table, layout: Layout, name: str, first: int) -> bool:
    """Warn about the first cell of a block that seems to contain whole rows; return whether there is one."""
    found = swallowed_rows(table, table.column_names, layout.delimiter)
    if found:
        row, column, lines, alike = found[0]
        place = f"{name}, row {first + row}"
        sentence = swallowed_warning(place, column, lines, alike, len(found) - 1)
        warnings.warn(f"{sentence} ({HEADER})", UserWarning, stacklevel=2)
    return bool(found)


def _parse_csv(data: bytes, name: str, layout: Layout, names: list[str], first: int) -> pa.Table:
    """Parse whole rows into a table; without `names`, the first row is the header."""
    header = not names
    if header:
        names = first_record(name, data.decode(), layout.delimiter, layout.quoting)
        check_columns(names, [column for column in names if column], name)
    if header and not re.search(b"[\r\n]", data):
        data += b"\n"  # Arrow ignores a header without a line end
    ragged: list[Any] = []
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        pa.csv.ReadOptions(
            use_threads=False, block_size=len(data) + 1, column_names=None if header else names
        ),
        pa.csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if layout.quoting else False,
            newlines_in_values=layout.quoting,
            # in a file with one column, an empty line is an empty text
            ignore_empty_lines=len(names) > 1,
            invalid_row_handler=lambda row: ragged.append(row) or "skip",  # type: ignore[func-returns-value]
        ),
        pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.large_string()), strings_can_be_null=False, check_utf8=False
        ),
    )
    if ragged:
        row = ragged[0]
        more = f" ({len(ragged):,} such rows within {len(data):,} bytes)" if len(ragged) > 1 else ""
        width = f"{row.actual_columns} cell{'s' * (row.actual_columns != 1)}"
        what = "header" if layout.headed else "first row"
        raise DataError(
            f"{name}, row {first + row.number - 1 - header}: {width} where the {what} has "
            f"{row.expected_columns} column{'s' * (row.expected_columns != 1)}{more}; put a cell that holds "
            f"{layout.delimiter!r} in double quotes, or pass another delimiter={one_column_hint(names, layout.delimiter)}"
        )
    return table


def _read_json_lines(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """Read one object per line; blank lines are skipped."""
    first = 1
    for data in _whole_rows(
        _read_text(file, name, dialect.encoding), name, lambda data, final: data.rfind(b"\n") + 1
    ):
        if first == 1:
            data = data.removeprefix(UTF8_MARK)
            if data.lstrip().startswith(b"["):
                raise DataError(
                    f"{name} is a JSON array, which cannot be read a row at a time; turn it into JSON lines, "
                    "one object per line: jq -c '.[]'"
                )
        lines = [line for line in data.split(b"\n") if line.strip()]
        key = _key_of_rows(data, lines) if first == 1 else None
        if key is not None:
            raise DataError(
                f"{name} is one JSON object with its rows under {key!r}, which cannot be read a row at a time; turn it "
                f"into JSON lines, one object per line: jq -c '.[{json.dumps(key)}][]'"
            )
        for start in range(0, len(lines), rows):
            some = lines[start : start + rows]
            yield Block(first, _parse_json(some, name, first), tuple(some))
            first += len(some)
    if first == 1:
        raise DataError(f"{name} is empty; check {_where(file)}, or put one JSON object per line into it")


def _key_of_rows(data: bytes, lines: list[bytes]) -> str | None:
    """Return the key of the rows if the file is one object like `{"data": [{...}, ...]}`; None for JSON lines."""
    found = _ROWS_OF_KEY.match(data)
    if found is None:
        return None
    try:
        value = json_value(lines[0])
    except json.JSONDecodeError:  # the object spans several lines, or the chunk ends inside it
        return found[1].decode(errors="replace")
    # an ordinary row has at least one text
    lone = len(lines) == 1 and not any(isinstance(one, str) for one in value.values())
    return found[1].decode(errors="replace") if lone else None


def _parse_json(lines: list[bytes], name: str, first: int) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = []
    for row, line in enumerate(lines, first):
        try:
            value = json_value(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{name}, row {row}: not JSON ({error.msg} at column {error.colno}); write one object per line"
            ) from error
        if not isinstance(value, dict):
            raise DataError(
                f"{name}, row {row}: {line[:40].decode(errors='replace')} is not an object; expected {{...}}"
            )
        parsed.append(value)
    return parsed


def _read_parquet(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """Read row groups page by page, not as a whole."""
    from pyarrow.parquet import ParquetFile  # slow to import

    try:
        parquet = ParquetFile(file, pre_buffer=False, buffer_size=2**20)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{name} is not a Parquet file: {str(error).rstrip('.')}; check its path, or save the table again"
        ) from error
    facts = parquet.metadata
    check_columns(parquet.schema_arrow.names, None, name)
    size = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
    rows = max(1, min(rows, CHUNK * max(facts.num_rows, 1) // max(size, 1)))
    first = 1
    try:
        for batch in parquet.iter_batches(rows, use_threads=False):
            _check_utf8(batch, name, first)
            yield Block(first, pa.Table.from_batches([batch]))
            first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        problem = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{name} is damaged behind row {first - 1:,}: {problem}; copy it again") from error
    if first == 1:
        yield Block(first, parquet.schema_arrow.empty_table())


def _check_utf8(batch: pa.RecordBatch, name: str, first: int) -> None:
    """Raise DataError for invalid UTF-8 in a string column, which Parquet does not check."""
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values.validate(full=True)
        except pa.ArrowInvalid as error:
            last = first + batch.num_rows - 1
            raise DataError(
                f"{name}: the column {column!r} holds bytes that are not UTF-8 in rows {first:,} to {last:,}; write it "
                "again from texts"
            ) from error


def _read_excel(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """Read the whole sheet: Excel's formats cannot be read row by row."""
    table = read_sheet(
        name, file.read(), dialect.sheet, column_names=dialect.column_names, known=dialect.known
    )
    yield from _slices(table, 1, rows, ",", even_empty=True)


def _read_fasttext(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """Read the texts; ignore their labels."""
    first = 1
    for data in _whole_rows(
        _read_text(file, name, dialect.encoding), name, lambda data, final: data.rfind(b"\n") + 1
    ):
        lines = [line for line in data.removeprefix(UTF8_MARK).decode().split("\n") if line.strip()]
        table = fasttext_rows(lines).select(["text"])
        yield from _slices(table, first, rows, ",", even_empty=first == 1)
        first += table.num_rows


READERS: dict[str, Callable[[IO[bytes], str, Dialect, int], Iterator[Block]]] = {
    "csv": _read_csv,
    "tsv": lambda file, name, dialect, rows: _read_csv(
        file, name, replace(dialect, delimiter=dialect.delimiter or "\t"), rows
    ),
    "jsonl": _read_json_lines,
    "parquet": _read_parquet,
    "excel": _read_excel,
    "fasttext": _read_fasttext,
}


def _slices(table: pa.Table, first: int, rows: int, delimiter: str, *, even_empty: bool) -> Iterator[Block]:
    for start in range(0, max(table.num_rows, int(even_empty)), rows):
        yield Block(first + start, table.slice(start, rows), delimiter=delimiter)


def _read_text(file: IO[bytes], name: str, encoding: str) -> Iterator[bytes]:
    """Yield a text file's bytes, converted to UTF-8 and checked."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)  # raises LookupError also for codecs such as base64
        as_it_is = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    except LookupError as error:
        raise DataError(f"encoding={encoding!r} is not known; pass encoding='cp1252' or the like") from error
    chunks = iter(partial(_read_some, file), b"")
    start = next(chunks, b"")
    if start.startswith(tuple(magic for magic, words in MAGIC.items() if "encoding=" not in words)):
        raise DataError(foreign(name, start[:4096]))
    if as_it_is and b"\0" in start and (sentence := utf16_without_mark(name, start[:4096])):
        raise DataError(sentence)
    chunks = chain([start] * bool(start), chunks)
    for chunk, text in decoded(chunks, name, encoding):
        yield chunk if as_it_is else text.encode()


def _read_some(file: IO[bytes]) -> bytes:
    """Read up to `CHUNK` bytes; from a pipe only what is available, so that a slow writer's rows are not held back."""
    if not hasattr(file, "read1"):
        return file.read(CHUNK)
    chunk: bytes = file.read1(CHUNK)
    while chunk and len(chunk) < CHUNK and _is_ready(file):
        more = file.read1(CHUNK - len(chunk))
        if not more:
            break
        chunk += more
    return chunk


def _is_ready(file: IO[bytes]) -> bool:
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError):  # not a system file, or a system where select works on sockets only
        return False


def _whole_rows(chunks: Iterable[bytes], name: str, end_of: Callable[[bytes, bool], int]) -> Iterator[bytes]:
    """Regroup chunks so that each ends at the end of a row.

    Args:
        chunks: bytes, split at arbitrary places.
        name: the file's name in messages.
        end_of: takes bytes that begin at a row, and whether they are the file's last ones; returns the end of the last
            complete row, 0 if there is none.
    """
    held, tried = bytearray(), 0
    for chunk in chunks:
        held += chunk
        if len(held) < 2 * tried:  # scan a row longer than a chunk once per doubling, not once per chunk
            continue
        end = end_of(bytes(held), False)
        if end:
            yield bytes(held[:end])
            del held[:end]
        tried = len(held) if len(held) > CHUNK else 0
        if tried > LONGEST_ROW:
            raise DataError(f"{name}: a row is longer than {LONGEST_ROW:,} bytes; is a quote never closed?")
    end = end_of(bytes(held), True)
    for rows in (held[:end], held[end:]):
        if rows:
            yield bytes(rows)


class _CsvEnds:
    """Finds the end of the last complete CSV row by Arrow's rule: a cell is quoted if it begins with a quote.

    Attributes:
        unclosed: start of a quoted cell that is not closed at the end of the file; None if there is none.
    """

    def __init__(self, delimiter: str, *, quoting: bool = True) -> None:
        self.unclosed: str | None = None
        self.quoting = quoting
        edge = re.escape(delimiter.encode())
        self.quoted = re.compile(rb"[%s\n\r]\"[^\"]*(?:\"\"[^\"]*)*(?:\"(?!\")|(\Z))" % edge)

    def __call__(self, data: bytes, final: bool) -> int:
        text = b"\n" + data  # so that a line end or delimiter precedes every cell
        cells = list(self.quoted.finditer(text)) if self.quoting and b'"' in data else []
        if final and cells and cells[-1].group(1) is not None:
            self.unclosed = data[cells[-1].start() :][:200].decode(errors="replace")
        end = len(text)
        for cell in chain(reversed(cells), [None]):
            stop = cell.end() if cell else 0
            # a \r at the very end may be the first half of \r\n
            at = max(text.rfind(b"\n", stop, end), text.rfind(b"\r", stop, min(end, len(text) - 1)))
            if at >= 0:
                return at
            end = cell.start() + 1 if cell else 0
        return 0
