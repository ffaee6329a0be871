"""Arguments of Lightning Flash's trainers, and objects of another Lightning."""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import BaseFinetuning
from torch.utils.data import DataLoader

import flash
from flash.core.errors import DataError, FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.training.flash_arguments import REPLACED, check_arguments, with_gpus


@pytest.fixture
def data() -> TextClassificationData:
    return TextClassificationData.from_lists(
        train_data=["goal a", "soup b"] * 12, train_targets=[["s"], ["f"]] * 12, predict_data=["goal"]
    )


@pytest.fixture
def trainer(tmp_path: Path) -> flash.Trainer:
    off: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return flash.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **off)


@pytest.mark.parametrize("name", REPLACED)
def test_an_argument_of_another_time_gets_the_one_to_write(name: str) -> None:
    with pytest.raises(FlashError, match=f"^Trainer.{name}=7. is not an argument of today's trainer: "):
        flash.Trainer(**{name: 7})
    assert check_arguments({name: None}) == {}  # Flash's default


def test_a_mistyped_argument() -> None:
    with pytest.raises(
        FlashError, match="unknown argument of Trainer 'max_epoch'; did you mean 'max_epochs'"
    ):
        flash.Trainer(max_epoch=1)


@pytest.mark.parametrize("name", ["callbacks", "logger"])
def test_objects_of_the_other_lightning_are_refused(name: str) -> None:
    other = pytest.importorskip("pytorch_lightning")

    class Mine(other.Callback):  # type: ignore[misc, name-defined]
        pass

    given, said = {
        "callbacks": (
            [other.callbacks.EarlyStopping("val_loss")],
            "callbacks: EarlyStopping is of pytorch_lightning, whose classes are not those of lightning.pytorch; "
            "write: from lightning.pytorch.callbacks import EarlyStopping",
        ),
        "logger": (
            other.loggers.CSVLogger("."),
            "logger: CSVLogger is of pytorch_lightning, whose classes are not those of lightning.pytorch; write: from "
            "lightning.pytorch.loggers import CSVLogger",
        ),
    }[name]
    with pytest.raises(FlashError) as caught:
        flash.Trainer(**{name: given})
    assert str(caught.value) == said
    with pytest.raises(FlashError, match="callbacks: Mine derives from Callback and is of pytorch_lightning"):
        flash.Trainer(callbacks=Mine())


def test_gpus_with_other_arguments() -> None:
    assert with_gpus(2, {"accelerator": "auto", "devices": "auto"})[0] == {"accelerator": "gpu", "devices": 2}
    assert with_gpus(0, {"accelerator": "auto"}) == ({"accelerator": "cpu"}, "accelerator='cpu'")
    assert with_gpus(1, {"accelerator": "cuda"})[0] == {"accelerator": "cuda", "devices": 1}
    with pytest.raises(
        FlashError, match="gpus=2 is accelerator='gpu', and accelerator='cpu' is given too; leave gpus out"
    ):
        with_gpus(2, {"accelerator": "cpu"})


@pytest.mark.filterwarnings("ignore:Trainer.gpus=0. is deprecated:DeprecationWarning")
def test_options_of_a_scripts_own_command_line() -> None:
    parser = flash.Trainer.add_argparse_args(ArgumentParser())
    parser.add_argument("--own", default=1)
    words = ["--max_epochs", "2", "--gpus", "0", "--fast_dev_run", "--limit_train_batches", "0.5"]
    trainer = flash.Trainer.from_argparse_args(parser.parse_args(words), logger=False, fast_dev_run=False)
    assert (trainer.max_epochs, trainer.limit_train_batches) == (2, 0.5)
    assert type(trainer.accelerator).__name__ == "CPUAccelerator"


def test_data_in_any_place(data: TextClassificationData, trainer: flash.Trainer) -> None:
    fits: list[Callable[[TextClassifier], None]] = [
        lambda model: trainer.fit(model, data),
        lambda model: trainer.fit(model, train_dataloader=data.train_dataloader()),
        lambda model: trainer.finetune(model, data, strategy="freeze", train_bn=False),
    ]
    predict: Any = trainer.predict  # whose third argument is the datamodule, and Flash's the output
    for fit in fits:
        model = TextClassifier(labels=data.labels, multi_label=True)
        fit(model)
        assert "s" in predict(model, data, "labels")[0][0]
    assert trainer.predict(model, data, output="labels", thresholds=1.0) == [[[]]]


@pytest.mark.parametrize("texts", [["goal", "soup"], ("goal", "soup")])
def test_texts_themselves_are_predicted(
    texts: Any, data: TextClassificationData, trainer: flash.Trainer
) -> None:
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer.fit(model, data)
    assert trainer.predict(model, texts, output="labels") == [[["s"], ["f"]]]


@pytest.mark.parametrize("texts", ["goal", {"text": ["goal"]}, {"goal"}, [None]])
def test_what_is_no_list_of_texts(texts: Any, data: TextClassificationData, trainer: flash.Trainer) -> None:
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer.fit(model, data)
    with pytest.raises(FlashError, match="text"):
        trainer.predict(model, texts)


def test_a_loader_of_texts_is_refused(data: TextClassificationData, trainer: flash.Trainer) -> None:
    model = TextClassifier(labels=data.labels, multi_label=data.multi_label)
    trainer.fit(model, data)
    with pytest.raises(DataError) as caught:
        trainer.predict(model, DataLoader(["a text", "another"]))  # type: ignore[arg-type]
    assert str(caught.value) == (
        "a batch to predict is a list, and not rows of a datamodule; pass the texts themselves: trainer.predict(model, "
        "['a text', ...])"
    )


def test_loaders_under_their_earlier_names(trainer: flash.Trainer) -> None:
    data = TextClassificationData.from_lists(
        train_data=["goal", "soup"] * 12,
        train_targets=[["s"], ["f"]] * 12,
        test_data=["goal", "soup"],
        test_targets=[["s"], ["f"]],
    )
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer.fit(model, data)
    [scores] = trainer.test(model, test_dataloaders=data.test_dataloader())
    assert scores["test_f1score"] == scores["test_micro_f1"] == 1
    [scores] = trainer.validate(model, val_dataloaders=data.test_dataloader())
    assert "val_accuracy" in scores


def test_a_callback_of_flashs_time_as_a_strategy(
    data: TextClassificationData, trainer: flash.Trainer
) -> None:
    class Old(BaseFinetuning):
        def freeze_before_training(self, pl_module: Any) -> None: ...

        def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any, opt_idx: int) -> None: ...  # type: ignore[override]

    model = TextClassifier(labels=data.labels, multi_label=True)
    with pytest.raises(
        FlashError, match=r"finetune_function of Old takes opt_idx.*\(self, pl_module, epoch, optimizer\)"
    ):
        trainer.finetune(model, data, strategy=Old())


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("from flash import DataModule", "write flash.text.TextClassificationData"),
        ("from flash.text import TextEmbedder", "text classification alone"),
        (
            "from flash.core.finetuning import FlashBaseFinetuning",
            "lightning.pytorch.callbacks.BaseFinetuning",
        ),
    ],
)
def test_names_that_are_not_here(statement: str, said: str) -> None:
    with pytest.raises(ImportError, match=said):
        exec(statement)


def test_the_sentence_of_a_name_that_moved_is_ours() -> None:
    action: Callable[[], Any] = lambda: flash.Task  # noqa: E731
    with pytest.raises(
        FlashError, match=r"flash.Task of Lightning Flash is not here; write flash.text.TextClassifier"
    ):
        action()
