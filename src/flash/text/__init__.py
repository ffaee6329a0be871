"""Text tasks. Names load what they need on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flash.core.errors import MovedNameError

if TYPE_CHECKING:
    from flash.text.classification.data import TextClassificationData
    from flash.text.classification.model import TextClassifier

__all__ = ["TextClassificationData", "TextClassifier"]

_HOMES = {
    "TextClassificationData": "flash.text.classification.data",
    "TextClassifier": "flash.text.classification.model",
}


MOVED = (
    *("QuestionAnsweringData", "QuestionAnsweringTask", "Seq2SeqData", "Seq2SeqTask", "SummarizationData"),
    *("SummarizationTask", "TextEmbedder", "TranslationData", "TranslationTask"),
)
"""Lightning Flash's other text tasks."""


def __getattr__(name: str) -> Any:
    if name in MOVED:
        raise MovedNameError(
            f"flash.text.{name} is not here: this library has Lightning Flash's text classification alone"
        )
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
