"""What lets a gradient descent that was stopped go on as if it had not been. Imports numpy and torch alone.

Lightning brings weights, optimiser, schedule and counters back from a checkpoint. Random numbers are not brought back
but made anew: those of a training batch follow from one number of the run and from where in the run the batch stands,
so that it is no matter what else has drawn numbers, or how often validation was run, before and after.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

COUNTS = ("ready", "started", "processed", "completed")
"""Lightning's counters of a batch: fetched, begun, computed, and its hooks run."""
MOST_NOISE = 1 << 62


def draw_noise() -> int:
    """A number of a run, from torch's random numbers, so that the user's seed decides."""
    return int(torch.randint(MOST_NOISE, ()))


@contextmanager
def noise_of(device: torch.device, *place: int) -> Iterator[None]:
    """Inside, torch's random numbers follow from `place` alone; afterwards they go on as if nothing were drawn.

    Args:
        device: whose numbers, beside the processor's.
        place: the run's number, epoch, batch and process, each from 0.
    """
    seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices, device_type="cuda"):
        if device.type == "cpu":  # for all other devices torch would note a stack trace each time
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield


def epoch_of(loop: dict[str, Any]) -> int:
    """The epoch, from 0, that a fit loop's state is in, or which is next where one had ended."""
    return int(loop.get("epoch_progress", {}).get("current", {}).get("processed", 0))


def take_up(loop: dict[str, Any], accumulated: int) -> int | None:
    """Let a fit loop's state go on after the last step that was taken; returns the run's number, where it has one.

    A checkpoint holds no gradients, so what was accumulated after that step is computed once more.

    Args:
        loop: Lightning's state of the fit loop, which is changed.
        accumulated: how many batches a step takes.
    """
    progress = loop.get("epoch_loop.batch_progress")
    if progress is not None:
        _to_last_step(progress, accumulated)
    states = loop.get("state_dict", {}).get("combined_loader") or [{}]
    noise = states[0].get("noise")
    return noise if isinstance(noise, int) and 0 <= noise < MOST_NOISE else None


def _to_last_step(progress: dict[str, Any], accumulated: int) -> None:
    current, total = progress["current"], progress["total"]
    done = current["processed"]
    if not (
        progress["is_last_batch"] and done == current["ready"]
    ):  # an epoch's last batch always takes a step
        done -= done % accumulated
    if done == current["ready"]:
        return
    done_in_total = total["processed"] - current["processed"] + done
    current.update(dict.fromkeys(COUNTS, done))
    total.update(dict.fromkeys(COUNTS, done_in_total))
    progress["is_last_batch"] = False
