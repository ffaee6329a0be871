"""Several processes of one fit: what each takes of a batch, and what all of them have found.

Imports nothing of the project; torch only where there are several.
"""

from typing import Any

import numpy as np


def shard(rows: np.ndarray, owner: np.ndarray, rank: int, world: int) -> tuple[np.ndarray, float]:
    """A process's rows of a batch that all share, and the weight of its mean loss in the mean over processes.

    With these weights that mean is the mean over all texts of the batch, however many each process has. A process for
    which no text is left takes the first with weight 0, as all take part in each step.

    Args:
        rows: (B,) the batch.
        owner: (R,) which text each row is of; a text's rows stay together.
        rank: the process's number, from 0.
        world: how many there are.

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
    """What every process has found, in the order of their numbers; each calls this at the same place."""
    from torch import distributed

    if not distributed.is_initialized():
        return [found]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, found)
    return parts


def interleave(parts: list[np.ndarray], rows: int) -> np.ndarray:
    """(rows, ...) of what was dealt to processes in turn, some rows a second time to make their shares equal.

    >>> interleave([np.array([0, 2, 4]), np.array([1, 3, 0])], rows=5)
    array([0, 1, 2, 3, 4])
    """
    dealt = np.stack(parts, axis=1)
    whole: np.ndarray = dealt.reshape(-1, *dealt.shape[2:])[:rows]
    return whole
