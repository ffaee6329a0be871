"""`flash evaluate`: measure a model on a file with targets. Imports neither torch nor lightning."""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from flash.cli import (
    Parser,
    add_csv_options,
    add_precision_option,
    add_trust_option,
    announced,
    note_unused_thresholds,
    parse_thresholds,
)
from flash.core.errors import DataError, listed, unknown_name
from flash.text.classification.predict_files.inputs import find_format
from flash.text.classification.predict_files.streams import TARGET_FIELDS, find_texts, other_delimiter
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.reading.fasttext import read_fasttext
from flash.text.classification.reading.fields import joined_texts, match_fields, missing_fields, named
from flash.text.classification.reading.mistakes import some_of
from flash.text.classification.reading.nested import add_paths, refuse_objects, spread_scores
from flash.text.classification.reading.odd_rows import kept_rows, without_odd_rows
from flash.text.classification.reading.source import Source, check_columns
from flash.text.classification.reading.tables import read_json, read_parquet
from flash.text.classification.scores.by_length import text_lengths
from flash.text.classification.scores.metrics import Evaluation, evaluate
from flash.text.classification.scores.table import format_table
from flash.text.classification.scores.thresholds import Thresholds, resolve_thresholds
from flash.text.classification.targets.cells import read_cells
from flash.text.classification.targets.encoding import encode_known
from flash.text.classification.targets.formats import infer_format
from flash.text.classification.targets.name_columns import join_name_columns
from flash.text.classification.targets.repeated_texts import warn_of_contrary_labels
from flash.text.classification.targets.unknown import ACTIONS, NOT_ALLOWED, UnknownTargets

DESCRIPTION = "Print how good a model is on a file with targets."
EPILOG = """\
FILE is CSV, TSV, JSON (lines or an array) or Parquet, told by its ending.
Without --target_fields, targets are the 0/1 columns named as the model's
labels, otherwise the column `labels` or `label`, otherwise the 0/1 columns of
some labels, which alone are then evaluated. Without --input_field, texts are
the columns that the model was trained on; where these were one that is not there,
the column `text` or `comment_text`, otherwise the only column that is no target.

  flash evaluate model.pt test.csv
  flash evaluate model.pt test.csv --target_fields tags --label_delimiter ";"
  flash evaluate model.pt test.parquet --thresholds 0.5 --json > scores.json
"""


def build_parser() -> Parser:
    """The parser of `flash evaluate`."""
    parser = Parser("flash evaluate", DESCRIPTION, EPILOG)
    parser.add_argument(
        "model", metavar="MODEL", help="the file that training saved, or a folder that flash export wrote"
    )
    parser.add_argument(
        "file", metavar="FILE", help="texts and their targets; a glob in quotes takes several files"
    )
    parser.add_argument(
        "--input_field",
        nargs="+",
        metavar="COLUMN",
        help="the column of texts, or as many as the model reads",
    )
    parser.add_argument("--target_fields", nargs="+", metavar="COLUMN")
    parser.add_argument("--label_delimiter", metavar="D")
    parser.add_argument(
        "--unknown_labels",
        choices=("error", "ignore"),
        default="error",
        help="targets whose label the model lacks: error, or ignore",
    )
    parser.add_argument("--unknown_targets", choices=ACTIONS, default="error")
    parser.add_argument("--unknown_values", nargs="+", metavar="VALUE")
    parser.add_argument(
        "--thresholds",
        nargs="+",
        metavar="T",
        help="not the model's own (auto) but 0.5 for all labels, one per label, or toxic=0.3 insult=0.5",
    )
    parser.add_argument("--input_format", choices=READERS, help="if not told by the ending")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    add_csv_options(parser)
    add_precision_option(parser)
    add_trust_option(parser)
    return parser


def run(argv: list[str]) -> int:
    """Print the table, or JSON; returns the exit code."""
    options = build_parser().parse(argv)
    unknown = UnknownTargets.from_options(options.unknown_targets, options.unknown_values)
    thresholds = parse_thresholds(options.thresholds)
    kind = find_format(options.file, options.input_format, "input_format")
    predictor = Predictor.load(
        options.model, precision=options.precision, trust_remote_code=options.trust_remote_code
    )
    note_unused_thresholds(thresholds, predictor.multi_label)
    asked = [*(options.input_field or ()), *(options.target_fields or ())]
    source = READERS[kind](options, [*asked, *(predictor.input_fields or ()), *predictor.labels])
    source = replace(source, table=add_paths(source.table, asked, source.name))
    if options.target_fields is not None and set(options.target_fields) <= set(source.table.column_names):
        source, options.target_fields = spread_scores(source, options.target_fields)
        sources, options.target_fields = join_name_columns({"": source}, options.target_fields)
        source = sources[""]
    fields = choose_fields(
        predictor,
        source,
        options.input_field,
        options.target_fields,
        other_delimiter(source.table.column_names, kind, options.delimiter),
    )
    with announced(predictor):
        evaluation = evaluate_source(
            predictor,
            source,
            fields,
            label_delimiter=options.label_delimiter,
            unknown_labels=options.unknown_labels,
            thresholds=thresholds,
            unknown=unknown,
        )
    if options.json:
        print(json.dumps({**_described(source, fields), **evaluation.to_dict()}, allow_nan=False, indent=2))
    else:
        print(format_table(evaluation, title=source.name, notes=_notes(predictor, fields)))
    return 0


