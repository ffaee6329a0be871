"""What a finetuning strategy says, done: layers frozen at the start of a fit and unfrozen at their epochs.

Imports Lightning, and nothing of the project but errors and the strategies' names.
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
    """How many of the layers, counted from the embeddings on, do not train in this epoch (from 0); never the head.

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
    """Freezes and unfreezes the layers of a model that has `layers()`, as a strategy by name says.

    The model's `layers() -> list[list[nn.Parameter]]` has the embeddings first and the head last. All parameters
    belong in the optimiser from the start: one without a gradient is not updated, nor decayed. So there is one
    schedule, and which layers train follows from the epoch alone: nothing of it is in a checkpoint, and a resumed
    run, also one from the middle of an epoch, goes on as it was. After the fit, what was frozen here is as before.

    A module whose parameters are all frozen is in evaluation mode, without dropout, in the training epochs; that
    follows from the parameters, and the model has nothing to do for it. Dropout between modules, of a block that
    trains or of the model itself, stays on. A model that keeps the features of a frozen backbone asks
    `epochs_frozen` for how long they hold.

    With DDP, gradients of the layers that were frozen when the processes were joined are averaged here.
    """

    def __init__(self, strategy: FinetuningStrategy) -> None:
        super().__init__()
        self.strategy = strategy
        self._frozen: list[nn.Parameter] = []
        self._resting: list[nn.Module] = []
        self._joined_frozen: list[nn.Parameter] = []

    @property
    def epochs_frozen(self) -> float:
        """In how many epochs, from the first on, the head alone trains; infinite with `"freeze"`."""
        if self.strategy.name == "freeze":
            return float("inf")
        return self.strategy.epochs[0] if self.strategy.epochs else 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Freeze before the optimiser is made and the processes are joined; not for a test or a prediction."""
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
        """Freeze what the first epoch does not train."""
        self._apply(pl_module, 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As the epoch asks that a resumed run is in the middle of: Lightning does not start that one anew."""
        self._apply(pl_module, trainer.current_epoch)
        self._rest(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Unfreeze what this epoch trains."""
        self._apply(pl_module, trainer.current_epoch)
        self._rest(pl_module)

    def finetune_function(
        self, pl_module: pl.LightningModule, epoch: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """The same for Lightning, whose own `on_train_epoch_start` would call this; the optimiser stays as it is."""
        self._apply(pl_module, epoch)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average the gradients that DDP does not know of, since it looked for parameters when these were frozen.

        Earlier than at the optimiser's step, so that a number that is not finite is seen by all processes' scalers.
        """
        gradients = [each.grad for each in self._joined_frozen if each.grad is not None]
        if gradients:
            joined = torch.cat(
                [gradient.flatten() for gradient in gradients]
            )  # one message, not one a parameter
            mean = trainer.strategy.reduce(joined, reduce_op="mean")
            parts = mean.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """After a fit, leave the model as it came."""
        if stage == "fit":
            self._release()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """The same after one that was stopped."""
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the epoch says it all."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the epoch says it all."""

    def _apply(self, pl_module: pl.LightningModule, epoch: int) -> None:
        """Freeze and unfreeze by `requires_grad`; what the user froze stays frozen."""
        layers = _layers(pl_module)
        count = frozen_layers(self.strategy, epoch, len(layers))
        kept = {
            id(parameter) for layer in layers[count:] for parameter in layer
        }  # a tied one trains if either does
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
        """Evaluation mode for the modules that have nothing but frozen parameters, training mode for the others."""
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
    """Give a trainer what its strategy needs, in place of what an earlier fit's did; the user's callbacks stay.

    A callback that was given as the strategy and is the trainer's already is not there twice.
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
    """Whether layers freeze by a callback of the user's, which adds to the optimiser what it unfreezes."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(one, BaseFinetuning) and not isinstance(one, LayerFinetuning) for one in callbacks)
