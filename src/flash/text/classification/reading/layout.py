"""How a file of cells begins: its delimiter, and whether its first line holds the names of its columns.

A header is not trusted blindly. Where the columns that were asked for are not in it, or nobody asked for one, the
first lines decide what the file is: a table without a header, one text per line, or another format. Every rule is
about the structure of the lines; `column_names=` and the names of columns that are in the header overrule them all.

Imports nothing of the project but errors and the wording of mistakes.
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

SAMPLE, SAMPLE_SIZE = 50, 2**16  # lines, and characters, that are looked at
TITLE_LINES = 20  # among which a header is looked for below a title
PROSE_WORDS, PROSE_LENGTH = 6, 60  # from here on a cell is a text, not the name of a column
LINE_WORDS = (
    3  # words of the only cell of a first line, from which on it may be a text; 2 unless the file is a table
)
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
"""What columns of texts and labels are called; a first line that is one of these is a header."""
UNUSED = "\x01"  # stands between no two cells of a file of one text per line

_SEP_LINE = re.compile(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n)', re.IGNORECASE)
_FASTTEXT = re.compile(r"(?:^|\s)__label__\S")
_SVMLIGHT = re.compile(r"[\d.,+-]*\s+(?:qid:\d+\s+)?\d+:[-+.\deE]+(?:\s+\d+:[-+.\deE]+)*\s*(?:#.*)?$")
_NUMBER_OR_URL = re.compile(r"[-+]?\d+(?:[.,]\d+)?$|<?https?://")


@dataclass(frozen=True)
class Layout:
    """What the reader of a file of cells has to know before its first row.

    Attributes:
        skipped: characters of ASCII before the header, or before the first row where there is no header.
        delimiter: between cells.
        quoting: whether a cell may stand in double quotes.
        names: of the columns, from the header or given.
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
    """Decide how a file of cells is to be read.

    Args:
        name: what messages call the file; its ending tells a delimiter that is not given.
        text: its start, not empty, without a byte-order mark.
        delimiter: None for that of an Excel `sep=` line, else as the ending says.
        quoting: whether a cell may stand in double quotes.
        column_names: the columns' names, of a file that has no header; None for those in its first record.
        wanted: the columns that are needed; None for all.
        known: other names, such as those of labels, that tell a header from a row.

    Raises:
        DataError: another format, no header and no `column_names`, names that do not fit the first record.

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
    """How long a first line is that Excel writes for itself, such as `sep=;`, and the delimiter that it names."""
    marked = _SEP_LINE.match(text)
    return (marked.end(), marked[1]) if marked and marked[1].isascii() else (0, None)


def first_record(name: str, text: str, delimiter: str, quoting: bool = True) -> list[str]:
    """The cells of the first record of `text`, the start of what messages call `name`."""
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
    """Refuse a first record that is like the others, unless it holds a name that was asked for.

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
    """Refuse a title above the header: names that are missing in the first record stand together in a later one.

    Args:
        name: what messages call the file.
        records: the number, the text and the cells of each of the first ones, by one delimiter or several.
        wanted: the columns that are needed; None for all.
        known: other names that tell a header from a row.
        place: what the numbers count.

    Raises:
        DataError: which record looks like the header, and what to do.
    """
    first_width = max((sum(map(bool, cells)) for number, _, cells in records if number == 1), default=0)
    for number, text, cells in records:
        # names that nobody asked for are evidence only where the first record is shorter, as titles are
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
    """The first lines with their numbers in the file, each cut at the delimiter and at others that it may be."""
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
    """Formats whose lines hold labels and texts, or features, in another way than as cells."""
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
    """Whether a `.txt` holds one text per line: its first line is no header, and its lines are no equal cells."""
    if "\t" in lines[0]:
        return False
    if len(first) == 1:
        return first[0].strip().lower() not in USUAL_NAMES and not _is_word(first[0])
    if _has_usual_name(first):
        return False
    return len(set(map(len, _records(lines, ",", quoting=True)))) > 1 or any(map(_is_prose, first))


def _is_word(name: str) -> bool:
    """Whether it is one word, which may be a short text or the name of a column."""
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
    """Whether the only cell of a first line may be a text: some words, or in a `.txt` any that is no usual name."""
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
    except csv.Error:  # said where the rows are read
        return []


def _is_row(first: Sequence[str], records: list[list[str]]) -> bool:
    """Whether a first record is like the others: it holds a text, a number, a URL, or a value that comes again."""
    if any(_is_prose(cell) or _NUMBER_OR_URL.match(cell.strip()) for cell in first):
        return True
    return any(cell and cell == other for row in records[1:] for cell, other in zip(first, row, strict=False))


def _is_prose(cell: str) -> bool:
    return len(cell.split()) >= PROSE_WORDS or len(cell) > PROSE_LENGTH


def _cells(cells: Sequence[str]) -> str:
    shown = ", ".join(repr(shortened(cell)) for cell in cells[:3])
    return shown + (f", and {len(cells) - 3} more" if len(cells) > 3 else "")
