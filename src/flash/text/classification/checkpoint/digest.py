"""Checksums of model files and exports: SHA-256 of every byte, computed once for each state of a file.

`check_once` remembers which files of this process were whole, by what the system says of them: another file, or a
changed one, is checked again. `checked_files` and `trust` take that to another process, so that of a server's
workers none reads a large file only for its checksum.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

DIGITS = 64
ZEROS = b"0" * DIGITS


class FileState(NamedTuple):
    """What tells a file, and each state of it, from others."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def state_of(file: int | Path) -> FileState:
    """The state of an open file or a path."""
    found = file.stat() if isinstance(file, Path) else os.fstat(file)
    return FileState(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


_whole: set[tuple[FileState, str]] = set()


def check_once(state: FileState, expected: str, digest: Callable[[], str]) -> bool:
    """Whether a file's digest is the expected one; it is computed only where it was not found to be before."""
    if (state, expected) not in _whole and digest() == expected:
        _whole.add((state, expected))
    return (state, expected) in _whole


def checked_files() -> frozenset[tuple[FileState, str]]:
    """The files, with their digests, that this process or another that it trusts has checked."""
    return frozenset(_whole)


def trust(files: Iterable[tuple[FileState, str]]) -> None:
    """Check these files no more, until they change: another process has."""
    _whole.update(files)


def hexdigest(*parts: bytes | memoryview) -> str:
    """SHA-256 of parts that follow one another."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    found, block = hashlib.sha256(), memoryview(bytearray(2**20))
    with path.open("rb") as file:
        while count := file.readinto(block):
            found.update(block[:count])
    return found.hexdigest()
