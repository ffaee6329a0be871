"""Targets that are not known, from every source to what is trained, measured and printed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from flash.core.errors import DataError, FlashError
from flash.core.processes import shard
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.losses import binary_cross_entropy
from flash.text.classification.targets.stratified_split import stratified_split

NAN = np.nan
EXPECTED = [[1, NAN], [0, 1], [NAN, 0], [1, 1]]  # row 5 says nothing
LEFT_OUT = "ignore:.*no target that is known:UserWarning"


def targets_of(data: TextClassificationData, split: str = "train") -> NDArray[np.float32]:
    dataset = getattr(data, f"{split}_dataset")
    dense: NDArray[np.float32] = dataset.targets.toarray()
    return dense


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "frame", "hf", "lists", "array", "fractions"])
def test_every_source(tmp_path: Path, kind: str) -> None:
    texts = [f"text {row}" for row in range(5)]
    first, second = [1, 0, None, 1, -1], [-1, 1, 0, 1, None]
    options: dict[str, Any] = {"unknown_targets": "mask"}
    make: Any
    given: Any
    columns: Any
    if kind == "csv":
        cells = zip(texts, first, second, strict=True)
        path = tmp_path / "a.csv"
        path.write_text(
            "t,a,b\n"
            + "".join(f"{t},{'' if a is None else a},{'NA' if b is None else b}\n" for t, a, b in cells)
        )
        make, given = TextClassificationData.from_csv, {"train_file": path}
    elif kind == "json":
        path = tmp_path / "a.jsonl"
        rows = [dict(zip("tab", row, strict=True)) for row in zip(texts, first, second, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        make, given = TextClassificationData.from_json, {"train_file": path}
    elif kind == "parquet":
        path = tmp_path / "a.parquet"
        column = pa.array([-1.0, 1.0, 0.0, 1.0, NAN])
        pyarrow.parquet.write_table(pa.table({"t": texts, "a": first, "b": column}), path)
        make, given = TextClassificationData.from_parquet, {"train_file": path}
    elif kind == "frame":
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"t": texts, "a": first, "b": second})
        make, given = TextClassificationData.from_data_frame, {"train_data_frame": frame}
    elif kind == "hf":
        datasets = pytest.importorskip("datasets")
        table = datasets.Dataset.from_dict({"t": texts, "a": first, "b": second})
        make, given = TextClassificationData.from_hf_datasets, {"train_hf_dataset": table}
    else:
        both = [list(row) for row in zip(first, second, strict=True)]
        if kind == "fractions":
            both = np.array(both, float).tolist()
        given = {"train_data": texts, "train_targets": both}
        if kind == "array":
            given["train_targets"] = np.array(both, float)
        make = TextClassificationData.from_lists
        options["labels"] = ["a", "b"]
    columns = {} if "labels" in options else {"input_field": "t", "target_fields": ["a", "b"]}
    with pytest.warns(UserWarning, match="1 of 5 rows has no target that is known, and is left out .*row 5"):
        data = make(**columns, **given, **options)
    np.testing.assert_array_equal(targets_of(data), EXPECTED)
    assert data.train_dataset is not None
    assert data.train_dataset.texts.to_pylist() == texts[:4]
    batch = data.train_dataset[2]["targets"]
    assert torch.equal(batch.isnan(), torch.tensor([[True, False]]))
    with pytest.raises(DataError, match="unknown_targets='mask'.*unknown_targets='negative'"):
        make(**columns, **given, **{**options, "unknown_targets": "error"})
    negative = make(**columns, **given, **{**options, "unknown_targets": "negative"})
    assert targets_of(negative).tolist() == [[1, 0], [0, 1], [0, 0], [1, 1], [0, 0]]


def test_marks_and_blanks_are_read_by_negative(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,a,b\none,x,\ntwo,,x\nthree,,\n")
    given: Any = {"input_field": "t", "target_fields": ["a", "b"], "train_file": tmp_path / "a.csv"}
    with pytest.raises(DataError, match="nothing but a mark.*pass unknown_targets='negative'"):
        TextClassificationData.from_csv(**given)
    data = TextClassificationData.from_csv(**given, unknown_targets="negative")
    assert targets_of(data).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_the_fraction_of_processes_counts_known_cells() -> None:
    """Two processes with their weights make the mean over the known cells of both."""
    known = np.array([3, 1, 2, 3, 1])
    owner, batch = np.arange(5), np.array([4, 2, 0])
    losses = np.array([1.0, 10.0, 100.0, 7.0, 3.0])  # the sum over each text's known cells
    total = 0.0
    for rank in range(2):
        rows, weight = shard(batch, owner, rank, 2)
        weight *= known[rows].mean() / known[batch].mean()
        total += weight * losses[rows].sum() / known[rows].sum() / 2
    assert total == pytest.approx(losses[batch].sum() / known[batch].sum())


def rows(count: int = 240, share: float = 0.4) -> tuple[list[str], NDArray[np.float32]]:
    """Texts that say which of three labels apply, and targets of which a share is not known, none of the first label."""
    random = np.random.default_rng(0)
    words = np.array(["zebra", "banana", "hammer"])
    truth = random.random((count, 3)) < 0.4
    texts = [f"row {row} of " + " ".join(words[truth[row]]) for row in range(count)]
    targets = truth.astype(np.float32)
    targets[:, 1:][random.random((count, 2)) < share] = NAN
    return texts, targets


def made(**options: Any) -> TextClassificationData:
    texts, targets = rows()
    return TextClassificationData.from_lists(
        texts, targets, labels=["a", "b", "c"], unknown_targets="mask", **options
    )


def test_a_description_says_what_is_not_known() -> None:
    data = made(val_split=40)
    unknown = np.isnan(targets_of(data))
    shown = str(data)
    assert f"    {unknown.sum()} of 600 targets are not known, in {unknown.any(axis=1).sum()} texts" in shown
    assert f"a {int((targets_of(data)[:, 0] == 1).sum())}" in shown
    assert "not known" not in str(plain())


def plain() -> TextClassificationData:
    texts, targets = rows(share=0)
    return TextClassificationData.from_lists(texts, targets, labels=["a", "b", "c"])


def test_labels_that_cannot_be_told_from_the_known_rows() -> None:
    texts = [f"text {row}" for row in range(6)]
    columns = np.array([[1, 0, 1], [0, 0, NAN], [1, 0, 1], [0, NAN, NAN], [1, 0, 1], [0, 0, NAN]])
    with pytest.warns(UserWarning, match="has no positive row") as said:
        TextClassificationData.from_lists(texts, columns, labels=["a", "b", "c"], unknown_targets="mask")
    assert [str(warning.message) for warning in said] == [
        "train_data: 1 of 3 labels has no positive row among the 6 training rows where it is known (b): it will never be "
        "predicted; 1 of 3 labels applies to each of the 6 training rows where it is known (c): it will always be "
        "predicted; if a cell without a value means that the label does not apply, pass unknown_targets='negative'"
    ]
    columns[:, 1] = NAN
    with pytest.raises(DataError) as caught:
        TextClassificationData.from_lists(texts, columns, labels=["a", "b", "c"], unknown_targets="mask")
    assert str(caught.value) == (
        "train_data: in no training row is it known whether 1 label applies (b), so nothing can be learnt about it; leave "
        "it out of target_fields=, or add rows where it is known"
    )


def test_a_split_balances_the_known_labels() -> None:
    _, targets = rows(1000)
    train, val = stratified_split(csr_array(targets), 0.2)
    for label in range(3):
        positives = targets[:, label] == 1
        assert abs(positives[val].sum() - 0.2 * positives.sum()) <= 1
    bare = np.asarray(~(targets > 0).any(axis=1))
    partly = np.asarray(np.isnan(targets).any(axis=1))
    for kind in (bare & partly, bare & ~partly):
        assert abs(kind[val].sum() - 0.2 * kind.sum()) <= 1
    assert len(train) + len(val) == 1000
    whole = np.nan_to_num(targets)
    again, _ = stratified_split(csr_array(whole), 0.2)
    assert len(again) == 800


def test_a_linear_model_learns_and_measures_what_is_known(
    make_trainer: Any, flat_output: Callable[[], str]
) -> None:
    data = made(val_split=60)
    model = TextClassifier(labels=data.labels, multi_label=True, folds=3)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    evaluation = model.evaluation
    assert evaluation is not None
    val = targets_of(data, "val")
    assert evaluation.known.tolist() == (~np.isnan(val)).sum(axis=0).tolist()
    assert evaluation.support.tolist() == (val == 1).sum(axis=0).tolist()
    assert evaluation.macro_f1 > 0.95
    assert trainer.callback_metrics["val_loss"].isfinite()
    printed = flat_output()
    assert "label known support thresh P R F1 AP AUC ECE" in printed
    texts, targets = rows()
    logits = model(texts)
    known = ~torch.from_numpy(targets).isnan()
    cells = torch.from_numpy(targets)
    expected = binary_cross_entropy(logits[known][:, None], cells[known][:, None])
    assert float(model._loss(logits, cells)) == pytest.approx(float(expected), rel=1e-5)


def test_the_users_metrics_ignore_what_is_not_known(make_trainer: Any) -> None:
    data = made(val_split=60)
    metrics = {
        "own_f1": MultilabelF1Score(3, average="none", ignore_index=-1),
        "own_ap": MultilabelAveragePrecision(3, average="none", ignore_index=-1),
    }
    model = TextClassifier(labels=data.labels, multi_label=True, metrics=metrics, folds=3, thresholds=0.5)
    trainer = make_trainer()
    trainer.fit(model, datamodule=data)
    evaluation = model.evaluation
    assert evaluation is not None
    for place, label in enumerate("abc"):
        found = trainer.callback_metrics
        assert float(found[f"val_own_f1/{label}"]) == pytest.approx(evaluation.f1[place], abs=1e-6)
        assert float(found[f"val_own_ap/{label}"]) == pytest.approx(
            evaluation.average_precision[place], abs=1e-6
        )


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        (MultilabelF1Score(3), "'val_MultilabelF1Score' ignores no target"),
        (
            [MultilabelF1Score(3, ignore_index=-1), MultilabelAveragePrecision(3, ignore_index=-2)],
            "'val_MultilabelF1Score' ignores the target -1",
        ),
    ],
)
def test_metrics_that_would_count_unknown_targets_are_refused_before_the_fit(
    make_trainer: Any, metrics: Any, found: str
) -> None:
    data = made(val_split=60)
    model = TextClassifier(labels=data.labels, multi_label=True, metrics=metrics)
    with pytest.raises(FlashError) as caught:
        make_trainer().fit(model, datamodule=data)
    assert str(caught.value) == (
        f"some targets are not known, and the metric {found}; give each of metrics= ignore_index=-1, which they then get "
        "where a target is not known, or leave metrics= out"
    )
    trainer = make_trainer()
    trainer.fit(TextClassifier(labels=data.labels, multi_label=True, metrics=metrics), datamodule=plain())


@pytest.mark.filterwarnings(LEFT_OUT)
def test_masked_rows_of_one_label_are_as_if_they_were_not_there(make_trainer: Any) -> None:
    texts, targets = rows()
    column = targets[:, 1]
    known = ~np.isnan(column)
    options: dict[str, Any] = {"labels": ["b"], "multi_label": True}
    masked = TextClassificationData.from_lists(texts, column[:, None], unknown_targets="mask", **options)
    alone = TextClassificationData.from_lists(
        [text for text, told in zip(texts, known, strict=True) if told], column[known][:, None], **options
    )
    logits = []
    for data in (masked, alone):
        model = TextClassifier(labels=["b"], multi_label=True, folds=3)
        make_trainer().fit(model, datamodule=data)
        logits.append(model(texts))
        assert model.evaluation is not None
        assert model.evaluation.rows == known.sum()
    assert torch.equal(*logits)


def encoder(folder: Path, **options: Any) -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(
        backbone=str(folder),
        labels=["a", "b", "c"],
        multi_label=True,
        max_length=8,
        learning_rate=0.01,
        **options,
    )


@pytest.mark.parametrize("strategy", ["freeze", "no_freeze"])
@pytest.mark.parametrize("loss", [None, "focal", "asymmetric", "distribution_balanced"])
def test_an_encoder_is_trained_with_every_loss(
    folder: Path, make_trainer: Any, loss: str | None, strategy: str
) -> None:
    """A loss that looked at an unknown cell would break the weights: it is NaN."""
    data = made(val_split=60, batch_size=60)
    options = {"loss_fn": loss} if loss else {"pos_weight": "balanced"}
    model = encoder(folder, **options)
    make_trainer(max_epochs=1).finetune(model, datamodule=data, strategy=strategy)
    head = model.backbone.get_submodule("encoder.head")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert head.weight.isfinite().all()  # type: ignore[operator]
    assert model.evaluation is not None
    assert model.evaluation.known.tolist() == (~np.isnan(targets_of(data, "val"))).sum(axis=0).tolist()


def test_a_batch_has_the_gradients_of_its_known_cells(folder: Path, make_trainer: Any) -> None:
    texts, targets = rows(48)
    data = TextClassificationData.from_lists(
        texts, targets, labels=["a", "b", "c"], unknown_targets="mask", batch_size=48
    )
    model = encoder(folder, optimizer="SGD", lr_scheduler="constant", dropout=0.0)
    # one step of plain gradient descent with the encoder frozen: the head moves by the gradient
    trainer = make_trainer(max_epochs=1, gradient_clip_val=0)
    trainer.finetune(model, datamodule=data, strategy="freeze")
    found = model.backbone.get_submodule("encoder.head").bias.detach()  # type: ignore[operator]
    known = ~np.isnan(targets)
    rates = np.nansum(targets, axis=0) / known.sum(axis=0)
    start = np.log(rates / (1 - rates))  # a new head starts at the known base rates
    fresh = encoder(folder, dropout=0.0)
    fresh.backbone.encoder.start_bias(rates)  # type: ignore[operator, union-attr]
    logits = torch.from_numpy(fresh.backbone.margins(pa.array(texts, pa.large_string()))).numpy()
    slope = np.where(known, 1 / (1 + np.exp(-logits)) - np.nan_to_num(targets), 0).sum(axis=0) / known.sum()
    np.testing.assert_allclose(found.numpy(), start - 0.01 * slope, atol=1e-5)
