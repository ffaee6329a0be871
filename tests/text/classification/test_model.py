"""TextClassifier under Lightning's trainer: it learns, measures, saves, resumes, and says what is wrong."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import f1_score
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

from flash.core.errors import CheckpointError, DataError, FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.linear import Linear
from flash.text.classification.backbones.linear_module import LinearModule
from flash.text.classification.measuring import Batch
from flash.text.classification.outputs import to_probabilities
from flash.text.classification.predictor import Predictor


def linear_of(model: TextClassifier) -> Linear:
    """The fitted arrays inside a classifier."""
    assert isinstance(model.backbone, LinearModule)
    return model.backbone.linear


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
        ({"labels": ["a"], "regularisation": 1.0}, "did you mean 'regularization'"),
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
            {"labels": ["toxic"], "positive_weight": {"toxik": 2.0}},
            "positive_weight: unknown label 'toxik'; did",
        ),
        (
            {"labels": ["a"], "positive_weight": {"a": "x"}},
            "option positive_weight of the linear backbone is",
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


def test_rows_without_targets_cannot_be_trained_on_or_measured(make_data: Any, make_trainer: Any) -> None:
    untold = TextClassificationData.from_lists(predict_data=["a", "b"], batch_size=2)
    model = TextClassifier(labels=["a"], multi_label=True)
    with pytest.raises(DataError, match="the test rows have no targets to compare with; pass target_fields="):
        make_trainer().test(model, dataloaders=untold.predict_dataloader())
    assert untold.predict_dataset is not None
    with pytest.raises(DataError, match="the training rows have no targets"):
        model.train_batches(untold.predict_dataset, 0)


def test_settings_without_use_for_the_linear_backbone_are_said_once(
    make_data: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True, learning_rate=0.1, optimizer="AdamW")
    with caplog.at_level("INFO"):
        trainer = make_trainer(
            accumulate_grad_batches=2,
            gradient_clip_val=1.0,
            check_val_every_n_epoch=2,
            val_check_interval=0.5,
        )
        trainer.finetune(model, datamodule=data, strategy="freeze")
    assert model.evaluation is not None
    said = [record.message for record in caplog.records if "linear backbone" in record.message]
    assert said == [
        "The linear backbone is solved exactly, in one epoch, and has no layers to freeze: strategy='freeze', "
        "optimizer='AdamW', learning_rate=0.1, accumulate_grad_batches=2, gradient_clip_val=1.0, "
        "check_val_every_n_epoch=2, val_check_interval=0.5 change nothing."
    ]


# ---- cross-validation, calibration and thresholds -------------------------------------------------------------------


def flat(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, as if on one line."""
    return " ".join(capsys.readouterr().out.split())


def single_label_data(**keywords: Any) -> TextClassificationData:
    rows = range(90)
    return TextClassificationData.from_lists(
        train_data=[f"number {row} is a {'cat' if row % 3 else 'dog'}" for row in rows],
        train_targets=["feline" if row % 3 else "canine" for row in rows],
        **keywords,
    )


def hard_rows(count: int = 600) -> dict[str, Any]:
    """Texts whose words say a label in two of three cases, and another in one of twenty."""
    generator = np.random.default_rng(3)
    words = generator.integers(0, 2, (count, 2))
    labels = generator.random((count, 2)) < np.where(words, [0.66, 0.2], [0.1, 0.02])
    texts = [
        f"row {row} {'alpha' if one else 'beta'} {'gamma' if two else 'delta'}"
        for row, (one, two) in enumerate(words)
    ]
    return {"train_data": texts, "train_targets": [np.array(["x", "y"])[row].tolist() for row in labels]}


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("thresholds", ["auto", 0.25])
@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("folds", [5, 0])
def test_what_is_printed_says_what_was_chosen_on_which_rows(
    make_data: Any,
    make_trainer: Any,
    capsys: pytest.CaptureFixture[str],
    multi_label: bool,
    thresholds: Any,
    validated: bool,
    folds: int,
) -> None:
    split = 40 if validated else None
    data = make_data(val_split=split) if multi_label else single_label_data(val_split=split)
    model = TextClassifier(labels=data.labels, multi_label=multi_label, thresholds=thresholds, folds=folds)
    make_trainer().fit(model, datamodule=data)
    printed = flat(capsys)
    rows = 40 if validated else 240 if multi_label else 90
    tuned = multi_label and thresholds == "auto"
    chosen = "Calibration and thresholds were chosen" if tuned else "Calibration was chosen"
    on_these = f"{chosen} on these rows: only rows of a test file give unbiased numbers."
    if not validated and not folds:
        state = "probabilities are not calibrated" + (" and the thresholds are 0.5" if tuned else "")
        assert printed == (
            f"Nothing was measured, as folds=0 was given and there was no validation: {state}. "
            "Pass val_split=0.1, or leave folds=0 out, to choose them and to see how good the model is."
        )
        assert model.evaluation is None
        assert model.calibration.scale.tolist() == [1] * len(model.labels)
    else:
        title = "Validation" if validated else "Cross-validation on the training rows"
        assert printed.startswith(f"{title}: {rows} rows")
        expected = f"{chosen} by cross-validation on the training rows." if validated and folds else on_these
        assert printed.endswith(expected)
        assert printed.count(chosen) == 1
        assert ("Each row is scored by a model that was fitted without it." in printed) is (not validated)
        assert model.evaluation is not None
        assert model.evaluation.rows == rows
        assert (model.calibration.scale != 1).any()
    in_force = model.thresholds.numpy()
    if not tuned:
        np.testing.assert_allclose(in_force, 0.25 if thresholds == 0.25 else 0.5)
    else:
        assert (in_force == 0.5).all() == (not validated and not folds)


