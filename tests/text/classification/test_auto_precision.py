"""`Trainer(precision="auto")` on a processor: what it trains in, what the files record, and what a resumed run takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flash
from flash.core import precision
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import checkpoint

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")


@pytest.fixture
def speedup(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes every measurement find that number."""

    def found(value: float) -> None:
        monkeypatch.setattr(precision, "measured_speedup", lambda matrices: value)

    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bert: Callable[..., Path]) -> Path:
    """A tiny random BERT."""
    return make_bert(tmp_path_factory.mktemp("encoder"), 16)


def data() -> TextClassificationData:
    words = ["banana", "zebra", "hammer", "zebra banana"]
    return TextClassificationData.from_lists(
        train_data=[f"{word} {i}" for i in range(4) for word in words],
        train_targets=[word.split() for _ in range(4) for word in words],
        batch_size=8,
    )


def fit(folder: Path | str, where: Path, **options: Any) -> tuple[flash.Trainer, TextClassifier]:
    datamodule = data()
    model = TextClassifier(backbone=str(folder), labels=datamodule.labels, multi_label=True, max_length=8)
    trainer = flash.Trainer(
        max_epochs=options.pop("max_epochs", 1),
        accelerator="cpu",
        precision="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=where,
    )
    trainer.fit(model, datamodule=datamodule, **options)
    return trainer, model


@pytest.mark.parametrize(("found", "expected"), [(1.8, "bf16-mixed"), (0.6, "32-true")])
def test_the_faster_one_trains_and_is_recorded(
    found: float,
    expected: str,
    folder: Path,
    tmp_path: Path,
    speedup: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    speedup(found)
    with caplog.at_level("INFO"):
        trainer, _ = fit(folder, tmp_path)
    assert trainer.precision == expected
    assert f"precision='{expected}', as bfloat16 is {found:.2f} times as fast as float32 here" in caplog.text
    trainer.save_checkpoint(tmp_path / "model.pt")
    assert checkpoint.load(tmp_path / "model.pt")["flash"]["precision"] == expected
    again = TextClassifier.load_from_checkpoint(tmp_path / "model.pt")
    content: dict[str, Any] = {"state_dict": again.state_dict()}
    again.on_save_checkpoint(content)
    assert content["flash"]["precision"] == expected


def test_it_trains_as_the_named_precision_does(
    folder: Path, tmp_path: Path, speedup: Callable[[float], None]
) -> None:
    speedup(2.0)
    states = []
    for name in ("auto", "bf16-mixed", "32-true"):
        torch.manual_seed(0)
        datamodule = data()
        model = TextClassifier(backbone=str(folder), labels=datamodule.labels, multi_label=True, max_length=8)
        trainer = flash.Trainer(
            max_epochs=1,
            accelerator="cpu",
            precision=name,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(model, datamodule=datamodule)
        states.append(torch.cat([weight.detach().flatten() for weight in model.backbone.parameters()]))
    auto, half, single = states
    assert torch.equal(auto, half)
    assert not torch.equal(auto, single)


def test_a_resumed_run_goes_on_in_its_precision(
    folder: Path, tmp_path: Path, speedup: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    speedup(2.0)
    trainer, _ = fit(folder, tmp_path)
    trainer.save_checkpoint(tmp_path / "model.pt")
    speedup(0.5)
    with caplog.at_level("INFO"):
        trainer, _ = fit(folder, tmp_path, max_epochs=2, ckpt_path=tmp_path / "model.pt")
    assert trainer.precision == "bf16-mixed"
    assert "precision='bf16-mixed', as the run that is resumed has it." in caplog.text


def test_the_linear_backbone_computes_as_it_always_does(
    tmp_path: Path, speedup: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    speedup(2.0)
    with caplog.at_level("INFO"):
        trainer, _ = fit("linear", tmp_path)
    assert trainer.precision == "32-true"
    assert "precision=" not in caplog.text
    trainer.save_checkpoint(tmp_path / "model.pt")
    assert "precision" not in checkpoint.load(tmp_path / "model.pt")["flash"]


SCRIPT = """
import os
import sys

import flash
from flash.core import precision
from flash.text import TextClassificationData, TextClassifier

rank = int(os.environ.get("LOCAL_RANK", 0))
precision.measured_speedup = lambda matrices: [2.0, 0.5][rank]
data = TextClassificationData.from_lists(
    train_data=["banana", "zebra", "banana zebra", "hammer"] * 4,
    train_targets=[["a"], ["b"], ["a", "b"], []] * 4,
    batch_size=4,
)
model = TextClassifier(backbone=sys.argv[1], labels=data.labels, multi_label=True, max_length=8)
trainer = flash.Trainer(
    max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", precision="auto", logger=False,
    enable_checkpointing=False, enable_progress_bar=False,
)
trainer.fit(model, datamodule=data)
with open(f"{trainer.global_rank}.txt", "w") as file:
    file.write(trainer.precision)
"""


def test_the_first_process_decides_for_all(folder: Path, forked_ranks: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for done in forked_ranks("script.py", folder, folder=tmp_path):
        assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["bf16-mixed"] * 2
