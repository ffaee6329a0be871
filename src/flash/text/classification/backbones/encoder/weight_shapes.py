"""Refuse a model file's configuration that its weights do not fit, before memory or time is spent on it.

A configuration of some bytes can ask for a network of any size. Imports torch, and of the project only the errors.
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
    """A configuration that weights do not fit: the end of a sentence."""


COUNTS = re.compile(r"^num_|^n_|layers|depth|blocks|experts")
"""Names of a configuration's numbers of which classes of transformers make lists."""
TIMES = 4
"""How much more than the file's weights is built at most: layers that are taken away afterwards, such as a decoder."""
SMALL = 2**24
"""So many numbers, or so many parameters as `FEW`, are no danger in any case."""
FEW = 100


def check_counts(config: Mapping[str, Any], shapes: Shapes) -> None:
    """Refuse a configuration that counts more layers, labels or heads than the weights could have.

    Args:
        config: plain values.
        shapes: of the file's weights, by name.

    Raises:
        MisfitError: it names the number.
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
    """What `make` makes, an encoder and its head, once it was made without memory and its shapes were compared.

    Args:
        make: called twice.
        shapes: of the file's weights by their names in the module of both, such as "model.embeddings.weight".

    Raises:
        MisfitError: their shapes differ; it names the first difference.
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
    """Inside, modules of this thread have no more parameters than a multiple of the file's."""
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
