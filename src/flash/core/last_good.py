"""What a fit that is stopped leaves behind: the name of the last checkpoint or, where none was written, a checkpoint.

The step that failed was not taken, so the weights at hand are those of the step before. Imports Lightning, and
nothing of the project but errors.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_info

from flash.core.errors import FlashError

FILE = "last-good"


@dataclass(frozen=True)
class KeptFile:
    """Where a fit is kept after each epoch, and when it is stopped; who asks for it removes it after a fit that ended.

    Attributes:
        path: the file, which is replaced.
        advice: what to do with it, as the end of a sentence.
    """

    path: Path
    advice: str


@contextmanager
def keeping_last_good(trainer: pl.Trainer) -> Iterator[None]:
    """Whatever stops the fit inside, say where that is which it has learnt.

    A mistake's sentence goes on with it; of any other error, Ctrl-C included, it is logged, and the error raised. A
    checkpoint is written by a trainer that writes checkpoints (`enable_checkpointing`) or has a `kept_file`, if its
    first process has all of the weights: on one device, or with `strategy="ddp"`.
    """
    keeper = LastGood(getattr(trainer, "kept_file", None))
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

    Args:
        file: where to write it, also after each epoch; None for a free name, if the trainer writes checkpoints.

    Attributes:
        sentence: where it is; empty where nothing was learnt, or where the trainer writes no checkpoints.
    """

    def __init__(self, file: KeptFile | None = None) -> None:
        self.file, self.sentence = file, ""
        self._first_step: int | None = None
        self._earlier: dict[str, int] = {}
        self._after_an_epoch = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember what there was before."""
        self._first_step, self._earlier = trainer.global_step, _checkpoints(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what even an error that leaves no time to write would cost, but for the last epoch."""
        if self.file is None or trainer.current_epoch + 1 == trainer.max_epochs or not _has_all(trainer):
            return
        problem = _write(trainer, pl_module, self.file.path)
        if problem:
            warnings.warn(problem, UserWarning, stacklevel=1)
        self._after_an_epoch = not problem or self._after_an_epoch

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Find this fit's last checkpoint, or write one."""
        if self._first_step is None:
            return
        written = {
            path: time for path, time in _checkpoints(trainer).items() if self._earlier.get(path) != time
        }
        taken = trainer.global_step > self._first_step and _has_all(trainer)
        if self.file is not None and taken:
            problem = _write(trainer, pl_module, self.file.path)
            known = not problem or self._after_an_epoch
            self.sentence = _where(self.file.path, self.file.advice) if known else problem
        elif written:
            self.sentence = _where(max(written, key=lambda path: written[path]))
        elif taken and trainer.checkpoint_callbacks:
            path = _free_path(trainer.default_root_dir)
            self.sentence = _write(trainer, pl_module, path) or _where(path)


def _checkpoints(trainer: pl.Trainer) -> dict[str, int]:
    """The files that Lightning's callbacks know of and that exist, with the nanosecond of their writing."""
    known = chain.from_iterable(
        (getattr(callback, "last_model_path", ""), getattr(callback, "best_model_path", ""))
        for callback in trainer.checkpoint_callbacks
    )
    return {path: Path(path).stat().st_mtime_ns for path in known if path and Path(path).is_file()}


def _has_all(trainer: pl.Trainer) -> bool:
    """Whether this process has the whole model and is the one that writes; the others need not wait for it."""
    alone = trainer.world_size == 1 or type(trainer.strategy) is DDPStrategy
    shared = any(hasattr(optimizer, "consolidate_state_dict") for optimizer in trainer.optimizers)
    return alone and not shared and trainer.is_global_zero


def _write(trainer: pl.Trainer, model: pl.LightningModule, path: str | Path) -> str:
    """Keep the weights, unless they are broken; returns why not. Never raises, as another error may be on its way."""
    try:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
            return "what was learnt before could not be kept: some weights are no longer numbers"
        # not `trainer.save_checkpoint`, which waits for the other processes: they may have stopped, or not
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        trainer.strategy.save_checkpoint(content, path)
    except Exception as error:
        return f"what was learnt before could not be kept: {str(error).partition(chr(10))[0]}"
    return ""


def _where(path: str | Path, advice: str = "") -> str:
    """Where the checkpoint is and what it is good for."""
    usual = f"go on from it with ckpt_path={str(path)!r}, or use it by TextClassifier.load_from_checkpoint"
    return f"what was learnt before is in {path}: {advice or usual}"


def _free_path(folder: str) -> str:
    """A name that no other stopped fit has taken; in a folder elsewhere, such as `s3://`, always the same."""
    if "://" in folder:
        return f"{folder.rstrip('/')}/{FILE}.pt"
    return str(free_file(Path(folder) / f"{FILE}.pt"))


def free_file(wanted: Path) -> Path:
    """This name or, if there is such a file, one with the first free version behind it, as Lightning counts them."""
    names = chain([wanted.stem], (f"{wanted.stem}-v{number}" for number in count(1)))
    return next(path for name in names if not (path := wanted.with_name(name + wanted.suffix)).exists())
