"""Token ids and batches, against what the tokenizer itself gives for the same texts."""

import errno
import io
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from flash.core.errors import FlashError
from flash.text.classification import batching
from flash.text.classification.batching import (
    TokenRows,
    between_ids,
    cheapest_batches,
    length_batches,
    pool_windows,
    special_ids,
    tokenize,
)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "un", "##able", "##s", "##t", "rat"]
BERT_VOCABULARY = {
    word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
}
LENGTHS = st.lists(st.integers(0, 40), max_size=60)
WINDOWS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), max_size=20)


fast: Any = PreTrainedTokenizerFast  # has no types for its arguments


def bert() -> Any:
    backend = Tokenizer(models.WordPiece(BERT_VOCABULARY, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return fast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def roberta() -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters, "at", "Ġt", "cat"])
    }
    backend = Tokenizer(models.BPE(vocabulary, [("a", "t"), ("Ġ", "t"), ("c", "at")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return fast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def xlnet() -> Any:
    """Special tokens behind the text only, padding in front of its own, and long texts lose their beginning."""
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[SEP]": 2, "[CLS]": 3, "cat": 4}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        "$A [SEP] [CLS]", special_tokens=[("[SEP]", 2), ("[CLS]", 3)]
    )
    return fast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        padding_side="left",
        truncation_side="left",
    )


def bare() -> Any:
    """Neither special tokens nor one for unknown letters, which vanish."""
    backend = Tokenizer(models.BPE({"[PAD]": 0, "c": 1, "a": 2}, []))
    return fast(tokenizer_object=backend, pad_token="[PAD]")


TOKENIZERS = {"bert": bert(), "roberta": roberta(), "xlnet": xlnet()}
TEXTS = st.lists(
    st.lists(
        st.sampled_from([*WORDS, "[SEP]", "<s>", "[PAD]", "unables", "Zürich", "🙂", "  ", "\n"]), max_size=14
    ).map(" ".join),
    max_size=12,
)
kinds = pytest.mark.parametrize("kind", TOKENIZERS)


def rows_of(found: TokenRows) -> list[list[int]]:
    return [
        found.ids[end - length : end].tolist() for end, length in zip(found.ends, found.lengths, strict=True)
    ]


@kinds
@settings(max_examples=60, deadline=None)
@given(
    texts=TEXTS.filter(bool),
    max_length=st.integers(3, 12),
    long_text=st.sampled_from(["truncate", "window"]),
)
def test_a_text_alone_has_the_tokens_that_it_has_among_others(
    kind: str, texts: list[str], max_length: int, long_text: str
) -> None:
    options: dict[str, Any] = {"max_length": max_length, "long_text": long_text, "overlap": 0.0}
    together = tokenize(pa.array(texts), TOKENIZERS[kind], **options)
    alone = [tokenize(pa.array([text]), TOKENIZERS[kind], **options) for text in texts]
    assert [row for each in alone for row in rows_of(each)] == rows_of(together)
    assert sum(each.cut for each in alone) == together.cut
    assert all(each.texts == 1 and not each.owner.any() for each in alone)
    assert all(each.pad_id == together.pad_id for each in alone)


def test_a_text_alone_takes_a_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tokenizer: Any) -> Any:
        raise AssertionError("the long way")

    monkeypatch.setattr(batching, "special_ids", fail)
    assert rows_of(tokenize(pa.array(["the cat"]), bert(), max_length=4)) == [[2, 5, 6, 3]]
    for text in ("the cat sat", "a" * 17):  # one is cut, the other might be
        with pytest.raises(AssertionError, match="the long way"):
            tokenize(pa.array([text]), bert(), max_length=4)


def test_a_text_alone_without_any_token() -> None:
    assert rows_of(tokenize(pa.array(["zzz"]), bare(), max_length=4)) == [[0]]
    with pytest.raises(FlashError, match="max_length=2 leaves no room"):
        tokenize(pa.array(["a"]), bert(), max_length=2)


