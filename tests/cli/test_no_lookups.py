"""No command looks up a name on the network by itself, nor do the libraries that it uses.

A small library is loaded before every other into the command's processes; it notes each name that is looked up.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
    FILE *file = name ? fopen(getenv("LOOKUPS"), "a") : NULL;
    if (file) {
        fprintf(file, "%s\\n", name);
        fclose(file);
    }
    return ((lookup)dlsym(RTLD_NEXT, "getaddrinfo"))(name, port, hints, found);
}
"""
LOCAL = {"localhost", "127.0.0.1", "0.0.0.0", "::1"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, or a skip that says what it takes."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip(
            "a C compiler makes the library that notes look-ups: apt-get install gcc; and Linux loads it"
        )
    folder = tmp_path_factory.mktemp("library")
    (folder / "lookups.c").write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "lookups.c", "-o", "lookups.so", "-ldl"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "lookups.so"


@pytest.fixture
def watched(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Has all processes of the test watched, with a home of their own; tells the names looked up so far."""
    (tmp_path / "home").mkdir()
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOOKUPS", str(tmp_path / "names.txt"))
    monkeypatch.setenv("LD_PRELOAD", str(library))

    def names() -> set[str]:
        path = tmp_path / "names.txt"
        return set(path.read_text().split()) - LOCAL if path.exists() else set()

    return names


def run(*words: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flash", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_look_up_is_noticed(watched: Callable[[], set[str]]) -> None:
    script = "import socket\ntry:\n    socket.getaddrinfo('data.invalid', 80)\nexcept OSError:\n    pass"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert watched() == {"data.invalid"}


@pytest.mark.parametrize(
    "training", [pytest.param("watched", marks=pytest.mark.matrix), "in processes that are not watched"]
)
def test_no_command_looks_up_a_name(
    watched: Callable[[], set[str]], encoder: Path, served: Any, forked: Any, training: str, tmp_path: Path
) -> None:
    def prepare(*words: str) -> None:
        if training == "watched":
            run(*words, folder=tmp_path)
        else:
            assert forked(*words, folder=tmp_path).returncode == 0

    words = ["zebra", "banana", "hammer"]
    rows = [
        f"row {row} tells of {words[row % 3]},{int(row % 3 == 0)},{int(row % 3 == 1)}" for row in range(60)
    ]
    (tmp_path / "texts.csv").write_text("\n".join(["text,animal,fruit", *rows]))
    source = [
        "from_csv",
        "--input_field",
        "text",
        "--target_fields",
        "animal",
        "fruit",
        "--train_file",
        "texts.csv",
    ]
    options = ["--model.backbone", str(encoder), "--model.max_length", "12", "--trainer.accelerator", "cpu"]
    prepare("text_classification", "--output", "linear.pt", *source)
    prepare("text_classification", "--output", "encoder.pt", *options, *source)
    prepare("export", "encoder.pt", "--output", "exported")
    for model in ("linear.pt", "encoder.pt", "exported"):
        run(
            "predict",
            model,
            "--input",
            "texts.csv",
            "--input_field",
            "text",
            "--output",
            "out.csv",
            folder=tmp_path,
        )
        assert watched() == set(), f"predict {model}"
    server = served(tmp_path / "exported")
    request = urllib.request.Request(f"{server.url}/v1/classify", b'{"texts": ["a zebra"]}')
    with urllib.request.urlopen(request) as answer:
        assert len(json.load(answer)["results"]) == 1
    assert server.stop() == 0
    assert watched() == set()
    kept = [
        path
        for path in (tmp_path / "home").rglob("*")
        if "icrosoft" in str(path) or "onnxruntime" in path.name
    ]
    assert kept == []  # such as an identifier of this machine
    assert os.environ.get("ORT_DISABLE_TELEMETRY") is None  # which the commands set for themselves alone
