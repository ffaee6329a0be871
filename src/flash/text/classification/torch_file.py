"""The zip file that `torch.save` writes, mapped into memory and checked before anything in it is made use of.

It has one folder with `data.pkl`, which is one pickle, and `data/0`, `data/1`, ..., which are the bytes of tensors;
nothing is compressed. Imports nothing of the project but its errors.
"""

import mmap
import struct
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flash.core.errors import CheckpointError

MOST_CHECKED = 2**28
"""Every byte of a file up to this size is compared with its checksum; of a larger one only the pickle and
members up to `SMALL_MEMBER`, so that a huge model starts without being read whole. One second checks about 2 GB."""
SMALL_MEMBER = 2**20

_ZIP = b"PK\x03\x04"
_BEFORE_ZIP = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of the number that torch < 1.6 began with
)
_PICKLE = 0x80  # and the number of its version begin every pickle since Python 2.3
_LOCAL_HEADER = 30  # bytes of a zip member's fixed header; its name and extra field follow
_ENCRYPTED = 1
_FOLDER = 0x10  # torch leaves the memory of a tensor uninitialised whose member bears this attribute


@dataclass(frozen=True)
class TorchFile:
    """The parts of a file that `torch.save` wrote.

    Attributes:
        pickled: `data.pkl`.
        tensors: the bytes of each stored tensor by its key, such as "0"; read-only views of the mapped file.
    """

    pickled: bytes
    tensors: dict[str, memoryview]


def open_torch_file(file: IO[bytes], name: str | Path) -> TorchFile:
    """The parts of an open file, which `name` stands for in messages.

    Raises:
        CheckpointError: the file is empty, of another kind, truncated or damaged. Nothing of it was run.
    """
    file.seek(0)
    start = file.read(64)
    size = file.seek(0, 2)
    if not start.startswith(_ZIP):
        raise CheckpointError(f"the checkpoint {name} {_kind(start)}")
    try:
        if not zipfile.is_zipfile(file):  # its table of contents stands at the end
            raise CheckpointError(
                f"the checkpoint {name} is truncated at {size:,} bytes; copy or save it again"
            )
        members = zipfile.ZipFile(file).infolist()
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        problem = "its table of contents cannot be read; copy or save it again"
        raise CheckpointError(f"the checkpoint {name} is damaged: {problem}") from error
    memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    pickles = [member.filename for member in members if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"the checkpoint {name} is a zip file, but no checkpoint of this library and no torch file; "
            "give the file that save_checkpoint wrote"
        )
    parts: dict[str, memoryview] = {}
    for member in members:
        part = _bytes_of(member, memory)
        whole = part is not None and member.filename not in parts
        if part is None or not whole or not _as_written(member, part, size):
            raise CheckpointError(
                f"the checkpoint {name} is damaged: its part {member.filename[:80]!r} is not as it was written; "
                "copy or save it again"
            )
        parts[member.filename] = part
    return _sorted_out(parts, pickles[0].removesuffix("data.pkl"), name)


def _kind(start: bytes) -> str:
    """What a file is that begins with `start` and is no zip file."""
    if not start:
        return "is empty (0 bytes); copy or save it again"
    if start.startswith(_BEFORE_ZIP):
        return (
            "is in the format that torch had before version 1.6, which may hold code, and was not read; "
            "train the model again"
        )
    if start[0] == _PICKLE and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a Python pickle, which may hold code, and was not read; give the file that save_checkpoint wrote"
    return "is no checkpoint of this library and no torch file; give the file that save_checkpoint wrote"


def _bytes_of(member: zipfile.ZipInfo, memory: memoryview) -> memoryview | None:
    """A member's bytes; None where they are compressed, encrypted, a folder or not in the file."""
    if member.header_offset < 0:
        return None
    header = memory[member.header_offset : member.header_offset + _LOCAL_HEADER]
    if (
        member.compress_type != zipfile.ZIP_STORED
        or member.flag_bits & _ENCRYPTED
        or member.external_attr & _FOLDER
        or len(header) < _LOCAL_HEADER
        or header[:4] != _ZIP
    ):
        return None
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    first = member.header_offset + _LOCAL_HEADER + lengths
    part = memory[first : first + member.file_size]
    return part if len(part) == member.file_size == member.compress_size else None


def _as_written(member: zipfile.ZipInfo, part: memoryview, size: int) -> bool:
    """Whether the checksum holds, where it is looked at; torch looks at none itself, and can be told to write 0."""
    if size > MOST_CHECKED and len(part) > SMALL_MEMBER and not member.filename.endswith(".pkl"):
        return True
    return member.CRC == 0 or zlib.crc32(part) == member.CRC


def _sorted_out(parts: dict[str, memoryview], folder: str, name: str | Path) -> TorchFile:
    """The parts by what they are for; torch itself needs `version`, too."""
    if f"{folder}version" not in parts:
        raise CheckpointError(f"the checkpoint {name} is damaged: it has no version; copy or save it again")
    order = bytes(parts.get(f"{folder}byteorder", memoryview(sys.byteorder.encode()))[:10])
    if order != sys.byteorder.encode():
        raise CheckpointError(
            f"the checkpoint {name} was saved on a machine of the other byte order, whose numbers are not read "
            "here; save it again on a machine like this one"
        )
    data = f"{folder}data/"
    tensors = {part.removeprefix(data): parts[part] for part in parts if part.startswith(data)}
    return TorchFile(bytes(parts[f"{folder}data.pkl"]), tensors)
