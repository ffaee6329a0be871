"""An encoder's model files: what training chose is in them, what a loader may change, and weights that do not fit."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import CheckpointError, FlashError
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.optimization import default_learning_rate
from flash.text.classification.predictor import Predictor

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ["animal", "fruit", "tool"]
TEXTS = ["row 1 tells of banana", "row 2 tells of zebra and hammer", "row 3 tells of nothing", ""]
LONG = "row tells of zebra and " * 8 + "banana"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bert: Callable[..., Path]) -> Path:
    """A tiny BERT with random weights, without a head."""
    return make_bert(tmp_path_factory.mktemp("encoder"), initializer_range=0.3)


@pytest.fixture
def make_model(folder: Path, as_if_trained: Callable[[Any], Any]) -> Callable[..., TextClassifier]:
    """A classifier around the folder; keywords go to it."""

    def make(**keywords: Any) -> TextClassifier:
        torch.manual_seed(1)
        usual = {"backbone": str(folder), "labels": LABELS, "multi_label": True, "max_length": 16}
        model: TextClassifier = as_if_trained(TextClassifier(**{**usual, **keywords}))
        return model

    return make


@pytest.fixture
def save(tmp_path: Path, as_if_trained: Callable[[Any], Any]) -> Callable[..., Path]:
    """Writes a model as `save_checkpoint` does, without a training."""

    def write(model: TextClassifier, name: str = "model.pt", **settings: Any) -> Path:
        as_if_trained(model)
        content: dict[str, Any] = {"state_dict": model.state_dict()}
        model.on_save_checkpoint(content)
        content["flash"] |= settings
        checkpoint.save(content, tmp_path / name)
        return tmp_path / name

    return write


def module_of(model: TextClassifier) -> EncoderModule:
    assert isinstance(model.backbone, EncoderModule)
    return model.backbone


# Losses


@pytest.mark.parametrize("backbone", ["encoder", "linear"])
@pytest.mark.parametrize("weighted", [True, False])
def test_a_torch_module_is_a_loss(
    backbone: str,
    weighted: bool,
    make_model: Any,
    make_data: Any,
    make_trainer: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 30.0]) if weighted else None)
    model = make_model(loss_fn=loss, **({"backbone": "linear"} if backbone == "linear" else {}))
    data, trainer = make_data(labels=LABELS), make_trainer()
    trainer.fit(model, datamodule=data)
    rows = data.val_dataset
    expected = loss(model(rows.texts), torch.from_numpy(rows.targets.toarray()))
    torch.testing.assert_close(trainer.callback_metrics["val_loss"], expected, rtol=1e-5, atol=0)
    with caplog.at_level("INFO"):
        for _ in range(2):
            trainer.save_checkpoint(tmp_path / "model.pt")
        assert caplog.text.count("A model file cannot hold loss_fn where it is code of your own") == 1
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert caplog.text.count("A model file cannot hold loss_fn where it is code of your own") == 2
    assert torch.equal(loaded(TEXTS), model(TEXTS))
    assert Predictor.load(tmp_path / "model.pt").labels == tuple(LABELS)
    again = TextClassifier.load_from_checkpoint(tmp_path / "model.pt", loss_fn=loss)
    assert caplog.text.count("A model file cannot hold loss_fn where it is code of your own") == 2
    measured = make_trainer().validate(again, datamodule=data)[0]["val_loss"]
    assert measured == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_fn": "asymmetric"},
        {"loss_fn": "distribution_balanced"},
        {"pos_weight": {"tool": 9.0}},
        {"backbone": "linear", "loss_fn": "focal"},
        {"backbone": "linear", "loss_fn": "distribution_balanced"},
    ],
    ids=str,
)
def test_a_loaded_model_measures_and_trains_with_its_loss(
    options: dict[str, Any], make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    model, data, trainer = make_model(**options), make_data(labels=LABELS), make_trainer()
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert loaded.loss_fn == options.get("loss_fn")
    losses = [
        make_trainer().validate(each, datamodule=data)[0]["val_loss"]
        for each in (model, loaded, TextClassifier.load_from_checkpoint(tmp_path / "model.pt", loss_fn=None))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != pytest.approx(losses[2], rel=0.1)  # cross-entropy


def test_a_damaged_loss_is_refused(make_model: Any, save: Any) -> None:
    for loss in ({"name": "unknown", "numbers": {}}, {"name": "focal", "numbers": {"pos_weight": "x"}}, 3):
        path = save(make_model(), loss=loss)
        with pytest.raises(
            CheckpointError, match="the model file is damaged: its loss is none of binary_cross"
        ):
            TextClassifier.load_from_checkpoint(path)


# Optimisers and schedules


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        ("sgd", "sgd"),
        (torch.optim.SGD, "SGD"),
        (("SGD", {"momentum": np.float64(0.5)}), ("SGD", {"momentum": 0.5})),
        (functools.partial(torch.optim.SGD, momentum=0.5), ("SGD", {"momentum": 0.5})),
        (
            functools.partial(functools.partial(torch.optim.SGD, momentum=0.5, lr=0.1), lr=0.25),
            ("SGD", {"momentum": 0.5, "lr": 0.25}),
        ),
    ],
    ids=str,
)
def test_an_optimizer_is_kept(
    optimizer: Any, kept: Any, make_model: Any, make_data: Any, make_trainer: Any, save: Any
) -> None:
    schedule = ("StepLR", {"step_size": np.int64(4)}, {"interval": "epoch"})
    loaded = TextClassifier.load_from_checkpoint(save(make_model(optimizer=optimizer, lr_scheduler=schedule)))
    assert loaded.optimizer == kept
    assert loaded.lr_scheduler == ("StepLR", {"step_size": 4}, {"interval": "epoch"})
    trainer = make_trainer()
    trainer.fit(loaded, datamodule=make_data(labels=LABELS))
    (made,) = trainer.optimizers
    assert isinstance(made, torch.optim.SGD)
    options = kept[1] if isinstance(kept, tuple) else {}
    assert made.param_groups[0]["momentum"] == options.get("momentum", 0)
    assert made.param_groups[0]["initial_lr"] == options.get("lr", default_learning_rate("no_freeze", 16))


class Own(torch.optim.SGD):
    """None of torch's."""


