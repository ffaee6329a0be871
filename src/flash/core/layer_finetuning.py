"""Freeze layers at the start of a fit and unfreeze them at the epochs of the finetuning strategy.

Imports Lightning, and of the project only errors and strategies.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from flash.core.errors import FlashError
from flash.core.finetuning import FinetuningStrategy


def frozen_layers(strategy: FinetuningStrategy, epoch: int, layers: int) -> int:
    """The number of layers, counted from the embeddings, that are frozen in this epoch (from 0); never the head.

    >>> [frozen_layers(FinetuningStrategy("unfreeze_milestones", (1, 3), 2), epoch, 8) for epoch in range(4)]
    [7, 5, 5, 0]
    """
    backbone = max(layers - 1, 0)
    match strategy:
        case FinetuningStrategy("freeze"):
            return backbone
        case FinetuningStrategy("freeze_unfreeze", (at,)):
            return backbone if epoch < at else 0
        case FinetuningStrategy("unfreeze_milestones", (first, second), last):
            return backbone if epoch < first else max(backbone - last, 0) if epoch < second else 0
    return 0


class LayerFinetuning(BaseFinetuning):
    """Freezes and unfreezes the layers of a model by a named strategy.

    The model's `layers() -> list[list[nn.Parameter]]` has the embeddings first and the head last. All parameters are in
    the optimizer from the start: one without a gradient is neither updated nor decayed. So there is one schedule, and the
    frozen layers depend only on the epoch: no state is in the checkpoint, and a run resumed even in the middle of an
    epoch continues unchanged. After the fit, parameters are unfrozen again.

    A module whose parameters are all frozen is in evaluation mode, without dropout, during training epochs. Dropout
    outside such modules stays on. A model that caches the features of a frozen backbone reads `epochs_frozen` to know
    how long they are valid.

    With DDP, this callback averages the gradients of layers that were frozen when DDP was set up.
    """

    def __init__(self, strategy: FinetuningStrategy) -> None:
        super().__init__()
        self.strategy = strategy
        self._frozen: list[nn.Parameter] = []
        self._resting: list[nn.Module] = []
        self._joined_frozen: list[nn.Parameter] = []

    @property
    def epochs_frozen(self) -> float:
        """The number of initial epochs in which only the head trains; infinite with `"freeze"`."""
        if self.strategy.name == "freeze":
            return float("inf")
        return self.strategy.epochs[0] if self.strategy.epochs else 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Freeze before the optimizer and DDP are set up; not for a test or a prediction."""
        if stage != "fit":
            return
        if trainer.world_size > 1 and self.strategy.epochs and not isinstance(trainer.strategy, DDPStrategy):
            raise FlashError(
                f"the finetuning strategy {self.strategy.name!r} works on several devices with strategy='ddp' only, "
                f"and the trainer's is {type(trainer.strategy).__name__}; pass strategy='ddp', or choose 'no_freeze'"
            )
        super().setup(trainer, pl_module, stage)
        self._joined_frozen = list(self._frozen) if trainer.world_size > 1 else []

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        """Freeze the layers that do not train in the first epoch."""
        self._apply(pl_module, 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Apply the epoch of a run resumed in its middle, for which Lightning calls no epoch start."""
        self._apply(pl_module, trainer.current_epoch)
        self._rest(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Unfreeze the layers that train in this epoch."""
        self._apply(pl_module, trainer.current_epoch)
        self._rest(pl_module)

    def finetune_function(
        self, pl_module: pl.LightningModule, epoch: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """The same, for Lightning's `on_train_epoch_start`; the optimizer is unchanged."""
        self._apply(pl_module, epoch)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average the gradients that DDP ignores because their parameters were frozen at its setup.

        This precedes the optimizer step, so that the gradient scalers of all processes see a non-finite value.
        """
        gradients = [each.grad for each in self._joined_frozen if each.grad is not None]
        if gradients:
            joined = torch.cat(
                [gradient.flatten() for gradient in gradients]
            )  # one message for all parameters
            mean = trainer.strategy.reduce(joined, reduce_op="mean")
            parts = mean.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Unfreeze the model after a fit."""
        if stage == "fit":
            self._release()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Unfreeze the model after an interrupted fit."""
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the state follows from the epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Empty: the state follows from the epoch."""

    def _apply(self, pl_module: pl.LightningModule, epoch: int) -> None:
        """Set `requires_grad`; parameters that the user froze stay frozen."""
        layers = _layers(pl_module)
        count = frozen_layers(self.strategy, epoch, len(layers))
        kept = {
            id(parameter) for layer in layers[count:] for parameter in layer
        }  # tied parameters train if either layer does
        asked = {
            id(parameter): parameter
            for layer in layers[:count]
            for parameter in layer
            if id(parameter) not in kept
        }
        for parameter in self._frozen:
            if id(parameter) not in asked:
                parameter.requires_grad = True
        new = [parameter for parameter in asked.values() if parameter.requires_grad]
        for parameter in new:
            parameter.requires_grad = False
        self._frozen = [parameter for parameter in self._frozen if id(parameter) in asked] + new

    def _rest(self, pl_module: pl.LightningModule) -> None:
        """Set modules with only frozen parameters to evaluation mode, the others back to training mode."""
        for module in self._resting:
            module.training = True
        frozen = {id(parameter) for parameter in self._frozen}
        still = [
            module
            for module in pl_module.modules()
            if module is not pl_module
            and not any(parameter.requires_grad for parameter in module.parameters())
            and any(id(parameter) in frozen for parameter in module.parameters())
        ]
        self._resting = [part for module in still for part in module.modules() if part.training]
        for module in self._resting:
            module.training = False

    def _release(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad = True
        for module in self._resting:
            module.training = True
        self._frozen, self._resting, self._joined_frozen = [], [], []


def _layers(pl_module: pl.LightningModule) -> list[list[nn.Parameter]]:
    layers = getattr(pl_module, "layers", None)
    if not callable(layers):
        raise FlashError(
            f"{type(pl_module).__name__} has no layers to freeze; pass strategy='no_freeze', or a "
            "BaseFinetuning callback that knows this model"
        )
    return list(layers())


def add_strategy(trainer: pl.Trainer) -> None:
    """Add the callback of a trainer's strategy and remove that of an earlier fit; user callbacks stay.

    A callback given as the strategy that is already among the callbacks is not added again.
    """
    holder: Any = trainer
    callbacks: list[pl.Callback] = holder.callbacks
    callbacks[:] = [each for each in callbacks if each is not getattr(holder, "of_strategy", None)]
    strategy, holder.of_strategy = getattr(holder, "finetuning", None), None
    if isinstance(strategy, FinetuningStrategy) and strategy.name not in ("no_freeze", "lora"):
        holder.of_strategy = LayerFinetuning(strategy)
    elif isinstance(strategy, BaseFinetuning) and not any(each is strategy for each in callbacks):
        holder.of_strategy = strategy
    if holder.of_strategy is not None:
        callbacks.append(holder.of_strategy)


def has_finetuning_of_its_own(trainer: pl.Trainer) -> bool:
    """Whether a user's callback freezes layers; it adds unfrozen parameters to the optimizer itself."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(one, BaseFinetuning) and not isinstance(one, LayerFinetuning) for one in callbacks)
