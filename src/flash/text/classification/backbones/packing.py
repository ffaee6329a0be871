"""Linear layers with weights in the order in which a processor multiplies them fastest. Imports torch alone.

torch's own layers bring them into that order in each call: of the time of one short text that is about two fifths, of
a batch of 32 in float32 a seventh. The operators are those that torch's compiler has for the same purpose. They are no
public part of torch, so they are tried before they are used; without them the layers stay as they are.
"""

from functools import cache
from typing import Any

import torch
from torch import nn


class PackedLinear(nn.Linear):
    """A linear layer for prediction on a processor; anywhere else, and for other types, an ordinary one.

    Attributes:
        packed: a copy of the weight, in an order of oneDNN's.
    """

    packed: Any

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's name
        """As `nn.Linear`, without gradients for the weight."""
        packed = self.packed
        if input.device.type != "cpu" or input.dtype != packed.dtype:
            return super().forward(input)
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, packed, self.bias, "none", [], "")
        return output


def pack(model: nn.Module) -> None:
    """Pack the weights of all ordinary linear layers, in place, where this works; they must not change afterwards."""
    for layer in model.modules():
        if type(layer) is nn.Linear and _works(layer.weight.dtype):
            packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
            layer.__class__ = PackedLinear  # in place: other modules may refer to it
            object.__setattr__(layer, "packed", packed)


def unpack(model: nn.Module) -> None:
    """Make packed layers ordinary ones, such as graphs are written of."""
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            del layer.packed
            layer.__class__ = nn.Linear  # type: ignore[assignment]


@cache
def _works(kind: torch.dtype) -> bool:
    """Whether this torch has the operators, for this processor and type, and they give what a linear layer gives."""
    weight, rows = torch.linspace(-1, 1, 24 * 16).view(24, 16), torch.linspace(-2, 1, 3 * 16).view(3, 16)
    weight, rows, bias = weight.to(kind), rows.to(kind), torch.linspace(0, 1, 24).to(kind)
    expected = nn.functional.linear(rows, weight, bias).float()
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        found = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
        return bool(torch.allclose(found.float(), expected, rtol=0.02, atol=0.02))
    except (AttributeError, RuntimeError):  # not there, or not for this
        return False
