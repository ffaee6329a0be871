"""Unpacking zip and tar archives that nobody vouches for. Imports only `flash.core.errors`.

An archive is unpacked into a temporary folder beside its destination, every member checked on the way, and
only when all is well are the files moved into place, one atomic rename each: a refused or broken archive
leaves nothing behind. Only plain files and folders are unpacked. Python's own `tarfile.data_filter` is asked
as well, where it exists (3.10.12, 3.11.4 and newer), but nothing rests on it alone.
"""

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from flash.core.errors import DownloadError

MAX_MEMBERS = 200_000
MAX_BYTES = 64 * 2**30  # unpacked, whatever the archive's size
MAX_RATIO = 200  # unpacked bytes for each byte of archive; text rarely reaches 30
ALWAYS_ALLOWED = (
    64 * 2**20
)  # unpacked bytes for which the ratio is not asked: a small table of zeros is no bomb

BLOCK = 2**20
UNPACKING = ".unpacking"

_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".tar": io.FileIO,
    ".tar.gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".tar.bz2": bz2.BZ2File,
    ".tbz2": bz2.BZ2File,
    ".tar.xz": lzma.LZMAFile,
    ".txz": lzma.LZMAFile,
}
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    IndexError,  # of an empty name, in zipfile
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked: .zip, .tar, .tar.gz, .tgz, .tar.bz2, .tbz2, .tar.xz, .txz."""
    return name.lower().endswith((".zip", *_OPENERS))


def unpack(archive: Path, folder: Path) -> dict[str, int]:
    """Unpack `archive` into `folder`, replacing files of the same name.

    Args:
        archive: a file for whose name `is_archive` is true.
        folder: made when it is not there.

    Returns:
        {path inside `folder`, with forward slashes: size in bytes} of the files unpacked.

    Raises:
        DownloadError: the archive is broken or encrypted; a member would land outside `folder` (by its name,
            or because a link there leads out), would replace the archive or the note on it, is a link or a
            device, or is there twice; it unpacks to more than MAX_BYTES, than MAX_RATIO times its size, or
            into more than MAX_MEMBERS members; nothing is put into `folder` then. Or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _staging(archive, folder) as staging:
            intake = _Intake(archive, staging)
            _read_members(archive, intake)
            _refuse_collisions(intake, folder)
            for name in intake.files:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(target)
            for name in intake.folders:
                (folder / name).mkdir(parents=True, exist_ok=True)
            return intake.files
    except DownloadError:
        raise
    except (*_BROKEN, OSError) as error:
        raise _in_words(error, archive, folder) from error


def _in_words(error: Exception, archive: Path, folder: Path) -> DownloadError:
    if isinstance(error, OSError) and error.errno is not None:  # without: gzip and bz2, "not my format"
        return DownloadError(
            f"{archive} cannot be unpacked into {folder}: {error.strerror} ({error.filename or folder}); "
            "make room, or give a folder that can be written"
        )
    return DownloadError(
        f"{archive} cannot be unpacked: it is broken or not the kind of archive its name says ({error}); "
        "delete it and download it again"
    )


