"""Which of several processes this is, by the environments that launchers make."""

import pytest

from flash.core.launch import local_rank, rank, torchrun_arguments


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 0)),
        ({"RANK": "3", "LOCAL_RANK": "1"}, (3, 1)),
        ({"LOCAL_RANK": "1"}, (1, 1)),
        ({"SLURM_PROCID": "2"}, (2, 2)),
        ({"RANK": "", "SLURM_PROCID": "2"}, (2, 2)),
        ({"RANK": "first"}, (0, 0)),
        ({"RANK": "0", "SLURM_PROCID": "5"}, (0, 0)),
    ],
)
def test_ranks(environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert (rank(environment), local_rank(environment)) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"WORLD_SIZE": "4"}, {}),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1"}, {}),
        (
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
            {"devices": 2, "num_nodes": 1, "strategy": "ddp"},
        ),
        (
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"},
            {"devices": 2, "num_nodes": 3, "strategy": "ddp"},
        ),
    ],
)
def test_a_trainer_of_all_processes_of_torchrun(
    environment: dict[str, str], expected: dict[str, object]
) -> None:
    assert torchrun_arguments(environment) == expected
