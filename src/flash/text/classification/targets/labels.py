"""Label names: the label set, the natural order, and splitting the cells of a column into names."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError, shortened
from flash.text.classification.reading.mistakes import count_rows, short_type
from flash.text.classification.reading.source import Source

Kind: TypeAlias = Literal["columns", "vectors", "lists", "delimited", "single"]
"""How a target column is read; see the table in `formats`."""
Rows: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelSet:
    """Ordered label names; column j of every `(N, L)` array means `names[j]`.

    Raises:
        DataError: no name, an empty name, a name that is not a string, or a duplicate name.
    """

    names: tuple[str, ...]
    multi_label: bool

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("there are no labels; pass labels=[...] with at least one name")
        wrong = [name for name in self.names if not isinstance(name, str) or not name.strip()]
        if wrong:
            raise DataError(
                f"a label name is text and neither empty nor blank, found {wrong[0]!r}; pass labels=['first', ...]"
            )
        if len(self.index) < len(self.names):
            twice = [name for name, count in Counter(self.names).items() if count > 1]
            raise DataError(
                f"label names are there more than once: {', '.join(map(repr, twice[:10]))}; keep one of each"
            )
        trimmed: dict[str, str] = {}
        for name in self.names:  # cells are trimmed when they are read
            if (other := trimmed.setdefault(name.strip(), name)) != name:
                raise DataError(
                    f"the labels {other!r} and {name!r} differ only by white space at their edges; rename one of them"
                )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[str, int]:
        """The column of each name."""
        return {name: column for column, name in enumerate(self.names)}


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key in which digits count as numbers: label2 < label10. Ties keep the order of the characters.

    >>> sorted(["label10", "label2", "b", "10", "9"], key=natural_key)
    ['9', '10', 'b', 'label2', 'label10']
    """
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple(_natural_piece(piece) for piece in pieces), name


def _natural_piece(piece: str) -> tuple[int, str]:
    if "0" <= piece[0] <= "9":
        digits = piece.lstrip("0")
        return len(digits), digits  # a longer number is larger; int() would refuse thousands of digits
    return 1 << 62, piece  # text comes after numbers


# ---------------------------------------------------------------------------------------- the cells


def pieces_of(
    source: Source, field: str, column: pa.Array, kind: Kind, delimiter: str | None
) -> tuple[Rows, pa.Array]:
    """Return the row and the value of every label in the column, as two arrays; values are text or integers."""
    if kind == "lists":
        rows, values = pc.list_parent_indices(column), pc.list_flatten(column)
        wrong = pc.fill_null(pc.equal(values, ""), True) if is_text(values.type) else pc.is_null(values)
        if pc.any(wrong).as_py():
            places = np.unique(rows.filter(wrong))
            raise DataError(
                f"{source.name}: {count_rows(len(places), 'row has')} an empty or null name in the "
                f"list of column {field!r} ({source.places(places)}); leave it out of the list "
                f"({source.counting})"
            )
        return np.asarray(rows).astype(np.int64), values
    if kind == "delimited":
        return _split(column, str(delimiter))
    if pa.types.is_floating(column.type):
        column = _whole_numbers(source, field, column)
    elif pa.types.is_boolean(column.type) or is_text(column.type):
        column = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    elif not pa.types.is_integer(column.type):
        raise DataError(
            f"{source.name}: column {field!r} holds {short_type(column.type)} ({source.where(0)}: "
            f"{shortened(repr(column[0].as_py()), 60)}); expected names, class indices, or lists of them ({source.counting})"
        )
    filled = np.asarray(pc.fill_null(pc.not_equal(column.cast(pa.large_string()), ""), False))
    return np.flatnonzero(filled), column.filter(pa.array(filled))


def _whole_numbers(source: Source, field: str, column: pa.Array) -> pa.Array:
    """Convert class indices that a data frame stores as 1.0, 2.0."""
    values = np.asarray(column)
    wrong = np.flatnonzero(values != np.floor(values))
    if len(wrong):
        raise DataError(
            f"{source.name}: {count_rows(len(wrong), 'row has')} a fraction in column {field!r} "
            f"({source.places(wrong)}; the first is {values[wrong[0]]}); for a soft target between 0 and 1 pass "
            f"multi_label=True ({source.counting})"
        )
    return column.cast(pa.int64())


def _split(column: pa.Array, delimiter: str) -> tuple[Rows, pa.Array]:
    """Split cells at the delimiter and trim the pieces, without empty ones; only quoted cells are handled in Python."""
    column = column.cast(pa.large_string())
    if delimiter != delimiter.strip():  # also find the last delimiter of `a | b |`, whose end was trimmed
        space, nothing = (pa.scalar(text, pa.large_string()) for text in (" ", ""))
        column = pc.binary_join_element_wise(space, column, space, nothing)
    quoted = np.asarray(pc.match_substring(column, '"'))
    plain = np.flatnonzero(~quoted)
    lists = pc.split_pattern(column.take(pa.array(plain)), delimiter)
    rows = plain[np.asarray(pc.list_parent_indices(lists))]
    values = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    if quoted.any():
        cells = column.filter(pa.array(quoted)).to_pylist()
        found = [
            (row, name)
            for row, cell in zip(np.flatnonzero(quoted), cells, strict=True)
            for name in split_cell(cell, delimiter)
        ]
        rows = np.concatenate([rows, np.array([row for row, _ in found], np.int64)])
        values = pa.concat_arrays([values, pa.array([name for _, name in found], pa.large_string())])
    filled = pc.not_equal(values, "")
    return rows[np.asarray(filled)].astype(np.int64), values.filter(filled)


def split_cell(cell: str, delimiter: str) -> list[str]:
    """Split one cell into names; a quoted name may contain the delimiter, outer spaces, and a quote written twice.

    >>> split_cell('"a, b",c , "the ""x"" one"," d"', ",")
    ['a, b', 'c', 'the "x" one', ' d']
    """
    end = re.escape(delimiter)
    piece = re.compile(rf'\s*"((?:[^"]|"")*)"\s*(?:{end}|\Z)|((?:(?!{end}).)*)(?:{end}|\Z)', re.DOTALL)
    names = []
    position = 0
    while position < len(cell):
        match = piece.match(cell, position)
        if match is None or match.end() == position:
            break
        quoted, bare = match.groups()
        names.append(quoted.replace('""', '"') if quoted is not None else bare.strip())
        position = match.end()
    return names


def no_nulls(source: Source, field: str, column: pa.Array) -> None:
    """Raise a DataError that names the first rows with a null: a null is not an empty label set."""
    if column.null_count or pa.types.is_null(column.type):
        nulls = np.flatnonzero(pc.is_null(column))
        help_ = (
            "write an empty list or an empty text for a row without labels, remove these rows, or pass "
            "unknown_targets='mask' to leave them out"
        )
        if source.kind == "frame" and (is_text(column.type) or pa.types.is_null(column.type)):
            help_ = (
                f'if these are rows without labels, type frame["{field}"] = frame["{field}"].fillna("") '
                "with your frame's name, otherwise remove them, or pass unknown_targets='mask' to leave them out"
            )
        raise DataError(
            f"{source.name}: {count_rows(len(nulls), 'row has')} a null target in column {field!r} "
            f"({source.places(nulls)}); {help_} ({source.counting})"
        )


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of the text types."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of the list types."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
