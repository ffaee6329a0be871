"""Texts to token ids once, and batches of rows of similar length, padded to the longest in the batch.

What is kept of the texts is two flat arrays, ids and where rows end, so that an epoch tokenises nothing and a
batch is one gather. The way from strings to arrays is the one that measured fastest: the tokenizer's compiled
backend, `encode_batch_fast` without offsets, truncation or padding, the ids of a whole chunk read into one array,
and special tokens, cuts and windows added to that by numpy. On comments and a BERT vocabulary it takes about two
thirds of the processor time of `tokenizer(texts, truncation=True)`, and what remains is the vocabulary search
itself: reading the ids is a few hundredths of it. Letting the backend truncate costs more than not doing so, since
it builds the rest of a cut text too. Imports errors and
`fields`; torch only inside the functions that give tensors.
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
)  # of text at a time: the backend keeps about a hundred bytes a token until its ids are read
LIKELY_WHOLE = 4
"""A text of no more characters a token that a row holds is hardly ever cut."""
TEXT_BYTES = 64  # what a text counts for beside its characters, so that a chunk of empty ones ends too
MOST_IN_MEMORY = 1 << 28  # bytes of ids; more go to a file

LONG_TEXT = ("truncate", "window")
POOLS = ("max", "mean")

_parallel_in = 0  # the process whose tokenizer threads have been used: a fork of it has none


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Token ids of N texts in R rows: one per text, or one per window of it; special tokens are in each row.

    Attributes:
        ids: (T,) the rows one after another; read-only and memory-mapped where they are many.
        ends: (R,) where in `ids` each row ends.
        owner: (R,) which text a row is of, ascending.
        texts: N.
        cut: how many texts have more tokens than a row holds: they lost some, or have several rows.
        pad_id: what a batch is padded with, behind the tokens whatever the tokenizer's side: positions that a model
            counts itself begin with the row, and would depend on the padding before it.
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
        """(R,) tokens a row, at least 1."""
        return np.diff(self.ends, prepend=0)

    def arrays(self, rows: npt.ArrayLike) -> tuple[Ints, Ints]:
        """Ids and mask of `rows`, (B, longest of them): the mask is 1 at a token, 0 at padding."""
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
        """`arrays(rows)` as int64 tensors: `input_ids` and `attention_mask` of a model."""
        import torch

        ids, mask = self.arrays(rows)
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def pooled(self, logits: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float32]:
        """The label logits of the texts (N, L) from those of all rows (R, L): `how` is "max" or "mean" of windows.

        Raises:
            FlashError: another word.
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
    """The token ids of N texts, as `tokenizer` gives them, special tokens included.

    A text without any token, where the tokenizer adds none either, is one padding token that counts as a token:
    a model must have something to look at. Between the fields of a text (see `fields.SEPARATOR`) stand the ids of
    `between_ids`; token types are all 0, also behind them. A text of fields that is truncated loses tokens of its
    longest field first. Every core is used, unless
    `RAYON_NUM_THREADS` or `TOKENIZERS_PARALLELISM` say otherwise. A process forked from one that has tokenised uses one
    thread, since the backend's threads do not survive a fork and waiting for them would never end. The backend's own truncation
    and padding are switched off, and stay so until the tokenizer is called with other ones.

    Args:
        texts: strings without nulls.
        tokenizer: a fast one of transformers, with a padding token. Its `truncation_side` says which end of a long
            text is kept, and from which end windows are counted.
        max_length: most tokens a row, special ones included.
        long_text: of a text with more tokens: "truncate" keeps one row, "window" as many as hold all of it, which
            are those of the tokenizer's own `stride`. Windows after the first are as long, but for the last.
        overlap: the share of `max_length` that consecutive windows have in common.

    Raises:
        FlashError: no room beside the special tokens, windows that would not advance, no padding token, no room
            for the file that many ids go to.
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
        if 0 < len(whole) <= max_length:  # as most that come alone; a quarter of the time of what follows
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
    """What the tokenizer puts before a text, and after it, as its post-processor says."""
    backend = tokenizer.backend_tokenizer
    for text in tokenizer.all_special_tokens:  # each is one token of any tokenizer; other texts may be none
        encoding = backend.encode(text)
        inside = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
        if len(inside):
            ids = np.array(encoding.ids, np.int32)
            return ids[: inside[0]], ids[inside[-1] + 1 :]
    return np.array(backend.encode("").ids, np.int32), np.zeros(0, np.int32)


def between_ids(tokenizer: Any) -> Ids:
    """What stands between two fields of a text: what the tokenizer puts between the two texts of a pair.

    Of a tokenizer without pairs it is the separator token, else the end token, else a line end.
    """
    stored = getattr(tokenizer, "between", None)
    if stored is not None:
        return np.array(stored, np.int32)
    backend = tokenizer.backend_tokenizer
    for text in tokenizer.all_special_tokens:
        encoding = backend.encode(text, text)
        inside = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
        if len(inside) == 2 and inside[1] > inside[0] + 1:  # each is one token of any tokenizer
            return np.array(encoding.ids[inside[0] + 1 : inside[1]], np.int32)
    for found in (tokenizer.sep_token_id, tokenizer.eos_token_id):
        if found is not None:
            return np.array([found], np.int32)
    return np.array(backend.encode("\n", add_special_tokens=False).ids, np.int32)


def _check_room(max_length: int, room: int, long_text: str, overlap: float) -> int:
    """How many tokens further each window begins; 0 where texts are truncated."""
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
    """The texts in runs of about `CHUNK_BYTES`."""
    # by way of the buffer, as making numpy's array of an Arrow one imports pandas
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
    """The ids of the chunk's texts one after another, and how many each has; no special tokens."""
    global _parallel_in
    texts = chunk.to_pylist()
    if len(texts) > 1 and _parallel_in not in (
        0,
        os.getpid(),
    ):  # one text takes no thread beside the caller's
        encodings = [backend.encode_batch_fast([text], add_special_tokens=False)[0] for text in texts]
    else:
        _parallel_in = os.getpid() if len(texts) > 1 else _parallel_in
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
    ids = chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(ids, np.int32, int(lengths.sum())), lengths


