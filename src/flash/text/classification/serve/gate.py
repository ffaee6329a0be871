"""What every request passes: an id, API keys, the log's line, the counters, and JSON for whatever goes wrong."""

import hmac
import logging
import re
from collections.abc import Mapping
from hashlib import sha256
from itertools import count
from os import urandom
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flash.text.classification.serve import logs
from flash.text.classification.serve.metrics import Metrics
from flash.text.classification.serve.problems import CLIENT_GONE, ProblemError

ID = re.compile(rb"[!-~]{1,128}")
PROCESS, COUNT = urandom(6).hex().encode(), count(1)  # of requests without an id of their own
SHOWN_PATH = 200  # characters of a path in the log


async def answer(
    send: Send, status: int, content: bytes, kind: str, headers: Mapping[str, str] | None = None
) -> None:
    """Send an answer whole."""
    made = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(content))]
    if headers:
        made += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": made})
    await send({"type": "http.response.body", "body": content})


class Keys:
    """Lets in who has a key.

    Args:
        app: what is behind it.
        keys: any of them will do.
        open_paths: what may be read without.
    """

    def __init__(self, app: ASGIApp, keys: tuple[str, ...], open_paths: frozenset[str]) -> None:
        self._app, self._open = app, open_paths
        self._keys = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it.

        Raises:
            ProblemError: 401: it has no key, or a wrong one.
        """
        reads = scope["method"] in ("GET", "HEAD")
        if not (reads and scope["path"] in self._open) and not self._known(scope["headers"]):
            given = any(name in (b"authorization", b"x-api-key") for name, _ in scope["headers"])
            raise ProblemError(
                401,
                "invalid_api_key",
                ("the API key is none that this server knows; " if given else "")
                + "an API key is needed, in the header Authorization as `Bearer KEY`, or in X-API-Key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        await self._app(scope, receive, send)

    def _known(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether a header holds a key; all keys are compared whole, so that time tells nothing."""
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
    """Answers with JSON whatever goes wrong behind it.

    Args:
        app: what is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        begun = False

        async def mark(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, mark)
            return
        except ProblemError as found:
            problem = found
        except Exception as error:
            logs.event(
                logging.ERROR,
                "request failed",
                error=error,
                id=scope["flash.id"],
                path=scope["path"][:SHOWN_PATH],
            )
            problem = ProblemError(500, "internal_error", "the server made a mistake; its log says which")
        if not begun and problem.status != CLIENT_GONE:
            path = scope["path"]
            await answer(send, problem.status, problem.body(path), "application/json", problem.headers)


class Gate:
    """The outermost: nothing gets past it without an id, a line and a count.

    Args:
        app: what is behind it.
        metrics: that count.
        paths: the routes; other paths are counted together.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            return
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

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        status = scope.get("flash.status", status)  # of an answer that the connection gave in its place
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
    """The id that the client or a proxy gave, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and ID.fullmatch(value):
            return value
    return b"%s%010x" % (PROCESS, next(COUNT))
