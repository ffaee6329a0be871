"""Find the files of a path, glob or URL, open and decompress them, and combine their tables into one `Source`."""

import glob
import lzma
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import pyarrow as pa

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import missing_file
from flash.text.classification.reading.remote import RemoteFile, is_url, remote_files
from flash.text.classification.reading.source import Source

Files: TypeAlias = str | Path | Sequence[str | Path]
File: TypeAlias = Path | RemoteFile

PACKED = {
    ".gz": "gzip",
    ".bz2": "bz2",
    ".zst": "zstd",
    ".xz": "xz",
}  # file endings that are unpacked while reading
BLOCK = 1 << 22  # bytes parsed at once; 4 MiB was as fast as larger blocks, with less memory
LARGEST_BLOCK = 2**31 - 1  # Arrow's own limit


def read_each(files: Files, kind: str, read: Callable[[File], pa.Table]) -> Source:
    """Read all files and concatenate their tables."""
    tables, parts = [], []
    for path in find_files(files, kind):
        try:
            table = read(path)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if not table.num_rows:
            header = ", only column names" if table.num_columns else ""
            raise DataError(f"{path} has no rows{header}; check its path, or put rows into it")
        tables.append(table)
        parts.append((str(path), table.num_rows))
    try:
        return Source(pa.concat_tables(tables, promote_options="permissive"), tuple(parts), kind=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{parts[0][0]} and the other files differ in a column's type: {error}") from error


def find_files(files: Files, kind: str) -> list[File]:
    """Return the files of a path, a glob or a list of these, in order; the files of a glob are sorted."""
    found: list[File] = []
    for entry in [files] if isinstance(files, str | Path) else list(files):
        if is_url(entry):
            found.extend(remote_files(str(entry)))
            continue
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


def read_bytes(path: File) -> pa.Buffer:
    """Return a file's bytes: decompressed, or memory-mapped for an ordinary local file."""
    if path.suffix.lower() in PACKED or isinstance(path, RemoteFile):
        with open_file(path) as stream:
            return pa.py_buffer(stream.read())
    if path.is_file() and path.stat().st_size:
        with pa.memory_map(str(path)) as mapped:
            return mapped.read_buffer()
    return pa.py_buffer(path.read_bytes())


@contextmanager
def open_file(path: File) -> Iterator[IO[bytes]]:
    """Open a file for reading, and decompress it if its ending is in `PACKED`."""
    packed = path.suffix.lower()
    with path.open("rb") as file:
        if packed == ".xz":  # not supported by Arrow
            with lzma.open(file) as unpacked:
                yield unpacked
        elif packed in PACKED:
            source: Any = str(path) if isinstance(path, Path) else pa.PythonFile(file, mode="r")
            with pa.input_stream(source, compression=PACKED[packed]) as stream:
                yield stream
        else:
            yield file


def ending(path: str | Path | RemoteFile) -> str:
    """The ending that determines a file's format, in lower case: `.csv` for `a.CSV`, `a.csv.gz`, `https://x/a.csv?b`."""
    name: File = (
        path if isinstance(path, RemoteFile) else RemoteFile(str(path)) if is_url(path) else Path(path)
    )
    return Path(name.stem if name.suffix.lower() in PACKED else name.name).suffix.lower()
