"""The checkpoint file: whole or absent, plain values only, and a sentence for every file that is not one."""

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flash.core.errors import CheckpointError
from flash.text.classification import checkpoint


def content(**state: Any) -> dict[str, Any]:
    return {"state_dict": state, "flash": {"format": checkpoint.FORMAT_VERSION, "version": "0.1.0"}}


def test_load_is_what_torch_reads_without_running_code(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(content(weight=torch.arange(6.0).reshape(2, 3)), path)
    by_torch = torch.load(path, weights_only=True)
    assert torch.equal(checkpoint.load(path)["state_dict"]["weight"], by_torch["state_dict"]["weight"])


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_]
)
def test_read_gives_the_same_numbers_without_torch(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "model.pt"
    expected: np.ndarray = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    tensor = torch.from_numpy(expected)
    saved = content(whole=tensor, transposed=tensor.T, row=tensor[1], empty=tensor[:0], scalar=tensor[2, 1])
    saved["state_dict"]["parameter"] = torch.nn.Parameter(tensor, requires_grad=False)
    checkpoint.save(saved, path)
    state = checkpoint.read(path)["state_dict"]
    for name, array in [
        ("whole", expected),
        ("transposed", expected.T),
        ("row", expected[1]),
        ("parameter", expected),
    ]:
        np.testing.assert_array_equal(state[name], array)
        assert state[name].dtype == dtype
    assert state["empty"].shape == (0, 4)
    assert state["scalar"] == expected[2, 1]
    assert not state["whole"].flags.writeable


@given(array=arrays(np.float32, array_shapes(min_dims=0, max_dims=4, min_side=0)))
def test_round_trip_of_any_shape(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("round") / "model.pt"
    checkpoint.save(content(weight=torch.from_numpy(array)), path)
    np.testing.assert_array_equal(checkpoint.read(path)["state_dict"]["weight"], array)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=plain)
def test_round_trip_of_plain_values(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("plain") / "model.pt"
    checkpoint.save({**content(), "value": value, "ordered": OrderedDict(a=1)}, path)
    assert checkpoint.read(path)["value"] == checkpoint.load(path)["value"] == value
    assert checkpoint.read(path)["ordered"] == OrderedDict(a=1)


def test_save_refuses_what_could_not_be_loaded_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("the model of yesterday")
    with pytest.raises(
        CheckpointError, match=r"checkpoint\['callbacks'\]\[0\], a pathlib\..*Path, cannot be kept"
    ):
        checkpoint.save({**content(), "callbacks": [Path("x")]}, path)
    assert path.read_text() == "the model of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_save_makes_the_folder_and_obeys_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "model.pt"
    checkpoint.save(content(), path)
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(CheckpointError, match=r"model\.pt cannot be written: .*; choose another folder"):
        checkpoint.save(content(), tmp_path / "runs" / "model.pt")


KILLED_WHILE_SAVING = """
import sys, torch
from flash.text.classification import checkpoint
weight = torch.zeros(20_000_000)
print("saving", flush=True)
while True:
    checkpoint.save({"state_dict": {"weight": weight}, "flash": {"format": 1, "version": "x"}}, sys.argv[1])
"""


def test_a_process_killed_while_saving_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(content(weight=torch.ones(3)), path)
    process = subprocess.Popen([sys.executable, "-c", KILLED_WHILE_SAVING, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("*.part")) and time.monotonic() < deadline:
            pass
        partial = list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert partial, "the process was not caught while it was saving"
    assert set(checkpoint.load(path)["state_dict"]) == {"weight"}


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for read in (checkpoint.load, checkpoint.read):
        with pytest.raises(
            CheckpointError, match="does not exist; expected the file that save_checkpoint wrote"
        ):
            read(tmp_path / "nothing.pt")
        with pytest.raises(CheckpointError, match="is a folder"):
            read(tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(content(weight=torch.zeros(1000)), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for read in (checkpoint.load, checkpoint.read):
        with pytest.raises(CheckpointError, match=r"is truncated at [\d,]+ bytes; copy or save it again"):
            read(path)


@pytest.mark.parametrize(
    "bytes_", [b"", b"id,text\n1,hello\n", b"PK", os.urandom(100)], ids=["empty", "csv", "pk", "noise"]
)
def test_foreign_file(tmp_path: Path, bytes_: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(bytes_)
    for read in (checkpoint.load, checkpoint.read):
        with pytest.raises(CheckpointError, match="is not a checkpoint of this library or is damaged"):
            read(path)


def test_a_zip_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    for read in (checkpoint.load, checkpoint.read):
        with pytest.raises(CheckpointError, match=r"model\.pt (holds more than|is not a checkpoint)"):
            read(path)


def test_anothers_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "epoch": 3}, path)
    for read in (checkpoint.load, checkpoint.read):
        with pytest.raises(
            CheckpointError, match=r"no checkpoint of this library \(it holds: state_dict, epoch\)"
        ):
            read(path)


def test_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "flash": {"format": 99, "version": "9.0"}}, path)
    for read in (checkpoint.load, checkpoint.read):
        with pytest.raises(
            CheckpointError, match=r"format 99, written by version 9\.0; .* install a newer one"
        ):
            read(path)


class Runs:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    path, evidence = tmp_path / "model.pt", tmp_path / "evidence"
    torch.save({**content(), "callbacks": Runs(evidence)}, path)
    for read in (checkpoint.load, checkpoint.read):
        with pytest.raises(
            CheckpointError, match="holds more than tensors and plain values, and was not run"
        ):
            read(path)
    assert not evidence.exists()


def test_a_tensor_that_reaches_beyond_its_storage(tmp_path: Path) -> None:
    path, forged = tmp_path / "model.pt", tmp_path / "forged.pt"
    checkpoint.save(content(weight=torch.zeros(7, 11)), path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        for member in old.namelist():
            # BININT1 77 (0x4d), the storage's size, and BININT1 7 and 11, the shape, are single bytes of the pickle.
            data = old.read(member)
            new.writestr(
                member, data.replace(b"K\x07K\x0b", b"K\x47K\x4b") if member.endswith("data.pkl") else data
            )
    forged.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="reaches beyond its storage"):
        checkpoint.read(forged)
