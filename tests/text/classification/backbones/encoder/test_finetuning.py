"""Strategies on an encoder: what is computed once, whose callbacks stay, and one of the user's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning

from flash.core.errors import FlashError
from flash.core.layer_finetuning import LayerFinetuning
from flash.text import TextClassifier
from flash.text.classification.backbones.encoder.module import EncoderModule

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ["animal", "fruit", "tool"]


@pytest.fixture
def make_model(folder: Path) -> Callable[..., TextClassifier]:
    """A classifier around the folder; keywords go to it."""

    def make(**keywords: Any) -> TextClassifier:
        torch.manual_seed(1)
        options = {"labels": LABELS, "multi_label": True, "max_length": 16, "learning_rate": 3e-3}
        return TextClassifier(backbone=str(folder), **{**options, **keywords})

    return make


def module_of(model: TextClassifier) -> EncoderModule:
    assert isinstance(model.backbone, EncoderModule)
    return model.backbone


def embeddings(model: TextClassifier) -> torch.Tensor:
    weight = module_of(model).encoder.model.embeddings.word_embeddings.weight
    assert isinstance(weight, torch.Tensor)
    return weight


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("freeze", ["train", "val"]),
        (("freeze_unfreeze", 2), ["train", "val", "val", "val"]),  # once, and after each epoch that trains it
        ("no_freeze", ["val"] * 4),
    ],
)
def test_validation_is_encoded_once_while_the_encoder_is_frozen(
    strategy: Any,
    expected: list[str],
    make_model: Any,
    make_data: Any,
    make_trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    compute = EncoderModule._features

    def noted(self: EncoderModule, tokens: Any, *share: int, **keywords: int) -> Any:
        begun = False
        for batch in compute(self, tokens, *share, **keywords):
            if not begun:
                calls.append(len(tokens))
                begun = True
            yield batch

    monkeypatch.setattr(EncoderModule, "_features", noted)
    data = make_data(labels=LABELS)
    names = {len(data.train_dataset): "train", len(data.val_dataset): "val"}
    model, trainer = make_model(), make_trainer(max_epochs=4, num_sanity_val_steps=0)
    trainer.finetune(model, datamodule=data, strategy=strategy)
    assert [names[rows] for rows in calls] == expected
    monkeypatch.undo()
    measured = model.evaluation.macro_average_precision
    trainer.validate(model, datamodule=data)
    assert model.evaluation.macro_average_precision == measured


def test_kept_features_of_validation_give_the_same_numbers(
    make_model: Any, make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for keeps in (True, False):
        if not keeps:
            monkeypatch.setattr(
                "flash.text.classification.backbones.encoder.token_cache.TokenCache.keeps", lambda *_: False
            )
        model, trainer = make_model(long_text="window", max_length=6), make_trainer(max_epochs=3)
        trainer.finetune(model, datamodule=make_data(labels=LABELS), strategy="freeze")
        found.append(float(trainer.callback_metrics["val_loss"]))
    assert found[0] == found[1]


class Nothing(BaseFinetuning):
    """Freezes nothing, and counts how often it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def freeze_before_training(self, pl_module: Any) -> None:
        """Once a fit."""
        self.asked += 1

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        """Once an epoch."""


def test_the_user_s_callbacks_stay(make_model: Any, make_data: Any, make_trainer: Any) -> None:
    mine = Nothing()
    trainer = make_trainer(callbacks=[mine])
    for strategy in ("freeze", mine, "no_freeze"):
        trainer.finetune(make_model(), datamodule=make_data(labels=LABELS), strategy=strategy)
        assert [each for each in trainer.callbacks if each is mine] == [mine]
    assert mine.asked == 3


