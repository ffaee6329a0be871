"""Inference without a trainer: texts to logits, probabilities or labels, from a checkpoint or an export.

Imports neither torch nor lightning; an encoder checkpoint needs torch when it is loaded, an ONNX export does not.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from flash.core.errors import CheckpointError, FlashError, MissingExtraError, RemoteCodeError
from flash.core.files import is_folder
from flash.core.precision import check_precision, matrices_of, predicts_in_bfloat16
from flash.text.classification import checkpoint
from flash.text.classification.backbones import load_backbone
from flash.text.classification.backbones.encoder.onnx_runtime import OnnxBackbone
from flash.text.classification.backbones.linear.model import Linear
from flash.text.classification.checkpoint.export_folder import damaged, read_settings
from flash.text.classification.reading.fields import given_texts
from flash.text.classification.reading.source import text_array
from flash.text.classification.scores.outputs import Calibration, Output, convert, to_probabilities
from flash.text.classification.scores.thresholds import Thresholds, resolve_thresholds

if TYPE_CHECKING:
    from flash.text.classification.backbones.encoder.module import EncoderModule

Texts: TypeAlias = Sequence[str | Mapping[str, str | None] | Sequence[str | None]] | pa.Array

SHOWN_LABELS = 6
logger = logging.getLogger(__name__)


class Predictor:
    """A trained classifier without its trainer.

    Attributes:
        labels: L names; column j of every `(N, L)` array means `labels[j]`.
        multi_label: whether any number of labels applies to a text (sigmoid), or exactly one (softmax).
        thresholds: (L,) float32 in [0, 1], chosen at the end of training; a label applies if its probability is at
            least its threshold.
        calibration: calibration of the backbone's logits.
        input_fields: the text columns that it was trained on, in order; None if its file does not say.
        path: the file or folder that it was loaded from; None if it was created in memory.
    """

    def __init__(
        self,
        backbone: "Linear | EncoderModule | OnnxBackbone",
        labels: Sequence[str],
        *,
        multi_label: bool,
        thresholds: np.ndarray,
        calibration: Calibration | None = None,
        input_fields: Sequence[str] | None = None,
        path: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self.thresholds = thresholds
        self.calibration = calibration or Calibration.identity(len(labels))
        self.input_fields = None if input_fields is None else tuple(input_fields)
        self.path = path

    @classmethod
    def load(
        cls, path: str | Path, *, precision: str | int = "auto", trust_remote_code: bool = False
    ) -> "Predictor":
        """Load a checkpoint file, or a folder that `flash export` wrote.

        Args:
            path: the file or folder.
            precision: precision of an encoder in torch: "32", "bf16" or "auto". "auto" uses bfloat16 if a measurement
                of some milliseconds with the encoder's shapes, once per process, finds it at least 1.2 times as fast
                as float32. With a small encoder (MiniLM) that was trained on GoEmotions, bfloat16 changed the
                probabilities of 1,000 texts by 0.00003 on average and by at most 0.001. Use "32" if predictions must
                not differ between machines. It has no effect on an ONNX export and on the linear backbone.
            trust_remote_code: whether the encoder's own Python code may be downloaded and run again, if the model was
                created with it.

        Raises:
            CheckpointError: the file or folder is missing, truncated, damaged, of another library, or of a newer format.
            FlashError: the precision is unknown.
            MissingExtraError: the model needs a package that is not installed.
            RemoteCodeError: the model needs Python code that is not trusted, or that has moved.
        """
        precision = check_precision(precision)
        if is_folder(path):
            return cls._of_export(Path(path), precision)
        return cls.of_content(checkpoint.read(path), path, precision, trust_remote_code=trust_remote_code)

    @classmethod
    def of_content(
        cls,
        content: dict[str, Any],
        path: str | Path | None = None,
        precision: str = "32",
        *,
        trust_remote_code: bool = False,
    ) -> "Predictor":
        """Create a predictor from a checkpoint's content, as returned by `checkpoint.read`.

        Args:
            content: content with NumPy arrays, which are not copied.
            path: path of the file; None for content in memory.
            precision: "32", "bf16" or "auto", as in `load`.
            trust_remote_code: as in `load`.

        Raises:
            CheckpointError: the content is damaged.
            MissingExtraError: the model needs a package that is not installed.
            RemoteCodeError: the model needs Python code that is not trusted, or that has moved.
        """
        name = "this model" if path is None else path
        settings, arrays = content["flash"], content["state_dict"]
        prefix = "backbone."
        own = {key[len(prefix) :]: arrays[key] for key in arrays if key.startswith(prefix)}
        backbone: Linear | EncoderModule
        try:
            if "encoder" in settings:
                backbone = _load_encoder(settings, own, precision, trust_remote_code)
            else:
                backbone = load_backbone(
                    settings["backbone"], len(settings["labels"]), settings["backbone_options"]
                )
                backbone.load_arrays(own)
        except (MissingExtraError, RemoteCodeError):
            raise
        except (FlashError, TypeError) as error:  # a number where an array should be has no length
            problem = error if isinstance(error, FlashError) else "a backbone array is a single number"
            raise CheckpointError(
                f"the checkpoint {name} is damaged: {problem}; copy or save it again"
            ) from error
        if not backbone.fitted:
            raise CheckpointError(
                f"{name} holds a model that was never trained, so its answers would mean nothing; train it, and save it "
                "after that"
            )
        return cls(
            backbone,
            settings["labels"],
            multi_label=settings["multi_label"],
            thresholds=np.array(arrays["thresholds"], np.float32),
            calibration=Calibration(
                np.array(arrays["calibration_scale"], np.float32),
                np.array(arrays["calibration_shift"], np.float32),
            ),
            input_fields=settings.get("input_fields"),
            path=path,
        )

    @classmethod
    def _of_export(cls, folder: Path, precision: str) -> "Predictor":
        settings, arrays = read_settings(folder)
        backbone: OnnxBackbone | EncoderModule
        if settings["kind"] == "onnx":
            backbone = OnnxBackbone.load(folder, settings)
        else:
            backbone = _read_transformers(folder, settings, precision)
        scale, shift = arrays["calibration_scale"], arrays["calibration_shift"]
        return cls(
            backbone,
            settings["labels"],
            multi_label=settings["multi_label"],
            thresholds=arrays["thresholds"],
            calibration=Calibration(scale, shift),
            input_fields=settings.get("input_fields"),
            path=folder,
        )

    def __repr__(self) -> str:
        names = ", ".join(self.labels[:SHOWN_LABELS])
        more = f", ... {len(self.labels) - SHOWN_LABELS} more" if len(self.labels) > SHOWN_LABELS else ""
        low, high = self.thresholds.min(), self.thresholds.max()
        span = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        kind = "any number of labels a text" if self.multi_label else "one label a text"
        count = "1 label" if len(self.labels) == 1 else f"{len(self.labels)} labels"
        return f"Predictor({count}: {names}{more}; {kind}; thresholds {span})"

    def logits(self, texts: Texts) -> np.ndarray:
        """Return (N, L) float32 scores before sigmoid or softmax, calibrated.

        Args:
            texts: N strings; for a model of several `input_fields`, dicts with these or lists of their texts.

        Raises:
            DataError: an element is not a text, lacks a field, or contains lone surrogates.
        """
        return self.calibration.apply(self.backbone.logits(self._array(texts)))

    def _array(self, texts: Any) -> pa.LargeStringArray:
        several = len(self.input_fields or ()) > 1
        if several or (isinstance(texts, list) and texts and isinstance(texts[0], Mapping)):
            return given_texts(texts, "texts", self.input_fields)
        return text_array(texts, "texts")

    def probabilities(self, texts: Texts) -> np.ndarray:
        """Return (N, L) float32 probabilities; N may be 0."""
        return to_probabilities(self.logits(texts), self.multi_label)

    def predict(self, texts: Texts, output: Output = "labels", thresholds: Thresholds = None) -> Any:
        """Predict texts in the form of `output`, with one entry or row per text.

        Args:
            texts: N strings; for a model of several `input_fields`, dicts with these or lists of their texts.
            output: `"labels"`, `"classes"`, `"probabilities"`, `"logits"`, `"preds"`, or a callable that gets the
                `(N, L)` probabilities.
            thresholds: replace the model's own: one number, L numbers, or a dict by label.

        >>> Predictor.load("text_classification_model.pt").predict(["You are wonderful", "You absolute turnip"])
        [[], ['toxic', 'insult']]
        """
        in_force = self.thresholds
        if thresholds is not None:
            in_force = resolve_thresholds(thresholds, self.labels, in_force)
        return convert(
            self.logits(texts), output, labels=self.labels, multi_label=self.multi_label, thresholds=in_force
        )


def _load_encoder(
    settings: dict[str, Any], arrays: dict[str, np.ndarray], precision: str, trust_remote_code: bool
) -> "EncoderModule":
    """Load the encoder of a checkpoint for prediction."""
    import torch

    from flash.text.classification.backbones.encoder.module import EncoderModule
    from flash.text.classification.backbones.module import first_misfit

    module = EncoderModule.from_content(settings, arrays, trust_remote_code=trust_remote_code)
    try:
        module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    except (RuntimeError, TypeError) as error:  # wrong names or shapes; a type that NumPy does not have
        raise FlashError(f"its weights do not fit its encoder ({first_misfit(error)})") from error
    return _ready(module, precision)


def _read_transformers(folder: Path, settings: dict[str, Any], precision: str) -> "EncoderModule":
    """Load the encoder and the head of an export for transformers."""
    from flash.text.classification.backbones.encoder.module import EncoderModule

    labels, length = settings["labels"], settings["max_length"]
    module = EncoderModule.from_pretrained(folder, labels, length, settings["backbone_options"])
    if not module.encoder.kept_head:
        raise damaged(folder, "its head has other labels than its settings")
    return _ready(module, precision)


def _ready(module: "EncoderModule", precision: str) -> "EncoderModule":
    """Prepare an encoder for prediction, in the requested or, with "auto", the faster precision."""
    choice = predicts_in_bfloat16(precision, matrices_of(weight.shape for weight in module.parameters()))
    if choice.measured:
        module.precision_sentence = choice.sentence
        logger.info(choice.sentence)
    return module.for_prediction(bfloat16=choice.bfloat16)


def precision_for(path: str | Path) -> str:
    """Return the faster precision, "32" or "bf16", for a model file or an export on this machine.

    A server's parent process uses it to decide for all workers. For a model without an encoder in torch, it is "32".

    Raises:
        CheckpointError: the file or folder is missing, truncated, damaged, of another library, or of a newer format.
    """
    if is_folder(path):
        settings, _ = read_settings(Path(path))
        if settings["kind"] == "onnx":
            return "32"
        shapes = _weights_of_folder(Path(path))
    else:
        content = checkpoint.read(path)
        if "encoder" not in content["flash"]:
            return "32"
        shapes = [array.shape for array in content["state_dict"].values()]
    return "bf16" if predicts_in_bfloat16("auto", matrices_of(shapes)).bfloat16 else "32"


def _weights_of_folder(folder: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the weights in an export for transformers."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "numpy") as file:
        return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118  (no mapping)
