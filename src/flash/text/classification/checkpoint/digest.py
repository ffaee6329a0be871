"""Checksums of model files and exports: SHA-256 of all bytes, computed once per state of a file.

`check_once` remembers verified files by their inode, size and times, so that a changed file is verified again.
`checked_files` and `trust` pass this on to other processes, so that a server's workers do not read a large file again
only for its checksum.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

DIGITS = 64
ZEROS = b"0" * DIGITS


class FileState(NamedTuple):
    """Identifies a file and its version."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def state_of(file: int | Path) -> FileState:
    """Return the state of an open file or of a path."""
    found = file.stat() if isinstance(file, Path) else os.fstat(file)
    return FileState(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


_whole: set[tuple[FileState, str]] = set()


def check_once(state: FileState, expected: str, digest: Callable[[], str]) -> bool:
    """Whether a file's digest is the expected one; computed only if it was not verified before."""
    if (state, expected) not in _whole and digest() == expected:
        _whole.add((state, expected))
    return (state, expected) in _whole


def checked_files() -> frozenset[tuple[FileState, str]]:
    """Return the files, with their digests, that this process or a trusted one has verified."""
    return frozenset(_whole)


def trust(files: Iterable[tuple[FileState, str]]) -> None:
    """Accept files that another process has verified, until they change."""
    _whole.update(files)


def hexdigest(*parts: bytes | memoryview) -> str:
    """Return the SHA-256 of the concatenated parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found, block = hashlib.sha256(), memoryview(bytearray(2**20))
    with path.open("rb") as file:
        while count := file.readinto(block):
            found.update(block[:count])
    return found.hexdigest()
