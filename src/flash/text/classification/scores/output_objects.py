"""Lightning Flash's output classes: the form of predictions, as objects instead of names.

`LabelsOutput(threshold=0.3)` is `output="labels"` with its own threshold. Imports neither torch nor lightning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from flash.core.errors import FlashError


class Output:
    """Base class of the user's own outputs: `transform` gets each row of (L,) float32 logits, as in Lightning Flash.

    With `flash.Trainer` the rows are torch tensors, with `Predictor` NumPy arrays.
    """

    @classmethod
    def from_task(cls, task: Any, **_kwargs: Any) -> "Output":
        """Create an output for a task; the task's labels are only read at prediction."""
        return cls()

    def transform(self, sample: Any) -> Any:
        """Convert one row's logits; returns them unchanged unless overridden."""
        return sample

    def __call__(self, sample: Any) -> Any:
        """Call `transform`."""
        return self.transform(sample)


@dataclass(frozen=True)
class ClassificationOutput(Output):
    """An output by name.

    Args:
        multi_label: accepted for Lightning Flash's scripts and ignored: the model knows whether it is multi-label.
    """

    name: ClassVar[str] = "preds"
    multi_label: bool | None = None

    @property
    def thresholds(self) -> float | None:
        """In place of the model's own."""
        return None

    @property
    def names(self) -> Sequence[str] | None:
        """In place of the model's labels."""
        return None

    def transform(self, sample: Any) -> Any:
        """Raise an error: the conversion depends on the model's labels and thresholds.

        Raises:
            FlashError: always.
        """
        kind = type(self).__name__
        raise FlashError(
            f"{kind}() alone knows no thresholds and no labels; pass it to a prediction: "
            f"trainer.predict(model, datamodule=datamodule, output={kind}()), or set model.output = {kind}()"
        )


class PredsClassificationOutput(ClassificationOutput):
    """The same as `output="preds"`: logits."""


class LogitsOutput(ClassificationOutput):
    """The same as `output="logits"`."""

    name = "logits"


class ProbabilitiesOutput(ClassificationOutput):
    """The same as `output="probabilities"`."""

    name = "probabilities"


@dataclass(frozen=True)
class ClassesOutput(ClassificationOutput):
    """The same as `output="classes"`: column indices.

    Args:
        threshold: from which probability on a label applies, for all labels; None for the model's own thresholds.
    """

    name: ClassVar[str] = "classes"
    threshold: float | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if self.threshold is not None and not (number and 0 <= self.threshold <= 1):
            raise FlashError(
                f"threshold={self.threshold!r} of {type(self).__name__} is no probability; pass a number in [0, 1], or "
                "leave it out for the model's own thresholds"
            )

    @property
    def thresholds(self) -> float | None:
        """In place of the model's own."""
        return self.threshold


@dataclass(frozen=True, init=False)
class LabelsOutput(ClassesOutput):
    """The same as `output="labels"`.

    Args:
        labels: L names in place of the model's.
        threshold: from which probability on a label applies, for all labels; None for the model's own thresholds.
    """

    name: ClassVar[str] = "labels"
    labels: tuple[str, ...] | None = None

    def __init__(
        self,
        labels: Sequence[str] | None = None,
        multi_label: bool | None = None,
        threshold: float | None = None,
    ) -> None:
        super().__init__(multi_label, threshold)
        object.__setattr__(self, "labels", None if labels is None else tuple(labels))

    @property
    def names(self) -> Sequence[str] | None:
        """In place of the model's labels."""
        return self.labels


class FiftyOneLabelsOutput(ClassificationOutput):
    """Not supported: FiftyOne's labels are for images.

    Raises:
        FlashError: always.
    """

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise FlashError(
            "FiftyOneLabelsOutput is not here: FiftyOne's labels belong to images; pass output='labels' or "
            "output='probabilities'"
        )


def names_in_force(output: ClassificationOutput, labels: Sequence[str]) -> Sequence[str]:
    """Return the output's own label names, or the model's.

    Raises:
        FlashError: the output has another number of names.
    """
    if output.names is None:
        return labels
    if len(output.names) != len(labels):
        raise FlashError(
            f"{type(output).__name__} has {len(output.names)} labels and the model {len(labels)}; leave labels= out "
            "for the model's own"
        )
    return output.names
