"""A classifier's files: saved, loaded, resumed from, and refused."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from safetensors.torch import load_file

from flash.core.errors import CheckpointError, FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.predictor import Predictor


def test_save_load_predict_agree_to_the_bit(trained: Any, make_trainer: Any, tmp_path: Path) -> None:
    model, trainer, _ = trained
    path = tmp_path / "model.pt"
    trainer.save_checkpoint(path)
    texts = ["a banana", "a zebra with a hammer", "", "nothing at all", "🦓"]
    data = TextClassificationData.from_lists(predict_data=texts, batch_size=2)
    before = trainer.predict(model, datamodule=data, output="logits")
    loaded = TextClassifier.load_from_checkpoint(path)
    after = make_trainer().predict(loaded, datamodule=data, output="logits")
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(after))
    np.testing.assert_array_equal(np.concatenate(before), Predictor.load(path).logits(texts))
    assert loaded.labels == model.labels
    assert loaded.multi_label
    assert trainer.predict(model, datamodule=data, output="labels") == make_trainer().predict(
        loaded, datamodule=data, output="labels"
    )
    assert torch.equal(load_file(path)["thresholds"], model.thresholds)  # safetensors' own reader


def test_the_same_model_is_the_same_file(
    trained: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    _, trainer, _ = trained
    for name in ("one.pt", "two.pt"):
        trainer.save_checkpoint(tmp_path / name)
    data, again = make_data(), make_trainer()
    again.finetune(TextClassifier(labels=data.labels, multi_label=True), datamodule=data)
    again.save_checkpoint(tmp_path / "three.pt")
    one, two, three = ((tmp_path / f"{name}.pt").read_bytes() for name in ("one", "two", "three"))
    assert one == two == three


@pytest.mark.parametrize(
    "override",
    [{"multi_label": False}, {"labels": ["c", "b", "a"]}, {"buckets": 64}, {"C": 2.0}],
)
def test_what_the_weights_were_trained_with_cannot_be_overridden(
    trained: Any, tmp_path: Path, override: dict[str, Any]
) -> None:
    _, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    with pytest.raises(
        FlashError, match=f"{next(iter(override))} cannot be changed: the weights of .* were trained with it"
    ):
        TextClassifier.load_from_checkpoint(tmp_path / "model.pt", **override)


def test_lightnings_keywords_of_load_from_checkpoint(trained: Any, tmp_path: Path) -> None:
    model, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(
        tmp_path / "model.pt", map_location="cpu", strict=True, hparams_file=None
    )
    assert loaded.labels == model.labels


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": np.float64(0.1)},
        {"optimizer": functools.partial(torch.optim.Adam, lr=1.0)},
        {"optimizer": torch.optim.SGD},
        {"thresholds": np.full(3, 0.25, np.float32)},
        {"thresholds": (0.25, 0.25, 0.25)},
    ],
)
def test_settings_of_any_type_are_saved(
    make_data: Any, make_trainer: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True, **settings)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert torch.equal(loaded.thresholds, model.thresholds)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_any_precision_of_the_trainer_saves_a_model_that_loads(
    make_data: Any, make_trainer: Any, tmp_path: Path, precision: str
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(precision=precision)
    trainer.fit(model, datamodule=data)
    trainer.validate(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    assert Predictor.load(tmp_path / "model.pt").predict(["a banana"]) == [["fruit"]]


def test_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("id,text\n")
    with pytest.raises(CheckpointError, match="is no model file of this library"):
        TextClassifier.load_from_checkpoint(tmp_path / "model.pt")


def test_checkpoints_of_lightnings_callback_load(make_data: Any, make_trainer: Any, tmp_path: Path) -> None:
    data = make_data()
    keeper = ModelCheckpoint(tmp_path / "kept", monitor="val_micro_f1", mode="max", save_last=True)
    trainer = make_trainer(enable_checkpointing=True, callbacks=[keeper])
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer.fit(model, datamodule=data)
    best = TextClassifier.load_from_checkpoint(keeper.best_model_path)
    np.testing.assert_array_equal(best.thresholds.numpy(), model.thresholds.numpy())
    assert checkpoint.read(keeper.last_model_path)["flash"]["labels"] == model.labels


class Diary(Callback):
    """A callback whose state no checkpoint can hold."""

    folder: Any = Path("somewhere")

    def state_dict(self) -> dict[str, Any]:
        return {"folder": self.folder}


def test_a_callback_that_cannot_be_kept_is_refused_before_the_first_epoch(
    make_data: Any, make_trainer: Any
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True)
    words = (
        r"the state of Diary\['folder'\], a pathlib\..*Path, cannot be kept in a checkpoint, which holds only tensors "
        r"and plain values; keep its name or its numbers instead, in its state_dict\(\), or leave the callback out"
    )
    with pytest.raises(FlashError, match=words):
        make_trainer(callbacks=[Diary()]).fit(model, datamodule=data)
    assert not model.backbone.fitted


def test_a_callback_that_cannot_be_kept_later_does_not_cost_the_model(
    make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, diary = make_data(), Diary()
    trainer, diary.folder = make_trainer(callbacks=[diary]), "somewhere"
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer.fit(model, datamodule=data)
    diary.folder = Path("somewhere")
    with pytest.warns(
        UserWarning, match=r"model\.pt is saved without this: the state of Diary\['folder'\], a pathlib"
    ):
        trainer.save_checkpoint(tmp_path / "model.pt")
    assert TextClassifier.load_from_checkpoint(tmp_path / "model.pt").labels == model.labels


class Stop(Callback):
    """Saves after a number of passes, as a job that is killed there would have."""

    def __init__(self, passes: int, path: Path) -> None:
        self.passes, self.path = passes, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.passes:
            trainer.save_checkpoint(self.path)


def test_resuming_ends_where_an_uninterrupted_run_does(
    make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, path = make_data(), tmp_path / "stopped.ckpt"
    whole = TextClassifier(labels=data.labels, multi_label=True)
    uninterrupted = make_trainer(callbacks=[Stop(2, path)])
    uninterrupted.fit(whole, datamodule=data)
    resumed, trainer = TextClassifier(labels=data.labels, multi_label=True), make_trainer()
    trainer.fit(resumed, datamodule=data, ckpt_path=path)
    assert trainer.global_step == uninterrupted.global_step > 2
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_resuming_anywhere_without_validation_rows(
    linear_of: Any, make_data: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between two passes, two values of the C and two folds: the same model and the same table."""
    data = make_data(val_split=None)  # 240 rows: enough to choose the C
    whole = TextClassifier(labels=data.labels, multi_label=True)
    steps = range(1, 40)
    trainer = make_trainer(callbacks=[Stop(step, tmp_path / f"{step}.ckpt") for step in steps])
    trainer.fit(whole, datamodule=data)
    table = capsys.readouterr().out
    assert table.startswith("Cross-validation on the training rows: 240 rows")
    last = trainer.optimizers[0].passes
    assert 10 < last < 40
    for step in range(1, last + 1):
        resumed = TextClassifier(labels=data.labels, multi_label=True)
        make_trainer().fit(resumed, datamodule=data, ckpt_path=tmp_path / f"{step}.ckpt")
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (step, name)
        assert linear_of(resumed).config == linear_of(whole).config
        ended = "Nothing was measured: this run had ended before, and the model stays as it was.\n"
        assert capsys.readouterr().out == (table if step < last else ended)


