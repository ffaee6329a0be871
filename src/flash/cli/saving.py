"""Save the model of `flash text_classification` together with the options that produced it.

An output that would overwrite an input of the same command is rejected before anything is read.
"""

import glob
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from flash.core import files
from flash.core.errors import CheckpointError, FlashError
from flash.core.launch import rank
from flash.text.classification import checkpoint

TOXIC_FILE = "data/jigsaw_toxic_comments/train.csv"
"""What `from_toxic` reads."""
MARK = "# Options of flash text_classification, saved with the model beside this file and replaced with it."
KEYS = {"output", "half", "strategy", "model", "trainer"}
"""Keys of every options file, also of versions without `MARK`."""


def config_path(output: str) -> Path:
    """The path of the options: beside the model, with the suffix `.yaml`."""
    path = Path(output)
    if path.suffix in (".yaml", ".yml"):
        raise FlashError(
            f"--output {output} is the name of a file of options; name the model's, such as {path.stem}.pt"
        )
    return path.with_suffix(".yaml") if path.suffix in (".pt", ".pth", ".ckpt") else Path(f"{output}.yaml")


def check(given: Namespace) -> Path:
    """Check before training that the model and its options can be saved; returns the path of the options.

    Raises:
        FlashError: one of them cannot be written, or would overwrite an input or another file of the user.
    """
    output = given.output
    config = config_path(output)
    if "://" in output:
        raise FlashError(f"--output {output} is an address; name a file here, and copy it there")
    read = list(_read(given))
    if (lost := files.overwritten(output, read)) is not None:
        raise FlashError(
            f"--output {output} is {_called(lost, output)}, and would be lost; name another file for the model"
        )
    checkpoint.check_writable(output)
    advice = f"name another --output than {output}"
    # the options of an earlier training may be read and replaced, as in a rerun
    kept = [*(path for path in read if not _is_of_options(Path(path))), *filter(None, [given.ckpt_path])]
    if (lost := files.overwritten(config, kept)) is not None:
        raise FlashError(
            f"the options are saved at {config}, which is {_called(lost, config)}, and would be lost; {advice}"
        )
    if config.exists() and not config.is_dir() and not _is_of_options(config):
        raise FlashError(
            f"the options are saved at {config}, where another file is, which would be lost; move it, or {advice}"
        )
    try:
        files.check_writable(config)
    except OSError as error:
        raise FlashError(
            f"the options cannot be saved at {config}: {error.strerror or error}; {advice}"
        ) from error
    return config


def save(write: Callable[[Path], object], output: str, options: str) -> None:
    """Save a model and its options atomically; a new model is never beside earlier options.

    Both are on disk before the earlier options are removed and the files are renamed.

    Args:
        write: writes the model to a path; every process of a launch calls it.
        output: path of the model.
        options: content of the options file.

    Raises:
        CheckpointError: the disk is full; earlier files are unchanged.
    """
    if rank() > 0:
        write(Path(output))
        return
    config = config_path(output)
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_file(config) as file:
            file.write(f"{MARK}\n{options}".encode())
            file.flush()
            os.fsync(file.fileno())
            with files.atomic_path(output) as model:
                _write(write, model, output)
                files.sync(model)  # a full disk raises here, while the earlier options still exist
                Path(os.path.realpath(config)).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{output} cannot be written: {error.strerror or error}; free space or choose another folder"
        ) from error


def _write(write: Callable[[Path], object], path: Path, output: str) -> None:
    """Write the model to a temporary path, and name the final path in errors."""
    try:
        write(path)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(path), output)) from error


def _read(given: Namespace) -> Iterator[str]:
    """The local files and folders that a training reads, and URLs."""
    if given.source == "from_toxic":
        yield TOXIC_FILE
    for name, value in vars(given[given.source]).items():
        if name.endswith(("_file", "export_json", "_hf_dataset", "data_folder")):
            for entry in _texts(value):
                path = os.path.expanduser(entry)  # noqa: PTH111
                yield from [path] if os.path.exists(path) else glob.glob(path, recursive=True)  # noqa: PTH110, PTH207
    yield from (name for name in _texts(given.model.backbone) if name != "linear")
    yield from map(str, given.get("config") or ())


def _texts(value: Any) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    return [str(entry) for entry in entries if entry is not None]


def _called(lost: str | Path, output: str | Path) -> str:
    """Describe a file for an error message, with its other name if it was given by one."""
    reads = "that this command reads"
    return f"a file {reads}" if str(lost) == str(output) else f"the same file as {lost} {reads}"


def _is_of_options(path: Path) -> bool:
    """Whether a file was written by this command, or has the same keys."""
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        text = path.read_text("utf-8") if path.is_file() else ""
        found = None if text.startswith(MARK) else yaml.safe_load(text)
        return text.startswith(MARK) or (isinstance(found, dict) and set(found) >= KEYS)
    return False
