"""Encode target columns as an `(N, L)` sparse matrix, by the `TargetFormat` that was inferred from train."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import SHOWN, count_rows, file_once, first_of, some_of
from flash.text.classification.reading.odd_rows import kept_rows
from flash.text.classification.reading.source import Source, plain_column
from flash.text.classification.targets.delimiters import joins_known_names
from flash.text.classification.targets.formats import Fields, TargetFormat
from flash.text.classification.targets.known import any_unknown, known_per_row
from flash.text.classification.targets.labels import Kind, Rows, is_list, is_text, no_nulls, pieces_of
from flash.text.classification.targets.odd_names import written_otherwise
from flash.text.classification.targets.unknown import (
    NOT_ALLOWED,
    NUMBER,
    UnknownFound,
    UnknownTargets,
    left_out_sentence,
    refuse_negative,
)

MOST_LABELS = 10  # maximum number of labels that a message names
SHAPES: dict[Kind, str] = {
    "columns": "numbers",
    "vectors": "lists of numbers",
    "lists": "lists",
    "delimited": "text",
    "single": "single values",
}


@dataclass(frozen=True, eq=False)
class KnownTargets:
    """The targets of the rows with at least one known target.

    Attributes:
        targets: (M, L) float32: 1 if a label applies, the value itself for soft targets, NaN for an unknown target.
        rows: (M,) indices of these rows in the source; None for all rows.
    """

    targets: csr_array
    rows: Rows | None = None


def encode_known(
    target_format: TargetFormat,
    source: Source,
    target_fields: Fields,
    *,
    unknown_labels: Literal["error", "ignore"] = "error",
    unknown: UnknownTargets = NOT_ALLOWED,
) -> KnownTargets:
    """Encode the targets of the rows with at least one known target.

    Args:
        target_format: from `infer_format`.
        source: N rows.
        target_fields: as given to `infer_format`.
        unknown_labels: as in `encode_targets`.
        unknown: which values mean "not known", and how to treat them.

    Raises:
        DataError: as `encode_targets`; also if no row has a known target.

    Warns:
        UserWarning: rows without any known target are left out.
    """
    if not target_format.label_set.multi_label:
        refuse_negative(unknown)
    settled, kept = _settled(target_format, source, target_fields, unknown)
    targets = encode_targets(
        target_format, settled, target_fields, unknown_labels=unknown_labels, unknown=unknown
    )
    if any_unknown(targets):
        told = known_per_row(targets) > 0
        targets, kept[kept] = targets[told], told
    if kept.all():
        return KnownTargets(targets)
    warnings.warn(left_out_sentence(source, kept), UserWarning, stacklevel=5)
    return KnownTargets(targets, np.flatnonzero(kept))


def _settled(
    target_format: TargetFormat, source: Source, target_fields: Fields, unknown: UnknownTargets
) -> tuple[Source, npt.NDArray[np.bool_]]:
    """Remove rows whose only target cell is unknown, or make them negative; return the source and an (N,) mask of kept rows."""
    every = np.ones(source.table.num_rows, np.bool_)
    kind, label_set = target_format.kind, target_format.label_set
    if kind == "columns" or unknown.action == "error":
        return source, every
    field = target_fields if isinstance(target_fields, str) else target_fields[0]
    said_nothing = unknown.rows(plain_column(source, field), blank_is_unknown=not label_set.multi_label)
    if not said_nothing.any():
        return source, every
    if unknown.action == "negative":
        width = len(label_set) if kind == "vectors" else 0
        return unknown.as_no_labels(source, field, said_nothing, width), every
    if said_nothing.all():
        left_out_sentence(source, ~said_nothing)
    return kept_rows(source, ~said_nothing), ~said_nothing


def encode_targets(
    target_format: TargetFormat,
    source: Source,
    target_fields: Fields,
    *,
    unknown_labels: Literal["error", "ignore"] = "error",
    unknown: UnknownTargets = NOT_ALLOWED,
) -> csr_array:
    """Encode the targets of a source.

    Args:
        target_format: from `infer_format`.
        source: N rows.
        target_fields: as given to `infer_format`.
        unknown_labels: `"ignore"` drops the labels that the format lacks, with one counted warning.
        unknown: how to treat unknown cells in 0/1 columns and in vectors.

    Returns:
        (N, L) float32: 1 if a label applies, the value itself for soft targets, NaN for an unknown target. Rows may be
        empty.

    Raises:
        DataError: null targets, values that are not targets, unknown labels, or, in a single-label format, rows
            without exactly one label; all such rows are counted and the first ones named.
    """
    fields = [target_fields] if isinstance(target_fields, str) else list(target_fields)
    labels = target_format.label_set
    if target_format.kind == "columns":
        targets = _encode_columns(source, labels.names, unknown)
    else:
        column = plain_column(source, fields[0])
        no_nulls(source, fields[0], column)
        _same_shape(source, fields[0], column, target_format)
        if target_format.kind == "vectors":
            targets = _encode_vectors(source, fields[0], column, len(labels), unknown)
        else:
            targets = _encode_names(target_format, source, fields[0], column, unknown_labels)
    if not labels.multi_label:
        known = _of_one_label(targets) if any_unknown(targets) else targets
        _exactly_one(source, fields, known, unknown)
        targets = known
    return targets


def _of_one_label(targets: csr_array) -> csr_array:
    """Single-label targets: set unknown targets to 0 if the row's label is known, otherwise make the whole row unknown."""
    dense = targets.toarray()
    unknown, told = np.isnan(dense), (dense > 0).any(axis=1)  # NaN is not above 0
    dense[unknown] = 0
    dense[unknown.any(axis=1) & ~told] = np.nan
    return csr_array(dense)


