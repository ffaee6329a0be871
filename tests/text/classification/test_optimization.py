"""Optimisers, groups and schedules, against torch's own and those of transformers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from flash.core.errors import FlashError
from flash.core.finetuning import STRATEGIES
from flash.text.classification.checkpoint import check_keepable
from flash.text.classification.optimization import (
    DEFAULT_LEARNING_RATES,
    FUSED,
    OPTIMIZERS,
    SCHEDULERS,
    SCHEDULES,
    default_learning_rate,
    make_optimizer,
    make_schedule,
    own_options,
    parameter_groups,
)

Layers = list[list[nn.Parameter]]


@pytest.fixture
def layers() -> Layers:
    """Embeddings, two blocks and a head; the blocks have a matrix, a bias and a normalisation's weight."""

    def block() -> list[nn.Parameter]:
        return [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]

    return [[nn.Parameter(torch.ones(5, 2))], block(), block(), [nn.Parameter(torch.ones(3, 2))]]


def adamw(rate: float = 1.0) -> Optimizer:
    return torch.optim.AdamW([nn.Parameter(torch.ones(2))], lr=rate)


def rates(schedule: dict[str, Any], steps: int) -> list[float]:
    """The learning rate in force in each of the steps."""
    scheduler = schedule["scheduler"]
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


# ---- groups


def test_one_rate_gives_two_groups(layers: Layers) -> None:
    decayed, others = parameter_groups(layers, learning_rate=0.1, weight_decay=0.5)
    assert (decayed["lr"], decayed["weight_decay"]) == (0.1, 0.5)
    assert (others["lr"], others["weight_decay"]) == (0.1, 0.0)
    assert {id(each) for each in decayed["params"]} == {
        id(each) for part in layers for each in part if each.ndim > 1
    }
    assert {id(each) for each in others["params"]} == {id(each) for part in layers[1:3] for each in part[1:]}


def test_decay_by_layer(layers: Layers) -> None:
    groups = parameter_groups(layers, learning_rate=0.1, layer_decay=0.5)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    found = [{rate[id(parameter)] for parameter in layer} for layer in layers]
    assert [each.pop() for each in found] == pytest.approx([0.0125, 0.025, 0.05, 0.1])
    assert not any(found)  # all of a layer have one rate


def test_a_shared_parameter_is_there_once(layers: Layers) -> None:
    groups = parameter_groups([*layers[:-1], layers[0]], learning_rate=0.1, layer_decay=0.5)
    torch.optim.AdamW(groups)  # refuses a parameter that is there twice
    assert [group["lr"] for group in groups if layers[0][0] in set(group["params"])] == [0.1]


def test_frozen_parameters_are_there_unless_asked_not_to(layers: Layers) -> None:
    for parameter in layers[1]:
        parameter.requires_grad = False
    every = parameter_groups(layers, learning_rate=0.1)
    some = parameter_groups(layers, learning_rate=0.1, trainable_only=True)
    assert [len(group["params"]) for group in every] == [4, 4]
    assert [len(group["params"]) for group in some] == [3, 2]


def test_a_frozen_parameter_stays_as_it_is(layers: Layers) -> None:
    frozen, head = layers[0][0], layers[-1][0]
    frozen.requires_grad = False
    optimizer = make_optimizer("adamw", parameter_groups(layers, learning_rate=0.1), 0.1)
    sum((parameter.sum() for layer in layers for parameter in layer), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert torch.equal(frozen, torch.ones(5, 2))  # no weight decay either
    assert not torch.equal(head, torch.ones(3, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0}, "learning_rate=0 is not a number above 0; pass one such as 1e-4"),
        ({"learning_rate": math.nan}, "learning_rate=nan is not a number above 0"),
        ({"layer_decay": 1.1}, "layer_decay=1.1 is not above 0 and at most 1"),
        ({"weight_decay": -1}, "weight_decay=-1 is not a number from 0 on"),
    ],
)
def test_numbers_out_of_range(layers: Layers, options: dict[str, Any], words: str) -> None:
    with pytest.raises(FlashError) as error:
        parameter_groups(layers, **{"learning_rate": 0.1, **options})
    assert words in str(error.value)


def test_nothing_to_train(layers: Layers) -> None:
    for layer in layers:
        for parameter in layer:
            parameter.requires_grad = False
    with pytest.raises(FlashError, match="there is no parameter to train; unfreeze a layer"):
        parameter_groups(layers, learning_rate=0.1, trainable_only=True)


