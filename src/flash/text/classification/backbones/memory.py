"""Too little memory, told in a sentence with what to try. Imports torch, and errors of the project."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from flash.core.errors import FlashError

if TYPE_CHECKING:
    from flash.text.classification.batching import TokenRows

WORDS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
"""How the devices' own libraries speak of it, in errors of no kind of their own."""


@dataclass(frozen=True, eq=False)
class Work:
    """A batch that is being computed.

    Attributes:
        tokens: all rows.
        rows: (B,) those in the batch.
        device: where.
        accumulated: how many batches a training step takes; 0 where nothing is trained.
        batch_size: the user's, of a training; no more rows than that are computed at once.
    """

    tokens: "TokenRows"
    rows: np.ndarray
    device: torch.device
    accumulated: int = 0
    batch_size: int = 0

    def too_much(self) -> str:
        """The sentence."""
        rows, longest = len(self.rows), int(self.tokens.lengths[self.rows].max(initial=0))
        windows = len(self.tokens) > self.tokens.texts
        advice = ["a smaller max_length", "precision='bf16-mixed' to the trainer"]
        if windows:
            advice.insert(1, 'long_text="truncate"')
        if min(rows, self.batch_size) > 1:
            fewer, steps = self._fewer()
            same = fewer * steps == self.batch_size * self.accumulated and not windows
            advice.insert(
                0,
                f"batch_size={fewer} to the datamodule with accumulate_grad_batches={steps} to the trainer, which "
                f"learns {'the same' if same else 'nearly the same'}",
            )
        kind = "training batch" if self.accumulated else "batch to score"
        return (
            f"there is not enough memory on {self.device} for a {kind} of {rows} row{'s' * (rows != 1)}, the longest "
            f"of {longest} tokens; pass {', or '.join(advice)}"
        )

    def _fewer(self) -> tuple[int, int]:
        """The user's batch size halved until it is below this batch, and as many more batches a step."""
        fewer, steps = max(self.batch_size // 2, 1), 2 * self.accumulated
        while fewer >= len(self.rows):
            fewer, steps = fewer // 2, 2 * steps
        return fewer, steps


class Worker(Protocol):
    """What remembers the batch that it is at."""

    at_hand: Work | None


@contextmanager
def memory_explained(worker: Worker) -> Iterator[None]:
    """Raise the sentence of the batch at hand where memory runs out inside, and forget the batch.

    Raises:
        FlashError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if worker.at_hand is None or not is_out_of_memory(error):
            raise
        raise FlashError(worker.at_hand.too_much()) from error
    finally:
        worker.at_hand = None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how Python, numpy, torch or a device's library says so."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
