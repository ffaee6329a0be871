"""Losses against plain Python floats, formula by formula as the papers print them."""

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from flash.core.errors import FlashError
from flash.text.classification.label_weights import label_weights
from flash.text.classification.losses import (
    LOSSES,
    Loss,
    asymmetric,
    distribution_balanced,
    focal,
    loss_of_known,
    make_loss,
)

LABELS = ("toxic", "insult", "threat")
LOGITS = [[1.5, -0.25, -3.0], [0.0, 2.0, -1.0], [-0.5, 0.75, 4.0], [0.3, -2.0, -4.0]]
TARGETS = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
SOFT = [[0.9, 0.1, 0.0], [1.0, 0.5, 0.3], [0.2, 0.0, 0.7], [0.0, 0.0, 0.05]]
POSITIVES, ROWS = [40.0, 10.0, 2.0], 100
MULTI_LABEL = [name for name in LOSSES if name != "cross_entropy"]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def by_hand(
    positive: Callable[[float, int], float],
    negative: Callable[[float, int], float],
    targets: list[list[float]],
) -> float:
    """The mean of a loss that is given by what a cell costs at 1 and at 0."""
    cells = [
        target * positive(logit, label) + (1 - target) * negative(logit, label)
        for logits, row in zip(LOGITS, targets, strict=True)
        for label, (logit, target) in enumerate(zip(logits, row, strict=True))
    ]
    return sum(cells) / len(cells)


def call(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], targets: list[list[float]]) -> float:
    return float(loss(torch.tensor(LOGITS), torch.tensor(targets)))


