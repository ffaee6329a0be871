"""`flash export`: a trained encoder as a folder that needs no torch, or as one of transformers."""

import argparse
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from flash.cli import Parser, add_csv_options, add_trust_option
from flash.cli.evaluate import READERS
from flash.cli.hints import printed_text
from flash.core.errors import DataError, FlashError, listed
from flash.text.classification import checkpoint
from flash.text.classification.exporting import FORMATS, QUANTIZE, ExportReport, export
from flash.text.classification.predict_files.inputs import find_format
from flash.text.classification.predict_files.streams import find_texts, other_delimiter
from flash.text.classification.reading.fields import field_names, joined_texts, missing_fields
from flash.text.classification.reading.source import Source, check_columns

DESCRIPTION = "Write a trained encoder as a folder that stands on its own."
EPILOG = """\
onnx: the network, its tokenizer, labels, thresholds and calibration, for
onnxruntime on any processor; flash predict and flash evaluate take the folder
in place of the model file and import no torch. --quantize int8 makes it smaller
and faster, and prints how much the probabilities change. In int8 a
probability also varies slightly with its batch, which shares one scale.

transformers: a folder for transformers.pipeline("text-classification",
top_k=None), with calibrated probabilities; for a model that kept the head of its
checkpoint, or was trained with --model.pooling model. The pipeline reads only the
start of a long text, even if the model reads windows. It does not apply
thresholds; they are in flash.json.

  flash export model.pt
  flash export model.pt --quantize int8 --sample comments.csv --text_field comment_text
  flash export model.pt --format transformers --output toxic-model
"""
MOST_SAMPLED = 1000
"""Maximum number of sample texts that are compared."""


def build_parser() -> Parser:
    """The parser of `flash export`."""
    parser = Parser("flash export", DESCRIPTION, EPILOG)
    parser.add_argument("model", metavar="MODEL", help="the file that training saved")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="of the folder (default: onnx)")
    parser.add_argument("--quantize", choices=QUANTIZE, help="of an ONNX folder: matrices in eight bits")
    parser.add_argument(
        "--output", metavar="FOLDER", help="the folder (default: beside the model, such as model-onnx-int8)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    parser.add_argument(
        "--sample",
        metavar="FILE",
        help=f"your texts to compare probabilities on, {MOST_SAMPLED:,} at most; else synthetic ones",
    )
    parser.add_argument("--input_format", choices=READERS, help="of the sample, if not told by its ending")
    parser.add_argument(
        "--text_field",
        "--input_field",
        nargs="+",
        metavar="COLUMN",
        help="the sample's column of texts, or as many as the model reads",
    )
    add_csv_options(parser)
    add_trust_option(parser)
    return parser


def run(argv: list[str]) -> int:
    """Export and print a summary; returns the exit code."""
    options = build_parser().parse(argv)
    if options.text_field is not None and options.sample is None:
        raise FlashError("--text_field names a column of a sample; type --sample and its file too")
    report = export(
        options.model,
        options.output or default_folder(options.model, options.format, options.quantize),
        options.format,
        options.quantize,
        sample_texts(options),
        overwrite=options.overwrite,
        trust_remote_code=options.trust_remote_code,
    )
    print(closing_words(report, options.sample))
    return 0


def default_folder(model: str, format: str, quantize: str | None) -> Path:  # noqa: A002  the option's name
    """The default folder of an export.

    >>> default_folder("models/toxic.pt", "onnx", "int8")
    PosixPath('models/toxic-onnx-int8')
    """
    path = Path(model)
    stem = path.stem if path.suffix in (".pt", ".pth", ".ckpt") else path.name
    return path.with_name("-".join(word for word in (stem, format, quantize) if word))


def sample_texts(options: argparse.Namespace) -> pa.Array | None:
    """The first texts of the sample; None where there is none.

    Raises:
        DataError: it cannot be read, or its column of texts is not told.
    """
    if options.sample is None:
        return None
    kind = find_format(options.sample, options.input_format, "input_format")
    source = READERS[kind](argparse.Namespace(**vars(options), file=options.sample), options.text_field or ())
    fields = _text_fields(
        source, options, other_delimiter(source.table.column_names, kind, options.delimiter)
    )
    first = replace(source, table=source.table.slice(0, MOST_SAMPLED))
    return joined_texts(first, fields)


def _text_fields(source: Source, options: argparse.Namespace, other: str | None) -> list[str]:
    columns = source.table.column_names
    hint = f"; the header holds {other!r}: pass delimiter={other!r}" if other else ""
    if options.text_field is not None:
        return check_columns(columns, field_names(options.text_field), source.name, hint)
    remembered = checkpoint.read(options.model)["flash"].get("input_fields")
    found = find_texts(columns, (), remembered)
    if found is None and len(remembered or ()) > 1:
        raise missing_fields(source.name, columns, remembered, hint)
    if found is None:
        raise DataError(
            f"{source.name}: which column holds the texts? Its columns are {listed(columns)}; type --text_field and "
            f"one{hint}"
        )
    return found


def closing_words(report: ExportReport, sample: str | None) -> str:
    """Summarize an export: files, difference from the model file, and the next commands."""
    kind = {"onnx": "ONNX", "transformers": "transformers"}[report.format]
    whose = f"{report.texts:,} texts of {sample}" if report.own_texts else f"{report.texts} synthetic texts"
    advice = "" if report.own_texts else "; --sample FILE compares on yours"
    lines = [
        f"Saved {report.folder}: {kind}, {report.quantize or 'float32'}, {report.size / 1e6:,.1f} MB.",
        f"Its probabilities differ from the model file's by {report.largest:.2g} at most, {report.mean:.2g} on "
        f"average ({whose}{advice}).",
        "Try it:",
        "",
        f"  {printed_text(report.input_fields)} | flash predict {report.folder} --input -",
    ]
    if report.format == "transformers":
        call = f'pipeline("text-classification", "{report.folder}", top_k=None, truncation=True)'
        lines.append(f"  python -c 'from transformers import pipeline; print({call}(\"Thank you\"))'")
    return "\n".join(lines)
