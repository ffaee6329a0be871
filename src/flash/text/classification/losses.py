"""Losses of `(N, L)` logits against float targets in [0, 1].

Where a target is soft, each of the multi-label losses is what it is at 1 and at 0, weighted by the target. All of
them are means over rows and labels, in nats, computed in float32 at least. Where a target is NaN it is not known: the
mean is over the other cells (`loss_of_known`). Imports the errors and `label_weights`; no Lightning.
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
"""A logit of which a probability of 0 to 13 digits follows."""


def binary_cross_entropy(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """The mean negative log-likelihood a row and label, the labels being independent."""
    return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)


def focal(
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, with p the probability of what is true: easy cells count less.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5 and its best constants.

    Args:
        logits: (N, L).
        targets: (N, L), in [0, 1].
        pos_weight: (L,), multiplies the loss where a label applies.
        gamma: 0 for plain cross-entropy.
        alpha: the weight of the labels that apply, against 1 - alpha for the others; None for 1 each.
    """
    # The power as an exponential of a logarithm: its gradient is finite where a probability underflows to 0.
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
    """A focal loss that mostly weakens the labels that do not apply: those below `margin` count nothing.

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, equations 4 to 7, with its constants;
    the paper sums where this takes the mean.

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
        # 1e-8, not 0: powers below 1 have no finite gradient at 0.
        shifted = (torch.sigmoid(logits) - margin).clamp(min=1e-8)
        # 1 - p as sigmoid(-logit): no digits are lost where p is close to 1.
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
    """Weights that undo what sampling labels together does, and negatives that stop counting early; focal.

    Wu et al., "Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets", ECCV 2020. The
    constants, and the division of the bias by `scale`, are those of the authors' code for COCO-MLT; for texts,
    Huang et al. (EMNLP 2021) kept them but for `mu`: 0.9 on Reuters, 0.05 on PubMed.

    Args:
        logits: (N, L).
        targets: (N, L), in [0, 1].
        positives: (L,), in how many training rows each label applies.
        rows: how many training rows there are, or (L,) in how many of them each label's target is known.
        alpha: added to the weights, which are `alpha + sigmoid(beta * (r - mu))`.
        beta: how steep the weights are in r, the label's inverse frequency over the sum of those in the row.
        mu: the r with the middle weight. Rows without a label have the largest: their r is infinite.
        kappa: how much of the labels' log-odds is added to the logits.
        scale: of the logits of labels that do not apply, whose loss is divided by it.
        gamma: the focal exponent.
        balance: a factor of the whole.
        known: (N, L), which cells the mean is over; None for all. The others are to have the target 0, as the weights
            of a row's labels depend on which of them apply.
    """
    frequent = positives.clamp(min=0.5).minimum(torch.as_tensor(rows - 0.5))  # none, or all: no infinite odds
    inverse = 1 / frequent
    shifted = logits - torch.log(rows / frequent - 1) * (kappa / scale)
    # A sum, not a product of matrices: autocast would round that to half precision.
    ratio = inverse / (targets * inverse).sum(dim=1, keepdim=True)
    weight = torch.sigmoid(beta * (ratio - mu)) + alpha
    positive = torch.exp(gamma * functional.logsigmoid(-shifted)) * functional.softplus(-shifted)
    scaled = scale * shifted
    negative = torch.exp(gamma * functional.logsigmoid(scaled)) * functional.softplus(scaled) / scale
    cells = balance * weight * _mixed(positive, negative, targets, None)
    return (cells if known is None else cells[known]).mean()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean negative log-likelihood a row where exactly one label applies; a soft row is a distribution."""
    return functional.cross_entropy(logits, targets)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal,
    "asymmetric": asymmetric,
    "distribution_balanced": distribution_balanced,
    "cross_entropy": cross_entropy,
}
"""The losses by name; `cross_entropy` is for `multi_label=False`, and the only one there."""


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
        """The same over the cells that are `known`, (N, L) booleans."""
        if self.name == "distribution_balanced":  # a cell's weight depends on the others of its row
            whole = Loss(self.name, partial(self.function, known=known), self.numbers)
            return whole(logits, targets.masked_fill(~known, 0))
        numbers = {
            name: tensor.to(logits.device).expand(logits.shape)[known]
            for name, tensor in self.numbers.items()
        }
        return Loss(self.name, self.function, numbers)(logits[known], targets[known])

    def content(self) -> dict[str, Any]:
        """Its name and numbers as plain values."""
        return {
            "name": self.name,
            "numbers": {name: tensor.tolist() for name, tensor in self.numbers.items()},
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "Loss":
        """The loss that `content` told of."""
        numbers = {name: torch.tensor(values).float() for name, values in content["numbers"].items()}
        return cls(content["name"], LOSSES[content["name"]], numbers)


@dataclass(frozen=True, eq=False)
class ModuleLoss:
    """A torch module as a loss, whose tensors follow the logits to their device.

    It is no module itself, so that a module which holds it does not count its tensors among its own.
    """

    module: nn.Module

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What the module makes of (N, L) logits and targets."""
        loss: Tensor = self.module.to(logits.device)(logits, targets)
        return loss


@dataclass(frozen=True, eq=False)
class LossSum:
    """Several losses, of which the sum is minimised, as in Lightning Flash."""

    parts: Mapping[str, LossFunction]

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum, of (N, L) logits and targets."""
        return torch.stack([one_number(part(logits, targets)) for part in self.parts.values()]).sum()


def no_module(loss: Any) -> Any:
    """A loss that is a torch module as a `ModuleLoss`, any other as it is."""
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
    """What to call with (N, L) logits and (N, L) float targets, from what the user asked for.

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
    """A loss of logits against targets of which some are not known (NaN), which have no gradient.

    A loss by name is its mean over the cells that are known. A callable of the user's own gets its (N, L) logits and
    targets as always; each cell that is not known looks to it as one that is decided already, without a doubt: the target
    0, and a logit of -30 that has no gradient. Of a loss that is a sum or a mean over cells it is then the known cells'
    sum, or that over the number of all cells; nothing but the scale of the mean depends on how many are known. Of several
    losses, each is as it is alone.

    Args:
        loss: from `make_loss`.
        logits: (N, L).
        targets: (N, L), NaN where one is not known.
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
    """What a loss function gave, if it is one number.

    Raises:
        FlashError: it is something else, such as a loss a row and label.
    """
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else short(loss)
    raise FlashError(
        f"the loss is {found}; expected a tensor of one number, such as the mean over rows and labels: "
        "let loss_fn= return its .mean(), or give it reduction='mean'"
    )


def _mixed(positive: Tensor, negative: Tensor, targets: Tensor, pos_weight: Tensor | None) -> Tensor:
    """The losses (N, L) if a label applies and if it does not, weighted by the targets."""
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
    """A callable as it is, or as a `ModuleLoss`, if it is one of (logits, targets)."""
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
