"""Keywords of Lightning Flash's models and datamodules that this library does not have, and how each is handled.

A keyword with Flash's default value is dropped.
"""

from typing import Any

from flash.core.errors import FlashError
from flash.text.classification.targets.formatters import TargetFormatter

TEXTS_AS_THEY_ARE = "texts are read as they are; change the column before it is read, and leave {name} out"
TRANSFORMS = (
    *("transform", "train_transform", "val_transform", "test_transform", "predict_transform"),
    *("batch_transform", "transform_kwargs", "input_cls", "preprocess", "postprocess", "output_transform"),
    *("input_transform", "data_fetcher"),
)

DATA = {
    **dict.fromkeys(TRANSFORMS, TEXTS_AS_THEY_ARE),
    "sampler": "the model makes its batches itself, of texts of similar length; to let some labels count more, pass "
    "pos_weight= to TextClassifier, and leave sampler out",
    "max_length": "the model cuts texts; pass max_length= to TextClassifier, and leave it out here",
    "image_size": "there are no images here; leave image_size out",
}
"""Keywords of a datamodule that would change the training, and what to do instead."""

DATA_NOTES = {
    "backbone": "the backbone that is given to TextClassifier reads the texts",
    "pin_memory": "batches are slices of one array of texts",
    "chunk_size": "files are read in blocks as they need",
}
"""Keywords of a datamodule that have no effect, and why."""

DATA_DROPPED = (
    *("persistent_workers", "data_folder", "train_data_folder", "val_data_folder", "test_data_folder"),
    "predict_data_folder",
)
"""Keywords of a datamodule that are dropped silently."""

WITHOUT_VALUE = (
    "the arguments belong to its choice: pass {choice}=(name, {{arguments}}), and leave {name} out"
)
MODEL = {
    "enable_ort": "ONNX Runtime does not train here; leave enable_ort out, and predict with it by: flash export MODEL",
    "optimizer_kwargs": WITHOUT_VALUE.format(choice="optimizer", name="optimizer_kwargs"),
    "scheduler": "pass lr_scheduler= in place of it",
    "scheduler_kwargs": WITHOUT_VALUE.format(choice="lr_scheduler", name="scheduler_kwargs"),
    "lr_scheduler_kwargs": WITHOUT_VALUE.format(choice="lr_scheduler", name="lr_scheduler_kwargs"),
    "head": "an encoder has one linear layer per label, or its own head; leave head out",
    "pretrained": "an encoder's weights are always read; for random ones, save a model of transformers that has them, "
    "and pass its folder as backbone=",
    "training_strategy": "there is one way of training; leave it out",
    **dict.fromkeys(
        ("input_transform", "output_transform", "preprocess", "postprocess", "deserializer", "model"),
        "the model takes texts as they are and has no steps to exchange; leave it out",
    ),
}
"""Keywords of a classifier, and what to do instead."""
MODEL_DEFAULTS: dict[str, Any] = {"pretrained": True, "training_strategy": "default"}


def take_model_options(given: dict[str, Any]) -> Any:
    """Remove Flash's keywords from `given`; return the `output` among them.

    Raises:
        FlashError: a keyword has no meaning here.
    """
    for name, advice in MODEL.items():
        value = given.pop(name, None)
        if value not in (None, False, {}, MODEL_DEFAULTS.get(name)) or (
            name == "pretrained" and value is False
        ):
            raise FlashError(f"TextClassifier({name}={_short(value)}) has no meaning here: {advice}")
    return given.pop("output", None) or given.pop("serializer", None)


def take_data_options(given: dict[str, Any]) -> dict[str, Any]:
    """Remove Flash's keywords from `given`; return the equivalent options of a datamodule.

    Raises:
        FlashError: a keyword would change the training and is not supported.
    """
    for name, advice in DATA.items():
        value = given.pop(name, None)
        if value is not None and value != {}:
            raise FlashError(f"{name}={_short(value)} has no meaning here: {advice.format(name=name)}")
    idle = [f"{name}={_short(given[name])}" for name in DATA_NOTES if given.get(name) not in (None, False)]
    if idle:
        from lightning.pytorch.utilities import rank_zero_info

        why = "; ".join(reason for name, reason in DATA_NOTES.items() if given.get(name) not in (None, False))
        rank_zero_info(f"{', '.join(idle)} {'changes' if len(idle) == 1 else 'change'} nothing: {why}.")
    for name in (*DATA_NOTES, *DATA_DROPPED):
        given.pop(name, None)
    formatter = given.pop("target_formatter", None)
    if formatter is None:
        return {}
    if not isinstance(formatter, TargetFormatter):
        raise FlashError(
            f"target_formatter={_short(formatter)} is not understood; pass one of flash.core.data.utilities."
            "classification, or write the targets as label names and leave it out"
        )
    return formatter.options()


def _short(value: Any) -> str:
    text = value.__name__ if isinstance(value, type) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
