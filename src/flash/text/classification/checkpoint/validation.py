"""Validate a checkpoint's content before a model is built from it. Imports neither torch nor lightning.

Each function returns a description of the first problem, or None.
"""

from dataclasses import fields
from typing import Any

import numpy as np

from flash.core.errors import FlashError, unknown_name
from flash.text.classification.backbones import BACKBONES
from flash.text.classification.checkpoint.file import ForeignTensor


def wrong_content(content: dict[str, Any]) -> str | None:
    """Check a checkpoint's settings and tensors."""
    settings, state = content["flash"], content["state_dict"]
    version = settings.get("format")
    if type(version) is not int or version < 1:
        return f"its format is {short(version)}, expected a number from 1"
    return wrong_setting(settings) or wrong_option(settings) or wrong_state(settings, state)


def wrong_setting(settings: dict[str, Any]) -> str | None:
    """Check the labels, and the types of the other settings."""
    labels = settings.get("labels")
    known = type(labels) is list and labels and all(type(label) is str and label for label in labels)
    if not known or len(set(labels or ())) < len(labels or ()):
        return f"its labels are {short(labels)}, expected a list of one or more different names"
    for key, kind in {"multi_label": bool, "backbone": str, "backbone_options": dict}.items():
        if type(settings.get(key)) is not kind:
            return f"its {key} is {short(settings.get(key))}, expected a {kind.__name__}"
    fields = settings.get("input_fields")  # absent from older files
    named = type(fields) is list and fields and all(type(field) is str for field in fields)
    if fields is not None and not (named and len(set(fields)) == len(fields)):
        return f"its input_fields are {short(fields)}, expected a list of one or more different names"
    return None


def wrong_option(settings: dict[str, Any]) -> str | None:
    """Check the backbone's options."""
    backbone, options = settings["backbone"], settings["backbone_options"]
    if "encoder" in settings:  # its options are checked when it is built, with torch
        length = settings.get("max_length")
        if type(length) is not int or length < 1:
            return f"its max_length is {short(length)}, expected a number from 1"
        return None if type(settings["encoder"]) is dict else f"its encoder is {short(settings['encoder'])}"
    if backbone not in BACKBONES:
        return unknown_name("backbone", backbone[:50], BACKBONES)
    config = BACKBONES[backbone][1]
    defaults = {field.name: field.default for field in fields(config)}
    for name in options:
        if name not in defaults:
            return unknown_name("option", str(name)[:50], defaults)
    try:
        config(**options)
    except FlashError as error:
        return str(error)
    return None


def wrong_state(settings: dict[str, Any], state: dict[Any, Any]) -> str | None:
    """Check the tensors that every backbone has."""
    for key, value in state.items():
        if type(key) is not str or not isinstance(value, np.ndarray | ForeignTensor):
            return f"its weights hold {short(value)} under {short(key)}, expected only tensors"
    thresholds, count = state.get("thresholds"), len(settings["labels"])
    if not isinstance(thresholds, np.ndarray) or thresholds.dtype.kind != "f" or thresholds.shape != (count,):
        return f"its thresholds are {short(thresholds)}, expected {count} numbers, one per label"
    if not ((thresholds >= 0) & (thresholds <= 1)).all():  # neither is NaN
        return f"its thresholds are {thresholds.min()} to {thresholds.max()}, expected numbers from 0 to 1"
    for name in ("calibration_scale", "calibration_shift"):
        values = state.get(name)
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.shape != (count,):
            return f"its {name} is {short(values)}, expected {count} numbers, one per label"
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)  # the type in which they are used
        if not (np.isfinite(single).all() and (name == "calibration_shift" or (single > 0).all())):
            wanted = "finite numbers" if name == "calibration_shift" else "finite numbers above 0"
            return f"its {name} holds {values.min()} to {values.max()}, expected {wanted}"
    return None


def short(value: Any) -> str:
    """Format a value from a file for a message, shortened."""
    if value is None:
        return "missing"
    if isinstance(value, np.ndarray | ForeignTensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape[:8])}"
    if type(value) is list and all(type(item) is str for item in value[:4]):
        return repr([item[:20] for item in value[:4]]) + (" and more" if len(value) > 4 else "")
    return repr(value)[:60] if type(value) in (bool, int, float, str) else f"a {type(value).__name__}"
