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
    """

    tokens: "TokenRows"
    rows: np.ndarray
    device: torch.device
    accumulated: int = 0

    def too_much(self) -> str:
        """The sentence."""
        rows, longest = len(self.rows), int(self.tokens.lengths[self.rows].max(initial=0))
        advice = ["a smaller max_length", "precision='bf16-mixed' to the trainer"]
        if rows > 1 and self.accumulated:
            advice.insert(
                0,
                f"batch_size={rows // 2} to the datamodule with accumulate_grad_batches={2 * self.accumulated} to the "
                "trainer, which learns the same",
            )
        elif rows > 1:
            advice.insert(0, f"fewer texts at a time, such as batch_size={rows // 2} to the datamodule")
        kind = "training batch" if self.accumulated else "batch to score"
        return (
            f"there is not enough memory on {self.device} for a {kind} of {rows} row{'s' * (rows != 1)}, the longest "
            f"of {longest} tokens; pass {', or '.join(advice)}"
        )


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
