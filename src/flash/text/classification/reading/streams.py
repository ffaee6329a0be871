"""The texts of files of any size, predicted in constant memory: the same rows out, with labels and probabilities.

CSV, TSV, JSON lines and Parquet, in files, pipes, standard input and output. The input's columns pass through
in order. Imports neither torch nor lightning.
"""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flash.core.errors import DataError, FlashError, unknown_name
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading import arrow_values
from flash.text.classification.reading.blocks import READERS, ROWS, Dialect, read_blocks
from flash.text.classification.reading.fields import (
    field_names,
    joined_text,
    joined_texts,
    match_fields,
    missing_fields,
)
from flash.text.classification.reading.files import PACKED, ending, find_files
from flash.text.classification.reading.source import Source, check_columns
from flash.text.classification.reading.writers import WRITERS, Block, open_output
from flash.text.classification.scores.outputs import applies
from flash.text.classification.scores.thresholds import Thresholds, resolve_thresholds

ENDINGS = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
"""File ending to format; `.txt` is tab-separated where its header holds a tab."""

TEXT_FIELDS = ("text", "comment_text")
TARGET_FIELDS = ("labels", "label")
"""Columns that are texts, or targets, by their names."""

CELLS = 2**21  # a block's largest number of probabilities: 8 MiB of float32 however many labels there are


