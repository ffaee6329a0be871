"""A local server that does as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flash.core.data import utils
from flash.core.data.transfer import Patience

BODY = bytes(range(256)) * 40  # 10,240 bytes
QUICK = Patience(attempts=3, stall=0.3, pause=0.01, longest_pause=1.0)


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
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def start(self) -> bytes:
        """Send the headers of a server that knows ranges; what remains to be sent."""
        wanted, body = self.headers.get("Range"), self.server.body
        marks = {name: value for name, value in self.server.marks.items() if value}
        if wanted and self.headers.get("If-Range") in marks.values():
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                self.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
                return b""
            told = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            self.head(206, Content_Range=told, Content_Length=len(body) - begin, **marks)
            return body[begin:]
        self.head(200, Content_Length=len(body), **marks)
        return body

    def whole(self) -> None:
        """The behaviour of a server that is well."""
        self.wfile.write(self.start())


Behaviour = Callable[[Handler], object]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.marks = BODY, {"ETag": '"one"'}
        self.plan: list[Behaviour] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.scheme = "http"

    def url(self, name: str = "file.bin") -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/{name}"

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

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
    monkeypatch.setattr(utils, "PATIENCE", QUICK)
    with Server().running() as server:
        yield server
