"""The ASGI application: routes to the endpoints, the page, the API reference and the metrics, behind the middleware."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flash.core.errors import unknown_name
from flash.text.classification.serve.api import schemas
from flash.text.classification.serve.api.endpoints import ENDPOINTS, Endpoint
from flash.text.classification.serve.api.handlers import Call
from flash.text.classification.serve.api.middleware import Hosts, Keys, Problems, RequestLog, answer
from flash.text.classification.serve.api.openapi import document
from flash.text.classification.serve.metrics import CONTENT_TYPE
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.problems import CLIENT_GONE, CLOSE, ProblemError
from flash.text.classification.serve.service import Service, too_many

JSON = "application/json"
MOST_KEYS = 10_000  # maximum number of keys of a JSON object in a body
SHOWN = 100  # characters that a message repeats of a client's key
PAGES = {"index.html": "/", "docs.html": "/docs"}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def make_app(service: Service, begun: Callable[[], object] = lambda: None) -> ASGIApp:
    """Return the application of a service; the server's start and end also start and close the service.

    Args:
        service: the state that the endpoints share.
        begun: called in the event loop once the service has started.
    """

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        service.start()
        begun()
        try:
            yield
        finally:
            await service.close()

    handlers: dict[str, dict[str, Handler]] = {}
    for endpoint in ENDPOINTS:
        handlers.setdefault(endpoint.path, {})[endpoint.method] = partial(_answer, service, endpoint)
    free = {endpoint.path for endpoint in ENDPOINTS if endpoint.open} | {"/openapi.json"}
    for path, give in _files():
        handlers.setdefault(path, {})["GET"] = give
        free.add(path)
    handlers["/metrics"] = {"GET": partial(_metrics, service)}
    handlers["/openapi.json"] = {"GET": partial(_openapi, service)}
    routes = [Route(path, _ByMethod(methods)) for path, methods in handlers.items()]
    app: ASGIApp = Router(routes, redirect_slashes=False, default=_nothing_there, lifespan=life)
    if service.options.api_keys:
        app = Keys(app, service.options.api_keys, frozenset(free))
    app = Problems(Hosts(app, service.options.allowed_hosts))
    if service.options.cors_origins:
        from starlette.middleware.cors import CORSMiddleware

        app = CORSMiddleware(
            app,
            allow_origins=[origin.rstrip("/") for origin in service.options.cors_origins],
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    return RequestLog(app, service.metrics, frozenset(handlers))


async def _openapi(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    fields = service.model.predictor.input_fields
    await answer(send, 200, to_json(document(service.options, fields)), JSON)


def _files() -> Iterator[tuple[str, Handler]]:
    """Yield the path and the handler of each file in the folder `page`."""
    for file in (resources.files("flash.text.classification.serve") / "page").iterdir():
        kind = KINDS.get(Path(file.name).suffix)
        if kind is not None:
            give = partial(_give, file.read_bytes(), f"{kind}; charset=utf-8", PAGE_HEADERS)
            yield PAGES.get(file.name, f"/static/{file.name}"), give


class _ByMethod:
    """Dispatches the requests of one path to a handler per HTTP method."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allowed = ", ".join(sorted(self._handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise ProblemError(
                405,
                "method_not_allowed",
                f"{scope['path']} does not answer to {scope['method']}, only to {self._allowed}; see /docs",
                headers={"Allow": self._allowed},
            )
        await handler(scope, receive, send)


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    raise ProblemError(404, "not_found", "nothing is at this path; the API reference is at /docs")


async def _give(
    content: bytes, kind: str, headers: dict[str, str], scope: Scope, receive: Receive, send: Send
) -> None:
    await answer(send, 200, content, kind, headers)


