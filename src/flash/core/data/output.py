"""Lightning Flash's import path of the output "preds"; only a name of `scores.output_objects`."""

from flash.text.classification.scores.output_objects import PredsClassificationOutput as PredsOutput

__all__ = ["PredsOutput"]
