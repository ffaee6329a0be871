"""A worker's process: uvicorn's manager starts it, and uvicorn asks `make_worker` for the application.

A worker says little, on one pipe that all of them share: ("ready", pid, name, labels), ("failed", sentence) before the
server has begun, and ("reloaded", pid) after a request had the model loaded again. Imports little before its parent's
environment is set, as prometheus_client reads a variable when it is imported.
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
NOT_YET = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
"""Signals, also a terminal's to all processes, that a worker gets once it can do as they say."""
PAUSE = 5.0
"""Seconds before a worker that cannot load the model ends, and another is started."""
LONGEST = 400  # characters of a sentence on the pipe
OTHER_FILES = 256  # that a process has open beside its connections


@dataclass
class Work:
    """What a worker is given.

    Attributes:
        path: of the model.
        options: limits, keys.
        sock: bound; all workers listen at it.
        pipe: to the manager.
        watched: a block around the first computation of the model, which may tell the user what it compiles.
        checked: files whose checksums the manager has compared.
        counters: the folder of Prometheus' counters, where there are several workers.
        begun: whether all workers had been ready once when this one was started.
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
        """Tell the manager something; what is short is written whole, whoever else writes."""
        with suppress(OSError):
            self.pipe.send(message)


def make_worker(work: Work) -> "ASGIApp":
    """The application of a worker, which has loaded the model and listens.

    A model that cannot be loaded ends the process, and before the server has begun the server as well.
    """
    threading.Thread(target=_end_with_parent, name="flash-parent", daemon=True).start()
    if work.counters is not None:
        Path(work.counters).mkdir(parents=True, exist_ok=True)  # who tidies up temporary folders took it away
        os.environ[COUNTERS] = work.counters
    from flash.text.classification.serve import logs
    from flash.text.classification.serve.api.app import make_app
    from flash.text.classification.serve.service import Service

    logs.configure(work.options.log_level)
    digest.trust(work.checked)
    try:
        model = _loaded(work)
        listen(work.sock, work.options.host)
    except BaseException as error:  # a panic in a library's compiled part is no Exception
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
    """The model; until it is there, SIGTERM ends the process at once, as nothing is in flight."""
    from flash.text.classification.serve.served_model import ServedModel

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        return ServedModel.load(work.path, work.options, watched=work.watched)
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(work: Work, service: "Service") -> None:
    """Hear signals, and tell that the worker is ready; called in the event loop."""
    allow_files(work.options.max_connections + OTHER_FILES)
    if hasattr(signal, "SIGHUP"):
        loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

        def hang_up() -> None:
            task = loop.create_task(_reload(service))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_YET)
    work.tell("ready", os.getpid(), service.model.name, len(service.model.labels))


async def _reload(service: "Service") -> None:
    from flash.text.classification.serve import logs

    try:
        await service.reload()
    except FlashError:
        """The service has said so."""
    except Exception as error:
        logs.event(logging.ERROR, "reload failed", error=error)


def _end_with_parent() -> None:
    """End as by SIGTERM when the manager is killed, which could end nobody any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def allow_files(count: int) -> None:
    """Let this process open as many files as it may need, where the system asks to be told."""
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
