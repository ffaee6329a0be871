"""An exported model read back: a graph made by hand, whose logits are known, and the folders that are refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flash.core.errors import CheckpointError, MissingExtraError
from flash.text.classification.backbones.encoder.onnx_runtime import SLOWER, OnnxBackbone
from flash.text.classification.checkpoint.export_folder import read_settings
from flash.text.classification.predictor import Predictor

onnx = pytest.importorskip("onnx")
tokenizers = pytest.importorskip("tokenizers")
onnxruntime = pytest.importorskip("onnxruntime")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "banana", "hammer", "row"]
TABLE = np.array([[9, 9], [0, 0], [0, 0], [0, 0], [4, -2], [-1, 3], [1, 1]], np.float32)
"""What each word counts for each label. A text's logits are the mean of its tokens, special ones included."""
LABELS = ["fruit", "tool"]


def write_graph(path: Path, output: str = "logits") -> None:
    """The mean over tokens of the rows of `TABLE`, padding left out."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=kinds.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["weights"]),
        helper.make_node("Mul", ["rows", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["tokens"], keepdims=1),
        helper.make_node("Div", ["sum", "tokens"], [output]),
    ]
    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info(name, kinds.INT64, ["batch", "tokens"]) for name in names],
        [helper.make_tensor_value_info(output, kinds.FLOAT, ["batch", 2])],
        [
            onnx.numpy_helper.from_array(TABLE, "table"),
            onnx.numpy_helper.from_array(np.array([1]), "one"),
            onnx.numpy_helper.from_array(np.array([2]), "two"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, str(path))


def write_tokenizer(path: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(WORDS[:4])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(path))


SETTINGS: dict[str, Any] = {
    "export_format": 1,  # which has no checksums
    "version": "0.1.0",
    "kind": "onnx",
    "labels": LABELS,
    "multi_label": True,
    "thresholds": [0.5, 0.25],
    "calibration_scale": [2.0, 1.0],
    "calibration_shift": [0.0, -1.0],
    "max_length": 16,
    "backbone": "a folder",
    "backbone_options": {"long_text": "truncate", "window_pooling": "max", "window_overlap": 0.25},
    "tokenizer": {
        "pad_id": 0,
        "truncation_side": "right",
        "special_tokens": WORDS[:4],
    },
}


@pytest.fixture
def make_export(tmp_path: Path) -> Callable[..., Path]:
    """A folder as `export` writes it; keywords are other settings, None for one that is left out."""

    def make(**changes: Any) -> Path:
        write_graph(tmp_path / "model.onnx")
        write_tokenizer(tmp_path / "tokenizer.json")
        settings = {key: value for key, value in {**SETTINGS, **changes}.items() if value is not None}
        (tmp_path / "flash.json").write_text(json.dumps(settings), "utf-8")
        return tmp_path

    return make


def backbone_of(folder: Path) -> OnnxBackbone:
    return OnnxBackbone.load(folder, read_settings(folder)[0])


def options(**changes: Any) -> dict[str, Any]:
    return {**SETTINGS["backbone_options"], **changes}


def test_logits_are_the_graph_s(make_export: Callable[..., Path]) -> None:
    backbone = backbone_of(make_export())
    logits = backbone.logits(pa.array(["banana row", "hammer", "", "nothing known"], pa.large_string()))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, [[5 / 4, -1 / 4], [-1 / 3, 1.0], [0.0, 0.0], [0.0, 0.0]], rtol=1e-6)


def test_many_texts_of_all_lengths_keep_their_order(make_export: Callable[..., Path]) -> None:
    words = [["banana"] * (row % 7) + ["hammer"] * (row % 5) for row in range(100)]
    expected = np.array(
        [TABLE[[4] * (row % 7) + [5] * (row % 5) + [2, 3]].mean(axis=0) for row in range(100)]
    )
    found = backbone_of(make_export()).logits(pa.array([" ".join(row) for row in words], pa.large_string()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_no_text_gives_no_row(make_export: Callable[..., Path]) -> None:
    assert backbone_of(make_export()).logits(pa.array([], pa.large_string())).shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"long_text": "truncate"}, [0.75, 0.25]),
        ({"long_text": "window", "window_pooling": "max"}, [0.75, 1.0]),
        ({"long_text": "window", "window_pooling": "mean"}, [0.375, 0.625]),
    ],
)
def test_long_texts(make_export: Callable[..., Path], changes: dict[str, str], expected: list[float]) -> None:
    """Of three words, a row holds two: [banana hammer] is one window and [hammer row] the other."""
    backbone = backbone_of(make_export(max_length=4, backbone_options=options(**changes)))
    logits = backbone.logits(pa.array(["row", "banana hammer row", "banana"], pa.large_string()))
    np.testing.assert_allclose(logits, [[1 / 3, 1 / 3], expected, [4 / 3, -2 / 3]], rtol=1e-6)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_a_text_of_many_windows_is_no_larger_a_batch(make_export: Callable[..., Path], how: str) -> None:
    """Two words a window: 99 of [banana banana], one of [banana hammer] and, behind it, one of [hammer]."""
    backbone = backbone_of(
        make_export(
            max_length=4,
            backbone_options=options(long_text="window", window_pooling=how, window_overlap=0.0),
        )
    )
    session, rows = backbone.session, []

    class Seen:
        def run(self, names: Any, batch: dict[str, np.ndarray]) -> Any:
            rows.append(len(batch["input_ids"]))
            return session.run(names, batch)

    backbone.session = backbone._single = Seen()
    logits = backbone.logits(pa.array(["row", "banana " * 199 + "hammer hammer"], pa.large_string()))
    windows = np.array([[2.0, -1.0]] * 99 + [[0.75, 0.25], [-1 / 3, 1.0]])
    expected = windows.max(axis=0) if how == "max" else windows.mean(axis=0)
    np.testing.assert_allclose(logits, [[1 / 3, 1 / 3], expected], rtol=1e-5)
    assert (sum(rows), max(rows)) == (102, 32)


def test_several_batches_have_a_thread_each_and_one_has_them_all(make_export: Callable[..., Path]) -> None:
    backbone = backbone_of(make_export())
    texts = ["row " * length for length in (1, 1, 1, 30, 30, 30)]
    together = backbone.logits(pa.array(texts, pa.large_string()))
    single = backbone._single
    if cpu_count() != 1:
        assert single.get_session_options().intra_op_num_threads == 1
    assert backbone.session.get_session_options().intra_op_num_threads == 0
    alone = [backbone.logits(pa.array([text], pa.large_string()))[0] for text in texts]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert backbone._single is single  # made once


@pytest.mark.parametrize(
    ("version", "spins"), [("1.22.0", "0"), ("1.25.1", "0"), ("1.26.0", "1"), ("2.0", "1")]
)
def test_waiting_threads_leave_the_processor_to_others(
    version: str, spins: str, make_export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    found = backbone_of(make_export()).session.get_session_options()
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == spins
    if spins == "1":  # where nobody could end it, they do not begin
        assert found.get_session_config_entry("session.intra_op.spin_duration_us") == "20"


@pytest.mark.parametrize("left_out", [None, SLOWER])
def test_sums_and_norms_stay_apart(left_out: list[str] | None, tmp_path: Path) -> None:
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Add", ["one", "other"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "bias"], ["norm"], axis=-1),
    ]
    rows = [
        helper.make_tensor_value_info(name, kinds.FLOAT, ["B", "T", 4]) for name in ("one", "other", "norm")
    ]
    values = [onnx.numpy_helper.from_array(np.ones(4, np.float32), name) for name in ("scale", "bias")]
    graph = helper.make_graph(nodes, "norm", rows[:2], rows[2:], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "made.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options, disabled_optimizers=left_out)
    made = {node.op_type for node in onnx.load(str(tmp_path / "made.onnx")).graph.node}
    assert ("SkipLayerNormalization" in made) == (left_out is None)


def test_the_predictor_calibrates_and_decides(make_export: Callable[..., Path]) -> None:
    predictor = Predictor.load(make_export())
    assert predictor.labels == ("fruit", "tool")
    assert predictor.multi_label
    np.testing.assert_allclose(predictor.logits(["banana row"]), [[2.5, -1.25]], rtol=1e-6)
    assert predictor.predict(["banana row", "hammer"]) == [["fruit"], ["tool"]]  # 0.22 and 0.5 of tool
    assert predictor.predict([]) == []
    assert predictor.probabilities([]).shape == (0, 2)
    assert "2 labels: fruit, tool" in repr(predictor)


def test_a_single_label_export(make_export: Callable[..., Path]) -> None:
    assert Predictor.load(make_export(multi_label=False)).predict(["banana", "hammer hammer"]) == [
        "fruit",
        "tool",
    ]


def test_neither_torch_nor_transformers_nor_lightning_is_imported(make_export: Callable[..., Path]) -> None:
    program = (
        "import sys\nfrom flash.text.classification import Predictor\n"
        "assert Predictor.load(sys.argv[1]).predict(['banana row']) == [['fruit']]\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, str(make_export())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert {"onnxruntime", "tokenizers"} <= modules
    assert not modules & {"torch", "transformers", "lightning", "pytorch_lightning", "onnx"}


# What is refused


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"export_format": None},
        "the flash.json of .* is none that flash export wrote; expected a folder that it wrote",
    ),
    (
        {"export_format": 3, "version": "9.0"},
        "has export format 3, written by version '9.0'; this library reads up",
    ),
    (
        {"kind": "coreml"},
        "is damaged: its kind is 'coreml', which is none that there is; export the model again",
    ),
    ({"labels": []}, r"is damaged: its labels are \[\], expected a list of one or more different names"),
    ({"labels": ["a", "a"]}, "is damaged: its labels are .*, expected a list of one or more different names"),
    ({"multi_label": 1}, "is damaged: its multi_label is 1, expected a bool"),
    ({"thresholds": [0.5]}, "is damaged: its thresholds are .*, expected 2 numbers, one per label"),
    ({"thresholds": [0.5, 1.5]}, "is damaged: its thresholds are 0.5 to 1.5, expected numbers from 0 to 1"),
    ({"thresholds": ["a", "b"]}, "is damaged: its thresholds or its calibration are no numbers"),
    (
        {"calibration_scale": [1.0, 0.0]},
        "is damaged: its calibration_scale holds 0.0 to 1.0, expected finite",
    ),
    ({"calibration_shift": None}, "is damaged: its calibration_shift is .*, expected 2 numbers"),
    ({"max_length": 0}, "is damaged: its max_length is 0, which"),
    ({"backbone_options": {}}, "is damaged: its long_text is missing, which"),
    ({"backbone_options": options(window_pooling="sum")}, "is damaged: its window_pooling is 'sum', which"),
    ({"backbone_options": options(window_overlap=1)}, "is damaged: its window_overlap is 1, which"),
    ({"tokenizer": None}, "is damaged: its pad_id is missing, which"),
    ({"tokenizer": {**SETTINGS["tokenizer"], "special_tokens": [1]}}, "is damaged: its special_tokens is"),
    (
        {"tokenizer": {**SETTINGS["tokenizer"], "truncation_side": "up"}},
        "is damaged: its truncation_side is 'up', which",
    ),
    (
        {
            "labels": ["a", "b", "c"],
            **{name: [1, 1, 1] for name in ("thresholds", "calibration_scale", "calibration_shift")},
        },
        "is damaged: its model.onnx is another model's, not of these 3 labels",
    ),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_settings_that_cannot_be(
    make_export: Callable[..., Path], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        Predictor.load(make_export(**changes))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("flash.json", b"{", "is damaged: its flash.json cannot be read; export the model again"),
        ("flash.json", b"[]", "is none that flash export wrote"),
        ("flash.json", b"\xff", "is damaged: its flash.json cannot be read"),
        (
            "flash.json",
            None,
            r"is no exported model \(it holds: model.onnx, tokenizer.json\); expected a folder that",
        ),
        ("model.onnx", None, "is damaged: it lacks model.onnx; export the model again"),
        (
            "model.onnx",
            b"no graph",
            r"is damaged: onnxruntime cannot read its model.onnx \(.*\); export the model again",
        ),
        ("tokenizer.json", None, "is damaged: it lacks tokenizer.json"),
        ("tokenizer.json", b"{}", r"is damaged: its tokenizer.json cannot be read \(.*\); export"),
    ],
)
def test_files_that_cannot_be(
    make_export: Callable[..., Path], name: str, content: bytes | None, words: str
) -> None:
    folder = make_export()
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        Predictor.load(folder)
    assert "\n" not in str(caught.value)


def test_a_graph_with_other_outputs(make_export: Callable[..., Path]) -> None:
    folder = make_export()
    write_graph(folder / "model.onnx", output="scores")
    with pytest.raises(CheckpointError, match="its model.onnx is another model's"):
        Predictor.load(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no exported model \(it holds: nothing\)"):
        Predictor.load(tmp_path)


def test_a_tokenizer_whose_tokens_the_graph_lacks(make_export: Callable[..., Path]) -> None:
    folder = make_export()
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["model"]["vocab"]["turnip"] = 7
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(
        CheckpointError, match=r"onnxruntime cannot compute the exported model \(.*\); export it again"
    ):
        Predictor.load(folder).predict(["turnip"])


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_a_missing_package(
    make_export: Callable[..., Path], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_export()
    needs = ['onnxruntime>=1.20; extra == "onnx"', 'tokenizers>=0.22; extra == "onnx"']
    monkeypatch.setattr("flash.core.extras.requires", lambda name: needs)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtraError, match=rf"needs the package '{package}' \(extra 'onnx'\).*; type: pip install"
    ):
        Predictor.load(folder)
