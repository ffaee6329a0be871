"""The checkpoint: one self-contained `.pt` file in Lightning's format that runs no code when it is read.

The file is what `torch.save` writes (a zip of raw tensors and one pickle), limited to tensors and plain values,
so `torch.load(path, weights_only=True)` takes it. What this project adds to Lightning's entries stands under the
key `"flash"`: format version, labels, backbone and its options. Weights, calibration and thresholds are in
`"state_dict"`.

`read` reads it with NumPy alone, tensors as memory maps of the file, so that prediction starts without importing
torch. `load` reads it with torch, for training, after `read` has: both refuse the same files in the same words.
"""

import errno
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from flash.core import files
from flash.core.errors import CheckpointError
from flash.text.classification.plain_pickle import (
    DamagedError,
    HoldsCodeError,
    is_plain_key,
    unpickled,
)
from flash.text.classification.saved_parts import short, wrong_option, wrong_setting, wrong_state
from flash.text.classification.torch_file import open_torch_file

FORMAT_VERSION = 3
"""Raised when an older reader could no longer make sense of the file."""
MOST_NESTED = 100
"""How many containers may be inside one another: writing them takes several calls each."""
MOST_INTEGER_BITS = 2000
"""Larger integers are written in a way that torch does not read without running code."""

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_AGAIN = "copy or save it again"


def save(content: dict[str, Any], path: str | Path) -> None:
    """Write `content` whole or not at all (see `files.whole_file`); missing folders are made.

    Tensors are kept by their numbers, without gradients, hooks and attributes.

    Raises:
        CheckpointError: `content` holds something other than tensors and plain values (it names where), or the
            file cannot be written. An earlier file is then as it was.
    """
    import torch

    path = Path(path)
    plain = plain_content(content, "checkpoint")
    check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_file(path) as file:
            torch.save(plain, file)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(_unwritable(path, error)) from error


def check_writable(path: str | Path) -> None:
    """Find out before a training whether `save` could write `path`; leaves nothing behind.

    Raises:
        CheckpointError: as `save` for a path that cannot be written.
    """
    try:
        files.check_writable(path)
    except OSError as error:
        raise CheckpointError(_unwritable(Path(path), error)) from error


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content with torch tensors, on the CPU.

    Args:
        path: a local file, or an `http://` or `https://` URL, which is downloaded to a temporary folder first.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, not one of ours, or of a newer format.
    """
    if str(path).startswith(("http://", "https://")):
        from flash.core.data.utils import fetch

        with tempfile.TemporaryDirectory() as folder:
            return _load(fetch(str(path), Path(folder) / "checkpoint.pt"), path)
    return _load(Path(path), path)


def _load(path: Path, name: str | Path) -> dict[str, Any]:
    import torch

    with _opened(path, name) as file:
        _read(file, name)
        file.seek(0)
        try:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's own words speak of how to run the file's code
            raise _damaged(name, "torch cannot put its tensors together") from error
    return content


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content with read-only NumPy arrays, without torch.

    A tensor of a type that NumPy lacks is a `plain_pickle.ForeignTensor`.

    Raises:
        CheckpointError: as `load`.
    """
    with _opened(Path(path), path) as file:
        return _read(file, path)


@contextmanager
def _opened(path: Path, name: str | Path) -> Iterator[IO[bytes]]:
    """The file at `path`, one for all that is done with it: another may take its name meanwhile."""
    expected = "expected the file that save_checkpoint wrote"
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
            raise CheckpointError(f"the checkpoint {name} {found}; {expected}")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {name} cannot be read: {error.strerror}; {expected}"
        ) from error


def _read(file: IO[bytes], name: str | Path) -> dict[str, Any]:
    parts = open_torch_file(file, name)
    try:
        content = unpickled(parts)
    except HoldsCodeError as error:
        raise CheckpointError(
            f"the checkpoint {name} holds more than tensors and plain values, and was not run: {error}; "
            "give the file that save_checkpoint wrote"
        ) from error
    except DamagedError as error:
        raise _damaged(name, str(error)) from error
    return _checked(content, name)


