"""Parts of a pretrained model: its blocks, its positions, its head if it has one, and pooling over its tokens.

Imports torch, but transformers only when a model is loaded.
"""

import inspect
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from flash.core.errors import FlashError
from flash.text.classification.backbones.encoder import loading

HEAD_SPREAD = 0.02
"""Standard deviation of a new head's weights: small, so that base rates dominate at first."""
MOST_SHOWN = 10


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def _first(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(1)]


def _largest(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(hidden.dtype).min).amax(1)


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    places = torch.arange(mask.shape[1], device=mask.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), (places * mask).argmax(1)]


POOLINGS = {"mean": _mean, "cls": _first, "max": _largest, "last": _last}
"""Pooling functions, from (B, T, H) hidden states and a (B, T) mask to (B, H)."""


def count_positions(model: Any) -> int | None:
    """Return the maximum number of tokens of a model; None if it has no limit."""
    config = model.config
    if getattr(config, "relative_attention", False) and not getattr(config, "position_biased_input", True):
        return None  # DeBERTa-v3 has relative positions in buckets
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most <= 0:
        return None
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            # RoBERTa's positions start after the id of the pad token
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return most


def find_blocks(model: nn.Module) -> list[nn.ModuleList]:
    """Return the model's transformer blocks in order, each as a list of modules.

    A block is an entry of an outermost list of modules; lists of one length side by side (XLM keeps attention
    and feed-forward layers apart) are read together.
    """
    blocks: list[nn.ModuleList] = []
    outermost: list[str] = []
    shared: dict[tuple[str, int], list[nn.ModuleList]] = {}
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in outermost)
        if isinstance(module, nn.ModuleList) and not inner and any(True for _ in module.parameters()):
            outermost.append(name)
            shared.setdefault((name.rpartition(".")[0], len(module)), []).append(module)
    for lists in shared.values():
        blocks += [nn.ModuleList(parts) for parts in zip(*lists, strict=True)]
    return blocks


def load_with_head(
    part: Path, name: str | Path, config: Any, labels: Sequence[str], trust_remote_code: bool
) -> tuple[Any, nn.Linear] | None:
    """Load the model and its head, with rows in the order of `labels`; None if it has other labels.

    Raises:
        FlashError: the weights cannot be loaded or are incomplete, or the head reads padding.
    """
    from transformers import AutoModelForSequenceClassification

    theirs = [config.id2label[index] for index in sorted(config.id2label)]
    if sorted(theirs) != sorted(labels):
        return None
    if not _has_classifier(config):
        return None
    model, missing = loading.load_model(
        AutoModelForSequenceClassification, part, name, config, trust_remote_code
    )
    found = _last_linear(model, len(labels))
    if found is None or f"{found}.weight" in missing:
        return None  # the configuration names labels, but the file has no head
    loading.check_complete(missing, name)
    _check_reads_no_padding(config, name)
    model, head = detach_head(model, len(labels))
    order = torch.tensor([theirs.index(label) for label in labels])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter[order].clone())
    return model, head


def load_with_new_head(
    part: Path, name: str | Path, config: Any, labels: Sequence[str], trust_remote_code: bool
) -> tuple[Any, nn.Linear, list[str]]:
    """Load the architecture's own classifier with a new last layer; also return the other layers that are new.

    Raises:
        FlashError: there is no such classifier, or the encoder's weights cannot be loaded or are incomplete.
    """
    from transformers import AutoModelForSequenceClassification

    if not _has_classifier(config):
        raise FlashError(
            f"transformers has no classifier of the architecture of {str(name)!r} ({config.model_type}); pass "
            "pooling='auto', or another but 'model'"
        )
    _check_reads_no_padding(config, name)
    config = deepcopy(config)
    config.num_labels = len(labels)
    model, missing = loading.load_model(
        AutoModelForSequenceClassification, part, name, config, trust_remote_code, new_rows=len(labels)
    )
    encoder = f"{model.base_model_prefix}."
    loading.check_complete({key for key in missing if key.startswith(encoder) and "pooler." not in key}, name)
    found = _last_linear(model, len(labels))
    if found is None:
        raise FlashError(
            f"the last layer of {type(model).__name__} is not linear, so {str(name)!r} gets no new head by "
            "pooling='model'; pass another"
        )
    new = sorted({key.rpartition(".")[0] for key in missing} - {found})
    model, old = detach_head(model, len(labels))
    head = new_head(old.in_features, len(labels), bias=cast(Any, old).bias is not None)
    return model, head, new


