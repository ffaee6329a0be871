"""Detect the layout of a CSV file: its delimiter, and whether its first line is a header.

If the requested columns are not in the first line, or none were requested, the first lines decide what the file is: a
table with or without a header, one text per line, or another format. All rules concern the structure of the lines.
They do not apply if `column_names=` is given or the first line contains a requested column.
"""

import csv
import io
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flash.core.errors import DataError, shortened
from flash.text.classification.reading.files import ending
from flash.text.classification.reading.source import check_columns

SAMPLE, SAMPLE_SIZE = 50, 2**16  # maximum number of lines and of characters that are examined
TITLE_LINES = 20  # lines in which a header below a title is searched for
PROSE_WORDS, PROSE_LENGTH = 6, 60  # a cell with as many words or characters is a text, not a column name
LINE_WORDS = 3  # a first line with one cell of as many words may be a text; 2 in files without a table ending
USUAL_NAMES = frozenset(
    [
        "text",
        "texts",
        "comment_text",
        "comment",
        "comments",
        "sentence",
        "sentences",
        "content",
        "body",
        "title",
        "message",
        "messages",
        "document",
        "documents",
        "tweet",
        "review",
        "reviews",
        "description",
        "abstract",
        "utterance",
        "label",
        "labels",
        "tags",
    ]
)
"""Common names of text and label columns; a first line with one of these is a header."""
UNUSED = "\x01"  # delimiter for files with one text per line: a character that does not occur in them

_SEP_LINE = re.compile(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n)', re.IGNORECASE)
_FASTTEXT = re.compile(r"(?:^|\s)__label__\S")
_SVMLIGHT = re.compile(r"[\d.,+-]*\s+(?:qid:\d+\s+)?\d+:[-+.\deE]+(?:\s+\d+:[-+.\deE]+)*\s*(?:#.*)?$")
_NUMBER_OR_URL = re.compile(r"[-+]?\d+(?:[.,]\d+)?$|<?https?://")


@dataclass(frozen=True)
class Layout:
    """What a CSV reader has to know before the first row.

    Attributes:
        skipped: number of ASCII characters before the first record, which are to be skipped.
        delimiter: separator of the cells.
        quoting: whether a cell may be in double quotes.
        names: names of the columns, from the header or given.
        headed: whether the first record is the header.
    """

    skipped: int
    delimiter: str
    quoting: bool
    names: tuple[str, ...]
    headed: bool


def find_layout(
    name: str,
    text: str,
    *,
    delimiter: str | None = None,
    quoting: bool = True,
    column_names: Sequence[str] | None = None,
    wanted: Sequence[str] | None = None,
    known: Collection[str] = (),
) -> Layout:
    """Detect the layout of a CSV file.

    Args:
        name: the file's name for messages; its ending determines the default delimiter.
        text: start of the file, not empty, without a byte-order mark.
        delimiter: None for the delimiter of an Excel `sep=` line, else for the default of the file's ending.
        quoting: whether a cell may be in double quotes.
        column_names: names of the columns of a file without a header; None reads them from the first record.
        wanted: the columns to read; None for all.
        known: other names, such as those of labels, that distinguish a header from a row.

    Raises:
        DataError: another format, no header and no `column_names`, or a wrong number of `column_names`.

    Warns:
        UserWarning: the file is read as one text per line.
    """
    skipped, marked = sep_line(text)
    text, delimiter = text[skipped:], delimiter or marked
    lines = [line for line in re.split(r"\r\n|\r|\n", text[:SAMPLE_SIZE]) if line.strip()][:SAMPLE]
    if not lines:
        raise DataError(f"{name} has no rows; check its path, or put rows into it")
    given = delimiter is not None
    if delimiter is None:
        tab = ending(name) in (".tsv", ".tab") or (ending(name) == ".txt" and "\t" in lines[0])
        delimiter = "\t" if tab else ","
    first = first_record(name, text, delimiter, quoting)
    if column_names is not None:
        names = tuple(column_names)
        _check_width(name, names, first, delimiter)
        return Layout(skipped, delimiter, quoting, names, headed=tuple(first) == names)
    if not {*(wanted or ()), *known} & set(first):
        _refuse_other_formats(name, lines)
        refuse_title(name, _first_cells(text, delimiter, quoting), wanted, known)
        if ending(name) == ".txt" and not given and len(wanted or ()) < 2 and _is_lines(lines, first):
            return _one_text_per_line(name, lines, skipped, wanted)
        _refuse_unclear_line(name, first, wanted)
        check_header(name, first, _records(lines, delimiter, quoting), wanted, known)
    return Layout(skipped, delimiter, quoting, tuple(first), headed=True)


