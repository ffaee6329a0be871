"""Transfers from a local server that behaves, stalls, truncates, refuses, forgets and lies."""

import errno
import hashlib
import io
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from flash.core.data.transfer import Patience
from flash.core.data.utils import download_data, fetch
from flash.core.errors import DownloadError

BODY = bytes(range(256)) * 40  # what the server sends unless told otherwise: 10,240 bytes

Server: TypeAlias = Any  # of conftest.py, from which tests cannot import
Handler: TypeAlias = Any
Behaviour: TypeAlias = Callable[[Handler], object]


def truncated(size: int) -> Behaviour:
    return lambda handler: handler.wfile.write(handler.start()[:size])


def stalled(size: int) -> Behaviour:
    def answer(handler: Handler) -> None:
        handler.wfile.write(handler.start()[:size])
        handler.wfile.flush()
        threading.Event().wait(1.0)

    return answer


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def status(code: int, **headers: str | int) -> Behaviour:
    return lambda handler: handler.head(code, Content_Length=0, **headers)


def ignoring_ranges(size: int) -> Behaviour:
    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=len(handler.server.body), **handler.server.marks)
        handler.wfile.write(handler.server.body[:size])

    return answer


def chunked(*, end: bool) -> Behaviour:
    def answer(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(handler.server.body), handler.server.body))
        if end:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def visible(folder: Path) -> list[str]:
    """What a user sees in the folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_file_lands_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "x.bin"
    assert fetch(server.url(), target) == target
    assert target.read_bytes() == BODY
    assert visible(target.parent) == ["x.bin"]
    fetch(server.url(), target)
    assert len(server.requests) == 1


@pytest.mark.parametrize("breaks", [truncated(3000), stalled(3000)])
@pytest.mark.parametrize("marks", [{"ETag": '"one"'}, {"Last-Modified": "Sun, 01 Nov 2026 10:00:00 GMT"}])
def test_a_broken_transfer_goes_on_where_it_broke(
    server: Server, tmp_path: Path, breaks: Behaviour, marks: dict[str, str]
) -> None:
    server.marks, server.plan = marks, [breaks]
    fetch(server.url(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    assert server.ranges() == [None, "bytes=3000-"]
    assert server.requests[1][1]["If-Range"] in marks.values()


def test_a_later_call_goes_on_too_and_the_error_says_so(server: Server, tmp_path: Path) -> None:
    server.plan = [truncated(3000), reset, reset, reset]
    with pytest.raises(
        DownloadError, match=r"broke \(Connection reset.*; the 3,000 bytes that came are kept"
    ):
        fetch(server.url(), tmp_path / "x")
    assert visible(tmp_path) == ["x.part"]
    fetch(server.url(), tmp_path / "x")
    assert server.ranges()[-1] == "bytes=3000-"
    assert (tmp_path / "x").read_bytes() == BODY
    assert visible(tmp_path) == ["x"]


def test_a_part_that_was_whole_already_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(BODY)
    note = {"url": server.url(), "mark": '"one"', "length": len(BODY)}
    (tmp_path / ".x.json").write_text(json.dumps(note))
    fetch(server.url(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    assert server.requests == []


def test_a_file_that_changes_midway_is_not_glued_together(server: Server, tmp_path: Path) -> None:
    def change(handler: Handler) -> None:
        truncated(3000)(handler)
        server.body, server.marks = BODY[::-1], {"ETag": '"two"'}

    server.plan = [change]
    fetch(server.url(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY[::-1]


def test_a_server_that_disregards_if_range_is_found_out(server: Server, tmp_path: Path) -> None:
    def careless(handler: Handler) -> None:
        handler.head(206, Content_Range="bytes 3000-10239/10240", Content_Length=7240, ETag='"two"')
        handler.wfile.write(bytes(7240))

    server.plan = [truncated(3000), careless]
    fetch(server.url(), tmp_path / "x")
    assert server.ranges() == [None, "bytes=3000-", None]
    assert (tmp_path / "x").read_bytes() == BODY


@pytest.mark.parametrize("told", ["bytes 0-10239/10240", "bytes 3000-10239/99999", "nonsense"])
def test_a_wrong_range_in_the_answer_starts_again(server: Server, tmp_path: Path, told: str) -> None:
    server.plan = [truncated(3000), status(206, Content_Range=told, ETag='"one"')]
    fetch(server.url(), tmp_path / "x")
    assert server.ranges() == [None, "bytes=3000-", None]
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_server_without_ranges_or_marks_starts_again(server: Server, tmp_path: Path) -> None:
    server.plan = [ignoring_ranges(3000), ignoring_ranges(5000), ignoring_ranges(10240)]
    fetch(server.url(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    server.marks, server.plan = {}, [truncated(3000)]
    fetch(server.url("other"), tmp_path / "y")
    assert server.ranges()[-2:] == [None, None]
    assert (tmp_path / "y").read_bytes() == BODY


def test_the_mark_of_a_part_outlives_an_answer_without_it(server: Server, tmp_path: Path) -> None:
    def unmarked(handler: Handler) -> None:
        handler.head(206, Content_Range="bytes 3000-10239/10240", Content_Length=7240)
        handler.wfile.write(BODY[3000:4000])

    server.plan = [truncated(3000), unmarked]
    fetch(server.url(), tmp_path / "x")
    assert server.ranges() == [None, "bytes=3000-", "bytes=4000-"]
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_length_that_never_comes_ends(server: Server, tmp_path: Path) -> None:
    server.plan = [ignoring_ranges(10000)] * 9
    with pytest.raises(
        DownloadError, match=r"the connection ended 240 bytes too early; run it again later; the 10,000 b"
    ):
        fetch(server.url(), tmp_path / "x")
    assert len(server.requests) == 3
    assert not (tmp_path / "x").exists()


def test_a_part_longer_than_the_file_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(bytes(20_000))
    (tmp_path / ".x.json").write_text(json.dumps({"url": server.url(), "mark": '"one"', "length": 30_000}))
    fetch(server.url(), tmp_path / "x")
    assert server.ranges() == ["bytes=20000-", None]
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_stall_is_told_in_seconds(server: Server, tmp_path: Path) -> None:
    server.plan = [stalled(0)] * 3
    with pytest.raises(DownloadError, match=r"the server sent nothing for 0\.3 s; run it again later"):
        fetch(server.url(), tmp_path / "x")


def test_a_body_without_length_must_end_properly(server: Server, tmp_path: Path) -> None:
    server.plan = [chunked(end=False), chunked(end=True)]
    fetch(server.url(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    fetch(server.url(), tmp_path / "x")
    assert len(server.requests) == 2


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    server.plan = [status(code), reset]
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY
    assert len(server.requests) == 3


def test_retry_after_is_honoured(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.plan = [status(503, Retry_After=1), status(503), status(429, Retry_After="nonsense")]
    fetch(server.url(), tmp_path / "x", patience=Patience(pause=0.125))
    assert pauses == [1.0, 0.25, 0.5]


def test_retry_after_too_far_off_is_an_answer(server: Server, tmp_path: Path) -> None:
    server.plan = [status(429, Retry_After=3600)]
    with pytest.raises(
        DownloadError, match=r"answers 429 Too Many Requests and asks to wait 3600 s; run it again"
    ):
        fetch(server.url(), tmp_path / "x")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (404, "404 Not Found; check the address"),
        (403, "403 Forbidden; it needs a permission"),
        (204, "204 No"),
    ],
)
def test_a_refusal_is_told_at_once(server: Server, tmp_path: Path, code: int, words: str) -> None:
    server.plan = [status(code)]
    with pytest.raises(DownloadError, match=rf"cannot download {server.url()}: the server answers {words}"):
        fetch(server.url(), tmp_path / "x")
    assert len(server.requests) == 1
    assert visible(tmp_path) == []


def test_a_partial_file_is_not_taken_for_whole(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(BODY[:3000])
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY
    (tmp_path / "x").write_bytes(BODY[:3000])  # with a note this time
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY


def test_a_file_of_the_right_length_is_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(BODY[::-1])
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY[::-1]
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY[::-1]
    assert len(server.requests) == 1
    assert fetch(server.url("other"), tmp_path / "x").read_bytes() == BODY  # the note says it is another file


@pytest.mark.parametrize("note", ["", "[]", "{", '{"url": 3}'])
def test_a_spoilt_note_is_no_note(server: Server, tmp_path: Path, note: str) -> None:
    (tmp_path / ".x.json").write_text(note)
    (tmp_path / "x").write_bytes(BODY[:10])
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY


def test_the_sha256_decides(server: Server, tmp_path: Path) -> None:
    right = hashlib.sha256(BODY).hexdigest()
    (tmp_path / "x").write_bytes(BODY[::-1])
    assert fetch(server.url(), tmp_path / "x", sha256=right.upper()).read_bytes() == BODY
    assert fetch(server.url(), tmp_path / "x", sha256=right).read_bytes() == BODY
    (tmp_path / "y").write_bytes(BODY)
    fetch(server.url(), tmp_path / "y", sha256=right)
    assert len(server.requests) == 1
    with pytest.raises(DownloadError, match=rf"has the SHA-256 {right}, expected {'0' * 64}; it was deleted"):
        fetch(server.url(), tmp_path / "x", sha256="0" * 64)
    assert (tmp_path / "x").read_bytes() == BODY  # as it was before
    with pytest.raises(DownloadError, match="sha256='abc' is not a SHA-256: expected 64 hexadecimal digits"):
        fetch(server.url(), tmp_path / "x", sha256="abc")


def test_redirects_are_followed_but_not_away_from_the_web(server: Server, tmp_path: Path) -> None:
    server.plan = [status(302, Location="/there"), status(301, Location="file.bin")]
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY
    server.plan = [status(302, Location="file:///etc/passwd")]
    with pytest.raises(DownloadError, match="the server sends on to file:///etc/passwd, which is not https"):
        fetch(server.url(), tmp_path / "y")
    server.plan = [status(302, Location="/again")] * 99
    with pytest.raises(DownloadError, match="the server sends on more than 10 times"):
        fetch(server.url(), tmp_path / "y")


def test_nobody_answers(server: Server, tmp_path: Path) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/x.zip"
    words = rf"cannot download {url}: no connection to 127.0.0.1 \(Connection refused\); check the net"
    with pytest.raises(DownloadError, match=words):
        download_data(url, str(tmp_path))
    (tmp_path / "x.zip").write_bytes(b"who knows")
    with pytest.raises(DownloadError, match=r"x\.zip is there, but whether it is whole could not be checked"):
        download_data(url, str(tmp_path))


def test_offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"the name data\.example cannot be resolved; check the network"):
        fetch("https://data.example/x.zip", tmp_path / "x")


def test_a_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("no_proxy", "")
    assert fetch("http://data.example/x.bin", tmp_path / "x").read_bytes() == BODY
    assert server.requests[0][0] == "http://data.example/x.bin"


def test_a_proxy_that_is_gone(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(
        DownloadError, match=r"the proxy for data\.example does not answer .*; check the network"
    ):
        fetch("http://data.example/x.bin", tmp_path / "x")


def test_a_server_without_tls(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"no secure connection to 127\.0\.0\.1 \(.*; check the network"):
        fetch(server.url().replace("http:", "https:"), tmp_path / "x")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificate")
def test_a_certificate_that_nobody_vouches_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure = type(server)()
    secure.scheme = "https"
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    with secure.running():
        words = (
            r"the certificate of 127\.0\.0\.1 cannot be trusted \(self.signed certificate\); .*SSL_CERT_FILE"
        )
        with pytest.raises(DownloadError, match=words):
            fetch(secure.url(), tmp_path / "x")
        assert secure.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch(secure.url(), tmp_path / "x").read_bytes() == BODY
        secure.plan = [status(302, Location=server.url())]
        with pytest.raises(DownloadError, match=r"sends on to http://.*, which is not https"):
            fetch(secure.url("y"), tmp_path / "y")
    assert server.requests == []


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DownloadError, match=r"cannot write into .*: No space left on device .*make room"):
        fetch(server.url(), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_progress_bar_on_a_terminal(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for progress in (True, False):
        monkeypatch.setattr(sys, "stderr", screen := Terminal())
        fetch(server.url(), tmp_path / f"{progress}.bin", progress=progress)
        assert ("True.bin: 100%" in screen.getvalue()) == progress
