"""The data of a task by every door: the same rows, options and fields that are refused, and batches."""

import inspect
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader

from flash.core.errors import DataError, FlashError
from flash.text.classification.data import TextClassificationData
from flash.text.classification.dataset import TextDataset
from flash.text.classification.targets.labels import LabelSet

TEXTS = ["a", "b", "c", "d"]
NAMES = [["x"], [], ["x", "y"], ["y"]]
MATRIX = [[1, 0], [0, 0], [1, 1], [0, 1]]


def refused(make: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(FlashError) as caught:
        make(*arguments, **keywords)
    return str(caught.value)


# ---- the same rows by every door


def by_csv(folder: Path) -> TextClassificationData:
    lines = [f"{text},{x},{y}" for text, (x, y) in zip(TEXTS, MATRIX, strict=True)]
    (folder / "a.csv").write_text("\n".join(["text,x,y", *lines]))
    return TextClassificationData.from_csv("text", ["x", "y"], folder / "a.csv")


def by_json(folder: Path) -> TextClassificationData:
    rows = [{"text": text, "y": names} for text, names in zip(TEXTS, NAMES, strict=True)]
    (folder / "a.json").write_text(json.dumps({"data": rows}))
    return TextClassificationData.from_json("text", "y", str(folder / "a.json"), field="data")


def by_parquet(folder: Path) -> TextClassificationData:
    pa.parquet.write_table(
        pa.table({"text": TEXTS, "y": [",".join(row) for row in NAMES]}), folder / "a.parquet"
    )
    return TextClassificationData.from_parquet("text", "y", [str(folder / "a.parquet")])


def by_data_frame(folder: Path) -> TextClassificationData:
    frame = pd.DataFrame(
        {"text": TEXTS, "x": [row[0] for row in MATRIX], "y": [bool(row[1]) for row in MATRIX]}
    )
    return TextClassificationData.from_data_frame("text", ["x", "y"], frame)


def by_hf_datasets(folder: Path) -> TextClassificationData:
    import datasets

    dataset = datasets.Dataset.from_dict({"text": TEXTS, "y": NAMES})
    return TextClassificationData.from_hf_datasets("text", "y", train_hf_dataset=dataset)


def by_lists(folder: Path) -> TextClassificationData:
    return TextClassificationData.from_lists(TEXTS, np.array(MATRIX), labels=["x", "y"])


def by_labelstudio(folder: Path) -> TextClassificationData:
    tasks = [
        {"data": {"text": text}, "annotations": [{"result": [{"value": {"choices": names}}]}]}
        for text, names in zip(TEXTS, NAMES, strict=True)
    ]
    (folder / "export.json").write_text(json.dumps(tasks))
    return TextClassificationData.from_labelstudio(str(folder / "export.json"))


DOORS = [by_csv, by_json, by_parquet, by_data_frame, by_hf_datasets, by_lists, by_labelstudio]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_door_leads_to_the_same_rows(
    dataset_rows: Any, door: Callable[[Path], TextClassificationData], tmp_path: Path
) -> None:
    data = door(tmp_path)
    assert dataset_rows(data.train_dataset) == list(zip(TEXTS, MATRIX, strict=True))
    assert (data.labels, data.num_classes, data.multi_label) == (["x", "y"], 2, True)
    assert data.val_dataset is data.test_dataset is data.predict_dataset is None


def test_all_splits_of_a_file(dataset_rows: Any, tmp_path: Path) -> None:
    for name, label in (("train", "b,a"), ("val", "a"), ("test", "b"), ("predict", "")):
        (tmp_path / f"{name}.csv").write_text(f'comment,tags\n{name},"{label}"\n')
    (tmp_path / "train.csv").write_text('comment,tags\ntrain,"b,a"\nnone,\n')
    (tmp_path / "predict.csv").write_text("comment\nhello\n")
    files: dict[str, Any] = {
        f"{name}_file": str(tmp_path / f"{name}.csv") for name in ("train", "val", "test", "predict")
    }
    data = TextClassificationData.from_csv("comment", "tags", **files, batch_size=2)
    assert dataset_rows(data.train_dataset) == [("train", [1, 1]), ("none", [0, 0])]
    assert dataset_rows(data.val_dataset) == [("val", [1, 0])]
    assert dataset_rows(data.test_dataset) == [("test", [0, 1])]
    assert data.predict_dataset is not None
    assert (data.predict_dataset.texts.to_pylist(), data.predict_dataset.targets) == (["hello"], None)
    assert data.input_field == "comment"
    assert (
        repr(data)
        == str(data)
        == (
            "TextClassificationData: 2 labels, multi-label, batch_size=2\n  train:           2 texts, 1.00 "
            "labels a text, 1 without a label\n    a 1, b 1\n  val:             1 text, 1.00 labels a text, "
            "0 without a label\n    a 1, b 0\n  test:            1 text, 1.00 labels a text, 0 without a "
            "label\n    b 1, a 0\n  predict:         1 text"
        )
    )


def test_texts_alone() -> None:
    data = TextClassificationData.from_lists(predict_data=["p", "q"], batch_size=1)
    assert (data.labels, data.num_classes, data.multi_label, data.label_set) == (None, None, None, None)
    assert [batch["texts"].to_pylist() for batch in data.predict_dataloader()] == [["p"], ["q"]]
    assert "targets" not in next(iter(data.predict_dataloader()))
    assert repr(data) == "TextClassificationData: no labels, batch_size=1\n  predict:         2 texts"
    assert TextClassificationData.from_lists(predict_data=["p"], labels=["x"]).labels == ["x"]


def test_without_train_the_first_split_decides(dataset_rows: Any) -> None:
    data = TextClassificationData.from_lists(
        test_data=["a", "b"], test_targets=[["x"], ["y"]], labels=["y", "x", "z"]
    )
    assert dataset_rows(data.test_dataset) == [("a", [0, 1, 0]), ("b", [1, 0, 0])]


def test_val_follows_train_though_its_rows_look_otherwise(dataset_rows: Any, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('text,y\na,"x,y"\nd,\n')
    (tmp_path / "val.csv").write_text("text,y\nb,x\nc,\n")
    data = TextClassificationData.from_csv("text", "y", tmp_path / "train.csv", tmp_path / "val.csv")
    assert dataset_rows(data.val_dataset) == [("b", [1, 0]), ("c", [0, 0])]


def test_unknown_labels_name_the_user_s_line(dataset_rows: Any, tmp_path: Path) -> None:
    lists: dict[str, Any] = {
        "train_data": ["a", "b"],
        "train_targets": [["x"], ["y"]],
        "val_data": ["c"],
        "val_targets": [["x", "new"]],
    }
    assert refused(TextClassificationData.from_lists, **lists) == (
        "val_data: 1 value in column 'targets' is none of the 2 labels (x, y): 'new' (1 row, the first "
        "val_data, row 1); add them to labels=[...], or pass unknown_labels='ignore' to leave them out (rows "
        "are counted from 1)"
    )
    with pytest.warns(UserWarning, match="left out of these rows") as caught:
        data = TextClassificationData.from_lists(**lists, unknown_labels="ignore")
    assert [Path(warning.filename).name for warning in caught] == ["test_data.py"]
    assert dataset_rows(data.val_dataset) == [("c", [1, 0])]


def test_one_column_of_0_and_1_by_its_name_alone(dataset_rows: Any, tmp_path: Path) -> None:
    for name, rows in (("train", "a,1\nb,0\n"), ("val", "c,0\n"), ("test", "d,1\n")):
        (tmp_path / f"{name}.csv").write_text(f"text,toxic\n{rows}")
    data = TextClassificationData.from_csv(
        "text", "toxic", *[tmp_path / f"{name}.csv" for name in ("train", "val", "test")], multi_label=True
    )
    assert (data.labels, data.multi_label) == (["toxic"], True)
    assert dataset_rows(data.train_dataset) == [("a", [1]), ("b", [0])]
    assert dataset_rows(data.val_dataset) == [("c", [0])]
    assert dataset_rows(data.test_dataset) == [("d", [1])]


# ---- what is refused, and what decides


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"val_split": 0.5, "val_data": ["e"], "val_targets": [["x"]]},
            "val_split=0.5 is given, and validation rows too; pass one of them",
        ),
        ({"val_split": 4}, "val_split=4 is out of range"),
        ({"val_split": 0.0}, "val_split=0.0 is out of range"),
        ({"val_split": 1.0}, "val_split=1.0 is out of range"),
        ({"val_split": 1.5}, "val_split=1.5 is out of range"),
        ({"val_split": True}, "val_split=True is out of range"),
        (
            {"val_split": 0.5, "train_data": ["a"], "train_targets": [["x"]]},
            "a validation split needs at least 2 rows",
        ),
        ({"val_split": 0.5, "train_data": ["a"] * 4}, "all 4 rows hold the same text"),
        (
            {"val_split": 0.5, "train_data": None, "train_targets": None, "predict_data": ["a"]},
            "val_split=0.5 is given without training rows to take them from; leave it out",
        ),
        ({"batch_size": 0}, "batch_size=0 is not a number of rows; pass a whole number of at least 1"),
        ({"seed": -1}, "seed=-1 is not a seed; pass a whole number of at least 0 and below 2**64"),
        ({"seed": 1.5}, "seed=1.5 is not a seed"),
        ({"seed": True}, "seed=True is not a seed"),
        ({"seed": 2**64}, "seed=18446744073709551616 is not a seed"),
        ({"num_workers": -1}, "num_workers=-1 is not a number of processes; pass 0 or more"),
        ({"unknown_labels": "drop"}, "unknown unknown_labels 'drop'. Known: error, ignore"),
        (
            {"batch_sise": 3},
            "unknown option 'batch_sise'; did you mean 'batch_size'? Known: batch_size, label_delimiter, "
            "labels, num_classes, multi_label, unknown_labels, unknown_targets, unknown_values, val_split, num_workers, and 1 more",
        ),
        (
            {"train_targets": None},
            "train_data is given without train_targets; pass both, or predict_data for texts alone",
        ),
        (
            {"test_targets": [["x"]]},
            "test_targets is given without test_data; pass both, or predict_data for texts alone",
        ),
        (
            {"train_data": None, "train_targets": None},
            "there is nothing to read; pass at least one of train_data, val_data, test_data, predict_data",
        ),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], words: str) -> None:
    lists = {"train_data": TEXTS, "train_targets": NAMES, **options}
    assert words in refused(TextClassificationData.from_lists, **lists)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            None,
            "train_file needs targets; pass target_fields= with the target column, or a list of 0/1 columns",
        ),
        (
            [],
            "train_file needs targets; pass target_fields= with the target column, or a list of 0/1 columns",
        ),
        ("text", "'text' is both input_field and one of target_fields; take it out of one of them"),
        (["x", "y", "x"], "target_fields holds 'x' more than once; name each column once"),
        (["x", "z"], "a.csv: unknown column 'z'. Known: text, x, y"),
    ],
)
def test_fields_that_are_refused(tmp_path: Path, fields: Any, words: str) -> None:
    by_csv(tmp_path)
    message = refused(TextClassificationData.from_csv, "text", fields, train_file=str(tmp_path / "a.csv"))
    assert message.endswith(words)


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    targets=st.lists(
        st.lists(st.sampled_from("abc"), max_size=3, unique=True), min_size=2, max_size=12
    ).filter(any)
)
@pytest.mark.filterwarnings("ignore:.*training row")
def test_a_delimiter_argument_decides_whatever_the_rows_carry(
    dataset_rows: Any, tmp_path: Path, targets: list[list[str]]
) -> None:
    lines = [f"text {i},{'|'.join(labels)}" for i, labels in enumerate(targets)]
    (tmp_path / "any.csv").write_text("\n".join(["text,y", *lines]) + "\n")
    data = TextClassificationData.from_csv("text", "y", tmp_path / "any.csv", label_delimiter="|")
    names = sorted({label for labels in targets for label in labels})
    assert (data.multi_label, data.labels) == (True, names)
    expected = [[float(name in labels) for name in names] for labels in targets]
    assert [row for _, row in dataset_rows(data.train_dataset)] == expected