def _read_csv(options: argparse.Namespace, known: Sequence[str], delimiter: str | None = None) -> Source:
    return read_csv(
        options.file,
        encoding=options.encoding,
        delimiter=options.delimiter or delimiter,
        quoting=options.quoting == "true",
        column_names=options.column_names,
        sheet=options.sheet,
        known=known,
    )


READERS: dict[str, Callable[[argparse.Namespace, Sequence[str]], Source]] = {
    "csv": _read_csv,
    "tsv": lambda options, known: _read_csv(options, known, "\t"),
    "jsonl": lambda options, _: read_json(options.file),
    "parquet": lambda options, _: read_parquet(options.file),
    "excel": _read_csv,
    "fasttext": lambda options, _: read_fasttext(options.file),
}
"""For each format, its reader; the second argument holds column names that identify a header."""


@dataclass(frozen=True)
class Fields:
    """The columns to compare.

    Attributes:
        texts: the columns of texts.
        targets: a list of 0/1 columns, one per label, or the one column that holds names.
        labels: the labels that have targets, in the model's order.
        left_out: the model's other labels.
    """

    texts: list[str]
    targets: str | list[str]
    labels: tuple[str, ...]
    left_out: tuple[str, ...]


def choose_fields(
    predictor: Predictor,
    source: Source,
    input_field: Sequence[str] | None = None,
    target_fields: Sequence[str] | None = None,
    other: str | None = None,
) -> Fields:
    """The fields asked for; those left out are found as `EPILOG` says.

    Args:
        predictor: whose labels the targets are.
        source: the rows with their targets.
        input_field: the columns of texts.
        target_fields: the columns of targets.
        other: a delimiter that the file seems to have, for the hint in an error.

    Raises:
        DataError: no such column, none that can be meant, predictions instead of targets, 0/1 columns that
            are no labels, or those of only some labels where the model gives exactly one.
    """
    columns = source.table.column_names
    hint = f"; the header holds {other!r}: pass delimiter={other!r}" if other else ""
    if target_fields is not None:
        targets = _asked_targets(predictor, source, check_columns(columns, target_fields, source.name, hint))
    else:
        targets = _find_targets(predictor, source, input_field, hint)
    labels = predictor.labels
    if not isinstance(targets, str):
        labels = tuple(label for label in predictor.labels if label in targets)
    left_out = tuple(label for label in predictor.labels if label not in set(labels))
    if left_out and not predictor.multi_label:
        raise DataError(
            f"{source.name} has a column for {len(labels)} of the model's {len(predictor.labels)} labels, but "
            "this model gives each text exactly one of them all; name one column of names, or a column for "
            f"each label (there is none for {some_of(list(left_out))}): --target_fields"
        )
    return Fields(_find_texts(predictor, source, input_field, targets, hint), targets, labels, left_out)


def evaluate_source(
    predictor: Predictor,
    source: Source,
    fields: Fields,
    *,
    label_delimiter: str | None = None,
    unknown_labels: Any = "error",
    thresholds: Thresholds = None,
    unknown: UnknownTargets = NOT_ALLOWED,
) -> Evaluation:
    """Compare a model's predictions with the targets of a source, for the labels that have targets.

    Args:
        predictor: the model.
        source: texts and targets.
        fields: their columns.
        label_delimiter: between the names in one cell.
        unknown_labels: error, or ignore to leave labels out that the model lacks.
        thresholds: in place of the model's own.
        unknown: which targets say that nothing is known, and what becomes of them.

    Raises:
        DataError: a text or target that is none.
    """
    columns = [fields.targets] if isinstance(fields.targets, str) else fields.targets
    refuse_objects(source, [*fields.texts, *columns])
    source = without_odd_rows(source, [*fields.texts, *columns])
    texts = joined_texts(source, fields.texts)
    sources, _, label_delimiter = read_cells(
        {"": source},
        fields.targets,
        multi_label=predictor.multi_label,
        label_delimiter=label_delimiter,
        labels=fields.labels,
        blank_is_negative=unknown.action == "negative",
    )
    source = sources[""]
    target_format = infer_format(
        source,
        fields.targets,
        multi_label=predictor.multi_label,
        label_delimiter=label_delimiter,
        labels=fields.labels,
        unknown=unknown,
    )
    if target_format.kind == "vectors" and fields.labels != tuple(map(str, range(len(fields.labels)))):
        warnings.warn(
            f"{source.name}: the values of each target in column {fields.targets!r} are read in the order of the model's "
            f"labels: {some_of(list(fields.labels))}",
            UserWarning,
            stacklevel=2,
        )
    target_format = replace(target_format, of_model=True)
    known = encode_known(
        target_format, source, fields.targets, unknown_labels=unknown_labels, unknown=unknown
    )
    if known.rows is not None:
        texts, source = texts.take(pa.array(known.rows)), kept_rows(source, known.rows)
    warn_of_contrary_labels(source, texts, known.targets)
    kept = np.array([predictor.labels.index(label) for label in fields.labels])
    return evaluate(
        predictor.probabilities(texts)[:, kept],
        known.targets,
        labels=fields.labels,
        thresholds=resolve_thresholds(thresholds, predictor.labels, predictor.thresholds)[kept],
        multi_label=predictor.multi_label,
        lengths=text_lengths(texts),
    )


