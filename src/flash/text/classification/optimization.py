"""Optimizers, parameter groups and learning rate schedules, by name, class or callable.

Does not import Lightning, whose scheduler dicts are plain dicts.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import cos, isfinite, pi
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from flash.core.errors import FlashError, unknown_name

OptimizerChoice: TypeAlias = str | type[Optimizer] | tuple[Any, ...] | Callable[..., Optimizer]
ScheduleChoice: TypeAlias = str | tuple[Any, ...] | Callable[..., Any] | None

DEFAULT_LEARNING_RATES = {
    "no_freeze": 3e-4,
    "freeze": 1e-2,  # only the head is trained
    "freeze_unfreeze": 3e-4,
    "unfreeze_milestones": 3e-4,
    "lora": 2e-3,
}
"""By finetuning strategy, for AdamW with the default schedule and an encoder with 384 features."""
MEASURED_WIDTH, MOST_GROWTH = 384, 5 / 3

DEFAULT_WEIGHT_DECAY = 0.01

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
}
"""torch's optimizers by name; the case is ignored."""

FUSED = ("Adagrad", "Adam", "AdamW", "SGD")
"""Optimizers of torch with a fused step on CPU and CUDA."""

DENSE = {"SparseAdam": "Adam"}
"""Optimizers of torch for sparse gradients only, which do not occur here, and their dense counterparts."""

SCHEDULERS: dict[str, type[lr_scheduler.LRScheduler]] = {
    name: kind
    for name, kind in vars(lr_scheduler).items()
    if isinstance(kind, type)
    and issubclass(kind, lr_scheduler.LRScheduler)
    and name
    not in ("LRScheduler", "_LRScheduler", "ChainedScheduler", "SequentialLR")  # need other schedulers
}
"""torch's schedulers by name; the case is ignored."""

STEPPED = (
    "StepLR",
    "MultiStepLR",
    "CosineAnnealingLR",
    "CyclicLR",
    "CosineAnnealingWarmRestarts",
    "OneCycleLR",
)
"""Schedulers of torch that step per optimizer step if given by name, as in Lightning Flash; others per epoch."""

CONFIG_KEYS = ("interval", "frequency", "monitor", "strict", "name", "reduce_on_plateau")
"""Keys of Lightning's scheduler dict beside the scheduler."""

TUPLE = "expected (name, {its arguments}) or (name, {its arguments}, {'interval': 'step', ...})"


# ---- optimisers -------------------------------------------------------------------------------------------------


def default_learning_rate(strategy: str, width: int) -> float:
    """Return the peak learning rate of AdamW, with the default schedule, for an encoder with `width` features.

    If the encoder's weights are trained, the rate falls with the square of the width. MiniLM (width 384) was best with
    3e-4, among 1.5e-4, 3e-4 and 6e-4. Encoders of width 768 and 1,024 are usually finetuned with 2e-5 to 1e-4 (Devlin et
    al., NAACL 2019; Liu et al., "RoBERTa", 2019); here they get 7.5e-5 and 4.2e-5. Adapters get seven times as much:
    MiniLM was best with 2e-3 and 3e-3 and learned nothing with 6e-3, and adapters of encoders of width 768 are usually
    trained with 4e-4 to 5e-4 (Hu et al., "LoRA", ICLR 2022); here they get 5e-4. Any other strategy counts as
    "no_freeze".
    """
    rate = DEFAULT_LEARNING_RATES.get(strategy, DEFAULT_LEARNING_RATES["no_freeze"])
    if strategy == "freeze":
        return rate
    return rate * min((MEASURED_WIDTH / width) ** 2, MOST_GROWTH)


