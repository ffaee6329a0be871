"""The model file: one self-contained safetensors file, whatever its ending; reading it never runs code.

`save` takes Lightning's checkpoint dict, which contains tensors and plain values. This project's entries are under the
key `"flash"`: format version, labels, backbone and its options. Weights, calibration and thresholds are in
`"state_dict"`. `read` returns NumPy arrays on the memory-mapped file, without importing torch; `load` returns tensors,
for training. Both refuse the same files with the same messages, and read the files of version 0.1.0 too (`legacy`).
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
from flash.text.classification.arguments import current_names
from flash.text.classification.checkpoint import content, file, legacy
from flash.text.classification.checkpoint.digest import checked_files, trust
from flash.text.classification.checkpoint.file import FORMAT_VERSION
from flash.text.classification.checkpoint.validation import wrong_content

OLDEST_FORMAT = 3  # the first published format

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
    """Write a model file atomically; missing folders are created.

    Args:
        saved: dicts, lists and tuples of tensors, strings, bytes, numbers and None. Only the values of tensors are
            saved, without gradients, hooks and attributes.
        path: a local file, or a URL such as `s3://bucket/model.pt`, which fsspec writes.

    Raises:
        CheckpointError: the content contains something else (the message names where), or the file cannot be written.
            An earlier file then stays unchanged.
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
    """Check that a value can be saved in a model file; `where` is its name in messages.

    Raises:
        CheckpointError: names the part that cannot be saved.
    """
    content.flatten(value, where)


def check_writable(path: str | Path) -> None:
    """Check before training that `save` can write `path`; leaves nothing behind.

    Raises:
        CheckpointError: the file cannot be written.
    """
    try:
        files.check_writable(path)
    except OSError as error:
        raise CheckpointError(file.unwritable(Path(path), error)) from error


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint with torch tensors, on the CPU.

    Args:
        path: a local file, or a URL (`https://` and others that fsspec reads), which is copied to a temporary folder
            first.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, of another library, or of a newer format.
    """
    with _local(path) as found:
        return _content(found, path, torch=True)


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint with read-only NumPy arrays, without torch; bfloat16 becomes float32.

    A tensor of any other type that NumPy does not have becomes a `file.ForeignTensor`.

    Raises:
        CheckpointError: as `load`.
    """
    return _content(Path(path), path, torch=False)


def as_read(saved: dict[str, Any]) -> dict[str, Any]:
    """Return what `save` followed by `read` would return, a copy with NumPy arrays, without writing a file.

    Raises:
        CheckpointError: the content cannot be saved.
    """
    plain, tensors = content.flatten(saved)
    arrays = {name: np.asarray(tensor).copy() for name, tensor in tensors.items()}
    copied: dict[str, Any] = content.unflatten(
        content.parse(plain), arrays.__getitem__, lambda name: arrays[name].tobytes()
    )
    return copied


def check(path: str | Path) -> None:
    """Check a model file, or a folder that `flash export` wrote.

    `checked_files` then returns it, so that other processes need not check it again.

    Raises:
        CheckpointError: as `read`.
    """
    if files.is_folder(path):
        from flash.text.classification.checkpoint.export_folder import read_settings

        read_settings(Path(path))
    else:
        read(path)


def convert(path: str | Path, target: str | Path | None = None) -> None:
    """Convert a file of version 0.1.0, or of a plain Lightning trainer, to the current format; training can resume from it.

    Args:
        path: the file.
        target: the new file; None to replace `path`.

    Raises:
        CheckpointError: `path` cannot be read, or `target` cannot be written.
    """
    found = _content(Path(path), path, torch=True, told=True)
    save({**found, "flash": {**found["flash"], "format": FORMAT_VERSION}}, path if target is None else target)


def _content(path: Path, name: str | Path, *, torch: bool, told: bool = False) -> dict[str, Any]:
    """Read and check a file; `told` says that the user already knows that it has the old format."""
    with file.opened(path, name) as opened:
        if file.is_torch_file(opened):
            loaded = _with_current_names(legacy.load(opened, name))
            arrays = _checked(legacy.for_numpy(loaded), name)
            if not told:
                legacy.announce(name)
            return loaded if torch else arrays
    found = file.read(path, name)
    try:
        arrays = _checked(_with_current_names(found.content(torch=False)), name)
        return _with_current_names(found.content(torch=True)) if torch else arrays
    except content.DamagedError as error:
        raise CheckpointError(f"the checkpoint {name} is damaged: {error}; {file.AGAIN}") from error


def _with_current_names(found: Any) -> Any:
    """A file's content with the backbone's options under the names of today."""
    settings = found.get("flash") if isinstance(found, dict) else None
    if isinstance(settings, dict) and isinstance(options := settings.get("backbone_options"), dict):
        settings["backbone_options"] = current_names(options)
    return found


def _checked(found: Any, name: str | Path) -> dict[str, Any]:
    """Return the content; raise CheckpointError if it is not a valid checkpoint of a supported format."""
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
    """Yield a local copy of a URL, or the path itself."""
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
    """Copy a file between a local path and a URL that fsspec supports.

    Raises:
        CheckpointError: the file cannot be copied.
    """
    import fsspec

    try:
        with fsspec.open(source, "rb") as from_, fsspec.open(target, "wb") as to:
            shutil.copyfileobj(from_, to, 2**20)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{source} cannot be copied to {target}: {error}") from error
