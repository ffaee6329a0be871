"""What an encoder is made of: its pooling, its blocks, and a head that is kept, replaced or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.text.classification.backbones.encoder.loading import quiet
from flash.text.classification.backbones.encoder.model import Encoder, EncoderConfig

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


# The architecture's own head, new

OWN = EncoderConfig(pooling="model", dropout=0.5)


@pytest.mark.parametrize(
    ("kind", "new"),
    [
        ("bert", ""),  # whose pooler comes with it
        ("roberta", ", in which classifier.dense is new too"),
        ("distilbert", ", in which pre_classifier is new too"),
        ("deberta-v2", ", in which pooler.dense is new too"),
        ("gpt2", ""),
    ],
)
def test_a_new_head_of_the_encoders_own_architecture(
    kind: str, new: str, make_folder: Any, batch: Any, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path, kind)
    encoder = Encoder.from_pretrained(folder, LABELS, OWN)
    assert (encoder.kept_head, encoder.whole, encoder.pooling) == (False, True, "model")
    assert encoder.note == (
        f"'{folder}' gets a new head of its own architecture{new}: it names no labels of its own"
    )
    with quiet():
        bare = transformers.AutoModel.from_pretrained(folder)
    theirs, ours = bare.get_input_embeddings().weight, encoder.model.get_input_embeddings().weight
    assert torch.equal(theirs, ours)
    ids, mask = batch(encoder)
    encoder(ids, mask).sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
    again = Encoder.from_content(encoder.content(), LABELS, OWN)
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(ids, mask), encoder(ids, mask))
    encoder.start_bias(np.array([0.25, 0.5, 0.5]))
    if kind != "gpt2":  # whose head has no bias
        assert encoder.head.bias.sigmoid()[0].item() == pytest.approx(0.25)
    with torch.no_grad():  # our own dropout is left out: the architecture has its own
        assert torch.equal(encoder.eval()(ids, mask), encoder.head(encoder.features(ids, mask)))


def test_a_head_for_other_labels_gives_way(kept_folders: Callable[[str], Path]) -> None:
    more = ("toxic", "insult", "threat", "spam", "spite")
    encoder = Encoder.from_pretrained(kept_folders("roberta"), more, OWN)
    assert encoder.head.out_features == 5
    assert encoder.new_layers == ()
    assert "gets a new head of its own architecture: its own lacks spam, spite" in encoder.note
    assert not encoder.head.weight.std() > 0.05  # of the size of a new head's, though its rows are as many
    renamed = Encoder.from_pretrained(kept_folders("roberta"), ("x", "y", "z"), OWN)
    assert not renamed.head.weight.std() > 0.05
    assert Encoder.from_pretrained(kept_folders("roberta"), LABELS, OWN).kept_head


def test_new_layers_are_not_left_random(make_folder: Any, message: Any, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(make_folder(tmp_path, "roberta"), LABELS, OWN)
    for strategy in ("freeze", "lora"):
        text = message(lambda strategy=strategy: encoder.check_strategy(strategy))
        assert f"the strategy '{strategy}' would leave classifier.dense random, which this encoder's" in text
    encoder.check_strategy("no_freeze")
    encoder.start_bias(np.full(3, 0.5))  # a fit begins
    encoder.check_strategy("freeze")


def test_an_architecture_without_a_classifier(make_folder: Any, message: Any, tmp_path: Path) -> None:
    config = transformers.BertGenerationConfig(vocab_size=47, **SIZE)
    make_folder(tmp_path)
    with quiet():
        transformers.BertGenerationEncoder(config).save_pretrained(tmp_path)
    text = message(lambda: Encoder.from_pretrained(tmp_path, LABELS, OWN))
    assert (
        f"transformers has no classifier of the architecture of '{tmp_path}' (bert-generation); pass" in text
    )


def test_xlnets_own_head_is_refused_when_it_is_new(make_tokenizer: Any, message: Any, tmp_path: Path) -> None:
    config = transformers.XLNetConfig(vocab_size=47, d_model=16, n_layer=1, n_head=2, d_inner=24)
    transformers.XLNetModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    text = message(lambda: Encoder.from_pretrained(tmp_path, LABELS, OWN))
    assert "reads the last place of a row, which here is padding" in text
