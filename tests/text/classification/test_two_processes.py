"""Two processes on the CPU, over gloo: the same classifier and the same numbers as one with batches twice as large."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

SCRIPT = """
import json
import sys

import torch

import flash
from flash.text import TextClassificationData, TextClassifier

folder, devices = sys.argv[1], int(sys.argv[2])
words = ["banana", "zebra", "hammer"]
texts = [f"row {i} tells of {words[i % 3]} and {words[i % 5 % 3]} " * (1 + i % 4) for i in range(62)]
targets = [sorted({words[i % 3], words[i % 5 % 3]}) for i in range(62)]
found = {}
for strategy, long_text in (("no_freeze", "truncate"), ("freeze", "window")):
    data = TextClassificationData.from_lists(
        train_data=texts[:43], train_targets=targets[:43], val_data=texts[43:], val_targets=targets[43:],
        batch_size=8 // devices,
    )
    torch.manual_seed(0)
    model = TextClassifier(
        backbone=folder, labels=data.labels, multi_label=True, max_length=12, learning_rate=3e-3, dropout=0.0,
        long_text=long_text,
    )
    trainer = flash.Trainer(
        max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
    )
    trainer.finetune(model, datamodule=data, strategy=strategy)
    weights = [parameter.detach().double().sum().item() for parameter in model.backbone.parameters()]
    found[strategy] = {"weights": weights, "steps": trainer.global_step, "rows": model.evaluation.rows}
    found[strategy]["scores"] = {name: float(value) for name, value in model.evaluation.scalars("val").items()}
with open(f"{devices}-{trainer.global_rank}.json", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bert: Callable[..., Path]) -> Path:
    """A tiny random BERT without dropout."""
    return make_bert(
        tmp_path_factory.mktemp("encoder"), 16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def test_the_same_as_one(folder: Path, forked: Any, forked_ranks: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    alone = forked("script.py", folder, "1", folder=tmp_path)
    ranks = forked_ranks("script.py", folder, "2", folder=tmp_path)
    for done, reports in zip((alone, *ranks), (2, 2, 0), strict=True):  # a fit, and by one process alone
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Validation: 19 rows, 3 labels") == reports
    one, two, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert two == other  # both processes hold the same
    for strategy in ("no_freeze", "freeze"):
        alone, shared = one[strategy], two[strategy]
        assert shared["steps"] == alone["steps"] > 2
        assert shared["weights"] == pytest.approx(alone["weights"], rel=1e-3, abs=1e-3)
        assert shared["rows"] == alone["rows"] == 19
        assert len(alone["scores"]) > 20
        assert shared["scores"] == pytest.approx(alone["scores"], abs=1e-3, nan_ok=True)
