"""A worker process: uvicorn's manager starts it, and uvicorn gets the application from `make_worker`.

All workers share one pipe to the manager, with three messages: ("ready", pid, name, labels); ("failed", message) before
the server has started; and ("reloaded", pid) after a request reloaded the model. Most imports are inside functions,
because prometheus_client reads an environment variable when it is imported.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvicorn.config import STARTUP_FAILURE

from flash.core.errors import FlashError
from flash.text.classification.checkpoint import digest
from flash.text.classification.serve.address import listen
from flash.text.classification.serve.options import ServeOptions

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from flash.text.classification.serve.served_model import ServedModel, Watched
    from flash.text.classification.serve.service import Service

COUNTERS = "PROMETHEUS_MULTIPROC_DIR"
DEFERRED_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
"""Signals that stay blocked until the worker can handle them; a terminal sends them to all processes."""
PAUSE = 5.0
"""Seconds that a worker that cannot load the model waits before it ends and is restarted."""
LONGEST = 400  # characters of a failure message on the pipe
OTHER_FILES = 256  # open files of a process, beside its connections


@dataclass
class Work:
    """What a worker is started with.

    Attributes:
        path: the model.
        options: limits, keys.
        sock: the bound socket, shared by all workers.
        pipe: sends messages to the manager.
        watched: context manager around the model's first computation, for progress messages about compilation.
        checked: files whose checksums the manager has verified.
        counters: folder of the Prometheus metrics; None for one worker.
        begun: whether the server had already started: all workers were ready once.
    """

    path: str | Path
    options: ServeOptions
    sock: socket.socket
    pipe: Connection
    watched: "Watched | None"
    checked: frozenset[tuple[digest.FileState, str]]
    counters: str | None
    begun: bool = False

    def tell(self, *message: Any) -> None:
        """Send the manager a message, short enough for the pipe to write it atomically."""
        with suppress(OSError):
            self.pipe.send(message)


def make_worker(work: Work) -> "ASGIApp":
    """Load the model, listen, and return the application.

    If the model cannot be loaded, the process ends; before the server has started, the whole server ends.
    """
    threading.Thread(target=_end_with_parent, name="flash-parent", daemon=True).start()
    if work.counters is not None:
        Path(work.counters).mkdir(
            parents=True, exist_ok=True
        )  # a cleaner of temporary folders may have deleted it
        os.environ[COUNTERS] = work.counters
    from flash.text.classification.serve import logs
    from flash.text.classification.serve.api.app import make_app
    from flash.text.classification.serve.service import Service

    logs.configure(work.options.log_level)
    digest.trust(work.checked)
    try:
        model = _loaded(work)
        listen(work.sock, work.options.host)
    except BaseException as error:  # a panic in a library's compiled code is not an Exception
        known = isinstance(error, FlashError | OSError)
        reason = str(error) if known else f"the model cannot be loaded ({type(error).__name__}: {error})"
        if not work.begun:
            work.tell("failed", reason[:LONGEST])
            sys.exit(STARTUP_FAILURE)
        traceback = None if known else error
        logs.event(
            logging.ERROR, "worker not started", error=traceback, reason=reason, again_in_seconds=PAUSE
        )
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PAUSE)
        sys.exit(1)
    service = Service(model, work.options)
    service.reloaded = lambda: work.tell("reloaded", os.getpid())
    service.ended = lambda: os.kill(os.getpid(), signal.SIGTERM)
    return make_app(service, lambda: _begin(work, service))


def _loaded(work: Work) -> "ServedModel":
    """Load the model; meanwhile SIGTERM ends the process at once, because no request is in flight."""
    from flash.text.classification.serve.served_model import ServedModel

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        return ServedModel.load(work.path, work.options, watched=work.watched)
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(work: Work, service: "Service") -> None:
    """Handle SIGHUP, unblock signals, and report the worker ready; called in the event loop."""
    allow_files(work.options.max_connections + OTHER_FILES)
    if hasattr(signal, "SIGHUP"):
        loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

        def hang_up() -> None:
            task = loop.create_task(_reload(service))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFERRED_SIGNALS)
    work.tell("ready", os.getpid(), service.model.name, len(service.model.labels))


async def _reload(service: "Service") -> None:
    from flash.text.classification.serve import logs

    try:
        await service.reload()
    except FlashError:
        """Already logged by the service."""
    except Exception as error:
        logs.event(logging.ERROR, "reload failed", error=error)


def _end_with_parent() -> None:
    """Stop this worker when its manager is killed, since nobody else would stop it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def allow_files(count: int) -> None:
    """Raise the limit of open files to `count`, as far as the system allows; log a warning if it stays lower."""
    from flash.text.classification.serve import logs

    try:
        import resource
    except ImportError:  # on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < count:
        logs.event(logging.WARNING, "few files may be open", allowed=most, wanted=count)
