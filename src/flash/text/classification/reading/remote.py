"""Remote files (`https://`, `s3://`, `gs://`, `hf://`, ...), read and written through fsspec.

Users install the package for a protocol themselves; if it is missing, the error message has the pip command. fsspec is
imported when a URL is opened.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from flash.core.errors import DataError, MissingExtraError

PACKAGES = {
    **dict.fromkeys(("http", "https"), "fsspec[http]"),
    **dict.fromkeys(("s3", "s3a"), "fsspec[s3]"),
    **dict.fromkeys(("gs", "gcs"), "fsspec[gcs]"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "fsspec[abfs]"),
    **dict.fromkeys(("sftp", "ssh"), "fsspec[ssh]"),
    "hf": "huggingface_hub",
}
"""The package to install for each protocol."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(path: object) -> bool:
    """Whether a path is a URL."""
    return isinstance(path, str) and _URL.match(path) is not None


@dataclass(frozen=True)
class RemoteFile:
    """A remote file, with the methods of `Path` that the readers use.

    Attributes:
        url: the URL as the user wrote it.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the path, without the query."""
        parts = urlsplit(self.url)
        return PurePosixPath(parts.path or parts.netloc).name

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[IO[bytes]]:
        """Open the file; a written file appears when the block ends, and not at all after an error.

        Raises:
            DataError: the file system's error, in one sentence.
            MissingExtraError: the package of this protocol is not installed.
        """
        verb = "read" if mode == "rb" else "written"
        with refusing(self.url, verb):
            system, path = file_system(self.url)
            if mode == "rb":
                file = system.open(path, "rb")
            else:
                system.start_transaction()
                file = system.open(path, "wb")
        try:
            yield _Refusing(file, self.url, verb)  # type: ignore[misc]
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                file.close()
            if mode != "rb":
                system.transaction.complete(commit=False)
            raise
        with refusing(self.url, verb):
            file.close()
            if mode != "rb":
                system.end_transaction()

    def read(self) -> bytes:
        """The whole content."""
        with self.open() as file:
            return file.read()


def remote_files(url: str) -> list[RemoteFile]:
    """Return the files of a URL; a `*` in it is a pattern if the file system can list files.

    Raises:
        DataError: no file matches.
        MissingExtraError: the package of this protocol is not installed.
    """
    if "*" not in url or url.startswith(("http://", "https://")):
        return [RemoteFile(url)]
    with refusing(url, "read"):
        system, path = file_system(url)
        found = sorted(system.glob(path))
    if not found:
        raise DataError(f"no file matches {url!r}; check the folder and the ending")
    return [RemoteFile(system.unstrip_protocol(path)) for path in found]


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    return system, path


@contextmanager
def refusing(url: str, verb: str) -> Iterator[None]:
    """Turn any exception of a file system into a DataError with one sentence about `url`.

    The packages behind fsspec raise their own exceptions, which have no common base class.
    """
    protocol = url.partition("://")[0].lower()
    try:
        yield
    except (DataError, MissingExtraError):
        raise
    except ImportError as error:
        package = PACKAGES.get(protocol)
        advice = f'type: pip install "{package}"' if package else str(error)
        raise MissingExtraError(
            f"{url} needs a package for {protocol}://, which is not installed; {advice}"
        ) from error
    except FileNotFoundError as error:
        # fsspec also raises this if the server cannot be reached; the cause shows the difference
        cause = error.__cause__
        absent = cause is None or getattr(cause, "status", None) == 404
        reason = "there is no such file" if absent else _first_line(cause)
        raise DataError(f"{url} cannot be {verb}: {reason}; check the address") from error
    except NotImplementedError as error:
        raise DataError(
            f"{url} cannot be {verb}: {protocol}:// only gives files; name another place"
        ) from error
    except Exception as error:
        raise DataError(
            f"{url} cannot be {verb}: {_first_line(error)}; check the address, the network and your access"
        ) from error


def _first_line(error: BaseException | None) -> str:
    words = str(error).strip() or type(error).__name__
    return words.splitlines()[0][:200].rstrip(".")


class _Refusing:
    """Wraps an open file of fsspec, so that its reads and writes raise DataError."""

    def __init__(self, file: Any, url: str, verb: str) -> None:
        self._file, self._url, self._verb = file, url, verb

    def read(self, size: int = -1) -> bytes:
        with refusing(self._url, self._verb):
            content: bytes = self._file.read(size)
        return content

    def write(self, content: bytes) -> int:
        with refusing(self._url, self._verb):
            written: int = self._file.write(content)
        return written

    def flush(self) -> None:
        """Do nothing: parts of a multipart upload have a minimum size."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
