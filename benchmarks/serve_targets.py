"""The servers that `serve.py` measures: how each is started, when it is ready, what it uses, and how it ends.

Every server runs in a session of its own, so that all its processes are counted and none is left. Imports the standard
library alone, and reads Linux's /proc.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST, PATH = "127.0.0.1", "/predict"
HERE = Path(__file__).parent
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
STARTING, STOPPING, POLL = 180.0, 40.0, 0.01  # seconds


@dataclass(frozen=True)
class Target:
    """A way to serve a model.

    Attributes:
        title: what tables call it.
        words: of the command line after the interpreter, from the model's path and the port.
        ready: the path that answers 200 as soon as it is ready.
        needs: modules and the packages that they are in.
        stop: the signal that ends it.
    """

    title: str
    words: Callable[[str, int], list[str]]
    ready: str
    needs: dict[str, str] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM

    @property
    def missing(self) -> list[str]:
        """Packages to install first."""
        return [package for name, package in self.needs.items() if importlib.util.find_spec(name) is None]


def litserve(size: int, seconds: float) -> Target:
    """LitServe with batches of at most so many texts, which it gathers for so long."""
    return Target(
        f"LitServe, {size} texts or {1_000 * seconds:g} ms",
        lambda model, port: [str(HERE / "serve_litserve.py"), model, str(port), str(size), str(seconds)],
        "/health",
        {"litserve": "litserve==0.2.19"},
        signal.SIGINT,
    )


TARGETS = {
    "flash": Target(
        "flash serve",
        lambda model, port: ["-m", "flash", "serve", model, "--port", str(port)],
        "/ready",
        {"uvicorn": "uvicorn", "httptools": "httptools"},
    ),
    "litserve": litserve(32, 0.01),
    "litserve-short": litserve(64, 0.001),
    "fastapi": Target(
        "FastAPI",
        lambda model, port: [str(HERE / "serve_fastapi.py"), model, str(port)],
        "/health",
        {"fastapi": "fastapi", "uvloop": "uvloop", "httptools": "httptools"},
    ),
}


@dataclass(frozen=True)
class Usage:
    """What the processes of a session used: processor seconds so far, user and system, and resident bytes now."""

    cpu: float
    resident: int


def usage(session: int | None) -> Usage:
    """Of all processes of a session together, with those that ended; nothing for None."""
    ticks = pages = 0
    for name in filter(str.isdigit, os.listdir("/proc") if session is not None else ()):  # noqa: PTH208 - names
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            if int(words[3]) == session:
                ticks += sum(map(int, words[11:15]))  # its own and its ended children's
                pages += int(words[21])
    return Usage(ticks / TICKS, pages * PAGE)


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        process: the one that was started, whose number is the session's.
        port: on loopback.
        log: the file of its output and of its access log.
        wall: seconds from its start until it was ready.
        cpu: processor seconds that it had used then.
        resident: its bytes of memory then.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    wall: float
    cpu: float
    resident: int

    @property
    def session(self) -> int:
        """The session of its processes."""
        return self.process.pid

    def ask(self, text: str) -> tuple[int, bytes]:
        """The status and the body of the answer to one text."""
        return ask(self.port, "POST", PATH, json.dumps({"inputs": text}).encode())


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """The status and the body of an answer.

    Raises:
        OSError: nobody answers.
        http.client.HTTPException: what answers is no server of HTTP.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(target: Target, model: str, log: Path, interpreter: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server from before it is started until all of its processes have ended.

    Args:
        target: what is started.
        model: the path of a model.
        log: what it writes to standard output and standard error.
        interpreter: options of Python.

    Raises:
        RuntimeError: it ended, or was not ready in time; with the last lines that it wrote.
    """
    port = free_port()
    command = [sys.executable, *interpreter, *target.words(model, port)]
    with log.open("wb") as stream:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
    try:
        while not is_ready(port, target.ready):
            late = time.perf_counter() > start + STARTING
            if process.poll() is not None or late:
                why = "was not ready in time" if late else f"ended with {process.returncode}"
                raise RuntimeError(f"{target.title} {why}: {last_lines(log)}")
            time.sleep(POLL)
        used, wall = usage(process.pid), time.perf_counter() - start
        yield Server(process, port, log, wall, used.cpu, used.resident)
    finally:
        end(process, target.stop)


def is_ready(port: int, path: str) -> bool:
    """Whether a server answers 200."""
    try:
        return ask(port, "GET", path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def last_lines(log: Path, count: int = 5) -> str:
    """What a server said last."""
    return " / ".join(log.read_text(errors="replace").splitlines()[-count:]) or "it wrote nothing"


def end(process: "subprocess.Popen[bytes]", by: signal.Signals) -> int:
    """End a server as its user would, then what is left of its session; the exit code."""
    process.send_signal(by)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOPPING)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


class Sampler:
    """The resident memory of a session, again and again while a block runs.

    Attributes:
        samples: (seconds since the epoch, bytes) each.
    """

    def __init__(self, session: int, every: float) -> None:
        self.session, self.every = session, every
        self.samples: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.samples.append((time.time(), usage(self.session).resident))
            if self._ended.wait(self.every):
                return

    def at(self, moment: float) -> float:
        """MiB at the sample nearest to a time."""
        return min(self.samples, key=lambda sample: abs(sample[0] - moment))[1] / 2**20


def load(script: str, **job: Any) -> Any:
    """What a load generator answers, which runs in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, str(HERE / script), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stderr}")
    return json.loads(done.stdout)
