"""Several workers: they share an address and a model, come back, and end together."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flash.core.errors import FlashError
from flash.text.classification import checkpoint
from flash.text.classification.checkpoint import digest
from flash.text.classification.predictor import Predictor
from flash.text.classification.serve import ServeOptions, serve, workers
from flash.text.classification.serve.served_model import ServedModel
from flash.text.classification.serve.server import bind
from flash.text.classification.serve.workers import Supervisor, Worker, _how_it_ended, _Reload

Ask = Callable[..., Any]
KEY = "a-secret-key"
TEXT = {"texts": ["it tells of banana"]}


def pids(process: Any, times: int) -> list[int]:
    """The workers' processes, in the order in which they were ready."""
    process.wait_for('"event":"worker ready"', times)
    return [int(event["pid"]) for event in process.events("worker ready")]


def asked_to_reload() -> tuple[Any, ...]:
    """What the supervisor says for a reload: with it, which files it has checked."""
    return "reload", checkpoint.checked_files()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what will be."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within 60 s"
        time.sleep(0.05)


def test_the_life_of_two_workers(
    model_file: Path, single_label_file: Path, tmp_path: Path, served: Callable[..., Any], ask: Ask
) -> None:
    path, temporary = tmp_path / "model.pt", tmp_path / "temporary"
    temporary.mkdir()
    shutil.copyfile(model_file, path)
    process = served(path, "--workers", "2", FLASH_API_KEY=KEY, TMPDIR=str(temporary))
    url = process.url
    assert "(3 labels) by 2 workers at http://" in process.wait_for("flash: serving ")
    first = pids(process, 2)

    # their numbers are added up
    for _ in range(20):
        assert ask(f"{url}/v1/classify", TEXT, X_API_Key=KEY).status == 200
    counted = 'flash_requests_total{method="POST",path="/v1/classify",status="200"} 20.0'
    until(lambda: counted in ask(f"{url}/metrics", X_API_Key=KEY).content.decode().splitlines())

    # one that is killed comes back
    os.kill(first[0], signal.SIGKILL)
    assert set(pids(process, 3)[:2]) == set(first)
    (ended,) = process.events("worker ended")
    assert (ended["pid"], ended["again_in_seconds"]) == (first[0], 0.0)
    assert ended["reason"].startswith("was killed by SIGKILL")
    for _ in range(10):
        assert ask(f"{url}/v1/classify", TEXT, X_API_Key=KEY).status == 200

    # a bad file is tried by one, and refused
    content = path.read_bytes()
    (tmp_path / "new").write_bytes(content[:1_000])
    (tmp_path / "new").replace(path)
    answer = ask(f"{url}/admin/reload", b"", X_API_Key=KEY)
    assert answer.status == 409
    assert "goes on answering" in answer.json["error"]["message"]
    assert len(process.events("reload refused")) == 1
    assert {ask(f"{url}/info", X_API_Key=KEY).json["multi_label"] for _ in range(10)} == {True}

    # a good one is loaded by all
    shutil.copyfile(single_label_file, tmp_path / "new")
    (tmp_path / "new").replace(path)
    answer = ask(f"{url}/admin/reload", b"", X_API_Key=KEY)
    assert answer.json["message"].endswith("; 2 of 2 workers have switched")
    assert {ask(f"{url}/info", X_API_Key=KEY).json["multi_label"] for _ in range(10)} == {False}
    process.signal("SIGHUP")
    process.wait_for('"event":"reload of all workers"', 2)
    assert len(process.events("reload")) == 4

    assert process.stop() == 0
    assert list(temporary.iterdir()) == []


def test_workers_end_when_their_supervisor_is_killed(
    model_file: Path, tmp_path: Path, served: Callable[..., Any], ask: Ask
) -> None:
    process = served(model_file, "--workers", "2", TMPDIR=str(tmp_path))
    url = process.url
    process.signal("SIGHUP")  # a terminal's, which is no end
    process.wait_for('"event":"reload of all workers"')
    assert ask(f"{url}/ready").status == 200
    process.signal("SIGKILL")
    assert process.ended() == -signal.SIGKILL  # which waits for all that hold its standard error
    assert len(process.events("the supervisor is gone; stopping")) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_loaded_is_one_sentence_and_2(
    tmp_path: Path, served: Callable[..., Any]
) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no model")
    process = served(tmp_path / "bad.pt", "--workers", "3")
    assert process.ended() == 2
    (line,) = process.lines
    assert line.startswith("flash: error: ")
    assert "bad.pt" in line


def test_a_model_in_memory_has_one_worker(model_file: Path) -> None:
    options = ServeOptions(port=0, workers=2)
    model = ServedModel.of(Predictor.load(model_file), options)
    with pytest.raises(
        FlashError, match=r"has one worker, and workers is 2; save it with .* flash serve model.pt --w"
    ):
        serve(model, options)


def test_an_output_that_other_processes_cannot_have(model_file: Path) -> None:
    with pytest.raises(FlashError, match="output cannot be given to 2 workers"):
        serve(model_file, ServeOptions(port=0, workers=2, output=lambda probabilities: probabilities))


# ---- the supervisor's parts --------------------------------------------------------------------------------------


