"""Workers under the manager: they share an address and a model, come back, load a model again, and end together."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.config import STARTUP_FAILURE

from flash.__main__ import main
from flash.core.errors import FlashError
from flash.text.classification import checkpoint
from flash.text.classification.checkpoint import digest
from flash.text.classification.predictor import Predictor
from flash.text.classification.serve import ServeOptions, logs, manager, serve, worker
from flash.text.classification.serve.manager import how_it_ended, manage
from flash.text.classification.serve.served_model import ServedModel
from flash.text.classification.serve.worker import Work

Ask = Callable[..., Any]
KEY = "a-secret-key"
TEXT = {"texts": ["it tells of banana"]}


def pids(process: Any, times: int) -> list[int]:
    """The workers' processes, in the order in which they were ready."""
    process.wait_for('"event":"worker ready"', times)
    return [int(event["pid"]) for event in process.events("worker ready")]


def children(pid: int) -> list[int]:
    """The workers that a manager has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue  # it has ended meanwhile
    return found


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what will be."""
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass within 60 s"
        time.sleep(0.05)
    return found


def replace(path: Path, source: Path) -> None:
    """Put another file in a file's place."""
    shutil.copyfile(source, path.with_name("new"))
    path.with_name("new").replace(path)


def test_the_life_of_two_workers(
    model_file: Path, single_label_file: Path, tmp_path: Path, served: Callable[..., Any], ask: Ask
) -> None:
    path, bad, temporary = tmp_path / "model.pt", tmp_path / "bad.pt", tmp_path / "temporary"
    temporary.mkdir()
    shutil.copyfile(model_file, path)
    bad.write_bytes(model_file.read_bytes()[:1_000])
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
    assert ended["pid"] == first[0]
    assert ended["reason"].startswith("was killed by SIGKILL, as the system does when memory is short")
    for _ in range(10):
        assert ask(f"{url}/v1/classify", TEXT, X_API_Key=KEY).status == 200

    # a bad file is refused by the worker that is asked, and no other hears of it
    replace(path, bad)
    answer = ask(f"{url}/admin/reload", b"", X_API_Key=KEY)
    assert answer.status == 409
    assert "is truncated at 1,000 bytes" in answer.json["error"]["message"]
    assert "goes on answering" in answer.json["error"]["message"]

    # a good one is loaded by all
    replace(path, single_label_file)
    answer = ask(f"{url}/admin/reload", b"", X_API_Key=KEY)
    assert answer.json["message"].endswith("; 1 more worker loads it now")
    process.wait_for('"event":"reload"', 2)
    assert len(process.events("reload refused")) == 1
    assert {ask(f"{url}/info", X_API_Key=KEY).json["multi_label"] for _ in range(10)} == {False}
    process.signal("SIGHUP")
    process.wait_for('"event":"reload"', 4)

    # one that comes back while the file is bad is tried again, and the other answers
    replace(path, bad)
    os.kill(first[1], signal.SIGKILL)
    process.wait_for('"event":"worker not started"')
    assert ask(f"{url}/v1/classify", TEXT, X_API_Key=KEY).status == 200
    assert process.stop() == 0
    assert list(temporary.iterdir()) == []


def test_a_worker_that_is_killed_before_it_is_ready_comes_back_and_all_end_with_their_manager(
    model_file: Path, served: Callable[..., Any], ask: Ask
) -> None:
    process = served(model_file, "--workers", "2")
    victim = until(lambda: children(process.process.pid))[0]
    os.kill(victim, signal.SIGKILL)
    url = process.url
    assert ask(f"{url}/v1/classify", TEXT).status == 200
    assert victim not in pids(process, 2)
    assert [event["pid"] for event in process.events("worker ended")] == [victim]
    process.signal("SIGKILL")
    assert process.ended() == -signal.SIGKILL  # which waits for all that hold its standard error


