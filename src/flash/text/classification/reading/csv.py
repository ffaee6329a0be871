"""The reader of CSV: comma- or tab-separated files, checked before they become a table."""

import codecs
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from flash.core.errors import DataError
from flash.text.classification.reading.excel import EXCEL, read_sheet
from flash.text.classification.reading.files import (
    BLOCK,
    LARGEST_BLOCK,
    File,
    Files,
    ending,
    read_bytes,
    read_each,
)
from flash.text.classification.reading.layout import Layout, find_layout
from flash.text.classification.reading.mistakes import (
    HEADER,
    MAGIC,
    SHOWN,
    UTF8_MARK,
    count_rows,
    first_of,
    foreign,
    not_utf8,
    one_column_hint,
    raise_for_quotes,
    utf16_without_mark,
)
from flash.text.classification.reading.odd_rows import swallowed_rows, swallowed_warning
from flash.text.classification.reading.source import Source, check_columns

QUOTE, NEWLINES = ord('"'), (ord("\n"), ord("\r"))


def read_csv(
    files: Files,
    *,
    columns: Iterable[str] | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoting: bool = True,
    column_names: Sequence[str] | None = None,
    sheet: str | None = None,
    known: Collection[str] = (),
) -> Source:
    """Read comma- or tab-separated files; every cell is text, and an empty cell is an empty text.

    Args:
        files: a file, a list of files, or a glob such as `"data/*.csv"`; .gz, .bz2, .zst and .xz are decompressed.
        columns: the columns to read; None for all.
        encoding: the text encoding; a byte-order mark is accepted.
        delimiter: None means: the delimiter of an Excel `sep=` line if there is one; else a tab for `.tsv`, `.tab` and
            for a `.txt` with a tab in its header; else a comma.
        quoting: whether a cell may be in double quotes. With False, a quote is an ordinary character, and no cell can
            contain the delimiter or a newline.
        column_names: names of the columns, in order, of files without a header.
        sheet: sheet of Excel files, which are recognised by their endings; None for the first.
        known: names, such as those of labels, that distinguish a header from a row if `columns` is None.

    Raises:
        DataError: no such file or column, a duplicate column, an empty file, a file that is not text, a header
            without rows, rows with more or fewer cells than the header, a quote that is never closed, or bytes that
            are not in the encoding.
    """
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise DataError(
            f"delimiter={delimiter!r} is not one character of ASCII; pass one such as ';' or '\\t'"
        )
    wanted = None if columns is None else list(columns)
    find = partial(
        find_layout,
        delimiter=delimiter,
        quoting=quoting,
        column_names=column_names,
        wanted=wanted,
        known=known,
    )

    def read(path: File) -> pa.Table:
        if ending(path) not in EXCEL:
            return _csv_table(path, wanted, encoding, find)
        content = bytes(read_bytes(path))
        return read_sheet(str(path), content, sheet, columns=wanted, column_names=column_names, known=known)

    return read_each(files, "csv", read)


