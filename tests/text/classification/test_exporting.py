"""Exports of tiny random encoders: the same answers as the model file's, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flash
from flash.core import precision
from flash.core.errors import CheckpointError, FlashError, MissingExtraError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint, exporting
from flash.text.classification.backbones.encoder.loading import quiet
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.checkpoint.export_folder import seal
from flash.text.classification.exporting import ExportReport, export
from flash.text.classification.predictor import Predictor
from flash.text.classification.scores.outputs import Calibration

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

LABELS = ["toxic", "insult", "threat"]
OTHER_ORDER = ("threat", "toxic", "insult")
WORDS = ["the", "you", "are", "a", "banana", "zebra", "hammer", "page", "about", "of", "."]
TEXTS = [
    "you are a banana",
    "the zebra",
    "",
    "a hammer . " * 20,
    "unknown words alone",
    "the page about the zebra .",
]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SHORT = {**SIZE, "max_position_embeddings": 40}
KINDS: dict[str, dict[str, Any]] = {
    "bert": SHORT,
    "roberta": SHORT,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40},
    "deberta-v2": {
        **SHORT,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_buckets": 8,
        "type_vocab_size": 0,
    },
    "modernbert": {**SHORT, "global_attn_every_n_layers": 2, "local_attention": 8},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
}


def make_folder(folder: Path, kind: str, labels: tuple[str, ...] | None) -> Path:
    """A random encoder, with a head for the labels if there are any."""
    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(special)
    if kind != "gpt2":
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        inner.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=len(vocabulary),
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
        initializer_range=0.3,
        **KINDS[kind],
        **({"id2label": dict(enumerate(labels))} if labels else {}),
    )
    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    with quiet():
        auto.from_config(config).save_pretrained(folder)
    return folder


def save_model(
    path: Path,
    kind: str = "bert",
    *,
    kept: bool = False,
    multi_label: bool = True,
    fields: list[str] | None = None,
    **options: Any,
) -> Path:
    """A model file as training leaves it: a head with large weights, calibration, thresholds."""
    folder = make_folder(path.with_name(f"{path.stem}-encoder"), kind, OTHER_ORDER if kept else None)
    keywords = {
        "backbone": str(folder),
        "labels": LABELS,
        "multi_label": multi_label,
        "max_length": 16,
        **options,
    }
    model = TextClassifier(**keywords)
    assert isinstance(model.backbone, EncoderModule)
    assert model.backbone.encoder.kept_head == kept
    with torch.no_grad():
        for tensor in model.backbone.encoder.head.parameters():
            torch.nn.init.normal_(tensor)
    bias = model.backbone.encoder.head.bias is not None
    shift = np.array([0.5, -0.25, 0], np.float32) * bias
    model.calibration = Calibration(np.array([1.5, 0.75, 1.0], np.float32), shift)
    model.thresholds.copy_(torch.tensor([0.25, 0.5, 0.625]))
    model.input_fields = fields
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    checkpoint.save(content, path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def model(place: Path) -> Path:
    """New head, mean pooling, texts longer than 16 tokens in windows."""
    return save_model(place / "model.pt", long_text="window", window_pooling="mean")


@pytest.fixture(scope="module")
def exported(model: Path) -> ExportReport:
    return export(model, model.with_name("model-onnx"))


@pytest.fixture(scope="module")
def quantized(model: Path) -> ExportReport:
    return export(model, model.with_name("model-int8"), quantize="int8", sample=TEXTS)


@pytest.fixture(scope="module")
def kept_model(place: Path) -> Path:
    return save_model(place / "kept.pt", "roberta", kept=True)


@pytest.fixture(scope="module")
def whole(kept_model: Path) -> ExportReport:
    return export(kept_model, kept_model.with_name("kept-transformers"), "transformers")


def difference(one: Path, other: Path, texts: list[str] = TEXTS) -> float:
    first, second = (Predictor.load(path, precision="32").probabilities(texts) for path in (one, other))
    assert first.std() > 0.01  # answers that are all the same would agree too
    return float(np.abs(first - second).max())


# ONNX


def test_an_onnx_export_answers_as_the_model_file(model: Path, exported: ExportReport) -> None:
    assert difference(model, exported.folder) <= 1e-4
    ours, theirs = Predictor.load(exported.folder), Predictor.load(model, precision="32")
    assert ours.labels == theirs.labels == tuple(LABELS)
    np.testing.assert_array_equal(ours.thresholds, theirs.thresholds)
    assert ours.predict(TEXTS) == theirs.predict(TEXTS)
    assert ours.predict([]) == []
    assert ours.probabilities([""]).shape == (1, 3)


def test_a_text_s_answer_does_not_depend_on_the_others(exported: ExportReport) -> None:
    predictor = Predictor.load(exported.folder)
    alone = np.concatenate([predictor.probabilities([text]) for text in TEXTS])
    np.testing.assert_allclose(predictor.probabilities(TEXTS), alone, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_padding_is_no_part_of_an_answer_whatever_the_tokenizers_side(kind: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "encoder", kind, None)
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**stored, "padding_side": "left"}))
    model = save_model(tmp_path / "model.pt", backbone=str(folder))
    export(model, tmp_path / "out")
    for path in (model, tmp_path / "out"):
        predictor = Predictor.load(path, precision="32")
        alone = np.concatenate([predictor.probabilities([text]) for text in TEXTS])
        np.testing.assert_allclose(predictor.probabilities(TEXTS), alone, atol=1e-5)


def test_the_report(exported: ExportReport, quantized: ExportReport) -> None:
    assert (exported.format, exported.quantize, exported.own_texts) == ("onnx", None, False)
    assert exported.size == sum(file.stat().st_size for file in exported.folder.iterdir())
    assert 0 <= exported.mean <= exported.largest <= 1e-4
    assert (quantized.texts, quantized.own_texts, quantized.quantize) == (len(TEXTS), True, "int8")
    assert 0 < quantized.mean < quantized.largest


def test_int8_is_close_and_its_difference_is_measured(model: Path, quantized: ExportReport) -> None:
    found = difference(model, quantized.folder)
    assert found <= 0.1
    assert quantized.largest == pytest.approx(found, abs=1e-3)


def test_int8_is_per_column_7_bits_and_leaves_the_head_alone(
    quantized: ExportReport, exported: ExportReport
) -> None:
    onnx = pytest.importorskip("onnx")
    nodes, plain = (onnx.load(str(report.folder / "model.onnx")).graph for report in (quantized, exported))
    kinds = [node.op_type for node in nodes.node]
    assert (
        kinds.count("MatMulInteger") == 2 * 6
    )  # in each layer: query, key, value, their output, two of the feed-forward
    weights = [onnx.numpy_helper.to_array(array) for array in nodes.initializer]
    matrices = [array for array in weights if array.dtype == np.int8 and array.ndim == 2]
    assert len(matrices) == 2 * 6
    assert all(np.abs(array.astype(int)).max() <= 64 for array in matrices)
    shapes = {array.name: tuple(array.dims) for array in nodes.initializer}
    quantized_names = [name for name in shapes if name.endswith("_quantized")]
    assert len(quantized_names) == 2 * 6
    for name in quantized_names:  # a scale for each column
        assert shapes[name.replace("_quantized", "_scale")] == shapes[name][1:]
    assert "DynamicQuantizeLinear" in kinds
    assert not {"MatMulInteger", "DynamicQuantizeLinear"} & {node.op_type for node in plain.node}


def test_the_folder_holds_what_it_needs_and_no_path_of_this_machine(exported: ExportReport) -> None:
    assert {file.name for file in exported.folder.iterdir()} == {"flash.json", "model.onnx", "tokenizer.json"}
    graph = (exported.folder / "model.onnx").read_bytes()
    assert b".py" not in graph
    assert b"/site-packages" not in graph


def test_predicting_imports_no_torch(exported: ExportReport) -> None:
    program = (
        "import sys\nfrom flash.text.classification import Predictor\n"
        "print(Predictor.load(sys.argv[1]).probabilities(['you are a banana']).shape)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, str(exported.folder)]
    shape, modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shape == "(1, 3)"
    assert not set(modules.split()) & {"torch", "transformers", "lightning", "pytorch_lightning"}


def test_single_label_with_cls_pooling_and_cut_texts(tmp_path: Path) -> None:
    model = save_model(tmp_path / "single.pt", "distilbert", multi_label=False, pooling="cls")
    report = export(model, tmp_path / "out", sample=TEXTS)
    assert report.largest <= 1e-4
    predictor = Predictor.load(tmp_path / "out")
    assert not predictor.multi_label
    np.testing.assert_allclose(predictor.probabilities(TEXTS).sum(axis=1), 1, rtol=1e-5)
    assert predictor.predict(TEXTS) == Predictor.load(model, precision="32").predict(TEXTS)


@pytest.mark.parametrize(
    ("kind", "kept"), [("roberta", True), ("deberta-v2", False), ("modernbert", True), ("gpt2", False)]
)
def test_architectures(kind: str, kept: bool, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.pt", kind, kept=kept)
    export(model, tmp_path / "out")
    assert difference(model, tmp_path / "out") <= 1e-4


def test_the_other_way_is_taken_where_the_first_fails(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flash.text.classification.backbones.encoder import onnx_graph

    def unreadable(*given: Any) -> None:
        raise RuntimeError("cannot read this code\nat all")

    monkeypatch.setattr(onnx_graph, "WAYS", (unreadable, onnx_graph.by_graph))
    export(model, tmp_path / "out")
    assert difference(model, tmp_path / "out") <= 1e-4
    monkeypatch.setattr(onnx_graph, "WAYS", (unreadable, unreadable))
    with pytest.raises(
        FlashError,
        match=r"this encoder \(BertModel\) cannot be written as an ONNX graph \(unreadable: cannot read this code; "
        r"unreadable: .*\); use the model file itself",
    ):
        export(model, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_that_answers_otherwise_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flash.text.classification.backbones.encoder import onnx_graph

    def spoilt(network: torch.nn.Module, example: Any, path: Path) -> None:
        encoder: Any = network.get_submodule("encoder")
        before = encoder.head.bias.detach().clone()
        encoder.head.bias.data += 1
        try:
            onnx_graph.by_trace(network, example, path)
        finally:
            encoder.head.bias.data = before

    monkeypatch.setattr(onnx_graph, "WAYS", (spoilt,))
    with pytest.raises(
        FlashError,
        match=r"spoilt: the export's probabilities differ by 0\.\d+ from the model's, and may by 0.0001",
    ):
        export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# transformers


def scores(folder: Path, texts: list[str]) -> np.ndarray:
    """The pipeline's scores, columns in the order of `LABELS`."""
    pipeline = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    found = [{entry["label"]: entry["score"] for entry in row} for row in pipeline(texts, truncation=True)]
    assert all(set(row) == set(LABELS) for row in found)
    return np.array([[row[label] for label in LABELS] for row in found])


