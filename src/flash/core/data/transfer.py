"""One transfer, whole or not at all. Imports nothing of the project but its errors and a note's place.

urllib3 does the HTTP and the TLS, whose checks are always on: it is small, and requests stands on it. Going
on where a transfer broke is what it lacks (so do pooch and torch.hub), and what this module adds. Beside a
file `data/x.zip` it keeps

- `data/x.zip.part` while the transfer runs or is broken off: the bytes so far;
- `data/.x.zip.json`: where the bytes come from, the server's mark for that version of the file (its ETag or
  date), the length, and for an archive what was unpacked. This note tells a whole file from a partial one.

A file that lies there without a note is whole if it has the given SHA-256, or the length the server tells.
"""

import hashlib
import http.client
import json
import os
import re
import ssl
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from tqdm import tqdm

from flash.core.data.archives import note_of
from flash.core.errors import DownloadError

BLOCK = 2**18
MAX_REDIRECTS = 10
WORTH_GOING_ON = 2**16  # bytes; a connection that brings fewer counts as failed
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """When a transfer is given up; times in seconds.

    Attributes:
        attempts: connections in a row that bring (nearly) nothing. When none was ever made, two are enough.
        stall: how long a connection may take, or stay silent.
        pause: before the second attempt; doubled before each further one.
        longest_pause: the most that is waited, also when the server asks for more (Retry-After).
    """

    attempts: int = 6
    stall: float = 30.0
    pause: float = 0.5
    longest_pause: float = 60.0


PATIENCE = Patience()


@dataclass(frozen=True)
class Job:
    """One file to have: where from, where to, and the two files kept beside it."""

    url: str
    target: Path
    sha256: str | None
    progress: bool
    patience: Patience

    @property
    def part(self) -> Path:
        """The bytes so far, while the transfer runs or is broken off."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def note_path(self) -> Path:
        """Where the note is kept."""
        return note_of(self.target)

    def note(self) -> dict[str, Any]:
        """What is known of the target or, while there is a part, of the part; empty when nothing is."""
        try:
            note = json.loads(self.note_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def write_note(self, **note: Any) -> None:
        """Put down what is known, in place of what was."""
        temporary = self.note_path.with_name(self.note_path.name + ".new")
        temporary.write_text(json.dumps(note), encoding="utf-8")
        temporary.replace(self.note_path)

    def forget(self) -> None:
        """Delete the part and the note."""
        self.note_path.unlink(missing_ok=True)  # first: a part without a note is never gone on with
        self.part.unlink(missing_ok=True)

    def error(self, why: str, advice: str) -> DownloadError:
        """What to raise when the file cannot be had."""
        return DownloadError(f"cannot download {shown(self.url)}: {why}; {advice}")


def shown(url: str) -> str:
    """An address as messages show it: what stands behind `?` may be a key, and is nobody else's business."""
    return re.split("[?#]", url, maxsplit=1)[0]


class _Interrupted(Exception):  # noqa: N818  (not an error yet: the next attempt may go on from here)
    """An attempt ended early, for a reason that may pass."""

    def __init__(self, why: str, *, connected: bool = True, wait: float | None = None) -> None:
        super().__init__(why)
        self.connected, self.wait = connected, wait


def transfer(job: Job) -> bool:
    """Have the target whole; whether anything had to be transferred for it.

    Raises:
        DownloadError: the connection, the server's answer, the length or the SHA-256 was not as needed.
        OSError: the disk.
    """
    if job.target.is_dir():
        raise job.error(f"{job.target} is a folder", "give another path")
    if _is_whole(job):
        return False
    # A file without a note may be whole: the length that the server tells decides.
    ours = not job.part.exists() and not job.sha256 and job.note().get("url", job.url) == job.url
    unproven = job.target.stat().st_size if ours and job.target.is_file() else None
    best, failures, connected = _size(job.part), 0, False
    while True:
        try:
            return _attempt(job, unproven)
        except _Interrupted as problem:
            connected = connected or problem.connected
            failures = 0 if _size(job.part) >= best + WORTH_GOING_ON else failures + 1
            best = max(best, _size(job.part))
            pause = min(job.patience.pause * 2 ** max(failures - 1, 0), job.patience.longest_pause)
            wait = max(pause, problem.wait or 0.0)
            if failures >= (job.patience.attempts if connected else 2) or wait > job.patience.longest_pause:
                raise job.error(str(problem), _advice(job, problem, unproven)) from problem
        time.sleep(wait)


