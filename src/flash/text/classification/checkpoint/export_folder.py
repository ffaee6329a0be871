"""The folder of `flash export`: the settings in its `flash.json`, and the checksums of all its files.

From format 2 on, `flash.json` has the SHA-256 of every other file under "checksums", and its own under "checksum",
computed from `content.as_json` of all other keys. Imports neither torch nor transformers.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flash.core.errors import CheckpointError
from flash.text.classification.batching import LONG_TEXT, POOLS
from flash.text.classification.checkpoint import digest
from flash.text.classification.checkpoint.content import as_json
from flash.text.classification.checkpoint.validation import short, wrong_setting, wrong_state

FORMAT_VERSION = 2
"""Increased if older versions could no longer read the folder, or would leave a file unverified."""
SETTINGS = "flash.json"
KINDS = ("onnx", "transformers")

Floats = npt.NDArray[np.float32]


def seal(folder: Path) -> None:
    """Write the checksums of all files into the folder's settings; a file that changes later is refused."""
    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SETTINGS)
    settings["checksums"] = {path.name: digest.file_digest(path) for path in files}
    settings["checksum"] = _own_checksum(settings)
    (folder / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _own_checksum(settings: dict[str, Any]) -> str:
    values = {key: value for key, value in settings.items() if key != "checksum"}
    return digest.hexdigest(as_json(values).encode())


def _check_files(folder: Path, settings: dict[str, Any]) -> None:
    """Verify the checksums of all files.

    Raises:
        CheckpointError: names the file that is missing or has changed.
    """
    checksums = settings.get("checksums")
    if settings.get("checksum") != _own_checksum(settings) or not isinstance(checksums, dict):
        raise damaged(folder, f"its {SETTINGS} is not as it was written")
    for name, expected in checksums.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise damaged(folder, f"it lacks {path.name}")
        compute = partial(digest.file_digest, path)
        if not digest.check_once(digest.state_of(path), str(expected), compute):
            raise damaged(folder, f"its {path.name} is not as it was written")


def read_settings(folder: str | Path) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Read the settings of an export, and its (L,) arrays: thresholds and calibration.

    Raises:
        CheckpointError: the folder is not an export, is damaged, or has a newer format.
    """
    folder = Path(folder)
    path = folder / SETTINGS
    if not path.is_file():
        holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise CheckpointError(
            f"the folder {folder} is no exported model (it holds: {holds}); expected a folder that flash export "
            "wrote, or the file that save_checkpoint wrote"
        )
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(folder, f"its {SETTINGS} cannot be read") from error
    version = settings.get("export_format") if isinstance(settings, dict) else None
    if type(version) is not int or version < 1:
        raise CheckpointError(
            f"the {SETTINGS} of {folder} is none that flash export wrote; expected a folder that it wrote, or the "
            "file that save_checkpoint wrote"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has export format {version}, written by version {short(settings.get('version'))}; this library "
            f"reads up to format {FORMAT_VERSION}: install a newer one"
        )
    if version > 1:
        _check_files(folder, settings)
    try:
        names = ("thresholds", "calibration_scale", "calibration_shift")
        arrays = {name: np.array(settings.get(name), np.float32) for name in names}
    except (TypeError, ValueError) as error:
        raise damaged(folder, "its thresholds or its calibration are no numbers") from error
    if problem := wrong_setting(settings) or wrong_state(settings, arrays) or _wrong_option(settings):
        raise damaged(folder, problem)
    return settings, arrays


def _wrong_option(settings: dict[str, Any]) -> str | None:
    """Describe what is wrong with the settings that only exports have; None if they are valid."""
    options, tokenizer = settings["backbone_options"], settings.get("tokenizer")
    tokenizer = tokenizer if isinstance(tokenizer, dict) else {}
    special, overlap = tokenizer.get("special_tokens"), options.get("window_overlap")
    found = {
        "kind": (settings.get("kind"), settings.get("kind") in KINDS),
        "max_length": (
            settings.get("max_length"),
            type(settings.get("max_length")) is int and settings["max_length"] > 0,
        ),
        "long_text": (options.get("long_text"), options.get("long_text") in LONG_TEXT),
        "window_pooling": (options.get("window_pooling"), options.get("window_pooling") in POOLS),
        "window_overlap": (overlap, type(overlap) in (int, float) and 0 <= overlap < 1),
        "pad_id": (
            tokenizer.get("pad_id"),
            type(tokenizer.get("pad_id")) is int and tokenizer["pad_id"] >= 0,
        ),
        "special_tokens": (
            special,
            type(special) is list and all(type(token) is str for token in special),
        ),
        "between": (
            between := tokenizer.get("between"),
            between is None
            or (type(between) is list and all(type(token) is int and token >= 0 for token in between)),
        ),
        "truncation_side": (
            tokenizer.get("truncation_side"),
            tokenizer.get("truncation_side") in ("left", "right"),
        ),
    }
    for name, (value, holds) in found.items():
        if not holds:
            return f"its {name} is {short(value)}, which is none that there is"
    return None


def damaged(folder: Path, problem: str) -> CheckpointError:
    """The error for a damaged export."""
    return CheckpointError(f"the export {folder} is damaged: {problem}; export the model again")