def made(name: str | None, **options: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return make_loss(
        name, **{"multi_label": True, "labels": LABELS, "positives": POSITIVES, "rows": ROWS, **options}
    )


@pytest.mark.parametrize("targets", [TARGETS, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("name", [None, "binary_cross_entropy"])
def test_binary_cross_entropy(name: str | None, targets: list[list[float]]) -> None:
    expected = by_hand(lambda x, _: -math.log(sigmoid(x)), lambda x, _: -math.log(1 - sigmoid(x)), targets)
    assert call(made(name), targets) == pytest.approx(expected, rel=1e-6)


def test_binary_cross_entropy_of_one_cell() -> None:
    """At logit 0 either outcome costs log 2; a weight of 3 makes the label that applies cost 3 log 2."""
    loss = make_loss(None, multi_label=True, labels=["a"], pos_weight=3)
    assert float(loss(torch.zeros(1, 1), torch.ones(1, 1))) == pytest.approx(3 * math.log(2))
    assert float(loss(torch.zeros(1, 1), torch.zeros(1, 1))) == pytest.approx(math.log(2))


@pytest.mark.parametrize("targets", [TARGETS, SOFT], ids=["hard", "soft"])
def test_focal(targets: list[list[float]]) -> None:
    expected = by_hand(
        lambda x, _: -0.25 * (1 - sigmoid(x)) ** 2 * math.log(sigmoid(x)),
        lambda x, _: -0.75 * sigmoid(x) ** 2 * math.log(1 - sigmoid(x)),
        targets,
    )
    assert call(made("focal"), targets) == pytest.approx(expected, rel=1e-5)


def test_focal_of_one_cell() -> None:
    """p = 0.9 and gamma = 2 cost a hundredth of cross-entropy, as section 3.2 of the paper says."""
    logit = torch.tensor([[math.log(9.0)]])
    loss = float(focal(logit, torch.ones(1, 1), alpha=None))
    assert loss == pytest.approx(-math.log(0.9) / 100, rel=1e-5)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, targets = torch.tensor(LOGITS), torch.tensor(TARGETS)
    plain = functional.binary_cross_entropy_with_logits(logits, targets)
    assert float(focal(logits, targets, gamma=0, alpha=None)) == pytest.approx(float(plain), rel=1e-6)


@pytest.mark.parametrize("targets", [TARGETS, SOFT], ids=["hard", "soft"])
def test_asymmetric(targets: list[list[float]]) -> None:
    def negative(logit: float, _: int) -> float:
        shifted = max(sigmoid(logit) - 0.05, 0)
        return -(shifted**4) * math.log(1 - shifted)

    expected = by_hand(lambda x, _: -math.log(sigmoid(x)), negative, targets)
    assert call(made("asymmetric"), targets) == pytest.approx(expected, rel=1e-5)


def test_asymmetric_of_one_cell() -> None:
    """p = 0.55: p_m = 0.5, so that 0.5^4 log 2. p = 0.05 or below: nothing, and no gradient."""
    logits = torch.tensor([[math.log(0.55 / 0.45)]])
    assert float(asymmetric(logits, torch.zeros(1, 1))) == pytest.approx(math.log(2) / 16, rel=1e-5)
    easy = torch.tensor([[-4.0]], requires_grad=True)
    loss = asymmetric(easy, torch.zeros(1, 1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert easy.grad is not None
    assert float(easy.grad) == 0


def test_asymmetric_without_a_margin() -> None:
    expected = by_hand(
        lambda x, _: -(1 - sigmoid(x)) * math.log(sigmoid(x)),
        lambda x, _: -(sigmoid(x) ** 3) * math.log(1 - sigmoid(x)),
        TARGETS,
    )
    loss = partial(asymmetric, gamma_positive=1, gamma_negative=3, margin=0)
    assert call(loss, TARGETS) == pytest.approx(expected, rel=1e-5)


def balanced_by_hand(targets: list[list[float]]) -> float:
    """The authors' code, cell by cell."""
    total = 0.0
    for logits, row in zip(LOGITS, targets, strict=True):
        repeat_rate = sum(target / count for target, count in zip(row, POSITIVES, strict=True))
        for logit, target, count in zip(logits, row, POSITIVES, strict=True):
            ratio = 1 / count / repeat_rate if repeat_rate else math.inf
            weight = (sigmoid(10 * (ratio - 0.2)) if ratio < math.inf else 1.0) + 0.1
            shifted = logit - math.log(ROWS / count - 1) * 0.05 / 2
            positive = 2 * weight * (1 - sigmoid(shifted)) ** 2 * -math.log(sigmoid(shifted))
            negative = 2 * weight / 2 * sigmoid(2 * shifted) ** 2 * -math.log(1 - sigmoid(2 * shifted))
            total += target * positive + (1 - target) * negative
    return total / (len(LOGITS) * len(LABELS))


@pytest.mark.parametrize("targets", [TARGETS, SOFT], ids=["hard", "soft"])
def test_distribution_balanced(targets: list[list[float]]) -> None:
    assert call(made("distribution_balanced"), targets) == pytest.approx(balanced_by_hand(targets), rel=1e-5)


def test_distribution_balanced_of_one_cell() -> None:
    """One label that half of the rows have: no bias, r = 1, weight 0.1 + sigmoid(8); p = 0.5 costs log 2 / 4."""
    one = partial(distribution_balanced, positives=torch.tensor([5.0]), rows=10)
    weight = 0.1 + sigmoid(8)
    positive = float(one(torch.zeros(1, 1), torch.ones(1, 1)))
    assert positive == pytest.approx(2 * weight * math.log(2) / 4, rel=1e-5)
    negative = float(one(torch.zeros(1, 1), torch.zeros(1, 1)))  # a row without labels: the largest weight
    assert negative == pytest.approx(2 * 1.1 / 2 * math.log(2) / 4, rel=1e-5)


@pytest.mark.parametrize("positives", [[0, 10, 100], [0, 0, 0], [100, 100, 100]])
def test_labels_that_no_row_or_every_row_has(positives: list[int]) -> None:
    for options in ({"loss": "distribution_balanced"}, {"loss": "focal", "pos_weight": "balanced"}):
        name = options.pop("loss")
        assert math.isfinite(call(made(name, positives=positives, **options), TARGETS))


@pytest.mark.parametrize("targets", [TARGETS, SOFT], ids=["hard", "soft"])
def test_cross_entropy_of_one_label_a_row(targets: list[list[float]]) -> None:
    rows = [[value / sum(row) for value in row] for row in targets if sum(row)]
    costs = []
    for logits, row in zip(LOGITS, rows, strict=False):
        normaliser = math.log(sum(map(math.exp, logits)))
        costs.append(-sum(share * (x - normaliser) for share, x in zip(row, logits, strict=True)))
    loss = make_loss(None, multi_label=False, labels=LABELS)
    found = float(loss(torch.tensor(LOGITS[: len(rows)]), torch.tensor(rows)))
    assert found == pytest.approx(sum(costs) / len(costs), rel=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_at_extreme_logits(name: str, kind: torch.dtype) -> None:
    """Finite loss and gradient, also where probabilities underflow; float32 out, whatever comes in."""
    extreme = torch.tensor([[6e4, -6e4, 0.0], [-150.0, 150.0, 90.0], [104.0, -104.0, -90.0]], dtype=kind)
    for targets in (torch.zeros(3, 3), torch.eye(3), torch.full((3, 3), 1 / 3)):
        logits = extreme.clone().requires_grad_()
        loss = made(name, multi_label=name != "cross_entropy")(logits, targets.to(kind))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "loss",
    [
        partial(focal, gamma=0.5),
        partial(asymmetric, gamma_positive=0.5, gamma_negative=0.5),
        partial(asymmetric, gamma_positive=0.5, gamma_negative=0.5, margin=0),
    ],
)
def test_exponents_below_one_have_gradients_too(loss: Callable[..., torch.Tensor]) -> None:
    logits = torch.tensor([[-200.0, 200.0, 0.1]], requires_grad=True)
    for targets in (torch.zeros(1, 3), torch.ones(1, 3)):
        loss(logits, targets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_those_of_the_differences(name: str) -> None:
    loss = made(name, multi_label=name != "cross_entropy")
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    targets = torch.softmax(torch.tensor(LOGITS, dtype=torch.float64).flip(0), dim=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (logits,))


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_autocast_rounds_nothing(name: str) -> None:
    plain = call(made(name), SOFT)
    with torch.autocast("cpu", torch.bfloat16):
        assert call(made(name), SOFT) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_smaller_where_the_logits_are_right(name: str) -> None:
    targets = torch.tensor(TARGETS)
    loss = made(name)
    assert loss(8 * targets - 4, targets) < loss(torch.zeros_like(targets), targets)
    assert loss(torch.zeros_like(targets), targets) < loss(4 - 8 * targets, targets)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "focal", "asymmetric"])
def test_weights_multiply_where_a_label_applies(name: str) -> None:
    zeros, logits = torch.zeros(4, 3), torch.tensor(LOGITS)
    plain, heavy = made(name), made(name, pos_weight={"insult": 5})
    assert float(heavy(logits, zeros)) == pytest.approx(float(plain(logits, zeros)))
    only = torch.zeros(4, 3)
    only[:, 1] = 1
    part = float(plain(logits, only))
    without = float(plain(logits[:, [0, 2]], zeros[:, [0, 2]])) * 2 / 3
    assert float(heavy(logits, only)) == pytest.approx(without + 5 * (part - without), rel=1e-5)


@pytest.mark.parametrize("name", ["distribution_balanced", "focal"])
def test_numbers_follow_the_logits_to_their_device(name: str) -> None:
    options = {} if name == "distribution_balanced" else {"pos_weight": "balanced"}
    loss = made(name, **options)
    assert isinstance(loss, Loss)
    found = loss(torch.zeros(2, 3, device="meta"), torch.zeros(2, 3, device="meta"))
    assert found.device.type == "meta"
    assert {tensor.device.type for tensor in loss.numbers.values()} == {"meta"}


def test_a_callable_is_taken_as_it_is() -> None:
    def mine(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (logits - targets).square().mean()

    assert make_loss(mine, multi_label=True, labels=LABELS) is mine


def test_a_module_is_no_part_of_the_module_that_holds_its_loss() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    mine = torch.nn.BCEWithLogitsLoss(pos_weight=weights)
    loss = make_loss(mine, multi_label=True, labels=LABELS)
    holder = torch.nn.Identity()
    holder.loss = loss  # type: ignore[assignment]
    assert not holder.state_dict()
    assert call(loss, TARGETS) == pytest.approx(call(made(None, pos_weight=weights), TARGETS))
    zeros = torch.zeros(2, 3, device="meta")
    assert loss(zeros, zeros).device.type == "meta"
    assert {tensor.device.type for tensor in mine.buffers()} == {"meta"}  # they follow the logits


@pytest.mark.parametrize(
    "options",
    [{"name": "focal", "pos_weight": [1, 2, 3]}, {"name": "distribution_balanced"}, {"name": None}],
    ids=str,
)
def test_a_loss_is_made_again_of_its_content(options: dict[str, Any]) -> None:
    loss = made(**options)
    assert isinstance(loss, Loss)
    again = Loss.from_content(json.loads(json.dumps(loss.content())))
    assert call(again, SOFT) == call(loss, SOFT)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"loss": "focall"},
            "unknown loss 'focall'; did you mean 'focal'? Known: binary_cross_entropy, focal",
        ),
        (
            {"loss": "focal", "multi_label": False},
            "'focal' is not for multi_label=False; expected one of: cross_",
        ),
        (
            {"loss": "cross_entropy"},
            "'cross_entropy' is not for multi_label=True; expected one of: binary_cross",
        ),
        ({"loss": torch.nn.BCELoss}, "the loss BCELoss is a class; pass an object of it, such as BCELoss()"),
        (
            {"loss": 3},
            "the loss 3 is not understood; expected a callable of (N, L) logits and targets, or one",
        ),
        ({"loss": focal, "pos_weight": 2}, "the loss is a callable of your own; leave pos_weight out"),
        (
            {"loss": None, "multi_label": False, "pos_weight": 2},
            "multi_label=False does not compare; leave pos",
        ),
        (
            {"loss": "distribution_balanced", "pos_weight": 2},
            "has its own weights by label, and pos_weight=2",
        ),
        (
            {"loss": "distribution_balanced"},
            "the loss 'distribution_balanced' needs to know how often each label",
        ),
        (
            {"loss": None, "pos_weight": "balanced"},
            "pos_weight='balanced' needs to know how often each label",
        ),
        (
            {"loss": None, "pos_weight": "balance"},
            "pos_weight='balance' is not understood; expected a number",
        ),
        (
            {"loss": None, "pos_weight": {1, 2}},
            "pos_weight={1, 2} is not understood; expected a number above 0",
        ),
        (
            {"loss": None, "pos_weight": [1, 2]},
            "pos_weight has 2 numbers and the model 3 labels; pass one per",
        ),
        (
            {"loss": None, "pos_weight": {"treat": 2}},
            "in pos_weight: unknown label 'treat'; did you mean 'threat'",
        ),
        (
            {"loss": None, "pos_weight": [1, -2, 3]},
            "the pos_weight of label 'insult' is -2; expected a number",
        ),
        ({"loss": None, "pos_weight": 0}, "the pos_weight of label 'toxic' is 0; expected a number above 0"),
        ({"loss": None, "pos_weight": True}, "the pos_weight of label 'toxic' is True; expected a number"),
        ({"loss": None, "pos_weight": float("nan")}, "the pos_weight of label 'toxic' is nan; expected"),
        ({"loss": None, "pos_weight": {"toxic": "2"}}, "the pos_weight of label 'toxic' is '2'; expected"),
        (
            {"loss": None, "pos_weight": "balanced", "positives": [1, 2], "rows": 9},
            "was given 2 counts in 9 rows for 3 labels; expected one count per label, from 0 to the number of rows",
        ),
    ],
)
def test_mistakes_are_sentences(options: dict[str, Any], words: str) -> None:
    with pytest.raises(FlashError) as error:
        make_loss(**{"multi_label": True, "labels": LABELS, **options})
    assert words in str(error.value)


def test_a_long_value_is_cut_in_a_sentence() -> None:
    with pytest.raises(FlashError, match=r"pos_weight=\[1, 1, 1.*\.\.\. is for the losses by name"):
        make_loss(focal, multi_label=True, labels=LABELS, pos_weight=[1] * 100)


def test_of_several_losses_the_sum_is_minimised() -> None:
    logits, targets = torch.tensor([[0.5, -1.0]]), torch.tensor([[1.0, 0.0]])

    def of(loss: Any) -> float:
        return float(make_loss(loss, multi_label=True, labels=["a", "b"])(logits, targets))

    parts = {"mine": lambda logits, targets: logits.mean(), "focal": "focal"}
    assert of(parts) == pytest.approx(of(parts["mine"]) + of("focal"))
    assert of(list(parts.values())) == pytest.approx(of(parts))
    assert of({"alone": torch.nn.BCEWithLogitsLoss()}) == pytest.approx(of("binary_cross_entropy"))
    with pytest.raises(FlashError, match="loss_fn={} holds no loss to minimise; pass a dict of functions"):
        of({})
    with pytest.raises(FlashError, match="unknown loss 'fokal'; did you mean 'focal'"):
        of({"a": "fokal"})


# ---- targets that are not known (NaN)


def partly_known() -> tuple[torch.Tensor, torch.Tensor]:
    """Targets, some of them NaN, and which are known."""
    known = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 1, 0]]) == 1
    return torch.tensor(SOFT).masked_fill(~known, math.nan), known