def _damaged(name: str | Path, problem: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {name} is damaged: {problem}; {_AGAIN}")


def _checked(content: Any, name: str | Path) -> dict[str, Any]:
    """Refuse what is no checkpoint of ours, what a newer library wrote, and what no library of ours writes."""
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("flash"), dict)
        or not isinstance(content.get("state_dict"), dict)
    ):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        shown = "".join(letter if letter.isprintable() else "?" for letter in found[:200])
        raise CheckpointError(
            f"{name} is a torch file but no checkpoint of this library (it holds: {shown}); "
            "train the model again, or load it with the library that wrote it"
        )
    settings, state = content["flash"], content["state_dict"]
    version = settings.get("format")
    if type(version) is not int or version < 1:
        raise _damaged(name, f"its format is {short(version)}, expected a number from 1")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{name} has checkpoint format {version!r}, written by version {short(settings.get('version'))}; "
            f"this library reads up to format {FORMAT_VERSION}: install a newer one"
        )
    if version < FORMAT_VERSION:
        raise CheckpointError(
            f"{name} has checkpoint format {version}, of an older library; this one reads format "
            f"{FORMAT_VERSION}: train the model again, or load it with version {short(settings.get('version'))}"
        )
    if problem := wrong_setting(settings) or wrong_option(settings) or wrong_state(settings, state):
        raise _damaged(name, problem)
    return content


def plain_content(value: Any, where: str, depth: int = 0) -> Any:
    """`value` as both readers take it: containers of plain values and of tensors without anything attached.

    Raises:
        CheckpointError: it is, or holds, something else; it names where.
    """
    import torch

    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int and value.bit_length() <= MOST_INTEGER_BITS:
        return value
    if kind in (torch.Tensor, torch.nn.Parameter) and _is_dense(value):
        tensor = value.detach().resolve_conj().resolve_neg()
        larger = tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
        return tensor.contiguous() if larger else tensor  # an expanded tensor repeats numbers
    if kind in (dict, OrderedDict) and depth < MOST_NESTED:
        for key in value:
            if not is_plain_key(plain_content(key, f"the key {key!r} of {where}", depth + 1)):
                raise _unkeepable(f"the key {key!r} of {where}", key)
        items = {key: plain_content(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
        if kind is dict:
            return items
        ordered = OrderedDict(items)
        ordered.__dict__.update(
            plain_content(vars(value), f"the attributes of {where}", depth + 1)
        )  # _metadata
        return ordered
    if kind in (list, tuple) and depth < MOST_NESTED:
        return kind(plain_content(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value))
    raise _unkeepable(where, value)


def _is_dense(tensor: Any) -> bool:
    import torch

    return tensor.layout is torch.strided and tensor.device.type != "meta" and not tensor.is_quantized


def _unkeepable(where: str, value: Any) -> CheckpointError:
    kind = type(value)
    if kind is int:
        what = f"an integer of {value.bit_length():,} bits,"
    elif kind in (dict, OrderedDict, list, tuple):
        what = f"a {kind.__name__} inside more than {MOST_NESTED} others,"
    else:
        layout = getattr(value, "layout", None)
        what = f"a {kind.__module__}.{kind.__qualname__}{f' of layout {layout}' if layout else ''},"
    return CheckpointError(
        f"{where[:300]}, {what} cannot be kept in a checkpoint, which holds only tensors and plain values; "
        "keep its name or its numbers instead"
    )


def _unwritable(path: Path, error: BaseException) -> str:
    """Why `path` cannot be written; torch hides what the system said behind an error of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, IsADirectoryError):
        return f"{path} cannot be written: it is a folder; name a file in it, such as {path / 'model.pt'}"
    if isinstance(cause, OSError) and cause.errno not in _FULL:
        return f"{path} cannot be written: {cause.strerror}; choose another folder"
    if cause is None and "inline_container" not in str(error):
        return f"{path} cannot be written: torch refuses its tensors ({str(error).partition(chr(10))[0]})"
    reason = "the disk took only a part of it" if cause is None else cause.strerror
    return f"{path} cannot be written: {reason}; free space or choose another folder"
