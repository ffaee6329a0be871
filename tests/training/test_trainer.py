"""flash.Trainer: Flash's words on today's Lightning."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from flash import Trainer
from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.training.flash_arguments import translate_gpus
from flash.training.trainer import _without_advertisements


def quiet(tmp_path: Path, **keywords: Any) -> Trainer:
    off = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{"accelerator": "cpu", "max_epochs": 1, "default_root_dir": tmp_path, **off, **keywords})


def test_gpus_is_translated_with_one_deprecation_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(max_epochs=1, gpus=0, logger=False, default_root_dir=tmp_path)
    ours = [warning for warning in caught if "gpus" in str(warning.message)]
    assert len(ours) == 1
    assert ours[0].category is DeprecationWarning
    assert str(ours[0].message) == "Trainer(gpus=0) is deprecated; write Trainer(accelerator='cpu')"
    assert ours[0].filename == __file__


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (0, {"accelerator": "cpu"}),
        (2, {"accelerator": "gpu", "devices": 2}),
        (-1, {"accelerator": "gpu", "devices": -1}),
        ("1", {"accelerator": "gpu", "devices": 1}),
        ("0,3", {"accelerator": "gpu", "devices": [0, 3]}),
        ([0, 3], {"accelerator": "gpu", "devices": [0, 3]}),
    ],
)
def test_translations(gpus: Any, expected: dict[str, Any]) -> None:
    assert translate_gpus(gpus) == expected


def test_gpus_that_are_no_number(tmp_path: Path) -> None:
    with pytest.raises(FlashError, match="gpus='two' is not understood; expected a number of GPUs"):
        translate_gpus("two")


def test_unknown_strategy(tmp_path: Path) -> None:
    with pytest.raises(FlashError, match="unknown finetuning strategy 'frozen'"):
        quiet(tmp_path).finetune(TextClassifier(num_classes=2), strategy="frozen")


def test_predict_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FlashError, match=r"no model to predict with; pass one: trainer\.predict\(model"):
        quiet(tmp_path).predict()


@pytest.mark.parametrize("number", [1, 5])
def test_every_output_has_one_entry_a_text_in_batches_as_asked(tmp_path: Path, number: int) -> None:
    model = TextClassifier(labels=["a", "b"], multi_label=True)
    of_one_feature = {name: np.zeros(1, np.float32) for name in ("idf", "scale")}
    weights = {"weight": np.ones((1, 2), np.float32), "bias": np.zeros(2, np.float32)}
    model.backbone.linear.load_arrays({"buckets": np.zeros(1, np.int32), **of_one_feature, **weights})  # type: ignore[union-attr, operator]  # every logit is 0
    texts = [f"text {row}" for row in range(number)]
    data = TextClassificationData.from_lists(predict_data=texts, batch_size=2)
    sizes = [2] * (number // 2) + [1] * (number % 2)

    def predict(output: Any, **keywords: Any) -> list[Any]:
        return quiet(tmp_path).predict(model, datamodule=data, output=output, **keywords) or []

    assert predict("labels") == [[["a", "b"]] * size for size in sizes]
    assert predict("labels", thresholds=0.6) == [[[]] * size for size in sizes]
    assert predict("labels", thresholds={"b": 0.6}) == [[["a"]] * size for size in sizes]
    assert predict("classes", thresholds=[0.6, 0.4]) == [[[1]] * size for size in sizes]
    for output, value in [("probabilities", 0.5), ("logits", 0.0)]:
        assert predict(output) == [[[value] * 2] * size for size in sizes]
    for preds in ("preds", None):
        batches = predict(preds)
        assert [tuple(batch.shape) for batch in batches] == [(size, 2) for size in sizes]
        assert all(batch.dtype == torch.float32 and not batch.any() for batch in batches)
    assert predict(lambda probabilities: float(probabilities.sum())) == [float(size) for size in sizes]
    with pytest.raises(FlashError, match="unknown output 'lables'; did you mean 'labels'"):
        predict("lables")


@pytest.mark.parametrize(
    ("terminal", "asked", "expected"),
    [(False, None, False), (True, None, True), (False, True, True), (True, False, False)],
)
def test_a_progress_bar_is_for_a_terminal_or_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, asked: bool | None, expected: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=asked)
    assert (trainer.progress_bar_callback is not None) is expected


def test_a_progress_bar_among_the_callbacks_is_asked_for(tmp_path: Path) -> None:
    bar = TQDMProgressBar()
    assert Trainer(default_root_dir=tmp_path, accelerator="cpu", callbacks=bar).progress_bar_callback is bar


def test_lines_about_other_products_are_kept_back(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level("INFO"):
        with _without_advertisements():
            log.info("\N{ELECTRIC LIGHT BULB} Tip: try another product")
            log.info("TPU available: False, using: 0 TPU cores")
            log.info("a line of ours")
        log.info("TPU available: False")  # of another trainer
    assert [record.getMessage() for record in caplog.records] == ["a line of ours", "TPU available: False"]


def test_verbs_without_a_model_or_rows_are_sentences(tmp_path: Path) -> None:
    trainer = quiet(tmp_path)
    with pytest.raises(FlashError, match=r"no model to save; train one first: trainer\.fit\(model"):
        trainer.save_checkpoint(tmp_path / "model.pt")
    with pytest.raises(FlashError, match=r"no tune any more; leave it out: .* then trainer\.fit\(model"):
        trainer.tune(TextClassifier(2))
    with pytest.raises(FlashError, match=r"no model to test; pass one: trainer\.test\(model, datamodule="):
        trainer.test()
    with pytest.raises(FlashError, match=r"no validation rows; pass them: trainer\.validate\(model"):
        trainer.validate(TextClassifier(2))
    with pytest.raises(FlashError, match=r"no texts to predict; pass them: trainer\.predict\(model"):
        trainer.predict(TextClassifier(2))


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_test_right_after_a_fit_takes_its_model_and_datamodule(tmp_path: Path, checkpoints: bool) -> None:
    rows: dict[str, Any] = {"train_data": ["good", "bad"] * 4, "train_targets": [["x"], ["y"]] * 4}
    datamodule = TextClassificationData.from_lists(**rows, test_data=["good"], test_targets=[["x"]])
    model = TextClassifier(labels=datamodule.labels, multi_label=True)
    trainer = Trainer(default_root_dir=tmp_path, logger=False, max_epochs=1, enable_checkpointing=checkpoints)
    trainer.fit(model, datamodule=datamodule)
    (found,) = trainer.test()
    assert found == pytest.approx(trainer.test(model, datamodule)[0], nan_ok=True)
    assert found == pytest.approx(trainer.test(model, datamodule=datamodule)[0], nan_ok=True)
    with pytest.raises(FlashError, match=r"no predict rows; pass predict_file=, predict_data="):
        trainer.predict()
    without = Trainer(default_root_dir=tmp_path, logger=False, max_epochs=1, enable_checkpointing=False)
    without.fit(model, datamodule=TextClassificationData.from_lists(**rows))
    with pytest.raises(FlashError, match=r"no test rows; pass test_file=, test_data="):
        without.test()


@pytest.mark.parametrize("as_loader", [False, True])
def test_validation_without_rows_is_refused(as_loader: bool, tmp_path: Path) -> None:
    data = TextClassificationData.from_lists(train_data=["a", "b"], train_targets=[["x"], ["y"]])
    trainer, model = quiet(tmp_path), TextClassifier(labels=["x", "y"])
    with pytest.raises(FlashError) as found:
        trainer.validate(model, data.val_dataloader() if as_loader else data)
    assert str(found.value) == (
        "there are no validation rows to measure on; give the datamodule val_file=, val_data= or val_split="
    )
