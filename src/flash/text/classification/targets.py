"""What a target column means: its structure becomes a `TargetFormat`, its cells an `(N, L)` sparse matrix.

The format is decided once, from train (without train: from val, then test), and the other splits follow it.
The *structure* and the arguments decide, before values do, so nothing flips because each row of a file
happens to carry exactly one label. The first line that fits holds:

| target_fields and column                      | format      | meaning of a row                             |
|-----------------------------------------------|-------------|----------------------------------------------|
| several columns, or a list of one with        | `columns`   | multi-label; 0/1, 0.0/1.0, true/false, or a  |
| `multi_label=True`                            |             | soft value in [0, 1]; columns name the labels|
| lists of fractions or of true/false; lists of | `vectors`   | multi-label; one value in [0, 1] a label, in |
| one fixed size (an (N, L) array)              |             | the order of `labels=`, else named 0 ... L-1 |
| lists of whole numbers that all have one      | `vectors`   | the same (as indices, each row of three or   |
| length (L, where known), only 0 and 1         |             | more would repeat one)                       |
| lists of whole numbers                        | `lists`     | multi-label; class indices, which need       |
|                                               |             | `labels=` or `num_classes=`                  |
| lists of text                                 | `lists`     | multi-label; label names                     |
| text with `label_delimiter=`, or with         | `delimited` | multi-label; names between delimiters, a     |
| `multi_label=True`, or any value has a comma  |             | comma unless given; `"a, b",c` are two names |
| text, whole numbers, true/false               | `single`    | one name or class index; with                |
|                                               |             | `multi_label=True` a label set of one        |

Lists that could be either vectors or indices (two labels and every list `[0, 1]` or `[1, 0]`; one label and
every list `[0]`) are an error that says how to tell. `multi_label=False` makes any format single-label, and
each row must then have exactly one label. Whole numbers, also in text, are positions in `labels=` unless a
label is itself a whole number; without `labels=` they are names. Empty pieces between delimiters are no
labels.

Imports nothing of the project but errors, readers and the wording of mistakes; neither torch nor lightning.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array, csr_array

from flash.core.errors import DataError, unknown_name
from flash.text.classification.mistakes import SHOWN, count_rows, first_of
from flash.text.classification.readers import Source, is_list, is_text, plain_column

Kind: TypeAlias = Literal["columns", "vectors", "lists", "delimited", "single"]
Fields: TypeAlias = str | Sequence[str]
Rows: TypeAlias = npt.NDArray[np.int64]

WHOLE_NUMBER = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
SHAPES: dict[Kind, str] = {
    "columns": "numbers",
    "vectors": "lists of numbers",
    "lists": "lists",
    "delimited": "text",
    "single": "single values",
}


@dataclass(frozen=True)
class LabelSet:
    """Ordered label names; column j of every `(N, L)` array means `names[j]`.

    Raises:
        DataError: no name, an empty name, a name that is not text, or one that is there twice.
    """

    names: tuple[str, ...]
    multi_label: bool

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("there are no labels; pass labels=[...] with at least one name")
        wrong = [name for name in self.names if not isinstance(name, str) or not name]
        if wrong:
            raise DataError(
                f"a label name is text and not empty, found {wrong[0]!r}; pass labels=['first', ...]"
            )
        if len(self.index) < len(self.names):
            twice = [name for name in self.index if self.names.count(name) > 1]
            raise DataError(
                f"label names are there more than once: {', '.join(map(repr, twice[:10]))}; keep one of each"
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[str, int]:
        """The column of each name."""
        return {name: column for column, name in enumerate(self.names)}


@dataclass(frozen=True)
class TargetFormat:
    """How the target columns of every split are read.

    Attributes:
        kind: one of the formats in the table above.
        label_set: the labels in order.
        delimiter: what stands between the names of a `delimited` cell.
        by_position: whether values are positions in the label set instead of names.
    """

    kind: Kind
    label_set: LabelSet
    delimiter: str | None = None
    by_position: bool = False


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
        return len(digits), digits  # the longer number is the larger; int() refuses thousands of digits
    return 1 << 62, piece  # text comes after numbers


def infer_format(
    source: Source,
    target_fields: Fields,
    *,
    multi_label: bool | None = None,
    label_delimiter: str | None = None,
    labels: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> TargetFormat:
    """Decide the format by the table above, and the labels: `labels`, or those of `source` in natural order.

    Args:
        source: the table that decides, normally train.
        target_fields: a column, or a list of columns.
        multi_label: None to let the structure decide.
        label_delimiter: separates the names in a cell of text.
        labels: the names in order; None to take them from `source`.
        num_classes: their number, where it is known without names.

    Raises:
        DataError: arguments that contradict each other or the column, an ambiguous column, no label at all.
    """
    fields = [target_fields] if isinstance(target_fields, str) else list(target_fields)
    given = _given_labels(source, fields, labels, num_classes)
    _check_delimiter(label_delimiter, len(fields), multi_label)
    column = plain_column(source, fields[0])
    one_of_many = not isinstance(target_fields, str) and multi_label and label_delimiter is None
    if len(fields) > 1 or (one_of_many and not is_list(column.type)):
        return TargetFormat("columns", LabelSet(_column_labels(fields, given), multi_label is not False))
    field = fields[0]
    _no_nulls(source, field, column)
    kind = _kind_of(source, field, column, multi_label, label_delimiter, len(given) if given else None)
    multi = kind != "single" if multi_label is None else multi_label
    if kind == "vectors":
        length = len(given) if given else _usual_length(column)
        return TargetFormat(kind, LabelSet(given or tuple(map(str, range(length))), multi))
    delimiter = (label_delimiter or ",") if kind == "delimited" else None
    _, values = _pieces(source, field, column, kind, delimiter)
    integers = pa.types.is_integer(values.type)
    whole = integers or (len(values) > 0 and _all_match(values, WHOLE_NUMBER))
    if given and (labels is not None or field in source.class_names):
        # The names of a ClassLabel come with positions; a user's names may be numbers themselves.
        by_position = field in source.class_names or not any(re.match(WHOLE_NUMBER, name) for name in given)
        return TargetFormat(kind, LabelSet(given, multi), delimiter, by_position=whole and by_position)
    if kind == "lists" and integers and not given:
        raise DataError(
            f"{source.name}: column {field!r} holds lists of class indices, and how many classes there are "
            "is not known; pass labels=[...] or num_classes="
        )
    names = given if given and integers else _found_labels(source, field, values, given)
    if multi_label and label_delimiter is None and kind != "lists":
        _not_zero_one(source, field, names)
    return TargetFormat(kind, LabelSet(names, multi), delimiter)


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
        _no_nulls(source, fields[0], column)
        _same_shape(source, fields[0], column, target_format)
        if target_format.kind == "vectors":
            targets = _encode_vectors(source, fields[0], column, len(labels))
        else:
            targets = _encode_names(target_format, source, fields[0], column, unknown_labels)
    if not labels.multi_label:
        _exactly_one(source, fields, targets)
    return targets


# ------------------------------------------------------------------------------------- the structure


def _kind_of(
    source: Source,
    field: str,
    column: pa.Array,
    multi_label: bool | None,
    delimiter: str | None,
    known: int | None,
) -> Kind:
    if is_list(column.type):
        if delimiter is not None:
            raise DataError(
                f"{source.name}: column {field!r} holds lists; leave label_delimiter={delimiter!r} out"
            )
        return _kind_of_lists(source, field, column, known)
    if is_text(column.type):
        if delimiter is not None or multi_label:
            return "delimited"
        commas = multi_label is None and pc.any(pc.match_substring(column, ",")).as_py()
        return "delimited" if commas else "single"
    if delimiter is not None:
        raise DataError(
            f"{source.name}: column {field!r} holds {column.type}, which label_delimiter={delimiter!r} "
            "cannot split; leave it out"
        )
    return "single"


def _kind_of_lists(source: Source, field: str, column: pa.Array, known: int | None) -> Kind:
    inner = column.type.value_type
    if is_text(inner) or pa.types.is_null(inner):
        return "lists"
    if pa.types.is_boolean(inner) or pa.types.is_floating(inner) or pa.types.is_decimal(inner):
        return "vectors"
    if not pa.types.is_integer(inner):
        raise DataError(
            f"{source.name}: column {field!r} holds {column.type}; expected lists of names or of numbers"
        )
    if pa.types.is_fixed_size_list(column.type):
        return "vectors"
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    flat = pc.min_max(pc.list_flatten(column)).as_py()
    length = known or lengths[0]
    if lengths != [length] or length == 0 or flat["min"] < 0 or flat["max"] > 1:
        return "lists"
    rows = np.asarray(pc.list_flatten(column)).reshape(-1, length)
    if length == 1:
        indices_too = known is None or not rows.any()
    else:
        indices_too = length == 2 and bool((rows.sum(axis=1) == 1).all())
    if indices_too:
        raise DataError(
            f"{source.name}: the lists in column {field!r} can be class indices or 0/1 vectors of {length} "
            f"label{'s' * (length > 1)} ({source.where(0)}: {column[0].as_py()}); pass names instead of "
            "indices, or vectors as fractions such as [0.0, 1.0]"
        )
    return "vectors"


def _usual_length(column: pa.Array) -> int:
    lengths = pc.mode(pc.list_value_length(column))
    return int(lengths[0]["mode"].as_py())


def _same_shape(source: Source, field: str, column: pa.Array, target_format: TargetFormat) -> None:
    """Val and test have the structure of train, and their class indices the same names."""
    kind, names = target_format.kind, target_format.label_set.names
    fits = is_list(column.type) if kind in ("vectors", "lists") else is_text(column.type)
    if not (fits or (kind == "single" and not is_list(column.type))):
        found = "text" if is_text(column.type) else column.type
        raise DataError(
            f"{source.name}: column {field!r} holds {found} ({source.where(0)}: {column[0].as_py()!r}), but "
            f"the training rows hold {SHAPES[kind]}; give every split the same structure"
        )
    if source.class_names.get(field, names) != names:
        raise DataError(
            f"{source.name}: the classes of column {field!r} ({_some(list(source.class_names[field]))}) are "
            f"not the labels ({_some(list(names))}) in their order; cast the column to one ClassLabel in "
            "every split"
        )


# ---------------------------------------------------------------------------------------- the labels


def _check_delimiter(delimiter: str | None, fields: int, multi_label: bool | None) -> None:
    reasons = {
        "it is empty": delimiter == "",
        "there are several target columns": fields > 1,
        "multi_label=False": multi_label is False,
    }
    if delimiter is not None and any(reasons.values()):
        reason = next(words for words, holds in reasons.items() if holds)
        raise DataError(f"label_delimiter={delimiter!r} cannot be used: {reason}; leave one of them out")


def _given_labels(
    source: Source, fields: list[str], labels: Sequence[str] | None, num_classes: int | None
) -> tuple[str, ...] | None:
    if isinstance(labels, str):
        raise DataError(f"labels={labels!r} is one text; pass a list of names: labels=[{labels!r}, ...]")
    if num_classes is not None and (isinstance(num_classes, bool) or num_classes < 1):
        raise DataError(
            f"num_classes={num_classes!r} is not a number of labels; pass a whole number of at least 1"
        )
    classes = source.class_names.get(fields[0]) if len(fields) == 1 else None
    names = classes if labels is None else tuple(labels)
    if classes is not None and names != classes:
        raise DataError(
            f"{source.name}: column {fields[0]!r} has the classes {_some(list(classes))}, and labels= are "
            "others or in another order; leave labels= out"
        )
    if names is None:
        return None if num_classes is None or len(fields) > 1 else tuple(map(str, range(num_classes)))
    if num_classes not in (None, len(names)):
        raise DataError(
            f"there are {len(names)} labels, but num_classes={num_classes}; leave num_classes out"
        )
    return LabelSet(names, multi_label=True).names


def _column_labels(fields: list[str], given: tuple[str, ...] | None) -> tuple[str, ...]:
    if given is None or set(given) == set(fields):
        return given or tuple(fields)
    missing = [name for name in fields if name not in given]
    unknown = [name for name in given if name not in fields]
    name = (
        unknown_name("label", unknown[0], fields)
        if unknown
        else (f"labels= lacks the target column {missing[0]!r}")
    )
    raise DataError(f"{name}; with several target columns labels= may only put their names in another order")


def _found_labels(
    source: Source, field: str, values: pa.Array, numbered: tuple[str, ...] | None
) -> tuple[str, ...]:
    """The names in the column; with num_classes=, the `numbered` ones where they cover these."""
    names = pc.unique(values.cast(pa.large_string())).to_pylist()
    if not names:
        raise DataError(
            f"{source.name}: no row has a label in column {field!r}; pass labels=[...] or another column"
        )
    if numbered and set(names) <= set(numbered):
        return numbered  # it counts the classes that no row has, too
    if numbered and len(names) != len(numbered):
        raise DataError(
            f"{source.name}: column {field!r} has {len(names):,} labels, but num_classes={len(numbered)}"
        )
    return tuple(sorted(names, key=natural_key))


def _not_zero_one(source: Source, field: str, names: tuple[str, ...]) -> None:
    """A column of one label's 0 and 1, named as if it held names, would become two labels."""
    if set(names) <= {"0", "1", "false", "true"}:
        raise DataError(
            f"{source.name}: column {field!r} holds nothing but {' and '.join(names)}; pass "
            f"target_fields=[{field!r}] if it says whether one label applies, or labels={list(names)} if "
            "these are names"
        )


