"""The checkpoint file: whole or absent, plain values only, and read alike with torch and without."""

import re
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
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
from flash.text.classification.plain_pickle import ForeignTensor

READERS = (checkpoint.load, checkpoint.read)


def test_load_is_what_torch_reads_without_running_code(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.arange(6.0).reshape(2, 3)), path)
    by_torch = torch.load(path, weights_only=True)
    assert torch.equal(checkpoint.load(path)["state_dict"]["weight"], by_torch["state_dict"]["weight"])


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_]
)
def test_read_gives_the_same_numbers_without_torch(make_content: Any, tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "model.pt"
    expected: np.ndarray = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    tensor = torch.from_numpy(expected)
    saved = make_content(
        whole=tensor, transposed=tensor.T, row=tensor[1], empty=tensor[:0], scalar=tensor[2, 1]
    )
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
def test_round_trip_of_any_shape(
    make_content: Any, tmp_path_factory: pytest.TempPathFactory, array: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("round") / "model.pt"
    checkpoint.save(make_content(weight=torch.from_numpy(array)), path)
    np.testing.assert_array_equal(checkpoint.read(path)["state_dict"]["weight"], array)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**checkpoint.MOST_INTEGER_BITS) + 1, 2**checkpoint.MOST_INTEGER_BITS - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
)
TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).T,
    "parameter": lambda: torch.nn.Parameter(torch.ones(2, 2)),
    "number": lambda: torch.tensor(7),
    "expanded": lambda: torch.ones(1).expand(1000),
    "empty": lambda: torch.zeros(0, 3),
    "any stride": lambda: torch.ones(4).as_strided((1, 2), (2**62, 2)),
    "imaginary part": lambda: torch.tensor([1 + 2j]).conj().imag,
    "conjugate": lambda: torch.tensor([1 + 2j]).conj(),
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16),
    "uint16": lambda: torch.ones(2, dtype=torch.uint16),
    "40 dimensions": lambda: torch.ones((1,) * 40),
}
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(scalars | st.tuples(scalars, scalars), inner)
        | st.dictionaries(st.text(), inner).map(OrderedDict)
    ),
    max_leaves=20,
)


@given(value=plain)
def test_round_trip_of_plain_values(
    make_content: Any, tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("plain") / "model.pt"
    checkpoint.save({**make_content(), "value": value}, path)
    assert checkpoint.read(path)["value"] == checkpoint.load(path)["value"] == value


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_both_readers_take_every_tensor_that_save_takes(
    make_content: Any, tmp_path: Path, make: Callable[[], Any]
) -> None:
    path, tensor = tmp_path / "model.pt", make()
    checkpoint.save({**make_content(), "optimizer_states": [{"momentum": tensor}]}, path)
    by_torch = checkpoint.load(path)["optimizer_states"][0]["momentum"]
    by_numpy = checkpoint.read(path)["optimizer_states"][0]["momentum"]
    assert torch.equal(by_torch, tensor.detach())
    assert type(by_torch) is torch.Tensor
    assert tuple(by_numpy.shape) == tuple(tensor.shape)
    if isinstance(by_numpy, ForeignTensor):
        assert by_numpy.dtype.startswith("torch.")
    else:
        np.testing.assert_array_equal(by_numpy, tensor.detach().resolve_neg().numpy())


def test_attributes_of_tensors_are_left_out_and_those_of_ordered_dicts_stay(
    make_content: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    weight = torch.nn.Parameter(torch.ones(2))
    weight.register_hook(lambda gradient: gradient)  # type: ignore[no-untyped-call]
    weight.note = Path("x")  # type: ignore[attr-defined]
    state = torch.nn.BatchNorm1d(2).state_dict()
    checkpoint.save({**make_content(weight=weight), "other": state}, path)
    assert not checkpoint.load(path)["state_dict"]["weight"].requires_grad
    assert checkpoint.load(path)["other"]._metadata[""]["version"] == 2
    assert list(checkpoint.read(path)["other"]) == list(state)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for read in READERS:
        with pytest.raises(
            CheckpointError, match="does not exist; expected the file that save_checkpoint wrote"
        ):
            read(tmp_path / "nothing.pt")
        with pytest.raises(CheckpointError, match="is a folder"):
            read(tmp_path)


@pytest.mark.parametrize("protocol", [3, 4])
def test_another_version_of_pickle_inside(
    make_content: Any, refusals: Any, tmp_path: Path, protocol: int
) -> None:
    path = tmp_path / "model.pt"
    torch.save(make_content(), path, pickle_protocol=protocol)
    assert "was not run: it uses version" in refusals(path)


def test_a_file_that_may_not_be_read(
    make_content: Any, refusals: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "model.pt"
    checkpoint.save(make_content(), path)
    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in containers, may read everything
    assert "model.pt cannot be read: Permission denied; expected the file" in refusals(path)


def test_anothers_checkpoint(refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "\x1b[31mepoch": 3}, path)
    assert "no checkpoint of this library (it holds: state_dict, ?[31mepoch); train" in refusals(path)
    torch.save([1], path)
    assert "(it holds: list)" in refusals(path)


def test_newer_format(refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "flash": {"format": 99, "version": "9.0"}}, path)
    assert re.search(r"format 99, written by version '9\.0'; .* install a newer one", refusals(path))


def test_an_older_format(refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "flash": {"format": 1, "version": "0.1.0"}}, path)
    assert refusals(path) == (
        f"{path} has checkpoint format 1, of an older library; this one reads format 3: "
        "train the model again, or load it with version '0.1.0'"
    )


