"""How many of our functions, in how many files, one text crosses: short journeys make code simple (decision 033)."""

import csv
from pathlib import Path

import pytest
from journey import journey

from flash import Trainer
from flash.__main__ import main
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.predictor import Predictor

LABELS = ["zebra", "banana"]


def train(folder: Path) -> None:
    """From a CSV file to a saved model, as in the README."""
    data = TextClassificationData.from_csv(
        "text", LABELS, train_file=str(folder / "train.csv"), val_split=0.1
    )
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.finetune(model, datamodule=data, strategy="no_freeze")
    trainer.save_checkpoint(folder / "model.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model: what is compiled or read once has been."""
    folder = tmp_path_factory.mktemp("journey")
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *LABELS])
        for row in range(60):
            present = [int(row % (2 + place) == 0) for place in range(2)]
            words = [name for name, there in zip(LABELS, present, strict=True) if there]
            writer.writerow([f"row {row} {' '.join(words)}", *present])
    (folder / "texts.csv").write_text("text\na zebra\n")
    train(folder)
    return folder


def test_from_a_csv_file_to_a_saved_model(folder: Path) -> None:
    with journey() as found:
        train(folder)
    found.check(functions=408, files=68)


def test_from_a_csv_file_to_labels_by_the_trainer(folder: Path) -> None:
    classifier = TextClassifier.load_from_checkpoint(folder / "model.pt")
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder)
    with journey() as found:
        data = TextClassificationData.from_csv("text", predict_file=str(folder / "texts.csv"))
        trainer.predict(classifier, datamodule=data, output="labels")
    found.check(functions=54, files=16)


def test_from_a_csv_file_to_labels_by_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "predict",
        str(folder / "model.pt"),
        "--input",
        str(folder / "texts.csv"),
        "--input_field",
        "text",
    ]
    for _ in range(2):  # the first one compiles and caches
        with journey() as found:
            assert main([*words, "--output", str(tmp_path / "labels.csv")]) == 0
    found.check(functions=158, files=36)


def test_from_a_text_to_labels(folder: Path) -> None:
    predictor = Predictor.load(folder / "model.pt")
    with journey() as found:
        predictor.predict(["a zebra"], output="labels")
    found.check(functions=16, files=6)
