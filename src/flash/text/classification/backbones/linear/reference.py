"""Reference implementations of the compiled loops, as simple as possible; the tests compare both.

Imports only shared constants from the compiled loops.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from flash.text.classification.backbones.linear import kernels
from flash.text.classification.backbones.linear.solver import LEAST_WEIGHT, OFFSET

Doubles = npt.NDArray[np.float64]

BITS = 2**64 - 1


def character_class_reference(character: str) -> int:
    """Return SPACE, WORD, SYMBOL, EXTENDS or IGNORED, by the character's category in Unicode 3.2."""
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
    """The bucket of an n-gram: a 64-bit hash over its code points, or over its words' hashes.

    Words have even buckets, characters odd ones.
    """
    if kind == "character":
        value = _hash(int(kernels.CHARACTER_SEED), [ord(character) for character in gram])
    else:
        seed = int(kernels.WORD_SEED)
        value = _hash(seed, [_hash(seed, [ord(character) for character in word]) for word in gram])
    value = ((value ^ (value >> 32)) * int(kernels.FINAL_MULTIPLIER)) & BITS
    bucket = (value ^ (value >> 32)) & (buckets - 1)
    return bucket - bucket % 2 + (kernels.CHARACTERS if kind == "character" else kernels.WORDS)


def _hash(value: int, parts: Sequence[int]) -> int:
    for part in parts:
        value = ((value ^ part) * int(kernels.MULTIPLIER)) & BITS
    return value


def count_reference(text: str, grams: tuple[int, int, int], buckets: int) -> Counter[int]:
    """Count the buckets in a normalised, lower-case text."""
    return Counter(bucket_reference(kind, gram, buckets) for kind, gram in grams_reference(text, grams))


