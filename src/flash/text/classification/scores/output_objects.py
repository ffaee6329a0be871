"""Lightning Flash's output classes: what a prediction is given as, as objects in place of names.

`LabelsOutput(threshold=0.3)` is `output="labels"` with thresholds of its own. Imports neither torch nor lightning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from flash.core.errors import FlashError


class Output:
    """A user's own output: `transform` is given each row of (L,) float32 logits, as in Lightning Flash.

    `flash.Trainer` gives it torch tensors, and `Predictor` NumPy arrays.
    """

    @classmethod
    def from_task(cls, task: Any, **_kwargs: Any) -> "Output":
        """An output for a model; here the model's labels are taken from it when it predicts."""
        return cls()

    def transform(self, sample: Any) -> Any:
        """What becomes of one row's logits; the row itself unless overridden."""
        return sample

    def __call__(self, sample: Any) -> Any:
        """The same as `transform`."""
        return self.transform(sample)


@dataclass(frozen=True)
class ClassificationOutput(Output):
    """An output by name.

    Args:
        multi_label: Lightning Flash's; the model knows whether it is multi-label, and this is not asked.
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
        """Refused: what a row becomes depends on the model's labels and thresholds.

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
    """Refused: FiftyOne shows images, and its labels are not made here.

    Raises:
        FlashError: always.
    """

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise FlashError(
            "FiftyOneLabelsOutput is not here: FiftyOne's labels belong to images; pass output='labels' or "
            "output='probabilities'"
        )


def names_in_force(output: ClassificationOutput, labels: Sequence[str]) -> Sequence[str]:
    """The output's own names, or the model's.

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
