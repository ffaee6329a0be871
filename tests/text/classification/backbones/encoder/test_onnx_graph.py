"""Graphs as they are written: int8 in all matrices but the head, and large weights in one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import FlashError
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder import onnx_graph
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.exporting import export
from flash.text.classification.predictor import Predictor
from flash.text.classification.scores.outputs import Calibration

onnx = pytest.importorskip("onnx")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

LABELS = ["toxic", "insult", "threat"]
TEXTS = ["w1 w2 w3 short", "w7", "", "w9 w9 w1 a text w30 w31", "w5 " * 30, "short text"]


def make_model(folder: Path, **options: Any) -> TextClassifier:
    """A classifier with a head that decides, calibration and thresholds."""
    torch.manual_seed(2)
    keywords = {"labels": LABELS, "multi_label": True, "max_length": 12, **options}
    model = TextClassifier(backbone=str(folder), **keywords)
    assert isinstance(model.backbone, EncoderModule)
    for tensor in model.backbone.encoder.head.parameters():
        torch.nn.init.normal_(tensor)
    bias = model.backbone.encoder.head.bias is not None
    model.calibration = Calibration(
        np.array([1.5, 0.75, 1.0], np.float32), np.array([0.5, 0, -0.5], np.float32) * bias
    )
    model.thresholds.copy_(torch.tensor([0.25, 0.5, 0.625]))
    return model


def save(model: TextClassifier, path: Path, *, half: bool = False) -> Path:
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    if half:
        with model.stored_in_half():
            content["state_dict"] = model.state_dict()
            model.on_save_checkpoint(content)
    else:
        model.on_save_checkpoint(content)
    checkpoint.save(content, path)
    return path


def difference(one: Path, other: Path, texts: list[str] = TEXTS) -> float:
    first, second = (Predictor.load(path, precision="32").probabilities(texts) for path in (one, other))
    assert first.std() > 0.01  # answers that are all the same would agree too
    return float(np.abs(first - second).max())


# int8


@pytest.mark.parametrize(
    ("kind", "kept", "layers"),
    [
        # query, key, value, their output, two of the feed-forward in each of two blocks; a kept head's dense layer
        ("bert", False, 2 * 6),
        ("roberta", True, 2 * 6 + 1),
        ("gpt2", False, 2 * 4),  # query, key and value are one
        ("gpt2", True, 2 * 4),
    ],
)
def test_int8_is_in_every_matrix_a_scale_a_column_but_in_the_head(
    kind: str, kept: bool, layers: int, make_folder: Any, kept_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = kept_folders(kind) if kept else make_folder(tmp_path / "encoder", kind)
    model = save(make_model(folder), tmp_path / "model.pt")
    export(model, tmp_path / "out", quantize="int8")
    graph = onnx.load(str(tmp_path / "out" / "model.onnx")).graph
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    matrices = [name for name, array in arrays.items() if array.dtype == np.int8 and array.ndim == 2]
    assert len(matrices) == layers
    for name in matrices:
        assert arrays[name.replace("_quantized", "_scale")].shape == arrays[name].shape[1:]
        assert np.abs(arrays[name].astype(int)).max() <= 64
    plain = [
        arrays[name].shape
        for node in graph.node
        if node.op_type in onnx_graph.QUANTIZED
        for name in node.input
        if name in arrays and arrays[name].ndim == 2
    ]
    assert plain in ([(16, 3)], [(3, 16)])  # the head
    assert difference(model, tmp_path / "out") <= 0.1


# Weights in files of their own


def scattered(network: torch.nn.Module, example: Any, path: Path) -> None:
    """As torch's older way writes a graph beyond 2 GB."""
    onnx_graph.by_trace(network, example, path)
    graph = onnx.load(str(path))
    onnx.save_model(
        graph, str(path), save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0
    )


def scattered_and_broken(network: torch.nn.Module, example: Any, path: Path) -> None:
    scattered(network, example, path)
    raise RuntimeError("and no further")


