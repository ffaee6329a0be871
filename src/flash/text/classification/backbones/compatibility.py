"""Checkpoint compatibility: whether a model can resume from a file's weights, and the first difference if not."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from flash.core.errors import CheckpointError
from flash.text.classification.backbones.encoder import lora
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.backbones.module import BackboneModule, first_misfit

READ_AS = ("max_length", "long_text", "window_overlap", "window_pooling")
"""Options of an encoder that change the scores of the same weights."""


def difference(backbone: BackboneModule, settings: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """Return why a model with this backbone cannot resume from a checkpoint; None if it can.

    Args:
        backbone: the model's backbone.
        settings: the checkpoint's settings.
        state: the checkpoint's weights, whose names begin with "backbone.".
    """
    saved = settings["backbone"]
    if ("encoder" in settings) != isinstance(backbone, EncoderModule):
        return (
            f"the checkpoint's backbone is {saved!r} and this model's is {backbone.name!r}; build the model with "
            f"backbone={saved!r}, or load the file with TextClassifier.load_from_checkpoint"
        )
    if not isinstance(backbone, EncoderModule):
        return None
    if backbone.adapters is not None and lora.resume_problem(backbone.adapters, settings.get("lora")):
        return None  # the backbone raises this error itself
    if misfit := _misfit(backbone, state):
        return (
            f"the weights of the checkpoint's backbone {saved!r} do not fit this model's, {backbone.name!r}: {misfit}; "
            "build the model with the checkpoint's backbone, or load the file with TextClassifier.load_from_checkpoint"
        )
    theirs = {**settings["backbone_options"], "max_length": settings.get("max_length")}
    ours = {**backbone.options(), "max_length": backbone.max_length}
    for name in READ_AS if ours["long_text"] == "window" else READ_AS[:2]:
        if name in theirs and theirs[name] != ours[name]:
            return (
                f"the checkpoint was trained with {name}={theirs[name]!r} and this model has {ours[name]!r}; pass "
                f"{name}={theirs[name]!r} to TextClassifier"
            )
    if not backbone.encoder.whole and settings["encoder"].get("pooling") != backbone.encoder.pooling:
        pooling = settings["encoder"].get("pooling")
        return (
            f"the checkpoint was trained with pooling={pooling!r} and this model has {backbone.encoder.pooling!r}; pass "
            f"pooling={pooling!r} to TextClassifier"
        )
    return None


def load_weights(model: nn.Module, state: Mapping[str, Any], name: Any) -> None:
    """Load the weights of the file `name`.

    Raises:
        CheckpointError: the weights do not fit the model.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint {name} is damaged: its weights do not fit its backbone ({first_misfit(error)}); copy or "
            "save it again"
        ) from error


def _misfit(backbone: EncoderModule, state: Mapping[str, Any]) -> str | None:
    """Describe the first tensor that only one of them has, or that has another shape."""
    prefix = "backbone."
    found = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
    if backbone.adapters is None:
        lora.merge_state(backbone, found, prefix)
    theirs = {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in found.items()}
    ours = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in theirs or name not in ours:
            return f"{name} is only in {'the checkpoint' if name in theirs else 'the model'}"
        if theirs[name] != ours[name]:
            return f"{name} is {theirs[name]} there and {ours[name]} here"
    return None
