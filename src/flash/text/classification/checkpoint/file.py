"""A safetensors file with a description and a checksum: written atomically, verified, and memory-mapped.

Its only metadata key, `flash`, contains a JSON text with sorted keys:

    {"checksum": "...", "content": ..., "format": 4, "version": "0.2.0"}

`content` is the JSON of `content.flatten`. `checksum` is the SHA-256 of the whole file with 64 zeros in its place.
Imports torch only to write.
"""

import errno
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from flash.core import files
from flash.core.errors import CheckpointError
from flash.core.version import __version__
from flash.text.classification.checkpoint import content, digest

FORMAT_VERSION = 4
"""Increased if older versions could no longer read the file."""
MOST_DESCRIBED = 10_000_000
"""Maximum size of the description in bytes; safetensors limits the whole header to 100 MB."""
KEY = "flash"
START = b'{"__metadata__":{"flash":"{\\"checksum\\":\\"'
"""The bytes between the header's length and the checksum."""
LENGTH = 8  # bytes of the header's length
EXPECTED = "expected the file that save_checkpoint wrote"
AGAIN = "copy or save it again"
TRIES = 5
ZIP = b"PK\x03\x04"
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
PICKLE = 0x80  # first byte of a pickle since Python 2.3, followed by the protocol version


class ForeignTensor(NamedTuple):
    """A tensor of a type that NumPy does not have, such as float8_e5m2; its values are not read."""

    dtype: str
    shape: tuple[int, ...]


class StoredTensor(NamedTuple):
    """A tensor of a file.

    Attributes:
        dtype: its type's name in torch.
        bits: read-only; for a type that NumPy does not have, unsigned integers of the same size.
    """

    dtype: str
    bits: np.ndarray

    def for_numpy(self) -> "np.ndarray | ForeignTensor":
        """Return the array on the mapped file; bfloat16 is converted to float32."""
        if self.dtype == "bfloat16":
            wide = np.empty(self.bits.shape, np.uint32)
            np.left_shift(self.bits, np.uint32(16), out=wide)
            return wide.view(np.float32)
        return ForeignTensor(self.dtype, self.bits.shape) if self.dtype.startswith("float8") else self.bits

    def for_torch(self) -> Any:
        """Return a tensor with its own memory."""
        import torch

        return torch.from_numpy(self.bits.copy()).view(getattr(torch, self.dtype))


@dataclass(frozen=True)
class ModelFile:
    """An opened model file.

    Attributes:
        described: parsed JSON of the metadata.
        tensors: tensors by name.
    """

    described: dict[str, Any]
    tensors: dict[str, StoredTensor]

    def content(self, *, torch: bool) -> Any:
        """Return what was saved, with torch tensors or NumPy arrays.

        Raises:
            DamagedError: the content was not written by `write`.
        """
        made: dict[str, Any] = {}

        def tensor(name: str) -> Any:
            if name not in made:
                stored = self.tensors[name]
                made[name] = stored.for_torch() if torch else stored.for_numpy()
            return made[name]

        return content.unflatten(
            self.described.get("content"), tensor, lambda name: self.tensors[name].bits.tobytes()
        )


# ---- writing ----------------------------------------------------------------------------------------------------


def write(path: Path, plain: str, tensors: dict[str, Any]) -> None:
    """Write the result of `content.flatten` atomically.

    Raises:
        CheckpointError: the description is too long.
        OSError: the file cannot be written.
    """
    text = f'{{"checksum":"{digest.ZEROS.decode()}","content":{plain},"format":{FORMAT_VERSION},"version":"{__version__}"}}'
    if len(text) > MOST_DESCRIBED:
        raise CheckpointError(
            f"the checkpoint's plain values take {len(text):,} bytes, and {MOST_DESCRIBED:,} can be kept beside its "
            "tensors; keep numbers as tensors"
        )
    with files.atomic_path(path) as target:
        _save_tensors(tensors, target, text)
        with target.open("r+b") as file:
            found = _digest_of(file)
            file.seek(LENGTH + len(START))
            file.write(found.encode())


def _save_tensors(tensors: dict[str, Any], path: Path, text: str) -> None:
    from safetensors.torch import save_file

    try:
        save_file(_apart(tensors), path, {KEY: text})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise (
            OSError(int(number[1]), _system_words(str(error))) if number else OSError(str(error))
        ) from error


def unwritable(path: Path, error: OSError) -> str:
    """Return the message on why `path` cannot be written."""
    if isinstance(error, IsADirectoryError):
        return f"{path} cannot be written: it is a folder; name a file in it, such as {path / 'model.pt'}"
    advice = "free space or choose another folder" if error.errno in FULL else "choose another folder"
    return f"{path} cannot be written: {error.strerror or error}; {advice}"


def _system_words(message: str) -> str:
    """Extract the operating system's message from an error of safetensors."""
    return message.partition(" (os error")[0].rpartition(": ")[2]


