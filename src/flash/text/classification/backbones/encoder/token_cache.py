"""Caches of tokens and features for texts that are read repeatedly, such as validation's in each epoch."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import torch

    from flash.text.classification.batching import TokenRows

MOST_BYTES = 1 << 26
"""Maximum size of the cached token ids in bytes: about sixteen million tokens."""


class TokenCache:
    """Token rows by a hash of the texts, which is hundreds of times faster than tokenising them."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._left = most_bytes
        self._rows: dict[bytes, TokenRows] = {}

    def rows_of(self, texts: pa.Array, tokenize: Callable[[pa.Array], "TokenRows"]) -> "TokenRows":
        """Return the cached rows of texts, or tokenise them and cache the rows if there is room."""
        if not isinstance(texts, pa.Array) or texts.offset:
            return tokenize(texts)
        key = blake2b(f"{len(texts)} {texts.type}".encode())
        for buffer in texts.buffers():
            key.update(b"-" if buffer is None else f"{buffer.size} ".encode())
            key.update(b"" if buffer is None else buffer)
        rows = self._rows.get(key.digest())
        if rows is None:
            rows = tokenize(texts)
            size = rows.ids.nbytes + rows.ends.nbytes + rows.owner.nbytes
            if size <= self._left:
                self._rows[key.digest()], self._left = rows, self._left - size
        return rows

    def keeps(self, rows: "TokenRows") -> bool:
        """Whether these rows are in the cache."""
        return any(known is rows for known in self._rows.values())


class KeptFeatures:
    """Cached features of token rows, in CPU memory; valid while the encoder is frozen."""

    def __init__(self) -> None:
        self._found: dict[TokenRows, list[tuple[np.ndarray, torch.Tensor]]] = {}

    def of(
        self, tokens: "TokenRows", computed: Iterable[tuple[np.ndarray, "torch.Tensor"]]
    ) -> list[tuple[np.ndarray, "torch.Tensor"]]:
        """Return batches of rows with their (B, H) features, from the cache or from `computed`."""
        if tokens not in self._found:
            self._found[tokens] = [(rows, features.cpu()) for rows, features in computed]
        return self._found[tokens]
