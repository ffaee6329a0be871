"""Loggers and callbacks on the command line: Lightning's spelling, folders, files of options, and sentences."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import callbacks, loggers

from flash.__main__ import main
from flash.cli import components, options
from flash.cli import help as tables
from flash.cli.training import SOURCES, make_trainer
from flash.core.errors import FlashError, MissingExtraError
from flash.training.trainer import Trainer


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(*words: str) -> Trainer:
    """The trainer of a command line, for the linear backbone."""
    parser, given = options.parse(SOURCES, [*words, "from_sample"])
    return make_trainer(components.build(parser, given), one_device=True)


def refused(*words: str) -> str:
    with pytest.raises(FlashError) as caught:
        made(*words)
    return str(caught.value)


@pytest.mark.parametrize("name", ["CSVLogger", "lightning.pytorch.loggers.CSVLogger"])
@pytest.mark.parametrize("spelled", ["=", " "])
def test_a_logger_by_its_short_and_its_full_name(name: str, spelled: str) -> None:
    typed = f"--trainer.logger{spelled}{name} --trainer.logger.save_dir{spelled}logs"
    trainer = made(*typed.split())
    assert isinstance(trainer.logger, loggers.CSVLogger)
    assert trainer.logger.save_dir == "logs"


def test_a_logger_that_needs_a_folder_has_that_of_the_trainer() -> None:
    assert made("--trainer.logger", "CSVLogger").logger.save_dir == "."  # type: ignore[union-attr]
    words = ("--trainer.default_root_dir", "runs", "--trainer.logger+=CSVLogger", "--trainer.logger.name=a")
    trainer = made(*words, "--trainer.logger+", "CSVLogger", "--trainer.logger.save_dir=others")
    assert [logger.save_dir for logger in trainer.loggers] == ["runs", "others"]
    assert [logger.name for logger in trainer.loggers] == ["a", "lightning_logs"]


def test_callbacks_with_their_options() -> None:
    words = "--trainer.callbacks=EarlyStopping --trainer.callbacks.monitor=val_loss --trainer.callbacks.patience=7"
    trainer = made(
        *words.split(), "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"
    )
    stopping, saving = trainer.early_stopping_callback, trainer.checkpoint_callback
    assert stopping is not None
    assert (stopping.monitor, stopping.patience) == ("val_loss", 7)
    assert isinstance(saving, callbacks.ModelCheckpoint)
    assert saving.save_last is True
    # checkpoints and bars only of callbacks that are there
    assert made().checkpoint_callback is None
    assert isinstance(
        made("--trainer.callbacks", "TQDMProgressBar").progress_bar_callback, callbacks.TQDMProgressBar
    )


def test_the_saved_options_make_the_same_logger_and_callbacks() -> None:
    words = [
        "--trainer.logger",
        "CSVLogger",
        "--trainer.logger.name",
        "mine",
        "--trainer.logger.flush_logs_every_n_steps",
        "1",
    ]
    words += ["--trainer.callbacks", "Timer", "--trainer.callbacks.duration", "00:12:00:00"]
    train = ["text_classification", "--output", "a.pt", *words, "from_sample", "--rows", "200"]
    assert main(train) == 0
    saved = yaml.safe_load(Path("a.yaml").read_text())["trainer"]
    assert saved["logger"]["init_args"]["name"] == "mine"
    again = made("--config", "a.yaml")
    assert isinstance(again.logger, loggers.CSVLogger)
    assert again.logger.name == "mine"
    assert any(isinstance(one, callbacks.Timer) for one in vars(again)["callbacks"])
    # what the logger has: hyper-parameters, and the numbers of the table
    folder = Path("mine/version_0")
    told = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert told["model/backbone"] == "linear"
    assert told["data/train_rows"] == 180
    assert told["trainer/finetuning"] == "no_freeze"
    with (folder / "metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert {"val_loss", "val_macro_f1", "val_f1/toxic", "val_roc_auc/toxic", "val_brier"} <= set(row)


def test_a_handwritten_file_of_options() -> None:
    Path("mine.yaml").write_text(
        "trainer:\n  logger:\n    class_path: CSVLogger\n    init_args: {save_dir: logs}\n"
        "  callbacks:\n  - class_path: EarlyStopping\n    init_args: {monitor: val_loss}\n"
    )
    trainer = made("--config", "mine.yaml")
    assert trainer.logger is not None
    assert trainer.logger.save_dir == "logs"
    assert trainer.early_stopping_callback is not None
    Path("mine.yaml").write_text("trainer:\n  logger: CSVLogger\n")
    assert "CSVLogger needs save_dir; type --trainer.logger.save_dir VALUE after its name" in refused(
        "--config", "mine.yaml"
    )


LOGGER, CALLBACK = "--trainer.logger", "--trainer.callbacks"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([LOGGER, "CSVLogge"], "unknown logger 'CSVLogge'; did you mean 'CSVLogger'? Known: CSVLogger, "),
        ([LOGGER, "CSVLogger", LOGGER + ".save_di", "x"], "unknown option of CSVLogger 'save_di'; did you mean"),
        ([LOGGER, "CSVLogger", LOGGER + ".flush_logs_every_n_steps", "x"], "x is not understood; CSVLogger expects int"),
        ([LOGGER + ".save_dir", "logs"], "--trainer.logger.save_dir needs a class before it, such as --trainer.logger CSV"),
        ([LOGGER, "true", LOGGER + ".save_dir", "logs"], "--trainer.logger.save_dir needs a class before it"),
        ([CALLBACK, "EarlyStoping"], "unknown callback 'EarlyStoping'; did you mean 'EarlyStopping'?"),
        ([CALLBACK, "lightning.pytorch.callbacks.EarlyStoping"], "did you mean 'EarlyStopping'?"),
        ([CALLBACK, "EarlyStopping"], "EarlyStopping needs monitor; type --trainer.callbacks.monitor VALUE after its"),
        ([CALLBACK, "os.path.join"], "--trainer.callbacks os.path.join is no callback; expected one of"),
        ([CALLBACK, "nowhere.Mine"], "--trainer.callbacks nowhere.Mine: No module named 'nowhere'"),
        ([CALLBACK, "Timer", "ModelCheckpoint"], "ModelCheckpoint stands where a source is expected; type --trainer.callbacks+="),
        ([CALLBACK, "Timer", CALLBACK, "ModelSummary"], "given twice; to have both, type --trainer.callbacks+=ModelSummary"),
        ([CALLBACK, "EarlyStopping", CALLBACK + ".monitor=a", CALLBACK + ".mode=up"], "EarlyStopping: `mode` can be min, max"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(words: list[str], sentence: str) -> None:
    found = refused(*words)
    assert sentence in found
    assert found.endswith("see flash text_classification --help") or "given twice" in found
    assert "\n" not in found


def test_an_option_of_a_logger_after_the_source() -> None:
    with pytest.raises(FlashError, match=r"--trainer.logger.save_dir belongs before from_sample"):
        options.parse(SOURCES, ["from_sample", "--trainer.logger.save_dir", "logs"])


@pytest.fixture
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers.TensorBoardLogger, "__init__", _needs_tensorboard)


def _needs_tensorboard(self: Any, save_dir: str, **rest: Any) -> None:
    raise ModuleNotFoundError(
        "Requirement 'tensorboard' not met. HINT: Try running `pip install -U 'tensorboard'`"
    )


def test_a_logger_without_its_package_says_what_to_install(without_tensorboard: None) -> None:
    with pytest.raises(MissingExtraError) as caught:
        made("--trainer.logger", "TensorBoardLogger")
    assert str(caught.value) == (
        "TensorBoardLogger needs the package 'tensorboard', which is not installed; type: pip install tensorboard"
    )


def test_the_help_names_what_there_is() -> None:
    words = set(re.findall(r"\w+", tables.TRAINER.remarks))
    assert {"CSVLogger", "TensorBoardLogger", "WandbLogger", "MLFlowLogger"} <= words
    known = {*components.class_names("trainer.logger"), *components.class_names("trainer.callbacks")}
    assert {
        word for word in words if re.fullmatch(r"([A-Z]+[a-z]+)+(Logger|Stopping|Checkpoint)", word)
    } <= known
    for line in tables.TRAINER.remarks.splitlines():
        if line.strip().startswith("--trainer.") and "Wandb" not in line:
            before = ["--trainer.callbacks", "Timer"] if "callbacks+" in line else []
            assert made(*before, *line.split()) is not None
