"""Predict files of any size in constant memory: the output has the input's rows with labels and probabilities.

Files, pipes, standard input and output; the input's columns are kept in order. Imports neither torch nor lightning.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flash.core.errors import DataError, FlashError, listed
from flash.text.classification.predict_files.blocks import ROWS, Dialect, read_blocks
from flash.text.classification.predict_files.inputs import SHOWN, Input, Output, find_inputs, plan_outputs
from flash.text.classification.predict_files.writers import (
    DELIMITERS,
    Block,
    check_cells,
    make_folder,
    open_output,
    open_writer,
)
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading import arrow_values
from flash.text.classification.reading.fields import (
    field_names,
    joined_text,
    joined_texts,
    match_fields,
    missing_fields,
    named,
)
from flash.text.classification.reading.files import ending
from flash.text.classification.reading.nested import add_paths, is_path, refuse_objects, value_at
from flash.text.classification.reading.source import Source, check_columns
from flash.text.classification.scores.outputs import applies
from flash.text.classification.scores.thresholds import Thresholds, resolve_thresholds

TEXT_FIELDS = ("text", "comment_text")  # column names that mean texts
TARGET_FIELDS = ("labels", "label")  # column names that mean targets

CELLS = 2**21  # maximum number of probabilities per block: 8 MiB of float32, however many labels there are


@dataclass(frozen=True)
class Summary:
    """Counts of a finished prediction.

    Attributes:
        rows: number of rows.
        labelled: number of rows with at least one label.
        counts: (L,) int64, number of rows per label, in the model's order of labels.
        files: number of files that were read.
    """

    rows: int
    labelled: int
    counts: npt.NDArray[np.int64]
    files: int = 1


def predict_file(
    predictor: Predictor,
    source: str | Path | Sequence[str | Path],
    target: str | Path = "-",
    *,
    input_field: str | Sequence[str] | None = None,
    thresholds: Thresholds = None,
    input_format: str | None = None,
    output_format: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoting: bool = True,
    output_delimiter: str | None = None,
    output_encoding: str = "utf-8",
    source_field: str | None = None,
    column_names: Sequence[str] | None = None,
    sheet: str | None = None,
    rows: int = ROWS,
    prefix: str = "",
    progress: Callable[[int], object] = lambda rows: None,
) -> Summary:
    """Predict every text of files of any size.

    The output has the input's columns, then `labels`, then one float32 column `<label>_probability` per label.
    In CSV and TSV, `labels` joins the names by commas, and a name that contains a comma or a quote is in double quotes;
    JSON lines and Parquet have a list of names. For a single-label model, `labels` is the one name. Numbers are
    printed with the fewest digits that identify the float32. A file is written whole or not at all; standard
    output gets each block when it is ready. Several files in one output must have the same columns, in any order.

    Args:
        predictor: the model.
        source: a file, a glob pattern such as `data/*.csv`, a folder, or a list of these; `-` for standard input.
        target: a file, or `-` for standard output; a folder, or a path that ends with `/`, gets one output per file.
        input_field: the text column, or a list of as many columns as the model reads; None for the columns that
            `find_texts` finds.
        thresholds: as in `Predictor.predict`.
        input_format: `csv`, `tsv`, `jsonl`, `parquet`, `excel` or `fasttext`; None for the format of the file's ending,
            and for CSV on standard input.
        output_format: `csv`, `tsv`, `jsonl` or `parquet`; None for the format of the file's ending; on standard output
            None is the input's format, or CSV if the output cannot have that format.
        encoding: encoding of a CSV, TSV or JSON-lines input.
        delimiter: delimiter of a CSV or TSV input; None for the default of its format.
        quoting: for a CSV or TSV input, whether a cell may be in double quotes.
        output_delimiter: delimiter of a CSV or TSV output; None for the input's if both have the same format, else the
            format's default.
        output_encoding: encoding of a CSV or TSV output, such as `utf-8-sig` or `cp1252`.
        source_field: name of a new column with each row's file; None for no such column.
        column_names: names of the columns, in order, of a CSV, TSV or Excel input without a header.
        sheet: sheet of an Excel input; None for the first.
        rows: maximum number of rows per block.
        prefix: prefix of the new columns' names.
        progress: called with the number of rows after each block is written.

    Raises:
        DataError: the input cannot be read as asked, a text is missing, a new column's name is already taken, the
            columns of several files differ, or a character is not in the output's encoding.
        FlashError: an unknown format, thresholds that do not match the labels, or a target that is the source or the
            model.
    """
    if rows < 1:
        raise FlashError(f"batch_size is {rows}; expected 1 or more")
    check_cells(output_delimiter, output_encoding)
    inputs = find_inputs(source, input_format)
    outputs = plan_outputs(inputs, target, output_format, predictor.path)
    asked = (predictor.input_fields or ()) if input_field is None else field_names(input_field)
    known = (*predictor.labels, *asked)
    names = None if column_names is None else tuple(column_names)
    work = _Work(
        predictor,
        resolve_thresholds(thresholds, predictor.labels, predictor.thresholds),
        Dialect(encoding, delimiter, quoting, names, known, sheet),
        input_field=input_field,
        rows=max(1, min(rows, CELLS // len(predictor.labels))),
        prefix=prefix,
        source_field=source_field,
    )
    for output in outputs:
        _check_text_options(output, output_delimiter, output_encoding)
        work.check_columns(output)
    if str(target).endswith("/"):
        make_folder(target)
    for output in outputs:
        _write(work, output, output_delimiter, output_encoding, progress)
    return Summary(work.done, work.labelled, work.counts, len(inputs))


def _write(
    work: "_Work", output: Output, delimiter: str | None, encoding: str, progress: Callable[[int], object]
) -> None:
    parts = work.predicted(output.inputs)
    first = next(parts)  # an unreadable input raises before the output is opened
    with open_output(output.path) as file:
        cells = delimiter or _usual_delimiter(output, first[1])
        with closing(open_writer(output.kind, file, cells, encoding)) as writer:
            for name, block, added in chain([first], parts):
                try:
                    writer.write(block, added)
                except DataError as error:
                    raise DataError(f"{name}: {error}") from error
                file.flush()
                progress(added.num_rows)


def _usual_delimiter(output: Output, block: Block) -> str | None:
    """Return the input's delimiter if both formats are equal; a tab only if the endings, such as `.txt`, are equal too."""
    source = output.inputs[0]
    alike = source.kind == output.kind and (
        block.delimiter != "\t" or str(output.path) == "-" or ending(output.path) == ending(source.path)
    )
    return block.delimiter if alike else None