def _advice(job: Job, problem: _Interrupted, unproven: int | None) -> str:
    again = (
        "run it again later" if problem.connected else "check the network and the address, then run it again"
    )
    if unproven is not None:
        again += f" ({job.target} is there, but whether it is whole could not be checked)"
    if job.part.exists() and job.note().get("mark"):
        again += f"; the {_size(job.part):,} bytes that came are kept"
    return again


def _is_whole(job: Job) -> bool:
    if not job.target.is_file():
        return False
    size, note = _size(job.target), job.note()
    noted = not job.part.exists() and note.get("url") == job.url and note.get("length") == size
    if job.sha256 is None or _digest(job.target) != job.sha256:
        return noted and job.sha256 is None
    if not noted:
        with suppress(OSError):  # a folder that can only be read: the digest proves it each time
            job.part.unlink(missing_ok=True)
            job.write_note(url=job.url, length=size)
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _attempt(job: Job, unproven: int | None) -> bool:
    """One connection: from where the part ends, or from the start. Whether anything was transferred."""
    note = job.note() if job.part.exists() else {}
    have = _size(job.part) if note.get("url") == job.url and note.get("mark") else 0
    if not have or have != note.get("length"):
        with closing(_open(job, have, note.get("mark"))) as response:
            have = _bytes_to_keep(job, response, have, note)
            rest = response.length_remaining
            length = None if rest is None else have + rest
            mark = _mark(response) or (note["mark"] if have else None)
            new_note = {"url": job.url, "mark": mark, "length": length}
            if not have and length is not None and length == unproven:
                with suppress(OSError):  # a folder that can only be read: the server is asked each time
                    job.write_note(**new_note)
                return False
            job.part.touch()  # before the note, which from now on speaks of the part
            job.write_note(**new_note)
            _receive(job, response, have, length)
    _finish(job)
    return True


def _mark(response: urllib3.BaseHTTPResponse) -> str | None:
    """What tells one version of a file from another: a strong ETag, or the date."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _bytes_to_keep(job: Job, response: urllib3.BaseHTTPResponse, have: int, note: dict[str, Any]) -> int:
    """How many bytes of the part the answer continues: all or none."""
    if response.status == 200:
        return 0
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    same = response.status == 206 and told is not None and int(told[1]) == have
    same = same and _mark(response) in (None, note.get("mark"))  # it may be left out when If-Range was met
    if not same or (told is not None and told[2] not in ("*", str(note.get("length") or "*"))):
        job.forget()
        raise _Interrupted("the file on the server changed while it was downloaded")
    return have


def _receive(job: Job, response: urllib3.BaseHTTPResponse, have: int, length: int | None) -> None:
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "desc": job.target.name}
    hidden = None if job.progress else True  # None: hidden unless stderr is a terminal
    with (
        job.part.open("ab" if have else "wb") as file,
        tqdm(total=length, initial=have, disable=hidden, **options) as bar,
    ):
        while block := _read(job, response):
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    if length is not None and _size(job.part) != length:
        raise _Interrupted(f"{_size(job.part):,} bytes came of {length:,}")


def _read(job: Job, response: urllib3.BaseHTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise _problem(job, error) from error


def _finish(job: Job) -> None:
    note, size = job.note(), _size(job.part)
    if job.sha256 is not None and (found := _digest(job.part)) != job.sha256:
        job.forget()
        raise job.error(
            f"what came has the SHA-256 {found}, expected {job.sha256}",
            "it was deleted; check the address and the sha256, then run it again",
        )
    job.part.replace(job.target)
    job.write_note(**{**note, "length": size})


def _open(job: Job, have: int, mark: str | None) -> urllib3.BaseHTTPResponse:
    """The answer to a request for the bytes from `have` on, past redirects: its status is 200, 206 or 416."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "flash-multilabel"}
    if have and mark:
        headers |= {"Range": f"bytes={have}-", "If-Range": mark}
    url = job.url
    for _ in range(MAX_REDIRECTS + 1):
        response = _request(job, url, headers)
        location = response.get_redirect_location()
        if not location:
            return _accepted(job, response)
        response.close()
        onward = urljoin(url, location)
        if urlsplit(onward).scheme not in ("https", urlsplit(url).scheme):
            raise job.error(
                f"the server sends on to {shown(onward)}, which is not https", "check the address"
            )
        url = onward
    raise job.error(f"the server sends on more than {MAX_REDIRECTS} times", "check the address")


