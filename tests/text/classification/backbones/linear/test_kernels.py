"""The compiled loops beside their plain references, on hostile Unicode."""

import os
import subprocess
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.core.threads import in_threads
from flash.text.classification.backbones.linear import features, kernels, reference
from flash.text.classification.backbones.linear.features import (
    choose_features,
    text_buffers,
    weigh_grams,
    word_share_for,
)
from flash.text.classification.backbones.linear.features import count_grams as count_grams_of_texts
from flash.text.classification.backbones.linear.solver import (
    add_rows,
    balance_rows,
    optimal_duals,
    score_rows,
    solve_pass,
)

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

HOSTILE = [
    "e\u0301\u0328 \u0301lone mark",
    "שלום עולם، مرحبا بالعالم",
    "👨\u200d👩\u200d👧\u200d👦 👍🏽 ❤️!!!",
    "\x00nul\x00\x00inside\x00",
    "mixed Кириллица中文字符한국어 ไทย",
    "a!a!a!",
    " \t\n\u3000\u00a0 ",
    "\ufdfa ﬁ ① Å ß İ",
    "zero\u200bwidth soft\u00adhyphen \u200c",
    "\U0010ffff\U000e0001\ue000",
    "don't stop-me __now__ 3.14 €5",
]
TEXT = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="ab !\x00é👍\u0301\u200d한", max_size=30),
    st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join),
)
GRAMS = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 3)).map(
    lambda g: (g[0], g[1], g[1] + g[2])
)


def counts_of(texts: list[str], grams: tuple[int, int, int], buckets: int) -> list[dict[int, int]]:
    """What the compiled loop counts in texts taken as they are: not normalised, not in lower case."""
    array = pa.array(texts, pa.large_string())
    _, offsets, data = array.buffers()
    found, times, ends = kernels.count_texts(
        np.frombuffer(data or b"", np.uint8),
        np.frombuffer(offsets, np.int64)[: len(texts) + 1],
        kernels.character_classes(),
        grams,
        buckets,
    )
    starts = [0, *ends[:-1]]
    return [
        dict(zip(found[start:end].tolist(), times[start:end].tolist(), strict=True))
        for start, end in zip(starts, ends, strict=True)
    ]


def test_the_class_of_every_character() -> None:
    codes = [
        *range(0x3500),
        *range(0x9F00, 0xD800),
        *range(0xE000, 0x20100),
        0x2F800,
        *range(0xE0000, 0xE0300),
    ]
    classes = kernels.character_classes()
    assert classes[codes].tolist() == [reference.character_class_reference(chr(code)) for code in codes]
    assert classes[[0x110000 - 1, 0x30000, 0x5000]].tolist() == [
        reference.character_class_reference(chr(code)) for code in (0x110000 - 1, 0x30000, 0x5000)
    ]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hi, you!!!", ["hi", ",", "you", "!!!"]),
        ("👍🏽👍 ❤\ufe0f", ["👍🏽👍", "❤\ufe0f"]),
        ("\u0645\u06cc\u200c\u062e\u0648", ["\u0645\u06cc\u062e\u0648"]),  # Persian, with a non-joiner
        ("한국어 中文", ["한국어", "中文"]),
        ("a\x00b", ["a", "b"]),
        ("हिन्दी।", ["हिन्दी", "।"]),
        ("", []),
        (" \n", []),
    ],
)
def test_tokens_by_hand(text: str, tokens: list[str]) -> None:
    assert reference.tokens_reference(text) == tokens
    words_only = counts_of([text], (1, 0, 0), 2**20)[0]
    assert words_only == {reference.bucket_reference("word", (token,), 2**20): 1 for token in tokens}
    assert all(bucket % 2 == kernels.WORDS for bucket in words_only)


def test_grams_by_hand() -> None:
    grams = sorted(
        "".join(gram) for kind, gram in reference.grams_reference("ab c", (2, 2, 3)) if kind != "word"
    )
    assert grams == sorted([" a", "ab", "b ", " ab", "ab ", " c", "c ", " c "])
    words = [gram for kind, gram in reference.grams_reference("ab c", (2, 2, 3)) if kind == "word"]
    assert sorted(words) == [("ab",), ("ab", "c"), ("c",)]


@settings(deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=4), grams=GRAMS, bits=st.integers(6, 20))
def test_counts_equal_the_reference(texts: list[str], grams: tuple[int, int, int], bits: int) -> None:
    expected = [dict(reference.count_reference(text, grams, 2**bits)) for text in texts]
    assert counts_of(texts, grams, 2**bits) == expected


