"""Scripts in the shape of Lightning Flash's examples, run as processes; only their downloads are replaced by small files."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.csv
import pytest
import torch

from flash.__main__ import main
from flash.text.classification.sample import LABELS, sample_table

REVIEWS = "".join(
    f"a film of {row} {'banana' if row % 2 else 'hammer'} things,{'positive' if row % 2 else 'negative'}\n"
    for row in range(40)
)
HEAD = "import torch\nimport flash\nfrom flash.text import TextClassificationData, TextClassifier\n"


@pytest.fixture
def run(tmp_path: Path, forked: Callable[..., "subprocess.CompletedProcess[str]"]) -> Callable[..., str]:
    """Runs a script in a folder with reviews and comments; returns what it printed."""
    for name in ("train", "valid", "predict"):
        (tmp_path / "data" / "imdb").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "imdb" / f"{name}.csv").write_text(f"review,sentiment\n{REVIEWS}")
    (tmp_path / "data" / "jigsaw_toxic_comments").mkdir(parents=True)
    pyarrow.csv.write_csv(sample_table(300), tmp_path / "data" / "jigsaw_toxic_comments" / "train.csv")

    def run_script(script: str, code: int = 0) -> str:
        (tmp_path / "script.py").write_text(script)
        done = forked("script.py", folder=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run_script


def test_a_script_of_0_6_for_reviews(run: Callable[..., str], folder: Path) -> None:
    """num_classes=, gpus=, an encoder, the model's own output object, a script's options, and the file afterwards."""
    out = run(f"""{HEAD}
from argparse import ArgumentParser
from flash.core.classification import Labels, ProbabilitiesOutput
parser = flash.Trainer.add_argparse_args(ArgumentParser())
options = parser.parse_args(["--max_epochs", "1", "--gpus", str(torch.cuda.device_count())])
datamodule = TextClassificationData.from_csv(
    "review", "sentiment", train_file="data/imdb/train.csv", val_file="data/imdb/valid.csv", batch_size=4,
    predict_transform=None, backbone={str(folder)!r}, pin_memory=False)
model = TextClassifier(backbone={str(folder)!r}, num_classes=datamodule.num_classes, enable_ort=False, max_length=40)
trainer = flash.Trainer.from_argparse_args(options, enable_progress_bar=False)
trainer.finetune(model, datamodule, strategy="freeze", train_bn=True)
texts = TextClassificationData.from_lists(predict_data=["a hammer", "a banana", "of things"], batch_size=4)
model.serializer = Labels()
print("RESULT", trainer.predict(model, datamodule=texts))
model.output = ProbabilitiesOutput()
import json
print("RESULT", json.dumps(trainer.predict(model, datamodule=texts)))
print("RESULT", trainer.predict(model, texts, "preds")[0].dtype)
trainer.save_checkpoint("model.pt")
print("RESULT", TextClassifier.load_from_checkpoint("model.pt").labels)
""")
    labels, probabilities, dtype, kept = [line[7:] for line in out.splitlines() if line.startswith("RESULT ")]
    assert labels.count("tive'") == 3
    [batch] = json.loads(probabilities)
    assert [len(row) for row in batch] == [2, 2, 2]
    assert [round(sum(row), 3) for row in batch] == [1, 1, 1]
    assert dtype == str(torch.float32)
    assert kept == "['negative', 'positive']"


def test_a_script_of_0_8_for_comments(run: Callable[..., str]) -> None:
    """fit with a positional datamodule; metrics as functions; callbacks by Flash's names; raw texts."""
    out = run(f"""{HEAD}
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
datamodule = TextClassificationData.from_csv(
    "comment_text", {list(LABELS)!r}, train_file="data/jigsaw_toxic_comments/train.csv", val_split=0.2, batch_size=4)
datamodule.show_train_batch(limit_nb_samples=2)
def share(preds, target):
    assert isinstance(preds, torch.Tensor) and preds.shape == target.shape and set(target.unique().tolist()) <= {{0, 1}}
    return ((preds > 0.5) == target.bool()).float().mean()
model = TextClassifier(num_classes=datamodule.num_classes, multi_label=datamodule.multi_label,
                       metrics={{"share": share}}, loss_fn={{"bce": torch.nn.functional.binary_cross_entropy_with_logits}})
trainer = flash.Trainer(max_epochs=1, enable_progress_bar=False, callbacks=[
    EarlyStopping("val_f1score", mode="max"), EarlyStopping("val_bce"), EarlyStopping("val_share", mode="max"),
    ModelCheckpoint(monitor="val_accuracy", mode="max", filename="best-{{val_f1score:.2f}}")])
trainer.fit(model, datamodule)
print("RESULT", model.labels == datamodule.labels, sorted(set(trainer.callback_metrics) & {{
    "val_f1score", "val_accuracy", "val_bce", "val_share"}}))
print("RESULT", trainer.predict(model, ["You are an idiot", "Thank you"], output="labels"))
print("RESULT", "f1score" in open("lightning_logs/version_0/metrics.csv").readline())
trainer.save_checkpoint("model.pt")
""")
    first, second, third = [line[7:] for line in out.splitlines() if line.startswith("RESULT ")]
    assert first == "True ['val_accuracy', 'val_bce', 'val_f1score', 'val_share']"
    assert second.startswith("[[[")
    assert third == "False"  # loggers have our names alone
    assert out.count("  -> ") == 2


def test_a_script_for_label_studio(run: Callable[..., str], tmp_path: Path) -> None:
    """Without multi_label, the model is of the datamodule's kind; its last step says what to type."""
    tasks = [
        {
            "id": row,
            "data": {"text": f"a film of {word} {row}"},
            "annotations": [
                {
                    "result": [
                        {
                            "from_name": "kind",
                            "to_name": "text",
                            "type": "choices",
                            "value": {"choices": [label]},
                        }
                    ]
                }
            ],
        }
        for row in range(30)
        for word, label in [("joy", "good") if row % 2 else ("gloom", "bad")]
    ]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    said = run(
        f"""{HEAD}
from flash.core.integrations.labelstudio.visualizer import launch_app
datamodule = TextClassificationData.from_labelstudio(export_json="project.json", val_split=0.2, backbone="x")
model = TextClassifier(num_classes=datamodule.num_classes)
trainer = flash.Trainer(max_epochs=3, enable_progress_bar=False)
trainer.finetune(model, datamodule=datamodule, strategy="freeze")
texts = TextClassificationData.from_lists(predict_data=["gloom", "joy"])
predictions = trainer.predict(model, datamodule=texts)
assert predictions[0].shape == (2, 2) and model.labels == ["bad", "good"]
trainer.save_checkpoint("text_classification_model.pt")
app = launch_app(datamodule)
""",
        code=1,
    )
    assert (tmp_path / "text_classification_model.pt").is_file()
    assert "type: flash predict text_classification_model.pt --input texts.csv" in said


def test_the_command_takes_gpus_and_names_what_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(["text_classification", *words]) == 2
        return capsys.readouterr().err

    if not torch.cuda.is_available():
        assert "gpu" in said("--trainer.gpus", "1", "from_sample", "--rows", "50").lower()
    assert "type: flash text_classification from_csv --input_field review" in said("from_imdb")
    gone = said("--trainer.progress_bar_refresh_rate", "0", "from_sample")
    assert "--trainer.progress_bar_refresh_rate is no option of today's trainer" in gone
