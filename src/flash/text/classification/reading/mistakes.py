"""Error messages of the readers: find out, after reading has failed, what is wrong with a source."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flash.core.errors import DataError, shortened

SHOWN = 3  # places that a message names
ROWS = "rows are counted from 1"
HEADER = f"{ROWS}, the header not"  # differs from an editor's line numbers, since a cell may span lines
SHOWN_KEYS = 5  # keys of an object that a message names
ASCII_ZEROS = 0.4  # minimum share of zero bytes to assume UTF-16; for ASCII text the share is 0.5
UTF8_MARK = b"\xef\xbb\xbf"
MAGIC = {
    b"PAR1\x15": "is a Parquet file: use from_parquet",
    b"PK\x03\x04": "is a ZIP archive: unpack it and pass the file in it",
    b"\xd0\xcf\x11\xe0": "is an Excel file: give its name the ending .xls, or save it as CSV",
    b"\x1f\x8b": "is packed by gzip: add .gz to its name, or unpack it",
    b"%PDF-": "is a PDF file: save the table in it as CSV",
    b"\x80\x04\x95": "is a pickle: load it, and pass it to from_data_frame or from_lists",
    b"\x80\x05\x95": "is a pickle: load it, and pass it to from_data_frame or from_lists",
    b"SQLite format 3": "is an SQLite database: save the table in it as CSV",
    b"version https://git-lfs": "is Git LFS's pointer to a file, and not the file: type git lfs pull",
    b"<!DOCTYPE html": "is a web page: download the file itself",
    b"<!doctype html": "is a web page: download the file itself",
    b"<html": "is a web page: download the file itself",
    codecs.BOM_UTF16_LE: "is not UTF-8 but UTF-16: pass encoding='utf-16', or save it as UTF-8",
    codecs.BOM_UTF16_BE: "is not UTF-8 but UTF-16: pass encoding='utf-16', or save it as UTF-8",
}
"""First bytes of files that are not UTF-8 text, and the advice for each."""
_QUOTE_HELP = (
    'write a quote inside a quoted cell twice (""), or pass quoting=False if quotes are '
    "ordinary characters here"
)


def count_rows(count: int, word: str = "row is") -> str:
    """Return `1 row is`, `12 rows are`, and so on for `row has` and `row`."""
    plural = {"row is": "rows are", "row has": "rows have", "row": "rows"}[word]
    return f"1 {word}" if count == 1 else f"{count:,} {plural}"


def first_of(places: list[str], count: int) -> str:
    """Join the places, and add how many of `count` are not shown."""
    return "; ".join(places) + (f"; and {count - len(places):,} more" if count > len(places) else "")


def rows_of(numbers: Sequence[int], count: int) -> str:
    """Return `row 2`, `rows 2 and 4`, or, with a larger `count`, `rows 2, 4 and 5, and 7 more`."""
    more = f", and {count - len(numbers):,} more" if count > len(numbers) else ""
    if len(numbers) == 1:
        return f"row {numbers[0]}{more}"
    return f"rows {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}{more}"


def file_once(cells: list[tuple[str, str]]) -> list[str]:
    """Format (file, place) pairs; a file is named only if it differs from the previous one."""
    files = [None, *(file for file, _ in cells)]
    return [
        place if file == before else f"{file}, {place}"
        for before, (file, place) in zip(files, cells, strict=False)
    ]


def some_of(places: list[str]) -> str:
    """Join the first few places, and add how many more there are."""
    return first_of(places[:SHOWN], len(places))


def short_type(kind: pa.DataType) -> str:
    """Describe an Arrow type in a few words.

    >>> short_type(pa.list_(pa.struct([("id", pa.int64()), ("label", pa.string())])))
    'lists of objects with the keys id, label'
    """
    if is_list_type(kind):
        return f"lists of {short_type(kind.value_type)}"
    if pa.types.is_struct(kind):
        keys = [field.name for field in kind]
        more = f" and {len(keys) - SHOWN_KEYS:,} more" if len(keys) > SHOWN_KEYS else ""
        return f"objects with the keys {', '.join(map(shortened, keys[:SHOWN_KEYS]))}{more}"
    return shortened(str(kind))


def is_list_type(kind: pa.DataType) -> bool:
    """Whether this is any of Arrow's list types."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def missing_file(entry: str, path: Path) -> str:
    """Explain why a file does not exist, and suggest a similar one."""
    if any(character in entry for character in "*?["):
        return f"no file matches {entry!r}; check the folder and the ending"
    if not path.parent.is_dir():
        return f"{entry} does not exist: there is no folder {str(path.parent)!r} in {str(Path.cwd())!r}"
    others = sorted(other.name for other in path.parent.iterdir())
    close = [name for name in others if Path(name).stem == path.stem]
    close = close or get_close_matches(path.name, others, n=1, cutoff=0.8)  # high: endings are often equal
    return f"{entry} does not exist" + (
        f"; did you mean '{path.parent / close[0]}'?" if close else "; check its path"
    )


