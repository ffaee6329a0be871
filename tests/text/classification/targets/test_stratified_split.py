"""The stratified split against the paper's pseudo-code, a random split, and brute force over group sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from flash.core.errors import FlashError
from flash.text.classification.targets.stratified_split import stratified_split, validation_quotas


def skewed_targets(rows: int, labels: int, seed: int) -> csr_array:
    """Labels from frequent to rare (about 1/rank), with rows that carry none."""
    rng = np.random.default_rng(seed)
    chance = 0.5 / np.arange(1, labels + 1)
    return csr_array((rng.random((rows, labels)) < chance).astype(np.float32))


def paper_split(targets: csr_array, share: float, seed: int) -> NDArray[np.int64]:
    """Algorithm 1 of Sechidis et al. (2011) for two folds, as written there; the rows of the second fold."""
    rng = np.random.default_rng(seed)
    positive = targets.toarray() >= 0.5
    remaining = set(range(positive.shape[0]))
    parts = np.array([1 - share, share])
    desired_rows = parts * positive.shape[0]
    desired = parts[:, None] * positive.sum(axis=0)
    second = []
    while remaining:
        rows = np.array(sorted(remaining))
        counts = positive[rows].sum(axis=0)
        label = int(np.argmin(np.where(counts > 0, counts, np.inf))) if counts.any() else None
        chosen = rows if label is None else rows[positive[rows, label]]
        for row in rng.permutation(chosen):
            wish = desired_rows if label is None else desired[:, label]
            best = np.flatnonzero(wish == wish.max())
            best = best[desired_rows[best] == desired_rows[best].max()]
            fold = rng.choice(best)
            desired[fold] -= positive[row]
            desired_rows[fold] -= 1
            remaining.discard(int(row))
            if fold == 1:
                second.append(int(row))
    return np.array(sorted(second), dtype=np.int64)


def deviation(targets: csr_array, rows: NDArray[np.int64]) -> float:
    """Mean over labels of |count - ideal count|."""
    ideal = targets.sum(axis=0) * (len(rows) / targets.shape[0])
    return float(np.abs(targets[rows].sum(axis=0) - ideal).mean())


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("seed", [0, 1])
def test_labels_keep_their_share_as_in_the_paper_and_better_than_at_random(share: float, seed: int) -> None:
    targets = skewed_targets(900, 40, seed)
    validation = stratified_split(targets, share, seed=seed)[1]
    rng = np.random.default_rng(seed)
    by_chance = [deviation(targets, rng.permutation(900)[: len(validation)]) for _ in range(20)]
    assert (
        deviation(targets, validation) <= 1.05 * deviation(targets, paper_split(targets, share, seed)) + 0.02
    )
    assert deviation(targets, validation) < 0.4 * np.mean(by_chance)
    assert deviation(targets, validation) < min(by_chance)


def test_a_worked_example_by_hand() -> None:
    # 4 rows of label a, 2 of b, 2 of neither: a half takes 2, 1 and 1.
    targets = csr_array(np.array([[1, 0]] * 4 + [[0, 1]] * 2 + [[0, 0]] * 2, dtype=np.float32))
    for seed in range(5):
        for side in stratified_split(targets, 0.5, seed=seed):
            assert targets[side].sum(axis=0).tolist() == [2, 1]
            assert len(side) == 4


def test_rare_labels_round_to_the_nearest_count() -> None:
    # Five disjoint labels with 10, 20, 30, 40 and 100 rows and no others: a tenth of each is a whole number.
    counts = [10, 20, 30, 40, 100]
    targets = csr_array(np.repeat(np.eye(5, dtype=np.float32), counts, axis=0))
    validation = stratified_split(targets, 0.1)[1]
    assert targets[validation].sum(axis=0).tolist() == [1, 2, 3, 4, 10]


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_every_label_frequent_enough_is_on_both_sides(share: float) -> None:
    targets = skewed_targets(2000, 60, 3)
    groups = np.arange(2000) // 2 * 2  # pairs of identical texts, so that a label's rows come in groups
    train, validation = stratified_split(targets, share, groups=groups)
    enough = np.flatnonzero(targets.sum(axis=0) * share >= 2)
    assert enough.size > 20
    assert (targets[train].sum(axis=0)[enough] > 0).all()
    assert (targets[validation].sum(axis=0)[enough] > 0).all()


def test_labels_too_rare_for_the_small_side_share_what_it_holds() -> None:
    # Half a row of each label belongs to the small side. Dealing alone gives some labels five of them.
    targets = csr_array(np.repeat(np.eye(200, dtype=np.float32), 5, axis=0))
    validation = stratified_split(targets, 100)[1]
    assert sorted(targets[validation].sum(axis=0).tolist()) == [0.0] * 100 + [1.0] * 100


def test_two_rows_of_a_label_take_both_sides_of_an_even_split() -> None:
    targets = csr_array(np.repeat(np.eye(30, dtype=np.float32), 2, axis=0))
    for side in stratified_split(targets, 0.5):
        assert targets[side].sum(axis=0).tolist() == [1.0] * 30


def test_rows_without_labels_are_balanced() -> None:
    targets = csr_array(
        np.repeat([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [100, 50, 850], axis=0).astype(np.float32)
    )
    validation = stratified_split(targets, 0.2)[1]
    assert (validation >= 150).sum() == 170


def test_no_labels_at_all_is_a_plain_seeded_split() -> None:
    targets = csr_array((100, 3), dtype=np.float32)
    validation = stratified_split(targets, 30)[1]
    assert len(validation) == 30
    assert validation.tolist() != list(range(30))
    assert len(stratified_split(csr_array((100, 0), dtype=np.float32), 0.3)[1]) == 30


def test_a_soft_target_counts_from_one_half() -> None:
    soft = np.repeat([[0.5, 0.49], [0.2, 0.9]], 10, axis=0).astype(np.float32)
    hard = (soft >= 0.5).astype(np.float32)
    from_soft, from_hard = (stratified_split(csr_array(values), 0.3)[1] for values in (soft, hard))
    assert from_soft.tolist() == from_hard.tolist()
    assert csr_array(hard)[from_soft].sum(axis=0).tolist() == [3, 3]


def test_a_label_stored_twice_in_a_row_counts_once() -> None:
    twice = csr_array((np.ones(20, np.float32), np.repeat([0, 1], 10), np.arange(0, 21, 2)), shape=(10, 2))
    once = csr_array(np.repeat(np.eye(2, dtype=np.float32), 5, axis=0))
    assert stratified_split(twice, 0.4)[1].tolist() == stratified_split(once, 0.4)[1].tolist()
    assert twice.nnz == 20  # the caller's matrix is left as it was


def test_the_seed_decides() -> None:
    targets = skewed_targets(300, 8, 0)
    first, again, other = (stratified_split(targets, 0.2, seed=seed)[1].tolist() for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("size", "rows", "expected"),
    [
        (0.1, 45, 4),
        (0.1, 100, 10),
        (0.001, 50, 1),
        (0.999, 50, 49),
        (7, 50, 7),
        (49, 50, 49),
        (np.int64(3), 9, 3),
    ],
)
def test_the_size_is_exact(size: float | int, rows: int, expected: int) -> None:
    train, validation = stratified_split(skewed_targets(rows, 5, 1), size)
    assert len(validation) == expected
    assert sorted([*train, *validation]) == list(range(rows))
    assert train.dtype == validation.dtype == np.int64


def nearest_sum(sizes: list[int], wanted: int) -> int:
    """By brute force: the size nearest to `wanted` that some set of whole groups has, the smaller of two."""
    sums = {0}
    for size in sizes:
        sums |= {size + smaller for smaller in sums}
    return min(sums - {0, sum(sizes)}, key=lambda total: (abs(total - wanted), total))


@settings(deadline=None, max_examples=150)
@given(data=st.data(), sizes=st.lists(st.integers(1, 12), min_size=2, max_size=12))
def test_identical_texts_stay_together_at_the_exact_or_nearest_size(
    data: st.DataObject, sizes: list[int]
) -> None:
    rows = sum(sizes)
    ids = data.draw(st.permutations(np.repeat(np.arange(len(sizes)) * 7 - 3, sizes).tolist()))
    cells = data.draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=rows, max_size=rows))
    wanted = data.draw(st.integers(1, rows - 1))
    groups = np.array(ids)
    train, validation = stratified_split(
        csr_array(np.array(cells, dtype=np.float32)), wanted, groups=groups, seed=data.draw(st.integers(0, 9))
    )
    assert sorted([*train, *validation]) == list(range(rows))
    assert train.tolist() == sorted(train)
    assert validation.tolist() == sorted(validation)
    assert set(groups[train]).isdisjoint(groups[validation])
    assert len(validation) == nearest_sum(sizes, wanted)


def test_quotas_give_each_group_size_its_share() -> None:
    sizes = np.repeat([50, 3, 2, 1], [1, 20, 40, 810])
    assert validation_quotas(sizes, 100) == {50: 0, 3: 2, 2: 4, 1: 86}


def test_large_groups_leave_labels_balanced() -> None:
    targets = skewed_targets(1000, 10, 4)
    groups = np.concatenate([np.zeros(60, np.int64), np.arange(1, 941) // 2])
    validation = stratified_split(targets, 0.2, groups=groups)[1]
    assert len(validation) == 200
    assert deviation(targets, validation) < 1.5


@pytest.mark.parametrize("size", [0, 1.0, -0.1, 5, 17, 1.5, float("nan"), True, "0.1"])
def test_a_size_out_of_range(size: float) -> None:
    with pytest.raises(
        FlashError, match=r"val_split=.* is out of range: expected a fraction .* from 1 to 4 \(there"
    ):
        stratified_split(skewed_targets(5, 2, 0), size)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(rows: int) -> None:
    with pytest.raises(FlashError, match=rf"needs at least 2 rows, found {rows}; .*val_file"):
        stratified_split(csr_array((rows, 2), dtype=np.float32), 0.5)


def test_one_group_only() -> None:
    with pytest.raises(
        FlashError, match=r"all 4 rows hold the same text, .* never land on both sides.*val_file"
    ):
        stratified_split(skewed_targets(4, 2, 0), 0.5, groups=np.full(4, 9))


def test_groups_of_another_length() -> None:
    with pytest.raises(FlashError, match=r"one number for each of the 4 rows, found shape \(3,\)"):
        stratified_split(skewed_targets(4, 2, 0), 0.5, groups=np.arange(3))
