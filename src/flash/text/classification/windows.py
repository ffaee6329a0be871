"""Score many batches at once, so that texts of similar length can be batched whatever the order of the rows.

An encoder takes as long for a batch as if all its texts were as long as the longest. In the order of the rows, nearly
half of a batch of short texts is padding; with a thousand rows sorted by length, it is a few percent.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from flash.text.classification.scores.by_length import text_lengths

WINDOW = 1024
"""Number of rows that are scored at once."""

Score: TypeAlias = Callable[[pa.Array, int], np.ndarray]
"""A function of N texts and the user's batch size that returns (N, L) scores."""


class ScoreBuffer:
    """Buffer of the scores, targets and text lengths of an epoch; texts are pending until there are enough to score."""

    def __init__(self) -> None:
        self._waiting: list[pa.Array] = []
        self._scores: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._targets)

    def add(self, texts: pa.Array, targets: np.ndarray, score: Score) -> None:
        """Add a batch: (B,) texts, (B, L) targets."""
        self._waiting.append(texts)
        self._targets.append(targets)
        self._lengths.append(text_lengths(texts))
        if sum(map(len, self._waiting)) >= WINDOW:
            self.score(score)

    def score(self, score: Score) -> None:
        """Score the pending rows."""
        if self._waiting:
            self._scores.append(score(pa.concat_arrays(self._waiting), max(map(len, self._waiting))))
            self._waiting.clear()

    def take(self, score: Score) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (N, L) scores and targets of all rows and (N,) lengths of their texts, and clear the buffer."""
        self.score(score)
        scores, targets, lengths = map(np.concatenate, (self._scores, self._targets, self._lengths))
        self.clear()
        return scores, targets, lengths

    def clear(self) -> None:
        """Clear the buffer."""
        for rows in (self._waiting, self._scores, self._targets, self._lengths):
            rows.clear()


class Lookahead:
    """Lookahead: scores a batch together with the batches that are expected to follow it."""

    def __init__(self) -> None:
        self._texts: Any = None  # the texts of the current data set
        self._rows, self._scores = np.zeros(0, np.int64), np.zeros((0, 0), np.float32)

    def scores(self, rows: np.ndarray, texts: pa.Array, batches_left: float, score: Score) -> np.ndarray:
        """Return (B, L) scores of a batch.

        Args:
            rows: (B,) indices of the batch's rows in the data set.
            texts: all texts of the data set.
            batches_left: number of remaining batches, including this one.
            score: scores texts.
        """
        here = self._place(texts, rows)
        if here is None:
            before = self._rows if texts is self._texts else rows
            self._texts, self._rows = texts, _rows_ahead(rows, before, len(texts), batches_left)
            self._scores = score(texts.take(pa.array(self._rows)), len(rows))
            here = slice(len(rows))
        return self._scores[here]

    def _place(self, texts: pa.Array, rows: np.ndarray) -> slice | None:
        """Return the place of these rows' scores among the known scores; None if they are not known."""
        place = int(np.searchsorted(self._rows, rows[0])) if len(rows) else 0
        here = slice(place, place + len(rows))
        return here if texts is self._texts and np.array_equal(self._rows[here], rows) else None


def _rows_ahead(rows: np.ndarray, before: np.ndarray, count: int, batches_left: float) -> np.ndarray:
    """Return these rows and the rows of the expected next batches, up to a window; only these if they have no pattern.

    If the batch is a single row, the distance to the previous rows gives the step.

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