@pytest.mark.parametrize("text", HOSTILE)
def test_counts_of_hostile_texts(text: str) -> None:
    assert counts_of([text], (2, 2, 5), 2**20) == [dict(reference.count_reference(text, (2, 2, 5), 2**20))]


def test_bytes_that_are_no_utf8_stay_in_bounds() -> None:
    data = np.frombuffer(b"\xff\xff\xff\xff a \xf4\xbf\xbf\xbf \xc3", np.uint8)
    offsets = np.array([0, len(data)])
    offsets.flags.writeable = False
    found, times, ends = kernels.count_texts(data, offsets, kernels.character_classes(), (1, 2, 3), 64)
    assert ends.tolist() == [len(found)]
    assert times.sum() > 0


def test_a_megabyte_without_spaces() -> None:
    counts = counts_of(["ab" * 500_000], (2, 2, 5), 2**20)[0]
    ab, start = ("character", ("a", "b")), ("character", (" ", "a"))
    assert counts[reference.bucket_reference(*ab, 2**20)] == 500_000
    assert counts[reference.bucket_reference(*start, 2**20)] == 1
    assert len(counts) == 1 + 2 * 4 + 2 * 4  # the word; n-grams within, at the start and at the end


@settings(deadline=None)
@given(
    text=TEXT,
    seed=st.integers(0, 100),
    share=st.sampled_from([0.5, 0.8]),
    slope=st.sampled_from([1.0, 0.8, 0.25]),
)
def test_rows_equal_the_reference(text: str, seed: int, share: float, slope: float) -> None:
    generator = np.random.default_rng(seed)
    rows = np.where(generator.random(2**10) < 0.5, np.arange(2**10), -1).astype(np.int32)
    idf = generator.random(2**10).astype(np.float32) + 1
    counted = count_grams_of_texts(pa.array(["", text, "x"]), (2, 2, 3), 2**10, 1)
    found, norms = weigh_grams(counted, rows, idf, share, slope, 1)
    dense = np.zeros(2**10)
    dense[found.features[found.ends[0] : found.ends[1]]] = found.values[found.ends[0] : found.ends[1]]
    data, offsets = text_buffers(pa.array([text]))
    normal = bytes(data[offsets[0] : offsets[1]]).decode()
    counts = reference.count_reference(normal, (2, 2, 3), 2**10)
    expected, lengths = reference.weigh_reference(counts, rows, idf, share, norms.astype(np.float64))
    np.testing.assert_allclose(dense, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.lengths[1], lengths, rtol=1e-5)
    assert found.squares[1] == pytest.approx(np.sum(dense**2), rel=1e-5)
    assert found.squares[0] == found.ends[0] == 0
    if slope == 1:
        assert norms.tolist() == [[0, 1], [0, 1]]
        assert not dense.any() or found.squares[1] == pytest.approx(1)


@given(
    text=st.text(alphabet=st.characters(max_codepoint=0x3000, exclude_categories=["Cs", "Cn"]), max_size=20)
)
def test_texts_are_normalised_and_lower_case(text: str) -> None:
    data, offsets = text_buffers(pa.array(["x", text, "Å\uff21"]))
    normal = unicodedata.normalize("NFKC", text)
    found = bytes(data[offsets[1] : offsets[2]]).decode()
    assert found == pc.utf8_lower(pa.scalar(normal)).as_py()
    assert bytes(data[offsets[2] : offsets[3]]).decode() == "åa"


