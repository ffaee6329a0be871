"""Unpacks zip and tar archives from unknown sources by the standard library. Imports only `flash.core.errors`."""

import re
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from flash.core.errors import DownloadError
from flash.core.temporary import temporary_folder

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_MEMBERS = 200_000
MAX_BYTES = 64 * 2**30  # unpacked
MAX_RATIO = 200  # unpacked bytes per byte of archive; text rarely reaches 30
ALWAYS_ALLOWED = 64 * 2**20  # unpacked bytes for which the ratio does not count
ODD = re.compile(r"[\\:\x00-\x1f\x7f]")  # characters that systems read differently in a file's name


def is_archive(name: str) -> bool:
    """Whether the name ends on one of `ENDINGS`, in upper or lower case."""
    return name.lower().endswith(ENDINGS)


def unpack(archive: Path, folder: Path, *, again: bool = True) -> int:
    """Unpack `archive`, whose name is one of an archive, into an existing folder, replacing files of the same names.

    Args:
        archive: is checked whole first; its files are written to a temporary folder and renamed from there.
        folder: where to.
        again: also if all files are there with the sizes that the archive tells.

    Returns:
        How many files were written.

    Raises:
        DownloadError: the archive is broken, encrypted or too large (`MAX_MEMBERS`, `MAX_BYTES`, `MAX_RATIO`), it has
            links or names that lead out of `folder`, or the files cannot be written. Nothing was written then.
    """
    try:
        with zipfile.ZipFile(archive) if archive.suffix.lower() == ".zip" else _tar(archive) as packed:
            sizes = _sizes(archive, packed)
            places = {folder / name: size for name, size in sizes.items()}
            if not again and all(
                place.is_file() and place.stat().st_size == size for place, size in places.items()
            ):
                return 0
            _check_places(archive, folder, sizes)
            with temporary_folder(folder / archive.name) as staging:
                packed.extractall(staging)  # noqa: S202  checked above, and a tar has the filter "data"
                while isinstance(packed, tarfile.TarFile) and packed.fileobj and packed.fileobj.read(2**20):
                    pass  # to the end, where gzip and xz have their checksum
                for name in sizes:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (staging / name).replace(folder / name)
            return len(sizes)
    except DownloadError:
        raise
    except Exception as error:  # of a kind of its own for each thing that can be wrong with an archive
        why, advice = f"it is broken or encrypted ({error})", "delete it and download it again"
        if isinstance(error, OSError) and error.errno is not None:  # without: gzip and bz2, "not my format"
            why, advice = (
                f"{error.strerror} ({error.filename or folder})",
                "make room, or give another folder",
            )
        raise DownloadError(f"{archive} cannot be unpacked into {folder}: {why}; {advice}") from error


def _tar(archive: Path) -> tarfile.TarFile:
    """A tar whose members Python checks, too, while it extracts them."""
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError("this Python cannot unpack a tar safely; update it to 3.10.12, 3.11.4 or newer")
    tar = tarfile.open(archive)  # noqa: SIM115  the caller closes it
    tar.extraction_filter = tarfile.data_filter
    return tar


def _sizes(archive: Path, packed: Any) -> dict[str, int]:
    """{path inside the folder, with forward slashes: size in bytes} of the files, once all members are checked."""
    limit = min(MAX_BYTES, max(ALWAYS_ALLOWED, MAX_RATIO * archive.stat().st_size))
    sizes: dict[str, int] = {}
    total = 0
    for count, member in enumerate(packed.infolist() if isinstance(packed, zipfile.ZipFile) else packed):
        if isinstance(member, zipfile.ZipInfo):
            name, size, is_folder = member.filename, member.file_size, member.is_dir()
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
        else:
            name, size, is_folder, plain = member.name, member.size, member.isdir(), member.isreg()
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ODD.search(name):
            raise _refused(archive, f"its member {name!r} could land outside the folder")
        if not (plain or is_folder):
            raise _refused(archive, f"its member {name!r} is a link or a device, not a plain file")
        total += size
        if count >= MAX_MEMBERS or total > limit:
            raise _refused(
                archive, f"it unpacks to more than {MAX_MEMBERS:,} files or {limit / 2**20:,.0f} MiB"
            )
        if not is_folder:
            sizes[str(path)] = size
    return sizes


def _check_places(archive: Path, folder: Path, sizes: dict[str, int]) -> None:
    """Refuse to follow links in the folder, and to replace the archive or a folder."""
    for place in {folder / parent for name in sizes for parent in PurePosixPath(name).parents} - {folder}:
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise _refused(archive, f"{place} is a link or a file, and the archive has a folder there")
    for name in sizes:
        place = folder / name
        if place.is_dir() or (place.exists() and place.samefile(archive)):
            raise _refused(archive, f"its member {name!r} would replace {place}")


def _refused(archive: Path, why: str) -> DownloadError:
    return DownloadError(f"{archive} is refused: {why}; nothing was unpacked")
