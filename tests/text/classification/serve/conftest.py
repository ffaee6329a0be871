"""What tests of the server share: a small model's file, and a running server around it."""

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from flash import Trainer
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.serve import ServeOptions, running
from flash.text.classification.serve.served_model import ServedModel

WORDS = {"fruit": "banana", "animal": "zebra", "<b>tool</b>": "hammer"}  # a label may hold anything

Serving = Callable[..., AbstractContextManager[str]]


def make_model(folder: Path, *, multi_label: bool = True) -> Path:
    """The file of a linear model that learned what three words mean."""
    texts, targets = [], []
    for row in range(240):
        present = [label for bit, label in enumerate(WORDS) if row >> bit & 1]
        if multi_label or len(present) == 1:
            texts.append(
                f"row {row} tells of " + " and ".join([WORDS[label] for label in present] or ["nothing"])
            )
            targets.append(present if multi_label else present[0])
    data = TextClassificationData.from_lists(train_data=texts, train_targets=targets, labels=list(WORDS))
    model = TextClassifier(labels=data.labels, multi_label=multi_label)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet)
    trainer.finetune(model, datamodule=data)
    path = folder / "words.pt"
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear model of three labels, any number of which apply."""
    return make_model(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def single_label_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear model of three labels, one of which applies."""
    return make_model(tmp_path_factory.mktemp("served_single"), multi_label=False)


@pytest.fixture(scope="session")
def serving(model_file: Path) -> Serving:
    """A context manager that serves, and gives the URL: of `model_file` unless another model is given."""

    @contextmanager
    def serve(model: ServedModel | Path = model_file, **options: Any) -> Iterator[str]:
        with running(model, ServeOptions(**{"port": 0, "log_level": "error", **options})) as url:
            yield url

    return serve


@pytest.fixture(scope="module")
def url(serving: Serving) -> Iterator[str]:
    """A server with the default options."""
    with serving() as address:
        yield address


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Message
    content: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)


def ask_server(url: str, body: Any = None, *, method: str | None = None, **headers: str) -> Answer:
    """An answer, whatever its status; `body` is sent as JSON unless it is bytes, and header names have _ for -."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(url, data, {"Content-Type": "application/json", **named}, method=method)
    try:
        with urlopen(request, timeout=20) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


@pytest.fixture(scope="session")
def ask() -> Callable[..., Answer]:
    """`ask_server`."""
    return ask_server


class Served:
    """`flash serve` in a process of its own, at any free port.

    Attributes:
        lines: what it has written on standard error.
    """

    def __init__(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "flash", "serve", *map(str, words), "--port", "0"]
        variables = {**os.environ, **(environment or {})}
        self.process = Popen(command, stderr=PIPE, stdin=DEVNULL, text=True, env=variables)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines += iter(self.process.stderr.readline, "")

    def wait_for(self, part: str, times: int = 1) -> str:
        """The line that holds this, when it is there for so many times."""
        end = time.monotonic() + 60
        while len(found := [line for line in self.lines if part in line]) < times:
            assert time.monotonic() < end, f"no {part!r} in {self.lines}"
            assert self._reader.is_alive() or self.lines, "it ended without a word"
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

    def ended(self) -> int:
        """The exit code, once it and all processes that it started are over."""
        code = self.process.wait(60)
        self._reader.join(60)  # until nobody holds its standard error any more
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
