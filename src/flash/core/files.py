"""Files that take their name only when they are whole. Imports nothing of the project.

The bytes go to a hidden temporary file in the same folder, reach the disk, and then take the name in one step: a
process killed at any moment leaves the earlier file as it was. Checkpoints and predictions are written so.
"""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

MOST_KEPT = 40  # characters of the file's name in the temporary one: a system takes 255 bytes


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
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
    temporary, handle, mode = _create_beside(target)
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
def whole_path(path: str | Path) -> Iterator[Path]:
    """A path to write a file at, for libraries that want a path; the file replaces `path` as `whole_file`'s does.

    It is in a hidden folder beside `path` that nobody else may enter, and goes to the disk before it is renamed.

    Raises:
        OSError: as `whole_file`.
    """
    path = Path(path)
    if _is_special(path):
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere) / "whole"
            with (Path(elsewhere) / "whole").open("rb") as whole, path.open("wb") as file:
                shutil.copyfileobj(whole, file)
        return
    target = _real(path)
    temporary, handle, mode = _create_beside(target)  # has the permissions of a new file
    os.close(handle)
    try:
        mode = temporary.stat().st_mode & 0o7777 if mode is None else mode
        temporary.unlink()
        temporary.mkdir(0o700)
        yield temporary / "whole"
        _sync(temporary / "whole")
        (temporary / "whole").chmod(mode)
        (temporary / "whole").replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(target.parent)


def check_writable(path: str | Path) -> None:
    """Find out whether `whole_file` could write `path`, folders that are not there yet made first.

    Nothing is made but a temporary file, which is removed, in the nearest folder that exists.

    Raises:
        OSError: as `whole_file`, or the folders cannot be made.
    """
    path = Path(path)
    if _is_special(path):
        path.open("ab").close()
        return
    target = _real(path)
    _mode(target)
    while not target.parent.exists():
        target = target.parent  # the outermost folder to be made
    temporary, handle, _ = _create_beside(target)
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


def _create_beside(target: Path) -> tuple[Path, int, int | None]:
    """An open temporary file in the folder of `target`: its path and handle; and the permissions of `target`."""
    mode = _mode(target)
    temporary = target.with_name(f".{target.name[:MOST_KEPT]}.{secrets.token_hex(4)}.part")
    # The system applies the umask here; to read it, it would have to be changed, for all threads.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return temporary, os.open(temporary, flags, 0o666), mode


def _sync(path: Path) -> None:
    """Bring a file's bytes to the disk."""
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
