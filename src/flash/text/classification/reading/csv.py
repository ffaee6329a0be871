"""The reader of CSV: comma- or tab-separated files, checked before they become a table.

Imports nothing of the project but errors, the wording of mistakes, files and `Source`; neither torch nor lightning.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from flash.core.errors import DataError
from flash.text.classification.reading.files import BLOCK, LARGEST_BLOCK, Files, ending, read_bytes, read_each
from flash.text.classification.reading.mistakes import (
    HEADER,
    MAGIC,
    SHOWN,
    UTF8_MARK,
    count_rows,
    first_of,
    foreign,
    not_utf8,
    raise_for_quotes,
)
from flash.text.classification.reading.source import Source, check_columns

QUOTE, NEWLINES = ord('"'), (ord("\n"), ord("\r"))


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
