"""Optimizer steps: gradient accumulation, and the guard against losses and gradients that are not finite."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from flash.core.errors import BrokenStepError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def accumulation(trainer: "Trainer") -> dict[int, int]:
    """Return the number of batches per step, by the epoch from which on it applies."""
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            return dict(callback.scheduling)
    return {0: trainer.accumulate_grad_batches}


def accumulated_in(epoch: int, schedule: Mapping[int, int]) -> int:
    """Return the number of batches per step in an epoch.

    >>> [accumulated_in(epoch, {0: 1, 2: 4}) for epoch in range(4)]
    [1, 1, 4, 4]
    """
    return schedule[max(first for first in schedule if first <= epoch)]


def share_of_step(index: int, batches: float, accumulated: int) -> float:
    """Return the factor for a batch's loss that makes a step's loss the mean over its batches.

    Lightning divides each loss by `accumulated`, also in an epoch's last step, which may have fewer batches.

    Args:
        index: index of the batch in the epoch, from 0.
        batches: number of batches in the epoch.
        accumulated: number of batches per step.

    >>> [share_of_step(index, 5, 3) for index in range(5)]
    [1.0, 1.0, 1.0, 1.5, 1.5]
    """
    first = index - index % accumulated
    return accumulated / min(accumulated, batches - first)


def scaler_of(trainer: "Trainer") -> Any:
    """Return the gradient scaler of float16 training, which also skips steps with non-finite gradients; None if unused."""
    return getattr(trainer.precision_plugin, "scaler", None)


def gradients_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the gradients of an optimizer's parameters."""
    return [
        each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None
    ]


class NonFiniteGuard:
    """Raises an error for losses and gradients that are not finite, before a step is taken with them.

    On a GPU, reading the loss would cost a synchronisation, and with several processes one would stop alone. There the
    loss is only checked together with the gradients, which are not finite either, and are equal in all processes.
    """

    def __init__(self) -> None:
        self._loss: torch.Tensor | None = (
            None  # pending: the step's first non-finite loss, else its last loss
        )

    def see_loss(self, loss: torch.Tensor, step: int, *, now: bool) -> None:
        """Check a batch's loss now, or keep it until the gradients are checked.

        Raises:
            BrokenStepError: the loss is not finite.
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
        """Check the gradients before a step.

        Args:
            norm: norm of all gradients.
            gradients: all gradients, only checked if the norm is not finite, since a norm may merely overflow.
            step: the trainer's step.
            alone: whether there is one process, which may also stop because of the pending loss.

        Raises:
            BrokenStepError: a gradient or the pending loss is not finite.
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
        """Reset the pending loss."""
        self._loss = None


def _broken_loss(loss: torch.Tensor, step: int) -> BrokenStepError:
    return BrokenStepError(
        f"the loss is {loss.item()} at step {step}; pass a smaller learning_rate=, or gradient_clip_val=0.1 to the "
        "trainer, where 1.0 is usual"
    )
