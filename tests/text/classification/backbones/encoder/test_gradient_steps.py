"""Steps of an encoder's training: what each batch and text counts in one, and which are not taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch.nn import functional

from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder.gradient_steps import (
    NonFiniteGuard,
    accumulated_in,
    share_of_step,
)
from flash.text.classification.backbones.encoder.module import EncoderModule

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks:UserWarning")

LABELS = ["animal", "fruit"]
WORDS = ["row", "tells", "of", "and", "nothing", "banana", "zebra", "hammer"]
ROWS, BATCH = 22, 4
TEXTS = [" ".join(WORDS[(row * 3 + place) % 8] for place in range(1 + row * 5 % 17)) for row in range(ROWS)]
TARGETS = [[LABELS[0]] * (row % 3 == 0) + [LABELS[1]] * (row % 2) for row in range(ROWS)]
NAN = float("nan")


def data(**keywords: Any) -> TextClassificationData:
    keywords = {"labels": LABELS, "multi_label": True, "batch_size": BATCH, **keywords}
    return TextClassificationData.from_lists(TEXTS, TARGETS, **keywords)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bert: Callable[..., Path]) -> Path:
    """A tiny BERT without dropout and without a head."""
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return make_bert(tmp_path_factory.mktemp("encoder"), 16, **rates)


@pytest.fixture
def make_model(folder: Path) -> Callable[..., TextClassifier]:
    """A classifier around the folder; keywords go to it."""

    def make(**keywords: Any) -> TextClassifier:
        torch.manual_seed(1)
        options = {"labels": LABELS, "multi_label": True, "max_length": 24, "dropout": 0.0}
        return TextClassifier(backbone=str(folder), **{**options, **keywords})

    return make


def module_of(model: TextClassifier) -> EncoderModule:
    assert isinstance(model.backbone, EncoderModule)
    return model.backbone


class Recording(torch.optim.SGD):
    """Keeps the gradients of each step, and takes none."""

    def __init__(self, groups: Any, seen: list[torch.Tensor]) -> None:
        super().__init__(groups, lr=1.0)
        self.seen = seen

    def step(self, closure: Any = None) -> Any:
        """Lightning's closure goes forward and backward."""
        loss = closure()
        self.seen.append(flat([each for group in self.param_groups for each in group["params"]]))
        return loss


def flat(parameters: list[Any]) -> torch.Tensor:
    """All gradients, in an order that does not depend on groups."""
    ordered = sorted(parameters, key=id)
    return torch.cat(
        [torch.zeros(each.numel()) if each.grad is None else each.grad.flatten() for each in ordered]
    )


