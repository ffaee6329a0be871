"""Apply a function to many items on several threads. Imports only the standard library."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    threads: int | None, function: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """Apply `function` to each item, in order, on at most `threads` threads; None for one per CPU."""
    if len(items) < 2 or threads == 1:
        return list(map(function, items))
    pool = ThreadPoolExecutor(min(len(items), threads or cpu_count() or 1))
    wait = True
    try:
        return list(pool.map(function, items))
    except SystemExit:  # the process must exit, and compiled loops cannot be stopped
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
