"""A local server that does as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flash.core.data import utils

BODY = bytes(range(256)) * 40  # 10,240 bytes


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the server's next behaviour, then with `whole`."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append((self.path, dict(self.headers)))
        behaviour = self.server.plan.pop(0) if self.server.plan else Handler.whole
        behaviour(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        pass

    def head(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def start(self) -> bytes:
        """Send the headers; what remains to be sent."""
        self.head(200, Content_Length=len(self.server.body))
        return self.server.body

    def whole(self) -> None:
        """The behaviour of a server that is well."""
        self.wfile.write(self.start())


Behaviour = Callable[[Handler], object]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.plan: list[Behaviour] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.scheme = "http"

    def url(self, name: str = "file.bin") -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/{name}"

    @contextmanager
    def running(self) -> Iterator["Server"]:
        """Serve, until the block ends."""
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(utils, "SILENCE", 0.3)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between pooch's attempts
    with Server().running() as server:
        yield server
