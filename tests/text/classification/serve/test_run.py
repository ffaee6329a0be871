"""From the start of a server to its end: addresses, signals, what is in flight, and other models meanwhile."""

import asyncio
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from flash.core.errors import CheckpointError, FlashError
from flash.text.classification.predictor import Predictor
from flash.text.classification.serve import ServeOptions, run, running, serve
from flash.text.classification.serve.served_model import ServedModel

Ask = Callable[..., Any]
Start = Callable[..., Any]
KEY = "a-secret-key"
BODY = b'{"texts": ["it tells of banana"]}'


class Upload:
    """A request that the server has begun to answer, and half of whose body is still to come."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.sock = socket.create_connection((address.hostname, address.port), timeout=60)
        head = f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self.sock.sendall(head.encode() + BODY[:9])
        assert self.sock.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"

    def finish(self) -> bytes:
        """Send the rest; what is answered until the connection is closed."""
        self.sock.sendall(BODY[9:])
        return self.rest()

    def rest(self) -> bytes:
        """What comes until the connection is closed."""
        with self.sock, self.sock.makefile("rb") as file:
            return file.read()


def refused(url: str) -> bool:
    """Whether nobody listens there."""
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False


def until(condition: Callable[[], bool]) -> None:
    """Wait for what will be."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within 20 s"
        time.sleep(0.02)


# ---- the end -----------------------------------------------------------------------------------------------------


def test_sigterm_answers_what_is_in_flight_and_nobody_else(model_file: Path, served: Start, ask: Ask) -> None:
    process = served(model_file)
    url = process.url
    upload = Upload(url)
    idle = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)
    process.signal("SIGTERM")
    until(lambda: refused(url))
    with idle:
        assert idle.recv(1) == b""  # it is told at once
    process.signal("SIGTERM")  # whoever is impatient changes nothing
    answer = upload.finish()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["results"][0]["labels"] == ["fruit"]
    assert process.ended() == 0
    assert [line for line in process.lines if not line.startswith("{")] == [
        f"flash: serving words (3 labels) at {url}; its API is described at {url}/docs; Ctrl-C stops it\n"
    ]


def test_a_second_ctrl_c_ends_at_once(model_file: Path, served: Start) -> None:
    process = served(model_file, "--grace", "600")
    url = process.url
    upload = Upload(url)
    process.ctrl_c()
    until(lambda: refused(url))
    process.ctrl_c()
    assert process.ended() == 0
    upload.sock.close()


def test_when_the_grace_is_over_the_rest_is_cut(model_file: Path, served: Start) -> None:
    process = served(model_file, "--grace", "0.3", "--log-level", "warning")
    upload = Upload(process.url)
    process.signal("SIGTERM")
    assert process.ended() == 0
    answer = upload.rest()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"the server is being stopped" in answer
    (line,) = process.lines[1:]  # and no traceback
    assert "Cancel 1 running task(s)" in json.loads(line)["event"]


# ---- another model -----------------------------------------------------------------------------------------------


def replace(path: Path, source: Path | bytes) -> None:
    """Put another file in a file's place."""
    new = path.with_name("new")
    if isinstance(source, bytes):
        new.write_bytes(source)
    else:
        shutil.copyfile(source, new)
    new.replace(path)


def test_sighup_exchanges_the_model_without_a_failed_request(
    model_file: Path, single_label_file: Path, tmp_path: Path, served: Start, ask: Ask
) -> None:
    path = tmp_path / "model.pt"
    shutil.copyfile(model_file, path)
    process = served(path)
    url, over = process.url, threading.Event()

    def load() -> set[tuple[int, int]]:
        connection, seen = HTTPConnection(urlsplit(url).netloc, timeout=60), set()
        while not over.is_set():
            connection.request("POST", "/v1/classify", BODY)
            answer = connection.getresponse()
            seen.add((answer.status, len(json.load(answer)["results"][0]["labels"])))
        connection.close()
        return seen

    with ThreadPoolExecutor(4) as pool:
        seen = [pool.submit(load) for _ in range(4)]
        try:
            replace(path, path.read_bytes()[:1_000])
            process.signal("SIGHUP")
            process.wait_for('"event":"reload refused"')
            assert ask(f"{url}/info").json["multi_label"] is True
            replace(path, single_label_file)
            process.signal("SIGHUP")
            process.wait_for('"event":"reload"')
            assert ask(f"{url}/info").json["multi_label"] is False
        finally:
            over.set()
        assert {one for future in seen for one in future.result()} == {(200, 1)}
    assert process.events("reload refused")[0]["reason"].endswith(
        "is truncated at 1,000 bytes; copy or save it again"
    )
    assert process.stop() == 0


def test_a_model_in_memory_cannot_be_loaded_again(model_file: Path, ask: Ask) -> None:
    options = ServeOptions(port=0, log_level="error", api_keys=(KEY,))
    with running(ServedModel.of(Predictor.load(model_file), options), options) as url:
        answer = ask(f"{url}/admin/reload", b"", X_API_Key=KEY)
        assert answer.status == 409
        assert "given from memory" in answer.json["error"]["message"]


def test_a_server_in_this_process_loads_its_file_again(
    model_file: Path, single_label_file: Path, tmp_path: Path, ask: Ask
) -> None:
    path = tmp_path / "model.pt"
    shutil.copyfile(model_file, path)
    with running(path, ServeOptions(port=0, log_level="error", api_keys=(KEY,))) as url:
        replace(path, single_label_file)
        answer = ask(f"{url}/admin/reload", b"", X_API_Key=KEY)
        assert answer.json["message"] == "model was loaded again and answers now, with 3 labels"
        assert ask(f"{url}/info", X_API_Key=KEY).json["multi_label"] is False


# ---- from Python -------------------------------------------------------------------------------------------------


def test_running_stops_at_the_end_of_its_block(model_file: Path, ask: Ask) -> None:
    with pytest.raises(KeyError), running(model_file) as url:  # noqa: PT012
        assert ask(f"{url}/v1/classify", {"texts": ["a"]}).status == 200
        raise KeyError
    assert refused(url)


def test_running_refuses_what_cannot_be(model_file: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(FlashError, match="workers is 2; in a thread there is one"),
        running(model_file, ServeOptions(workers=2)),
    ):
        pass
    with pytest.raises(FlashError, match="port is 65536"), running(model_file, ServeOptions(port=65_536)):
        pass
    with pytest.raises(CheckpointError), running(tmp_path / "missing.pt"):
        pass


def test_running_beside_an_event_loop(model_file: Path, ask: Ask) -> None:
    async def main() -> int:
        with running(model_file) as url:
            answer = await asyncio.to_thread(ask, f"{url}/ready")
            return int(answer.status)

    assert asyncio.run(main()) == 200


def test_serve_in_a_notebook_goes_on_until_it_is_interrupted(
    model_file: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options, begun = ServeOptions(port=0, log_level="error"), threading.Event()
    monkeypatch.setattr(run, "announce", lambda *_: begun.set())

    def interrupt() -> None:
        assert begun.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    async def cell() -> int:
        return serve(model_file, options)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert loop.run_until_complete(cell()) == 0
    finally:
        thread.join()
        loop.close()
        signal.signal(signal.SIGINT, before)


def test_serve_leaves_the_signals_as_they_were(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    monkeypatch.setattr(run, "announce", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert serve(model_file, ServeOptions(port=0, log_level="error")) == 0
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before