@pytest.mark.parametrize(
    ("choices", "lost"),
    [
        ({"optimizer": Own}, "optimizer where it is"),
        ({"optimizer": (Own, {"momentum": 0.5})}, "optimizer where it is"),
        ({"lr_scheduler": lambda made: torch.optim.lr_scheduler.StepLR(made, 2)}, "lr_scheduler where it is"),
        ({"optimizer": Own, "loss_fn": torch.nn.MSELoss()}, "optimizer and loss_fn where they are"),
    ],
    ids=["class", "tuple", "schedule", "two"],
)
def test_code_of_the_user_is_not_kept_which_is_said(
    choices: dict[str, Any],
    lost: str,
    make_model: Any,
    make_data: Any,
    make_trainer: Any,
    save: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = save(make_model(**choices))
    caplog.clear()
    with caplog.at_level("INFO"):
        loaded = TextClassifier.load_from_checkpoint(path)
    assert f"A model file cannot hold {lost} code of your own: to train on" in caplog.text
    assert f"pass {', '.join(f'{name}=' for name in choices)} to load_from_checkpoint." in caplog.text
    assert [getattr(loaded, name) for name in choices] == [None] * len(choices)
    make_trainer().fit(loaded, datamodule=make_data(labels=LABELS))  # with what is usual
    caplog.clear()
    with caplog.at_level("INFO"):
        TextClassifier.load_from_checkpoint(path, **choices)
    assert "cannot hold" not in caplog.text


# Options that came from NumPy


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"pos_weight": np.array([1.0, 2.0, 3.0])}, {"pos_weight": [1.0, 2.0, 3.0]}),
        ({"pos_weight": torch.tensor([1.0, 2.0, 3.0])}, {"pos_weight": [1.0, 2.0, 3.0]}),
        ({"pos_weight": (np.float64(2), 1, 1)}, {"pos_weight": (2.0, 1, 1)}),
        ({"pos_weight": {"tool": np.float32(2)}}, {"pos_weight": (1.0, 1.0, 2.0)}),
        ({"dropout": np.float64(0.25), "warmup": np.float32(0.5)}, {"dropout": 0.25, "warmup": 0.5}),
        ({"layer_decay": np.float64(0.5), "window_overlap": np.float16(0.5)}, {"layer_decay": 0.5}),
        ({"backbone": "linear", "C": np.float64(2)}, {"C": 2.0}),
        ({"thresholds": [np.float64(0.25), 0.5, 0.75]}, {}),
        ({"labels": np.array(LABELS)}, {}),
    ],
    ids=str,
)
def test_numbers_of_numpy_and_torch_are_kept(
    given: dict[str, Any], kept: dict[str, Any], make_model: Any, save: Any
) -> None:
    model = make_model(**given)
    loaded = TextClassifier.load_from_checkpoint(save(model))
    assert loaded.labels == LABELS
    assert loaded.backbone.options().items() >= kept.items()
    assert json.loads(json.dumps(loaded.backbone.options()))  # as an export writes them
    assert torch.equal(loaded.thresholds, model.thresholds)


