"""Count the rows of a file for the progress bar, in a fraction of the time that prediction takes."""

from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from flash.core.errors import DataError
from flash.text.classification.predict_files.blocks import CHUNK, Dialect
from flash.text.classification.reading.files import PACKED, find_files

MOST_BYTES = 2**30  # largest text file that is read only to count its rows; more would take seconds


def count_rows(path: str | Path, kind: str, dialect: Dialect | None = None) -> int | None:
    """Return the number of rows; None for a pipe and for a compressed, unreadable or very large file.

    In CSV and TSV, a line end inside quotes does not end a row. Blank lines count.

    Args:
        path: a file, a pipe, or `-` for standard input.
        kind: the format, a key of `blocks.READERS`.
        dialect: options for reading; None for the defaults.
    """
    dialect = dialect or Dialect()
    if str(path) == "-" or dialect.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        return None
    try:
        file, *others = find_files(str(path), kind)
        if others or not isinstance(file, Path) or not file.is_file() or file.suffix.lower() in PACKED:
            return None
        if kind == "parquet":
            return _parquet_rows(file)
        if file.stat().st_size > MOST_BYTES:
            return None
        with file.open("rb") as opened:
            lines = _lines(opened, quoting=kind != "jsonl" and dialect.quoting)
    except (DataError, OSError, pa.ArrowInvalid):  # the prediction itself reports the problem
        return None
    rows = lines - (kind != "jsonl")
    return rows if rows > 0 else None


def _parquet_rows(file: Path) -> int:
    from pyarrow.parquet import read_metadata  # slow to import

    rows: int = read_metadata(file).num_rows
    return rows


def _lines(file: IO[bytes], *, quoting: bool) -> int:
    """Count the lines; with `quoting`, without line ends inside quotes."""
    count, inside, last = 0, False, b"\n"
    while chunk := file.read(CHUNK):
        last = chunk[-1:]
        if not quoting or not (inside or b'"' in chunk):
            count += chunk.count(b"\n")
            continue
        letters = np.frombuffer(chunk, np.uint8)
        quoted = np.bitwise_xor.accumulate((letters == ord('"')).view(np.uint8)) ^ np.uint8(inside)
        count += int(np.count_nonzero((letters == ord("\n")) & (quoted == 0)))
        inside = bool(quoted[-1])
    return count + (last != b"\n")