def test_label_names_that_look_like_mistakes_name_the_user_s_line() -> None:
    with pytest.warns(UserWarning, match="differ only by case or spaces: 'TOXIC'/'toxic'") as caught:
        TextClassificationData.from_lists(["a", "b"], [["toxic"], ["TOXIC"]])
    assert [Path(warning.filename).name for warning in caught] == ["test_data.py"]


def test_arguments_in_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_csv(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert refused(TextClassificationData.from_csv, "a.csv", "text", ["x", "y"]) == (
        "input_field='a.csv' is a file; name the column of texts first, then the target columns, then the file: "
        "('text', 'labels', 'a.csv'), or pass train_file='a.csv'"
    )
    (tmp_path / "text").write_text("a file of the column's name")
    assert TextClassificationData.from_csv("text", ["x", "y"], "a.csv").labels == ["x", "y"]


def test_an_empty_cell_of_a_frame_says_what_to_type(dataset_rows: Any) -> None:
    frame = pd.read_csv(io.StringIO('text,labels\na,"x,y"\nb,\n'))
    assert 'type frame["labels"] = frame["labels"].fillna("") with your frame' in refused(
        TextClassificationData.from_data_frame, "text", "labels", frame
    )
    frame["labels"] = frame["labels"].fillna("")
    data = TextClassificationData.from_data_frame(
        "text", "labels", predict_data_frame=frame, test_data_frame=frame
    )
    assert dataset_rows(data.test_dataset) == [("a", [1, 1]), ("b", [0, 0])]


def test_errors_are_data_errors() -> None:
    with pytest.raises(DataError, match="train_data: 1 row has no text"):
        TextClassificationData.from_lists(["a", None], [["x"], ["y"]])


# ---- batches


def test_batches_of_a_dataset(dataset_rows: Any) -> None:
    dataset = by_lists(Path()).train_dataset
    assert dataset is not None
    batch = dataset.__getitems__([2, 0, 2])
    assert batch["texts"].to_pylist() == ["c", "a", "c"]
    assert batch["targets"].dtype == torch.float32
    assert batch["targets"].tolist() == [[1, 1], [1, 0], [1, 1]]
    assert dataset[-1]["texts"].to_pylist() == ["d"]
    assert [row["texts"][0].as_py() for row in dataset] == TEXTS  # type: ignore[attr-defined]
    with pytest.raises(IndexError, match="row 4 of 4"):
        dataset[4]
    copy = pickle.loads(pickle.dumps(dataset))
    assert dataset_rows(copy) == dataset_rows(dataset)


def test_loaders_keep_order_and_the_last_partial_batch() -> None:
    data = TextClassificationData.from_lists(
        TEXTS[:3],
        NAMES[:3],
        val_data=[f"{text}, for validation" for text in TEXTS[:3]],
        val_targets=NAMES[:3],
        test_data=[f"{text}, for a test" for text in TEXTS[:3]],
        test_targets=NAMES[:3],
        batch_size=2,
    )
    for loader in (data.val_dataloader(), data.test_dataloader()):
        batches = [[text[0] for text in batch["texts"].to_pylist()] for batch in loader]
        assert batches == [["a", "b"], ["c"]]
        assert torch.cat([batch["targets"] for batch in loader]).tolist() == MATRIX[:3]
        assert len(loader) == 2


def test_training_rows_are_shuffled_by_the_seed() -> None:
    texts = [str(i) for i in range(50)]

    def order(seed: int) -> list[str]:
        data = TextClassificationData.from_lists(texts, [["x"], []] * 25, batch_size=7, seed=seed)
        return [text for batch in data.train_dataloader() for text in batch["texts"].to_pylist()]

    assert order(0) == order(0) != order(1)
    assert order(0) != texts
    assert sorted(order(0)) == sorted(texts)


def test_workers_are_not_needed_and_none_is_started(caplog: pytest.LogCaptureFixture) -> None:
    data = TextClassificationData.from_lists(TEXTS, NAMES, predict_data=TEXTS, batch_size=3, num_workers=2)
    assert (
        caplog.text.count(
            "num_workers=2 changes nothing: batches are slices of arrays in memory, and the model tokenises, so no worker "
            "processes are started."
        )
        == 1
    )
    assert data.train_dataloader().num_workers == 0
    assert [batch["texts"].to_pylist() for batch in data.predict_dataloader()] == [TEXTS[:3], TEXTS[3:]]
    assert caplog.text.count("num_workers") == 1


def test_batches_in_order_have_a_length_and_all_rows() -> None:
    for count, batch_size, sizes in ((5, 2, [2, 2, 1]), (4, 2, [2, 2]), (1, 32, [1])):
        texts = [f"text {i}" for i in range(count)]
        data = TextClassificationData.from_lists(predict_data=texts, batch_size=batch_size)
        loader = data.predict_dataloader()
        assert len(loader) == len(sizes)
        assert [len(batch["texts"]) for batch in loader] == sizes
        assert [text for batch in loader for text in batch["texts"].to_pylist()] == texts
        assert [row for batch in loader for row in batch["rows"]] == list(range(count))


def test_torch_loads_what_lightning_deals_out_or_writes_by_row() -> None:
    class Trainer:
        world_size = 2

        def __init__(self) -> None:
            self.callbacks: list[Any] = []

    class Writer(BasePredictionWriter):
        pass

    data = TextClassificationData.from_lists(TEXTS, NAMES, predict_data=TEXTS)
    data.trainer = trainer = Trainer()  # type: ignore[assignment]
    assert isinstance(data.predict_dataloader(), DataLoader)
    trainer.world_size = 1
    assert not isinstance(data.predict_dataloader(), DataLoader)
    trainer.callbacks = [Writer("batch")]
    assert isinstance(data.predict_dataloader(), DataLoader)


def test_a_script_without_a_guard_that_asks_for_workers(tmp_path: Path) -> None:
    """Workers would run the script once more, each of them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "multiprocessing.set_start_method('spawn')\n"
        "from flash import Trainer\n"
        "from flash.text import TextClassificationData, TextClassifier\n"
        "texts = [f'{word} number {i}' for i in range(20) for word in ('cat', 'dog')]\n"
        "data = TextClassificationData.from_lists(\n"
        "    texts, [[text.split()[0]] for text in texts], val_split=0.2, test_data=texts[:4],\n"
        "    test_targets=[['cat'], ['dog']] * 2, predict_data=texts[:2], num_workers=2)\n"
        "model = TextClassifier(labels=data.labels, multi_label=True)\n"
        "trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)\n"
        "trainer.fit(model, datamodule=data)\n"
        "trainer.test(model, datamodule=data)\n"
        "print('predicted', trainer.predict(model, datamodule=data, output='labels'))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "predicted [[['cat'], ['dog']]]" in done.stdout
    assert done.stderr.count("changes nothing") == 1
    assert "bottleneck" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_may_make_its_own_training_batches() -> None:
    class Model:
        def train_batches(self, dataset: TextDataset, seed: int) -> list[Any]:
            return [len(dataset), seed]

    class Trainer:
        lightning_module: Any = Model()

    data = TextClassificationData.from_lists(TEXTS, NAMES, seed=7)
    data.trainer = Trainer()  # type: ignore[assignment]
    assert data.train_dataloader() == [4, 7]
    Trainer.lightning_module = torch.nn.Linear(1, 1)
    assert isinstance(data.train_dataloader(), DataLoader)


def test_splits_that_are_not_there() -> None:
    data = TextClassificationData(label_set=LabelSet(("x",), True))
    assert data.val_dataloader() == []
    for split in ("train", "test", "predict"):
        message = refused(getattr(data, f"{split}_dataloader"))
        assert (
            message == f"this datamodule has no {split} rows; pass {split}_file=, {split}_data= or the like"
        )


def test_every_door_explains_its_arguments() -> None:
    for name, door in inspect.getmembers(TextClassificationData, inspect.ismethod):
        if name.startswith("from_") and name != "from_datasets":
            for parameter in inspect.signature(door).parameters:
                taken = not parameter.startswith("_")  # what only refuses names nothing that it takes
                assert not taken or f"{parameter}: " in (door.__doc__ or ""), (name, parameter)


# ---- genuine data


def test_genuine_comments(shared_data: Path) -> None:
    labels = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
    file = shared_data / "jigsaw_toxic_comments" / "train.csv"
    data = TextClassificationData.from_csv(
        "comment_text", labels, train_file=str(file), val_split=0.1, batch_size=4
    )
    assert data.labels == labels
    assert data.train_dataset is not None
    assert data.val_dataset is not None
    assert (len(data.train_dataset), len(data.val_dataset)) == (14_400, 1_600)
    frame = pd.read_csv(file)
    counts = data.train_dataset.targets.sum(axis=0) + data.val_dataset.targets.sum(axis=0)  # type: ignore[union-attr]
    assert counts.tolist() == frame[labels].sum().tolist()


def test_genuine_laws(shared_data: Path) -> None:
    data = TextClassificationData.from_parquet(
        "text", "labels", str(shared_data / "eurlex57k" / "train.parquet")
    )
    assert (data.num_classes, data.multi_label) == (4_108, True)
    assert data.train_dataset is not None
    assert data.train_dataset.targets is not None
    assert round(data.train_dataset.targets.sum() / len(data.train_dataset), 2) == 5.07
