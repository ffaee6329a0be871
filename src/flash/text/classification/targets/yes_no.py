"""Convert columns of yes and no, on and off, or marks such as `x`, to columns of 1 and 0."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import some_of
from flash.text.classification.reading.source import Source, plain_column
from flash.text.classification.targets.labels import is_text
from flash.text.classification.targets.unknown import SPELLINGS

PAIRS = (("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))
WORDS = {word: number for pair in PAIRS for word, number in zip(pair, "10", strict=True)}
UNKNOWN = frozenset({"", "-1", "-1.0", *SPELLINGS})
_VALUE = re.compile(r"[+-]?[0-9.]+(?:e[+-]?[0-9]+)?|true|false")


def read_yes_no(
    sources: Mapping[str, Source],
    fields: Sequence[str],
    *,
    columns: bool,
    multi_label: bool | None,
    labels: Sequence[str] | None,
    blank_is_negative: bool,
) -> dict[str, Source]:
    """Replace yes, y, t and on by 1, no, n, f and off by 0, in any case, and marks by 1, in the target columns.

    Args:
        sources: the sources with targets; the first, normally train, decides about marks.
        fields: the target columns.
        columns: whether these are 0/1 columns; otherwise one column, which may also contain names.
        multi_label: the user's option.
        labels: the user's label names, if given; these are neither marks nor words for yes and no.
        blank_is_negative: whether `unknown_targets="negative"` was passed, which columns of marks and blanks need.

    Raises:
        DataError: a column of marks and blanks, without `blank_is_negative`.
    """
    first = next(iter(sources.values()))
    told = _distinct(first, fields)
    said = {cell for cells in told.values() for cell in cells} - UNKNOWN
    own_name = labels is None or list(labels) == list(fields)
    marks = said if (_are_marks(told) if columns else _is_usual_mark(said)) else set()
    if not columns and not (own_name and (marks or (multi_label and _one_pair(said)))):
        return dict(sources)
    values = dict(WORDS)
    if marks and multi_label is not False and "" in {cell for cells in told.values() for cell in cells}:
        if not (blank_is_negative and (columns or multi_label)):
            _refuse_marks(first, fields, columns or bool(multi_label))
        values |= dict.fromkeys(marks, "1")
    return {name: _replaced(source, fields, values) for name, source in sources.items()}


def _distinct(source: Source, fields: Sequence[str]) -> dict[str, set[str]]:
    """Return the distinct cells of each text column, trimmed and in lower case; a null is blank."""
    found = {}
    for field in fields:
        column = plain_column(source, field)
        if is_text(column.type):
            cells = pc.unique(pc.utf8_lower(pc.utf8_trim_whitespace(pc.unique(column)))).to_pylist()
            found[field] = {cell or "" for cell in cells}
    return found


def _one_pair(said: set[str]) -> bool:
    return bool(said) and any(said <= set(pair) for pair in PAIRS)


def _is_mark(said: set[str]) -> bool:
    """Whether there is only one value, and it is neither a number nor a word for yes or no."""
    return len(said) == 1 and not any(_VALUE.fullmatch(one) or one in WORDS for one in said)


def _is_usual_mark(said: set[str]) -> bool:
    """Whether the only value is a typical mark that is not a name: x, v, or a symbol such as a check mark."""
    return _is_mark(said) and all(one in ("x", "v") or (len(one) < 3 and not one.isalnum()) for one in said)


def _are_marks(told: Mapping[str, set[str]]) -> bool:
    """Whether all columns have the same mark, or each column has its own mark of one character."""
    each = [cells - UNKNOWN for cells in told.values()]
    own = any(each) and all(not said or (_is_mark(said) and len(next(iter(said))) == 1) for said in each)
    return own or _is_mark(set().union(*each))


def _replaced(source: Source, fields: Sequence[str], values: Mapping[str, str]) -> Source:
    table = source.table
    for field in fields:
        column = plain_column(source, field)
        if not is_text(column.type):
            continue
        encoded = column.dictionary_encode()
        cells = encoded.dictionary.to_pylist()
        told = [values.get(cell.strip().lower(), cell) for cell in cells]
        if told != cells:
            place = table.column_names.index(field)
            told_column = pa.array(told, pa.large_string()).take(encoded.indices)
            table = table.set_column(place, field, told_column)
    return source if table is source.table else replace(source, table=table)


def _refuse_marks(source: Source, fields: Sequence[str], multi_label: bool) -> NoReturn:
    for field in fields:
        column = plain_column(source, field)
        filled = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(column), ""), False)
        row = pc.index(filled, True).as_py()
        if row >= 0:
            break
    mark = column[row].as_py()
    several = (
        f"columns {some_of(list(map(repr, fields)))} hold" if len(fields) > 1 else f"column {field!r} holds"
    )
    more = "" if multi_label else "multi_label=True and "
    raise DataError(
        f"{source.name}: the target {several} nothing but a mark ({source.where(row)}, column {field!r}: {mark!r}) and "
        f"blanks: pass {more}unknown_targets='negative' if a blank says that the label does not apply, or write 1 and 0 "
        f"({source.counting})"
    )