# ---- optimisers


def mine(parameters: Any) -> Optimizer:
    return torch.optim.SGD(parameters, momentum=0.5)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        ("AdamW", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("RMSPROP", torch.optim.RMSprop),
        (torch.optim.SGD, torch.optim.SGD),
        (partial(torch.optim.SGD, momentum=0.9, lr=5), torch.optim.SGD),
        (("SGD", {"momentum": 0.9}), torch.optim.SGD),
        (mine, torch.optim.SGD),
        (lambda parameters, lr: torch.optim.Adagrad(parameters, lr), torch.optim.Adagrad),
        (lambda *args, **kwargs: torch.optim.AdamW(*args, **kwargs), torch.optim.AdamW),
    ],
)
def test_choices_of_an_optimizer(layers: Layers, optimizer: Any, kind: type[Optimizer]) -> None:
    groups = parameter_groups(layers, learning_rate=0.1, layer_decay=0.5)
    made = make_optimizer(optimizer, groups, 0.1)
    assert type(made) is kind
    assert [group["lr"] for group in made.param_groups] == [group["lr"] for group in groups]
    assert [group["weight_decay"] for group in made.param_groups] == [
        group["weight_decay"] for group in groups
    ]


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_step_is_the_same_step(name: str) -> None:
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(20, 30)
        groups = parameter_groups([list(model.parameters())], learning_rate=0.1)
        made = make_optimizer(name, groups, 0.1, fused=fused)
        assert bool(made.defaults["fused"]) == fused
        for _ in range(5):
            made.zero_grad()
            model(torch.randn(8, 20)).square().mean().backward()
            made.step()
        ends.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "optimizer",
    [
        ("AdamW", {"foreach": True}),
        ("AdamW", {"fused": False}),
        "RMSprop",
        mine,
        partial(torch.optim.AdamW, lr=1, foreach=True),
    ],
)
def test_the_user_says_how_to_step(optimizer: Any) -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))]}]
    made = make_optimizer(optimizer, groups, 0.1, fused=True)
    assert not made.defaults.get("fused")


def test_further_arguments_arrive() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))]}]
    made = make_optimizer(("sgd", {"momentum": 0.9}), groups, 0.25)
    assert (made.param_groups[0]["momentum"], made.param_groups[0]["lr"]) == (0.9, 0.25)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("LBFGS", "SparseAdam", "Muon")])
def test_torchs_optimizers_by_name_make_a_step(layers: Layers, name: str) -> None:
    made = make_optimizer(name, parameter_groups(layers, learning_rate=0.1), 0.1)
    sum((parameter.sum() for layer in layers for parameter in layer), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    made.step()
    assert not torch.equal(layers[-1][0], torch.ones(3, 2))


SCHEDULE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1, 3]},
    "ExponentialLR": {"gamma": 0.9},
    "LambdaLR": {"lr_lambda": lambda step: 0.9**step},
    "MultiplicativeLR": {"lr_lambda": lambda step: 0.9},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1},
}


