"""Lightning Flash's output objects stand for names of outputs, with thresholds and labels of their own."""

import json
from typing import Any

import numpy as np
import pytest

from flash.core.classification import (
    ClassesOutput,
    FiftyOneLabelsOutput,
    Labels,
    LabelsOutput,
    Logits,
    LogitsOutput,
    PredsOutput,
    Probabilities,
    ProbabilitiesOutput,
)
from flash.core.data.io.output import Output
from flash.core.errors import FlashError
from flash.text.classification.scores.outputs import convert

LOGITS = [[2.0, -1.0], [-3.0, -4.0]]


def said(output: Any, thresholds: Any = (0.5, 0.5), **more: Any) -> Any:
    labels = ["toxic", "threat"]
    return convert(LOGITS, output, labels=labels, multi_label=True, thresholds=thresholds, **more)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (LabelsOutput(), "labels"),
        (LabelsOutput(multi_label=True), "labels"),
        (ClassesOutput(), "classes"),
        (ProbabilitiesOutput(multi_label=True), "probabilities"),
        (LogitsOutput(), "logits"),
        (PredsOutput(), "preds"),
    ],
)
def test_an_object_stands_for_a_name(output: Any, name: str) -> None:
    np.testing.assert_array_equal(np.asarray(said(output), object), np.asarray(said(name), object))


def test_names_of_earlier_versions() -> None:
    assert (Labels, Logits, Probabilities) == (LabelsOutput, LogitsOutput, ProbabilitiesOutput)


def test_a_threshold_and_labels_of_its_own() -> None:
    assert said(LabelsOutput(threshold=0.9)) == [[], []]
    assert said(ClassesOutput(threshold=0.01)) == [[0, 1], [0, 1]]
    assert said(LabelsOutput(["rude", "menace"])) == [["rude"], []]
    with pytest.raises(FlashError, match="LabelsOutput has 1 labels and the model 2; leave labels= out"):
        said(LabelsOutput(["rude"]))


@pytest.mark.parametrize("threshold", [1.5, -0.1, True, "0.5"])
def test_a_threshold_that_is_no_probability(threshold: Any) -> None:
    with pytest.raises(FlashError, match="of LabelsOutput is no probability; pass a number in"):
        LabelsOutput(threshold=threshold)


def test_an_output_of_the_users_own_gets_rows_of_logits() -> None:
    class Largest(Output):
        def transform(self, sample: Any) -> float:
            return float(max(sample))

    assert said(Largest()) == [2.0, -3.0]
    assert json.dumps(said(Largest.from_task(None), as_rows=lambda rows: rows.tolist())) == "[2.0, -3.0]"


def test_what_an_output_cannot_do() -> None:
    with pytest.raises(FlashError, match="FiftyOneLabelsOutput is not here: .*pass output='labels'"):
        FiftyOneLabelsOutput(return_filepath=False)
    with pytest.raises(
        FlashError, match=r"output=LabelsOutput\(\)\), or set model.output = LabelsOutput\(\)"
    ):
        LabelsOutput().transform([1.0, 2.0])
    with pytest.raises(FlashError, match=r"the output LabelsOutput is a class; pass an object of it"):
        said(LabelsOutput)