# What a loader may change


def test_max_length_is_changed_as_a_whole_or_not_at_all(make_model: Any, save: Any) -> None:
    model = make_model()
    torch.nn.init.normal_(module_of(model).encoder.head.weight)
    path = save(model)
    loaded = TextClassifier.load_from_checkpoint(path, max_length=40)
    assert loaded.max_length == module_of(loaded).max_length == 40
    assert not torch.allclose(loaded([LONG]), model([LONG]))
    assert torch.equal(loaded(TEXTS), model(TEXTS))
    again = save(loaded, "again.pt")
    np.testing.assert_array_equal(
        Predictor.load(again, precision="32").logits([LONG]), loaded([LONG]).numpy()
    )
    with pytest.raises(
        FlashError, match="max_length=41, and .* has positions for 40 tokens; pass max_length=40"
    ):
        TextClassifier.load_from_checkpoint(path, max_length=41)


def test_the_file_says_what_the_encoder_does(make_model: Any, save: Any) -> None:
    model = make_model()
    model.max_length = 40  # which an encoder that is made already does not follow
    assert TextClassifier.load_from_checkpoint(save(model)).max_length == 16


def test_an_unknown_override_is_refused(make_model: Any, save: Any) -> None:
    path = save(make_model())
    words = "unknown argument of TextClassifier 'metrik'; did you mean 'metrics'"
    with pytest.raises(FlashError, match=words):
        TextClassifier.load_from_checkpoint(path, metrik=None)


@pytest.mark.parametrize("length", [None, 0, "16", True])
def test_a_file_whose_max_length_is_none(length: Any, make_model: Any, save: Any) -> None:
    path = save(make_model(), max_length=length)
    for load in (TextClassifier.load_from_checkpoint, Predictor.load):
        with pytest.raises(
            CheckpointError, match="is damaged: its max_length is .*, expected a number from 1"
        ):
            load(path)


# The tokenizer


def test_the_end_of_a_long_text_that_is_cut_is_kept(
    folder: Path, make_model: Any, save: Any, tmp_path: Path
) -> None:
    moved = shutil.copytree(folder, tmp_path / "left")
    stored = json.loads((moved / "tokenizer_config.json").read_text())
    (moved / "tokenizer_config.json").write_text(json.dumps({**stored, "truncation_side": "left"}))
    model = make_model(backbone=str(moved), max_length=6)
    torch.nn.init.normal_(module_of(model).encoder.head.weight)
    expected = model([LONG]).numpy()
    assert not np.allclose(expected, model([LONG.replace("banana", "hammer")]).numpy())  # its end is read
    path = save(model)
    np.testing.assert_array_equal(TextClassifier.load_from_checkpoint(path)([LONG]).numpy(), expected)
    np.testing.assert_allclose(Predictor.load(path, precision="32").logits([LONG]), expected, atol=1e-5)
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from flash.text.classification.exporting import export

    export(path, tmp_path / "out")
    np.testing.assert_allclose(Predictor.load(tmp_path / "out").logits([LONG]), expected, atol=1e-4)


