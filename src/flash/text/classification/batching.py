"""Tokenise texts once, and batch rows of similar length, padded to the longest in the batch.

Texts are stored as two flat arrays, token ids and ends of rows, so that an epoch tokenises nothing and a batch is one
gather. The conversion is the fastest of those measured: the tokenizer's compiled backend, `encode_batch_fast` without
offsets, truncation or padding, the ids of a whole chunk read into one array, and special tokens, truncation and windows
added by NumPy. For comments and a BERT vocabulary it takes about two thirds of the processor time of
`tokenizer(texts, truncation=True)`; nearly all of that is the vocabulary search. Truncation by the backend would cost
more, since it builds the rest of a truncated text too. torch is only imported in functions that return tensors.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.reading.fields import SEPARATOR

if TYPE_CHECKING:
    import torch

Ints: TypeAlias = npt.NDArray[np.int64]
Ids: TypeAlias = npt.NDArray[np.int32]

CHUNK_BYTES = (
    1 << 21
)  # bytes of text per chunk: the backend needs about 100 bytes per token until its ids are read
LIKELY_WHOLE = 4
"""A text with at most this many characters per token of a row is rarely truncated."""
TEXT_BYTES = 64  # size of a text in a chunk beside its characters, so that a chunk of empty texts ends too
MOST_IN_MEMORY = 1 << 28  # bytes of ids; more go to a file

LONG_TEXT = ("truncate", "window")
POOLS = ("max", "mean")

_parallel_in = 0  # id of the process that has started tokenizer threads, which a fork does not have


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Token ids of N texts in R rows: one row per text or per window; each row includes special tokens.

    Attributes:
        ids: (T,) the concatenated rows; read-only and memory-mapped if they are large.
        ends: (R,) end of each row in `ids`.
        owner: (R,) index of each row's text, ascending.
        texts: N.
        cut: number of texts with more tokens than a row holds: they are truncated, or have several rows.
        pad_id: id of the pad token. Padding is always on the right, whatever the tokenizer's side, because a model that
            counts positions itself starts at the first column.
    """

    ids: Ids
    ends: Ints
    owner: Ints
    texts: int
    cut: int
    pad_id: int

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> Ints:
        """(R,) number of tokens per row, at least 1."""
        return np.diff(self.ends, prepend=0)

    def arrays(self, rows: npt.ArrayLike) -> tuple[Ints, Ints]:
        """Return ids and mask of `rows`, (B, length of the longest); the mask is 1 for a token, 0 for padding."""
        rows = np.asarray(rows, np.int64)
        begins = np.where(rows > 0, self.ends[rows - 1], 0)
        lengths = self.ends[rows] - begins
        width = int(lengths.max(initial=0))
        place = np.arange(width)
        mask = place < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, np.int64)
        ids[mask] = self.ids[(begins[:, None] + place)[mask]]
        return ids, mask.astype(np.int64)

    def batch(self, rows: npt.ArrayLike) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return `arrays(rows)` as int64 tensors: `input_ids` and `attention_mask` of a model."""
        import torch

        ids, mask = self.arrays(rows)
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def pooled(self, logits: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float32]:
        """Pool the logits of all rows (R, L) to those of the texts (N, L); `how` is "max" or "mean" over windows.

        Raises:
            FlashError: `how` is unknown.
        """
        if how not in POOLS:
            raise FlashError(unknown_name("window_pooling", how, POOLS))
        if len(self) == self.texts:
            return logits
        first = np.flatnonzero(np.diff(self.owner, prepend=-1))
        if how == "max":
            highest: npt.NDArray[np.float32] = np.maximum.reduceat(logits, first)
            return highest
        sums = np.add.reduceat(logits, first, dtype=np.float32)
        return (sums / np.diff(first, append=len(self))[:, None]).astype(np.float32)


def tokenize(
    texts: pa.Array,
    tokenizer: Any,
    *,
    max_length: int,
    long_text: Literal["truncate", "window"] = "truncate",
    overlap: float = 0.25,
) -> TokenRows:
    """Tokenise N texts, including special tokens.

    A text without any token, also without special ones, becomes one pad token that counts as a token, because a model
    needs at least one. The fields of a text (see `fields.SEPARATOR`) are separated by the ids of `between_ids`; token
    types are all 0. A truncated text with several fields loses tokens of its longest field first. All cores are used
    unless `RAYON_NUM_THREADS` or `TOKENIZERS_PARALLELISM` say otherwise; a process that was forked after its parent had
    tokenised uses one thread, because the backend's threads do not survive a fork. The backend's truncation and padding
    are turned off, and stay off until the tokenizer is called with other settings.

    Args:
        texts: strings without nulls.
        tokenizer: a fast tokenizer of transformers with a pad token. Its `truncation_side` determines which end of a
            long text is truncated, and from which end windows are counted.
        max_length: maximum number of tokens per row, special tokens included.
        long_text: how to read a text with more tokens: "truncate" keeps one row, "window" makes as many rows as needed,
            like the tokenizer's own `stride`. All windows but the last have the same length.
        overlap: overlap of consecutive windows as a share of `max_length`.

    Raises:
        FlashError: no room beside the special tokens, windows that would not advance, no pad token, or no disk space
            for a large number of ids.
    """
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:  # set once, not each time: other threads may be tokenising
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if tokenizer.pad_token_id is None:
        raise FlashError(
            "the tokenizer has no padding token, so texts of several lengths cannot share a batch; set one, "
            "for instance tokenizer.pad_token = tokenizer.eos_token"
        )
    room = max_length - backend.num_special_tokens_to_add(False)
    step = _check_room(max_length, room, long_text, overlap)
    text = texts[0].as_py() if len(texts) == 1 else SEPARATOR
    if SEPARATOR not in text and len(text) <= LIKELY_WHOLE * max_length:
        whole = backend.encode_batch_fast([text])[0].ids
        if (
            0 < len(whole) <= max_length
        ):  # a shortcut for single texts: a quarter of the time of the code below
            ids = np.array(whole, np.int32)
            pad_id = tokenizer.pad_token_id
            return TokenRows(ids, np.array([len(ids)]), np.array([0]), texts=1, cut=0, pad_id=pad_id)
    before, after = special_ids(tokenizer)
    ends, owners = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    done = cut = total = 0

    def parts() -> Iterator[Ids]:
        nonlocal done, cut, total
        for chunk in _chunks(texts):
            if pc.any(pc.match_substring(chunk, SEPARATOR)).as_py():
                ids, lengths, lost = _field_ids(tokenizer, chunk, None if step else room)
            else:
                (ids, lengths), lost = _raw_ids(backend, chunk), 0
            owner, begin, length = _rows(lengths, room, step, from_end=tokenizer.truncation_side == "left")
            ids, end = _with_special(ids, begin, length, before, after, tokenizer.pad_token_id)
            ends.append(end + total)
            owners.append(owner + done)
            lost += int((lengths > room).sum())
            done, cut, total = done + len(chunk), cut + lost, total + len(ids)
            yield ids

    ids = _one_array(parts())
    return TokenRows(
        ids,
        np.concatenate(ends),
        np.concatenate(owners),
        texts=len(texts),
        cut=cut,
        pad_id=tokenizer.pad_token_id,
    )


def special_ids(tokenizer: Any) -> tuple[Ids, Ids]:
    """Return the special tokens that the tokenizer's post-processor adds before and after a text."""
    backend = tokenizer.backend_tokenizer
    for text in tokenizer.all_special_tokens:  # in any tokenizer, each of these texts is one token
        encoding = backend.encode(text)
        inside = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
        if len(inside):
            ids = np.array(encoding.ids, np.int32)
            return ids[: inside[0]], ids[inside[-1] + 1 :]
    return np.array(backend.encode("").ids, np.int32), np.zeros(0, np.int32)


