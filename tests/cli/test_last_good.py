"""A training by the command that is stopped: nothing of it is lost, and it is gone on from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flash.__main__ import main
from flash.cli.training import last_good_file
from flash.core.errors import FlashError
from flash.text.classification import checkpoint, losses
from flash.text.classification.predictor import Predictor
from flash.training.last_good import LastGood
from flash.training.trainer import CheckpointIO

MODEL, KEPT = Path("text_classification_model.pt"), Path("text_classification_model.last-good.pt")
SOURCE = [
    "from_csv",
    "--input_field",
    "text",
    "--target_fields",
    "animal",
    "fruit",
    "--train_file",
    "texts.csv",
]
STEPS = 3  # of an epoch: 54 rows of 60, 20 a batch


@pytest.fixture(autouse=True)
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a file of texts, in which nothing is left behind after the test."""
    monkeypatch.chdir(tmp_path)
    rows = [
        f"a {'zebra ' * (row % 2)}{'banana' * (row % 3 == 0)},{row % 2},{int(row % 3 == 0)}\n"
        for row in range(60)
    ]
    Path("texts.csv").write_text("text,animal,fruit\n" + "".join(rows))
    yield
    assert set(tmp_path.iterdir()) <= {
        tmp_path / name for name in ("texts.csv", str(MODEL), "whole.pt")
    } | set(tmp_path.glob("*.yaml"))


@pytest.fixture
def train(encoder: Path) -> Any:
    """Runs the command on an encoder for three epochs."""

    def run(*words: str) -> int:
        torch.manual_seed(1)
        options = [
            "--model.backbone",
            str(encoder),
            "--model.max_length",
            "12",
            "--model.learning_rate",
            "0.01",
        ]
        options += ["--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"]
        return main(["text_classification", *options, *words, *SOURCE, "--batch_size", "20"])

    return run


def breaking(after: int) -> Any:
    """The usual loss, which is no number after some batches; validation does not count."""
    calls = 0

    def loss(logits: torch.Tensor, targets: torch.Tensor, **numbers: Any) -> torch.Tensor:
        nonlocal calls
        calls += logits.requires_grad
        return losses.binary_cross_entropy(logits, targets) * (float("nan") if calls > after else 1.0)

    return loss


def test_what_a_broken_training_has_learnt_is_kept_and_gone_on_from(
    train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--output", "whole.pt") == 0
    assert not list(Path().glob("*last-good*"))  # though it was there between the epochs
    with monkeypatch.context() as patch:
        patch.setitem(losses.LOSSES, "binary_cross_entropy", breaking(2 * STEPS + 1))
        assert train() == 2
    sentence = " ".join(capsys.readouterr().err.split())
    assert "flash: error: the loss is nan at step 7; " in sentence
    assert (
        f"what was learnt before is in {KEPT}: to go on from it, type the same with --ckpt_path {KEPT} "
        in sentence
    )
    assert "before from_csv; flash predict takes it as it is" in sentence
    assert not MODEL.exists()
    assert checkpoint.load(KEPT)["global_step"] == 7
    assert (
        main(["predict", str(KEPT), "--input", "texts.csv", "--input_field", "text", "--output", "out.csv"])
        == 0
    )
    Path("out.csv").unlink()
    assert train("--ckpt_path", str(KEPT)) == 0
    assert not KEPT.exists()
    whole, resumed = Predictor.load("whole.pt"), Predictor.load(MODEL)
    texts = ["a zebra", "banana a", "a"]
    assert np.array_equal(whole.logits(texts), resumed.logits(texts))
    assert np.array_equal(whole.thresholds, resumed.thresholds)
    assert "ckpt_path" not in MODEL.with_suffix(".yaml").read_text()


def test_a_training_that_is_killed_costs_an_epoch_at_most(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--output", "whole.pt") == 0
    with monkeypatch.context() as patch:
        patch.setattr(LastGood, "on_exception", lambda *_: None)  # as no time is left for last words
        patch.setitem(losses.LOSSES, "binary_cross_entropy", breaking(2 * STEPS + 1))
        assert train() == 2
    assert checkpoint.load(KEPT)["global_step"] == 2 * STEPS
    assert train("--ckpt_path", str(KEPT)) == 0
    texts = ["a zebra", "banana a", "a"]
    assert np.array_equal(Predictor.load("whole.pt").logits(texts), Predictor.load(MODEL).logits(texts))


def test_another_training_does_not_replace_what_was_kept(
    train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    KEPT.write_bytes(b"of yesterday")
    with monkeypatch.context() as patch:
        patch.setitem(losses.LOSSES, "binary_cross_entropy", breaking(1))
        assert train() == 2
    second = KEPT.with_name("text_classification_model.last-good-v1.pt")
    errors = capsys.readouterr().err
    assert f"note: {KEPT} is of a training that was stopped; --ckpt_path {KEPT} goes on from it" in errors
    assert f"is in {second}: " in errors
    assert KEPT.read_bytes() == b"of yesterday"
    assert train("--ckpt_path", str(second)) == 0
    assert not second.exists()
    assert KEPT.read_bytes() == b"of yesterday"
    KEPT.unlink()


def test_a_checkpoint_that_is_not_there(train: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--ckpt_path", "nothing.pt") == 2
    assert capsys.readouterr().err == (
        "flash: error: --ckpt_path nothing.pt is no file; leave it out to train from the start\n"
    )


@pytest.mark.filterwarnings("default:what was learnt before could not be kept:UserWarning")
def test_a_full_disk_after_an_epoch_does_not_stop_the_training(
    train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = CheckpointIO.save_checkpoint

    def refuse(self: CheckpointIO, content: Any, path: Any, storage_options: Any = None) -> None:
        if Path(path) == KEPT:
            raise FlashError("no room is left")
        write(self, content, path, storage_options)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointIO, "save_checkpoint", refuse)
        assert train() == 0
    assert (
        "flash: warning: what was learnt before could not be kept: no room is left" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("output", "kept"),
    [("a.pt", "a.last-good.pt"), ("a.v1", "a.v1.last-good.pt"), ("x/a.b.ckpt", "x/a.b.last-good.pt")],
)
def test_where_it_is_kept(output: str, kept: str) -> None:
    assert last_good_file(output, None, "from_csv").path == Path(kept)
    Path("texts.csv").touch()
    assert last_good_file(output, "texts.csv", "from_csv").path == Path(kept)  # which is no file of its own
