"""Clients that send too slowly, too much or nonsense, take too slowly, or are too many; by raw sockets."""

import gc
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
from flash.text.classification.serve.connection import Connection, refusal
from flash.text.classification.serve.served_model import ServedModel
from flash.text.classification.serve.wire import Outlet

Serving = Callable[..., Any]
HEALTH = b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"


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
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *more]
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


@pytest.mark.parametrize("sent", [b"G", b"GET /health HTTP/1.1\r\nHost: here\r\nX: ", b"\r\nPOST /"])
def test_a_head_that_does_not_come_whole_is_408(serving: Serving, sent: bytes) -> None:
    with serving(receive_timeout=0.2) as url, connected(url) as sock:
        sock.sendall(sent)
        status, _, body = problem(sock)
        assert status == 408
        assert body["error"]["code"] == "request_timeout"
        assert body["error"]["message"] == "the request did not arrive whole within 0.2 s"


@pytest.mark.parametrize(("path", "plain"), [("/v1/classify", False), ("/predict", True)])
def test_a_body_that_does_not_come_whole_is_408(serving: Serving, path: str, plain: bool) -> None:
    with serving(receive_timeout=0.2) as url, connected(url) as sock:
        sock.sendall(post(path, b"{" + b" " * 100)[:-50])
        status, _, body = problem(sock)
        assert status == 408
        assert (body["error_type"] if plain else body["error"]["code"]) == "request_timeout"


def test_a_second_request_that_does_not_come_whole_is_408(serving: Serving) -> None:
    with serving(receive_timeout=0.2) as url, connected(url) as sock:
        sock.sendall(HEALTH)
        assert Stream(sock).next()[0] == 200
        sock.sendall(HEALTH[:9])
        assert problem(sock)[0] == 408


def test_bytes_that_trickle_do_not_help(serving: Serving) -> None:
    with serving(receive_timeout=0.3) as url, connected(url) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        sock.settimeout(0.02)
        for _ in range(1_000):
            try:
                if sock.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                sock.sendall(b"x")
        sock.settimeout(20)
        assert problem(sock)[0] == 408


def test_silence_is_closed_without_a_word(serving: Serving) -> None:
    with serving(receive_timeout=0.1) as url, connected(url) as sock:
        assert read_all(sock) == b""


def test_ends_of_lines_are_silence(serving: Serving) -> None:
    with serving(receive_timeout=0.3) as url, connected(url) as sock:
        sock.sendall(HEALTH)
        assert Stream(sock).next()[0] == 200
        sock.settimeout(0.02)
        ended = False
        for _ in range(1_000):
            try:
                ended = sock.recv(1) == b""
                break
            except TimeoutError:
                sock.sendall(b"\r\n")
        assert ended


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


def test_what_is_in_flight_is_answered_before_a_slow_head_ends_the_connection() -> None:
    with held_server(receive_timeout=0.2) as (url, held), connected(url) as sock:
        sock.sendall(post("/v1/classify", b'{"texts": ["wait"]}') + HEALTH[:9])
        assert held.began.wait(20)
        time.sleep(0.4)
        held.go.set()
        stream = Stream(sock)
        assert stream.next()[0] == 200
        assert stream.ended()


def open_connections(ask: Any, url: str) -> float:
    """As the server counts them, the one that asks among them."""
    lines = ask(f"{url}/metrics").content.decode().splitlines()
    return float(next(line for line in lines if line.startswith("flash_connections ")).split()[1])


