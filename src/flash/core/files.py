"""Write files and folders atomically.

The content goes to a hidden temporary file in the same folder (see `temporary`), is synced to disk and then renamed: a
process killed at any moment leaves the earlier file unchanged. Checkpoints, predictions and exports are written this
way. Imports nothing of the project but `temporary`.
"""

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from flash.core.temporary import EARLIER, put_back, temporary_file, temporary_folder


@contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it replaces `path` when the block ends without an error.

    For a link, its target is replaced. The permissions of a replaced file are kept; a new file follows the umask. Pipes
    and devices are written to directly. The folder must exist.

    Raises:
        OSError: `path` is a folder, or the file cannot be written.
    """
    path = Path(path)
    if _is_special(path):
        with path.open("wb") as file:
            yield file
        return
    target = _real(path)
    mode = _mode(target)
    with temporary_file(target) as (temporary, handle):
        try:
            with os.fdopen(handle, "wb") as file:
                if mode is not None and temporary.stat().st_mode & 0o7777 != mode:
                    temporary.chmod(mode)  # before private data are written
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync_folder(target.parent)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path for libraries that write to a path; the file replaces `path` as in `atomic_file`.

    It is in a hidden private folder beside `path`, and is synced to disk before it is renamed.

    Raises:
        OSError: as `atomic_file`.
    """
    path = Path(path)
    if _is_special(path):
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere) / "whole"
            with (Path(elsewhere) / "whole").open("rb") as read, path.open("wb") as file:
                shutil.copyfileobj(read, file)
        return
    target = _real(path)
    mode = _mode(target)
    with temporary_folder(target) as folder:
        whole = folder / "whole"
        whole.touch()  # to learn the permissions of a new file
        mode = whole.stat().st_mode & 0o7777 if mode is None else mode
        whole.unlink()
        yield whole
        sync(whole)
        if whole.stat().st_mode & 0o7777 != mode:
            whole.chmod(mode)
        whole.replace(target)
    _sync_folder(target.parent)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to; it replaces `folder` when the block ends without an error.

    It is created beside `folder`, with missing parents, and its files are synced to disk before it is renamed. On an
    error, `folder` is unchanged. If the process is killed between the two renames, the earlier folder is restored by
    `is_folder` and by the next writer.

    Raises:
        OSError: the folder cannot be created, or the earlier one cannot be replaced.
    """
    target = _real(folder)
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True)
    put_back(target)
    with temporary_folder(target) as hidden:
        work, earlier = hidden / "whole", hidden / EARLIER
        work.mkdir()
        earlier.mkdir()
        yield work
        for path in [*work.rglob("*"), work]:
            (_sync_folder if path.is_dir() else sync)(path)
        if target.exists():
            target.rename(earlier / target.name)
        work.rename(target)
        _sync_folder(target.parent)  # before the earlier folder is deleted


def is_folder(path: str | Path) -> bool:
    """Whether `path` is a folder; first restores one that a killed process was replacing."""
    if not os.path.exists(path):  # noqa: PTH110  (pathlib's raises on names that are too long)
        with suppress(ValueError):  # an invalid path
            put_back(_real(Path(path)))
    return os.path.isdir(path)  # noqa: PTH112


def overwritten(output: str | Path, read: Iterable[str | Path]) -> str | Path | None:
    """The first input that writing `output` would overwrite, also under another name; None if there is none.

    Args:
        output: a file; `-` for standard output.
        read: input files and folders; `-` for standard input.
    """
    with suppress(OSError, ValueError, AttributeError):  # it does not exist, or has no file descriptor
        there = _status(output, sys.stdout)
        for path in read if stat.S_ISREG(there.st_mode) else ():
            with suppress(OSError, ValueError, AttributeError):
                found = _status(path, sys.stdin)
                inside = stat.S_ISDIR(found.st_mode) and _real(Path(output)).is_relative_to(_real(Path(path)))
                if inside or os.path.samestat(there, found):
                    return path
    return None


def _status(path: str | Path, standard: Any) -> os.stat_result:
    return os.fstat(standard.buffer.fileno()) if str(path) == "-" else Path(path).expanduser().stat()


def check_writable(path: str | Path) -> None:
    """Check that `atomic_file` could write `path`, after creating missing folders.

    Only a temporary file is created, and removed, in the nearest existing folder.

    Raises:
        OSError: as `atomic_file`, or the folders cannot be created.
    """
    path = Path(path)
    if _is_special(path):
        path.open("ab").close()
        return
    target = _real(path)
    _mode(target)
    while not target.parent.exists():
        target = target.parent  # the outermost missing folder
    with temporary_file(target) as (temporary, handle):
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _real(path: Path) -> Path:
    """The path with all links resolved; for circular links one of them, which cannot be written to."""
    return Path(os.path.realpath(path))


def _mode(target: Path) -> int | None:
    """The permissions of a file; None if it does not exist.

    Raises:
        OSError: it is a folder, or an invalid path.
    """
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    return found.st_mode & 0o7777


def sync(path: Path) -> None:
    """Sync a file to disk.

    Raises:
        OSError: the disk is full.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync the rename to disk, where the system supports it; the file is complete either way."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
