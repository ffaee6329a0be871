"""The rank of this process, read from the launcher's environment variables. Imports the standard library only.

torchrun, Lightning and SLURM start one process per device; only the first one prints and writes.
"""

import os
from collections.abc import Mapping

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Variables of torchrun, Lightning and SLURM, in Lightning's order of precedence."""


def rank(environment: Mapping[str, str] | None = None) -> int:
    """The rank of this process; 0 if it is the only one."""
    found = os.environ if environment is None else environment
    return next((int(found[name]) for name in RANKS if found.get(name, "").isdigit()), 0)


def local_rank(environment: Mapping[str, str] | None = None) -> int:
    """The rank of this process on its machine."""
    found = os.environ if environment is None else environment
    return int(found["LOCAL_RANK"]) if found.get("LOCAL_RANK", "").isdigit() else rank(found)


def torchrun_arguments(environment: Mapping[str, str] | None = None) -> dict[str, int | str]:
    """Trainer arguments that use all processes of torchrun; empty if it started fewer than two.

    >>> torchrun_arguments({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    {'devices': 2, 'num_nodes': 2, 'strategy': 'ddp'}
    """
    found = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" not in found:
        return {}
    world, local = int(found.get("WORLD_SIZE", 1)), int(found.get("LOCAL_WORLD_SIZE", 1))
    return {} if world < 2 else {"devices": local, "num_nodes": world // local, "strategy": "ddp"}