class Rows(pl.Callback):
    """Notes the texts of each batch."""

    def __init__(self) -> None:
        self.texts: list[list[int]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        """Before the step."""
        self.texts.append(sorted(set(batch.epoch.tokens.owner[batch.rows].tolist())))


def mean_gradient(model: TextClassifier, batches: list[list[int]]) -> torch.Tensor:
    """Of the mean over these batches of their mean losses a text, by hand: text by text, window by window."""
    module = module_of(model)
    model.zero_grad()
    means = []
    for texts in batches:
        losses = []
        for text in texts:
            tokens = module.tokenize(pa.array([TEXTS[text]], pa.large_string()))
            windows = [module.encoder(*tokens.batch([row])) for row in range(len(tokens))]
            target = torch.tensor([float(label in TARGETS[text]) for label in LABELS])
            logits = torch.cat(windows).amax(0)
            losses.append(functional.binary_cross_entropy_with_logits(logits, target))
        means.append(torch.stack(losses).mean())
    torch.autograd.backward(torch.stack(means).mean())
    return flat(list(module.encoder.parameters()))


# ---- what a batch counts --------------------------------------------------------------------------------------------


def test_shares_of_a_step() -> None:
    assert [share_of_step(index, 5, 1) for index in range(5)] == [1] * 5
    assert [share_of_step(index, 6, 4) for index in range(6)] == [1, 1, 1, 1, 2, 2]
    assert [share_of_step(index, 2, 10) for index in range(2)] == [5, 5]
    assert share_of_step(7, float("inf"), 4) == 1


def test_accumulation_by_epoch() -> None:
    assert [accumulated_in(epoch, {0: 2, 1: 3, 4: 1}) for epoch in range(6)] == [2, 3, 3, 3, 1, 1]


@pytest.mark.parametrize(
    ("keywords", "groups"),
    [({}, [[0, 1, 2, 3], [4, 5]]), ({"limit_train_batches": 5}, [[0, 1, 2, 3], [4]])],
)
def test_a_step_of_fewer_batches_follows_their_mean(
    keywords: dict[str, Any], groups: list[list[int]], make_model: Any, make_trainer: Any
) -> None:
    seen: list[torch.Tensor] = []
    model, rows = make_model(optimizer=lambda groups: Recording(groups, seen)), Rows()
    options = {"accumulate_grad_batches": 4, "gradient_clip_val": 0, **keywords}
    make_trainer(callbacks=[rows], **options).fit(model, datamodule=data())
    assert len(seen) == len(groups)
    for found, group in zip(seen, groups, strict=True):
        expected = mean_gradient(model, [rows.texts[index] for index in group])
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert float(seen[-1].norm()) > 1e-3


def test_texts_count_the_same_however_many_windows_they_have(make_model: Any, make_trainer: Any) -> None:
    seen: list[torch.Tensor] = []
    model = make_model(optimizer=lambda groups: Recording(groups, seen), long_text="window", max_length=6)
    rows = Rows()
    options = {"accumulate_grad_batches": 1000, "gradient_clip_val": 0}
    make_trainer(callbacks=[rows], **options).fit(model, datamodule=data())
    assert sorted(text for texts in rows.texts for text in texts) == list(range(ROWS))
    assert {len(texts) for texts in rows.texts} >= {1, 4}
    [found] = seen
    torch.testing.assert_close(found, mean_gradient(model, [list(range(ROWS))]), rtol=1e-3, atol=1e-6)
    by_batch = mean_gradient(model, rows.texts)
    assert float((found - by_batch).norm()) > 0.05 * float(
        found.norm()
    )  # as the test could not fail otherwise


def test_a_partial_batch_of_short_texts_takes_a_whole_step(make_model: Any, make_trainer: Any) -> None:
    seen: list[torch.Tensor] = []
    model, rows = make_model(optimizer=lambda groups: Recording(groups, seen), long_text="window"), Rows()
    make_trainer(callbacks=[rows], gradient_clip_val=0).fit(model, datamodule=data())
    for found, texts in zip(seen, rows.texts, strict=True):
        torch.testing.assert_close(found, mean_gradient(model, [texts]), rtol=1e-3, atol=1e-6)
    assert {len(texts) for texts in rows.texts} == {2, 4}


class SaveEach(pl.Callback):
    """A checkpoint after each batch, also between two steps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.batches = folder, 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Batches are counted over the run."""
        self.batches += 1
        trainer.save_checkpoint(self.folder / f"{self.batches}.ckpt")


@pytest.mark.parametrize("batches", [8, 9, 11])
def test_a_run_whose_accumulation_changes_is_resumed_exactly(
    batches: int, make_model: Any, make_trainer: Any, tmp_path: Path
) -> None:
    def fit(*callbacks: pl.Callback, **keywords: Any) -> dict[str, torch.Tensor]:
        model = make_model(learning_rate=1e-2)
        scheduler = GradientAccumulationScheduler({0: 1, 1: 3})
        trainer = make_trainer(max_epochs=3, callbacks=[scheduler, *callbacks])
        trainer.fit(model, datamodule=data(), **keywords)
        assert trainer.global_step == 6 + 2 + 2
        return {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}

    whole = fit(SaveEach(tmp_path))
    resumed = fit(ckpt_path=tmp_path / f"{batches}.ckpt")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


# ---- numbers that are none ------------------------------------------------------------------------------------------


class Steep:
    """A loss that is a number, with a slope that is none from some batch on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean square; validation does not count."""
        loss = (logits - targets).square().mean()
        if logits.requires_grad:
            self.left -= 1
            if self.left < 0:
                loss = loss + (logits - logits.detach()).square().sum().sqrt()  # 0, as steep as 0 / 0
        return loss


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"gradient_clip_val": 0.25},
        {"gradient_clip_val": 0},
        {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"},
        {"accumulate_grad_batches": 2},
        {"precision": "bf16-mixed"},
    ],
)
def test_no_step_is_taken_with_a_slope_that_is_none(
    keywords: dict[str, Any], make_model: Any, make_trainer: Any, tmp_path: Path
) -> None:
    def fit(after: int, **options: Any) -> TextClassifier:
        model: TextClassifier = make_model(loss_fn=Steep(after), learning_rate=1e-2)
        saving = [ModelCheckpoint(tmp_path / "saved")] if after == 3 else []
        trainer = make_trainer(callbacks=saving, enable_checkpointing=bool(saving), **keywords)
        trainer.fit(model, datamodule=data(), **options)
        return model

    step = 1 if "accumulate_grad_batches" in keywords else 3
    with pytest.raises(FlashError, match=f"some gradients are no numbers at step {step}, though") as caught:
        fit(3)
    path = tmp_path / "last-good.pt"
    assert f"what was learnt before is in {path}" in str(caught.value)
    assert checkpoint.load(path)["global_step"] == step
    resumed, whole = fit(1000, ckpt_path=path), fit(1000)
    for one, other in zip(resumed.backbone.parameters(), whole.backbone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_waits_is_told_before_the_step() -> None:
    fine, nan = torch.tensor(1.0), torch.tensor(NAN)
    guard = NonFiniteGuard()
    with pytest.raises(FlashError, match="the loss is nan at step 7; pass a smaller learning_rate"):
        guard.see_loss(nan, 7, now=True)
    for losses in [(fine, nan), (nan, fine)]:
        for loss in losses:
            guard.see_loss(loss, 7, now=False)
        with pytest.raises(FlashError, match="the loss is nan at step 7"):
            guard.see_gradients(fine, [fine], 7, alone=True)
        guard.see_gradients(fine, [fine], 8, alone=True)  # of the next step
    guard.see_loss(nan, 7, now=False)
    guard.see_gradients(fine, [fine], 7, alone=False)  # the others would wait for this process
    guard.see_loss(nan, 7, now=False)
    with pytest.raises(FlashError, match="the loss is nan at step 7"):
        guard.see_gradients(nan, [nan], 7, alone=False)
    with pytest.raises(FlashError, match="some gradients are no numbers at step 7"):
        guard.see_gradients(nan, [fine, nan], 7, alone=False)


def test_a_norm_that_is_too_large_for_a_number_is_not_a_broken_gradient() -> None:
    large = torch.full((4,), 3e38)
    norm = torch.nn.utils.get_total_norm([large])
    assert norm.isinf()
    NonFiniteGuard().see_gradients(norm, [large], 0, alone=True)


def test_a_loss_that_waits_is_not_a_later_fit_s() -> None:
    guard = NonFiniteGuard()
    guard.see_loss(torch.tensor(NAN), 1, now=False)
    guard.forget()
    guard.see_gradients(torch.tensor(1.0), [], 0, alone=True)


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (
            lambda logits, targets: (logits - targets) ** 2,
            r"the loss is a tensor of shape \([24], 2\); expected a t",
        ),
        (torch.nn.BCEWithLogitsLoss(reduction="none"), r"return its \.mean\(\), or give it reduction='mean'"),
        (lambda logits, targets: 0.5, r"the loss is 0\.5; expected a tensor of one number"),
    ],
)
def test_a_loss_of_many_numbers_is_refused(loss: Any, words: str, make_model: Any, make_trainer: Any) -> None:
    with pytest.raises(FlashError, match=words):
        make_trainer().fit(make_model(loss_fn=loss), datamodule=data())


def test_a_loss_of_one_number_in_any_shape_is_taken(make_model: Any, make_trainer: Any) -> None:
    model = make_model(loss_fn=lambda logits, targets: (logits - targets).square().mean().reshape(1, 1))
    make_trainer().fit(model, datamodule=data(val_split=0.2))
    assert bool(torch.isfinite(model(TEXTS)).all())


def test_the_linear_backbone_reports_no_such_loss_either(make_data: Any, make_trainer: Any) -> None:
    datamodule = make_data()
    model = TextClassifier(
        labels=datamodule.labels, multi_label=True, loss_fn=lambda logits, targets: (logits - targets) ** 2
    )
    with pytest.raises(FlashError, match="expected a tensor of one number"):
        make_trainer().fit(model, datamodule=datamodule)


def test_a_learning_rate_of_0_is_not_the_default(make_model: Any, make_trainer: Any) -> None:
    with pytest.raises(FlashError, match=r"learning_rate=0\.0 is not a number above 0"):
        make_trainer().fit(make_model(learning_rate=0), datamodule=data())