def documents_reference(
    texts: Sequence[Mapping[int, int]], rare: Sequence[bool], buckets: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the number of texts with each bucket, and the number of these with a rare label, up to 255."""
    documents, of_rare = np.zeros(buckets, np.int64), np.zeros(buckets, np.int64)
    for counts, is_rare in zip(texts, rare, strict=True):
        for bucket in counts:
            documents[bucket] += 1
            of_rare[bucket] += is_rare
    return documents, np.minimum(of_rare, 255)


def weigh_reference(
    counts: Mapping[int, int],
    rows: npt.NDArray[np.int32],
    idf: npt.NDArray[np.float32],
    word_share: float,
    norms: Doubles,
) -> tuple[Doubles, Doubles]:
    """Return a text's dense TF-IDF row (F,), and the (2,) lengths of its words and characters before normalisation.

    Each part is divided by norms[kind, 0] + norms[kind, 1] * length; `word_share` is the weight of words in the row's
    squared length.
    """
    parts, lengths = np.zeros((2, len(idf))), np.zeros(2)
    for bucket, times in counts.items():
        if rows[bucket] >= 0:
            parts[bucket % 2, rows[bucket]] = (1 + np.log(times)) * idf[rows[bucket]]
    lengths[:] = np.linalg.norm(parts, axis=1)
    for kind in np.flatnonzero(lengths):
        share = (word_share, 1 - word_share)[kind] if lengths.all() else 1.0
        parts[kind] *= np.sqrt(share) / (norms[kind, 0] + norms[kind, 1] * lengths[kind])
    row: Doubles = parts.sum(axis=0)
    return row, lengths


def evidence_reference(amount: float, evidence: Doubles, by_label: Doubles, scores: Doubles) -> Doubles:
    """Return the scores (L,) of a text with this evidence; see `kernels.weigh_evidence`."""
    low, high, centre, enough = evidence[2:]
    u = np.clip(np.log(max(amount, 1e-30)), low, high) - centre
    slope, shift, base = by_label
    changed: Doubles = base + min(amount / enough, 1) ** 2 * (scores + u * (slope * scores + shift) - base)
    return changed


def logits_reference(
    text: str,
    grams: tuple[int, int, int],
    buckets: int,
    word_share: float,
    arrays: Mapping[str, npt.NDArray[np.generic]],
) -> npt.NDArray[np.float64]:
    """Return the logits (L,) of a normalised, lower-case text, from the arrays of `Linear.arrays`."""
    numbers: dict[str, Doubles] = {name: array.astype(np.float64) for name, array in arrays.items()}
    rows = np.full(buckets, -1, dtype=np.int32)
    rows[arrays["buckets"].astype(np.int64)] = np.arange(len(arrays["buckets"]))
    counts = count_reference(text, grams, buckets)
    row, lengths = weigh_reference(
        counts, rows, arrays["idf"].astype(np.float32), word_share, numbers["norms"]
    )
    scores: Doubles = row @ (numbers["weight"] * numbers["scale"][:, np.newaxis]) + numbers["bias"]
    evidence = numbers["evidence"]
    if not evidence.any():
        return scores
    return evidence_reference(float(lengths @ evidence[:2]), evidence, numbers["evidence_by_label"], scores)


def signs_and_costs_reference(targets: Doubles, costs: Doubles) -> tuple[Doubles, Doubles]:
    """Return y and the cost of each row's squared hinge, both (N,), for one label.

    `costs` (2,) are those of rows without the label and with it. An unknown target, NaN, has cost 0.
    """
    has = targets >= 0.5
    weights = np.where(targets > 0, np.maximum(np.abs(2 * targets - 1), LEAST_WEIGHT), 1.0)
    weights[np.isnan(targets)] = 0.0
    return np.where(has, 1.0, -1.0), costs[has.astype(int)] * weights


def solve_pass_reference(
    order: npt.NDArray[np.int64],
    rows: Doubles,
    targets: Doubles,
    duals: Doubles,
    weight: Doubles,
    costs: Doubles,
    still: float,
) -> tuple[float, float]:
    """One pass for one label, over dense rows (N, F + 1) that end with the constant feature.

    `duals` (N,) contains a y, and `weight` (F + 1,) is duals @ rows; both are changed. Returns the largest
    projected gradient and the sum of the squared hinges.
    """
    signs, row_costs = signs_and_costs_reference(targets, costs)
    violation = loss = 0.0
    for i in order:
        if np.isnan(targets[i]):
            continue
        y, softness = signs[i], 1 / (2 * row_costs[i])
        a = duals[i] * y
        margin = y * (rows[i] @ weight + OFFSET)
        gradient = margin - 1 + softness * a
        projected = gradient if a > 0 else min(gradient, 0.0)
        violation, loss = max(violation, abs(projected)), loss + max(0.0, 1 - margin) ** 2
        if abs(projected) > still:
            after = max(0.0, a - gradient / (rows[i] @ rows[i] + softness))
            weight += (after - a) * y * rows[i]
            duals[i] = after * y
    return violation, loss


def scores_reference(rows: Doubles, weight: Doubles) -> Doubles:
    """Return the decision values (N,) of dense rows (N, F + 1) that end with the constant feature."""
    margins: Doubles = rows @ weight + OFFSET
    return margins


def optimal_duals_reference(margins: Doubles, targets: Doubles, costs: Doubles) -> Doubles:
    """Return a y (N,) at an optimum with these decision values, for one label."""
    signs, row_costs = signs_and_costs_reference(targets, costs)
    duals: Doubles = signs * 2 * row_costs * np.maximum(0, 1 - signs * margins)
    return duals


def objective_reference(
    weight: Doubles, rows: Doubles, targets: Doubles, costs: Doubles
) -> tuple[float, Doubles]:
    """Return the solver's objective for one label, as a function of the weights (F + 1,), and its gradient."""
    signs, row_costs = signs_and_costs_reference(targets, costs)
    short = np.maximum(0, 1 - signs * scores_reference(rows, weight))
    value = weight @ weight / 2 + row_costs @ short**2
    return float(value), weight - 2 * (row_costs * short * signs) @ rows
