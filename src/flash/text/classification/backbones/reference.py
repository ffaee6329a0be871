"""What the compiled loops compute, written as plainly as possible; the tests compare the two.

Imports of the project only the constants that both must share.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from flash.text.classification.backbones import kernels

BITS = 2**64 - 1


def character_class_reference(character: str) -> int:
    """SPACE, WORD, SYMBOL, EXTENDS or IGNORED, by the category that Unicode 3.2 gave the character."""
    code = ord(character)
    category = unicodedata.ucd_3_2_0.category(character)
    if 0x1F3FB <= code <= 0x1F3FF or 0xE0100 <= code <= 0xE01EF:
        return kernels.EXTENDS
    if category == "Cc" or category.startswith("Z"):
        return kernels.SPACE
    if category == "Cf":
        return kernels.IGNORED
    if category.startswith("M"):
        return kernels.EXTENDS
    later_symbol = category == "Cn" and (
        0x20A0 <= code <= 0x20CF or 0x2190 <= code <= 0x2BFF or 0x1F000 <= code <= 0x1FAFF
    )
    return kernels.SYMBOL if later_symbol or category[0] in "PS" else kernels.WORD


def tokens_reference(text: str) -> list[str]:
    """Runs of word characters and runs of symbols, without spaces and invisible characters."""
    tokens: list[str] = []
    kind = kernels.SPACE
    for character in text:
        found = character_class_reference(character)
        if found == kernels.IGNORED:
            continue
        if found == kernels.EXTENDS:
            found = kernels.WORD if kind == kernels.SPACE else kind
        if found != kernels.SPACE:
            if found == kind:
                tokens[-1] += character
            else:
                tokens.append(character)
        kind = found
    return tokens


def grams_reference(text: str, grams: tuple[int, int, int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every n-gram of a text: ("word", words) or ("character", characters)."""
    words, shortest, longest = grams
    tokens = tokens_reference(text)
    for last in range(1, len(tokens) + 1):
        for first in range(max(0, last - words), last):
            yield "word", tuple(tokens[first:last])
    for token in tokens:
        padded = f" {token} "
        for length in range(max(shortest, 1), longest + 1):
            for first in range(len(padded) - length + 1):
                if padded[first : first + length] != " ":
                    yield "character", tuple(padded[first : first + length])


def bucket_reference(kind: str, gram: tuple[str, ...], buckets: int) -> int:
    """The bucket of an n-gram: a 64-bit hash over its code points, or over its words' hashes."""
    if kind == "character":
        value = _hash(int(kernels.CHARACTER_SEED), [ord(character) for character in gram])
    else:
        seed = int(kernels.WORD_SEED)
        value = _hash(seed, [_hash(seed, [ord(character) for character in word]) for word in gram])
    value = ((value ^ (value >> 32)) * int(kernels.FINAL_MULTIPLIER)) & BITS
    return (value ^ (value >> 32)) & (buckets - 1)


def _hash(value: int, parts: Sequence[int]) -> int:
    for part in parts:
        value = ((value ^ part) * int(kernels.MULTIPLIER)) & BITS
    return value


def count_reference(text: str, grams: tuple[int, int, int], buckets: int) -> Counter[int]:
    """How often each bucket occurs in a normalised, lower-case text."""
    return Counter(bucket_reference(kind, gram, buckets) for kind, gram in grams_reference(text, grams))


def weigh_reference(
    counts: Mapping[int, int], rows: npt.NDArray[np.int32], idf: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """A text's dense TF-IDF row (F,) of length one, or all zeros."""
    row = np.zeros(len(idf))
    for bucket, times in counts.items():
        if rows[bucket] >= 0:
            row[rows[bucket]] = (1 + np.log(times)) * idf[rows[bucket]]
    return row / (np.linalg.norm(row) or 1.0)


def logits_reference(
    text: str, grams: tuple[int, int, int], buckets: int, arrays: Mapping[str, npt.NDArray[np.generic]]
) -> npt.NDArray[np.float64]:
    """The logits (L,) of a normalised, lower-case text, from what `Linear.arrays` gives."""
    rows = np.full(buckets, -1, dtype=np.int32)
    rows[arrays["buckets"].astype(np.int64)] = np.arange(len(arrays["buckets"]))
    row = weigh_reference(count_reference(text, grams, buckets), rows, arrays["idf"].astype(np.float32))
    return row @ arrays["weight"].astype(np.float64) + arrays["bias"].astype(np.float64)


def solve_pass_reference(
    order: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float64],
    targets: npt.NDArray[np.float64],
    duals: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    cost: float,
) -> None:
    """One pass for one label, over dense rows (N, F + 1) that end with the constant feature.

    `duals` (N,) holds t - b, and `weight` (F + 1,) is cost * duals @ rows; both are changed. The best b is
    found by halving: log(b / (1 - b)) - z + q (b - b before) grows with b.
    """
    for i in order:
        z = rows[i] @ weight
        q = cost * (rows[i] @ rows[i])
        before = targets[i] - duals[i]
        low, high = 0.0, 1.0
        for _ in range(200):
            b = (low + high) / 2
            if b in (low, high):
                break
            low, high = (low, b) if np.log(b) - np.log1p(-b) - z + q * (b - before) > 0 else (b, high)
        weight += cost * ((targets[i] - b) - duals[i]) * rows[i]
        duals[i] = targets[i] - b