@kinds
@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, max_length=st.integers(3, 12), chunk=st.sampled_from([1, 200, 1 << 20]))
def test_rows_are_those_of_the_tokenizer(kind: str, texts: list[str], max_length: int, chunk: int) -> None:
    tokenizer = TOKENIZERS[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "CHUNK_BYTES", chunk)
        found = tokenize(pa.array(texts, pa.large_string()), tokenizer, max_length=max_length)
    whole = [tokenizer(text)["input_ids"] for text in texts]
    assert rows_of(found) == [
        tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts
    ]
    assert found.owner.tolist() == list(range(len(texts)))
    assert found.texts == len(found) == len(texts)
    assert found.cut == sum(len(ids) > max_length for ids in whole)
    assert found.ids.dtype == np.int32


@kinds
@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, max_length=st.integers(6, 12), overlap=st.sampled_from([0.0, 0.1, 0.25, 0.4]))
def test_windows_are_those_of_the_tokenizers_stride(
    kind: str, texts: list[str], max_length: int, overlap: float
) -> None:
    tokenizer = TOKENIZERS[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "CHUNK_BYTES", 300)
        found = tokenize(
            pa.array(texts, pa.large_string()),
            tokenizer,
            max_length=max_length,
            long_text="window",
            overlap=overlap,
        )
    windows = [
        tokenizer(
            text,
            truncation=True,
            max_length=max_length,
            stride=int(overlap * max_length),
            return_overflowing_tokens=True,
        )["input_ids"]
        for text in texts
    ]
    assert rows_of(found) == [ids for of_text in windows for ids in of_text]
    assert found.owner.tolist() == [text for text, of_text in enumerate(windows) for _ in of_text]
    assert (found.texts, found.cut) == (len(texts), sum(len(of_text) > 1 for of_text in windows))


