"""The readers of JSON, Parquet, data frames, Hugging Face data sets and lists."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable
from dataclasses import replace
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet

from flash.core.errors import DataError, unknown_name
from flash.core.extras import require
from flash.text.classification.reading.files import BLOCK, LARGEST_BLOCK, File, Files, read_bytes, read_each
from flash.text.classification.reading.mistakes import (
    MAGIC,
    ROWS,
    SHOWN,
    UTF8_MARK,
    count_rows,
    foreign,
    json_value,
    not_utf8,
    read_json_lines,
    rows_of,
    utf16_without_mark,
)
from flash.text.classification.reading.nested import (
    add_paths,
    first_key,
    is_path,
    refuse_skipped_list,
    value_at,
)
from flash.text.classification.reading.source import Source, check_columns, text_array, to_array

_PANDAS = re.compile(
    rb'\{\s*"[^"]*"\s*:\s*\{\s*"\d+"\s*:'  # {"text": {"0":
    rb'|\{\s*"\d+"\s*:\s*\{'  # {"0": {
    rb'|\{\s*"columns"\s*:\s*\['
)
"""Start of a file that pandas' `to_json` wrote with another orient than "records"."""
_OBJECTS = re.compile(rb'\{\s*"[^"]*"\s*:\s*\{\s*"')  # {"text": {"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
DEEPEST = 2_000
"""Nesting depth that every parser reads; a line with fewer characters cannot be nested deeper."""
_NEXT_OBJECT = re.compile(rb"\}\s*[\r\n]\s*\{")
"""Start of a second object, as in JSON lines."""

# -------------------------------------------------------------------------------------------- files


def read_json(files: Files, *, columns: Iterable[str] | None = None, field: str | None = None) -> Source:
    """Read JSON lines, an array of objects, or the array under the key `field` of an object.

    JSON lines are read by Arrow. An array is read by Python's json, at a third of the speed and with several times the
    memory.

    Args:
        files: as in `read_csv`.
        columns: as in `read_csv`; a missing key is a null.
        field: the key of the array in a file with one object.

    Raises:
        DataError: no such file, column or field, a file that is not JSON, rows that are not objects, or a column of
            mixed types.
    """
    wanted = None if columns is None else list(columns)
    return read_each(files, "json", lambda path: _json_table(path, wanted, field))


def _json_table(path: File, columns: list[str] | None, field: str | None) -> pa.Table:
    buffer = read_bytes(path)
    start = bytes(buffer.slice(0, min(len(buffer), 4096))).removeprefix(UTF8_MARK).lstrip()
    if not start:
        raise DataError(f"{path} is empty; check its path, or put rows into it")
    if start.startswith(tuple(magic for magic, words in MAGIC.items() if "encoding=" not in words)):
        raise DataError(foreign(path, start))
    if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or utf16_without_mark(path, start):
        raise DataError(f"{path} is not UTF-8 but UTF-16; save it as UTF-8: iconv -f utf-16 -t utf-8")
    if start[:1] not in (b"{", b"[") and start[0] < 128:
        first = start.splitlines()[0][:40].decode(errors="replace")
        raise DataError(f"{path} holds no JSON objects, it begins with {first!r}; if it is CSV, use from_csv")
    if field is None and _PANDAS.match(start) and (rows := _pandas_rows(buffer)) is not None:
        return _objects_table(path, rows, columns)
    if field is None and (rows := _rows_by_name(buffer, start, columns)) is not None:
        return _objects_table(path, rows, columns)
    if field is not None or start.startswith(b"["):
        return _objects_table(path, read_json_array(path, buffer, field), columns)
    if _may_be_deep(buffer):  # Arrow's parser would crash the process
        return _objects_table(path, read_json_lines(path, buffer), columns)
    try:
        table = _parse_json(path, buffer, None)
        dates = [column for column in table.schema if pa.types.is_temporal(_value_type(column.type))]
        if dates:  # Arrow converts a column of texts to dates if all look like dates
            texts = [pa.field(date.name, _as_text(date.type)) for date in dates]
            table = _parse_json(path, buffer, pa.schema(texts))
        table.validate(full=True)  # Arrow's parser accepts bytes that are not UTF-8
    except (pa.ArrowInvalid, UnicodeDecodeError):  # Python's json is slower, but can name the rows
        return _objects_table(path, read_json_lines(path, buffer), columns)
    hint = "; if the rows stand under one of these, pass field=" if table.num_rows == 1 else ""
    table = add_paths(table, columns, str(path))
    return table.select(check_columns(table.column_names, columns, str(path), hint))


