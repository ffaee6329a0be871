"""Shard batches across the processes of a fit, and gather their results.

Imports nothing of the project, and torch lazily.
"""

from typing import Any

import numpy as np


def shard(rows: np.ndarray, owner: np.ndarray, rank: int, world: int) -> tuple[np.ndarray, float]:
    """The shard of a batch for one process, and the weight of its mean loss in the mean over processes.

    With these weights, that mean is the mean over all texts of the batch, even if shards differ in size. A process
    without a text takes the first one with weight 0, because every process takes part in each step.

    Args:
        rows: (B,) the batch.
        owner: (R,) the text of each row; rows of one text stay together.
        rank: of the process, from 0.
        world: the number of processes.

    >>> shard(np.array([4, 2, 0]), np.arange(5), rank=1, world=2)
    (array([2]), 0.6666666666666666)
    """
    if world == 1:
        return rows, 1.0
    texts = np.unique(owner[rows])
    mine = texts[rank::world]
    weight = len(mine) * world / len(texts)
    return rows[np.isin(owner[rows], mine if len(mine) else texts[:1])], weight


def all_gather(found: Any) -> list[Any]:
    """All-gather: the objects of all processes, by rank; every process must call it."""
    from torch import distributed

    if not distributed.is_initialized():
        return [found]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, found)
    return parts


def interleave(parts: list[np.ndarray], rows: int) -> np.ndarray:
    """Interleave the shards of a round-robin sampler to (rows, ...), dropping its padding.

    >>> interleave([np.array([0, 2, 4]), np.array([1, 3, 0])], rows=5)
    array([0, 1, 2, 3, 4])
    """
    dealt = np.stack(parts, axis=1)
    whole: np.ndarray = dealt.reshape(-1, *dealt.shape[2:])[:rows]
    return whole