@kinds
def test_batches_are_padded_behind_as_by_the_tokenizer(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    texts = ["the cat", "", "a cat sat on the mat", "rat", "the unables sat"]
    found = tokenize(pa.array(texts), tokenizer, max_length=7)
    for rows in ([0, 1, 2, 3, 4], [4, 0, 0], [1], [3]):
        wanted = tokenizer(
            [texts[row] for row in rows],
            truncation=True,
            max_length=7,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        ids, mask = found.batch(np.array(rows))
        assert ids.dtype == mask.dtype == torch.int64
        assert torch.equal(ids, wanted["input_ids"])
        assert torch.equal(mask, wanted["attention_mask"])
    assert found.arrays([])[0].shape == (0, 0)


def test_special_ids_are_those_of_the_post_processor() -> None:
    found = {kind: [part.tolist() for part in special_ids(make)] for kind, make in TOKENIZERS.items()}
    assert found == {"bert": [[2], [3]], "roberta": [[0], [2]], "xlnet": [[], [2, 3]]}
    assert [part.tolist() for part in special_ids(bare())] == [[], []]
    words = Tokenizer(
        models.WordLevel({"[PAD]": 0, "[BOS]": 1, "cat": 2}, "[UNK]")
    )  # none of "a" is in there
    words.post_processor = processors.TemplateProcessing("[BOS] $A", special_tokens=[("[BOS]", 1)])
    tokenizer = fast(tokenizer_object=words, pad_token="[PAD]")
    assert [part.tolist() for part in special_ids(tokenizer)] == [[1], []]


def test_a_text_without_tokens_is_one_padding_token_that_counts() -> None:
    found = tokenize(pa.array(["", "cat", "dog"]), bare(), max_length=8)
    assert rows_of(found) == [[0], [1, 2], [0]]
    assert found.cut == 0
    assert found.batch([0, 1])[1].tolist() == [[1, 0], [1, 1]]


def test_no_text_is_no_row() -> None:
    found = tokenize(pa.array([], pa.large_string()), bert(), max_length=8, long_text="window")
    assert (len(found), found.texts, found.cut, found.lengths.tolist()) == (0, 0, 0, [])
    assert found.ids.dtype == np.int32
    assert length_batches(found.lengths, 4, shuffle=True, seed=0, epoch=0, owner=found.owner) == []


def test_truncation_and_padding_in_the_tokenizers_file_change_nothing() -> None:
    tokenizer = bert()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    found = tokenize(pa.array(["the cat sat on a mat", "rat"]), tokenizer, max_length=7)
    assert rows_of(found) == [[2, 5, 6, 7, 8, 9, 3], [2, 15, 3]]
    assert found.cut == 1
    assert tokenizer("the cat", padding="max_length", max_length=5)["input_ids"] == [2, 5, 6, 3, 0]


FORK = """
import os, signal, sys
import pyarrow as pa
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from flash.text.classification.batching import tokenize
backend = Tokenizer(models.WordLevel({"[PAD]": 0, "cat": 1, "[UNK]": 2}, "[UNK]"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
texts = pa.array(["cat dog " * 20] * 500)
wanted = tokenize(texts, tokenizer, max_length=30).ids.tolist()
child = os.fork()
if not child:
    signal.alarm(60)  # a wait for threads that do not exist would have no end
    os._exit(0 if tokenize(texts, tokenizer, max_length=30).ids.tolist() == wanted else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.parametrize("parallelism", ["", "true"])
def test_a_forked_process_tokenises(parallelism: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    if parallelism:
        environment["TOKENIZERS_PARALLELISM"] = parallelism
    environment["RAYON_NUM_THREADS"] = "2"  # on one core too
    done = subprocess.run([sys.executable, "-c", FORK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, flash.text.classification.batching\nprint({'torch', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_many_ids_go_to_a_file_that_ends_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array([" ".join(WORDS[row % 5 :]) for row in range(50)])
    wanted = tokenize(texts, bert(), max_length=20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(batching, "MOST_IN_MEMORY", wanted.ids.nbytes // 3)
    monkeypatch.setattr(batching, "CHUNK_BYTES", 500)
    found = tokenize(texts, bert(), max_length=20)
    base: Any = found.ids.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    assert not isinstance(wanted.ids.base, memoryview | mmap.mmap)
    assert not found.ids.flags.writeable
    assert rows_of(found) == rows_of(wanted)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(found.batch([3, 44]), wanted.batch([3, 44]), strict=True)
    )
    assert rows_of(pickle.loads(pickle.dumps(found))) == rows_of(wanted)  # as a loader's worker gets it
    assert os.name != "posix" or not list(tmp_path.iterdir())


class FullDisk(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullDisk()
    monkeypatch.setattr(batching, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
    with pytest.raises(FlashError, match=r"do not fit into .*: No space left on device; .* TMPDIR") as error:
        tokenize(pa.array(["the cat", "a rat"]), bert(), max_length=8)
    assert str(tmp_path) in str(error.value)
    assert full.closed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"max_length": 2},
            "max_length=2 leaves no room for a text beside the tokenizer's 2 special tokens; pass 3 or more",
        ),
        (
            {"max_length": 8, "long_text": "windows"},
            "unknown long_text 'windows'; did you mean 'window'? Known: truncate, window",
        ),
        (
            {"max_length": 8, "long_text": "window", "overlap": 0.75},
            "overlap=0.75 of max_length=8 is 6 tokens, and a window holds 6 of a text; expected a share from 0",
        ),
        ({"max_length": 8, "long_text": "window", "overlap": -0.1}, "overlap=-0.1 of max_length=8"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(FlashError) as error:
        tokenize(pa.array(["the cat"]), bert(), **options)
    assert words in str(error.value)


def test_a_tokenizer_without_padding_token() -> None:
    tokenizer = fast(tokenizer_object=Tokenizer(models.WordLevel({"cat": 0}, "cat")))
    with pytest.raises(FlashError, match=r"no padding token.*tokenizer\.pad_token = tokenizer\.eos_token"):
        tokenize(pa.array(["cat"]), tokenizer, max_length=8)


@settings(deadline=None)
@given(lengths=LENGTHS, batch_size=st.integers(1, 9), shuffle=st.booleans(), epoch=st.integers(0, 3))
def test_every_row_is_in_one_batch(lengths: list[int], batch_size: int, shuffle: bool, epoch: int) -> None:
    batches = length_batches(np.array(lengths, int), batch_size, shuffle=shuffle, seed=3, epoch=epoch)
    assert sorted(np.concatenate([np.zeros(0, int), *batches]).tolist()) == list(range(len(lengths)))
    full, rest = divmod(len(lengths), batch_size)
    assert Counter(map(len, batches)) == Counter({batch_size: full, rest: 1} if rest else {batch_size: full})
    again = length_batches(np.array(lengths, int), batch_size, shuffle=shuffle, seed=3, epoch=epoch)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    if not shuffle:
        assert [lengths[row] for batch in batches for row in batch] == sorted(lengths, reverse=True)


@settings(deadline=None)
@given(texts=WINDOWS, batch_size=st.integers(1, 8), shuffle=st.booleans(), data=st.data())
def test_windows_of_a_text_share_a_batch(
    texts: list[list[int]], batch_size: int, shuffle: bool, data: st.DataObject
) -> None:
    rows = [(text, length) for text, of_text in enumerate(texts) for length in of_text]
    rows = data.draw(st.permutations(rows))  # rows of a text need not be neighbours
    owner, lengths = np.array(rows, int).reshape(-1, 2).T
    found = [
        length_batches(lengths, batch_size, shuffle=shuffle, seed=0, epoch=epoch, owner=owner)
        for epoch in range(3)
    ]
    for batches in found:
        assert sorted(np.concatenate([np.zeros(0, int), *batches]).tolist()) == list(range(len(rows)))
        in_batch = [set(owner[batch].tolist()) for batch in batches]
        assert sum(map(len, in_batch)) == len(texts)
        assert all(
            len(batch) <= batch_size or len(of) == 1 for batch, of in zip(batches, in_batch, strict=True)
        )
    assert len({len(batches) for batches in found}) == 1  # a loop that counted them once misses none
    if all(len(of_text) == 1 for of_text in texts):
        assert len(found[0]) == -(-len(texts) // batch_size)


def test_epochs_and_seeds_differ_in_order_and_in_company() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 400)

    def batches(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in length_batches(lengths, 16, shuffle=True, seed=seed, epoch=epoch)]

    first = batches(0, 0)
    for other in (batches(0, 1), batches(1, 0)):
        assert other != first
        assert not {frozenset(batch) for batch in first} & {frozenset(batch) for batch in other}
    means = [lengths[batch].mean() for batch in first]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.6  # lengths are no longer in order


def test_the_batch_that_is_not_full_has_rows_of_any_length() -> None:
    lengths = np.arange(100)
    partial = [
        lengths[batch].mean()
        for epoch in range(20)
        for batch in length_batches(lengths, 32, shuffle=True, seed=0, epoch=epoch)
        if len(batch) == 4
    ]
    assert len(partial) == 20
    assert min(partial) < 10
    assert max(partial) > 80


def padded(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """The share of positions that are padding."""
    return 1 - float(lengths.sum() / sum(lengths[batch].max() * len(batch) for batch in batches))


@pytest.mark.parametrize("shuffle", [False, True])
def test_padding_is_rare_on_skewed_lengths(shuffle: bool) -> None:
    random = np.random.default_rng(0)
    lengths = np.minimum(random.lognormal(3.5, 1, 4000).astype(int) + 2, 128)  # most short, some cut at 128
    plain = np.array_split(random.permutation(4000), 125)
    ours = length_batches(lengths, 32, shuffle=shuffle, seed=0, epoch=0)
    assert padded(lengths, plain) > 0.4
    assert padded(lengths, ours) < 0.03


def test_a_batch_size_below_one() -> None:
    with pytest.raises(FlashError, match="batch_size=0 holds no row; pass 1 or more"):
        length_batches([1, 2], 0, shuffle=False, seed=0, epoch=0)


def test_windows_are_pooled_to_texts() -> None:
    logits = torch.tensor([[1.0, -2.0], [3.0, -6.0], [0.0, 5.0], [-9.0, -8.0]], requires_grad=True)
    owner = torch.tensor([1, 1, 0, 2])
    highest = pool_windows(logits, owner, 3, "max")
    assert highest.tolist() == [[0.0, 5.0], [3.0, -2.0], [-9.0, -8.0]]
    assert pool_windows(logits, owner, 3, "mean").tolist() == [[0.0, 5.0], [2.0, -4.0], [-9.0, -8.0]]
    (gradient,) = torch.autograd.grad(highest.sum(), logits)
    assert gradient.tolist() == [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    with pytest.raises(
        FlashError, match="unknown window_pooling 'maximum'; did you mean 'max'\\? Known: max, mean"
    ):
        pool_windows(logits, owner, 3, "maximum")


def test_batches_of_windows_pool_to_their_texts() -> None:
    """The whole way: each text's pooled value is the highest id of its windows, whatever the batches."""
    texts = ["the cat sat on a mat rat the cat", "rat", "", "a mat a mat a mat a mat", "the"]
    found = tokenize(pa.array(texts), bert(), max_length=6, long_text="window")
    pooled = torch.zeros(len(texts))
    for rows in length_batches(found.lengths, 4, shuffle=True, seed=0, epoch=0, owner=found.owner):
        of, owner = np.unique(found.owner[rows], return_inverse=True)
        ids, mask = found.batch(rows)
        logits = (ids * mask).max(dim=1, keepdim=True).values.float()
        pooled[of] = pool_windows(logits, torch.from_numpy(owner), len(of), "max")[:, 0]
    assert pooled.tolist() == [max(bert()(text)["input_ids"]) for text in texts]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 50))
