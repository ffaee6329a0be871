"""Masks and counts of known targets; an unknown target is NaN, stored explicitly in sparse `(N, L)` targets.

If all targets are known, each function costs one pass over the stored values. Imports nothing of the project.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def any_unknown(targets: Any) -> bool:
    """Whether any target is NaN."""
    values = targets.data if hasattr(targets, "tocoo") else np.asarray(targets)
    return bool(
        values.size and np.isnan(values.min())
    )  # the smallest is NaN where any is: no temporary array


def known_cells(targets: Any) -> Bools | None:
    """Return (N, L), False for a target that is NaN; None if all are known.

    Args:
        targets: (N, L), sparse or dense.
    """
    if not any_unknown(targets):
        return None
    known: Bools = np.ones(targets.shape, np.bool_)
    if not hasattr(targets, "tocoo"):
        known &= ~np.isnan(targets)
        return known
    rows, columns = unknown_places(targets)
    known[rows, columns] = False
    return known


def unknown_places(targets: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and the columns of the NaN cells of a sparse matrix."""
    cells = targets.tocoo()
    unknown = np.isnan(cells.data)
    return cells.row[unknown].astype(np.int64), cells.col[unknown].astype(np.int64)


def known_rows(targets: Any) -> NDArray[np.int64]:
    """(L,): the number of rows in which each label's target is known; `targets` is sparse."""
    rows, labels = targets.shape
    counts = np.full(labels, rows, np.int64)
    if any_unknown(targets):
        counts -= np.bincount(unknown_places(targets)[1], minlength=labels)
    return counts


def known_per_row(targets: Any) -> NDArray[np.int64]:
    """(N,): the number of labels whose target is known in each row; `targets` is sparse."""
    rows, labels = targets.shape
    counts = np.full(rows, labels, np.int64)
    if any_unknown(targets):
        counts -= np.bincount(unknown_places(targets)[0], minlength=rows)
    return counts


def label_counts(targets: Any) -> tuple[NDArray[np.float64], Any]:
    """Return (L,) sums of the known targets per label, and the number of rows in which they are known: N, or (L,)."""
    sums = np.asarray(without_unknown(targets).sum(axis=0), np.float64)
    return sums, known_rows(targets) if any_unknown(targets) else targets.shape[0]


def without_unknown(targets: Any) -> Any:
    """Return a sparse matrix with 0 for NaN; the matrix itself if it has no NaN."""
    if not any_unknown(targets):
        return targets
    known = targets.copy()
    known.data[np.isnan(known.data)] = 0
    known.eliminate_zeros()
    return known