def _check_text_options(output: Output, delimiter: str | None, encoding: str) -> None:
    for name, value in (("output_delimiter", delimiter), ("output_encoding", encoding)):
        if value not in (None, "utf-8") and output.kind not in DELIMITERS:
            raise FlashError(
                f"{name}={value!r} is for CSV and TSV, and {output.path} is {output.kind}; leave it out, or pass "
                "output_format='csv'"
            )


@dataclass
class _Work:
    """Predicts blocks, and counts the results.

    Attributes:
        predictor: the model.
        thresholds: (L,), the thresholds in use.
        dialect: options for reading.
        input_field: the text columns that the user named.
        rows: maximum number of rows per block.
        prefix: prefix of the new columns' names.
        source_field: name of a new column with the file's name.
        done: number of predicted rows.
        labelled: number of rows with at least one label.
        counts: (L,), number of rows per label.
    """

    predictor: Predictor
    thresholds: npt.NDArray[np.float32]
    dialect: Dialect
    input_field: str | Sequence[str] | None
    rows: int
    prefix: str
    source_field: str | None
    done: int = 0
    labelled: int = 0
    counts: npt.NDArray[np.int64] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.predictor.labels), np.int64)

    def blocks(self, source: Input) -> Iterator[Block]:
        return read_blocks(source.path, source.kind, self.dialect, rows=self.rows)

    def check_columns(self, output: Output) -> None:
        """Raise DataError if a file's columns differ from the first file's, before anything is predicted.

        The keys of JSON lines are only known row by row; they are checked when they are written.
        """
        if len(output.inputs) == 1:
            return
        tables = [source for source in output.inputs if source.kind != "jsonl"]
        first: Block | None = None
        for source in tables:
            with closing(self.blocks(source)) as blocks:  # type: ignore[type-var]  # a generator
                block = next(blocks)
            first = first or block
            if problem := _difference(first, block, tables[0].name, typed=output.kind == "parquet"):
                raise DataError(
                    f"{source.name} {problem}; give the files the same columns, or name a folder that gets an output for "
                    "each of them, such as predictions/"
                )

    def predicted(self, inputs: Sequence[Input]) -> Iterator[tuple[str, Block, pa.Table]]:
        """Yield the file's name, the block and its new columns for each block of the inputs."""
        for source in inputs:
            fields: list[str] | None = None
            for block in self.blocks(source):
                if fields is None:
                    other = other_delimiter(block.names, source.kind, self.dialect.delimiter)
                    fields = _choose_fields(block.names, self.input_field, source.name, other, self.predictor)
                added = self._predict(_texts(block, fields, source.name))
                if self.source_field is not None:
                    names = arrow_values.taken(
                        arrow_values.texts([source.name]), np.zeros(added.num_rows, np.int32)
                    )
                    added = added.add_column(0, self.source_field, names)
                _check_names(block, added.column_names, source.name)
                yield source.name, block, added

    def _predict(self, texts: pa.LargeStringArray) -> pa.Table:
        """Return the new columns: label names and probabilities."""
        predictor = self.predictor
        probabilities = predictor.probabilities(texts)
        names = arrow_values.texts(predictor.labels)
        if predictor.multi_label:
            rows, found = np.nonzero(applies(probabilities, self.thresholds))
            labels = arrow_values.lists(names, rows, found, len(texts))
            self.labelled += len(np.unique(rows))
        else:
            found = probabilities.argmax(axis=1)
            labels = arrow_values.taken(names, found)
            self.labelled += len(texts)
        self.counts += np.bincount(found, minlength=len(predictor.labels))
        self.done += len(texts)
        columns = {f"{self.prefix}labels": labels}
        for index, label in enumerate(predictor.labels):
            columns[f"{self.prefix}{label}_probability"] = arrow_values.floats(probabilities[:, index])
        return pa.table(columns)


