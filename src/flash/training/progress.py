"""The trainer's progress bar in rows, with rows per second and the remaining time.

Imports Lightning, and nothing of the project.
"""

import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class RowsBar(Tqdm):
    """tqdm's bar, which converts batches to rows.

    Attributes:
        rows_a_batch: mean rows per batch; None to count batches.
    """

    rows_a_batch: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values of the bar, in rows."""
        found: dict[str, Any] = super().format_dict
        rows = self.rows_a_batch
        if rows is None:
            return found
        scaled = {key: round(found[key] * rows) for key in ("n", "initial", "total") if found.get(key)}
        rate = {"rate": found["rate"] * rows} if found.get("rate") else {}
        return {**found, **scaled, **rate, "unit": " rows"}


class RowsProgressBar(TQDMProgressBar):
    """Lightning's tqdm progress bar, in rows if the loader has a data set, else in batches.

    Rows are those of all processes. Each batch counts as the mean batch of its epoch, since batches of windows differ.
    """

    def init_sanity_tqdm(self) -> Tqdm:
        """The bar of the sanity check; its loader is set later."""
        return self._bar(self.sanity_check_description, None, leave=False)

    def init_train_tqdm(self) -> Tqdm:
        """The bar of training; its loader is set with each epoch."""
        return self._bar(self.train_description, None, leave=True)

    def init_validation_tqdm(self) -> Tqdm:
        """The bar of a validation, below that of training if there is one."""
        alone = self.trainer.state.fn == "validate"
        return self._bar(self.validation_description, None, leave=alone, below=not alone)

    def init_test_tqdm(self) -> Tqdm:
        """The bar of a test."""
        return self._bar("Testing", self.trainer.test_dataloaders, leave=True)

    def init_predict_tqdm(self) -> Tqdm:
        """The bar of a prediction."""
        return self._bar(self.predict_description, self.trainer.predict_dataloaders, leave=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        """Read the number of rows of the epoch."""
        bar: Any = self.train_progress_bar
        bar.rows_a_batch = mean_rows(trainer.train_dataloader)
        super().on_train_epoch_start(trainer, *rest)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the number of rows, also for the sanity check."""
        super().on_validation_start(trainer, pl_module)
        bar: Any = self.val_progress_bar
        bar.rows_a_batch = mean_rows(trainer.val_dataloaders)

    def _bar(self, description: str, loaders: Any, *, leave: bool, below: bool = False) -> RowsBar:
        bar = RowsBar(
            desc=description,
            position=2 * self.process_position + below,
            disable=self.is_disabled,
            leave=leave,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )
        bar.rows_a_batch = mean_rows(loaders)
        return bar


def is_watched() -> bool:
    """Whether standard output is a terminal or a notebook, where a bar can be redrawn."""
    return "ipykernel" in sys.modules or bool(sys.stdout and sys.stdout.isatty())


def mean_rows(loaders: Any) -> float | None:
    """Mean rows per batch of a loader; None if unknown, or if there are several loaders."""
    loader = loaders[0] if isinstance(loaders, list) and len(loaders) == 1 else loaders
    try:
        return len(loader.dataset) / len(loader)
    except (AttributeError, TypeError, ZeroDivisionError):  # no data set, no length, or no batch
        return None