# ----------------------------------------------------------------------------------------- the cells


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
        cells = [f"{source.where(row)}, column {name!r}: {value!r}" for row, name, value in wrong.first]
        names = f", or pass target_fields={wrong.first[0][1]!r} if it holds names" if columns == 1 else ""
        sentences.append(
            f"{wrong.targets_are()} not 0, 1, true, false or a number between 0 and 1 "
            f"({first_of(cells, wrong.count)}); write 0 or 1{names}"
        )
    if empty.count:
        cells = [f"{source.where(row)}, column {name!r}" for row, name, _ in empty.first]
        sentences.append(
            f"{empty.targets_are()} null or empty ({first_of(cells, empty.count)}); write 0 where a label "
            "does not apply"
        )
    return f"{source.name}: {'; '.join(sentences)}"


def _some(names: list[str]) -> str:
    return first_of(names[:SHOWN], len(names))


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


def _encode_vectors(source: Source, field: str, column: pa.Array, labels: int) -> csr_array:
    lengths = np.asarray(pc.list_value_length(column))
    wrong = np.flatnonzero(lengths != labels)
    if len(wrong):
        raise DataError(
            f"{source.name}: {_have(len(wrong))} a target in column {field!r} that is not {labels} long, "
            f"one value a label ({source.places(wrong)}); the first is {lengths[wrong[0]]} long"
        )
    values, nulls, bad = _zero_to_one(pc.list_flatten(column))
    wrong = np.flatnonzero((nulls | bad).reshape(-1, labels).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{source.name}: {_have(len(wrong))} a value in column {field!r} that is no number between 0 "
            f"and 1 ({source.places(wrong)}); the first target is {column[int(wrong[0])].as_py()}"
        )
    return csr_array(values.reshape(-1, labels).astype(np.float32))