def _field_ids(tokenizer: Any, chunk: pa.Array, room: int | None) -> tuple[Ids, Ints, int]:
    """As `_raw_ids` for texts of several fields, `between_ids` between these.

    Args:
        tokenizer: whose backend gives the ids.
        chunk: the texts.
        room: tokens that a text is cut to, the longest field first; None to cut none.

    Returns:
        Ids, how many each text has, and how many texts were cut.
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
    """How many tokens of each field are kept, so that text i has at most `most[i]`: the longest fields lose first.

    What transformers calls `longest_first`, for any number of fields.
    """
    order = np.lexsort((lengths, owner))  # of each text the shortest field first
    kept = lengths.copy()
    left, first = most.astype(np.int64), np.cumsum(counts) - counts
    for field in range(int(counts.max(initial=0))):
        texts = np.flatnonzero(counts > field)
        place = order[first[texts] + field]
        kept[place] = np.minimum(lengths[place], left[texts] // (counts[texts] - field))
        left[texts] -= kept[place]
    return kept


def _rows(lengths: Ints, room: int, step: int, *, from_end: bool) -> tuple[Ints, Ints, Ints]:
    """Which text each row is of, where among all ids it begins, and how many it takes.

    Args:
        lengths: (N,) tokens a text.
        room: most tokens a row, special ones not included.
        step: how many tokens after a window the next one begins; 0 for one row a text.
        from_end: whether the first row of a text is its end.
    """
    windows = np.ones(len(lengths), np.int64)
    if step:
        windows += -(np.minimum(room - lengths, 0) // step)  # the ceiling of what is left over step
    owner = np.repeat(np.arange(len(lengths)), windows)
    window = np.arange(len(owner)) - np.repeat(np.cumsum(windows) - windows, windows)
    length = np.minimum(lengths[owner] - window * step, room)
    begin = lengths[owner] - window * step - length if from_end else window * step
    return owner, begin + (np.cumsum(lengths) - lengths)[owner], length


def _with_special(
    ids: Ids, begin: Ints, length: Ints, before: Ids, after: Ids, pad_id: int
) -> tuple[Ids, Ints]:
    """Rows of `ids` one after another, each between its special tokens, and where each ends."""
    whole = np.maximum(length + len(before) + len(after), 1)
    end = np.cumsum(whole)
    result = np.full(int(whole.sum()), pad_id, np.int32)
    result[(end - whole)[:, None] + np.arange(len(before))] = before
    result[end[:, None] + np.arange(-len(after), 0)] = after
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    result[np.repeat(end - whole + len(before), length) + within] = ids[np.repeat(begin, length) + within]
    return result, end


def _one_array(parts: Iterable[Ids]) -> Ids:
    """The parts one after another; past `MOST_IN_MEMORY`, in a nameless file that ends with the array."""
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
    """Every row once, in batches of rows of similar length.

    Without `shuffle`, the longest rows come first: what does not fit into memory fails at once. With it, each epoch
    has its own batches in its own order: a row's place in the order of lengths moves by up to one batch, and the batch
    that is not full is a random one, not always that of the shortest rows. How many batches there are depends on
    neither seed nor epoch. Same arguments, same batches.

    Args:
        lengths: (R,) tokens a row.
        batch_size: rows a batch. A text's windows stay together, so that batches of windows may hold fewer, and
            one of a single text more.
        shuffle: whether the order is random.
        seed: of the order, 0 or more.
        epoch: of the order, 0 or more.
        owner: (R,) which text a row is of; None where each row is a text.

    Raises:
        FlashError: a batch size below 1.
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
    # texts of several windows come first, most windows first, whatever their order among each other: so all orders
    # make equally many batches
    order = np.lexsort((random.permutation(len(longest)) if shuffle else first, -longest, -windows))
    if shuffle:
        place = np.argsort(order) + batch_size * random.random(len(order))
        order = np.lexsort((place, -windows))
    sizes = _batch_sizes(windows[order], batch_size)
    if shuffle:
        # the batches after the last text of several windows
        single = int(np.searchsorted(np.cumsum(sizes) - sizes, (windows > 1).sum()))
        sizes[single:] = random.permutation(sizes[single:])
    windows = windows[order]
    within = np.arange(len(lengths)) - np.repeat(np.cumsum(windows) - windows, windows)
    rows = by_text[np.repeat(first[order], windows) + within]
    batches = np.split(rows, np.cumsum(windows)[np.cumsum(sizes)[:-1] - 1]) if len(sizes) else []
    return [batches[batch] for batch in random.permutation(len(batches))] if shuffle else batches