def parameter_groups(
    layers: Sequence[Sequence[nn.Parameter]],
    *,
    learning_rate: float,
    layer_decay: float = 1.0,
    weight_decay: float = DEFAULT_WEIGHT_DECAY,
    trainable_only: bool = False,
) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer, one for each combination of learning rate and weight decay.

    Layer-wise decay follows Howard and Ruder, "Universal Language Model Fine-tuning", ACL 2018, section 3.2.

    Args:
        layers: the embeddings first, the head last. A parameter in several layers belongs to the last of them.
        learning_rate: learning rate of the head and, without layer decay, of all layers.
        layer_decay: in (0, 1]: factor of the learning rate from each layer to the one below it.
        weight_decay: weight decay of matrices; one-dimensional parameters (biases and norms) have none.
        trainable_only: leave out parameters that are frozen now. By default they are included, and are not updated
            while they have no gradient, so that they can be unfrozen later with the same optimizer.

    Raises:
        FlashError: a number is out of range, or there is no parameter.
    """
    _check_learning_rate(learning_rate)
    if not 0 < layer_decay <= 1:
        raise FlashError(
            f"layer_decay={layer_decay!r} is not above 0 and at most 1; 1 is the same rate everywhere"
        )
    if not 0 <= weight_decay < float("inf"):
        raise FlashError(f"weight_decay={weight_decay!r} is not a number from 0 on; 0 is none, 0.01 is usual")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for depth, layer in enumerate(reversed(layers)):
        for parameter in layer:
            if id(parameter) in seen or (trainable_only and not parameter.requires_grad):
                continue
            seen.add(id(parameter))
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((float(learning_rate * layer_decay**depth), float(decay)), []).append(parameter)
    if not groups:
        raise FlashError("there is no parameter to train; unfreeze a layer, or choose another strategy")
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def own_options(optimizer: OptimizerChoice) -> dict[str, float]:
    """Return `lr` and `weight_decay` of the user's optimizer, as far as it determines them.

    A `functools.partial` or a tuple has its arguments; a name or a class has its default weight decay (0 for SGD and
    Adam, whose weight decay differs from AdamW's), but no learning rate.

    >>> own_options("AdamW"), own_options(partial(torch.optim.SGD, lr=0.1))
    ({'weight_decay': 0.01}, {'weight_decay': 0.0, 'lr': 0.1})
    """
    chosen = _partial(optimizer)
    options = {}
    if isinstance(chosen.func, type):
        decay = inspect.signature(chosen.func).parameters.get("weight_decay")
        options["weight_decay"] = 0.0 if decay is None else decay.default
    given = chosen.keywords
    options |= {name: given[name] for name in ("lr", "weight_decay") if given.get(name) is not None}
    return {name: float(value) for name, value in options.items()}


def make_optimizer(
    optimizer: OptimizerChoice,
    groups: list[dict[str, Any]],
    learning_rate: float,
    *,
    fused: bool = False,
    unfreezes: bool = False,
) -> Optimizer:
    """Create an optimizer for these groups.

    Args:
        optimizer: one of `OPTIMIZERS` in upper or lower case, such as `"AdamW"`; a tuple of such a name and arguments,
            `("SGD", {"momentum": 0.9})`; or a callable of the groups, and of `lr` if it has that argument, such as a
            class or a `functools.partial` of one.
        groups: result of `parameter_groups`; their learning rates and weight decays take precedence.
        learning_rate: learning rate of groups without their own.
        fused: use the fused step of torch's optimizers that have one, unless the user chose how to step. Not for scaled
            gradients, because a fused step unscales them itself, after clipping.
        unfreezes: whether some parameters get gradients only in a later epoch. SGD's fused step cannot handle
            parameters with and without momentum together, so SGD is not fused then.

    Raises:
        FlashError: an unknown name, wrong arguments, or the callable does not return an optimizer.
    """
    _check_learning_rate(learning_rate)
    chosen = _partial(optimizer)
    name, options = _name(chosen), chosen.keywords
    if name in DENSE:
        raise FlashError(
            f"the optimizer {name} takes sparse gradients only, and an encoder's are dense; pass {DENSE[name]!r}"
        )
    if _takes(chosen, "lr"):
        options = {**options, "lr": float(learning_rate)}
    fused = fused and not options.keys() & {"fused", "foreach", "differentiable"}
    fused = fused and any(chosen.func is OPTIMIZERS[each] for each in FUSED)
    fused = fused and not (unfreezes and chosen.func is torch.optim.SGD)
    if fused:
        options["fused"] = True
    try:
        made = chosen(groups, **options)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise FlashError(f"the optimizer {name} cannot be made: {error}") from error
    if not isinstance(made, Optimizer):
        raise FlashError(
            f"the optimizer {name} returned {type(made).__name__}; expected a torch.optim.Optimizer of the groups "
            "of parameters that it is given"
        )
    return made


def _partial(optimizer: Any) -> partial[Any]:
    """Convert a name, a tuple of name and arguments, or a callable to a `functools.partial` to call with the groups."""
    options: Any = {}
    if isinstance(optimizer, tuple | list):
        if len(optimizer) != 2 or not isinstance(optimizer[1], dict):
            raise FlashError(
                f"the optimizer {optimizer!r} is not understood; expected (name, {{its arguments}})"
            )
        optimizer, options = optimizer
    if isinstance(optimizer, str):
        optimizer = OPTIMIZERS[_known("optimizer", optimizer, OPTIMIZERS)]
    if isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise FlashError(
            f"the optimizer is an object of {kind}, which knows no parameters of this model; pass the name "
            f"{kind!r}, the class, or functools.partial({kind}, ...)"
        )
    if not callable(optimizer):
        raise FlashError(
            f"the optimizer {optimizer!r} is not understood; expected a name such as 'AdamW', a class, "
            "functools.partial of one, or a callable of the parameters"
        )
    return partial(optimizer, **options)


# ---- schedules --------------------------------------------------------------------------------------------------


def linear(progress: float) -> float:
    """Return the factor of the learning rate at `progress`, the completed share of the steps after the warm-up."""
    return 1 - progress


def cosine(progress: float) -> float:
    """Half a cosine: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5."""
    return (1 + cos(pi * progress)) / 2


def constant(progress: float) -> float:
    """No decay."""
    return 1.0


def hard_restarts(progress: float, *, num_cycles: int = 1) -> float:
    """`cosine` with `num_cycles` restarts: Loshchilov and Hutter, as above."""
    return 0.0 if progress >= 1 else cosine((progress * num_cycles) % 1)


def polynomial(progress: float, *, power: float = 1.0) -> float:
    """`linear` to a power."""
    return float((1 - progress) ** power)


SCHEDULES: dict[str, Callable[..., float]] = {
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "constant_with_warmup": constant,
    # Lightning Flash's names, which come from transformers
    "linear_schedule_with_warmup": linear,
    "cosine_schedule_with_warmup": cosine,
    "constant_schedule": constant,
    "constant_schedule_with_warmup": constant,
    "cosine_with_hard_restarts_schedule_with_warmup": hard_restarts,
    "polynomial_decay_schedule_with_warmup": polynomial,
}
"""The schedules of this library; all but `"constant"` start with a linear warm-up."""


def make_schedule(
    lr_scheduler: ScheduleChoice, optimizer: Optimizer, *, total_steps: float, warmup: float = 0.06
) -> dict[str, Any]:
    """Return Lightning's scheduler dict: `scheduler`, `interval`, `frequency` and the user's other keys.

    Args:
        lr_scheduler: None for `"linear"`; one of `SCHEDULES`; one of `SCHEDULERS` in upper or lower case; a tuple
            (name, {its arguments}) or (name, {its arguments}, {keys of Lightning's dict}), with a name or a callable;
            or a callable of the optimizer that returns a scheduler or such a dict. `SCHEDULES` accept the argument
            `num_warmup_steps`: a number of steps, or a share of them below 1. Callables step once per epoch unless
            Lightning's dict has `{"interval": "step"}`.
        optimizer: the optimizer.
        total_steps: number of optimizer steps in the training; infinite if there is no limit.
        warmup: share of the steps in which the learning rate rises, for `SCHEDULES`.

    Raises:
        FlashError: an unknown name, wrong arguments, or a schedule that needs the length of a training without limit.
    """
    function, options, config = _schedule_parts(lr_scheduler)
    if unknown := [key for key in config if key not in CONFIG_KEYS]:
        raise FlashError(f"in lr_scheduler: {unknown_name('word', str(unknown[0]), CONFIG_KEYS)}")
    if isinstance(function, str) and function in SCHEDULES:
        made: Any = _own_schedule(function, optimizer, total_steps, warmup, options)
        words = {"interval": "step"}
    else:
        if isinstance(function, str):
            function = SCHEDULERS[_known("learning rate schedule", function, (*SCHEDULES, *SCHEDULERS))]
            words = {"interval": "step" if function.__name__ in STEPPED else "epoch"}
            options = {**_ends(function.__name__, optimizer, total_steps, options), **options}
        else:
            words = {"interval": "epoch"}
        try:
            made = function(optimizer, **options)
        except (TypeError, ValueError) as error:
            hint = (
                f"; pass its arguments: ({_name(function)!r}, {{...}})"
                if _name(function) in SCHEDULERS
                else ""
            )
            raise FlashError(
                f"the learning rate schedule {_name(function)} cannot be made: {error}{hint}"
            ) from error
    return _scheduler_dict(made, words | config, _name(function))


def _schedule_parts(choice: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Split the user's choice into a known name or a callable, its arguments, and keys of Lightning's dict."""
    options: dict[str, Any] = {}
    config: dict[str, Any] = {}
    if isinstance(choice, tuple | list):
        if len(choice) not in (2, 3) or not all(isinstance(part, dict) for part in choice[1:]):
            raise FlashError(f"the lr_scheduler {choice!r} is not understood; {TUPLE}")
        choice, options, *rest = choice
        # Lightning Flash's dicts had an `opt_idx`, which Lightning no longer has
        config = {key: value for part in rest for key, value in part.items() if key != "opt_idx"}
    if choice is None:
        return "linear", options, config
    if isinstance(choice, str):
        return _known("learning rate schedule", choice, (*SCHEDULES, *SCHEDULERS)), options, config
    if not callable(choice):
        raise FlashError(
            f"the lr_scheduler {choice!r} is not understood; expected a name such as 'cosine', a callable of the "
            f"optimizer, or a tuple: {TUPLE}"
        )
    return choice, options, config


class _FactorLR(lr_scheduler.LambdaLR):
    """A factor of the learning rates, also for groups that a callback adds during training."""

    def get_lr(self) -> list[Any]:
        """Return the rates of all groups; the rate of an added group is relative to its rate when it was added."""
        factor = self.lr_lambdas[0]
        for group in self.optimizer.param_groups[len(self.base_lrs) :]:
            before = factor(max(self.last_epoch - 1, 0))
            group["initial_lr"] = group["lr"] / before if before else group["lr"]
            self.base_lrs.append(group["initial_lr"])
        self.lr_lambdas = [factor] * len(self.base_lrs)
        return super().get_lr()


def _own_schedule(
    name: str, optimizer: Optimizer, total_steps: float, warmup: float, options: dict[str, Any]
) -> lr_scheduler.LRScheduler:
    """Create a linear warm-up, followed by one of `SCHEDULES`."""
    own = inspect.getfullargspec(SCHEDULES[name]).kwonlyargs
    if unknown := [key for key in options if key not in ("num_warmup_steps", *own)]:
        are = (
            f"its arguments are num_warmup_steps, {', '.join(own)}"
            if own
            else "its one argument is num_warmup_steps"
        )
        raise FlashError(f"the learning rate schedule {name!r} takes no {unknown[0]!r}; {are}")
    shape = partial(SCHEDULES[name], **{key: options[key] for key in own if key in options})
    risen = 0.0 if name in ("constant", "constant_schedule") else options.get("num_warmup_steps", warmup)
    if isinstance(risen, bool) or not isinstance(risen, int | float) or not 0 <= risen < float("inf"):
        raise FlashError(
            f"the warm-up {risen!r} is not understood; expected a share below 1, or a number of steps"
        )
    share = risen < 1
    if not isfinite(total_steps) and (shape.func is not constant or (share and risen > 0)):
        raise FlashError(
            f"the learning rate schedule {name!r} needs to know when the fit ends; pass max_epochs= or max_steps= "
            "to the trainer, or lr_scheduler='constant'"
        )
    rising = round(risen * total_steps) if share and risen else int(risen)
    left = max(total_steps - rising, 1)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)  # above 0 from the first step on
        return shape(min((step - rising) / left, 1.0))

    return _FactorLR(optimizer, factor)


def _ends(name: str, optimizer: Optimizer, total_steps: float, given: dict[str, Any]) -> dict[str, Any]:
    """Return the length of the training for torch's schedulers that need it, and the peak rate of OneCycleLR."""
    peak = {"max_lr": [group["lr"] for group in optimizer.param_groups]} if name == "OneCycleLR" else {}
    if not isfinite(total_steps):
        return peak
    if peak and not given.keys() & {"total_steps", "epochs", "steps_per_epoch"}:
        return {**peak, "total_steps": int(total_steps)}
    if peak:
        return peak
    return {"T_max": int(total_steps)} if name == "CosineAnnealingLR" else {}


def _scheduler_dict(made: Any, words: dict[str, Any], name: str) -> dict[str, Any]:
    """Return Lightning's dict for a scheduler, or complete the user's own dict."""
    if isinstance(made, dict) and "scheduler" in made:
        if unknown := [key for key in made if key not in ("scheduler", "opt_idx", *CONFIG_KEYS)]:
            raise FlashError(f"in lr_scheduler: {unknown_name('word', str(unknown[0]), CONFIG_KEYS)}")
        words = words | {key: value for key, value in made.items() if key not in ("scheduler", "opt_idx")}
        made = made["scheduler"]
    if not callable(getattr(made, "step", None)) or isinstance(made, Optimizer):
        raise FlashError(
            f"the lr_scheduler {name} returned {type(made).__name__}; expected a scheduler, or Lightning's dict "
            "with one as 'scheduler'"
        )
    if words["interval"] not in ("step", "epoch"):
        raise FlashError(
            f"the interval {words['interval']!r} of lr_scheduler is not understood; 'step' or 'epoch'"
        )
    if isinstance(made, lr_scheduler.MultiStepLR):
        # a checkpoint can contain a dict but not a Counter; `step()` accepts both
        made.milestones = dict(made.milestones)  # type: ignore[assignment]
    if isinstance(made, lr_scheduler.ReduceLROnPlateau) and not words.get("monitor"):
        words = words | {"monitor": "val_loss"}
    return {
        "scheduler": made,
        "frequency": 1,
        **{key: value for key, value in words.items() if value is not None},
    }


# ---- both -------------------------------------------------------------------------------------------------------


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` in the spelling of `known`."""
    spelled = {each.lower(): each for each in known}
    if name.lower() not in spelled:
        raise FlashError(unknown_name(kind, name, spelled.values()))
    return spelled[name.lower()]


def _takes(function: Callable[..., Any], argument: str) -> bool:
    """Whether a callable has this argument; True if its signature is unknown."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return argument in parameters or any(each.kind == each.VAR_KEYWORD for each in parameters.values())


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)


def _check_learning_rate(learning_rate: float) -> None:
    if not 0 < learning_rate < float("inf"):
        raise FlashError(f"learning_rate={learning_rate!r} is not a number above 0; pass one such as 1e-4")
