"""Low-rank adapters: beside which layers, what they train, and that nothing is left of them but weights."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from flash.core.errors import FlashError, MissingExtraError
from flash.core.finetuning import LoraOptions
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder import lora
from flash.text.classification.backbones.encoder.model import Encoder
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.optimization import default_learning_rate
from flash.text.classification.predictor import Predictor

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")
pytest.importorskip("peft")

LABELS = ["animal", "fruit", "tool"]
TEXTS = ["row 1 tells of banana", "row 2 tells of zebra and hammer", "row 3 tells of nothing", ""]
ROWS = pa.array(TEXTS, pa.large_string())
OPTIONS = {"rank": 4, "dropout": 0.0}
PER_BLOCK = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]

WITHOUT_PEFT = """
import sys
sys.modules["peft"] = None
import numpy as np
from flash.text import TextClassifier
from flash.text.classification.predictor import Predictor
for path in sys.argv[2:]:
    for scorer in (TextClassifier.load_from_checkpoint(path), Predictor.load(path, precision="32").logits):
        np.save(sys.argv[1], np.asarray(scorer(["row 1 tells of banana"])))
        print(np.load(sys.argv[1]).tobytes().hex())
"""


@pytest.fixture
def make_model(folder: Path) -> Callable[..., TextClassifier]:
    """A classifier around the folder; keywords go to it."""

    def make(**keywords: Any) -> TextClassifier:
        torch.manual_seed(1)
        usual = {"backbone": str(folder), "labels": LABELS, "multi_label": True, "max_length": 16}
        return TextClassifier(**{**usual, "learning_rate": 1e-2, **keywords})

    return make


def encoder_of(model: TextClassifier) -> Encoder:
    assert isinstance(model.backbone, EncoderModule)
    return model.backbone.encoder


def adapted_layers(model: nn.Module) -> list[str]:
    return [name.removesuffix(".lora_A.default") for name, _ in model.named_modules() if "lora_A." in name]


def shift(model: nn.Module) -> None:
    """Give the adapters an effect, as training would."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)


class Spy(pl.Callback):
    """What of a model has a gradient and what is as it was, while it trains, and its answers at an epoch's end."""

    def __init__(self, model: TextClassifier) -> None:
        self.before = {name: tensor.clone() for name, tensor in encoder_of(model).model.state_dict().items()}
        self.with_gradient: set[str] = set()
        self.changed: set[str] = set()
        self.logits: dict[int, torch.Tensor] = {}

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.with_gradient |= {name for name, each in pl_module.named_parameters() if each.grad is not None}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TextClassifier)
        now = encoder_of(pl_module).model.state_dict()
        self.changed |= {
            name
            for name, tensor in now.items()
            if (before := self.before.get(name.replace(".base_layer", ""))) is not None
            and not torch.equal(tensor, before)
        }
        self.logits[trainer.current_epoch] = torch.from_numpy(pl_module.backbone.margins(ROWS))


@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "deberta-v2", "modernbert", "albert", "mpnet", "t5", "gpt2", "llama"]
)
def test_nothing_is_left_of_adapters_but_their_effect(kind: str, kept_folders: Any, batch: Any) -> None:
    encoder = Encoder.from_pretrained(kept_folders(kind), ("toxic", "insult", "threat"))
    model, plain, (ids, mask) = encoder.model, set(encoder.model.state_dict()), batch(encoder)
    with torch.no_grad():
        untrained = encoder(ids, mask)
        adapters = lora.add_adapters(model, LoraOptions(rank=2), kind)
        assert adapters.layers
        torch.testing.assert_close(encoder.eval()(ids, mask), untrained, rtol=0, atol=1e-6)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
        in_layers = {id(parameter) for layer in encoder.layers() for parameter in layer}
        assert in_layers == {id(parameter) for parameter in encoder.parameters()}
        shift(model)
        expected = encoder(ids, mask)
        assert (expected - untrained).abs().max() > 1e-3
        state = {f"some.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
        state[f"some.{lora.SCALING}"] = lora.tensor_of(adapters.options)
        lora.merge_adapters(model, adapters)
        torch.testing.assert_close(encoder(ids, mask), expected, rtol=0, atol=1e-5)
    assert set(model.state_dict()) == plain
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not hasattr(model, "peft_config")
    lora.merge_state(model, state, "some.")  # of a file that was written before the merge
    assert state.keys() == {f"some.{name}" for name in plain}
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[f"some.{name}"], tensor)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all-linear", PER_BLOCK),
        (("query", "value"), ["query", "value"]),
        (("attention.output.dense",), ["attention.output.dense"]),
        (("layer.1.output.dense",), None),
    ],
)
def test_layers_by_name(targets: Any, expected: list[str] | None, make_model: Any) -> None:
    model = encoder_of(make_model()).model
    lora.add_adapters(model, LoraOptions(targets=targets), "here")
    found = adapted_layers(model)
    if expected is None:
        assert found == ["encoder.layer.1.output.dense"]
        return
    assert len(found) == 2 * len(expected)
    assert all(any(name.endswith(f".{end}") for end in expected) for name in found)