@pytest.mark.parametrize("quantized", [None, "int8"])
def test_large_weights_are_in_one_file_beside_the_graph(
    quantized: str | None, make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(make_model(make_folder(tmp_path / "encoder")), tmp_path / "model.pt")
    monkeypatch.setattr(onnx_graph, "WAYS", (scattered,))
    for overwrite in (False, True):  # the folder is known again
        export(model, tmp_path / "out", quantize=quantized, overwrite=overwrite)
        found = {file.name for file in (tmp_path / "out").iterdir()}
        assert found == {"flash.json", "model.onnx", "model.onnx.data", "tokenizer.json"}
        assert difference(model, tmp_path / "out") <= (1e-4 if quantized is None else 0.1)


def test_a_way_that_fails_leaves_nothing_to_the_next(
    make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(make_model(make_folder(tmp_path / "encoder")), tmp_path / "model.pt")
    monkeypatch.setattr(onnx_graph, "WAYS", (scattered_and_broken, onnx_graph.by_trace))
    export(model, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "flash.json",
        "model.onnx",
        "tokenizer.json",
    }


# Files of other kinds


@pytest.mark.parametrize("format_", ["onnx", "transformers"])
def test_a_file_in_half_precision_and_with_other_thresholds(
    format_: str, kept_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = save(make_model(kept_folders("roberta")), tmp_path / "whole.pt")
    chosen = make_model(kept_folders("roberta"), thresholds={"toxic": 0.375, "threat": 0.875})
    chosen.thresholds.copy_(torch.tensor([0.375, 0.5, 0.875]))
    half = save(chosen, tmp_path / "half.pt", half=True)
    assert half.stat().st_size < whole.stat().st_size
    export(half, tmp_path / "out", format_)
    assert difference(half, tmp_path / "out") <= 1e-4
    assert 0 < difference(whole, tmp_path / "out") < 1e-2
    np.testing.assert_array_equal(
        Predictor.load(tmp_path / "out").thresholds, np.array([0.375, 0.5, 0.875], np.float32)
    )


# The architecture's own head, new


def scores(folder: Path, texts: list[str]) -> np.ndarray:
    """A pipeline's, columns in the order of `LABELS`."""
    pipeline = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    found = [{entry["label"]: entry["score"] for entry in row} for row in pipeline(texts, truncation=True)]
    return np.array([[row[label] for label in LABELS] for row in found])


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
def test_a_new_head_of_the_architecture_is_one_for_a_pipeline(
    kind: str, make_folder: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "encoder", kind)
    model = save(make_model(folder, pooling="model"), tmp_path / "model.pt")
    export(model, tmp_path / "out", "transformers")
    expected = Predictor.load(model, precision="32").probabilities(TEXTS)
    np.testing.assert_allclose(scores(tmp_path / "out", TEXTS), expected, atol=1e-4)
    assert difference(model, tmp_path / "out") <= 1e-4
    export(model, tmp_path / "graph")
    assert difference(model, tmp_path / "graph") <= 1e-4
    again = TextClassifier(backbone=str(tmp_path / "out"), labels=LABELS, multi_label=True, max_length=12)
    assert isinstance(again.backbone, EncoderModule)
    assert again.backbone.encoder.kept_head


def test_a_pooled_head_is_told_of_the_other(make_folder: Any, tmp_path: Path) -> None:
    model = save(make_model(make_folder(tmp_path / "encoder")), tmp_path / "model.pt")
    with pytest.raises(
        FlashError, match="or train again with pooling='model', a new head of the encoder's own"
    ):
        export(model, tmp_path / "out", "transformers")


def test_a_pipeline_reads_one_window(kept_folders: Callable[[str], Path], tmp_path: Path) -> None:
    model = save(make_model(kept_folders("roberta"), long_text="window"), tmp_path / "model.pt")
    words = r"reads the first 12 tokens of a text alone, and this model all of them, .*; for long texts"
    with pytest.warns(UserWarning, match=words):
        export(model, tmp_path / "out", "transformers")
    assert difference(model, tmp_path / "out") <= 1e-4  # as Flash reads it
    short = ["w1 w2", "w3"]
    expected = Predictor.load(model, precision="32").probabilities(short)
    np.testing.assert_allclose(scores(tmp_path / "out", short), expected, atol=1e-4)
