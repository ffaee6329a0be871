"""The original's own toxic-comments script, `backbone=` a folder whose head carries the six labels, as its users wrote it."""

from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
import torch

import flash
from flash.__main__ import main
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.predictor import Predictor
from flash.text.classification.sample import sample_table

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
HEAD = [*LABELS[3:], *LABELS[:3]]
"""The folder has the labels in another order: they are matched by name."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT for the six labels, with a tokenizer of the sample's words."""
    made = tmp_path_factory.mktemp("toxic-bert")
    texts = sample_table(400)["comment_text"].to_pylist()
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        texts,
        tokenizers.trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False),
    )
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(made)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=inner.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        id2label=dict(enumerate(HEAD)),
        label2id={label: index for index, label in enumerate(HEAD)},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(made)
    return made


@pytest.fixture
def train_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    pyarrow.csv.write_csv(sample_table(400), "train.csv")
    return "train.csv"


@pytest.mark.parametrize("strategy", ["freeze", "no_freeze"])
def test_the_script(strategy: str, folder: Path, train_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    datamodule = TextClassificationData.from_csv(
        "comment_text", LABELS, train_file=train_file, val_split=0.25, batch_size=16
    )
    model = TextClassifier(
        backbone=str(folder), labels=datamodule.labels, multi_label=True, learning_rate=3e-3
    )
    assert isinstance(model.backbone, EncoderModule)
    assert model.backbone.encoder.kept_head
    before = {name: tensor.clone() for name, tensor in model.backbone.encoder.named_parameters()}
    trainer = flash.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.finetune(model, datamodule=datamodule, strategy=strategy)
    table = capsys.readouterr().out
    assert all(label in table for label in LABELS)
    moved = {
        name
        for name, tensor in model.backbone.encoder.named_parameters()
        if not torch.equal(tensor, before[name])
    }
    assert moved
    assert all(name.startswith("head.") for name in moved) is (strategy == "freeze")

    datamodule = TextClassificationData.from_lists(
        predict_data=["No, he is an idiot who should leave this state.", "Thank you, that helped."],
        batch_size=4,
    )
    predictions: Any = trainer.predict(model, datamodule=datamodule, output="labels")
    assert len(predictions) == 1
    assert all(set(labels) <= set(LABELS) for labels in predictions[0])
    trainer.save_checkpoint("text_classification_multi_label_model.pt")
    loaded = TextClassifier.load_from_checkpoint("text_classification_multi_label_model.pt")
    assert trainer.predict(loaded, datamodule=datamodule, output="labels") == predictions


def test_the_command(folder: Path, train_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.backbone", str(folder), "--model.learning_rate", "3e-3", "--strategy", "freeze"]
    trainer = [
        "--trainer.max_epochs",
        "1",
        "--trainer.accelerator",
        "cpu",
        "--trainer.enable_progress_bar",
        "false",
    ]
    source = [
        "from_csv",
        "--input_field",
        "comment_text",
        "--target_fields",
        *LABELS,
        "--train_file",
        train_file,
    ]
    assert main(["text_classification", *words, *trainer, "--output", "model.pt", *source]) == 0
    printed = capsys.readouterr().out
    assert all(label in printed for label in LABELS)
    assert list(Predictor.load("model.pt").labels) == LABELS
