"""Check the options of the model and the finetuning strategy before any data are read.

Labels are not known yet, so per-label values are checked one by one and not against the names. Only the configuration
of an encoder is loaded.
"""

from collections.abc import Mapping
from dataclasses import fields
from numbers import Real
from typing import Any

import torch
from jsonargparse import Namespace

from flash.cli.help import PROGRAM
from flash.core.errors import FlashError, unknown_name
from flash.core.extras import require
from flash.core.finetuning import parse_strategy
from flash.text.classification.backbones import load_backbone
from flash.text.classification.backbones.encoder import loading
from flash.text.classification.backbones.encoder.architecture import count_positions
from flash.text.classification.backbones.encoder.hub import find_files
from flash.text.classification.backbones.encoder.model import EncoderConfig
from flash.text.classification.backbones.encoder.module import TrainingOptions
from flash.text.classification.backbones.linear.model import LinearConfig
from flash.text.classification.label_weights import EXPECTED
from flash.text.classification.losses import LOSSES, make_loss
from flash.text.classification.model import is_encoder
from flash.text.classification.optimization import (
    make_optimizer,
    make_schedule,
    own_options,
    parameter_groups,
)
from flash.text.classification.scores.threshold_tuning import parse_objective
from flash.text.classification.scores.thresholds import resolve_thresholds

OF_LINEAR = {field.name: field.default for field in fields(LinearConfig)}
OF_ENCODERS = {
    field.name: field.default for options in (EncoderConfig, TrainingOptions) for field in fields(options)
}
"""Options of one kind of backbone with their defaults; a parsed command line has all of them."""
SHARED = OF_LINEAR.keys() & OF_ENCODERS.keys()
"""Options of both kinds, with the same default."""
MAX_LENGTH = 128
STEPS = 1000  # a stand-in: the length of the fit is not known yet


def check(given: Namespace, argv: list[str]) -> str | tuple[Any, ...]:
    """Check the options of the model and return the strategy.

    Args:
        given: the parsed options.
        argv: the words of the command line, which reveal an option without effect even if its value is the default.

    Raises:
        FlashError: an option is invalid, or has no effect on the chosen backbone.
    """
    strategy = as_strategy(given.strategy)
    model = dict(given.model)
    encoder = is_encoder(model["backbone"])
    options = model_options(given)
    _check_by_label(model)
    if encoder:
        _refuse(model, OF_LINEAR, argv, f"the linear backbone, and {model['backbone']!r} is an encoder")
        _check_encoder(options, given[given.source].get("multi_label"))
    else:
        own = {name: _numbers(options[name]) for name in OF_LINEAR if name in options}
        load_backbone(model["backbone"], 1, own)
        idle = "encoders, and the linear backbone has no use for it"
        _refuse(model, {"max_length": MAX_LENGTH, **OF_ENCODERS}, argv, idle)
        if given.half:
            raise FlashError(f"--half is for {idle}; leave it out, or choose another --model.backbone")
    return strategy


def model_options(given: Namespace) -> dict[str, Any]:
    """The arguments of the model, without the defaults of the other kind of backbone."""
    chosen = dict(given.model)
    for name, default in (OF_LINEAR if is_encoder(chosen["backbone"]) else OF_ENCODERS).items():
        if name not in SHARED and name in chosen and chosen[name] == default:
            del chosen[name]
    return chosen


def as_strategy(typed: Any) -> str | tuple[Any, ...]:
    """Convert the value of `--strategy` for `Trainer.finetune`.

    >>> as_strategy("freeze"), as_strategy(["lora", 8])
    ('freeze', ('lora', 8))

    Raises:
        FlashError: it is not a strategy.
    """
    hint = f"see the end of {PROGRAM} --help"
    strategy = tuple(typed) if isinstance(typed, list) else str(typed)
    if isinstance(typed, dict) or not all(isinstance(name, str) for name in strategy[:1]):
        raise FlashError(f"the strategy {typed} is not understood; {hint}")
    try:
        parse_strategy(strategy)
    except FlashError as error:
        raise FlashError(f"{error}; {hint}") from error
    return strategy