def _has_classifier(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    own = getattr(config, "auto_map", None) or {}
    return type(config) in KNOWN or "AutoModelForSequenceClassification" in own


def _check_reads_no_padding(config: Any, name: str | Path) -> None:
    """Raise FlashError for a head that reads the last position of a row, like XLNet's, which expects left padding."""
    if getattr(config, "summary_type", None) == "last":
        raise FlashError(
            f"the head of {str(name)!r} reads the last place of a row, which here is padding, so its answers would "
            "depend on the batch; choose another backbone"
        )


def _last_linear(model: nn.Module, rows: int) -> str | None:
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == rows]
    return names[-1] if names else None


def detach_head(model: Any, rows: int) -> tuple[Any, nn.Linear]:
    """Detach the last layer of a classifier, whose logits are then features; return both."""
    name = _last_linear(model, rows)
    if name is None:
        raise ValueError(f"{type(model).__name__} has no linear layer of {rows} outputs")
    head: nn.Linear = model.get_submodule(name)
    model.set_submodule(name, nn.Identity())
    _forget_keys(model)
    return model, head


def load_without_head(part: Path, name: str | Path, config: Any, trust_remote_code: bool) -> Any:
    """Load the model without a head.

    Raises:
        FlashError: the weights cannot be loaded or are incomplete.
    """
    from transformers import AutoModel

    model, missing = loading.load_model(AutoModel, part, name, config, trust_remote_code)
    unused = ("pooler.", "decoder.") if config.is_encoder_decoder else ("pooler.",)
    loading.check_complete({key for key in missing if not key.startswith(unused)}, name)
    return encoder_part(model)


def encoder_part(model: Any) -> Any:
    """Return the encoder of a model, without decoder, and without pooler, whose weights would get no gradient."""
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        model.pooler = None
    _forget_keys(model)
    return model


def _forget_keys(model: Any) -> None:
    """Turn off a decoder's cache of keys and values, which is only needed for text generation."""
    if getattr(model.config, "use_cache", None):
        model.config.use_cache = False


def new_head(features: int, labels: int, *, bias: bool = True) -> nn.Linear:
    """Create a last layer with small random weights and zero bias."""
    head = nn.Linear(features, labels, bias=bias)
    nn.init.normal_(head.weight, std=HEAD_SPREAD)
    if bias:
        nn.init.zeros_(head.bias)
    return head


def why_new(config: Any, labels: Sequence[str]) -> str:
    """Explain, as the end of a sentence, why a checkpoint's own head cannot be used for `labels`."""
    theirs = [config.id2label[index] for index in sorted(config.id2label)]
    if sorted(theirs) == sorted(labels):
        return "its weights hold none for these labels"
    if all(label == f"LABEL_{index}" for index, label in enumerate(theirs)):
        return "it names no labels of its own"
    lacking = [label for label in labels if label not in theirs]
    surplus = [label for label in theirs if label not in labels]
    parts = [
        f"{what} {', '.join(names[:MOST_SHOWN])}{' ...' if len(names) > MOST_SHOWN else ''}"
        for what, names in (("lacks", lacking), ("has besides", surplus))
        if names
    ]
    return f"its own {' and '.join(parts)}"


def run_probe(model: Any, tokenizer: Any, name: str | Path) -> torch.Tensor:
    """Run two rows of tokens that differ in the last token but one; return (2, ...) hidden states or features.

    Raises:
        FlashError: the model does not encode token ids.
    """
    known = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if known is not None and len(tokenizer) > known:
        raise FlashError(
            f"the tokenizer of {str(name)!r} has {len(tokenizer):,} tokens, and its model knows {known:,}; give a "
            "folder whose tokenizer is its model's"
        )
    row = tokenizer.encode("a short text", truncation=True, max_length=8)
    ordinary = [token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids][:5]
    row = row if len(row) > 2 else ordinary[:3]
    other = [*row[:-2], next(token for token in ordinary if token != row[-2]), row[-1]]
    ids = torch.tensor([row, other])
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        hidden: torch.Tensor = (
            output.last_hidden_state if hasattr(output, "last_hidden_state") else output.logits
        )
        if hidden.shape[:2] != ids.shape and hidden.dim() != 2:
            raise ValueError(f"of {ids.shape[1]} tokens it makes {hidden.shape[1]}")
    except Exception as error:  # models for images or sound raise errors of any kind
        raise FlashError(
            f"the backbone {str(name)!r} ({type(model).__name__}) gives no features of token ids and an attention mask: "
            f"{loading.first_line(error)}; choose an encoder for text"
        ) from error
    model.train(training)
    return hidden


def is_causal(hidden: torch.Tensor) -> bool:
    """Whether the first token's state is independent of the later token in which the two rows differ."""
    return bool(torch.allclose(hidden[0, 0], hidden[1, 0], rtol=1e-6, atol=1e-7))
