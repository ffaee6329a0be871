"""Lightning Flash's import path of the base of outputs; only a name of `scores.output_objects`."""

from flash.text.classification.scores.output_objects import Output

__all__ = ["Output"]
