"""What tests of the server share: a small model's file, and a running server around it."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
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
def model_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear model that was trained on a title, which tells of animals, and a body, which tells of fruit."""
    folder = tmp_path_factory.mktemp("fields")
    words = [("zebra", "animal"), ("banana", "fruit")]
    texts = [
        [f"row {row} {words[0][0] if row & 1 else ''}", f"text {words[1][0] if row & 2 else ''} {row}"]
        for row in range(160)
    ]
    targets = [[label for bit, (_, label) in enumerate(words) if row >> bit & 1] for row in range(160)]
    data = TextClassificationData.from_lists(texts, targets, multi_label=True, input_field=["title", "body"])
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet)
    trainer.fit(TextClassifier(labels=data.labels, multi_label=True), datamodule=data)
    trainer.save_checkpoint(folder / "two.pt")
    return folder / "two.pt"


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
