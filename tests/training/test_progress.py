"""The trainer's bar in rows, by what it writes to the screen."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from flash import Trainer
from flash.training.progress import RowsBar, RowsProgressBar, mean_rows


class Small(pl.LightningModule):
    """One weight, for rows of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = (self.weight * batch[0]).mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing."""

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        found: torch.Tensor = self.weight * batch[0]
        return found

    @contextmanager
    def predicting(self, *_: Any) -> Iterator[None]:
        """As a classifier's."""
        yield

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Batches:
    """Three batches, and no word of how many rows."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        return iter([[torch.ones(4)], [torch.ones(2)], [torch.ones(1)]])


def rows(count: int, batch_size: int = 4) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(count).float()), batch_size=batch_size)


def make_trainer(folder: Path) -> Trainer:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": True}
    return Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **off)


def ends(screen: str, description: str) -> set[str]:
    """What stood behind a bar at its end: how many of how many, and the unit of its speed."""
    found = re.findall(
        rf"{description}[^|\r]*100%\|[^|]*\| (\d+/\d+) \[[\d:]+<[\d:]+, *[\d.]+( \w+|it)/s", screen
    )
    return {f"{counts}{unit}" for counts, unit in found}


def test_every_bar_counts_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, trainer = Small(), make_trainer(tmp_path)
    trainer.fit(model, rows(10), rows(7))
    screen = capsys.readouterr().out
    assert ends(screen, "Sanity Checking") == {"7/7 rows"}
    assert ends(screen, "Epoch 0") == {"10/10 rows"}
    assert ends(screen, "Validation") == {"7/7 rows"}
    trainer.validate(model, rows(9))
    assert ends(capsys.readouterr().out, "Validation") == {"9/9 rows"}
    trainer.test(model, rows(6))
    assert ends(capsys.readouterr().out, "Testing") == {"6/6 rows"}
    trainer.predict(model, rows(5))
    assert ends(capsys.readouterr().out, "Predicting") == {"5/5 rows"}


def test_a_bar_of_what_has_no_rows_counts_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path).fit(Small(), Batches())
    assert ends(capsys.readouterr().out, "Epoch 0") == {"3/3it"}


def test_the_mean_of_a_batch() -> None:
    assert mean_rows(rows(10)) == mean_rows([rows(10)]) == 10 / 3
    assert mean_rows([rows(10), rows(3)]) is None
    assert mean_rows(rows(0)) is None
    assert mean_rows([1, 2]) is None
    assert mean_rows(None) is None


def test_speed_and_time_left_follow_from_rows() -> None:
    bar = RowsBar(total=10, file=io.StringIO(), bar_format=RowsProgressBar.BAR_FORMAT)
    bar.rows_a_batch, bar.n = 4.0, 5
    found = bar.format_dict
    shown = RowsBar.format_meter(**{**found, "elapsed": 2.0, "ncols": None})
    assert "20/40 [00:02<00:02, 10.00 rows/s" in shown
    bar.close()


def test_a_users_own_bar_stays(tmp_path: Path) -> None:
    own = pl.callbacks.TQDMProgressBar()
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=[own])
    assert trainer.progress_bar_callback is own
    assert isinstance(make_trainer(tmp_path).progress_bar_callback, RowsProgressBar)
