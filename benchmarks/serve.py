"""`flash serve` beside LitServe and a plain FastAPI endpoint around the same predictor, under load from another process.

    python benchmarks/serve.py DATA_FOLDER [--models linear int8] [--seconds 10] [--rounds 3] [--concurrency 1 8 32 128]
    python benchmarks/serve.py DATA_FOLDER --overload
    python benchmarks/serve.py DATA_FOLDER --soak [MINUTES]
    python benchmarks/serve.py DATA_FOLDER --start

Two models: the embedded default on jigsaw's 6 labels, and MiniLM with goemotions' 28 as an export with weights of 8 bits.
They are made first, and kept for the next run with `--folder FOLDER`. How servers are started is in `serve_targets.py`,
the load in `serve_load.py`, and `serve_models.py` makes the models.

Every server is asked one text a request, `{"inputs": text}`, and answers every label with its probability, highest first;
the texts are comments of jigsaw and goemotions in random order, as many of each, the same in the same order for all. Each
is started as its user would, ours by `flash serve MODEL`; each writes its access log as it does by default, to a file.
LitServe batches, once with the settings that gave most requests a second at 32 clients here, and once with others that
answer a single client sooner (`serve_litserve.py`).

Counted: clients on loopback that ask again as soon as they are answered, for so many seconds after a warm-up. Only one
server runs at a time, in every round another comes first, and the numbers are medians of the rounds. CPU seconds are of
all processes of the server; the load's are told apart, as it takes them from the same machine. An error is any answer but
200. "The predictor alone" is `Predictor.predict` on the same texts, in blocks as `flash predict` has them, measured right
before and right after ours in every round, in a process that does nothing else.

- `--overload`: int8, four times the requests a second that 128 such clients get, at times of a Poisson process, for 60 s.
- `--soak`: int8, ten minutes of single texts and batches among broken, huge, slow and aborted requests.
- `--start`: from the start of the process to the first 200 of /ready, and which heavy packages it imported.

Linux alone. Needs the project with its extras `serve` and `test`, which has the encoder, and for the peers
`pip install litserve==0.2.19 fastapi uvloop httptools`. A peer whose package is missing says so in its line.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from linear import processor
from serve_faults import FIXED_TEXTS, overload, percentile, soak, start
from serve_models import TITLES, child, model_of
from serve_targets import HERE, TARGETS, Server, load, running

Numbers: TypeAlias = dict[str, float]

COLUMNS = {  # number: heading, format, whether its ratio to ours is shown
    "rate": ("requests/s", ",.1f", True),
    "p50": ("p50, ms", ",.2f", True),
    "p99": ("p99, ms", ",.2f", True),
    "cpu": ("CPU s/1,000", ",.2f", True),
    "client": ("load's CPU s/1,000", ",.2f", False),
    "errors": ("errors", ",.0f", False),
}
TEXTS = 4_096  # a block of flash predict
SHARE, TIMES = 0.85, 1.5  # aims: of the texts per second of the predictor alone; of its time for one text
TOLERANCE = 0.001
VERSIONS = (
    "uvicorn",
    "starlette",
    "fastapi",
    "litserve",
    "uvloop",
    "httptools",
    "pydantic",
    "onnxruntime",
    "numpy",
)


# ---- measuring -------------------------------------------------------------------------------------------------------


class Comparison:
    """One model behind every server.

    Attributes:
        found: the numbers of each round by target and concurrency.
        alone: what the predictor alone reached, before and after ours in each round.
        answers: its probabilities of the first texts by label.
        problems: what is wrong with a target, by its name.
    """

    def __init__(self, name: str, model: str, texts: Path, folder: Path, options: argparse.Namespace) -> None:
        self.name, self.model, self.texts, self.folder, self.options = name, model, texts, folder, options
        self.found: dict[tuple[str, int], list[Numbers]] = {}
        self.alone: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.answers: list[dict[str, float]] = []
        self.problems: dict[str, str] = {}

    def run(self) -> None:
        """Measure all rounds, in each another target first."""
        targets = list(self.options.targets)
        for number in range(self.options.rounds):
            offset = number * TEXTS // self.options.rounds
            shift = number % len(targets)
            for target in targets[shift:] + targets[:shift]:
                if target in self.problems:
                    continue
                before = self.measure_alone(offset) if target == "flash" or not self.answers else {}
                self.answers = self.answers or before["answers"]
                self.measure(target, number, offset)
                if target == "flash" and target not in self.problems:
                    self.alone.append((before, self.measure_alone(offset)))

    def measure_alone(self, offset: int) -> dict[str, Any]:
        """The predictor without a server."""
        found: dict[str, Any] = child("alone", self.model, str(self.texts), self.options.seconds, offset)
        return found

    def measure(self, target: str, number: int, offset: int) -> None:
        """One target in one round."""
        if missing := TARGETS[target].missing:
            self.problems[target] = f"not installed: pip install {' '.join(missing)}"
            return
        log = self.folder / f"{self.name} {target} {number}.log"
        try:
            with running(TARGETS[target], self.model, log) as server:
                self.check(server)
                for connections in self.options.concurrency:
                    numbers = closed_loop(server, self.texts, connections, offset, self.options)
                    self.found.setdefault((target, connections), []).append(numbers)
        except RuntimeError as error:
            self.problems[target] = f"failed: {error}"

    def check(self, server: Server) -> None:
        """Whether a server's answers are the predictor's.

        Raises:
            RuntimeError: they are not.
        """
        texts = json.loads(self.texts.read_text("utf-8"))
        for text, expected in zip(texts, self.answers, strict=False):
            status, body = server.ask(text)
            if status != 200:
                raise RuntimeError(f"it answers a text with {status}: {body[:200]!r}")
            found = {each["label"]: each["score"] for each in json.loads(body)}
            if found.keys() != expected.keys() or any(
                abs(found[label] - expected[label]) > TOLERANCE for label in found
            ):
                raise RuntimeError(f"it answers {found}, and the predictor {expected}")


def closed_loop(
    server: Server, texts: Path, connections: int, offset: int, options: argparse.Namespace
) -> Numbers:
    """What so many clients get."""
    found = load(
        "serve_load.py",
        mode="closed",
        port=server.port,
        texts=str(texts),
        connections=connections,
        offset=offset,
        warm=options.warm,
        seconds=options.seconds,
        session=server.session,
    )
    done = max(1, found["statuses"].get("200", 0))
    times = [microseconds / 1e3 for microseconds in found["latencies"]]
    return {
        "rate": done / found["seconds"],
        "p50": percentile(times, 0.5),
        "p99": percentile(times, 0.99),
        "cpu": found["server_cpu"] / done * 1e3,
        "client": found["client_cpu"] / done * 1e3,
        "errors": sum(count for status, count in found["statuses"].items() if status != "200"),
    }


def middle(rounds: Sequence[Numbers]) -> Numbers:
    """Medians of the rounds; of errors the sum."""
    numbers = {name: statistics.median(each[name] for each in rounds) for name in COLUMNS}
    return numbers | {"errors": sum(each["errors"] for each in rounds)}


# ---- tables ----------------------------------------------------------------------------------------------------------


def show(comparison: Comparison) -> None:
    """The table of a model, and what it says of the aims."""
    options, found = comparison.options, comparison.found
    print(f"\n### {TITLES[comparison.name]}\n")
    print(f"| | clients | {' | '.join(column[0] for column in COLUMNS.values())} |")
    print("|" + "---|" * (len(COLUMNS) + 2))
    for connections in options.concurrency:
        reference = middle(found["flash", connections]) if ("flash", connections) in found else None
        for target in options.targets:
            if rounds := found.get((target, connections)):
                print(line(TARGETS[target].title, connections, middle(rounds), reference))
    for target, problem in comparison.problems.items():
        print(f"| {TARGETS[target].title} | {problem} |{' |' * len(COLUMNS)}")
    if comparison.name == "int8" and comparison.alone and "flash" not in comparison.problems:
        beside_the_predictor(comparison)


def line(title: str, connections: int, numbers: Numbers, reference: Numbers | None) -> str:
    """One line, ratios to ours in brackets."""
    cells = []
    for name, (_, form, ratio) in COLUMNS.items():
        share = (
            f" ({numbers[name] / reference[name]:.3g}x)" if ratio and reference and reference[name] else ""
        )
        cells.append(f"{numbers[name]:{form}}{share}")
    return f"| {' | '.join([title, str(connections), *cells])} |"


def beside_the_predictor(comparison: Comparison) -> None:
    """How much of the predictor alone ours reaches; each round beside what was measured around it."""
    pairs, found = comparison.alone, comparison.found
    rates = [statistics.mean(each["rate"] for each in pair) for pair in pairs]
    singles = [statistics.mean(each["single"] for each in pair) for pair in pairs]
    told = "; ".join(f"{before['rate']:,.1f} and {after['rate']:,.1f}" for before, after in pairs)
    print(f"\nThe predictor alone, texts/s before and after ours in each round: {told}. Of that, ours:")
    for connections in comparison.options.concurrency:
        if rounds := found.get(("flash", connections)):
            shares = [numbers["rate"] / rate for numbers, rate in zip(rounds, rates, strict=True)]
            aim = f" (aim: {SHARE:.0%})" if connections >= 32 else ""
            print(f"{connections} clients: {statistics.median(shares):.1%}{aim}.")
    if rounds := found.get(("flash", 1)):
        times = [numbers["p50"] / single for numbers, single in zip(rounds, singles, strict=True)]
        print(
            f"One text: p50 {statistics.median(singles):.2f} ms alone, {middle(rounds)['p50']:.2f} ms from ours: "
            f"{statistics.median(times):.2f} times (aim: {TIMES:g})."
        )


# ---- the command line ------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """The options, defaults filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="DATA_FOLDER", type=Path)
    parser.add_argument("--models", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32, 128], metavar="CLIENTS")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: 10)")
    parser.add_argument("--warm", type=float, default=3.0, help="seconds before it (default: 3)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where models and logs are kept (default: nowhere)")
    parser.add_argument("--overload", action="store_true", help="in place of the comparison")
    parser.add_argument(
        "--overload_seconds", type=float, default=60.0, metavar="SECONDS", help="how long (default: 60)"
    )
    parser.add_argument("--soak", nargs="?", type=float, const=10.0, metavar="MINUTES", help="likewise")
    parser.add_argument("--start", action="store_true", help="likewise")
    return parser.parse_args()