def one_column_hint(names: Sequence[str], delimiter: str) -> str:
    """Advice for a file with one column whose rows have more cells; empty for several columns."""
    if len(names) != 1:
        return ""
    others = [mark for mark in ";\t|," if mark in names[0] and mark != delimiter]
    if others:
        return f"; the header holds {others[0]!r}: pass delimiter={others[0]!r}"
    return "; if each line is one text, pass delimiter='\\t', which no text holds"


def foreign(path: object, start: bytes) -> str:
    """Describe a file that begins with one of `MAGIC`, and what to do with it."""
    if start.startswith(b"PK\x03\x04") and (b"[Content_Types].xml" in start or b"xl/" in start):
        return f"{path} is an Excel file: give its name the ending .xlsx, or save it as CSV"
    return f"{path} {next(words for magic, words in MAGIC.items() if start.startswith(magic))}"


def decoded(chunks: Iterable[bytes], name: str, encoding: str) -> Iterator[tuple[bytes, str]]:
    """Yield each chunk with its decoded text; a character that spans two chunks comes with the second.

    Raises:
        DataError: names the offset of the first invalid byte, and an encoding to try.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    position = 0
    for chunk in chain(chunks, [b""]):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            value, offset = error.object[error.start], position - pending + error.start
            marked = not offset and error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            raise DataError(
                f"{name} is not {encoding.upper()}: byte 0x{value:02x} at offset {offset:,}; "
                f"pass encoding={'utf-16' if marked else 'cp1252'!r}, or the one it was saved in"
            ) from error
        yield chunk, text
        position += len(chunk)


def utf16_without_mark(path: object, start: bytes) -> str | None:
    """Return a message if a file is UTF-16 without a byte-order mark: every second byte is 0 for ASCII; else None."""
    zeros = np.flatnonzero(np.frombuffer(start, np.uint8) == 0)
    marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if marked or len(zeros) < 2 or len(set((zeros % 2).tolist())) > 1:
        return None
    encoding = "utf-16-le" if zeros[0] % 2 else "utf-16-be"
    if not _is_in(start, encoding) or (len(zeros) < ASCII_ZEROS * len(start) and _is_in(start, "utf-8")):
        return None  # UTF-8 with null characters
    return f"{path} is not UTF-8 but UTF-16 without a mark: pass encoding={encoding!r}, or save it as UTF-8"


def _is_in(start: bytes, encoding: str) -> bool:
    """Whether the start of a text is valid in an encoding; it may end inside a character."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def not_utf8(path: object, buffer: pa.Buffer) -> str:
    """Return a message with the offset of the first byte that is not UTF-8, and an encoding to try."""
    step = 1 << 24
    starts = range(0, len(buffer), step)
    chunks = (buffer.slice(start, min(step, len(buffer) - start)).to_pybytes() for start in starts)
    try:
        for _ in decoded(chunks, str(path), "utf-8"):
            continue
    except DataError as error:
        return str(error)
    return f"{path} is not UTF-8; pass encoding='cp1252', or the one it was saved in"


def raise_for_quotes(
    path: object,
    data: npt.NDArray[np.uint8],
    quotes: npt.NDArray[np.int64],
    flags: tuple[npt.NDArray[np.bool_], ...],
    delimiter: str,
    *,
    headed: bool,
) -> None:
    """Raise DataError for rows where a quote closes in mid-cell or never; quotes inside unquoted cells are allowed."""
    wrong, opened = _walk_quotes(*(flag.tolist() for flag in flags))
    if opened is not None:
        row = _csv_row(data, int(quotes[opened]), delimiter) + (not headed)
        raise DataError(
            f"{path}, row {row}: a cell opens with a quote that is never closed; {_QUOTE_HELP} ({HEADER})"
        )
    if wrong:
        rows = rows_of(
            [_csv_row(data, int(quotes[i]), delimiter) + (not headed) for i in wrong[:SHOWN]], len(wrong)
        )
        cells = "1 cell goes on after its" if len(wrong) == 1 else f"{len(wrong):,} cells go on after their"
        raise DataError(f"{path}: {cells} closing quote ({rows}); {_QUOTE_HELP} ({HEADER})")


