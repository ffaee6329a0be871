"""The files of an encoder: what is read of a folder, and the sentence for every folder that does not work."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from flash.text.classification.backbones.encoder.loading import tokenizer_content, tokenizer_from
from flash.text.classification.backbones.encoder.model import Encoder, EncoderConfig

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ("toxic", "insult", "threat")


def test_loading_leaves_transformers_settings_as_they_were(
    make_folder: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
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
    make_folder: Any, add_sentence_files: Any, stored: dict[str, Any], pooling: str, tmp_path: Path
) -> None:
    folder = add_sentence_files(make_folder(tmp_path), stored)
    assert Encoder.from_pretrained(folder, LABELS).pooling == pooling
    assert Encoder.from_pretrained(folder, LABELS, EncoderConfig(pooling="max")).pooling == "max"


def test_an_early_sentence_transformers_folder_is_read(
    make_folder: Any, add_sentence_files: Any, tmp_path: Path
) -> None:
    make_folder(tmp_path / "0_Transformer")
    add_sentence_files(tmp_path, {"pooling_mode_max_tokens": True})
    assert Encoder.from_pretrained(tmp_path, LABELS).pooling == "max"


def test_a_sentence_transformers_folder_without_pooling_is_like_any_other(
    make_folder: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path)
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    assert Encoder.from_pretrained(folder, LABELS).pooling == "mean"


def test_a_sentence_transformers_pooling_that_cannot_be_used_is_refused(
    make_folder: Any, add_sentence_files: Any, message: Any, tmp_path: Path
) -> None:
    folder = add_sentence_files(make_folder(tmp_path), {"pooling_mode": ["mean", "max"]})
    text = message(lambda: Encoder.from_pretrained(folder, LABELS))
    assert "is mean and max; only cls, max, mean, mean_sqrt_len_tokens, lasttoken can be read" in text
    (folder / "1_Pooling" / "config.json").write_text("{")
    text = message(lambda: Encoder.from_pretrained(folder, LABELS))
    assert f"the sentence-transformers pooling of '{folder}' cannot be read: Expecting" in text
    assert "set pooling='mean'" in text


# Decoders, and what pads


def test_a_decoder_without_a_pad_token_pads_with_its_end_of_text(
    make_tokenizer: Any, make_folder: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path, "gpt2", tokenizer=make_tokenizer(pad=None, wrap=False))
    encoder = Encoder.from_pretrained(folder, LABELS)
    assert encoder.tokenizer.pad_token == "[SEP]"
    assert encoder.model.config.pad_token_id == 3
    assert encoder.model.config.use_cache is False


def test_a_tokenizer_without_anything_to_pad_with_is_refused(
    make_tokenizer: Any, make_folder: Any, message: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path, "llama", tokenizer=make_tokenizer(pad=None, eos=None, wrap=False))
    text = message(lambda: Encoder.from_pretrained(folder, LABELS))
    assert "has neither a pad token nor an end-of-text token" in text
    assert "add a pad token and save the folder again" in text


# Folders that do not work


def test_a_folder_lacks_its_files(make_folder: Any, refusal: Any, tmp_path: Path) -> None:
    assert "has no config.json (it holds: nothing)" in refusal(tmp_path)
    make_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.unlink()
    text = refusal(tmp_path)
    assert "has no weights (it holds: config.json, tokenizer.json, tokenizer_config.json)" in text
    assert "expected model.safetensors or pytorch_model.bin" in text


def test_a_folder_without_a_tokenizer_is_refused(make_folder: Any, refusal: Any, tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert "has no tokenizer; expected a tokenizer.json or the vocabulary beside the weights" in refusal(
        tmp_path
    )


def test_a_damaged_tokenizer_is_refused(make_folder: Any, refusal: Any, tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    assert f"the tokenizer of '{tmp_path}' cannot be loaded: " in refusal(tmp_path)


def test_a_tokenizer_without_a_fast_version_is_refused(
    make_folder: Any, refusal: Any, tmp_path: Path
) -> None:
    make_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    text = refusal(tmp_path)
    assert "is a ByT5Tokenizer, of which there is no fast version" in text
    assert "choose a backbone with a tokenizer.json" in text


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
def test_a_config_that_cannot_be_used_is_refused(
    make_folder: Any, refusal: Any, stored: str, words: str, tmp_path: Path
) -> None:
    make_folder(tmp_path)
    (tmp_path / "config.json").write_text(stored)
    assert words in refusal(tmp_path)


def test_damaged_weights_are_refused(make_folder: Any, refusal: Any, tmp_path: Path) -> None:
    weights = make_folder(tmp_path) / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nothing like it" * 20):
        weights.write_bytes(damaged)
        text = refusal(tmp_path)
        assert f"the weights of '{tmp_path}' cannot be loaded: " in text
        assert text.endswith("; copy or download them again")


def test_weights_that_do_not_fit_are_refused(make_folder: Any, refusal: Any, tmp_path: Path) -> None:
    stored = json.loads((make_folder(tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "intermediate_size": 32}))
    text = refusal(tmp_path)
    assert (
        "do not fit its config.json: encoder.layer.0.intermediate.dense.bias is (24,), expected (32,)" in text
    )
    (tmp_path / "config.json").write_text(json.dumps({**stored, "num_hidden_layers": 3}))
    text = refusal(tmp_path)
    assert "lack 16 tensors of the model, such as encoder.layer.2." in text


def test_weights_in_the_old_format_are_read_without_running_code(
    make_folder: Any, batch: Any, refusal: Any, tmp_path: Path
) -> None:
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


# What a model file keeps of a tokenizer


def test_which_end_is_cut_is_kept_and_older_files_cut_the_right_one(
    make_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.truncation_side = tokenizer.padding_side = "left"
    content = tokenizer_content(tokenizer)
    made = tokenizer_from(content)
    assert (made.truncation_side, made.padding_side) == ("left", "left")
    made.save_pretrained(tmp_path)  # as the export to transformers does
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (again.truncation_side, again.padding_side) == ("left", "left")
    del content["truncation_side"]
    assert tokenizer_from(content).truncation_side == "right"


# SentencePiece, as DeBERTa-v3 is published: spm.model, and no tokenizer.json


@pytest.fixture
def sentencepiece_folder(make_folder: Any, tmp_path: Path) -> Path:
    """A DeBERTa whose vocabulary of words is a file of SentencePiece."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder: Path = make_folder(tmp_path / "encoder", "deberta-v2")
    sentences = [" ".join(f"w{(row + place) % 12}" for place in range(4)) for row in range(60)]
    special = {f"{name}_piece": f"[{piece}]" for name, piece in PIECES.items()}
    numbers = {f"{name}_id": index for index, name in enumerate(PIECES)}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sentences, "a short text"]),
        model_prefix=str(folder / "spm"),
        vocab_size=25,
        minloglevel=9,
        **special,
        **numbers,
    )
    (folder / "spm.vocab").unlink()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    return folder


PIECES = {"pad": "PAD", "bos": "CLS", "eos": "SEP", "unk": "UNK"}


def test_a_vocabulary_of_sentencepiece_is_read(sentencepiece_folder: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    encoder = Encoder.from_pretrained(sentencepiece_folder, LABELS)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_folder / "spm.model"))
    for text in ("w1 w2 w11 w3", "a short text", "w7"):
        assert encoder.tokenizer(text)["input_ids"] == [1, *theirs.encode(text), 2]
    again = Encoder.from_content(encoder.content(), LABELS)
    assert again.tokenizer("w1 w2")["input_ids"] == encoder.tokenizer("w1 w2")["input_ids"]


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_what_reads_sentencepiece_is_named_where_it_lacks(
    package: str, make_folder: Any, refusal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path, "deberta-v2")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"vocab_type": "spm"}))
    (folder / "spm.model").write_bytes(b"no vocabulary")
    monkeypatch.setitem(sys.modules, package, None)
    assert refusal(folder) == (
        f"the tokenizer of '{folder}' is a vocabulary of SentencePiece (spm.model) without a tokenizer.json, which "
        "needs two more packages; type: pip install sentencepiece protobuf"
    )
