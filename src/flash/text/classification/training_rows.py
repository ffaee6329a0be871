"""The training rows of a datamodule: check them, hold out validation rows, and describe them."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from flash.core.errors import DataError, visible
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.known import any_unknown, known_rows, unknown_places, without_unknown
from flash.text.classification.targets.labels import LabelSet
from flash.text.classification.targets.stratified_split import stratified_split

FEW_ROWS = 20  # with fewer rows, each may have its own class
MOST_DIFFERENT = 0.9  # maximum number of classes per row
SHOWN = 10  # maximum number of labels that a message, or a line of repr, names


def check_training_rows(source: Source, fields: list[str], targets: csr_array, label_set: LabelSet) -> None:
    """Check that something can be learned from the training rows.

    Args:
        source: the rows' source, for messages.
        fields: the target columns.
        targets: (N, L), NaN for an unknown target.
        label_set: the L labels.

    Raises:
        DataError: no label applies to any row, or all targets of a label are unknown.

    Warns:
        UserWarning: labels that apply to no row, or to every row.
    """
    known = known_rows(targets)
    if label_set.multi_label and not known.all():
        raise DataError(
            _nothing_known(source, [label_set.names[label] for label in np.flatnonzero(known == 0)])
        )
    if not without_unknown(targets).nnz:
        columns = f"column {fields[0]!r}" if len(fields) == 1 else f"the {len(fields)} target columns"
        raise DataError(
            f"{source.name}: no training row has a label in {columns}, so there is nothing to learn; check that "
            "target_fields= names the right columns, and that a row to which a label applies has a 1 there, or "
            "its name"
        )
    _refuse_texts_as_labels(source, fields, targets, label_set)
    rows, labels = targets.shape
    counts = np.bincount(targets.indices[targets.data >= 0.5], minlength=labels)
    partly = any_unknown(targets)
    among = f"the {rows:,} training row{'s' * (rows != 1)}" + " where it is known" * partly
    found = []
    for chosen, one, several, future in (
        (counts == 0, "has no positive row among", "have no positive row among", "never"),
        (counts == known, "applies to each of", "apply to each of", "always"),
    ):
        names = [label_set.names[label] for label in np.flatnonzero(chosen)]
        if names:
            more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            found.append(
                f"{len(names):,} of {labels:,} label{'s' * (labels != 1)} {one if len(names) == 1 else several} "
                f"{among} ({', '.join(names[:SHOWN])}{more}): "
                f"{'it' if len(names) == 1 else 'they'} will {future} be predicted"
            )
            if partly and future == "always":
                found[-1] += (
                    "; if a cell without a value means that the label does not apply, pass unknown_targets='negative'"
                )
    if found:
        warnings.warn(f"{source.name}: {'; '.join(found)}", UserWarning, stacklevel=4)


def _refuse_texts_as_labels(
    source: Source, fields: list[str], targets: csr_array, label_set: LabelSet
) -> None:
    """Raise an error if nearly every class occurs in a single row, like texts or identifiers.

    Raises:
        DataError: there are nearly as many classes as rows.
    """
    positive = np.bincount(targets.indices[targets.data >= 0.5], minlength=len(label_set))
    rows = int(positive.sum())
    if label_set.multi_label or rows < FEW_ROWS or (positive > 0).sum() < MOST_DIFFERENT * rows:
        return
    raise DataError(
        f"{source.name}: column {fields[0]!r} has {len(label_set):,} different values in {source.table.num_rows:,} rows, as "
        "texts or identifiers have, and not classes; check that target_fields= names the column of labels"
    )


def _nothing_known(source: Source, names: list[str]) -> str:
    """The error message for labels without any known target."""
    more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    it = "it" if len(names) == 1 else "them"
    return (
        f"{source.name}: in no training row is it known whether {len(names):,} label{'s apply' if len(names) > 1 else ' applies'} "
        f"({', '.join(names[:SHOWN])}{more}), so nothing can be learnt about {it}; leave {it} out of target_fields=, or "
        "add rows where it is known"
    )


def hold_out(
    datasets: Mapping[str, Any], val_split: int | float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split the training rows into those for training and those for validation, stratified; identical texts stay together.

    Args:
        datasets: datasets by split; train has `texts` and `targets`.
        val_split: the fraction, or the number, of rows to hold out.
        seed: seed of the split.

    Raises:
        DataError: there are validation rows already, or no training rows.
    """
    if "val" in datasets:
        raise DataError(f"val_split={val_split} is given, and validation rows too; pass one of them")
    if "train" not in datasets:
        raise DataError(
            f"val_split={val_split} is given without training rows to take them from; leave it out"
        )
    train = datasets["train"]
    if isinstance(val_split, float) and val_split > 1 and val_split.is_integer():
        val_split = int(val_split)  # a count from a command line or a JSON file
    groups = np.asarray(train.texts.dictionary_encode().indices)
    return stratified_split(train.targets, val_split, groups=groups, seed=seed)


def describe(split: str, rows: int, targets: csr_array | None, labels: list[str]) -> Iterator[str]:
    """Yield the lines of a datamodule's `repr` about one split: size, most frequent labels, and unknown targets."""
    size = f"  {split + ':':9}{rows:>9,} text{'s' * (rows != 1)}"
    if targets is None:
        yield size
        return
    applies = targets >= 0.5  # as in the metrics
    counts = np.asarray(applies.sum(axis=0)).ravel()
    bare = int((np.asarray(applies.sum(axis=1)).ravel() == 0).sum())
    yield f"{size}, {counts.sum() / max(rows, 1):.2f} labels a text, {bare:,} without a label"
    order = np.argsort(-counts, kind="stable")
    more = f" ... and {len(labels) - SHOWN:,} more" if len(labels) > SHOWN else ""
    yield "    " + ", ".join(f"{visible(labels[label])} {counts[label]:,}" for label in order[:SHOWN]) + more
    if any_unknown(targets):
        unknown, rows_with = len(unknown_places(targets)[0]), len(np.unique(unknown_places(targets)[0]))
        yield (
            f"    {unknown:,} of {rows * len(labels):,} targets are not known, in {rows_with:,} "
            f"text{'s' * (rows_with != 1)}"
        )
