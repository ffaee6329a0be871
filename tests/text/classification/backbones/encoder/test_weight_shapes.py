"""Configurations that ask for more than a file's weights are refused before anything of their size is built."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flash.core.errors import CheckpointError
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.backbones.encoder.weight_shapes import MisfitError, build, check_counts
from flash.text.classification.predictor import Predictor

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ["animal", "fruit", "tool"]


@pytest.fixture(scope="module")
def content(
    make_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, as_if_trained: Any
) -> Any:
    """What the model file of a tiny encoder holds."""
    folder = make_bert(tmp_path_factory.mktemp("encoder"))
    model = as_if_trained(
        TextClassifier(backbone=str(folder), labels=LABELS, multi_label=True, max_length=16)
    )
    found: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(found)
    return found


def with_config(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    encoder = content["flash"]["encoder"]
    config = {**encoder["model"], **{key: value for key, value in changes.items() if key != "features"}}
    changed = {**encoder, "model": config, "features": changes.get("features", encoder["features"])}
    return {**content, "flash": {**content["flash"], "encoder": changed}}


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, and no tensor of them has more than 100"),
    ({"num_hidden_layers": 90}, "its configuration asks for more weights than its [0-9,]+"),
    ({"num_labels": 10**9}, "num_labels is 1000000000, and no tensor"),
    ({"hidden_size": 10**6}, "is \\(12, 32\\), expected \\(12, 1000000\\)"),
    ({"intermediate_size": 10**7}, "is \\(64, 32\\), expected \\(10000000, 32\\)"),
    (
        {"vocab_size": 10**8},
        "embeddings.word_embeddings.weight is \\(12, 32\\), expected \\(100000000, 32\\)",
    ),
    (
        {"max_position_embeddings": 10**9},
        "position_embeddings.weight is \\(40, 32\\), expected \\(1000000000, 32",
    ),
    ({"features": 10**8}, "head.weight is \\(3, 32\\), expected \\(3, 100000000\\)"),
]

LOAD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]), int(sys.argv[2])))
from flash.text.classification.predictor import Predictor
from flash.core.errors import CheckpointError
try:
    Predictor.load(sys.argv[1])
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize(("changes", "words"), HOSTILE, ids=[str(changes) for changes, _ in HOSTILE])
def test_a_configuration_of_other_sizes_is_refused(
    content: dict[str, Any], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(with_config(content, **changes), path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for load in (Predictor.load, TextClassifier.load_from_checkpoint):
        with pytest.raises(
            CheckpointError, match=rf"is damaged: its weights do not fit its encoder \(.*{words}"
        ):
            load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_process_with_little_memory_can_refuse_it(
    content: dict[str, Any], forked: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(with_config(content, max_position_embeddings=10**9), path)
    (tmp_path / "script.py").write_text(LOAD)
    done = forked("script.py", path, 4 * 2**30, folder=tmp_path)
    assert "its weights do not fit its encoder" in done.stdout


def test_architectures_that_cannot_be_made_without_memory_are_bounded_too() -> None:
    shapes = {"model.weight": (2, 3), "model.bias": (2,), "head.weight": (1, 2), "head.bias": (1,)}

    def make(size: int) -> tuple[nn.Module, nn.Linear]:
        if torch.get_default_device().type == "meta":
            raise NotImplementedError
        return nn.Linear(size, 2), nn.Linear(2, 1)

    assert build(lambda: make(3), shapes)[0].weight.shape == (2, 3)
    with pytest.raises(MisfitError, match="asks for more weights than its 11"):
        build(lambda: make(2**27), shapes)


def test_counts_that_occur_are_no_reason() -> None:
    shapes = {"embeddings": (30_522, 768), "layer": (768, 768)}
    config = {"num_hidden_layers": 12, "num_hash_buckets": 16_384, "max_position_embeddings": 131_072}
    check_counts({**config, "inner": {"n_layer": 48}, "rope_theta": 10_000_000}, shapes)
    with pytest.raises(MisfitError, match="n_layer is 99999, and no tensor of them"):
        check_counts({"inner": {"n_layer": 99_999}}, shapes)
