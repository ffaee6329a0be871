"""Texts in several columns: join their fields to one string per row, and match a file's columns to a model's fields.

A text with several fields, such as a title and a body, is one string with `SEPARATOR` (U+001F, the unit separator)
between the fields. The linear backbone reads the separator as white space; for an encoder it is replaced by the
tokenizer's separator token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError, listed
from flash.text.classification.reading import arrow_values
from flash.text.classification.reading.mistakes import count_rows
from flash.text.classification.reading.source import Source, plain_column, text_array, text_column

SEPARATOR = "\x1f"
InputField: TypeAlias = str | list[str]


def field_names(input_field: str | Sequence[str]) -> list[str]:
    """Return the text columns as a list.

    >>> field_names("text"), field_names(["title", "body"])
    (['text'], ['title', 'body'])

    Raises:
        DataError: the list is empty, or contains something other than a string, or a name twice.
    """
    names = [input_field] if isinstance(input_field, str) else list(input_field)
    strangers = [name for name in names if not isinstance(name, str)]
    if not names or strangers:
        found = repr(strangers[0]) if strangers else "an empty list"
        raise DataError(
            f"input_field= holds {found}; name a column of texts such as 'text', or several: ['title', 'body']"
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(
            f"input_field= names {', '.join(map(repr, twice))} more than once; name each column once"
        )
    return names


def named(fields: Sequence[str]) -> str:
    """Format column names for a message.

    >>> named(["title", "body"])
    "'title', 'body'"
    """
    return ", ".join(map(repr, fields))


def joined_texts(source: Source, fields: Sequence[str]) -> pa.LargeStringArray:
    """Return the N texts of a source; several columns are joined by `SEPARATOR`.

    With several columns, a null is an empty field, unless all fields of the row are null; a separator inside a cell
    becomes a space.

    Raises:
        DataError: a column contains something other than text, or a row has no text.
    """
    if len(fields) == 1:
        return text_column(source, fields[0])
    columns = [plain_column(source, name) for name in fields]
    if all(column.null_count for column in columns):
        _check_some_text(source, fields, columns)
    texts = []
    for name, column in zip(fields, columns, strict=True):
        if pa.types.is_null(column.type):
            column = column.cast(pa.large_string())
        if column.null_count and pa.types.is_large_string(column.type):
            column = pc.fill_null(column, arrow_values.text(""))
        text = text_column(replace(source, table=pa.table({name: column})), name)
        texts.append(pc.replace_substring(text, SEPARATOR, " "))
    joined: pa.LargeStringArray = pc.binary_join_element_wise(
        *texts, arrow_values.text(SEPARATOR).cast(pa.large_string())
    )
    return joined


def _check_some_text(source: Source, fields: Sequence[str], columns: Sequence[pa.Array]) -> None:
    bare = np.flatnonzero(reduce(pc.and_, map(pc.is_null, columns)))
    if len(bare):
        raise DataError(
            f"{source.name}: {count_rows(len(bare), 'row has')} no text in any of the columns {named(fields)} "
            f"({source.places(bare)}); fill one of these cells or remove these rows ({source.counting})"
        )


def given_texts(texts: Any, name: str, fields: Sequence[str] | None) -> pa.LargeStringArray:
    """Convert N texts from a caller (N may be 0) to one array, for a model that reads `fields`.

    Args:
        texts: a list of strings or an Arrow array. An entry may also be a dict with the fields (other keys are
            ignored, None is an empty text); with several fields also a list of their texts in order, or a string of
            fields joined by `SEPARATOR`.
        name: name of the texts in messages.
        fields: the fields that the model reads; None if the model has stored none.

    Raises:
        DataError: not a list of texts, a plain string although the model reads several fields, or a missing field.
    """
    if fields is None:
        return text_array(texts, name)
    several = len(fields) > 1
    if isinstance(texts, list | tuple) and texts and (several or isinstance(texts[0], Mapping)):
        return text_array(
            [joined_text(text, f"{name}[{row}]", fields) for row, text in enumerate(texts)], name
        )
    array = text_array(texts, name)
    if several and len(array):
        counts = pc.count_substring(array, SEPARATOR)  # read its buffer, because to_numpy imports pandas
        wrong = np.flatnonzero(np.frombuffer(counts.buffers()[1], np.int64)[: len(array)] != len(fields) - 1)
        if len(wrong):
            raise DataError(_plain_text(f"{name}[{wrong[0]}]", fields))
    return array


def joined_text(text: Any, place: str, fields: Sequence[str]) -> Any:
    """Return one text as a string; it may be a dict with `fields`, a list of their values, or already joined.

    Raises:
        DataError: a field is missing or is not a text, or a plain string although there are several fields.
    """
    if isinstance(text, str) or not isinstance(text, Mapping | list | tuple):
        if isinstance(text, str) and text.count(SEPARATOR) != len(fields) - 1 > 0:
            raise DataError(_plain_text(place, fields))
        return text  # the caller refuses anything that is not a text
    if isinstance(text, Mapping):
        if missing := [field for field in fields if field not in text]:
            raise DataError(
                f"{place} has no field {missing[0]!r} (it has {named(list(map(str, text)))}); this model reads "
                f"{named(fields)}"
            )
        values = [text[field] for field in fields]
    else:
        values = list(text)
        if len(values) != len(fields):
            raise DataError(
                f"{place} is a list of {len(values)}, and this model reads {len(fields)} "
                f"field{'s' * (len(fields) > 1)}: {named(fields)}"
            )
    for field, value in zip(fields, values, strict=True):
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{place}: the field {field!r} is {str(value)[:40]} ({type(value).__name__}), not a text"
            )
    if len(fields) == 1:
        return values[0]
    return SEPARATOR.join((value or "").replace(SEPARATOR, " ") for value in values)


def _plain_text(place: str, fields: Sequence[str]) -> str:
    example = ", ".join(f'"{field}": "..."' for field in fields)
    return (
        f"{place} is one plain text, and this model reads {len(fields)} fields: {named(fields)}; give an object such as "
        f"{{{example}}}, or a list of the {len(fields)} texts in this order"
    )


def match_fields(asked: Sequence[str], remembered: Sequence[str] | None, place: str) -> list[str]:
    """Return the columns that the user named, in the order of the model's fields.

    Columns with the same names as in training may be in any order. Columns with other names must be in the order of
    the model's fields, one per field.

    Raises:
        DataError: more or fewer columns than the model has fields, or one of its fields in the place of another.
    """
    names = field_names(list(asked))
    wanted = list(remembered or ["text"])
    if set(names) == set(wanted):
        return wanted
    order = f"input_field={wanted if len(wanted) > 1 else wanted[0]!r}"
    if len(names) != len(wanted):
        were = (
            f"{len(wanted)} columns of texts, {named(wanted)}" if len(wanted) > 1 else "one column of texts"
        )
        raise DataError(
            f"{place}: the model was trained on {were}, and {len(names)} {'are' if len(names) > 1 else 'is'} named "
            f"({named(names)}); name as many"
            + (f", in this order, or pass {order}" if len(wanted) > 1 else "")
        )
    if swapped := [
        name for name, field in zip(names, wanted, strict=True) if name in wanted and name != field
    ]:
        raise DataError(
            f"{place}: the columns {named(names)} stand in another order than in training ({named(wanted)}): "
            f"{swapped[0]!r} is the model's field number {wanted.index(swapped[0]) + 1}; pass {order}"
        )
    return names


def missing_fields(
    place: str, columns: Sequence[str], remembered: Sequence[str], hint: str = ""
) -> DataError:
    """The error for a file that lacks some of the model's fields, when the user named no columns.

    Args:
        place: the file.
        columns: the file's columns.
        remembered: the model's fields, some of which are missing.
        hint: end of the message.
    """
    missing = [name for name in remembered if name not in columns]
    return DataError(
        f"{place} has no column {named(missing)}, and the model was trained on the columns {named(remembered)}; its "
        f"columns are {listed(columns)}; pass input_field=[...] with the {len(remembered)} that stand for these, in this "
        f"order{hint}"
    )