def _apart(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return tensors in the form that safetensors requires: contiguous, and without shared memory."""
    import torch

    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            tensor = torch.from_numpy(tensor.copy())
        place = tensor.untyped_storage().data_ptr()
        found[name] = (
            tensor.clone(memory_format=torch.contiguous_format) if place in seen else tensor.contiguous()
        )
        seen.add(place)
    return found


def _digest_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file with zeros in place of its checksum."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory, memoryview(memory) as view:
        first, after = LENGTH + len(START), LENGTH + len(START) + digest.DIGITS
        with view[:first] as before, view[after:] as behind:
            return digest.hexdigest(before, digest.ZEROS, behind)


# ---- reading ----------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path, name: str | Path) -> Iterator[IO[bytes]]:
    """Open the file at `path`; `name` is its name in messages.

    Raises:
        CheckpointError: the file does not exist, or cannot be read.
    """
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
            raise CheckpointError(f"the checkpoint {name} {found}; {EXPECTED}")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {name} cannot be read: {error.strerror}; {EXPECTED}"
        ) from error


def is_torch_file(file: IO[bytes]) -> bool:
    """Whether an open file is a zip file, as `torch.save` writes it."""
    file.seek(0)
    return file.read(len(ZIP)) == ZIP


def read(path: Path, name: str | Path) -> ModelFile:
    """Read a file; its tensors are memory-mapped.

    Raises:
        CheckpointError: the file is of another library, truncated, damaged, or of a newer format.
    """
    for _ in range(TRIES):
        with opened(path, name) as file:
            _check_kind(file, name)
            try:
                with safe_open(path, "numpy") as found:
                    metadata = found.metadata() or {}
                    shapes = [
                        (key, slice_.get_dtype(), tuple(slice_.get_shape()))
                        for key in found.offset_keys()
                        for slice_ in [found.get_slice(key)]
                    ]
            except SafetensorError as error:
                raise _unreadable(file, name) from error
            # the file was not replaced between the two openings
            if digest.state_of(path) == digest.state_of(file.fileno()):
                described = _described(file, metadata, name, [key for key, _, _ in shapes])
                try:
                    return ModelFile(described, _mapped(file, shapes))
                except (TypeError, ValueError) as error:  # invalid types and shapes
                    raise CheckpointError(
                        f"the checkpoint {name} is damaged: a tensor is described wrongly; {AGAIN}"
                    ) from error
    raise CheckpointError(f"the checkpoint {name} is being written; try again when that is done")


def _check_kind(file: IO[bytes], name: str | Path) -> None:
    """Check that a file begins like a safetensors file.

    Raises:
        CheckpointError: describes what the file is instead.
    """
    file.seek(0)
    start = file.read(LENGTH + 1)
    if not start:
        raise CheckpointError(f"the checkpoint {name} is empty (0 bytes); {AGAIN}")
    if start[0] == PICKLE and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[LENGTH:] != b"{":
        raise CheckpointError(
            f"the checkpoint {name} is a Python pickle, which may hold code, and was not read; give the file that "
            "save_checkpoint wrote"
        )
    if start[LENGTH:] != b"{":
        raise CheckpointError(
            f"the checkpoint {name} is no model file of this library and no torch file; give the file that "
            "save_checkpoint wrote"
        )


def _unreadable(file: IO[bytes], name: str | Path) -> CheckpointError:
    """The error for a file that safetensors cannot read."""
    size = file.seek(0, 2)
    file.seek(0)
    header = int.from_bytes(file.read(LENGTH), "little")
    if size < LENGTH + header:
        return CheckpointError(f"the checkpoint {name} is truncated at {size:,} bytes; {AGAIN}")
    return CheckpointError(
        f"the checkpoint {name} is damaged or truncated: its header does not fit its {size:,} bytes; {AGAIN}"
    )


def _described(
    file: IO[bytes], metadata: dict[str, str], name: str | Path, tensors: list[str]
) -> dict[str, Any]:
    """Verify the checksum, and return the parsed description."""
    if KEY not in metadata:
        shown = "".join(letter if letter.isprintable() else "?" for letter in ", ".join(tensors)[:200])
        raise CheckpointError(
            f"{name} is a safetensors file but no model file of this library (it holds: {shown}); give the file that "
            "save_checkpoint wrote, or, to train an encoder, its folder as the backbone"
        )
    file.seek(LENGTH)
    ours = file.read(len(START)) == START
    written = file.read(digest.DIGITS).decode("latin-1")
    if ours and not digest.check_once(digest.state_of(file.fileno()), written, lambda: _digest_of(file)):
        raise CheckpointError(
            f"the checkpoint {name} is damaged: its checksum is not that of its bytes; {AGAIN}"
        )
    try:
        described = content.parse(metadata[KEY])
    except content.DamagedError as error:
        raise CheckpointError(f"the checkpoint {name} is damaged: {error}; {AGAIN}") from error
    version = described.get("format") if type(described) is dict else None
    if type(version) is int and version > FORMAT_VERSION:
        raise newer(name, version, described.get("version"))
    if not ours or version != FORMAT_VERSION:
        raise CheckpointError(
            f"the checkpoint {name} was not written by save_checkpoint, or was changed since; {AGAIN}"
        )
    return dict(described)


def newer(name: str | Path, version: int, library: Any) -> CheckpointError:
    """The error for a file of a newer format."""
    return CheckpointError(
        f"{name} has checkpoint format {version}, written by version {str(library)[:50]!r}; this library reads up to "
        f"format {FORMAT_VERSION}: install a newer one"
    )


def _mapped(file: IO[bytes], shapes: list[tuple[str, str, tuple[int, ...]]]) -> dict[str, StoredTensor]:
    """Map the tensors, whose bytes follow the header in this order."""
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    offset = LENGTH + int.from_bytes(memory[:LENGTH], "little")
    found = {}
    for key, kind, shape in shapes:
        name = content.STORED_DTYPES.get(kind, kind)
        dtype = np.dtype({"bfloat16": "uint16"}.get(name, "uint8" if name.startswith("float8") else name))
        array = np.ndarray(shape, dtype.newbyteorder("<"), memory, offset)
        offset += array.nbytes
        found[key] = StoredTensor(name, array)
    return found