# Precision


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_any_precision_of_the_trainer_saves_an_encoder_that_loads(
    precision: str, make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, model, trainer = make_data(labels=LABELS), make_model(), make_trainer(precision=precision)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    trainer.save_checkpoint(tmp_path / "half.pt", half=True)
    expected = model.to(torch.float32)(TEXTS).numpy()
    np.testing.assert_allclose(
        Predictor.load(tmp_path / "model.pt", precision="32").logits(TEXTS), expected, atol=1e-5
    )
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    np.testing.assert_allclose(loaded(TEXTS).numpy(), expected, atol=1e-5)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    half = Predictor.load(tmp_path / "half.pt", precision="32").probabilities(TEXTS)
    np.testing.assert_allclose(half, 1 / (1 + np.exp(-expected)), atol=1e-2)


# Weights that do not fit


def test_weights_that_do_not_fit_their_own_file(make_model: Any, save: Any) -> None:
    path = save(make_model())
    content = checkpoint.load(path)
    name = "backbone.encoder.head.weight"
    content["state_dict"][name] = content["state_dict"][name][:, :5]
    checkpoint.save(content, path)
    with pytest.raises(
        CheckpointError,
        match=r"model.pt is damaged: its weights do not fit its encoder \(head.weight is \(3, 5\), expected \(3, 32\)\);",
    ) as caught:
        TextClassifier.load_from_checkpoint(path)
    assert "\n" not in str(caught.value)
    del content["state_dict"][name]
    checkpoint.save(content, path)
    for load in (TextClassifier.load_from_checkpoint, Predictor.load):
        with pytest.raises(CheckpointError, match=r"is damaged: its weights .*head.weight"):
            load(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"backbone": "linear"},
            "backbone is '.*encoder.*' and this model's is 'linear'; build the model with",
        ),
        ({"max_length": 8}, "trained with max_length=16 and this model has 8; pass max_length=16 to Text"),
        ({"long_text": "window"}, "trained with long_text='truncate' and this model has 'window'; pass long"),
        ({"pooling": "cls"}, "trained with pooling='mean' and this model has 'cls'; pass pooling='mean'"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_model_is_not_resumed(
    options: dict[str, Any], words: str, make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, trainer = make_data(labels=LABELS), make_trainer()
    trainer.fit(make_model(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    model = make_model(**options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(FlashError, match=words):
        make_trainer(max_epochs=2).fit(model, datamodule=data, ckpt_path=tmp_path / "model.ckpt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_checkpoint_of_other_weights_is_not_resumed(
    make_bert: Any, make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, trainer = make_data(labels=LABELS), make_trainer()
    trainer.fit(make_model(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    wider = make_model(backbone=str(make_bert(tmp_path / "wider", 64)))
    with pytest.raises(
        FlashError,
        match=r"do not fit this model's, '.*wider': encoder.head.weight is \(3, 32\) there and \(3, 64\) here; build",
    ):
        make_trainer().fit(wider, datamodule=data, ckpt_path=tmp_path / "model.ckpt")
    linear = make_model(backbone="linear")
    fitted = make_trainer()
    fitted.fit(linear, datamodule=data)
    fitted.save_checkpoint(tmp_path / "linear.ckpt")
    with pytest.raises(
        FlashError, match="the checkpoint's backbone is 'linear' and this model's is '.*wider'"
    ):
        make_trainer().fit(wider, datamodule=data, ckpt_path=tmp_path / "linear.ckpt")


def test_the_same_encoder_elsewhere_is_resumed(
    folder: Path, make_model: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, trainer = make_data(labels=LABELS), make_trainer()
    trainer.fit(make_model(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    model = make_model(backbone=str(shutil.copytree(folder, tmp_path / "moved")))
    resumed = make_trainer(max_epochs=2)
    resumed.fit(model, datamodule=data, ckpt_path=tmp_path / "model.ckpt")
    assert resumed.global_step == 2 * trainer.global_step
