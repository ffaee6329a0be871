"""Rows of a table that are no rows of the user's: wholly empty ones, repeated headers, rows inside of a cell.

Imports nothing of the project but the wording of mistakes and `Source`; neither torch nor lightning.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import count_rows
from flash.text.classification.reading.source import Source

OUTER_SPACES = 8  # bytes around the name of a column in a header that is repeated
FEW_LINES = (
    3  # lines of a cell that have as many delimiters as a row, from which on they are rows whatever they hold
)


def without_odd_rows(source: Source, fields: Sequence[str]) -> Source:
    """The rows that are an example: without those that are empty in all of `fields`, or hold their names again.

    Empty are nothing, white space and null. An empty text that has a target, and a text without labels, stay.

    Args:
        source: as it was read.
        fields: the columns of the text and of the targets.

    Raises:
        DataError: no row is left.

    Warns:
        UserWarning: how many rows were left out, and which.
    """
    empty = _empty_rows(source.table.select(fields))
    headers = np.zeros(len(empty), bool)
    if source.kind == "csv":
        headers[repeated_headers(source.table.select(fields))] = True
        if len(moved := headers_in_other_order(source.table.select(fields))):
            raise DataError(other_order(source.name, source.places(moved), source.counting))
    if not (empty.any() or headers.any()):
        return source
    if (empty | headers).all():
        raise DataError(f"{source.name} has no rows but empty ones; check its path, or put rows into it")
    for rows, words in ((empty, "empty"), (headers, "the header again")):
        if rows.any():
            found = np.flatnonzero(rows)
            warnings.warn(
                f"{source.name}: {count_rows(len(found))} {words} ({source.places(found)}) and left out "
                f"({source.counting})",
                UserWarning,
                stacklevel=5,
            )
    return kept_rows(source, ~(empty | headers))


def kept_rows(source: Source, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Source:
    """Some rows of a source, given as (N,) booleans or by their numbers, in their order; each knows where it came from."""
    kept = np.zeros(source.table.num_rows, bool)
    kept[rows] = True
    numbers = source.numbers
    if numbers is None:
        numbers = np.concatenate([np.arange(1, length + 1) for _, length in source.parts])
    ends = np.cumsum([length for _, length in source.parts])
    parts = np.searchsorted(ends, np.flatnonzero(kept), side="right")
    counts = np.bincount(parts, minlength=len(source.parts)).tolist()
    return replace(
        source,
        table=source.table.filter(pa.array(kept)),
        parts=tuple((name, count) for (name, _), count in zip(source.parts, counts, strict=True)),
        numbers=numbers[kept],
    )


def _empty_rows(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows hold nothing but white space and nulls; a column of another type is empty where it is null."""
    empty = np.ones(table.num_rows, bool)
    for column in table.columns:
        if not empty.any():
            break
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            blank = pc.fill_null(pc.match_substring_regex(column, r"^\s*$"), True)
        else:
            blank = pc.is_null(column, nan_is_null=True)
        empty &= np.asarray(blank)
    return empty


def repeated_headers(table: pa.Table) -> npt.NDArray[np.int64]:
    """The rows of a table of text that hold the name of each column, in any case; in one column alone that may be a text."""
    rows = np.arange(table.num_rows if table.num_columns > 1 else 0)
    for name in table.column_names:
        if len(rows):  # long texts are not put into lower case
            rows = rows[_byte_lengths(table[name])[rows] <= len(name.encode()) + OUTER_SPACES]
    if not len(rows):
        return rows
    for name in table.column_names:
        cells = table[name].take(pa.array(rows))
        same = pc.equal(pc.utf8_lower(pc.utf8_trim_whitespace(cells)), name.strip().lower())
        rows = rows[np.asarray(pc.fill_null(same, False)).astype(bool)]
        if not len(rows):
            break
    return rows.astype(np.int64)


def headers_in_other_order(table: pa.Table) -> npt.NDArray[np.int64]:
    """The rows of a table of text that hold the names of its columns in another order, in any case."""
    names = [name.strip().lower() for name in table.column_names]
    texts = all(
        pa.types.is_large_string(kind) for kind in table.schema.types
    )  # names over columns are a list by now
    rows = np.arange(table.num_rows if texts and len(names) > 1 else 0)
    longest = max(len(name.encode()) for name in names) + OUTER_SPACES if len(rows) else 0
    for column in table.columns if len(rows) else ():  # long texts are not put into lower case
        rows = rows[_byte_lengths(column)[rows] <= longest]
    for column in table.columns if len(rows) else ():
        if len(rows):
            cells = pc.utf8_lower(pc.utf8_trim_whitespace(column.take(pa.array(rows))))
            rows = rows[np.asarray(pc.is_in(cells, pa.array(names, cells.type)))]
    cells_of = [column.take(pa.array(rows)).to_pylist() for column in table.columns] if len(rows) else []
    told = [[cell.strip().lower() for cell in row] for row in zip(*cells_of, strict=True)]
    moved = [cells != names and sorted(cells) == sorted(names) for cells in told]
    found: npt.NDArray[np.int64] = rows[np.array(moved, bool)].astype(np.int64)
    return found


