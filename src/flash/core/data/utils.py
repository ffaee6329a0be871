"""`download_data`: files that come whole or not at all, and archives that are unpacked safely.

pooch makes the transfer (attempts, a temporary name, the SHA-256); requests verifies the certificate and the length.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from flash.core.data.archives import is_archive, unpack
from flash.core.errors import DownloadError

RETRIES = 3
SILENCE = 30.0  # seconds that a server may send nothing
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


def download_data(url: str, path: str = "data/", verbose: bool = False, *, sha256: str | None = None) -> None:
    """Download a file into the folder `path`, and unpack it there if it is an archive.

    A file that is there is downloaded again only if it has not the `sha256`; delete it to have it anew. An archive's
    files replace those of the same names, unless all are there with the sizes that the archive tells.

    Args:
        url: begins with https:// or http://. Its last part is the file's name. Names that end in .zip, .tar,
            .tar.gz, .tgz, .tar.bz2, .tbz2, .tar.xz or .txz are unpacked; the archive stays where it is.
        path: the folder, made when it is not there.
        verbose: say on stderr what was done. The progress bar shows whenever stderr is a terminal.
        sha256: what the file's SHA-256 must be, 64 hexadecimal digits.

    Raises:
        DownloadError: the file could not be had whole, or the archive is broken or unsafe (see `unpack`).
    """
    name = unquote(_parts(url).path.rpartition("/")[2])
    if name in ("", ".", "..") or re.search(r"[/\\:\x00-\x1f\x7f]", name):
        raise DownloadError(
            f"cannot download {_shown(url)}: its last part, {name!r}, is no file name; give the address of one file"
        )
    target = Path(path).expanduser() / name
    came = _transfer(url, target, sha256)
    said = [f"{target} is {'downloaded' if came else 'there already'}"]
    if is_archive(name):
        said.append(f"{unpack(target, target.parent, again=came)} files were unpacked into {target.parent}")
    if verbose:
        print(*said, sep="\n", file=sys.stderr)  # noqa: T201  what `verbose` asks for


def fetch(url: str, target: Path) -> Path:
    """Download `url` to the file `target` unless it is there, without unpacking; returns `target`."""
    _transfer(url, target, None)
    return target


class _Refused(Exception):  # noqa: N818  not a ValueError, after which pooch tries again
    """An answer or a file that another attempt would not change."""


def _transfer(url: str, target: Path, sha256: str | None) -> bool:
    """Download the file unless it is there; whether it was downloaded."""
    import pooch
    import requests

    _parts(url)
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise DownloadError(f"sha256={sha256!r} is not a SHA-256: expected 64 hexadecimal digits")
    if target.is_dir():
        raise DownloadError(f"cannot download {_shown(url)}: {target} is a folder; give another path")
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it would show the whole address, which may hold a key
    try:
        known, urls = {target.name: sha256 and sha256.lower()}, {target.name: url}
        files = pooch.create(target.parent, "", registry=known, urls=urls, retry_if_failed=RETRIES)
        attempt = _attempt(known[target.name])
        return str(files.fetch(target.name, lambda _, action, __: action, attempt)) != "fetch"
    except (_Refused, requests.RequestException, OSError) as error:
        raise _in_words(error, url, target) from error
    finally:
        logger.setLevel(level)


def _attempt(sha256: str | None) -> Any:
    """The function that pooch calls for each attempt."""
    import pooch

    headers = {"Accept-Encoding": "identity", "User-Agent": "flash-multilabel"}
    trusted, hooks = os.environ.get("SSL_CERT_FILE") or True, {"response": _check_answer}
    options: dict[str, Any] = {"timeout": SILENCE, "verify": trusted, "hooks": hooks, "headers": headers}
    http = pooch.HTTPDownloader(sys.stderr.isatty(), 2**18, **options)

    def download(url: str, file: str, files: Any) -> None:
        http(url, file, files)
        if sha256 and (found := pooch.file_hash(file)) != sha256:
            raise _Refused(f"the SHA-256 is {found}, expected {sha256}; check the address and the sha256")

    return download


def _check_answer(response: Any, **_: Any) -> None:
    """Refuse a redirect to plain HTTP, and answers that would be the same the next time."""
    code, advice = response.status_code, "check the address"
    if response.is_redirect:
        onward = urljoin(response.url, response.headers["Location"])
        if urlsplit(onward).scheme not in ("https", urlsplit(response.url).scheme):
            response.close()
            raise _Refused(f"the server sends on to {_shown(onward)}, which is not https; {advice}")
    elif code != 200:
        response.close()
        if code not in TRY_AGAIN:
            advice = "it needs a permission" if code in (401, 403) else advice
            raise _Refused(f"the server answers {code} {response.reason}; {advice}")


def _in_words(error: Any, url: str, target: Path) -> DownloadError:
    """The innermost reason, as the words of requests hold the whole address."""
    import requests

    cause, answer = error, getattr(error, "response", None)
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__
    reason = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or cause
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        reason = "it ended too early"
    if isinstance(error, _Refused):
        why = str(error)
    elif answer is not None:
        why = f"the server answers {answer.status_code} {answer.reason}; run it again later"
    elif hasattr(cause, "verify_message"):
        why = f"the certificate is not trusted ({reason}); check the address, or set SSL_CERT_FILE to the authorities"
    elif isinstance(error, requests.RequestException):
        why = f"the connection failed ({reason}); check the address and the network, or run it again later"
    else:
        why = f"{target} cannot be written ({reason}); make room, or give another path"
    return DownloadError(f"cannot download {_shown(url)}: {why}")


def _parts(url: str) -> SplitResult:
    """The parts of an address of the web that holds no user name."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.username is None:
            return parts
    except ValueError:  # such as half an IPv6 address
        pass
    raise DownloadError(
        f"cannot download {_shown(url)!r}: expected an address that begins with https:// or http:// and holds no user "
        "name; a file of this machine needs no download: give its path instead"
    )


def _shown(url: str) -> str:
    """An address without what may be secret: a user's name and password, and what stands behind `?` or `#`."""
    return re.sub("//[^/]*@", "//", re.split("[?#]", url, maxsplit=1)[0])
