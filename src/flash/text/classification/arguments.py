"""Convert arguments of a classifier to plain values, which it works with and a model file can contain."""

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from flash.core.errors import FlashError, unknown_name


def plain_value(value: Any) -> Any:
    """Convert numbers and arrays of NumPy, torch and others to Python's, also inside lists, tuples and dicts."""
    if hasattr(value, "tolist") and not isinstance(value, type):
        return plain_value(value.tolist())
    if type(value) in (list, tuple):
        return type(value)(plain_value(item) for item in value)
    if isinstance(value, Mapping):
        return {plain_value(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, Real) and not isinstance(value, int | float):
        return float(value)  # such as a Fraction
    return value


def label_names(labels: Sequence[str] | None, num_classes: int | None) -> list[str]:
    """Return L distinct label names from the user's `labels` or `num_classes`."""
    if labels is None and num_classes is None:
        raise FlashError("a classifier needs its labels; pass labels=datamodule.labels, or num_classes=")
    if (
        isinstance(labels, str | Path) and num_classes is not None
    ):  # Lightning Flash 0.6 had the backbone second
        raise FlashError(
            f"labels={str(labels)!r} is one text; pass backbone={str(labels)!r} by name: "
            f"TextClassifier(num_classes={num_classes}, backbone={str(labels)!r})"
        )
    names = [str(index) for index in range(num_classes or 0)] if labels is None else plain_value(list(labels))
    if isinstance(labels, str) or not names or not all(isinstance(name, str) and name for name in names):
        raise FlashError(
            f"labels must be a list of one or more names; found {labels!r}, num_classes={num_classes}"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise FlashError(f"labels repeat: {some_names(repeated)}; each column needs a name of its own")
    if num_classes not in (None, len(names)):
        raise FlashError(
            f"num_classes={num_classes} but there are {len(names)} labels; leave num_classes out"
        )
    return names


def some_names(names: Sequence[str]) -> str:
    """Format the first names, and how many more there are."""
    more = f", and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def option_value(name: str, value: Any, labels: Sequence[str]) -> Any:
    """Convert an option of the backbone; a dict by label becomes a tuple in label order, with 1.0 for missing labels."""
    if not isinstance(value, Mapping):
        return plain_value(value)
    for label in value:
        if label not in set(labels):
            raise FlashError(f"{name}: {unknown_name('label', str(label), labels)}")
    return tuple(plain_value(value.get(label, 1.0)) for label in labels)
