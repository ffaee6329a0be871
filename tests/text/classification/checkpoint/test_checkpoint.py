"""The model file: whole or absent, plain values only, the same bytes each time, read alike with torch and without."""

import hashlib
import json
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
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flash.core.errors import CheckpointError
from flash.text.classification import checkpoint
from flash.text.classification.checkpoint import content, digest
from flash.text.classification.checkpoint.file import ForeignTensor

READERS = (checkpoint.load, checkpoint.read)


def test_it_is_a_safetensors_file_whatever_its_name(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.arange(6.0).reshape(2, 3)), path)
    tensors = load_file(path)
    assert sorted(tensors) == ["calibration_scale", "calibration_shift", "thresholds", "weight"]
    assert torch.equal(checkpoint.load(path)["state_dict"]["weight"], tensors["weight"])
    with safe_open(path, "numpy") as file:
        assert list(file.metadata()) == ["flash"]
        described = json.loads(file.metadata()["flash"])
    assert list(described) == ["checksum", "content", "format", "version"]
    assert described["content"]["flash"]["labels"] == ["toxic", "insult"]
    assert described["content"]["state_dict"]["weight"] == {"$tensor": "weight"}


def test_the_same_content_gives_the_same_bytes(make_content: Any, tmp_path: Path) -> None:
    content = {**make_content(), "b": {"y": 1, "x": [2.5, None]}, "a": (torch.ones(3), "é")}
    checkpoint.save(content, tmp_path / "one.pt")
    checkpoint.save(dict(reversed(content.items())), tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_the_checksum_is_of_all_bytes(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(), path)
    with safe_open(path, "numpy") as file:
        checksum = json.loads(file.metadata()["flash"])["checksum"]
    written = path.read_bytes()
    assert written.count(checksum.encode()) == 1
    assert hashlib.sha256(written.replace(checksum.encode(), b"0" * 64)).hexdigest() == checksum


def test_as_read_is_what_read_gives_and_a_copy(make_content: Any, tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    saved = make_content(weight=tensor, transposed=tensor.T)
    saved["flash"]["more"] = {
        "text": "é" * 2_000,
        "bytes": b"\x00\x01",
        "tuple": (1, None),
        "number": float("inf"),
    }
    checkpoint.save(saved, tmp_path / "model.pt")
    expected, found = checkpoint.read(tmp_path / "model.pt"), checkpoint.as_read(saved)
    assert found["flash"] == expected["flash"]
    tensor.zero_()
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, array in expected["state_dict"].items():
        np.testing.assert_array_equal(found["state_dict"][name], array)


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
    | st.integers(-(2**content.MOST_INTEGER_BITS) + 1, 2**content.MOST_INTEGER_BITS - 1)
    | st.floats(allow_nan=False)  # which equals nothing, itself included
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
)
keys = scalars.filter(lambda key: type(key) is not bytes) | st.sampled_from(["$tensor", "$", ""])
TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).T,
    "parameter": lambda: torch.nn.Parameter(torch.ones(2, 2)),
    "number": lambda: torch.tensor(7),
    "expanded": lambda: torch.ones(1).expand(1000),
    "empty": lambda: torch.zeros(0, 3),
    "any stride": lambda: torch.ones(4).as_strided((1, 2), (2**62, 2)),
    "imaginary part": lambda: torch.tensor([1 + 2j]).conj().imag,
    "conjugate": lambda: torch.tensor([1 + 2j]).conj(),
    "bfloat16": lambda: torch.tensor([1.0, -2.5, float("inf"), 1e-40], dtype=torch.bfloat16),
    "one bfloat16": lambda: torch.tensor(-2.5, dtype=torch.bfloat16),
    "float8": lambda: torch.tensor([1.0, 2.0]).to(torch.float8_e5m2),
    "uint16": lambda: torch.ones(2, dtype=torch.uint16),
    "40 dimensions": lambda: torch.ones((1,) * 40),
}
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys | st.tuples(keys, keys), inner)
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
        assert by_numpy.dtype == "float8_e5m2"
    else:
        known = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        np.testing.assert_array_equal(by_numpy, known.resolve_neg().resolve_conj().numpy())


