"""From the start of a server to its end: addresses, signals, what is in flight, and other models meanwhile."""

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import sys
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
from flash.text.classification.serve import ServeOptions, logs, running, serve, server
from flash.text.classification.serve.served_model import ServedModel
from flash.text.classification.serve.server import announce, bind, url_of

Ask = Callable[..., Any]
Start = Callable[..., Any]
BODY = b'{"texts": ["it tells of banana"]}'


class Upload:
    """A request that the server has begun to answer, and half of whose body is still to come."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.sock = socket.create_connection((address.hostname, address.port), timeout=60)
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n"
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
    first = process.lines[0]
    assert (
        first
        == f"flash: serving words (3 labels) at {url}; its API is described at {url}/docs; Ctrl-C stops it\n"
    )
    assert [line for line in process.lines if not line.startswith("{")] == [first]


def test_a_second_ctrl_c_ends_at_once(model_file: Path, served: Start) -> None:
    process = served(model_file, "--grace", "600")
    url = process.url
    upload = Upload(url)
    process.signal("SIGINT")
    until(lambda: refused(url))
    process.signal("SIGINT")
    assert process.ended() == 0
    assert upload.rest().startswith(b"HTTP/1.1 503 ")
    assert process.events("stopped before all was answered")[0]["cut"] == 1


def test_when_the_grace_is_over_the_rest_is_cut(model_file: Path, served: Start) -> None:
    process = served(model_file, "--grace", "0.3", "--log-level", "warning")
    upload = Upload(process.url)
    process.signal("SIGTERM")
    assert process.ended() == 0
    assert upload.rest().startswith(b"HTTP/1.1 503 ")
    (line,) = process.lines[1:]  # and no traceback
    assert json.loads(line)["cut"] == 1


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


def test_a_model_in_memory_cannot_be_loaded_again(
    model_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ServeOptions(port=0)
    model = ServedModel.of(Predictor.load(model_file), options)
    one = server.Server(model, options, bind("127.0.0.1", 0))

    def begun() -> None:
        one.hang_up()
        one.stop()

    thread = threading.Thread(target=one.run, args=(begun,))
    logs.configure("info")
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "given from memory" in capfd.readouterr().err


# ---- addresses ---------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_one_sentence(model_file: Path) -> None:
    with running(model_file) as url:
        port = urlsplit(url).port
        sentence = (
            f"port {port} of 127.0.0.1 is taken by another program; stop that, or choose another port: --port"
        )
        with pytest.raises(FlashError, match=sentence):
            serve(model_file, ServeOptions(port=port or 0))


def test_a_model_that_is_not_there_is_said_before_a_port_that_is_taken() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(FlashError, match=r"none\.pt does not exist"):
            serve("none.pt", ServeOptions(port=taken.getsockname()[1]))


def test_a_port_that_is_taken_while_the_model_is_loaded(model_file: Path) -> None:
    options = ServeOptions(port=0, log_level="error")
    model = ServedModel.load(model_file, options)
    with bind("127.0.0.1", 0) as sock:
        one = server.Server(model, options, sock)
        with bind("127.0.0.1", sock.getsockname()[1]) as other:
            other.listen()
            with pytest.raises(FlashError, match="is taken by another program"):
                one.run(lambda: None)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        (
            "x" * 300,
            "the host 'x+' is not known; expected an address of this machine: 127.0.0.1 for itself alone",
        ),
        ("192.0.2.1", "192.0.2.1 is no address of this machine; expected one of its own: --host 127.0.0.1"),
    ],
)
def test_a_host_that_cannot_be(host: str, sentence: str) -> None:
    with pytest.raises(FlashError, match=sentence):
        bind(host, 0)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (
            errno.EACCES,
            "port 80 of 127.0.0.1 is for administrators; choose one from 1024 on, such as --port 8000",
        ),
        (errno.ENOBUFS, f"port 80 of 127.0.0.1 cannot be listened at: {os.strerror(errno.ENOBUFS)}"),
    ],
)
def test_what_the_system_refuses(monkeypatch: pytest.MonkeyPatch, number: int, sentence: str) -> None:
    class Refusing(socket.socket):
        def bind(self, address: Any) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(FlashError, match=sentence):
        bind("127.0.0.1", 80)


def test_ipv6(model_file: Path, ask: Ask) -> None:
    try:
        bind("::1", 0).close()
    except FlashError:
        pytest.skip("this machine has no IPv6")
    with running(model_file, ServeOptions(host="::1", port=0, log_level="error")) as url:
        assert url.startswith("http://[::1]:")
        assert ask(f"{url}/ready").status == 200


def test_a_name_of_this_machine(model_file: Path, ask: Ask) -> None:
    with running(model_file, ServeOptions(host="localhost", port=0, log_level="error")) as url:
        assert ask(url.replace("127.0.0.1", "localhost") + "/ready").status == 200


def test_urls() -> None:
    assert url_of(("0.0.0.0", 8000)) == "http://127.0.0.1:8000"
    assert url_of(("::", 8000, 0, 0)) == "http://[::1]:8000"
    assert url_of(("192.0.2.1", 1)) == "http://192.0.2.1:1"


def test_who_lets_everybody_in_is_warned(capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.warns(UserWarning, match="may use the model, as no key is set; type --api_key KEY"):
            announce("words", 3, (host, 8000), ServeOptions())
        announce("words", 3, (host, 8000), ServeOptions(api_keys=("a-secret-key",)))
    announce("words", 1, ("127.0.0.1", 8000), ServeOptions(workers=2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(
        "flash: serving words (3 labels) at every address of this machine, such as http://127.0.0.1"
    )
    assert lines[-1] == (
        "flash: serving words (1 label) by 2 workers at http://127.0.0.1:8000; its API is described at "
        "http://127.0.0.1:8000/docs; Ctrl-C stops it"
    )


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
    monkeypatch.setattr(server, "announce", lambda *_: begun.set())

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
    before = [signal.getsignal(getattr(signal, name)) for name in server.SIGNALS]
    monkeypatch.setattr(server, "announce", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert serve(model_file, ServeOptions(port=0, log_level="error")) == 0
    assert [signal.getsignal(getattr(signal, name)) for name in server.SIGNALS] == before


def test_without_uvloop(model_file: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = server._new_loop()
    loop.close()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    with running(model_file) as url:
        for _ in range(3):
            assert ask(f"{url}/v1/classify", {"texts": ["it tells of banana"]}).json["results"][0][
                "labels"
            ] == ["fruit"]


def test_as_many_files_as_there_may_be_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked, told = [], []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_024, 4_096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    monkeypatch.setattr(logs, "event", lambda level, message, **fields: told.append(fields))
    for count in (500, 2_000, 5_000):
        server._allow_files(count)
    assert asked == [(2_000, 4_096), (4_096, 4_096)]
    assert told == [{"allowed": 4_096, "wanted": 5_000}]
    assert (soft, hard) != (0, 0)