@contextmanager
def _staging(archive: Path, folder: Path) -> Iterator[Path]:
    """A folder beside the destination (a rename then suffices), gone in the end; a killed run's, at once."""
    prefix = f".{archive.name}."
    for left_over in folder.iterdir():
        if left_over.name.startswith(prefix) and left_over.name.endswith(UNPACKING):
            shutil.rmtree(left_over, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=prefix, suffix=UNPACKING, dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _Intake:
    """Takes members one by one, checks each, and counts what they come to."""

    def __init__(self, archive: Path, staging: Path) -> None:
        self.archive, self.staging = archive, staging
        self.files: dict[str, int] = {}
        self.folders: set[str] = set()
        self.members = self.bytes = 0
        size = archive.stat().st_size
        self.limit = min(MAX_BYTES, max(ALWAYS_ALLOWED, MAX_RATIO * size))

    def refuse(self, why: str) -> DownloadError:
        """The error for an archive that is not safe; the caller raises it."""
        return DownloadError(f"{self.archive} is refused: {why}; nothing was unpacked")

    def count(self, read: int) -> None:
        """Note `read` more unpacked bytes: what is read counts, not what is declared."""
        self.bytes += read
        if self.bytes > self.limit:
            raise self.refuse(
                f"it unpacks to more than {self.limit / 2**20:,.0f} MiB, more than a sound archive of its "
                f"size holds (at most {MAX_RATIO} times its size, and {MAX_BYTES / 2**30:,.0f} GiB)"
            )

    def name(self, member: str) -> str:
        """The member's path inside the folder, with forward slashes; "" for the folder itself."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise self.refuse(f"it holds more than {MAX_MEMBERS:,} members")
        parts = re.split(r"[/\\]", member)
        if not parts[0] and len(parts) > 1:
            raise self.refuse(f"its member {member!r} has an absolute name")
        if ".." in parts:
            raise self.refuse(f"its member {member!r} would land outside the folder")
        if re.search(r"[:\x00-\x1f\x7f]", member):
            raise self.refuse(
                f"its member {member!r} has a drive letter, colon or control character in its name"
            )
        return "/".join(part for part in parts if part not in ("", "."))

    def add_folder(self, name: str) -> None:
        """Make the folder `name` (as `name()` gave it)."""
        if name:
            self._reserve(name)
            self.folders.add(name)
            (self.staging / name).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str, source: IO[bytes], *, counted: bool) -> None:
        """Copy `source` to the file `name`; `counted` when its bytes are counted where they are read."""
        if not name or (self.staging / name).exists():
            raise self.refuse(f"its member {name!r} is there twice")
        self._reserve(name.rpartition("/")[0])
        target = self.staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self.files[name] = 0
        with target.open("xb") as file:
            while block := source.read(BLOCK):
                if not counted:
                    self.count(len(block))
                self.files[name] += file.write(block)

    def _reserve(self, folder: str) -> None:
        """Refuse a folder of which a part is a file of this archive."""
        while folder:
            if folder in self.files:
                raise self.refuse(f"its member {folder!r} is both a file and a folder")
            folder = folder.rpartition("/")[0]


def _read_members(archive: Path, intake: _Intake) -> None:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            _read_zip(zipped, intake)
        return
    opener = next(opener for ending, opener in _OPENERS.items() if archive.name.lower().endswith(ending))
    with opener(archive) as stream:
        _read_tar(_Counted(stream, intake), intake)


def _read_zip(zipped: zipfile.ZipFile, intake: _Intake) -> None:
    for member in zipped.infolist():
        name, kind = intake.name(member.filename), stat.S_IFMT(member.external_attr >> 16)
        if member.flag_bits & 0x1:
            raise intake.refuse(f"its member {name!r} is encrypted (unpack it by hand with its password)")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise intake.refuse(f"its member {name!r} is a link or a device, not a plain file")
        if member.is_dir():
            intake.add_folder(name)
        else:
            with zipped.open(member) as source:
                intake.add_file(name, source, counted=False)


class _Counted:
    """A stream whose every byte counts, tar headers included (a header may itself be a bomb)."""

    def __init__(self, stream: IO[bytes], intake: _Intake) -> None:
        self.stream, self.intake = stream, intake

    def read(self, size: int = -1) -> bytes:
        """Like any stream's."""
        block = self.stream.read(size)
        self.intake.count(len(block))
        return block


def _read_tar(stream: _Counted, intake: _Intake) -> None:
    """One pass in order, so that what is checked is what is unpacked."""
    python_check = getattr(tarfile, "data_filter", None)
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=BLOCK) as tar:
        for member in tar:
            name = intake.name(member.name)
            if not (member.isreg() or member.isdir()):
                raise intake.refuse(f"its member {name!r} is a link or a device, not a plain file")
            if python_check is not None:
                python_check(member, str(intake.staging))
            if member.issparse():  # holes take no bytes in the archive, but do when read
                intake.count(member.size)
            if (source := tar.extractfile(member)) is None:
                intake.add_folder(name)
            else:
                intake.add_file(name, source, counted=True)
    while stream.read(BLOCK):  # to the end, where gzip and xz keep the sum that proves all was whole
        pass


def _refuse_collisions(intake: _Intake, folder: Path) -> None:
    """Before anything moves: what stands in the folder and must neither be followed nor be replaced."""
    own = {path.resolve() for path in (intake.archive, note_of(intake.archive))}
    for name in intake.files:
        if (folder / name).is_dir():
            raise intake.refuse(f"{folder / name} is a folder, and the archive holds a file of that name")
        same = (folder / name).exists() and (folder / name).samefile(
            intake.archive
        )  # where case is no matter
        if same or (folder / name).resolve() in own:
            raise intake.refuse(f"its member {name!r} would replace the archive itself, or the note on it")
    below = {parent for name in intake.files for parent in PurePosixPath(name).parents}
    below |= {
        parent for name in intake.folders for parent in (PurePosixPath(name), *PurePosixPath(name).parents)
    }
    for parent in sorted(below - {PurePosixPath(".")}):
        place = folder / parent
        if place.is_symlink():
            raise intake.refuse(
                f"{place} is a link, and what the archive holds below it could land elsewhere"
            )
        if place.exists() and not place.is_dir():
            raise intake.refuse(f"{place} is a file, and the archive holds a folder of that name")


def note_of(target: Path) -> Path:
    """Where the note on a downloaded file is kept: hidden, beside it."""
    return target.with_name(f".{target.name}.json")


def all_there(members: Any, folder: Path) -> bool:
    """Whether all of `members` are in `folder`, each with its size; never, if that is not what `unpack` gave."""
    return isinstance(members, dict) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in members.items()
    )
