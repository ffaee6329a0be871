"""Unknown targets in files: which cells are unknown, and how to treat them.

`-1` (used by the Jigsaw challenge for "not scored"), blank cells and NA mean "not known" to some people and "does not
apply" to others, so that by default they are an error that names the cells and offers both options.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError, FlashError, unknown_name
from flash.text.classification.reading.mistakes import SHOWN, count_rows, file_once
from flash.text.classification.reading.odd_rows import kept_rows
from flash.text.classification.reading.source import Source, plain_column
from flash.text.classification.targets.labels import is_list, is_text

Action: TypeAlias = Literal["error", "mask", "negative"]
UnknownValues: TypeAlias = list[str | float | None] | str | float | None
Bools: TypeAlias = npt.NDArray[np.bool_]

ACTIONS = ("error", "mask", "negative")
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
SPELLINGS = ("na", "n/a", "#n/a", "nan", "null", "none", "<na>", "?")  # of "not known", in any case
ADVICE = (
    "pass unknown_targets='mask' if it is not known there whether the label applies, or unknown_targets='negative' if "
    "it does not"
)


@dataclass(frozen=True)
class UnknownTargets:
    """Which target values mean "not known", and how to treat them.

    Attributes:
        action: `"error"` raises an error; `"mask"` makes them NaN, which is ignored everywhere; `"negative"` makes them 0.
        numbers: numbers that mean "not known", in columns of numbers and of text.
        spellings: texts that mean "not known", trimmed and in lower case.
        blank: whether empty cells, nulls and NaN mean "not known".
    """

    action: Action = "error"
    numbers: frozenset[float] = frozenset({-1.0})
    spellings: frozenset[str] = frozenset(SPELLINGS)
    blank: bool = True

    @classmethod
    def from_options(cls, action: str, values: UnknownValues = None) -> "UnknownTargets":
        """Create from the options `unknown_targets=` and `unknown_values=`; None stands for -1, blanks and NA.

        Raises:
            FlashError: an unknown action, or values with the action "error".
        """
        if action not in ACTIONS:
            raise FlashError(unknown_name("unknown_targets", str(action), ACTIONS))
        if values is None:
            return cls(cast(Action, action))
        if action == "error":
            raise FlashError(
                f"unknown_values={values!r} says which targets are not known, and not what to make of them; pass "
                "unknown_targets='mask' to leave them out, or unknown_targets='negative' to take them as 0"
            )
        listed = values if isinstance(values, list | tuple) else [values]
        texts = [_as_text(value) for value in listed]
        numbers = [float(text) for text in texts if re.match(NUMBER, text)]
        others = [text for text in texts if text and not re.match(NUMBER, text)]
        return cls(cast(Action, action), frozenset(numbers), frozenset(others), "" in texts)

    @property
    def fill(self) -> float:
        """The encoded target of an unknown cell."""
        return 0.0 if self.action == "negative" else np.nan

    @property
    def takes_targets(self) -> bool:
        """Whether an otherwise valid target, such as 0.5, means "not known"."""
        return any(0 <= number <= 1 for number in self.numbers) or bool(self.spellings & {"true", "false"})

    def cells(self, column: pa.Array) -> Bools:
        """Return an (N,) mask of the unknown cells of a column of text or numbers; text is checked once per distinct value."""
        if is_text(column.type):
            encoded = column.dictionary_encode()
            distinct = pc.ascii_lower(pc.utf8_trim_whitespace(encoded.dictionary))
            numeric = pc.match_substring_regex(distinct, NUMBER)
            numbers = pc.if_else(numeric, distinct, "nan").cast(pa.float64())
            known = pc.is_in(distinct, pa.array([*sorted(self.spellings), *[""] * self.blank], distinct.type))
            unknown = pc.or_(known, self._is_number(numbers)).take(encoded.indices)
            return np.asarray(pc.fill_null(unknown, self.blank)).astype(np.bool_)
        if pa.types.is_null(column.type):
            return np.full(len(column), self.blank)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            missing: Bools = np.asarray(column.is_null()) & self.blank
            return missing
        values = column.cast(pa.float64(), safe=False)
        blank = np.asarray(pc.is_null(values, nan_is_null=True))
        found: Bools = np.asarray(pc.fill_null(self._is_number(values), False)).astype(np.bool_)
        return found | (blank & self.blank)

    def _is_number(self, values: pa.Array) -> pa.Array:
        return pc.is_in(values, pa.array(sorted(self.numbers), pa.float64()), skip_nulls=True)

    def without_unknown_rows(self, source: Source, name: str) -> Source:
        """Remove the rows whose target in a column of names, indices or lists is unknown, unless the action is "error".

        Raises:
            DataError: no row is left.
        """
        if self.action == "error":
            return source
        unknown = self.rows(plain_column(source, name), blank_is_unknown=False)
        if unknown.all():
            left_out_sentence(source, ~unknown)
        return kept_rows(source, ~unknown) if unknown.any() else source

    def as_no_labels(self, source: Source, name: str, unknown: Bools, width: int) -> Source:
        """Replace unknown rows of a column by empty label sets, or by vectors of `width` zeros if `width` is not 0."""
        column = plain_column(source, name)
        empty: Any = [0] * width if is_list(column.type) else "" if is_text(column.type) else None
        filled = pc.if_else(pa.array(~unknown), column, pa.scalar(empty, column.type))
        place = source.table.column_names.index(name)
        return replace(source, table=source.table.set_column(place, name, filled))

    def rows(self, column: pa.Array, *, blank_is_unknown: bool) -> Bools:
        """Return an (N,) mask of the rows of a column of names, indices or lists whose target is unknown.

        Args:
            column: N cells.
            blank_is_unknown: whether an empty text is unknown; otherwise it is an empty label set.
        """
        if is_list(column.type):
            missing: Bools = np.asarray(column.is_null()) & self.blank
            return missing
        unknown = self.cells(column)
        if is_text(column.type) and not blank_is_unknown:
            unknown &= ~np.asarray(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), False))
        return unknown


NOT_ALLOWED = UnknownTargets()
"""The default: unknown targets are an error."""


@dataclass
class UnknownFound:
    """Counts the unknown values of a source, and keeps the first cell of each."""

    cells: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def add(self, column: pa.Array, name: str, unknown: Bools, per_row: int = 1) -> None:
        """Count the unknown cells of a column, in which each row has `per_row` consecutive cells."""
        rows = np.flatnonzero(unknown)
        if not len(rows):
            return
        shown = column.take(pa.array(rows)).dictionary_encode()
        codes = np.asarray(pc.fill_null(shown.indices, len(shown.dictionary)))
        values = [*map(_shown, shown.dictionary.to_pylist()), _shown(None)]
        for code in np.unique(codes).tolist():
            count, first = int((codes == code).sum()), int(rows[np.argmax(codes == code)]) // per_row
            before, earlier, where = self.cells.get(values[code], (0, first, name))
            place = (first, name) if first < earlier else (earlier, where)
            self.cells[values[code]] = (before + count, *place)

    def sentence(self, source: Source) -> str:
        """Return a message with the values, their first places, and the options."""
        ordered = sorted(self.cells.items(), key=lambda item: (-item[1][0], item[1][1], item[0]))
        total = sum(count for count, _, _ in self.cells.values())
        located = [source.locate(row) for _, (_, row, _) in ordered[:SHOWN]]
        places = file_once([(part, f"row {number}") for part, number in located])
        told = [
            f"{value} in {count:,} cell{'s' * (count > 1)} (the first {place}, column {name!r})"
            for (value, (count, _, name)), place in zip(ordered, places, strict=False)
        ]
        others = len(ordered) - SHOWN
        more = f" and {others:,} more value{'s' * (others > 1)}" if others > 0 else ""
        return (
            f"{total:,} target{'s say' if total > 1 else ' says'} neither 0 nor 1: {', '.join(told)}{more}; such values "
            f'often mean "not known": {ADVICE}'
        )


def refuse_negative(unknown: UnknownTargets) -> None:
    """Raise DataError for the action "negative", which is meaningless for single-label targets."""
    if unknown.action == "negative":
        raise DataError(
            "unknown_targets='negative' says that a label does not apply, and in single-label targets each row has "
            "exactly one that does; pass unknown_targets='mask' to leave the rows out whose label is not known"
        )


def left_out_sentence(source: Source, kept: Bools) -> str:
    """Return the message about rows that are left out because their targets are unknown.

    Raises:
        DataError: no row is left.
    """
    gone = np.flatnonzero(~kept)
    if len(gone) == len(kept):
        raise DataError(
            f"{source.name}: no row has a target that is known (there are {count_rows(len(kept), 'row')}); leave the "
            "file out, or name other target_fields="
        )
    return (
        f"{source.name}: {len(gone):,} of {count_rows(len(kept), 'row')} {'has' if len(gone) == 1 else 'have'} no "
        f"target that is known, and {'is' if len(gone) == 1 else 'are'} left out ({source.places(gone)}; "
        f"{source.counting})"
    )


def _as_text(value: Any) -> str:
    """Return a value of `unknown_values=` as text in lower case; "" for None and NaN."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(value).strip().lower()


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "null"
    if isinstance(value, str):
        return repr(value) if value.strip() else "a blank"
    return f"{value:g}"
