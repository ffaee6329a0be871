"""Temporary files and folders beside their target, each locked by the process that writes it.

A killed process leaves its temporary file behind, but its lock is released: the next writer of the same target removes
unlocked leftovers and keeps what another process is writing. File systems without locks, and Windows, keep leftovers. Imports nothing of the project.
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

MOST_KEPT = 40  # characters of the target's name in the temporary name, which is limited to 255 bytes
NAMES = 8  # tried in order, one per process that writes the same target at the same time
TRIES = 5
EARLIER = "earlier"
"""Subfolder of a temporary folder that holds the earlier target while it is replaced."""
_own: set[Path] = set()
"""Temporary paths of this process."""
WAIT, WAITS = 0.01, 100  # seconds, and number of waits: replacing a folder takes two renames


@contextmanager
def temporary_file(target: Path) -> Iterator[tuple[Path, int]]:
    """Create a file beside `target`, locked until the block ends; yields its path and open handle.

    The block closes the handle, and renames or removes the file.

    Raises:
        OSError: the file cannot be created.
    """
    # os.open applies the umask; reading the umask would mean changing it for all threads.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    path, handle = _new(target, lambda path: os.open(path, flags, 0o666))
    lock = None if os.name == "nt" else os.dup(handle)  # Windows cannot rename an open file
    _own.add(path)
    try:
        yield path, handle
    finally:
        _own.discard(path)
        if lock is not None:
            os.close(lock)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Create a private, locked folder beside `target`; it is removed when the block ends.

    The content of its `EARLIER` is moved back if its place is still free.

    Raises:
        OSError: the folder cannot be created.
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
    """Remove the temporary paths of this process, before it exits without leaving its blocks."""
    for path in list(_own):
        _remove(path)


def put_back(target: Path) -> None:
    """Restore `target` if a process was killed while replacing it; wait while one is replacing it."""
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
    """Create a path under the first free name, with a locked handle; remove leftovers under the other names."""
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
    """Create `path` and lock it; None if another process holds what is there."""
    for _ in range(TRIES):
        try:
            handle = make(path)
        except FileExistsError:
            if not _remove_if_dead(path):
                return None
            continue
        if not _lock(handle, wait=True) or _is_at(handle, path):
            return handle
        os.close(handle)  # another writer removed it as a leftover before it was locked
    return None


def _make_folder(path: Path) -> int:
    path.mkdir(0o700)
    return os.open(os.devnull if os.name == "nt" else path, os.O_RDONLY)


def _lock(handle: int, *, wait: bool = False) -> bool:
    """Lock until the last copy of the handle is closed or the process ends; whether that succeeded.

    Args:
        handle: of a file or folder.
        wait: wait for the holder; for a new file, another writer that checks whether it is a leftover.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another writer holds it, or the file system has no locks
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_if_dead(path: Path) -> bool:
    """Remove an unlocked temporary file or folder; whether `path` is free afterwards."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # gone, a link, or another user's
        return not os.path.lexists(path)
    try:
        if _lock(handle) and _is_at(handle, path):
            _remove(path)
    finally:
        os.close(handle)
    return not os.path.lexists(path)


def _remove(path: Path) -> None:
    """Remove a temporary file or folder, after restoring the target of an unfinished replacement."""
    if not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    with suppress(OSError):
        for earlier in (path / EARLIER).iterdir():
            if not os.path.lexists(path.parent / earlier.name):
                earlier.rename(path.parent / earlier.name)
    shutil.rmtree(path, ignore_errors=True)