def predict_file(
    predictor: Predictor,
    source: str | Path,
    target: str | Path = "-",
    *,
    input_field: str | Sequence[str] | None = None,
    thresholds: Thresholds = None,
    input_format: str | None = None,
    output_format: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoting: bool = True,
    rows: int = ROWS,
    prefix: str = "",
    progress: Callable[[int], object] = lambda rows: None,
) -> int:
    """Predict every text of a file of any size.

    The output has the input's columns, then `labels`, then a column `<label>_probability` for each (float32).
    In CSV and TSV `labels` joins the names by commas, a name that holds a comma or a quote in double quotes;
    JSON lines and Parquet have a list of names. A single-label model's `labels` is the one name. Numbers are
    printed with the fewest digits that give the float32 back. A file appears whole or not at all; standard
    output gets each block when it is ready. Text output is UTF-8.

    Args:
        predictor: the model.
        source: a file, or `-` for standard input.
        target: a file, or `-` for standard output.
        input_field: the column of texts, or a list of as many as the model reads; None for what `find_texts` finds
            beside columns named as labels.
        thresholds: as in `Predictor.predict`.
        input_format: `csv`, `tsv`, `jsonl` or `parquet`; None for what the file's ending says, and CSV on
            standard input.
        output_format: likewise; on standard output None is the input's format, or CSV if that is Parquet.
        encoding: of a CSV, TSV or JSON-lines input.
        delimiter: of a CSV or TSV input; None for what its format says.
        quoting: of a CSV or TSV input: whether a cell may stand in double quotes.
        rows: how many rows to work on at a time, at most.
        prefix: what the names of the new columns begin with.
        progress: called with the number of rows of each block that has been written.

    Returns:
        The number of rows.

    Raises:
        DataError: the input cannot be read as asked, a text is missing, or a new column's name is taken.
        FlashError: an unknown format, thresholds that do not fit, or a target that is the source.
    """
    if rows < 1:
        raise FlashError(f"batch_size is {rows}; expected 1 or more")
    name = "standard input" if str(source) == "-" else str(source)
    input_format = find_format(source, input_format, "input_format")
    default = "jsonl" if input_format == "jsonl" else "tsv" if input_format == "tsv" else "csv"
    output_format = find_format(target, output_format, "output_format", default)
    in_force = resolve_thresholds(thresholds, predictor.labels, predictor.thresholds)
    _refuse_overwriting(source, target, input_format)
    dialect = Dialect(encoding, delimiter, quoting)
    blocks = read_blocks(
        source, input_format, dialect, rows=max(1, min(rows, CELLS // len(predictor.labels)))
    )
    first = next(blocks)
    other = other_delimiter(first.names, input_format, delimiter)
    fields = _choose_fields(first.names, input_field, name, other, predictor)
    done = 0
    with open_output(target) as file, closing(WRITERS[output_format](file)) as writer:
        for block in chain([first], blocks):
            added = _predict(predictor, _texts(block, fields, name), in_force, prefix)
            _check_names(block, added.column_names, name)
            writer.write(block, added)
            file.flush()
            done += added.num_rows
            progress(added.num_rows)
    return done


def find_format(path: str | Path, asked: str | None, option: str, default: str = "csv") -> str:
    """The format asked for, or the one that the file's ending stands for; `default` on a standard stream."""
    if asked is not None:
        if asked not in READERS:
            raise FlashError(unknown_name("format", asked, READERS))
        return asked
    if str(path) == "-":
        return default
    packed = Path(path).suffix.lower()
    if packed in PACKED and option == "output_format":
        raise FlashError(
            f"{path}: output is not packed; name a file without {packed!r}, or pipe it: > {path}"
        )
    if ending(path) not in ENDINGS:
        raise FlashError(
            f"{path}: the ending tells no format (known: {', '.join(ENDINGS)}); "
            f"type --{option} csv, tsv, jsonl or parquet"
        )
    return ENDINGS[ending(path)]


def other_delimiter(names: Sequence[str], kind: str, delimiter: str | None = None) -> str | None:
    """The delimiter that a CSV's only column name holds, which is then more likely a whole header."""
    used = delimiter or {"csv": ",", "tsv": "\t"}.get(kind)
    return next(
        (mark for mark in ";\t|," if len(names) == 1 and mark in names[0] and used not in (None, mark)), None
    )


def find_texts(
    columns: Sequence[str], targets: Collection[str], remembered: Sequence[str] | None = None
) -> list[str] | None:
    """The columns of texts where none was named: those that the model remembers, where they are there.

    Without one remembered column it is one of `TEXT_FIELDS`, else the only one that is no target; several remembered
    ones have nothing in their place: None.
    """
    if remembered and all(name in columns for name in remembered):
        return list(remembered)
    if remembered and len(remembered) > 1:
        return None
    others = [name for name in columns if name not in targets]
    found = [name for name in TEXT_FIELDS if name in others] or (others if len(others) == 1 else [])
    return found[:1] or None


def _refuse_overwriting(source: str | Path, target: str | Path, kind: str) -> None:
    """The input is the user's own work; a prediction never takes its place."""
    place = Path(target).expanduser()
    if "-" in (str(source), str(target)) or not place.exists():
        return
    if any(path.exists() and path.samefile(place) for path in find_files(str(source), kind)):
        raise FlashError(
            f"{target} is the input itself, which would be lost; name another file for the output"
        )


def _choose_fields(
    names: list[str], asked: str | Sequence[str] | None, name: str, other: str | None, predictor: Predictor
) -> list[str]:
    remembered = predictor.input_fields
    hint = f"; the header holds {other!r}: pass delimiter={other!r}" if other else ""
    if asked is not None:
        return check_columns(names, match_fields(field_names(asked), remembered, name), name, hint)
    if other is not None and names[0] not in (remembered or ()):
        raise DataError(
            f"{name} has one column, {names[0]!r}: the header holds {other!r}: pass delimiter={other!r}, or "
            "name the column by --input_field if it is the one of texts"
        )
    found = find_texts(names, {*predictor.labels, *TARGET_FIELDS}, remembered)
    if len(remembered or ()) > 1:
        if found is None:
            raise missing_fields(name, names, remembered or (), hint)
        return found
    if found is None and len(names) > 1:
        raise DataError(
            f"{name} has {len(names)} columns ({', '.join(names)}); type --input_field and the one of texts"
        )
    return found or names


def _texts(block: Block, fields: Sequence[str], name: str) -> pa.LargeStringArray:
    """The texts of a block, or a sentence that counts the rows without one."""
    if isinstance(block.rows, pa.Table):
        numbers = np.arange(block.first, block.first + len(block.rows))
        return joined_texts(Source(block.rows, ((name, len(block.rows)),), numbers=numbers), fields)
    columns = [[row.get(field) for row in block.rows] for field in fields]
    for field, column in zip(fields, columns, strict=True):
        absent = [
            len(fields) > 1 and any(other[row] is not None for other in columns) for row in range(len(column))
        ]
        wrong = [
            row
            for row, text in enumerate(column)
            if not (isinstance(text, str) or (text is None and absent[row]))
        ]
        if wrong:
            raise DataError(_no_text(block, field, [column[row] for row in wrong], wrong[0], name))
    texts = columns[0]
    if len(fields) > 1:
        texts = [joined_text(row, name, fields) for row in zip(*columns, strict=True)]
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError as error:
        row = block.first + texts.index(error.object)
        raise DataError(
            f"{name}, row {row}: {' or '.join(map(repr, fields))} holds half of a surrogate pair, which is no text; "
            "repair it"
        ) from error


def _no_text(block: Block, field: str, values: list[Any], first: int, name: str) -> str:
    """What is wrong with rows, the first of which is row `first` (counted from 0) of a block of JSON objects."""
    more = (
        f" ({len(values):,} such rows from there to row {block.first + len(block.rows) - 1:,})"
        if len(values) > 1
        else ""
    )
    return (
        f"{name}, row {block.first + first}: {field!r} is {json.dumps(values[0])[:40]}, not a text{more}; give such a "
        "row a text or remove it"
    )


def _predict(
    predictor: Predictor, texts: pa.LargeStringArray, thresholds: np.ndarray, prefix: str
) -> pa.Table:
    """Names and probabilities as columns."""
    probabilities = predictor.probabilities(texts)
    names = arrow_values.texts(predictor.labels)
    if predictor.multi_label:
        rows, found = np.nonzero(applies(probabilities, thresholds))
        labels = arrow_values.lists(names, rows, found, len(texts))
    else:
        labels = arrow_values.taken(names, probabilities.argmax(axis=1))
    columns = {f"{prefix}labels": labels}
    for index, label in enumerate(predictor.labels):
        columns[f"{prefix}{label}_probability"] = arrow_values.floats(probabilities[:, index])
    return pa.table(columns)


def _check_names(block: Block, added: list[str], name: str) -> None:
    taken = [column for column in added if column in set(block.names)]
    if taken:
        named = f"{'columns' if len(taken) > 1 else 'a column'} named {', '.join(map(repr, taken[:5]))}"
        raise DataError(
            f"{name} has {named} already; type --prefix predicted_ to name the new ones differently"
        )
