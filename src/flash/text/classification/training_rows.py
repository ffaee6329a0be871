"""The training rows of a datamodule: whether they can teach, which to hold out, and how many there are of what.

None of this is on the way of a text to its labels. Imports errors, readers, labels and splits; neither torch nor
lightning.
"""

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

FEW_ROWS = 20  # of so few, each may well have a class of its own
MOST_DIFFERENT = 0.9  # classes per row; of more, hardly any could be learnt
SHOWN = 10  # labels that a sentence, or a line of repr, names


def check_training_rows(source: Source, fields: list[str], targets: csr_array, label_set: LabelSet) -> None:
    """Refuse rows that teach nothing; warn of labels that cannot be told from the rows.

    Args:
        source: of the rows, for its name.
        fields: the target columns.
        targets: (N, L), NaN where one is not known.
        label_set: the L labels.

    Raises:
        DataError: no label applies to any row, or of some label nothing is known.
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
    """Refuse classes of which nearly each stands in one row alone, as texts or identifiers do.

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
    """Of which labels nothing is known, and what to do."""
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
    """The rows of train that stay there, and those held out, stratified; identical texts go together.

    Args:
        datasets: by split; train has `texts` and `targets`.
        val_split: the fraction, or the number, of rows to hold out.
        seed: of the split.

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
        val_split = int(val_split)  # how a command line or a JSON file may write a count
    groups = np.asarray(train.texts.dictionary_encode().indices)
    return stratified_split(train.targets, val_split, groups=groups, seed=seed)


def describe(split: str, rows: int, targets: csr_array | None, labels: list[str]) -> Iterator[str]:
    """The lines of a datamodule's `repr` about one split: its size, its most frequent labels, and what is not known."""
    size = f"  {split + ':':9}{rows:>9,} text{'s' * (rows != 1)}"
    if targets is None:
        yield size
        return
    applies = targets >= 0.5  # of a soft target: as the scores count it
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