class Runs:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_does_not_run(make_content: Any, refusals: Any, tmp_path: Path) -> None:
    path, evidence = tmp_path / "model.pt", tmp_path / "evidence"
    torch.save({**make_content(), "callbacks": Runs(evidence)}, path)
    assert (
        "holds more than tensors and plain values, and was not run: it asks for '__builtin__.getattr'; give"
        in (refusals(path))
    )
    assert not evidence.exists()


def test_a_file_from_the_web_is_called_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, target: Path) -> Path:
        target.write_text("<html>")
        return target

    monkeypatch.setattr("flash.core.data.utils.fetch", fetch)
    with pytest.raises(
        CheckpointError, match="the checkpoint https://here/m.pt is no checkpoint of this library"
    ):
        checkpoint.load("https://here/m.pt")


# ------------------------------------------------------------------------------------------ writing


UNKEEPABLE = {
    "bytes": (lambda: b"", r"checkpoint\['value'\], a builtins\.bytes, cannot be kept"),
    "complex": (lambda: 1j, "a builtins.complex, cannot be kept"),
    "numpy": (lambda: [np.float64(1)], r"checkpoint\['value'\]\[0\], a numpy\.float64, cannot"),
    "sparse": (lambda: torch.eye(2).to_sparse(), "a torch.Tensor of layout torch.sparse_coo, cannot be kept"),
    "meta": (lambda: torch.empty(2, device="meta"), "a torch.Tensor of layout torch.strided, cannot be kept"),
    "integer": (lambda: 2**2000, r"an integer of 2,001 bits, cannot be kept"),
    "key": (lambda: {((1, 2), 3): 4}, r"the key \(\(1, 2\), 3\) of checkpoint\['value'\], a tuple"),
    "attribute": (
        lambda: with_attribute(Path()),
        r"the attributes of checkpoint\['value'\]\['note'\], a pathlib",
    ),
    "nested": (lambda: nested(101), "a list inside more than 100 others, cannot be kept"),
}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def with_attribute(note: object) -> OrderedDict[str, int]:
    value = OrderedDict(a=1)
    value.__dict__["note"] = note
    return value


