"""What `TextClassifier` asks of a backbone: scores of texts, how it is trained, and what a file has to hold of it."""

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
    """The rows of a fit."""

    @property
    def texts(self) -> Any:
        """N texts, an Arrow array."""

    @property
    def targets(self) -> Any:
        """(N, L), sparse, NaN where one is not known."""

    def __len__(self) -> int:
        """How many."""


class Classifier(Protocol):
    """What a backbone asks of the classifier around it: a LightningModule with labels and the user's settings."""

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
        """Where its tensors are."""

    @property
    def current_epoch(self) -> int:
        """From 0."""

    @property
    def global_rank(self) -> int:
        """Which of several processes this is."""

    @property
    def log(self) -> Any:
        """As Lightning's method of that name."""

    @property
    def optimizers(self) -> Any:
        """As Lightning's method of that name."""

    @property
    def take_held_out(self) -> Callable[[np.ndarray, Any, np.ndarray], None]:
        """Calibrate and choose thresholds on the scores (N, L), targets and lengths of rows that no fit has seen."""


class BackboneModule(nn.Module, ABC):
    """A backbone as Lightning's loops see it; the classifier around it hands each of its hooks on.

    Attributes:
        name: what `TextClassifier(backbone=...)` was given.
        margins: (B, L) float32 scores of B texts, before calibration; no text's depend on the others.
        automatic_optimization: whether Lightning steps the optimiser by the loss that `training_step` returns.
        one_device: whether it refuses a trainer with several.
        minds_length: whether a batch takes as long as if all of its texts were as long as the longest.
        loss: what the last training minimised, where that is a function of logits and targets.
        at_hand: the batch that it is computing, where one may be too large for the memory.
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
        """Whether its weights for the labels were trained, here or elsewhere."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The options that it was made with, as plain values."""

    def margins_of_many(self, texts: Texts, batch_size: int) -> np.ndarray:
        """`margins` of the texts of several batches, which had `batch_size` texts each."""
        return self.margins(texts)

    def take_labels(self, labels: list[str]) -> bool:
        """Learn the names of the labels after it was made for their number; returns whether its weights changed."""
        return False

    def content(self) -> dict[str, Any]:
        """What else a model file needs to hold, as plain values."""
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What stands for its own part of the state in a model file, whatever a trainer's precision has made of it."""
        return {}

    @abstractmethod
    def before_fit(self, model: Classifier, trainer: "pl.Trainer") -> None:
        """Look at the user's settings before Lightning does."""

    def after_fit(self) -> None:
        """Leave behind what was there for the fit alone, also after one that failed."""

    @abstractmethod
    def train_batches(self, model: Classifier, dataset: TrainingRows, seed: int) -> Iterable[Any]:
        """What an epoch iterates over."""

    @abstractmethod
    def configure_optimizers(self, model: Classifier) -> Any:
        """As Lightning's hook of that name."""

    @abstractmethod
    def training_step(self, model: Classifier, batch: Any) -> torch.Tensor | None:
        """As Lightning's hook of that name."""

    def check_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """What to refuse of gradients before a step, where the trainer clips them by a number of its own."""

    def clip_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """What to do to gradients before a step, where the trainer was given no `gradient_clip_val`."""

    def on_train_epoch_end(self, model: Classifier) -> None:
        """As Lightning's hook of that name."""

    @abstractmethod
    def why_unmeasured(self, model: Classifier) -> tuple[str, str]:
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

    def halved(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.numel() <= 1:
            return tensor
        half = tensor.detach().to(torch.float16)
        return half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor

    return _converted(state, halved)


def known_to_numpy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state's tensors with float32 for bfloat16 and other floating-point numbers of torch alone, which it holds exactly.

    Tensors that share memory do so afterwards.
    """
    known = (torch.float16, torch.float32, torch.float64)

    def widened(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().float() if tensor.is_floating_point() and tensor.dtype not in known else tensor

    return _converted(state, widened)


def _converted(
    state: dict[str, torch.Tensor], convert: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What `convert` makes of each tensor, the same for those that share memory."""
    made: dict[Any, torch.Tensor] = {}

    def once(tensor: torch.Tensor) -> torch.Tensor:
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if place not in made:
            made[place] = convert(tensor)
        return made[place]

    return {name: once(tensor) if tensor.numel() else convert(tensor) for name, tensor in state.items()}


def first_misfit(error: BaseException) -> str:
    """The first thing that torch found to be wrong as it loaded a state, without its heading."""
    heading, *found = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return (found or [heading])[0][:200].rstrip(". ")
