"""What each of several workers does in its process: load the model, serve, and do as its supervisor says.

What is said on the pipe between them stands in `workers.py`.
"""

import asyncio
import logging
import shutil
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flash.core.errors import FlashError
from flash.text.classification.checkpoint import digest
from flash.text.classification.serve import logs
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.server import Load, Server

KEYBOARD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
"""Signals that a terminal sends to workers too, and that are the supervisor's to handle."""


def work(
    path: str | Path,
    options: ServeOptions,
    sock: socket.socket,
    pipe: Connection,
    load: Load,
    counters: Path | None,
    checked: Iterable[tuple[digest.FileState, str]] = (),
) -> None:
    """What a worker's process does: load the model, serve, and do as the supervisor says; it ends with it.

    Args:
        path: of the model.
        options: limits, keys.
        sock: bound; all workers listen at it.
        pipe: to the supervisor.
        load: makes a model of a path.
        counters: the folder of Prometheus' counters, if it goes when the last process does.
        checked: files whose checksums the supervisor has compared.
    """
    for number in KEYBOARD:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, KEYBOARD)
    logs.configure(options.log_level)
    digest.trust(checked)
    link = Link(pipe)
    try:
        model = load(path, options)
        server = Server(model, options, sock)
        server.service.ask_all = link.ask_all

        def begun() -> None:
            link.listen(server)
            link.send("ready", model.name, len(model.labels))

        server.run(begun, signals=("SIGTERM",))
    except (FlashError, OSError) as error:
        link.send("failed", str(error))
        sys.exit(2)
    if link.alone and counters is not None:  # nobody else is left to take it away
        shutil.rmtree(counters, ignore_errors=True)


class Link:
    """A worker's end of the pipe.

    Attributes:
        alone: whether the supervisor is gone.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._answers: deque[asyncio.Future[str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.alone = False

    def send(self, *message: Any) -> None:
        """Tell the supervisor something, if there is one."""
        with self._sending, suppress(OSError):
            self._pipe.send(message)

    def listen(self, server: Server) -> None:
        """Do as the supervisor says from now on, in the running event loop."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop, server), name="flash-link", daemon=True).start()

    async def ask_all(self) -> str:
        """Have every worker load the model again; returns a sentence.

        Raises:
            FlashError: not all have switched; the sentence says why.
        """
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self.send("ask")
        return await answer

    def _listen(self, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        with suppress(RuntimeError):  # the loop is closed
            try:
                while True:
                    loop.call_soon_threadsafe(self._hear, server, *self._pipe.recv())
            except (EOFError, OSError):
                self.alone = True
                loop.call_soon_threadsafe(self._orphaned, server)

    def _hear(self, server: Server, kind: str, *content: Any) -> None:
        if kind == "stop":
            server.stop(at_once=content[0])
        elif kind == "reload":
            digest.trust(content[0])
            task = asyncio.ensure_future(self._reload(server))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == "answer":
            answer = self._answers.popleft()
            done, sentence = content
            if answer.done():  # nobody waits for it any more
                return
            if done:
                answer.set_result(sentence)
            else:
                answer.set_exception(FlashError(sentence))

    def _orphaned(self, server: Server) -> None:
        logs.event(logging.ERROR, "the supervisor is gone; stopping")
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(
                    FlashError("the supervisor of the workers is gone; start the server again")
                )
        server.stop()

    async def _reload(self, server: Server) -> None:
        try:
            sentence = await server.service.reload()
        except FlashError as error:
            self.send("reloaded", False, str(error))
        except Exception as error:
            logs.event(logging.ERROR, "reload failed", error=error)
            self.send("reloaded", False, "the model could not be loaded; the log of the server says why")
        else:
            self.send("reloaded", True, sentence)
