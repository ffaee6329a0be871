"""`flash evaluate`: how good a model is on a file with targets. Imports neither torch nor lightning."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from flash.cli import Parser, note, parse_thresholds
from flash.core.errors import DataError
from flash.text.classification.backbones.kernels import announced_compilation
from flash.text.classification.encoding import encode_targets
from flash.text.classification.metrics import Evaluation, evaluate
from flash.text.classification.other_readers import read_json, read_parquet
from flash.text.classification.predictor import Predictor
from flash.text.classification.readers import (
    Source,
    check_columns,
    read_csv,
    text_column,
)
from flash.text.classification.report import format_table
from flash.text.classification.streams import find_format
from flash.text.classification.targets import infer_format
from flash.text.classification.thresholds import Thresholds, resolve_thresholds

DESCRIPTION = "Print how good a model is on a file with targets."
EPILOG = """\
FILE is CSV, TSV, JSON (lines or an array) or Parquet, told by its ending.
Without --target_fields, targets are the 0/1 columns named as the model's
labels, otherwise the column `labels` or `label`. Without --input_field, texts
are the column `text` or `comment_text`, otherwise the only column that is no
target.

  flash evaluate model.pt test.csv
  flash evaluate model.pt test.csv --target_fields tags --label_delimiter ";"
  flash evaluate model.pt test.parquet --thresholds 0.5 --json > scores.json
"""
TEXT_FIELDS = ("text", "comment_text")
TARGET_FIELDS = ("labels", "label")


def build_parser() -> Parser:
    """The options of `flash evaluate`."""
    parser = Parser("flash evaluate", DESCRIPTION, EPILOG)
    parser.add_argument("model", metavar="MODEL", help="the file that training saved")
    parser.add_argument(
        "file", metavar="FILE", help="texts and their targets; a glob in quotes takes several files"
    )
    parser.add_argument("--input_field", metavar="COLUMN", help="the column of texts")
    parser.add_argument(
        "--target_fields", nargs="+", metavar="COLUMN", help="a 0/1 column a label, or one of names"
    )
    parser.add_argument(
        "--label_delimiter", metavar="D", help="what separates names in one column (default: a comma)"
    )
    parser.add_argument(
        "--unknown_labels", choices=("error", "ignore"), default="error", help="labels the model lacks"
    )
    parser.add_argument(
        "--thresholds",
        nargs="+",
        metavar="T",
        help="not the model's own (auto) but 0.5 for all labels, one a label, or toxic=0.3 insult=0.5",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument(
        "--encoding", default="utf-8", help="of a CSV or TSV file, such as cp1252 (default: utf-8)"
    )
    return parser


def run(argv: list[str]) -> int:
    """Print the table, or JSON; returns the exit code."""
    options = build_parser().parse(argv)
    thresholds = parse_thresholds(options.thresholds)
    predictor = Predictor.load(options.model)
    source = READERS[find_format(options.file, None, "input_format")](options.file, options.encoding)
    with announced_compilation(note):
        evaluation = evaluate_source(
            predictor,
            source,
            input_field=options.input_field,
            target_fields=options.target_fields,
            label_delimiter=options.label_delimiter,
            unknown_labels=options.unknown_labels,
            thresholds=thresholds,
        )
    if options.json:
        print(json.dumps(evaluation.to_dict(), allow_nan=False, indent=2))
    else:
        print(format_table(evaluation, title=source.name))
    return 0


READERS: dict[str, Callable[[str, str], Source]] = {
    "csv": lambda file, encoding: read_csv(file, encoding=encoding),
    "tsv": lambda file, encoding: read_csv(file, encoding=encoding, delimiter="\t"),
    "jsonl": lambda file, encoding: read_json(file),
    "parquet": lambda file, encoding: read_parquet(file),
}
"""Format to what reads a file of it and, where it has one, its encoding."""


def evaluate_source(
    predictor: Predictor,
    source: Source,
    *,
    input_field: str | None = None,
    target_fields: Sequence[str] | None = None,
    label_delimiter: str | None = None,
    unknown_labels: Any = "error",
    thresholds: Thresholds = None,
) -> Evaluation:
    """Compare a model's predictions with the targets of a source; fields are found as `EPILOG` says.

    Raises:
        DataError: no such column, none that can be meant, or a text or target that is none.
    """
    targets = _find_targets(predictor, source, target_fields)
    texts = text_column(source, _find_texts(source, input_field, targets))
    target_format = infer_format(
        source,
        targets,
        multi_label=predictor.multi_label,
        label_delimiter=label_delimiter,
        labels=predictor.labels,
    )
    return evaluate(
        predictor.probabilities(texts),
        encode_targets(target_format, source, targets, unknown_labels=unknown_labels),
        labels=predictor.labels,
        thresholds=resolve_thresholds(thresholds, predictor.labels, predictor.thresholds),
        multi_label=predictor.multi_label,
    )


def _find_targets(predictor: Predictor, source: Source, asked: Sequence[str] | None) -> str | list[str]:
    """The target columns: a list of 0/1 columns, or the name of one that holds names."""
    columns = source.table.column_names
    if asked is not None:
        fields = check_columns(columns, asked, source.name)
        return fields if len(fields) > 1 or tuple(fields) == predictor.labels else fields[0]
    if set(predictor.labels) <= set(columns):
        return list(predictor.labels)
    found = next((name for name in TARGET_FIELDS if name in columns), None)
    if found is None:
        missing = [label for label in predictor.labels if label not in columns]
        raise DataError(
            f"{source.name} has no column for {len(missing)} of the model's {len(predictor.labels)} labels "
            f"(such as {missing[0]!r}) and none named 'labels' or 'label'; its columns are "
            f"{', '.join(columns)}; type --target_fields and those of the targets"
        )
    return found


def _find_texts(source: Source, asked: str | None, targets: str | list[str]) -> str:
    columns = source.table.column_names
    if asked is not None:
        return check_columns(columns, [asked], source.name)[0]
    taken = {targets} if isinstance(targets, str) else set(targets)
    others = [name for name in columns if name not in taken]
    found = [name for name in TEXT_FIELDS if name in others] or (others if len(others) == 1 else [])
    if not found:
        raise DataError(
            f"{source.name}: which column holds the texts? Its columns are {', '.join(columns)}; "
            "type --input_field and one"
        )
    return found[0]
