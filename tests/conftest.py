"""What every test shares: a fixed seed, the genuine data where a machine has it, and the server as a process."""

import json
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen
from typing import Any

import numpy as np
import pytest
from forked import Forked

REPOSITORY = Path(__file__).parent.parent

# Several workers share the processors: PyTorch's threads of one would wait for those of another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Each test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # third-party code under test may use the global state


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of genuine data sets, or a skip that says how to have it."""
    folder = Path(os.environ.get("FLASH_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no genuine data at {folder}; set FLASH_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture
def start_forked(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Forked]:
    """Starts a command line of `flash`, or a script, in a process that need not import torch and Lightning anew."""

    def start(*words: str | Path, folder: Path, environment: Mapping[str, str] | None = None) -> Forked:
        streams = tmp_path_factory.mktemp("streams")
        return Forked(*words, folder=folder, streams=streams, environment=environment)

    return start


@pytest.fixture
def forked(start_forked: Callable[..., Forked]) -> Callable[..., "CompletedProcess[str]"]:
    """Runs such a process to its end."""
    return lambda *words, **options: start_forked(*words, **options).wait()


@pytest.fixture
def forked_ranks(start_forked: Callable[..., Forked]) -> Callable[..., "list[CompletedProcess[str]]"]:
    """Runs two of them, which are the ranks of a group: the environment says so, as under torchrun."""

    def run(*words: str | Path, folder: Path) -> "list[CompletedProcess[str]]":
        with socket.create_server(("127.0.0.1", 0)) as free:
            group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        started = [
            start_forked(
                *words,
                folder=folder,
                environment={**group, "NODE_RANK": "0", "LOCAL_RANK": rank, "RANK": rank},
            )
            for rank in ("0", "1")
        ]
        return [process.wait() for process in started]

    return run


class Served:
    """`flash serve` in a process of its own, at any free port.

    Attributes:
        lines: what it has written on standard error.
    """

    def __init__(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "flash", "serve", *map(str, words), "--port", "0"]
        variables = {**os.environ, **(environment or {})}
        self.process = Popen(
            command, stderr=PIPE, stdin=DEVNULL, text=True, env=variables, start_new_session=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines += iter(self.process.stderr.readline, "")

    def wait_for(self, part: str, times: int = 1) -> str:
        """The line that holds this, when it is there for so many times."""
        end = time.monotonic() + 600  # a machine may be busy with much else
        while len(found := [line for line in self.lines if part in line]) < times:
            assert time.monotonic() < end, f"no {part!r} in {self.lines}"
            assert self._reader.is_alive(), f"it ended with {self.lines}"
            time.sleep(0.02)
        return found[-1]

    @property
    def url(self) -> str:
        """Where it answers."""
        found = re.search(r"http://\S+:\d+", self.wait_for("flash: serving "))
        assert found is not None
        return found[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of this name."""
        lines = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def signal(self, name: str) -> None:
        """Send a signal."""
        self.process.send_signal(getattr(signal, name))

    def ctrl_c(self) -> None:
        """What a terminal does: send SIGINT to it and to all processes that it started."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> int:
        """The exit code, once it and all processes that it started are over."""
        code = self.process.wait(120)
        self._reader.join(120)  # until nobody holds its standard error any more
        assert not self._reader.is_alive(), "a process of it goes on"
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal("SIGTERM")
        return self.ended()


@pytest.fixture
def served() -> Iterator[Callable[..., Served]]:
    """Starts `flash serve` in a process of its own; what a test leaves behind is killed."""
    started: list[Served] = []

    def start(*words: str | Path, **environment: str) -> Served:
        started.append(Served(*words, environment=environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.ended()


@pytest.fixture(scope="session")
def as_if_trained() -> Callable[[Any], Any]:
    """Gives a classifier that has learnt nothing another bias, or its head other weights where it has none."""
    import torch

    def change(model: Any) -> Any:
        backbone = model.backbone
        if backbone.fitted:
            return model
        if backbone.name == "linear":
            arrays = backbone.linear.arrays()
            backbone.linear.load_arrays({**arrays, "bias": arrays["bias"] + np.float32(0.0625)})
            backbone.show_arrays()
            return model
        head = backbone.encoder.head
        with torch.no_grad():
            (head.weight if head.bias is None else head.bias).add_(0.0625)
        return model

    return change
