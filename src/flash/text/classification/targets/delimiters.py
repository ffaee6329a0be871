"""Detect that the names in a cell are separated by another delimiter than the one that is used.

A column whose class names are other class names joined by a character would silently train a wrong model, so it is
refused. Since ordinary names may contain spaces and slashes, the evidence is that the pieces are names themselves.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError, shortened
from flash.text.classification.reading.mistakes import count_rows
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.labels import Kind, Rows, pieces_of

STRONG = frozenset(";|#~^\\\t\n\r、，；｜／・•¦､﹐﹔")  # noqa: RUF001  (the full-width ones are meant)
"""Characters that rarely occur in names; one pair of names joined by one of them is sufficient evidence."""
WORDS = (" and ", " or ", "\\n", "<br>")
"""Other possible separators: words, and line breaks written as a backslash and an n or in HTML."""
LONGEST_NAME, LONGEST_BETWEEN = 200, 12
"""Maximum number of characters of a cell, and of a separator in it, in the search for separators of any kind."""
READABLE = {
    "\t": "a tab",
    "\n": "a line break",
    "\r": "a carriage return",
    "\\n": "a backslash and an n",
    " ": "a space",
    "\u00a0": "a no-break space",
    "\u3000": "an ideographic space",
}
"""Names of invisible characters, for messages."""
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\r": "\r"}


def unescaped(delimiter: str | None, column: pa.Array) -> str | None:
    r"""Turn `\t` and `\n`, as a shell passes them, into the characters, unless cells contain the backslash form."""
    if delimiter is None or "\\" not in delimiter or pc.any(pc.match_substring(column, delimiter)).as_py():
        return delimiter
    return re.sub(r"\\[tnr]", lambda found: _ESCAPES[found[0]], delimiter)


@dataclass(frozen=True)
class _Joined:
    """The cells that a possible separator divides into two or more pieces.

    Attributes:
        character: the separator.
        parts: the pieces of each such cell.
        explained: the pieces of those cells in which all pieces are known names.
    """

    character: str
    parts: list[list[str]]
    explained: list[list[str]]


def refuse_other_delimiter(
    source: Source, field: str, column: pa.Array, kind: Kind, label_delimiter: str | None
) -> None:
    """Raise an error if names seem to be joined by another character than the delimiter.

    Args:
        source: the source, for the message.
        field: the target column.
        column: its cells, text.
        kind: `single` or `delimited`.
        label_delimiter: the user's option; None for a comma. A comma that occurs in no cell turns the check off: names
            may then contain any other character.

    Raises:
        DataError: names the character, the number of rows, and the option to pass.
    """
    delimiter = label_delimiter or ","
    split = kind == "delimited" and pc.any(pc.match_substring(column, delimiter)).as_py()
    if label_delimiter == "," and not split:
        return
    trimmed = pc.utf8_trim_whitespace(column)
    cells = [cell for cell in pc.unique(trimmed).to_pylist() if cell]
    empty = not split and len(cells) > 0 and pc.any(pc.equal(trimmed, "")).as_py()
    known = {cell.casefold() for cell in cells}
    if split:
        _, values = pieces_of(source, field, column, kind, delimiter)
        known = {name.casefold() for name in pc.unique(values).to_pylist()}
        cells = [cell for cell in cells if delimiter not in cell]
    if kind == "delimited":
        cells = [cell for cell in cells if '"' not in cell]  # a quoted name may contain any character
    typed = split and label_delimiter is not None
    if split and not typed:
        _refuse_cut_brackets(source, field, column)
    for joined in _joined_by(cells, known):
        strong = joined.character in STRONG or (joined.character == "," and label_delimiter is not None)
        if split:
            found = bool(joined.explained) if strong else not typed and _weakly(joined, known)
        elif strong:
            pieces = {part for parts in _all_parts(cells, joined.character) for part in parts}
            found = empty or bool(joined.explained) or len(pieces) < len(cells)
        else:
            found = _weakly(joined, known) or _recurring(cells, joined)
        if found:
            _refuse(
                source, field, column, joined.character, delimiter if split else None, kind, label_delimiter
            )


def refuse_joined_names(source: Source, field: str, rows: Rows, values: pa.Array) -> None:
    """Raise an error if every list has one name, and many of the names are other names joined by a character.

    Args:
        source: the source, for the message.
        field: the target column, with lists of text.
        rows: the row of each value.
        values: the names in the lists.

    Raises:
        DataError: names the character, the number of rows, and what to write.
    """
    if len(np.unique(rows)) < len(rows):
        return
    cells = [cell for cell in pc.unique(values).to_pylist() if cell]
    known = {cell.casefold() for cell in cells}
    for joined in _joined_by(cells, known):
        if (joined.character in (*STRONG, ",") and joined.explained) or _weakly(joined, known):
            found = np.flatnonzero(pc.match_substring(values, joined.character))
            raise DataError(
                f"{source.name}: no list in column {field!r} holds several names, and {count_rows(len(found), 'row has')} "
                f"names joined by {READABLE.get(joined.character, repr(joined.character))} "
                f"({source.where(rows[found[0]])}: {shortened(values[int(found[0])].as_py(), 60)!r}); write each name by "
                f"itself, such as ['a', 'b'], or pass labels=[...] if names hold it ({source.counting})"
            )


def _refuse_cut_brackets(source: Source, field: str, column: pa.Array) -> None:
    """Raise DataError for cells such as `<a, b>` and `a (b, c)`, which have a comma inside brackets."""
    inside = [cell for cell in pc.unique(column).to_pylist() if "," in cell and _cuts_brackets(cell)]
    if inside:
        rows = np.flatnonzero(pc.is_in(column, pa.array(inside, column.type)))
        raise DataError(
            f"{source.name}: column {field!r} holds ',' inside of brackets in {count_rows(len(rows), 'row')} "
            f"({source.where(rows[0])}: {shortened(column[int(rows[0])].as_py(), 60)!r}); if these are lists, write them "
            "as ['a', 'b'] or a,b; if names hold it, put these in double quotes, or pass multi_label=False where a cell "
            f"is one name; or pass label_delimiter=',' if it separates labels inside of brackets, too ({source.counting})"
        )


def _cuts_brackets(cell: str) -> bool:
    """Whether a comma splits a pair of brackets; cells with double quotes are not examined."""
    pieces = cell.split(",") if '"' not in cell else []
    return any(
        cell.count(opening) == cell.count(closing)
        and any(piece.count(opening) != piece.count(closing) for piece in pieces)
        for opening, closing in ("[]", "()", "{}", "<>")
    )


def _all_parts(cells: Sequence[str], character: str) -> list[list[str]]:
    return [[part.strip() for part in cell.split(character) if part.strip()] for cell in cells]


def _joined_by(cells: list[str], known: set[str]) -> list[_Joined]:
    """Return the possible separators in these cells, best explained first, then `STRONG` ones before others."""
    holding: dict[str, list[str]] = {}
    words = {*WORDS, *_between_names(cells, known)}
    for cell in cells:
        found = {one for one in set(cell) - set("'\"()[]{}") if not one.isalnum()}
        for character in found | {word for word in words if word in cell}:
            holding.setdefault(character, []).append(cell)
    candidates = []
    for character in sorted(holding):
        parts = [parts for parts in _all_parts(holding[character], character) if len(parts) > 1]
        if character in ".-:":  # ignore numbers, versions, dates and times
            parts = [some for some in parts if not all(part.isdigit() for part in some)]
        explained = [some for some in parts if all(part.casefold() in known for part in some)]
        if parts:
            candidates.append(_Joined(character, parts, explained))
    return sorted(
        candidates, key=lambda one: (-len(one.explained), one.character not in STRONG, -len(one.parts))
    )


def _between_names(cells: list[str], known: set[str]) -> set[str]:
    """Return strings of several characters, such as ` or ` and `%2C`, that join two known names in a cell."""
    found = set()
    for cell in cells:
        folded = cell.casefold()
        if len(folded) != len(cell) or len(cell) > LONGEST_NAME:
            continue
        ends = [end for end in range(1, len(cell)) if folded[:end] in known]
        starts = [start for start in range(1, len(cell)) if ends and folded[start:] in known]
        found |= {cell[end:start] for end in ends for start in starts if 1 < start - end <= LONGEST_BETWEEN}
    return {one for one in found if len(one.strip()) > 1 and not one.isalnum()}


def _weakly(joined: _Joined, known: set[str]) -> bool:
    """Whether names seem to be joined by a character that may also be part of a name.

    A single `red wine` beside `red`, `wine` and many others is a name. Several such cells, or one in a column with hardly
    any other names, are joined names.
    """
    explained, count = len(joined.explained), len(joined.parts)
    pieces = {part.casefold() for part in chain.from_iterable(joined.explained)}
    alone = [name for name in known if joined.character not in name]
    if explained > 1:
        return 2 * explained >= count
    return 0 < explained == count and 2 * len(pieces) > len(alone)


def _recurring(cells: list[str], joined: _Joined) -> bool:
    """Whether pieces recur at several positions in cells of several lengths, as labels do and words rarely do."""
    every = _all_parts(cells, joined.character)
    places: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for parts in every:
        for place, part in enumerate(parts):
            places.setdefault(part, set()).add(place)
            counts[part] = counts.get(part, 0) + 1
    moving = sum(len(found) > 1 for found in places.values())
    lengths = {len(parts) for parts in every}
    return (
        len(lengths) > 1
        and min(counts.values()) > 1
        and len(places) < len(cells)
        and 2 * moving >= len(places)
    )


def _refuse(
    source: Source,
    field: str,
    column: pa.Array,
    character: str,
    delimiter: str | None,
    kind: Kind,
    label_delimiter: str | None,
) -> None:
    holds = pc.match_substring(column, character)
    readable = READABLE.get(character, repr(character))
    if delimiter is not None:
        holds = pc.and_(holds, pc.invert(pc.match_substring(column, delimiter)))
    rows = np.flatnonzero(np.asarray(pc.fill_null(holds, False)))
    found = count_rows(len(rows), "row")
    example = f"{source.where(rows[0])}: {shortened(column[int(rows[0])].as_py(), 60)!r}"
    if delimiter is not None:
        others = int(pc.sum(pc.match_substring(column, delimiter)).as_py())
        override = "labels=[...]" if label_delimiter or character in STRONG else "label_delimiter=','"
        raise DataError(
            f"{source.name}: column {field!r} holds {READABLE.get(delimiter, repr(delimiter))} in "
            f"{count_rows(others, 'row')} and {readable} in {found} without it ({example}); write one of them in every "
            f"row, in pandas: frame[{field!r}] = frame[{field!r}].str.replace({character!r}, {delimiter!r}), or pass "
            f"{override} if names hold {readable}"
        )
    otherwise = "label_delimiter=','" if kind == "delimited" else "multi_label=False"
    otherwise = "labels=[...]" if label_delimiter else otherwise
    raise DataError(
        f"{source.name}: column {field!r} holds {readable} in {found}: pass label_delimiter={character!r} if it "
        f"separates labels, or {otherwise} if names hold it; the first is {example}"
    )


def joins_known_names(values: pa.Array, names: Sequence[str]) -> str | None:
    """Return the character that joins known names or class indices in one of these values; None if there is none."""
    known = {name.casefold() for name in names}
    digits = {str(index) for index in range(len(names))}
    cells = pc.unique(values.cast(pa.large_string())).to_pylist()
    for joined in _joined_by(cells, known):
        if joined.explained or any(digits.issuperset(parts) for parts in joined.parts):
            return joined.character
    return None
