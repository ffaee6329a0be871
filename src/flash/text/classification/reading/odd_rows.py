"""Find rows that are not data: empty rows, repeated headers, and rows that a stray quote has merged into a cell."""

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

OUTER_SPACES = 8  # bytes of white space that may surround a name in a repeated header
FEW_LINES = 3  # a cell with as many lines that have a row's number of delimiters contains rows


def without_odd_rows(source: Source, fields: Sequence[str]) -> Source:
    """Remove rows that are empty in all of `fields`, and repeated headers.

    A cell is empty if it is null or only white space. An empty text with a target stays, and so does a text without
    labels.

    Args:
        source: the source.
        fields: the columns of the text and of the targets.

    Raises:
        DataError: no row is left.

    Warns:
        UserWarning: rows were removed; says how many and which.
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
    """Select rows of a source by an (N,) boolean mask or by indices; the rows keep their order and their row numbers."""
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
    """Return a mask of the rows with only white space and nulls; columns of other types are empty if null."""
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
    """Return the rows that repeat the column names, in any case; none for a single column, where it may be a text."""
    rows = np.arange(table.num_rows if table.num_columns > 1 else 0)
    for name in table.column_names:
        if len(rows):  # skip long texts before the more expensive lower-casing
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
    """Return the rows of a table of text that contain the column names in another order, in any case."""
    names = [name.strip().lower() for name in table.column_names]
    # one target column per label has been combined to a column of lists by now
    texts = all(pa.types.is_large_string(kind) for kind in table.schema.types)
    rows = np.arange(table.num_rows if texts and len(names) > 1 else 0)
    longest = max(len(name.encode()) for name in names) + OUTER_SPACES if len(rows) else 0
    for column in table.columns if len(rows) else ():  # skip long texts before lower-casing
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
    """The error message for a header that is repeated in another order."""
    return (
        f"{name}: the header stands again in another order ({places}), and the cells below it stand in other columns; cut "
        f"the file there into several, and pass them together ({counting})"
    )


def _byte_lengths(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return (N,) lengths in bytes, read from Arrow's buffers, because Arrow's conversions import pandas."""
    parts = [pc.binary_length(chunk) for chunk in column.chunks if len(chunk)]
    found = [
        np.frombuffer(part.buffers()[1], np.int64 if pa.types.is_int64(part.type) else np.int32)[
            part.offset : part.offset + len(part)
        ]
        for part in parts
    ]
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def swallowed_rows(table: pa.Table, names: Sequence[str], delimiter: str) -> list[tuple[int, str, int, int]]:
    """Find cells that contain whole rows of the file, as two stray quotes cause them.

    A line of a cell looks like a row if it has a row's number of delimiters and, in addition, one of its values occurs
    in the same column of the table, or the file has more than two columns and the cell several such lines. A cell is
    reported if at least half of its non-blank lines after the first look like rows, since a long text may contain some.

    Args:
        table: the rows of a CSV file, all cells text; a subset of the columns is enough.
        names: all columns of the file, in order.
        delimiter: separator of the cells.

    Returns:
        For each such cell: its row (from 0), its column, its number of lines, and how many of these look like rows.
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
        between = between - 1  # the first line belongs to the cell itself
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
    """Return which lines have a value that also occurs in the same column of the table; all have a row's width."""
    pieces = pc.list_flatten(pc.split_pattern(pc.utf8_rtrim(lines, characters="\r"), delimiter))
    places = np.arange(len(lines)) * len(names)
    alike = np.zeros(len(lines), bool)
    for column in table.column_names:
        values = pieces.take(pa.array(places + names.index(column)))
        known = pc.and_(pc.is_in(values, table[column].unique()), pc.not_equal(values, ""))
        alike |= np.asarray(known)
    return alike


def swallowed_warning(place: str, column: str, lines: int, alike: int, more: int) -> str:
    """The warning about the first of the cells that `swallowed_rows` found."""
    others = f"; so do {count_rows(more, 'row')} more" if more else ""
    return (
        f"{place}: the cell in column {column!r} runs over {lines} lines, {alike} of which look like rows that it has "
        f'swallowed{others}; if a quote there stands by mistake, remove it or write it twice in a quoted cell (""), '
        "or pass quoting=False if quotes are ordinary characters here"
    )
