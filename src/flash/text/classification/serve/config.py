"""The uvicorn configuration of the server."""

from collections.abc import Callable
from typing import Any

from uvicorn import Config

from flash.text.classification.serve.options import ServeOptions


def config_of(app: Callable[..., Any], options: ServeOptions) -> Config:
    """Return the configuration; no environment variable influences it."""
    return Config(
        app,
        host=options.host,
        http="httptools",
        ws="none",
        lifespan="on",
        interface="asgi3",
        workers=1,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=options.max_connections + 1,  # uvicorn counts the current connection too
        timeout_keep_alive=options.keep_alive,  # type: ignore[arg-type]  # works with fractions of a second
        timeout_graceful_shutdown=options.grace,  # type: ignore[arg-type]
    )