def other_order(name: str, places: str, counting: str) -> str:
    """The sentence about a header of the same names in another order."""
    return (
        f"{name}: the header stands again in another order ({places}), and the cells below it stand in other columns; cut "
        f"the file there into several, and pass them together ({counting})"
    )


def _byte_lengths(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """(N,) bytes of each text, by way of buffers: Arrow's conversions import pandas, which takes long."""
    parts = [pc.binary_length(chunk) for chunk in column.chunks if len(chunk)]
    found = [
        np.frombuffer(part.buffers()[1], np.int64 if pa.types.is_int64(part.type) else np.int32)[
            part.offset : part.offset + len(part)
        ]
        for part in parts
    ]
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def swallowed_rows(table: pa.Table, names: Sequence[str], delimiter: str) -> list[tuple[int, str, int, int]]:
    """Cells that hold what looks like rows of their own file, as two stray quotes leave them.

    A line of a cell looks like a row if it has as many delimiters as one, and if the cell in one of its columns is
    among those of that column, or if there are several such lines in a file of more than two columns. At least half of
    the cell's lines after the first that are not blank have to, as a long text may hold some such lines.

    Args:
        table: the rows of a CSV file, all cells text; some of its columns are enough.
        names: all columns of the file in order.
        delimiter: between cells.

    Returns:
        For each such cell its row (from 0), its column, its number of lines, and how many of these look like rows.
    """
    if len(names) < 2:
        return []
    found = []
    for column in table.column_names:
        cells = table[column]
        rows = np.flatnonzero(np.asarray(pc.match_substring(cells, "\n")))
        if not len(rows):
            continue
        lines = pc.split_pattern(cells.take(pa.array(rows)), "\n").combine_chunks()
        flat, parents = pc.list_flatten(lines), np.asarray(pc.list_parent_indices(lines))
        written = np.asarray(pc.match_substring_regex(flat, r"\S"))
        wide = np.asarray(pc.equal(pc.count_substring(flat, delimiter), len(names) - 1))
        count, between, as_wide = (
            np.bincount(parents[some], minlength=len(rows)) for some in (slice(None), written, wide)
        )
        between = between - 1  # the first line is the cell's own
        wide &= (2 * as_wide >= between)[parents]
        if not wide.any():
            continue
        like = _like_rows(table, names, delimiter, flat.filter(pa.array(wide)))
        like |= (len(names) > 2) & (as_wide >= FEW_LINES)[parents[wide]]
        alike = np.bincount(parents[wide][like], minlength=len(rows))
        chosen = np.flatnonzero((alike > 0) & (2 * alike >= between))
        found += [(int(rows[cell]), column, int(count[cell]), int(alike[cell])) for cell in chosen]
    return sorted(found)


def _like_rows(
    table: pa.Table, names: Sequence[str], delimiter: str, lines: pa.Array
) -> npt.NDArray[np.bool_]:
    """Which of some lines that are as wide as a row have a cell in one of its columns that is among those of that column."""
    pieces = pc.list_flatten(pc.split_pattern(pc.utf8_rtrim(lines, characters="\r"), delimiter))
    places = np.arange(len(lines)) * len(names)
    alike = np.zeros(len(lines), bool)
    for column in table.column_names:
        values = pieces.take(pa.array(places + names.index(column)))
        known = pc.and_(pc.is_in(values, table[column].unique()), pc.not_equal(values, ""))
        alike |= np.asarray(known)
    return alike


def swallowed_warning(place: str, column: str, lines: int, alike: int, more: int) -> str:
    """The sentence about the first of some cells that `swallowed_rows` found."""
    others = f"; so do {count_rows(more, 'row')} more" if more else ""
    return (
        f"{place}: the cell in column {column!r} runs over {lines} lines, {alike} of which look like rows that it has "
        f'swallowed{others}; if a quote there stands by mistake, remove it or write it twice in a quoted cell (""), '
        "or pass quoting=False if quotes are ordinary characters here"
    )
