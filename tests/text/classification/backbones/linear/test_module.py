"""The linear backbone under Lightning's trainer: its passes, folds and options, and what it keeps for a second fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.linear.module import MOST_LABELS


def test_settings_without_use_for_the_linear_backbone_are_said_once(
    make_data: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True, learning_rate=0.1, optimizer="AdamW")
    with caplog.at_level("INFO"):
        trainer = make_trainer(
            accumulate_grad_batches=2,
            gradient_clip_val=1.0,
            check_val_every_n_epoch=2,
            val_check_interval=0.5,
        )
        trainer.finetune(model, datamodule=data, strategy="freeze")
    assert model.evaluation is not None
    said = [record.message for record in caplog.records if record.message.startswith("The linear backbone")]
    assert said == [
        "The linear backbone is solved exactly, in one epoch, and has no layers to freeze: strategy='freeze', "
        "optimizer='AdamW', learning_rate=0.1, accumulate_grad_batches=2, gradient_clip_val=1.0, "
        "check_val_every_n_epoch=2, val_check_interval=0.5 change nothing."
    ]


def test_too_few_texts_for_folds(make_trainer: Any, flat_output: Callable[[], str]) -> None:
    rows: dict[str, Any] = {"train_data": ["a b", "b c"], "train_targets": [["x"], ["y"]]}
    data = TextClassificationData.from_lists(**rows)
    make_trainer().fit(TextClassifier(labels=data.labels, multi_label=True), datamodule=data)
    assert flat_output() == (
        "Nothing was measured, as the training rows have fewer than 3 different texts and there was no validation: "
        "probabilities are not calibrated and the thresholds are 0.5. "
        "Pass val_split=0.1 to choose them and to see how good the model is."
    )


def test_a_fit_that_was_stopped_says_so(
    make_data: Any, make_trainer: Any, flat_output: Callable[[], str]
) -> None:
    data = make_data(val_split=None)
    model = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer(max_steps=2).fit(model, datamodule=data)
    assert flat_output() == (
        "Nothing was measured, as the fit was stopped before its end and there was no validation: probabilities are "
        "not calibrated and the thresholds are 0.5. Pass val_split=0.1, or allow it more steps or time, to choose "
        "them and to see how good the model is."
    )
    assert model.thresholds.tolist() == [0.5] * 3


def test_weights_of_labels_by_name(
    linear_of: Any, hard_rows: dict[str, Any], make_trainer: Any, tmp_path: Path
) -> None:
    data = TextClassificationData.from_lists(**hard_rows)
    by_name, by_place, plain = (
        TextClassifier(
            labels=data.labels,
            multi_label=True,
            C=1.0,
            pos_weight=weight,
            folds=0,
            quantize=False,
        )
        for weight in ({"y": 8.0}, (1.0, 8.0), 1.0)
    )
    assert linear_of(by_name).config.pos_weight == (1.0, 8.0)
    for model in (by_name, by_place, plain):
        trainer = make_trainer()
        trainer.fit(model, datamodule=data)
        trainer.save_checkpoint(tmp_path / "model.pt")
    for name, tensor in by_name.state_dict().items():
        assert torch.equal(tensor, by_place.state_dict()[name]), name
    ours, usual = (linear_of(model).arrays()["weight"] for model in (by_name, plain))
    np.testing.assert_array_equal(ours[:, 0], usual[:, 0])
    assert (ours[:, 1] != usual[:, 1]).any()
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert linear_of(loaded).config == linear_of(plain).config


class Watching(Callback):
    """Counts what a user's callback sees."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1


def test_callbacks_see_the_passes_and_the_fit_ends_at_the_optimum(make_data: Any, make_trainer: Any) -> None:
    data, watching = make_data(), Watching()
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(max_epochs=50, callbacks=[watching])
    trainer.fit(model, datamodule=data)
    assert trainer.current_epoch == 1
    passes = trainer.optimizers[0].passes
    assert watching.steps == trainer.global_step == passes + 1 > 3  # a loader looks one batch ahead


