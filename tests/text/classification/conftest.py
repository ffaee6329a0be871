"""A small task that can be learned: each label has a word of its own."""

from collections.abc import Callable
from typing import Any

import pytest

from flash import Trainer
from flash.text import TextClassificationData, TextClassifier

WORDS = {"fruit": "banana", "animal": "zebra", "tool": "hammer"}


def small_rows(count: int = 240) -> tuple[list[str], list[list[str]]]:
    """Texts with any of three words, and the labels that these mean; every eighth text has none."""
    texts, targets = [], []
    for row in range(count):
        present = [label for bit, label in enumerate(WORDS) if row >> bit & 1]
        texts.append(
            f"row {row} tells of " + " and ".join([WORDS[label] for label in present] or ["nothing"])
        )
        targets.append(present)
    return texts, targets


@pytest.fixture
def make_data() -> Callable[..., TextClassificationData]:
    """A datamodule of the small task; keywords go to `from_lists`."""

    def make(**keywords: Any) -> TextClassificationData:
        texts, targets = small_rows()
        keywords = {
            "train_data": texts,
            "train_targets": targets,
            "val_split": 0.25,
            "batch_size": 16,
            **keywords,
        }
        return TextClassificationData.from_lists(**keywords)

    return make


@pytest.fixture
def make_trainer(tmp_path: Any) -> Callable[..., Trainer]:
    """A trainer that writes nothing outside the test's folder and shows no bar."""

    def make(**keywords: Any) -> Trainer:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        return Trainer(
            **{"accelerator": "cpu", "max_epochs": 1, "default_root_dir": tmp_path, **quiet, **keywords}
        )

    return make


@pytest.fixture
def trained(make_data: Any, make_trainer: Any) -> tuple[TextClassifier, Trainer, TextClassificationData]:
    """A model, the trainer that fitted it, and its data."""
    data, trainer = make_data(), make_trainer()
    model = TextClassifier(labels=data.labels, multi_label=data.multi_label)
    trainer.finetune(model, datamodule=data)
    return model, trainer, data