def _pandas_rows(buffer: pa.Buffer) -> list[dict[str, Any]] | None:
    """Return the rows of pandas' `to_json` with its default orient, `{"column": {"0": ...}}`, or "split" or "index".

    None if the file has none of these forms.
    """
    try:
        value = json_value(bytes(buffer).removeprefix(UTF8_MARK))
    except (JSONDecodeError, UnicodeDecodeError):
        return None
    if {"columns", "index", "data"} == set(value):
        return [dict(zip(value["columns"], row, strict=True)) for row in value["data"]]
    if not all(isinstance(inner, dict) for inner in value.values()):
        return None
    if all(key.isdigit() for key in value):
        return list(value.values())
    index = dict.fromkeys(key for column in value.values() for key in column)
    return [{name: column.get(key) for name, column in value.items()} for key in index]


def _rows_by_name(buffer: pa.Buffer, start: bytes, columns: list[str] | None) -> list[dict[str, Any]] | None:
    """Return the rows of pandas' `to_json` with a text index: `{"column": {"name": ...}}`, or the other way round.

    None unless the file is one object of objects with the wanted columns.
    """
    if not columns or not _OBJECTS.match(start) or _NEXT_OBJECT.search(buffer):
        return None
    try:
        value = json_value(bytes(buffer).removeprefix(UTF8_MARK))
    except (JSONDecodeError, UnicodeDecodeError):
        return None
    if not all(isinstance(inner, dict) for inner in value.values()):
        return None
    if all(set(columns) <= set(inner) for inner in value.values()):
        return list(value.values())
    index = list(next(iter(value.values())))
    if not set(columns) <= set(value) or any(list(inner) != index for inner in value.values()):
        return None
    return [{name: column[key] for name, column in value.items()} for key in index]


def _parse_json(path: File, buffer: pa.Buffer, schema: pa.Schema | None) -> pa.Table:
    parse = pa.json.ParseOptions(newlines_in_values=True, explicit_schema=schema)
    block = BLOCK
    while True:
        try:
            return pa.json.read_json(pa.BufferReader(buffer), pa.json.ReadOptions(block_size=block), parse)
        except pa.ArrowInvalid as error:
            if "straddl" not in str(error) or block >= min(len(buffer), LARGEST_BLOCK):
                raise
            block = min(block * 16, LARGEST_BLOCK)


def _may_be_deep(buffer: pa.Buffer) -> bool:
    """Whether a value may be nested deeper than `DEEPEST`: a long line, or a value over several lines, has as many brackets.

    Lines shorter than that, as in most files, are skipped quickly.
    """
    start = bytes(buffer.slice(0, min(len(buffer), BLOCK))).removeprefix(UTF8_MARK).lstrip()
    if not start.partition(b"\n")[0].rstrip().endswith(b"}"):
        return len(buffer) > 2 * DEEPEST and _depth(bytes(buffer)) > DEEPEST
    opened = 0
    for place in range(0, len(buffer), BLOCK):
        block = bytes(buffer.slice(place, min(BLOCK, len(buffer) - place)))
        position = 0
        while position < len(block):
            end = block.rfind(b"\n", position, position + DEEPEST)
            if end < 0 or opened:
                end = block.find(b"\n", position)
                stop = len(block) if end < 0 else end
                opened += block.count(b"[", position, stop) + block.count(b"{", position, stop)
                if opened > DEEPEST:
                    return _depth(bytes(buffer)) > DEEPEST
                opened = 0 if end >= 0 else opened
            position = len(block) if end < 0 else end + 1
    return False