def cheapest_batches(lengths: npt.ArrayLike, most: int, overhead: int) -> list[Ints]:
    """Every row once, in the batches that cost least to predict: longest rows first, no more than `most` in one.

    A batch costs its rows times the longest of them, which the others are padded to, and what any batch costs. Of
    thousands of rows neighbours are of nearly one length, and batches are full; of thirty, as a server has them, one
    batch would be half padding.

    Args:
        lengths: (R,) tokens a row.
        most: rows a batch at most, 1 or more.
        overhead: what a batch costs beside its tokens, in tokens.
    """
    lengths = np.asarray(lengths, np.int64)
    order = np.argsort(-lengths, kind="stable")
    widths = lengths[order]
    least = np.zeros(len(order) + 1, np.int64)  # the cost of the first rows
    begins = np.zeros(len(order) + 1, np.int64)  # where the last batch of them begins
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
    """How many texts each batch takes, in order: as many as have `batch_size` rows, at least one."""
    ends = np.cumsum(windows)
    bounds = [0]
    while bounds[-1] < len(windows):
        start = bounds[-1]
        stop = np.searchsorted(ends, ends[start] - windows[start] + batch_size, side="right")
        bounds.append(max(int(stop), start + 1))
    return np.diff(bounds)


def pool_windows(logits: "torch.Tensor", owner: "torch.Tensor", texts: int, how: str) -> "torch.Tensor":
    """The label logits of texts from those of their windows, (R, L) to (N, L).

    Args:
        logits: (R, L).
        owner: (R,) int64, which of the N texts a row is of: 0 to N - 1, each at least once. Of the rows of a
            batch, `np.unique(rows.owner[batch], return_inverse=True)` gives the texts and this.
        texts: N.
        how: "max" or "mean" over the windows of a text.

    Raises:
        FlashError: another word.
    """
    if how not in POOLS:
        raise FlashError(unknown_name("window_pooling", how, POOLS))
    index = owner[:, None].expand_as(logits)
    if how == "max":
        # from -inf: torch gives a start that equals the highest a share of its gradient, even with include_self=False
        lowest = logits.new_full((texts, logits.shape[1]), float("-inf"))
        return lowest.scatter_reduce(0, index, logits, "amax")
    sums = logits.new_zeros(texts, logits.shape[1]).scatter_add(0, index, logits)
    return sums / owner.bincount(minlength=texts)[:, None]
