"""Where an encoder comes from: a folder, the hub (a small one, made here) or its cache, or a sentence on why not."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flash.text.classification.backbones.encoder.hub import find_files, hub_failure

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")


def test_a_folder_that_is_not_there_is_refused(refusal: Any, tmp_path: Path) -> None:
    for name in (
        tmp_path / "nothing",
        str(tmp_path / "nothing"),
        "./nothing",
        "~/nothing",
        "a/b/c",
        "",
        "a b",
    ):
        assert f"there is no folder {str(name)!r}, and it is no hub id either" in refusal(name)
    file = tmp_path / "model.pt"
    file.write_bytes(b"")
    assert "is a file; give the folder that holds it" in refusal(file)


def test_a_folder_has_no_revision(make_folder: Any, refusal: Any, tmp_path: Path) -> None:
    text = refusal(make_folder(tmp_path), revision="v2")
    assert text == f"backbone '{tmp_path}' is a folder, which has no revision 'v2'; leave revision out"


# The hub


SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER_SHA = SHA[::-1]  # of the revision v2
REFUSED = {
    "some/gated": (403, "GatedRepo"),
    "some/gated401": (401, "GatedRepo"),
    "some/forbidden": (403, ""),
    "some/broken": (503, ""),
    "some/private": (401, ""),
}


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that a download needs: some/tiny is there, and others say no."""

    tiny: Path
    second: Path
    old: Path
    asked: list[tuple[str, str | None]]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        self.asked.append((path, self.headers.get("Authorization")))
        self.folder = self.old if path.startswith("some/old") else self.tiny
        name, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        commit = OTHER_SHA if rest[1:2] in (["v2"], [OTHER_SHA]) else SHA
        if commit == OTHER_SHA:
            self.folder = self.second
        if path == "stop":
            threading.Thread(target=self.server.shutdown).start()
            self.server.server_close()  # else the system still takes connections
            self.answer(b"")  # only now: who hears it may ask again at once
        elif name in REFUSED and (rest[0] != "revision" or REFUSED[name][1] != "GatedRepo"):
            status, code = REFUSED[name]
            self.answer(b"", status, {"X-Error-Code": code} if code else {})
        elif name not in ("some/tiny", "some/old", "some/gated", "some/gated401"):
            self.answer(b"", 404, {"X-Error-Code": "RepoNotFound"})
        elif rest[0] == "revision" and rest[1] not in ("main", "v2"):
            self.answer(b"", 404, {"X-Error-Code": "RevisionNotFound"})
        elif rest[0] == "revision":
            self.answer(json.dumps({"id": name, "sha": commit, "siblings": []}).encode())
        elif rest[0] == "tree":
            files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
            listed = [
                {
                    "type": "file",
                    "path": path.relative_to(self.folder).as_posix(),
                    "size": path.stat().st_size,
                    "oid": self.identity(path),
                }
                for path in files
            ]
            self.answer(json.dumps(listed).encode())
        else:
            file = self.folder.joinpath(*rest[2:])
            self.answer(
                file.read_bytes(), headers={"ETag": f'"{self.identity(file)}"', "X-Repo-Commit": commit}
            )

    def identity(self, file: Path) -> str:
        path = file.relative_to(self.folder.parent).as_posix()
        return path.replace("/", "-")  # the name under which it is cached

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(make_folder: Any, add_sentence_files: Any, tmp_path: Path) -> Iterator[tuple[str, type[Hub]]]:
    folder = add_sentence_files(make_folder(tmp_path / "files"), {"pooling_mode": "max"})
    old = tmp_path / "old"
    old.mkdir()
    for file in ("config.json", "pytorch_model.bin", "tf_model.h5", "vocab.txt"):
        (old / file).write_text(file)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"large")
    second = add_sentence_files(make_folder(tmp_path / "second", "distilbert"), {"pooling_mode": "cls"})
    handler = type("TinyHub", (Hub,), {"tiny": folder, "second": second, "old": old, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
        server.shutdown()
        thread.join()


# The hub's address and offline mode are read when huggingface_hub is imported: a process of its own for each
RUN = """
import json, sys, urllib.request
from flash.core.errors import FlashError
from flash.text.classification.backbones.encoder.hub import find_files
said = {}
for line in sys.argv[1:]:
    name, revision, kind = line.split(":")
    try:
        if kind == "stop":
            urllib.request.urlopen(name.replace("!", ":")).read()
        elif kind == "find":
            said[line] = str(find_files(name, revision or None, False))
        else:
            from flash.text.classification.backbones.encoder.model import Encoder, EncoderConfig
            encoder = Encoder.from_pretrained(name, ["x", "y"], EncoderConfig(revision=revision or None))
            said[line] = f"{type(encoder.model).__name__}: {encoder.note}"
    except FlashError as error:
        said[line] = str(error)
print(json.dumps(said))
"""


def in_a_process(cache: Path, endpoint: str, *lines: str, **environment: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *lines],
        env={**inherited, **settings, "no_proxy": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def test_the_hub_gives_an_encoder_or_one_sentence(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    endpoint, handler = hub
    lines = [
        "some/tiny::load",
        "some/tiny:v2:load",
        "some/old::find",
        "some/nothing::find",
        "some/tiny:v9:find",
        *(f"{name}::find" for name in REFUSED),
        f"{endpoint.replace(':', '!')}/stop::stop",
        "some/other::find",
        "some/tiny::find",
    ]
    said = in_a_process(tmp_path / "cache", endpoint, *lines, HF_TOKEN="hf_secret")
    new_head = "'some/tiny' gets a new head, with {} pooling: it names no labels of its own"
    assert said["some/tiny::load"] == f"BertModel: {new_head.format('max')}"
    assert said["some/tiny:v2:load"] == f"DistilBertModel: {new_head.format('cls')}"
    asked = [path for path, _ in handler.asked]
    for commit in (SHA, OTHER_SHA):
        assert f"some/tiny/resolve/{commit}/model.safetensors" in asked
    assert not any("onnx" in path for path in asked)
    assert {token for path, token in handler.asked if path.startswith("some/")} == {"Bearer hf_secret"}
    found = sorted(path.name for path in Path(said["some/old::find"]).iterdir())
    assert found == ["config.json", "pytorch_model.bin", "vocab.txt"]
    assert said["some/nothing::find"] == (
        f"the hub {endpoint} shows no model 'some/nothing', and there is no folder of that name here; check the "
        "spelling, or, if the model is private, set HF_TOKEN or type: hf auth login"
    )
    assert "shows no model 'some/private'" in said["some/private::find"]
    assert (
        f"the hub's 'some/tiny' has no revision 'v9'; its branches and tags are listed on {endpoint}/some/tiny"
        == (said["some/tiny:v9:find"])
    )
    for name in ("some/gated", "some/gated401"):
        assert (
            f"the hub does not give '{name}' to you, since access to it is on request; ask for it on {endpoint}"
            in (said[f"{name}::find"])
        )
        assert "set HF_TOKEN to a token of your account or type: hf auth login" in said[f"{name}::find"]
    assert "the hub refuses 'some/forbidden' to the token in use (403)" in said["some/forbidden::find"]
    assert f"the hub {endpoint} answered 503 for 'some/broken'; try again later" in said["some/broken::find"]
    assert (
        f"the hub {endpoint} cannot be reached for 'some/other', which its cache does not hold ("
        in (said["some/other::find"])
    )
    assert said["some/other::find"].endswith("check the network, or give a folder")
    assert said["some/tiny::find"].endswith(SHA)  # unreachable, but cached
    said = in_a_process(
        tmp_path / "cache",
        endpoint,
        "some/tiny::find",
        "some/other::find",
        "some/tiny:v2:find",
        "some/tiny:v9:find",
        HF_HUB_OFFLINE="1",
    )
    assert said["some/tiny::find"].endswith(SHA)
    assert said["some/tiny:v2:find"].endswith(OTHER_SHA)
    assert "'some/other' is not, or not whole, in the hub's cache" in said["some/other::find"]
    assert "offline mode is on; unset HF_HUB_OFFLINE, or give a folder" in said["some/other::find"]
    assert "'some/tiny' at revision 'v9' is not" in said["some/tiny:v9:find"]


def test_what_transformers_alone_has_cached_is_enough(
    make_folder: Any, message: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import IncompleteSnapshotError

    def incomplete(*args: Any, **options: Any) -> str:
        raise IncompleteSnapshotError("modules.json was never asked for", str(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", incomplete)
    assert "'some/tiny', which its cache does not hold" in message(
        lambda: find_files("some/tiny", None, False)
    )
    make_folder(tmp_path)
    assert find_files("some/tiny", None, False) == tmp_path


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    error = OSError(28, "No space left on device", str(tmp_path / "blob"))
    text = hub_failure("some/tiny", None, error)
    assert text == (
        f"'some/tiny' cannot be kept in the hub's cache: {tmp_path / 'blob'}: No space left on device; free space or "
        "set HF_HOME"
    )
