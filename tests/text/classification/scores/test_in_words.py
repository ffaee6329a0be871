"""Sentences about rows: exact numbers, of labels that have enough of them."""

import numpy as np
import pytest

from flash.text.classification.scores.in_words import (
    FEW_POSITIVES,
    few_positives_sentence,
    has_few_positives,
    in_words,
)
from flash.text.classification.scores.metrics import Evaluation, evaluate


def evaluated(positives: dict[str, tuple[int, int, int]], rows: int = 100) -> Evaluation:
    """Labels by name with (positive rows, positive rows that are flagged, other rows that are flagged)."""
    targets, scores = np.zeros((rows, len(positives))), np.full((rows, len(positives)), 0.1)
    for column, (support, hits, wrong) in enumerate(positives.values()):
        targets[:support, column] = 1
        scores[:hits, column] = 0.9
        scores[support : support + wrong, column] = 0.9
    return evaluate(
        scores, targets, labels=list(positives), thresholds=[0.5] * len(positives), multi_label=True
    )


def test_few_labels_have_a_sentence_each() -> None:
    found = evaluated({"threat": (6, 2, 6), "insult": (12, 1, 0), "spam": (1, 0, 0), "unseen": (0, 0, 3)})
    assert in_words(found) == [
        "Of 8 rows flagged as threat, 2 were right; 2 of the 6 threat rows were found.",
        "The one row flagged as insult was right; 1 of the 12 insult rows was found.",
        "No row was flagged as spam; the one spam row was not found.",
    ]
    assert in_words(evaluated({"ham": (1, 1, 1), "spam": (2, 0, 1)})) == [
        "Of 2 rows flagged as ham, 1 was right; the one ham row was found.",
        "The one row flagged as spam was wrong; 0 of the 2 spam rows were found.",
    ]


def test_of_more_labels_the_highest_and_the_lowest_that_have_enough_rows() -> None:
    numbers = {"rare": (3, 3, 0), "good": (20, 18, 2), "middle": (20, 10, 2), "bad": (10, 1, 9)}
    assert in_words(evaluated(numbers)) == [
        "Highest F1: of 20 rows flagged as good, 18 were right; 18 of the 20 good rows were found.",
        "Lowest F1: of 10 rows flagged as bad, 1 was right; 1 of the 10 bad rows was found.",
    ]
    scarce = {name: (3, hits, 0) for hits, name in enumerate(["none", "one", "two", "three"])}
    assert in_words(evaluated(scarce)) == [
        "Highest F1: of 3 rows flagged as three, 3 were right; 3 of the 3 three rows were found.",
        "Lowest F1: no row was flagged as none; 0 of the 3 none rows were found.",
    ]


@pytest.mark.parametrize(
    ("support", "few"), [(0, False), (1, True), (FEW_POSITIVES - 1, True), (FEW_POSITIVES, False)]
)
def test_few_positives(support: int, few: bool) -> None:
    found = evaluated({"a": (support, 0, 0)})
    assert has_few_positives(found).tolist() == [few]
    assert few_positives_sentence(found) == (
        "* fewer than 10 positive rows: one of them more or less changes recall by more than 0.1, so that these numbers "
        "mean little."
        if few
        else None
    )


def test_the_numbers_are_those_for_machines() -> None:
    found = evaluated({"a": (20, 5, 3)})
    label = found.to_dict()["labels"][0]
    assert (label["support"], label["predicted"], label["hits"]) == (20, 8, 5)