def test_closed_standard_streams_harm_nobody(model_file: Path, ask: Ask) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    words = [sys.executable, "-m", "flash", "serve", str(model_file), "--port", str(port)]
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: _answers(ask, f"http://127.0.0.1:{port}"))
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def _answers(ask: Ask, url: str) -> bool:
    try:
        return bool(ask(f"{url}/v1/classify", TEXT).status == 200)
    except OSError:
        return False


def test_a_model_that_cannot_be_loaded_ends_the_command_by_one_sentence_and_leaves_the_signals(
    model_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    assert main(["serve", str(model_file), "--port", "0", "--workers", "2", "--thresholds", "x=1"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("flash: error: unknown label 'x'")
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_a_model_in_memory_has_one_worker(model_file: Path) -> None:
    options = ServeOptions(port=0, workers=2)
    model = ServedModel.of(Predictor.load(model_file), options)
    with pytest.raises(
        FlashError, match=r"has one worker, and workers is 2; save it with .* flash serve model.pt --w"
    ):
        serve(model, options)


def test_an_output_that_other_processes_cannot_have(model_file: Path) -> None:
    with pytest.raises(FlashError, match="output cannot be given to other processes"):
        serve(model_file, ServeOptions(port=0, workers=2, output=lambda probabilities: probabilities))


def test_a_script_that_starts_again_in_its_workers_is_told_how_to_begin(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.current_process(), "name", "SpawnProcess-1")
        with pytest.raises(SystemExit) as ended:
            serve(model_file, ServeOptions(port=0, workers=2))
    assert ended.value.code == STARTUP_FAILURE
    assert (
        'a worker cannot have workers; call serve under: if __name__ == "__main__":'
        in capsys.readouterr().err
    )

    def run(self: manager.Manager) -> None:
        ended: Any = SimpleNamespace(exitcode=STARTUP_FAILURE)
        self.processes = [ended]

    monkeypatch.setattr(manager.Manager, "run", run)
    with pytest.raises(FlashError, match="a worker could not start; what it wrote above says why"):
        serve(model_file, ServeOptions(port=0, workers=2))


def test_workers_are_started_by_the_main_thread(model_file: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve, model_file, ServeOptions(port=0, workers=2))
        with pytest.raises(FlashError, match="workers can only be started from the program's main thread"):
            serving.result()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed by SIGKILL, as the system does when memory is short, and the manager after 120 s"),
        (-11, "was killed by SIGSEGV"),
        (-250, "ended with exit code -250"),
        (3, "ended with exit code 3"),
    ],
)
def test_how_a_worker_ended(code: int, words: str) -> None:
    assert how_it_ended(code).startswith(words)


def test_what_a_worker_is_given(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Work] = []

    class Recorder:
        def __init__(self, work: Work, heard: object) -> None:
            given.append(work)

        def serve(self) -> int:
            return 0

    monkeypatch.setattr(manager, "Manager", Recorder)
    monkeypatch.setattr("flash.text.classification.predictor.precision_for", lambda path: "bf16")
    for asked in ("auto", "32"):
        assert manage(model_file, ServeOptions(port=0, workers=2, precision=asked)) == 0
    assert manage(model_file, ServeOptions(host="127.0.0.2", port=0, api_keys=(KEY,))) == 0
    assert [work.options.precision for work in given] == [
        "bf16",
        "32",
        "auto",
    ]  # the parent decides for several
    assert given[0].options.allowed_hosts == ("127.0.0.1", "localhost", "::1")
    assert given[2].options.allowed_hosts == ()
    assert [work.counters is None for work in given] == [False, False, True]
    state = digest.state_of(model_file)  # whose checksum the workers need not compare again
    assert all(state in {checked for checked, _ in work.checked} for work in given)
    assert state in {checked for checked, _ in checkpoint.checked_files()}


def test_as_many_files_as_there_may_be_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked, told = [], []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_024, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    monkeypatch.setattr(logs, "event", lambda level, message, **fields: told.append(fields))
    for count in (500, 2_000, 5_000):
        worker.allow_files(count)
    assert asked == [(2_000, 4_096), (4_096, 4_096)]
    assert told == [{"allowed": 4_096, "wanted": 5_000}]
    assert (soft, hard) != (0, 0)
