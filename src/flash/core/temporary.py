"""Temporary files and folders beside their target, each locked by the process that writes it.

A process that is killed leaves its temporary file behind, and the lock ends with the process: whoever writes the same
target next removes what nobody holds any more, and leaves alone what another process is writing. File systems without
locks, and Windows, keep such leftovers. Imports nothing of the project.
"""

import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

MOST_KEPT = 40  # characters of the target's name in the temporary one: a system takes 255 bytes
NAMES = 8  # that are tried in order, one for each process that writes the same target at a time
TRIES = 5
EARLIER = "earlier"
"""The folder in a temporary folder that holds what was at the target while it is exchanged."""
_own: set[Path] = set()
"""What this process is writing."""
WAIT, WAITS = 0.01, 100  # seconds, and how often: an exchange takes two renames


@contextmanager
def temporary_file(target: Path) -> Iterator[tuple[Path, int]]:
    """A new file in the folder of `target`, and its open handle; it is locked until the block ends.

    The block closes the handle, and renames or removes the file.

    Raises:
        OSError: the folder takes no file.
    """
    # The system applies the umask here; to read it, it would have to be changed, for all threads.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    path, handle = _new(target, lambda path: os.open(path, flags, 0o666))
    lock = None if os.name == "nt" else os.dup(handle)  # Windows renames no file that is open
    _own.add(path)
    try:
        yield path, handle
    finally:
        _own.discard(path)
        if lock is not None:
            os.close(lock)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A new folder in the folder of `target` that nobody else may enter, locked; it is removed when the block ends.

    What stands in its `EARLIER` by then goes back to its place, if nothing else is there.

    Raises:
        OSError: the folder takes no folder.
    """
    path, lock = _new(target, _make_folder)
    _own.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _own.discard(path)
        os.close(lock)


def remove_own() -> None:
    """Remove what this process is writing; for one that ends at once, without leaving its blocks."""
    for path in list(_own):
        _remove(path)


def put_back(target: Path) -> None:
    """Put back what was at `target` if a process was killed while it exchanged it; wait while one is exchanging it."""
    for _ in range(WAITS):
        held = [path for path in _names(target) if os.path.lexists(path / EARLIER / target.name)]
        if os.path.lexists(target) or not held:
            return
        for path in held:
            _remove_if_dead(path)
        time.sleep(WAIT * (not os.path.lexists(target)))


def _names(target: Path) -> list[Path]:
    return [target.with_name(f".{target.name[:MOST_KEPT]}.{number}.part") for number in range(NAMES)]


def _new(target: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """The first name that no other process writes to, and a locked handle of what was made there.

    Leftovers under the other names are removed.
    """
    found: tuple[Path, int] | None = None
    for path in _names(target):
        if found is None:
            handle = _claim(path, make)
            found = None if handle is None else (path, handle)
        elif os.path.lexists(path):
            _remove_if_dead(path)
    if found is None:
        path = target.with_name(f".{target.name[:MOST_KEPT]}.{secrets.token_hex(4)}.part")
        found = path, make(path)
    return found


def _claim(path: Path, make: Callable[[Path], int]) -> int | None:
    """A locked handle of what `make` makes at `path`; None where there is something that is not ours to remove."""
    for _ in range(TRIES):
        try:
            handle = make(path)
        except FileExistsError:
            if not _remove_if_dead(path):
                return None
            continue
        if not _lock(handle, wait=True) or _is_at(handle, path):
            return handle
        os.close(handle)  # another writer took it for a leftover in the moment before it was locked
    return None


def _make_folder(path: Path) -> int:
    path.mkdir(0o700)
    return os.open(os.devnull if os.name == "nt" else path, os.O_RDONLY)


def _lock(handle: int, *, wait: bool = False) -> bool:
    """Whether the lock is ours now, until the last copy of the handle is closed or the process ends.

    Args:
        handle: of a file or folder.
        wait: wait for whoever has it: of a new file, another writer that looks whether it is a leftover.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another writer has it, or the file system knows no locks
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_if_dead(path: Path) -> bool:
    """Remove a temporary file or folder that no process holds; whether nothing is at `path` now."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # it is gone, a link, or another user's
        return not os.path.lexists(path)
    try:
        if _lock(handle) and _is_at(handle, path):
            _remove(path)
    finally:
        os.close(handle)
    return not os.path.lexists(path)


def _remove(path: Path) -> None:
    """Remove a temporary file or folder, once what it holds of an unfinished exchange is back in its place."""
    if not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    with suppress(OSError):
        for earlier in (path / EARLIER).iterdir():
            if not os.path.lexists(path.parent / earlier.name):
                earlier.rename(path.parent / earlier.name)
    shutil.rmtree(path, ignore_errors=True)
