"""`flash predict`: label every text of a file or a pipe, of any size. Imports neither torch nor lightning."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

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
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading.blocks import READERS, ROWS, Dialect
from flash.text.classification.reading.streams import find_format, predict_file
from flash.text.classification.reading.writers import WRITERS
from flash.text.classification.scores.thresholds import Thresholds

DESCRIPTION = "Label every text of a file, or of a pipe, of any size."
EPILOG = """\
The output has all columns of the input, then `labels`, then a column
<label>_probability for each label. In CSV and TSV, labels are joined by commas
(a label that holds a comma stands in double quotes); in JSON lines and Parquet
they are a list. A file appears when it is whole; Ctrl-C or an error leaves an
earlier one as it was. The format is told by the file's ending (.csv .txt .tsv
.tab .jsonl .ndjson .json .parquet); .gz, .bz2 and .zst inputs are unpacked.

Without --input_field, texts are the columns that the model was trained on; where
these were one that is not there, the column `text` or `comment_text`, otherwise the
only column that is not named as one of the model's labels, nor `labels` or `label`.

  flash predict model.pt --input comments.csv --output predictions.csv
  flash predict model.pt --input posts.csv --input_field body --output out.csv
  flash predict model.pt --input comments.parquet --output predictions.jsonl
  zcat comments.csv.gz | flash predict model.pt --input - --input_field text | head
"""


def build_parser() -> Parser:
    """The options of `flash predict`."""
    parser = Parser("flash predict", DESCRIPTION, EPILOG)
    parser.add_argument(
        "model", metavar="MODEL", help="the file that training saved, or a folder that flash export wrote"
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="the texts; - for standard input")
    parser.add_argument(
        "--output", default="-", metavar="FILE", help="the predictions; - (default) for standard output"
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
        help="not the model's own (auto) but 0.5 for all labels, one a label, or toxic=0.3 insult=0.5",
    )
    parser.add_argument(
        "--input_format", choices=READERS, help="if not told by the ending; standard input: csv"
    )
    parser.add_argument(
        "--output_format", choices=WRITERS, help="if not told by the ending; standard output: as the input"
    )
    parser.add_argument(
        "--encoding", default="utf-8", help="of text input, such as cp1252; output is UTF-8 (default: utf-8)"
    )
    add_csv_options(parser)
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
        rows = _predict(options, thresholds, predictor)
    if rows == 0:
        name = "standard input" if options.input == "-" else options.input
        note(f"{name} has no rows; neither has the output")
    return 0


def _predict(options: argparse.Namespace, thresholds: Thresholds, predictor: Predictor) -> int:
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
            rows=options.batch_size,
            prefix=options.prefix,
            progress=progress,
        )


@contextmanager
def _progress(options: argparse.Namespace) -> Iterator[Callable[[int], object]]:
    """What shows how far it is, and how long the rest takes where the number of rows is known, on standard error."""
    from tqdm import tqdm  # not where nobody looks: its import takes longer than a short file

    from flash.text.classification.reading.row_counts import count_rows

    total = None
    with suppress(FlashError):  # which predicting raises, too
        kind = find_format(options.input, options.input_format, "input_format")
        dialect = Dialect(options.encoding, options.delimiter, options.quoting == "true")
        total = count_rows(options.input, kind, dialect)
    with tqdm(total=total, unit=" rows", unit_scale=True, file=sys.stderr) as bar:
        yield bar.update