def test_a_strategy_is_of_its_own_fit(make_model: Any, make_data: Any, make_trainer: Any) -> None:
    trainer, data = make_trainer(), make_data(labels=LABELS)
    own = Nothing()
    for strategy in ("freeze", own):
        trainer.finetune(make_model(), datamodule=data, strategy=strategy)
        model = make_model()
        before = embeddings(model).detach().clone()
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        trainer.fit(model, datamodule=data)
        assert not torch.equal(embeddings(model), before)
        assert not any(isinstance(each, BaseFinetuning) for each in trainer.callbacks)
    assert own.asked == 1


class Unfreeze(BaseFinetuning):
    """As Lightning's documentation has it: the encoder waits, and is then a group of its own with its own rate."""

    def freeze_before_training(self, pl_module: Any) -> None:
        """All but the head."""
        self.freeze(pl_module.backbone.encoder.model)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        """From the second epoch on, everything trains."""
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone.encoder.model, optimizer, lr=1e-3)


@pytest.mark.parametrize("given", ["strategy", "callback"])
def test_a_finetuning_callback_of_lightning_s(
    given: str, make_model: Any, make_data: Any, make_trainer: Any
) -> None:
    rates: list[list[float]] = []
    weights: list[torch.Tensor] = []

    class Look(Nothing):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            weights.append(embeddings(module).detach().clone())

    model, data = make_model(lr_scheduler=("linear", {"num_warmup_steps": 0})), make_data(labels=LABELS)
    weights.append(embeddings(model).detach().clone())
    mine = [Unfreeze()] if given == "callback" else []
    trainer = make_trainer(max_epochs=3, callbacks=[*mine, Look()])
    trainer.finetune(model, datamodule=data, strategy="no_freeze" if mine else Unfreeze())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    steps = len(data.train_dataloader())
    left = [(3 * steps - step) / (3 * steps) for step in range(1, 3 * steps + 1)]
    for step, (found, share) in enumerate(zip(rates, left, strict=True)):
        assert found[:-1] == pytest.approx([3e-3 * share] * (len(found) - 1))
        if step >= steps:  # the added group's falls as the others', from the rate that it came with
            assert found[-1] == pytest.approx(1e-3 * share / left[steps - 1])
    assert len(rates[0]) + 1 == len(rates[-1])


def test_a_callback_that_freezes_all_is_a_sentence(
    make_model: Any, make_data: Any, make_trainer: Any
) -> None:
    class All(Nothing):
        def freeze_before_training(self, pl_module: Any) -> None:
            self.freeze(pl_module.backbone)

    with pytest.raises(FlashError, match="there is no parameter to train; unfreeze a layer"):
        make_trainer().finetune(make_model(), datamodule=make_data(labels=LABELS), strategy=All())


def test_what_a_strategy_by_name_adds_is_a_layer_finetuning(
    make_model: Any, make_data: Any, make_trainer: Any
) -> None:
    trainer, model = make_trainer(), make_model()
    before = embeddings(model).detach().clone()
    trainer.finetune(model, datamodule=make_data(labels=LABELS), strategy="freeze")
    assert isinstance(trainer.of_strategy, LayerFinetuning)
    assert torch.equal(embeddings(model), before)


@pytest.mark.parametrize("strategy", [("freeze_unfreeze", 1), ("unfreeze_milestones", ((1, 2), 1))])
@pytest.mark.parametrize(
    "choices",
    [
        {"optimizer": ("SGD", {"momentum": 0.9})},
        {"optimizer": "SGD", "lr_scheduler": "onecyclelr"},  # which gives SGD a momentum
        {"lr_scheduler": ("onecyclelr", {"max_lr": 1e-3})},
    ],
)
def test_momentum_and_layers_that_unfreeze_later(
    make_model: Any, make_data: Any, make_trainer: Any, strategy: Any, choices: dict[str, Any]
) -> None:
    model = make_model(**choices)
    before = embeddings(model).clone()
    make_trainer(max_epochs=3).finetune(model, datamodule=make_data(), strategy=strategy)
    assert not torch.equal(embeddings(model), before)
