"""Two processes over gloo that are stopped: both say why, nothing is lost, and all rows are measured once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

SCRIPT = """
import json
import os
import sys
import warnings

import lightning.pytorch as pl
import torch

import flash
from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier

folder, rank = sys.argv[1], int(os.environ.get("LOCAL_RANK", 0))
words = ["banana", "zebra", "hammer"]
texts = [f"row {i} tells of {words[i % 3]} and {words[i % 5 % 3]} " * (1 + i % 4) for i in range(62)]
targets = [sorted({words[i % 3], words[i % 5 % 3]}) for i in range(62)]
warnings.filterwarnings("ignore")


class BeforeValidation(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 12:  # the last
            trainer.save_checkpoint("before_validation.ckpt")


def loss_until(batch):
    calls = 0

    def loss(logits, targets):
        nonlocal calls
        calls += logits.requires_grad
        broken = calls > batch and rank == 1  # in the other process alone
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets) * (float("nan") if broken else 1)

    return loss


def fit(batches=1000, ckpt_path=None):
    data = TextClassificationData.from_lists(
        train_data=texts[:43], train_targets=targets[:43], val_data=texts[43:], val_targets=targets[43:], batch_size=4
    )
    torch.manual_seed(0)
    model = TextClassifier(
        backbone=folder, labels=data.labels, multi_label=True, max_length=12, learning_rate=3e-3,
        loss_fn=loss_until(batches),
    )
    trainer = flash.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False,
        callbacks=[BeforeValidation(), pl.callbacks.ModelCheckpoint("saved", every_n_epochs=9)], num_sanity_val_steps=0,
    )
    sentence = ""
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    except FlashError as error:
        sentence = str(error)
    measured = model.evaluation
    return {
        "sentence": sentence,
        "steps": trainer.global_step,
        "weights": [parameter.detach().double().sum().item() for parameter in model.backbone.parameters()],
        "rows": measured and measured.rows,
        "scores": measured and {name: float(value) for name, value in measured.scalars("val").items()},
    }


found = {"whole": fit(), "stopped": fit(8), "resumed": fit(ckpt_path="last-good.pt")}
found["measured"] = fit(ckpt_path="before_validation.ckpt")
with open(f"{rank}.json", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bert: Callable[..., Path]) -> Path:
    """A tiny random BERT."""
    return make_bert(tmp_path_factory.mktemp("encoder"), 16)


@pytest.mark.matrix
def test_both_stop_and_go_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", str(folder)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["whole"]["steps"] == 12
    for found in (one["stopped"], other["stopped"]):
        assert (
            "at step 8; pass a smaller learning_rate=" in found["sentence"]
            or "at step 8, though" in found["sentence"]
        )
        assert found["steps"] == 8
    assert "what was learnt before is in" in one["stopped"]["sentence"]
    assert "last-good.pt" in one["stopped"]["sentence"]
    assert [path.name for path in tmp_path.glob("last-good*")] == ["last-good.pt"]
    for name in ("resumed", "measured"):
        assert one[name]["sentence"] == ""
        assert one[name] == other[name]
        assert one[name]["weights"] == one["whole"]["weights"]
        assert one[name]["rows"] == 19
        assert one[name]["scores"] == pytest.approx(one["whole"]["scores"], abs=1e-6, nan_ok=True)
