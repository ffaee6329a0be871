"""ASGI middleware: request ids, allowed hosts, API keys, request log, metrics, and error responses."""

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import count
from os import urandom
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flash.text.classification.serve import logs
from flash.text.classification.serve.metrics import Metrics
from flash.text.classification.serve.problems import CLIENT_GONE, CLOSE, ProblemError, stopping

ID = re.compile(rb"[!-~]{1,128}")
PROCESS, COUNT = urandom(6).hex().encode(), count(1)  # make the ids of requests that have none
SHOWN_PATH = 200  # characters of a path in the log
SHOWN_HOST = 100
PORT = re.compile(r":\d*$", re.ASCII)
LINGER = 2.0
"""Seconds for which a refused request is still read, so that its client stops sending and reads the error."""


async def answer(
    send: Send,
    status: int,
    content: bytes,
    kind: str,
    headers: Mapping[str, str] | None = None,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Send a response.

    Args:
        send: the request's ASGI callable.
        status: HTTP status.
        content: the body.
        kind: the media type.
        headers: further headers.
        before_end: awaited between the last byte and the end of the response, after which the connection may close.
    """
    made = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(content))]
    if headers:
        made += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": made})
    if before_end is not None:
        await send({"type": "http.response.body", "body": content, "more_body": True})
        await before_end()
        content = b""
    await send({"type": "http.response.body", "body": content})


async def _linger(receive: Receive) -> None:
    """Keep reading for a while: if the connection closed at once, the client's system might discard the response."""
    with suppress(asyncio.TimeoutError, asyncio.CancelledError):
        await asyncio.wait_for(_rest(receive), LINGER)


async def _rest(receive: Receive) -> None:
    more = True
    while more:
        more = (await receive()).get("more_body", False)


class Hosts:
    """Checks the header `Host`, and refuses encoded transfers.

    Args:
        app: the wrapped application.
        allowed: host names and addresses without ports; empty allows all.
    """

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        self._app = app
        self._allowed = frozenset() if "*" in allowed else frozenset(map(_plain_host, allowed))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request, or raise the error response.

        Raises:
            ProblemError: 400: no `Host` header, or several; 421: the host is not allowed; 501: a transfer encoding
                other than chunked.
        """
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):
                raise ProblemError(
                    400,
                    "invalid_host",
                    f"a request names its host in one header Host, and this one has {len(hosts) or 'none'}",
                )
            if hosts and self._allowed:
                self._check(hosts[0].decode("latin-1"))
            for name, value in scope["headers"]:
                if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                    raise ProblemError(
                        501,
                        "transfer_encoding",
                        "the header Transfer-Encoding may be chunked, and nothing else; send the body as it is",
                        headers=CLOSE,
                    )
        await self._app(scope, receive, send)

    def _check(self, host: str) -> None:
        if _plain_host(PORT.sub("", host)) not in self._allowed:
            raise ProblemError(
                421,
                "unknown_host",
                f"this server does not answer for the host {host[:SHOWN_HOST]!r}; whoever runs it may allow that: "
                "--allowed_hosts NAME ...",
            )


def _plain_host(host: str) -> str:
    return host.lower().strip("[]").removesuffix(".")


class Keys:
    """Requires an API key.

    Args:
        app: the wrapped application.
        keys: the valid keys.
        open_paths: paths that GET and HEAD requests may read without a key.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...], open_paths: frozenset[str]) -> None:
        self._app, self._open = app, open_paths
        self._keys = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request, or raise the error response.

        Raises:
            ProblemError: 401: no key, or a wrong one.
        """
        if scope["type"] == "http" and not (self._is_open(scope) or self._known(scope["headers"])):
            given = any(name in (b"authorization", b"x-api-key") for name, _ in scope["headers"])
            raise ProblemError(
                401,
                "invalid_api_key",
                ("this server does not know the API key; " if given else "")
                + "an API key is needed, in the header Authorization as `Bearer KEY`, or in X-API-Key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["method"] in ("GET", "HEAD") and scope["path"] in self._open

    def _known(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Return whether a header holds a valid key, in constant time over all keys."""
        found = False
        for name, value in headers:
            if name == b"x-api-key":
                given = value.strip()
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                given = value[7:].strip()
            else:
                continue
            hashed = sha256(given).digest()
            for key in self._keys:
                found |= hmac.compare_digest(hashed, key)
        return found


class Problems:
    """Turns exceptions into JSON error responses.

    Args:
        app: the wrapped application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer its exceptions."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        async def mark(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            return await self._app(scope, receive, mark)
        except ProblemError as found:
            # the traceback's frames would keep the body in memory until the garbage collector runs
            problem = found.with_traceback(None)
        except asyncio.CancelledError:  # the server stops, and the grace period is over
            problem = stopping()
        except Exception as error:
            logs.event(
                logging.ERROR,
                "request failed",
                error=error,
                id=scope["flash.id"],
                path=scope["path"][:SHOWN_PATH],
            )
            problem = ProblemError(500, "internal_error", "the server made a mistake; its log says which")
        if begun or problem.status == CLIENT_GONE:
            return None
        linger = partial(_linger, receive) if problem.headers.get("Connection") == "close" else None
        body = problem.body(scope["path"])
        await answer(send, problem.status, body, "application/json", problem.headers, linger)


class RequestLog:
    """The outermost middleware: gives each request an id, a line in the log, and a count in the metrics.

    Args:
        app: the wrapped application.
        metrics: counts the requests.
        paths: the routes; all other paths are counted together.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or the server's lifespan events."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = perf_counter()
        identity = _identity(scope["headers"])
        scope["flash.id"] = identity.decode()
        status = CLIENT_GONE

        async def mark(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", identity),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, mark)
        finally:
            self._note(scope, status, perf_counter() - began)
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path, method = scope["path"], scope["method"]
        known = method if method in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        self._metrics.request(known, path if path in self._paths else "other", status, seconds)
        if not logs.requests.wanted:
            return
        fields: dict[str, Any] = {
            "id": scope["flash.id"],
            "method": method,
            "path": path[:SHOWN_PATH],
            "status": status,
            "milliseconds": round(1000 * seconds, 3),
        }
        if texts := scope.get("flash.texts"):
            fields["texts"] = texts
        if (shown := scope.get("flash.shown")) is not None:
            fields["shown"] = list(shown)
        logs.requests.add(fields)


def _identity(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the request id that the client or a proxy gave, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and ID.fullmatch(value):
            return value
    return b"%s%010x" % (PROCESS, next(COUNT))
