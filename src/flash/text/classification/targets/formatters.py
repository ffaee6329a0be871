"""Lightning Flash's target formatters: objects that describe how targets are written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from flash.core.errors import FlashError


@dataclass
class TargetFormatter:
    """How targets are written; passed as `target_formatter=` to `TextClassificationData.from_*`.

    Args:
        labels: L names, in the order of the columns; None takes them from the training rows.
        num_classes: L, if class indices have no names.
    """

    multi_label: ClassVar[bool | None] = None
    label_delimiter: ClassVar[str | None] = None
    labels: Sequence[str] | None = None
    num_classes: int | None = None

    def options(self) -> dict[str, Any]:
        """Return the equivalent options of a datamodule.

        Raises:
            FlashError: the formatter is a class of the user, which cannot be expressed by options.
        """
        if type(self) not in FORMATTERS:
            raise FlashError(
                f"target_formatter={type(self).__name__}() is of your own, and targets are read without code; write them "
                "as label names before, such as labels joined by a comma, and leave target_formatter out"
            )
        told: dict[str, Any] = {"multi_label": self.multi_label, "label_delimiter": self.label_delimiter}
        if self.labels is not None:
            told["labels"] = list(self.labels)
        else:
            told["num_classes"] = self.num_classes
        return {name: value for name, value in told.items() if value is not None}


class SingleNumericTargetFormatter(TargetFormatter):
    """One class index per row."""

    multi_label = False


class SingleLabelTargetFormatter(TargetFormatter):
    """One name per row."""

    multi_label = False


class SingleBinaryTargetFormatter(TargetFormatter):
    """A list with a single 1 per row."""

    multi_label = False


class MultiNumericTargetFormatter(TargetFormatter):
    """A list of class indices per row."""

    multi_label = True


class MultiLabelTargetFormatter(TargetFormatter):
    """A list of names per row."""

    multi_label = True


class CommaDelimitedMultiLabelTargetFormatter(TargetFormatter):
    """Names joined by commas."""

    multi_label = True
    label_delimiter = ","


class SpaceDelimitedTargetFormatter(TargetFormatter):
    """Names joined by spaces."""

    multi_label = True
    label_delimiter = " "


class MultiBinaryTargetFormatter(TargetFormatter):
    """A list of 0 and 1, one per label."""

    multi_label = True


class MultiSoftTargetFormatter(TargetFormatter):
    """A list of numbers from 0 to 1, one per label."""

    multi_label = True


FORMATTERS = (
    CommaDelimitedMultiLabelTargetFormatter,
    MultiBinaryTargetFormatter,
    MultiLabelTargetFormatter,
    MultiNumericTargetFormatter,
    MultiSoftTargetFormatter,
    SingleBinaryTargetFormatter,
    SingleLabelTargetFormatter,
    SingleNumericTargetFormatter,
    SpaceDelimitedTargetFormatter,
)
"""The ways of writing targets that a datamodule reads."""
