"""The soak of `serve.py`: clients that behave and clients that do not, all at once, for as long as asked.

    python benchmarks/serve_soak.py '{"port": 8000, "texts": "texts.json", "seconds": 600}'

Prints JSON: of each kind of client how often each outcome was seen, a status or a word of its own.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_load import LOST, PATIENCE, ClosedLoop, Place, post, run
from serve_targets import HOST

CUT, GONE, REFUSED, SILENT = "cut off", "went away", "refused", "no answer"
CLIENTS, BATCH_CLIENTS, BATCH = 8, 2, 50
PIECE, PAUSE, HUGE = 2**16, 0.1, 8 * 2**20
TOO_MANY, TOO_LONG = 1_001, 100_001
SLOW_PAUSE, ABORT_SECONDS = 0.2, 0.02

Act = Callable[["Stranger"], Awaitable[str]]


@dataclass(frozen=True)
class Stranger:
    """What a client that does not behave knows.

    Attributes:
        port: of the server.
        texts: real ones.
        chance: where it chooses.
    """

    port: int
    texts: list[str]
    chance: random.Random

    async def send(self, *pieces: bytes, pause: float = 0.0) -> str:
        """Send these over a connection of its own until there is an answer: its status, or what happened instead."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return REFUSED
        sending = asyncio.create_task(send(writer, pieces, pause))
        try:
            return await asyncio.wait_for(status_of(reader), PATIENCE)
        except asyncio.TimeoutError:
            return SILENT
        finally:
            sending.cancel()
            writer.transport.abort()

    async def leave(self, data: bytes) -> str:
        """Send it, and go a moment later."""
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return REFUSED
        with suppress(OSError):
            writer.write(data)
            await asyncio.sleep(self.chance.uniform(0, ABORT_SECONDS))
        writer.transport.abort()
        return GONE

    def batch(self) -> bytes:
        """A good request of several texts."""
        return post({"inputs": self.chance.sample(self.texts, BATCH)})


async def send(writer: asyncio.StreamWriter, pieces: tuple[bytes, ...], pause: float) -> None:
    """Send pieces as fast as they are taken, or with a pause after each."""
    with suppress(OSError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)


async def status_of(reader: asyncio.StreamReader) -> str:
    """The status of an answer, or that there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return CUT
    return head[9:12].decode()


# ---- who does not behave ---------------------------------------------------------------------------------------------


def huge_body() -> tuple[bytes, ...]:
    """A body far above the limit, in pieces, after a head that says how long it is."""
    whole = post(b'{"inputs": "' + b"a" * HUGE + b'"}')
    return tuple(whole[first : first + PIECE] for first in range(0, len(whole), PIECE))


def endless_body() -> tuple[bytes, ...]:
    """The same in chunks, whose head says nothing of its length."""
    head = f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    chunk = b"%x\r\n" % PIECE + b"a" * PIECE + b"\r\n"
    return head.encode() + b"\r\n\r\n", *[chunk] * (HUGE // PIECE)


async def slow(client: Stranger) -> str:
    """A good request, whose body comes one byte at a time; slow heads are a proxy's to refuse."""
    head, _, body = post({"inputs": f"{client.texts[0]:100}"}).partition(b"\r\n\r\n")
    pieces = (body[place : place + 1] for place in range(len(body)))
    return await client.send(head + b"\r\n\r\n", *pieces, pause=SLOW_PAUSE)


HUGE_PIECES, ENDLESS_PIECES = huge_body(), endless_body()
STRANGERS: dict[str, tuple[Act, set[str]]] = {  # kind: what it does, and what may come of it
    "JSON that breaks off": (lambda client: client.send(post(b'{"inputs": "no end')), {"400", "422"}),
    "a number for a text": (lambda client: client.send(post({"inputs": 7})), {"400", "422"}),
    "bytes that are no UTF-8": (lambda client: client.send(post(b'{"inputs": "\xff\xfe"}')), {"400", "422"}),
    "too many texts": (lambda client: client.send(post({"inputs": ["a"] * TOO_MANY})), {"422"}),
    "a text too long": (lambda client: client.send(post({"inputs": "a" * TOO_LONG})), {"422"}),
    "8 MiB of a body": (lambda client: client.send(*HUGE_PIECES), {"413", CUT}),
    "8 MiB in chunks": (lambda client: client.send(*ENDLESS_PIECES), {"413", CUT}),
    "no such path": (lambda client: client.send(post({}, "/nothing")), {"404"}),
    "no HTTP": (lambda client: client.send(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"), {"400", CUT}),
    "gone in flight": (lambda client: client.leave(client.batch()), {GONE}),
    "gone while sending": (lambda client: client.leave(client.batch()[:2_000]), {GONE}),
    "one byte in 0.2 s": (slow, {"408", CUT}),
}
GOOD = {"one text": {"200", "503"}, f"{BATCH} texts": {"200", "503"}}
ALLOWED = GOOD | {kind: allowed for kind, (_, allowed) in STRANGERS.items()}


async def again(client: Stranger, act: Act, seconds: float) -> Counter[str]:
    """The outcomes of a client that does the same again and again; what is not over in time does not count."""
    outcomes: Counter[str] = Counter()

    async def work() -> None:
        while True:
            outcomes[await act(client)] += 1
            await asyncio.sleep(PAUSE)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(work(), seconds)
    return outcomes


async def behaved(place: Place, connections: int, seconds: float) -> dict[str, Any]:
    """The outcomes and latencies of clients that behave."""
    found = await ClosedLoop(place, connections).run(0.0, seconds)
    words = {status: CUT if status == LOST else str(status) for status in found["statuses"]}
    return {
        "outcomes": {words[status]: count for status, count in found["statuses"].items()},
        "latencies": found["latencies"],
    }


async def soak(job: dict[str, Any]) -> dict[str, Any]:
    """All of them at once: by kind, `outcomes`, and `latencies` of those that behave."""
    texts, seconds = json.loads(Path(job["texts"]).read_text("utf-8")), job["seconds"]
    batches = [texts[first : first + BATCH] for first in range(0, len(texts) - BATCH, BATCH)]
    good = [
        behaved(Place(job["port"], [post({"inputs": text}) for text in texts]), CLIENTS, seconds),
        behaved(Place(job["port"], [post({"inputs": batch}) for batch in batches]), BATCH_CLIENTS, seconds),
    ]
    strangers = [
        again(Stranger(job["port"], texts, random.Random(number)), act, seconds)
        for number, (act, _) in enumerate(STRANGERS.values())
    ]
    found, others = await asyncio.gather(asyncio.gather(*good), asyncio.gather(*strangers))
    return dict(zip(GOOD, found, strict=True)) | {
        kind: {"outcomes": outcomes} for kind, outcomes in zip(STRANGERS, others, strict=True)
    }


if __name__ == "__main__":
    run(soak(json.loads(sys.argv[1])), collect=True)
