"""Infer the `TargetFormat` of target columns from their structure; `encoding` follows it.

The format is inferred once, from train (without train: from val, then test), and the other splits follow it.
The *structure* and the arguments decide before values do, so that the format does not change because each row of a
file happens to have exactly one label. The first line that fits applies:

| target_fields and column                      | format      | meaning of a row                             |
|-----------------------------------------------|-------------|----------------------------------------------|
| several columns, or a list of one with        | `columns`   | multi-label; 0/1, 0.0/1.0, true/false, or a  |
| `multi_label=True`                            |             | soft value in [0, 1]; columns name the labels|
| one column of 0/1, true/false or fractions    | `columns`   | the same: the column names the only label    |
| with `multi_label=True`, unless `labels=` or  |             |                                              |
| `num_classes=` name others                    |             |                                              |
| lists of fractions or of true/false; lists of | `vectors`   | multi-label; one value in [0, 1] per label in|
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

Before that, `cells.read_cells` converts other forms to these:

| cells                                         | are read as                                                |
|-----------------------------------------------|------------------------------------------------------------|
| yes/no, y/n, t/f, on/off in 0/1 columns       | 1 and 0, in any case                                       |
| a mark, such as `x`, and blanks in 0/1        | 1 and 0 with `unknown_targets="negative"`, else refused    |
| columns                                       |                                                            |
| names in several numbered columns, such as    | one column of lists of names; without numbers refused      |
| `label1`, `label2`                            |                                                            |
| `['a', 'b']`, `["a", "b"]`, `['a' 'b']`,      | lists of text                                              |
| `{'a'}`, `('a',)`, `array(['a'])`,            |                                                            |
| `{"choices": ["a"]}`, `<a><b>`                |                                                            |
| `[a, b]`, `{a,b}` with `label_delimiter=`     | lists of text, cut at the delimiter                        |
| `[0, 2]`, `[0. 1. 0.]`, `[True, False]`,      | lists of numbers or of true/false                          |
| `0 1 0`                                       |                                                            |

Lists of objects or of lists, cells of several of these forms in one column, and 0/1 vectors without separators, such
as `011`, are errors.

Lists that could be vectors or indices (two labels and every list `[0, 1]` or `[1, 0]`; one label and every list
`[0]`) are an error that says how to resolve it. `multi_label=False` makes any format single-label, and each row must
then have exactly one label. Whole numbers, also in text, are positions in `labels=` unless a label is itself a whole
number; without `labels=` they are names. Empty pieces between delimiters are ignored. Lists of 0 and 1 whose width
is not the number of labels, and text that another delimiter than the comma seems to separate, are errors too: read
as indices or as one long name, they would be silently wrong.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError, unknown_name
from flash.text.classification.reading.mistakes import count_rows, short_type, some_of
from flash.text.classification.reading.source import Source, plain_column
from flash.text.classification.targets.delimiters import (
    refuse_joined_names,
    refuse_other_delimiter,
    unescaped,
)
from flash.text.classification.targets.labels import (
    Kind,
    LabelSet,
    is_list,
    is_text,
    natural_key,
    no_nulls,
    pieces_of,
)
from flash.text.classification.targets.odd_names import refuse_texts, warn_of_odd_names
from flash.text.classification.targets.unknown import NOT_ALLOWED, UnknownTargets

Fields: TypeAlias = str | Sequence[str]

WHOLE_NUMBER = r"^[+-]?[0-9]+$"
DIGITS = r"^(?:[01]{2,})?$"
YES_OR_NO = ("0", "1", "0.0", "1.0", "false", "true")


@dataclass(frozen=True)
class TargetFormat:
    """How the target columns of every split are read.

    Attributes:
        kind: one of the formats in the table above.
        label_set: the labels in order.
        delimiter: separator of the names in a `delimited` cell.
        by_position: whether values are positions in the label set instead of names.
        of_model: whether the labels are those of a trained model, so that none can be added.
    """

    kind: Kind
    label_set: LabelSet
    delimiter: str | None = None
    by_position: bool = False
    of_model: bool = False


def infer_format(
    source: Source,
    target_fields: Fields,
    *,
    multi_label: bool | None = None,
    label_delimiter: str | None = None,
    labels: Sequence[str] | None = None,
    num_classes: int | None = None,
    unknown: UnknownTargets = NOT_ALLOWED,
) -> TargetFormat:
    """Infer the format by the table above, and the labels: `labels`, or those of `source` in natural order.

    Args:
        source: the table that decides, normally train.
        target_fields: a column, or a list of columns.
        multi_label: None to let the structure decide.
        label_delimiter: separator of the names in a cell of text.
        labels: the label names in order; None to take them from `source`.
        num_classes: number of labels, if they have no names.
        unknown: which values mean "not known"; they are not labels and do not influence the format.

    Raises:
        DataError: arguments that contradict each other or the column, an ambiguous column, no label at all.
    """
    fields = [target_fields] if isinstance(target_fields, str) else list(target_fields)
    given = _given_labels(source, fields, labels, num_classes)
    _check_delimiter(label_delimiter, len(fields), multi_label)
    field = fields[0]
    column = plain_column(source, field)
    label_delimiter = unescaped(label_delimiter, column) if is_text(column.type) else label_delimiter
    one_of_many = not isinstance(target_fields, str) and multi_label and label_delimiter is None
    if len(fields) > 1 or (one_of_many and not is_list(column.type)):
        return TargetFormat("columns", LabelSet(_column_labels(fields, given), multi_label is not False))
    own_name = given in (None, (field,)) or (labels is None and num_classes == 1)
    if multi_label and label_delimiter is None and own_name and _says_whether(column, unknown):
        return TargetFormat("columns", LabelSet((field,), True))
    source = unknown.without_unknown_rows(source, field)
    column = plain_column(source, field)
    no_nulls(source, field, column)
    blanks = _blank_rows(column) if is_text(column.type) and unknown.action != "mask" else np.empty(0)
    kind = _kind_of(
        source, field, column, multi_label, label_delimiter, len(given) if given else None, len(blanks) > 0
    )
    if is_text(column.type) and multi_label is not False and label_delimiter is None:
        _refuse_digits(source, field, column, given or ())
    multi = kind != "single" if multi_label is None else multi_label
    if kind == "vectors":
        length = len(given) if given else _usual_length(column)
        return TargetFormat(kind, LabelSet(given or tuple(map(str, range(length))), multi))
    delimiter = (label_delimiter or ",") if kind == "delimited" else None
    if is_text(column.type) and labels is None:
        refuse_texts(source, field, column, delimiter)
    rows, values = pieces_of(source, field, column, kind, delimiter)
    integers = pa.types.is_integer(values.type)
    whole = integers or (len(values) > 0 and _all_match(values, WHOLE_NUMBER))
    if given and (labels is not None or field in source.class_names):
        # a ClassLabel's integers are positions; a user's label names may themselves be whole numbers
        by_position = field in source.class_names or not any(re.match(WHOLE_NUMBER, name) for name in given)
        return TargetFormat(kind, LabelSet(given, multi), delimiter, by_position=whole and by_position)
    if kind == "lists" and integers and not given:
        raise DataError(
            f"{source.name}: column {field!r} holds lists of class indices, and how many classes there are "
            "is not known; pass labels=[...] or num_classes="
        )
    if is_text(column.type) and multi_label is not False:
        refuse_other_delimiter(source, field, column, kind, label_delimiter)
    if kind == "lists" and is_text(values.type) and multi_label is not False:
        refuse_joined_names(source, field, rows, values)
    names = given if given and integers else _found_labels(source, field, values, given)
    warn_of_odd_names(source, field, names, stacklevel=4)
    commas = is_text(column.type) and pc.any(pc.match_substring(column, ",")).as_py()
    if multi_label is None and label_delimiter is None and len(blanks) and not commas:
        _say_that_blanks_decided(source, field, blanks)
    return TargetFormat(kind, LabelSet(names, multi), delimiter)


# ------------------------------------------------------------------------------------ the structure


def _says_whether(column: pa.Array, unknown: UnknownTargets) -> bool:
    """Whether a column contains only 0/1, true/false or fractions, and so is the target of a single label.

    Values that mean "not known", such as -1 and NA, are allowed too.
    """
    if is_text(column.type):
        cells = pc.unique(pc.ascii_lower(pc.utf8_trim_whitespace(column)))
        said = set(cells.filter(pa.array(~unknown.cells(cells))).to_pylist())
        return said & set(YES_OR_NO) != set() and said <= {*YES_OR_NO, "", None}
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return bool(pa.types.is_boolean(column.type))
    ends = pc.min_max(column).as_py()
    if ends["min"] is not None and ends["min"] < 0:
        ends = pc.min_max(column.filter(pa.array(~unknown.cells(column)))).as_py()
    return ends["min"] is not None and ends["min"] >= 0 and ends["max"] <= 1


def _kind_of(
    source: Source,
    field: str,
    column: pa.Array,
    multi_label: bool | None,
    delimiter: str | None,
    known: int | None,
    blanks: bool,
) -> Kind:
    """Return the kind of a column; `blanks` says whether some cells of text are empty."""
    if is_list(column.type):
        if delimiter is not None:
            raise DataError(
                f"{source.name}: column {field!r} holds lists; leave label_delimiter={delimiter!r} out"
            )
        return _kind_of_lists(source, field, column, known)
    if is_text(column.type):
        if delimiter is not None or multi_label:
            return "delimited"
        several = multi_label is None and (blanks or pc.any(pc.match_substring(column, ",")).as_py())
        return "delimited" if several else "single"
    if delimiter is not None:
        raise DataError(
            f"{source.name}: column {field!r} holds {short_type(column.type)}, which label_delimiter={delimiter!r} "
            "cannot split; leave it out"
        )
    return "single"


def _blank_rows(column: pa.Array) -> np.ndarray:
    return np.flatnonzero(pc.equal(pc.utf8_trim_whitespace(column), ""))


def _say_that_blanks_decided(source: Source, field: str, blanks: np.ndarray) -> None:
    """Warn that only the empty cells made a column multi-label, as no cell has several names."""
    warnings.warn(
        f"{source.name}: {count_rows(len(blanks), 'row has')} no label in column {field!r} ({source.places(blanks)}), and "
        "no row has several; read as multi-label, where a text may have no label; pass multi_label=False and "
        f"unknown_targets='mask' if each text has exactly one, to leave these rows out ({source.counting})",
        UserWarning,
        stacklevel=4,
    )


def _kind_of_lists(source: Source, field: str, column: pa.Array, known: int | None) -> Kind:
    inner = column.type.value_type
    if is_text(inner) or pa.types.is_null(inner):
        return "lists"
    if pa.types.is_boolean(inner) or pa.types.is_floating(inner) or pa.types.is_decimal(inner):
        return "vectors"
    if not pa.types.is_integer(inner):
        raise DataError(
            f"{source.name}: column {field!r} holds {short_type(column.type)}; expected lists of names or of numbers"
        )
    if pa.types.is_fixed_size_list(column.type):
        return "vectors"
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    flat = pc.min_max(pc.list_flatten(column)).as_py()
    length = known or lengths[0]
    if flat["min"] == -1 and flat["max"] <= 1 and lengths == [length]:
        return "vectors"  # -1 is not a class index; the encoding decides what it means
    if flat["min"] is None or flat["min"] < 0 or flat["max"] > 1:
        return "lists"
    if lengths != [length]:
        _no_misfit_vectors(source, field, column, lengths, known)
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
            f"indices, or vectors as fractions such as [0.0, 1.0] ({source.counting})"
        )
    return "vectors"


def _no_misfit_vectors(
    source: Source, field: str, column: pa.Array, lengths: list[int], known: int | None
) -> None:
    """Raise DataError for lists of 0 and 1 that look like vectors of a wrong width, instead of reading them as indices."""
    values, parents = pc.list_flatten(column), pc.list_parent_indices(column)
    if values.null_count:
        return  # reading them as indices raises an error that names the rows
    cells, counts = np.unique(
        np.asarray(parents).astype(np.int64) * 2 + np.asarray(values), return_counts=True
    )
    repeats = cells[counts > 1] // 2
    if len(lengths) == 1 and lengths[0] > 1:
        row, shape = 0, f"each target in column {field!r} is a list of {lengths[0]} numbers 0 or 1"
    elif len(repeats):
        row, shape = int(repeats[0]), f"column {field!r} holds lists of 0 and 1 of several lengths"
    else:
        return
    labels, width = "", "as many values in each row"
    if known:
        labels = f", but there are {known:,} labels" if known > 1 else ", but there is 1 label"
        width = f"{known:,} value{'s' * (known > 1)} per row"
    raise DataError(
        f"{source.name}: {shape}{labels} ({source.where(row)}: {column[row].as_py()}); write {width}, one per "
        f"label, or, if these are class indices, names instead of them ({source.counting})"
    )


def _refuse_digits(source: Source, field: str, column: pa.Array, given: Sequence[str]) -> None:
    """Raise DataError for cells such as `011`, all of one width: either 0/1 vectors without separators, or names."""
    cells = pc.unique(pc.utf8_trim_whitespace(column))
    found = [cell for cell in cells.to_pylist() if cell] if _all_match(cells, DIGITS) else []
    if len({*map(len, found)}) != 1 or not any(cell[0] == "0" for cell in found) or set(found) <= set(given):
        return
    row = pc.index(pc.not_equal(pc.utf8_trim_whitespace(column), ""), True).as_py()
    raise DataError(
        f"{source.name}: column {field!r} holds nothing but digits 0 and 1 with nothing between them "
        f"({source.where(row)}: {column[row].as_py()!r}); if each is the target of one label, put spaces between them, in "
        f"pandas: frame[{field!r}] = frame[{field!r}].map(' '.join), or pass multi_label=False if these are names "
        f"({source.counting})"
    )


def _usual_length(column: pa.Array) -> int:
    lengths = pc.mode(pc.list_value_length(column))
    return int(lengths[0]["mode"].as_py())


# --------------------------------------------------------------------------------------- the labels


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
            f"{source.name}: column {fields[0]!r} has the classes {some_of(list(classes))}, and labels= are "
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
    """Return the names in the column; with num_classes=, the `numbered` names if they include all of these."""
    names = pc.unique(values.cast(pa.large_string())).to_pylist()
    if not names:
        raise DataError(
            f"{source.name}: no row has a label in column {field!r}; pass labels=[...] or another column"
        )
    if numbered and set(names) <= set(numbered):
        return numbered  # includes classes that occur in no row
    if numbered and len(names) != len(numbered):
        raise DataError(
            f"{source.name}: column {field!r} has {len(names):,} labels, but num_classes={len(numbered)}"
        )
    return tuple(sorted(names, key=natural_key))


def _all_match(values: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())
