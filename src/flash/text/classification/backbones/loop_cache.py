"""Compiled loops on disk: a file of numba's cache that is not as it was written is removed, and its loop compiled again.

numba unpickles what it finds in its cache and runs the machine code in it, unchecked: a damaged file is a traceback or
a crash. After a block that has compiled loops, size, time and checksum of the files are kept in `LIST` beside them, and
compared when the loops are next imported. Of numba, only `stats` of a compiled function is used. Imports errors and
`files` alone.
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
from flash.core.files import whole_file

LIST = "flash-loops.json"
ENDINGS = (".nbi", ".nbc")
"""Of numba's files: an index for each loop, and the code of each of its signatures."""


@cache
def remove_damaged(folder: str | None) -> None:
    """Remove the cached files of a folder that have changed since they were noted, with their indices; once a process."""
    with suppress(
        OSError, LookupError, ValueError, TypeError, AttributeError
    ):  # there is no list, or it is damaged, too
        known = json.loads((Path(str(folder)) / LIST).read_text("utf-8"))
        for name, noted in known.items():
            path = Path(str(folder)) / Path(name).name
            if path.suffix in ENDINGS and path.is_file() and not _is_as_noted(path, noted):
                path.unlink()
                path.with_name(re.sub(r"(\.[0-9]+\.nbc|\.nbi)$", ".nbi", path.name)).unlink(missing_ok=True)


def note(loops: Iterable[Any]) -> None:
    """Keep what the files of these loops are like, if one of them was compiled."""
    found = [loop.stats for loop in loops]
    folders = {one.cache_path for one in found if one.cache_path and one.cache_misses}
    for folder in map(Path, folders):
        with suppress(OSError):
            files = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
            content = {path.name: [*_size_and_time(path), crc32(path.read_bytes())] for path in files}
            with whole_file(folder / LIST) as file:
                file.write(json.dumps(content, indent=1).encode())


def explain(error: Exception, loops: Iterable[Any]) -> None:
    """Say what to delete if an error arose in numba, which was reading a damaged file that no list has.

    Raises:
        FlashError: it did.
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
    """Whether a file has not been touched, or only copied."""
    size, time = _size_and_time(path)
    return [size, time] == noted[:2] or (size == noted[0] and crc32(path.read_bytes()) == noted[2])


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
