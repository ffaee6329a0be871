"""Files and folders that take their name only when they are whole.

The bytes go to a hidden temporary file in the same folder (see `temporary`), reach the disk, and then take the name in
one step: a process killed at any moment leaves the earlier file as it was. Checkpoints, predictions and exports are
written so. Imports nothing of the project but `temporary`.
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
    """A file to write, which replaces what is at `path` when the block ends without an error.

    A link keeps leading to its file, which is replaced; a replaced file's permissions stay, a new one's follow the
    umask. Pipes and devices are written to directly. The folder has to be there.

    Raises:
        OSError: `path` is a folder, or its folder or the disk takes no file.
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
                    temporary.chmod(mode)  # before a byte of a private file is in it
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
    """A path to write a file at, for libraries that want a path; the file replaces `path` as `atomic_file`'s does.

    It is in a hidden folder beside `path` that nobody else may enter, and goes to the disk before it is renamed.

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
        whole.touch()  # with the permissions of a new file
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
    """An empty folder to write to, which replaces what is at `folder` when the block ends without an error.

    It is made beside `folder`, with the folders above it, and its files go to the disk before it is renamed. On an
    error, what was at `folder` stays as it was. A process that is killed between the two renames leaves the earlier
    folder aside: `is_folder`, and whoever writes there next, put it back.

    Raises:
        OSError: no folder can be made there, or what is there cannot be replaced.
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
        _sync_folder(target.parent)  # before the earlier folder is removed


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder, once an exchange that a killed process left half done is undone."""
    if not os.path.exists(path):  # noqa: PTH110  (pathlib's raises on names that are too long)
        with suppress(ValueError):  # a path that no system can have
            put_back(_real(Path(path)))
    return os.path.isdir(path)  # noqa: PTH112


def overwritten(output: str | Path, read: Iterable[str | Path]) -> str | Path | None:
    """The first of some files that would be lost if `output` were written, by whatever names both go; None if none is.

    Args:
        output: a file; `-` for standard output.
        read: files, and folders of which no file may be lost; `-` for standard input.
    """
    with suppress(OSError, ValueError, AttributeError):  # it is not there, or is no file of the system's
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
    """Find out whether `atomic_file` could write `path`, folders that are not there yet made first.

    Nothing is made but a temporary file, which is removed, in the nearest folder that exists.

    Raises:
        OSError: as `atomic_file`, or the folders cannot be made.
    """
    path = Path(path)
    if _is_special(path):
        path.open("ab").close()
        return
    target = _real(path)
    _mode(target)
    while not target.parent.exists():
        target = target.parent  # the outermost folder to be made
    with temporary_file(target) as (temporary, handle):
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _real(path: Path) -> Path:
    """The file at the end of all links; of a circle of links, one of them, which no file can be written to."""
    return Path(os.path.realpath(path))


def _mode(target: Path) -> int | None:
    """The permissions of a file, None where there is none.

    Raises:
        OSError: it is a folder, or there can be no such file.
    """
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    return found.st_mode & 0o7777


def sync(path: Path) -> None:
    """Bring a file's bytes to the disk.

    Raises:
        OSError: the disk takes them no more.
    """
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk, where the system can; the file is whole under it either way."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
