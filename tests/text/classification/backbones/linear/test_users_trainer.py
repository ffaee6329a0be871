"""A trainer of the user's after the fit of a linear model: as it was, and as good as a new one for an encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from flash.text import TextClassifier

LABELS = ["animal", "fruit", "tool"]
SETTINGS: dict[str, Any] = {
    "max_epochs": 3,
    "accumulate_grad_batches": 2,
    "gradient_clip_val": 0.25,
    "check_val_every_n_epoch": 3,
    "val_check_interval": 0.5,
}


def settings_of(trainer: Any) -> dict[str, Any]:
    return {name: getattr(trainer, name) for name in SETTINGS}


def fit_encoder(folder: Path, data: Any, trainer: Any) -> TextClassifier:
    torch.manual_seed(1)
    model = TextClassifier(backbone=str(folder), labels=LABELS, multi_label=True, max_length=16)
    torch.manual_seed(2)
    trainer.finetune(model, datamodule=data, strategy=("freeze_unfreeze", 1))
    return model


def test_an_encoder_is_trained_after_a_linear_model_as_by_a_new_trainer(
    folder: Path, make_data: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    pytest.importorskip("transformers")
    used = make_trainer(**SETTINGS)
    linear = TextClassifier(labels=LABELS, multi_label=True)
    used.fit(linear, datamodule=make_data(labels=LABELS))
    assert settings_of(used) == SETTINGS
    first = fit_encoder(folder, make_data(labels=LABELS), used)
    new = make_trainer(**SETTINGS)
    second = fit_encoder(folder, make_data(labels=LABELS), new)
    assert (used.current_epoch, used.global_step) == (new.current_epoch, new.global_step)
    assert used.fit_loop.state_dict() == new.fit_loop.state_dict()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_linear_models_by_one_trainer(make_data: Any, make_trainer: Any) -> None:
    trainer, data = make_trainer(), make_data(labels=LABELS)
    for _ in range(2):
        model = TextClassifier(labels=LABELS, multi_label=True)
        trainer.fit(model, datamodule=data)
        assert model.evaluation is not None


def test_a_fit_that_failed_gives_the_settings_back(make_data: Any, make_trainer: Any) -> None:
    class Stops(Callback):
        def on_train_start(self, *_: Any) -> None:
            raise OSError("the disk is full")

    trainer = make_trainer(callbacks=[Stops()], **SETTINGS)
    with pytest.raises(OSError, match="disk is full"):
        trainer.fit(TextClassifier(labels=LABELS, multi_label=True), datamodule=make_data(labels=LABELS))
    assert settings_of(trainer) == SETTINGS
