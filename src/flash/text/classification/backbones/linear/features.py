"""From texts to sparse TF-IDF rows, many texts at a time.

The kernels are imported on use, because prediction with other backbones does not need them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError
from flash.core.threads import in_threads

EQUAL_TEXT, SHARE_PER_TENFOLD, MOST_SHARE = 1e7, 0.2, 0.8
CHARACTER_POWER = 1.5
"""Exponent of the idf of character n-grams; without it, frequent short n-grams would dominate informative ones."""
CHUNK = 256  # texts per task; the result does not depend on it
GROUP = 64  # chunks that are weighed in parallel before their rows are copied
Texts: TypeAlias = pa.Array | pa.ChunkedArray
Counted: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]

# Before version 26, Arrow's NFKC decomposes only, like NFKD (apache/arrow, issue 51225). The test value is made from
# buffers, because converting a Python value imports pandas.
_MARKED_E = pa.LargeStringArray.from_buffers(1, pa.py_buffer(np.array([0, 3])), pa.py_buffer(b"e\xcc\x81"))
ARROW_COMPOSES = pc.utf8_normalize(_MARKED_E, form="NFKC").to_pylist() == ["\xe9"]


def text_buffers(texts: Texts) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return normalised (NFKC) lower-case texts as UTF-8: all bytes, and N + 1 offsets into them.

    Raises:
        DataError: `texts` are not strings, or a text is null.
    """
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise DataError(
            f"texts are of type {texts.type}; expected strings: cast them with .cast(pa.large_string())"
        )
    if texts.null_count:
        raise DataError(
            f'{texts.null_count} of {len(texts)} texts are null; expected a string each, "" for no text'
        )
    if texts.type != pa.large_string():  # a cast to the same type takes a tenth of a short text's time
        texts = texts.cast(pa.large_string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if ARROW_COMPOSES:
        normal = pc.utf8_normalize(texts, form="NFKC")
    elif pc.all(pc.string_is_ascii(texts)).as_py():
        normal = texts
    else:  # slower, but the same result with every version of Arrow
        normal = pa.array([normalize("NFKC", text) for text in texts.to_pylist()], pa.large_string())
    lower = pc.utf8_lower(normal)
    _, offsets, data = lower.buffers()
    offsets = np.frombuffer(offsets, np.int64)[lower.offset : lower.offset + len(lower) + 1]
    return np.frombuffer(data or b"", np.uint8), offsets


def count_grams(
    texts: Texts, grams: tuple[int, int, int], buckets: int, threads: int | None
) -> list[Counted]:
    """Count the n-grams of texts, chunk by chunk; see `kernels.count_texts`."""
    from flash.text.classification.backbones.linear import kernels

    classes = kernels.character_classes()

    def count(start: int) -> Counted:
        return kernels.count_texts(*text_buffers(texts.slice(start, CHUNK)), classes, grams, buckets)

    return in_threads(threads, count, range(0, len(texts), CHUNK))


def choose_features(
    counted: Sequence[Counted], rare: npt.NDArray[np.bool_], buckets: int, min_texts: int, most: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Select up to `most` buckets as features, and compute their smoothed idf.

    A bucket is eligible if at least `min_texts` texts have it, or at least two (or `min_texts`, if less) of the texts
    that `rare` (N,) marks, since the few texts of a rare label are the only source of its features.
    idf = log((1 + texts) / (1 + texts with the bucket)) + 1, as in scikit-learn's TfidfTransformer; for character
    n-grams to the power `CHARACTER_POWER`.
    The most frequent buckets come first, so that frequently used weights are adjacent in memory.
    """
    from flash.text.classification.backbones.linear import kernels

    documents = np.zeros(buckets, dtype=np.int32)
    of_rare = np.zeros(buckets, dtype=np.uint8)
    marks = rare.view(np.uint8)
    for start, (found, _, ends) in zip(range(0, len(marks), CHUNK), counted, strict=True):
        kernels.count_documents(found, ends, marks[start : start + CHUNK], documents, of_rare)
    used = np.flatnonzero((documents >= min_texts) | (of_rare >= min(min_texts, 2)))
    used = used[np.argsort(-documents[used], kind="stable")][:most]
    idf = np.log((1 + len(rare)) / (1 + documents[used])) + 1
    idf[used & 1 == kernels.CHARACTERS] **= CHARACTER_POWER
    return used.astype(np.int32), idf.astype(np.float32)


def word_share_for(counted: Sequence[Counted]) -> float:
    """Return the weight of words relative to characters for this amount of training text, from 0.5 to 0.8.

    Character n-grams replace words that training has not seen, of which there are fewer with more text. The weight is
    0.5 up to 1e7 distinct n-grams per text, summed over all texts (8,000 news items, or 50,000 sentences), and 0.2
    more for ten times as many.
    """
    grams = sum(len(buckets) for buckets, _, _ in counted)
    tenfolds = float(np.log10(max(grams, EQUAL_TEXT) / EQUAL_TEXT))
    return min(0.5 + SHARE_PER_TENFOLD * tenfolds, MOST_SHARE)


@dataclass(frozen=True)
class Rows:
    """Sparse TF-IDF rows: row i ends at `ends[i]` in `features` and `values`.

    Attributes:
        lengths: (N, 2) lengths of each row's words and characters before normalisation; 0 if it has none.
        squares: (N,) squared lengths of the normalised rows; 0 for an empty row.
    """

    features: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    ends: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float32]


def weigh_grams(
    counted: list[Counted],
    rows: npt.NDArray[np.int32],
    idf: npt.NDArray[np.float32],
    word_share: float,
    length_slope: float,
    threads: int | None,
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Return the TF-IDF rows of counted texts, and the (2, 2) norms with which new texts are normalised.

    `rows` gives each bucket's feature, -1 for none; see `pivoted_norms` for `length_slope`. Empties `counted`, so that
    the counts and the rows are not in memory together.
    """
    from flash.text.classification.backbones.linear import kernels

    room = sum(len(buckets) for buckets, _, _ in counted)
    features, values = (
        np.empty(room, np.int32),
        np.empty(room, np.float32),
    )  # unused memory is never allocated
    ends, lengths = [np.zeros(0, np.int64)], [np.zeros((0, 2))]
    end = 0
    counted.reverse()
    while counted:
        group = [counted.pop() for _ in range(min(len(counted), GROUP))]
        for part in in_threads(threads, lambda part: kernels.weigh_texts(*part, rows, idf), group):
            last = end + len(part[0])
            features[end:last], values[end:last] = part[:2]
            ends.append(part[2] + end)
            lengths.append(part[3])
            end = last
    every = np.concatenate(ends)
    found = Rows(
        features[:end], values[:end], every, np.concatenate(lengths), np.empty(len(every), np.float32)
    )
    norms = pivoted_norms(found.lengths, length_slope)

    def normalize(start: int) -> None:
        part = slice(start, start + CHUNK * GROUP)
        first = every[start - 1] if start else 0
        own = found.lengths[part], word_share, norms, found.squares[part]
        kernels.normalize_rows(first, every[part], found.features, found.values, *own)

    in_threads(threads, normalize, range(0, len(every), CHUNK * GROUP))
    return found, norms


def pivoted_norms(lengths: npt.NDArray[np.float64], slope: float) -> npt.NDArray[np.float32]:
    """Return (2, 2) norms: a part of length x is divided by norms[kind, 0] + norms[kind, 1] * x = (1 - slope) * pivot + slope * x.

    The pivot is the mean length of the words, or of the characters, over the training rows that have any.
    """
    pivots = lengths.sum(axis=0) / np.maximum((lengths > 0).sum(axis=0), 1)
    return np.stack([(1 - slope) * pivots, np.full(2, slope)], axis=1).astype(np.float32)
