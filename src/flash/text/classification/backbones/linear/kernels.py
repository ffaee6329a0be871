"""The compiled loops of the linear backbone: n-grams, TF-IDF rows and logits of texts.

Each kernel runs on one thread without the GIL and writes only to arrays of its caller, so that many can run in parallel
on different texts, with the same results. Each has a simple counterpart in `reference.py`, with which the tests compare
it. numba compiles a kernel at its first call and caches the result on disk.
"""

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.core.event import Event, Listener, install_listener

from flash.text.classification.backbones import loop_cache

SPACE, WORD, SYMBOL, EXTENDS, IGNORED = range(5)  # character classes of the tokenizer
WORDS, CHARACTERS = range(2)  # the lowest bit of an n-gram's bucket
BOUNDARY = 0x20  # a space, before and after each token; tokens contain no spaces
CHARACTER_SEED = np.uint64(
    0x243F6A8885A308D3
)  # the digits of pi: words and character n-grams never share a hash
WORD_SEED = np.uint64(0x13198A2E03707344)
UNITS, LOW, HIGH, CENTRE, ENOUGH = 0, 2, 3, 4, 5  # indices into `Evidence.places`; there are two units
SLOPE, SHIFT_BY, BASE = range(3)  # rows of `Evidence.by_label`
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FINAL_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)  # from splitmix64
SHIFT = np.uint64(32)

Bytes = npt.NDArray[np.uint8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32] | npt.NDArray[np.int8]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


_loops: list[Any] = []
"""The compiled functions that are cached on disk."""


def compiled(function: Kernel) -> Kernel:
    """Compile a function with numba at its first call, and cache it on disk if a folder is writable."""
    options: Any = {"nogil": True, "error_model": "numpy"}
    try:
        loop = njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        return cast(Kernel, njit(**options)(function))
    loop_cache.remove_damaged(loop.stats.cache_path)
    _loops.append(loop)
    return cast(Kernel, loop)


class _Announcement(Listener):
    """Announces once that loops of this library are being compiled, which takes seconds."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say: Callable[[str], object] | None = say

    def on_start(self, event: Event) -> None:
        if self.say is not None and event.data["dispatcher"].py_func.__module__.startswith("flash."):
            self.say("Compiling the linear backbone, once on this machine: some seconds.")
            self.say = None

    def on_end(self, event: Event) -> None:
        """Do nothing: the output that follows shows that compilation is done."""


@contextmanager
def announced_compilation(say: Callable[[str], object]) -> Iterator[None]:
    """Call `say` with a message if a kernel must be compiled in this block; not if all are cached on disk.

    Raises:
        FlashError: numba cannot read its cache.
    """
    try:
        with install_listener("numba:compile", _Announcement(say)):
            yield
    except Exception as error:
        loop_cache.explain(error, _loops)
        raise
    finally:
        loop_cache.note(_loops)


@cache
def character_classes() -> Bytes:
    """Return the class of each code point: SPACE, WORD, SYMBOL, EXTENDS (continues its token) or IGNORED.

    Unicode 3.2 is the only version that every Python contains unchanged, so that a model file means the same on all of
    them. Later characters are classified by their blocks: as emoji or as letters.
    """
    classes = np.full(0x110000, WORD, dtype=np.uint8)
    of_category = {"Z": SPACE, "P": SYMBOL, "S": SYMBOL, "M": EXTENDS}
    category = unicodedata.ucd_3_2_0.category
    for code in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xE000, 0x20000), *range(0xE0000, 0xE0200)):
        name = category(chr(code))
        if name == "Cn":
            emoji = 0x1F000 <= code < 0x1FB00 or 0x2190 <= code < 0x2C00 or 0x20A0 <= code < 0x20D0
            classes[code] = SYMBOL if emoji else WORD
        else:
            classes[code] = {"Cc": SPACE, "Cf": IGNORED}.get(name, of_category.get(name[0], WORD))
    classes[0x1F3FB:0x1F400] = EXTENDS  # skin tones
    classes[0xE0100:0xE01F0] = EXTENDS  # variation selectors
    classes.flags.writeable = False
    return classes


@compiled
def decode(
    data: Bytes,
    start: int,
    stop: int,
    classes: Bytes,
    codes: Int32s,
    kinds: Bytes,
) -> int:
    """Write a text's tokens as code points, with a BOUNDARY before and after each; `kinds` gets WORD or SYMBOL.

    Both outputs must have at least 2 * (stop - start) + 1 entries.

    Returns:
        The number of entries written: 0 for a text without tokens.
    """
    size = 0
    kind = SPACE
    position = start
    while position < stop:
        code = np.int32(data[position])
        position += 1
        if code >= 0xC0:
            more = 1 if code < 0xE0 else (2 if code < 0xF0 else 3)
            code &= 0x3F >> more
            while more > 0 and position < stop:
                code = (code << 6) | (data[position] & 0x3F)
                position += 1
                more -= 1
            if code > 0x10FFFF:
                code = np.int32(0xFFFD)
        now = classes[code]
        if now == IGNORED:
            continue
        if now == EXTENDS:
            now = kind if kind != SPACE else WORD
        if now != kind and (kind != SPACE or size == 0):
            codes[size] = BOUNDARY
            kinds[size] = SPACE
            size += 1
        if now != SPACE:
            codes[size] = code
            kinds[size] = now
            size += 1
        kind = now
    if kind != SPACE:
        codes[size] = BOUNDARY
        kinds[size] = SPACE
        size += 1
    return size


@compiled
def finish(value: np.uint64, mask: np.uint64, kind: int) -> np.int32:
    """Return the bucket of a hash: all bits are mixed into the low ones, and the lowest bit is the n-gram's kind."""
    value = (value ^ (value >> SHIFT)) * FINAL_MULTIPLIER
    return np.int32((value ^ (value >> SHIFT)) & mask & ~np.uint64(1)) | np.int32(kind)


