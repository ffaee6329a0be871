"""The compiled loops beside their plain references, on hostile Unicode."""

import os
import subprocess
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification.backbones import features, kernels, reference
from flash.text.classification.backbones.features import count_grams as count_grams_of_texts
from flash.text.classification.backbones.features import in_threads, text_buffers, weigh_grams
from flash.text.classification.backbones.solver import settle, solve_pass

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
@given(text=TEXT, seed=st.integers(0, 100))
def test_rows_equal_the_reference(text: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = np.where(generator.random(2**10) < 0.5, np.arange(2**10), -1).astype(np.int32)
    idf = generator.random(2**10).astype(np.float32) + 1
    counted = count_grams_of_texts(pa.array(["", text, "x"]), (2, 2, 3), 2**10, 1)
    found = weigh_grams(counted, rows, idf, 1)
    dense = np.zeros(2**10)
    dense[found.features[found.ends[0] : found.ends[1]]] = found.values[found.ends[0] : found.ends[1]]
    data, offsets = text_buffers(pa.array([text]))
    normal = bytes(data[offsets[0] : offsets[1]]).decode()
    expected = reference.weigh_reference(reference.count_reference(normal, (2, 2, 3), 2**10), rows, idf)
    np.testing.assert_allclose(dense, expected, rtol=1e-5, atol=1e-7)
    assert found.ends[0] == 0


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


@settings(deadline=None)
@example(z=3.0, q=26.0, t=0.0, b=0.0)  # Newton's method alone goes to and fro between 3 and -8.4
@given(
    z=st.floats(-500, 500),
    q=st.floats(0, 1e4),
    t=st.floats(0, 1),
    b=st.floats(0, 1),
)
def test_settle_solves_its_equation(z: float, q: float, t: float, b: float) -> None:
    dual = float(settle(z, q, t, b))
    low, high = z + q * b - q, z + q * b
    for _ in range(200):  # the root in u by halving
        u = (low + high) / 2
        sigmoid = 1 / (1 + np.exp(-u)) if u > -700 else 0.0
        low, high = (low, u) if u + q * sigmoid > z + q * b else (u, high)
    assert dual == pytest.approx(t - sigmoid, abs=2e-6)


def test_settle_keeps_its_digits_at_the_ends() -> None:
    assert float(settle(-40.0, 1e-9, 0.0, 0.0)) == pytest.approx(-np.exp(-40.0), rel=1e-5)
    assert float(settle(40.0, 1e-9, 1.0, 1.0)) == pytest.approx(np.exp(-40.0), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    labels=st.integers(1, 20),
    cost=st.floats(0.1, 100),
    bias=st.sampled_from([0, 1, 2]),
)
def test_a_pass_equals_the_reference(seed: int, labels: int, cost: float, bias: float) -> None:
    generator = np.random.default_rng(seed)
    count, features = 12, 7
    dense = generator.random((count, features)) * (generator.random((count, features)) < 0.4)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    dense = dense.astype(np.float32)
    row, column = np.nonzero(dense)
    ends = np.cumsum(np.bincount(row, minlength=count))
    targets = np.round(generator.random((count, labels)) * 2) / 2  # soft targets too
    duals, weight = np.zeros((count, labels), np.float32), np.zeros((features, labels), np.float32)
    biases, losses = np.zeros(labels, np.float32), np.zeros(labels)
    expected_duals, expected_weight = np.zeros((labels, count)), np.zeros((labels, features + 1))
    extended = np.hstack([dense, np.full((count, 1), bias)]).astype(float)
    for _ in range(3):
        order = generator.permutation(count)
        rows = (ends, column.astype(np.int32), dense[row, column].astype(np.float32))
        hot = targets.astype(np.float32)
        solve_pass(order, *rows, hot, duals, weight, biases, losses, cost, float(bias), 0.0)
        for label in range(labels):
            reference.solve_pass_reference(
                order, extended, targets[:, label], expected_duals[label], expected_weight[label], cost
            )
    np.testing.assert_allclose(duals, expected_duals.T, atol=2e-4)
    np.testing.assert_allclose(weight, expected_weight[:, :-1].T, atol=2e-3 * max(cost, 1) ** 0.5)
    np.testing.assert_allclose(biases, expected_weight[:, -1], atol=2e-3 * max(cost, 1) ** 0.5)


COMPILED_ANEW = """
import pyarrow as pa
from flash.text.classification.backbones.kernels import announced_compilation
from flash.text.classification.backbones.linear import Linear
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
