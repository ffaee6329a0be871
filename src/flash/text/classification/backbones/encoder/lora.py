"""Low-rank adapters of an encoder's linear layers, which are merged into the weights after training.

LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4. Imports torch, but peft
only when adapters are added; files that hold adapters are read without it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flash.core.errors import FlashError, unknown_name
from flash.core.extras import require
from flash.core.finetuning import ALL_LINEAR, LoraOptions

SCALING = "lora_scaling"
"""Name, in a module's state, of the factor for the product of an adapter's matrices."""

_BASE, _DOWN, _UP = ".base_layer", ".lora_A.default.weight", ".lora_B.default.weight"  # peft's names


@dataclass(frozen=True)
class Adapters:
    """The changes that `add_adapters` made to a model.

    Attributes:
        options: the user's options.
        layers: names of the linear layers with an adapter.
        frozen: the parameters that were frozen.
    """

    options: LoraOptions
    layers: tuple[str, ...]
    frozen: tuple[nn.Parameter, ...]


def add_adapters(model: nn.Module, options: LoraOptions, name: str) -> Adapters:
    """Add adapters to linear layers, without an effect until they are trained, and freeze all other parameters.

    Args:
        model: an encoder without its head.
        options: options of the strategy; the first matrices are drawn from torch's random generator.
        name: the encoder's name in messages.

    Raises:
        MissingExtraError: peft is not installed.
        FlashError: there is no linear layer with a given name.
    """
    peft = require("peft", "lora")
    layers = find_layers(model, options.targets, name)
    frozen = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.scaling * options.rank,
        lora_dropout=options.dropout,
        target_modules="|".join(
            re.escape(layer) for layer in layers
        ),  # full names; a list would match suffixes
        # GPT-2's linear layers have transposed weights
        fan_in_fan_out=all(type(model.get_submodule(layer)).__name__ == "Conv1D" for layer in layers),
    )
    peft.inject_adapter_in_model(config, model)
    return Adapters(options, layers, frozen)


def merge_adapters(model: nn.Module, adapters: Adapters) -> None:
    """Merge the adapters into the weights, and restore the original layers."""
    for name in adapters.layers:
        layer: Any = model.get_submodule(name)
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
    for parameter in adapters.frozen:
        parameter.requires_grad = True


def find_layers(model: nn.Module, targets: str | tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return the names of the linear layers that `targets` selects.

    Layers with shared weights are left out, because a merged adapter would change all their uses.

    Raises:
        FlashError: there are no linear layers, or none with one of the names.
    """
    uses = Counter(
        id(module.weight)
        for _, module in model.named_modules(remove_duplicate=False)
        if isinstance(getattr(module, "weight", None), nn.Parameter)
    )
    layers = [layer for layer, module in _linear_layers(model) if uses[id(module.weight)] == 1]
    if not layers:
        raise FlashError(
            f"{name!r} has no linear layers, which the strategy 'lora' needs; pass strategy='no_freeze'"
        )
    if targets == ALL_LINEAR:
        return tuple(layers)
    for target in targets:
        if not _ending_in(target, layers):
            known = sorted({layer.rpartition(".")[2] for layer in layers})
            raise FlashError(unknown_name(f"linear layer of {name!r}", target, known))
    return tuple(layer for layer in layers if any(_ending_in(target, [layer]) for target in targets))


def _ending_in(target: str, layers: list[str]) -> list[str]:
    return [layer for layer in layers if f".{layer}".endswith(f".{target}")]


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield linear layers by name, except those of torch's attention, which accesses their weights directly."""
    for name, module in model.named_modules():
        attention = isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
        if name and not attention and (isinstance(module, nn.Linear) or _is_transposed(module)):
            yield name, module


def _is_transposed(module: nn.Module) -> bool:
    """Whether a module is GPT-2's linear layer, with weights of shape (in, out)."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def merge_state(module: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Merge the adapters in a state that was saved during training; changes `state` only.

    Args:
        module: the module without adapters, into which the state will be loaded.
        state: tensors by name.
        prefix: prefix of the module's names in the state.
    """
    scaling = state.pop(f"{prefix}{SCALING}", None)
    if scaling is None:
        return
    modules = {f"{prefix}{name}": part for name, part in module.named_modules()}
    for layer in [name.removesuffix(_DOWN) for name in state if name.endswith(_DOWN)]:
        if layer not in modules or not {f"{layer}{_UP}", f"{layer}{_BASE}.weight"} <= state.keys():
            continue  # torch reports the unknown names when it loads the state
        down, up = state.pop(f"{layer}{_DOWN}").float(), state.pop(f"{layer}{_UP}").float()
        product = up @ down
        product = (product.T if _is_transposed(modules[layer]) else product) * scaling.item()
        state[f"{layer}.weight"] = state.pop(f"{layer}{_BASE}.weight").float() + product
        if f"{layer}{_BASE}.bias" in state:
            state[f"{layer}.bias"] = state.pop(f"{layer}{_BASE}.bias")


def resume_problem(adapters: Adapters, saved: Any) -> str | None:
    """Return why training with adapters cannot resume from a file with the adapter options `saved`; None if it can."""
    if saved is None:
        return (
            "the checkpoint has no adapters: its fit had ended, and they are a part of its weights, or it had another "
            "strategy; load it with TextClassifier.load_from_checkpoint and finetune that, without ckpt_path="
        )
    own = adapters.options.plain()
    if isinstance(saved, dict) and all(
        saved.get(option) == own[option] for option in ("rank", "alpha", "targets")
    ):
        return None
    return f'the adapters of the checkpoint are not those of this fit; pass strategy=("lora", {saved!r})'


def tensor_of(options: LoraOptions) -> torch.Tensor:
    """Return the scaling as a tensor for a state."""
    return torch.tensor([options.scaling], dtype=torch.float64)
