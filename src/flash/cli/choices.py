"""The model and the strategy that a command line chose, checked before any data are read.

Labels are not known yet, so what is given by label is checked label by label, and not against their names. Of an
encoder nothing but its configuration is loaded.
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
from flash.text.classification.backbones.encoder import files as encoder_files
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
"""The options of one kind of backbone with their defaults, all of which a parsed command line holds."""
SHARED = OF_LINEAR.keys() & OF_ENCODERS.keys()
"""Those that both kinds have, with the same default."""
MAX_LENGTH = 128
STEPS = 1000  # of a fit whose length is not known yet


def check(given: Namespace, argv: list[str]) -> str | tuple[Any, ...]:
    """The strategy, once it and the options of the model are known to be ones that a fit can have.

    Args:
        given: the options of the command line.
        argv: its words, among which an option that does nothing is found even if its value is the default.

    Raises:
        FlashError: one sentence about what cannot be.
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
    """What goes to the model: the options of the other kind of backbone only where they are not the defaults."""
    chosen = dict(given.model)
    for name, default in (OF_LINEAR if is_encoder(chosen["backbone"]) else OF_ENCODERS).items():
        if name not in SHARED and name in chosen and chosen[name] == default:
            del chosen[name]
    return chosen


def as_strategy(typed: Any) -> str | tuple[Any, ...]:
    """What was typed as `Trainer.finetune` takes it.

    >>> as_strategy("freeze"), as_strategy(["lora", 8])
    ('freeze', ('lora', 8))

    Raises:
        FlashError: it is no strategy.
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
    """Refuse what is of the other kind of backbone."""
    typed = {word.partition("=")[0] for word in argv}
    for name, default in options.items():
        if name in SHARED:
            continue
        if model[name] != default or f"--model.{name}" in typed:
            raise FlashError(
                f"--model.{name} is for {whose}; leave it out, or choose another --model.backbone"
            )


def _check_by_label(model: Mapping[str, Any]) -> None:
    """What every backbone has: thresholds, their objective and a loss."""
    thresholds, objective = model["thresholds"], model["threshold_objective"]
    resolve_thresholds(thresholds, _labels_of(thresholds), 0.5)
    parse_objective(objective, _labels_of(objective))
    if model["loss_fn"] is not None and model["loss_fn"] not in LOSSES:
        raise FlashError(unknown_name("loss", model["loss_fn"], LOSSES))


def _labels_of(value: Any) -> list[str]:
    """Labels that a value by label fits."""
    if isinstance(value, Mapping):
        return list(map(str, value))
    return [f"label {index}" for index in range(len(value))] if isinstance(value, list) else ["every label"]


def _numbers(value: Any) -> Any:
    return tuple(value.values()) if isinstance(value, Mapping) else value


def _check_encoder(model: Mapping[str, Any], multi_label: bool | None) -> None:
    """An encoder's options, how it is trained, and whether it is there with positions for its texts."""
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
    """Optimiser and schedule, by making them for a single number."""
    optimizer, rate = model["optimizer"] or "AdamW", model["learning_rate"]
    rate = 1e-3 if rate is None else rate
    own_options(optimizer)
    parameter = torch.nn.Parameter(torch.zeros(1))
    groups = parameter_groups([[parameter]], learning_rate=rate, layer_decay=model["layer_decay"])
    made = make_optimizer(optimizer, groups, rate)
    make_schedule(model["lr_scheduler"], made, total_steps=STEPS, warmup=model["warmup"])


def _check_loss(model: Mapping[str, Any], multi_label: bool | None) -> None:
    """The loss and its weights, for either kind of data unless it is known which these are."""
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
    """How many tokens an encoder has positions for; None if it sets no bound.

    Raises:
        FlashError: it cannot be had.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    trust = config.trust_remote_code
    part = encoder_files.encoder_folder(find_files(name, config.revision, trust), name)
    settings = encoder_files.load_config(part, name, trust)
    if type(settings) not in MODEL_MAPPING or not hasattr(settings, "max_position_embeddings"):
        return None  # or known only when the model is made, with code of its own
    with torch.device("meta"), encoder_files.quiet():
        auto_class: Any = transformers.AutoModel
        return count_positions(auto_class.from_config(settings))
