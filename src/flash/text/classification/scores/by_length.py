"""Group rows into bins of text length, to measure calibration in each bin. Imports neither torch nor lightning."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from flash.core.errors import FlashError

EDGES = (40, 100, 200, 500, 1000)
"""Lengths, in characters, at which a new bin begins."""

MIN_ROWS = 300
"""Minimum number of rows per bin; with fewer, the calibration error is mostly chance."""


@dataclass(frozen=True)
class LengthBin:
    """Calibration on texts of similar length.

    Attributes:
        start: minimum number of characters.
        stop: number of characters from which on texts are too long for this bin; None for the last bin.
        rows: number of texts in the bin.
        expected_calibration_error: mean over the labels with positive rows in the bin; NaN if there are none.
        mean_gap: mean over the same labels of |mean probability - share of positive rows|; NaN if there are none.
    """

    start: int
    stop: int | None
    rows: int
    expected_calibration_error: float
    mean_gap: float

    @property
    def name(self) -> str:
        """The lengths as a range.

        >>> LengthBin(40, 100, 300, 0.01, 0.001).name
        '40-99'
        """
        return f"{self.start:,}+" if self.stop is None else f"{self.start:,}-{self.stop - 1:,}"


def text_lengths(texts: pa.Array) -> NDArray[np.int64]:
    """Return (N,) lengths of N texts in characters (Unicode code points).

    >>> text_lengths(pa.array(["", "naïve"], pa.large_string()))
    array([0, 5])
    """
    lengths: Any = pc.utf8_length(texts)
    found: NDArray[np.int64] = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def rows_by_length(lengths: ArrayLike, rows: int) -> Iterator[tuple[int, int | None, NDArray[np.intp]]]:
    """Yield start, stop and rows of each bin with at least 300 rows; nothing if there are fewer than two such bins.

    Args:
        lengths: (N,) lengths in characters.
        rows: N.

    Raises:
        FlashError: the number of lengths is not N.
    """
    characters = np.asarray(lengths)
    if characters.shape != (rows,):
        raise FlashError(f"lengths have shape {characters.shape}; expected one for each of {rows:,} rows")
    places = np.searchsorted(EDGES, characters, side="right")
    shown = np.flatnonzero(np.bincount(places, minlength=len(EDGES) + 1) >= MIN_ROWS)
    starts, stops = (0, *EDGES), (*EDGES, None)
    for place in shown if shown.size > 1 else ():
        yield starts[place], stops[place], np.flatnonzero(places == place)
