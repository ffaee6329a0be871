"""Check that a model file's configuration fits its weights, before memory or time is spent on it.

A small configuration can ask for a network of any size.
"""

import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from flash.core.errors import FlashError

Shapes = Mapping[str, tuple[int, ...]]
Made = TypeVar("Made")


class MisfitError(FlashError):
    """The configuration does not fit the weights; the message is the end of a sentence."""


COUNTS = re.compile(r"^num_|^n_|layers|depth|blocks|experts")
"""Names of numbers in a configuration from which transformers builds lists of modules."""
TIMES = 4
"""Maximum size of what is built, relative to the file's weights; it includes layers that are removed later."""
SMALL = 2**24
"""Weights of this size, and as many parameters as `FEW`, are always allowed."""
FEW = 100


def check_counts(config: Mapping[str, Any], shapes: Shapes) -> None:
    """Check that a configuration does not ask for more layers, labels or heads than the weights can have.

    Args:
        config: the configuration as plain values.
        shapes: shapes of the file's weights, by name.

    Raises:
        MisfitError: names the number that is too large.
    """
    most = max([len(shapes), FEW, *(size for shape in shapes.values() for size in shape)])
    for name, value in config.items():
        if isinstance(value, dict):
            check_counts(value, shapes)
        elif type(value) is int and value > most and COUNTS.search(name):
            raise _misfit(
                f"{name[:50]} is {value}, and no tensor of them has more than {most:,} numbers in a row"
            )


def build(make: Callable[[], tuple[nn.Module, nn.Linear]], shapes: Shapes) -> tuple[nn.Module, nn.Linear]:
    """Build an encoder and its head, after building them without memory and comparing the shapes.

    Args:
        make: builds both; called twice.
        shapes: shapes of the file's weights, by their names in the module, such as "model.embeddings.weight".

    Raises:
        MisfitError: the shapes differ; names the first difference.
    """
    with _bounded(shapes):
        try:
            with torch.device("meta"):
                found = make()
        except MisfitError:
            raise
        except Exception:  # of some architectures: the sizes are bounded below all the same
            found = None
        if found is not None:
            _compare(found, shapes)
        return make()


def _compare(made: tuple[nn.Module, nn.Linear], shapes: Shapes) -> None:
    whole = nn.ModuleDict({"model": made[0], "head": made[1]})
    for name, parameter in whole.named_parameters():
        found = shapes.get(name, tuple(parameter.shape))
        if found != tuple(parameter.shape):
            raise _misfit(f"{name} is {found}, expected {tuple(parameter.shape)}")
    known = _count(shapes)
    if sum(parameter.numel() for parameter in whole.parameters()) > known + SMALL:
        raise _misfit(f"its configuration asks for more weights than its {known:,}")
    for name, buffer in whole.named_buffers():
        if buffer.numel() > known + SMALL:
            raise _misfit(f"{name} would have {buffer.numel():,} numbers, and all weights have {known:,}")


@contextmanager
def _bounded(shapes: Shapes) -> Iterator[None]:
    """Limit the parameters that are created in this block, in this thread, to a multiple of the file's."""
    most, most_numbers = TIMES * len(shapes) + FEW, TIMES * _count(shapes) + SMALL
    made = {"parameters": 0, "numbers": 0}
    thread = threading.get_ident()

    def count(_module: nn.Module, name: str, parameter: Any) -> None:
        if threading.get_ident() != thread or parameter is None:
            return
        made["parameters"] += 1
        made["numbers"] += 0 if parameter.is_meta else parameter.numel()
        if made["parameters"] > 2 * most or made["numbers"] > most_numbers:
            raise _misfit(f"its configuration asks for more weights than its {_count(shapes):,}")

    handle: Any = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _count(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))


def _misfit(problem: str) -> MisfitError:
    return MisfitError(f"its weights do not fit its encoder ({problem})")
