"""Low-rank adapters beside an encoder's linear layers: there while a fit lasts, a part of the weights after it.

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
"""What the product of an adapter's matrices is multiplied by, in the state of a module that has adapters."""

_BASE, _DOWN, _UP = ".base_layer", ".lora_A.default.weight", ".lora_B.default.weight"  # peft's names


@dataclass(frozen=True)
class Adapters:
    """What `add_adapters` has done to a model.

    Attributes:
        options: the user's.
        layers: names of the linear layers that have an adapter.
        frozen: the parameters that it froze.
    """

    options: LoraOptions
    layers: tuple[str, ...]
    frozen: tuple[nn.Parameter, ...]


def add_adapters(model: nn.Module, options: LoraOptions, name: str) -> Adapters:
    """Put adapters beside linear layers, which change nothing until they are trained, and freeze everything else.

    Args:
        model: an encoder without its head.
        options: of the strategy; the first matrices are drawn from torch's random numbers.
        name: of the encoder, for messages.

    Raises:
        MissingExtraError: peft is not installed.
        FlashError: there is no linear layer of that name.
    """
    peft = require("peft", "lora")
    layers = find_layers(model, options.targets, name)
    frozen = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.scaling * options.rank,
        lora_dropout=options.dropout,
        target_modules="|".join(re.escape(layer) for layer in layers),  # whole names; a list would match ends
        fan_in_fan_out=all(
            type(model.get_submodule(layer)).__name__ == "Conv1D" for layer in layers
        ),  # GPT-2's
    )
    peft.inject_adapter_in_model(config, model)
    return Adapters(options, layers, frozen)


def merge_adapters(model: nn.Module, adapters: Adapters) -> None:
    """Add the adapters' products to the weights beside which they stand, and leave a model as it was built."""
    for name in adapters.layers:
        layer: Any = model.get_submodule(name)
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
    for parameter in adapters.frozen:
        parameter.requires_grad = True


def find_layers(model: nn.Module, targets: str | tuple[str, ...], name: str) -> tuple[str, ...]:
    """The names of the linear layers that `targets` means.

    A layer whose weights are used elsewhere too is left out: what is added there would be added everywhere.

    Raises:
        FlashError: there is none, or none of one of the names.
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
    """Linear layers by name; not those of torch's attention, which reads their weights by itself."""
    for name, module in model.named_modules():
        attention = isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
        if name and not attention and (isinstance(module, nn.Linear) or _is_transposed(module)):
            yield name, module


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, whose weights are (in, out)."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def merge_state(module: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Make weights of the adapters in a state that was saved while they trained; changes `state` alone.

    Args:
        module: what the state is going to be loaded into, without adapters.
        state: tensors by name.
        prefix: what `module`'s names begin with there.
    """
    scaling = state.pop(f"{prefix}{SCALING}", None)
    if scaling is None:
        return
    modules = {f"{prefix}{name}": part for name, part in module.named_modules()}
    for layer in [name.removesuffix(_DOWN) for name in state if name.endswith(_DOWN)]:
        if layer not in modules or not {f"{layer}{_UP}", f"{layer}{_BASE}.weight"} <= state.keys():
            continue  # torch will say which names fit nothing
        down, up = state.pop(f"{layer}{_DOWN}").float(), state.pop(f"{layer}{_UP}").float()
        product = up @ down
        product = (product.T if _is_transposed(modules[layer]) else product) * scaling.item()
        state[f"{layer}.weight"] = state.pop(f"{layer}{_BASE}.weight").float() + product
        if f"{layer}{_BASE}.bias" in state:
            state[f"{layer}.bias"] = state.pop(f"{layer}{_BASE}.bias")


def resume_problem(adapters: Adapters, saved: Any) -> str | None:
    """Why a fit with adapters cannot go on from a file whose settings say `saved` of its adapters; None if it can."""
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
    """The scaling as it is kept in a state."""
    return torch.tensor([options.scaling], dtype=torch.float64)