async def _metrics(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    service.metrics.gauge(service.batcher.waiting)
    text = service.metrics.text()
    await answer(send, 200, text, CONTENT_TYPE)


async def _answer(service: Service, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
    body = None
    if endpoint.request is not None:
        content = await _read(scope, receive, service.options)
        body = _checked(endpoint.request, content, service.options.max_texts)
    call = Call(service, body, partial(_gone, receive), scope["path"])
    try:
        made = await endpoint.answer(call)
        made = await asyncio.to_thread(_json, made) if call.long else _json(made)
    finally:
        scope["flash.texts"], scope["flash.shown"] = call.texts, call.shown
    await answer(send, 200, made, JSON)


def _json(made: Any) -> bytes:
    return to_json(made() if callable(made) else made, inf_nan_mode="null")


async def _read(scope: Scope, receive: Receive, options: ServeOptions) -> bytes:
    """Read a request's body.

    Raises:
        ProblemError: the body is too large, by its Content-Length or by what arrives; it does not arrive in time; or
            the client disconnected.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > options.max_body:
            raise _too_large(int(value), options.max_body)
    late, task = False, asyncio.current_task()

    def give_up() -> None:
        nonlocal late
        late = True
        if task is not None:
            task.cancel()

    # asyncio.wait_for would cost one more task per request
    timer = asyncio.get_running_loop().call_later(options.receive_timeout, give_up)
    try:
        content = await _parts(receive, options.max_body)
    except asyncio.CancelledError:
        if not late:
            raise
        limit = options.receive_timeout
        raise ProblemError(
            408, "request_timeout", f"the body did not arrive whole within {limit:g} s", headers=CLOSE
        ) from None
    finally:
        timer.cancel()
    if not content and any(name == b"upgrade" for name, _ in scope["headers"]):
        raise ProblemError(
            400,
            "upgrade",
            "the request asks for another protocol in its header Upgrade, and a body is not read then; "
            "this server speaks HTTP/1.1, so leave Upgrade out",
            headers=CLOSE,
        )
    return content


async def _parts(receive: Receive, most: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(CLIENT_GONE, "client_gone", "the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(size, most)
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(size: int, most: int) -> ProblemError:
    return ProblemError(
        413,
        "body_too_large",
        f"the body has {size:,} bytes or more; at most {most:,} are read, so send fewer texts at a time",
        headers=CLOSE,
    )


def _checked(expected: TypeAdapter[Any], content: bytes, most: int) -> Any:
    """Parse and validate a body.

    Raises:
        ProblemError: the body is not JSON, or does not match the schema. Oversized lists and objects are refused before
            their items are validated.
    """
    try:
        body = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise ProblemError(400, "invalid_json", f"the body is no JSON ({error})") from None
    parts = [("", body)]
    while parts:
        name, part = parts.pop()
        if isinstance(part, list):
            if len(part) > most:
                raise too_many(len(part), most, name or "the body")
            parts += [(name, item) for item in part if isinstance(item, list)]
        elif isinstance(part, dict):
            if len(part) > MOST_KEYS:
                raise ProblemError(
                    422,
                    "invalid_body",
                    f"an object of the body has {len(part):,} keys; see /docs for the known ones",
                )
            parts += [(key[:SHOWN], item) for key, item in part.items() if isinstance(item, list | dict)]
    try:
        return expected.validate_python(body)
    except ValidationError as error:
        raise _misfit(error) from None


def _misfit(error: ValidationError) -> ProblemError:
    """Describe the first validation error and its place; the message repeats no value of the body."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place, strange = first["loc"], first["type"] == "extra_forbidden"
    names: list[Any] = [part for part in place if isinstance(part, int) or part in NAMES]
    names += place[-1:] if strange else ()
    where = "".join(f"[{name}]" if isinstance(name, int) else f".{name[:SHOWN]}" for name in names).lstrip(
        "."
    )
    what = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    if strange:  # only /v1/classify refuses unknown fields
        what = unknown_name("field", str(place[-1])[:SHOWN], schemas.ClassifyRequest.model_fields)
    return ProblemError(
        422,
        "invalid_body",
        f"{where or 'the body'}: {what}; see /docs for what is expected",
        param=where or None,
    )


NAMES = frozenset(
    name
    for kind in vars(schemas).values()
    if isinstance(kind, type) and issubclass(kind, BaseModel)
    for name in kind.model_fields
)
"""Field names of the schemas; the other parts of a Pydantic error's location are names of types."""


async def _gone(receive: Receive) -> None:
    """Return once the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)
