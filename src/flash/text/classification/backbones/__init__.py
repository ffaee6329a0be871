"""Backbones by name: models that turn texts into `(N, L)` logits.

Imports neither torch nor lightning, so that prediction starts fast.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.backbones.linear.model import Linear, LinearConfig

BACKBONES = {"linear": (Linear, LinearConfig)}


def available_backbones() -> list[str]:
    """Return the names that `TextClassifier(backbone=...)` accepts, sorted."""
    return sorted(BACKBONES)


def load_backbone(name: str, num_labels: int, options: Mapping[str, Any]) -> Linear:
    """Create an untrained backbone.

    Args:
        name: one of `available_backbones()`.
        num_labels: L, the number of columns of its logits.
        options: fields of the backbone's configuration, such as `{"C": 4.0}`.

    Raises:
        FlashError: the name or an option is unknown.
    """
    if name not in BACKBONES:
        raise FlashError(unknown_name("backbone", name, available_backbones()))
    backbone, config = BACKBONES[name]
    known = [field.name for field in fields(config)]
    for option in options:
        if option not in known:
            raise FlashError(unknown_name(f"option of the backbone {name!r}", option, known))
    return backbone(num_labels, config(**options))
