"""The interface between `TextClassifier` and its backbone: scores, training, and the content of a model file."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from flash.text.classification.backbones.linear.features import Texts
from flash.text.classification.backbones.memory import Work

if TYPE_CHECKING:
    import lightning.pytorch as pl


class TrainingRows(Protocol):
    """The training rows."""

    @property
    def texts(self) -> Any:
        """N texts, an Arrow array."""

    @property
    def targets(self) -> Any:
        """(N, L), sparse, NaN for an unknown target."""

    def __len__(self) -> int:
        """Number of rows."""


class Classifier(Protocol):
    """The interface of the classifier for its backbone: a LightningModule with labels and the user's options."""

    labels: list[str]
    multi_label: bool
    loss_fn: Any
    optimizer: Any
    lr_scheduler: Any
    learning_rate: float | None

    @property
    def trainer(self) -> Any:
        """Lightning's trainer, while it runs."""

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""

    @property
    def current_epoch(self) -> int:
        """The epoch, from 0."""

    @property
    def global_rank(self) -> int:
        """The rank of this process."""

    @property
    def log(self) -> Any:
        """See `LightningModule.log`."""

    @property
    def optimizers(self) -> Any:
        """See `LightningModule.optimizers`."""

    @property
    def take_held_out(self) -> Callable[[np.ndarray, Any, np.ndarray], None]:
        """Calibrate and tune thresholds on scores (N, L), targets and lengths of rows that were not used for fitting."""


class BackboneModule(nn.Module, ABC):
    """Base class of backbones in Lightning's loops; the classifier passes its hooks on to it.

    Attributes:
        name: the argument of `TextClassifier(backbone=...)`.
        margins: returns (B, L) float32 scores of B texts, before calibration; texts do not influence each other.
        automatic_optimization: whether Lightning steps the optimizer with the loss that `training_step` returns.
        one_device: whether it can only train on one device.
        minds_length: whether a batch takes as long as if all its texts were as long as the longest.
        loss: the loss of the last training, if it is a function of logits and targets.
        at_hand: the current batch, for out-of-memory messages.
    """

    name: str
    margins: Callable[[Texts], np.ndarray]
    automatic_optimization: bool
    one_device: bool
    minds_length: bool = False
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    at_hand: Work | None = None

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether the weights for the labels were trained, here or elsewhere."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return its options, as plain values."""

    def margins_of_many(self, texts: Texts, batch_size: int) -> np.ndarray:
        """Return `margins` of the texts of several batches of `batch_size` texts."""
        return self.margins(texts)

    def take_labels(self, labels: list[str]) -> bool:
        """Set the label names, after it was created for a number of labels; return whether its weights changed."""
        return False

    def content(self) -> dict[str, Any]:
        """Return further content of a model file, as plain values."""
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return tensors that replace parts of its state in a model file, independent of the trainer's precision."""
        return {}

    @abstractmethod
    def before_fit(self, model: Classifier, trainer: "pl.Trainer") -> None:
        """Check the user's settings, and prepare the training."""

    def after_fit(self) -> None:
        """Clean up after training, also after a failure."""

    @abstractmethod
    def train_batches(self, model: Classifier, dataset: TrainingRows, seed: int) -> Iterable[Any]:
        """Return the iterable of an epoch's batches."""

    @abstractmethod
    def configure_optimizers(self, model: Classifier) -> Any:
        """See `LightningModule.configure_optimizers`."""

    @abstractmethod
    def training_step(self, model: Classifier, batch: Any) -> torch.Tensor | None:
        """See `LightningModule.training_step`."""

    def check_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """Check gradients before a step, if the trainer clips them itself."""

    def clip_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """Clip gradients before a step, if the trainer was given no `gradient_clip_val`."""

    def on_train_epoch_end(self, model: Classifier) -> None:
        """See `LightningModule.on_train_epoch_end`."""

    @abstractmethod
    def why_unmeasured(self, model: Classifier) -> tuple[str, str]:
        """After training without validation, say why there are no scores, and what could be passed beside `val_split=`.

        The second is part of a sentence, and may be empty.
        """

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters from the first layer to the head, for finetuning; empty if it has no gradients."""
        return []

    def halved(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Convert its part of a state for a model file in half precision."""
        return half_precision(state)

    def resume(self, settings: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Restore the state of a checkpoint's training, apart from weights."""


def half_precision(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert floating-point tensors of a state to float16: half the size of float32, 11 bits of precision.

    Tensors that share memory still do so afterwards. Single numbers stay unchanged, and so do tensors with values
    beyond float16's range, which ends at 65,504.
    """

    def halved(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() <= 1:
            return tensor
        half = tensor.detach().to(torch.float16)
        return half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor

    return _converted(state, halved)


def known_to_numpy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert floating-point types that NumPy does not have, such as bfloat16, to float32, which is exact.

    Tensors that share memory still do so afterwards.
    """
    known = (torch.float16, torch.float32, torch.float64)

    def widened(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().float() if tensor.is_floating_point() and tensor.dtype not in known else tensor

    return _converted(state, widened)


def _converted(
    state: dict[str, torch.Tensor], convert: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Apply `convert` to each tensor, once for tensors that share memory."""
    made: dict[Any, torch.Tensor] = {}

    def once(tensor: torch.Tensor) -> torch.Tensor:
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if place not in made:
            made[place] = convert(tensor)
        return made[place]

    return {name: once(tensor) if tensor.numel() else convert(tensor) for name, tensor in state.items()}


def first_misfit(error: BaseException) -> str:
    """Return the first problem in torch's message about a state that does not fit."""
    heading, *found = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return (found or [heading])[0][:200].rstrip(". ")
