"""`flash.Trainer`: Lightning's trainer with `finetune`, `predict(output=...)` and checkpoints written atomically."""

import argparse
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
from lightning.pytorch.callbacks import BaseFinetuning, ProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import CheckpointIO as AnyCheckpointIO
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from flash.core.errors import CheckpointError, DataError, FlashError
from flash.core.finetuning import FinetuningStrategy, parse_strategy
from flash.core.launch import torchrun_arguments
from flash.core.precision import precision_of_accelerator
from flash.text.classification import checkpoint
from flash.text.classification.backbones.linear.kernels import announced_compilation
from flash.text.classification.backbones.memory import memory_explained
from flash.text.classification.data import TextClassificationData, TextDataset
from flash.text.classification.from_flash.monitors import check_monitors, flash_names
from flash.text.classification.model import TextClassifier
from flash.text.classification.scores.outputs import Output
from flash.text.classification.scores.thresholds import Thresholds
from flash.training.auto_precision import AutoPrecision
from flash.training.flash_arguments import (
    add_trainer_options,
    check_arguments,
    refuse_other_lightning,
    trainer_of_options,
    with_gpus,
)
from flash.training.last_good import KeptFile, keeping_last_good
from flash.training.progress import RowsProgressBar, is_watched

ADVERTISEMENTS = ("\N{ELECTRIC LIGHT BULB} Tip", "GPU available: False", "TPU available: False")
"""Beginnings of lines in which Lightning speaks of other products, or of devices that are not there."""

HANDS_NOTHING_BACK = re.compile(r"ddp_(spawn|fork|notebook)|\w+_(spawn|fork|notebook)")
"""Strategies whose processes end with the fit, and with them what was chosen and measured there."""

VERB_ARGUMENTS = ("model", "dataloaders", "ckpt_path", "verbose", "datamodule")
"""Of Lightning's `validate` and `test`, in their order."""


class CheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints as model files of this library; see `flash.text.classification.checkpoint`."""

    def save_checkpoint(
        self, checkpoint_: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a file whole or not at all; of callbacks, leave out the state that it cannot hold, with a warning."""
        if storage_options is not None:
            raise FlashError(
                "storage_options= has no meaning here; configure fsspec instead, or leave it out"
            )
        callbacks = {}
        for name, state in checkpoint_.get("callbacks", {}).items():
            try:
                checkpoint.check_keepable(state, f"the state of {name}")
                callbacks[name] = state
            except CheckpointError as error:  # which a callback must not cost the model
                warnings.warn(f"{path} is saved without this: {error}", UserWarning, stacklevel=2)
        checkpoint.save({**checkpoint_, "callbacks": callbacks}, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read without running code, whatever `weights_only` says."""
        return checkpoint.load(path)


def check_callbacks(callbacks: Sequence[pl.Callback]) -> None:
    """Refuse callbacks whose state no model file can hold, before a training that would be saved without it.

    Raises:
        FlashError: it names the callback and the part of its state.
    """
    for callback in callbacks:
        try:
            checkpoint.check_keepable(callback.state_dict(), f"the state of {type(callback).__name__}")
        except CheckpointError as error:
            raise FlashError(f"{error}, in its state_dict(), or leave the callback out") from error


class Trainer(pl.Trainer):
    """Lightning's `Trainer`, which takes all of its arguments, for this library's tasks.

    Args:
        gpus: Flash's old spelling of `accelerator` and `devices`: 0 for the CPU, a number of GPUs, -1 for all of
            them, or a list of their indices. Deprecated.

    `precision="auto"` is the faster one, and it is said which: of a GPU, bfloat16 where it has it; of a processor,
    bfloat16 where a measurement at the encoder's own shapes, when a fit, test or prediction begins, finds it at least 1.2
    times as fast as float32. The model file records it, and a resumed run goes on in it. The linear backbone
    computes as it always does. Unlike Lightning's, it logs to CSV files unless given another `logger`, and prints no
    summary of the modules unless `enable_model_summary=True`. It shows a progress bar on a terminal and in a notebook;
    in a log file only if `enable_progress_bar=True`.

    Encoders' gradients are clipped to a norm of 1 unless `gradient_clip_val` is another; 0 is no clipping. Whatever
    stops an encoder's fit after a step, what it has learnt is written to `last-good.pt` in `default_root_dir`, and
    the error or a log line says so; `enable_checkpointing=False` writes nothing. Of several processes, one that fails
    alone leaves only the checkpoints of the trainer's callbacks.

    Under torchrun all of its processes train together unless `devices` or `strategy` say otherwise. Strategies that
    start their processes by spawn or fork are refused: the model that they trained would stay there.
    """

    def __init__(self, *args: Any, gpus: int | str | list[int] | None = None, **kwargs: Any) -> None:
        _check_processes(kwargs.get("strategy"))
        if gpus is not None:
            kwargs, spelled = with_gpus(gpus, kwargs)
            warnings.warn(
                f"Trainer(gpus={gpus!r}) is deprecated; write Trainer({spelled})",
                DeprecationWarning,
                stacklevel=2,
            )
        kwargs = check_arguments(kwargs)
        plugins = kwargs.pop("plugins", None) or []
        plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
        if not any(isinstance(plugin, AnyCheckpointIO) for plugin in plugins):
            plugins.append(CheckpointIO())
        if kwargs.get("precision") == "auto":
            known = precision_of_accelerator(kwargs.get("accelerator", "auto"))
            kwargs["precision"] = known[0] if known else None
            if known:
                rank_zero_info(f"precision={known[0]!r}, as {known[1]}.")
            else:  # of a processor: measured once there is an encoder
                kwargs["callbacks"] = [*_listed(kwargs.get("callbacks")), AutoPrecision()]
        kwargs["enable_model_summary"] = bool(kwargs.get("enable_model_summary"))
        if kwargs.get("logger") in (None, True):
            kwargs["logger"] = CSVLogger(kwargs.get("default_root_dir") or Path.cwd())
        if kwargs.get("enable_progress_bar") is None:
            given = any(isinstance(one, ProgressBar) for one in _listed(kwargs.get("callbacks")))
            kwargs["enable_progress_bar"] = given or is_watched()
        if kwargs["enable_progress_bar"]:
            kwargs["callbacks"] = _with_progress_bar(kwargs.get("callbacks"))
        if gpus is None and all(kwargs.get(name, "auto") == "auto" for name in ("devices", "strategy")):
            kwargs |= torchrun_arguments()
        with _without_advertisements():
            super().__init__(*args, plugins=plugins, **kwargs)
        self.finetuning: FinetuningStrategy | BaseFinetuning = parse_strategy("no_freeze")
        self.of_strategy: pl.Callback | None = None  # that the last fit's strategy has added
        self.kept_file: KeptFile | None = None
        self.data_of_fit: pl.LightningDataModule | None = None  # of a test that is given no other

    def finetune(
        self,
        model: pl.LightningModule,
        train_dataloader: Any = None,
        val_dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        strategy: str | tuple[Any, ...] | BaseFinetuning = "no_freeze",
        ckpt_path: str | Path | None = None,
        train_bn: bool = True,
    ) -> None:
        """Fit a model that starts from trained layers, some of them frozen.

        Args:
            model: a `TextClassifier`.
            train_dataloader: a datamodule, or a loader of one, where there is no `datamodule`.
            val_dataloaders: a loader of a datamodule, for validation.
            datamodule: a `TextClassificationData`.
            strategy: `"no_freeze"`, `"freeze"`, `("freeze_unfreeze", epoch)`,
                `("unfreeze_milestones", ((first, second), layers))`, or for low-rank adapters `"lora"`,
                `("lora", rank)` or `("lora", {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": "all-linear"})`:
                after the fit they are a part of the weights, and the file needs no other. Or a callback of
                Lightning's, a `BaseFinetuning`, which holds for this fit, as do the others. The linear backbone has no
                layers to freeze.
            ckpt_path: a checkpoint to resume from.
            train_bn: Flash's; it changes nothing, as encoders have no batch normalisation.

        Raises:
            FlashError: the strategy, or a part of it, is unknown.
        """
        refuse_other_lightning({"strategy": strategy})
        if not train_bn:
            rank_zero_info("train_bn=False changes nothing: encoders have no batch normalisation.")
        self.finetuning = parse_strategy(strategy)
        try:
            self.fit(model, train_dataloader, val_dataloaders, datamodule, ckpt_path)
        finally:
            self.finetuning = parse_strategy("no_freeze")  # of the next `fit`

    def predict(  # type: ignore[override]
        self,
        model: pl.LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        output: Output | None = None,
        thresholds: Thresholds = None,
        **kwargs: Any,
    ) -> list[Any] | None:
        """One entry a batch, in the order of the rows.

        Args:
            model: a `TextClassifier`; the one last fitted by default.
            dataloaders: a list of texts, a datamodule, or batches to predict on.
            datamodule: a `TextClassificationData` with predict data.
            output: `"labels"` (a list of names a text; the one name with `multi_label=False`), `"classes"` (the
                same by index), `"probabilities"` or `"logits"` (a list of L numbers a text), `"preds"` (the logits as
                a float32 tensor of shape (batch, L)), one of `flash.core.classification`'s objects, or a callable that
                takes the (batch, L) probabilities as a NumPy array. `model.output` by default, else `"preds"`.
            thresholds: in place of the model's own: one number, L numbers, a dict by label, or `"auto"`.
            kwargs: as for Lightning's `predict`: `return_predictions`, `ckpt_path`.
        """
        model = model or self.lightning_module
        if model is None:
            raise FlashError("there is no model to predict with; pass one: trainer.predict(model, ...)")
        if datamodule is not None and not isinstance(datamodule, pl.LightningDataModule):
            refuse_other_lightning({"datamodule": datamodule})
            datamodule, output = None, output or datamodule  # the third argument of Flash's own
        if dataloaders is not None and _are_texts(dataloaders):
            dataloaders = TextClassificationData.from_lists(
                predict_data=_in_order(dataloaders),
                input_field=getattr(model, "input_fields", None) or "text",
            )
        if dataloaders is None and datamodule is None:
            datamodule = self._fitted_data("predict", "texts to predict")
        output = output or getattr(model, "output", None) or "preds"
        with model.predicting(output, thresholds), _without_advertisements():  # type: ignore[operator]
            return super().predict(model, dataloaders, datamodule, **kwargs)

    def fit(  # type: ignore[override]
        self,
        model: pl.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        """Train, choose thresholds on the validation rows, and print the table.

        Args:
            model: a `TextClassifier`.
            train_dataloaders: a datamodule, or a loader of one, where there is no `datamodule`.
            val_dataloaders: a loader of a datamodule, for validation.
            datamodule: a `TextClassificationData`.
            ckpt_path: a checkpoint to resume from.
            kwargs: as for Lightning's `fit`; and `train_dataloader`, Flash's name of `train_dataloaders`.

        Raises:
            FlashError: what a callback monitors is not measured, or the data are of another kind.
        """
        train_dataloaders = kwargs.pop("train_dataloader", train_dataloaders)
        refuse_other_lightning({"datamodule": datamodule, "train_dataloaders": train_dataloaders})
        if isinstance(train_dataloaders, pl.LightningDataModule) and datamodule is None:
            train_dataloaders, datamodule = None, train_dataloaders
        self.data_of_fit = datamodule
        if isinstance(model, TextClassifier):
            model.meet(datamodule)
            validation = val_dataloaders is not None or getattr(datamodule, "val_dataset", True) is not None
            listed: Any = self  # whose list of callbacks is no part of its type
            check_monitors(model, listed.callbacks, validation=validation and self.limit_val_batches != 0)
            check_callbacks(listed.callbacks)
        if self.lightning_module not in (None, model):
            self._begin_at_0()
        with _prepared(model, self), _without_advertisements(), announced_compilation(rank_zero_info):
            _check_one_device(model, self)
            if isinstance(model, TextClassifier) and train_dataloaders is not None:
                train_dataloaders = model.train_batches(_dataset_of(train_dataloaders), seed=0)
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, **kwargs)

    def _begin_at_0(self) -> None:
        """Loops that know nothing of another model's fit, whose epochs and logged values Lightning would go on with."""
        epochs, batches = self.fit_loop, self.fit_loop.epoch_loop
        self.fit_loop = type(epochs)(self, min_epochs=epochs.min_epochs, max_epochs=epochs.max_epochs)
        self.fit_loop.epoch_loop = type(batches)(
            self, min_steps=batches.min_steps, max_steps=batches.max_steps
        )

    def tune(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refused: today's Lightning has no such method.

        Raises:
            FlashError: always.
        """
        raise FlashError(
            "a trainer has no tune any more; leave it out: without learning_rate= the model takes one that suits the "
            "strategy, and batch_size= of the datamodule is the size of a batch; then trainer.fit(model, "
            "datamodule=datamodule)"
        )

    def validate(self, *args: Any, **kwargs: Any) -> list[Mapping[str, float]]:
        """Measure on the validation rows and print the table; `verbose=True` adds Lightning's own.

        Args:
            args: as for Lightning's; without a model the one last fitted, and without rows those of its datamodule.
            kwargs: as for Lightning's.

        Raises:
            FlashError: no model was fitted and none is passed, or there are no rows.
        """
        if "val_dataloaders" in kwargs:  # its name in Lightning Flash's time
            kwargs["dataloaders"] = kwargs.pop("val_dataloaders")
        kwargs = self._with_fitted(args, kwargs, "validate", "validation rows")
        rows = kwargs.get("dataloaders")
        if rows == [] or (rows is None and getattr(kwargs["datamodule"], "val_dataset", True) is None):
            raise FlashError(
                "there are no validation rows to measure on; give the datamodule val_file=, val_data= or val_split="
            )
        with _without_advertisements():
            return self._named(super().validate(**{"verbose": False, **kwargs}), "val")

    def test(self, *args: Any, **kwargs: Any) -> list[Mapping[str, float]]:
        """Measure on the test rows and print the table; arguments and errors as in `validate`."""
        if "test_dataloaders" in kwargs:  # its name in Lightning Flash's time
            kwargs["dataloaders"] = kwargs.pop("test_dataloaders")
        kwargs = self._with_fitted(args, kwargs, "test", "test rows")
        with _without_advertisements():
            return self._named(super().test(**{"verbose": False, **kwargs}), "test")

    def _with_fitted(
        self, args: Sequence[Any], given: dict[str, Any], verb: str, rows: str
    ) -> dict[str, Any]:
        """All arguments by keyword, with the model and the datamodule of the last fit where there are no others.

        That model has its thresholds and calibration, as a checkpoint written within the fit may not: Lightning's own choice
        is the best of these, and here `ckpt_path="best"` asks for it.
        """
        given = {**dict(zip(VERB_ARGUMENTS, args, strict=False)), **given}
        model, data = self.lightning_module, given.get("datamodule")
        if isinstance(given.get("dataloaders"), pl.LightningDataModule):
            given["dataloaders"], data = None, given["dataloaders"]
        if given.get("model") is None:
            if model is None:
                raise FlashError(
                    f"there is no model to {verb}; pass one: trainer.{verb}(model, datamodule=datamodule)"
                )
            given["model"] = None if given.get("ckpt_path") else model
        if given.get("dataloaders") is None:
            given["datamodule"] = data or self._fitted_data(verb, rows)
        return given

    def _fitted_data(self, verb: str, rows: str) -> pl.LightningDataModule:
        if self.data_of_fit is None:
            raise FlashError(f"there are no {rows}; pass them: trainer.{verb}(model, datamodule=datamodule)")
        return self.data_of_fit

    def _named(self, found: list[Mapping[str, float]], stage: str) -> list[Mapping[str, float]]:
        """What was measured, with Lightning Flash's names beside ours."""
        model = self.lightning_module
        if not isinstance(model, TextClassifier):
            return found
        return [{**scores, **flash_names(scores, stage, model)} for scores in found]

    @classmethod
    def add_argparse_args(cls, parent_parser: argparse.ArgumentParser, **_: Any) -> argparse.ArgumentParser:
        """Add an option for each argument of the trainer, as Lightning 1 did; returns the parser."""
        return add_trainer_options(parent_parser)

    @classmethod
    def from_argparse_args(
        cls, args: argparse.Namespace | argparse.ArgumentParser, **kwargs: Any
    ) -> "Trainer":
        """A trainer of parsed options, of which those that are not its arguments are left alone.

        Args:
            args: what the parser of `add_argparse_args` found, or the parser.
            kwargs: arguments in place of the parsed ones.
        """
        return trainer_of_options(cls, args, **kwargs)

    def save_checkpoint(
        self,
        filepath: str | Path,
        weights_only: bool | None = False,
        storage_options: Any | None = None,
        *,
        half: bool = False,
    ) -> None:
        """Write the model, whole or not at all, to a file that needs no other file.

        Args:
            filepath: such as `"model.pt"`; its folder is made where it does not exist.
            weights_only: leave out what only resuming needs: optimiser, loops and callbacks.
            storage_options: of Lightning's plugins for remote files.
            half: keep an encoder's weights as float16 numbers, half the size, and leave out what only resuming needs.
                They are float32 again once loaded; probabilities change in the fourth digit. The linear backbone's
                weights, of 8 bits, stay as they are.

        Raises:
            CheckpointError: the file cannot be written.
            FlashError: no model was fitted or passed to this trainer.
        """
        model = self.lightning_module
        if model is None:
            raise FlashError(
                "this trainer has no model to save; train one first: trainer.fit(model, datamodule=datamodule)"
            )
        storing = model.stored_in_half() if half and isinstance(model, TextClassifier) else nullcontext()
        with storing:
            super().save_checkpoint(filepath, bool(weights_only) or half, storage_options)


@contextmanager
def _prepared(model: pl.LightningModule, trainer: pl.Trainer) -> Iterator[None]:
    """A model with all that it has for a fit alone."""
    if not isinstance(model, TextClassifier):
        yield
        return
    keeping = keeping_last_good(trainer) if model.automatic_optimization else nullcontext()
    try:
        model.before_fit(trainer)
        with keeping, memory_explained(model.backbone):
            yield
    finally:
        model.after_fit()


def _check_processes(strategy: Any) -> None:
    """Refuse strategies that train in processes of which nothing but weights comes back.

    Raises:
        FlashError: the strategy is one of them.
    """
    if isinstance(strategy, str) and HANDS_NOTHING_BACK.fullmatch(strategy):
        raise FlashError(
            f"strategy={strategy!r} trains in processes that hand back no calibration, thresholds or scores; "
            "pass strategy='ddp' in a script, or start the script with torchrun"
        )


def _check_one_device(model: pl.LightningModule, trainer: pl.Trainer) -> None:
    """Refuse several devices for what works on one, before Lightning starts a process for each.

    Raises:
        FlashError: the trainer has several.
    """
    count = trainer.num_devices * trainer.num_nodes
    if isinstance(model, TextClassifier) and model.backbone.one_device and count > 1:
        instead = "start the script with python" if torchrun_arguments() else "pass devices=1 to the trainer"
        raise FlashError(
            f"the {model.backbone.name} backbone works on one device, and the trainer has {count}; {instead}"
        )


def _with_progress_bar(callbacks: Any) -> list[Any]:
    """The callbacks, and a bar of tqdm's where they have none: rich's, Lightning's choice, is silent in a pipe or a log."""
    given = _listed(callbacks)
    return given if any(isinstance(one, ProgressBar) for one in given) else [*given, RowsProgressBar()]


def _listed(callbacks: Any) -> list[Any]:
    """Callbacks as a list, which the user may have given as one, several or none."""
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []


def _are_texts(given: Any) -> bool:
    """Whether this is meant as texts to predict, and not as loaders of batches."""
    if isinstance(given, Mapping):
        return any(isinstance(value, str | list) for value in given.values())
    if isinstance(given, list | tuple):
        return not given or isinstance(given[0], str | Mapping) or not hasattr(given[0], "__iter__")
    return isinstance(given, str | set | frozenset | np.ndarray | pa.Array | pa.ChunkedArray) or (
        type(given).__module__.partition(".")[0] == "pandas"
    )


def _in_order(texts: Any) -> Any:
    """Texts in an order, as they are.

    Raises:
        DataError: they are none that have one.
    """
    if isinstance(texts, str | Mapping | set | frozenset):
        raise DataError(
            f"texts to predict are a {type(texts).__name__}; pass a list of texts: trainer.predict(model, ['a text'])"
        )
    return texts


@contextmanager
def _without_advertisements() -> Iterator[None]:
    """Keep back lines about other products, or about devices that are not there."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")

    def is_ours(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(ADVERTISEMENTS)

    log.addFilter(is_ours)
    try:
        yield
    finally:
        log.removeFilter(is_ours)


def _dataset_of(loader: Any) -> TextDataset:
    """The rows of a loader that a datamodule made: the model makes its own batches of them.

    Raises:
        FlashError: the loader is of something else.
    """
    dataset = getattr(loader, "dataset", None)
    if not isinstance(dataset, TextDataset):
        raise FlashError(
            f"a classifier cannot be trained on a {type(loader).__name__}; "
            "pass datamodule=, or a datamodule's train_dataloader()"
        )
    return dataset