def test_too_few_texts_for_folds(make_trainer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"train_data": ["a b", "b c", "c d"], "train_targets": [["x"], ["x", "y"], []]}
    data = TextClassificationData.from_lists(**rows)
    make_trainer().fit(TextClassifier(labels=data.labels, multi_label=True), datamodule=data)
    assert flat(capsys) == (
        "Nothing was measured, as the training rows have fewer than 5 different texts and there was no validation: "
        "probabilities are not calibrated and the thresholds are 0.5. "
        "Pass val_split=0.1 to choose them and to see how good the model is."
    )


def test_a_fit_that_was_stopped_says_so(
    make_data: Any, make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(val_split=None)
    model = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer(max_steps=2).fit(model, datamodule=data)
    assert flat(capsys) == (
        "Nothing was measured, as the fit was stopped before its end and there was no validation: probabilities are "
        "not calibrated and the thresholds are 0.5. Pass val_split=0.1, or allow it more steps or time, to choose "
        "them and to see how good the model is."
    )
    assert model.thresholds.tolist() == [0.5] * 3


def test_the_cross_validation_is_of_fits_without_the_row(make_data: Any, make_trainer: Any) -> None:
    """Targets drawn by lot cannot be known from other rows, though every row could be learned by heart."""
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(list("abcdefghij"), 8)) + f" {row}" for row in range(300)]
    targets = [["heads"] if toss else [] for toss in generator.random(300) < 0.5]
    data = TextClassificationData.from_lists(train_data=texts, train_targets=targets, multi_label=True)
    model = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer().fit(model, datamodule=data)
    assert model.evaluation is not None
    assert 0.4 < model.evaluation.macro_roc_auc < 0.6
    assert 0.24 < model.evaluation.macro_brier < 0.26  # 0.25 is what "one half" always gets