def _walk_quotes(starts: list[bool], stops: list[bool], after: list[bool]) -> tuple[list[int], int | None]:
    """Return the opening quotes of cells that continue after their closing quote, and of the cell that never closes."""
    wrong: list[int] = []
    opened: int | None = None
    index = 0
    while index < len(starts):
        if opened is None:
            opened = (
                index if starts[index] else None
            )  # a quote inside an unquoted cell is an ordinary character
        elif after[index]:
            index += 1  # "" is one quote
        else:
            if not stops[index]:
                wrong.append(opened)
            opened = None
        index += 1
    return wrong, opened


def _csv_row(data: npt.NDArray[np.uint8], position: int, delimiter: str) -> int:
    """Return the number of the row at byte `position`, by counting the complete records before it with Python's parser."""
    text = data[:position].tobytes().decode("utf-8", errors="replace").replace("\0", " ")  # for Python 3.10
    # shorten runs of ordinary characters, because Python's parser refuses cells over 131,072 characters
    text = re.sub(rf'[^"\r\n{re.escape(delimiter)}]{{2,}}', "x", text)
    try:
        widths = [len(record) for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    except csv.Error:
        return text.count("\n")  # a cell is still too long: approximate by lines
    complete = len(widths) if widths[:1] == [1] else len(widths) - widths.count(0)  # blank lines are not rows
    if text and not text.endswith(("\n", "\r")):
        complete -= 1
    return complete  # counts the header, so this is the number, from 1, of the next row


def json_value(text: str | bytes) -> Any:
    """Parse a JSON text.

    Raises:
        json.JSONDecodeError: the text is not JSON, or is nested too deeply or has too long a number for Python's parser.
        UnicodeDecodeError: the text is not UTF-8.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("lists or objects that are nested too deeply", "", 0) from error
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise
        words = text if isinstance(text, str) else text.decode("utf-8", "replace")
        longest = max(re.finditer(r"[0-9]+", words), key=lambda found: len(found[0]))
        problem = f"a number of {len(longest[0]):,} digits, which is too long"
        raise json.JSONDecodeError(problem, words, longest.start()) from error


def read_json_lines(path: object, buffer: pa.Buffer) -> list[Any]:
    """Read JSON lines with Python's parser, after Arrow's has failed; the error counts all lines that are not JSON."""
    rows: list[Any] = []
    wrong: list[str] = []
    try:
        lines = [line for line in str(buffer, "utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path, buffer)) from error
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json_value(line))
        except json.JSONDecodeError as error:
            wrong.append(f"row {number}: {error.msg} at column {error.colno}")
    if wrong:
        raise DataError(
            f"{path}: {count_rows(len(wrong))} not JSON ({some_of(wrong)}); write one "
            f"object per line, or one array of objects ({ROWS})"
        )
    return rows


def mixture(values: list[Any], name: str, error: Exception) -> str:
    """Describe which types a column mixes, and which rows have the rarer ones."""
    kinds: dict[str, list[int]] = {}
    for number, value in enumerate(values, 1):
        if value is not None:
            kinds.setdefault(_kind(value), []).append(number)
    halves = kinds.get("half a surrogate pair", [])
    if halves:
        return (
            f"holds half of a surrogate pair, which is no text, in {count_rows(len(halves), 'row')} "
            f"({name}, {rows_of(halves[:SHOWN], len(halves))}); repair it: "
            f"text.encode('utf-8', 'replace').decode() ({ROWS})"
        )
    if len(kinds) == 1:
        return f"cannot be read: {error}"
    (usual, often), *others = sorted(kinds.items(), key=lambda item: -len(item[1]))
    found = ", ".join(
        f"{kind} in {count_rows(len(rows), 'row')} ({name}, {rows_of(rows[:SHOWN], len(rows))})"
        for kind, rows in others
    )
    return (
        f"mixes types: {usual} in {count_rows(len(often), 'row')}, but {found}; give every row the same type "
        f"({ROWS})"
    )


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "str" if _encodable(value) else "half a surrogate pair"
    if isinstance(value, list | tuple | set | np.ndarray):
        inner = {_kind(element) for element in value}
        if not inner:
            return "empty list"
        return (
            "half a surrogate pair"
            if "half a surrogate pair" in inner
            else f"list of {'/'.join(sorted(inner))}"
        )
    return type(value).__name__


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