@compiled
def count(
    bucket: np.int32,
    found: int,
    table: Int32s,
    table_mask: int,
    slots: Int32s,
) -> int:
    """Add one to a bucket in an open-addressing table of (bucket, count); return the number of buckets in it."""
    slot = bucket & table_mask
    while table[slot, 0] >= 0:
        if table[slot, 0] == bucket:
            table[slot, 1] += 1
            return found
        slot = (slot + 1) & table_mask
    table[slot, 0] = bucket
    table[slot, 1] = 1
    slots[found] = slot
    return found + 1


@compiled
def count_grams(
    codes: Int32s,
    kinds: Bytes,
    size: int,
    grams: tuple[int, int, int],
    mask: np.uint64,
    table: Int32s,
    table_mask: int,
    slots: Int32s,
) -> int:
    """Count the buckets of a decoded text's n-grams in `table`.

    `grams` is (longest word n-gram, shortest and longest character n-gram). A character n-gram lies within
    one token and its two boundaries. Time is linear in the text: a position starts one n-gram a length.

    Returns:
        How many different buckets there are; `slots` lists their places in `table`, in order of appearance.
    """
    words, shortest, longest = grams
    chain = np.zeros(words + 1, dtype=np.uint64)  # chain[n] is the hash of the last n words
    found = seen = 0
    word = WORD_SEED
    for first in range(size):
        if first > 0 and kinds[first] == SPACE:
            for n in range(min(words, seen + 1), 0, -1):
                chain[n] = ((chain[n - 1] if n > 1 else WORD_SEED) ^ word) * MULTIPLIER
                found = count(finish(chain[n], mask, WORDS), found, table, table_mask, slots)
            seen += 1
            word = WORD_SEED
        elif first > 0:
            word = (word ^ np.uint64(codes[first])) * MULTIPLIER
        gram = CHARACTER_SEED
        for last in range(first, min(first + longest, size)):
            gram = (gram ^ np.uint64(codes[last])) * MULTIPLIER
            if last - first + 1 >= shortest and (last > first or kinds[last] != SPACE):
                found = count(finish(gram, mask, CHARACTERS), found, table, table_mask, slots)
            if last > first and kinds[last] == SPACE:
                break
    return found


