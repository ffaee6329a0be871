"""The load of `serve.py`: a light process of its own, as it shares the processors with what it measures.

    python benchmarks/serve_load.py '{"mode": "closed", "port": 8000, "texts": "texts.json", "connections": 32, ...}'

One event loop, connections that are kept, requests made beforehand, and answers of which only the status and the length
are read. In a closed loop each of so many clients asks again as soon as it is answered; in an open loop requests come
at times of their own (a Poisson process), whatever became of those before. Prints JSON; all times are microseconds.
"""

import asyncio
import gc
import itertools
import json
import random
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_targets import HOST, PATH, usage

LOST, UNSENT = 0, -1  # in place of a status: the connection ended, or as many as allowed were busy
PATIENCE = 60.0  # seconds that an answer is waited for, longer than any server's timeout
PAUSE = 0.02  # seconds after a failure
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)

Answered = Callable[[int], None]


class Connection(asyncio.Protocol):
    """A connection of HTTP/1.1 with one request at a time.

    Args:
        ended: called once when the connection is gone.
    """

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        self.ended = ended
        self.transport: Any = None
        self.data = b""
        self.answered: Answered | None = None

    @property
    def closing(self) -> bool:
        """Whether it can be asked nothing more."""
        return self.transport is None or bool(self.transport.is_closing())

    def ask(self, request: bytes, answered: Answered) -> None:
        """Send a request; `answered` is called with the status of the answer, or with `LOST`."""
        self.answered = answered
        self.transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self.transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self.data:
            data = self.data + data
        head = data.find(b"\r\n\r\n")
        length = LENGTH.search(data, 0, head + 2) if head >= 0 else None
        if length is None and head >= 0:
            self.transport.abort()  # an answer without a length, which none of these servers gives
        elif length is None or len(data) < head + 4 + int(length[1]):
            self.data = data
        else:
            self.data = b""
            status = int(data[9:12])
            if status != 200 and CLOSES.search(data, 0, head + 2):
                self.transport.close()
            self._tell(status)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
        self.ended()
        self._tell(LOST)

    def _tell(self, status: int) -> None:
        answered, self.answered = self.answered, None
        if answered is not None:
            answered(status)


@dataclass(frozen=True)
class Place:
    """Where a server is, and what it is asked.

    Attributes:
        port: its port on loopback.
        requests: whole requests, as they are sent.
    """

    port: int
    requests: Sequence[bytes]

    async def connect(self, ended: Callable[[], None] = lambda: None) -> Connection:
        """A new connection.

        Raises:
            OSError: there is none to be had.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(ended), HOST, self.port)
        return connection

    def rotated(self, offset: int) -> Iterator[bytes]:
        """The requests for ever, from the one at `offset` on."""
        return itertools.cycle([*self.requests[offset:], *self.requests[:offset]])


def post(body: Any, path: str = PATH) -> bytes:
    """A request whose body is JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


# ---- clients that wait for their answers -----------------------------------------------------------------------------


class ClosedLoop:
    """So many clients, each of which asks again as soon as it is answered.

    Attributes:
        statuses: how many answers there were of each status.
        latencies: of the answers with status 200.
    """

    def __init__(self, place: Place, connections: int, offset: int = 0) -> None:
        self.place, self.connections = place, connections
        self.requests = place.rotated(offset)
        self.going, self.measuring, self.waiting = True, False, 0
        self.statuses: Counter[int] = Counter()
        self.latencies: list[int] = []

    async def run(self, warm: float, seconds: float, session: int | None = None) -> dict[str, Any]:
        """The answers that came within `seconds`, after `warm` seconds that do not count.

        Args:
            warm: seconds.
            seconds: likewise.
            session: of the server's processes, whose processor time is counted too.
        """
        clients = [Client(self) for _ in range(self.connections)]
        await asyncio.gather(*(client.connect() for client in clients))
        await asyncio.sleep(warm)
        server, own = usage(session).cpu, time.process_time()
        start, self.measuring = time.perf_counter(), True
        await asyncio.sleep(seconds)
        self.measuring, self.going = False, False
        seconds, own = time.perf_counter() - start, time.process_time() - own
        server = usage(session).cpu - server
        await until(lambda: self.waiting == 0)
        for client in clients:
            client.leave()
        return {
            "seconds": seconds,
            "statuses": self.statuses,
            "latencies": self.latencies,
            "server_cpu": server,
            "client_cpu": own,
        }

    def count(self, status: int, seconds: float) -> None:
        """An answer came."""
        if self.measuring:
            self.statuses[status] += 1
            if status == 200:
                self.latencies.append(round(seconds * 1e6))


class Client:
    """One of the clients of a closed loop."""

    def __init__(self, load: ClosedLoop) -> None:
        self.load = load
        self.connection: Connection | None = None
        self.asked = 0.0
        self.task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect, and ask for the first time."""
        while self.load.going:
            try:
                self.connection = await self.load.place.connect()
            except OSError:
                self.load.count(LOST, 0.0)
                await asyncio.sleep(PAUSE)
            else:
                return self.ask(self.connection)

    def ask(self, connection: Connection) -> None:
        """Ask the next request."""
        self.load.waiting += 1
        self.asked = time.perf_counter()
        connection.ask(next(self.load.requests), self.answered)

    def answered(self, status: int) -> None:
        """Count it, and ask again."""
        self.load.waiting -= 1
        self.load.count(status, time.perf_counter() - self.asked)
        if not self.load.going or self.connection is None:
            return
        if self.connection.closing:
            self.task = asyncio.get_running_loop().create_task(self.connect())
        else:
            self.ask(self.connection)

    def leave(self) -> None:
        """Close the connection."""
        if self.connection is not None and not self.connection.closing:
            self.connection.transport.close()


async def until(reached: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something, at most so many seconds."""
    end = time.perf_counter() + seconds
    while not reached() and time.perf_counter() < end:
        await asyncio.sleep(0.005)


