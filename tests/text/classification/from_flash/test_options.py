"""Lightning Flash's keywords of a datamodule, its target formatters, and rows that are shown."""

import logging
from typing import Any

import pytest

from flash.core.data.utilities.classification import (
    CommaDelimitedMultiLabelTargetFormatter,
    MultiLabelTargetFormatter,
    SingleBinaryTargetFormatter,
    SingleLabelTargetFormatter,
    SpaceDelimitedTargetFormatter,
    TargetFormatter,
)
from flash.core.errors import FlashError
from flash.text import TextClassificationData

ROWS: dict[str, Any] = {"train_data": ["a", "b"], "train_targets": [["x"], ["y"]]}


@pytest.mark.parametrize(
    ("keyword", "said"),
    [
        ("sampler", "the model makes its batches itself"),
        ("predict_transform", "texts are read as they are; change the column before it is read"),
        ("transform_kwargs", "and leave transform_kwargs out"),
        ("input_cls", "and leave input_cls out"),
        ("max_length", "pass max_length= to TextClassifier"),
    ],
)
def test_what_would_change_the_result_is_refused(keyword: str, said: str) -> None:
    with pytest.raises(FlashError, match=f"^{keyword}='given' has no meaning here: .*{said}"):
        TextClassificationData.from_lists(**ROWS, **{keyword: "given"})


def test_what_changes_nothing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        TextClassificationData.from_lists(
            **ROWS,
            pin_memory=True,
            persistent_workers=True,
            transform=None,
            backbone="bert",
            transform_kwargs={},
        )
    [said] = [record.getMessage() for record in caplog.records if "nothing" in record.getMessage()]
    assert said == (
        "backbone='bert', pin_memory=True change nothing: the backbone that is given to TextClassifier reads the texts; "
        "batches are slices of one array of texts."
    )


def test_a_mistyped_option_still_gets_its_own_suggestion() -> None:
    with pytest.raises(FlashError, match="unknown option 'batch_sise'; did you mean 'batch_size'"):
        TextClassificationData.from_lists(**ROWS, batch_sise=2)


@pytest.mark.parametrize(
    ("formatter", "targets", "expected"),
    [
        (SingleLabelTargetFormatter(labels=["y", "x"]), ["x", "y"], (["y", "x"], False)),
        (MultiLabelTargetFormatter(labels=["y", "x"]), [["x"], ["y"]], (["y", "x"], True)),
        (CommaDelimitedMultiLabelTargetFormatter(), ["x,y", ""], (["x", "y"], True)),
        (SpaceDelimitedTargetFormatter(), ["x y", ""], (["x", "y"], True)),
        (SingleBinaryTargetFormatter(labels=["x", "y"]), [[1.0, 0.0], [0.0, 1.0]], (["x", "y"], False)),
    ],
)
def test_target_formatters(formatter: Any, targets: Any, expected: Any) -> None:
    data = TextClassificationData.from_lists(
        train_data=["a", "b", "c"], train_targets=[*targets, targets[-1]], target_formatter=formatter
    )
    assert (data.labels, data.multi_label) == expected


def test_formatters_of_the_users_own_are_refused() -> None:
    class Mine(TargetFormatter):
        pass

    with pytest.raises(
        FlashError, match=r"target_formatter=Mine\(\) is of your own.*write them as label names"
    ):
        TextClassificationData.from_lists(**ROWS, target_formatter=Mine())
    with pytest.raises(FlashError, match="target_formatter='comma' is not understood"):
        TextClassificationData.from_lists(**ROWS, target_formatter="comma")


def test_rows_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    data = TextClassificationData.from_lists(
        train_data=["a\nb", "b" * 200, "c"],
        train_targets=[[1.0, 0.25], [0.0, 0.0], [0.0, 1.0]],
        labels=["x", "y"],
        predict_data=["later"],
    )
    data.show_train_batch("load_sample", limit_nb_samples=2, reset=True)
    data.show_predict_batch()
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "a b  -> x, y=0.25"
    assert second == f"{'b' * 97}...  -> no label"
    assert third == "later"
    for split in ("val", "test"):
        with pytest.raises(FlashError, match=f"this datamodule has no {split} rows to show"):
            getattr(data, f"show_{split}_batch")()