def _encode_names(
    target_format: TargetFormat, source: Source, field: str, column: pa.Array, unknown_labels: str
) -> csr_array:
    names = target_format.label_set.names
    rows, values = _pieces(source, field, column, target_format.kind, target_format.delimiter)
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


def _pieces(
    source: Source, field: str, column: pa.Array, kind: Kind, delimiter: str | None
) -> tuple[Rows, pa.Array]:
    """(row, value) of every label in the column, as two arrays of one length; values are text or integers."""
    if kind == "lists":
        rows, values = pc.list_parent_indices(column), pc.list_flatten(column)
        wrong = pc.fill_null(pc.equal(values, ""), True) if is_text(values.type) else pc.is_null(values)
        if pc.any(wrong).as_py():
            places = np.unique(rows.filter(wrong))
            raise DataError(
                f"{source.name}: {_have(len(places))} an empty or null name in the list of column {field!r} "
                f"({source.places(places)}); leave it out of the list"
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
            f"{source.name}: column {field!r} holds {column.type} ({source.where(0)}: "
            f"{column[0].as_py()!r}); expected names, class indices, or lists of them"
        )
    filled = np.asarray(pc.fill_null(pc.not_equal(column.cast(pa.large_string()), ""), False))
    return np.flatnonzero(filled), column.filter(pa.array(filled))


