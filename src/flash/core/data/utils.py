"""Downloads that end whole or not at all: what a user calls. Imports the transfer, archives and errors."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from tqdm import tqdm

from flash.core.data.archives import all_there, is_archive, unpack
from flash.core.data.transfer import PATIENCE, Job, Patience, shown, transfer
from flash.core.errors import DownloadError

if sys.platform != "win32":
    import fcntl


def download_data(url: str, path: str = "data/", verbose: bool = False, *, sha256: str | None = None) -> None:
    """Download a file into the folder `path`, and unpack it there if it is an archive.

    What is there whole is neither downloaded nor unpacked again; to have it anew, delete it. A transfer that
    broke off goes on where it stopped. What an archive holds replaces files of the same name.

    Args:
        url: begins with https:// or http://. Its last part is the file's name. Names that end in .zip, .tar,
            .tar.gz, .tgz, .tar.bz2, .tbz2, .tar.xz or .txz are unpacked; the archive stays where it is.
        path: the folder, made when it is not there.
        verbose: say on stderr what was done. The progress bar shows whenever stderr is a terminal.
        sha256: what the file's SHA-256 must be, 64 hexadecimal digits.

    Raises:
        DownloadError: the file could not be had whole, or the archive is broken or unsafe (see `unpack`).
    """
    folder = Path(path).expanduser()
    job = _job(url, folder / _name_in(url), sha256, progress=True)
    say: Callable[[str], None] = (
        (lambda text: tqdm.write(text, file=sys.stderr)) if verbose else (lambda text: None)
    )
    with _locked(folder):
        say(f"{job.target} is downloaded" if transfer(job) else f"{job.target} is there already")
        if not is_archive(job.target.name):
            return
        note = job.note()
        if all_there(note.get("members"), folder):
            say(f"{job.target} is unpacked already")
            return
        members = unpack(job.target, folder)
        job.write_note(**{**note, "members": members})
        say(f"{len(members)} files are unpacked into {folder}")


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    progress: bool = True,
    patience: Patience | None = None,
) -> Path:
    """Download `url` to the file `target` unless it is there whole; `download_data` without the unpacking.

    Args:
        url: begins with https:// or http://.
        target: the file; its folder is made when it is not there.
        sha256: what the file's SHA-256 must be, 64 hexadecimal digits.
        progress: show a bar on stderr when that is a terminal.
        patience: when to give up; `PATIENCE` if None.

    Returns:
        `target`.

    Raises:
        DownloadError: the address, the connection, the server's answer, the length, the SHA-256 or the disk
            was not as needed. The message says which, and what to do. `target` is then as it was before.
    """
    job = _job(url, Path(target).expanduser(), sha256, progress=progress, patience=patience)
    with _locked(job.target.parent):
        transfer(job)
    return job.target


def _job(
    url: str, target: Path, sha256: str | None, *, progress: bool, patience: Patience | None = None
) -> Job:
    _address(url)
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise DownloadError(f"sha256={sha256!r} is not a SHA-256: expected 64 hexadecimal digits")
    return Job(url, target, sha256 and sha256.lower(), progress, patience or PATIENCE)


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"cannot download {shown(url)!r}: this is no web address ({error})") from error
    if parts.username is not None:
        raise DownloadError(
            f"cannot download from {parts.hostname}: the address holds a user name or password, which is "
            "never sent; download the file by other means"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DownloadError(
            f"cannot download {shown(url)!r}: expected an address that begins with https:// or http://; "
            "a file of this machine needs no download: give its path instead"
        )
    return parts


def _name_in(url: str) -> str:
    name = unquote(_address(url).path.rpartition("/")[2])
    if name in ("", ".", "..") or re.search(r"[/\\:\x00-\x1f\x7f]", name):
        raise DownloadError(
            f"cannot download {shown(url)!r}: its last part, {name!r}, is no file name; give the address of one file"
        )
    return name


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One download into a folder at a time, over processes too; the next one finds the file there.

    The folder itself is what is locked, so that no lock file stays behind. Windows has no such lock: there,
    two downloads of one file at the same time disturb each other, and the length or the SHA-256 shows it.
    Folders that were made for a download of which nothing came are removed again.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.callback(_remove_empty, made)  # after the lock is given back
            if sys.platform != "win32":
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                with suppress(OSError):  # a file system that knows no locks
                    fcntl.flock(handle, fcntl.LOCK_EX)
            folder.mkdir(parents=True, exist_ok=True)  # a download that failed meanwhile may have removed it
            yield
    except OSError as error:
        raise DownloadError(
            f"cannot write into {folder}: {error.strerror or error} ({error.filename or folder}); "
            "make room, or give another folder (path=...)"
        ) from error


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the deepest first, up to one that holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
