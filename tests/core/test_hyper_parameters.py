"""Options and sizes as loggers take them: plain, short, under stable names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from flash.core.hyper_parameters import (
    LONGEST_VALUE,
    MOST_LABELS,
    flat_parameters,
    label_counts,
    log_hyper_parameters,
)


def test_values_are_plain_and_short() -> None:
    nested = {
        "model": {
            "backbone": "linear",
            "char_ngrams": (2, 5),
            "rate": np.float32(0.5),
            "none": None,
            "bias": True,
        },
        "data": {"file": Path("a.csv"), "long": "x" * 1000, "metric": len, "object": SimpleNamespace()},
    }
    flat = flat_parameters(nested)
    assert flat == {
        "model/backbone": "linear",
        "model/char_ngrams": "2, 5",
        "model/rate": 0.5,
        "model/bias": True,
        "data/file": "a.csv",
        "data/long": "x" * (LONGEST_VALUE - 3) + "...",
        "data/metric": "len",
        "data/object": "SimpleNamespace",
    }
    assert type(flat["model/rate"]) is float


def test_a_dict_of_many_is_its_size() -> None:
    many = {str(label): 1.0 for label in range(MOST_LABELS + 1)}
    assert flat_parameters({"thresholds": many}) == {"thresholds/count": MOST_LABELS + 1}


def test_counts_of_labels_with_odd_names() -> None:
    targets = csr_array(np.array([[1, 0, 0.6], [1, 1, 0.4], [0, 0, 1]], np.float32))
    names = ["a/b", "a:b", "it's, \n\u00e9"]
    counts = label_counts(names, targets)["train_positives"]
    assert list(counts.values()) == [2, 1, 2]
    assert list(counts) == ["a_b", "a_b_1", "it_s_ _\u00e9"]


def test_of_many_labels_there_are_four_numbers() -> None:
    targets = np.zeros((3, MOST_LABELS + 1), np.float32)
    targets[:, 0] = targets[0, 1] = 1
    names = [str(label) for label in range(MOST_LABELS + 1)]
    assert label_counts(names, csr_array(targets)) == {
        "train_positives_smallest": 0,
        "train_positives_median": 0.0,
        "train_positives_largest": 3,
        "labels_without_positives": MOST_LABELS - 1,
    }


@pytest.mark.parametrize(("first", "expected"), [(True, [{"a": 1}, {"a": 1}]), (False, [])])
def test_every_logger_of_the_first_process_gets_them(first: bool, expected: list[Any]) -> None:
    got: list[Any] = []
    logger = SimpleNamespace(log_hyperparams=got.append)
    log_hyper_parameters(SimpleNamespace(is_global_zero=first, loggers=[logger, logger]), {"a": 1})
    assert got == expected
