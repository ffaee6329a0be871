"""Encoders behind the server: a checkpoint, an ONNX export, and a model that a training has in memory."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flash import Trainer
from flash.core.errors import FlashError
from flash.text import TextClassifier
from flash.text.classification.exporting import export
from flash.text.classification.predictor import Predictor
from flash.text.classification.serve.in_memory import served
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.served_model import ServedModel

pytest.importorskip("transformers")
Ask = Callable[..., Any]
LABELS = ["fruit", "animal", "tool"]
LONG = "banana " * 30
TEXTS = ["row tells of banana", "", LONG]


@pytest.fixture(scope="module")
def encoder_file(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, as_if_trained: Callable[[Any], Any]
) -> Path:
    """A model file of a random encoder that reads ten tokens."""
    model = TextClassifier(
        labels=LABELS, backbone=str(folder), multi_label=True, max_length=10, thresholds=0.4
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(as_if_trained(model))
    path = tmp_path_factory.mktemp("encoder_file") / "encoder.pt"
    trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.mark.parametrize("kind", ["encoder", "onnx"])
def test_an_encoder_answers_as_its_predictor(
    serving: Any, ask: Ask, encoder_file: Path, tmp_path: Path, kind: str
) -> None:
    path = encoder_file
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        path = tmp_path / "exported"
        export(encoder_file, path)
    expected = Predictor.load(path, precision="32").probabilities(TEXTS)
    with serving(path, precision="32") as url:
        made = ask(f"{url}/v1/classify", {"texts": TEXTS}).json["results"]
        info = ask(f"{url}/info").json
        assert (info["backbone"], info["max_length"]) == (kind, 10)
        found = np.array([[result["scores"][label] for label in LABELS] for result in made])
        assert np.allclose(found, expected, atol=1e-5)
        # a text that would be cut is refused, if so asked
        assert ask(f"{url}/predict", {"inputs": [LONG]}).status == 200
        refused = ask(f"{url}/predict", {"inputs": ["row", LONG], "truncate": False})
        assert refused.status == 422
        assert "inputs[1] is longer than the 10 tokens" in refused.json["error"]
        assert ask(f"{url}/predict", {"inputs": TEXTS[:2], "truncate": False}).status == 200


def test_a_model_that_reads_windows_cuts_nothing(folder: Path, as_if_trained: Callable[[Any], Any]) -> None:
    model = TextClassifier(
        labels=LABELS, backbone=str(folder), multi_label=True, max_length=10, long_text="window"
    )
    held = served(as_if_trained(model), ServeOptions())
    assert held.max_length is None
    assert held.cut([LONG]) == []
    assert held.costs([LONG]) == [len(LONG) // 4 + 2]


def test_a_model_in_memory_is_served_as_it_was(folder: Path, as_if_trained: Callable[[Any], Any]) -> None:
    model = TextClassifier(labels=LABELS, backbone=str(folder), multi_label=True, max_length=10)
    with pytest.raises(
        FlashError, match="this model was never trained, so its answers would mean nothing; train"
    ):
        served(model, ServeOptions())
    as_if_trained(model)
    with pytest.raises(FlashError, match="unknown label 'fruits'"):
        served(model, ServeOptions(thresholds={"fruits": 0.5}))
    held = served(model, ServeOptions(precision="32"))
    before = held.scores(TEXTS).logits
    model.eval()
    assert np.allclose(before, model(TEXTS).detach().numpy(), atol=1e-5)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert np.array_equal(held.scores(TEXTS).logits, before)
    assert held.path is None


def test_serve_takes_flashs_arguments_and_says_which_mean_nothing(
    ask: Ask, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TextClassifier.load_from_checkpoint(model_file)
    with pytest.raises(FlashError, match=r"serve\(transform=...\) has no meaning here"):
        model.serve(transform=lambda text: text)
    with pytest.raises(FlashError, match="unknown argument of serve 'worker'; did you mean 'workers'"):
        model.serve(worker=2)
    with pytest.raises(FlashError, match="unknown output 'label'"):
        model.serve(output="label")
    with pytest.raises(FlashError, match="flash serve model.pt --workers 2"):
        model.serve(workers=2, port=0)

    from flash.text.classification.serve import run

    found: dict[str, Any] = {}
    started = threading.Event()

    def listen(served_model: ServedModel, options: ServeOptions) -> int:
        with run.running(served_model, options) as url:
            found["answer"] = ask(
                f"{url}/predict", {"session": "UUID", "payload": {"inputs": {"data": "it tells of banana"}}}
            ).json
            started.set()
        return 0

    monkeypatch.setattr(run, "serve", listen)
    model.serve("127.0.0.1", 0, True, output="labels", log_level="error")
    assert started.is_set()
    assert found["answer"] == {"session": "UUID", "result": {"outputs": ["fruit"]}}
