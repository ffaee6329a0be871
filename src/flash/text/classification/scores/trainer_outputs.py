"""What `flash.Trainer.predict` gives for a batch, in Lightning Flash's types. Imports torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from flash.text.classification.scores.output_objects import ClassificationOutput
from flash.text.classification.scores.output_objects import Output as OwnOutput
from flash.text.classification.scores.outputs import Output, convert


def as_flash(
    logits: np.ndarray,
    output: Output,
    *,
    labels: Sequence[str],
    multi_label: bool,
    thresholds: np.ndarray,
) -> Any:
    """As `outputs.convert`, but "preds" as a float32 tensor (B, L), and "logits" and "probabilities" as nested lists.

    What is given to a user's own output is the same in either case, but that its rows are tensors here.
    """
    if isinstance(output, OwnOutput) and not isinstance(output, ClassificationOutput):
        return [output.transform(row) for row in torch.from_numpy(logits)]
    found = convert(logits, output, labels=labels, multi_label=multi_label, thresholds=thresholds)
    name = output.name if isinstance(output, ClassificationOutput) else output
    if name == "preds":
        return torch.from_numpy(found)
    return found.tolist() if name in ("logits", "probabilities") else found