def _same_shape(source: Source, field: str, column: pa.Array, target_format: TargetFormat) -> None:
    """Check that a split has the structure of train, and the same class names."""
    kind, names = target_format.kind, target_format.label_set.names
    fits = is_list(column.type) if kind in ("vectors", "lists") else is_text(column.type)
    if not (fits or (kind == "single" and not is_list(column.type))):
        found = "text" if is_text(column.type) else column.type
        raise DataError(
            f"{source.name}: column {field!r} holds {found} ({source.where(0)}: {column[0].as_py()!r}), but "
            f"the training rows hold {SHAPES[kind]}; give every split the same structure ({source.counting})"
        )
    if source.class_names.get(field, names) != names:
        raise DataError(
            f"{source.name}: the classes of column {field!r} ({some_of(list(source.class_names[field]))}) are "
            f"not the labels ({some_of(list(names))}) in their order; cast the column to one ClassLabel in "
            "every split"
        )


def _exactly_one(source: Source, fields: list[str], targets: csr_array, unknown: UnknownTargets) -> None:
    known = known_per_row(targets) > 0
    counts = np.where(known, np.diff(targets.indptr), 1)
    soft = np.flatnonzero((targets.data != 1) & ~np.isnan(targets.data))
    place = f"column {fields[0]!r}" if len(fields) == 1 else f"{len(fields)} target columns"
    for wrong, words, expected, meant in (
        (np.unique(targets.tocoo().row[soft]), "a fraction", "one 1 and else 0", "soft targets are meant"),
        (np.flatnonzero(counts == 0), "no label", "exactly one", "rows with none or several are meant"),
        (np.flatnonzero(counts > 1), "several labels", "exactly one", "rows with none or several are meant"),
    ):
        if len(wrong):
            example = f"; the first is {targets.data[soft[0]]:g}" if words == "a fraction" else ""
            leave = ", or unknown_targets='mask' to leave these rows out" if words == "no label" else ""
            raise DataError(
                f"{source.name}: {count_rows(len(wrong), 'row has')} {words} in {place} "
                f"({source.places(wrong)}{example}), but a single-label row has {expected}; pass "
                f"multi_label=True if {meant}{leave if unknown.action == 'error' else ''} ({source.counting})"
            )


# ------------------------------------------------------------------------------ columns and vectors


