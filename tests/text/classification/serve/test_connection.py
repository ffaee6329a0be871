"""Clients that send a body too slowly or too much, or nonsense, or for another host, or are too many; by raw sockets."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest

from flash.text.classification.predictor import Predictor
from flash.text.classification.serve import ServeOptions, running
from flash.text.classification.serve.served_model import ServedModel

Serving = Callable[..., Any]
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def connected(url: str, **options: Any) -> Iterator[socket.socket]:
    """A socket to a server, which waits for 20 s at most."""
    address = urlsplit(url)
    with closing(socket.socket()) as sock:
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        sock.settimeout(20)
        sock.connect((address.hostname, address.port))
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    with suppress(ConnectionResetError):
        while part := sock.recv(65_536):
            parts.append(part)
    return b"".join(parts)


class Stream:
    """Responses, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.file = sock.makefile("rb")

    def next(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next one."""
        line = self.file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while (field := self.file.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = field.partition(": ")
            headers[name] = value
        return int(line.split()[1]), headers, self.file.read(int(headers.get("content-length", 0)))

    def ended(self) -> bool:
        """Whether nothing more comes."""
        with suppress(ConnectionResetError):
            return self.file.read(1) == b""
        return True


def post(path: str, body: bytes, *more: str) -> bytes:
    """A request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


def problem(sock: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The one response that a server sends before it closes; its body as JSON."""
    stream = Stream(sock)
    status, headers, body = stream.next()
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert headers["x-request-id"]
    assert stream.ended()
    return status, headers, json.loads(body)


# ---- slow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "plain"), [("/v1/classify", False), ("/predict", True)])
def test_a_body_that_does_not_come_whole_is_408(serving: Serving, path: str, plain: bool) -> None:
    with serving(receive_timeout=0.2) as url, connected(url) as sock:
        sock.sendall(post(path, b"{" + b" " * 100)[:-50])
        status, _, body = problem(sock)
        assert status == 408
        assert (body["error_type"] if plain else body["error"]["code"]) == "request_timeout"


def test_an_idle_connection_is_closed_after_keep_alive(serving: Serving) -> None:
    with serving(keep_alive=0.1) as url, connected(url) as sock:
        sock.sendall(HEALTH)
        stream = Stream(sock)
        assert stream.next()[0] == 200
        assert stream.ended()


class Held:
    """A backbone that answers when it is let go."""

    def __init__(self) -> None:
        self.go, self.began = threading.Event(), threading.Event()

    def logits(self, texts: pa.Array) -> np.ndarray:
        if texts.to_pylist()[0].startswith("wait"):
            self.began.set()
            assert self.go.wait(20)
        return np.zeros((len(texts), 1), np.float32)


@contextmanager
def held_server(**options: Any) -> Iterator[tuple[str, Held]]:
    """A server whose model waits for the test."""
    held = Held()
    given = ServeOptions(**{"port": 0, "log_level": "error", **options})
    backbone: Any = held
    predictor = Predictor(backbone, ["one"], multi_label=True, thresholds=np.full(1, 0.5, np.float32))
    with running(ServedModel.of(predictor, given), given) as url:
        try:
            yield url, held
        finally:
            held.go.set()


def test_the_model_may_take_longer_than_a_client(serving: Serving) -> None:
    body = b'{"texts": ["wait"]}'
    with held_server(receive_timeout=0.2) as (url, held), connected(url) as sock:
        # the second request is not read on until the first is answered, so its time does not pass
        sock.sendall(post("/v1/classify", body) + post("/v1/classify", body)[:-5])
        assert held.began.wait(20)
        time.sleep(0.6)
        sock.sendall(body[-5:])
        held.go.set()
        stream = Stream(sock)
        assert [stream.next()[0], stream.next()[0]] == [200, 200]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what will be."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within 20 s"
        time.sleep(0.02)


def send_quietly(sock: socket.socket, data: bytes) -> None:
    """Send as much as there is an ear for."""
    with suppress(OSError):
        sock.sendall(data)


# ---- too much ----------------------------------------------------------------------------------------------------


def test_connections_above_the_limit_are_503_and_closed(serving: Serving, ask: Any) -> None:
    with serving(max_connections=2) as url:
        with connected(url) as one, connected(url) as other:
            for sock in (one, other):
                sock.sendall(HEALTH)
                assert Stream(sock).next()[0] == 200
            for _ in range(2):
                with connected(url) as third:
                    third.sendall(HEALTH)
                    stream = Stream(third)
                    assert stream.next()[0] == 503
                    assert stream.ended()
            one.sendall(HEALTH)  # who is inside is not disturbed
            assert Stream(one).next()[0] == 200
        until(lambda: ask(f"{url}/health").status == 200)


def test_a_client_that_is_refused_while_it_sends_reads_why(url: str) -> None:
    body = b"x" * 10_000_000
    with connected(url) as sock:
        sender = threading.Thread(target=lambda: send_quietly(sock, post("/v1/classify", body)))
        sender.start()
        stream = Stream(sock)
        status, _, made = stream.next()
        assert status == 413
        assert json.loads(made)["error"]["code"] == "body_too_large"
        assert stream.ended()
        sender.join()


# ---- nonsense, and what is for others ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"HELLO\r\n\r\n",
        b"GET /health HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nno number\r\n",
    ],
    ids=["a word", "header", "length", "TLS", "two lengths", "no end", "a broken chunk"],
)
def test_what_is_no_http_is_400(url: str, sent: bytes) -> None:
    with connected(url) as sock:
        sock.sendall(sent)
        assert read_all(sock).startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    ("hosts", "status", "words"),
    [
        ([], 400, "a request names its host in one header Host, and this one has none"),
        (["localhost", "localhost"], 400, "in one header Host, and this one has 2"),
        (
            ["evil.example"],
            421,
            "this server does not answer for the host 'evil.example'; whoever runs it may",
        ),
        (["localhost.evil.example:80"], 421, "the host 'localhost.evil.example:80'"),
        (["LOCALHOST:8000"], 200, ""),
        (["localhost."], 200, ""),
        (["127.0.0.1:8000"], 200, ""),
        (["[::1]:8000"], 200, ""),
    ],
)
def test_without_keys_a_loopback_address_answers_for_loopback_names(
    url: str, hosts: list[str], status: int, words: str
) -> None:
    with connected(url) as sock:
        lines = ["GET /health HTTP/1.1", *(f"Host: {host}" for host in hosts), "", ""]
        sock.sendall("\r\n".join(lines).encode())
        found, _, body = Stream(sock).next()
        assert found == status
        assert words in json.loads(body).get("error", {}).get("message", "")


@pytest.mark.parametrize(
    ("options", "hosts", "status"),
    [
        ({"allowed_hosts": ("labels.example.org",)}, "Labels.Example.ORG:443", 200),
        ({"allowed_hosts": ("labels.example.org",)}, "localhost", 421),
        ({"allowed_hosts": ("*",)}, "evil.example", 200),
        ({"api_keys": ("a-secret-key",)}, "evil.example", 200),  # whose page has no key
        ({"host": "0.0.0.0"}, "evil.example", 200),
    ],
)
def test_hosts_that_are_allowed(
    serving: Serving, options: dict[str, Any], hosts: str, status: int, ask: Any
) -> None:
    with serving(**options) as url:
        assert ask(f"{url}/health", Host=hosts).status == status


def test_a_body_that_is_compressed_on_its_way_is_501(url: str) -> None:
    with connected(url) as sock:
        sock.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
        )
        status, _, body = problem(sock)
        assert status == 501
        assert "Transfer-Encoding may be chunked, and nothing else" in body["error"]["message"]


def test_requests_in_a_row_are_answered_in_their_order(url: str) -> None:
    words = ["banana", "zebra", "hammer"]
    requests = [post("/v1/classify", json.dumps({"texts": [word] * 3}).encode()) for word in words]
    with connected(url) as sock:
        stream = Stream(sock)
        for pieces in ([b"".join(requests)], [b"".join(requests)[:100], b"".join(requests)[100:]]):
            for piece in pieces:
                sock.sendall(piece)
            tops = [next(iter(json.loads(stream.next()[2])["results"][0]["scores"])) for _ in words]
            assert tops == ["fruit", "animal", "<b>tool</b>"]


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "nonsense"])
def test_a_request_for_another_protocol_is_answered_in_this_one(url: str, protocol: str) -> None:
    more = [
        f"Upgrade: {protocol}",
        "Connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ]
    with connected(url) as sock:
        stream = Stream(sock)
        for _ in range(2):
            sock.sendall(HEALTH.replace(b"\r\n\r\n", "\r\n".join(["", *more, "", ""]).encode()))
            assert stream.next()[0] == 200


def test_a_body_after_a_wish_for_another_protocol_is_refused(url: str) -> None:
    with connected(url) as sock:
        sock.sendall(
            post("/v1/classify", b'{"texts": ["a"]}', "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings")
        )
        status, _, body = Stream(sock).next()
        assert status == 400
        assert "this server speaks HTTP/1.1, so leave Upgrade out" in body.decode()


@pytest.mark.parametrize(
    "head", [b"GET /health HTTP/1.0\r\n\r\n", HEALTH[:-2] + b"Connection: close\r\n\r\n"]
)
def test_a_client_of_one_request_is_answered_and_closed(url: str, head: bytes) -> None:
    with connected(url) as sock:
        sock.sendall(head)
        stream = Stream(sock)
        assert stream.next()[0] == 200
        assert stream.ended()


def test_a_client_that_waits_for_permission_gets_it(url: str) -> None:
    request = post("/v1/classify", b'{"texts": ["a"]}', "Expect: 100-continue")
    with connected(url) as sock:
        sock.sendall(request[:-16])
        assert sock.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(request[-16:])
        assert Stream(sock).next()[0] == 200


def test_answers_say_nothing_of_the_server(url: str) -> None:
    with connected(url) as sock:
        sock.sendall(HEALTH)
        _, headers, _ = Stream(sock).next()
        assert "server" not in headers
        assert "date" in headers


def test_a_server_with_a_path(model_file: Path, ask: Any) -> None:
    with running(str(model_file)) as url:
        assert ask(f"{url}/ready").status == 200
