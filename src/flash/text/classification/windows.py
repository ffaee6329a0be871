"""Many batches scored at once, so that texts of similar length meet whatever the order of the rows.

A batch costs an encoder as much as if each of its texts were as long as the longest. In the order of the rows nearly
half of a batch of short texts is padding, of a thousand rows sorted by length a few hundredths. Knows batches of texts,
and no backbone.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from flash.text.classification.scores.by_length import text_lengths

WINDOW = 1024
"""Rows that are scored at once."""

Score: TypeAlias = Callable[[pa.Array, int], np.ndarray]
"""(N, L) scores of N texts, and how many of them the user has in a batch."""


class KeptRows:
    """Scores, targets and text lengths of the batches of an epoch, in their order; the last ones wait until they are a window."""

    def __init__(self) -> None:
        self._waiting: list[pa.Array] = []
        self._scores: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._targets)

    def add(self, texts: pa.Array, targets: np.ndarray, score: Score) -> None:
        """Keep a batch: (B,) texts, (B, L) targets."""
        self._waiting.append(texts)
        self._targets.append(targets)
        self._lengths.append(text_lengths(texts))
        if sum(map(len, self._waiting)) >= WINDOW:
            self.score(score)

    def score(self, score: Score) -> None:
        """Score the rows that wait."""
        if self._waiting:
            self._scores.append(score(pa.concat_arrays(self._waiting), max(map(len, self._waiting))))
            self._waiting.clear()

    def take(self, score: Score) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, L) scores and targets of all rows and (N,) characters of their texts; the rows are then forgotten."""
        self.score(score)
        scores, targets, lengths = map(np.concatenate, (self._scores, self._targets, self._lengths))
        self.clear()
        return scores, targets, lengths

    def clear(self) -> None:
        """Forget all rows."""
        for rows in (self._waiting, self._scores, self._targets, self._lengths):
            rows.clear()


class RowsAhead:
    """Scores of batches that come in the order of their rows, computed with those of the batches behind them."""

    def __init__(self) -> None:
        self._texts: Any = None  # of which data set
        self._rows, self._scores = np.zeros(0, np.int64), np.zeros((0, 0), np.float32)

    def scores(self, rows: np.ndarray, texts: pa.Array, batches_left: float, score: Score) -> np.ndarray:
        """(B, L) scores of a batch.

        Args:
            rows: (B,) which of the data set's rows the batch is.
            texts: all of the data set's.
            batches_left: how many batches are asked for, this one included.
            score: what scores texts.
        """
        here = self._place(texts, rows)
        if here is None:
            before = self._rows if texts is self._texts else rows
            self._texts, self._rows = texts, _rows_ahead(rows, before, len(texts), batches_left)
            self._scores = score(texts.take(pa.array(self._rows)), len(rows))
            here = slice(len(rows))
        return self._scores[here]

    def _place(self, texts: pa.Array, rows: np.ndarray) -> slice | None:
        """Where among the known scores those of these rows are; None where they are not."""
        place = int(np.searchsorted(self._rows, rows[0])) if len(rows) else 0
        here = slice(place, place + len(rows))
        return here if texts is self._texts and np.array_equal(self._rows[here], rows) else None


def _rows_ahead(rows: np.ndarray, before: np.ndarray, count: int, batches_left: float) -> np.ndarray:
    """These rows and those of the batches expected behind them, up to a window; only these if they are in no order.

    Rows before them tell how far apart they are, where the batch is one row.

    >>> rows = np.array([1, 3])  # the second of two processes
    >>> _rows_ahead(rows, rows, 10, batches_left=2)
    array([1, 3, 5, 7])
    """
    if len(rows) == 0:
        return rows
    first, *second = (rows if len(rows) > 1 else before)[:2]
    step = max(int(second[0] - first), 1) if second else 1
    batches = max(int(min(WINDOW // len(rows), batches_left)), 1)
    ahead = np.arange(rows[0], count, step)[: batches * len(rows)]
    return ahead if np.array_equal(ahead[: len(rows)], rows) else rows
