"""The files that a path or a glob names, their bytes, unpacked, and their tables as one `Source`.

Imports nothing of the project but errors, the wording of mistakes and `Source`; neither torch nor lightning.
"""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import missing_file
from flash.text.classification.reading.source import Source

Files: TypeAlias = str | Path | Sequence[str | Path]

PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}  # file endings that are unpacked while reading
BLOCK = 1 << 22  # bytes parsed at once; 4 MiB measured as quick as larger ones, with less memory
LARGEST_BLOCK = 2**31 - 1  # Arrow's own limit


def read_each(files: Files, kind: str, read: Callable[[Path], pa.Table]) -> Source:
    """The tables of all the files that `files` names, one below the other."""
    tables, parts = [], []
    for path in find_files(files, kind):
        try:
            table = read(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if not table.num_rows:
            header = ", only column names" if table.num_columns else ""
            raise DataError(f"{path} has no rows{header}; is it the right file?")
        tables.append(table)
        parts.append((str(path), table.num_rows))
    try:
        return Source(pa.concat_tables(tables, promote_options="permissive"), tuple(parts), kind=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{parts[0][0]} and the other files differ in a column's type: {error}") from error


def find_files(files: Files, kind: str) -> list[Path]:
    """The files that a path, a glob or a list of them names, in order; the files of one glob are sorted."""
    found: list[Path] = []
    for entry in [files] if isinstance(files, str | Path) else list(files):
        path = Path(entry).expanduser()
        if path.is_dir():
            raise DataError(
                f"{entry} is a folder, not a file; for every file in it pass '{path / f'*.{kind}'}'"
            )
        if path.exists():
            found.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  (pathlib's: no absolute one)
        if not matches:
            raise DataError(missing_file(str(entry), path))
        found.extend(Path(match) for match in matches if not Path(match).is_dir())
    if not found:
        raise DataError(f"no file given; pass a path such as 'train.{kind}', a list of paths, or a glob")
    return found


def read_bytes(path: Path) -> pa.Buffer:
    """The bytes of a file, mapped where it is an ordinary one."""
    if path.suffix.lower() in PACKED:
        with open_packed(path) as stream:
            return stream.read_buffer()
    if path.is_file() and path.stat().st_size:
        with pa.memory_map(str(path)) as mapped:
            return mapped.read_buffer()
    return pa.py_buffer(path.read_bytes())


def open_packed(path: Path) -> pa.NativeFile:
    """The unpacked bytes of a file whose ending is in `PACKED`."""
    return pa.input_stream(str(path), compression=PACKED[path.suffix.lower()])


def ending(path: str | Path) -> str:
    """The ending that tells a file's format, in lower case: `.csv` of `a.CSV` and of `a.csv.gz`."""
    path = Path(path)
    return (Path(path.stem) if path.suffix.lower() in PACKED else path).suffix.lower()
