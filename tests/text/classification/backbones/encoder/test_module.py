"""An encoder through the public interface: finetuned, predicted with, saved, loaded; tiny and random, built here."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.backbones.encoder.module import EncoderModule, _Batches
from flash.text.classification.predictor import Predictor

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ["animal", "fruit", "tool"]
TEXTS = ["row 1 tells of banana", "row 2 tells of zebra and hammer", "row 3 tells of nothing", ""]


@pytest.fixture
def make_model(folder: Path) -> Callable[..., TextClassifier]:
    """A classifier around the folder; keywords go to it."""

    def make(**keywords: Any) -> TextClassifier:
        torch.manual_seed(1)
        return TextClassifier(
            **{
                "backbone": str(folder),
                "labels": LABELS,
                "multi_label": True,
                "max_length": 16,
                "learning_rate": 3e-3,
                **keywords,
            }
        )

    return make


def module_of(model: TextClassifier) -> EncoderModule:
    assert isinstance(model.backbone, EncoderModule)
    return model.backbone


@pytest.mark.parametrize("strategy", ["no_freeze", "freeze", ("freeze_unfreeze", 1)])
def test_it_learns_and_the_file_stands_alone(
    strategy: Any,
    folder: Path,
    make_model: Any,
    make_data: Any,
    make_trainer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    epochs = 8 if strategy == "no_freeze" else 4
    data, model, trainer = make_data(labels=LABELS), make_model(), make_trainer(max_epochs=epochs)
    if strategy in ("freeze", "no_freeze"):
        model.learning_rate = 3e-2 if strategy == "freeze" else 1e-3
    before = module_of(model).encoder.model.embeddings.word_embeddings.weight.detach().clone()
    trainer.finetune(model, datamodule=data, strategy=strategy)
    assert "micro average" in capsys.readouterr().out
    after = module_of(model).encoder.model.embeddings.word_embeddings.weight
    assert torch.equal(before, after) == (strategy == "freeze")
    assert model.evaluation is not None
    assert model.evaluation.macro_average_precision > 0.9
    path = tmp_path / "model.pt"
    trainer.save_checkpoint(path)
    expected = model(TEXTS)
    for loaded in (TextClassifier.load_from_checkpoint(path), Predictor.load(path, precision="32")):
        logits = np.asarray(loaded(TEXTS) if isinstance(loaded, TextClassifier) else loaded.logits(TEXTS))
        assert logits.tobytes() == expected.numpy().tobytes()
    predicted = trainer.predict(
        model, datamodule=TextClassificationData.from_lists(predict_data=TEXTS, batch_size=3), output="labels"
    )
    assert [names for batch in predicted for names in batch] == Predictor.load(path, precision="32").predict(
        TEXTS
    )


def test_the_file_does_not_need_the_folder(
    folder: Path, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    moved = shutil.copytree(folder, tmp_path / "encoder")
    torch.manual_seed(1)
    model = TextClassifier(backbone=str(moved), labels=LABELS, multi_label=True, max_length=16)
    trainer = make_trainer()
    trainer.fit(model, datamodule=make_data(labels=LABELS))
    trainer.save_checkpoint(tmp_path / "model.pt")
    shutil.rmtree(moved)
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert torch.equal(loaded(TEXTS), model(TEXTS))
    assert loaded.max_length == 16


def test_the_same_seed_gives_the_same_model(make_model: Any, make_data: Any, make_trainer: Any) -> None:
    logits = []
    for _ in range(2):
        model = make_model()
        make_trainer(max_epochs=2).fit(model, datamodule=make_data(labels=LABELS))
        logits.append(model(TEXTS))
    assert torch.equal(*logits)


def test_a_frozen_encoder_is_run_once(
    make_model: Any, make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    compute = EncoderModule._features

    def counted(self: EncoderModule, tokens: Any, *share: int) -> Any:
        made.append(len(tokens))
        return compute(self, tokens, *share)

    monkeypatch.setattr(EncoderModule, "_features", counted)
    data = make_data(labels=LABELS, val_split=None)
    make_trainer(max_epochs=5).finetune(make_model(), datamodule=data, strategy="freeze")
    assert made == [len(data.train_dataset)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_kept_features_have_the_trainers_precision(
    precision: Any, make_model: Any, make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    keep = _Batches._kept_features

    def seen(self: _Batches) -> torch.Tensor:
        kept.append(keep(self))
        return kept[-1]

    monkeypatch.setattr(_Batches, "_kept_features", seen)
    model, data = make_model(), make_data(labels=LABELS, val_split=None)
    make_trainer(precision=precision).finetune(model, datamodule=data, strategy="freeze")
    assert not kept[0].is_inference()  # the head's gradient needs it
    module = module_of(model)
    tokens = module.tokenize(data.train_dataset.texts)
    ids, mask = tokens.batch(range(len(tokens)))
    with torch.no_grad():
        exact = module.encoder.float().eval().features(ids, mask)
    torch.testing.assert_close(kept[0], exact, rtol=0.05, atol=0.05)
    assert torch.allclose(kept[0], exact, rtol=1e-4, atol=1e-5) == (precision == "32-true")


def test_a_new_head_starts_at_the_base_rates(make_model: Any, make_data: Any, make_trainer: Any) -> None:
    model, data = make_model(learning_rate=1e-12), make_data(labels=LABELS, val_split=None)
    make_trainer(max_epochs=1).fit(model, datamodule=data)
    rates = data.train_dataset.targets.toarray().mean(axis=0)
    bias = module_of(model).encoder.head.bias.detach().numpy()
    np.testing.assert_allclose(bias, np.log(rates / (1 - rates)), atol=1e-4)


def test_long_texts_in_windows_have_one_row_of_logits(
    make_model: Any, make_data: Any, make_trainer: Any, as_if_trained: Any
) -> None:
    words = "row tells of " * 20
    model = make_model(long_text="window")
    make_trainer(max_epochs=1).fit(model, datamodule=make_data(labels=LABELS))
    logits = model([words + "banana", words, "banana"])
    assert logits.shape == (3, 3)
    cut = as_if_trained(make_model())
    assert torch.equal(cut([words + "banana"]), cut([words]))
    assert not torch.equal(logits[0], logits[1])


def test_what_is_cut_is_said(
    make_model: Any, make_data: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        make_trainer().fit(make_model(max_length=6), datamodule=make_data(labels=LABELS))
    assert "have more than max_length=6 tokens and are cut" in caplog.text
    assert "gets a new head, with mean pooling" in caplog.text


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        (
            {"max_length": 100},
            r"max_length=100, and .* has positions for 40 tokens; pass max_length=40 or less",
        ),
        ({"poling": "cls"}, "unknown option of an encoder 'poling'; did you mean 'pooling'"),
        ({"loss_fn": "asymetric"}, "unknown loss 'asymetric'; did you mean 'asymmetric'"),
        ({"backbone": "lineer"}, "unknown backbone 'lineer'; did you mean 'linear'"),
        ({"pos_weight": "much"}, "pos_weight"),
    ],
)
def test_mistakes_are_sentences(
    keywords: dict[str, Any], words: str, make_model: Any, make_data: Any, make_trainer: Any
) -> None:
    with pytest.raises(FlashError, match=words):
        make_trainer().fit(make_model(**keywords), datamodule=make_data(labels=LABELS))


@pytest.mark.parametrize(
    "keywords",
    [
        {"loss_fn": "asymmetric"},
        {"loss_fn": "distribution_balanced"},
        {"pos_weight": "balanced", "layer_decay": 0.8},
        {"pos_weight": {"tool": 2.0}, "optimizer": "SGD", "lr_scheduler": "cosine"},
    ],
)
def test_choices_train_and_are_kept(
    keywords: dict[str, Any], make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    model, trainer = make_model(**keywords), make_trainer(max_epochs=2)
    before = module_of(model).encoder.head.weight.detach().clone()
    trainer.fit(model, datamodule=make_data(labels=LABELS))
    assert torch.isfinite(trainer.callback_metrics["val_loss"])
    assert not torch.equal(before, module_of(model).encoder.head.weight)
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert module_of(loaded).options() == module_of(model).options()
    assert torch.equal(loaded(TEXTS), model(TEXTS))


def test_a_loss_that_is_no_number_names_the_step(make_model: Any, make_data: Any, make_trainer: Any) -> None:
    model = make_model(loss_fn=lambda logits, targets: logits.sum() * float("nan"))
    with pytest.raises(FlashError, match="the loss is nan at step 0; pass a smaller learning_rate="):
        make_trainer().fit(model, datamodule=make_data(labels=LABELS))


def test_batches_know_how_many_they_are(make_model: Any, make_data: Any, make_trainer: Any) -> None:
    trainer, model, data = make_trainer(max_epochs=3), make_model(), make_data(labels=LABELS)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 3 * -(-len(data.train_dataset) // 16)
    assert isinstance(data.train_dataloader(), _Batches)
