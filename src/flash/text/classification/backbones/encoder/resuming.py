"""Resume training exactly, as if it had not been stopped. Imports numpy and torch only.

Lightning restores weights, optimizer, scheduler and counters from a checkpoint. The random generator's state is not
restored; instead, each training batch is seeded from the run's seed and the position of the batch in the run, so that
other random numbers and validation runs do not matter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

COUNTS = ("ready", "started", "processed", "completed")
"""Lightning's counters of batches: fetched, started, computed, and hooks completed."""
SEED_LIMIT = 1 << 62


def draw_seed() -> int:
    """Draw a run's seed from torch's random generator, so that it follows from the user's seed."""
    return int(torch.randint(SEED_LIMIT, ()))


@contextmanager
def seeded(device: torch.device, *place: int) -> Iterator[None]:
    """Seed torch's random generators by `place` in this block, and restore their state afterwards.

    Args:
        device: the device whose generator is seeded, beside the CPU's.
        place: the run's seed, epoch, batch and process, each from 0.
    """
    seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices, device_type="cuda"):
        if device.type == "cpu":  # torch.manual_seed is slower: it records a stack trace for other devices
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield


def epoch_of(loop: dict[str, Any]) -> int:
    """Return the current epoch, from 0, of a fit loop's state, or the next epoch if one has ended."""
    return int(loop.get("epoch_progress", {}).get("current", {}).get("processed", 0))


def rewind_to_last_step(loop: dict[str, Any], accumulated: int) -> int | None:
    """Rewind a fit loop's state to the last optimizer step; return the run's seed, if the state has one.

    A checkpoint does not contain gradients, so the batches that were accumulated after that step are computed again.

    Args:
        loop: Lightning's state of the fit loop, which is changed.
        accumulated: number of batches per step.
    """
    progress = loop.get("epoch_loop.batch_progress")
    if progress is not None:
        _to_last_step(progress, accumulated)
    states = loop.get("state_dict", {}).get("combined_loader") or [{}]
    seed = states[0].get("noise")  # the key of model files
    return seed if isinstance(seed, int) and 0 <= seed < SEED_LIMIT else None


def _to_last_step(progress: dict[str, Any], accumulated: int) -> None:
    current, total = progress["current"], progress["total"]
    done = current["processed"]
    # an epoch's last batch always ends with a step
    if not (progress["is_last_batch"] and done == current["ready"]):
        done -= done % accumulated
    if done == current["ready"]:
        return
    done_in_total = total["processed"] - current["processed"] + done
    current.update(dict.fromkeys(COUNTS, done))
    total.update(dict.fromkeys(COUNTS, done_in_total))
    progress["is_last_batch"] = False
