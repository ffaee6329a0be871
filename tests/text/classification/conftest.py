"""What tests of a task share: small tasks that can be learned, a trainer, and contents of model files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash import Trainer
from flash.core.errors import CheckpointError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.linear.model import Linear
from flash.text.classification.backbones.linear.module import LinearModule
from flash.text.classification.dataset import TextDataset

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


@pytest.fixture
def make_single_label_data() -> Callable[..., TextClassificationData]:
    """A datamodule with one label a text; keywords go to `from_lists`."""

    def make(**keywords: Any) -> TextClassificationData:
        rows = range(90)
        return TextClassificationData.from_lists(
            train_data=[f"number {row} is a {'cat' if row % 3 else 'dog'}" for row in rows],
            train_targets=["feline" if row % 3 else "canine" for row in rows],
            **keywords,
        )

    return make


@pytest.fixture
def hard_rows() -> dict[str, Any]:
    """Texts whose words say a label in two of three cases, and another in one of twenty."""
    generator = np.random.default_rng(3)
    words = generator.integers(0, 2, (600, 2))
    labels = generator.random((600, 2)) < np.where(words, [0.66, 0.2], [0.1, 0.02])
    texts = [
        f"row {row} {'alpha' if one else 'beta'} {'gamma' if two else 'delta'}"
        for row, (one, two) in enumerate(words)
    ]
    return {"train_data": texts, "train_targets": [np.array(["x", "y"])[row].tolist() for row in labels]}


@pytest.fixture
def linear_of() -> Callable[[TextClassifier], Linear]:
    """The fitted arrays inside a classifier."""

    def linear(model: TextClassifier) -> Linear:
        assert isinstance(model.backbone, LinearModule)
        return model.backbone.linear

    return linear


@pytest.fixture
def flat_output(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed since the last call, as if on one line."""
    return lambda: " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="session")
def dataset_rows() -> Callable[[TextDataset | None], list[tuple[str, list[float]]]]:
    """Each text of a data set with its targets."""

    def rows(dataset: TextDataset | None) -> list[tuple[str, list[float]]]:
        assert dataset is not None
        assert dataset.targets is not None
        return list(zip(dataset.texts.to_pylist(), dataset.targets.toarray().tolist(), strict=True))

    return rows


@pytest.fixture(scope="session")
def make_content() -> Callable[..., dict[str, Any]]:
    """What a model file holds, with any more tensors."""

    def make(**state: Any) -> dict[str, Any]:
        flash = {
            "format": checkpoint.FORMAT_VERSION,
            "version": "0.1.0",
            "labels": ["toxic", "insult"],
            "multi_label": True,
            "backbone": "linear",
            "backbone_options": {},
        }
        chosen = {
            "thresholds": torch.tensor([0.25, 0.75]),
            "calibration_scale": torch.tensor([2.0, 4.0]),
            "calibration_shift": torch.tensor([-1.0, 0.0]),
        }
        return {"state_dict": {**chosen, **state}, "flash": flash}

    return make


@pytest.fixture(scope="session")
def refusals() -> Callable[[Path], str]:
    """The one sentence in which both readers refuse a file, without a word of another library."""

    def refuse(path: Path) -> str:
        sentences = set()
        for read in (checkpoint.load, checkpoint.read):
            with pytest.raises(CheckpointError) as caught:
                read(path)
            sentences.add(str(caught.value))
        (sentence,) = sentences
        assert not re.search(r"weights_only|torch\.load|\x1b|Error|\n", sentence), sentence
        return sentence

    return refuse


BERT_WORDS = ["row", "tells", "of", "and", "nothing", "banana", "zebra", "hammer"]


def _make_bert(folder: Path, hidden: int = 32, **config: Any) -> Path:
    """A small BERT of `BERT_WORDS` with random weights and without a head, as `save_pretrained` writes it."""
    transformers, tokenizers = map(pytest.importorskip, ("transformers", "tokenizers"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *BERT_WORDS]
    vocabulary = {word: index for index, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "max_position_embeddings": 40}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(words)}
    transformers.BertModel(transformers.BertConfig(**shape, **config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_bert() -> Callable[..., Path]:
    """Makes a small BERT in a folder; keywords go to its configuration."""
    return _make_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bert: Callable[..., Path]) -> Path:
    """A tiny BERT with random weights, without a head."""
    return make_bert(tmp_path_factory.mktemp("encoder"))
