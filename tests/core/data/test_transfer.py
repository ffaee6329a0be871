"""Transfers from a local server that behaves, stalls, truncates, refuses and lies."""

import errno
import hashlib
import io
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pooch
import pytest

from flash.core.data.utils import RETRIES, download_data, fetch
from flash.core.errors import DownloadError

BODY = bytes(range(256)) * 40  # what the server sends unless told otherwise: 10,240 bytes

Server: TypeAlias = Any  # of conftest.py, from which tests cannot import
Handler: TypeAlias = Any
Behaviour: TypeAlias = Callable[[Handler], object]


def truncated(size: int) -> Behaviour:
    return lambda handler: handler.wfile.write(handler.start()[:size])


def stalled(handler: Handler) -> None:
    handler.wfile.write(handler.start()[:3000])
    handler.wfile.flush()
    threading.Event().wait(1.0)


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def status(code: int, **headers: str | int) -> Behaviour:
    return lambda handler: handler.head(code, Content_Length=0, **headers)


def unending(handler: Handler) -> None:
    handler.head(200, Transfer_Encoding="chunked")
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(BODY), BODY))


def test_a_file_lands_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "x.bin"
    assert fetch(server.url(), target) == target
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    fetch(server.url(), target)
    assert len(server.requests) == 1
    assert (
        server.requests[0][1]["Accept-Encoding"] == "identity"
    )  # bytes as they are, whose length can be checked


@pytest.mark.parametrize("breaks", [truncated(3000), stalled, reset, unending])
def test_a_transfer_that_breaks_is_made_again(server: Server, tmp_path: Path, breaks: Behaviour) -> None:
    server.plan = [breaks] * RETRIES
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY
    assert len(server.requests) == RETRIES + 1


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (truncated(3000), "it ended too early"),
        (stalled, "timed out"),
        (reset, "Connection reset by peer"),
        (unending, "it ended too early"),
    ],
)
def test_nothing_is_left_of_a_transfer_that_always_breaks(
    server: Server, tmp_path: Path, breaks: Behaviour, words: str
) -> None:
    server.plan = [breaks] * (RETRIES + 1)
    with pytest.raises(DownloadError) as caught:
        fetch(server.url(), tmp_path / "x")
    assert str(caught.value) == (
        f"cannot download {server.url()}: the connection failed ({words}); check the address and the network, "
        "or run it again later"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_tried_again(server: Server, tmp_path: Path, code: int) -> None:
    server.plan = [status(code), reset]
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY
    assert len(server.requests) == 3
    server.plan = [status(code)] * (RETRIES + 1)
    with pytest.raises(DownloadError, match=rf"the server answers {code} .*; run it again later") as caught:
        fetch(server.url("y?key=secret"), tmp_path / "y")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (404, "404 Not Found; check the address"),
        (403, "403 Forbidden; it needs a permission"),
        (204, "204 No Content; check the address"),
    ],
)
def test_a_refusal_is_told_at_once(server: Server, tmp_path: Path, code: int, words: str) -> None:
    server.plan = [status(code)]
    with pytest.raises(DownloadError, match=rf"cannot download {server.url()}: the server answers {words}"):
        fetch(server.url(), tmp_path / "x")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_sha256_decides(server: Server, tmp_path: Path) -> None:
    right = hashlib.sha256(BODY).hexdigest()
    (tmp_path / "x").write_bytes(BODY[::-1])
    download_data(server.url("x"), str(tmp_path), sha256=right.upper())
    assert (tmp_path / "x").read_bytes() == BODY
    download_data(server.url("x"), str(tmp_path), sha256=right)
    assert len(server.requests) == 1
    with pytest.raises(
        DownloadError, match=rf"the SHA-256 is {right}, expected {'0' * 64}; check the address"
    ):
        download_data(server.url("x"), str(tmp_path), sha256="0" * 64)
    assert len(server.requests) == 2
    assert (tmp_path / "x").read_bytes() == BODY  # as it was before
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
    with pytest.raises(DownloadError, match="sha256='abc' is not a SHA-256: expected 64 hexadecimal digits"):
        download_data(server.url("x"), str(tmp_path), sha256="abc")


def test_redirects_are_followed_but_not_away_from_the_web(server: Server, tmp_path: Path) -> None:
    server.plan = [status(302, Location="/there"), status(301, Location="file.bin")]
    assert fetch(server.url(), tmp_path / "x").read_bytes() == BODY
    server.plan = [status(302, Location="file:///etc/passwd")]
    with pytest.raises(DownloadError, match="the server sends on to file:///etc/passwd, which is not https"):
        fetch(server.url(), tmp_path / "y")
    server.plan = [status(302, Location="/again")] * 999
    with pytest.raises(DownloadError, match="the server answers 302 Found; run it again later"):
        fetch(server.url(), tmp_path / "y")


def test_nobody_answers(server: Server, tmp_path: Path) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/x.zip"
    words = (
        rf"cannot download {url}: the connection failed \(Connection refused\); check the address and the net"
    )
    with pytest.raises(DownloadError, match=words):
        download_data(f"{url}?key=secret", str(tmp_path))


def test_offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"the connection failed \(Name or service not known\); check"):
        fetch("https://data.example/x.zip", tmp_path / "x")


def test_a_proxy_of_the_environment_is_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("no_proxy", "")
    assert fetch("http://data.example/x.bin", tmp_path / "x").read_bytes() == BODY
    assert server.requests[0][0] == "http://data.example/x.bin"


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
        words = r"the certificate is not trusted \(self.signed certificate\); check the address, or set SSL_CERT_FILE"
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
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(DownloadError, match=r"x cannot be written \(No space left on device\); make room"):
        fetch(server.url(), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_progress_bar_on_a_terminal(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    fetch(server.url(), tmp_path / "x")
    assert "100%" in screen.getvalue()


def test_pooch_itself_is_left_as_it_was(server: Server, tmp_path: Path) -> None:
    level = pooch.get_logger().level
    with pytest.raises(DownloadError):
        fetch("http://127.0.0.1:1/x", tmp_path / "x")
    assert pooch.get_logger().level == level
