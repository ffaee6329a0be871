"""`flash predict`: label every text of a file or a pipe, of any size. Imports neither torch nor lightning."""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

import numpy as np

from flash.cli import (
    Parser,
    add_csv_options,
    add_precision_option,
    add_trust_option,
    announced,
    note,
    note_unused_thresholds,
    parse_thresholds,
)
from flash.core.errors import FlashError
from flash.text.classification.predict_files.blocks import READERS, ROWS, Dialect
from flash.text.classification.predict_files.inputs import find_inputs
from flash.text.classification.predict_files.streams import Summary, predict_file
from flash.text.classification.predict_files.writers import WRITERS
from flash.text.classification.predictor import Predictor
from flash.text.classification.scores.thresholds import Thresholds

SHOWN_LABELS = 10  # labels whose row counts are printed
DESCRIPTION = "Label every text of files, or of a pipe, of any size."
EPILOG = """\
The output has all columns of the input, then `labels`, then a column
<label>_probability for each label. In CSV and TSV, labels are joined by commas
(a label that holds a comma stands in double quotes); in JSON lines and Parquet
they are a list. A file appears when it is whole; Ctrl-C or an error leaves an
earlier one as it was. The format is told by the file's ending (.csv .txt .tsv
.tab .jsonl .ndjson .json .parquet); .gz, .bz2 and .zst inputs are unpacked.
Several inputs go into one output, and have the same columns; an output that is a
folder, or ends with /, gets a file for each. What was done is told on standard
error.

Without --input_field, texts are the columns that the model was trained on; where
these were one that is not there, the column `text` or `comment_text`, otherwise the
only column that is not named as one of the model's labels, nor `labels` or `label`.

  flash predict model.pt --input comments.csv --output predictions.csv
  flash predict model.pt --input posts.csv --input_field body --output out.csv
  flash predict model.pt --input comments.parquet --output predictions.jsonl
  flash predict model.pt --input 'data/*.csv' --source_field file --output all.csv
  flash predict model.pt --input data --output predictions/
  flash predict model.pt --input a.csv --output_encoding utf-8-sig --output excel.csv
  zcat comments.csv.gz | flash predict model.pt --input - --input_field text | head
"""


def build_parser() -> Parser:
    """The parser of `flash predict`."""
    parser = Parser("flash predict", DESCRIPTION, EPILOG)
    parser.add_argument(
        "model", metavar="MODEL", help="the file that training saved, or a folder that flash export wrote"
    )
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="FILE",
        help="the texts: files of CSV, TSV, JSON lines, Parquet, Excel or plain text, also .gz, .xz and URLs such as "
        "https:// or s3://; a pattern in quotes, or a folder; - for standard input",
    )
    parser.add_argument(
        "--output",
        default="-",
        metavar="FILE",
        help="the predictions, or a folder for those of each file; - (default) for standard output",
    )
    parser.add_argument(
        "--input_field",
        nargs="+",
        metavar="COLUMN",
        help="the column of texts, or as many as the model reads, if not found by itself",
    )
    parser.add_argument(
        "--thresholds",
        nargs="+",
        metavar="T",
        help="not the model's own (auto) but 0.5 for all labels, one per label, or toxic=0.3 insult=0.5",
    )
    parser.add_argument(
        "--input_format", choices=READERS, help="if not told by the ending; standard input: csv"
    )
    parser.add_argument(
        "--output_format", choices=WRITERS, help="if not told by the ending; standard output: as the input"
    )
    add_csv_options(parser)
    parser.add_argument(
        "--output_delimiter",
        type=lambda word: word.replace("\\t", "\t"),
        metavar="D",
        help="of CSV output; unless given, the input's where both are CSV",
    )
    parser.add_argument(
        "--output_encoding",
        default="utf-8",
        metavar="NAME",
        help="of CSV output, such as utf-8-sig for Excel, or cp1252, in which a character that it lacks is an error "
        "(default: utf-8)",
    )
    parser.add_argument(
        "--source_field", metavar="COLUMN", help="the name of a new column that holds each row's file"
    )
    add_precision_option(parser)
    add_trust_option(parser)
    parser.add_argument(
        "--prefix", default="", help="what the names of the new columns begin with, such as predicted_"
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=ROWS,
        metavar="ROWS",
        help=f"rows at a time, at most (default: {ROWS})",
    )
    return parser


def run(argv: list[str]) -> int:
    """Predict; returns the exit code."""
    options = build_parser().parse(argv)
    thresholds = parse_thresholds(options.thresholds)
    predictor = Predictor.load(
        options.model, precision=options.precision, trust_remote_code=options.trust_remote_code
    )
    note_unused_thresholds(thresholds, predictor.multi_label)
    with announced(predictor):
        done = _predict(options, thresholds, predictor)
    note(described(done, predictor.labels, options.input, multi_label=predictor.multi_label))
    return 0


def described(done: Summary, labels: Sequence[str], inputs: Sequence[str], *, multi_label: bool) -> str:
    """Summarize a prediction: rows, rows with a label, and rows per label, the most frequent first."""
    if done.rows == 0:
        name = "standard input" if inputs == ["-"] else " ".join(inputs)
        return f"{name} has no rows; neither has the output"
    order = np.argsort(-done.counts, kind="stable")
    shown = [f"{labels[label]} {done.counts[label]:,}" for label in order[:SHOWN_LABELS]]
    more = len(labels) - SHOWN_LABELS
    counts = ", ".join(shown) + (f", and {more:,} other label{'s' * (more > 1)}" if more > 0 else "")
    rows = f"{done.rows:,} row{'s' * (done.rows > 1)}"
    if done.files > 1:
        rows += f" of {done.files:,} files"
    return f"{rows}: {counts}" if not multi_label else f"{rows}, {done.labelled:,} with a label: {counts}"


def _predict(options: argparse.Namespace, thresholds: Thresholds, predictor: Predictor) -> Summary:
    # not between the rows on the screen
    shown = sys.stderr.isatty() and not (options.output == "-" and sys.stdout.isatty())
    with _progress(options) if shown else nullcontext(lambda rows: None) as progress:
        return predict_file(
            predictor,
            options.input,
            options.output,
            input_field=options.input_field,
            thresholds=thresholds,
            input_format=options.input_format,
            output_format=options.output_format,
            encoding=options.encoding,
            delimiter=options.delimiter,
            quoting=options.quoting == "true",
            output_delimiter=options.output_delimiter,
            output_encoding=options.output_encoding,
            source_field=options.source_field,
            column_names=options.column_names,
            sheet=options.sheet,
            rows=options.batch_size,
            prefix=options.prefix,
            progress=progress,
        )


@contextmanager
def _progress(options: argparse.Namespace) -> Iterator[Callable[[int], object]]:
    """A progress bar on standard error, with the remaining time if the number of rows is known."""
    from tqdm import tqdm  # only on a terminal: its import takes longer than a short file

    from flash.text.classification.predict_files.row_counts import count_rows

    total: int | None = None
    with suppress(FlashError), warnings.catch_warnings(action="ignore"):  # predicting raises them again
        dialect = Dialect(options.encoding, options.delimiter, options.quoting == "true")
        counts = [
            count_rows(each.path, each.kind, dialect)
            for each in find_inputs(options.input, options.input_format)
        ]
        total = None if None in counts else sum(count or 0 for count in counts)
    with tqdm(total=total, unit=" rows", unit_scale=True, file=sys.stderr) as bar:
        yield bar.update
