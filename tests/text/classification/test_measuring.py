"""What a classifier measures: cross-validation, calibration, thresholds, the table, and what loggers get."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import f1_score
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

from flash.core.errors import DataError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.measuring import Batch
from flash.text.classification.predictor import Predictor
from flash.text.classification.scores.outputs import to_probabilities


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("thresholds", ["auto", 0.25])
@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("folds", [5, 0])
def test_what_is_printed_says_what_was_chosen_on_which_rows(
    make_single_label_data: Any,
    make_data: Any,
    make_trainer: Any,
    flat_output: Callable[[], str],
    multi_label: bool,
    thresholds: Any,
    validated: bool,
    folds: int,
) -> None:
    split = 40 if validated else None
    data = make_data(val_split=split) if multi_label else make_single_label_data(val_split=split)
    model = TextClassifier(labels=data.labels, multi_label=multi_label, thresholds=thresholds, folds=folds)
    make_trainer().fit(model, datamodule=data)
    printed = flat_output()
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
        assert f"{expected} Highest F1: of " in printed or f"{expected} Of " in printed
        assert printed.count(chosen) == 1
        assert ("Each row is scored by a model that was fitted without it." in printed) is (not validated)
        assert model.evaluation is not None
        assert model.evaluation.rows == rows
        assert (model.calibration.scale != 1).any()
    in_force = model.thresholds.numpy()
    if not tuned:
        np.testing.assert_allclose(in_force, 0.25 if thresholds == 0.25 else 0.5)
    elif not validated and not folds:
        assert (in_force == 0.5).all()


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
def test_logged_losses_and_metrics_are_of_calibrated_probabilities(
    hard_rows: dict[str, Any], make_trainer: Any, folds: int
) -> None:
    data = TextClassificationData.from_lists(**hard_rows, val_split=200)
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
    hard_rows: dict[str, Any], make_trainer: Any, tmp_path: Path, flat_output: Callable[[], str]
) -> None:
    data = TextClassificationData.from_lists(**hard_rows)
    found = {}
    for objective in ("macro_f1", "recall>=0.9", "precision>=0.9", {"y": "recall>=0.9"}):
        model = TextClassifier(labels=data.labels, multi_label=True, threshold_objective=objective)
        trainer = make_trainer()
        trainer.fit(model, datamodule=data)
        printed = flat_output()
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
    hard_rows: dict[str, Any], make_trainer: Any, flat_output: Callable[[], str]
) -> None:
    data = TextClassificationData.from_lists(**hard_rows, val_split=200)
    model = TextClassifier(
        labels=data.labels, multi_label=True, threshold_objective="precision>=0.9", folds=0, tolerance=1e-3
    )
    trainer = make_trainer(max_epochs=50, limit_train_batches=2)
    trainer.fit(model, datamodule=data)
    assert trainer.current_epoch > 1
    assert flat_output().count("The rows for tuning") == 1


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_model_file_and_predictor_calibrate_alike(
    linear_of: Any,
    make_single_label_data: Any,
    make_data: Any,
    make_trainer: Any,
    tmp_path: Path,
    multi_label: bool,
    precision: Any,
) -> None:
    data = make_data(val_split=None) if multi_label else make_single_label_data()
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


@pytest.mark.filterwarnings(
    "ignore:train_data. 3 texts stand in several rows with different labels:UserWarning"
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


def test_calibration_is_a_part_of_the_state(trained: Any) -> None:
    model, _, _ = trained
    other = TextClassifier(labels=model.labels, multi_label=True)
    state = model.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(["a banana"]), model(["a banana"]))
    del state["calibration_shift"]
    with pytest.raises(RuntimeError, match='Missing key.* "calibration_shift"'):
        other.load_state_dict(state)


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


def test_a_users_loss_function_is_reported(make_data: Any, make_trainer: Any) -> None:
    data = make_data()
    model = TextClassifier(
        labels=data.labels, multi_label=True, loss_fn=lambda logits, targets: logits.sum() * 0 + 42.0
    )
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    assert trainer.callback_metrics["val_loss"] == 42.0


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


def rows_of_two_lengths(numbers: range) -> tuple[list[str], list[list[str]]]:
    """As many texts of less than 40 characters as of 100 to 199; of seven texts one says what it is not."""
    texts = [f"{row} {'zebra' if row % 3 else 'hammer'}{' padding' * (row % 2 * 14)}" for row in numbers]
    return texts, [["animal"] if (row % 3 > 0) != (row % 7 == 0) else ["tool"] for row in numbers]


@pytest.mark.parametrize("stage", ["cross-validation", "validation", "test"])
def test_calibration_is_measured_by_text_length(
    stage: str, make_trainer: Any, flat_output: Callable[[], str]
) -> None:
    train, measured = rows_of_two_lengths(range(640)), rows_of_two_lengths(range(640, 1244))
    split = {"validation": "val", "test": "test"}.get(stage)
    more: dict[str, Any] = {f"{split}_data": measured[0], f"{split}_targets": measured[1]} if split else {}
    data = TextClassificationData.from_lists(
        train_data=train[0], train_targets=train[1], multi_label=True, batch_size=50, **more
    )
    model, trainer = TextClassifier(labels=data.labels, multi_label=True), make_trainer()
    trainer.fit(model, datamodule=data)
    if stage == "test":
        flat_output()
        trainer.test(model, datamodule=data)
    printed = flat_output()
    assert model.evaluation is not None
    bins = model.evaluation.calibration_by_length
    assert bins is not None
    rows = 302 if split else 320
    assert [(one.name, one.rows) for one in bins] == [("0-39", rows), ("100-199", rows)]
    assert f"characters 0-39 100-199 rows {rows} {rows} macro ECE 0.0" in printed
    assert not any("length" in name for name in trainer.callback_metrics)
    if split:  # row by row what the rows' own texts say
        probabilities = to_probabilities(model(measured[0]).numpy(), True)[::2]
        truth = np.array([[label in row for label in model.labels] for row in measured[1]])[::2]
        gaps = np.abs(probabilities.mean(axis=0, dtype=np.float64) - truth.mean(axis=0))
        assert bins[0].mean_gap == pytest.approx(gaps.mean(), abs=1e-6)


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


def test_several_sets_of_validation_rows(trained: tuple[Any, Any, Any], make_trainer: Any) -> None:
    model, _, data = trained
    with pytest.raises(DataError, match="there are several sets of val rows; join them"):
        make_trainer().validate(model, dataloaders=[data.val_dataloader(), data.val_dataloader()])
