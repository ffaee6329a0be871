"""Files of any size, read a block of rows at a time: CSV, TSV, JSON lines and Parquet.

What a text format holds stays text ("007" stays "007"). Reading is synchronous, a block at a time: Arrow's own
streaming reader has a thread that waits on a pipe, and Python crashes if it ends meanwhile. Imports nothing of
the project but errors, readers, `Block` and the wording of mistakes; neither torch nor lightning.
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

ROWS = 4096  # a block's largest number of rows
CHUNK = 2**22  # bytes read at once
LONGEST_ROW = 2**27  # bytes; an opening quote without its closing one would otherwise take the whole file

_PLAIN = rb'"[^"]*"\s*:\s*(?:"[^"]*"|[-+.\w]+)\s*,\s*'
_ROWS_OF_KEY = re.compile(
    rb"\s*\{\s*(?:" + _PLAIN + rb')*"([^"]*)"\s*:\s*\[\s*\{'
)  # {"version": 1, "data": [{


@dataclass(frozen=True)
class Dialect:
    """How a text format is written.

    Attributes:
        encoding: of a text format; a byte-order mark is fine.
        delimiter: of CSV; None for a tab in a `.txt` whose header holds one, otherwise a comma.
        quoting: of CSV, whether a cell may stand in double quotes.
        column_names: of CSV without a header, the names of its columns in order.
        sheet: of an Excel file; None for the first.
        known: of CSV and Excel, names of columns or labels that tell a header from a row.

    Raises:
        DataError: a delimiter that is not one character of ASCII.
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
    """The rows of a file in order, at least one block (which is empty where a header has no rows).

    Args:
        path: a file, a pipe, or `-` for standard input.
        kind: the format, a key of `READERS`.
        dialect: how a text format is written.
        rows: how many rows a block has at most.

    Raises:
        DataError: what makes the file unreadable, with the row where there is one.
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
    except (EOFError, lzma.LZMAError) as error:  # of .xz; Arrow's are OSErrors
        raise DataError(f"{found} cannot be unpacked: {error}; copy it again") from error


def _where(file: IO[bytes]) -> str:
    """What to look at where nothing came out of a file."""
    return "what is piped into it" if file is sys.stdin.buffer else "its path"


def _read_csv(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """Every cell is text, an empty one the empty text."""
    chunks = _read_text(file, name, dialect.encoding)
    start, skipped = b"", 0
    for chunk in chunks:  # up to the first line, which decides the layout
        start = (start + chunk).removeprefix(UTF8_MARK).lstrip(b"\r\n")
        skipped, _ = sep_line(start[:16].decode(errors="replace"))
        if re.search(b"[\r\n]", start[skipped:]):
            break
    if not start.strip():
        raise DataError(f"{name} is empty; check {_where(file)}, or put column names and rows into it")
    # A pipe gives its start as it comes: only the first line may decide, so that it always decides alike.
    seen = start if file is not sys.stdin.buffer else start[:skipped] + start[skipped:].splitlines()[0]
    layout = find_layout(
        name,
        seen.decode(errors="ignore"),  # cut anywhere
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
    """Warn of the first cell in a block that holds what looks like rows; whether there is one."""
    found = swallowed_rows(table, table.column_names, layout.delimiter)
    if found:
        row, column, lines, alike = found[0]
        place = f"{name}, row {first + row}"
        sentence = swallowed_warning(place, column, lines, alike, len(found) - 1)
        warnings.warn(f"{sentence} ({HEADER})", UserWarning, stacklevel=2)
    return bool(found)


def _parse_csv(data: bytes, name: str, layout: Layout, names: list[str], first: int) -> pa.Table:
    """A table of whole rows; without `names` the first of them is the header."""
    header = not names
    if header:
        names = first_record(name, data.decode(), layout.delimiter, layout.quoting)
        check_columns(names, [column for column in names if column], name)
    if header and not re.search(b"[\r\n]", data):
        data += b"\n"  # Arrow takes a header without a line end for nothing
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
            # As in readers: in a file of one column an empty line is an empty text.
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
    """One object a line; blank lines are skipped."""
    first = 1
    for data in _whole_rows(
        _read_text(file, name, dialect.encoding), name, lambda data, final: data.rfind(b"\n") + 1
    ):
        if first == 1:
            data = data.removeprefix(UTF8_MARK)
            if data.lstrip().startswith(b"["):
                raise DataError(
                    f"{name} is a JSON array, which cannot be read a row at a time; turn it into JSON lines, "
                    "one object a line: jq -c '.[]'"
                )
        lines = [line for line in data.split(b"\n") if line.strip()]
        key = _key_of_rows(data, lines) if first == 1 else None
        if key is not None:
            raise DataError(
                f"{name} is one JSON object with its rows under {key!r}, which cannot be read a row at a time; turn it "
                f"into JSON lines, one object a line: jq -c '.[{json.dumps(key)}][]'"
            )
        for start in range(0, len(lines), rows):
            some = lines[start : start + rows]
            yield Block(first, _parse_json(some, name, first), tuple(some))
            first += len(some)
    if first == 1:
        raise DataError(f"{name} is empty; check {_where(file)}, or put one JSON object a line into it")


def _key_of_rows(data: bytes, lines: list[bytes]) -> str | None:
    """The key of the list of rows where a file is `{"data": [{...}, ...]}`; None where it is JSON lines."""
    found = _ROWS_OF_KEY.match(data)
    if found is None:
        return None
    try:
        value = json_value(lines[0])
    except json.JSONDecodeError:  # over several lines, or cut
        return found[1].decode(errors="replace")
    lone = len(lines) == 1 and not any(isinstance(one, str) for one in value.values())  # a row has a text
    return found[1].decode(errors="replace") if lone else None


def _parse_json(lines: list[bytes], name: str, first: int) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = []
    for row, line in enumerate(lines, first):
        try:
            value = json_value(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{name}, row {row}: not JSON ({error.msg} at column {error.colno}); write one object a line"
            ) from error
        if not isinstance(value, dict):
            raise DataError(
                f"{name}, row {row}: {line[:40].decode(errors='replace')} is not an object; expected {{...}}"
            )
        parsed.append(value)
    return parsed


def _read_parquet(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """Row groups are read page by page, not whole."""
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
    """Refuse bytes that are no text in a column of texts, which Parquet does not look at."""
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
    """A sheet is read whole: no format of Excel's can be read a row at a time."""
    table = read_sheet(
        name, file.read(), dialect.sheet, column_names=dialect.column_names, known=dialect.known
    )
    yield from _slices(table, 1, rows, ",", even_empty=True)


