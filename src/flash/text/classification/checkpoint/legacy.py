"""Read files of `torch.save`: those of version 0.1.0 (format 3), and of a plain `lightning.pytorch.Trainer`.

After their zip checksums are verified, they are read by `torch.load(weights_only=True)`, which runs no code.
"""

import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

from flash.core.errors import CheckpointError
from flash.text.classification.checkpoint import digest
from flash.text.classification.checkpoint.file import AGAIN, ForeignTensor

BLOCK = 2**20
WHOLE = "zip"  # stands for the digest of a verified file


def load(file: IO[bytes], name: str | Path) -> Any:
    """Read an open file, with torch tensors on the CPU.

    Raises:
        CheckpointError: the file is truncated, damaged, not a torch file, or contains more than tensors and plain values.
    """
    digest.check_once(digest.state_of(file.fileno()), WHOLE, lambda: _check_members(file, name))
    import torch

    file.seek(0)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"the checkpoint {name} holds more than tensors and plain values, which could be code and was not run; "
            "give the file that save_checkpoint wrote"
        ) from error
    except Exception as error:  # torch's message would explain how to run the file's code
        raise CheckpointError(
            f"the checkpoint {name} is damaged: torch cannot put its tensors together; {AGAIN}"
        ) from error
    return content


def announce(name: str | Path) -> None:
    """Warn that a file has the old format, and say how to convert it."""
    warnings.warn(
        f"{name} is a torch file, as version 0.1.0 and a plain lightning.pytorch.Trainer write it, which takes longer to "
        "read; to convert it, type: python -c "
        f'"from flash.text.classification.checkpoint import convert; convert({str(name)!r})"',
        UserWarning,
        stacklevel=4,
    )


def for_numpy(value: Any) -> Any:
    """Replace torch tensors by NumPy arrays."""
    import torch

    if isinstance(value, dict):
        return {key: for_numpy(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(for_numpy(item) for item in value)
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype == torch.bfloat16:
        return value.detach().float().numpy()
    try:
        return value.detach().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError):
        return ForeignTensor(str(value.dtype).removeprefix("torch."), tuple(value.shape))


def _check_members(file: IO[bytes], name: str | Path) -> str:
    """Verify the checksum of each member, which torch does not; 0 means that there is none.

    Raises:
        CheckpointError: the file is truncated, a member is damaged, or it is not a torch file.
    """
    file.seek(0)
    if not zipfile.is_zipfile(file):  # the central directory is at the end
        raise CheckpointError(f"the checkpoint {name} is truncated at {file.seek(0, 2):,} bytes; {AGAIN}")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if not any(member.filename.endswith("/data.pkl") for member in members):
                raise CheckpointError(
                    f"the checkpoint {name} is a zip file, but no model file of this library and no torch file; give the "
                    "file that save_checkpoint wrote"
                )
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED:  # could be a zip bomb
                    raise zipfile.BadZipFile(f"{member.filename} is compressed")
                if member.CRC:
                    with archive.open(member) as part:
                        while part.read(BLOCK):
                            pass
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises many kinds
        raise CheckpointError(
            f"the checkpoint {name} is damaged: its parts are not as they were written; {AGAIN}"
        ) from error
    return WHOLE
