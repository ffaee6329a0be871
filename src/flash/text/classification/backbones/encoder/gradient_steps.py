"""Steps of gradient descent: how much a batch counts in one, and which is not taken as its numbers are broken.

Imports torch, and errors of the project; Lightning only where a fit begins.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from flash.core.errors import BrokenStepError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def accumulation(trainer: "Trainer") -> dict[int, int]:
    """How many batches a step takes, by the epoch from which on it does."""
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            return dict(callback.scheduling)
    return {0: trainer.accumulate_grad_batches}


def accumulated_in(epoch: int, schedule: Mapping[int, int]) -> int:
    """How many batches a step of an epoch takes.

    >>> [accumulated_in(epoch, {0: 1, 2: 4}) for epoch in range(4)]
    [1, 1, 4, 4]
    """
    return schedule[max(first for first in schedule if first <= epoch)]


def share_of_step(index: int, batches: float, accumulated: int) -> float:
    """By what a batch's loss is multiplied so that its step follows the mean over the step's batches.

    Lightning divides each loss by `accumulated`, also those of an epoch's last step, which may have fewer.

    Args:
        index: which of the epoch's batches it is, from 0.
        batches: how many the epoch has.
        accumulated: how many a step takes.

    >>> [share_of_step(index, 5, 3) for index in range(5)]
    [1.0, 1.0, 1.0, 1.5, 1.5]
    """
    first = index - index % accumulated
    return accumulated / min(accumulated, batches - first)


def scaler_of(trainer: "Trainer") -> Any:
    """What keeps gradients of 16 bits from vanishing, and takes no step with broken ones; None where nothing does."""
    return getattr(trainer.precision_plugin, "scaler", None)


def gradients_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Those that a step would be taken with."""
    return [
        each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None
    ]


class Broken:
    """Tells of losses and gradients that are no numbers before a step is taken with them.

    Where asking for a number would keep a GPU waiting, or one of several processes would stop alone, the loss waits
    for the gradients, which it breaks too, and which are the same in all processes.
    """

    def __init__(self) -> None:
        self._loss: torch.Tensor | None = None  # the step's first that is no number, else its last

    def see_loss(self, loss: torch.Tensor, step: int, *, now: bool) -> None:
        """Look at a batch's loss now, or let it wait.

        Raises:
            BrokenStepError: it is no number.
        """
        loss = loss.detach()
        if not now:
            earlier = self._loss
            self._loss = loss if earlier is None else torch.where(earlier.isfinite(), loss, earlier)
        elif not torch.isfinite(loss):
            raise _broken_loss(loss, step)

    def see_gradients(
        self, norm: torch.Tensor, gradients: Sequence[torch.Tensor], step: int, *, alone: bool
    ) -> None:
        """Look at what a step would be taken with.

        Args:
            norm: of all gradients.
            gradients: all of them, looked at only if the norm is no number, as it may merely be too large for one.
            step: the trainer's count.
            alone: whether there is one process, which may stop for the loss that waited, too.

        Raises:
            BrokenStepError: some of it is no number.
        """
        loss, self._loss = self._loss, None
        fine = norm.isfinite()
        if loss is not None and alone:
            fine = fine & loss.isfinite().to(fine.device)
        if fine:
            return
        if loss is not None and not loss.isfinite():
            raise _broken_loss(loss, step)
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise BrokenStepError(
                f"some gradients are no numbers at step {step}, though the loss is one; pass a smaller learning_rate=, "
                "precision='32-true' to the trainer if it has another, and look at loss_fn= if it is your own: where "
                "its value is a number, its slope may be none"
            )

    def forget(self) -> None:
        """Begin anew, with no loss that waits."""
        self._loss = None


def _broken_loss(loss: torch.Tensor, step: int) -> BrokenStepError:
    return BrokenStepError(
        f"the loss is {loss.item()} at step {step}; pass a smaller learning_rate=, or gradient_clip_val=0.1 to the "
        "trainer, where 1.0 is usual"
    )
