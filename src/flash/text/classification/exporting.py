"""A trained encoder as a folder for others: an ONNX graph that needs no torch, or a folder of transformers.

Imports torch and transformers only in the functions that write. Each export is compared with its model file before
its folder takes its name.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from flash.core.errors import FlashError, MissingExtraError, unknown_name
from flash.core.extras import require
from flash.core.files import is_folder, whole_folder
from flash.core.version import __version__
from flash.text.classification.backbones.encoder.onnx_runtime import GRAPH, TOKENIZER, first_words
from flash.text.classification.backbones.linear.model import Linear
from flash.text.classification.batching import between_ids, tokenize
from flash.text.classification.checkpoint.export_folder import FORMAT_VERSION, SETTINGS, seal
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading.fields import SEPARATOR, given_texts
from flash.text.classification.sample import sample_table
from flash.text.classification.scores.outputs import Calibration

if TYPE_CHECKING:
    import torch

    from flash.text.classification.backbones.encoder.module import EncoderModule

QUANTIZE = ("int8",)
CLOSE = 1e-4
"""How far a probability in float32 may be from the model file's."""
SAMPLE_ROWS = 48
"""Synthetic comments that every export is compared on, beside an empty text and one of all of them."""
OWN_FILES = {
    SETTINGS,
    GRAPH,
    f"{GRAPH}.data",
    TOKENIZER,
    *("config.json", "model.safetensors", "tokenizer_config.json", "special_tokens_map.json"),
}
"""What an export's folder may hold: a folder with anything else in it is never replaced."""


@dataclass(frozen=True)
class ExportReport:
    """An export, and how its probabilities differ from the model file's.

    Attributes:
        folder: where it is.
        format: one of `FORMATS`.
        quantize: None for float32, or "int8".
        size: bytes of all files.
        texts: how many texts were compared.
        own_texts: whether they are the user's sample; else synthetic ones.
        largest: the largest difference of a probability.
        mean: the mean difference.
        input_fields: the columns of texts that the model was trained on; None where its file says of none.
    """

    folder: Path
    format: str
    quantize: str | None
    size: int
    texts: int
    own_texts: bool
    largest: float
    mean: float
    input_fields: tuple[str, ...] | None = None