# ---- requests that come whatever became of those before --------------------------------------------------------------


class OpenLoop:
    """Requests at times of their own, over connections that are free or new.

    Attributes:
        records: (when it should have been sent after the start, status, microseconds from then on) of each request.
    """

    def __init__(self, place: Place, limit: int) -> None:
        self.place, self.limit = place, limit
        self.requests = place.rotated(0)
        self.records: list[tuple[int, int, int]] = []
        self.idle: list[Connection] = []
        self.open = self.waiting = 0
        self.start = 0.0
        self.going = True
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float) -> None:
        """Send `rate` requests a second in the mean; what is not answered then is still waited for by `rest`."""
        chance = random.Random(0)
        self.start = time.perf_counter()
        at = chance.expovariate(rate)
        for number in itertools.count():
            if at > seconds:
                break
            wait = self.start + at - time.perf_counter()
            if wait > 0.001 or number % 16 == 0:
                await asyncio.sleep(max(0.0, wait))
            self.arrive(min(at, time.perf_counter() - self.start))  # timers may be a millisecond early
            at += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, self.start + seconds - time.perf_counter()))
        self.going = False
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()

    async def rest(self) -> None:
        """Wait for the answers that are still to come."""
        await until(lambda: self.waiting == 0)

    def arrive(self, at: float) -> None:
        """One request."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.closing:
                self.waiting += 1
                return self.ask(connection, at)
        if self.open >= self.limit:
            return self.records.append((round(at * 1e6), UNSENT, 0))
        self.open += 1
        self.waiting += 1
        task = asyncio.get_running_loop().create_task(self.connect(at))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def connect(self, at: float) -> None:
        """The same over a new connection."""
        try:
            connection = await self.place.connect(self.ended)
        except OSError:
            self.ended()
            self.count(at, LOST)
        else:
            self.ask(connection, at)

    def ask(self, connection: Connection, at: float) -> None:
        """Send it."""

        def answered(status: int) -> None:
            self.count(at, status)
            if self.going and not connection.closing:
                self.idle.append(connection)
            elif not connection.closing:
                connection.transport.close()

        connection.ask(next(self.requests), answered)

    def count(self, at: float, status: int) -> None:
        """It was answered, or is lost."""
        self.waiting -= 1
        self.records.append((round(at * 1e6), status, round((time.perf_counter() - self.start - at) * 1e6)))

    def ended(self) -> None:
        """A connection is gone."""
        self.open -= 1


async def probe(place: Place, seconds: float) -> list[tuple[int, int, int]]:
    """What one client sees that asks one request again and again: (when, status, microseconds) each."""
    records: list[tuple[int, int, int]] = []
    start = time.perf_counter()
    connection: Connection | None = None
    while (sent := time.perf_counter()) < start + seconds:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            if connection is None or connection.closing:
                connection = await place.connect()
            connection.ask(place.requests[0], answer.set_result)
            status = await asyncio.wait_for(answer, PATIENCE)
        except (OSError, asyncio.TimeoutError):
            status, connection = LOST, None
        records.append((round((sent - start) * 1e6), status, round((time.perf_counter() - sent) * 1e6)))
        if status != 200:
            await asyncio.sleep(PAUSE)
    return records


# ---- the process -----------------------------------------------------------------------------------------------------


async def closed(job: dict[str, Any]) -> dict[str, Any]:
    """The mode `closed`: connections, warm, seconds, offset, session."""
    loop = ClosedLoop(place_of(job), job["connections"], job["offset"])
    return await loop.run(job["warm"], job["seconds"], job["session"])


async def overload(job: dict[str, Any]) -> dict[str, Any]:
    """The mode `overload`: quiet before it, an open loop of `rate` requests a second, and quiet after it."""
    place = place_of(job)
    one = Place(place.port, [place.requests[0]])
    before = await probe(one, job["before"])
    load = OpenLoop(place, job["limit"])
    times = [time.time()]
    await load.run(job["rate"], job["seconds"])
    times.append(time.time())
    after, _ = await asyncio.gather(probe(one, job["after"]), load.rest())
    return {"before": before, "records": load.records, "after": after, "times": times, "open": load.waiting}


def place_of(job: dict[str, Any]) -> Place:
    """The server of a job, asked one text a request."""
    texts = json.loads(Path(job["texts"]).read_text("utf-8"))
    return Place(job["port"], [post({"inputs": text}) for text in texts])


def run(work: Coroutine[Any, Any, Any], collect: bool = False) -> None:
    """Print the result, from the fastest event loop there is and with as many connections as the system allows.

    Args:
        work: what is awaited.
        collect: whether garbage is collected, which takes milliseconds at times.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not collect:
        gc.disable()
    try:
        import uvloop
    except ModuleNotFoundError:
        result = asyncio.run(work)
    else:
        result = uvloop.run(work)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    run({"closed": closed, "overload": overload}[asked["mode"]](asked))
