"""Blocks of BERT's kind in few steps, for prediction on a processor.

Imports torch alone, and of the project how layers are packed.

A fifth of a short text's time was Python between a block's steps, of which transformers takes more than a processor needs.
Which blocks are of that kind is seen by their parts (those of BERT, RoBERTa, XLM-R, ELECTRA and others have the same), and
that they compute the same is tried before they are used: without that they stay as they are. Blocks of an encoder's own
code always do: those that look at a window of a long text would pass the trial, which is short.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from flash.text.classification.backbones.packing import pack, unpack

PROBE_TOKENS = 6
"""How long the two rows are on which blocks are compared; one has padding."""
TOLERANCE = 1e-4
"""How far features may be off for it, in float32: sums in another order are off by some millionths."""
NO_MATTER = ("attention_mask", "position_ids")
"""What a block may be given by name: the mask, and places of tokens, which only its embeddings look at."""

Rows = torch.Tensor


class FewSteps:
    """A block's `forward`.

    Args:
        block: of BERT's kind.
        project: hidden states (B, T, H) to queries, keys and values (B, T, 3H).
        gives_tuple: whether the block's own `forward` answers (hidden states,) or hidden states.
    """

    def __init__(self, block: Any, project: Callable[[Rows], Rows], gives_tuple: bool) -> None:
        self.block, self.project, self.gives_tuple = block, project, gives_tuple
        attention = block.attention.self
        self.heads, self.size = attention.num_attention_heads, attention.attention_head_size
        self.scale, self.kind = getattr(attention, "scaling", None), attention.query.weight.dtype

    def __call__(self, *given: Any, **named: Any) -> Any:
        """As transformers' own, which does whatever is not features of rows on a processor, in the type of then."""
        rows = given[0] if given else None
        mask = given[1] if len(given) > 1 else named.get("attention_mask")
        others = [*given[2:], *(value for name, value in named.items() if name not in NO_MATTER)]
        if (
            torch.is_tensor(rows)
            and rows.is_cpu
            and rows.dtype == self.kind
            and (mask is None or (torch.is_tensor(mask) and mask.dim() == 4))
            and all(each is None or each is False for each in others)
        ):
            return self.quickly(rows, mask)
        return type(self.block).forward(self.block, *given, **named)

    def quickly(self, hidden_states: Rows, attention_mask: Rows | None) -> Any:
        """Hidden states (B, T, H), as the block answers them."""
        block = self.block
        rows, tokens = hidden_states.shape[:2]
        projected = self.project(hidden_states).view(rows, tokens, 3, self.heads, self.size)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=self.scale
        )
        seen = seen.transpose(1, 2).reshape(rows, tokens, self.heads * self.size)
        added, inner, output = block.attention.output, block.intermediate, block.output
        middle = added.LayerNorm(added.dense(seen).add_(hidden_states))
        result = output.LayerNorm(output.dense(inner.intermediate_act_fn(inner.dense(middle))).add_(middle))
        return (result,) if self.gives_tuple else result


def find_blocks(
    model: nn.Module, run: Callable[[Rows, Rows], Rows], most_tokens: int | None
) -> dict[Any, bool]:
    """The blocks that give the same in few steps, and whether they answer a tuple: all that look alike, or none.

    Args:
        model: in float32, in evaluation mode.
        run: features (B, H) of token ids (B, T) and their mask (B, T), by the model.
        most_tokens: how many positions it has; None if it sets no bound.
    """
    blocks = [block for block in model.modules() if _has_the_parts(block)]
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    if not blocks or not isinstance(embeddings, nn.Embedding):
        return {}
    tokens = min(PROBE_TOKENS, most_tokens or PROBE_TOKENS)
    ids = (7 * torch.arange(2 * tokens) + 1).remainder(embeddings.num_embeddings).view(2, tokens)
    mask = torch.ones_like(ids)
    mask[1, tokens // 2 :] = 0
    gives_tuple: dict[Any, bool] = {}
    taken: list[Any] = []

    def see(block: nn.Module, given: Any, output: Any) -> None:
        gives_tuple[block] = isinstance(output, tuple)

    hooks = [block.register_forward_hook(see) for block in blocks]
    try:
        with torch.inference_mode():
            expected = run(ids, mask)
            for block in blocks:
                block.forward = FewSteps(block, _each(block, taken), gives_tuple[block])
            same = all(
                torch.allclose(run(ids[:rows], mask[:rows]), expected[:rows], rtol=TOLERANCE, atol=TOLERANCE)
                for rows in (2, 1)
            )
    except Exception:  # whatever a block says to what it is given: it only stays as it is
        same = False
    finally:
        for hook in hooks:
            hook.remove()
        restore(model)
    return gives_tuple if same and len(taken) == 2 * len(blocks) else {}


def quicken(block: Any, gives_tuple: bool) -> None:
    """Let a block that `find_blocks` found take few steps, its three projections in one; its weights must not change."""
    attention = block.attention.self
    projections = attention.query, attention.key, attention.value
    unpack(attention)
    joined = nn.Linear(projections[0].in_features, 3 * projections[0].out_features, device="meta")
    for name in ("weight", "bias"):
        parts = [getattr(each, name) for each in projections]
        whole = torch.cat([part.detach() for part in parts])
        setattr(joined, name, nn.Parameter(whole, requires_grad=False))
        for part, values in zip(parts, whole.chunk(3), strict=True):
            part.data = values  # in memory once
    pack(joined)
    block.forward = FewSteps(block, joined, gives_tuple)


def restore(model: nn.Module) -> None:
    """Let all blocks and layers be as transformers made them."""
    for block in model.modules():
        if isinstance(block.__dict__.get("forward"), FewSteps):
            del block.forward
    unpack(model)


def _has_the_parts(block: Any) -> bool:
    """Whether a module is built as a block of BERT's that looks both ways."""
    try:
        attention, output = block.attention.self, block.output
        layers = [attention.query, attention.key, attention.value, block.attention.output.dense]
        layers += [block.intermediate.dense, output.dense]
        norms = [block.attention.output.LayerNorm, output.LayerNorm]
        heads = attention.num_attention_heads * attention.attention_head_size
        shown = getattr(getattr(attention, "config", None), "output_attentions", False)
        return (
            all(type(each).__module__.startswith("transformers.models.") for each in (block, attention))
            and not shown
            and all(isinstance(layer, nn.Linear) and layer.bias is not None for layer in layers)
            and all(isinstance(norm, nn.LayerNorm) for norm in norms)
            and all(layer.out_features == heads for layer in layers[:3])
            and callable(block.intermediate.intermediate_act_fn)
            and not block.training
            and not getattr(block, "is_decoder", False)
            and not getattr(block, "chunk_size_feed_forward", 0)
        )
    except AttributeError:
        return False


def _each(block: Any, taken: list[Any]) -> Callable[[Rows], Rows]:
    """The three projections of a block, one after another, of which it is noted that they were asked for."""
    attention = block.attention.self

    def project(hidden: Rows) -> Rows:
        taken.append(block)
        return torch.cat([layer(hidden) for layer in (attention.query, attention.key, attention.value)], -1)

    return project
