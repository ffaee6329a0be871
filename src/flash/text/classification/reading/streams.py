"""The texts of files of any size, predicted in constant memory: the same rows out, with labels and probabilities.

CSV, TSV, JSON lines and Parquet, in files, pipes, standard input and output. The input's columns pass through
in order. Imports neither torch nor lightning.
"""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from flash.core.errors import DataError, FlashError, unknown_name
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading import arrow_values
from flash.text.classification.reading.blocks import READERS, ROWS, Dialect, read_blocks
from flash.text.classification.reading.files import PACKED, ending, find_files
from flash.text.classification.reading.source import Source, check_columns, text_column
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
    input_field: str | None = None,
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
        input_field: the column of texts; None for what `find_texts` finds beside columns named as labels.
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
    field = _choose_field(first.names, input_field, name, other, predictor.labels)
    done = 0
    with open_output(target) as file, closing(WRITERS[output_format](file)) as writer:
        for block in chain([first], blocks):
            added = _predict(predictor, _texts(block, field, name), in_force, prefix)
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


def find_texts(columns: Sequence[str], targets: Collection[str]) -> str | None:
    """The column of texts where none was named: one of `TEXT_FIELDS`, else the only one that is no target."""
    others = [name for name in columns if name not in targets]
    found = [name for name in TEXT_FIELDS if name in others] or (others if len(others) == 1 else [])
    return found[0] if found else None


def _refuse_overwriting(source: str | Path, target: str | Path, kind: str) -> None:
    """The input is the user's own work; a prediction never takes its place."""
    place = Path(target).expanduser()
    if "-" in (str(source), str(target)) or not place.exists():
        return
    if any(path.exists() and path.samefile(place) for path in find_files(str(source), kind)):
        raise FlashError(
            f"{target} is the input itself, which would be lost; name another file for the output"
        )


def _choose_field(
    names: list[str], asked: str | None, name: str, other: str | None, labels: Sequence[str]
) -> str:
    if asked is not None:
        hint = f"; the header holds {other!r}: pass delimiter={other!r}" if other else ""
        return check_columns(names, [asked], name, hint)[0]
    if other is not None:
        raise DataError(
            f"{name} has one column, {names[0]!r}: the header holds {other!r}: pass delimiter={other!r}, or "
            "name the column by --input_field if it is the one of texts"
        )
    found = names[0] if len(names) == 1 else find_texts(names, {*labels, *TARGET_FIELDS})
    if found is None:
        raise DataError(
            f"{name} has {len(names)} columns ({', '.join(names)}); type --input_field and the one of texts"
        )
    return found


def _texts(block: Block, field: str, name: str) -> pa.LargeStringArray:
    """The texts of a block, or a sentence that counts the rows without one."""
    if isinstance(block.rows, pa.Table):
        numbers = np.arange(block.first, block.first + len(block.rows))
        return text_column(Source(block.rows, ((name, len(block.rows)),), numbers=numbers), field)
    texts = [row.get(field) for row in block.rows]
    wrong = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        more = (
            f" ({len(wrong):,} such rows from there to row {block.first + len(texts) - 1:,})"
            if len(wrong) > 1
            else ""
        )
        raise DataError(
            f"{name}, row {block.first + wrong[0]}: {field!r} is {json.dumps(texts[wrong[0]])[:40]}, not a "
            f"text{more}; give such a row a text or remove it"
        )
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError as error:
        row = block.first + texts.index(error.object)
        raise DataError(
            f"{name}, row {row}: {field!r} holds half of a surrogate pair, which is no text; repair it"
        ) from error


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