def unfreeze_later(layers: Layers, optimizer: Any, schedule: Any = None) -> None:
    """Steps with gradients of the head alone, then of the last block too, then of all layers; each layer must move."""
    made = make_optimizer(
        optimizer, parameter_groups(layers, learning_rate=0.1), 0.1, fused=True, unfreezes=True
    )
    scheduler = make_schedule(schedule, made, total_steps=6)["scheduler"]
    for first in (3, 3, 2, 2, 0, 0):
        made.zero_grad()
        for parameter in (parameter for layer in layers[first:] for parameter in layer):
            parameter.grad = torch.full_like(parameter, 0.5)
        made.step()
        scheduler.step(*([0.5] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
    for layer in layers:
        assert all(not torch.equal(parameter, torch.ones_like(parameter)) for parameter in layer)


@pytest.mark.parametrize(
    "optimizer",
    [
        *(name for name in OPTIMIZERS if name not in ("LBFGS", "SparseAdam", "Muon")),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("RMSprop", {"momentum": 0.9}),
        ("Adam", {"amsgrad": True}),
    ],
)
def test_every_optimizer_takes_layers_that_unfreeze_later(layers: Layers, optimizer: Any) -> None:
    unfreeze_later(layers, optimizer)


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", ("SGD", {"momentum": 0.9})])
@pytest.mark.parametrize("name", [*SCHEDULES, *SCHEDULERS])
def test_every_schedule_takes_layers_that_unfreeze_later(layers: Layers, name: str, optimizer: Any) -> None:
    arguments = SCHEDULE_ARGUMENTS.get(name, {})
    unfreeze_later(layers, optimizer, (name, arguments) if arguments else name)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("AdamW", {"weight_decay": 0.01}),
        ("Adam", {"weight_decay": 0.0}),
        (torch.optim.SGD, {"weight_decay": 0.0}),
        (partial(partial(torch.optim.AdamW, lr=1), weight_decay=0.3), {"weight_decay": 0.3, "lr": 1.0}),
        (("AdamW", {"lr": 0.5}), {"weight_decay": 0.01, "lr": 0.5}),
        (mine, {}),
    ],
)
def test_what_a_choice_says_itself(optimizer: Any, options: dict[str, float]) -> None:
    assert own_options(optimizer) == options


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("AdmW", "unknown optimizer 'AdmW'; did you mean 'AdamW'? Known: "),
        (3, "the optimizer 3 is not understood; expected a name such as 'AdamW', a class, functools.partial"),
        (("SGD", 0.1), "the optimizer ('SGD', 0.1) is not understood; expected (name, {its arguments})"),
        (("SGD", {"momentun": 0.9}), "the optimizer SGD cannot be made: "),
        ("LBFGS", "the optimizer LBFGS cannot be made: "),
        ("Muon", "the optimizer Muon cannot be made: "),
        ("sparseadam", "takes sparse gradients only, and an encoder's are dense; pass 'Adam'"),
        (lambda parameters: None, "returned NoneType; expected a torch.optim.Optimizer of the groups"),
        (adamw(), "is an object of AdamW, which knows no parameters of this model; pass the name 'AdamW'"),
    ],
)
def test_optimizer_mistakes_are_sentences(layers: Layers, optimizer: Any, words: str) -> None:
    with pytest.raises(FlashError) as error:
        make_optimizer(optimizer, parameter_groups(layers, learning_rate=0.1), 0.1)
    assert words in str(error.value)


def test_every_strategy_has_a_learning_rate() -> None:
    assert DEFAULT_LEARNING_RATES.keys() == STRATEGIES.keys()


def test_learning_rates_suit_the_encoder_and_the_strategy() -> None:
    rate = DEFAULT_LEARNING_RATES["no_freeze"]
    widths = (384, 768, 1024, 16)
    expected = pytest.approx([rate, rate / 4, rate * 9 / 64, 5e-4])
    for strategy in ("no_freeze", "freeze_unfreeze", "unfreeze_milestones", "of the user's own"):
        assert [default_learning_rate(strategy, width) for width in widths] == expected
    expected = pytest.approx([2e-3, 5e-4, 2e-3 * 9 / 64, 2e-3 * 5 / 3])
    assert [default_learning_rate("lora", width) for width in widths] == expected
    assert {default_learning_rate("freeze", width) for width in widths} == {DEFAULT_LEARNING_RATES["freeze"]}


# ---- schedules


