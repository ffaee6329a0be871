"""The model file: one self-contained safetensors file, whatever its name ends on, that runs no code when it is read.

`save` takes Lightning's dict of a checkpoint: tensors and plain values. What this project adds stands under the key
`"flash"`: format version, labels, backbone and its options. Weights, calibration and thresholds are in
`"state_dict"`. `read` gives NumPy arrays that show the mapped file, without importing torch; `load` gives tensors, for
training. Both refuse the same files in the same words, and read the files of version 0.1.0 too (`legacy`).
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flash.core import files
from flash.core.errors import CheckpointError
from flash.text.classification.checkpoint import content, file, legacy
from flash.text.classification.checkpoint.digest import checked_files, trust
from flash.text.classification.checkpoint.file import FORMAT_VERSION
from flash.text.classification.checkpoint.validation import wrong_content

OLDEST_FORMAT = 3
"""The first format that was published."""

__all__ = [
    "FORMAT_VERSION",
    "OLDEST_FORMAT",
    "as_read",
    "check",
    "check_keepable",
    "check_writable",
    "checked_files",
    "convert",
    "load",
    "read",
    "save",
    "trust",
]


def save(saved: dict[str, Any], path: str | Path) -> None:
    """Write content whole or not at all; missing folders are made.

    Args:
        saved: dicts, lists and tuples of tensors, texts, bytes, numbers and None. Tensors are kept by their numbers,
            without gradients, hooks and attributes.
        path: a local file, or an address such as `s3://bucket/model.pt`, which fsspec writes.

    Raises:
        CheckpointError: the content holds something else (the message names where), or the file cannot be written. An
            earlier file is then as it was.
    """
    if _is_address(path):
        with tempfile.TemporaryDirectory() as folder:
            save(saved, Path(folder) / "model.pt")
            _copy(str(Path(folder) / "model.pt"), str(path))
        return
    path = Path(path)
    plain, tensors = content.flatten(saved)
    check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.write(path, plain, tensors)
    except OSError as error:
        raise CheckpointError(file.unwritable(path, error)) from error


def check_keepable(value: Any, where: str) -> None:
    """Refuse what a model file could not hold.

    Raises:
        CheckpointError: `value`, which messages call `where`, is or holds such; the message names it.
    """
    content.flatten(value, where)


def check_writable(path: str | Path) -> None:
    """Find out before a training whether `save` could write `path`; leaves nothing behind.

    Raises:
        CheckpointError: as `save` for a path that cannot be written.
    """
    try:
        files.check_writable(path)
    except OSError as error:
        raise CheckpointError(file.unwritable(Path(path), error)) from error


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content with torch tensors, on the CPU.

    Args:
        path: a local file, or an address: `https://` and others that fsspec reads. It is copied to a temporary folder
            first.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, not one of ours, or of a newer format.
    """
    with _local(path) as found:
        return _content(found, path, torch=True)


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content with read-only NumPy arrays, without torch; bfloat16 becomes float32.

    A tensor of any other type that NumPy lacks is a `file.ForeignTensor`.

    Raises:
        CheckpointError: as `load`.
    """
    return _content(Path(path), path, torch=False)


def as_read(saved: dict[str, Any]) -> dict[str, Any]:
    """What `read` would give of a file that `save` wrote: a copy with NumPy arrays, made without a file.

    Raises:
        CheckpointError: as `save` for content that a file cannot hold.
    """
    plain, tensors = content.flatten(saved)
    arrays = {name: np.asarray(tensor).copy() for name, tensor in tensors.items()}
    copied: dict[str, Any] = content.unflatten(
        content.parse(plain), arrays.__getitem__, lambda name: arrays[name].tobytes()
    )
    return copied


def check(path: str | Path) -> None:
    """Check a model file, or a folder that `flash export` wrote, as a reader of this process would.

    `checked_files` then tells other processes what they need not check again.

    Raises:
        CheckpointError: as `read`.
    """
    if files.is_folder(path):
        from flash.text.classification.checkpoint.export_folder import read_settings

        read_settings(Path(path))
    else:
        read(path)


def convert(path: str | Path, target: str | Path | None = None) -> None:
    """Write a file of version 0.1.0, or of a plain Lightning trainer, in today's format; a run can go on from it.

    Args:
        path: the file.
        target: the new file; None to replace `path`.

    Raises:
        CheckpointError: `path` cannot be read, or `target` cannot be written.
    """
    found = _content(Path(path), path, torch=True, told=True)
    save({**found, "flash": {**found["flash"], "format": FORMAT_VERSION}}, path if target is None else target)


def _content(path: Path, name: str | Path, *, torch: bool, told: bool = False) -> dict[str, Any]:
    """What `path` holds, once it has been checked."""
    with file.opened(path, name) as opened:
        if file.is_torch_file(opened):
            loaded = legacy.load(opened, name)
            arrays = _checked(legacy.for_numpy(loaded), name)
            if not told:
                legacy.announce(name)
            return loaded if torch else arrays
    found = file.read(path, name)
    try:
        arrays = _checked(found.content(torch=False), name)
        return found.content(torch=True) if torch else arrays
    except content.DamagedError as error:
        raise CheckpointError(f"the checkpoint {name} is damaged: {error}; {file.AGAIN}") from error


def _checked(found: Any, name: str | Path) -> dict[str, Any]:
    """Refuse what is no checkpoint of ours, of a format that is not read, or what no library of ours writes."""
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("flash"), dict)
        or not isinstance(found.get("state_dict"), dict)
    ):
        holds = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        shown = "".join(letter if letter.isprintable() else "?" for letter in holds[:200])
        raise CheckpointError(
            f"{name} is no checkpoint of this library (it holds: {shown}); "
            "train the model again, or load it with the library that wrote it"
        )
    settings = found["flash"]
    version, library = settings.get("format"), settings.get("version")
    if type(version) is int and version > FORMAT_VERSION:
        raise file.newer(name, version, library)
    if type(version) is int and 1 <= version < OLDEST_FORMAT:
        raise CheckpointError(
            f"{name} has checkpoint format {version}, of an unpublished version; this library reads formats "
            f"{OLDEST_FORMAT} to {FORMAT_VERSION}: train the model again"
        )
    if problem := wrong_content(found):
        raise CheckpointError(f"the checkpoint {name} is damaged: {problem}; {file.AGAIN}")
    return found


# ---- addresses --------------------------------------------------------------------------------------------------


def _is_address(path: str | Path) -> bool:
    return "://" in str(path)


@contextmanager
def _local(path: str | Path) -> Iterator[Path]:
    """A local file with the bytes of `path`."""
    if not _is_address(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "checkpoint.pt"
        if str(path).startswith(("http://", "https://")):
            from flash.core.data.utils import fetch

            target = fetch(str(path), target)
        else:
            _copy(str(path), str(target))
        yield target


def _copy(source: str, target: str) -> None:
    """Copy a file between a local folder and an address that fsspec knows.

    Raises:
        CheckpointError: one of them cannot be reached.
    """
    import fsspec

    try:
        with fsspec.open(source, "rb") as from_, fsspec.open(target, "wb") as to:
            shutil.copyfileobj(from_, to, 2**20)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{source} cannot be copied to {target}: {error}") from error