def until(condition: Callable[[], bool]) -> None:
    """Wait for what will be."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within 20 s"
        time.sleep(0.02)


def test_who_does_not_take_its_answers_is_dropped(serving: Serving, ask: Any) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: here\r\n\r\n"
    with serving(receive_timeout=0.2) as url, connected(url, SO_RCVBUF=4_096) as sock:
        size = len(ask(f"{url}/openapi.json").content)
        count = 20_000_000 // size
        sender = threading.Thread(target=lambda: send_quietly(sock, request * count))
        sender.start()
        until(lambda: open_connections(ask, url) == 2)
        until(lambda: open_connections(ask, url) == 1)
        assert len(read_all(sock)) < size * count
        sender.join()


def send_quietly(sock: socket.socket, data: bytes) -> None:
    """Send as much as there is an ear for."""
    with suppress(OSError):
        sock.sendall(data)


def test_who_takes_its_answers_slowly_gets_them_all(serving: Serving, ask: Any) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: here\r\n\r\n"
    last = b"GET /openapi.json HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    with serving(receive_timeout=0.3) as url, connected(url, SO_RCVBUF=4_096) as sock:
        size = len(ask(f"{url}/openapi.json").content)
        count = 8_000_000 // size
        sender = threading.Thread(target=lambda: send_quietly(sock, request * (count - 1) + last))
        sender.start()
        taken, pause = 0, time.monotonic()
        while part := sock.recv(65_536):
            taken += len(part)
            if time.monotonic() - pause > 0.15:
                time.sleep(0.15)
                pause = time.monotonic()
        sender.join()
        assert taken > size * count


# ---- too much ----------------------------------------------------------------------------------------------------


def test_connections_above_the_limit_are_503_and_closed(serving: Serving, ask: Any) -> None:
    with serving(max_connections=2) as url:
        with connected(url) as one, connected(url) as other:
            for sock in (one, other):
                sock.sendall(HEALTH)
                assert Stream(sock).next()[0] == 200
            for _ in range(2):
                with connected(url) as third:
                    status, headers, body = problem(third)
                    assert status == 503
                    assert headers["retry-after"] == "1"
                    assert body["error"]["code"] == "too_many_connections"
            one.sendall(HEALTH)  # who is inside is not disturbed
            assert Stream(one).next()[0] == 200
        until(lambda: ask(f"{url}/health").status == 200)
        text = ask(f"{url}/metrics").content.decode()
        refused = next(
            line for line in text.splitlines() if line.startswith("flash_refused_connections_total ")
        )
        assert float(refused.split()[1]) >= 2


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n" + b"X-Header: 0123456789\r\n" * 20_000 + b"\r\n",
        b"GET /health HTTP/1.1\r\nX-Header: " + b"x" * 400_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 400_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["many headers", "a long header", "a long path"],
)
def test_a_huge_head_is_431(serving: Serving, head: bytes) -> None:
    with serving() as url, connected(url) as sock:
        send_quietly(sock, head)
        status, _, body = problem(sock)
        assert status == 431
        assert "65,536 bytes" in body["error"]["message"]


def test_a_head_within_the_limit_is_read(serving: Serving) -> None:
    with serving() as url, connected(url) as sock:
        head = b"GET /health HTTP/1.1\r\nX-Header: " + b"x" * 60_000
        for part in (head[:30_000], head[30_000:], b"\r\n\r\n"):
            sock.sendall(part)
            time.sleep(0.02)
        assert Stream(sock).next()[0] == 200


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


def test_a_small_body_in_a_great_deal_of_wrapping_is_cut(serving: Serving) -> None:
    with serving(max_body=1_024) as url, connected(url) as sock:
        head = b"POST /v1/classify HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        send_quietly(sock, head + b"1;" + b"x" * 200_000)
        status, _, body = problem(sock)
        assert status == 413
        assert body["error"]["code"] == "body_too_large"


# ---- nonsense, and what is none ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"HELLO\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    ],
    ids=["a word", "version", "target", "header", "length", "TLS", "two lengths", "a tunnel"],
)
def test_what_is_no_http_is_400(url: str, sent: bytes) -> None:
    with connected(url) as sock:
        sock.sendall(sent)
        status, _, body = problem(sock)
        assert status == 400
        assert body["error"]["code"] == "invalid_http"
        assert body["error"]["type"] == "invalid_request_error"


def test_a_broken_chunk_is_400(url: str) -> None:
    with connected(url) as sock:
        sock.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nno number\r\n"
        )
        assert problem(sock)[0] == 400


def test_what_came_before_nonsense_is_answered() -> None:
    with held_server() as (url, held), connected(url) as sock:
        sock.sendall(post("/v1/classify", b'{"texts": ["wait"]}') + b"HELLO\r\n\r\n")
        assert held.began.wait(20)
        held.go.set()
        stream = Stream(sock)
        status, _, body = stream.next()
        assert status == 200
        assert len(json.loads(body)["results"]) == 1
        assert stream.ended()


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
            sock.sendall(post("/v1/classify", b'{"texts": ["a"]}', *more))
            status, _, body = stream.next()
            assert status == 200
            assert len(json.loads(body)["results"]) == 1


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


# ---- parts -------------------------------------------------------------------------------------------------------


def connections() -> list[Connection]:
    """All that are in memory."""
    return [one for one in gc.get_objects() if issubclass(type(one), Connection)]


@pytest.mark.parametrize(
    "sent", [HEALTH, HEALTH[:9], HEALTH * 50, b"HELLO\r\n\r\n", HEALTH[:-2] + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n"],
    ids=["a request", "half a request", "many", "nonsense", "another protocol"],
)  # fmt: skip
def test_what_is_closed_is_forgotten_at_once(url: str, sent: bytes) -> None:
    gc.collect()
    gc.disable()  # it would find what holds itself, though later
    try:
        before = len(connections())
        for _ in range(20):
            with connected(url) as sock:
                sock.sendall(sent)
                if len(sent) > 9:
                    sock.recv(100)
        until(lambda: len(connections()) <= before)
    finally:
        gc.enable()


def test_a_flood_of_requests_waits_outside(ask: Any) -> None:
    with held_server() as (url, held), connected(url) as sock:
        sock.sendall(post("/v1/classify", b'{"texts": ["wait"]}'))
        assert held.began.wait(20)
        sock.settimeout(0.2)
        flood, sent = HEALTH * 10_000, 0
        with suppress(TimeoutError):
            while sent < 100_000_000:
                sent += sock.send(flood)
        assert sent < 100_000_000  # the rest is the client's to keep
        waiting = sum(len(one.pipeline) for one in connections())
        assert 0 < waiting < 1_000
        assert ask(f"{url}/health").status == 200


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False


class Ended:
    """A connection that is told of its end."""

    def __init__(self) -> None:
        self.transport, self.ends = Wire(), 0

    def end(self) -> None:
        self.ends += 1


def test_a_head_leaves_with_its_body() -> None:
    connection: Any = Ended()
    outlet, head = Outlet(connection), b"HTTP/1.1 200 OK\r\n\r\n"
    outlet.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    outlet.write(head)
    outlet.write(b"body")
    outlet.write(b"more")
    outlet.write(head)
    outlet.write(b"x" * 100_000)  # not copied
    outlet.write(head)
    outlet.flush()
    outlet.flush()
    outlet.write(head)
    outlet.close()
    written = [b"HTTP/1.1 100 Continue\r\n\r\n", head + b"body", b"more", head, b"x" * 100_000, head, head]
    assert connection.transport.written == written
    assert connection.ends == 1
    assert not outlet.is_closing()


def test_a_refusal_is_a_whole_response() -> None:
    made = refusal(503, "code", "A sentence.", "/predict", {"retry-after": "5"})
    head, _, body = made.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 5" in head
    assert f"\r\ncontent-length: {len(body)}\r\n".encode() in head
    assert json.loads(body) == {"error": "A sentence.", "error_type": "code"}


def test_a_server_with_a_path(model_file: Path, ask: Any) -> None:
    with running(str(model_file)) as url:
        assert ask(f"{url}/ready").status == 200