def sep_line(text: str) -> tuple[int, str | None]:
    """Return the length of Excel's own first line, such as `sep=;`, and its delimiter; (0, None) if there is none."""
    marked = _SEP_LINE.match(text)
    return (marked.end(), marked[1]) if marked and marked[1].isascii() else (0, None)


def first_record(name: str, text: str, delimiter: str, quoting: bool = True) -> list[str]:
    """Return the cells of the first record of `text`, the start of the file `name`."""
    records = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
    )
    try:
        return next(records)
    except csv.Error as error:
        raise DataError(f"{name} has no header that can be read: {error}") from error


def check_header(
    name: str,
    first: list[str],
    records: list[list[str]],
    wanted: Sequence[str] | None = None,
    known: Collection[str] = (),
) -> None:
    """Raise an error if the first record looks like a row, unless it contains a requested or known name.

    Raises:
        DataError: there seems to be no header.
    """
    if {*(wanted or ()), *known} & set(first) or (wanted is None and _has_usual_name(first)):
        return
    if len(first) > 1 and _is_row(first, records):
        missing = f"there is no column {wanted[0]!r}, and " if wanted else ""
        names = [*(wanted or ("text",))][: len(first)]
        names += [f"column_{number}" for number in range(len(names) + 1, len(first) + 1)]
        raise DataError(
            f"{name} looks like it has no header: {missing}its first line is like a row ({_cells(first)}); pass "
            f"the names of its {len(first)} columns in their order, such as column_names={names}"
        )


def refuse_title(
    name: str,
    records: Sequence[tuple[int, str, list[str]]],
    wanted: Sequence[str] | None,
    known: Collection[str] = (),
    place: str = "line",
) -> None:
    """Raise an error if a title precedes the header: a later record has the names that the first one lacks.

    Args:
        name: the file's name in messages.
        records: number, text and cells of the first records; a record may occur once per possible delimiter.
        wanted: the columns to read; None for all.
        known: other names that distinguish a header from a row.
        place: what the numbers count: "line" or "row".

    Raises:
        DataError: names the record that looks like the header.
    """
    first_width = max((sum(map(bool, cells)) for number, _, cells in records if number == 1), default=0)
    for number, text, cells in records:
        # known names are only evidence if the first record has fewer cells, as a title has
        if number > 1 and (
            set(wanted) <= set(cells)
            if wanted
            else first_width < sum(map(bool, cells)) and {*known, *USUAL_NAMES} & set(cells)
        ):
            above = f"the {place} above it" if number == 2 else f"the {number - 1} {place}s above it"
            raise DataError(
                f"{name}: {place} {number} looks like the header ({shortened(text, 60)!r}), and not the first {place} "
                f"({shortened(records[0][1], 60)!r}); delete {above}"
            )


def _first_cells(text: str, delimiter: str, quoting: bool) -> list[tuple[int, str, list[str]]]:
    """Return the first lines with their numbers, each split at the delimiter and at other possible delimiters."""
    lines = re.split(r"\r\n|\r|\n", text[:SAMPLE_SIZE])[:TITLE_LINES]
    return [
        (number, line, [cell.strip() for cell in cells])
        for number, line in enumerate(lines, 1)
        for mark in dict.fromkeys([delimiter, *";\t|,"])
        for cells in _records([line], mark, quoting)
    ]


def _check_width(name: str, names: tuple[str, ...], first: list[str], delimiter: str) -> None:
    check_columns(names, None, "column_names")
    if len(names) != len(first):
        raise DataError(
            f"{name}: column_names= holds {len(names)} name{'s' * (len(names) != 1)}, but the first row has "
            f"{len(first)} cell{'s' * (len(first) != 1)} between {delimiter!r} ({_cells(first)}); pass one name per cell"
        )