def test_validation_rows_only_measure(make_data: Any, make_trainer: Any) -> None:
    """Whatever they hold, the model is the one of the training rows."""
    texts, targets = ["a zebra", "a hammer", "a banana"] * 5, [["tool"], ["fruit"], ["animal"]] * 5
    states = []
    for validation in ({}, {"val_data": texts, "val_targets": targets}):
        data = make_data(val_split=None, **validation)
        model = TextClassifier(labels=data.labels, multi_label=True)
        make_trainer().fit(model, datamodule=data)
        states.append(model.state_dict())
    assert model.evaluation is not None
    assert model.evaluation.micro_f1 == 0
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("folds", [5, 0])
def test_logged_losses_and_metrics_are_of_calibrated_probabilities(make_trainer: Any, folds: int) -> None:
    data = TextClassificationData.from_lists(**hard_rows(), val_split=200)
    model = TextClassifier(
        labels=data.labels,
        multi_label=True,
        folds=folds,
        thresholds=0.25,
        metrics=MultilabelF1Score(num_labels=2, threshold=0.25, average="micro"),
    )
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    assert data.val_dataset is not None
    truth = data.val_dataset.targets
    assert truth is not None
    logits = torch.from_numpy(model(data.val_dataset.texts).numpy())
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth.toarray()))
    assert trainer.callback_metrics["val_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert model.evaluation is not None
    f1 = trainer.callback_metrics["val_MultilabelF1Score"]
    assert f1 == pytest.approx(model.evaluation.micro_f1, rel=1e-6)


def test_a_threshold_objective_and_its_way_into_the_checkpoint(
    make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = TextClassificationData.from_lists(**hard_rows())
    found = {}
    for objective in ("macro_f1", "recall>=0.9", "precision>=0.9", {"y": "recall>=0.9"}):
        model = TextClassifier(labels=data.labels, multi_label=True, threshold_objective=objective)
        trainer = make_trainer()
        trainer.fit(model, datamodule=data)
        printed = flat(capsys)
        unmet = "The rows for tuning cannot show precision>=0.9 for 'x', precision>=0.9 for 'y'; the closest"
        assert (unmet in printed) is (objective == "precision>=0.9")
        assert printed.count("The rows for tuning") <= 1
        assert model.evaluation is not None
        found[str(objective)] = model.thresholds.numpy().copy(), model.evaluation
    (usual, _), (recalling, evaluation), (precise, _), (mixed, _) = found.values()
    assert (evaluation.recall >= 0.9).all()
    assert (recalling < usual).all()
    assert (precise != usual).any()
    assert mixed.tolist() == [usual[0], recalling[1]]
    trainer.save_checkpoint(tmp_path / "model.pt")
    assert checkpoint.read(tmp_path / "model.pt")["flash"]["threshold_objective"] == [
        "macro_f1",
        "recall>=0.9",
    ]
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert loaded.threshold_objective == ("macro_f1", "recall>=0.9")
    other = TextClassifier.load_from_checkpoint(tmp_path / "model.pt", threshold_objective="micro_f1")
    assert other.threshold_objective == ("micro_f1", "micro_f1")


def test_an_unmet_objective_is_said_once_though_every_epoch_validates(
    make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = TextClassificationData.from_lists(**hard_rows(), val_split=200)
    model = TextClassifier(
        labels=data.labels, multi_label=True, threshold_objective="precision>=0.9", folds=0, tolerance=1e-3
    )
    trainer = make_trainer(max_epochs=50, limit_train_batches=2)
    trainer.fit(model, datamodule=data)
    assert trainer.current_epoch > 1
    assert flat(capsys).count("The rows for tuning") == 1


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_model_file_and_predictor_calibrate_alike(
    make_data: Any, make_trainer: Any, tmp_path: Path, multi_label: bool, precision: Any
) -> None:
    data = make_data(val_split=None) if multi_label else single_label_data()
    model, trainer = (
        TextClassifier(labels=data.labels, multi_label=multi_label),
        make_trainer(precision=precision),
    )
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    texts = ["a banana", "a cat", "", "nothing"]
    margins = linear_of(model).logits(pa.array(texts, pa.large_string()))
    expected = margins * model.calibration.scale + model.calibration.shift
    assert (margins != expected).any(axis=1).all()
    predictor, loaded = (
        Predictor.load(tmp_path / "model.pt"),
        TextClassifier.load_from_checkpoint(tmp_path / "model.pt"),
    )
    unseen = TextClassificationData.from_lists(predict_data=texts, batch_size=3)
    for logits in (
        model(texts).numpy(),
        loaded(texts).numpy(),
        predictor.logits(texts),
        np.concatenate(make_trainer(precision=precision).predict(loaded, datamodule=unseen, output="logits")),
    ):
        np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(predictor.probabilities(texts), to_probabilities(expected, multi_label))


def test_calibration_is_a_part_of_the_state(trained: Any) -> None:
    model, _, _ = trained
    other = TextClassifier(labels=model.labels, multi_label=True)
    state = model.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(["a banana"]), model(["a banana"]))
    del state["calibration_shift"]
    with pytest.raises(RuntimeError, match='Missing key.* "calibration_shift"'):
        other.load_state_dict(state)


def test_weights_of_labels_by_name(make_trainer: Any, tmp_path: Path) -> None:
    data = TextClassificationData.from_lists(**hard_rows())
    by_name, by_place, plain = (
        TextClassifier(
            labels=data.labels,
            multi_label=True,
            regularization=1.0,
            positive_weight=weight,
            folds=0,
            quantize=False,
        )
        for weight in ({"y": 8.0}, (1.0, 8.0), 1.0)
    )
    assert linear_of(by_name).config.positive_weight == (1.0, 8.0)
    for model in (by_name, by_place, plain):
        trainer = make_trainer()
        trainer.fit(model, datamodule=data)
        trainer.save_checkpoint(tmp_path / "model.pt")
    for name, tensor in by_name.state_dict().items():
        assert torch.equal(tensor, by_place.state_dict()[name]), name
    ours, usual = (linear_of(model).arrays()["weight"] for model in (by_name, plain))
    np.testing.assert_array_equal(ours[:, 0], usual[:, 0])
    assert (ours[:, 1] != usual[:, 1]).any()
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert linear_of(loaded).config == linear_of(plain).config


def test_loggers_get_the_table_under_stable_names(make_data: Any, make_trainer: Any, tmp_path: Path) -> None:
    data = make_data()
    model = TextClassifier(
        labels=data.labels, multi_label=True, metrics=MultilabelAccuracy(num_labels=3, average="micro")
    )
    trainer = make_trainer(logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trainer.fit(model, datamodule=data)
    names = {
        "train_loss",
        "val_loss",
        "val_micro_f1",
        "val_macro_f1",
        "val_macro_average_precision",
        "val_macro_roc_auc",
    }
    names |= {"val_subset_accuracy", "val_hamming_loss", "val_f1/fruit", "val_MultilabelAccuracy"}
    assert names <= set(trainer.logged_metrics)
    assert model.evaluation is not None
    assert trainer.logged_metrics["val_micro_f1"] == pytest.approx(model.evaluation.micro_f1)


class Watching(Callback):
    """Counts what a user's callback sees."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1


def test_callbacks_see_the_passes_and_the_fit_ends_at_the_optimum(make_data: Any, make_trainer: Any) -> None:
    data, watching = make_data(), Watching()
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(max_epochs=50, callbacks=[watching])
    trainer.fit(model, datamodule=data)
    assert trainer.current_epoch == 1
    passes = trainer.optimizers[0].passes
    assert watching.steps == trainer.global_step == passes + 1 > 3  # a loader looks one batch ahead


def test_the_most_passes_are_kept_to(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True, max_passes=3, tolerance=1e-9)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    assert trainer.optimizers[0].passes == 3 + 5  # and a step for each fold
    without = TextClassifier(labels=data.labels, multi_label=True, max_passes=3, tolerance=1e-9, folds=0)
    trainer = make_trainer()
    trainer.fit(without, datamodule=data)
    assert trainer.optimizers[0].passes == 3


def test_fast_dev_run_makes_one_pass(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(fast_dev_run=True)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 1


def test_limited_epochs_go_on_where_the_last_one_stopped(make_data: Any, make_trainer: Any) -> None:
    data, states = make_data(), []
    for limits in ({}, {"limit_train_batches": 2, "max_epochs": 50}, {"min_epochs": 3, "max_epochs": 3}):
        model = TextClassifier(labels=data.labels, multi_label=True)
        make_trainer(**limits).fit(model, datamodule=data)
        states.append(model.state_dict())
    for other in states[1:]:
        for name, tensor in states[0].items():
            assert torch.equal(tensor, other[name]), name


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


def test_validate_and_test_measure_at_the_thresholds_in_force(
    trained: Any, make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = trained
    capsys.readouterr()
    texts, targets = ["a banana", "a zebra", "nothing"], [["fruit"], ["animal", "tool"], []]
    data = TextClassificationData.from_lists(
        val_data=texts,
        val_targets=targets,
        test_data=texts,
        test_targets=targets,
        labels=model.labels,
        multi_label=True,
    )
    for stage in ("validate", "test"):
        numbers = getattr(make_trainer(), stage)(model, datamodule=data)[0]
        truth = np.array([[label in row for label in model.labels] for row in targets], int)
        chosen = make_trainer().predict(
            model, datamodule=TextClassificationData.from_lists(predict_data=texts), output="labels"
        )[0]
        guessed = np.array([[label in row for label in model.labels] for row in chosen], int)
        prefix = "val" if stage == "validate" else "test"
        assert numbers[f"{prefix}_micro_f1"] == pytest.approx(f1_score(truth, guessed, average="micro"))
        assert ("Validation" if stage == "validate" else "Test") in capsys.readouterr().out


def test_a_users_loss_function_is_reported(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(
        labels=data.labels, multi_label=True, loss_fn=lambda logits, targets: logits.sum() * 0 + 42.0
    )
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["val_loss"] == 42.0


@pytest.mark.parametrize("thresholds", [0.9, [0.1, 0.2, 0.3], {"tool": 0.7}])
def test_thresholds_of_the_user_are_kept(
    make_data: Any, make_trainer: Any, tmp_path: Path, thresholds: Any
) -> None:
    data, trainer = make_data(), make_trainer()
    assert data.labels == ["animal", "fruit", "tool"]
    model = TextClassifier(labels=data.labels, multi_label=True, thresholds=thresholds)
    expected = {0: [0.9] * 3, 1: [0.1, 0.2, 0.3], 2: [0.5, 0.5, 0.7]}[
        [0.9, [0.1, 0.2, 0.3], {"tool": 0.7}].index(thresholds)
    ]
    trainer.fit(model, datamodule=data)
    np.testing.assert_allclose(model.thresholds.numpy(), expected, rtol=1e-6)
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    np.testing.assert_allclose(loaded.thresholds.numpy(), expected, rtol=1e-6)
    other = TextClassifier.load_from_checkpoint(tmp_path / "model.pt", thresholds={"animal": 0.25})
    np.testing.assert_allclose(other.thresholds.numpy(), [0.25, *expected[1:]], rtol=1e-6)


# ---- one label a text ---------------------------------------------------------------------------------------------


def test_single_label(make_trainer: Any, tmp_path: Path) -> None:
    data = single_label_data(val_split=30)
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


def test_two_classes_have_the_probability_of_their_calibrated_margins(make_trainer: Any) -> None:
    """Softmax of two numbers is the sigmoid of their difference; to the calibration it is worth something."""
    generator = np.random.default_rng(1)
    cats = generator.random(1000) < 0.5
    heard = np.where(generator.random(1000) < 0.2, ~cats, cats)  # one text in five is wrong
    colours = ["red", "blue", "green", "white", "black", "pink", "gold", "grey", "brown", "teal"]
    texts = [" ".join(["miaow" if cat else "woof", *generator.choice(colours, 4)]) for cat in heard]
    data = TextClassificationData.from_lists(
        train_data=texts[:700], train_targets=["cat" if cat else "dog" for cat in cats[:700]]
    )
    model = TextClassifier(labels=data.labels)
    make_trainer().fit(model, datamodule=data)
    logits = model(texts[700:]).numpy()
    probabilities = to_probabilities(logits, False)
    np.testing.assert_allclose(probabilities[:, 0], 1 / (1 + np.exp(logits[:, 1] - logits[:, 0])), rtol=1e-5)
    likely = np.where(heard[700:], probabilities[:, 0], probabilities[:, 1])
    assert likely.mean() == pytest.approx(0.8, abs=0.06)


# ---- checkpoints --------------------------------------------------------------------------------------------------


def test_save_load_predict_agree_to_the_bit(trained: Any, make_trainer: Any, tmp_path: Path) -> None:
    model, trainer, _ = trained
    path = tmp_path / "model.pt"
    trainer.save_checkpoint(path)
    texts = ["a banana", "a zebra with a hammer", "", "nothing at all", "🦓"]
    data = TextClassificationData.from_lists(predict_data=texts, batch_size=2)
    before = trainer.predict(model, datamodule=data, output="logits")
    loaded = TextClassifier.load_from_checkpoint(path)
    after = make_trainer().predict(loaded, datamodule=data, output="logits")
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(after))
    np.testing.assert_array_equal(np.concatenate(before), Predictor.load(path).logits(texts))
    assert loaded.labels == model.labels
    assert loaded.multi_label
    assert trainer.predict(model, datamodule=data, output="labels") == make_trainer().predict(
        loaded, datamodule=data, output="labels"
    )
    assert torch.load(path, weights_only=True)["flash"]["labels"] == ["animal", "fruit", "tool"]


def test_a_loaded_model_can_be_fitted_again(
    trained: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    model, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    again = make_trainer()
    again.finetune(loaded, datamodule=make_data())
    assert again.optimizers[0].passes < trainer.optimizers[0].passes  # it starts from what it knows
    assert linear_of(loaded).config == linear_of(model).config
    texts = ["a banana", "a zebra", "a hammer and a banana", ""]
    np.testing.assert_allclose(loaded(texts).sigmoid(), model(texts).sigmoid(), atol=0.03)
    np.testing.assert_allclose(loaded.thresholds, model.thresholds, atol=0.05)


def test_a_loaded_model_keeps_the_regularization_it_chose(make_trainer: Any, tmp_path: Path) -> None:
    data, trainer = TextClassificationData.from_lists(**hard_rows()), make_trainer()
    model = TextClassifier(labels=data.labels, multi_label=True)
    assert linear_of(model).config.regularization == "auto"
    trainer.fit(model, datamodule=data)
    chosen = linear_of(model).config.regularization
    assert chosen != "auto"
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    resumed = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer().fit(resumed, datamodule=data, ckpt_path=tmp_path / "model.pt")
    make_trainer().fit(loaded, datamodule=data)
    assert linear_of(loaded).config.regularization == chosen
    assert linear_of(resumed).config.regularization == chosen


class Stop(Callback):
    """Saves after a number of passes, as a job that is killed there would have."""

    def __init__(self, passes: int, path: Path) -> None:
        self.passes, self.path = passes, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.passes:
            trainer.save_checkpoint(self.path)


def test_resuming_ends_where_an_uninterrupted_run_does(
    make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, path = make_data(), tmp_path / "stopped.ckpt"
    whole = TextClassifier(labels=data.labels, multi_label=True)
    uninterrupted = make_trainer(callbacks=[Stop(2, path)])
    uninterrupted.fit(whole, datamodule=data)
    resumed, trainer = TextClassifier(labels=data.labels, multi_label=True), make_trainer()
    trainer.fit(resumed, datamodule=data, ckpt_path=path)
    assert trainer.global_step == uninterrupted.global_step > 2
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_resuming_anywhere_without_validation_rows(
    make_data: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between two passes, two values of the regularization and two folds: the same model and the same table."""
    data = make_data(val_split=None)  # 240 rows: enough to choose the regularization
    whole = TextClassifier(labels=data.labels, multi_label=True)
    steps = range(1, 40)
    trainer = make_trainer(callbacks=[Stop(step, tmp_path / f"{step}.ckpt") for step in steps])
    trainer.fit(whole, datamodule=data)
    table = capsys.readouterr().out
    assert table.startswith("Cross-validation on the training rows: 240 rows")
    last = trainer.optimizers[0].passes
    assert 10 < last < 40
    for step in range(1, last + 1):
        resumed = TextClassifier(labels=data.labels, multi_label=True)
        make_trainer().fit(resumed, datamodule=data, ckpt_path=tmp_path / f"{step}.ckpt")
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (step, name)
        assert linear_of(resumed).config == linear_of(whole).config
        ended = "Nothing was measured: this run had ended before, and the model stays as it was.\n"
        assert capsys.readouterr().out == (table if step < last else ended)


def test_resuming_a_finished_run_keeps_the_model(
    trained: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    model, trainer, data = trained
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    resumed = TextClassifier(labels=data.labels, multi_label=True)
    make_trainer(max_epochs=5).fit(resumed, datamodule=data, ckpt_path=tmp_path / "done.ckpt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_resuming_with_other_labels_is_refused(trained: Any, make_trainer: Any, tmp_path: Path) -> None:
    _, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    data = TextClassificationData.from_lists(train_data=["a", "b"], train_targets=[["x"], ["y"]])
    model = TextClassifier(labels=data.labels, multi_label=True)
    with pytest.raises(
        FlashError, match="the checkpoint's labels .animal, fruit, tool. are not this model's .x, y."
    ):
        make_trainer().fit(model, datamodule=data, ckpt_path=tmp_path / "model.ckpt")


def test_checkpoints_of_lightnings_callback_load(make_data: Any, make_trainer: Any, tmp_path: Path) -> None:
    data = make_data()
    keeper = ModelCheckpoint(tmp_path / "kept", monitor="val_micro_f1", mode="max", save_last=True)
    trainer = make_trainer(enable_checkpointing=True, callbacks=[keeper])
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer.fit(model, datamodule=data)
    best = TextClassifier.load_from_checkpoint(keeper.best_model_path)
    np.testing.assert_array_equal(best.thresholds.numpy(), model.thresholds.numpy())
    assert checkpoint.read(keeper.last_model_path)["flash"]["labels"] == model.labels


class Diary(Callback):
    """A callback whose state no checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"folder": Path("somewhere")}


def test_a_callback_that_cannot_be_kept_does_not_cost_the_model(
    make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    data, trainer = make_data(), make_trainer(callbacks=[Diary()])
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer.fit(model, datamodule=data)
    with pytest.warns(
        UserWarning, match=r"model\.pt is saved without this: the state of Diary\['folder'\], a pathlib"
    ):
        trainer.save_checkpoint(tmp_path / "model.pt")
    assert TextClassifier.load_from_checkpoint(tmp_path / "model.pt").labels == model.labels


def test_a_finished_model_file_holds_no_dual_variables(trained: Any, tmp_path: Path) -> None:
    _, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    passes = trainer.optimizers[0].passes
    assert checkpoint.load(tmp_path / "model.pt")["optimizer_states"] == [
        {"converged": True, "passes": passes}
    ]


def test_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("id,text\n")
    with pytest.raises(CheckpointError, match="is no checkpoint of this library"):
        TextClassifier.load_from_checkpoint(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks:UserWarning")
def test_resuming_after_the_last_pass_validates_and_keeps_the_threshold(
    make_data: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data()
    keeper = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(enable_checkpointing=True, callbacks=[keeper])
    trainer.fit(whole, datamodule=data)
    for step in range(1, trainer.global_step + 1):
        resumed = TextClassifier(labels=data.labels, multi_label=True)
        capsys.readouterr()
        make_trainer().fit(resumed, datamodule=data, ckpt_path=tmp_path / f"step={step}.ckpt")
        assert "Validation: 60 rows" in capsys.readouterr().out
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), (step, name)


def test_limited_runs_resume_as_if_uninterrupted(make_data: Any, make_trainer: Any, tmp_path: Path) -> None:
    data, limits = make_data(), {"limit_train_batches": 2}
    whole = TextClassifier(labels=data.labels, multi_label=True, tolerance=1e-9)
    make_trainer(max_epochs=3, **limits).fit(whole, datamodule=data)
    first = TextClassifier(labels=data.labels, multi_label=True, tolerance=1e-9)
    trainer = make_trainer(max_epochs=2, **limits)
    trainer.fit(first, datamodule=data)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed = TextClassifier(labels=data.labels, multi_label=True, tolerance=1e-9)
    make_trainer(max_epochs=3, **limits).fit(resumed, datamodule=data, ckpt_path=tmp_path / "two.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_thresholds_of_the_user_outlive_a_resume_and_a_checkpoint_of_predict(
    trained: Any, make_data: Any, make_trainer: Any, tmp_path: Path
) -> None:
    _, trainer, data = trained
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    model = TextClassifier(labels=data.labels, multi_label=True, thresholds=0.7)
    make_trainer().fit(model, datamodule=data, ckpt_path=tmp_path / "done.ckpt")
    np.testing.assert_allclose(model.thresholds.numpy(), [0.7] * 3, rtol=1e-6)
    fresh = TextClassifier(labels=data.labels, multi_label=True)
    texts = TextClassificationData.from_lists(predict_data=["a banana and a zebra"])
    path = tmp_path / "done.ckpt"
    chosen = make_trainer().predict(
        fresh, datamodule=texts, output="labels", thresholds={"fruit": 1.0}, ckpt_path=path
    )
    assert chosen == [[["animal"]]]


def test_a_second_fit_forgets_the_first(
    trained: Any, make_data: Any, make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = trained
    assert model.thresholds[0] != 0.5
    capsys.readouterr()
    linear_of(model).config = dataclasses.replace(linear_of(model).config, folds=0)
    make_trainer().fit(model, datamodule=make_data(val_split=None))
    assert model.evaluation is None
    np.testing.assert_array_equal(model.thresholds.numpy(), [0.5] * 3)
    np.testing.assert_array_equal(model.calibration.scale, [1] * 3)
    assert "Nothing was measured, as folds=0" in capsys.readouterr().out
    make_trainer().fit(model, datamodule=make_data())
    assert "Calibration and thresholds were chosen on these rows" in capsys.readouterr().out


def test_a_single_label_model_refuses_multi_label_data(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    with pytest.raises(
        DataError, match="the datamodule is multi-label and the model single-label; pass multi_label="
    ):
        make_trainer().fit(TextClassifier(labels=data.labels), datamodule=data)


@pytest.mark.parametrize(
    "override",
    [{"multi_label": False}, {"labels": ["c", "b", "a"]}, {"buckets": 64}, {"regularization": 2.0}],
)
def test_what_the_weights_were_trained_with_cannot_be_overridden(
    trained: Any, tmp_path: Path, override: dict[str, Any]
) -> None:
    _, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    with pytest.raises(
        FlashError, match=f"{next(iter(override))} cannot be changed: the weights of .* were trained with it"
    ):
        TextClassifier.load_from_checkpoint(tmp_path / "model.pt", **override)


def test_lightnings_keywords_of_load_from_checkpoint(trained: Any, tmp_path: Path) -> None:
    model, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(
        tmp_path / "model.pt", map_location="cpu", strict=True, hparams_file=None
    )
    assert loaded.labels == model.labels


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": np.float64(0.1)},
        {"optimizer": functools.partial(torch.optim.Adam, lr=1.0)},
        {"optimizer": torch.optim.SGD},
        {"thresholds": np.full(3, 0.25, np.float32)},
        {"thresholds": (0.25, 0.25, 0.25)},
    ],
)
def test_settings_of_any_type_are_saved(
    make_data: Any, make_trainer: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True, **settings)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    loaded = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    assert torch.equal(loaded.thresholds, model.thresholds)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_any_precision_of_the_trainer_saves_a_model_that_loads(
    make_data: Any, make_trainer: Any, tmp_path: Path, precision: str
) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True)
    trainer = make_trainer(precision=precision)
    trainer.fit(model, datamodule=data)
    trainer.validate(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.pt")
    assert Predictor.load(tmp_path / "model.pt").predict(["a banana"]) == [["fruit"]]


def test_targets_on_another_device_are_measured_all_the_same(make_data: Any) -> None:
    """Lightning moves a batch to its device; the linear backbone answers on the CPU."""

    class Elsewhere(torch.Tensor):
        """A tensor that refuses to meet others until it is brought back."""

        def cpu(self) -> torch.Tensor:  # type: ignore[override]
            return self.as_subclass(torch.Tensor)

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ not in ("as_subclass", "__get__", "size", "shape"):
                raise RuntimeError(f"{func.__name__} of tensors of two devices")
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]

    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True)
    batch: Batch = next(iter(data.val_dataloader()))
    batch["targets"] = batch["targets"].as_subclass(Elsewhere)
    model._keep(batch, "val", 0)
    assert len(model._scores) == 1


def test_several_devices_are_refused(
    make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data()
    model, trainer = TextClassifier(labels=data.labels, multi_label=True), make_trainer()
    monkeypatch.setattr(type(trainer.strategy), "world_size", property(lambda _: 2), raising=False)
    monkeypatch.setattr(type(trainer), "world_size", property(lambda _: 2))
    with pytest.raises(FlashError, match="works on one device, and the trainer has 2; pass devices=1"):
        trainer.fit(model, datamodule=data)


def test_loaders_in_place_of_a_datamodule(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    whole, by_loaders = (TextClassifier(labels=data.labels, multi_label=True) for _ in range(2))
    make_trainer().finetune(whole, datamodule=data)
    make_trainer().finetune(by_loaders, data.train_dataloader(), data.val_dataloader())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, by_loaders.state_dict()[name]), name
    with pytest.raises(FlashError, match=r"cannot be trained on a list; pass datamodule="):
        make_trainer().finetune(whole, [1, 2])


def test_several_sets_of_validation_rows(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(labels=data.labels, multi_label=True)
    with pytest.raises(DataError, match="there are several sets of val rows; join them"):
        make_trainer().validate(model, dataloaders=[data.val_dataloader(), data.val_dataloader()])


def test_metrics_of_a_number_a_label(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(
        labels=data.labels, multi_label=True, metrics={"f1": MultilabelF1Score(num_labels=3, average=None)}
    )
    trainer = make_trainer(
        callbacks=[LearningRateMonitor()], logger=CSVLogger(trainer_root := make_trainer().default_root_dir)
    )
    trainer.fit(model, datamodule=data)
    assert trainer_root
    assert {f"val_f1/{label}" for label in data.labels} <= set(trainer.callback_metrics)
    assert "val_f1_2" not in trainer.callback_metrics


def test_forward_takes_strings(trained: Any) -> None:
    model, _, _ = trained
    assert model(["a banana", ""]).shape == (2, 3)


def test_predict_step_outside_a_trainer_gives_logits(trained: Any) -> None:
    model, _, data = trained
    batch: Batch = next(iter(data.val_dataloader()))
    np.testing.assert_array_equal(model.predict_step(batch, 0), model(batch["texts"]).numpy())
