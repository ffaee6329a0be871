"""Earlier names of options: each works, with one warning that names the new one."""

import warnings
from typing import Any

import numpy as np
import pytest

from flash.core.errors import FlashError
from flash.text import TextClassifier
from flash.text.classification.arguments import RENAMED
from flash.text.classification.backbones.linear.model import LinearConfig

LABELS = ["toxic", "insult"]
LAST = "the next release will not know"


def config_of(**options: Any) -> LinearConfig:
    model: Any = TextClassifier(labels=LABELS, multi_label=True, **options)
    config: LinearConfig = model.backbone.linear.config
    return config


@pytest.mark.parametrize(
    ("earlier", "current", "sentence"),
    [
        (
            {"regularization": 2.0},
            {"C": 2.0},
            f"regularization= is now called C=; {LAST} this name",
        ),
        (
            {"positive_weight": {"insult": 3.0}},
            {"pos_weight": {"insult": 3.0}},
            f"positive_weight= is now called pos_weight=; {LAST} this name",
        ),
        (
            {"positive_weight": "balanced", "regularization": np.float64(0.5)},
            {"pos_weight": "balanced", "C": 0.5},
            f"positive_weight= is now called pos_weight=, and regularization= is now called C=; {LAST} these names",
        ),
    ],
)
def test_an_earlier_keyword_works_with_one_warning(
    earlier: dict[str, Any], current: dict[str, Any], sentence: str
) -> None:
    with pytest.warns(FutureWarning) as told:
        found = config_of(**earlier)
    assert [str(warning.message) for warning in told] == [sentence]
    assert told[0].filename == __file__
    assert found == config_of(**current)


@pytest.mark.parametrize(("earlier", "current"), RENAMED.items())
def test_both_names_at_once_are_refused(earlier: str, current: str) -> None:
    with pytest.raises(
        FlashError,
        match=f"{earlier}= and {current}= are both given, and {current}= is the new name of {earlier}=; leave {earlier}= out",
    ):
        config_of(**{earlier: 1.0, current: 1.0})


@pytest.mark.parametrize("weight", [2, [1.0, 3.0], np.array([1.0, 3.0]), {"insult": 3}, "balanced", None])
def test_pos_weight_takes_the_same_forms_as_with_an_encoder(weight: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = config_of(pos_weight=weight).pos_weight
    expected = (1.0, 3) if isinstance(weight, dict) else weight
    assert np.array_equal(np.array(found), np.array(expected))
