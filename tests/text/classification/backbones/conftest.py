"""Tiny random encoders of many architectures, as folders, and what is asked of each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flash.core.errors import FlashError
from flash.text.classification.backbones.encoder.loading import quiet
from flash.text.classification.backbones.encoder.model import Encoder, EncoderConfig

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


def _make_tokenizer(*, pad: str | None = "[PAD]", eos: str | None = "[SEP]", wrap: bool = True) -> Any:
    """Words of `WORDS`; with `wrap`, a first and a last token around a text."""
    transformers, tokenizers = map(pytest.importorskip, ("transformers", "tokenizers"))
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


def _make_config(kind: str, labels: tuple[str, ...] | None) -> Any:
    transformers = pytest.importorskip("transformers")
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


def _make_folder(
    folder: Path, kind: str = "bert", labels: tuple[str, ...] | None = None, tokenizer: Any = None
) -> Path:
    """A folder as `save_pretrained` writes it: with a head if it has labels, else without."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    with quiet():
        auto.from_config(_make_config(kind, labels)).save_pretrained(folder)
    tokenizer = _make_tokenizer(wrap=kind not in DECODERS) if tokenizer is None else tokenizer
    tokenizer.save_pretrained(folder)
    return folder


def _add_sentence_files(folder: Path, pooling: Any) -> Path:
    """Add what sentence-transformers writes beside a model: its modules, and how it pools."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def _batch(encoder: Encoder, texts: list[str] = TEXTS) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask of texts, padded behind."""
    rows = encoder.tokenizer(texts, padding=True, return_tensors="pt", padding_side="right")
    return rows["input_ids"], rows["attention_mask"]


def _message(action: Callable[[], Any], kind: type[FlashError] = FlashError) -> str:
    """The one sentence with which something is refused."""
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Makes a fast tokenizer of some words."""
    return _make_tokenizer


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """Makes a folder of an architecture, with a head if it is given labels."""
    return _make_folder


@pytest.fixture(scope="session")
def add_sentence_files() -> Callable[[Path, Any], Path]:
    """Makes a folder one of sentence-transformers."""
    return _add_sentence_files


@pytest.fixture(scope="session")
def batch() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """An encoder's token ids and mask of some texts."""
    return _batch


@pytest.fixture(scope="session")
def message() -> Callable[..., str]:
    """What an action is refused with."""
    return _message


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """What a folder or hub id is refused with; keywords are options of the encoder."""

    def refuse(folder: str | Path, **options: Any) -> str:
        return _message(lambda: Encoder.from_pretrained(folder, LABELS, EncoderConfig(**options)))

    return refuse


@pytest.fixture(scope="session")
def kept_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of each architecture, with a head for the labels in another order; tests leave it as it is."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = _make_folder(tmp_path_factory.mktemp(kind), kind, OTHER_ORDER)
        return made[kind]

    return folder