def between_ids(tokenizer: Any) -> Ids:
    """Return the token ids between two fields of a text: those that the tokenizer puts between a pair of texts.

    For a tokenizer without pairs, it is the separator token, else the end token, else a line end.
    """
    stored = getattr(tokenizer, "between", None)
    if stored is not None:
        return np.array(stored, np.int32)
    backend = tokenizer.backend_tokenizer
    for text in tokenizer.all_special_tokens:
        encoding = backend.encode(text, text)
        inside = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
        if (
            len(inside) == 2 and inside[1] > inside[0] + 1
        ):  # each text is one token, with special tokens between
            return np.array(encoding.ids[inside[0] + 1 : inside[1]], np.int32)
    for found in (tokenizer.sep_token_id, tokenizer.eos_token_id):
        if found is not None:
            return np.array([found], np.int32)
    return np.array(backend.encode("\n", add_special_tokens=False).ids, np.int32)


def _check_room(max_length: int, room: int, long_text: str, overlap: float) -> int:
    """Return the number of tokens between the starts of consecutive windows; 0 for truncation."""
    if long_text not in LONG_TEXT:
        raise FlashError(unknown_name("long_text", long_text, LONG_TEXT))
    special = max_length - room
    if room < 1:
        raise FlashError(
            f"max_length={max_length} leaves no room for a text beside the tokenizer's {special} special "
            f"token{'s' * (special != 1)}; pass {special + 1} or more"
        )
    if long_text == "truncate":
        return 0
    shared = int(overlap * max_length)
    if not 0 <= overlap < 1 or shared >= room:
        raise FlashError(
            f"overlap={overlap} of max_length={max_length} is {shared} tokens, and a window holds {room} of a text; "
            "expected a share from 0 that leaves windows some new tokens, such as 0.25"
        )
    return room - shared


