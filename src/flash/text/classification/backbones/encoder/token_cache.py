"""Tokens of texts that come again, such as validation's in each epoch, and features. Imports nothing of the project."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import torch

    from flash.text.classification.batching import TokenRows

MOST_BYTES = 1 << 26
"""Of token ids that are kept: about sixteen million tokens."""


class TokenCache:
    """Token rows by the texts' content: reading it is hundreds of times faster than tokenising it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._left = most_bytes
        self._rows: dict[bytes, TokenRows] = {}

    def rows_of(self, texts: pa.Array, tokenize: Callable[[pa.Array], "TokenRows"]) -> "TokenRows":
        """The rows of texts that were here before, else `tokenize`'s, which are kept while there is room."""
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
        """Whether these are ones that will be given again."""
        return any(known is rows for known in self._rows.values())


class KeptFeatures:
    """Features of token rows, for as long as the encoder that gave them stays as it is; in the processor's memory."""

    def __init__(self) -> None:
        self._found: dict[TokenRows, list[tuple[np.ndarray, torch.Tensor]]] = {}

    def of(
        self, tokens: "TokenRows", computed: Iterable[tuple[np.ndarray, "torch.Tensor"]]
    ) -> list[tuple[np.ndarray, "torch.Tensor"]]:
        """Batches of rows with their (B, H) features: those of before, else `computed`'s."""
        if tokens not in self._found:
            self._found[tokens] = [(rows, features.cpu()) for rows, features in computed]
        return self._found[tokens]
