"""Multi-label text classification: from a file of texts to labels.

Importing `flash` loads neither torch nor lightning; each public name loads what it needs on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flash.core.trainer import Trainer

__version__ = "0.1.0"
__all__ = ["Trainer", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Trainer":
        return import_module("flash.core.trainer").Trainer
    if name in ("core", "text"):
        return import_module(f"flash.{name}")
    raise AttributeError(
        f"module 'flash' has no attribute {name!r}; it has {', '.join(__all__)}, core and text"
    )
