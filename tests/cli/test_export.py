"""`flash export`, and what the other commands make of the folder."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.__main__ import main
from flash.cli.export import build_parser, default_folder
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.predictor import Predictor

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

LABELS = ["toxic", "insult"]
WORDS = ["you", "are", "a", "banana", "zebra"]
TEXTS = ["you are a banana", "a zebra", "you"]


@pytest.fixture(scope="module")
def encoder_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file of a tiny random BERT whose head has these labels."""
    place = tmp_path_factory.mktemp("encoder")
    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(special)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(place / "bert")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    named = {"id2label": dict(enumerate(LABELS)), "initializer_range": 0.5, "max_position_embeddings": 40}
    config = transformers.BertConfig(vocab_size=len(vocabulary), pad_token_id=1, **shape, **named)
    transformers.BertForSequenceClassification(config).save_pretrained(place / "bert")
    model = TextClassifier(backbone=str(place / "bert"), labels=LABELS, multi_label=True, max_length=16)
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    checkpoint.save(content, place / "model.pt")
    return place / "model.pt"


@pytest.fixture(scope="module")
def exported(encoder_model: Path) -> tuple[Path, list[str]]:
    """An int8 folder made by the command, and the lines that it printed."""
    import contextlib
    import io

    sample = encoder_model.with_name("comments.csv")
    with sample.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "comment"], *enumerate(TEXTS)])
    words = ["--quantize", "int8", "--sample", str(sample), "--text_field", "comment"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["export", str(encoder_model), *words]) == 0
    return encoder_model.with_name("model-onnx-int8"), out.getvalue().splitlines()


def test_what_is_printed(exported: tuple[Path, list[str]], encoder_model: Path) -> None:
    folder, lines = exported
    assert folder.is_dir()
    assert lines[0].startswith(f"Saved {folder}: ONNX, int8, ")
    assert lines[0].endswith(" MB.")
    difference = np.abs(
        Predictor.load(folder).probabilities(TEXTS)
        - Predictor.load(encoder_model, precision="32").probabilities(TEXTS)
    )
    assert 0 < difference.mean() < difference.max() < 0.1
    sample = encoder_model.with_name("comments.csv")
    assert lines[1] == (
        f"Its probabilities differ from the model file's by {difference.max():.2g} at most, {difference.mean():.2g} on "
        f"average (3 texts of {sample})."
    )
    assert lines[-1] == f"  printf 'text\\n\"Thank you for your help\"\\n' | flash predict {folder} --input -"


def test_predict_takes_the_folder_and_imports_little(
    exported: tuple[Path, list[str]], imported: Callable[..., set[str]], tmp_path: Path
) -> None:
    folder, _ = exported
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("\n".join(["text", *TEXTS]) + "\n")
    modules = imported("predict", folder, "--input", source, "--output", target)
    assert modules == {"numpy", "pyarrow"}
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    expected = Predictor.load(folder).probabilities(TEXTS)
    np.testing.assert_allclose([row["insult_probability"] for row in rows], expected[:, 1], atol=1e-6)


def test_evaluate_takes_the_folder(
    exported: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.csv").write_text("text,toxic,insult\nyou are a banana,1,0\na zebra,0,1\n")
    assert main(["evaluate", str(exported[0]), str(tmp_path / "test.csv")]) == 0
    assert "2 rows, 2 labels" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_folder_that_is_no_export(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    words = {"predict": ["--input", str(tmp_path / "in.csv")], "evaluate": [str(tmp_path / "in.csv")]}[verb]
    assert main([verb, str(tmp_path), *words]) == 2
    assert capsys.readouterr().err == (
        f"flash: error: the folder {tmp_path} is no exported model (it holds: in.csv); expected a folder that flash "
        "export wrote, or the file that save_checkpoint wrote\n"
    )


def test_transformers_and_synthetic_texts(
    encoder_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(encoder_model), "--format", "transformers", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Saved {tmp_path / 'out'}: transformers, float32, ")
    assert lines[1].endswith("(50 synthetic texts; --sample FILE compares on yours).")
    assert 'pipeline("text-classification", ' in lines[-1]
    assert main(words) == 2
    assert (
        "holds an earlier export; pass overwrite=True (--overwrite) to replace it" in capsys.readouterr().err
    )
    assert main([*words, "--overwrite"]) == 0


def test_the_linear_backbone(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(model), "--output", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"flash: error: {model} has the linear backbone, which cannot be exported: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: MODEL; see flash export --help"),
        (["m.pt", "--formt", "onnx"], "unknown option '--formt'; did you mean '--format'"),
        (["m.pt", "--format", "coreml"], "invalid choice: 'coreml'"),
        (
            ["m.pt", "--text_field", "text"],
            "--text_field names a column of a sample; type --sample and its file too",
        ),
        (["m.pt", "--sample", "no.csv"], "no.csv"),
        (["m.pt", "--sample", "texts.dat"], "type --input_format csv, or tsv, jsonl or parquet in its place"),
        (["m.pt"], "the checkpoint m.pt does not exist; expected the file that save_checkpoint wrote"),
    ],
)
def test_mistakes_are_one_sentence_and_2(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("flash: error: ")
    assert errors.count("\n") == 1
    assert sentence in errors


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        (
            "id,comment\n1,a\n",
            [],
            "which column holds the texts? Its columns are id, comment; type --text_field and one",
        ),
        ("id;text\n1;a\n", ["--text_field", "text"], "the header holds ';': type --delimiter ';'"),
        ("id,comment\n1,a\n", ["--text_field", "coment"], "unknown column 'coment'; did you mean 'comment'"),
        ("text\n", [], "sample.csv has no rows, only column names; check its path, or put rows into it"),
    ],
)
def test_a_sample_that_cannot_be_used(
    encoder_model: Path,
    content: str,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sample.csv").write_text(content)
    words = ["--sample", str(tmp_path / "sample.csv"), "--output", str(tmp_path / "out"), *words]
    assert main(["export", str(encoder_model), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_package(
    encoder_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flash.core.extras.requires", lambda name: ['onnxruntime>=1.20; extra == "onnx"'])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(encoder_model), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "flash: error: this needs the package 'onnxruntime' (extra 'onnx'), which is not installed; type: pip install "
        '"onnxruntime>=1.20"\n'
    )


def test_help_and_default_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert default_folder("models/toxic.pt", "onnx", None) == Path("models/toxic-onnx")
    assert default_folder("toxic.v2", "onnx", "int8") == Path("toxic.v2-onnx-int8")
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for action in build_parser()._actions:
        for name in action.option_strings:
            assert name in out