def _csv_table(
    path: File,
    columns: list[str] | None,
    encoding: str,
    find: Callable[[str, str], Layout],
) -> pa.Table:
    buffer = _utf8(path, encoding)
    start = bytes(buffer.slice(0, min(len(buffer), 4096)))
    if start.startswith(tuple(MAGIC)):
        raise DataError(foreign(path, start))
    if b"\0" in start and (sentence := utf16_without_mark(path, start)):
        raise DataError(sentence)
    buffer = buffer.slice(len(start) - len(start.removeprefix(UTF8_MARK).lstrip(b"\r\n")))
    text = bytes(buffer.slice(0, min(len(buffer), BLOCK))).decode(errors="surrogateescape")
    if not text.strip():
        raise DataError(f"{path} is empty; check its path, or put rows into it")
    if "".join(text[:50].split()).startswith(('{"', "[{")):
        raise DataError(f"{path} looks like JSON, not CSV; use from_json")
    layout = find(str(path), text)
    # bytes that are not UTF-8 were decoded as surrogates; check the header here, Arrow checks the rest
    if any("\udc80" <= character <= "\udcff" for character in "".join(layout.names)):
        raise DataError(not_utf8(path, read_bytes(path)))
    names = layout.names
    others = [mark for mark in ";\t|," if len(names) == 1 and mark in names[0] and mark != layout.delimiter]
    hint = f"; the header holds {others[0]!r}: pass delimiter={others[0]!r}" if others else ""
    wanted = check_columns(names, columns, str(path), hint)
    buffer = buffer.slice(layout.skipped)
    quoted = layout.quoting and _check_quotes(path, buffer, layout)
    table, ragged = _parse_csv(path, buffer, layout, wanted, threads=True)
    if ragged:  # row numbers need a serial parse
        _, ragged = _parse_csv(path, buffer, layout, wanted, threads=False)
        rows = [f"row {row.number - layout.headed} has {row.actual_columns}" for row in ragged[:SHOWN]]
        what = "header" if layout.headed else "first row"
        raise DataError(
            f"{path}: {count_rows(len(ragged))} not as wide as the {what}, which has {len(names)} column{'s' * (len(names) > 1)} "
            f"({first_of(rows, len(ragged))}); put a cell that holds {layout.delimiter!r} in double quotes, or "
            f"pass another delimiter={one_column_hint(names, layout.delimiter)} ({HEADER})"
        )
    swallowed = swallowed_rows(table, names, layout.delimiter) if quoted else []
    if swallowed:
        row, column, lines, alike = swallowed[0]
        place = f"{path}, row {row + 1}"
        sentence = swallowed_warning(place, column, lines, alike, len(swallowed) - 1)
        warnings.warn(f"{sentence} ({HEADER})", UserWarning, stacklevel=6)
    return table


def _parse_csv(
    path: File, buffer: pa.Buffer, layout: Layout, wanted: list[str], *, threads: bool
) -> tuple[pa.Table, list[Any]]:
    ragged: list[Any] = []
    parse = pa.csv.ParseOptions(
        delimiter=layout.delimiter,
        quote_char='"' if layout.quoting else False,
        newlines_in_values=layout.quoting,  # makes finding block boundaries serial; parsing stays parallel
        ignore_empty_lines=len(layout.names) > 1,  # in a file with one column, an empty line is an empty text
        invalid_row_handler=lambda row: ragged.append(row) or "skip",  # type: ignore[func-returns-value]
    )
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(layout.names, pa.large_string()),
        include_columns=wanted,
        strings_can_be_null=False,
    )
    names = None if layout.headed else list(layout.names)
    block = BLOCK
    while True:
        options = pa.csv.ReadOptions(block_size=block, use_threads=threads, column_names=names)
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
                raise DataError(
                    f"{path} has no rows, only column names; check its path, or put rows into it"
                ) from error
            else:
                raise DataError(f"{path} cannot be read as CSV: {message}") from error


def _check_quotes(path: File, buffer: pa.Buffer, layout: Layout) -> bool:
    """Return whether the file has quotes; raise DataError if they are not balanced.

    After a quote that is never closed, Arrow reads the rest of the file into one cell. In a well-formed file, quotes
    come in pairs: the first after a delimiter or newline, the second before one. This is checked on arrays; only a
    file that fails the check is scanned quote by quote.
    """
    data = np.frombuffer(buffer, np.uint8)
    step = 1 << 24  # keeps the temporary array of the comparison small
    quotes = np.concatenate(
        [np.flatnonzero(data[i : i + step] == QUOTE) + i for i in range(0, len(data), step)]
    )
    if not len(quotes):
        return False
    edge = np.zeros(256, bool)
    edge[[ord(layout.delimiter), *NEWLINES]] = True
    starts = edge[data[quotes - 1]] | (quotes == 0)
    stops = edge[data[np.minimum(quotes + 1, len(data) - 1)]] | (quotes == len(data) - 1)
    quoted = np.diff(quotes, prepend=-2) == 1  # another quote is directly before it
    before, after = quoted, np.append(quoted[1:], False)
    if len(quotes) % 2 == 0 and (starts | before)[0::2].all() and (stops | after)[1::2].all():
        return True
    raise_for_quotes(path, data, quotes, (starts, stops, after), layout.delimiter, headed=layout.headed)
    return True


def _utf8(path: File, encoding: str) -> pa.Buffer:
    """Return a file's bytes as UTF-8: memory-mapped, unless compressed or in another encoding."""
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
