"""Losses of `(N, L)` logits against float targets in [0, 1].

For a soft target, a multi-label loss is the weighted mean of its values at targets 1 and 0. All losses are means over rows
and labels, in nats, computed in float32 or float64. An unknown target is NaN, and the mean is over the other cells
(`loss_of_known`). Does not import Lightning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.label_weights import PosWeight, checked_counts, label_weights, short

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

DECIDED = -30.0
"""A logit whose probability is 0 to 13 digits."""


def binary_cross_entropy(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """Return the mean negative log-likelihood per row and label, with independent labels."""
    return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)


def focal(
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, with p the probability of the true state: easy cells count less.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5 and its best constants.

    Args:
        logits: (N, L).
        targets: (N, L), in [0, 1].
        pos_weight: (L,), multiplies the loss where a label applies.
        gamma: 0 for plain cross-entropy.
        alpha: the weight of the labels that apply, against 1 - alpha for the others; None for 1 each.
    """
    # powers are computed as exponentials of logarithms, whose gradients stay finite if a probability underflows to 0
    positive = torch.exp(gamma * functional.logsigmoid(-logits)) * functional.softplus(-logits)
    negative = torch.exp(gamma * functional.logsigmoid(logits)) * functional.softplus(logits)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return _mixed(positive, negative, targets, pos_weight).mean()