def _refuse_other_formats(name: str, lines: list[str]) -> None:
    """Raise DataError for the formats of fastText and svmlight."""
    if lines[0].startswith("__label__") or 5 * sum(map(bool, map(_FASTTEXT.search, lines))) >= len(lines):
        example = next(line for line in lines if _FASTTEXT.search(line))
        raise DataError(
            f"{name} is in fastText's format (labels as __label__NAME before each text: {shortened(example)!r}); "
            "read it by from_fasttext, or with input_format='fasttext'"
        )
    if all(map(_SVMLIGHT.match, lines)):
        raise DataError(
            f"{name} is in svmlight's format (numbered features in place of texts: {shortened(lines[0])!r}), from "
            "which texts cannot be recovered; use the file of texts that these features were made of"
        )


def _is_lines(lines: list[str], first: list[str]) -> bool:
    """Whether a `.txt` has one text per line: no header, and lines that do not split into equal numbers of cells."""
    if "\t" in lines[0]:
        return False
    if len(first) == 1:
        return first[0].strip().lower() not in USUAL_NAMES and not _is_word(first[0])
    if _has_usual_name(first):
        return False
    return len(set(map(len, _records(lines, ",", quoting=True)))) > 1 or any(map(_is_prose, first))


def _is_word(name: str) -> bool:
    """Whether a cell is a single word, which may be a short text or a column name."""
    return re.fullmatch(r"\w+", name.strip()) is not None


def _one_text_per_line(name: str, lines: list[str], skipped: int, wanted: Sequence[str] | None) -> Layout:
    column = wanted[0] if wanted else "text"
    warnings.warn(
        f"{name} has no header and is read as one text per line, the first is {shortened(lines[0])!r}; pass "
        f"input_field={lines[0]!r} if that is the name of the column",
        UserWarning,
        stacklevel=2,
    )
    return Layout(skipped, UNUSED, quoting=False, names=(column,), headed=False)


def _refuse_unclear_line(name: str, first: list[str], wanted: Sequence[str] | None) -> None:
    if len(wanted or ()) < 2 and len(first) == 1 and _may_be_text(name, first[0]):
        raise DataError(
            f"{name}: the first line, {shortened(first[0])!r}, may be a text, or the name of a column; "
            f"pass column_names=['text'] if there is no header, or input_field={first[0]!r} if it is one"
        )


def _may_be_text(name: str, cell: str) -> bool:
    """Whether a first line with one cell may be a text: several words or, in a `.txt`, anything but a common name."""
    if _has_usual_name([cell]) or any(mark in cell for mark in ";\t|"):
        return False
    words = LINE_WORDS if ending(name) in (".csv", ".tsv", ".tab") else LINE_WORDS - 1
    return ending(name) == ".txt" or len(cell.split()) >= words or len(cell) > PROSE_LENGTH


def _has_usual_name(first: Sequence[str]) -> bool:
    return any(cell.strip().lower() in USUAL_NAMES for cell in first)


def _records(lines: list[str], delimiter: str, quoting: bool) -> list[list[str]]:
    try:
        if quoting:
            return list(csv.reader(lines, delimiter=delimiter))
        return list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE))
    except csv.Error:  # reported when the rows are read
        return []


def _is_row(first: Sequence[str], records: list[list[str]]) -> bool:
    """Whether a first record looks like a row: it contains a text, a number, a URL, or a value that a later row repeats."""
    if any(_is_prose(cell) or _NUMBER_OR_URL.match(cell.strip()) for cell in first):
        return True
    return any(cell and cell == other for row in records[1:] for cell, other in zip(first, row, strict=False))


def _is_prose(cell: str) -> bool:
    return len(cell.split()) >= PROSE_WORDS or len(cell) > PROSE_LENGTH


def _cells(cells: Sequence[str]) -> str:
    shown = ", ".join(repr(shortened(cell)) for cell in cells[:3])
    return shown + (f", and {len(cells) - 3} more" if len(cells) > 3 else "")