def test_linear_by_hand() -> None:
    """Ten steps, two of them warm-up: thirds up, then eighths down."""
    for choice in (
        None,
        "linear",
        ("LINEAR", {"num_warmup_steps": 2}),
        ("linear", {"num_warmup_steps": 0.2}),
    ):
        schedule = make_schedule(choice, adamw(), total_steps=10, warmup=0.2)
        assert (schedule["interval"], schedule["frequency"]) == ("step", 1)
        assert rates(schedule, 10) == pytest.approx(
            [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
        )


@pytest.mark.parametrize("name", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_as_transformers_after_the_warmup(name: str, warmup: int) -> None:
    get_scheduler = pytest.importorskip("transformers").get_scheduler
    peer = get_scheduler(name, adamw(0.3), num_warmup_steps=warmup, num_training_steps=50)
    for ours in (name, f"{name.removesuffix('_with_warmup')}_schedule_with_warmup"):
        found = rates(make_schedule((ours, {"num_warmup_steps": warmup}), adamw(0.3), total_steps=50), 50)
        assert found[:warmup] == pytest.approx([0.3 * step / (warmup + 1) for step in range(1, warmup + 1)])
        if ours == name:
            expected = rates({"scheduler": peer}, 50)
        assert found[warmup:] == pytest.approx(expected[warmup:])


def test_warmup_is_a_share_of_the_steps_by_default() -> None:
    found = rates(make_schedule("constant_with_warmup", adamw(), total_steps=100), 100)
    assert sum(rate < 1 for rate in found) == 6
    assert rates(make_schedule("constant", adamw(), total_steps=100), 3) == [1, 1, 1]


def test_groups_keep_their_ratios() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (1.0, 0.1)]
    optimizer = torch.optim.AdamW(groups)
    schedule = make_schedule("cosine", optimizer, total_steps=20)
    for _ in range(10):
        optimizer.step()
        schedule["scheduler"].step()
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert 0 < first < 1
    assert second == pytest.approx(first / 10)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_fit_of_few_steps(name: str, steps: int) -> None:
    found = rates(make_schedule(name, adamw(), total_steps=steps), steps + 2)  # and some more than was said
    assert all(0 <= rate <= 1 for rate in found)
    assert found[0] > 0


@pytest.mark.parametrize(
    ("choice", "peer", "interval"),
    [
        (("StepLR", {"step_size": 3}), lambda each: lr_scheduler.StepLR(each, 3), "step"),
        (("exponentiallr", {"gamma": 0.5}), lambda each: lr_scheduler.ExponentialLR(each, 0.5), "epoch"),
        (
            ("MultiStepLR", {"milestones": [2, 5]}),
            lambda each: lr_scheduler.MultiStepLR(each, [2, 5]),
            "step",
        ),
        (
            ("exponentiallr", {"gamma": 0.5}, {"interval": "step", "opt_idx": None}),
            lambda each: lr_scheduler.ExponentialLR(each, 0.5),
            "step",
        ),
        ("cosineannealinglr", lambda each: lr_scheduler.CosineAnnealingLR(each, 10), "step"),
        (("CosineAnnealingLR", {"T_max": 5}), lambda each: lr_scheduler.CosineAnnealingLR(each, 5), "step"),
        (
            ("OneCycleLR", {"max_lr": 2.0}),
            lambda each: lr_scheduler.OneCycleLR(each, 2.0, total_steps=10),
            "step",
        ),
        ("onecyclelr", lambda each: lr_scheduler.OneCycleLR(each, 1.0, total_steps=10), "step"),
        (partial(lr_scheduler.StepLR, step_size=2), lambda each: lr_scheduler.StepLR(each, 2), "epoch"),
        ((lr_scheduler.StepLR, {"step_size": 2}), lambda each: lr_scheduler.StepLR(each, 2), "epoch"),
        (
            lambda each: {"scheduler": lr_scheduler.StepLR(each, 4), "interval": "step", "frequency": 2},
            lambda each: lr_scheduler.StepLR(each, 4),
            "step",
        ),
    ],
)
def test_torchs_schedulers(choice: Any, peer: Callable[[Optimizer], Any], interval: str) -> None:
    schedule = make_schedule(choice, adamw(), total_steps=10)
    assert schedule["interval"] == interval
    assert schedule["frequency"] == (2 if callable(choice) and isinstance(choice(adamw()), dict) else 1)
    assert rates(schedule, 9) == pytest.approx(rates({"scheduler": peer(adamw())}, 9))
    assert "opt_idx" not in schedule


def test_a_plateau_is_one_of_the_validation_loss() -> None:
    schedule = make_schedule("ReduceLROnPlateau", adamw(), total_steps=10)
    assert (schedule["monitor"], schedule["interval"]) == ("val_loss", "epoch")
    other = make_schedule(("ReduceLROnPlateau", {"mode": "max"}, {"monitor": "f1"}), adamw(), total_steps=10)
    assert (other["monitor"], other["scheduler"].mode) == ("f1", "max")


def test_no_scheduler_of_other_schedulers_by_name() -> None:
    assert "StepLR" in SCHEDULERS
    assert not SCHEDULERS.keys() & {"LRScheduler", "_LRScheduler", "ChainedScheduler", "SequentialLR"}


@pytest.mark.parametrize(
    "name", [*SCHEDULES, "CosineAnnealingLR", "ReduceLROnPlateau", ("MultiStepLR", {"milestones": [2, 5]})]
)
def test_the_state_is_of_plain_values(name: Any) -> None:
    """A checkpoint holds nothing else; and with another length of the fit, it goes on with that one."""
    schedule = make_schedule(name, adamw(), total_steps=10)
    if name != "ReduceLROnPlateau":
        rates(schedule, 4)
    state = schedule["scheduler"].state_dict()
    check_keepable(state, "the schedule")
    resumed = make_schedule(name, adamw(), total_steps=10)
    resumed["scheduler"].load_state_dict(state)
    assert resumed["scheduler"].state_dict() == state


def test_resume_in_a_longer_fit() -> None:
    schedule = make_schedule("linear", adamw(), total_steps=10, warmup=0)
    rates(schedule, 10)
    longer = make_schedule("linear", adamw(), total_steps=20, warmup=0)
    longer["scheduler"].load_state_dict(schedule["scheduler"].state_dict())
    longer["scheduler"].step()
    assert longer["scheduler"].get_last_lr() == pytest.approx([9 / 20])


@pytest.mark.parametrize("choice", ["constant", ("constant_with_warmup", {"num_warmup_steps": 2})])
def test_constant_without_an_end(choice: Any) -> None:
    assert rates(make_schedule(choice, adamw(), total_steps=math.inf), 4)[-1] == 1


@pytest.mark.parametrize("choice", [None, "cosine", "constant_with_warmup"])
def test_others_need_an_end(choice: str | None) -> None:
    with pytest.raises(FlashError, match="needs to know when the fit ends; pass max_epochs= or max_steps="):
        make_schedule(choice, adamw(), total_steps=math.inf)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("cosin", "unknown learning rate schedule 'cosin'; did you mean 'cosine'? Known: cosine, linear"),
        (("steplr2", {}), "unknown learning rate schedule 'steplr2'"),
        (
            ("linear", 0.1),
            "the lr_scheduler ('linear', 0.1) is not understood; expected (name, {its arguments})",
        ),
        (("linear",), "is not understood; expected (name, {its arguments})"),
        (7, "the lr_scheduler 7 is not understood; expected a name such as 'cosine', a callable"),
        (
            ("linear", {"warmup": 3}),
            "schedule 'linear' takes no 'warmup'; its one argument is num_warmup_steps",
        ),
        (("linear", {"num_warmup_steps": -1}), "the warm-up -1 is not understood; expected a share below 1"),
        (("linear", {"num_warmup_steps": True}), "the warm-up True is not understood"),
        ("StepLR", "the learning rate schedule StepLR cannot be made: "),
        ("StepLR", "; pass its arguments: ('StepLR', {...})"),
        (
            lambda optimizer: 3,
            "returned int; expected a scheduler, or Lightning's dict with one as 'scheduler'",
        ),
        (lambda optimizer: optimizer, "returned AdamW; expected a scheduler"),
        (
            ("linear", {}, {"intervall": "step"}),
            "in lr_scheduler: unknown word 'intervall'; did you mean 'interval'",
        ),
        (
            ("linear", {}, {"interval": "batch"}),
            "the interval 'batch' of lr_scheduler is not understood; 'step' or",
        ),
        (
            lambda optimizer: {"scheduler": lr_scheduler.StepLR(optimizer, 1), "monitr": "x"},
            "in lr_scheduler: unknown word 'monitr'; did you mean 'monitor'",
        ),
    ],
)
def test_schedule_mistakes_are_sentences(choice: Any, words: str) -> None:
    with pytest.raises(FlashError) as error:
        make_schedule(choice, adamw(), total_steps=10)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "function"),
    [
        (
            "cosine_with_hard_restarts_schedule_with_warmup",
            {"num_cycles": 2},
            "get_cosine_with_hard_restarts_schedule_with_warmup",
        ),
        (
            "polynomial_decay_schedule_with_warmup",
            {"power": 2.0},
            "get_polynomial_decay_schedule_with_warmup",
        ),
    ],
)
def test_schedules_of_transformers_by_name(name: str, options: dict[str, Any], function: str) -> None:
    transformers = pytest.importorskip("transformers")

    def rates(make: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = make(optimizer)
        found = []
        for _ in range(20):
            optimizer.step()
            schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    ours = rates(
        lambda optimizer: make_schedule(
            (name, {"num_warmup_steps": 4, **options}), optimizer, total_steps=20, warmup=0.1
        )["scheduler"]
    )
    theirs = rates(
        lambda optimizer: getattr(transformers, function)(
            optimizer, num_warmup_steps=4, num_training_steps=20, **options
        )
    )
    assert ours[4:] == pytest.approx(theirs[4:], abs=1e-5)  # in the warm-up ours is a step ahead
    with pytest.raises(FlashError, match=f"its arguments are num_warmup_steps, {next(iter(options))}"):
        rates(lambda optimizer: make_schedule((name, {"steps": 1}), optimizer, total_steps=20))
