import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sklearn.metrics import average_precision_score, f1_score

from flash.__main__ import main
from flash.text.classification.predictor import Predictor

LABELS = ["animal", "fruit", "tool"]
TEXTS = ["a zebra and a banana", "nothing", "the hammer of the zebra", "a banana", "a hammer"]
TARGETS = np.array(
    [[1, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 0, 0]]
)  # the last one is not what it says
NAMES = [[name for name, one in zip(LABELS, row, strict=True) if one] for row in TARGETS]


def write_csv(path: Path, columns: dict[str, Any]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def wide() -> dict[str, Any]:
    return {
        "comment_text": TEXTS,
        **{name: TARGETS[:, column].tolist() for column, name in enumerate(LABELS)},
    }


def as_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def check(shown: dict[str, Any], model: Path) -> None:
    """scikit-learn's numbers for the multi-label file."""
    predictor = Predictor.load(model)
    probabilities = predictor.probabilities(TEXTS)
    assert shown["rows"] == len(TEXTS)
    assert shown["micro"]["f1"] == pytest.approx(
        f1_score(TARGETS, probabilities >= predictor.thresholds, average="micro")
    )
    assert shown["macro"]["average_precision"] == pytest.approx(
        average_precision_score(TARGETS, probabilities, average="macro")
    )
    assert [row["label"] for row in shown["labels"]] == LABELS
    assert [row["support"] for row in shown["labels"]] == TARGETS.sum(axis=0).tolist()


def test_the_table(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "test.csv", {"id": range(5), **wide()})
    assert main(["evaluate", str(model), str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: 5 rows, 3 labels\n") or out.replace("\n", " ").startswith(
        f"{path}: 5 rows"
    )
    assert "macro average precision (mAP)" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(tuple(LABELS))] == LABELS


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "json", "jsonl", "parquet"])
def test_columns_of_the_labels_in_every_format(
    model: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"test.{ending}"
    rows = [dict(zip(wide(), row, strict=True)) for row in zip(*wide().values(), strict=True)]
    if ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == "parquet":
        pa.parquet.write_table(pa.table(wide()), path)
    else:
        write_csv(path, wide())
    assert main(["evaluate", str(model), str(path), "--json"]) == 0
    check(as_json(capsys), model)


@pytest.mark.parametrize("column", ["labels", "label", "tags"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_one_column_of_names(
    model: Path, tmp_path: Path, column: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"test.{ending}"
    words = ["--target_fields", "tags"] if column == "tags" else []
    if ending == "csv":
        write_csv(path, {"body": TEXTS, column: [";".join(names) for names in NAMES]})
        words += ["--label_delimiter", ";"]
    else:
        rows = zip(TEXTS, NAMES, strict=True)
        path.write_text("".join(json.dumps({"body": text, column: names}) + "\n" for text, names in rows))
    assert main(["evaluate", str(model), str(path), "--json", *words]) == 0
    check(as_json(capsys), model)


def test_the_output_of_predict_is_right_by_its_own_measure(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "in.csv", {"text": TEXTS})
    words = ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert main(["predict", str(model), *words]) == 0
    capsys.readouterr()
    words = [str(model), str(tmp_path / "out.csv")]
    assert main(["evaluate", *words]) == 2
    assert capsys.readouterr().err == (
        f"flash: error: {tmp_path / 'out.csv'}: this file holds predictions (its column 'labels' stands beside "
        "columns named ..._probability); name the true targets: --target_fields and their columns\n"
    )
    assert main(["evaluate", *words, "--target_fields", "labels", "--json"]) == 0
    assert as_json(capsys)["subset_accuracy"] == 1.0


def test_true_targets_beside_predictions_are_found(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true = {"text": TEXTS, "label": [",".join(names) for names in NAMES]}
    write_csv(tmp_path / "in.csv", true)
    words = [
        "--input",
        str(tmp_path / "in.csv"),
        "--output",
        str(tmp_path / "out.csv"),
        "--input_field",
        "text",
    ]
    assert main(["predict", str(model), *words]) == 0
    assert main(["evaluate", str(model), str(tmp_path / "out.csv"), "--json"]) == 0
    shown = as_json(capsys)
    assert shown["target_fields"] == ["label"]
    check(shown, model)


def test_what_was_compared_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "test.csv", {"id": range(5), **wide()})
    assert main(["evaluate", str(model), str(path)]) == 0
    assert "Texts: column 'comment_text'; targets: columns animal fruit tool." in capsys.readouterr().out
    assert main(["evaluate", str(model), str(path), "--json"]) == 0
    shown = as_json(capsys)
    assert shown["files"] == [str(path)]
    assert shown["input_field"] == "comment_text"
    assert shown["target_fields"] == LABELS
    assert shown["labels_left_out"] == []
    path = write_csv(tmp_path / "names.csv", {"body": TEXTS, "label": [",".join(names) for names in NAMES]})
    assert main(["evaluate", str(model), str(path)]) == 0
    assert "Texts: column 'body'; targets: column 'label'." in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--target_fields", "tool", "animal"]])
def test_some_of_the_labels(
    model: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    columns = wide()
    if not words:
        del columns["fruit"]
    path = write_csv(tmp_path / "test.csv", columns)
    words = [str(model), str(path), "--thresholds", "0.5", "0.5", "0.25", *words]
    assert main(["evaluate", *words, "--json"]) == 0
    shown = as_json(capsys)
    probabilities = Predictor.load(model).probabilities(TEXTS)[:, [0, 2]]
    assert [row["label"] for row in shown["labels"]] == ["animal", "tool"]
    assert [row["threshold"] for row in shown["labels"]] == [0.5, 0.25]
    assert shown["labels_left_out"] == ["fruit"]
    assert shown["micro"]["f1"] == pytest.approx(
        f1_score(TARGETS[:, [0, 2]], probabilities >= [0.5, 0.25], average="micro")
    )
    assert shown["macro"]["average_precision"] == pytest.approx(
        average_precision_score(TARGETS[:, [0, 2]], probabilities, average="macro")
    )
    assert main(["evaluate", *words]) == 0
    out = capsys.readouterr().out
    assert "targets: columns animal tool." in out
    assert "Left out, as no target column is theirs: fruit (1 of the model's 3 labels)." in out.replace(
        "\n", " "
    )


def test_one_label_alone(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(tmp_path / "test.csv", wide())
    assert main(["evaluate", str(model), str(path), "--target_fields", "tool", "--json"]) == 0
    shown = as_json(capsys)
    assert [(row["label"], row["support"]) for row in shown["labels"]] == [("tool", 1)]


def test_columns_of_a_single_label_model(
    single_label_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_hot = {"text": ["the zebra", "the banana"], "animal": [1, 0], "fruit": [0, 1]}
    path = write_csv(tmp_path / "test.csv", one_hot)
    for words in ([], ["--target_fields", "animal", "fruit"]):
        assert main(["evaluate", str(single_label_model), str(path), *words]) == 2
        assert "test.csv has " in (sentence := capsys.readouterr().err)
        assert "this model gives each text exactly one of them all; name" in sentence or not words
    path = write_csv(tmp_path / "test.csv", {**one_hot, "tool": [0, 0]})
    assert main(["evaluate", str(single_label_model), str(path), "--thresholds", "0.5", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["subset_accuracy"] == 1.0
    assert err == (
        "flash: note: --thresholds changes nothing: this model gives each text its one most probable label\n"
    )


def test_delimiter_quoting_and_format(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "test.dat"
    path.write_text('text;animal;fruit;tool\n"zebra;1;0;0\n5" banana;0;1;0\n')
    words = [str(model), str(path)]
    assert main(["evaluate", *words]) == 2
    assert "; type --input_format csv, or tsv, jsonl or parquet in its place\n" in capsys.readouterr().err
    words += ["--input_format", "csv"]
    assert main(["evaluate", *words, "--quoting", "false"]) == 2
    assert capsys.readouterr().err.endswith("; the header holds ';': type --delimiter ';'\n")
    assert main(["evaluate", *words, "--quoting", "false", "--target_fields", "tool"]) == 2
    assert capsys.readouterr().err.endswith("; the header holds ';': type --delimiter ';'\n")
    words += ["--delimiter", ";"]
    assert main(["evaluate", *words]) == 2
    assert "--quoting false" in capsys.readouterr().err
    assert main(["evaluate", *words, "--quoting", "false", "--json"]) == 0
    shown = as_json(capsys)
    assert shown["rows"] == 2
    assert shown["subset_accuracy"] == 1.0


def test_fields_thresholds_and_several_files(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a1.csv", "a2.csv"):
        write_csv(tmp_path / name, {"text": ["wrong column"] * 5, "other": TEXTS, **wide()})
    words = [
        "--input_field",
        "other",
        "--target_fields",
        "tool",
        "fruit",
        "animal",
        "--thresholds",
        "0.5",
        "0.25",
        "1",
    ]
    assert main(["evaluate", str(model), str(tmp_path / "a*.csv"), "--json", *words]) == 0
    shown = as_json(capsys)
    assert shown["rows"] == 10
    assert [row["label"] for row in shown["labels"]] == LABELS
    assert [row["threshold"] for row in shown["labels"]] == [0.5, 0.25, 1.0]
    assert [row["support"] for row in shown["labels"]] == (2 * TARGETS.sum(axis=0)).tolist()


def test_single_label(single_label_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, names = ["the zebra", "the banana", "the hammer", "a zebra"], ["animal", "fruit", "tool", "tool"]
    write_csv(tmp_path / "test.csv", {"text": texts, "label": names})
    assert main(["evaluate", str(single_label_model), str(tmp_path / "test.csv"), "--json"]) == 0
    shown = as_json(capsys)
    assert (shown["multi_label"], shown["subset_accuracy"]) == (False, 0.75)


def test_unknown_labels(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_csv(
        tmp_path / "test.csv", {"text": TEXTS, "labels": ["animal,fungus", "", "tool", "fruit", "fungus"]}
    )
    assert main(["evaluate", str(model), str(path)]) == 2
    assert capsys.readouterr().err.endswith(  # no option adds labels to a model
        "'fungus' (2 rows, the first test.csv, row 1); type --unknown_labels ignore to leave them out (rows are counted "
        "from 1, the header not)\n".replace("test.csv", str(path))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["evaluate", str(model), str(path), "--unknown_labels", "ignore", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == 5
    assert err.startswith("flash: warning: ")
    assert "'fungus' (2 rows" in err


def test_the_order_of_vectors_is_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(
        tmp_path / "test.csv", {"text": TEXTS, "labels": [" ".join(map(str, row)) for row in TARGETS]}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["evaluate", str(model), str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert [row["support"] for row in json.loads(out)["labels"]] == TARGETS.sum(axis=0).tolist()
    sentence = "the values of each target in column 'labels' are read in the order of the model's labels: animal; fruit; tool"
    assert f"flash: warning: {path}: {sentence}\n" in err


@pytest.mark.parametrize(
    ("columns", "words", "sentence"),
    [
        (
            {"text": TEXTS, "animals": [0] * 5},
            [],
            "test.csv has no column for 3 of the model's 3 labels (such as 'animal') and none named "
            "'labels' or 'label'; its columns are text, animals; type --target_fields and those of the",
        ),
        (
            {"text": TEXTS, "animal": [0] * 5, "fungus": [0] * 5},
            ["--target_fields", "animal", "fungus"],
            "test.csv: the target column 'fungus' is no label of the model: unknown label 'fungus'",
        ),
        (
            {"a": TEXTS, "b": TEXTS, "labels": ["animal"] * 5},
            [],
            "test.csv: which column holds the texts? Its columns are a, b, labels; type --input_field",
        ),
        (
            {"text": TEXTS, "labels": ["animal"] * 5},
            ["--input_field", "txt"],
            "test.csv: unknown column 'txt'; did you mean 'text'? Known: text, labels",
        ),
        (
            {"text": TEXTS, "labels": ["animal"] * 5},
            ["--target_fields", "lables"],
            "test.csv: unknown column 'lables'; did you mean 'labels'? Known: text, labels",
        ),
        (
            {"text": TEXTS, "labels": ["animal"] * 5},
            ["--target-field", "labels"],
            "unknown option '--target_field'",
        ),
        ({**wide(), "tool": [0, 1, 2, 0, 0]}, [], "row 3"),
    ],
)
def test_mistakes(
    model: Path,
    tmp_path: Path,
    columns: dict[str, Any],
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_csv(tmp_path / "test.csv", columns)
    assert main(["evaluate", str(model), str(path), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("flash: error: ")
    assert err.count("\n") == 1
    assert sentence in err


def test_endings_and_encodings(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(model), "test.docx"]) == 2
    assert "test.docx: the ending tells no format (known: .csv, .txt, .tsv" in capsys.readouterr().err
    path = tmp_path / "test.csv"
    path.write_bytes("text,labels\nœuf zebra,animal\nbanana,fruit\n".encode("cp1252"))
    assert main(["evaluate", str(model), str(path), "--encoding", "cp1252", "--json"]) == 0
    assert as_json(capsys)["rows"] == 2


def test_imports_neither_torch_nor_lightning(
    model: Path, tmp_path: Path, imported: Callable[..., set[str]]
) -> None:
    path = write_csv(tmp_path / "test.csv", wide())
    assert imported("evaluate", model, path) & {"torch", "lightning", "pytorch_lightning"} == set()


@pytest.mark.filterwarnings("default:.*no target that is known:UserWarning")
def test_calibration_by_text_length(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"{row} {'a zebra' if row % 3 else 'a hammer'}{' x' * (row % 2 * 30)}" for row in range(610)]
    targets = [[int(row % 3 > 0), 0, int(row % 5 == 0)] for row in range(609)] + [[-1] * 3]
    columns = {name: [row[place] for row in targets] for place, name in enumerate(LABELS)}
    path = write_csv(tmp_path / "test.csv", {"text": texts, **columns})
    words = ["evaluate", str(model), str(path), "--unknown_targets", "mask"]
    assert main([*words, "--json"]) == 0
    short, long = as_json(capsys)["calibration_by_length"]
    assert (short["from"], short["below"], short["rows"]) == (0, 40, 305)
    assert (long["from"], long["below"], long["rows"]) == (40, 100, 304)  # the last one is not known
    probabilities, truth = Predictor.load(model).probabilities(texts[:609:2]), np.array(targets[:609:2])
    gaps = np.abs(probabilities.mean(axis=0, dtype=np.float64) - truth.mean(axis=0))
    assert short["mean_gap"] == pytest.approx(gaps[[0, 2]].mean(), abs=1e-6)  # no row has the second label
    assert short["expected_calibration_error"] >= short["mean_gap"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "\ncharacters       0-39   40-99\nrows              305     304\nmacro ECE      0." in out
    assert "characters: ECE by text length; lengths with fewer than 300 rows are not shown." in out


# ---- targets that say that nothing is known


def with_unknown(path: Path) -> tuple[Path, np.ndarray]:
    """The wide file with rows of -1, as the Jigsaw challenge's test file has them, and single cells."""
    targets = np.array([*TARGETS.tolist(), [-1, -1, -1], [1, -1, 0], [-1, -1, -1]])
    texts = [*TEXTS, "not scored", "a zebra with a banana", "not scored either"]
    columns = {name: targets[:, column].tolist() for column, name in enumerate(LABELS)}
    return write_csv(path, {"comment_text": texts, **columns}), targets


def test_rows_that_were_not_scored_are_a_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = with_unknown(tmp_path / "test.csv")
    assert main(["evaluate", str(model), str(path)]) == 2
    assert capsys.readouterr().err == (
        f"flash: error: {path}: 7 targets say neither 0 nor 1: '-1' in 7 cells (the first {path}, row 6, column 'animal'); "
        'such values often mean "not known": type --unknown_targets mask if it is not known there whether the label '
        "applies, or --unknown_targets negative if it does not (rows are counted from 1, the header not)\n"
    )


@pytest.mark.filterwarnings("default:.*no target that is known:UserWarning")
def test_masked_targets_count_nowhere(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, targets = with_unknown(tmp_path / "test.csv")
    words = ["evaluate", str(model), str(path), "--unknown_targets", "mask"]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert captured.err == (
        f"flash: warning: {path}: 2 of 8 rows have no target that is known, and are left out ({path}, rows 6 and 8; rows "
        "are counted from 1, the header not)\n"
    )
    assert shown["rows"] == 6
    assert [row["known"] for row in shown["labels"]] == [6, 5, 6]
    assert [row["support"] for row in shown["labels"]] == (targets == 1).sum(axis=0).tolist()
    predictor = Predictor.load(model)
    scores = predictor.probabilities([*TEXTS, "a zebra with a banana"])
    for column in range(3):
        known = targets[[0, 1, 2, 3, 4, 6], column] >= 0
        expected = average_precision_score(targets[[0, 1, 2, 3, 4, 6], column][known], scores[known, column])
        assert shown["labels"][column]["average_precision"] == pytest.approx(expected)
    assert main(words) == 0
    assert "known  support" in capsys.readouterr().out


@pytest.mark.filterwarnings("default:.*no target that is known:UserWarning")
def test_unknown_targets_can_be_negative_and_have_values_of_their_own(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = with_unknown(tmp_path / "test.csv")
    words = ["evaluate", str(model), str(path), "--json", "--unknown_targets"]
    assert main([*words, "negative"]) == 0
    shown = as_json(capsys)
    assert (shown["rows"], [row["known"] for row in shown["labels"]]) == (8, [8, 8, 8])
    assert main([*words, "negative", "--unknown_values", "9", ""]) == 2
    assert "7 targets are not 0, 1, true, false" in capsys.readouterr().err
    assert main([*words, "mask", "--unknown_values", "-1", ""]) == 0
    assert as_json(capsys)["rows"] == 6
    assert main([*words[:-1], "--unknown_values", "-1"]) == 2
    assert (
        "type --unknown_targets mask to leave them out, or --unknown_targets negative to take them as 0"
        in (capsys.readouterr().err)
    )
