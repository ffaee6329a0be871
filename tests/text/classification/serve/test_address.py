"""Addresses: those that are taken, forbidden or unknown, how a server is reached, and who is warned."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from flash.core.errors import FlashError
from flash.text.classification.serve import ServeOptions, running, serve
from flash.text.classification.serve.address import announce, bind, listen, url_of

Ask = Callable[..., Any]


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


def test_a_port_that_is_taken_while_the_model_is_loaded() -> None:
    with bind("127.0.0.1", 0) as sock, bind("127.0.0.1", sock.getsockname()[1]) as other:
        other.listen()
        with pytest.raises(FlashError, match="is taken by another program"):
            listen(sock, "127.0.0.1")


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
