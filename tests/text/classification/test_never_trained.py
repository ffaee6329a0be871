"""Models that were never trained: neither predicted with, nor saved, nor served; what counts as trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from flash.core.errors import CheckpointError, FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import Predictor, checkpoint

LABELS = ["animal", "fruit", "tool"]
TEXTS = ["a zebra", "a banana"]
NEVER = "this model was never trained, so its answers would mean nothing; train it with trainer.fit"


@pytest.fixture(params=["linear", "encoder"])
def model(request: pytest.FixtureRequest) -> TextClassifier:
    """A new model of each kind."""
    if request.param == "linear":
        return TextClassifier(labels=LABELS, multi_label=True)
    return TextClassifier(
        backbone=str(request.getfixturevalue("folder")), labels=LABELS, multi_label=True, max_length=16
    )


def unseen() -> TextClassificationData:
    return TextClassificationData.from_lists(predict_data=TEXTS)


def untrained_file(model: TextClassifier, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as earlier versions wrote one of a model that was never trained."""
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    with monkeypatch.context() as earlier:
        earlier.setattr(TextClassifier, "_check_fitted", lambda self: None)
        model.on_save_checkpoint(content)
    checkpoint.save(content, path)
    return path


def test_a_new_model_neither_answers_nor_is_measured_nor_saved_nor_served(
    model: TextClassifier, make_trainer: Callable[..., Any], make_data: Any, tmp_path: Path
) -> None:
    trainer = make_trainer()
    data = make_data(labels=LABELS)
    with pytest.raises(FlashError, match=NEVER):
        trainer.validate(model, datamodule=data)
    with pytest.raises(FlashError, match=NEVER):
        trainer.test(model, data.val_dataloader())
    with pytest.raises(FlashError, match=NEVER):
        trainer.predict(model, datamodule=unseen(), output="labels")
    with pytest.raises(FlashError, match=NEVER):
        trainer.save_checkpoint(tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()
    with pytest.raises(FlashError, match=NEVER):
        model(TEXTS)
    with pytest.raises(FlashError, match=NEVER):
        model.serve(port=0)


def test_a_file_of_one(
    model: TextClassifier, make_trainer: Any, make_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = untrained_file(model, tmp_path / "new.pt", monkeypatch)
    words = r"new\.pt holds a model that was never trained, so its answers would mean nothing; train it, and save it"
    with pytest.raises(CheckpointError, match=words):
        Predictor.load(path)
    loaded = TextClassifier.load_from_checkpoint(path)
    with pytest.raises(FlashError, match=NEVER):
        loaded(TEXTS)
    make_trainer().fit(loaded, datamodule=make_data(labels=LABELS))
    assert loaded(TEXTS).shape == (2, 3)


def test_weights_that_were_loaded_are_trained(
    model: TextClassifier, make_trainer: Any, make_data: Any, tmp_path: Path
) -> None:
    trainer = make_trainer()
    trainer.fit(model, datamodule=make_data(labels=LABELS))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    if model.backbone.name == "linear":
        other = TextClassifier(labels=LABELS, multi_label=True)
    else:
        other = TextClassifier(backbone=model.backbone.name, labels=LABELS, multi_label=True, max_length=16)
    by_path = make_trainer().predict(other, datamodule=unseen(), ckpt_path=tmp_path / "model.ckpt")
    assert len(by_path) == 1
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(TEXTS), model(TEXTS))
    assert TextClassifier.load_from_checkpoint(tmp_path / "model.ckpt")(TEXTS).shape == (2, 3)


def test_a_fit_that_ends_before_its_first_step_has_trained_nothing(
    model: TextClassifier, make_trainer: Any, make_data: Any
) -> None:
    class Stops(Callback):
        def on_train_start(self, *_: Any) -> None:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        make_trainer(callbacks=[Stops()]).fit(model, datamodule=make_data(labels=LABELS))
    with pytest.raises(FlashError, match=NEVER):
        model(TEXTS)


def test_callbacks_write_checkpoints_in_a_fit_from_its_start(
    model: TextClassifier, make_trainer: Any, make_data: Any, tmp_path: Path
) -> None:
    class First(Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "first.ckpt")

    each = ModelCheckpoint(tmp_path / "each", save_last=True)
    trainer = make_trainer(callbacks=[First(), each], enable_checkpointing=True)
    trainer.fit(model, datamodule=make_data(labels=LABELS))
    assert (tmp_path / "first.ckpt").exists()
    assert Predictor.load(each.last_model_path).probabilities(TEXTS).shape == (2, 3)


def test_a_kept_head_is_trained(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: row for row, name in enumerate(LABELS)}}
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizers = pytest.importorskip("tokenizers")
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(tmp_path)
    transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=3, max_position_embeddings=20, **shape, **names)
    ).save_pretrained(tmp_path)
    kept = TextClassifier(backbone=str(tmp_path), labels=LABELS, multi_label=True, max_length=16)
    assert kept(TEXTS).shape == (2, 3)
    other = TextClassifier(backbone=str(tmp_path), labels=["x", "y"], multi_label=True, max_length=16)
    with pytest.raises(FlashError, match=NEVER):
        other(TEXTS)


@pytest.mark.parametrize("name", ["to_torchscript", "to_onnx"])
def test_no_trace_of_a_model_that_reads_texts(model: TextClassifier, name: str, tmp_path: Path) -> None:
    with pytest.raises(FlashError, match="which no trace of torch can: .* and type: flash export MODEL"):
        getattr(model, name)(tmp_path / "out")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"input_ids": [[1, 2]]}, "texts is a dict, not a list of texts; pass the texts alone, as a list"),
        ({"a", "b"}, "texts is a set, not a list of texts; pass a list such as .*: a set has no order"),
        (
            (text for text in TEXTS),
            r"texts is a generator, not a list of texts; pass a list such as \['a text'",
        ),
        ([["a", "b"]], r"texts\[0\] is a list, not a text; pass a flat list such as \['a text'"),
    ],
)
def test_what_is_no_sequence_of_texts_is_refused(
    texts: Any, words: str, trained: tuple[TextClassifier, Any, Any]
) -> None:
    with pytest.raises(FlashError, match=words):
        trained[0](texts)
