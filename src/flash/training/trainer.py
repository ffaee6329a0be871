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
from flash.text.classification.data import TextClassificationData
from flash.text.classification.dataset import TextDataset
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
"""Prefixes of Lightning's lines about other products and missing devices."""

HANDS_NOTHING_BACK = re.compile(r"ddp_(spawn|fork|notebook)|\w+_(spawn|fork|notebook)")
"""Strategies whose processes end with the fit, so that thresholds and scores are lost."""

VERB_ARGUMENTS = ("model", "dataloaders", "ckpt_path", "verbose", "datamodule")
"""Arguments of Lightning's `validate` and `test`, in order."""


class CheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints as model files; see `flash.text.classification.checkpoint`."""

    def save_checkpoint(
        self, checkpoint_: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a file atomically; callback state that it cannot hold is dropped with a warning."""
        if storage_options is not None:
            raise FlashError(
                "storage_options= has no meaning here; configure fsspec instead, or leave it out"
            )
        callbacks = {}
        for name, state in checkpoint_.get("callbacks", {}).items():
            try:
                checkpoint.check_keepable(state, f"the state of {name}")
                callbacks[name] = state
            except CheckpointError as error:  # a callback must not prevent saving the model
                warnings.warn(f"{path} is saved without this: {error}", UserWarning, stacklevel=2)
        checkpoint.save({**checkpoint_, "callbacks": callbacks}, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load without running code, whatever `weights_only` is."""
        return checkpoint.load(path)


def check_callbacks(callbacks: Sequence[pl.Callback]) -> None:
    """Reject, before training, callbacks whose state a model file cannot hold.

    Raises:
        FlashError: with the callback and the part of its state.
    """
    for callback in callbacks:
        try:
            checkpoint.check_keepable(callback.state_dict(), f"the state of {type(callback).__name__}")
        except CheckpointError as error:
            raise FlashError(f"{error}, in its state_dict(), or leave the callback out") from error


class Trainer(pl.Trainer):
    """Lightning's `Trainer`, with all of its arguments, for this library's tasks.

    Args:
        gpus: Flash's old spelling of `accelerator` and `devices`: 0 for the CPU, a number of GPUs, -1 for all of
            them, or a list of their indices. Deprecated.

    `precision="auto"` chooses the faster precision and logs it: on a GPU bfloat16 if the GPU supports it, on a CPU bfloat16
    if a measurement at the encoder's shapes, at the start of a fit, test or prediction, finds it at least 1.2 times as
    fast as float32. The model file records it, and a resumed run keeps it. The linear backbone is not affected. Unlike
    Lightning's trainer, this one logs to CSV files by default, and prints a summary of the modules only with
    `enable_model_summary=True`. It shows a progress bar on a terminal and in a notebook; in a log file only with
    `enable_progress_bar=True`.

    Gradients of encoders are clipped to norm 1 by default; `gradient_clip_val=0` disables clipping. If an encoder's fit
    stops with an error after the first step, a checkpoint is written to `last-good.pt` in `default_root_dir`, and the
    error or a log line says so; `enable_checkpointing=False` writes none. If one of several processes fails alone, only
    the checkpoints of callbacks remain.

    Under torchrun all processes train together unless `devices` or `strategy` are given. Strategies that spawn or fork
    processes are rejected: the trained model would stay in those processes.
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
            else:  # on a CPU, measured once the encoder exists
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
        self.of_strategy: pl.Callback | None = None  # the callback that the last fit's strategy added
        self.kept_file: KeptFile | None = None
        self.data_of_fit: pl.LightningDataModule | None = None  # the default data of a test

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
            train_bn: argument of Lightning Flash without effect, as encoders have no batch normalization.

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
            self.finetuning = parse_strategy("no_freeze")  # for the next `fit`

    def predict(  # type: ignore[override]
        self,
        model: pl.LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        output: Output | None = None,
        thresholds: Thresholds = None,
        **kwargs: Any,
    ) -> list[Any] | None:
        """Predict; returns one entry per batch, in the order of the rows.

        Args:
            model: a `TextClassifier`; the one last fitted by default.
            dataloaders: a list of texts, a datamodule, or batches to predict on.
            datamodule: a `TextClassificationData` with predict data.
            output: `"labels"` (a list of names per text; one name with `multi_label=False`), `"classes"` (the
                same by index), `"probabilities"` or `"logits"` (a list of L numbers per text), `"preds"` (the logits as
                a float32 tensor of shape (batch, L)), one of `flash.core.classification`'s objects, or a callable that
                takes the (batch, L) probabilities as a NumPy array. `model.output` by default, else `"preds"`.
            thresholds: instead of the model's own: one number, L numbers, a dict by label, or `"auto"`.
            kwargs: as for Lightning's `predict`: `return_predictions`, `ckpt_path`.
        """
        model = model or self.lightning_module
        if model is None:
            raise FlashError("there is no model to predict with; pass one: trainer.predict(model, ...)")
        if datamodule is not None and not isinstance(datamodule, pl.LightningDataModule):
            refuse_other_lightning({"datamodule": datamodule})
            datamodule, output = None, output or datamodule  # Lightning Flash's third argument
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
            FlashError: a callback monitors a metric that is not measured, or the data have another type.
        """
        train_dataloaders = kwargs.pop("train_dataloader", train_dataloaders)
        refuse_other_lightning({"datamodule": datamodule, "train_dataloaders": train_dataloaders})
        if isinstance(train_dataloaders, pl.LightningDataModule) and datamodule is None:
            train_dataloaders, datamodule = None, train_dataloaders
        self.data_of_fit = datamodule
        if isinstance(model, TextClassifier):
            model.meet(datamodule)
            validation = val_dataloaders is not None or getattr(datamodule, "val_dataset", True) is not None
            listed: Any = self  # the list of callbacks is missing in its type
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
        """Reset the loops, so that Lightning does not continue the epochs and logged values of another model."""
        epochs, batches = self.fit_loop, self.fit_loop.epoch_loop
        self.fit_loop = type(epochs)(self, min_epochs=epochs.min_epochs, max_epochs=epochs.max_epochs)
        self.fit_loop.epoch_loop = type(batches)(
            self, min_steps=batches.min_steps, max_steps=batches.max_steps
        )

    def tune(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Not supported: current Lightning has no such method.

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
        if "val_dataloaders" in kwargs:  # its name in Lightning Flash
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
        if "test_dataloaders" in kwargs:  # its name in Lightning Flash
            kwargs["dataloaders"] = kwargs.pop("test_dataloaders")
        kwargs = self._with_fitted(args, kwargs, "test", "test rows")
        with _without_advertisements():
            return self._named(super().test(**{"verbose": False, **kwargs}), "test")

    def _with_fitted(
        self, args: Sequence[Any], given: dict[str, Any], verb: str, rows: str
    ) -> dict[str, Any]:
        """All arguments by keyword; model and datamodule default to those of the last fit.

        That model has its thresholds and calibration, which a checkpoint written during the fit may lack. Lightning would
        load the best of those checkpoints by default; here `ckpt_path="best"` requests it.
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
        """The scores, also under Lightning Flash's names."""
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
        """Construct a trainer from parsed options, ignoring those that are not its arguments.

        Args:
            args: the parsed options, or the parser.
            kwargs: arguments that override the parsed ones.
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
        """Write the model atomically to one self-contained file.

        Args:
            filepath: such as `"model.pt"`; its folder is created if needed.
            weights_only: leave out the state for resuming: optimizer, loops and callbacks.
            storage_options: not supported; see the error.
            half: save an encoder's weights in float16, half the size, without the state for resuming. They are
                float32 again when loaded; probabilities change in the fourth digit. The 8-bit weights of the linear
                backbone are unchanged.

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
    """Set up the model for a fit, and clean up afterwards."""
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
    """Reject strategies whose processes return only weights.

    Raises:
        FlashError: the strategy is one of them.
    """
    if isinstance(strategy, str) and HANDS_NOTHING_BACK.fullmatch(strategy):
        raise FlashError(
            f"strategy={strategy!r} trains in processes that hand back no calibration, thresholds or scores; "
            "pass strategy='ddp' in a script, or start the script with torchrun"
        )


def _check_one_device(model: pl.LightningModule, trainer: pl.Trainer) -> None:
    """Reject several devices for a single-device backbone, before Lightning starts their processes.

    Raises:
        FlashError: the trainer has several devices.
    """
    count = trainer.num_devices * trainer.num_nodes
    if isinstance(model, TextClassifier) and model.backbone.one_device and count > 1:
        instead = "start the script with python" if torchrun_arguments() else "pass devices=1 to the trainer"
        raise FlashError(
            f"the {model.backbone.name} backbone works on one device, and the trainer has {count}; {instead}"
        )


def _with_progress_bar(callbacks: Any) -> list[Any]:
    """Add a tqdm progress bar if there is none: Lightning's default, rich, prints nothing to a pipe or a log."""
    given = _listed(callbacks)
    return given if any(isinstance(one, ProgressBar) for one in given) else [*given, RowsProgressBar()]


def _listed(callbacks: Any) -> list[Any]:
    """Callbacks as a list; the user may have given one, several or none."""
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []


def _are_texts(given: Any) -> bool:
    """Whether the argument is texts to predict rather than loaders."""
    if isinstance(given, Mapping):
        return any(isinstance(value, str | list) for value in given.values())
    if isinstance(given, list | tuple):
        return not given or isinstance(given[0], str | Mapping) or not hasattr(given[0], "__iter__")
    return isinstance(given, str | set | frozenset | np.ndarray | pa.Array | pa.ChunkedArray) or (
        type(given).__module__.partition(".")[0] == "pandas"
    )


def _in_order(texts: Any) -> Any:
    """Return the texts if they are ordered.

    Raises:
        DataError: they are one text, a mapping or a set.
    """
    if isinstance(texts, str | Mapping | set | frozenset):
        raise DataError(
            f"texts to predict are a {type(texts).__name__}; pass a list of texts: trainer.predict(model, ['a text'])"
        )
    return texts


@contextmanager
def _without_advertisements() -> Iterator[None]:
    """Suppress Lightning's lines about other products and missing devices."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")

    def is_ours(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(ADVERTISEMENTS)

    log.addFilter(is_ours)
    try:
        yield
    finally:
        log.removeFilter(is_ours)


def _dataset_of(loader: Any) -> TextDataset:
    """The data set of a loader from a datamodule; the model makes its own batches of it.

    Raises:
        FlashError: another kind of loader.
    """
    dataset = getattr(loader, "dataset", None)
    if not isinstance(dataset, TextDataset):
        raise FlashError(
            f"a classifier cannot be trained on a {type(loader).__name__}; "
            "pass datamodule=, or a datamodule's train_dataloader()"
        )
    return dataset
