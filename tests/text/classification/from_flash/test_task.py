"""Lightning Flash's names of a classifier: its output, lists of what there is, and keywords of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from flash.core.classification import LabelsOutput
from flash.core.data.output import PredsOutput
from flash.core.errors import DataError, FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.backbones.encoder.module import EncoderModule


def test_lists_of_what_there_is() -> None:
    assert {"adam", "adamw", "sgd"} <= set(TextClassifier.available_optimizers())
    schedules = TextClassifier.available_lr_schedulers()
    assert {"steplr", "constant_schedule", "linear_schedule_with_warmup"} <= set(schedules)
    assert TextClassifier.available_schedulers() == schedules
    assert {"freeze", "freeze_unfreeze", "no_freeze"} <= set(TextClassifier.available_finetuning_strategies())
    assert TextClassifier.available_outputs() == ["classes", "labels", "logits", "preds", "probabilities"]
    assert TextClassifier.available_backbones() == ["linear"]
    assert TextClassifier.available_heads() == []
    assert "word_ngrams" in dict(TextClassifier.get_backbone_details("linear"))
    assert "pooling" in dict(TextClassifier.get_backbone_details("prajjwal1/bert-tiny"))


def test_recipes_and_predict_are_refused_with_the_line_to_write() -> None:
    with pytest.raises(FlashError, match="pass the function itself: lr_scheduler=my_recipe"):
        TextClassifier.lr_schedulers_registry(lambda optimizer: None)
    with pytest.raises(FlashError, match="pass the function itself: optimizer=my_recipe"):
        TextClassifier.optimizers_registry(name="mine")
    with pytest.raises(FlashError, match=r"flash.Trainer\(\).predict\(model, texts, output='labels'\)"):
        TextClassifier(2).predict(["a"])


def test_the_output_of_a_model_is_checked() -> None:
    model = TextClassifier(2, output="labels")
    assert model.output == model.serializer == "labels"
    model.output = None
    with pytest.raises(FlashError, match="unknown output 'lables'; did you mean 'labels'"):
        model.output = "lables"
    with pytest.raises(
        FlashError, match=r"the output LabelsOutput is a class; pass an object of it: LabelsOutput\(\)"
    ):
        model.output = cast(Any, LabelsOutput)
    model.serializer = PredsOutput()
    assert isinstance(model.output, PredsOutput)


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("enable_ort", True, "predict with it by: flash export MODEL"),
        ("pretrained", False, "an encoder's weights are always read"),
        ("optimizer_kwargs", {"lr": 1}, r"pass optimizer=\(name, \{arguments\}\)"),
        ("scheduler", "steplr", "pass lr_scheduler= in place of it"),
        ("input_transform", "x", "takes texts as they are"),
    ],
)
def test_keywords_of_flash(keyword: str, value: Any, said: str) -> None:
    with pytest.raises(FlashError, match=f"TextClassifier.{keyword}=.*has no meaning here: .*{said}"):
        TextClassifier(2, **{keyword: value})


def test_keywords_with_the_values_that_flash_had_say_nothing() -> None:
    TextClassifier(2, enable_ort=False, pretrained=True, preprocess=None)


def test_a_backbone_in_the_place_of_labels() -> None:
    with pytest.raises(FlashError, match=r"TextClassifier\(num_classes=2, backbone='prajjwal1/bert-tiny'\)"):
        TextClassifier(2, "prajjwal1/bert-tiny")


def test_a_model_without_names_takes_those_of_the_datamodule(make_trainer: Callable[..., Any]) -> None:
    data = TextClassificationData.from_lists(
        train_data=["a", "b", "c"] * 4, train_targets=[["x"], ["y"], ["x", "y"]] * 4
    )
    model = TextClassifier(data.num_classes)
    assert (model.labels, model.multi_label) == (["0", "1"], False)
    make_trainer().fit(model, data)
    assert (model.labels, model.multi_label) == (["x", "y"], True)
    other = TextClassificationData.from_lists(
        train_data=["a", "b"], train_targets=[["p"], ["q"]], labels=["p", "q"]
    )
    with pytest.raises(DataError, match="labels"):  # once named, always named
        make_trainer().fit(model, other)


def test_another_number_of_labels_is_refused(make_trainer: Callable[..., Any]) -> None:
    data = TextClassificationData.from_lists(train_data=["a", "b"], train_targets=[["x"], ["y"]])
    with pytest.raises(DataError, match=r"the datamodule's 2 labels \(x, y\) are not the model's 3"):
        make_trainer().fit(TextClassifier(3, multi_label=True), data)


def test_a_head_that_has_the_names_is_kept_as_soon_as_they_are_known(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    """As of an encoder that was trained on the toxic comments, with `num_classes=datamodule.num_classes`."""
    transformers = pytest.importorskip("transformers")
    folder = make_bert(tmp_path)
    config = transformers.AutoConfig.from_pretrained(folder, id2label={0: "y", 1: "x", 2: "z"})
    torch.manual_seed(1)
    theirs = transformers.BertForSequenceClassification(config)
    theirs.save_pretrained(folder)
    model = TextClassifier(3, backbone=str(folder), max_length=40)
    data = TextClassificationData.from_lists(
        train_data=["banana", "zebra", "hammer"], train_targets=[["x"], ["y"], ["z"]]
    )
    model.meet(data)
    assert isinstance(model.backbone, EncoderModule)
    assert model.backbone.encoder.kept_head
    expected = theirs.classifier.weight.detach()[[1, 0, 2]]
    torch.testing.assert_close(model.backbone.encoder.head.weight.detach(), expected)


def test_another_head_gets_the_names_in_place(folder: Path) -> None:
    model = TextClassifier(2, backbone=str(folder), max_length=40)
    assert isinstance(model.backbone, EncoderModule)
    before = model.backbone.encoder
    data = TextClassificationData.from_lists(train_data=["banana", "zebra"], train_targets=[["x"], ["y"]])
    model.meet(data)
    assert model.backbone.encoder is before
    assert before.labels == ("x", "y")


def test_registries_of_backbones_and_heads() -> None:
    assert TextClassifier.backbones.available_keys() == TextClassifier.available_backbones()
    assert TextClassifier.backbones.available_backbones() == ["linear"]
    with pytest.raises(FlashError, match=r"pass the name itself: TextClassifier\(backbone='linear'"):
        TextClassifier.backbones.get("linear")
    with pytest.raises(FlashError, match="pass the id or the folder of an encoder"):
        TextClassifier.backbones(name="mine")
    with pytest.raises(FlashError, match="heads is not here; an encoder has one linear layer per label"):
        TextClassifier.heads(name="mine")


@pytest.mark.parametrize("name", ["from_files", "from_folders", "from_data_source", "from_input"])
def test_sources_that_hold_no_table(name: str) -> None:
    with pytest.raises(FlashError, match=r"from_lists\(train_data=texts, train_targets=labels\)"):
        getattr(TextClassificationData, name)(train_files=["a.txt"])