def _depth(text: bytes) -> int:
    """Return the nesting depth of a JSON text; an upper bound if the text is not JSON."""
    marks = np.frombuffer(_STRING.sub(b"", text), np.uint8)
    steps = np.isin(marks, np.frombuffer(b"[{", np.uint8)).astype(np.int32)
    steps -= np.isin(marks, np.frombuffer(b"]}", np.uint8))
    return int(np.cumsum(steps).max(initial=0))


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else kind


def _as_text(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.large_string()) if pa.types.is_list(kind) else pa.large_string()


def parse_json(path: File, buffer: pa.Buffer) -> Any:
    """Parse a JSON file."""
    try:
        return json_value(bytes(buffer).removeprefix(UTF8_MARK))
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path, buffer)) from error
    except JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error


def read_json_array(path: File, buffer: pa.Buffer, field: str | None) -> list[Any]:
    """Return the array in a JSON file, or the array under the key `field` of its object."""
    value = parse_json(path, buffer)
    if field is not None:
        if not isinstance(value, dict):
            raise DataError(
                f"{path} is a JSON {type(value).__name__}, not an object; leave field={field!r} out"
            )
        if field not in value:
            raise DataError(f"{path}: {unknown_name('field', field, value)}")
        value = value[field]
    if not isinstance(value, list):
        raise DataError(
            f"{path}: expected an array of objects, found {type(value).__name__}; pass another field="
        )
    return value


def _objects_table(path: File, rows: list[Any], columns: list[str] | None) -> pa.Table:
    wrong = [number for number, row in enumerate(rows, 1) if not isinstance(row, dict)]
    if wrong:
        raise DataError(
            f"{path}: {count_rows(len(wrong))} not an object ({rows_of(wrong[:SHOWN], len(wrong))}); write "
            f"{{...}} ({ROWS})"
        )
    keys = dict.fromkeys(key for row in rows for key in row)
    paths = [path for path in columns or () if is_path(path, keys)]
    for way in paths:
        refuse_skipped_list(way, next((row for row in rows if row.get(first_key(way))), {}), str(path))
    wanted = check_columns([*keys, *paths], columns, str(path)) if rows else []
    return pa.table(
        {name: to_array([value_at(row, name) for row in rows], name, str(path)) for name in wanted}
    )


def read_parquet(files: Files, *, columns: Iterable[str] | None = None) -> Source:
    """Parquet files; arguments and errors as in `read_csv`."""
    wanted = None if columns is None else list(columns)
    return read_each(files, "parquet", lambda path: _parquet_table(path, wanted))


def _parquet_table(path: File, columns: list[str] | None) -> pa.Table:
    try:
        source = path if isinstance(path, Path) else pa.BufferReader(read_bytes(path))
        with pa.parquet.ParquetFile(source, memory_map=True) as file:
            names = file.schema_arrow.names
            asked = [name if name in names else first_key(name) for name in columns or names]
            table = file.read(columns=[name for name in dict.fromkeys(asked) if name in names])
            table = add_paths(table, columns, str(path))
            table = table.select(
                check_columns(list(dict.fromkeys([*names, *table.column_names])), columns, str(path))
            )
            table.validate(full=True)  # Parquet does not check that text columns are UTF-8
            return table
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        empty = not len(read_bytes(path))
        reason = "it is empty" if empty else str(error).rstrip(".")
        raise DataError(
            f"{path} cannot be read as Parquet: {reason}; check its path, or save the table again"
        ) from error


# ------------------------------------------------------------------------------------------ objects