def asymmetric(
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | None = None,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """A focal loss that mostly reduces the weight of negatives; negatives with a probability below `margin` have no loss.

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, equations 4 to 7, with its constants;
    the paper uses the sum instead of the mean.

    Args:
        logits: (N, L).
        targets: (N, L), in [0, 1].
        pos_weight: (L,), multiplies the loss where a label applies.
        gamma_positive: the focal exponent where a label applies.
        gamma_negative: the same where it does not.
        margin: is taken off the probability of a label that does not apply, down to 0.
    """
    log_absent = functional.logsigmoid(-logits)
    positive = torch.exp(gamma_positive * log_absent) * functional.softplus(-logits)
    if margin == 0:
        negative = torch.exp(gamma_negative * functional.logsigmoid(logits)) * functional.softplus(logits)
    else:
        # 1e-8, not 0, where powers below 1 have no finite gradient
        shifted = (torch.sigmoid(logits) - margin).clamp(min=1e-8)
        # 1 - p computed as sigmoid(-logit), which is accurate for p close to 1
        negative = -(shifted**gamma_negative) * torch.log((torch.sigmoid(-logits) + margin).clamp(max=1))
    return _mixed(positive, negative, targets, pos_weight).mean()


def distribution_balanced(
    logits: Tensor,
    targets: Tensor,
    *,
    positives: Tensor,
    rows: Tensor | float,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
    kappa: float = 0.05,
    scale: float = 2.0,
    gamma: float = 2.0,
    balance: float = 2.0,
    known: Tensor | None = None,
) -> Tensor:
    """Focal loss with weights that correct for label co-occurrence, and with negatives whose loss vanishes early.

    Wu et al., "Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets", ECCV 2020. The
    constants, and the division of the bias by `scale`, are those of the authors' code for COCO-MLT; for texts,
    Huang et al. (EMNLP 2021) kept them but for `mu`: 0.9 on Reuters, 0.05 on PubMed.

    Args:
        logits: (N, L).
        targets: (N, L), in [0, 1].
        positives: (L,), number of training rows with each label.
        rows: number of training rows, or (L,) number of training rows with a known target per label.
        alpha: added to the weights, which are `alpha + sigmoid(beta * (r - mu))`.
        beta: steepness of the weights in r, the label's inverse frequency relative to the sum over the row's labels.
        mu: the r with the middle weight. Rows without a label have the largest weight, because their r is infinite.
        kappa: share of the labels' log-odds that is added to the logits.
        scale: factor of the logits of negatives, whose loss is divided by it.
        gamma: the focal exponent.
        balance: factor of the loss.
        known: (N, L), mask of the cells in the mean; None for all. The other cells must have the target 0, because the
            weights of a row's labels depend on which of them apply.
    """
    frequent = positives.clamp(min=0.5).minimum(torch.as_tensor(rows - 0.5))  # none, or all: no infinite odds
    inverse = 1 / frequent
    shifted = logits - torch.log(rows / frequent - 1) * (kappa / scale)
    # a sum instead of a matrix product, which autocast would compute in half precision
    ratio = inverse / (targets * inverse).sum(dim=1, keepdim=True)
    weight = torch.sigmoid(beta * (ratio - mu)) + alpha
    positive = torch.exp(gamma * functional.logsigmoid(-shifted)) * functional.softplus(-shifted)
    scaled = scale * shifted
    negative = torch.exp(gamma * functional.logsigmoid(scaled)) * functional.softplus(scaled) / scale
    cells = balance * weight * _mixed(positive, negative, targets, None)
    return (cells if known is None else cells[known]).mean()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean negative log-likelihood per row, with one label per row; a soft row is a distribution."""
    return functional.cross_entropy(logits, targets)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal,
    "asymmetric": asymmetric,
    "distribution_balanced": distribution_balanced,
    "cross_entropy": cross_entropy,
}
"""The losses by name; `cross_entropy` is the only one for `multi_label=False`."""


@dataclass
class Loss:
    """A loss by name, with its numbers a label, which follow the logits to their device."""

    name: str
    function: Callable[..., Tensor]
    numbers: dict[str, Tensor]

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """A scalar, of (N, L) logits of any float type and (N, L) targets in [0, 1]."""
        kind = torch.promote_types(logits.dtype, torch.float32)
        for name, tensor in self.numbers.items():
            if tensor.device != logits.device:  # once, not a step
                self.numbers[name] = tensor.to(logits.device)
        numbers = {name: tensor.to(kind) for name, tensor in self.numbers.items()}
        return self.function(logits.to(kind), targets.to(kind), **numbers)

    def of_known(self, logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
        """Return the loss over the cells that are `known`, (N, L) booleans."""
        if self.name == "distribution_balanced":  # a cell's weight depends on the other cells of its row
            whole = Loss(self.name, partial(self.function, known=known), self.numbers)
            return whole(logits, targets.masked_fill(~known, 0))
        numbers = {
            name: tensor.to(logits.device).expand(logits.shape)[known]
            for name, tensor in self.numbers.items()
        }
        return Loss(self.name, self.function, numbers)(logits[known], targets[known])

    def content(self) -> dict[str, Any]:
        """Return name and weights as plain values."""
        return {
            "name": self.name,
            "numbers": {name: tensor.tolist() for name, tensor in self.numbers.items()},
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "Loss":
        """Restore a loss from `content`."""
        numbers = {name: torch.tensor(values).float() for name, values in content["numbers"].items()}
        return cls(content["name"], LOSSES[content["name"]], numbers)


@dataclass(frozen=True, eq=False)
class ModuleLoss:
    """A torch module as a loss, whose tensors follow the logits to their device.

    It is not a module itself, so that a module with this attribute does not include its tensors.
    """

    module: nn.Module

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the module's loss for (N, L) logits and targets."""
        loss: Tensor = self.module.to(logits.device)(logits, targets)
        return loss


@dataclass(frozen=True, eq=False)
class LossSum:
    """The sum of several losses, as in Lightning Flash."""

    parts: Mapping[str, LossFunction]

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum for (N, L) logits and targets."""
        return torch.stack([one_number(part(logits, targets)) for part in self.parts.values()]).sum()


def no_module(loss: Any) -> Any:
    """Wrap a torch module in a `ModuleLoss`; return any other loss unchanged."""
    return ModuleLoss(loss) if isinstance(loss, nn.Module) else loss


def make_loss(
    loss: str | LossFunction | Mapping[str, Any] | Sequence[Any] | None,
    *,
    multi_label: bool,
    labels: Sequence[str],
    pos_weight: PosWeight = None,
    positives: Any = None,
    rows: Any = None,
) -> LossFunction:
    """Create a loss function of (N, L) logits and (N, L) float targets from the user's options.

    Args:
        loss: one of `LOSSES`, a callable, or None for `"binary_cross_entropy"` (multi-label) or `"cross_entropy"`.
            For other constants, pass a callable: `functools.partial(focal, gamma=1)`. Of a dict or list of them the
            sum is minimised.
        multi_label: whether any number of labels applies to a row.
        labels: the L names, in order.
        pos_weight: how much more the rows count to which a label applies: one number for all labels, L numbers, a
            dict by label (the others weigh 1), or `"balanced"`: the rows without the label over those with it.
        positives: (L,), the sum of the known training targets of each label, for what needs to know how frequent it is.
        rows: in how many training rows those were counted: one number, or (L,) where some targets are not known.

    Raises:
        FlashError: an unknown loss, one that does not fit `multi_label`, weights that are not L numbers above 0, or
            no `positives` and `rows` where they are needed.
    """
    if loss is None:
        loss = "binary_cross_entropy" if multi_label else "cross_entropy"
    if isinstance(loss, Mapping | list | tuple):
        parts = {
            name: make_loss(
                part,
                multi_label=multi_label,
                labels=labels,
                pos_weight=pos_weight,
                positives=positives,
                rows=rows,
            )
            for name, part in _named_losses(loss).items()
        }
        return LossSum(parts)
    if not isinstance(loss, str):
        return _users_loss(cast(LossFunction, loss), pos_weight)
    fitting = [name for name in LOSSES if (name == "cross_entropy") != multi_label]
    if loss not in fitting:
        if loss not in LOSSES:
            raise FlashError(unknown_name("loss", loss, fitting))
        raise FlashError(
            f"the loss {loss!r} is not for multi_label={multi_label}; expected one of: {', '.join(fitting)}"
        )
    if loss == "distribution_balanced":
        if pos_weight is not None:
            raise FlashError(
                f"the loss {loss!r} has its own weights by label, and pos_weight={short(pos_weight)} as well was "
                "given; leave pos_weight out"
            )
        counted, total = checked_counts(positives, rows, f"the loss {loss!r}", len(labels))
        numbers = {"positives": torch.from_numpy(counted), "rows": torch.from_numpy(total)}
        return Loss(loss, LOSSES[loss], numbers)
    if pos_weight is None:
        return Loss(loss, LOSSES[loss], {})
    if not multi_label:
        raise FlashError(
            f"pos_weight={short(pos_weight)} weighs the rows with a label against those without it, which "
            "multi_label=False does not compare; leave pos_weight out"
        )
    weights = torch.from_numpy(label_weights(pos_weight, labels, positives, rows))
    return Loss(loss, LOSSES[loss], {"pos_weight": weights})


def loss_of_known(loss: LossFunction, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of logits against targets with unknown ones (NaN), which get no gradient.

    A loss by name is the mean over the known cells. The user's own callable gets (N, L) logits and targets, in which an
    unknown cell has the target 0 and a logit of -30 without gradient, so that its loss is about 0. For a callable that
    sums over cells, the result is the sum over the known cells; for a mean, this sum divided by the number of all cells.
    A sum of several losses treats each loss in this way.

    Args:
        loss: result of `make_loss`.
        logits: (N, L).
        targets: (N, L), NaN for an unknown target.
    """
    if isinstance(loss, LossSum):
        return torch.stack(
            [one_number(loss_of_known(part, logits, targets)) for part in loss.parts.values()]
        ).sum()
    known = ~targets.isnan()
    if isinstance(loss, Loss):
        return loss.of_known(logits, targets, known)
    return loss(logits.masked_fill(~known, DECIDED), targets.masked_fill(~known, 0))


def one_number(loss: Any) -> Tensor:
    """Check that a loss function returned one number, and return it as a scalar.

    Raises:
        FlashError: it returned something else, such as one loss per row and label.
    """
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else short(loss)
    raise FlashError(
        f"the loss is {found}; expected a tensor of one number, such as the mean over rows and labels: "
        "let loss_fn= return its .mean(), or give it reduction='mean'"
    )


def _mixed(positive: Tensor, negative: Tensor, targets: Tensor, pos_weight: Tensor | None) -> Tensor:
    """Weight the losses (N, L) of positives and of negatives by the targets."""
    return targets * (positive if pos_weight is None else pos_weight * positive) + (1 - targets) * negative


def _named_losses(losses: Any) -> dict[str, Any]:
    named = (
        dict(losses)
        if isinstance(losses, Mapping)
        else {str(place): loss for place, loss in enumerate(losses)}
    )
    if not named or None in named.values():
        raise FlashError(
            f"loss_fn={short(losses)} holds no loss to minimise; pass a dict of functions of (N, L) logits and targets: "
            "loss_fn={'name': function}"
        )
    return named


def _users_loss(loss: LossFunction, pos_weight: PosWeight) -> LossFunction:
    """Check the user's callable; wrap a torch module in a `ModuleLoss`."""
    if isinstance(loss, type):
        name = loss.__name__
        raise FlashError(f"the loss {name} is a class; pass an object of it, such as {name}()")
    if not callable(loss):
        raise FlashError(
            f"the loss {loss!r} is not understood; expected a callable of (N, L) logits and targets, or one of: "
            f"{', '.join(LOSSES)}"
        )
    if pos_weight is not None:
        raise FlashError(
            f"pos_weight={short(pos_weight)} is for the losses by name, and the loss is a callable of your own; "
            "leave pos_weight out and weigh inside of it"
        )
    wrapped: LossFunction = no_module(loss)
    return wrapped
