"""What each of several processes takes of a batch, and how their finds are put together again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash.core.processes import all_gather, interleave, shard


@given(
    owner=st.lists(st.integers(0, 6), min_size=1, max_size=12).map(sorted),
    world=st.integers(1, 5),
    data=st.data(),
)
def test_shares_make_up_the_batch(owner: list[int], world: int, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.permutations(range(len(owner)))))
    losses = np.random.default_rng(0).random(7)  # one per text
    total, taken = 0.0, []
    for rank in range(world):
        mine, weight = shard(rows, np.array(owner), rank, world)
        texts = np.unique(np.array(owner)[mine])
        assert len(mine)
        total += losses[texts].mean() * weight / world
        if weight:
            taken.append(mine)
    assert sorted(np.concatenate(taken).tolist()) == sorted(rows.tolist())
    assert total == pytest.approx(losses[np.unique(owner)].mean())


@given(st.integers(1, 20), st.integers(1, 4))
def test_each_row_once_in_order(rows: int, world: int) -> None:
    each = -(-rows // world)
    dealt = np.resize(np.arange(rows), each * world)  # as torch's DistributedSampler fills up
    parts = [dealt[rank::world] for rank in range(world)]
    assert interleave(parts, rows).tolist() == list(range(rows))
    matrices = [np.stack([part, -part], axis=1) for part in parts]
    assert interleave(matrices, rows).tolist() == [[row, -row] for row in range(rows)]


def test_one_process_has_found_all() -> None:
    assert all_gather("found") == ["found"]