@pytest.mark.parametrize(
    "texts", [["E\u0301te\u0301", "\xc9t\xe9", "\u212bNGSTR\xd6M \u1112\u1161\u11ab"], ["PLAIN", ""]]
)
def test_every_arrow_gives_the_same_texts(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [unicodedata.normalize("NFKC", text).lower().encode() for text in texts]
    for composes in {features.ARROW_COMPOSES, False}:  # Arrow before 26 does not: then Python does
        monkeypatch.setattr(features, "ARROW_COMPOSES", composes)
        data, offsets = text_buffers(pa.array(texts))
        assert [bytes(data[start:end]) for start, end in pairwise(offsets)] == expected


def test_any_array_of_strings_will_do() -> None:
    texts = ["skipped", "One", "", "Two"]
    for array in (
        pa.array(texts),
        pa.array(texts, pa.large_string()),
        pa.chunked_array([texts[:2], [], texts[2:]], pa.string()),
    ):
        data, offsets = text_buffers(array.slice(1))
        pieces = [bytes(data[start:end]) for start, end in pairwise(offsets)]
        assert pieces == [b"one", b"", b"two"]


def test_texts_that_are_none() -> None:
    with pytest.raises(DataError, match=r"texts are of type int64; expected strings: cast them"):
        text_buffers(pa.array([1, 2]))
    with pytest.raises(DataError, match=r'1 of 2 texts are null; expected a string each, "" for no text'):
        text_buffers(pa.array(["a", None]))


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_keep_the_order_and_pass_errors_on(threads: int | None) -> None:
    assert in_threads(threads, lambda n: n * n, range(20)) == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        in_threads(threads, lambda n: 1 // n, [1, 0])


@settings(deadline=None, max_examples=30)
@given(
    texts=st.lists(TEXT, min_size=1, max_size=6),
    data=st.data(),
    min_texts=st.integers(1, 4),
    most=st.integers(1, 200),
)
def test_features_are_the_frequent_and_those_of_rare_labels(
    texts: list[str], data: st.DataObject, min_texts: int, most: int
) -> None:
    texts = texts * data.draw(st.sampled_from([1, 2, 300]))  # more than a chunk too
    marks = data.draw(st.lists(st.booleans(), min_size=6, max_size=6))
    rare = [marks[i % 6] for i in range(len(texts))]
    counted = count_grams_of_texts(pa.array(texts), (2, 2, 3), 2**10, 2)
    buffer, offsets = text_buffers(pa.array(texts))
    normal = [bytes(buffer[start:end]).decode() for start, end in pairwise(offsets)]
    cached = {text: reference.count_reference(text, (2, 2, 3), 2**10) for text in set(normal)}
    documents, of_rare = reference.documents_reference([cached[text] for text in normal], rare, 2**10)
    wanted = [b for b in range(2**10) if documents[b] >= min_texts or of_rare[b] >= min(min_texts, 2)]
    wanted = sorted(wanted, key=lambda b: -documents[b])[:most]
    buckets, idf = choose_features(counted, np.array(rare), 2**10, min_texts, most)
    assert buckets.tolist() == wanted
    power = np.where(buckets % 2 == kernels.CHARACTERS, 1.5, 1.0)
    np.testing.assert_allclose(
        idf, (np.log((1 + len(texts)) / (1 + documents[wanted])) + 1) ** power, rtol=1e-6
    )


def test_the_share_of_words_grows_with_the_text() -> None:
    def share(grams: int) -> float:
        part = np.zeros(grams // 2, np.int32)
        return word_share_for([(part, part, np.zeros(1, np.int64))] * 2)

    assert [share(grams) for grams in (0, 1000, 10**7)] == [0.5] * 3
    assert share(10**8) == pytest.approx(0.7)
    many = np.broadcast_to(np.int32(0), 10**12)
    assert word_share_for([(many, many, np.zeros(1, np.int64))]) == 0.8


def test_a_row_gives_words_their_share() -> None:
    counted = count_grams_of_texts(pa.array(["one two", "", "onetwo"]), (1, 2, 3), 2**20, 1)
    rows = np.full(2**20, -1, np.int32)
    seen = np.unique(counted[0][0])
    rows[seen] = np.arange(len(seen))
    known, _ = weigh_grams(counted.copy(), rows, np.ones(len(seen), np.float32), 0.7, 1.0, 1)
    kinds = seen[known.features] % 2
    first, last = slice(0, known.ends[0]), slice(known.ends[1], None)
    for part in (first, last):
        squares = [np.sum(known.values[part][kinds[part] == kind] ** 2) for kind in (0, 1)]
        assert squares == pytest.approx([0.7, 0.3])
    rows[seen[seen % 2 == kernels.WORDS]] = -1  # characters alone have the whole length
    found, _ = weigh_grams(counted, rows, np.ones(len(seen), np.float32), 0.7, 1.0, 1)
    assert np.sum(found.values[: found.ends[0]] ** 2) == pytest.approx(1)


def pivoted(texts: list[str], slope: float) -> tuple[list[float], Doubles]:
    """The lengths of texts' rows of words alone, of idf 1; and how many words each has."""
    counted = count_grams_of_texts(pa.array(texts), (1, 0, 0), 2**20, 1)
    rows = np.full(2**20, -1, np.int32)
    seen = np.unique(counted[0][0])
    rows[seen] = np.arange(len(seen))
    found, _ = weigh_grams(counted, rows, np.ones(len(seen), np.float32), 0.5, slope, 1)
    return np.sqrt(found.squares).tolist(), found.lengths[:, 0]


def test_a_short_text_has_a_short_row() -> None:
    """By hand: four words have length 2, nine 3, one 1, and the mean is 2."""
    texts = ["a b c d", "a b c d e f g h i", "a"]
    found, lengths = pivoted(texts, 0.75)
    assert lengths.tolist() == pytest.approx([2, 3, 1])
    assert found == pytest.approx([2 / (0.5 + 1.5), 3 / (0.5 + 2.25), 1 / (0.5 + 0.75)], rel=1e-6)
    assert pivoted(texts, 1.0)[0] == pytest.approx([1, 1, 1])


@settings(deadline=None)
@given(
    amounts=st.lists(st.floats(0, 10), min_size=1, max_size=5),
    scores=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=4),
    seed=st.integers(0, 100),
)
def test_evidence_equals_the_reference(amounts: list[float], scores: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = len(scores)
    evidence = np.array([0.1, 0.2, -1.5, 1.5, generator.normal() / 4, 0.5], np.float32)
    by_label = (generator.normal(size=(3, labels)) * [[0.1], [0.5], [2]]).astype(np.float32)
    table = np.tile(np.array(scores, np.float32), (len(amounts), 1))
    kernels.weigh_evidence_of_rows(np.array(amounts), evidence, by_label, table)
    for row, amount in zip(table, amounts, strict=True):
        plain = evidence.astype(np.float64), by_label.astype(np.float64), np.array(scores)
        np.testing.assert_allclose(row, reference.evidence_reference(amount, *plain), rtol=1e-4, atol=1e-5)


class Problem:
    """Random sparse rows, some empty, with random targets, hard, soft, stored zeros and unknown ones."""

    def __init__(self, seed: int, labels: int, bias: float, unknown: float) -> None:
        self.generator = generator = np.random.default_rng(seed)
        self.labels, self.bias = labels, bias
        dense = generator.random((12, 7)) * (generator.random((12, 7)) < 0.4)
        dense = dense.astype(np.float32)
        self.squares = np.square(dense).sum(axis=1).astype(np.float32)
        row, column = np.nonzero(dense)
        self.dense = np.hstack([dense, np.full((12, 1), bias)]).astype(np.float64)
        ends = np.cumsum(np.bincount(row, minlength=12))
        self.rows = (ends, column.astype(np.int32), dense[row, column].astype(np.float32))
        self.targets = np.round(generator.random((12, labels)) * 4) / 4  # 0.5 too, which says nothing
        self.targets *= generator.random((12, labels)) < 0.7
        self.targets[generator.random((12, labels)) < unknown] = np.nan
        where, label = np.nonzero(~(self.targets <= 0) | (generator.random((12, labels)) < 0.1))
        starts = np.concatenate([[0], np.cumsum(np.bincount(where, minlength=12))])
        self.csr = (starts, label.astype(np.int32), self.targets[where, label].astype(np.float32))
        self.costs = np.exp(generator.uniform(-2, 2, (2, labels))).astype(np.float32)

    def zeros(self) -> tuple[Singles, Singles, Singles]:
        """Duals, weights and biases."""
        return (
            np.zeros((12, self.labels), np.float32),
            np.zeros((7, self.labels), np.float32),
            np.zeros(self.labels, np.float32),
        )


PROBLEM = st.builds(
    Problem,
    seed=st.integers(0, 1000),
    labels=st.integers(1, 20),
    bias=st.sampled_from([0.0, 1.0, 2.0]),
    unknown=st.sampled_from([0.0, 0.3]),
)


@settings(deadline=None, max_examples=40)
@given(problem=PROBLEM, tolerance=st.sampled_from([1e-6, 0.617]), still=st.sampled_from([0.0, 0.317]))
def test_a_pass_equals_the_reference(problem: Problem, tolerance: float, still: float) -> None:
    labels = problem.labels
    duals, weight, bias = problem.zeros()
    violations, costs = np.full(labels, np.inf, np.float32), problem.costs.astype(np.float64)
    expected_duals, expected_weight = np.zeros((labels, 12)), np.zeros((labels, 8))
    for _ in range(3):
        order = problem.generator.permutation(12)[:10]  # rows of a held-out fold are not visited
        losses, last = np.zeros(labels), violations.copy()
        model = (duals, weight, bias, problem.costs)
        options = (problem.bias, tolerance, still)
        solve_pass(order, *problem.rows, problem.squares, problem.csr, *model, *options, violations, losses)
        for label in range(labels):
            violation, loss = float(last[label]), 0.0
            if violation >= tolerance:  # else it is settled
                violation, loss = reference.solve_pass_reference(
                    order,
                    problem.dense,
                    problem.targets[:, label],
                    expected_duals[label],
                    expected_weight[label],
                    costs[:, label],
                    still * tolerance,
                )
            assert violations[label] == pytest.approx(violation, rel=1e-4, abs=1e-4)
            assert losses[label] == pytest.approx(loss, rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(duals, expected_duals.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(weight, expected_weight[:, :-1].T, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(bias, expected_weight[:, -1], rtol=1e-3, atol=2e-4)


@settings(deadline=None, max_examples=30)
@given(problem=PROBLEM, sign=st.sampled_from([1.0, -1.0]), share=st.sampled_from([0.05, 0.9]))
def test_rows_are_added_and_scored(problem: Problem, sign: float, share: float) -> None:
    duals, weight, bias = problem.zeros()
    duals[:] = problem.generator.normal(size=duals.shape) * (problem.generator.random(duals.shape) < share)
    rows = np.sort(problem.generator.permutation(12)[:8])
    add_rows(rows, *problem.rows, duals, weight, bias, problem.bias, sign)
    total = problem.dense[rows].T @ duals[rows].astype(np.float64) * sign
    np.testing.assert_allclose(weight, total[:-1], atol=1e-5)
    np.testing.assert_allclose(bias, total[-1], atol=2e-5)
    scores = np.full((12, problem.labels), np.nan, np.float32)
    score_rows(rows, *problem.rows, weight, bias, problem.bias, scores)
    for label in range(problem.labels):
        expected = reference.scores_reference(problem.dense, np.append(weight[:, label], bias[label]))
        np.testing.assert_allclose(scores[rows, label], expected[rows], atol=2e-5)
    assert np.isnan(np.delete(scores, rows, axis=0)).all()


@settings(deadline=None, max_examples=30)
@given(problem=PROBLEM, wanted=st.floats(-3, 3), share=st.sampled_from([0.05, 0.9]))
def test_duals_are_balanced(problem: Problem, wanted: float, share: float) -> None:
    duals, weight, bias = problem.zeros()
    duals[:] = problem.generator.normal(size=duals.shape) * (problem.generator.random(duals.shape) < share)
    rows = np.sort(problem.generator.permutation(12)[:8])
    before = duals.copy()
    add_rows(rows, *problem.rows, duals, weight, bias, problem.bias, 1.0)
    balance_rows(rows, *problem.rows, duals, weight, bias, problem.bias, np.full(problem.labels, wanted))
    for label in range(problem.labels):
        own = before[rows, label].astype(np.float64)
        size = np.abs(own).sum()
        up = np.clip((wanted - own.sum()) / size, -0.5, 0.5) if size else 0.0
        expected = own * np.where(own > 0, 1 + up, 1 - up)
        np.testing.assert_allclose(duals[rows, label], expected, atol=1e-5)
        if abs(up) < 0.5 and size:
            assert duals[rows, label].sum() == pytest.approx(wanted, abs=1e-4)
    others = np.delete(np.arange(12), rows)
    assert (duals[others] == before[others]).all()
    total = problem.dense[rows].T @ duals[rows].astype(np.float64)
    np.testing.assert_allclose(weight, total[:-1], atol=2e-5)
    np.testing.assert_allclose(bias, total[-1], atol=4e-5)


@settings(deadline=None, max_examples=30)
@given(problem=PROBLEM)
def test_optimal_duals_equal_the_reference(problem: Problem) -> None:
    margins = problem.generator.normal(size=(12, problem.labels)).astype(np.float32) * 2
    duals = margins.copy()
    optimal_duals(problem.csr, problem.costs, duals)
    for label in range(problem.labels):
        expected = reference.optimal_duals_reference(
            margins[:, label].astype(np.float64),
            problem.targets[:, label],
            problem.costs[:, label].astype(np.float64),
        )
        np.testing.assert_allclose(duals[:, label], expected, rtol=1e-4, atol=1e-5)


COMPILED_ANEW = """
import pyarrow as pa
from flash.text.classification.backbones.linear.kernels import announced_compilation
from flash.text.classification.backbones.linear.model import Linear
for _ in range(2):
    with announced_compilation(print):
        Linear(1).logits(pa.array(["a text"]))
"""


def test_compiling_is_said_once_and_not_when_the_loops_are_on_disk(tmp_path: Path) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", COMPILED_ANEW],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert said == [["Compiling the linear backbone, once on this machine: some seconds."], []]