@pytest.mark.parametrize(("make", "words"), UNKEEPABLE.values(), ids=UNKEEPABLE)
def test_save_refuses_and_names(
    make_content: Any, tmp_path: Path, make: Callable[[], Any], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        checkpoint.save({**make_content(), "value": make()}, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_as_deep_as_can_be(make_content: Any, tmp_path: Path) -> None:
    checkpoint.save({**make_content(), "value": nested(99)}, tmp_path / "model.pt")
    assert checkpoint.read(tmp_path / "model.pt")["value"] == nested(99)
    assert checkpoint.load(tmp_path / "model.pt")["value"] == nested(99)


def test_save_refuses_what_could_not_be_loaded_and_names_it(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("the model of yesterday")
    with pytest.raises(
        CheckpointError, match=r"checkpoint\['callbacks'\]\[0\], a pathlib\..*Path, cannot be kept"
    ):
        checkpoint.save({**make_content(), "callbacks": [Path("x")]}, path)
    assert path.read_text() == "the model of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_save_makes_the_folder(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "model.pt"
    checkpoint.save(make_content(), path)
    assert [path.name for path in path.parent.iterdir()] == ["model.pt"]


KILLED_WHILE_SAVING = """
import os, signal, sys, torch
from flash.text.classification import checkpoint

class Dying:
    def __init__(self, file):
        self.file, self.bytes = file, 0
    def write(self, part):
        if self.bytes > 1_000_000:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.bytes += len(part)
        return self.file.write(part)
    def flush(self):
        self.file.flush()

save = torch.save
torch.save = lambda content, file: save(content, Dying(file))
checkpoint.save({"state_dict": {str(i): torch.zeros(200_000) for i in range(4)}}, sys.argv[1])
"""


def test_a_process_killed_while_saving_leaves_the_old_file_whole(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.ones(3)), path)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(path)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (partial,) = tmp_path.glob("*.part")
    assert partial.stat().st_size > 1_000_000
    assert len(checkpoint.load(path)["state_dict"]["weight"]) == 3


def test_a_full_disk(make_content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_: Any, file: Any) -> None:
        file.write(b"x" * 1000)
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    path = tmp_path / "model.pt"
    path.write_text("the model of yesterday")
    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(make_content(), path)
    assert str(caught.value) == (
        f"{path} cannot be written: the disk took only a part of it; free space or choose another folder"
    )
    assert path.read_text() == "the model of yesterday"
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import resource, signal, sys, torch
from flash.core.errors import CheckpointError
from flash.text.classification import checkpoint, torch_file
from flash.text.classification.plain_pickle import ForeignTensor
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    checkpoint.save({"weight": torch.zeros(100_000)}, sys.argv[1])
except CheckpointError as error:
    print(error)
"""


def test_what_the_system_says_of_a_full_disk(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="file sizes cannot be limited here")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "m.pt")], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"{tmp_path / 'm.pt'} cannot be written: File too large; free space or choose another folder\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_torch_does_not_save_together(make_content: Any, tmp_path: Path) -> None:
    weight = torch.ones(4)
    with pytest.raises(
        CheckpointError, match=r"m\.pt cannot be written: torch refuses its tensors \(Cannot save"
    ):
        checkpoint.save(make_content(weight=weight, bits=weight.view(torch.int32)), tmp_path / "m.pt")
    assert list(tmp_path.iterdir()) == []


UNWRITABLE = {
    "folder": ("folder", "folder cannot be written: it is a folder; name a file in it, such as .*model.pt"),
    "file as folder": ("file/m.pt", r"m\.pt cannot be written: Not a directory; choose another folder"),
    "file above": ("file/runs/m.pt", r"m\.pt cannot be written: Not a directory; choose another folder"),
    "long name": ("m" * 300 + ".pt", r"cannot be written: File name too long; choose another folder"),
}


@pytest.mark.parametrize(("path", "words"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_check_writable_says_what_save_would(
    make_content: Any, tmp_path: Path, path: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=words) as before:
        checkpoint.check_writable(tmp_path / path)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(make_content(), tmp_path / path)
    assert str(caught.value) == str(before.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint.check_writable(tmp_path / "runs" / "one" / "model.pt")
    checkpoint.check_writable(str(tmp_path / "model.pt"))
    assert list(tmp_path.iterdir()) == []
