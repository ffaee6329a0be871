"""Run token rows through an encoder in batches that fit into memory, however long the texts are."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from flash.text.classification.backbones.encoder.model import Encoder
from flash.text.classification.backbones.memory import Work, Worker, is_out_of_memory
from flash.text.classification.batching import TokenRows, cheapest_batches

OVERHEAD, OVERHEAD_ELSEWHERE = 32, 4_096
"""Fixed cost of a batch, in tokens, with MiniLM: on a CPU, and on a GPU, which a batch hardly fills."""


def batches_of(encoder: Encoder, tokens: TokenRows, most: int) -> list[np.ndarray]:
    """Group rows into batches of at most `most`, with little padding, the longest rows first."""
    on_processor = encoder.head.weight.device.type == "cpu"
    return cheapest_batches(tokens.lengths, most, OVERHEAD if on_processor else OVERHEAD_ELSEWHERE)


def features_of(
    encoder: Encoder, tokens: TokenRows, batches: Sequence[np.ndarray], worker: Worker
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield rows and their features (B, H), until all batches are done.

    Rows are independent of each other. If a batch does not fit into memory, it is halved, and so are larger batches
    after it. An error for a single row is raised.

    Args:
        encoder: in evaluation mode.
        tokens: all token rows.
        batches: rows to compute together; they may be divided.
        worker: gets the current batch, for out-of-memory messages.
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
    """Compute the features of a batch; None if several rows do not fit into memory."""
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
    """Return (R, L) logits of rows, with gradients.

    If a text has more windows than a batch has rows, the rows are computed in parts with gradient checkpointing: each
    part is computed again, with the same dropout, in the backward pass. The gradients equal those of a single pass.

    Args:
        encoder: in training mode.
        tokens: all token rows.
        rows: (R,) the rows to compute.
        most: maximum number of rows at a time.
        device: the device.
    """
    parts = [tokens.batch(rows[start : start + most]) for start in range(0, len(rows), most)]
    placed = [(ids.to(device), mask.to(device)) for ids, mask in parts]
    if len(placed) == 1:
        logits: torch.Tensor = encoder(*placed[0])
        return logits
    return torch.cat([cast(Any, checkpoint)(encoder, *part, use_reentrant=False) for part in placed])
