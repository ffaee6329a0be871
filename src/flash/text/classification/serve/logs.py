"""The server's log: one JSON object per line on standard error; texts only with `log_texts`.

Events go through the logger "flash.serve" and are written at once. Request lines are buffered and written ten times a
second, because there are many of them.
"""

import asyncio
import logging
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, TextIO

from pydantic_core import to_json

logger = logging.getLogger("flash.serve")
GATHERED = 0.1  # seconds that request lines are buffered


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its line end."""
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return to_json(line, fallback=str).decode()


class RequestLines:
    """Buffer of request lines for a stream."""

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._lines: list[bytes] = []
        self._second, self._moment = 0, ""

    @property
    def wanted(self) -> bool:
        """Whether request lines are written."""
        return self._stream is not None

    def to(self, stream: TextIO | None) -> None:
        """Write to this stream from now on; None turns request lines off."""
        self.flush()
        self._stream = stream

    def add(self, fields: dict[str, Any]) -> None:
        """Buffer a line; must be called in an event loop."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._moment = datetime.fromtimestamp(self._second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        moment = f"{self._moment}.{int(1000 * (now - self._second)):03d}Z"
        if not self._lines:
            asyncio.get_running_loop().call_later(GATHERED, self.flush)
        self._lines.append(to_json({"time": moment, "level": "info", "event": "request", **fields}))

    def flush(self) -> None:
        """Write the buffered lines."""
        lines, self._lines = self._lines, []
        if lines and self._stream is not None:
            with suppress(OSError, ValueError):  # a closed log stream must not fail requests
                self._stream.write(b"\n".join([*lines, b""]).decode())
                self._stream.flush()


requests = RequestLines()


def configure(level: str, stream: TextIO | None = None) -> None:
    """Log events from `level` on, and uvicorn's errors; uvicorn's warnings are about mistakes of clients.

    Args:
        level: "debug", "info", "warning" or "error".
        stream: standard error unless given.
    """
    stream = stream or sys.stderr
    requests.to(stream if level in ("debug", "info") else None)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name, least in (("flash.serve", level), ("uvicorn.error", "error")):
        target = logging.getLogger(name)
        target.handlers[:] = [handler]
        target.propagate = False
        target.setLevel(max(logging.getLevelName(least.upper()), logging.getLevelName(level.upper())))


def event(level: int, message: str, *, error: BaseException | None = None, **fields: Any) -> None:
    """Log one event.

    Args:
        level: a level of `logging`, such as `logging.INFO`.
        message: what happened.
        error: its traceback is logged too.
        fields: further JSON values.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", message, extra={"fields": fields}, exc_info=error)
