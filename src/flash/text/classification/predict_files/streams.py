"""The texts of files of any size, predicted in constant memory: the same rows out, with labels and probabilities.

CSV, TSV, JSON lines and Parquet, in files, pipes, standard input and output. The input's columns pass through
in order. Imports neither torch nor lightning.
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

TEXT_FIELDS = ("text", "comment_text")
TARGET_FIELDS = ("labels", "label")
"""Columns that are texts, or targets, by their names."""

CELLS = 2**21  # a block's largest number of probabilities: 8 MiB of float32 however many labels there are


@dataclass(frozen=True)
class Summary:
    """What a prediction did.

    Attributes:
        rows: how many.
        labelled: how many of them have a label.
        counts: (L,) int64, the rows of each label, in the model's order.
        files: how many files were read.
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

    The output has the input's columns, then `labels`, then a column `<label>_probability` for each (float32).
    In CSV and TSV `labels` joins the names by commas, a name that holds a comma or a quote in double quotes;
    JSON lines and Parquet have a list of names. A single-label model's `labels` is the one name. Numbers are
    printed with the fewest digits that give the float32 back. A file appears whole or not at all; standard
    output gets each block when it is ready. Several files in one output have the same columns, in any order.

    Args:
        predictor: the model.
        source: a file, a pattern such as `data/*.csv`, a folder, or a list of these; `-` for standard input.
        target: a file, or `-` for standard output; a folder, or what ends with `/`, gets one output for each file.
        input_field: the column of texts, or a list of as many as the model reads; None for what `find_texts` finds
            beside columns named as labels.
        thresholds: as in `Predictor.predict`.
        input_format: `csv`, `tsv`, `jsonl`, `parquet`, `excel` or `fasttext`; None for what the file's ending says, and CSV on
            standard input.
        output_format: likewise; on standard output None is the input's format, or CSV if that is Parquet.
        encoding: of a CSV, TSV or JSON-lines input.
        delimiter: of a CSV or TSV input; None for what its format says.
        quoting: of a CSV or TSV input: whether a cell may stand in double quotes.
        output_delimiter: of a CSV or TSV output; None for the input's where both are CSV, else a comma, or a tab.
        output_encoding: of a CSV or TSV output, such as `utf-8-sig`, or `cp1252`.
        source_field: the name of a new column that holds each row's file; None for no such column.
        column_names: of a CSV, TSV or Excel input without a header: the names of its columns in order.
        sheet: of an Excel input; None for the first.
        rows: how many rows to work on at a time, at most.
        prefix: what the names of the new columns begin with.
        progress: called with the number of rows of each block that has been written.

    Raises:
        DataError: the input cannot be read as asked, a text is missing, a new column's name is taken, the columns of
            several files differ, or a character is not in the output's encoding.
        FlashError: an unknown format, thresholds that do not fit, or a target that is the source
            or the model.
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
    first = next(parts)  # what makes an input unreadable says so before an output is opened
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
    """The input's where both are CSV; of a tab, only where the output has the input's ending, as `.txt`."""
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
    """How blocks are predicted, and what came of it so far.

    Attributes:
        predictor: the model.
        thresholds: (L,) in force.
        dialect: of text inputs.
        input_field: that the user asked for.
        rows: of a block, at most.
        prefix: of new columns.
        source_field: of a new column with the file's name.
        done: rows.
        labelled: rows with a label.
        counts: (L,) rows of each label.
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
        """Refuse files of other columns than the first one's before any is predicted.

        JSON lines bring their keys row by row, and are checked as they are written.
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
                    "each of them: --output predictions/"
                )

    def predicted(self, inputs: Sequence[Input]) -> Iterator[tuple[str, Block, pa.Table]]:
        """Name, block and new columns of each block of the inputs."""
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
        """Names and probabilities as columns."""
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
    """How the columns of a file differ from those of the first one, called `name`; None where they do not."""
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
            "name the column by --input_field if it is the one of texts"
        )
    found = find_texts(names, {*predictor.labels, *TARGET_FIELDS}, remembered)
    if len(remembered or ()) > 1:
        if found is None:
            raise missing_fields(name, names, remembered or (), hint)
        return found
    if found is None and len(names) > 1:
        raise DataError(
            f"{name} has {len(names)} columns ({listed(names)}); type --input_field and the one of texts"
        )
    return found or names


def _texts(block: Block, fields: Sequence[str], name: str) -> pa.LargeStringArray:
    """The texts of a block, or a sentence that counts the rows without one."""
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


def _check_names(block: Block, added: list[str], name: str) -> None:
    taken = [column for column in added if column in set(block.names)]
    if taken:
        named = f"{'columns' if len(taken) > 1 else 'a column'} named {', '.join(map(repr, taken[:5]))}"
        raise DataError(
            f"{name} has {named} already; type --prefix predicted_ to name the new ones differently"
        )
