"""The user's metrics: of torchmetrics, functions, and lists and dicts of either."""

from functools import partial
from typing import Any

import pytest
import torch
from torchmetrics.classification import MultilabelF1Score

from flash.core.errors import FlashError
from flash.text.classification.scores.own_metrics import OwnMetrics

PROBABILITIES = torch.tensor([[0.9, 0.2], [0.6, 0.7]])
TARGETS = torch.tensor([[1, 0], [0, 1]])


def share(probabilities: torch.Tensor, targets: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    return ((probabilities >= threshold) == targets.bool()).float().mean()


def per_label(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return targets.float().mean(dim=0)


def scores(metrics: Any) -> dict[str, Any]:
    found = OwnMetrics(metrics, "val").scores(PROBABILITIES, TARGETS, ["x", "y"])
    return {name: pytest.approx(float(value)) for name, value in found.items()}


def test_functions_and_metrics_by_name() -> None:
    assert scores(share) == {"val_share": 0.75}
    assert scores([share, partial(per_label)]) == {
        "val_share": 0.75,
        "val_per_label/x": 0.5,
        "val_per_label/y": 0.5,
    }
    f1 = MultilabelF1Score(2, average="micro")
    assert scores({"mine": partial(share, threshold=0.65), "f1": f1}) == {"val_f1": 0.8, "val_mine": 1.0}
    assert scores(f1) == {"val_MultilabelF1Score": 0.8}
    assert scores(None) == {}


def test_a_plain_number_is_one() -> None:
    assert scores({"rows": lambda probabilities, targets: len(targets)}) == {"val_rows": 2}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            "accuracy",
            "the metric 'accuracy' is not understood; expected an object of torchmetrics, a function",
        ),
        (MultilabelF1Score, "the metric MultilabelF1Score is a class; pass an object of it"),
        ([share, share], "two metrics are called 'share'; pass a dict with a name for each"),
    ],
)
def test_what_is_no_metric(metrics: Any, said: str) -> None:
    with pytest.raises(FlashError, match=said):
        OwnMetrics(metrics, "val")


def test_what_is_no_number() -> None:
    with pytest.raises(
        FlashError, match=r"the metric 'val_all' gave \(2, 2\); expected one number, or 2 of them"
    ):
        scores({"all": lambda probabilities, targets: probabilities})
    with pytest.raises(FlashError, match="the metric 'val_text' gave str; expected one number"):
        scores({"text": lambda probabilities, targets: "good"})
