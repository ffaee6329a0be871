"""Thresholds and calibration of a folder that `flash export` wrote for transformers, if it is used as a backbone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.backbones.module import BackboneModule
from flash.text.classification.checkpoint.export_folder import SETTINGS, read_settings


def numbers_of(
    folder: str | Path, backbone: BackboneModule, labels: Sequence[str], *, multi_label: bool
) -> dict[str, np.ndarray]:
    """Return thresholds and calibration, (L,) each, of an export whose head is kept; empty for any other backbone.

    Raises:
        CheckpointError: the folder is a damaged export, or has a newer format.
    """
    if not isinstance(backbone, EncoderModule) or not backbone.encoder.kept_head:
        return {}
    path = Path(folder).expanduser()
    if not _is_export(path):
        return {}
    settings, numbers = read_settings(path)
    if settings["multi_label"] != multi_label or sorted(settings["labels"]) != sorted(labels):
        return {}
    _tell(folder, settings, backbone)
    order = [settings["labels"].index(label) for label in labels]
    return {name: values[order] for name, values in numbers.items()}


def _is_export(path: Path) -> bool:
    """Whether a folder is an export of this library; other software may use the same file name."""
    try:
        content = json.loads((path / SETTINGS).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "export_format" in content


def _tell(folder: str | Path, settings: dict[str, Any], backbone: EncoderModule) -> None:
    """Tell the user that thresholds are taken from the export, and which options differ from its own."""
    from lightning.pytorch.utilities import rank_zero_info

    config = backbone.encoder.config
    theirs = {"max_length": settings["max_length"], **settings["backbone_options"]}
    ours: dict[str, Any] = {"max_length": backbone.max_length, "long_text": config.long_text}
    if config.long_text == "window":
        ours |= {"window_pooling": config.window_pooling, "window_overlap": config.window_overlap}
    other = ", ".join(f"{name}={theirs[name]!r}" for name, value in ours.items() if theirs[name] != value)
    answers = f"; for the answers of the export pass {other}" if other else ""
    rank_zero_info(f"The thresholds of the export {str(folder)!r} hold until a fit chooses others{answers}.")