@compiled
def drain(found: int, slots: Int32s, table: Int32s, buckets: Int32s, counts: Int32s) -> None:
    """Move a table's entries out, in order of appearance, and leave it empty."""
    for i in range(found):
        slot = slots[i]
        buckets[i] = table[slot, 0]
        counts[i] = table[slot, 1]
        table[slot, 0] = -1


@compiled
def table_size(size: int, per_byte: int, buckets: int) -> int:
    """Return a power of two that is at least twice the number of distinct buckets of `size` bytes of text."""
    needed = 2 * min(size * per_byte, buckets)
    capacity = 64
    while capacity < needed:
        capacity *= 2
    return capacity


@compiled
def scratch(
    offsets: Int64s, grams: tuple[int, int, int], buckets: int
) -> tuple[int, Int32s, Bytes, Int32s, Int32s]:
    """Allocate for the longest text: maximum n-grams per byte, codes, kinds, an empty table, and its slots."""
    longest = np.max(offsets[1:] - offsets[:-1])
    per_byte = grams[0] + max(0, grams[2] - grams[1] + 1) + 1
    codes = np.empty(2 * longest + 1, dtype=np.int32)
    kinds = np.empty(2 * longest + 1, dtype=np.uint8)
    table = np.full((table_size(longest, per_byte, buckets), 2), -1, dtype=np.int32)
    slots = np.empty(min(longest * per_byte, buckets) + 1, dtype=np.int32)
    return per_byte, codes, kinds, table, slots


@compiled
def count_texts(
    data: Bytes, offsets: Int64s, classes: Bytes, grams: tuple[int, int, int], buckets: int
) -> tuple[Int32s, Int32s, Int64s]:
    """Count the n-grams of texts: return buckets, their counts in their text, and the end of each text."""
    texts = len(offsets) - 1
    per_byte, codes, kinds, table, slots = scratch(offsets, grams, buckets)
    room = (offsets[texts] - offsets[0]) * per_byte + 1
    found_buckets = np.empty(room, dtype=np.int32)  # unused memory is never allocated
    found_counts = np.empty(room, dtype=np.int32)
    ends = np.empty(texts, dtype=np.int64)
    end = 0
    for text in range(texts):
        start, stop = offsets[text], offsets[text + 1]
        mask = table_size(stop - start, per_byte, buckets) - 1
        size = decode(data, start, stop, classes, codes, kinds)
        found = count_grams(codes, kinds, size, grams, np.uint64(buckets - 1), table, mask, slots)
        drain(found, slots, table, found_buckets[end:], found_counts[end:])
        end += found
        ends[text] = end
    return found_buckets[:end].copy(), found_counts[:end].copy(), ends


@compiled
def count_documents(
    buckets: Int32s, ends: Int64s, rare: Bytes, documents: Int32s, rare_documents: Bytes
) -> None:
    """Count the texts of a chunk with each bucket, and separately those with a rare label, up to 255."""
    start = 0
    for text in range(len(ends)):
        for i in range(start, ends[text]):
            documents[buckets[i]] += 1
            if rare[text] and rare_documents[buckets[i]] < 255:
                rare_documents[buckets[i]] += 1
        start = ends[text]


@compiled
def weigh(
    buckets: Int32s,
    counts: Int32s,
    rows: Int32s,
    idf: Floats,
    features: Int32s,
    values: Floats,
    lengths: Doubles,
) -> int:
    """Compute a text's TF-IDF values before normalisation: (1 + log count) * idf for each of its features.

    Args:
        buckets: The text's distinct buckets.
        counts: The count of each bucket.
        rows: The feature of every bucket, -1 if it is not a feature.
        idf: One per feature.
        features: Receives 2 * feature + kind.
        values: Receives their values.
        lengths: (2,), receives the lengths of the words' part and of the characters' part of the row.

    Returns:
        How many features were written.
    """
    kept = 0
    lengths[:] = 0.0
    for i in range(len(buckets)):
        feature = rows[buckets[i]]
        if feature >= 0:
            value = np.float64(idf[feature])
            if counts[i] > 1:
                value *= 1.0 + np.log(np.float64(counts[i]))
            kind = buckets[i] & 1
            features[kept] = 2 * feature + kind
            values[kept] = value
            lengths[kind] += value * value
            kept += 1
    lengths[:] = np.sqrt(lengths)
    return kept


