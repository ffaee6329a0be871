"""A start without what a command never uses; for processes that are the command's alone. Imports the standard library."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BLAS = "scipy.linalg.cython_blas"


@contextmanager
def quick_start() -> Iterator[None]:
    """Import and load faster inside the block.

    numba imports SciPy's linear algebra to see whether there is one, which takes longer than a linear model takes to
    load; none of our loops calls it. And nothing that is imported is garbage, so nobody need look for any.
    """
    spared, collecting = BLAS not in sys.modules, gc.isenabled()
    if spared:
        sys.modules[BLAS] = None  # type: ignore[assignment]  # Python's way to say that there is none
    gc.disable()
    try:
        yield
    finally:
        if spared:
            del sys.modules[BLAS]
        if collecting:
            gc.freeze()
            gc.enable()
