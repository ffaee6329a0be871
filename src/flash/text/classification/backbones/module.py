"""What `TextClassifier` asks of a backbone: scores of texts, how it is trained, and what a file has to hold of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from flash.text.classification.backbones.features import Texts

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from flash.text.classification.data import TextDataset
    from flash.text.classification.model import TextClassifier


class BackboneModule(nn.Module, ABC):
    """A backbone as Lightning's loops see it; the classifier around it hands each of its hooks on.

    Attributes:
        name: what `TextClassifier(backbone=...)` was given.
        margins: (B, L) float32 scores of B texts, before calibration; no text's depend on the others.
        automatic_optimization: whether Lightning steps the optimiser by the loss that `training_step` returns.
        one_device: whether it refuses a trainer with several.
        loss: what the last training minimised, where that is a function of logits and targets.
    """

    name: str
    margins: Callable[[Texts], np.ndarray]
    automatic_optimization: bool
    one_device: bool
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The options that it was made with, as plain values."""

    def content(self) -> dict[str, Any]:
        """What else a model file needs to hold, as plain values."""
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What stands for its own part of the state in a model file, whatever a trainer's precision has made of it."""
        return {}

    @abstractmethod
    def before_fit(self, model: "TextClassifier", trainer: "pl.Trainer") -> None:
        """Look at the user's settings before Lightning does."""

    @abstractmethod
    def train_batches(self, model: "TextClassifier", dataset: "TextDataset", seed: int) -> Iterable[Any]:
        """What an epoch iterates over."""

    @abstractmethod
    def configure_optimizers(self, model: "TextClassifier") -> Any:
        """As Lightning's hook of that name."""

    @abstractmethod
    def training_step(self, model: "TextClassifier", batch: Any) -> torch.Tensor | None:
        """As Lightning's hook of that name."""

    def on_train_epoch_end(self, model: "TextClassifier") -> None:
        """As Lightning's hook of that name."""

    @abstractmethod
    def why_unmeasured(self, model: "TextClassifier") -> tuple[str, str]:
        """Of a fit without validation: why there are no scores of its own either, and what to pass but `val_split=`.

        The second is a part of a sentence, and may be empty.
        """

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters from the first layer to the head, for finetuning strategies; none where there is no gradient."""
        return []

    def resume(self, settings: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Take up what the run of a checkpoint has found so far, beside weights."""