def describe() -> str:
    """The head of the output."""
    revision = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    return (
        f"{time.strftime('%Y-%m-%d')}, commit {commit}, {processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}. Access logs: as each server writes them by default, to a file."
    )


def version(name: str) -> str:
    """Of a package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Print what was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and folders go with it
    options = parse()
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run(options, folder)


def run(options: argparse.Namespace, folder: Path) -> None:
    """All that was asked for, with files in `folder`."""
    beyond = options.overload or options.soak is not None
    names = [*options.models] if options.start or not beyond else []
    names += ["int8"] * (beyond and "int8" not in names)
    models = {name: model_of(name, options.source, folder) for name in names}
    texts = folder / "texts.json"
    child("texts", str(options.source), TEXTS, str(texts))
    if options.start:
        start({name: (TITLES[name], model) for name, model in models.items()}, folder)
    if options.overload:
        seconds = options.overload_seconds
        overload(TITLES["int8"], models["int8"], str(texts), folder, seconds, options.warm)
    if options.soak is not None:
        fixed = json.loads(texts.read_text("utf-8"))[:FIXED_TEXTS]
        soak(TITLES["int8"], models["int8"], str(texts), fixed, folder, options.soak)
    if not (options.start or beyond):
        for name, model in models.items():
            comparison = Comparison(name, model, texts, folder, options)
            comparison.run()
            show(comparison)


if __name__ == "__main__":
    main()
