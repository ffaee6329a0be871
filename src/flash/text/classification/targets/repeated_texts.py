"""Warn about duplicate texts: with contradictory labels, or in both the training and the evaluation data.

Texts are duplicates if they are equal character by character. The search works on arrays: a million rows take a second.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from flash.text.classification.reading.source import Source


def warn_of_repeated_texts(sources: Mapping[str, Source], datasets: Mapping[str, Any]) -> None:
    """Warn about contradictory labels within each split, and about texts of val and test that are in train.

    Args:
        sources: sources by split, for the places of the rows.
        datasets: datasets by split, with the rows of their sources; each has `texts`, and `targets` or None.

    Warns:
        UserWarning: one per split and kind.
    """
    for split, dataset in datasets.items():
        if dataset.targets is not None:
            warn_of_contrary_labels(sources[split], dataset.texts, dataset.targets)
    for split in ("val", "test"):
        if split in datasets and "train" in datasets:
            _warn_of_shared_texts(sources, datasets, split)


def warn_of_contrary_labels(source: Source, texts: pa.LargeStringArray, targets: csr_array) -> None:
    """Warn about texts that occur in several rows with different labels.

    Rows with an unknown target are ignored.

    Warns:
        UserWarning: the number of texts and the first rows.
    """
    rows = contrary_rows(texts, targets)
    if len(rows):
        count = pc.count_distinct(texts.take(pa.array(rows))).as_py()
        one = count == 1
        warnings.warn(
            f"{source.name}: {count:,} text{'s' * (not one)} {'stands' if one else 'stand'} in several rows with "
            f"different labels ({source.places(rows)}), which contradict each other; give "
            f"{'it' if one else 'each'} one label set, or remove the wrong rows ({source.counting})",
            UserWarning,
            stacklevel=5,
        )


def contrary_rows(texts: pa.LargeStringArray, targets: csr_array) -> npt.NDArray[np.int64]:
    """Return the rows, in order, whose text also occurs with other labels; empty texts are ignored."""
    codes = np.asarray(texts.dictionary_encode().indices)
    repeated = np.bincount(codes)[codes] > 1
    repeated &= np.asarray(pc.not_equal(texts, ""))
    rows = np.flatnonzero(repeated)
    if not len(rows):
        return rows
    some = csr_array(targets[rows])
    unknown = np.unique(some.tocoo().row[np.isnan(some.data)])
    applies = csr_array((some.data >= 0.5, some.indices, some.indptr), shape=some.shape)
    # hash of a label set: the sum of a random number per label
    numbers = np.random.default_rng(0).random(some.shape[1])
    sets = np.delete(applies @ numbers, unknown)
    rows = np.delete(rows, unknown)
    order = np.lexsort((rows, codes[rows]))
    rows, sets = rows[order], sets[order]
    starts = np.flatnonzero(np.diff(codes[rows], prepend=-1))
    if not len(starts):
        return rows
    sizes = np.diff(starts, append=len(rows))
    spread = np.maximum.reduceat(sets, starts) - np.minimum.reduceat(sets, starts)
    return np.sort(rows[np.repeat(spread > 1e-9, sizes)])


def _warn_of_shared_texts(sources: Mapping[str, Source], datasets: Mapping[str, Any], split: str) -> None:
    texts, source = datasets[split].texts, sources[split]
    found = pc.is_in(texts, datasets["train"].texts)
    rows = np.flatnonzero(np.asarray(pc.and_(found, pc.not_equal(texts, ""))))
    if len(rows):
        what = {"val": "validation", "test": "test"}[split]
        warnings.warn(
            f"{source.name}: {len(rows):,} of the {len(texts):,} {what} texts {'is' if len(rows) == 1 else 'are'} in "
            f"the training rows of {sources['train'].name}, too ({source.places(rows)}); the model has seen "
            f"{'it' if len(rows) == 1 else 'them'}, so that the scores are too good: leave these rows out of one of "
            f"both ({source.counting})",
            UserWarning,
            stacklevel=4,
        )