@pytest.mark.parametrize("pos_weight", [None, [2.0, 3.0, 0.5], "balanced"])
@pytest.mark.parametrize("name", [name for name in MULTI_LABEL if name != "distribution_balanced"])
def test_a_loss_is_the_mean_over_the_known_cells(name: str, pos_weight: Any) -> None:
    targets, known = partly_known()
    loss = made(name, pos_weight=pos_weight)
    cells = []
    for row, label in known.nonzero().tolist():
        alone = torch.full((1, 3), LOGITS[row][label]), torch.full((1, 3), float(targets[row, label]))
        weights = (
            label_weights(pos_weight, LABELS, POSITIVES, ROWS)[label] if pos_weight is not None else None
        )
        numbers = {} if weights is None else {"pos_weight": torch.full((3,), float(weights))}
        cells.append(float(LOSSES[name](*alone, **numbers)))
    found = loss_of_known(loss, torch.tensor(LOGITS), targets)
    assert float(found) == pytest.approx(sum(cells) / len(cells), rel=1e-5)


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_gradients_of_a_label_are_those_of_its_known_rows(name: str) -> None:
    targets, known = partly_known()
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss_of_known(made(name), logits, targets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).sum() > 3  # of the asymmetric loss a sure negative has none
    if name == "distribution_balanced":
        return  # where a cell's weight depends on the other labels of its row
    for label in range(3):
        rows = known[:, label]
        alone = torch.tensor(LOGITS)[rows, label : label + 1].requires_grad_()
        made(name, labels=LABELS[:1], positives=POSITIVES[:1])(
            alone, targets[rows, label : label + 1]
        ).backward()  # type: ignore[no-untyped-call]
        assert alone.grad is not None
        share = rows.sum() / known.sum()  # both are means
        torch.testing.assert_close(logits.grad[rows, label], alone.grad[:, 0] * share)


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_a_loss_of_targets_that_are_all_known_is_the_same(name: str) -> None:
    logits, targets = torch.tensor(LOGITS), torch.tensor(SOFT)
    torch.testing.assert_close(loss_of_known(made(name), logits, targets), made(name)(logits, targets))


