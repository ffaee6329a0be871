"""The user's own metrics: torchmetrics objects, or functions of probabilities and targets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
from torchmetrics import Metric, MetricCollection

from flash.core.errors import FlashError

Function: TypeAlias = Callable[[torch.Tensor, torch.Tensor], Any]
OneMetric: TypeAlias = Metric | Function
Metrics: TypeAlias = OneMetric | Mapping[str, OneMetric] | Sequence[OneMetric] | None


class OwnMetrics(torch.nn.Module):
    """The user's metrics for one stage, with their own state.

    Args:
        metrics: a metric, a function, or a list or dict of them. The logged name is the dict's key, otherwise the name
            of the class, or the name of the function in lower case.
        stage: prefix of each name: "val" or "test".

    Raises:
        FlashError: another type, or two metrics with the same name.
    """

    def __init__(self, metrics: Metrics, stage: str) -> None:
        super().__init__()
        self.stage = stage
        given = _named(metrics)
        if isinstance(given, MetricCollection):
            given = dict(given.items())
        own = {name: metric for name, metric in given.items() if isinstance(metric, Metric)}
        self.collection = MetricCollection(cast(Any, own)).clone(prefix=f"{stage}_")
        self.functions = {f"{stage}_{name}": cast(Function, given[name]) for name in given if name not in own}

    @property
    def names(self) -> list[str]:
        """The logged names, without the label suffix of metrics that return one number per label."""
        return [*map(str, self.collection.keys()), *self.functions]

    def ignored(self) -> int:
        """Return the target that all metrics ignore (`ignore_index`), which they get for an unknown target.

        Raises:
            FlashError: a metric ignores no target, or another one than the other metrics.
        """
        every: dict[str, Any] = {**dict(self.collection.items()), **self.functions}
        found = {name: _ignored(metric) for name, metric in every.items()}
        first = next(iter(found.values()), -1)
        for name, value in found.items():
            if not isinstance(value, int) or value != first:
                told = "no target" if value is None else f"the target {value}"
                raise FlashError(
                    f"some targets are not known, and the metric {name!r} ignores {told}; give each of metrics= "
                    "ignore_index=-1, which they then get where a target is not known, or leave metrics= out"
                )
        return int(first)

    def scores(
        self, probabilities: torch.Tensor, targets: torch.Tensor, labels: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Compute each metric, by name; a metric with L numbers gets one entry per label.

        Args:
            probabilities: (N, L).
            targets: (N, L) 0/1 integers, or (N,) class indices of a single-label task.
            labels: L names.

        Raises:
            FlashError: a function returned neither one number nor L numbers.
        """
        found = {}
        if len(self.collection):
            self.collection.update(probabilities, targets)
            found = dict(self.collection.compute())
            self.collection.reset()
        for name, function in self.functions.items():
            found[name] = _numbers(function(probabilities, targets), name, len(labels))
        scores: dict[str, torch.Tensor] = {}
        for name, value in found.items():
            if value.ndim == 0:
                scores[name] = value
            else:
                scores |= {f"{name}/{label}": score for label, score in zip(labels, value, strict=True)}
        return scores


def _named(metrics: Metrics) -> dict[str, OneMetric]:
    if metrics is None:
        return {}
    if isinstance(metrics, Mapping):  # or a MetricCollection
        return {str(name): _checked(metric) for name, metric in metrics.items()}
    given = list(metrics) if isinstance(metrics, Sequence) and not isinstance(metrics, str) else [metrics]
    named: dict[str, OneMetric] = {}
    for metric in map(_checked, given):
        name = type(metric).__name__ if isinstance(metric, Metric) else _function_name(metric)
        if name in named:
            raise FlashError(
                f"two metrics are called {name!r}; pass a dict with a name for each: metrics={{'a': ..., 'b': ...}}"
            )
        named[name] = metric
    return named


def _checked(metric: Any) -> OneMetric:
    if isinstance(metric, type):
        raise FlashError(f"the metric {metric.__name__} is a class; pass an object of it")
    if not callable(metric):
        raise FlashError(
            f"the metric {metric!r} is not understood; expected an object of torchmetrics, a function of (N, L) "
            "probabilities and targets, or a list or dict of them"
        )
    return cast(OneMetric, metric)


def _ignored(metric: Any) -> Any:
    """Return a metric's `ignore_index`, or that of a function's `functools.partial`."""
    return getattr(metric, "ignore_index", getattr(metric, "keywords", {}).get("ignore_index"))


def _function_name(function: Any) -> str:
    """Return the name under which Lightning Flash logged a function."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__)).lower()


def _numbers(value: Any, name: str, labels: int) -> torch.Tensor:
    try:
        numbers = torch.as_tensor(value, dtype=torch.float32).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.empty(0)
    if numbers.numel() == 1 and labels != 1:
        return numbers.reshape(())
    if numbers.ndim == 0 or numbers.shape == (labels,):
        return numbers
    found = tuple(value.shape) if hasattr(value, "shape") else type(value).__name__
    raise FlashError(
        f"the metric {name!r} gave {found}; expected one number, or {labels} of them in the order of the labels"
    )
