"""The checkpoint that a stopped fit leaves behind, and the sentence that says where it is.

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
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from flash.core.errors import BrokenStepError, FlashError

FILE = "last-good"


@dataclass(frozen=True)
class KeptFile:
    """A checkpoint that is replaced after each epoch and when the fit is stopped; the caller deletes it afterwards.

    Attributes:
        path: where it is written.
        advice: what to do with it, as the end of a sentence.
    """

    path: Path
    advice: str


@contextmanager
def keeping_last_good(trainer: pl.Trainer) -> Iterator[None]:
    """If the fit inside is stopped, write a checkpoint and say where it is.

    The message of a `FlashError` is extended; for any other error, Ctrl-C included, the sentence is logged. A trainer
    with neither a `kept_file` nor a checkpoint callback (`enable_checkpointing=False`) writes nothing.
    """
    file: KeptFile | None = getattr(trainer, "kept_file", None)
    keeper = LastGood(file)
    listed: Any = trainer  # the list of callbacks is missing in its type
    if file is not None or trainer.checkpoint_callbacks:
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


class LastGood(Checkpoint):
    """Writes the checkpoint while the fit is being stopped and the trainer still has the model.

    Each of several processes takes part in writing, so they write only if all of them stop for the same reason.

    Args:
        file: the file to write, also after each epoch; None for `last-good.pt` in the trainer's `default_root_dir`.

    Attributes:
        sentence: where the checkpoint is; empty if there is none.
    """

    def __init__(self, file: KeptFile | None = None) -> None:
        self.file, self.sentence = file, ""
        self._first_step: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note which step the fit starts from."""
        self._first_step = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file after every epoch but the last, for a process that is killed."""
        if self.file is None or trainer.current_epoch + 1 == trainer.max_epochs:
            return
        if problem := _write(trainer, pl_module, self.file.path):
            warnings.warn(problem, UserWarning, stacklevel=1)
        else:
            self.sentence = _where(self.file.path, self.file.advice)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write the file if a step was taken."""
        together = trainer.world_size == 1 or isinstance(exception, BrokenStepError)
        if self._first_step is None or trainer.global_step == self._first_step or not together:
            return
        free = trainer.strategy.broadcast(_free_path(trainer.default_root_dir))
        path, advice = (self.file.path, self.file.advice) if self.file else (free, "")
        problem = _write(trainer, pl_module, path)
        self.sentence = (self.sentence or problem) if problem else _where(path, advice)


def _write(trainer: pl.Trainer, model: pl.LightningModule, path: str | Path) -> str:
    """Save a checkpoint if all weights are finite; return the problem, since another error may be on its way."""
    try:
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
        if not trainer.strategy.reduce_boolean_decision(finite):
            return "what was learnt before could not be kept: some weights are no longer numbers"
        trainer.save_checkpoint(path, weights_only=False)
    except Exception as error:
        trainer.strategy.barrier()  # where the other processes wait, inside `save_checkpoint`
        return f"what was learnt before could not be kept: {str(error).partition(chr(10))[0]}"
    return ""


def _where(path: str | Path, advice: str) -> str:
    """The sentence on a checkpoint: where it is, and what to do with it."""
    usual = f"go on from it with ckpt_path={str(path)!r}, or use it by TextClassifier.load_from_checkpoint"
    return f"what was learnt before is in {path}: {advice or usual}"


def _free_path(folder: str) -> str:
    """An unused file name in a local folder; in a remote folder, such as `s3://`, always the same name."""
    if "://" in folder:
        return f"{folder.rstrip('/')}/{FILE}.pt"
    return str(free_file(Path(folder) / f"{FILE}.pt"))


def free_file(wanted: Path) -> Path:
    """This path, or if the file exists, the first free one of `name-v1`, `name-v2`, ..., as Lightning counts them."""
    names = chain([wanted.stem], (f"{wanted.stem}-v{number}" for number in count(1)))
    return next(path for name in names if not (path := wanted.with_name(name + wanted.suffix)).exists())