@pytest.mark.parametrize("kind", ["bert", "distilbert", "deberta-v2", "modernbert", "gpt2"])
def test_a_pipeline_of_transformers_gives_our_probabilities(kind: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.pt", kind, kept=True)
    report = export(model, tmp_path / "out", "transformers")
    assert report.largest <= 1e-4
    texts = [text for text in TEXTS if text or kind != "gpt2"]  # to which an empty text has no token
    expected = Predictor.load(model, precision="32").probabilities(texts)
    np.testing.assert_allclose(scores(tmp_path / "out", texts), expected, atol=1e-4)


def test_a_single_label_pipeline_is_a_softmax(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.pt", kept=True, multi_label=False)
    export(model, tmp_path / "out", "transformers")
    found = scores(tmp_path / "out", TEXTS)
    np.testing.assert_allclose(found, Predictor.load(model, precision="32").probabilities(TEXTS), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_flash_loads_the_transformers_folder_back(kept_model: Path, whole: ExportReport) -> None:
    assert difference(kept_model, whole.folder) <= 1e-4
    np.testing.assert_array_equal(
        Predictor.load(whole.folder).thresholds, np.array([0.25, 0.5, 0.625], np.float32)
    )
    labels = ["threat", "insult", "toxic"]
    again = TextClassifier(backbone=str(whole.folder), labels=labels, multi_label=True, max_length=16)
    assert isinstance(again.backbone, EncoderModule)
    assert again.backbone.encoder.kept_head
    found = again(TEXTS).sigmoid().numpy()[:, [labels.index(label) for label in LABELS]]
    np.testing.assert_allclose(
        found, Predictor.load(kept_model, precision="32").probabilities(TEXTS), atol=1e-4
    )


SAID = "The thresholds of the export "


def test_the_exports_thresholds_hold_until_others_are_chosen(
    whole: ExportReport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["threat", "insult", "toxic"]
    with caplog.at_level("INFO"):
        model = TextClassifier(backbone=str(whole.folder), labels=labels, multi_label=True, max_length=16)
    assert model.thresholds.tolist() == [0.625, 0.5, 0.25]
    assert caplog.messages == [f"{SAID}{str(whole.folder)!r} hold until a fit chooses others."]
    given = TextClassifier(
        backbone=str(whole.folder), labels=labels, multi_label=True, max_length=16, thresholds={"toxic": 0.75}
    )
    assert given.thresholds.tolist() == [0.625, 0.5, 0.75]
    quiet_trainer = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = flash.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **quiet_trainer)
    data = TextClassificationData.from_lists(predict_data=TEXTS)
    (found,) = trainer.predict(model, datamodule=data, output="labels") or []
    assert [set(row) for row in found] == [
        set(row) for row in Predictor.load(whole.folder, precision="32").predict(TEXTS)
    ]
    data = TextClassificationData.from_lists(
        train_data=TEXTS,
        train_targets=[["toxic"], ["insult"], ["threat"]] * 2,
        labels=labels,
        multi_label=True,
    )
    trainer.fit(model, datamodule=data)
    assert model.thresholds.tolist() == [0.5] * 3


def test_options_that_the_export_does_not_bring(
    whole: ExportReport, caplog: pytest.LogCaptureFixture
) -> None:
    keywords: dict[str, Any] = {"labels": LABELS, "multi_label": True, "max_length": 20}
    with caplog.at_level("INFO"):
        TextClassifier(backbone=str(whole.folder), **keywords, long_text="window")
    assert caplog.messages == [
        f"{SAID}{str(whole.folder)!r} hold until a fit chooses others; for the answers of the export pass "
        "max_length=16, long_text='truncate'."
    ]


@pytest.mark.parametrize(
    "keywords",
    [{"multi_label": False}, {"labels": ["toxic", "insult", "rude"]}, {"num_classes": 3, "labels": None}],
)
def test_an_export_for_something_else_brings_no_thresholds(
    keywords: dict[str, Any], whole: ExportReport, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        model = TextClassifier(
            **{
                "backbone": str(whole.folder),
                "labels": LABELS,
                "multi_label": True,
                "max_length": 16,
                **keywords,
            }
        )
    assert model.thresholds.tolist() == [0.5] * 3
    assert not caplog.messages


@pytest.mark.parametrize("content", ["[1]", '{"thresholds": [1, 1, 1]}', "{", None])
def test_a_file_of_settings_that_is_not_ours(
    content: str | None, whole: ExportReport, tmp_path: Path
) -> None:
    for file in whole.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if content is None:
        (tmp_path / "flash.json").unlink()
    else:
        (tmp_path / "flash.json").write_text(content)
    model = TextClassifier(backbone=str(tmp_path), labels=LABELS, multi_label=True, max_length=16)
    assert model.thresholds.tolist() == [0.5] * 3


def test_damaged_settings_of_an_export(whole: ExportReport, tmp_path: Path) -> None:
    for file in whole.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "flash.json").read_text())
    (tmp_path / "flash.json").write_text(json.dumps({**settings, "thresholds": [2, 0, 0]}))
    with pytest.raises(CheckpointError, match=r"is damaged: its flash.json is not as it was written; export"):
        TextClassifier(backbone=str(tmp_path), labels=LABELS, multi_label=True, max_length=16)


def test_an_export_is_compared_in_float32(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measured_speedup", lambda matrices: 2.0)
    assert export(model, tmp_path / "out").largest <= 1e-4


def test_a_transformers_folder_whose_labels_were_changed(whole: ExportReport, tmp_path: Path) -> None:
    for file in whole.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "flash.json").read_text())
    settings["labels"][0] = "rude"
    (tmp_path / "flash.json").write_text(json.dumps(settings))
    seal(tmp_path)
    with pytest.raises(
        CheckpointError, match="is damaged: its head has other labels than its settings; export"
    ):
        Predictor.load(tmp_path)


def test_a_new_head_is_none_of_transformers(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FlashError,
        match="the head of this model is new, with mean pooling, and .*; export it in the format onnx, or train",
    ):
        export(model, tmp_path / "out", "transformers")
    assert not list(tmp_path.iterdir())


def test_a_head_without_bias_takes_up_no_shift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_model(tmp_path / "model.pt", "gpt2", kept=True)
    content = checkpoint.load(model)
    content["state_dict"]["calibration_shift"] += 1
    checkpoint.save(content, model)
    with pytest.raises(
        FlashError, match="has no bias to take up the calibration, .*; export it in the format onnx"
    ):
        export(model, tmp_path / "out", "transformers")


# What is refused


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"format": "onx"}, "unknown export format 'onx'; did you mean 'onnx'"),
        ({"quantize": "int4"}, "unknown quantization 'int4'; did you mean 'int8'"),
        (
            {"format": "transformers", "quantize": "int8"},
            "only an ONNX export can be in int8; choose the format onnx",
        ),
        ({"sample": []}, "the sample has no texts to compare on"),
        ({"sample": "a text"}, "sample is a str, not a list of texts"),
    ],
)
def test_arguments_that_cannot_be(model: Path, tmp_path: Path, keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(FlashError, match=words):
        export(model, tmp_path / "out", **keywords)
    assert not list(tmp_path.iterdir())


def test_the_linear_backbone_is_refused_with_a_reason(
    make_content: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    arrays = {
        "buckets": torch.zeros(0, dtype=torch.int32),
        "idf": torch.zeros(0),
        "weight": torch.zeros(0, 2),
        "scale": torch.zeros(0),
        "bias": torch.ones(2),
    }
    path = tmp_path / "linear.pt"
    checkpoint.save(make_content(**{f"backbone.{name}": array for name, array in arrays.items()}), path)
    with pytest.raises(
        FlashError, match="has the linear backbone, which cannot be exported: .* hashed n-grams"
    ):
        export(path, tmp_path / "out")


def test_what_is_no_model_file(exported: ExportReport, tmp_path: Path) -> None:
    with pytest.raises(FlashError, match="model-onnx is a folder; give the file that save_checkpoint wrote"):
        export(exported.folder, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"missing\.pt does not exist"):
        export(tmp_path / "missing.pt", tmp_path / "out")


def test_what_is_there_already(kept_model: Path, whole: ExportReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FlashError, match="file is a file; name a folder for the export"):
        export(kept_model, tmp_path / "file", "transformers")
    (tmp_path / "empty").mkdir()
    assert export(kept_model, tmp_path / "empty", "transformers").folder == tmp_path / "empty"
    with pytest.raises(
        FlashError, match=r"holds an earlier export; pass overwrite=True \(--overwrite\) to replace it"
    ):
        export(kept_model, tmp_path / "empty", "transformers")
    (tmp_path / "empty" / "flash.json").write_text("spoilt")
    export(kept_model, tmp_path / "empty", "transformers", overwrite=True)
    assert difference(kept_model, tmp_path / "empty") <= 1e-4
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(
            FlashError, match=r"holds other files \(config.json, .*\); name a new one for the export"
        ):
            export(kept_model, tmp_path / "empty", "transformers", overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_a_place_that_cannot_be_written(kept_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        FlashError,
        match=r"the export cannot be written to .*: (Not a directory|File exists); free space or choose",
    ):
        export(kept_model, tmp_path / "file" / "out", "transformers")


def test_an_earlier_export_stays_where_the_new_one_fails(
    kept_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(kept_model, tmp_path / "out", "transformers")
    monkeypatch.setattr(exporting, "CLOSE", -1.0)
    with pytest.raises(FlashError, match="the export's probabilities differ by"):
        export(kept_model, tmp_path / "out", "transformers", overwrite=True)
    assert difference(kept_model, tmp_path / "out") <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package(
    model: Path, tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = [f'{name}; extra == "onnx"' for name in ("onnx", "onnxruntime", "onnxscript")]
    monkeypatch.setattr("flash.core.extras.requires", lambda name: needs)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtraError, match=rf"needs the package '{package}' \(extra 'onnx'\).*; type: pip install"
    ):
        export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# texts of several fields


def test_fields_in_an_onnx_export(tmp_path: Path) -> None:
    path = save_model(tmp_path / "two.pt", fields=["title", "body"])
    made = export(path, tmp_path / "onnx")
    assert made.input_fields == ("title", "body")
    ours, theirs = Predictor.load(tmp_path / "onnx"), Predictor.load(path, precision="32")
    assert ours.input_fields == theirs.input_fields == ("title", "body")
    texts = [{"title": "the zebra", "body": text} for text in TEXTS]
    first, second = ours.probabilities(texts), theirs.probabilities(texts)
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert np.abs(first - ours.probabilities([["", text] for text in TEXTS])).max() > 0.01
    with pytest.raises(FlashError, match="is one plain text, and this model reads 2 fields"):
        ours.probabilities(["the zebra"])


def test_a_pipeline_takes_two_fields_as_a_pair(tmp_path: Path) -> None:
    path = save_model(tmp_path / "two.pt", kept=True, fields=["title", "body"])
    export(path, tmp_path / "whole", "transformers")
    pipe = transformers.pipeline("text-classification", str(tmp_path / "whole"), top_k=None, device="cpu")
    predictor = Predictor.load(path, precision="32")
    (scores,) = predictor.probabilities([["you are", "a banana ."]])
    made = {one["label"]: one["score"] for one in pipe({"text": "you are", "text_pair": "a banana ."})}
    np.testing.assert_allclose([made[label] for label in LABELS], scores, atol=1e-4)


def test_a_model_within_the_folder_that_would_be_replaced(tmp_path: Path) -> None:
    for name in ("flash.json", "model.safetensors"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(FlashError) as found:
        export(tmp_path / "model.safetensors", tmp_path, overwrite=True)
    assert str(found.value) == (
        f"the model {tmp_path}/model.safetensors is in the folder {tmp_path}, which the export would replace; name another "
        "folder"
    )
    assert (tmp_path / "model.safetensors").read_text() == "mine"