@compiled
def part_scale(lengths: Doubles, kind: int, word_share: float, norms: Floats) -> float:
    """Return the factor of a row's words or characters, given the lengths (2,) of both parts.

    A part's share of the square is `word_share` or the rest, and 1 where the row has no other part. It is divided by
    norms[kind, 0] + norms[kind, 1] * length: by its own length where these are 0 and 1; else a part that is shorter
    than those of most training rows stays short (pivoted length normalisation; Singhal, Buckley and Mitra, "Pivoted
    document length normalization", SIGIR 1996).
    """
    if lengths[kind] <= 0:
        return 0.0
    share = 1.0
    if lengths[1 - kind] > 0:
        share = word_share if kind == WORDS else 1.0 - word_share
    divisor = np.float64(norms[kind, 0]) + np.float64(norms[kind, 1]) * lengths[kind]
    scale: float = np.sqrt(share) / divisor
    return scale


@compiled
def normalize(features: Int32s, values: Floats, lengths: Doubles, word_share: float, norms: Floats) -> float:
    """Normalise a row of `weigh`, and convert its features to plain ones; return the row's squared length."""
    word_scale = part_scale(lengths, WORDS, word_share, norms)
    character_scale = part_scale(lengths, CHARACTERS, word_share, norms)
    for i in range(len(features)):
        values[i] = values[i] * (word_scale if features[i] & 1 == WORDS else character_scale)
        features[i] >>= 1
    square: float = (word_scale * lengths[WORDS]) ** 2 + (character_scale * lengths[CHARACTERS]) ** 2
    return square


@compiled
def weigh_texts(
    buckets: Int32s, counts: Int32s, ends: Int64s, rows: Int32s, idf: Floats
) -> tuple[Int32s, Floats, Int64s, Doubles]:
    """Apply `weigh` to the result of `count_texts`: return features, values, the end of each text, (N, 2) lengths."""
    features = np.empty(len(buckets), dtype=np.int32)
    values = np.empty(len(buckets), dtype=np.float32)
    new_ends = np.empty(len(ends), dtype=np.int64)
    lengths = np.empty((len(ends), 2), dtype=np.float64)
    start = end = 0
    for text in range(len(ends)):
        stop = ends[text]
        own = buckets[start:stop], counts[start:stop]
        end += weigh(*own, rows, idf, features[end:], values[end:], lengths[text])
        new_ends[text] = end
        start = stop
    return features[:end].copy(), values[:end].copy(), new_ends, lengths


@compiled
def normalize_rows(
    first: int,
    ends: Int64s,
    features: Int32s,
    values: Floats,
    lengths: Doubles,
    word_share: float,
    norms: Floats,
    squares: Floats,
) -> None:
    """Normalise rows in place, from index `first` on; `squares` (N,) receives their squared lengths."""
    start = first
    for row in range(len(ends)):
        part = slice(start, ends[row])
        squares[row] = normalize(features[part], values[part], lengths[row], word_share, norms)
        start = ends[row]


@compiled
def evidence_of(lengths: Doubles, evidence: Floats) -> float:
    """Return a text's evidence from the lengths (2,) of its parts before normalisation; about 1 for a typical text."""
    words = np.float64(evidence[UNITS]) * lengths[WORDS]
    amount: float = words + np.float64(evidence[UNITS + 1]) * lengths[CHARACTERS]
    return amount