def _chunks(texts: pa.Array) -> Iterator[pa.Array]:
    """Divide the texts into chunks of about `CHUNK_BYTES`."""
    # read the buffer, because converting an Arrow array to NumPy imports pandas
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, bounds, _ = texts.buffers()
    bounds = np.frombuffer(bounds or bytes(8), kind)[texts.offset : texts.offset + len(texts) + 1]
    sizes = np.diff(bounds).astype(np.int64) + TEXT_BYTES
    ends = np.cumsum(sizes)
    start = 0
    while start < len(texts):
        stop = int(np.searchsorted(ends, ends[start] - sizes[start] + CHUNK_BYTES, side="right"))
        stop = max(stop, start + 1)
        yield texts[start:stop]
        start = stop


def _raw_ids(backend: Any, chunk: pa.Array) -> tuple[Ids, Ints]:
    """Return the concatenated ids of the chunk's texts, and the number of ids per text, without special tokens."""
    global _parallel_in
    texts = chunk.to_pylist()
    # in a fork, encode the texts one by one: a single text is encoded in the caller's thread
    if len(texts) > 1 and _parallel_in not in (0, os.getpid()):
        encodings = [backend.encode_batch_fast([text], add_special_tokens=False)[0] for text in texts]
    else:
        _parallel_in = os.getpid() if len(texts) > 1 else _parallel_in
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
    ids = chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(ids, np.int32, int(lengths.sum())), lengths


def _field_ids(tokenizer: Any, chunk: pa.Array, room: int | None) -> tuple[Ids, Ints, int]:
    """Like `_raw_ids` for texts with several fields, which are separated by `between_ids`.

    Args:
        tokenizer: the tokenizer.
        chunk: the texts.
        room: maximum number of tokens per text, by truncating the longest fields first; None for no truncation.

    Returns:
        Ids, number of ids per text, and number of truncated texts.
    """
    fields = pc.split_pattern(chunk, SEPARATOR)
    ids, lengths = _raw_ids(tokenizer.backend_tokenizer, fields.flatten())
    counts = np.diff(
        np.frombuffer(fields.buffers()[1], _offset_kind(fields))[fields.offset :][: len(chunk) + 1]
    )
    owner = np.repeat(np.arange(len(chunk)), counts)
    between = between_ids(tokenizer)
    last = np.append(owner[1:] != owner[:-1], True)
    kept, lost = lengths, 0
    if room is not None:
        most = np.maximum(room - (counts - 1) * len(between), 0)
        kept = _shares(lengths, owner, counts, most)
        lost = int((np.bincount(owner, kept, len(chunk)) < np.bincount(owner, lengths, len(chunk))).sum())
    begin = np.cumsum(lengths) - (kept if tokenizer.truncation_side == "left" else lengths)
    whole = kept + np.where(last, 0, len(between))
    start = np.cumsum(whole) - whole
    result = np.empty(int(whole.sum()), np.int32)
    within = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    result[np.repeat(start, kept) + within] = ids[np.repeat(begin, kept) + within]
    result[(start + kept)[~last][:, None] + np.arange(len(between))] = between
    return result, np.bincount(owner, whole, len(chunk)).astype(np.int64), lost


def _offset_kind(lists: pa.Array) -> type[np.signedinteger[Any]]:
    return np.int64 if pa.types.is_large_list(lists.type) else np.int32