def test_the_cheapest_batches_cost_no_more_than_others(lengths: list[int], most: int, overhead: int) -> None:
    batches = cheapest_batches(lengths, most, overhead)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= most for batch in batches)

    def cost(made: list[Any]) -> int:
        return sum(overhead + len(batch) * max(lengths[row] for row in batch) for batch in made)

    full = length_batches(lengths, most, shuffle=False, seed=0, epoch=0)
    assert cost(batches) <= min(cost(full), cost([[row] for row in range(len(lengths))]))
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths, reverse=True)


# ---- texts of several fields -----------------------------------------------------------------------------------


FIELDS = st.lists(
    st.tuples(*[st.lists(st.sampled_from(["the", "cat", "unable", "mats"]), max_size=9).map(" ".join)] * 2),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("make", [bert, roberta])
@given(pairs=FIELDS, length=st.integers(6, 30))
@settings(max_examples=30, deadline=None)
def test_two_fields_are_the_pair_of_the_tokenizer(
    make: Any, pairs: list[tuple[str, str]], length: int
) -> None:
    tokenizer = make()
    texts = pa.array(["\x1f".join(pair) for pair in pairs], pa.large_string())
    rows = tokenize(texts, tokenizer, max_length=length)
    firsts, seconds = map(list, zip(*pairs, strict=True))
    whole = tokenizer(firsts, seconds)["input_ids"]
    cut = tokenizer(firsts, seconds, truncation="longest_first", max_length=length)["input_ids"]
    assert rows.cut == sum(len(ids) > length for ids in whole)
    found = np.split(rows.ids, rows.ends[:-1])
    for ours, theirs, all_of_it in zip(found, cut, whole, strict=True):
        assert len(ours) == len(theirs)
        if len(all_of_it) <= length:
            assert ours.tolist() == theirs
        assert ours[0] == theirs[0]
        assert ours[-1] == theirs[-1]


def test_the_longest_field_loses_first() -> None:
    texts = pa.array(["cat\x1f" + "the " * 20, "the " * 20 + "\x1fcat"], pa.large_string())
    rows = tokenize(texts, bert(), max_length=8)
    cls, sep, the, cat = 2, 3, BERT_VOCABULARY["the"], BERT_VOCABULARY["cat"]
    first, second = np.split(rows.ids, rows.ends[:-1])
    assert first.tolist() == [cls, cat, sep, *[the] * 4, sep]
    assert second.tolist() == [cls, *[the] * 4, sep, cat, sep]
    assert rows.cut == 2


def test_three_fields_and_windows_over_them() -> None:
    texts = pa.array(["cat\x1fthe\x1fmat", "\x1f\x1f", "no fields"], pa.large_string())
    rows = tokenize(texts, bert(), max_length=12)
    cat, the, mat, unknown = (BERT_VOCABULARY[word] for word in ("cat", "the", "mat", "[UNK]"))
    found = [ids.tolist() for ids in np.split(rows.ids, rows.ends[:-1])]
    assert found == [[2, cat, 3, the, 3, mat, 3], [2, 3, 3, 3], [2, unknown, unknown, 3]]
    windows = tokenize(texts[:1], bert(), max_length=4, long_text="window", overlap=0)
    assert [ids.tolist() for ids in np.split(windows.ids, windows.ends[:-1])] == [
        [2, cat, 3, 3],
        [2, the, 3, 3],
        [2, mat, 3],
    ]


def test_what_stands_between_fields_without_a_pair() -> None:
    assert between_ids(bert()).tolist() == [3]
    assert between_ids(roberta()).tolist() == [2, 2]
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[END]": 2}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    assert between_ids(fast(tokenizer_object=backend, pad_token="[PAD]", eos_token="[END]")).tolist() == [2]
    plain = fast(tokenizer_object=backend, pad_token="[PAD]")
    assert between_ids(plain).tolist() == backend.encode("\n").ids
