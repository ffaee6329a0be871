"""The cells of target columns become an `(N, L)` sparse matrix, as the `TargetFormat` of train says.

Imports nothing of the project but errors, labels, targets, readers and the wording of mistakes; neither torch
nor lightning.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import SHOWN, count_rows, file_once, first_of, some_of
from flash.text.classification.reading.source import Source, plain_column
from flash.text.classification.targets.delimiters import joins_known_names
from flash.text.classification.targets.formats import Fields, TargetFormat
from flash.text.classification.targets.labels import Kind, Rows, is_list, is_text, no_nulls, pieces_of

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
MOST_LABELS = 10  # that a message names
SHAPES: dict[Kind, str] = {
    "columns": "numbers",
    "vectors": "lists of numbers",
    "lists": "lists",
    "delimited": "text",
    "single": "single values",
}


def encode_targets(
    target_format: TargetFormat,
    source: Source,
    target_fields: Fields,
    *,
    unknown_labels: Literal["error", "ignore"] = "error",
) -> csr_array:
    """The targets of a source.

    Args:
        target_format: from `infer_format`.
        source: N rows.
        target_fields: as given to `infer_format`.
        unknown_labels: `"ignore"` drops the labels that the format lacks, with one counted warning.

    Returns:
        (N, L) float32: 1 where a label applies, the value itself for soft targets. Rows may be empty.

    Raises:
        DataError: null targets, values that are no target, unknown labels, in a single-label format rows
            without exactly one label; all such rows are counted and the first ones named.
    """
    fields = [target_fields] if isinstance(target_fields, str) else list(target_fields)
    labels = target_format.label_set
    if target_format.kind == "columns":
        targets = _encode_columns(source, labels.names)
    else:
        column = plain_column(source, fields[0])
        no_nulls(source, fields[0], column)
        _same_shape(source, fields[0], column, target_format)
        if target_format.kind == "vectors":
            targets = _encode_vectors(source, fields[0], column, len(labels))
        else:
            targets = _encode_names(target_format, source, fields[0], column, unknown_labels)
    if not labels.multi_label:
        _exactly_one(source, fields, targets)
    return targets


def _same_shape(source: Source, field: str, column: pa.Array, target_format: TargetFormat) -> None:
    """Val and test have the structure of train, and their class indices the same names."""
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


def _exactly_one(source: Source, fields: list[str], targets: csr_array) -> None:
    counts = np.diff(targets.indptr)
    soft = np.flatnonzero(targets.data != 1)
    place = f"column {fields[0]!r}" if len(fields) == 1 else f"{len(fields)} target columns"
    for wrong, words, expected, meant in (
        (np.unique(targets.tocoo().row[soft]), "a fraction", "one 1 and else 0", "soft targets are meant"),
        (np.flatnonzero(counts == 0), "no label", "exactly one", "rows with none or several are meant"),
        (np.flatnonzero(counts > 1), "several labels", "exactly one", "rows with none or several are meant"),
    ):
        if len(wrong):
            example = f"; the first is {targets.data[soft[0]]:g}" if words == "a fraction" else ""
            raise DataError(
                f"{source.name}: {count_rows(len(wrong), 'row has')} {words} in {place} "
                f"({source.places(wrong)}{example}), but a single-label row has {expected}; pass "
                f"multi_label=True if {meant} ({source.counting})"
            )


# ------------------------------------------------------------------------------ columns and vectors


def _encode_columns(source: Source, names: Sequence[str]) -> csr_array:
    """One 0/1 or soft column a label; every cell that is neither is counted before the first is named."""
    rows, columns, data = [], [], []
    empty, wrong = _Cells(), _Cells()
    for position, name in enumerate(names):
        column = plain_column(source, name)
        values, nulls, bad = _zero_to_one(column)
        empty.add(column, name, nulls)
        wrong.add(column, name, bad)
        found = np.flatnonzero(values)
        rows.append(found)
        columns.append(np.full(len(found), position))
        data.append(values[found])
    if wrong.count or empty.count:
        raise DataError(_wrong_cells(source, empty, wrong, len(names)))
    triples = (np.concatenate(data).astype(np.float32), (np.concatenate(rows), np.concatenate(columns)))
    return coo_array(triples, shape=(source.table.num_rows, len(names))).tocsr()


class _Cells:
    """A number of cells and the first of them, in the order of rows."""

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


def _wrong_cells(source: Source, empty: _Cells, wrong: _Cells, columns: int) -> str:
    sentences = []
    if wrong.count:
        cells = _places(source, [(row, f"column {name!r}: {value!r}") for row, name, value in wrong.first])
        names = f", or pass target_fields={wrong.first[0][1]!r} if it holds names" if columns == 1 else ""
        sentences.append(
            f"{wrong.targets_are()} not 0, 1, true, false or a number between 0 and 1 "
            f"({first_of(cells, wrong.count)}); write 0 or 1{names}"
        )
    if empty.count:
        cells = _places(source, [(row, f"column {name!r}") for row, name, _ in empty.first])
        sentences.append(
            f"{empty.targets_are()} null or empty ({first_of(cells, empty.count)}); write 0 where a label "
            "does not apply"
        )
    return f"{source.name}: {'; '.join(sentences)} ({source.counting})"


def _places(source: Source, cells: list[tuple[int, str]]) -> list[str]:
    """(row, words) as `train.csv, row 1, words`, then `row 2, words`."""
    located = [(source.locate(row), words) for row, words in cells]
    return file_once([(part, f"row {number}, {words}") for (part, number), words in located])


def _encode_vectors(source: Source, field: str, column: pa.Array, labels: int) -> csr_array:
    lengths = np.asarray(pc.list_value_length(column))
    wrong = np.flatnonzero(lengths != labels)
    if len(wrong):
        raise DataError(
            f"{source.name}: {count_rows(len(wrong), 'row has')} a target in column {field!r} that is not "
            f"{labels} long, one value a label ({source.places(wrong)}); the first is {lengths[wrong[0]]} long "
            f"({source.counting})"
        )
    values, nulls, bad = _zero_to_one(pc.list_flatten(column))
    wrong = np.flatnonzero((nulls | bad).reshape(-1, labels).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{source.name}: {count_rows(len(wrong), 'row has')} a value in column {field!r} that is no number "
            f"between 0 and 1 ({source.places(wrong)}); the first target is {column[int(wrong[0])].as_py()} "
            f"({source.counting})"
        )
    return csr_array(values.reshape(-1, labels).astype(np.float32))


def _zero_to_one(
    column: pa.Array,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Values, which cells are null or empty, and which are something else (both of these have the value 0).

    Text is parsed once a distinct value: a 0/1 column has two.
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
        column = parsed.take(encoded.indices)
        blank = pc.fill_null(pc.equal(distinct, "").take(encoded.indices), True)
    elif _is_number(column.type):
        column = column.cast(pa.float64())
        blank = pc.is_null(column)
    else:
        return np.zeros(len(column)), np.zeros(len(column), bool), np.ones(len(column), bool)
    values = np.asarray(pc.fill_null(column, np.nan))
    nulls = np.asarray(blank)
    bad = ~((values >= 0) & (values <= 1)) & ~nulls
    return np.where(nulls | bad, 0.0, values), nulls, bad


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
        found = pc.index_in(values.cast(pa.large_string()), pa.array(names, pa.large_string()))
        index = np.asarray(pc.fill_null(found, -1)).astype(np.int64)
    unknown = index < 0
    if unknown.any():
        _report_unknown(
            target_format, source, field, rows[unknown], values.filter(pa.array(unknown)), unknown_labels
        )
        rows, index = rows[~unknown], index[~unknown]
    shape = (source.table.num_rows, len(names))
    targets = coo_array((np.ones(len(rows), np.float32), (rows, index)), shape=shape).tocsr()
    targets.data[:] = 1  # a name that a row repeats was added up
    return targets


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
    if unknown_labels == "ignore":
        warnings.warn(
            f"{found}; left out of these rows, as unknown_labels='ignore' asks ({source.counting})",
            UserWarning,
            stacklevel=7,
        )
        return
    hint = ""
    if target_format.kind in ("single", "delimited") and is_text(values.type):
        others = [other for other in (",", ";", "|") if other != target_format.delimiter]
        held = [other for other in others if pc.any(pc.match_substring(values, other)).as_py()]
        joins = joins_known_names(values, labels.names) or (held[0] if held else None)
        hint = f", pass label_delimiter={joins!r} if it separates labels" if joins else ""
    raise DataError(
        f"{found}; add them to labels=[...]{hint}, or pass unknown_labels='ignore' to leave them out "
        f"({source.counting})"
    )
