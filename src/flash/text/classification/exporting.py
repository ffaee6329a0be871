"""Export a trained encoder to a folder: an ONNX graph, which needs no torch, or a model of transformers.

Each export is compared with its model file before the folder gets its name. torch and transformers are imported on use.
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
from flash.core.files import atomic_folder, is_folder
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
"""Maximum difference of a probability in float32 from the model file's."""
SAMPLE_ROWS = 48
"""Number of synthetic comments for the comparison, beside an empty text and the concatenation of all comments."""
OWN_FILES = {
    SETTINGS,
    GRAPH,
    f"{GRAPH}.data",
    TOKENIZER,
    *("config.json", "model.safetensors", "tokenizer_config.json", "special_tokens_map.json"),
}
"""Files of an export; a folder with any other file is never replaced."""


@dataclass(frozen=True)
class ExportReport:
    """An export, and how its probabilities differ from the model file's.

    Attributes:
        folder: the folder.
        format: one of `FORMATS`.
        quantize: None for float32, or "int8".
        size: total size in bytes.
        texts: number of compared texts.
        own_texts: whether the texts are the user's sample; otherwise they are synthetic.
        largest: the largest difference of a probability.
        mean: the mean difference.
        input_fields: the text columns that the model was trained on; None if its file does not say.
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
    """Export the encoder of a model file to a self-contained folder, atomically.

    Args:
        model_path: a file that `save_checkpoint` wrote.
        folder: must not exist or be empty, unless `overwrite`.
        format: "onnx", for onnxruntime: `Predictor.load`, `flash predict` and `flash evaluate` read it without torch.
            "transformers", for `transformers.pipeline("text-classification", top_k=None)` and
            `TextClassifier(backbone=folder)`; for a model whose head was kept, or is new with `pooling="model"`. If the
            model reads windows (`long_text="window"`), the pipeline still reads only the start of a text.
        quantize: for an ONNX export, "int8" for smaller and faster matrices.
        sample: texts for the comparison; synthetic comments by default.
        overwrite: whether to replace an earlier export.
        trust_remote_code: whether the encoder's own Python code may be downloaded and run again, if the model was
            created with it; an ONNX export no longer needs it.

    Raises:
        CheckpointError: the model file cannot be used.
        FlashError: the model or the folder is not suitable, or the export's probabilities would differ.
        MissingExtraError: a package is not installed.
        RemoteCodeError: the model needs Python code that is not trusted, or that has moved.
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
        with atomic_folder(folder) as work:
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
    """Load a model file, and return it with its encoder."""
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
    """Write graph, tokenizer and settings, with the first exporter whose graph gives the model's probabilities."""
    from flash.text.classification.backbones.encoder.loading import tokenizer_content
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
        except Exception as error:  # of torch, its exporters or onnxruntime, or different probabilities
            problems.append(f"{way.__name__}: {first_words(error)}")
            for file in folder.iterdir():
                if file.name not in (TOKENIZER, SETTINGS):  # weights may have any name
                    file.unlink()
    kind = type(module.encoder.model).__name__
    raise FlashError(
        f"this encoder ({kind}) cannot be written as an ONNX graph ({'; '.join(problems)}); use the model file itself"
    )


def _example(predictor: Predictor, module: "EncoderModule") -> "tuple[torch.Tensor, torch.Tensor]":
    """Return a padded example batch, with sizes that differ from all sizes of an encoder."""
    texts = pa.array([*_check_texts(predictor)[:4].to_pylist(), "a"], pa.large_string())
    rows = tokenize(texts, module.encoder.tokenizer, max_length=min(7, module.max_length))
    return rows.batch(np.arange(len(rows)))


def _write_transformers(predictor: Predictor, module: "EncoderModule", folder: Path) -> None:
    """Write the encoder, with its head including the calibration, its tokenizer, and the settings."""
    from flash.text.classification.backbones.encoder import loading
    from flash.text.classification.backbones.encoder.transformers_classifier import whole_classifier

    encoder = module.encoder
    whole = whole_classifier(encoder, predictor.calibration, multi_label=predictor.multi_label)
    tokenizer = loading.tokenizer_from(loading.tokenizer_content(encoder.tokenizer))
    tokenizer.model_max_length = module.max_length  # for pipeline(..., truncation=True)
    if len(predictor.input_fields or []) > 1:  # the model was trained with token types 0 only
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    with loading.quiet():
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
"""The writer of each format, for an empty folder."""


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
    """Write the settings beside network and tokenizer; float32 values are written without loss."""
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
        # the export no longer depends on the encoder's origin and code
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
    """Return comments of all lengths, an empty text, and one longer than most encoders read, with the model's fields."""
    comments = sample_table(SAMPLE_ROWS)["comment_text"].to_pylist()
    texts = [*comments, "", " ".join(comments)]
    more = [comments[:count] for count in range(1, len(predictor.input_fields or [""]))]
    joined = [
        SEPARATOR.join([text, *(others[row % len(others)] for others in more)])
        for row, text in enumerate(texts)
    ]
    return pa.array(joined, pa.large_string())


def _difference(predictor: Predictor, folder: Path, texts: pa.Array) -> np.ndarray:
    """Write the checksums, and return the differences (N, L) of the export's probabilities from the model's."""
    seal(folder)
    difference: np.ndarray = np.abs(
        Predictor.load(folder, precision="32").probabilities(texts) - predictor.probabilities(texts)
    )
    return difference


def _check_close(predictor: Predictor, folder: Path) -> None:
    """Raise FlashError if the export's probabilities differ, for many texts at once or for a single one."""
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
    """Raise FlashError if the folder contains something else, before anything is computed."""
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
