"""A loaded classifier of a server: scores of texts, their estimated cost, and which texts would be truncated."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic_core import PydanticSerializationError, to_json

from flash.core.errors import FlashError
from flash.text.classification.backbones.linear.model import Linear
from flash.text.classification.predictor import Predictor
from flash.text.classification.reading.fields import SEPARATOR
from flash.text.classification.reading.source import text_array
from flash.text.classification.scores.outputs import applies, convert, to_probabilities
from flash.text.classification.scores.thresholds import resolve_thresholds
from flash.text.classification.serve import logs
from flash.text.classification.serve.options import SCORES, ServeOptions

CHARACTERS_PER_TOKEN = 4  # roughly, in English; used only to size batches
WARM_UP = (
    "",
    "A first text, so that nothing is compiled, read or allocated when the first request comes. " * 20,
)
Floats = NDArray[np.float32]
Watched: TypeAlias = Callable[[Predictor], AbstractContextManager[None]]


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of N texts.

    Attributes:
        model: the model that computed them.
        logits: (N, L) float32, calibrated.
        probabilities: (N, L) float32 in [0, 1].
    """

    model: "ServedModel"
    logits: Floats
    probabilities: Floats

    @classmethod
    def empty(cls, model: "ServedModel", texts: int) -> "Scores":
        """Return zeros for N texts, to be filled in with `put`."""
        shape = (texts, len(model.labels))
        return cls(model, np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def part(self, begin: int, end: int) -> "Scores":
        """Return the scores of texts `begin` to `end - 1`, without copying."""
        return Scores(self.model, self.logits[begin:end], self.probabilities[begin:end])

    def put(self, begin: int, part: "Scores") -> None:
        """Fill in the scores of consecutive texts, from index `begin` on."""
        end = begin + len(part.logits)
        self.logits[begin:end], self.probabilities[begin:end] = part.logits, part.probabilities


class ServedModel:
    """A classifier with a name, its thresholds, and the path that it was loaded from.

    Args:
        predictor: computes the logits.
        name: the model's name in responses.
        path: where the model was loaded from and can be reloaded; None for a model in memory.
        thresholds: (L,) float32, the thresholds in use.

    Attributes:
        labels: L names, in the order of the columns of every `(N, L)` array.
        loaded: time of loading, in seconds since 1970.
    """

    def __init__(self, predictor: Predictor, name: str, path: Path | None, thresholds: Floats) -> None:
        self.predictor, self.name, self.path, self.thresholds = predictor, name, path, thresholds
        self.labels, self.multi_label = predictor.labels, predictor.multi_label
        self.loaded = int(time.time())
        backbone: Any = predictor.backbone
        # None for the linear backbone, which reads the whole text
        self._most_tokens: int | None = getattr(backbone, "max_length", None)
        encoder = getattr(backbone, "encoder", backbone)
        self._tokenizer = getattr(encoder, "tokenizer", None)
        options: Any = getattr(backbone, "options", {})
        options = options() if callable(options) else options
        self._cuts = self._tokenizer is not None and options["long_text"] == "truncate"

    @classmethod
    def load(
        cls, path: str | Path, options: ServeOptions, *, watched: Watched | None = None
    ) -> "ServedModel":
        """Load a checkpoint or an export, and warm it up.

        Args:
            path: the file or the folder.
            options: thresholds, output, precision.
            watched: context manager around the first computation, for progress messages about compilation.

        Raises:
            CheckpointError: the file or folder is missing, truncated, damaged, foreign or of a newer format.
            FlashError: the thresholds do not match the labels, or the model cannot predict.
            MissingExtraError: the model needs a package that is not installed.
            RemoteCodeError: the model needs Python code that is not trusted, or that has moved.
        """
        path = Path(path)
        predictor = Predictor.load(
            path, precision=options.precision, trust_remote_code=options.trust_remote_code
        )
        if sentence := getattr(predictor.backbone, "precision_sentence", ""):
            logs.event(logging.INFO, sentence)
        if isinstance(predictor.backbone, Linear):
            # copy the memory-mapped arrays: overwriting the file would change them under a running server
            arrays = predictor.backbone.arrays().items()
            predictor.backbone.load_arrays({name: array.copy() for name, array in arrays})
        with nullcontext() if watched is None else watched(predictor):
            return cls._ready(predictor, path.name.removesuffix(".pt"), path, options)

    @classmethod
    def of(cls, predictor: Predictor, options: ServeOptions, name: str = "model") -> "ServedModel":
        """Wrap a predictor in memory, and warm it up.

        Raises:
            FlashError: the thresholds do not match the labels, or the model cannot predict.
        """
        return cls._ready(predictor, name, None, options)

    @classmethod
    def _ready(
        cls, predictor: Predictor, name: str, path: Path | None, options: ServeOptions
    ) -> "ServedModel":
        thresholds = resolve_thresholds(options.thresholds, predictor.labels, predictor.thresholds)
        model = cls(predictor, name, path, thresholds)
        several = len(predictor.input_fields or ("",))
        texts = [SEPARATOR.join([text] * several) for text in WARM_UP]
        outputs = model.outputs(model.scores(texts), options.output)  # a model that cannot predict fails here
        try:
            to_json(outputs)
        except PydanticSerializationError as error:
            raise FlashError(
                f"output gives what JSON has no form for ({error}); give numbers, texts, lists, dicts"
            ) from error
        return model

    @property
    def backbone(self) -> str:
        """Kind of backbone: "linear", "onnx" or "encoder"."""
        kind = type(self.predictor.backbone).__name__
        return {"Linear": "linear", "OnnxBackbone": "onnx"}.get(kind, "encoder")

    @property
    def max_length(self) -> int | None:
        """Number of tokens that are read per text; None for all."""
        return self._most_tokens if self._cuts else None

    def scores(self, texts: Sequence[str]) -> Scores:
        """Compute the scores of N texts; not thread-safe.

        Raises:
            DataError: a text contains half a surrogate pair.
            FlashError: a logit is not a number.
        """
        logits = self.predictor.logits(list(texts))
        return Scores(self, logits, to_probabilities(logits, self.multi_label))

    def costs(self, texts: Sequence[str]) -> list[int]:
        """Estimate the number of tokens of each text."""
        most = self._most_tokens if self._cuts and self._most_tokens else 2**31
        return [min(len(text) // CHARACTERS_PER_TOKEN + 2, most) for text in texts]

    def cut(self, texts: Sequence[str]) -> list[int]:
        """Return the indices, ascending, of the texts that would be truncated."""
        if not self._cuts or not texts:
            return []
        from flash.text.classification.batching import tokenize

        array = text_array(list(texts), "texts")
        rows = tokenize(array, self._tokenizer, max_length=self._most_tokens or 1, long_text="window")
        many: list[int] = np.flatnonzero(np.bincount(rows.owner, minlength=len(texts)) > 1).tolist()
        return many

    def outputs(self, scores: Scores, output: Any) -> list[Any]:
        """Return one JSON value per text for Flash's clients, in the form of `ServeOptions.output`."""
        if output == SCORES:
            return [dict(zip(self.labels, row, strict=True)) for row in scores.probabilities.tolist()]
        made = convert(
            scores.logits,
            output,
            labels=self.labels,
            multi_label=self.multi_label,
            thresholds=self.thresholds,
        )
        values = list(made.tolist() if hasattr(made, "tolist") else made)
        if len(values) != len(scores.logits):
            raise FlashError(
                f"output gave {len(values)} values for {len(scores.logits)} texts; expected one per text, in their order"
            )
        return values

    def decided(self, probabilities: Floats, thresholds: Floats | None = None) -> NDArray[np.bool_]:
        """Return (N, L): whether a label applies, by its threshold or, with exclusive labels, as the most probable one.

        Args:
            probabilities: (N, L).
            thresholds: (L,), replace the thresholds in use.
        """
        if self.multi_label:
            return applies(probabilities, self.thresholds if thresholds is None else thresholds)
        best = np.zeros(probabilities.shape, np.bool_)
        best[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
        return best
