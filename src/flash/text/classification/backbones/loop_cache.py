"""Checksums of numba's cache on disk: a damaged cache file is removed, so that its loop is compiled again.

numba unpickles its cache files and runs the machine code in them without verification: a damaged file causes a traceback
or a crash. After loops were compiled, size, time and checksum of the cache files are written to `LIST` beside them, and
compared when the loops are imported again. The only API of numba that is used is `stats` of a compiled function.
"""

import json
import re
import traceback
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

from flash.core.errors import FlashError
from flash.core.files import atomic_file

LIST = "flash-loops.json"
ENDINGS = (".nbi", ".nbc")
"""Endings of numba's cache files: an index per loop, and the code per signature."""


@cache
def remove_damaged(folder: str | None) -> None:
    """Remove the cache files of a folder that have changed since they were listed, with their indices; once per process."""
    # the list may be missing or damaged itself
    with suppress(OSError, LookupError, ValueError, TypeError, AttributeError):
        known = json.loads((Path(str(folder)) / LIST).read_text("utf-8"))
        for name, noted in known.items():
            path = Path(str(folder)) / Path(name).name
            if path.suffix in ENDINGS and path.is_file() and not _is_as_noted(path, noted):
                path.unlink()
                path.with_name(re.sub(r"(\.[0-9]+\.nbc|\.nbi)$", ".nbi", path.name)).unlink(missing_ok=True)


def note(loops: Iterable[Any]) -> None:
    """Write the list of these loops' cache files, if a loop was compiled."""
    found = [loop.stats for loop in loops]
    folders = {one.cache_path for one in found if one.cache_path and one.cache_misses}
    for folder in map(Path, folders):
        with suppress(OSError):
            files = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
            content = {path.name: [*_size_and_time(path), crc32(path.read_bytes())] for path in files}
            with atomic_file(folder / LIST) as file:
                file.write(json.dumps(content, indent=1).encode())


def explain(error: Exception, loops: Iterable[Any]) -> None:
    """Explain an error that arose in numba while it read a damaged file that is not on a list.

    Raises:
        FlashError: the error arose in numba; says which files to delete.
    """
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    folders = dict.fromkeys(loop.stats.cache_path for loop in loops)
    if folders and modules and str(modules[-1]).partition(".")[0] in ("numba", "pickle", "llvmlite"):
        places = " and ".join(f"{folder}/*.nb?" for folder in folders)
        raise FlashError(
            f"numba cannot read its cache of compiled loops ({type(error).__name__}: {error}); delete the files {places}, "
            "and type the same again"
        ) from error


def _is_as_noted(path: Path, noted: list[int]) -> bool:
    """Whether a file is unchanged, or has only another time."""
    size, time = _size_and_time(path)
    return [size, time] == noted[:2] or (size == noted[0] and crc32(path.read_bytes()) == noted[2])


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
