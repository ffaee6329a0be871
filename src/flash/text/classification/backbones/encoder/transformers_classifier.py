"""Convert an encoder with a head of its own architecture to a classifier of transformers."""

from typing import Any

import torch
from torch import nn

from flash.core.errors import FlashError
from flash.text.classification.backbones.encoder import loading
from flash.text.classification.backbones.encoder.architecture import detach_head
from flash.text.classification.backbones.encoder.model import Encoder
from flash.text.classification.scores.outputs import Calibration


def whole_classifier(encoder: Encoder, calibration: Calibration, *, multi_label: bool) -> Any:
    """Return a model for `transformers.pipeline("text-classification")` with calibrated logits.

    Raises:
        FlashError: the head does not belong to the architecture, or cannot include the calibration.
    """
    from transformers import AutoModelForSequenceClassification

    if not encoder.whole:
        raise FlashError(
            f"the head of this model is new, with {encoder.pooling} pooling, and no class of transformers is its "
            "encoder under such a head; export it in the format onnx, or train again with pooling='model', a new head "
            "of the encoder's own architecture, or from a checkpoint that has a head with these labels, which is kept"
        )
    if encoder.source is not None:
        raise FlashError(
            "the encoder of this model has an architecture of its own, which comes as Python code, and is no class of "
            "transformers; export it in the format onnx"
        )
    auto_class: Any = AutoModelForSequenceClassification
    with loading.quiet():
        whole = auto_class.from_config(encoder.model.config, dtype=torch.float32)
    places = {id(part): name for name, part in whole.named_modules()}
    whole, head = detach_head(whole, len(encoder.labels))
    whole.load_state_dict(encoder.model.state_dict())
    whole.set_submodule(places[id(head)], calibrated(encoder.head, calibration))
    config = whole.config
    config.id2label = dict(enumerate(encoder.labels))
    config.label2id = {label: index for index, label in enumerate(encoder.labels)}
    config.problem_type = f"{'multi' if multi_label else 'single'}_label_classification"
    return whole.eval()


def calibrated(head: nn.Linear, calibration: Calibration) -> nn.Linear:
    """Return a linear layer whose logits are the calibrated logits of `head`.

    Raises:
        FlashError: `head` has no bias, and the calibration has a shift.
    """
    bias: torch.Tensor | None = head.bias  # torch's type stubs lack None
    scale, shift = torch.tensor(calibration.scale), torch.tensor(calibration.shift)
    if bias is None and shift.any():
        raise FlashError(
            "the head of this model has no bias to take up the calibration, and its class in transformers has none; "
            "export it in the format onnx"
        )
    made = nn.Linear(head.in_features, head.out_features, bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(head.weight * scale[:, None])
        if bias is not None:
            made.bias.copy_(bias * scale + shift)
    return made