def _encode_columns(source: Source, names: Sequence[str], unknown: UnknownTargets) -> csr_array:
    """Encode one 0/1 or soft column per label; the error counts all cells that are neither."""
    rows, columns, data = [], [], []
    found_unknown, wrong = UnknownFound(), _Cells()
    for position, name in enumerate(names):
        column = plain_column(source, name)
        values, unsaid, bad = _zero_to_one(column, unknown)
        if unknown.action == "error":
            found_unknown.add(column, name, unsaid)
        wrong.add(column, name, bad)
        found = np.flatnonzero(values)
        rows.append(found)
        columns.append(np.full(len(found), position))
        data.append(values[found])
    if wrong.count or found_unknown.cells:
        raise DataError(_wrong_cells(source, found_unknown, wrong, len(names), unknown))
    triples = (np.concatenate(data).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return coo_array(triples, shape=(source.table.num_rows, len(names))).tocsr()


class _Cells:
    """Counts cells, and keeps the first few in the order of rows."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[tuple[int, str, Any]] = []

    def add(self, column: pa.Array, name: str, chosen: npt.NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(chosen)
        self.count += len(rows)
        self.first.extend((int(row), name, column[int(row)].as_py()) for row in rows[:SHOWN])
        self.first = sorted(self.first, key=lambda cell: cell[:2])[:SHOWN]

    def targets_are(self) -> str:
        return "1 target is" if self.count == 1 else f"{self.count:,} targets are"


def _wrong_cells(
    source: Source, found_unknown: UnknownFound, wrong: _Cells, columns: int, unknown: UnknownTargets
) -> str:
    sentences = []
    if wrong.count:
        cells = _places(source, [(row, f"column {name!r}: {value!r}") for row, name, value in wrong.first])
        names = f", or pass target_fields={wrong.first[0][1]!r} if it holds names" if columns == 1 else ""
        value = str(wrong.first[0][2])
        asked = (
            f"pass unknown_targets='mask' and unknown_values=[{value!r}]"
            if unknown.action == "error"
            else "name it in unknown_values="
        )
        names += f", or {asked} if it says that nothing is known"
        sentences.append(
            f"{wrong.targets_are()} not 0, 1, true, false, yes, no or a number between 0 and 1 "
            f"({first_of(cells, wrong.count)}); write 0 or 1{names}"
        )
    if found_unknown.cells:
        sentences.append(found_unknown.sentence(source))
    return f"{source.name}: {'; '.join(sentences)} ({source.counting})"


def _places(source: Source, cells: list[tuple[int, str]]) -> list[str]:
    """Format (row, words) pairs: `train.csv, row 1, words`, then `row 2, words`."""
    located = [(source.locate(row), words) for row, words in cells]
    return file_once([(part, f"row {number}, {words}") for (part, number), words in located])


def _encode_vectors(
    source: Source, field: str, column: pa.Array, labels: int, unknown: UnknownTargets
) -> csr_array:
    lengths = np.asarray(pc.list_value_length(column))
    wrong = np.flatnonzero(lengths != labels)
    if len(wrong):
        raise DataError(
            f"{source.name}: {count_rows(len(wrong), 'row has')} a target in column {field!r} that is not "
            f"{labels} long, one value per label ({source.places(wrong)}); the first is {lengths[wrong[0]]} long "
            f"({source.counting})"
        )
    flat = pc.list_flatten(column)
    values, unsaid, bad = _zero_to_one(flat, unknown)
    wrong = np.flatnonzero(bad.reshape(-1, labels).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{source.name}: {count_rows(len(wrong), 'row has')} a value in column {field!r} that is no number "
            f"between 0 and 1 ({source.places(wrong)}); the first target is {column[int(wrong[0])].as_py()} "
            f"({source.counting})"
        )
    if unknown.action == "error" and unsaid.any():
        found = UnknownFound()
        found.add(flat, field, unsaid, labels)
        raise DataError(f"{source.name}: {found.sentence(source)} ({source.counting})")
    return csr_array(values.reshape(-1, labels).astype(np.float32))


def _zero_to_one(
    column: pa.Array, unknown: UnknownTargets
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the values, a mask of unknown cells, and a mask of invalid cells (whose value is 0).

    Text is parsed once per distinct value; a 0/1 column has two.
    """
    if is_text(column.type):
        encoded = column.dictionary_encode()
        distinct = pc.ascii_lower(pc.utf8_trim_whitespace(encoded.dictionary))
        numeric = pc.match_substring_regex(distinct, NUMBER)
        numbers = pc.if_else(numeric, distinct, "nan").cast(pa.float64())
        parsed = pc.case_when(
            pc.make_struct(pc.equal(distinct, "true"), pc.equal(distinct, "false")),
            pa.scalar(1.0),
            pa.scalar(0.0),
            numbers,
        )
        numbers = parsed.take(encoded.indices)
    elif _is_number(column.type):
        numbers = column.cast(pa.float64())
    else:
        return np.zeros(len(column)), np.zeros(len(column), bool), np.ones(len(column), bool)
    values = np.asarray(pc.fill_null(numbers, np.nan))
    bad = ~((values >= 0) & (values <= 1))
    unsaid = np.zeros_like(bad)
    if bad.any() or unknown.takes_targets:
        unsaid = unknown.cells(column)
        bad &= ~unsaid
        values = np.where(unsaid, unknown.fill, np.where(bad, 0.0, values))
    return values, unsaid, bad


def _is_number(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_null,
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
    )
    return any(test(kind) for test in tests)


# -------------------------------------------------------------------------------------------- names


def _encode_names(
    target_format: TargetFormat, source: Source, field: str, column: pa.Array, unknown_labels: str
) -> csr_array:
    names = target_format.label_set.names
    rows, values = pieces_of(source, field, column, target_format.kind, target_format.delimiter)
    if target_format.by_position:
        positions = values.cast(pa.large_string())
        known = pc.match_substring_regex(positions, r"^\+?[0-9]{1,9}$")
        index = np.asarray(pc.fill_null(pc.if_else(known, positions, "-1"), "-1").cast(pa.int64()))
        index = np.where(index < len(names), index, -1)
    else:
        index = _found(values.cast(pa.large_string()), pa.array(names, pa.large_string()))
    unknown = index < 0
    if unknown.any():
        _report_unknown(
            target_format, source, field, rows[unknown], values.filter(pa.array(unknown)), unknown_labels
        )
        rows, index = rows[~unknown], index[~unknown]
    shape = (source.table.num_rows, len(names))
    targets = coo_array((np.ones(len(rows), np.float32), (rows, index)), shape=shape).tocsr()
    targets.data[:] = 1  # names that occur twice in a row were summed
    return targets


def _found(values: pa.Array, names: pa.Array) -> Rows:
    """Return the index of each value in the names, -1 if it is not among them; surrounding white space may differ."""
    found = pc.index_in(values, names)
    if found.null_count and not (trimmed := pc.utf8_trim_whitespace(names)).equals(names):
        found = pc.coalesce(found, pc.index_in(pc.utf8_trim_whitespace(values), trimmed))
    return np.asarray(pc.fill_null(found, -1)).astype(np.int64)


def _report_unknown(
    target_format: TargetFormat, source: Source, field: str, rows: Rows, values: pa.Array, unknown_labels: str
) -> None:
    counts = sorted(
        pc.value_counts(values).to_pylist(), key=lambda item: (-item["counts"], str(item["values"]))
    )
    firsts = [source.locate(int(rows[pc.index(values, item["values"]).as_py()])) for item in counts[:SHOWN]]
    places = file_once([(part, f"row {number}") for part, number in firsts])
    cells = [
        f"{item['values']!r} ({count_rows(item['counts'], 'row')}, the first {place})"
        for item, place in zip(counts, places, strict=False)
    ]
    labels = target_format.label_set
    indices = target_format.by_position or labels.names == tuple(map(str, range(len(labels))))
    more = f", and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else ""
    known = (
        f"no class index from 0 to {len(labels) - 1}"
        if indices
        else f"none of the {len(labels):,} label{'s' * (len(labels) > 1)} "
        f"({', '.join(labels.names[:MOST_LABELS])}{more})"
    )
    found = (
        f"{source.name}: {len(counts):,} value{'s' * (len(counts) > 1)} in column {field!r} "
        f"{'are' if len(counts) > 1 else 'is'} {known}: {first_of(cells, len(counts))}"
    )
    if not indices:
        found += written_otherwise((str(item["values"]) for item in counts), labels.names)
    if unknown_labels == "ignore":
        warnings.warn(
            f"{found}; left out of these rows, as unknown_labels='ignore' asks ({source.counting})",
            UserWarning,
            stacklevel=8,
        )
        return
    hint = ""
    if NOT_ALLOWED.cells(values).any() and not labels.multi_label:
        hint = ", pass unknown_targets='mask' to leave the rows out whose label is not known"
    if target_format.kind in ("single", "delimited") and is_text(values.type):
        others = [other for other in (",", ";", "|") if other != target_format.delimiter]
        held = [other for other in others if pc.any(pc.match_substring(values, other)).as_py()]
        joins = joins_known_names(values, labels.names) or (held[0] if held else None)
        hint += f", pass label_delimiter={joins!r} if it separates labels" if joins else ""
    advice = f"add them to labels=[...]{hint}" if not target_format.of_model else hint.removeprefix(", ")
    raise DataError(
        f"{found}; {advice}{', or ' if advice else ''}pass unknown_labels='ignore' to leave them out ({source.counting})"
    )
