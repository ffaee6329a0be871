"""Blocks in few steps: the same numbers, only where they are, and blocks as they were afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from flash.text.classification.backbones.encoder import Encoder
from flash.text.classification.backbones.encoder_module import EncoderModule
from flash.text.classification.backbones.packing import PackedLinear
from flash.text.classification.backbones.quick_blocks import FewSteps, find_blocks, quicken, restore

pytest.importorskip("transformers")

LABELS = ["toxic", "insult", "threat"]
TEXTS = ["w1 w2 w3 w4 w5 w6 w7 w8 w9 w1", "w7", "", "w9 w9 w1"]
ALIKE = ("bert", "roberta", "xlm-roberta", "electra")
OTHERS = ("distilbert", "deberta-v2", "modernbert", "albert", "mpnet", "bart", "t5", "gpt2", "llama")
Batch = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def make(kept_folders: Callable[[str], Path], make_folder: Callable[..., Path], tmp_path: Path) -> Any:
    """An encoder of an architecture, under its own head or a new one."""

    def encoder(kind: str, kept: bool = False) -> Encoder:
        folder = kept_folders(kind) if kept else make_folder(tmp_path / kind, kind)
        return Encoder.from_pretrained(folder, LABELS)

    return encoder


def quickened(encoder: Encoder) -> list[Any]:
    """The blocks that take few steps from here on."""
    blocks = find_blocks(encoder.model, encoder.features, encoder.most_tokens)
    for block, gives_tuple in blocks.items():
        quicken(block, gives_tuple)
    return list(blocks)


def features_of(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Of a batch at once, and of each text alone without its padding."""
    with torch.inference_mode():
        rows = [encoder.features(ids, mask)]
        for row, seen in zip(ids, mask, strict=True):
            alone = row[None, : int(seen.sum())]
            rows.append(encoder.features(alone, torch.ones_like(alone)))
        return torch.cat(rows)