def test_attributes_are_left_out(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    weight = torch.nn.Parameter(torch.ones(2))
    weight.register_hook(lambda gradient: gradient)  # type: ignore[no-untyped-call]
    weight.note = Path("x")  # type: ignore[attr-defined]
    state = torch.nn.BatchNorm1d(2).state_dict()
    checkpoint.save({**make_content(weight=weight), "other": state}, path)
    assert not checkpoint.load(path)["state_dict"]["weight"].requires_grad
    assert sorted(checkpoint.read(path)["other"]) == sorted(state)


def test_tied_weights_are_stored_once_and_stay_tied(make_content: Any, tmp_path: Path) -> None:
    path, weight = tmp_path / "model.pt", torch.randn(100, 100)
    part = weight[10:20]  # in the same memory, and another tensor
    checkpoint.save(make_content(one=weight, two=weight.detach(), part=part), path)
    assert path.stat().st_size < 60_000
    state = checkpoint.load(path)["state_dict"]
    assert state["one"] is state["two"]
    assert torch.equal(state["part"], part)
    assert torch.equal(state["one"], weight)


@pytest.mark.parametrize("key", ["\udcff", "", "__metadata__", "$tensor", "ä" * 2000, 3, ("a", 1), "weight"])
def test_tensors_under_any_key(make_content: Any, tmp_path: Path, key: Any) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save({**make_content(weight=torch.zeros(2)), "other": {key: torch.ones(3)}}, path)
    for read in READERS:
        found = read(path)
        assert [*found["other"]] == [key]
        assert found["other"][key].sum() == 3
        assert found["state_dict"]["weight"].sum() == 0


def test_long_texts_and_lists_are_tensors(make_content: Any, tmp_path: Path) -> None:
    path, text, names = tmp_path / "model.pt", "ä" * 2000, [f"label {row}" for row in range(20_000)]
    checkpoint.save({**make_content(), "text": text, "names": names, "data": b"\0\xff"}, path)
    with safe_open(path, "numpy") as file:
        assert len(file.metadata()["flash"]) < 2000
        assert {file.get_slice(name).get_dtype() for name in ("text", "names", "data")} == {"U8"}
    for read in READERS:
        found = read(path)
        assert (found["text"], found["names"], found["data"]) == (text, names, b"\0\xff")


def test_a_description_that_is_too_long(make_content: Any, tmp_path: Path) -> None:
    numbers = {str(number): number for number in range(1_000_000)}
    with pytest.raises(CheckpointError, match=r"values take [\d,]+ bytes, and 10,000,000 can be kept beside"):
        checkpoint.save({**make_content(), "numbers": numbers}, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for read in READERS:
        with pytest.raises(
            CheckpointError, match="does not exist; expected the file that save_checkpoint wrote"
        ):
            read(tmp_path / "nothing.pt")
        with pytest.raises(CheckpointError, match="is a folder"):
            read(tmp_path)


def test_a_file_that_may_not_be_read(
    make_content: Any, refusals: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "model.pt"
    checkpoint.save(make_content(), path)
    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in containers, may read everything
    assert "model.pt cannot be read: Permission denied; expected the file" in refusals(path)


def test_another_file_of_safetensors(refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"\x1b[31mweight": torch.ones(2)}, path)
    assert refusals(path) == (
        f"{path} is a safetensors file but no model file of this library (it holds: ?[31mweight); give the file that "
        "save_checkpoint wrote, or, to train an encoder, its folder as the backbone"
    )


def rewritten(path: Path, **changes: Any) -> None:
    """The same file with other values in its description, and its checksum set right."""
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["flash"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    described |= {**changes, "checksum": "0" * 64}
    save_file(tensors, path, {"flash": content.as_json(described)})
    seal(path)


def seal(path: Path) -> None:
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes().replace(b"0" * 64, checksum.encode(), 1))


def test_a_newer_format(make_content: Any, refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(), path)
    rewritten(path, format=99, version="9.0", content="of another kind")
    assert refusals(path) == (
        f"{path} has checkpoint format 99, written by version '9.0'; this library reads up to format 4: install a "
        "newer one"
    )


STRANGE: dict[str, tuple[dict[str, Any], str]] = {
    "no format": ({"format": None}, "was not written by save_checkpoint, or was changed since; copy or"),
    "unknown tag": (
        {"content": {"$code": "x"}},
        "is damaged: its values cannot be put together; copy or save",
    ),
    "lacking tensor": ({"content": {"$tensor": "x"}}, "is damaged: its values cannot be put together; copy"),
    "tag of a tag": (
        {"content": {"$tuple": 3}},
        "is damaged: its values cannot be put together; copy or save",
    ),
    "odd items": (
        {"content": {"$items": [1]}},
        "is damaged: its values cannot be put together; copy or save it",
    ),
    "nothing": (
        {"content": None},
        "is no checkpoint of this library (it holds: NoneType); train the model again",
    ),
    "list": ({"content": [1]}, "is no checkpoint of this library (it holds: list); train the model again"),
    "other": (
        {"content": {"a": 1}},
        "is no checkpoint of this library (it holds: a); train the model again, or",
    ),
}


@pytest.mark.parametrize(("changes", "words"), STRANGE.values(), ids=STRANGE)
def test_descriptions_that_save_does_not_write(
    make_content: Any, refusals: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(), path)
    rewritten(path, **changes)
    assert words in refusals(path)


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"a": NaN}', "9" * 5000], ids=["cut", "deep", "nan", "long"]
)
def test_a_description_that_is_no_json(make_content: Any, refusals: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.pt"
    save_file({"weight": torch.ones(2)}, path, {"flash": f'{{"checksum":"{"0" * 64}","content":{text}'})
    seal(path)
    assert f"{path} is damaged: its description cannot be read; copy or save it again" in refusals(path)


def test_a_file_that_another_program_wrote_anew(make_content: Any, refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(), path)
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), "format": "pt"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    save_file(tensors, path, metadata)
    assert re.search(
        "its checksum is not that of its bytes|was changed since; copy or save it again", refusals(path)
    )


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.99])
def test_a_truncated_file(make_content: Any, refusals: Any, tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.zeros(1000)), path)
    path.write_bytes(path.read_bytes()[: max(1, int(path.stat().st_size * share))])
    assert re.search(
        r"model\.pt is (truncated at|damaged or truncated: its header does not fit its|no model file)",
        refusals(path),
    )


