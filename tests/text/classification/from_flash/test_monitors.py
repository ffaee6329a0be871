"""What callbacks may monitor: Lightning Flash's names, ours, and nothing that never comes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.from_flash.monitors import flash_names, known_names, loss_name
from flash.text.classification.losses import focal
from flash.text.classification.scores.metrics import evaluate


@pytest.fixture
def data() -> TextClassificationData:
    return TextClassificationData.from_lists(
        train_data=["a", "b", "c", "d"] * 4, train_targets=[["x"], ["y"], [], ["x", "y"]] * 4, val_split=0.25
    )


def test_the_known_names_are_those_that_are_logged() -> None:
    found = evaluate(
        np.eye(2),
        np.eye(2),
        labels=["x", "y"],
        thresholds=[0.5, 0.5],
        multi_label=True,
        uncalibrated=np.eye(2),
    )
    model = TextClassifier(labels=["x", "y"], multi_label=True)
    scalars = [name for name in found.scalars("val") if "/" not in name]
    assert set(scalars) | {"val_loss"} <= set(known_names(model, validation=True))
    assert known_names(model, validation=False) == ["train_loss", "epoch", "step"]


def test_flashs_names() -> None:
    model = TextClassifier(labels=["x", "y"], multi_label=True)
    scores = {"val_loss": 0.5, "val_micro_f1": 0.7, "val_hamming_loss": 0.1, "val_subset_accuracy": 0.6}
    assert flash_names(scores, "val", model) == {
        "val_f1score": 0.7,
        "val_f1": 0.7,
        "val_accuracy": 0.9,
        "val_binary_cross_entropy_with_logits": 0.5,
    }
    single = TextClassifier(labels=["x", "y"])
    assert flash_names(scores, "val", single)["val_accuracy"] == 0.6
    assert flash_names(scores, "val", single)["val_cross_entropy"] == 0.5
    assert "val_accuracy" not in flash_names({**scores, "val_accuracy": 1}, "val", single)  # the user's own


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (None, "binary_cross_entropy_with_logits"),
        ("focal", "focal"),
        (focal, "focal"),
        ({"mine": focal}, "mine"),
        ({"a": focal, "b": focal}, "total_loss"),
        (torch.nn.BCEWithLogitsLoss(), "bcewithlogitsloss"),
    ],
)
def test_the_loss_is_called_as_its_function(loss: Any, name: str) -> None:
    assert loss_name(TextClassifier(labels=["x", "y"], multi_label=True, loss_fn=loss)) == name


def test_what_is_not_measured_is_refused_before_the_first_epoch(
    data: TextClassificationData, make_trainer: Callable[..., Any]
) -> None:
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(callbacks=[EarlyStopping("val_f1_score")])
    with pytest.raises(
        FlashError, match="unknown monitor of EarlyStopping 'val_f1_score'; did you mean 'val_f1score'"
    ):
        trainer.fit(model, datamodule=data)
    assert trainer.global_step == 0
    trainer = make_trainer(enable_checkpointing=True, callbacks=[ModelCheckpoint(monitor="val_f1/z")])
    with pytest.raises(FlashError, match="unknown monitor of ModelCheckpoint 'val_f1/z'"):
        trainer.fit(model, datamodule=data)


def test_a_monitor_of_validation_rows_that_are_not_there(make_trainer: Callable[..., Any]) -> None:
    rows = TextClassificationData.from_lists(train_data=["a", "b"], train_targets=[["x"], ["y"]])
    model = TextClassifier(labels=rows.labels, multi_label=True)
    with pytest.raises(
        FlashError,
        match="EarlyStopping monitors 'val_loss', and there are no validation rows; pass val_split",
    ):
        make_trainer(callbacks=[EarlyStopping("val_loss")]).fit(model, rows)


def test_a_schedule_that_waits_for_a_number(
    data: TextClassificationData, make_trainer: Callable[..., Any]
) -> None:
    schedule = ("reducelronplateau", {"mode": "max"}, {"monitor": "val_acuracy"})
    model = TextClassifier(labels=data.labels, multi_label=True, lr_scheduler=schedule)
    with pytest.raises(
        FlashError, match="unknown monitor of lr_scheduler 'val_acuracy'; did you mean 'val_accuracy'"
    ):
        make_trainer().fit(model, data)


def test_every_known_kind_may_be_monitored(
    data: TextClassificationData, make_trainer: Callable[..., Any]
) -> None:
    names = ("val_loss", "val_accuracy", "val_f1score", "val_binary_cross_entropy_with_logits", "train_loss")
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(callbacks=[EarlyStopping(name) for name in names])
    trainer.fit(model, datamodule=data)
    assert set(names) <= set(trainer.callback_metrics)


def test_a_callback_of_the_users_own_may_log_what_it_likes(
    data: TextClassificationData, make_trainer: Callable[..., Any]
) -> None:
    class Logs(Callback):
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log("mine", 1.0)

    model = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer(callbacks=[Logs(), EarlyStopping("mine")]).fit(model, datamodule=data)