def _difference(first: Block, block: Block, name: str, *, typed: bool) -> str | None:
    """Describe how a file's columns differ from those of the first file, `name`; None if they are equal."""
    if lacking := [column for column in first.names if column not in set(block.names)]:
        return f"has no column {named(lacking[:SHOWN])}, and {name} has"
    if more := [column for column in block.names if column not in set(first.names)]:
        return f"has the column {named(more[:SHOWN])}, and {name} has not"
    if typed:
        for column in first.names:
            ours, theirs = block.table.schema.field(column).type, first.table.schema.field(column).type
            if ours != theirs:
                return f"holds {str(ours)[:50]} in the column {column!r}, and {name} {str(theirs)[:50]}"
    return None


def other_delimiter(names: Sequence[str], kind: str, delimiter: str | None = None) -> str | None:
    """Return the delimiter in a CSV's only column name, if any: the name is then more likely a whole header."""
    used = delimiter or {"csv": ",", "tsv": "\t"}.get(kind)
    return next(
        (mark for mark in ";\t|," if len(names) == 1 and mark in names[0] and used not in (None, mark)), None
    )


def find_texts(
    columns: Sequence[str], targets: Collection[str], remembered: Sequence[str] | None = None
) -> list[str] | None:
    """Find the text columns when the user names none: the columns that the model was trained on, if they exist.

    If one such column is missing, use one of `TEXT_FIELDS`, else the only column that is not a target. If the model reads
    several columns and one is missing, return None.
    """
    if remembered and all(name in columns for name in remembered):
        return list(remembered)
    if remembered and len(remembered) > 1:
        return None
    others = [name for name in columns if name not in targets]
    found = [name for name in TEXT_FIELDS if name in others] or (others if len(others) == 1 else [])
    return found[:1] or None


def _choose_fields(
    names: list[str], asked: str | Sequence[str] | None, name: str, other: str | None, predictor: Predictor
) -> list[str]:
    remembered = predictor.input_fields
    hint = f"; the header holds {other!r}: pass delimiter={other!r}" if other else ""
    if asked is not None:
        wanted = match_fields(field_names(asked), remembered, name)
        paths = [path for path in wanted if is_path(path, names)]
        return check_columns([*names, *paths], wanted, name, hint)
    if other is not None and names[0] not in (remembered or ()):
        raise DataError(
            f"{name} has one column, {names[0]!r}: the header holds {other!r}: pass delimiter={other!r}, or "
            f"input_field={names[0]!r} if it is the one of texts"
        )
    found = find_texts(names, {*predictor.labels, *TARGET_FIELDS}, remembered)
    if len(remembered or ()) > 1:
        if found is None:
            raise missing_fields(name, names, remembered or (), hint)
        return found
    if found is None and len(names) > 1:
        raise DataError(
            f"{name} has {len(names)} columns ({listed(names)}); pass input_field=... with the one of texts"
        )
    return found or names


def _texts(block: Block, fields: Sequence[str], name: str) -> pa.LargeStringArray:
    """Return the texts of a block; the error message counts the rows without a text."""
    if isinstance(block.rows, pa.Table):
        numbers = np.arange(block.first, block.first + len(block.rows))
        table = add_paths(block.rows, fields, name)
        source = Source(table, ((name, len(table)),), numbers=numbers)
        refuse_objects(source, fields)
        return joined_texts(source, fields)
    columns = [[value_at(row, field) for row in block.rows] for field in fields]
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
    """Describe rows of JSON objects without a text; `first` is the index of the first in its block."""
    more = (
        f" ({len(values):,} such rows from there to row {block.first + len(block.rows) - 1:,})"
        if len(values) > 1
        else ""
    )
    return (
        f"{name}, row {block.first + first}: {field!r} is {json.dumps(values[0])[:40]}, not a text{more}; give such a "
        "row a text or remove it"
    )


def _check_names(block: Block, added: list[str], name: str) -> None:
    taken = [column for column in added if column in set(block.names)]
    if taken:
        named = f"{'columns' if len(taken) > 1 else 'a column'} named {', '.join(map(repr, taken[:5]))}"
        raise DataError(
            f"{name} has {named} already; pass prefix='predicted_' to name the new ones differently"
        )
