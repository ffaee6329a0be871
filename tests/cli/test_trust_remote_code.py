"""A model whose encoder came with Python code of its own: it runs for those who ask for it, and for nobody else."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flash.__main__ import main
from flash.core.errors import FlashError, MissingExtraError, RemoteCodeError
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.predictor import Predictor

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ["animal", "fruit"]
TEXTS = ["a zebra", "a banana", "zebra"]
CODE = """
import torch
from transformers import BertConfig, BertModel
class CodedConfig(BertConfig):
    model_type = "coded"
class CodedModel(BertModel):
    config_class = CodedConfig
"""


@pytest.fixture
def coded(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an encoder with code of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = shutil.copytree(encoder, tmp_path / "coded")
    (folder / "coded.py").write_text(CODE)
    stored = json.loads((folder / "config.json").read_text())
    mapped = {"AutoConfig": "coded.CodedConfig", "AutoModel": "coded.CodedModel"}
    (folder / "config.json").write_text(json.dumps({**stored, "model_type": "coded", "auto_map": mapped}))
    return folder


@pytest.fixture
def saved(coded: Path, tmp_path: Path, as_if_trained: Callable[[Any], Any]) -> Path:
    """The model file of a classifier around it."""
    model = TextClassifier(
        backbone=str(coded), labels=LABELS, multi_label=True, max_length=16, trust_remote_code=True
    )
    as_if_trained(model)
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    checkpoint.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.fixture
def comments(tmp_path: Path) -> Path:
    with (tmp_path / "comments.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "animal", "fruit"], *([text, 1, 0] for text in TEXTS)])
    return tmp_path / "comments.csv"


@pytest.mark.parametrize("load", [TextClassifier.load_from_checkpoint, Predictor.load])
def test_loaders_run_code_when_asked_to(load: Callable[..., Any], saved: Path, coded: Path) -> None:
    with pytest.raises(RemoteCodeError) as caught:
        load(saved)
    assert str(caught.value) == (
        f"this model has an architecture of its own, whose Python code is in '{coded}'; read it, and if you trust it, "
        "load the model with trust_remote_code=True (--trust_remote_code)"
    )
    loaded = load(saved, trust_remote_code=True)
    logits = loaded(TEXTS).numpy() if isinstance(loaded, TextClassifier) else loaded.logits(TEXTS)
    assert logits.shape == (3, 2)
    shutil.rmtree(coded)
    with pytest.raises(
        RemoteCodeError, match="needs the Python code that came with '.*coded', and there is no"
    ):
        load(saved, trust_remote_code=True)


def test_a_loaded_model_can_be_saved_and_loaded_again(saved: Path, tmp_path: Path) -> None:
    model = TextClassifier.load_from_checkpoint(saved, trust_remote_code=True)
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    checkpoint.save(content, tmp_path / "again.pt")
    again = Predictor.load(tmp_path / "again.pt", precision="32", trust_remote_code=True)
    np.testing.assert_array_equal(again.logits(TEXTS), model(TEXTS).numpy())


@pytest.mark.parametrize("verb", ["predict", "evaluate", "export"])
def test_commands_run_code_when_asked_to(
    verb: str, saved: Path, comments: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if verb == "export":
        for package in ("onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    words = {
        "predict": ["--input", str(comments), "--output", str(tmp_path / "out.csv")],
        "evaluate": [str(comments)],
        "export": ["--output", str(tmp_path / "out")],
    }[verb]
    assert main([verb, str(saved), *words]) == 2
    assert "load the model with trust_remote_code=True (--trust_remote_code)" in capsys.readouterr().err
    assert main([verb, str(saved), *words, "--trust_remote_code"]) == 0
    if verb == "predict":
        assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + len(TEXTS)
    elif verb == "evaluate":
        assert "micro average" in capsys.readouterr().out
    else:
        expected = Predictor.load(saved, precision="32", trust_remote_code=True).probabilities(TEXTS)
        shutil.rmtree(tmp_path / "coded")  # an export needs no code any more
        np.testing.assert_allclose(Predictor.load(tmp_path / "out").probabilities(TEXTS), expected, atol=1e-4)


def test_an_export_to_transformers_is_refused(saved: Path) -> None:
    from flash.text.classification.backbones.encoder.transformers_classifier import whole_classifier
    from flash.text.classification.scores.outputs import Calibration

    backbone: Any = Predictor.load(saved, trust_remote_code=True).backbone
    backbone.encoder.whole = True
    with pytest.raises(FlashError, match="an architecture of its own, .*; export it in the format onnx"):
        whole_classifier(backbone.encoder, Calibration.identity(2), multi_label=True)


def test_a_package_that_lacks_is_no_damage(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for load in (TextClassifier.load_from_checkpoint, Predictor.load):
        with pytest.raises(MissingExtraError, match="needs the package 'transformers'"):
            load(saved)
