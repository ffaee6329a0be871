"""What a task's rows are checked and held out by, and how they are described."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flash.core.errors import FlashError
from flash.text.classification.data import TextClassificationData


def refused(make: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(FlashError) as caught:
        make(*arguments, **keywords)
    return str(caught.value)


def test_val_split_is_stratified_seeded_and_keeps_identical_texts_together(dataset_rows: Any) -> None:
    texts = [f"text {i // 2}" for i in range(200)]
    targets = [["rare"] if i < 20 else ["common"] if i < 120 else [] for i in range(200)]
    data = TextClassificationData.from_lists(texts, targets, val_split=0.1, seed=3)
    train, val = dataset_rows(data.train_dataset), dataset_rows(data.val_dataset)
    assert (len(train), len(val)) == (180, 20)
    assert not {text for text, _ in train} & {text for text, _ in val}
    assert np.sum([row for _, row in val], axis=0).tolist() == [10, 2]
    assert sorted(train + val) == sorted(
        dataset_rows(TextClassificationData.from_lists(texts, targets).train_dataset)
    )
    again = TextClassificationData.from_lists(texts, targets, val_split=0.1, seed=3)
    other = TextClassificationData.from_lists(texts, targets, val_split=0.1, seed=4)
    assert dataset_rows(again.val_dataset) == val
    assert dataset_rows(other.val_dataset) != val


@pytest.mark.parametrize(("val_split", "rows"), [(1, 1), (3, 3), (3.0, 3), (0.5, 8), (0.01, 1)])
def test_val_split_is_a_fraction_or_a_number(val_split: float, rows: int) -> None:
    texts = [f"{text} {number}" for number in range(4) for text in "abcd"]
    data = TextClassificationData.from_lists(texts, [["x"], [], ["x", "y"], ["y"]] * 4, val_split=val_split)
    assert data.val_dataset is not None
    assert len(data.val_dataset) == rows


def test_training_rows_without_any_label(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,x,y\na,0,0\nb,0,0\n")
    rest = (
        ", so there is nothing to learn; check that target_fields= names the right columns, and that a row to "
        "which a label applies has a 1 there, or its name"
    )
    path = tmp_path / "a.csv"
    message = refused(TextClassificationData.from_csv, "text", ["x", "y"], path)
    assert message == f"{path}: no training row has a label in the 2 target columns{rest}"
    message = refused(TextClassificationData.from_csv, "text", "x", path, multi_label=True)
    assert message == f"{path}: no training row has a label in column 'x'{rest}"
    nothing: list[Any] = [[[0.0, 0.0]] * 2, [[], []]]
    for targets in nothing:
        message = refused(TextClassificationData.from_lists, ["a", "b"], targets, labels=["x", "y"])
        assert message == f"train_data: no training row has a label in column 'targets'{rest}"
    assert TextClassificationData.from_csv("text", ["x", "y"], test_file=path).test_dataset is not None


def test_labels_that_no_training_row_has_or_that_all_have(tmp_path: Path) -> None:
    lines = [f"text {row},1,0,0,{row % 2},0,0,0" for row in range(20)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,all,b,c,d,e,f,g", *lines]))
    fields = ["all", "b", "c", "d", "e", "f", "g"]
    with pytest.warns(UserWarning, match="training rows") as caught:
        TextClassificationData.from_csv("text", fields, path, val_split=0.1)
    assert [(str(warning.message), Path(warning.filename).name) for warning in caught] == [
        (
            f"{path}: 5 of 7 labels have no positive row among the 18 training rows (b, c, e, f, g): they will "
            "never be predicted; 1 of 7 labels applies to each of the 18 training rows (all): it will always be "
            "predicted",
            "test_training_rows.py",
        )
    ]
    with pytest.warns(UserWarning, match="1 of 12 labels has no positive row among the 2 .*: it will never"):
        TextClassificationData.from_lists(
            ["a", "b"], [[1.0] + [0.0] * 11, [0.0] + [1.0] * 10 + [0.25]], labels=[f"l{i}" for i in range(12)]
        )
    with pytest.warns(UserWarning, match=r"11 of 12 labels have .* \(b0, b1, b2, .* b8, b9, and 1 more\)"):
        TextClassificationData.from_lists(
            ["a", "b"], [["a"], []], labels=["a", *(f"b{number}" for number in range(11))]
        )
    with pytest.warns(
        UserWarning, match="1 of 1 label applies to each of the 1 training row .a.: it will always"
    ):
        TextClassificationData.from_lists(["a"], ["a"])
    TextClassificationData.from_csv("text", fields, test_file=path)  # measuring is another thing


def test_repr_of_many_labels() -> None:
    data = TextClassificationData.from_lists(
        ["t", "u", "v"], [[f"label{i}" for i in range(12)], ["label11"], []]
    )
    assert repr(data).endswith(
        "label11 2, label0 1, label1 1, label2 1, label3 1, label4 1, label5 1, label6 1, label7 1, label8 "
        "1 ... and 2 more"
    )


def test_repr_counts_soft_targets_as_the_scores_do() -> None:
    data = TextClassificationData.from_lists(
        ["a", "b", "c", "d"],
        [[0.5], [0.75], [0.25], [0.0]],
        labels=["x"],
        test_data=["e"],
        test_targets=[[1.0]],
    )
    assert repr(data) == (
        "TextClassificationData: 1 label, multi-label, batch_size=32\n  train:           4 texts, 0.50 labels a "
        "text, 2 without a label\n    x 2\n  test:            1 text, 1.00 labels a text, 0 without a label\n"
        "    x 1"
    )
