"""Dropout on the processor in a fraction of torch's time, and attention with it. Imports torch alone.

torch draws a random number for each element, one after another; of a training step that is about a tenth. Here 16
random bits are drawn for each, four elements at a time. A probability is rounded to a 65,536th, which for 0.1 is
0.100006, and what is kept is scaled by just that. Attention with dropout, for which torch has no fused function on the
processor, is computed as torch does, in float32, with fewer passes over its weights and fewer copies of them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEVELS = 1 << 16
LOWEST = torch.finfo(torch.float32).min


def fast_dropout(model: nn.Module, device: torch.device) -> AbstractContextManager[Any]:
    """Inside, dropout and attention with dropout are those of this module, where these can be.

    Not on other devices, and not with gradient checkpointing, which computes some of the model once more outside.
    """
    checkpointing = any(vars(module).get("gradient_checkpointing") for module in model.modules())
    return FastDropout() if device.type == "cpu" and not checkpointing else nullcontext()


class FastDropout(TorchFunctionMode):
    """Puts this module's functions in the place of torch's."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """What stands for a function of torch."""
        return STAND_INS.get(func, func)(*args, **(kwargs or {}))


def draw(count: int) -> torch.Tensor:
    """16 random bits for each of `count` elements, as int16, from torch's random numbers."""
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)  # all of their 64 bits
    return words.view(torch.int16)[:count]


def mask_of(bits: torch.Tensor, probability: float, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """1 where an element is kept, 0 where it is dropped: multiplying by numbers is faster than by a bool."""
    mask = torch.empty(shape, dtype=dtype)
    torch.ge(bits, round(probability * LEVELS) - LEVELS // 2, out=mask.view(-1))
    return mask


def gain_of(probability: float) -> float:
    """What is kept is multiplied by this, so that the mean stays."""
    return LEVELS / (LEVELS - round(probability * LEVELS))


def dropout(
    values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """As `torch.nn.functional.dropout`."""
    possible = training and not inplace and _usable(p) and values.is_cpu and values.is_floating_point()
    if not possible:
        return functional.dropout(values, p, training, inplace)
    return cast(torch.Tensor, _Dropout.apply(values, p))  # type: ignore[no-untyped-call]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As `torch.nn.functional.scaled_dot_product_attention`, but where nothing may be seen: then all is, not nothing."""
    possible = _usable(dropout_p) and query.is_cpu and not is_causal and not enable_gqa
    possible = possible and query.ndim == 4 and query.shape[:2] == key.shape[:2] == value.shape[:2]
    if not possible or not (attn_mask is None or (attn_mask.dtype == torch.bool and attn_mask.ndim == 4)):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    found = _Attention.apply(query, key, value, attn_mask, dropout_p, scale)  # type: ignore[no-untyped-call]
    return cast(torch.Tensor, found).to(query.dtype)


STAND_INS: dict[Any, Callable[..., Any]] = {
    functional.dropout: dropout,
    functional.scaled_dot_product_attention: attention,
}


def _usable(probability: float) -> bool:
    """Whether rounding leaves a probability that drops something, and not all."""
    return 0 < round(probability * LEVELS) < LEVELS


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, probability: float) -> torch.Tensor:
        bits = draw(values.numel())
        ctx.save_for_backward(bits)
        ctx.probability = probability
        return mask_of(bits, probability, values.shape, values.dtype).mul_(values).mul_(gain_of(probability))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (bits,) = ctx.saved_tensors
        mask = mask_of(bits, ctx.probability, gradient.shape, gradient.dtype)
        return mask.mul_(gradient).mul_(gain_of(ctx.probability)), None


class _Attention(Function):
    """Of (B, H, T, D) queries, keys and values; B and H are one dimension inside.

    Products are written to tensors of their own: such operations stay in float32 also where torch's autocast is on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        allowed: torch.Tensor | None,
        probability: float,
        scale: float,
    ) -> torch.Tensor:
        q, k, v = (part.float().reshape(-1, *part.shape[2:]) for part in (query, key, value))
        products = q.new_empty(len(q), q.shape[1], k.shape[1])
        products.baddbmm_(q, k.transpose(1, 2), beta=0, alpha=scale)
        if allowed is not None:
            barrier = torch.zeros(allowed.shape, dtype=q.dtype).masked_fill_(~allowed, LOWEST)
            products.view(*query.shape[:3], -1).add_(barrier)
        weights = products.softmax(-1)
        del products
        used = mask_of(draw(weights.numel()), probability, weights.shape, q.dtype).mul_(weights)
        ctx.scale, ctx.gain = scale, gain_of(probability)
        found = v.new_empty(len(q), q.shape[1], v.shape[2]).baddbmm_(used, v, beta=0, alpha=ctx.gain)
        ctx.save_for_backward(q, k, v, weights, used, found)
        return found.view(*query.shape[:3], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, weights, used, found = ctx.saved_tensors
        heads = gradient.shape[:2]
        gradient = gradient.float().reshape(found.shape)
        of_value = torch.empty_like(v).baddbmm_(used.transpose(1, 2), gradient, beta=0, alpha=ctx.gain)
        # the derivative of softmax takes the sum of each row's weights times their gradients: that of the results' too
        sums = (gradient * found).sum(-1, keepdim=True)
        of_products = torch.empty_like(weights)
        of_products.baddbmm_(gradient, v.transpose(1, 2), beta=0, alpha=ctx.gain)
        of_products.mul_(used).addcmul_(weights, sums, value=-1)
        of_query = torch.empty_like(q).baddbmm_(of_products, k, beta=0, alpha=ctx.scale)
        of_key = torch.empty_like(k).baddbmm_(of_products.transpose(1, 2), q, beta=0, alpha=ctx.scale)
        parts = (of_query, of_key, of_value)
        return *(part.view(*heads, *part.shape[1:]) for part in parts), None, None, None
