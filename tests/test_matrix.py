"""Every kind of model through every verb, by the real command in processes of their own.

`pytest -m matrix` runs all of it; a usual run takes a covering part: each kind of model and each verb once or more.
The models themselves are trained and exported once, in the process of the tests.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.__main__ import main
from flash.text.classification.predictor import Predictor

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

LABELS = ["fruit", "animal", "tool"]
WORDS = {"fruit": "banana", "animal": "zebra", "tool": "hammer"}
TEXTS = ["a banana", "zebra and hammer", "nothing", "", "unknown words"]

ENCODER = ("--model.max_length", "16", "--trainer.accelerator", "cpu")
KINDS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "freeze": ("--model.backbone", "bert", "--strategy", "freeze", *ENCODER),
    "no_freeze": ("--model.backbone", "bert", "--strategy", "no_freeze", *ENCODER),
    "lora": ("--model.backbone", "bert", "--strategy", "lora", *ENCODER),
    "half": ("--model.backbone", "bert", "--strategy", "freeze", "--half", "true", *ENCODER),
    "kept_head": ("--model.backbone", "headed", "--strategy", "freeze", *ENCODER),
    "single_label": ("--model.backbone", "bert", "--strategy", "freeze", *ENCODER),
    "single_label_linear": (),
}
"""What is typed to train each kind of model."""

EXPORTS: dict[str, tuple[str, ...]] = {
    "onnx": (),
    "int8": ("--quantize", "int8"),
    "transformers": ("--format", "transformers"),
}
"""What is typed to export each of these, of the model whose head was kept."""

COVERING = {
    ("linear", "serve_by_two"),
    ("no_freeze", "predict"),
    ("lora", "fit_again"),
    ("half", "export_int8"),
    ("kept_head", "export_transformers"),
    ("single_label", "resume"),
    ("single_label_linear", "export_onnx"),
    ("onnx", "serve_by_one"),
    ("int8", "predict"),
    ("transformers", "evaluate"),
}
"""The cells of a usual run, beside the main example, which serves what `freeze` has trained."""


def run(
    *words: str | Path, folder: Path, program: str | None = None, code: int = 0
) -> "subprocess.CompletedProcess[str]":
    """What a command of ours, or a program, has written; it must end with this code."""
    command = [sys.executable, "-m", "flash"] if program is None else [sys.executable, "-c", program]
    done = subprocess.run(
        [*command, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run_here(*words: str | Path, folder: Path) -> None:
    """As `run`, in this process, which has imported torch already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(list(map(str, words))) == 0


def make_rows() -> list[tuple[str, list[str]]]:
    """120 texts that name what they are about."""
    rows = []
    for row in range(120):
        present = [label for bit, label in enumerate(LABELS) if row >> bit & 1]
        rows.append(
            (f"row {row % 9} is a " + " and ".join([WORDS[each] for each in present] or ["nothing"]), present)
        )
    return rows


def write_files(folder: Path) -> None:
    """Rows of several labels in columns of 0 and 1, rows of one label, and texts to predict."""
    with (folder / "several.csv").open("w", newline="") as several, (folder / "one.csv").open("w") as one:
        columns, named = csv.writer(several), csv.writer(one)
        columns.writerow(["text", *LABELS])
        named.writerow(["text", "label"])
        for text, present in make_rows():
            columns.writerow([text, *(int(label in present) for label in LABELS)])
            if len(present) == 1:
                named.writerows([[f"{text} {extra}", present[0]] for extra in ("a", "b", "c")])
    with (folder / "texts.csv").open("w", newline="") as texts:
        csv.writer(texts).writerows([["text"], *([text] for text in TEXTS)])


def make_encoder(folder: Path, *, head: bool) -> None:
    """A tiny BERT with random weights; with a head of these labels, in another order, or without one."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "row", "is", "a", "and", "nothing", *WORDS.values()]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    names = {
        "id2label": dict(enumerate(LABELS[::-1])),
        "label2id": {n: i for i, n in enumerate(LABELS[::-1])},
    }
    config = transformers.BertConfig(
        vocab_size=len(words),
        max_position_embeddings=20,
        initializer_range=0.3,
        **shape,
        **(names if head else {}),
    )
    made = transformers.BertForSequenceClassification if head else transformers.BertModel
    made(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that everything is made in."""
    folder = tmp_path_factory.mktemp("matrix")
    write_files(folder)
    make_encoder(folder / "bert", head=False)
    make_encoder(folder / "headed", head=True)
    return folder


