"""What a connection may do to the server: how slowly it sends and takes, how much, and how many there are.

`Connection` is uvicorn's protocol on httptools with the limits that it lacks. Of uvicorn's inside it uses the callbacks
of the parser (`on_message_begin`, `on_headers_complete`, `on_message_complete`) and of a response
(`on_response_complete`), `send_400_response` and `shutdown`; the fields `connections`, `cycle`, `flow`, `headers`,
`logger`, `loop`, `parser`, `pipeline`, `timeout_keep_alive_task`, `transport` and `url`; of a cycle `disconnected`,
`keep_alive`, `message_event`, `response_complete`, `response_started`, `scope`, `transport` and
`waiting_for_100_continue`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from os import urandom
from typing import Any, ClassVar, cast

from httptools import HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.problems import problem_body
from flash.text.classification.serve.wire import Flow, Outlet, Parser

BETWEEN, HEAD, BODY = range(3)  # what comes next: another request, or more of this one's head or body
MOST_HEAD = 64 * 1024
"""Bytes of a request line and headers, give or take a piece."""
PIECE = 16 * 1024
"""Bytes that are parsed at a time: requests among them that wait for others are objects in memory already."""
MOST_OVERHEAD = 8
"""Bytes on the wire for each byte of the largest body: chunks of a byte have five more."""
LEAST_TAKEN = 64 * 1024
"""Bytes of a response that a client takes within the time limit at least, unless fewer are left."""
LINGER = 2.0
"""Seconds in which a client that was refused in the middle of a request may stop sending, and read why."""


def connection_class(
    options: ServeOptions, refused: Callable[[int, str], None] = lambda status, message: None
) -> type["Connection"]:
    """The class of a server's connections.

    Args:
        options: limits of size, time and number.
        refused: told of each answer that the application has no part in, its status and sentence: 408, 413 and 431 for a
            request that does not arrive as it should, 400 for one that is no HTTP, 503 for a connection above the
            limit.
    """

    class Limited(Connection):
        limits = options

        def tell(self, status: int, message: str) -> None:
            refused(status, message)

    return Limited


def refusal(
    status: int, code: str, message: str, path: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole response that says why there is no other, and that the connection ends."""
    body = problem_body(path, status, code, message)
    fields = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-content-type-options": "nosniff",
        "x-request-id": urandom(12).hex(),
        **(headers or {}),
    }
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Connection(HttpToolsProtocol):
    """One client's connection.

    - A request arrives whole within `receive_timeout` of its first byte, or is answered 408; how slowly it trickles does
      not matter. A connection that sends nothing for as long is closed without a word. After an answer, uvicorn's own
      `keep_alive` runs until the next byte.
    - A client takes `LEAST_TAKEN` bytes of a waiting response in `receive_timeout`, or the connection is dropped.
    - `max_connections` may be open; who comes then is answered 503 at once.
    - A head above `MOST_HEAD` bytes is answered 431, whatever is no HTTP 400.
    - A client that is refused while it sends may finish for `LINGER` seconds: closed at once, its system would throw
      the answer away.
    """

    limits: ClassVar[ServeOptions]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = LOGGER
        self._stage = BETWEEN
        self._size = 0  # bytes of the request that is arriving
        self._piece = 0  # bytes of the piece of data that a request may begin with
        self._unread = b""  # what came while requests wait for others of the same connection
        self._deaf = False  # nothing that still arrives is read
        self._lingering = False  # all is said, and the client may finish
        self._last = False  # the request that is arriving is the last one
        self._receiving: asyncio.TimerHandle | None = None
        self._of_request = False  # whether that timer began with a request
        self._taking: asyncio.TimerHandle | None = None
        self._left = 0  # bytes that the client had not taken when that timer began
        self._parser = Parser(self)
        self.parser = cast(HttpRequestParser, self._parser)
        self._outlet: Outlet

    # ---- the connection -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse one too many."""
        super().connection_made(transport)
        self._outlet, self.flow = Outlet(self), Flow(self)
        transport.set_write_buffer_limits(high=0)  # told of every byte that a client does not take
        if len(self.connections) <= self.limits.max_connections:
            self._await_request(begun=False)
            return
        self.connections.discard(self)  # it takes no one's place while it ends
        self._deaf = True
        most = self.limits.max_connections
        message = f"{most:,} connections are open already, and no more may be; come again, or use one for many requests"
        transport.write(refusal(503, "too_many_connections", message, headers={"retry-after": "1"}))
        transport.close()
        self.tell(503, message)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_receiving()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        super().connection_lost(exc)
        # all of them hold methods of the connection, and so the connection itself
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        del self._parser
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]  # as before the first request

    def shutdown(self) -> None:
        """Close after what is in flight, a request that has begun to arrive among it."""
        if self._stage == HEAD and not self._deaf:
            self._last = True
        else:
            super().shutdown()

    def give_up(self) -> None:
        """Answer a request that has not arrived whole that it is too late."""
        if self._stage != BETWEEN and not self._deaf and not self.transport.is_closing():
            self._refuse(503, "stopping", "the server is being stopped")

    def cut(self) -> None:
        """Close as it is."""
        self.transport.abort()

    # ---- what arrives ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read on, unless requests wait already."""
        if len(data) <= PIECE and not self._unread:
            self._read(data)
        else:
            self._unread += data
            self._read_on()

    def holds_back(self) -> bool:
        """Whether requests wait for others of this connection, so that no more of them are read."""
        return bool(self.pipeline or self._unread) and not self._lingering

    def _read_on(self) -> None:
        while self._unread and not self.pipeline:
            piece, self._unread = self._unread[:PIECE], self._unread[PIECE:]
            self._read(piece)

    def _read(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            return
        if self._stage == BETWEEN:
            self._piece = len(data)
        else:
            self._size += len(data)
            self._piece = 0
        super().data_received(data)
        if self._deaf:
            return
        if self._stage != BETWEEN:
            if self._receiving is None or not self._of_request:
                self._await_request(begun=True)
            if self._stage == HEAD and self._size > MOST_HEAD:
                self._refuse(
                    431,
                    "head_too_large",
                    f"the headers have more than {MOST_HEAD:,} bytes; send fewer of them",
                )
            elif self._stage == BODY and self._size > MOST_HEAD + MOST_OVERHEAD * self.limits.max_body:
                most = self.limits.max_body
                self._refuse(
                    413, "body_too_large", f"the body has more than the {most:,} bytes that are read"
                )
        elif self.cycle is not None and not self.cycle.response_complete:
            self._stop_receiving()
        elif (
            self._receiving is None or self._of_request
        ):  # ends of lines, or of a request that was answered before
            self._await_request(begun=False)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._stage = HEAD
        self._size, self._piece = self._piece, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        if self._parser.again:
            return
        super().on_headers_complete()
        self._stage = BODY
        self.cycle.transport = self._outlet
        if self._last:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Its body is whole."""
        if self._parser.again:
            return
        self._stage = BETWEEN
        super().on_message_complete()

    def _await_request(self, *, begun: bool) -> None:
        self._stop_receiving()
        self._of_request = begun
        self._receiving = self.loop.call_later(self.limits.receive_timeout, self._late)

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _late(self) -> None:
        self._receiving = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is the server that does not read
            self._await_request(begun=self._of_request)
        elif self._stage == BETWEEN:
            self.transport.close()
        else:
            limit = self.limits.receive_timeout
            self._refuse(408, "request_timeout", f"the request did not arrive whole within {limit:g} s")

    # ---- refusals -------------------------------------------------------------------------------------------

    def tell(self, status: int, message: str) -> None:
        """Hear of an answer that the application has no part in: for subclasses."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(400, "invalid_http", "this is no request of HTTP/1.1, or its target is no path")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer in place of the application, never into another answer, and close."""
        self._deaf = True
        self._stop_receiving()
        cycle, path = self.cycle, ""
        if self._stage == BODY:
            if self.pipeline:  # it has not its turn yet, and those before it have their answers first
                self.pipeline.popleft()
                return
            if cycle.response_complete:  # it was answered before it was whole
                self._linger()
                return
            if cycle.response_started:
                cycle.keep_alive = False
                return
            path = cycle.scope["path"]
            cycle.scope["flash.status"] = status  # type: ignore[typeddict-unknown-key]
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
        elif cycle is not None and not cycle.response_complete:  # an earlier request has its answer first
            cycle.keep_alive = False
            return
        elif status != 503:
            self.tell(status, message)
        headers = {"retry-after": "1"} if status == 503 else {}
        self.transport.write(refusal(status, code, message, path, headers))
        self._linger()

    def _linger(self) -> None:
        """Say that this was all, and let the client finish for a while."""
        self._deaf = self._lingering = True
        self._stop_receiving()
        self.flow.resume_reading()
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)

    # ---- what leaves ----------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """A response is written whole, though maybe not taken."""
        self._outlet.flush()
        if self._lingering:
            return
        last = self._deaf and not self.pipeline
        super().on_response_complete()
        if last:
            self.transport.close()
        if self.transport.is_closing():
            return
        self._read_on()
        self.flow.resume_reading()

    def end(self) -> None:
        """Close after a response; an upload that nobody read is not cut in the middle."""
        if self._stage == BODY and not self.pipeline and not self._deaf:
            self._linger()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """The client does not take what is written: give it a while."""
        super().pause_writing()
        if self._taking is None:
            self._await_taking()

    def resume_writing(self) -> None:
        """It has taken all."""
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _await_taking(self) -> None:
        self._left = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(self.limits.receive_timeout, self._stalled)

    def _stalled(self) -> None:
        self._taking = None
        if self._left - self.transport.get_write_buffer_size() < LEAST_TAKEN:
            self.transport.abort()
        else:
            self._await_taking()


def _not_cancelled(record: logging.LogRecord) -> bool:
    """Whether a record is anything else than a request that was cut when the server stopped."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


LOGGER = logging.getLogger("uvicorn.error.connection")
"""For uvicorn's errors, without its warnings of what clients do wrong."""
LOGGER.setLevel(logging.ERROR)
LOGGER.addFilter(_not_cancelled)