def test_unknown_labels_of_a_row_do_not_apply_to_the_weights_of_the_others() -> None:
    targets, known = partly_known()
    cells = torch.tensor(
        [
            [
                float(
                    distribution_balanced(
                        torch.tensor(LOGITS),
                        targets.nan_to_num(0),
                        positives=torch.tensor(POSITIVES),
                        rows=ROWS,
                        known=torch.eye(12, dtype=torch.bool)[3 * row + label].reshape(4, 3),
                    )
                )
                for label in range(3)
            ]
            for row in range(4)
        ]
    )
    found = loss_of_known(made("distribution_balanced"), torch.tensor(LOGITS), targets)
    assert float(found) == pytest.approx(float(cells[known].mean()), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_users_loss_sees_unknown_cells_as_decided(reduction: str) -> None:
    targets, known = partly_known()
    weight = torch.tensor([1.0, 2.0, 3.0])  # which needs the shape (N, L)
    loss = make_loss(
        torch.nn.BCEWithLogitsLoss(pos_weight=weight, reduction=reduction), multi_label=True, labels=LABELS
    )
    logits = torch.tensor(LOGITS, requires_grad=True)
    found = loss_of_known(loss, logits, targets)
    cells = functional.binary_cross_entropy_with_logits(
        logits, targets.nan_to_num(0), pos_weight=weight, reduction="none"
    )
    expected = cells[known].sum() / (12 if reduction == "mean" else 1)
    torch.testing.assert_close(found, expected)
    found.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[~known] == 0).all()


def test_of_several_losses_each_is_that_of_the_known_cells() -> None:
    targets, _ = partly_known()
    logits = torch.tensor(LOGITS)
    parts: dict[str, Any] = {"named": "focal", "own": torch.nn.BCEWithLogitsLoss()}
    found, named, own = (
        float(loss_of_known(make_loss(loss, multi_label=True, labels=LABELS), logits, targets))
        for loss in (parts, *parts.values())
    )
    assert found == pytest.approx(named + own)


def test_counts_of_labels_that_are_known_in_different_rows() -> None:
    loss = made("distribution_balanced", positives=[40.0, 10.0, 2.0], rows=np.array([100, 50, 10]))
    assert isinstance(loss, Loss)
    again = Loss.from_content(json.loads(json.dumps(loss.content())))
    assert call(again, TARGETS) == call(loss, TARGETS)