def source_of(kind: str) -> list[str]:
    """The words that name the rows to train on."""
    single = kind.startswith("single_label")
    target = ["--target_fields", *(["label"] if single else LABELS)]
    return [
        "from_csv",
        "--input_field",
        "text",
        *target,
        "--train_file",
        "one.csv" if single else "several.csv",
    ]


@pytest.fixture(scope="module")
def model_of(work: Path) -> Callable[[str], Path]:
    """The file or the folder of a kind of model, made once."""

    def make(kind: str) -> Path:
        if kind in EXPORTS:
            path = work / f"export-{kind}"
            if not path.exists():
                run_here("export", make("kept_head"), "--output", path, *EXPORTS[kind], folder=work)
            return path
        path = work / f"{kind}.pt"
        if not path.exists():
            epochs = ("--trainer.max_epochs", "1")
            run_here(
                "text_classification", *KINDS[kind], *epochs, "--output", path, *source_of(kind), folder=work
            )
        return path

    return make


def expected_of(model: Path) -> np.ndarray:
    """(N, L) probabilities of `TEXTS`, computed here."""
    return Predictor.load(model, precision="32").probabilities(TEXTS)


def tolerance_of(model: Path) -> float:
    """By how much bfloat16, or eight bits in other batches, change a probability of these tiny encoders at most."""
    return 0.1 if "int8" in model.name else 0.02


def check_predict(model: Path, kind: str, work: Path) -> None:
    out = work / f"{kind}-predictions.csv"
    run("predict", model, "--input", "texts.csv", "--output", out, folder=work)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == TEXTS
    found = np.array([[float(row[f"{label}_probability"]) for label in labels_of(model)] for row in rows])
    assert np.allclose(found, expected_of(model), atol=tolerance_of(model))


def check_evaluate(model: Path, kind: str, work: Path) -> None:
    source = source_of(kind)
    words = [source[-1], *source[1:-2]]
    found = json.loads(run("evaluate", model, *words, "--json", folder=work).stdout)
    assert found["rows"] == len((work / source[-1]).read_text().splitlines()) - 1


