"""Which of several processes this is, as their launcher told it in the environment. Imports the standard library.

torchrun, Lightning and SLURM start one process per device; what is said and written once is the first one's task.
"""

import os
from collections.abc import Mapping

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Of torchrun, of the processes that Lightning starts, and of SLURM: the order in which Lightning asks for them."""


def rank(environment: Mapping[str, str] | None = None) -> int:
    """This process's number, from 0, also where it is the only one."""
    found = os.environ if environment is None else environment
    return next((int(found[name]) for name in RANKS if found.get(name, "").isdigit()), 0)


def local_rank(environment: Mapping[str, str] | None = None) -> int:
    """This process's number on its machine, from 0."""
    found = os.environ if environment is None else environment
    return int(found["LOCAL_RANK"]) if found.get("LOCAL_RANK", "").isdigit() else rank(found)


def torchrun_arguments(environment: Mapping[str, str] | None = None) -> dict[str, int | str]:
    """The arguments of a trainer that uses all the processes of torchrun; none where it started fewer than two.

    >>> torchrun_arguments({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    {'devices': 2, 'num_nodes': 2, 'strategy': 'ddp'}
    """
    found = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" not in found:
        return {}
    world, local = int(found.get("WORLD_SIZE", 1)), int(found.get("LOCAL_WORLD_SIZE", 1))
    return {} if world < 2 else {"devices": local, "num_nodes": world // local, "strategy": "ddp"}