def test_what_the_user_froze_stays_frozen(make_model: Any) -> None:
    model = encoder_of(make_model()).model
    model.embeddings.requires_grad_(False)
    lora.merge_adapters(model, lora.add_adapters(model, LoraOptions(), "here"))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"embeddings.{name}" for name, _ in model.embeddings.named_parameters()}


def test_layers_that_cannot_be_adapted(make_model: Any) -> None:
    with pytest.raises(
        FlashError, match=r"unknown linear layer of 'here' 'qurey'; did you mean 'query'\? Known: dense"
    ):
        lora.find_layers(encoder_of(make_model()).model, ("qurey",), "here")
    with pytest.raises(
        FlashError, match="'here' has no linear layers, which the strategy 'lora' needs; pass"
    ):
        lora.find_layers(nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm(4)), "all-linear", "here")


def test_layers_whose_weights_are_used_twice_are_left_out() -> None:
    shared = nn.Linear(4, 4)
    tied, embedding = nn.Linear(4, 3, bias=False), nn.Embedding(3, 4)
    tied.weight = embedding.weight
    model = nn.Sequential(embedding, shared, nn.ReLU(), shared, nn.Linear(4, 4), tied)
    assert lora.find_layers(model, "all-linear", "here") == ("4",)


def test_adapters_and_head_alone_train_until_the_end(
    make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model()
    spy, names = Spy(model), {name for name, _ in model.named_parameters()}
    trainer = make_trainer(max_epochs=12, callbacks=[spy])
    with caplog.at_level("INFO"):
        trainer.finetune(model, datamodule=make_data(labels=LABELS), strategy=("lora", OPTIONS))
    head = {"backbone.encoder.head.weight", "backbone.encoder.head.bias"}
    assert head < spy.with_gradient
    assert len(spy.with_gradient - head) == 2 * 2 * len(PER_BLOCK)
    assert all(".lora_" in name for name in spy.with_gradient - head)
    assert not spy.changed
    assert (
        "LoRA trains 3,683 parameters: the head, and adapters of rank 4 beside 12 linear layers"
        in caplog.text
    )
    assert {name for name, _ in model.named_parameters()} == names
    after = encoder_of(model).model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, spy.before[name])}
    assert changed == {
        f"{layer}.weight" for layer in lora.find_layers(encoder_of(model).model, "all-linear", "")
    }
    np.testing.assert_allclose(model.backbone.margins(ROWS), spy.logits[11], atol=1e-5)
    assert model.evaluation is not None
    assert model.evaluation.macro_average_precision > 0.85  # 0.5 by chance
    trainer.save_checkpoint(tmp_path / "model.pt")
    assert not any("lora" in name for name in checkpoint.load(tmp_path / "model.pt")["state_dict"])
    assert (
        Predictor.load(tmp_path / "model.pt", precision="32").logits(TEXTS).tobytes()
        == model(TEXTS).numpy().tobytes()
    )


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_fit_with_adapters_resumes_and_its_files_need_no_peft(
    make_model: Any, make_data: Any, make_trainer: Any, forked: Any, tmp_path: Path
) -> None:
    def fit(model: TextClassifier, *callbacks: pl.Callback, **keywords: Any) -> None:
        checkpoints = any(isinstance(each, ModelCheckpoint) for each in callbacks)
        trainer = make_trainer(max_epochs=4, enable_checkpointing=checkpoints, callbacks=list(callbacks))
        trainer.finetune(model, datamodule=make_data(labels=LABELS), strategy=("lora", 4), **keywords)

    model, every = make_model(), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    spy = Spy(model)
    fit(model, spy, every)
    middle, last = tmp_path / "epoch=1.ckpt", tmp_path / "epoch=3.ckpt"
    assert any("lora_A" in name for name in checkpoint.load(middle)["state_dict"])
    resumed = make_model()
    fit(resumed, ckpt_path=middle)
    for name, tensor in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name

    for path, epoch in ((middle, 1), (last, 3)):
        loaded = TextClassifier.load_from_checkpoint(path)
        np.testing.assert_allclose(loaded.backbone.margins(ROWS), spy.logits[epoch], atol=1e-5)
        predicted = Predictor.load(path, precision="32").logits(TEXTS)
        np.testing.assert_allclose(predicted, loaded(TEXTS).numpy(), atol=1e-5)
    (tmp_path / "script.py").write_text(WITHOUT_PEFT)
    done = forked("script.py", tmp_path / "row.npy", middle, last, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = [TextClassifier.load_from_checkpoint(path)(TEXTS[:1]).numpy() for path in (middle, last)]
    rows = [np.frombuffer(bytes.fromhex(row), np.float32) for row in done.stdout.split()]
    np.testing.assert_allclose(rows, [row[0] for row in expected for _ in range(2)], atol=1e-5)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_of_another_strategy_is_refused(
    make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    def fit(strategy: Any, *callbacks: pl.Callback, **keywords: Any) -> None:
        trainer = make_trainer(enable_checkpointing=bool(callbacks), callbacks=list(callbacks))
        trainer.finetune(make_model(), datamodule=make_data(labels=LABELS), strategy=strategy, **keywords)
        trainer.save_checkpoint(tmp_path / "after.pt")

    fit(("lora", 4), ModelCheckpoint(tmp_path, "middle"))
    spelled = r'strategy=\("lora", \{.alpha.: 8\.0, .dropout.: 0\.05, .rank.: 4, .targets.: .all-linear.\}\)'
    with pytest.raises(FlashError, match=f"of the checkpoint are not those of this fit; pass {spelled}"):
        fit("lora", ckpt_path=tmp_path / "middle.ckpt")
    with pytest.raises(FlashError, match=f"was written while adapters trained; pass {spelled} to resume"):
        fit("no_freeze", ckpt_path=tmp_path / "middle.ckpt")
    with pytest.raises(
        FlashError, match="the checkpoint has no adapters: its fit had ended, .* without ckpt_path="
    ):
        fit(("lora", 4), ckpt_path=tmp_path / "after.pt")


def test_a_model_is_plain_again_after_a_fit_that_failed(
    make_model: Any, make_data: Any, make_trainer: Any
) -> None:
    model = make_model(loss_fn=lambda logits, targets: logits.sum() * float("nan"))
    names = set(model.state_dict())
    with pytest.raises(FlashError, match="the loss is nan"):
        make_trainer().finetune(model, datamodule=make_data(labels=LABELS), strategy="lora")
    assert set(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_default_learning_rate(make_model: Any, make_data: Any, make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.finetune(make_model(learning_rate=None), datamodule=make_data(labels=LABELS), strategy="lora")
    groups = trainer.optimizers[0].param_groups
    assert {group["initial_lr"] for group in groups} == {default_learning_rate("lora", 16)}
    assert sum(len(group["params"]) for group in groups) == 2 * 2 * len(PER_BLOCK) + 2  # and the head


def test_without_peft_it_says_what_to_type(
    make_model: Any, make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("flash.core.extras.requires", lambda _: ['peft>=0.17; extra == "lora"'])
    model = make_model()
    with pytest.raises(
        MissingExtraError, match=r"the package 'peft' \(extra 'lora'\).*pip install \"peft>=0.17\""
    ):
        make_trainer().finetune(model, datamodule=make_data(labels=LABELS), strategy="lora")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_linear_backbone_has_no_use_for_it(
    make_data: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = TextClassifier(labels=LABELS, multi_label=True)
    with caplog.at_level("INFO"):
        make_trainer().finetune(model, datamodule=make_data(labels=LABELS), strategy="lora")
    assert "has no layers to freeze: strategy='lora' changes nothing." in caplog.text