def read_data_frame(frame: Any, name: str, *, columns: Iterable[str] | None = None) -> Source:
    """Read a pandas DataFrame; `name` is its name in messages.

    Raises:
        DataError: not a DataFrame, no such column, duplicate columns, no rows, or a column of mixed types.
    """
    if not (hasattr(frame, "columns") and hasattr(frame, "iloc")):
        raise DataError(
            f"{name} is a {type(frame).__name__}, not a pandas DataFrame; pass one, or use from_lists"
        )
    known = [str(column) for column in frame.columns]
    wanted = check_columns(known, columns, name)
    table = {column: to_array(frame.iloc[:, known.index(column)], column, name) for column in wanted}
    return replace(_whole(pa.table(table), name), kind="frame")


def read_hf_dataset(
    dataset: Any, name: str, *, columns: Iterable[str] | None = None, split: str = "train"
) -> Source:
    """Read a Hugging Face `datasets.Dataset`, with the names of a `ClassLabel`.

    Args:
        dataset: a Dataset, or a string: the folder of one saved with `save_to_disk`, or its name on the hub.
        name: its name in messages.
        columns: the columns to read; None for all.
        split: the split to load if `dataset` is a string.

    Raises:
        DataError: not one Dataset (a DatasetDict, a stream), no such column, no rows.
        MissingExtraError: the package `datasets` is not installed.
    """
    datasets = require("datasets", "datasets")
    if isinstance(dataset, str):
        dataset = _load_hf_dataset(datasets, dataset, split)
    if isinstance(dataset, datasets.DatasetDict):
        raise DataError(
            f"{name} holds several splits; pass one of them: dataset[{next(iter(dataset), 'train')!r}]"
        )
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(
            f"{name} is a {type(dataset).__name__}, not a datasets.Dataset; load it without streaming"
        )
    wanted = check_columns(dataset.column_names, columns, name)
    dataset = dataset.select_columns(wanted)
    features = {key: getattr(feature, "feature", feature) for key, feature in dataset.features.items()}
    class_names = {key: tuple(value.names) for key, value in features.items() if hasattr(value, "names")}
    return replace(_whole(dataset.with_format("arrow")[:], name), class_names=class_names)


def _load_hf_dataset(datasets: Any, name: str, split: str) -> Any:
    try:
        if not Path(name).is_dir():
            return datasets.load_dataset(name, split=split)
        loaded = datasets.load_from_disk(name)
        return loaded[split] if isinstance(loaded, datasets.DatasetDict) and split in loaded else loaded
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"the data set {name!r}, split {split!r}, cannot be loaded: {reason}") from error


def read_lists(texts: Any, targets: Any | None, name: str) -> Source:
    """Read texts and, optionally, targets of the same length into the columns `text` and `targets`.

    Args:
        texts: a sequence of N texts: list, tuple, numpy or Arrow array, pandas Series.
        targets: a sequence of N targets or an (N, L) array; None for texts alone.
        name: name of the texts in messages, such as `train_data`.

    Raises:
        DataError: one text instead of a list, lengths that differ, no texts, mixed types, or half a surrogate pair.
    """
    table = {"text": text_array(texts, name)}
    if targets is not None:
        if isinstance(targets, str) or not hasattr(targets, "__len__"):
            raise DataError(
                f"the targets of {name} are a {type(targets).__name__}; pass a list with one target per text"
            )
        count = targets.shape[0] if hasattr(targets, "shape") else len(targets)
        if count != len(texts):
            raise DataError(
                f"{name} holds {len(texts):,} texts, and there are {count:,} targets; pass one per text"
            )
        table["targets"] = to_array(targets, "targets", name)
    return _whole(pa.table(table), name)


def _whole(table: pa.Table, name: str) -> Source:
    if not table.num_rows:
        raise DataError(f"{name} has no rows; pass at least one")
    return Source(table, ((name, table.num_rows),))
