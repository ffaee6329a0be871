"""The checkpoint: one self-contained `.pt` file in Lightning's format that runs no code when it is read.

The file is what `torch.save` writes (a zip of raw tensors and one pickle), limited to tensors and plain values,
so `torch.load(path, weights_only=True)` takes it. What this project adds to Lightning's entries stands under the
key `"flash"`: format version, labels, backbone and its options. Weights and thresholds are in `"state_dict"`.

`load` reads it with torch, for training. `read` reads it with NumPy alone, tensors as memory maps of the file, so
that prediction starts without importing torch.
"""

import os
import pickle
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from flash.core.errors import CheckpointError

FORMAT_VERSION = 1
"""Raised when an older reader could no longer make sense of the file."""

_LOCAL_HEADER = 30  # bytes of a zip member's fixed header; its name and extra field follow
_DTYPES = {
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ShortStorage": np.int16,
}


def save(content: dict[str, Any], path: str | Path) -> None:
    """Write `content` whole or not at all.

    The bytes go to a temporary file in the same folder, reach the disk, and then take the name in one step: a
    process killed at any moment leaves the earlier file as it was.

    Raises:
        CheckpointError: `content` holds something other than tensors and plain values (it names where), or the
            folder cannot be written.
    """
    import torch

    path = Path(path)
    if foreign := next(_foreign_values(content, "checkpoint"), None):
        raise CheckpointError(
            f"{foreign} cannot be kept in a checkpoint, which holds only tensors and plain values; "
            "keep its name or its numbers instead"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp's 0600 would lock out the server that loads it
        Path(temporary).replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror}; free space or choose another folder"
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content with torch tensors, on the CPU.

    Args:
        path: a local file, or an `http://` or `https://` URL, which is downloaded to a temporary folder first.

    Raises:
        CheckpointError: the file is missing, truncated, not one of ours, or of a newer format.
    """
    import torch

    if str(path).startswith(("http://", "https://")):
        from flash.core.data.utils import fetch

        with tempfile.TemporaryDirectory() as folder:
            return load(fetch(str(path), Path(folder) / "checkpoint.pt"))
    with _explained(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return _checked(content, path)


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content with read-only NumPy arrays, without torch.

    Raises:
        CheckpointError: as `load`.
    """
    with _explained(path), zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise pickle.UnpicklingError("no data.pkl")
        with archive.open(pickled) as file:
            content = _PlainUnpickler(file, archive, pickled.removesuffix("data.pkl")).load()
    return _checked(content, path)


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain values and arrays; any other name in the pickle is refused before it is looked up."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(file)
        self.archive, self.prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_array
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, requires_grad, hooks: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, identity: Any) -> Any:
        """Map one stored tensor's bytes: torch stores them uncompressed, so that the file is the memory."""
        _, dtype, key, _, size = identity
        member = self.archive.getinfo(f"{self.prefix}data/{key}")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size < size * np.dtype(dtype).itemsize:
            raise pickle.UnpicklingError(f"tensor {key} is compressed or cut short")
        with Path(str(self.archive.filename)).open("rb") as file:
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER)
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        offset = member.header_offset + _LOCAL_HEADER + lengths
        if size == 0:
            return np.empty(0, dtype)
        return np.memmap(str(self.archive.filename), dtype=dtype, mode="r", offset=offset, shape=(size,))


def _rebuild_array(
    storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """The array that torch's tensor of this storage, offset, shape and stride (in elements) shows."""
    if shape and any(size < 0 or step < 0 for size, step in zip(shape, stride, strict=True)):
        raise pickle.UnpicklingError("a tensor has a negative shape")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    if offset < 0 or last >= storage.size:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Turn what a reader raises for a file it cannot take into a sentence."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"the checkpoint {path} {what}; expected the file that save_checkpoint wrote")
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    except Exception as error:
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PK\x03\x04" and not zipfile.is_zipfile(path):
            problem = f"is truncated at {path.stat().st_size:,} bytes; copy or save it again"
        elif isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            problem = f"holds more than tensors and plain values, and was not run: {_first_line(error)}"
        else:
            problem = f"is not a checkpoint of this library or is damaged: {_first_line(error)}"
        raise CheckpointError(f"the checkpoint {path} {problem}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _checked(content: Any, path: str | Path) -> dict[str, Any]:
    """Refuse what is no checkpoint of ours, and what a newer library wrote."""
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("flash"), dict)
        or "state_dict" not in content
    ):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} is a torch file but no checkpoint of this library (it holds: {found[:200]}); "
            "train the model again, or load it with the library that wrote it"
        )
    version = content["flash"].get("format")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}, written by version {content['flash'].get('version')}; "
            f"this library reads up to format {FORMAT_VERSION}: install a newer one"
        )
    return content


def _foreign_values(value: Any, where: str) -> Iterator[str]:
    """Where `value` holds something that `torch.load(weights_only=True)` would refuse, depth first."""
    import torch

    if value is None or type(value) in (
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        torch.Tensor,
        torch.nn.Parameter,
    ):
        return
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            yield from _foreign_values(key, f"the key {key!r} of {where}")
            yield from _foreign_values(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            yield from _foreign_values(item, f"{where}[{index}]")
    else:
        yield f"{where}, a {type(value).__module__}.{type(value).__qualname__},"


def _umask() -> int:
    """The process's permission mask; the only way to read it is to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
