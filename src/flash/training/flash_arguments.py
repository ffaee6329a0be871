"""Translate trainer arguments of Lightning Flash scripts to those of current Lightning.

Imports Lightning, and of the project only errors.
"""

import argparse
import ast
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any, TypeVar

import lightning.pytorch as pl

from flash.core.errors import FlashError, unknown_name

LEAVE_OUT = "it has no meaning here; leave it out"
REPLACED = {
    "checkpoint_callback": "pass enable_checkpointing=False, or a ModelCheckpoint in callbacks=",
    "weights_summary": "pass enable_model_summary=True or False",
    "progress_bar_refresh_rate": "pass enable_progress_bar=False for none, or "
    "callbacks=[TQDMProgressBar(refresh_rate=20)] of lightning.pytorch.callbacks",
    "resume_from_checkpoint": "pass the file to the fit: trainer.fit(model, datamodule=datamodule, ckpt_path='FILE')",
    "tpu_cores": "pass accelerator='tpu', devices=8",
    "ipus": LEAVE_OUT,
    "num_devices": "pass devices=",
    "num_processes": "pass accelerator='cpu', devices=2",
    "auto_select_gpus": "pass accelerator='gpu', devices='auto'",
    "distributed_backend": "pass strategy='ddp'",
    "amp_backend": "pass precision='16-mixed' or 'bf16-mixed'",
    "amp_level": "pass precision='16-mixed' or 'bf16-mixed'",
    "auto_lr_find": "leave it out: without learning_rate= the model takes one that suits the strategy",
    "auto_scale_batch_size": "pass batch_size= to the datamodule",
    "reload_dataloaders_every_epoch": "pass reload_dataloaders_every_n_epochs=1",
    "replace_sampler_ddp": "pass use_distributed_sampler=",
    "stochastic_weight_avg": "pass callbacks=[StochasticWeightAveraging(swa_lrs=1e-4)] of lightning.pytorch.callbacks",
    "log_gpu_memory": "pass callbacks=[DeviceStatsMonitor()] of lightning.pytorch.callbacks",
    "flush_logs_every_n_steps": "pass logger=CSVLogger('.', flush_logs_every_n_steps=100) of lightning.pytorch.loggers",
    "terminate_on_nan": "leave it out: a fit whose loss is not a number is stopped",
    **dict.fromkeys(
        (
            *("track_grad_norm", "move_metrics_to_cpu", "multiple_trainloader_mode", "prepare_data_per_node"),
            *("process_position", "truncated_bptt_steps", "automatic_optimization", "enable_ort"),
        ),
        LEAVE_OUT,
    ),
}
"""Trainer arguments of Lightning Flash, and their replacements."""

OTHER = "pytorch_lightning"
"""A second package of Lightning, whose classes are not those of `lightning.pytorch`."""

SomeTrainer = TypeVar("SomeTrainer", bound=pl.Trainer)


def check_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check a trainer's arguments, and drop removed ones whose value is None.

    Raises:
        FlashError: an argument that Lightning does not have, or an object of `pytorch_lightning`.
    """
    known = _parameters()
    kept = {name: value for name, value in given.items() if name in known or value is not None}
    for name in kept:
        if name in REPLACED and name not in known:
            raise FlashError(
                f"Trainer({name}={kept[name]!r}) is not an argument of today's trainer: {REPLACED[name]}"
            )
        if name not in known:
            raise FlashError(unknown_name("argument of Trainer", name, [*known, "gpus"]))
    refuse_other_lightning(kept)
    return kept


def refuse_other_lightning(given: Mapping[str, Any]) -> None:
    """Reject callbacks, loggers and other objects whose class is from `pytorch_lightning`, or derives from one.

    Raises:
        FlashError: with the import to use instead.
    """
    for argument, value in given.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            other = next((kind for kind in type(one).__mro__ if kind.__module__.split(".")[0] == OTHER), None)
            if other is None:
                continue
            part = ".".join(["lightning.pytorch", *other.__module__.split(".")[1:2]])
            what = type(one).__name__
            derived = "" if other is type(one) else f" derives from {other.__name__} and"
            raise FlashError(
                f"{argument}: {what}{derived} is of {OTHER}, whose classes are not those of lightning.pytorch; write: "
                f"from {part} import {other.__name__}"
            )


def with_gpus(gpus: int | str | list[int], given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Replace Flash's `gpus` in a trainer's arguments; also returns the replacement as source text.

    Raises:
        FlashError: `gpus` is invalid, or contradicts another argument.
    """
    translated = translate_gpus(gpus)
    kept = dict(given)
    for name, value in translated.items():
        other = given.get(name)
        if other in (None, "auto"):
            kept[name] = value
        elif other != value and not (value == "gpu" and other in ("cuda", "mps")):
            raise FlashError(
                f"gpus={gpus!r} is {name}={value!r}, and {name}={other!r} is given too; leave gpus out"
            )
    return kept, ", ".join(f"{key}={value!r}" for key, value in translated.items())


def translate_gpus(gpus: int | str | list[int]) -> dict[str, Any]:
    """The Lightning arguments for Flash's `gpus`."""
    if gpus in (0, "0", []):
        return {"accelerator": "cpu"}
    if isinstance(gpus, str):
        try:
            gpus = [int(index) for index in gpus.split(",")] if "," in gpus else int(gpus)
        except ValueError as error:
            raise FlashError(
                f"gpus={gpus!r} is not understood; expected a number of GPUs, or their indices"
            ) from error
    return {"accelerator": "gpu", "devices": gpus}


# ---- options of a script's own command line ---------------------------------------------------------------------


def add_trainer_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add an option for each argument of Lightning's trainer, and `--gpus`; returns the parser.

    Values are parsed as Python literals if possible (`--max_epochs 3`, `--devices [0,1]`), else text.
    """
    group = parser.add_argument_group("flash.Trainer")
    defaults = {name: parameter.default for name, parameter in _parameters().items()}
    for name, default in {**defaults, "gpus": None}.items():
        group.add_argument(f"--{name}", nargs="?", const=True, type=_value, default=default)
    return parser


def trainer_of_options(
    make: Callable[..., SomeTrainer], options: argparse.Namespace | argparse.ArgumentParser, **more: Any
) -> SomeTrainer:
    """Construct a trainer from parsed options, ignoring those that are not its arguments.

    Args:
        make: the class of the trainer.
        options: parsed options, or the parser.
        more: arguments that override the parsed ones.
    """
    parsed = options.parse_args() if isinstance(options, argparse.ArgumentParser) else options
    known = [*_parameters(), "gpus"]
    return make(**{**{name: value for name, value in vars(parsed).items() if name in known}, **more})


def _parameters() -> dict[str, Parameter]:
    return dict(signature(pl.Trainer).parameters)


def _value(word: str) -> Any:
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
    return list(value) if isinstance(value, tuple) else value