def _request(job: Job, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    try:
        manager = (
            urllib3.ProxyManager(proxy, cert_reqs="CERT_REQUIRED")
            if proxy
            else urllib3.PoolManager(cert_reqs="CERT_REQUIRED")
        )
        timeout = urllib3.Timeout(connect=job.patience.stall, read=job.patience.stall)
        return manager.request(
            "GET", url, headers=headers, timeout=timeout, retries=False, redirect=False, preload_content=False
        )
    except urllib3.exceptions.HTTPError as error:
        raise _problem(job, error) from error


def _accepted(job: Job, response: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
    if response.status in (200, 206, 416):
        return response
    why = f"the server answers {response.status} {response.reason or ''}".rstrip()
    response.close()
    if response.status in TRY_AGAIN:
        wait = _seconds(response.headers.get("Retry-After"))
        raise _Interrupted(f"{why} and asks to wait {wait:.0f} s" if wait else why, wait=wait)
    advice = "it needs a permission" if response.status in (401, 403) else "check the address"
    raise job.error(why, advice)


def _seconds(retry_after: str | None) -> float | None:
    try:
        return urllib3.Retry().parse_retry_after(retry_after) if retry_after else None
    except urllib3.exceptions.InvalidHeader:
        return None


def _problem(job: Job, error: urllib3.exceptions.HTTPError) -> Exception:
    """What went wrong, in words: an `_Interrupted` when it may pass, a DownloadError when it will not."""
    host = urlsplit(job.url).hostname
    cause = error.__cause__ or (error.args[0] if isinstance(error, urllib3.exceptions.SSLError) else error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return job.error(
            f"the certificate of {host} cannot be trusted ({cause.verify_message})",
            "check the address and this machine's clock, or name the right authorities in SSL_CERT_FILE",
        )
    if isinstance(error, urllib3.exceptions.SSLError):
        return _Interrupted(f"no secure connection to {host} ({cause})", connected=False)
    if isinstance(error, urllib3.exceptions.ProxyError):
        return _Interrupted(f"the proxy for {host} does not answer ({cause})", connected=False)
    if isinstance(error, urllib3.exceptions.LocationValueError):
        return job.error(shown(str(error)), "check the address and the proxy settings")
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return _Interrupted(f"the name {host} cannot be resolved", connected=False)
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return _Interrupted(
            f"no connection to {host} ({getattr(cause, 'strerror', None) or cause})", connected=False
        )
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return _Interrupted(f"no connection to {host} within {job.patience.stall:g} s", connected=False)
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return _Interrupted(f"the server sent nothing for {job.patience.stall:g} s")
    inner = error.args[-1] if error.args else error
    if isinstance(inner, http.client.IncompleteRead):
        missing = f"{inner.expected:,} bytes " if inner.expected else ""
        return _Interrupted(f"the connection ended {missing}too early")
    return _Interrupted(f"the connection broke ({getattr(inner, 'strerror', None) or inner})")