def test_the_most_passes_are_kept_to(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True, max_passes=3, tolerance=1e-9)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    assert trainer.optimizers[0].passes == 3 + 3  # and a step for each fold
    without = TextClassifier(labels=data.labels, multi_label=True, max_passes=3, tolerance=1e-9, folds=0)
    trainer = make_trainer()
    trainer.fit(without, datamodule=data)
    assert trainer.optimizers[0].passes == 3


def test_fast_dev_run_makes_one_pass(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(fast_dev_run=True)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 1


def test_limited_epochs_go_on_where_the_last_one_stopped(make_data: Any, make_trainer: Any) -> None:
    data, states = make_data(), []
    for limits in ({}, {"limit_train_batches": 2, "max_epochs": 50}, {"min_epochs": 3, "max_epochs": 3}):
        model = TextClassifier(labels=data.labels, multi_label=True)
        make_trainer(**limits).fit(model, datamodule=data)
        states.append(model.state_dict())
    for other in states[1:]:
        for name, tensor in states[0].items():
            assert torch.equal(tensor, other[name]), name


def test_a_loaded_model_can_be_fitted_again(
    linear_of: Any, trained: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    model, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    again = make_trainer()
    again.finetune(loaded, datamodule=make_data())
    assert again.optimizers[0].passes < trainer.optimizers[0].passes  # it starts from what it knows
    assert linear_of(loaded).config == linear_of(model).config
    texts = ["a banana", "a zebra", "a hammer and a banana", ""]
    np.testing.assert_allclose(loaded(texts).sigmoid(), model(texts).sigmoid(), atol=0.03)
    np.testing.assert_allclose(loaded.thresholds, model.thresholds, atol=0.05)


def test_a_loaded_model_keeps_the_c_it_chose(
    linear_of: Any, hard_rows: dict[str, Any], make_trainer: Any, tmp_path: Path
) -> None:
    data, trainer = TextClassificationData.from_lists(**hard_rows), make_trainer()
    model = TextClassifier(labels=data.labels, multi_label=True)
    assert linear_of(model).config.C == "auto"
    trainer.fit(model, datamodule=data)
    chosen = linear_of(model).config.C
    assert chosen != "auto"
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    resumed = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer().fit(resumed, datamodule=data, ckpt_path=tmp_path / "model.pt")
    make_trainer().fit(loaded, datamodule=data)
    assert chosen == linear_of(loaded).config.C
    assert chosen == linear_of(resumed).config.C


def test_a_finished_model_file_holds_no_dual_variables(trained: Any, tmp_path: Path) -> None:
    _, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    passes = trainer.optimizers[0].passes
    assert checkpoint.load(tmp_path / "model.pt")["optimizer_states"] == [
        {"converged": True, "passes": passes}
    ]


def test_a_checkpoint_brings_what_its_weights_depend_on(
    make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True, word_share=0.8, buckets=2**12)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    expected = trainer.test(model, data.val_dataloader())
    for share in ("auto", 0.3):
        fresh = TextClassifier(labels=data.labels, multi_label=True, word_share=share, buckets=2**12)
        found = make_trainer().test(fresh, data.val_dataloader(), ckpt_path=tmp_path / "model.ckpt")
        assert found == expected
        assert fresh.backbone.options()["word_share"] == 0.8
    other = TextClassifier(labels=data.labels, multi_label=True)
    with pytest.raises(FlashError, match="has buckets=4096 and this model 4194304; pass buckets=4096"):
        make_trainer().test(other, data.val_dataloader(), ckpt_path=tmp_path / "model.ckpt")


def test_more_labels_than_can_be_fitted_are_refused(make_trainer: Any) -> None:
    names = ",".join(f"label {number}" for number in range(MOST_LABELS + 1))
    data = TextClassificationData.from_lists(train_data=["a", "b"], train_targets=[names, ""])
    with pytest.raises(FlashError) as found:
        make_trainer().fit(TextClassifier(labels=data.labels), datamodule=data)
    assert str(found.value) == (
        "there are 10,001 labels, and the linear backbone, which fits each label on all rows, takes 10,000 at most; check "
        "that target_fields= names a column of labels and label_delimiter= what separates them, or keep the frequent "
        "ones: pass labels=[...] and unknown_labels='ignore'"
    )