def check_serve(model: Path, workers: int, served: Callable[..., Any]) -> None:
    requests = pytest.importorskip("requests")
    server = served(model, "--workers", str(workers), "--precision", "32")
    expected, labels = expected_of(model), labels_of(model)
    for text, wanted in zip(TEXTS, expected, strict=True):
        body = {"session": "UUID", "payload": {"inputs": {"data": text}}}  # as Flash's own client sends it
        answer = requests.post(f"{server.url}/predict", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        scores = answer.json()["outputs"] if "outputs" in answer.json() else answer.json()
        assert np.allclose(find_scores(scores, labels), wanted, atol=tolerance_of(model)), scores
    plain = requests.post(f"{server.url}/v1/classify", json={"texts": TEXTS}, timeout=60).json()["results"]
    assert np.allclose(
        [[each["scores"][label] for label in labels] for each in plain], expected, atol=tolerance_of(model)
    )
    assert server.stop() == 0


def find_scores(answer: Any, labels: list[str]) -> list[float]:
    """The probabilities by label, wherever in an answer of Flash's server they are."""
    if isinstance(answer, dict) and set(labels) <= answer.keys():
        return [float(answer[label]) for label in labels]
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    found = [scores for part in parts if (scores := find_scores(part, labels))]
    return found[0] if found else []


def labels_of(model: Path) -> list[str]:
    return list(Predictor.load(model).labels)


def check_export(model: Path, kind: str, work: Path, format: str) -> None:  # noqa: A002
    folder = work / f"{kind}-{format}"
    refusal = refusal_of_export(kind, format)
    done = run("export", model, "--output", folder, *EXPORTS[format], folder=work, code=2 if refusal else 0)
    if refusal:
        assert refusal in done.stderr
        assert not folder.exists()
        return
    found = Predictor.load(folder, precision="32").probabilities(TEXTS)
    assert np.allclose(found, expected_of(model), atol=0.1 if format == "int8" else 1e-3)


def refusal_of_export(kind: str, format: str) -> str:  # noqa: A002
    """A part of the sentence that refuses an export; empty where there is none."""
    if "linear" in kind:
        return "linear"
    return "pooling" if format == "transformers" and kind != "kept_head" else ""


FIT_AGAIN = """
import sys
import flash
from flash.text import TextClassificationData, TextClassifier
model = TextClassifier.load_from_checkpoint(sys.argv[1])
before = model(["a banana", "zebra"])
target = sys.argv[3:] if len(sys.argv) > 4 else sys.argv[3]
data = TextClassificationData.from_csv("text", target, train_file=sys.argv[2], val_split=0.25, labels=model.labels)
trainer = flash.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.fit(model, datamodule=data)
assert model(["a banana", "zebra"]).shape == before.shape
trainer.save_checkpoint(sys.argv[1] + ".again.pt")
"""


def check_fit_again(model: Path, kind: str, work: Path) -> None:
    single = kind.startswith("single_label")
    words = ["one.csv", "label"] if single else ["several.csv", *LABELS]
    run(model, *words, folder=work, program=FIT_AGAIN)
    assert expected_of(Path(f"{model}.again.pt")).shape == (len(TEXTS), len(LABELS))


def check_resume(model: Path, kind: str, work: Path) -> None:
    words: list[str | Path] = [
        *KINDS[kind],
        "--trainer.max_epochs",
        "2",
        "--ckpt_path",
        model,
        "--output",
        work / f"{kind}-on.pt",
    ]
    done = run(
        "text_classification", *words, *source_of(kind), folder=work, code=2 if kind in NO_RESUME else 0
    )
    if kind in NO_RESUME:
        assert all(part in done.stderr for part in NO_RESUME[kind]), done.stderr
    else:
        assert expected_of(work / f"{kind}-on.pt").shape == (len(TEXTS), len(LABELS))


NO_RESUME = {
    "half": [
        "holds the weights alone, as --half true and weights_only=True save them",
        "leave --ckpt_path out to train from the start",
    ],
    "lora": [
        "the checkpoint has no adapters: its fit had ended, and they are a part of its weights",
        "load it with TextClassifier.load_from_checkpoint and finetune that, without --ckpt_path",
    ],
}
"""Kinds of files that a fit cannot go on from, and what is said."""

CHECKS: dict[str, Callable[..., None]] = {
    "predict": check_predict,
    "evaluate": check_evaluate,
    **{f"export_{format}": partial(check_export, format=format) for format in EXPORTS},  # noqa: A001
    "resume": check_resume,
    "fit_again": check_fit_again,
}
SERVED = {"serve_by_one": 1, "serve_by_two": 2}
CELLS = [
    *((kind, verb) for kind in KINDS for verb in (*CHECKS, *SERVED)),
    *((kind, verb) for kind in EXPORTS for verb in ("predict", "evaluate", *SERVED)),
]


@pytest.mark.parametrize(
    ("kind", "verb"),
    [
        pytest.param(*cell, marks=[pytest.mark.matrix, *([pytest.mark.covering] if cell in COVERING else [])])
        for cell in CELLS
    ],
)
def test_a_model_and_a_verb(
    kind: str, verb: str, work: Path, model_of: Callable[[str], Path], served: Callable[..., Any]
) -> None:
    model = model_of(kind)
    if verb in SERVED:
        check_serve(model, SERVED[verb], served)
    else:
        CHECKS[verb](model, kind, work)


def test_a_usual_run_covers_each_kind_and_each_verb() -> None:
    assert set(CELLS) >= COVERING
    assert {kind for kind, _ in COVERING} | {"freeze"} == {*KINDS, *EXPORTS}
    assert {verb for _, verb in COVERING} == {*CHECKS, *SERVED}


MAIN_EXAMPLE = """
import sys
import flash
from flash.text import TextClassificationData, TextClassifier
datamodule = TextClassificationData.from_csv(
    "text", ["fruit", "animal", "tool"], train_file="several.csv", val_split=0.1, batch_size=4
)
model = TextClassifier(backbone=sys.argv[1], labels=datamodule.labels, multi_label=datamodule.multi_label, max_length=16)
trainer = flash.Trainer(max_epochs=1, accelerator="cpu")
trainer.finetune(model, datamodule=datamodule, strategy="freeze")
datamodule = TextClassificationData.from_lists(predict_data=["a banana", "a zebra", "nothing"], batch_size=4)
print(trainer.predict(model, datamodule=datamodule, output="labels"))
trainer.save_checkpoint("text_classification_multi_label_model.pt")
"""


def test_the_main_example_from_training_to_an_answer(work: Path, served: Callable[..., Any]) -> None:
    run("bert", folder=work, program=MAIN_EXAMPLE)
    check_serve(work / "text_classification_multi_label_model.pt", 1, served)
