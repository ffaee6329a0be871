"""Tables of `serve.py` beyond speed: overload, a soak among clients that do not behave, and the start of the process."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from serve_load import LOST, UNSENT
from serve_soak import ALLOWED, GOOD
from serve_targets import TARGETS, Sampler, Server, ask, load, running

Record: TypeAlias = list[int]  # microseconds from the start, status, microseconds

FACTOR, CONNECTIONS, LIMIT = 4, 128, 8_000  # times the capacity, of the closed loop before; of the open loop
QUIET, AFTER = 5.0, 15.0  # seconds
NORMAL, IN_A_ROW = 1.5, 10  # of the median before; requests
TIMEOUT = 30.0  # of a request, the default of flash serve
STARTS = 5
FIXED_TEXTS = 20
FORBIDDEN = ("torch", "lightning", "lightning_fabric", "pytorch_lightning", "transformers")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them is; NaN of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else float("nan")


def milliseconds(records: Sequence[Record]) -> list[float]:
    """How long each took."""
    return [record[2] / 1e3 for record in records]


# ---- overload --------------------------------------------------------------------------------------------------------


def overload(title: str, model: str, texts: str, folder: Path, seconds: float, warm: float) -> None:
    """Four times what the server can do, for so many seconds, whatever it answers."""
    with running(TARGETS["flash"], model, folder / "overload.log") as server:
        asked = {"port": server.port, "texts": texts, "session": server.session}
        closed = load(
            "serve_load.py", mode="closed", connections=CONNECTIONS, offset=0, warm=warm, seconds=10, **asked
        )
        capacity = closed["statuses"].get("200", 0) / closed["seconds"]
        with Sampler(server.session, 1.0) as sampler:
            job = {"rate": FACTOR * capacity, "seconds": seconds, "before": QUIET, "after": AFTER}
            found = load("serve_load.py", mode="overload", limit=LIMIT, **job, **asked)
    print(f"\n### {title}: {FACTOR} times the capacity for {seconds:g} s\n")
    print(
        f"The capacity is what {CONNECTIONS} clients get, each asking as soon as it is answered: {capacity:,.1f}/s.\n"
    )
    print("| outcome | requests | share | a second | p50, ms | p99, ms |\n|---|---|---|---|---|---|")
    records = found["records"]
    for status in sorted({record[1] for record in records}):
        chosen = [record for record in records if record[1] == status]
        times = milliseconds(chosen)
        share, rate = len(chosen) / len(records), len(chosen) / seconds
        ends = (
            f"{statistics.median(times):,.1f} | {percentile(times, 0.99):,.1f}" if status != UNSENT else " | "
        )
        print(f"| {outcome(status)} | {len(chosen):,} | {share:.1%} | {rate:,.1f} | {ends} |")
    slowest = percentile(milliseconds([record for record in records if record[1] == 200]), 0.99) / 1e3
    print(
        f"\nAnswered requests: p99 {slowest:.2f} s, where the timeout is {TIMEOUT:g} s. {memory(sampler, found)}"
    )
    before, back = statistics.median(milliseconds(found["before"])), recovery(found["before"], found["after"])
    words = f"not within {AFTER:g} s" if back is None else f"{back:.2f} s after the last request"
    print(f"One client alone: p50 {before:.2f} ms before; back below {NORMAL} times that {words}.")
    if found["open"]:
        print(f"Never answered: {found['open']:,}.")


def outcome(status: int) -> str:
    """What a table says of a status."""
    return {200: "200", LOST: "connection lost", UNSENT: f"not sent: {LIMIT:,} were open"}.get(
        status, str(status)
    )


def memory(sampler: Sampler, found: dict[str, Any]) -> str:
    """Resident memory in the course of it."""
    start, end = found["times"]
    values = [sampler.at(moment) for moment in (start, (start + end) / 2, end)]
    most = max(size for _, size in sampler.samples) / 2**20
    shown = ", ".join(
        f"{value:,.0f} {when}"
        for value, when in zip(values, ("at its start", "in the middle", "at its end"), strict=True)
    )
    return f"Resident MiB: {shown}; at most {most:,.0f}."


def recovery(before: Sequence[Record], after: Sequence[Record]) -> float | None:
    """Seconds until the first of ten answers in a row whose median is near that of before; None if there are none."""
    enough = NORMAL * statistics.median(milliseconds(before))
    for first in range(len(after) - IN_A_ROW + 1):
        row = after[first : first + IN_A_ROW]
        answered = all(record[1] == 200 for record in row)
        if answered and row[0][2] / 1e3 <= enough and statistics.median(milliseconds(row)) <= enough:
            return row[0][0] / 1e6
    return None


# ---- soak ------------------------------------------------------------------------------------------------------------


def soak(title: str, model: str, texts: str, fixed: Sequence[str], folder: Path, minutes: float) -> None:
    """Good, bad, huge, aborted and slow requests at once for so many minutes."""
    with running(TARGETS["flash"], model, folder / "soak.log") as server:
        before = answers(server, fixed)
        with Sampler(server.session, min(10.0, minutes * 6)) as sampler:
            found = load("serve_soak.py", port=server.port, texts=texts, seconds=minutes * 60)
        time.sleep(QUIET)  # what is still computed for those who left would share a batch
        same = answers(server, fixed) == before
        alive = server.process.poll() is None
    print(f"\n### {title}: {minutes:g} minutes of clients that behave and clients that do not\n")
    print("| client | outcomes | unexpected |\n|---|---|---|")
    wrong = 0
    for kind, each in found.items():
        outcomes = each["outcomes"]
        unexpected = sum(count for status, count in outcomes.items() if status not in ALLOWED[kind])
        wrong += unexpected
        shown = ", ".join(f"{status}: {count:,}" for status, count in sorted(outcomes.items()))
        print(f"| {kind} | {shown} | {unexpected:,} |")
    for kind in GOOD:
        times = [microseconds / 1e3 for microseconds in found[kind]["latencies"]]
        print(
            f"\n{kind}: p50 {percentile(times, 0.5):,.1f} ms, p99 {percentile(times, 0.99):,.1f} ms.", end=""
        )
    print(f"\n\nUnexpected in all: {wrong:,}. {level(sampler.samples, minutes)}")
    print(f"The answers to {len(fixed)} texts are {'the same' if same else 'NOT the same'} before and after.")
    if not alive:
        print("The server ENDED by itself.")


def answers(server: Server, texts: Sequence[str]) -> list[tuple[int, bytes]]:
    """The whole answers to some texts, one at a time."""
    return [server.ask(text) for text in texts]


def level(samples: Sequence[tuple[float, int]], minutes: float) -> str:
    """Resident memory after the first minute (of a short soak a tenth) and at the end, medians of as long a time."""
    first, last = samples[0][0], samples[-1][0]
    part = min(60.0, minutes * 6)
    sizes = [
        statistics.median(
            [size for moment, size in samples if start <= moment <= start + part] or [samples[-1][1]]
        )
        for start in (first + part, last - part)
    ]
    early, late = (size / 2**20 for size in sizes)
    return (
        f"Resident MiB: {samples[0][1] / 2**20:,.0f} at the start, {early:,.0f} after {part:g} s, {late:,.0f} at the "
        f"end ({late / early - 1:+.1%}; aim: within 5 %), {max(size for _, size in samples) / 2**20:,.0f} at most."
    )


# ---- start -----------------------------------------------------------------------------------------------------------


def start(models: dict[str, tuple[str, str]], folder: Path) -> None:
    """From the start of `flash serve` to its first 200 of /ready: of each (title, path) by name, against its aim."""
    print("\n### from nothing to /ready\n")
    print("| | CPU s | aim | wall, s | resident MiB | torch, lightning or transformers imported |")
    print("|---|---|---|---|---|---|")
    aims = {"linear": 1.0, "int8": 1.5}
    for name, (title, model) in models.items():
        servers = []
        for number in range(1 + STARTS):
            with running(TARGETS["flash"], model, folder / f"start {name} {number}.log") as server:
                servers.append(server)
        cpu, wall, resident = (
            statistics.median(getattr(server, what) for server in servers[1:])
            for what in ("cpu", "wall", "resident")
        )
        imported = imports(model, folder / f"imports {name}.log")
        print(
            f"| {title} | {cpu:.2f} | {aims[name]:g} | {wall:.2f} | {resident / 2**20:,.0f} | {imported} |",
            flush=True,
        )
    print(
        f"\nMedians of {STARTS} starts after one that is not counted; CPU is user and system, of all processes."
    )


def imports(model: str, log: Path) -> str:
    """Which of the heavy packages a server imports until it has answered a text; "none"."""
    with running(TARGETS["flash"], model, log, ("-X", "importtime")) as server:
        server.ask("What a lovely day")
        ask(server.port, "GET", "/info")
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    if "flash" not in names:
        return "unknown"
    return ", ".join(sorted(names.intersection(FORBIDDEN))) or "none"
