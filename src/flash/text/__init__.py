"""Text tasks. Names load what they need on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flash.text.classification.data import TextClassificationData
    from flash.text.classification.model import TextClassifier

__all__ = ["TextClassificationData", "TextClassifier"]

_HOMES = {
    "TextClassificationData": "flash.text.classification.data",
    "TextClassifier": "flash.text.classification.model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
