"""Describe an `Evaluation`'s results for single labels in sentences about rows. Imports neither torch nor lightning."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flash.text.classification.scores.metrics import Evaluation

FEW_POSITIVES = 10
"""With fewer positive rows, a single row changes a label's recall by more than 0.1."""

ALL_UP_TO = 3  # up to this many labels, each has a sentence; otherwise only the strongest and the weakest


def has_few_positives(evaluation: Evaluation) -> NDArray[np.bool_]:
    """Return (L,): whether a label has positive rows, but fewer than `FEW_POSITIVES`."""
    found: NDArray[np.bool_] = (evaluation.support > 0) & (evaluation.support < FEW_POSITIVES)
    return found


def few_positives_sentence(evaluation: Evaluation) -> str | None:
    """Explain the mark of labels with few positives; None if there are none."""
    if not has_few_positives(evaluation).any():
        return None
    return (
        f"* fewer than {FEW_POSITIVES} positive rows: one of them more or less changes recall by more than "
        f"{1 / FEW_POSITIVES:g}, so that these numbers mean little."
    )


def in_words(evaluation: Evaluation, name: Callable[[str], str] = str) -> list[str]:
    """Explain precision and recall in numbers of rows, for readers who do not know the terms.

    Args:
        evaluation: up to 3 labels get a sentence each; of more labels, those with the highest and the lowest F1, among
            the labels with at least 10 positive rows if there are two.
        name: formats a label's name.
    """
    support = evaluation.support
    columns = np.flatnonzero(support > 0)
    if columns.size <= ALL_UP_TO:
        return [_sentence(evaluation, int(column), name(evaluation.labels[column])) for column in columns]
    enough = np.flatnonzero(support >= FEW_POSITIVES)
    columns = enough if enough.size > 1 else columns
    order = columns[np.argsort(evaluation.f1[columns], kind="stable")]
    return [
        f"{which} F1: {sentence[0].lower()}{sentence[1:]}"
        for which, column in (("Highest", order[-1]), ("Lowest", order[0]))
        for sentence in [_sentence(evaluation, int(column), name(evaluation.labels[column]))]
    ]


def _sentence(evaluation: Evaluation, column: int, shown: str) -> str:
    """Describe one label's predicted and positive rows."""
    flagged, positive = int(evaluation.predicted[column]), int(evaluation.support[column])
    hits = int(evaluation.hits[column])
    right = f"Of {flagged:,} rows flagged as {shown}, {hits:,} {_were(hits)} right"
    if flagged < 2:
        verdict = "right" if hits else "wrong"
        right = (
            f"The one row flagged as {shown} was {verdict}" if flagged else f"No row was flagged as {shown}"
        )
    found = f"{hits:,} of the {positive:,} {shown} rows {_were(hits)} found"
    if positive == 1:
        found = f"the one {shown} row was {'' if hits else 'not '}found"
    return f"{right}; {found}."


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