def _shares(lengths: Ints, owner: Ints, counts: Ints, most: Ints) -> Ints:
    """Return how many tokens of each field are kept, so that text i has at most `most[i]`; the longest are cut first.

    This is transformers' `longest_first`, for any number of fields.
    """
    order = np.lexsort((lengths, owner))  # the fields of each text, the shortest first
    kept = lengths.copy()
    left, first = most.astype(np.int64), np.cumsum(counts) - counts
    for field in range(int(counts.max(initial=0))):
        texts = np.flatnonzero(counts > field)
        place = order[first[texts] + field]
        kept[place] = np.minimum(lengths[place], left[texts] // (counts[texts] - field))
        left[texts] -= kept[place]
    return kept


def _rows(lengths: Ints, room: int, step: int, *, from_end: bool) -> tuple[Ints, Ints, Ints]:
    """Return the text of each row, its start among all ids, and its length.

    Args:
        lengths: (N,) number of tokens per text.
        room: maximum number of tokens per row, without special tokens.
        step: number of tokens between the starts of consecutive windows; 0 for one row per text.
        from_end: whether the first row of a text is at its end.
    """
    windows = np.ones(len(lengths), np.int64)
    if step:
        windows += -(np.minimum(room - lengths, 0) // step)  # ceiling of (remaining tokens / step)
    owner = np.repeat(np.arange(len(lengths)), windows)
    window = np.arange(len(owner)) - np.repeat(np.cumsum(windows) - windows, windows)
    length = np.minimum(lengths[owner] - window * step, room)
    begin = lengths[owner] - window * step - length if from_end else window * step
    return owner, begin + (np.cumsum(lengths) - lengths)[owner], length


def _with_special(
    ids: Ids, begin: Ints, length: Ints, before: Ids, after: Ids, pad_id: int
) -> tuple[Ids, Ints]:
    """Return the concatenated rows with their special tokens, and the end of each row."""
    whole = np.maximum(length + len(before) + len(after), 1)
    end = np.cumsum(whole)
    result = np.full(int(whole.sum()), pad_id, np.int32)
    result[(end - whole)[:, None] + np.arange(len(before))] = before
    result[end[:, None] + np.arange(-len(after), 0)] = after
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    result[np.repeat(end - whole + len(before), length) + within] = ids[np.repeat(begin, length) + within]
    return result, end


def _one_array(parts: Iterable[Ids]) -> Ids:
    """Concatenate the parts; beyond `MOST_IN_MEMORY` in an unnamed temporary file that is deleted with the array."""
    held: list[Ids] = []
    size = 0
    file = None
    try:
        for part in parts:
            held.append(part)
            size += part.nbytes
            if size > MOST_IN_MEMORY:
                file = file or tempfile.TemporaryFile()  # noqa: SIM115  the mapping outlives it
                for array in held:
                    file.write(array.data)
                held.clear()
        if file is None:
            return np.concatenate([np.zeros(0, np.int32), *held])
        file.flush()
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.int32)
    except OSError as error:
        raise FlashError(
            f"the token ids, {size / 1e6:,.0f} MB so far, do not fit into {tempfile.gettempdir()}: {error.strerror}; "
            "make room there, or name another folder in the environment variable TMPDIR"
        ) from error
    finally:
        if file is not None:
            file.close()


def length_batches(
    lengths: npt.ArrayLike,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    epoch: int,
    owner: npt.ArrayLike | None = None,
) -> list[Ints]:
    """Divide all rows into batches of similar length.

    Without `shuffle`, the longest rows come first, so that a lack of memory shows at once. With it, each epoch has its
    own batches in its own order: a row's rank by length moves by up to one batch, and the incomplete batch is a random
    one. The number of batches depends on neither seed nor epoch. The same arguments give the same batches.

    Args:
        lengths: (R,) number of tokens per row.
        batch_size: rows per batch. The windows of a text stay together, so that a batch with windows may have fewer
            rows, and a batch with a single text more.
        shuffle: whether the order is random.
        seed: seed of the order, 0 or more.
        epoch: the epoch, 0 or more.
        owner: (R,) index of each row's text; None if each row is a text.

    Raises:
        FlashError: the batch size is below 1.
    """
    if batch_size < 1:
        raise FlashError(f"batch_size={batch_size} holds no row; pass 1 or more")
    lengths = np.asarray(lengths, np.int64)
    random = np.random.default_rng([seed, epoch])
    by_text = np.arange(len(lengths)) if owner is None else np.argsort(owner, kind="stable")
    texts = by_text if owner is None else np.asarray(owner)[by_text]
    first = np.flatnonzero(np.diff(texts, prepend=texts[:1] - 1))
    windows = np.diff(first, append=len(lengths))
    longest = np.maximum.reduceat(lengths[by_text], first) if len(first) else first
    # texts with several windows always come first, by number of windows, so that every order gives the same number of
    # batches
    order = np.lexsort((random.permutation(len(longest)) if shuffle else first, -longest, -windows))
    if shuffle:
        place = np.argsort(order) + batch_size * random.random(len(order))
        order = np.lexsort((place, -windows))
    sizes = _batch_sizes(windows[order], batch_size)
    if shuffle:
        # shuffle the sizes of the batches after the last text with several windows
        single = int(np.searchsorted(np.cumsum(sizes) - sizes, (windows > 1).sum()))
        sizes[single:] = random.permutation(sizes[single:])
    windows = windows[order]
    within = np.arange(len(lengths)) - np.repeat(np.cumsum(windows) - windows, windows)
    rows = by_text[np.repeat(first[order], windows) + within]
    batches = np.split(rows, np.cumsum(windows)[np.cumsum(sizes)[:-1] - 1]) if len(sizes) else []
    return [batches[batch] for batch in random.permutation(len(batches))] if shuffle else batches


def cheapest_batches(lengths: npt.ArrayLike, most: int, overhead: int) -> list[Ints]:
    """Divide all rows into the batches with the lowest total cost, the longest rows first.

    The cost of a batch is its number of rows times its longest row, plus a fixed overhead. With thousands of rows,
    neighbours have similar lengths and batches are full. With thirty rows, as in a server, a single batch would be half
    padding.

    Args:
        lengths: (R,) number of tokens per row.
        most: maximum number of rows per batch, 1 or more.
        overhead: fixed cost of a batch, in tokens.
    """
    lengths = np.asarray(lengths, np.int64)
    order = np.argsort(-lengths, kind="stable")
    widths = lengths[order]
    least = np.zeros(len(order) + 1, np.int64)  # minimum cost of the first rows
    begins = np.zeros(len(order) + 1, np.int64)  # start of their last batch
    for end in range(1, len(order) + 1):
        first = np.arange(max(0, end - most), end)
        costs = least[first] + overhead + (end - first) * widths[first]
        best = int(costs.argmin())
        least[end], begins[end] = costs[best], first[best]
    batches, end = [], len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = int(begins[end])
    return batches[::-1]


def _batch_sizes(windows: Ints, batch_size: int) -> Ints:
    """Return the number of texts per batch, in order: as many as fit into `batch_size` rows, at least one."""
    ends = np.cumsum(windows)
    bounds = [0]
    while bounds[-1] < len(windows):
        start = bounds[-1]
        stop = np.searchsorted(ends, ends[start] - windows[start] + batch_size, side="right")
        bounds.append(max(int(stop), start + 1))
    return np.diff(bounds)


def pool_windows(logits: "torch.Tensor", owner: "torch.Tensor", texts: int, how: str) -> "torch.Tensor":
    """Pool the logits of windows, (R, L), to logits of texts, (N, L).

    Args:
        logits: (R, L).
        owner: (R,) int64, index of each row's text, 0 to N - 1, each at least once. For a batch,
            `np.unique(rows.owner[batch], return_inverse=True)` returns the texts and these indices.
        texts: N.
        how: "max" or "mean" over the windows of a text.

    Raises:
        FlashError: `how` is unknown.
    """
    if how not in POOLS:
        raise FlashError(unknown_name("window_pooling", how, POOLS))
    index = owner[:, None].expand_as(logits)
    if how == "max":
        # start at -inf: a start equal to the maximum would get a share of the gradient, even with include_self=False
        lowest = logits.new_full((texts, logits.shape[1]), float("-inf"))
        return lowest.scatter_reduce(0, index, logits, "amax")
    sums = logits.new_zeros(texts, logits.shape[1]).scatter_add(0, index, logits)
    return sums / owner.bincount(minlength=texts)[:, None]
