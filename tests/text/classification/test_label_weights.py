"""`pos_weight`: each of its forms as one weight per label, the same for both kinds of backbones."""

from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import FlashError
from flash.text.classification.label_weights import label_weights

LABELS = ("toxic", "insult", "threat")
POSITIVES, ROWS = [40.0, 10.0, 2.0], 100


@pytest.mark.parametrize(
    ("pos_weight", "expected"),
    [
        (2, [2, 2, 2]),
        ([1, 2, 3.5], [1, 2, 3.5]),
        ((1, 2, 3), [1, 2, 3]),
        (np.array([1, 2, 3], np.float32), [1, 2, 3]),
        (torch.tensor([1.0, 2, 3]), [1, 2, 3]),
        (np.float32(2), [2, 2, 2]),
        ({"threat": 49}, [1, 1, 49]),
        ("balanced", [60 / 40, 90 / 10, 98 / 2]),
    ],
)
def test_weights_of_labels(pos_weight: Any, expected: list[float]) -> None:
    assert label_weights(pos_weight, LABELS, POSITIVES, ROWS).tolist() == pytest.approx(expected)


def test_balanced_where_a_label_has_no_rows_of_one_kind() -> None:
    assert label_weights("balanced", LABELS, [0, 100, 50], 100).tolist() == pytest.approx([1, 0.01, 1])


def test_weights_of_labels_that_are_known_in_different_rows() -> None:
    weights = label_weights("balanced", LABELS, [10.0, 10.0, 0.0], np.array([100, 30, 7]))
    assert weights.tolist() == pytest.approx([9, 2, 1])
    assert weights.dtype == np.float32
    with pytest.raises(
        FlashError, match=r"pos_weight='balanced' was given 3 counts in \[100, 5, 10\] rows for 3 labels"
    ):
        label_weights("balanced", LABELS, [40.0, 10.0, 2.0], [100, 5, 10])