@pytest.mark.parametrize("kind", ALIKE)
@pytest.mark.parametrize("kept", [False, True])
def test_the_same_features(kind: str, kept: bool, make: Any, batch: Batch) -> None:
    encoder = make(kind, kept)
    tokens = batch(encoder, TEXTS)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    expected = features_of(encoder, *tokens)
    blocks = quickened(encoder)
    assert len(blocks) == 2
    assert all(isinstance(block.forward, FewSteps) for block in blocks)
    found = features_of(encoder, *tokens)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.05
    after = encoder.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())
    weights = [
        getattr(blocks[0].attention.self, name).weight.untyped_storage().data_ptr()
        for name in ("query", "key", "value")
    ]
    assert len(set(weights)) == 1  # in memory once
    restore(encoder)
    assert not any("forward" in block.__dict__ for block in blocks)
    torch.testing.assert_close(features_of(encoder, *tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_stay_as_they_are(kind: str, make: Any) -> None:
    encoder = make(kind)
    assert quickened(encoder) == []
    assert not any("forward" in module.__dict__ for module in encoder.modules())


def own_blocks(encoder: Encoder, place: str) -> None:
    """Let the blocks be those of a module of that name, whose parts are BERT's, and which do one thing more."""
    kind = type(next(module for module in encoder.modules() if type(module).__name__ == "BertLayer"))

    class Own(kind):  # type: ignore[misc, valid-type]
        """A block of one's own."""

        def forward(self, *given: Any, **named: Any) -> Any:
            """A little more of what it was."""
            return 1.01 * super().forward(*given, **named)

    Own.__module__ = place
    for module in encoder.modules():
        if type(module) is kind:
            module.__class__ = Own


@pytest.mark.parametrize("place", ["transformers.models.own.modeling_own", "transformers_modules.folder.own"])
def test_blocks_that_compute_something_else_stay_as_they_are(place: str, make: Any) -> None:
    encoder = make("bert")
    own_blocks(encoder, place)
    assert quickened(encoder) == []
    assert not any("forward" in module.__dict__ for module in encoder.modules())
    assert not any(module._forward_hooks for module in encoder.modules())


def test_blocks_of_own_code_are_not_tried(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make("bert")
    own_blocks(encoder, "transformers_modules.folder.own")
    monkeypatch.setattr(encoder, "features", None)  # as one that looks further than the trial, it might pass
    assert quickened(encoder) == []


def test_blocks_that_never_take_few_steps_stay_as_they_are() -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = transformers.RoFormerModel(transformers.RoFormerConfig(vocab_size=20, embedding_size=16, **shape))
    model.eval()

    def run(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden[:, 0]

    assert find_blocks(model, run, None) == {}


def test_blocks_that_fail_stay_as_they_are(make: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make("bert")
    tokens = batch(encoder, TEXTS)
    expected = features_of(encoder, *tokens)

    def fail(*given: Any) -> Any:
        raise TypeError("an argument too many")

    monkeypatch.setattr(FewSteps, "quickly", fail)
    assert quickened(encoder) == []
    assert torch.equal(features_of(encoder, *tokens), expected)


def test_another_type_afterwards(make: Any, batch: Batch) -> None:
    encoder = make("bert")
    tokens = batch(encoder, TEXTS)
    expected = features_of(encoder, *tokens)
    assert quickened(encoder)
    encoder.model.double()
    torch.testing.assert_close(features_of(encoder, *tokens).float(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", ["decoder", "chunks", "training", "attentions"])
def test_blocks_of_another_use_stay_as_they_are(change: str, make: Any) -> None:
    encoder = make("bert")
    for module in encoder.modules():
        if type(module).__name__ == "BertLayer":
            if change == "decoder":
                module.is_decoder = True
            elif change == "chunks":
                module.chunk_size_feed_forward = 2
            elif change == "attentions":
                encoder.model.set_attn_implementation("eager")
                encoder.model.config.output_attentions = True
            else:
                module.training = True
    assert quickened(encoder) == []


def test_what_else_a_block_is_asked_for_it_does_in_its_own_steps(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make("bert")
    block = quickened(encoder)[0]
    rows = torch.randn(2, 5, 16)
    done: list[Any] = []

    def own(self: Any, *given: Any, **named: Any) -> Any:
        done.append(named)
        return given[0]

    monkeypatch.setattr(type(block), "forward", own)
    assert torch.is_tensor(block(rows, None))
    assert block(rows, None, None, past_key_values=None, position_ids=torch.arange(5)) is not None
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    assert torch.equal(block(rows, mask), block(rows, attention_mask=mask))
    assert not done
    block(rows, torch.ones(2, 5))  # a mask of another kind
    block(rows, None, rows)  # another's hidden states
    block(rows, None, past_key_values=object())
    block(rows, None, output_attentions=True)
    block(rows, None, position_bias=rows)
    block(rows, attention_mask=torch.ones(2, 5))
    block(rows.to("meta"), None)
    assert len(done) == 7


@pytest.mark.parametrize("half", [False, True])
def test_a_module_for_prediction_takes_few_steps_until_it_is_restored(
    half: bool, kept_folders: Callable[[str], Path]
) -> None:
    module = EncoderModule.from_pretrained(kept_folders("bert"), LABELS, 16, {}).for_prediction(bfloat16=half)
    blocks = [each for each in module.modules() if isinstance(each.__dict__.get("forward"), FewSteps)]
    assert len(blocks) == 2
    texts = pa.array(TEXTS, pa.large_string())
    expected = module.logits(texts)
    restore(module)
    assert not any("forward" in each.__dict__ or isinstance(each, PackedLinear) for each in module.modules())
    tolerance = 0.05 if half else 1e-5
    np.testing.assert_allclose(module.logits(texts), expected, rtol=tolerance, atol=tolerance)


def test_bfloat16(make: Any, batch: Batch) -> None:
    encoder = make("bert")
    tokens = batch(encoder, TEXTS)
    expected = features_of(encoder, *tokens)
    blocks = find_blocks(encoder.model, encoder.features, encoder.most_tokens)
    encoder.model.to(torch.bfloat16)
    for block, gives_tuple in blocks.items():
        quicken(block, gives_tuple)
    torch.testing.assert_close(features_of(encoder, *tokens).float(), expected, rtol=0.1, atol=0.1)