@compiled
def weigh_evidence(amount: float, evidence: Floats, by_label: Floats, scores: Floats) -> None:
    """Correct the scores (K,) of a text by its evidence, in place.

    With u the logarithm of the amount, kept within what training texts have and about its centre there, a score s
    becomes s + u (slope s + shift). Below an amount that nearly all training texts have, the result goes back to the
    score of the label's base rate, with the square of the amount. For one amount, no order of scores changes.
    """
    bounded = min(max(np.log(max(amount, 1e-30)), np.float64(evidence[LOW])), np.float64(evidence[HIGH]))
    u = np.float32(bounded - np.float64(evidence[CENTRE]))
    share = np.float32(min(amount / np.float64(evidence[ENOUGH]), 1.0) ** 2)
    for k in range(len(scores)):
        changed = scores[k] + u * (by_label[SLOPE, k] * scores[k] + by_label[SHIFT_BY, k])
        scores[k] = by_label[BASE, k] + share * (changed - by_label[BASE, k])


@compiled
def weigh_evidence_of_rows(amounts: Doubles, evidence: Floats, by_label: Floats, scores: Floats) -> None:
    """Correct the scores (N, K) of texts by their evidence (N,), in place."""
    for row in range(len(scores)):
        weigh_evidence(amounts[row], evidence, by_label, scores[row])


@compiled
def add_scores(
    features: Int32s, values: Floats, start: int, stop: int, weight: Weights, scores: Floats
) -> None:
    """Add the sparse row from `start` to `stop` times `weight` (F, K), float32 or int8, to `scores` (K,).

    Four features at a time: the scores are loaded and stored a fourth as often.
    """
    labels = len(scores)
    i = start
    while i + 4 <= stop:
        v0, v1, v2, v3 = values[i], values[i + 1], values[i + 2], values[i + 3]
        w0, w1 = weight[features[i]], weight[features[i + 1]]
        w2, w3 = weight[features[i + 2]], weight[features[i + 3]]
        for k in range(labels):
            first, second = v0 * np.float32(w0[k]), v1 * np.float32(w1[k])
            scores[k] += ((first + second) + v2 * np.float32(w2[k])) + v3 * np.float32(w3[k])
        i += 4
    while i < stop:
        value, weights = values[i], weight[features[i]]
        for k in range(labels):
            scores[k] += value * np.float32(weights[k])
        i += 1


@compiled
def logits_of_texts(
    data: Bytes,
    offsets: Int64s,
    classes: Bytes,
    grams: tuple[int, int, int],
    rows: Int32s,
    idf: Floats,
    word_share: float,
    norms: Floats,
    weight: Weights,
    scale: Floats,
    bias: Floats,
    evidence: Floats,
    by_label: Floats,
    logits: Floats,
) -> None:
    """Compute logits (N, L) of texts in one pass; texts do not influence each other."""
    buckets = len(rows)
    per_byte, codes, kinds, table, slots = scratch(offsets, grams, buckets)
    found_buckets = np.empty_like(slots)
    found_counts = np.empty_like(slots)
    features = np.empty_like(slots)
    values = np.empty(len(slots), dtype=np.float32)
    lengths = np.empty(2, dtype=np.float64)
    for text in range(len(offsets) - 1):
        start, stop = offsets[text], offsets[text + 1]
        mask = table_size(stop - start, per_byte, buckets) - 1
        size = decode(data, start, stop, classes, codes, kinds)
        found = count_grams(codes, kinds, size, grams, np.uint64(buckets - 1), table, mask, slots)
        drain(found, slots, table, found_buckets, found_counts)
        own = found_buckets[:found], found_counts[:found]
        kept = weigh(*own, rows, idf, features, values, lengths)
        normalize(features[:kept], values[:kept], lengths, word_share, norms)
        for i in range(kept):
            values[i] *= scale[features[i]]
        logits[text] = bias
        add_scores(features, values, 0, kept, weight, logits[text])
        if evidence[ENOUGH] > 0:
            weigh_evidence(evidence_of(lengths, evidence), evidence, by_label, logits[text])
