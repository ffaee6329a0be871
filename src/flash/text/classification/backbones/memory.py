"""Turn out-of-memory errors into advice."""

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
"""Phrases in the RuntimeErrors with which device libraries report that memory ran out."""


@dataclass(frozen=True, eq=False)
class Work:
    """A batch that is being computed.

    Attributes:
        tokens: all token rows.
        rows: (B,) the rows of the batch.
        device: the device.
        accumulated: number of batches per training step; 0 outside training.
        batch_size: the user's batch size in training, the maximum number of rows computed at once.
    """

    tokens: "TokenRows"
    rows: np.ndarray
    device: torch.device
    accumulated: int = 0
    batch_size: int = 0

    def too_much(self) -> str:
        """Return the error message with advice."""
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
        """Halve the user's batch size until it is below this batch; return it and the matching accumulation."""
        fewer, steps = max(self.batch_size // 2, 1), 2 * self.accumulated
        while fewer >= len(self.rows):
            fewer, steps = fewer // 2, 2 * steps
        return fewer, steps


class Worker(Protocol):
    """An object that keeps its current batch."""

    at_hand: Work | None


@contextmanager
def memory_explained(worker: Worker) -> Iterator[None]:
    """Turn an out-of-memory error in this block into advice about the current batch.

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
    """Whether an error of Python, NumPy, torch or a device library means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
