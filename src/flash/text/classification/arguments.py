"""Convert arguments of a classifier to plain values, which it works with and a model file can contain."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from flash.core.errors import FlashError, unknown_name

RENAMED = {"regularization": "C", "positive_weight": "pos_weight"}
"""Options of the linear backbone by their names in version 0.1.0, which are taken for one release more, and since."""


def current_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, or parts of a saved state, under the names of today, in the same order."""
    return {RENAMED.get(name, name): value for name, value in options.items()}


def take_earlier_names(options: Mapping[str, Any], written: str = "{}=") -> dict[str, Any]:
    """Options that a user wrote, under the names of today; a warning names the earlier ones among them.

    Args:
        options: by name.
        written: how the user writes the name of an option.

    Raises:
        FlashError: an option is given by both of its names.
    """
    earlier = {written.format(name): written.format(RENAMED[name]) for name in options if name in RENAMED}
    for name in options:
        if RENAMED.get(name) in options:
            old, new = written.format(name), written.format(RENAMED[name])
            raise FlashError(
                f"{old} and {new} are both given, and {new} is the new name of {old}; leave {old} out"
            )
    if earlier:
        renamed = ", and ".join(f"{old} is now called {new}" for old, new in earlier.items())
        what = "this name" if len(earlier) == 1 else "these names"
        warnings.warn(f"{renamed}; the next release will not know {what}", FutureWarning, stacklevel=3)
    return current_names(options)


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