@pytest.fixture(scope="module")
def saved_bytes(make_content: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "model.pt"
    checkpoint.save(make_content(weight=torch.arange(20.0)), path)
    return path.read_bytes()


@settings(max_examples=300, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(
    tmp_path_factory: pytest.TempPathFactory, saved_bytes: bytes, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "model.pt"
    damaged = bytearray(saved_bytes)
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    for read in READERS:
        with pytest.raises(CheckpointError):
            read(path)


def test_a_flipped_bit_of_a_weight(refusals: Any, tmp_path: Path, saved_bytes: bytes) -> None:
    path = tmp_path / "model.pt"
    weight = np.arange(20, dtype=np.float32).tobytes()
    assert saved_bytes.count(weight) == 1
    path.write_bytes(saved_bytes.replace(weight, weight[:-1] + b"\x00"))
    assert refusals(path) == (
        f"the checkpoint {path} is damaged: its checksum is not that of its bytes; copy or save it again"
    )


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_raise_another_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "model.pt"
    for start in (b"", len(data).to_bytes(8, "little") + b"{"):
        path.write_bytes(start + data)
        for read in READERS:
            with pytest.raises(CheckpointError):
                read(path)


def test_a_large_file_is_checked_once_and_again_when_it_changes(
    make_content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    path, hexdigest = tmp_path / "model.pt", digest.hexdigest
    checkpoint.save(make_content(weight=torch.zeros(1000)), path)

    def counting(*parts: Any) -> str:
        counted.append(1)
        return hexdigest(*parts)

    monkeypatch.setattr(digest, "hexdigest", counting)
    for read in (*READERS, *READERS):
        read(path)
    assert len(counted) == 1
    path.write_bytes(path.read_bytes().replace(bytes(8), b"damaged!", 1))
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.read(path)
    assert len(counted) == 2


def test_a_file_that_another_process_has_checked_is_not_checked_again(
    make_content: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.zeros(1000)), path)
    with safe_open(path, "numpy") as file:
        checksum = json.loads(file.metadata()["flash"])["checksum"]
    path.write_bytes(path.read_bytes().replace(bytes(8), b"damaged!", 1))
    script = """
import pickle, sys
from flash.text.classification import checkpoint
from flash.text.classification.checkpoint import digest
from pathlib import Path
path = Path(sys.argv[1])
checkpoint.trust(pickle.loads(pickle.dumps([(digest.state_of(path), sys.argv[2])])))
print(len(checkpoint.read(path)["state_dict"]["weight"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), checksum], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1000\n"


def test_reading_imports_no_torch(make_content: Any, tmp_path: Path) -> None:
    checkpoint.save(make_content(), tmp_path / "model.pt")
    script = (
        "import sys; from flash.text.classification import checkpoint; "
        "checkpoint.read(sys.argv[1]); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.pt")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_file_from_the_web_is_called_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, target: Path) -> Path:
        target.write_text("<html>")
        return target

    monkeypatch.setattr("flash.core.data.utils.fetch", fetch)
    with pytest.raises(
        CheckpointError, match="the checkpoint https://here/m.pt is no model file of this library"
    ):
        checkpoint.load("https://here/m.pt")


# ------------------------------------------------------------------------------------------ writing


UNKEEPABLE = {
    "complex": (lambda: 1j, "a builtins.complex, cannot be kept"),
    "numpy": (lambda: [np.float64(1)], r"checkpoint\['value'\]\[0\], a numpy\.float64, cannot"),
    "sparse": (
        lambda: torch.eye(2).to_sparse(),
        "a torch.Tensor of layout torch.sparse_coo and type torch.float32, cannot",
    ),
    "meta": (lambda: torch.empty(2, device="meta"), "a torch.Tensor of layout torch.strided and type"),
    "integer": (lambda: 2**2000, r"an integer of 2,001 bits, cannot be kept"),
    "key": (lambda: {((1, 2), 3): 4}, r"the key \(\(1, 2\), 3\) of checkpoint\['value'\], a tuple"),
    "complex128": (
        lambda: torch.zeros(1, dtype=torch.complex128),
        "a torch.Tensor of layout torch.strided and type torch.complex128, cannot be kept",
    ),
    "key of bytes": (lambda: {b"a": 1}, "the key b'a' of checkpoint"),
    "nested": (lambda: nested(101), "a list inside more than 100 others, cannot be kept"),
}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
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
from flash.text.classification.checkpoint import digest

digest.hexdigest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save({"state_dict": {str(i): torch.zeros(200_000) for i in range(4)}}, sys.argv[1])
"""


def test_a_process_killed_while_saving_leaves_the_old_file_whole(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.ones(3)), path)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(path)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (partial,) = tmp_path.glob("*.part/whole")
    assert partial.stat().st_size > 1_000_000
    assert len(checkpoint.load(path)["state_dict"]["weight"]) == 3
    checkpoint.save(make_content(weight=torch.ones(4)), path)
    assert len(checkpoint.load(path)["state_dict"]["weight"]) == 4


def test_the_permissions_of_a_replaced_file_stay(make_content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(), path)
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    path.chmod(0o640)
    checkpoint.save(make_content(), path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_address_is_written_and_read_by_fsspec(make_content: Any) -> None:
    checkpoint.save(make_content(weight=torch.arange(3.0)), "memory://bucket/model.pt")
    found = checkpoint.load("memory://bucket/model.pt")["state_dict"]["weight"]
    assert torch.equal(found, torch.arange(3.0))
    with pytest.raises(
        CheckpointError, match=r"memory://bucket/none.pt cannot be copied to .*checkpoint.pt: "
    ):
        checkpoint.load("memory://bucket/none.pt")


def test_a_replaced_file_is_read_as_one(
    make_content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two times that it is opened, another file takes its name."""
    replaced: list[Path] = []
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.zeros(3)), path)

    def opening(*arguments: Any) -> Any:
        if not replaced:
            checkpoint.save(make_content(weight=torch.ones(5)), path)
            replaced.append(path)
        return safe_open(*arguments)

    monkeypatch.setattr("flash.text.classification.checkpoint.file.safe_open", opening)
    np.testing.assert_array_equal(checkpoint.read(path)["state_dict"]["weight"], np.ones(5))


FULL = """
import resource, signal, sys, torch
from flash.core.errors import CheckpointError
from flash.text.classification import checkpoint
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


def test_tensors_of_two_types_in_one_memory(make_content: Any, tmp_path: Path) -> None:
    weight = torch.ones(4)
    checkpoint.save(make_content(weight=weight, bits=weight.view(torch.int32)), tmp_path / "m.pt")
    state = checkpoint.load(tmp_path / "m.pt")["state_dict"]
    assert torch.equal(state["bits"], weight.view(torch.int32))
    assert torch.equal(state["weight"], weight)


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
