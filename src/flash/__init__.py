"""Multi-label text classification: from a file of texts to labels.

Importing `flash` loads neither torch nor lightning; each public name loads what it needs on first use.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flash.core.errors import MovedNameError
from flash.core.installed import other_owners, owners_sentence

if TYPE_CHECKING:
    from flash.training.trainer import Trainer

from flash.core.version import __version__

__all__ = ["Trainer", "__version__"]

MOVED = {
    "DataKeys": "batches have no such keys: the rows of a datamodule are datamodule.train_dataset.texts and .targets",
    "DataModule": "write flash.text.TextClassificationData",
    "FlashCallback": "write lightning.pytorch.callbacks.Callback",
    "Input": "read the rows with a TextClassificationData.from_* method",
    "InputTransform": "change the texts before they are read",
    "Output": "write: from flash.core.data.io.output import Output",
    "OutputTransform": "pass output= a function of the (N, L) probabilities",
    "RunningStage": "write lightning.pytorch.trainer.states.RunningStage",
    "Serializer": "write: from flash.core.data.io.output import Output",
    "Task": "write flash.text.TextClassifier",
}
"""Names of Lightning Flash that do not exist here, and their replacements."""

if _others := other_owners():
    warnings.warn(owners_sentence(_others), UserWarning, stacklevel=2)


def __getattr__(name: str) -> Any:
    if name in MOVED:
        raise MovedNameError(f"flash.{name} of Lightning Flash is not here; {MOVED[name]}")
    if name == "Trainer":
        return import_module("flash.training.trainer").Trainer
    if name in ("core", "text"):
        return import_module(f"flash.{name}")
    raise AttributeError(
        f"module 'flash' has no attribute {name!r}; it has {', '.join(__all__)}, core and text"
    )
