"""What an encoder is made of: its pooling, its blocks, and a head that is kept, replaced or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flash.text.classification.backbones.encoder import Encoder, EncoderConfig
from flash.text.classification.backbones.encoder_files import quiet

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

LABELS = ("toxic", "insult", "threat")
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


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


def test_a_new_head_of_a_checkpoint_without_labels_says_so(make_folder: Any, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path), LABELS)
    assert encoder.note.endswith("gets a new head, with mean pooling: it names no labels of its own")


def test_a_configuration_that_names_labels_without_a_head_gets_a_new_head(
    make_folder: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path)
    stored = json.loads((folder / "config.json").read_text())
    stored["id2label"] = dict(enumerate(LABELS))
    (folder / "config.json").write_text(json.dumps(stored))
    encoder = Encoder.from_pretrained(folder, LABELS)
    assert not encoder.kept_head
    assert encoder.note.endswith("its weights hold none for these labels")


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


def test_each_pooling_is_what_its_name_says(make_folder: Any, batch: Any, tmp_path: Path) -> None:
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


def test_a_head_that_reads_the_padding_is_refused(make_tokenizer: Any, message: Any, tmp_path: Path) -> None:
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


def test_a_tokenizer_of_another_model_is_refused(
    make_tokenizer: Any, make_folder: Any, refusal: Any, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["one more"])
    text = refusal(make_folder(tmp_path, tokenizer=tokenizer))
    assert "has 48 tokens, and its model knows 47; give a folder whose tokenizer is its model's" in text


def test_a_model_for_images_is_refused(make_tokenizer: Any, refusal: Any, tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SIZE, image_size=8, patch_size=4)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    text = refusal(tmp_path)
    assert "(ViTModel) gives no features of token ids and an attention mask: " in text
    assert "choose an encoder for text" in text
