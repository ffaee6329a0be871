"""Multi-label (and single-label) text classification. Names load what they need on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flash.text.classification.data import TextClassificationData
    from flash.text.classification.model import TextClassifier
    from flash.text.classification.predictor import Predictor

__all__ = ["Predictor", "TextClassificationData", "TextClassifier"]

_HOMES = {
    "Predictor": "flash.text.classification.predictor",
    "TextClassificationData": "flash.text.classification.data",
    "TextClassifier": "flash.text.classification.model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
