"""Texts and targets of one split, as arrays, and batches of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array
from torch.utils.data import Dataset

from flash.text.classification.reading.fields import joined_texts
from flash.text.classification.reading.odd_rows import kept_rows
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.encoding import encode_known
from flash.text.classification.targets.formats import TargetFormat
from flash.text.classification.targets.unknown import UnknownTargets

Batch: TypeAlias = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TextDataset(Dataset[Batch]):
    """Texts and targets as arrays; a batch is one gather instead of a loop over rows.

    Attributes:
        texts: N texts.
        targets: (N, L) float32, sparse, NaN for an unknown target; None if there are only texts.
    """

    texts: pa.LargeStringArray
    targets: csr_array | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the rows `indices`: `"texts"`, an Arrow array; `"targets"`, float32 (B, L), if any; `"rows"`."""
        rows = np.asarray(indices, np.int64)
        batch: Batch = {"texts": self.texts.take(pa.array(rows)), "rows": rows}
        if self.targets is not None:
            batch["targets"] = torch.from_numpy(self.targets[rows].toarray())
        return batch

    def __getitem__(self, index: int) -> Batch:
        """Return a batch of one row."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.__getitems__([index % len(self)])

    def take(self, rows: np.ndarray) -> "TextDataset":
        """Return a dataset with these rows."""
        return TextDataset(
            self.texts.take(pa.array(rows)), None if self.targets is None else self.targets[rows]
        )


@dataclass(frozen=True, eq=False)
class RowBatches:
    """The rows of a dataset in order, `batch_size` at a time."""

    dataset: TextDataset
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.dataset), self.batch_size):
            yield self.dataset.__getitems__(range(start, min(start + self.batch_size, len(self.dataset))))


def make_dataset(
    source: Source,
    input_fields: list[str],
    fields: list[str],
    target_format: TargetFormat | None,
    name: str,
    unknown_labels: Any,
    unknown: UnknownTargets,
) -> tuple[Source, TextDataset]:
    """Return the source and the dataset of the rows with known targets."""
    texts = joined_texts(source, input_fields)
    if target_format is None or name.startswith("predict"):
        return source, TextDataset(texts)
    known = encode_known(target_format, source, fields, unknown_labels=unknown_labels, unknown=unknown)
    if known.rows is not None:
        texts, source = texts.take(pa.array(known.rows)), kept_rows(source, known.rows)
    return source, TextDataset(texts, known.targets)