def _whole_numbers(source: Source, field: str, column: pa.Array) -> pa.Array:
    """Class indices that a frame keeps as 1.0, 2.0."""
    values = np.asarray(column)
    wrong = np.flatnonzero(values != np.floor(values))
    if len(wrong):
        raise DataError(
            f"{source.name}: {_have(len(wrong))} a fraction in column {field!r} ({source.places(wrong)}: "
            f"{values[wrong[0]]}); for a soft target pass target_fields=[{field!r}] and multi_label=True"
        )
    return column.cast(pa.int64())


def _split(column: pa.Array, delimiter: str) -> tuple[Rows, pa.Array]:
    """Cells cut at the delimiter and trimmed, without empty pieces; only quoted cells meet Python."""
    column = column.cast(pa.large_string())
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
    """The names in one cell; a name in double quotes may hold the delimiter, and a quote written twice.

    >>> split_cell('"a, b",c , "the ""x"" one"', ",")
    ['a, b', 'c', 'the "x" one']
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
        names.append(quoted.replace('""', '"').strip() if quoted is not None else bare.strip())
        position = match.end()
    return names


# -------------------------------------------------------------------------------------- the mistakes


def _no_nulls(source: Source, field: str, column: pa.Array) -> None:
    if column.null_count or pa.types.is_null(column.type):
        nulls = np.flatnonzero(pc.is_null(column))
        raise DataError(
            f"{source.name}: {_have(len(nulls))} a null target in column {field!r} "
            f"({source.places(nulls)}); write an empty list or an empty text for a row without labels, or "
            "remove these rows"
        )


def _exactly_one(source: Source, fields: list[str], targets: csr_array) -> None:
    counts = np.diff(targets.indptr)
    name = repr(fields[0]) if len(fields) == 1 else f"{len(fields)} target columns"
    for wrong, words in (
        (np.flatnonzero(counts == 0), "no label"),
        (np.flatnonzero(counts > 1), "several labels"),
    ):
        if len(wrong):
            raise DataError(
                f"{source.name}: {_have(len(wrong))} {words} in column {name} ({source.places(wrong)}), but "
                "a single-label row has exactly one; pass multi_label=True if rows with none or several "
                "are meant"
            )


def _report_unknown(
    target_format: TargetFormat, source: Source, field: str, rows: Rows, values: pa.Array, unknown_labels: str
) -> None:
    counts = sorted(
        pc.value_counts(values).to_pylist(), key=lambda item: (-item["counts"], str(item["values"]))
    )
    cells = []
    for item in counts[:SHOWN]:
        first = source.where(int(rows[pc.index(values, item["values"]).as_py()]))
        cells.append(f"{item['values']!r} ({count_rows(item['counts'], 'row')}, the first {first})")
    labels = target_format.label_set
    indices = target_format.by_position or labels.names == tuple(map(str, range(len(labels))))
    known = f"no class index from 0 to {len(labels) - 1}" if indices else f"none of the {len(labels)} labels"
    found = (
        f"{source.name}: {len(counts):,} value{'s' * (len(counts) > 1)} in column {field!r} "
        f"{'are' if len(counts) > 1 else 'is'} {known}: {first_of(cells, len(counts))}"
    )
    if unknown_labels == "ignore":
        warnings.warn(
            f"{found}; left out of these rows, as unknown_labels='ignore' asks", UserWarning, stacklevel=7
        )
        return
    hint = ""
    if (
        target_format.kind == "single"
        and is_text(values.type)
        and pc.any(pc.match_substring(values, ",")).as_py()
    ):
        hint = ", pass label_delimiter=',' if commas separate labels"
    raise DataError(
        f"{found}; add them to labels=[...]{hint}, or pass unknown_labels='ignore' to leave them out"
    )


def _have(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _all_match(values: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())
