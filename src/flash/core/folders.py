"""Folders that take their name only when they are whole, as `files` has it for files. Imports nothing of the project."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_KEPT = 40  # characters of the folder's name in the temporary one: a system takes 255 bytes


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which replaces what is at `folder` when the block ends without an error.

    It is made beside `folder`, with the folders above it; on an error, what was at `folder` stays as it was.

    Raises:
        OSError: no folder can be made there, or what is there cannot be replaced.
    """
    target = folder.resolve()
    hidden = target.with_name(f".{target.name[:MOST_KEPT]}.{secrets.token_hex(4)}")
    work, earlier = hidden.with_name(f"{hidden.name}.part"), hidden.with_name(f"{hidden.name}.old")
    try:
        work.mkdir(parents=True)
        yield work
        if target.exists():
            target.rename(earlier)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if earlier.exists() and not target.exists():
            earlier.rename(target)
        shutil.rmtree(earlier, ignore_errors=True)
