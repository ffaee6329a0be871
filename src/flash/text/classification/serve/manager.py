"""The processes of `flash serve`: uvicorn's manager starts, restarts and stops the workers.

The manager holds the socket; it answers no requests and loads no model. On top of uvicorn's manager it reports a model
that cannot be loaded in one sentence, makes the workers reload the model on SIGHUP without interrupting requests, and
logs the workers' starts and ends.
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
from flash.text.classification.serve.worker import COUNTERS, DEFERRED_SIGNALS, Work, make_worker

if TYPE_CHECKING:
    from flash.text.classification.serve.served_model import Watched

HEALTHY = 120
"""Seconds within which a worker must answer its manager's health check, also while it loads the model: longer than it
takes to start Python and import torch from a slow disk."""


def manage(path: str | Path, options: ServeOptions, watched: "Watched | None" = None) -> int:
    """Serve with `options.workers` processes until SIGTERM or Ctrl-C; returns the exit code, 0.

    On SIGTERM or Ctrl-C, requests in flight have `options.grace` seconds to finish; a second Ctrl-C stops at once.
    SIGHUP reloads the model's file; the old model answers until the new one is loaded, and stays if loading fails.

    Args:
        path: a checkpoint or an export.
        options: already checked.
        watched: context manager around the model's first computation, for progress messages about compilation.

    Raises:
        FlashError: the server cannot listen at the address, or the model cannot be served.
    """
    # multiprocessing runs the user's script again in each worker
    if multiprocessing.current_process().name != "MainProcess":
        sys.stderr.write(
            'flash: error: a worker cannot have workers; call serve under: if __name__ == "__main__":\n'
        )
        sys.exit(STARTUP_FAILURE)
    if threading.current_thread() is not threading.main_thread():
        raise FlashError(
            "workers can only be started from the program's main thread, which receives signals; call serve there"
        )
    try:
        pickle.dumps((options, watched))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise FlashError(
            f"output cannot be given to other processes ({error}); expected a function that stands at the top of a "
            "module"
        ) from error
    checkpoint.check(path)  # here, so that the workers need not
    if options.workers > 1 and options.precision == "auto":  # measured once, so that all workers use the same
        from flash.text.classification.predictor import precision_for

        options = replace(options, precision=precision_for(path))
    with ExitStack() as stack:
        sock = stack.enter_context(closing(bind(options.host, options.port)))
        options = with_allowed_hosts(options, sock.getsockname())
        counters = os.environ.get(COUNTERS)
        if options.workers > 1 and counters is None:
            counters = stack.enter_context(tempfile.TemporaryDirectory(prefix="flash-serve-"))
        receiver, sender = multiprocessing.Pipe(duplex=False)
        stack.enter_context(closing(receiver))
        work = Work(path, options, sock, sender, watched, checkpoint.checked_files(), counters)
        with _signals_kept():
            return Manager(work, receiver).serve()


class Manager(Multiprocess):
    """uvicorn's manager of workers, with reload, failure messages and logging.

    Args:
        work: what each worker is started with.
        receiver: end of the pipe on which the workers send messages.
    """

    def __init__(self, work: Work, receiver: Connection) -> None:
        config = config_of(partial(make_worker, work), work.options)
        config.factory, config.workers = True, work.options.workers
        config.timeout_worker_healthcheck = HEALTHY
        super().__init__(config, [work.sock])
        self._work, self._receiver = work, receiver
        self._ready: set[int] = set()
        self._failure = ""

    def serve(self) -> int:
        """Run until a signal stops the server; return the exit code, 0.

        Raises:
            FlashError: a worker could not load the model before the server had started.
        """
        # silence uvicorn: failures are raised here, and `keep_subprocess_alive` logs the end of a worker
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.run()
        self._handle_messages()
        if self._failure:
            raise FlashError(self._failure)
        if any(process.exitcode == STARTUP_FAILURE for process in self.processes):
            raise FlashError("a worker could not start; what it wrote above says why")
        return 0

    def init_processes(self) -> None:
        """Start the workers."""
        # the first worker's start would otherwise start the tracker, which unblocks signals
        resource_tracker.ensure_running()
        with _signals_blocked():
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        """Restart workers that have ended; uvicorn calls this twice a second."""
        self._handle_messages()
        before = list(self.processes)
        for process in before:
            process.child_conn.close()  # close the worker's end here, so that its death is noticed at once
        with _signals_blocked():
            super().keep_subprocess_alive()
        for process in before:
            if process not in self.processes:
                self._note_end(process.pid or 0, process.exitcode)

    def terminate_all(self) -> None:
        """Stop the workers, and refuse new connections."""
        self._work.sock.close()
        super().terminate_all()

    def handle_hup(self) -> None:
        """Make each worker reload the model; a worker that is starting does so once it has started."""
        self._reload()

    def _reload(self, but: int | None = None) -> None:
        for process in self.processes:
            if process.exitcode is None and process.pid not in (None, but):
                os.kill(process.pid or 0, signal.SIGHUP)

    def _handle_messages(self) -> None:
        with suppress(OSError, EOFError):
            while self._receiver.poll():
                kind, *content = self._receiver.recv()
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


KILLED = getattr(signal, "SIGKILL", 9)  # Windows has no SIGKILL


def how_it_ended(code: int | None) -> str:
    """Describe a process' exit code.

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
    """Restore the signal handlers afterwards, which uvicorn's manager replaces."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes with blocked signals: a worker unblocks `DEFERRED_SIGNALS` once it can handle them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
