"""Several workers at one address, each a process with its own model, under a supervisor that keeps them there.

The supervisor holds the socket and a pipe to each worker; it answers no requests and loads no model. A worker that ends
is started again. The file of a model is tried by one worker before the others load it.

On the pipe, a worker says ("ready", name, labels), ("failed", sentence), ("ask",) for a reload of all, and
("reloaded", done, sentence); the supervisor says ("reload", checked), ("answer", done, sentence) and ("stop", at_once).
"""

import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import monotonic
from typing import Any

from flash.core.errors import FlashError
from flash.text.classification import checkpoint
from flash.text.classification.predictor import precision_for
from flash.text.classification.serve import logs
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.served_model import ServedModel
from flash.text.classification.serve.server import Load, announce, bind
from flash.text.classification.serve.worker import KEYBOARD, work

PROMETHEUS = "PROMETHEUS_MULTIPROC_DIR"
POLL = 0.1  # seconds until a signal is noticed
SETTLED = 10.0  # seconds after which a worker's end has nothing to do with its start
FIRST_PAUSE, LONGEST_PAUSE = (
    0.5,
    30.0,
)  # seconds before a worker that ended soon after its start is started again
MARGIN = 10.0  # seconds beyond the grace until a worker that does not end is killed


def supervise(model: ServedModel | str | Path, options: ServeOptions, load: Load) -> int:
    """Serve with `options.workers` processes until SIGTERM or Ctrl-C; returns the exit code.

    Args:
        model: the path of a checkpoint or an export.
        options: addresses, limits, keys; already checked.
        load: makes a model of a path, in the first worker; it is found by its name in its module.

    Raises:
        FlashError: a model that is in memory, an address that cannot be listened at, or a model that cannot be served.
    """
    if isinstance(model, ServedModel):
        raise FlashError(
            f"a model in memory has one worker, and workers is {options.workers}; save it with "
            f"trainer.save_checkpoint('model.pt'), and type: flash serve model.pt --workers {options.workers}"
        )
    try:
        pickle.dumps((options, load))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise FlashError(
            f"output cannot be given to {options.workers} workers ({error}); expected a function that stands at the top "
            "of a module, or one worker"
        ) from error
    checkpoint.check(model)  # once for all workers
    if options.precision == "auto":  # of all workers, and of those that are started again
        options = replace(options, precision=precision_for(model))
    with closing(bind(options.host, options.port)) as sock, _folder_of_counters() as folder:
        return Supervisor(model, options, sock, load, folder).run()


