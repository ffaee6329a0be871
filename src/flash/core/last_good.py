"""What a fit that is stopped leaves behind: the name of the last checkpoint or, where none was written, a checkpoint.

The step that failed was not taken, so the weights at hand are those of the step before. Imports Lightning, and
nothing of the project but errors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from flash.core.errors import FlashError

FILE = "last-good"


@contextmanager
def keeping_last_good(trainer: pl.Trainer) -> Iterator[None]:
    """Whatever stops the fit inside, say where that is which it has learnt.

    A mistake's sentence goes on with it; of any other error, Ctrl-C included, it is logged, and the error raised. A
    checkpoint is written only by a trainer that writes checkpoints (`enable_checkpointing`) and has one device.
    """
    keeper = LastGood()
    listed: Any = trainer  # whose list of callbacks is no part of its type
    listed.callbacks.append(keeper)
    try:
        yield
    except FlashError as error:
        if keeper.sentence:
            error.args = (f"{error}; {keeper.sentence}",)
        raise
    except BaseException:
        if keeper.sentence:
            rank_zero_info(f"{keeper.sentence[0].upper()}{keeper.sentence[1:]}.")
        raise
    finally:
        listed.callbacks[:] = [callback for callback in listed.callbacks if callback is not keeper]


class LastGood(pl.Callback):
    """Finds or writes the checkpoint as the fit is stopped, before Lightning takes the model from the trainer.

    Attributes:
        sentence: where it is; empty where nothing was learnt, or where the trainer writes no checkpoints.
    """

    def __init__(self) -> None:
        self.sentence = ""
        self._first_step: int | None = None
        self._earlier: dict[str, int] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember what there was before."""
        self._first_step, self._earlier = trainer.global_step, _checkpoints(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Find this fit's last checkpoint, or write one."""
        if self._first_step is None:
            return
        written = {
            path: time for path, time in _checkpoints(trainer).items() if self._earlier.get(path) != time
        }
        if written:
            self.sentence = _where(max(written, key=lambda path: written[path]))
        elif (
            trainer.global_step > self._first_step
            and trainer.checkpoint_callbacks
            and trainer.world_size == 1
        ):
            self.sentence = _write(trainer, pl_module)


def _checkpoints(trainer: pl.Trainer) -> dict[str, int]:
    """The files that Lightning's callbacks know of and that exist, with the nanosecond of their writing."""
    known = chain.from_iterable(
        (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
        for callback in trainer.checkpoint_callbacks
    )
    return {path: Path(path).stat().st_mtime_ns for path in known if path and Path(path).is_file()}


def _write(trainer: pl.Trainer, model: pl.LightningModule) -> str:
    """Keep the weights, unless they are broken; never raises, as another error is on its way."""
    try:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
            return "no checkpoint was written before, and some weights are no longer numbers"
        path = _free_path(trainer.default_root_dir)
        trainer.save_checkpoint(path)
    except Exception as error:
        return f"what was learnt before could not be kept: {str(error).partition(chr(10))[0]}"
    return _where(path)


def _where(path: str) -> str:
    return (
        f"what was learnt before is in {path}: go on from it with ckpt_path={path!r}, or use it by "
        "TextClassifier.load_from_checkpoint"
    )


def _free_path(folder: str) -> str:
    """A name that no other stopped fit has taken; in a folder elsewhere, such as `s3://`, always the same."""
    if "://" in folder:
        return f"{folder.rstrip('/')}/{FILE}.pt"
    names = chain([FILE], (f"{FILE}-v{number}" for number in count(1)))  # as Lightning counts versions
    return next(str(path) for name in names if not (path := Path(folder) / f"{name}.pt").exists())
