"""What `TextClassifier` asks of a backbone: scores of texts, how it is trained, and what a file has to hold of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from flash.text.classification.backbones.features import Texts
from flash.text.classification.backbones.memory import Work

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
        at_hand: the batch that it is computing, where one may be too large for the memory.
    """

    name: str
    margins: Callable[[Texts], np.ndarray]
    automatic_optimization: bool
    one_device: bool
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    at_hand: Work | None = None

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

    def after_fit(self) -> None:
        """Leave behind what was there for the fit alone, also after one that failed."""

    @abstractmethod
    def train_batches(self, model: "TextClassifier", dataset: "TextDataset", seed: int) -> Iterable[Any]:
        """What an epoch iterates over."""

    @abstractmethod
    def configure_optimizers(self, model: "TextClassifier") -> Any:
        """As Lightning's hook of that name."""

    @abstractmethod
    def training_step(self, model: "TextClassifier", batch: Any) -> torch.Tensor | None:
        """As Lightning's hook of that name."""

    def clip_gradients(self, model: "TextClassifier", optimizer: torch.optim.Optimizer) -> None:
        """What to do to gradients before a step, where the trainer was given no `gradient_clip_val`."""

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

    def halved(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Its part of a state as a model file in half precision holds it."""
        return half_precision(state)

    def resume(self, settings: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Take up what the run of a checkpoint has found so far, beside weights."""


def half_precision(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state's tensors with float16 for other floating-point numbers: half the size of float32, 11 bits of precision.

    Tensors that share memory do so afterwards. Single numbers stay, and so does a tensor that has numbers beyond
    float16's range, which ends at 65,504.
    """
    halves: dict[Any, torch.Tensor] = {}

    def halved(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() <= 1:
            return tensor
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if place not in halves:
            half = tensor.detach().to(torch.float16)
            halves[place] = half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor
        return halves[place]

    return {name: halved(tensor) for name, tensor in state.items()}
