"""Stand-ins for three things that uvicorn's protocol on httptools holds, each with one habit changed.

None of them holds its connection: where nothing holds itself in a circle, memory is free as soon as it can be.
"""

import asyncio
import weakref
from typing import Any, Protocol

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl

JOINED = 64 * 1024
"""Bytes of a body up to which it is copied behind its head."""
STATUS_LINE, CONTINUE = b"HTTP/1.1 ", b"HTTP/1.1 100"


class Owner(Protocol):
    """What they ask of a connection, which is an instance of uvicorn's class."""

    url: bytes
    headers: list[tuple[bytes, bytes]]
    transport: asyncio.Transport

    def holds_back(self) -> bool:
        """Whether no more is to be read."""

    def end(self) -> None:
        """Close after a response."""


class Flow(FlowControl):
    """Pauses and goes on reading; uvicorn's goes on whenever an application reads, also with requests that wait."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner.transport)
        self._owner = weakref.ref(owner)

    def resume_reading(self) -> None:
        """Go on reading, unless enough is there."""
        owner = self._owner()
        if owner is not None and not (owner.holds_back() or owner.transport.is_closing()):
            super().resume_reading()


class Outlet(asyncio.Transport):
    """Where responses go: a head leaves together with its body, as one packet instead of two."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self._owner, self._transport = weakref.ref(owner), owner.transport
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a body, or keep a head until its body comes."""
        if self._transport.is_closing():
            self._head = b""
        elif not self._head and data[:9] == STATUS_LINE and data[:12] != CONTINUE:
            self._head = bytes(data)
        elif len(data) <= JOINED:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self.flush()
            self._transport.write(data)

    def flush(self) -> None:
        """Write a head that no body followed."""
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""

    def is_closing(self) -> bool:
        """Whether nothing more is read or written."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close once all is written."""
        self.flush()
        if (owner := self._owner()) is not None:
            owner.end()


class Parser:
    """httptools' parser, for which a request that asks for another protocol is one like any other.

    httptools reads no body of it, but takes what follows its head for the other protocol. So such a head is read once
    more, without that wish. Until then, `again` is true, and the callbacks for a head and a body mean nothing.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = weakref.ref(owner)
        self._renew()

    def _renew(self) -> None:
        self._parser = parser = HttpRequestParser(self._owner())
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.get_method, self.get_http_version = parser.get_method, parser.get_http_version
        self.should_keep_alive = parser.should_keep_alive

    @property
    def again(self) -> bool:
        """Whether the head that was read asks for another protocol; a tunnel is no protocol of ours."""
        return self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"

    def should_upgrade(self) -> bool:
        """Never, for uvicorn."""
        return False

    def feed_data(self, data: bytes) -> None:
        """Parse more.

        Raises:
            HttpParserError: it is no HTTP.
        """
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as wish:
            owner: Any = self._owner()
            end: int = wish.args[0]
            line = b"%s %s HTTP/%s" % (self.get_method(), owner.url, self.get_http_version().encode())
            fields = [b"%s: %s" % field for field in owner.headers if field[0] != b"upgrade"]
            self._renew()
            self._parser.feed_data(b"\r\n".join([line, *fields, b"", b""]) + data[end:])