def _asked_targets(predictor: Predictor, source: Source, fields: list[str]) -> str | list[str]:
    """One column of names, unless the column is named as a label: then its values are 0/1 targets."""
    known = set(predictor.labels)
    if len(fields) == 1 and not (predictor.multi_label and fields[0] in known):
        return fields[0]
    strangers = [name for name in fields if name not in known]
    if strangers:
        raise DataError(
            f"{source.name}: the target column {strangers[0]!r} is no label of the model: "
            f"{unknown_name('label', strangers[0], predictor.labels)}; name 0/1 columns after the labels, or "
            "name one column that holds names"
        )
    return [label for label in predictor.labels if label in fields]


def _find_targets(
    predictor: Predictor, source: Source, input_field: Sequence[str] | None, hint: str
) -> str | list[str]:
    """The target columns: a list of 0/1 columns, or the name of one that holds names."""
    columns = source.table.column_names
    asked = input_field or ()
    present = [label for label in predictor.labels if label in columns and label not in asked]
    if len(present) == len(predictor.labels):
        return present
    predicted = any(f"{label}_probability" in columns for label in predictor.labels)
    # `flash predict` writes the model's own predictions to `labels`; scored against themselves they would be perfect.
    found = [name for name in TARGET_FIELDS if name in columns and not (predicted and name == "labels")]
    if found:
        return found[0]
    if present and predictor.multi_label:
        return present
    if predicted and "labels" in columns:
        raise DataError(
            f"{source.name}: this file holds predictions (its column 'labels' stands beside columns named "
            "..._probability); name the true targets: --target_fields and their columns"
        )
    missing = [label for label in predictor.labels if label not in present]
    raise DataError(
        f"{source.name} has no column for {len(missing)} of the model's {len(predictor.labels)} labels "
        f"(such as {missing[0]!r}) and none named 'labels' or 'label'; its columns are "
        f"{listed(columns)}; type --target_fields and those of the targets{hint}"
    )


def _find_texts(
    predictor: Predictor, source: Source, asked: Sequence[str] | None, targets: str | list[str], hint: str
) -> list[str]:
    columns, remembered = source.table.column_names, predictor.input_fields
    if asked is not None:
        return check_columns(columns, match_fields(asked, remembered, source.name), source.name, hint)
    found = find_texts(columns, [targets] if isinstance(targets, str) else targets, remembered)
    if found is None and len(remembered or ()) > 1:
        raise missing_fields(source.name, columns, remembered or (), hint)
    if found is None:
        raise DataError(
            f"{source.name}: which column holds the texts? Its columns are {listed(columns)}; "
            f"type --input_field and one{hint}"
        )
    return found


def _described(source: Source, fields: Fields) -> dict[str, Any]:
    """What was compared, for JSON."""
    return {
        "files": [name for name, _ in source.parts],
        "input_field": fields.texts if len(fields.texts) > 1 else fields.texts[0],
        "target_fields": [fields.targets] if isinstance(fields.targets, str) else fields.targets,
        "labels_left_out": list(fields.left_out),
    }


def _notes(predictor: Predictor, fields: Fields) -> list[str]:
    """What was compared, as sentences."""
    if isinstance(fields.targets, str):
        targets = f"column {fields.targets!r}"
    else:
        shown = (
            fields.targets if len(fields.targets) <= 8 else [*fields.targets[:3], "...", fields.targets[-1]]
        )
        targets = f"{'columns' if len(fields.targets) > 1 else 'column'} {' '.join(shown)}"
    texts = f"{'columns' if len(fields.texts) > 1 else 'column'} {named(fields.texts)}"
    notes = [f"Texts: {texts}; targets: {targets}."]
    if fields.left_out:
        notes.append(
            f"Left out, as no target column is theirs: {', '.join(fields.left_out[:10])}"
            f"{f' and {len(fields.left_out) - 10:,} more' if len(fields.left_out) > 10 else ''} "
            f"({len(fields.left_out):,} of the model's {len(predictor.labels):,} labels)."
        )
    return notes