def _refuse(model: Mapping[str, Any], options: Mapping[str, Any], argv: list[str], whose: str) -> None:
    """Reject options of the other kind of backbone."""
    typed = {word.partition("=")[0] for word in argv}
    for name, default in options.items():
        if name in SHARED:
            continue
        if model[name] != default or f"--model.{name}" in typed:
            raise FlashError(
                f"--model.{name} is for {whose}; leave it out, or choose another --model.backbone"
            )


def _check_by_label(model: Mapping[str, Any]) -> None:
    """Check thresholds, their objective and the loss, which every backbone has."""
    thresholds, objective = model["thresholds"], model["threshold_objective"]
    resolve_thresholds(thresholds, _labels_of(thresholds), 0.5)
    parse_objective(objective, _labels_of(objective))
    if model["loss_fn"] is not None and model["loss_fn"] not in LOSSES:
        raise FlashError(unknown_name("loss", model["loss_fn"], LOSSES))


def _labels_of(value: Any) -> list[str]:
    """Placeholder labels for a per-label value."""
    if isinstance(value, Mapping):
        return list(map(str, value))
    return [f"label {index}" for index in range(len(value))] if isinstance(value, list) else ["every label"]


def _numbers(value: Any) -> Any:
    return tuple(value.values()) if isinstance(value, Mapping) else value


def _check_encoder(model: Mapping[str, Any], multi_label: bool | None) -> None:
    """Check that an encoder exists, its options, and that it has positions for max_length tokens."""
    config = EncoderConfig(**{field.name: model[field.name] for field in fields(EncoderConfig)})
    _check_steps(model)
    _check_loss(model, multi_label)
    if model["max_length"] < 1:
        raise FlashError(
            f"max_length={model['max_length']} is no number of tokens; pass 128 or another above 0"
        )
    require("transformers", "transformers")
    most = _positions(model["backbone"], config)
    if most is not None and model["max_length"] > most:
        raise FlashError(
            f"max_length={model['max_length']}, and {model['backbone']!r} has positions for {most} tokens; "
            f"pass max_length={most} or less"
        )


def _check_steps(model: Mapping[str, Any]) -> None:
    """Check the optimizer and the schedule by constructing them for a single parameter."""
    optimizer, rate = model["optimizer"] or "AdamW", model["learning_rate"]
    rate = 1e-3 if rate is None else rate
    own_options(optimizer)
    parameter = torch.nn.Parameter(torch.zeros(1))
    groups = parameter_groups([[parameter]], learning_rate=rate, layer_decay=model["layer_decay"])
    made = make_optimizer(optimizer, groups, rate)
    make_schedule(model["lr_scheduler"], made, total_steps=STEPS, warmup=model["warmup"])


def _check_loss(model: Mapping[str, Any], multi_label: bool | None) -> None:
    """Check the loss and its weights, for multi-label and single-label data if it is not known which they are."""
    weight = model["pos_weight"]
    if isinstance(weight, Real) and not (0 < float(weight) < float("inf") and not isinstance(weight, bool)):
        raise FlashError(f"pos_weight={weight!r} is not understood; {EXPECTED}")
    labels = _labels_of(weight)
    problems = []
    for several in [True, False] if multi_label is None else [multi_label]:
        try:
            make_loss(
                model["loss_fn"],
                multi_label=several,
                labels=labels,
                pos_weight=weight,
                positives=[1] * len(labels),
                rows=2,
            )
        except FlashError as problem:
            problems.append(problem)
        else:
            return
    raise problems[0]


def _positions(name: str, config: EncoderConfig) -> int | None:
    """The number of token positions of an encoder; None if it is unbounded.

    Raises:
        FlashError: the encoder cannot be loaded.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    trust = config.trust_remote_code
    part = loading.encoder_folder(find_files(name, config.revision, trust), name)
    settings = loading.load_config(part, name, trust)
    if type(settings) not in MODEL_MAPPING or not hasattr(settings, "max_position_embeddings"):
        return None  # unbounded, or custom code decides when the model is built
    with torch.device("meta"), loading.quiet():
        auto_class: Any = transformers.AutoModel
        return count_positions(auto_class.from_config(settings))