class Talked(Worker):
    """A worker that keeps what it is told."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.heard: list[tuple[Any, ...]] = []

    def send(self, *message: Any) -> None:
        self.heard.append(message)


def test_a_reload_is_tried_by_one_before_the_others() -> None:
    one, two, three = (Talked(number) for number in range(1, 4))
    reload = _Reload([], [one, two, three])
    assert [worker.heard for worker in (one, two, three)] == [[asked_to_reload()], [], []]
    reload.hear(two, False, "nobody asked it")
    reload.hear(one, True, "loaded")
    assert [worker.heard for worker in (two, three)] == [[asked_to_reload()], [asked_to_reload()]]
    reload.hear(three, True, "loaded")
    assert reload.waiting == [two]
    reload.hear(two, True, "loaded")
    assert (reload.waiting, reload.outcome()) == ([], (True, "loaded; 3 of 3 workers have switched"))


def test_a_reload_that_fails_first_changes_nothing() -> None:
    one, two = Talked(1), Talked(2)
    reload = _Reload([], [one, two])
    reload.hear(one, False, "no model")
    assert (reload.waiting, reload.outcome(), two.heard) == ([], (False, "no model"), [])


def test_a_reload_that_fails_later_says_how_far_it_came() -> None:
    one, two = Talked(1), Talked(2)
    reload = _Reload([], [one, two])
    reload.hear(one, True, "loaded")
    reload.hear(two, False, "no memory")
    assert reload.outcome() == (False, "1 of 2 workers have switched, then: no memory")


def test_a_reload_without_workers() -> None:
    reload = _Reload([], [])
    assert reload.waiting == []
    assert reload.outcome() == (False, "no worker is there to load it; they are being started")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed by SIGKILL, as the system does when memory is short"),
        (-11, "was killed by SIGSEGV"),
        (-250, "ended with exit code -250"),
        (3, "ended with exit code 3"),
    ],
)
def test_how_a_worker_ended(code: int, words: str) -> None:
    assert _how_it_ended(code) == words


class Ended:
    """A process that is over as soon as it is started."""

    pid, sentinel = 1, 0

    def __init__(self, **_: Any) -> None:
        self.exitcode: int | None = None

    def start(self) -> None:
        self.exitcode = 1

    def join(self) -> None:
        """Nothing to wait for."""

    close = join


def test_a_worker_that_ends_again_and_again_is_started_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pauses = 1_000.0, list[float]()
    monkeypatch.setattr(workers, "monotonic", lambda: now)
    monkeypatch.setattr(workers, "wait", lambda ends, seconds: None)
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: type("Context", (), {"Process": Ended}))
    with bind("127.0.0.1", 0) as sock:
        supervisor = Supervisor("model.pt", ServeOptions(workers=1), sock, ServedModel.load, tmp_path)
        (worker,) = supervisor._workers
        supervisor._begun = True
        worker.due = now
        while len(pauses) < 12:
            before = worker.quick_ends
            supervisor._step()
            if worker.quick_ends > before:
                pauses.append(worker.due - now)
                now = worker.due
        assert pauses[:6] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
        assert pauses[-1] == 30.0
        supervisor._step()
        worker.ready, worker.started = True, now - 60  # it was well for a minute
        supervisor._step()
        assert (worker.due, worker.quick_ends) == (now, 0)


class Deaf(Ended):
    """A process that ends only when it is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.killed = False

    def kill(self) -> None:
        self.killed, self.exitcode = True, -9


@pytest.mark.parametrize(("at_once", "seconds"), [(False, 70), (True, 10)])
def test_a_worker_that_does_not_end_is_killed_and_sooner_after_a_second_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool, seconds: int
) -> None:
    now = 1_000

    def wait(ends: Any, timeout: float) -> None:
        nonlocal now
        now += 1

    monkeypatch.setattr(workers, "monotonic", lambda: now)
    monkeypatch.setattr(workers, "wait", wait)
    with bind("127.0.0.1", 0) as sock:
        options = ServeOptions(workers=1, grace=60.0)
        supervisor = Supervisor("model.pt", options, sock, ServedModel.load, tmp_path)
        supervisor._interrupt()
        if at_once:
            supervisor._interrupt()
        worker, process = Talked(1), Deaf()
        deaf: Any = process
        worker.process, worker.pipe = deaf, multiprocessing.Pipe()[0]
        worker.there = worker.ready = True
        supervisor._workers[:] = [worker]
        supervisor._stop()
    assert process.killed
    assert worker.heard == [("stop", False), ("stop", True)][: 1 + at_once]
    assert seconds <= now - 1_000 <= seconds + 2


def test_who_asks_for_a_reload_is_answered_and_who_starts_meanwhile_follows(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as sock:
        supervisor = Supervisor("model.pt", ServeOptions(workers=2), sock, ServedModel.load, tmp_path)
        one, two = Talked(1), Talked(2)
        supervisor._workers[:] = [one, two]
        one.ready = supervisor._begun = True
        supervisor._hear(one, "ask")
        supervisor._begin_reload()
        assert (one.heard, two.heard) == ([asked_to_reload()], [])
        supervisor._hear(one, "reloaded", True, "loaded")
        later = "1 of 2 workers have switched, and 1 will as soon as it has started"
        assert one.heard[1:] == [("answer", True, f"loaded; {later}")]
        process: Any = Ended()
        two.process, two.there = process, True
        supervisor._hear(two, "ready", "model", 3)
        assert two.heard == [asked_to_reload()]
        assert json.dumps(supervisor._asked) == "[]"


def test_the_parent_decides_the_precision_of_all_workers(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[ServeOptions] = []

    class Recorder:
        def __init__(self, path: Path, options: ServeOptions, *_: Any) -> None:
            given.append(options)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(workers, "Supervisor", Recorder)
    monkeypatch.setattr(workers, "precision_for", lambda path: "bf16")
    for asked in ("auto", "32"):
        options = ServeOptions(port=0, workers=2, precision=asked)
        assert workers.supervise(model_file, options, ServedModel.load) == 0
    assert [options.precision for options in given] == ["bf16", "32"]
    state = digest.state_of(model_file)  # whose checksum the workers need not compare again
    assert state in {checked for checked, _ in checkpoint.checked_files()}
