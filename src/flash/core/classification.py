"""Lightning Flash's import path of the output classes, which are in `scores.output_objects`."""

from flash.text.classification.scores.output_objects import (
    ClassesOutput,
    ClassificationOutput,
    FiftyOneLabelsOutput,
    LabelsOutput,
    LogitsOutput,
    PredsClassificationOutput,
    ProbabilitiesOutput,
)

# names of versions 0.5 and 0.6, and of snippets in issue trackers
Classes = ClassesOutput
FiftyOneLabels = FiftyOneLabelsOutput
Labels = LabelsOutput
Logits = LogitsOutput
PredsOutput = PredsClassificationOutput
Probabilities = ProbabilitiesOutput

__all__ = [
    "Classes",
    "ClassesOutput",
    "ClassificationOutput",
    "FiftyOneLabels",
    "FiftyOneLabelsOutput",
    "Labels",
    "LabelsOutput",
    "Logits",
    "LogitsOutput",
    "PredsClassificationOutput",
    "PredsOutput",
    "Probabilities",
    "ProbabilitiesOutput",
]
