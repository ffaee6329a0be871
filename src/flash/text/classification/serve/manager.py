"""The processes of `flash serve`: uvicorn's manager starts the workers, starts them again, and stops them.

The manager holds the socket; it answers no requests and loads no model. It adds to uvicorn's that a model that cannot
be loaded is one sentence, that SIGHUP has each worker load the model again while it answers, and the lines of the log.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from flash.core.errors import FlashError
from flash.text.classification import checkpoint
from flash.text.classification.serve import logs
from flash.text.classification.serve.address import announce, bind, with_allowed_hosts
from flash.text.classification.serve.config import config_of
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.worker import COUNTERS, NOT_YET, Work, make_worker

if TYPE_CHECKING:
    from flash.text.classification.serve.served_model import Watched

HEALTHY = 120
"""Seconds within which a worker answers its manager, which it also does while it loads: more than Python takes to start
and to import torch from a slow disk."""


def manage(path: str | Path, options: ServeOptions, watched: "Watched | None" = None) -> int:
    """Serve with `options.workers` processes until SIGTERM or Ctrl-C; returns the exit code, 0.

    SIGTERM or Ctrl-C stops: what is in flight is answered within `options.grace` seconds, and a second Ctrl-C ends at
    once. SIGHUP loads the model's file again; while it loads, and if it is bad, the old model answers.

    Args:
        path: of a checkpoint or an export.
        options: addresses, limits, keys; already checked.
        watched: a block around the first computation of the model, which may tell the user what is compiled.

    Raises:
        FlashError: an address that cannot be listened at, or a model that cannot be served.
    """
    if (
        multiprocessing.current_process().name != "MainProcess"
    ):  # a script starts again in each of its workers
        sys.stderr.write(
            'flash: error: a worker cannot have workers; call serve under: if __name__ == "__main__":\n'
        )
        sys.exit(STARTUP_FAILURE)
    if threading.current_thread() is not threading.main_thread():
        raise FlashError(
            "workers are started by a program's main thread alone, which hears signals; call serve there"
        )
    try:
        pickle.dumps((options, watched))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise FlashError(
            f"output cannot be given to other processes ({error}); expected a function that stands at the top of a "
            "module"
        ) from error
    checkpoint.check(path)  # once for all workers
    if (
        options.workers > 1 and options.precision == "auto"
    ):  # of all workers, and of those that are started again
        from flash.text.classification.predictor import precision_for

        options = replace(options, precision=precision_for(path))
    with ExitStack() as stack:
        sock = stack.enter_context(closing(bind(options.host, options.port)))
        options = with_allowed_hosts(options, sock.getsockname())
        counters = os.environ.get(COUNTERS)
        if options.workers > 1 and counters is None:
            counters = stack.enter_context(tempfile.TemporaryDirectory(prefix="flash-serve-"))
        heard, said = multiprocessing.Pipe(duplex=False)
        stack.enter_context(closing(heard))
        work = Work(path, options, sock, said, watched, checkpoint.checked_files(), counters)
        with _signals_kept():
            return Manager(work, heard).serve()


class Manager(Multiprocess):
    """uvicorn's manager of workers.

    Args:
        work: that each worker is given.
        heard: the end of the pipe on which they tell something.
    """

    def __init__(self, work: Work, heard: Connection) -> None:
        config = config_of(partial(make_worker, work), work.options)
        config.factory, config.workers = True, work.options.workers
        config.timeout_worker_healthcheck = HEALTHY
        super().__init__(config, [work.sock])
        self._work, self._heard = work, heard
        self._ready: set[int] = set()
        self._failure = ""

    def serve(self) -> int:
        """Run until a signal; returns the exit code, 0.

        Raises:
            FlashError: before all workers were ready, one could not load the model.
        """
        # all that it would say is said here: a failure by an error, a worker's end by `keep_subprocess_alive`
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.run()
        self._hear()
        if self._failure:
            raise FlashError(self._failure)
        if any(process.exitcode == STARTUP_FAILURE for process in self.processes):
            raise FlashError("a worker could not start; what it wrote above says why")
        return 0

    def init_processes(self) -> None:
        """Start the workers."""
        resource_tracker.ensure_running()  # which the first process would start, and let signals in for
        with _signals_blocked():
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        """Start workers again that have ended; called twice a second."""
        self._hear()
        before = list(self.processes)
        for process in before:
            process.child_conn.close()  # the worker's end, so that its death is noticed on this one at once
        with _signals_blocked():
            super().keep_subprocess_alive()
        for process in before:
            if process not in self.processes:
                self._note_end(process.pid or 0, process.exitcode)

    def terminate_all(self) -> None:
        """Have the workers stop; nobody waits for one any more."""
        self._work.sock.close()
        super().terminate_all()

    def handle_hup(self) -> None:
        """Have each worker load the model again; one that is starting does so when it has started."""
        self._reload()

    def _reload(self, but: int | None = None) -> None:
        for process in self.processes:
            if process.exitcode is None and process.pid not in (None, but):
                os.kill(process.pid or 0, signal.SIGHUP)

    def _hear(self) -> None:
        with suppress(OSError, EOFError):
            while self._heard.poll():
                kind, *content = self._heard.recv()
                if kind == "failed":
                    self._failure = self._failure or content[0]
                elif kind == "reloaded":
                    self._reload(but=content[0])
                else:
                    self._note_ready(*content)

    def _note_end(self, pid: int, code: int | None) -> None:
        self._ready.discard(pid)
        logs.event(logging.ERROR, "worker ended", pid=pid, reason=how_it_ended(code))
        if self._work.counters is not None:
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(pid, self._work.counters)  # type: ignore[no-untyped-call]

    def _note_ready(self, pid: int, name: str, labels: int) -> None:
        self._ready.add(pid)
        logs.event(logging.INFO, "worker ready", pid=pid)
        if not self._work.begun and self._ready >= {process.pid for process in self.processes}:
            self._work.begun = True
            announce(name, labels, self._work.sock.getsockname(), self._work.options)


KILLED = getattr(signal, "SIGKILL", 9)
"""Windows has no such signal."""


def how_it_ended(code: int | None) -> str:
    """A process' exit code in words.

    >>> how_it_ended(-11), how_it_ended(1)
    ('was killed by SIGSEGV', 'ended with exit code 1')
    """
    if code == -KILLED:
        return (
            "was killed by SIGKILL, as the system does when memory is short, and the manager after "
            f"{HEALTHY} s without an answer"
        )
    if code is not None and -code in signal.valid_signals():
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handlers of signals, which uvicorn's manager replaces."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process that is started in this block gets a terminal's signals when it asks for them, and not before."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_YET)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
