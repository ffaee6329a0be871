"""Rows of tokens through an encoder in parts that fit into memory, however long a text is.

Imports torch; of the project an encoder's batches and its memory.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from flash.text.classification.backbones.encoder.model import Encoder
from flash.text.classification.backbones.memory import Work, Worker, is_out_of_memory
from flash.text.classification.batching import TokenRows, cheapest_batches

OVERHEAD, OVERHEAD_ELSEWHERE = 32, 4_096
"""What a batch costs beside its tokens, in tokens: of MiniLM on a processor, and on a GPU, which it hardly fills."""


def batches_of(encoder: Encoder, tokens: TokenRows, most: int) -> list[np.ndarray]:
    """Which rows to compute together, at most so many, so that little of it is padding; the longest first."""
    on_processor = encoder.head.weight.device.type == "cpu"
    return cheapest_batches(tokens.lengths, most, OVERHEAD if on_processor else OVERHEAD_ELSEWHERE)


def features_of(
    encoder: Encoder, tokens: TokenRows, batches: Sequence[np.ndarray], worker: Worker
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Rows, and their features (B, H), until all batches are done.

    No row depends on the others, so that a batch for which there is not enough memory is halved, and those after it
    are no larger. One row that is too large is the caller's to explain.

    Args:
        encoder: in evaluation mode.
        tokens: all rows.
        batches: which rows to compute together, at most.
        worker: what is told of the batch at hand.
    """
    device = encoder.head.weight.device
    waiting, most = list(reversed(batches)), len(tokens)
    while waiting:
        rows = waiting.pop()
        if len(rows) > most:
            waiting.append(rows[most:])
            rows = rows[:most]
        worker.at_hand = Work(tokens, rows, device)
        features = _features(encoder, tokens, rows, device)
        if features is not None:
            yield rows, features
        else:
            waiting.append(rows)
            most = len(rows) // 2


def _features(
    encoder: Encoder, tokens: TokenRows, rows: np.ndarray, device: torch.device
) -> torch.Tensor | None:
    """None where memory is too small for so many."""
    try:
        ids, mask = tokens.batch(rows)
        return encoder.features(ids.to(device), mask.to(device))
    except (MemoryError, RuntimeError) as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
        return None


def training_logits(
    encoder: Encoder, tokens: TokenRows, rows: np.ndarray, most: int, device: torch.device
) -> torch.Tensor:
    """(R, L) logits of rows, with gradients.

    A text of more windows than a batch has rows goes through in parts of which only the logits are kept: each is
    computed once more, with the same dropout, when its gradients are. These are those of all rows at once.

    Args:
        encoder: in training mode.
        tokens: all rows.
        rows: (R,) those to compute.
        most: how many rows at a time.
        device: where.
    """
    parts = [tokens.batch(rows[start : start + most]) for start in range(0, len(rows), most)]
    placed = [(ids.to(device), mask.to(device)) for ids, mask in parts]
    if len(placed) == 1:
        logits: torch.Tensor = encoder(*placed[0])
        return logits
    return torch.cat([cast(Any, checkpoint)(encoder, *part, use_reentrant=False) for part in placed])