@contextmanager
def _folder_of_counters() -> Iterator[Path]:
    """Where Prometheus' counters of all workers are kept: the user's folder, or one for this time."""
    if PROMETHEUS in os.environ:
        yield Path(os.environ[PROMETHEUS])
        return
    folder = Path(tempfile.mkdtemp(prefix="flash-serve-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- the supervisor -----------------------------------------------------------------------------------------


class Worker:
    """A worker's place, and the process that has it now.

    Attributes:
        number: of the place, from 1.
        there: whether there is a process; otherwise `process` and `pipe` mean nothing.
        ready: whether it answers requests.
        behind: whether a reload was asked for while it was being started.
        due: when the next process may start.
        failure: the sentence of a model that could not be loaded.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: SpawnProcess
        self.pipe: Connection
        self.there = self.ready = self.behind = False
        self.started = self.due = 0.0
        self.quick_ends = 0
        self.failure = ""

    def ends(self) -> list[Connection | int]:
        """What is ready when the process has said something, and when it has ended."""
        return [self.pipe, self.process.sentinel]

    def send(self, *message: Any) -> None:
        """Tell the process something, if there is one."""
        if self.there:
            with suppress(OSError):
                self.pipe.send(message)

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """What the process has said."""
        with suppress(OSError, EOFError):
            while self.pipe.poll():
                yield self.pipe.recv()


class Supervisor:
    """Starts workers, keeps them, and stops them.

    Args:
        path: of the model.
        options: addresses, limits, keys.
        sock: bound; closed at the end.
        load: makes a model of a path, in the first worker.
        counters: the folder of Prometheus' counters.
    """

    def __init__(
        self, path: str | Path, options: ServeOptions, sock: socket.socket, load: Load, counters: Path
    ) -> None:
        self._path, self._options, self._sock, self._load = path, options, sock, load
        self._counters = counters
        self._address = sock.getsockname()
        self._workers = [Worker(number) for number in range(1, options.workers + 1)]
        self._begun = self._stopping = self._at_once = False
        self._asked: list[Worker | None] = []  # who asked for a reload; None for SIGHUP
        self._reload: _Reload | None = None

    def run(self) -> int:
        """Serve until it is stopped; returns the exit code, 0.

        Raises:
            FlashError: a worker could not load the model, or did not start.
        """
        with self._handled():
            try:
                self._start(self._workers[0])  # if the model is bad, one worker is enough to find out
                while not self._stopping:
                    self._step()
            finally:
                self._stop()
        return 0

    @contextmanager
    def _handled(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        actions = {"SIGINT": self._interrupt, "SIGTERM": self._terminate, "SIGHUP": self._hang_up}
        before = {
            number: signal.signal(number, lambda _, __, action=action: action())  # type: ignore[misc]
            for name, action in actions.items()
            if (number := getattr(signal, name, None)) is not None
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _interrupt(self) -> None:
        self._at_once = self._stopping
        self._stopping = True

    def _terminate(self) -> None:
        self._stopping = True

    def _hang_up(self) -> None:
        self._asked.append(None)

    def _step(self) -> None:
        """See what has happened, and what is due."""
        alive = [worker for worker in self._workers if worker.there]
        wait([end for worker in alive for end in worker.ends()], POLL)
        for worker in alive:
            ended = worker.process.exitcode is not None  # asked before its last words are read
            for message in worker.messages():
                self._hear(worker, *message)
            if ended and not self._stopping:
                self._bury(worker)
        for worker in self._workers:
            if self._begun and not self._stopping and not worker.there and monotonic() >= worker.due:
                self._start_again(worker)
        if self._asked and self._reload is None:
            self._begin_reload()

    # ---- starting and ending --------------------------------------------------------------------------------

    def _start(self, worker: Worker) -> None:
        temporary = None if PROMETHEUS in os.environ else self._counters  # not what is the user's own
        ours, theirs = multiprocessing.Pipe()
        worker.process = multiprocessing.get_context("spawn").Process(
            target=work,
            name=f"flash-serve-{worker.number}",
            args=(
                self._path,
                self._options,
                self._sock,
                theirs,
                self._load if worker.number == 1 else ServedModel.load,
                temporary,
                checkpoint.checked_files(),
            ),
        )
        # theirs is closed here, so that its end is noticed on both sides
        self._counters.mkdir(parents=True, exist_ok=True)  # who tidies up temporary folders took it away
        with closing(theirs), _deaf_to_keyboard(), _environment(PROMETHEUS, str(self._counters)):
            worker.process.start()
        worker.pipe, worker.started, worker.failure = ours, monotonic(), ""
        worker.there, worker.ready, worker.behind = True, False, False

    def _start_again(self, worker: Worker) -> None:
        try:
            self._start(worker)
        except OSError as error:  # the system has no room for it now
            worker.due = monotonic() + LONGEST_PAUSE
            logs.event(
                logging.ERROR,
                "worker not started",
                worker=worker.number,
                reason=str(error),
                again_in_seconds=LONGEST_PAUSE,
            )

    def _hear(self, worker: Worker, kind: str, *content: Any) -> None:
        if kind == "ready":
            worker.ready = True
            logs.event(logging.INFO, "worker ready", worker=worker.number, pid=worker.process.pid)
            if worker.behind:
                worker.behind = False
                _ask_to_reload(worker)
            if not self._begun:
                self._go_on(*content)
        elif kind == "failed":
            (worker.failure,) = content
        elif kind == "ask":
            self._asked.append(worker)
        elif kind == "reloaded" and self._reload is not None:
            self._reload.hear(worker, *content)
            self._end_reload()

    def _go_on(self, name: str, labels: int) -> None:
        """After a worker's first words: start the others; when all have spoken, tell the user."""
        for worker in self._workers:
            if not worker.there:
                self._start(worker)
        if all(worker.ready for worker in self._workers):
            self._begun = True
            announce(name, labels, self._address, self._options)

    def _bury(self, worker: Worker) -> None:
        """Take the process of a worker away that has ended.

        Raises:
            FlashError: it was never ready, and nor were all the others.
        """
        how, pid = worker.failure or _how_it_ended(worker.process.exitcode), worker.process.pid
        ready, lived = worker.ready, monotonic() - worker.started
        self._clear(worker)
        if not self._begun:
            raise FlashError(worker.failure or f"a worker {how}, before it could answer")
        worker.quick_ends = worker.quick_ends + 1 if lived < SETTLED or not ready else 0
        pause = (
            min(FIRST_PAUSE * 2 ** (worker.quick_ends - 2), LONGEST_PAUSE) if worker.quick_ends > 1 else 0.0
        )
        worker.due = monotonic() + pause
        logs.event(
            logging.ERROR,
            "worker ended",
            worker=worker.number,
            pid=pid,
            reason=how,
            again_in_seconds=pause,
        )
        if self._reload is not None:
            self._reload.hear(worker, False, f"a worker {how} while it loaded the model")
            self._end_reload()

    def _clear(self, worker: Worker) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        worker.process.join()
        mark_process_dead(worker.process.pid, str(self._counters))  # type: ignore[no-untyped-call]
        worker.process.close()
        worker.pipe.close()
        worker.there = worker.ready = False

    def _stop(self) -> None:
        """End all workers: what they have in flight is answered, unless the time is over."""
        self._sock.close()
        alive = [worker for worker in self._workers if worker.there]
        for worker in alive:
            if worker.ready:
                worker.send("stop", False)
            else:
                worker.process.terminate()
        end, told = monotonic() + self._options.grace + MARGIN, False
        while alive:
            wait([end for worker in alive for end in worker.ends()[1:]], POLL)
            if self._at_once and not told:
                for worker in alive:
                    worker.send("stop", True)
                end, told = min(end, monotonic() + MARGIN), True
            for worker in list(alive):
                if monotonic() > end:
                    worker.process.kill()
                    worker.process.join()
                    logs.event(logging.ERROR, "worker killed, as it did not end", worker=worker.number)
                if worker.process.exitcode is not None:
                    self._clear(worker)
                    alive.remove(worker)

    # ---- reloading ------------------------------------------------------------------------------------------

    def _begin_reload(self) -> None:
        askers, self._asked = self._asked, []
        for worker in self._workers:
            worker.behind = not worker.ready
        ready = [worker for worker in self._workers if worker.ready]
        with suppress(FlashError):  # which the first worker has the words for
            checkpoint.check(self._path)
        self._reload = _Reload(askers, ready, len(self._workers) - len(ready))
        self._end_reload()

    def _end_reload(self) -> None:
        if self._reload is None or self._reload.waiting:
            return
        done, sentence = self._reload.outcome()
        for asker in self._reload.askers:
            if asker is not None:
                asker.send("answer", done, sentence)
        level = logging.INFO if done else logging.ERROR
        logs.event(
            level, "reload of all workers" if done else "reload of all workers refused", outcome=sentence
        )
        self._reload = None


def _ask_to_reload(worker: Worker) -> None:
    """Have a worker load the model again, whose checksum it need not compare once more."""
    worker.send("reload", checkpoint.checked_files())


class _Reload:
    """A reload of all workers: one tries the model, and if it is good, the others follow.

    Attributes:
        askers: who is told what came of it.
        waiting: workers that have been asked and have not answered.
        starting: how many are asked later, as soon as they are ready.
    """

    def __init__(self, askers: list[Worker | None], workers: list[Worker], starting: int = 0) -> None:
        self.starting = starting
        self.askers, self.waiting, self._rest = askers, workers[:1], workers[1:]
        self._count = len(workers)
        self._switched = 0
        self._sentence, self._problem = (
            "",
            "" if workers else "no worker is there to load it; they are being started",
        )
        for worker in self.waiting:
            _ask_to_reload(worker)

    def hear(self, worker: Worker, done: bool, sentence: str) -> None:
        """Take a worker's answer; that of one that was not asked means nothing."""
        if worker not in self.waiting:
            return
        self.waiting.remove(worker)
        if not done:
            self._problem = sentence
            return
        self._switched, self._sentence = self._switched + 1, sentence
        self.waiting += self._rest
        for other in self._rest:
            _ask_to_reload(other)
        self._rest = []

    def outcome(self) -> tuple[bool, str]:
        """Whether all have switched, and a sentence."""
        if not self._problem:
            count = self._count + self.starting
            later = f", and {self.starting} will as soon as it has started" if self.starting else ""
            return True, f"{self._sentence}; {self._switched} of {count} workers have switched{later}"
        if not self._switched:
            return False, self._problem
        return False, f"{self._switched} of {self._count} workers have switched, then: {self._problem}"


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            more = ", as the system does when memory is short" if name == "SIGKILL" else ""
            return f"was killed by {name}{more}"
    return f"ended with exit code {code}"


@contextmanager
def _deaf_to_keyboard() -> Iterator[None]:
    """A process that is started in this block does not hear what a terminal sends until it is prepared."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # the first process starts it, which would end the silence
    before = signal.pthread_sigmask(signal.SIG_BLOCK, KEYBOARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable for processes that are started in this block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