def _read_fasttext(file: IO[bytes], name: str, dialect: Dialect, rows: int) -> Iterator[Block]:
    """The texts without their labels."""
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
    """A text file's bytes as UTF-8, checked."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)  # refuses codecs that are not of texts, such as base64
        as_it_is = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    except LookupError as error:
        raise DataError(f"encoding {encoding!r} is not known; type one such as --encoding cp1252") from error
    chunks = iter(partial(_read_some, file), b"")
    start = next(chunks, b"")
    if start.startswith(tuple(magic for magic, words in MAGIC.items() if "encoding=" not in words)):
        raise DataError(foreign(name, start[:4096]))
    if as_it_is and b"\0" in start and (sentence := utf16_without_mark(name, start[:4096])):
        raise DataError(sentence)
    chunks = chain([start] * bool(start), chunks)
    for chunk, text in decoded(chunks, name, encoding, advice="type --encoding {}"):
        yield chunk if as_it_is else text.encode()


def _read_some(file: IO[bytes]) -> bytes:
    """The next bytes, `CHUNK` at most; of a pipe what is there, so that a slow writer's rows come through."""
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
    except (
        OSError,
        ValueError,
    ):  # no file of the system's, as in tests, or a system that selects sockets only
        return False


def _whole_rows(chunks: Iterable[bytes], name: str, end_of: Callable[[bytes, bool], int]) -> Iterator[bytes]:
    """Chunks cut anew where rows end.

    Args:
        chunks: bytes, cut anywhere.
        name: what messages call the file.
        end_of: takes bytes that begin with a row, and whether they are the file's last ones; gives where the
            last whole row ends, 0 where none does.
    """
    held, tried = bytearray(), 0
    for chunk in chunks:
        held += chunk
        if (
            len(held) < 2 * tried
        ):  # a row longer than a chunk is looked through once per doubling, not per chunk
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
    """Finds where the last whole row of some CSV ends by Arrow's rule: a cell is quoted if a quote begins it.

    Attributes:
        unclosed: the start of the cell that the file ends in the middle of, where it does.
    """

    def __init__(self, delimiter: str, *, quoting: bool = True) -> None:
        self.unclosed: str | None = None
        self.quoting = quoting
        edge = re.escape(delimiter.encode())
        self.quoted = re.compile(rb"[%s\n\r]\"[^\"]*(?:\"\"[^\"]*)*(?:\"(?!\")|(\Z))" % edge)

    def __call__(self, data: bytes, final: bool) -> int:
        text = b"\n" + data  # each cell now has something in front of it
        cells = list(self.quoted.finditer(text)) if self.quoting and b'"' in data else []
        if final and cells and cells[-1].group(1) is not None:
            self.unclosed = data[cells[-1].start() :][:200].decode(errors="replace")
        end = len(text)
        for cell in chain(reversed(cells), [None]):
            stop = cell.end() if cell else 0
            # A \r at the very end may be the first half of \r\n.
            at = max(text.rfind(b"\n", stop, end), text.rfind(b"\r", stop, min(end, len(text) - 1)))
            if at >= 0:
                return at
            end = cell.start() + 1 if cell else 0
        return 0
