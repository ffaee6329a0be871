"""TextClassifier under Lightning's trainer: it learns, predicts, and says what is wrong."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import DataError, FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.measuring import Batch
from flash.text.classification.predictor import Predictor


def test_it_learns_and_prints_the_table(
    make_data: Any, make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=data.multi_label)
    make_trainer().finetune(model, datamodule=data)
    assert model.evaluation is not None
    assert model.evaluation.micro_f1 == 1.0
    assert model.evaluation.rows == 60
    printed = capsys.readouterr().out
    for expected in [
        "Validation",
        "fruit",
        "animal",
        "tool",
        "threshold",
        "before calibration",
        "Calibration and thresholds were chosen by cross-validation on the training rows.",
    ]:
        assert expected in printed


def test_same_seed_same_data_same_model(make_data: Any, make_trainer: Any) -> None:
    states = []
    for _ in range(2):
        data = make_data(seed=7)
        model = TextClassifier(labels=data.labels, multi_label=True)
        make_trainer().fit(model, datamodule=data)
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_loaders_in_place_of_a_datamodule(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    whole, by_loaders = (TextClassifier(labels=data.labels, multi_label=True) for _ in range(2))
    make_trainer().finetune(whole, datamodule=data)
    make_trainer().finetune(by_loaders, data.train_dataloader(), data.val_dataloader())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, by_loaders.state_dict()[name]), name
    with pytest.raises(FlashError, match=r"cannot be trained on a list; pass datamodule="):
        make_trainer().finetune(whole, [1, 2])


def test_names_of_the_labels() -> None:
    assert TextClassifier(num_classes=3, multi_label=True).labels == ["0", "1", "2"]
    assert TextClassifier(labels=("b", "a")).num_classes == 2
    assert TextClassifier.available_backbones() == ["linear"]


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({}, "a classifier needs its labels; pass labels=datamodule.labels, or num_classes="),
        ({"labels": []}, "labels must be a list of one or more names"),
        ({"labels": "toxic"}, "labels must be a list of one or more names; found 'toxic'"),
        ({"labels": ["a", ""]}, "labels must be a list of one or more names"),
        (
            {"labels": ["a"], "word_ngrams": True},
            "option word_ngrams of the linear backbone is True; expected",
        ),
        (
            {"labels": ["a"], "char_ngrams": (2,)},
            "option char_ngrams of the linear backbone is (2,); expected",
        ),
        ({"labels": ["a"], "buckets": 2**25}, "expected a power of two from 64 to 16777216"),
        ({"num_classes": 0}, "labels must be a list of one or more names"),
        ({"labels": ["a", "b", "a"]}, "labels repeat: a; each column needs a name of its own"),
        ({"labels": ["a"], "num_classes": 2}, "num_classes=2 but there are 1 labels; leave num_classes out"),
        ({"labels": ["a"], "backbone": "lineer"}, "unknown backbone 'lineer'; did you mean 'linear'"),
        ({"labels": ["a"], "min_text": 1}, "did you mean 'min_texts'"),
        ({"labels": ["a"], "thresholds": 2.0}, "thresholds has 2.0 for 'a'"),
        (
            {"labels": ["a"], "threshold_objective": "makro_f1"},
            "unknown objective 'makro_f1'; did you mean 'macro_f1'",
        ),
        ({"labels": ["a"], "threshold_objective": {"b": "macro_f1"}}, "unknown label 'b'"),
        (
            {"labels": ["a"], "threshold_objective": ["macro_f1"] * 2},
            "objective has 2 values for 1 labels; expected one per label",
        ),
        (
            {"labels": ["a"], "threshold_objective": "recall>=2"},
            "asks for a recall of 2; expected one in (0, 1]",
        ),
        (
            {"labels": ["toxic"], "pos_weight": {"toxik": 2.0}},
            "pos_weight: unknown label 'toxik'; did",
        ),
        (
            {"labels": ["a"], "pos_weight": {"a": "x"}},
            "option pos_weight of the linear backbone is",
        ),
        ({"labels": ["a"], "exclusive": True}, "unknown option of the backbone 'linear' 'exclusive'"),
    ],
)
def test_what_is_wrong_with_the_arguments(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(FlashError) as error:
        TextClassifier(**keywords)
    assert words in str(error.value)


def test_the_model_refuses_anothers_columns(make_data: Any, make_trainer: Any) -> None:
    model = TextClassifier(labels=["tool", "animal", "fruit"], multi_label=True)
    with pytest.raises(
        DataError, match="are not the model's 3 .tool, animal, fruit., or stand in another order"
    ):
        make_trainer().fit(model, datamodule=make_data())


def test_a_single_label_model_refuses_multi_label_data(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    with pytest.raises(
        DataError, match="the datamodule is multi-label and the model single-label; pass multi_label="
    ):
        make_trainer().fit(TextClassifier(labels=data.labels), datamodule=data)


def test_rows_without_targets_cannot_be_trained_on_or_measured(
    as_if_trained: Callable[[Any], Any], make_trainer: Any
) -> None:
    untold = TextClassificationData.from_lists(predict_data=["a", "b"], batch_size=2)
    model = as_if_trained(TextClassifier(labels=["a"], multi_label=True))
    with pytest.raises(DataError, match="the test rows have no targets to compare with; pass target_fields="):
        make_trainer().test(model, dataloaders=untold.predict_dataloader())
    assert untold.predict_dataset is not None
    with pytest.raises(DataError, match="the training rows have no targets"):
        model.train_batches(untold.predict_dataset, 0)


def test_several_devices_are_refused(
    make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data()
    model, trainer = TextClassifier(labels=data.labels, multi_label=True), make_trainer()
    monkeypatch.setattr(type(trainer.strategy), "world_size", property(lambda _: 2), raising=False)
    monkeypatch.setattr(type(trainer), "world_size", property(lambda _: 2))
    with pytest.raises(FlashError, match="works on one device, and the trainer has 2; pass devices=1"):
        trainer.fit(model, datamodule=data)


def test_a_second_fit_forgets_the_first(
    linear_of: Any, trained: Any, make_data: Any, make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = trained
    model.thresholds.fill_(0.3)
    capsys.readouterr()
    linear_of(model).config = dataclasses.replace(linear_of(model).config, folds=0)
    make_trainer().fit(model, datamodule=make_data(val_split=None))
    assert model.evaluation is None
    np.testing.assert_array_equal(model.thresholds.numpy(), [0.5] * 3)
    np.testing.assert_array_equal(model.calibration.scale, [1] * 3)
    assert "Nothing was measured, as folds=0" in capsys.readouterr().out
    make_trainer().fit(model, datamodule=make_data())
    assert "Calibration and thresholds were chosen on these rows" in capsys.readouterr().out


def test_single_label(make_single_label_data: Any, make_trainer: Any, tmp_path: Path) -> None:
    data = make_single_label_data(val_split=30)
    assert data.multi_label is False
    model = TextClassifier(labels=data.labels, multi_label=data.multi_label)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    unseen = TextClassificationData.from_lists(predict_data=["a cat", "the dog"], batch_size=1)
    assert trainer.predict(model, datamodule=unseen, output="labels") == [["feline"], ["canine"]]
    assert trainer.predict(model, datamodule=unseen, output="classes") == [[1], [0]]
    probabilities = np.concatenate(trainer.predict(model, datamodule=unseen, output="probabilities") or [])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    trainer.save_checkpoint(tmp_path / "model.pt")
    np.testing.assert_array_equal(
        Predictor.load(tmp_path / "model.pt").probabilities(["a cat", "the dog"]), probabilities
    )


def test_forward_takes_strings(trained: Any) -> None:
    model, _, _ = trained
    assert model(["a banana", ""]).shape == (2, 3)


def test_predict_step_outside_a_trainer_gives_logits(trained: Any) -> None:
    model, _, data = trained
    batch: Batch = next(iter(data.val_dataloader()))
    np.testing.assert_array_equal(model.predict_step(batch, 0), model(batch["texts"]).numpy())
