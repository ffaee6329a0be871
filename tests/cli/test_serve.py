import json
import subprocess
import sys
from argparse import ArgumentTypeError
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flash.__main__ import main
from flash.cli import announced, serve
from flash.cli.serve import build_parser, options_of, parse_size
from flash.core.errors import FlashError, MissingExtraError
from flash.text.classification.serve import ServeOptions, manager, running
from flash.text.classification.serve.options import LOG_LEVELS
from flash.text.classification.serve.served_model import ServedModel


def options(*words: str) -> ServeOptions:
    return options_of(build_parser().parse(["model.pt", *words]))


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASH_API_KEY", raising=False)


def test_without_options_they_are_the_usual_ones() -> None:
    assert options() == ServeOptions()


def test_every_option_of_a_server_is_one_of_the_command() -> None:
    words = ["--host", "::1", "--port", "0", "--workers", "2", "--output", "labels", "--precision", "32"]
    words += [
        "--thresholds",
        "toxic=0.3",
        "insult=0.5",
        "--trust-remote-code",
        "--log-texts",
        "--log-level",
        "debug",
    ]
    words += ["--api-key", "first-key", "--api_key", "second-key"]
    words += ["--allowed-hosts", "a.example", "b.example"]
    words += ["--cors-origin", "https://a.example", "--cors_origin", "https://b.example"]
    words += ["--max-body", "2MB", "--max-texts", "1", "--max-text-length", "2", "--max-connections", "3"]
    words += [
        "--max-waiting",
        "4",
        "--batch-tokens",
        "5",
        "--request-timeout",
        "6",
        "--receive-timeout",
        "7.5",
    ]
    words += ["--keep-alive", "8", "--grace", "9", "--max-delay", "0.5"]
    found = options(*words)
    assert found == ServeOptions(
        host="::1", port=0, workers=2, output="labels", thresholds={"toxic": 0.3, "insult": 0.5}, precision="32",
        trust_remote_code=True, api_keys=("first-key", "second-key"), allowed_hosts=("a.example", "b.example"),
        cors_origins=("https://a.example", "https://b.example"), max_body=2_000_000, max_texts=1, max_text_length=2,
        max_connections=3, max_waiting=4, batch_tokens=5, request_timeout=6.0, receive_timeout=7.5, keep_alive=8.0,
        grace=9.0, log_level="debug", log_texts=True, max_delay=0.5,
    )  # fmt: skip
    usual = ServeOptions()
    assert all(getattr(found, name) != getattr(usual, name) for name in vars(usual))


def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASH_API_KEY", " first-key, second-key ,,first-key")
    assert options().api_keys == ("first-key", "second-key")
    assert options("--api_key", "third-key").api_keys == ("third-key", "first-key", "second-key")


@pytest.mark.parametrize("words", [[], ["--api_key", "a-good-key"]])
def test_an_empty_key_is_not_no_key(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("FLASH_API_KEY", " , ")
    with pytest.raises(FlashError, match="an API key is empty"):
        options(*words)
    monkeypatch.delenv("FLASH_API_KEY")
    with pytest.raises(FlashError, match="an API key is empty"):
        options(*words, "--api_key", "")


@pytest.mark.parametrize(
    ("word", "size"),
    [
        ("500", 500),
        ("500kB", 500_000),
        ("2MB", 2_000_000),
        ("1.5 MiB", 1_572_864),
        ("1gib", 2**30),
        ("7B", 7),
    ],
)
def test_sizes(word: str, size: int) -> None:
    assert parse_size(word) == size


@pytest.mark.parametrize("word", ["", "MB", "2M", "-1", "2 XB", "1e6"])
def test_what_is_no_size(word: str) -> None:
    with pytest.raises(
        ArgumentTypeError, match="is no size; type bytes, or a number with kB, MB, KiB or MiB"
    ):
        parse_size(word)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--max-body", "2M"], "argument --max_body: '2M' is no size"),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
        (["--port", "70000"], "port is 70000; expected a number from 0 to 65,535"),
        (["--output", "scored"], "argument --output: invalid choice: 'scored'"),
        (["--workesr", "2"], "unknown option '--workesr'; did you mean '--workers'?"),
        (["--api-key", "short"], "an API key has 5 characters"),
        (
            ["--allowed-hosts", "a.example:80"],
            "allowed_hosts has 'a.example:80'; expected a host's name or address",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "model.pt", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"flash: error: {sentence}")
    assert shown.count("\n") == 1


def test_a_model_that_cannot_be_loaded_is_one_sentence_and_2(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pt").write_bytes(model.read_bytes()[:2_000])
    for path in (tmp_path / "bad.pt", tmp_path / "missing.pt"):
        assert main(["serve", str(path), "--port", "0"]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("flash: error: ")
        assert shown.count("\n") == 1


def test_a_port_that_is_taken_is_one_sentence_and_2(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(model) as url:
        port = url.rpartition(":")[2]
        for workers in ("1", "2"):
            assert main(["serve", str(model), "--port", port, "--workers", workers]) == 2
            shown = capsys.readouterr().err
            assert shown.startswith(
                f"flash: error: port {port} of 127.0.0.1 is taken by another program; stop that"
            )
            assert shown.count("\n") == 1


def test_a_package_that_is_missing_is_one_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def require(module: str, extra: str) -> None:
        raise MissingExtraError(f"{module} {extra}")

    monkeypatch.setattr(serve, "find_spec", lambda module: None)
    monkeypatch.setattr(serve, "require", require)
    assert main(["serve", str(model)]) == 2
    assert capsys.readouterr().err == "flash: error: httptools serve\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    out = capsys.readouterr().out
    for name in vars(ServeOptions()):
        assert f"--{name.removesuffix('s') if name in ('api_keys', 'cors_origins') else name}" in out
    assert "curl http://127.0.0.1:8000/v1/classify" in out
    assert all(level in out for level in LOG_LEVELS)


SERVED_AND_STOPPED = """
import json, signal, sys
from urllib.request import Request, urlopen
from flash.text.classification.serve import running

with running(sys.argv[1]) as url:
    body = json.dumps({"texts": ["a zebra"]}).encode()
    with urlopen(Request(url + "/v1/classify", body), timeout=20) as answer:
        print(answer.read().decode())
import flash.cli.serve, flash.text.classification.serve.worker  # which a worker has beside it
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_a_linear_model_is_served_without_torch(model: Path) -> None:
    command = [sys.executable, "-c", SERVED_AND_STOPPED, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    answer, modules = done.stdout.splitlines()
    assert json.loads(answer)["results"][0]["labels"] == ["animal"]
    loaded = set(modules.split())
    assert {"uvicorn", "numpy"} <= loaded
    assert not loaded & {"torch", "lightning", "pytorch_lightning", "transformers", "pandas", "fastapi"}


def test_the_user_is_told_of_a_compilation(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def manage(*arguments: Any) -> int:
        given.append(arguments)
        return 0

    monkeypatch.setattr(manager, "manage", manage)
    assert main(["serve", str(model)]) == 0
    seen: list[Any] = []

    def watched(predictor: Any) -> Any:
        seen.append(predictor)
        return nullcontext()

    assert given == [(str(model), ServeOptions(), announced)]
    made = ServedModel.load(model, ServeOptions(), watched=watched)
    assert (made.name, seen, len(made.labels)) == ("multi", [made.predictor], 3)