def test_resuming_a_finished_run_keeps_the_model(
    trained: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    model, trainer, data = trained
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    resumed = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer(max_epochs=5).fit(resumed, datamodule=data, ckpt_path=tmp_path / "done.ckpt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks:UserWarning")
def test_resuming_after_the_last_pass_validates_and_keeps_the_threshold(
    make_data: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data()
    keeper = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(enable_checkpointing=True, callbacks=[keeper])
    trainer.fit(whole, datamodule=data)
    for step in range(1, trainer.global_step + 1):
        resumed = TextClassifier(labels=data.labels, multi_label=True)
        capsys.readouterr()
        make_trainer().fit(resumed, datamodule=data, ckpt_path=tmp_path / f"step={step}.ckpt")
        assert "Validation: 60 rows" in capsys.readouterr().out
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (step, name)


def test_limited_runs_resume_as_if_uninterrupted(make_data: Any, make_trainer: Any, tmp_path: Path) -> None:
    data, limits = make_data(), {"limit_train_batches": 2}
    whole = TextClassifier(labels=data.labels, multi_label=True, tolerance=1e-9)
    make_trainer(max_epochs=3, **limits).fit(whole, datamodule=data)
    first = TextClassifier(labels=data.labels, multi_label=True, tolerance=1e-9)
    trainer = make_trainer(max_epochs=2, **limits)
    trainer.fit(first, datamodule=data)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed = TextClassifier(labels=data.labels, multi_label=True, tolerance=1e-9)
    make_trainer(max_epochs=3, **limits).fit(resumed, datamodule=data, ckpt_path=tmp_path / "two.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_resuming_with_other_labels_is_refused(trained: Any, make_trainer: Any, tmp_path: Path) -> None:
    _, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    data = TextClassificationData.from_lists(train_data=["a", "b"], train_targets=[["x"], ["y"]])
    model = TextClassifier(labels=data.labels, multi_label=True)
    with pytest.raises(
        FlashError, match="the checkpoint's labels .animal, fruit, tool. are not this model's .x, y."
    ):
        make_trainer().fit(model, datamodule=data, ckpt_path=tmp_path / "model.ckpt")


def test_thresholds_of_the_user_outlive_a_resume_and_a_checkpoint_of_predict(
    trained: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    _, trainer, data = trained
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    model = TextClassifier(labels=data.labels, multi_label=True, thresholds=0.7)
    make_trainer().fit(model, datamodule=data, ckpt_path=tmp_path / "done.ckpt")
    np.testing.assert_allclose(model.thresholds.numpy(), [0.7] * 3, rtol=1e-6)
    fresh = TextClassifier(labels=data.labels, multi_label=True)
    texts = TextClassificationData.from_lists(predict_data=["a banana and a zebra"])
    path = tmp_path / "done.ckpt"
    chosen = make_trainer().predict(
        fresh, datamodule=texts, output="labels", thresholds={"fruit": 1.0}, ckpt_path=path
    )
    assert chosen == [[["animal"]]]