def export(
    model_path: str | Path,
    folder: str | Path,
    format: str = "onnx",  # noqa: A002  the option's name
    quantize: str | None = None,
    sample: Sequence[str] | pa.Array | None = None,
    *,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> ExportReport:
    """Write the encoder of a model file as a folder that stands on its own, whole or not at all.

    Args:
        model_path: what `save_checkpoint` wrote.
        folder: must not be there, or be empty, unless `overwrite`.
        format: "onnx", for onnxruntime: `Predictor.load`, `flash predict` and `flash evaluate` take it, without
            torch. "transformers", for `transformers.pipeline("text-classification", top_k=None)` and
            `TextClassifier(backbone=folder)`: of a model whose head was kept, or is new with `pooling="model"`. The
            pipeline reads the start of a text alone where the model reads windows (`long_text="window"`).
        quantize: of an ONNX export, "int8" for smaller and faster matrices.
        sample: texts of yours to compare on; synthetic comments without it.
        overwrite: whether to replace an earlier export.
        trust_remote_code: whether Python code that comes with the encoder may be fetched and run again, where the model
            was made with it; an ONNX export needs none any more.

    Raises:
        CheckpointError: the model file cannot be used.
        FlashError: the model or the folder is none for this export, or the export would answer differently.
        MissingExtraError: a package is not installed.
        RemoteCodeError: the model needs Python code that is not trusted, or that is not where it was.
    """
    if format not in FORMATS:
        raise FlashError(unknown_name("export format", format, FORMATS))
    if quantize is not None and quantize not in QUANTIZE:
        raise FlashError(unknown_name("quantization", quantize, QUANTIZE))
    if quantize is not None and format != "onnx":
        raise FlashError(
            f"only an ONNX export can be in {quantize}; choose the format onnx, or no quantization"
        )
    folder = Path(folder)
    _check_free(folder, overwrite)
    if Path(model_path).is_file() and Path(model_path).resolve().is_relative_to(folder.resolve()):
        raise FlashError(
            f"the model {model_path} is in the folder {folder}, which the export would replace; name another folder"
        )
    if sample is not None and len(sample) == 0:
        raise FlashError("the sample has no texts to compare on; give one with rows, or none at all")
    predictor, module = _load(model_path, trust_remote_code)
    own = None if sample is None else given_texts(sample, "sample", predictor.input_fields)
    texts = _check_texts(predictor) if own is None else own
    try:
        with whole_folder(folder) as work:
            FORMATS[format](predictor, module, work)
            if quantize is not None:
                _quantize(work)
            difference = _difference(predictor, work, texts)
            size = sum(file.stat().st_size for file in work.iterdir())
    except OSError as error:
        raise FlashError(
            f"the export cannot be written to {folder}: {error.strerror or first_words(error)}; free space or choose "
            "another folder"
        ) from error
    largest, mean = float(difference.max()), float(difference.mean())
    fields = predictor.input_fields
    return ExportReport(folder, format, quantize, size, len(texts), own is not None, largest, mean, fields)


def _load(model_path: str | Path, trust_remote_code: bool) -> tuple[Predictor, "EncoderModule"]:
    """The model of a file, and its encoder."""
    if is_folder(model_path):
        raise FlashError(f"{model_path} is a folder; give the file that save_checkpoint wrote")
    predictor = Predictor.load(model_path, precision="32", trust_remote_code=trust_remote_code)
    if isinstance(predictor.backbone, Linear):
        raise FlashError(
            f"{model_path} has the linear backbone, which cannot be exported: neither ONNX nor transformers has its "
            "hashed n-grams; use the file itself, for which flash predict and Predictor.load import no torch"
        )
    return predictor, cast("EncoderModule", predictor.backbone)


# ---- the two formats ----------------------------------------------------------------------------------------------


def _write_onnx(predictor: Predictor, module: "EncoderModule", folder: Path) -> None:
    """Graph, tokenizer and settings; the first way of writing the graph that gives the model's answers is taken."""
    from flash.text.classification.backbones.encoder.files import tokenizer_content
    from flash.text.classification.backbones.encoder.onnx_graph import WAYS, write_graph

    for package in ("onnx", "onnxruntime"):
        require(package, "onnx")
    tokenizer = module.encoder.tokenizer
    (folder / TOKENIZER).write_text(tokenizer_content(tokenizer)["file"], "utf-8")
    _write_settings(predictor, module, folder, "onnx", predictor.calibration)
    example = _example(predictor, module)
    problems = []
    for way in WAYS:
        try:
            write_graph(way, module.encoder, example, folder / GRAPH)
            _check_close(predictor, folder)
            return
        except MissingExtraError:
            raise
        except Exception as error:  # of torch, of its exporters, of onnxruntime, or ours on the answers
            problems.append(f"{way.__name__}: {first_words(error)}")
            for file in folder.iterdir():
                if file.name not in (TOKENIZER, SETTINGS):  # weights may have any name
                    file.unlink()
    kind = type(module.encoder.model).__name__
    raise FlashError(
        f"this encoder ({kind}) cannot be written as an ONNX graph ({'; '.join(problems)}); use the model file itself"
    )


def _example(predictor: Predictor, module: "EncoderModule") -> "tuple[torch.Tensor, torch.Tensor]":
    """A batch to write a graph by, padded, of sizes that are none of an encoder's own and not taken for these."""
    texts = pa.array([*_check_texts(predictor)[:4].to_pylist(), "a"], pa.large_string())
    rows = tokenize(texts, module.encoder.tokenizer, max_length=min(7, module.max_length))
    return rows.batch(np.arange(len(rows)))


def _write_transformers(predictor: Predictor, module: "EncoderModule", folder: Path) -> None:
    """The encoder under its own head, which calibration becomes a part of, its tokenizer, and settings."""
    from flash.text.classification.backbones.encoder import files
    from flash.text.classification.backbones.encoder.transformers_classifier import whole_classifier

    encoder = module.encoder
    whole = whole_classifier(encoder, predictor.calibration, multi_label=predictor.multi_label)
    tokenizer = files.tokenizer_from(files.tokenizer_content(encoder.tokenizer))
    tokenizer.model_max_length = module.max_length  # where pipeline(..., truncation=True) cuts
    if len(predictor.input_fields or []) > 1:  # whose token types are all 0 here
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    with files.quiet():
        whole.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    _write_settings(predictor, module, folder, "transformers", Calibration.identity(len(predictor.labels)))
    if encoder.config.long_text == "window":
        warnings.warn(
            f"a pipeline of transformers reads the first {module.max_length} tokens of a text alone, and this model all "
            "of them, in windows; for long texts use this folder by flash predict or Predictor.load, or export in the "
            "format onnx",
            UserWarning,
            stacklevel=3,
        )
    _check_close(predictor, folder)


FORMATS: dict[str, Callable[[Predictor, "EncoderModule", Path], None]] = {
    "onnx": _write_onnx,
    "transformers": _write_transformers,
}
"""Format to what writes it into an empty folder."""


def _quantize(folder: Path) -> None:
    from flash.text.classification.backbones.encoder.onnx_graph import quantize

    try:
        quantize(folder)
    except MissingExtraError:
        raise
    except Exception as error:  # onnxruntime's and onnx's, such as a graph beyond 2 GB
        raise FlashError(
            f"onnxruntime cannot turn this model into int8 ({first_words(error)}); export it without quantization"
        ) from error


def _write_settings(
    predictor: Predictor, module: "EncoderModule", folder: Path, kind: str, calibration: Calibration
) -> None:
    """What Flash knows of the model beside network and tokenizer; float32 is written so that it comes back."""
    tokenizer = module.encoder.tokenizer
    settings = {
        "export_format": FORMAT_VERSION,
        "version": __version__,
        "kind": kind,
        "labels": list(predictor.labels),
        "multi_label": predictor.multi_label,
        "input_fields": None if predictor.input_fields is None else list(predictor.input_fields),
        "thresholds": predictor.thresholds.tolist(),
        "calibration_scale": calibration.scale.tolist(),
        "calibration_shift": calibration.shift.tolist(),
        "max_length": module.max_length,
        "backbone": module.name,
        # where the encoder came from and whose code it ran ends with the export
        "backbone_options": {**module.options(), "revision": None, "trust_remote_code": False},
        "tokenizer": {
            "pad_id": tokenizer.pad_token_id,
            "truncation_side": tokenizer.truncation_side,
            "special_tokens": list(tokenizer.all_special_tokens),
            "between": between_ids(tokenizer).tolist(),
        },
    }
    (folder / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", "utf-8")


# ---- the same answers ---------------------------------------------------------------------------------------------


def _check_texts(predictor: Predictor) -> pa.Array:
    """Comments of all lengths, an empty text, and one that is longer than most encoders read; of several fields each."""
    comments = sample_table(SAMPLE_ROWS)["comment_text"].to_pylist()
    texts = [*comments, "", " ".join(comments)]
    more = [comments[:count] for count in range(1, len(predictor.input_fields or [""]))]
    joined = [
        SEPARATOR.join([text, *(others[row % len(others)] for others in more)])
        for row, text in enumerate(texts)
    ]
    return pa.array(joined, pa.large_string())


def _difference(predictor: Predictor, folder: Path, texts: pa.Array) -> np.ndarray:
    """How far each probability (N, L) of an export is from the model's, once its checksums are written."""
    seal(folder)
    difference: np.ndarray = np.abs(
        Predictor.load(folder, precision="32").probabilities(texts) - predictor.probabilities(texts)
    )
    return difference


def _check_close(predictor: Predictor, folder: Path) -> None:
    """Refuse an export that answers differently, for many texts at once or for one alone."""
    texts = _check_texts(predictor)
    largest = max(
        float(_difference(predictor, folder, some).max()) for some in (texts, texts[:1], texts[-2:-1])
    )
    if not largest <= CLOSE:
        raise FlashError(
            f"the export's probabilities differ by {largest:.2g} from the model's, and may by {CLOSE:g}; use the model file"
        )


# ---- the folder ---------------------------------------------------------------------------------------------------


def _check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a place that holds something else, before anything is computed."""
    if not is_folder(folder):
        if folder.exists():
            raise FlashError(f"{folder} is a file; name a folder for the export")
        return
    held = {entry.name for entry in folder.iterdir()}
    ours = SETTINGS in held and held <= OWN_FILES
    if held and not ours:
        shown = ", ".join(sorted(held)[:5])
        raise FlashError(f"the folder {folder} holds other files ({shown}); name a new one for the export")
    if held and not overwrite:
        raise FlashError(
            f"the folder {folder} holds an earlier export; pass overwrite=True (--overwrite) to replace it"
        )
