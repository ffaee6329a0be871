"""The checkpoint file: whole or absent, plain values only, and a sentence for every file that is not one."""

import io
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flash.core.errors import CheckpointError
from flash.text.classification import checkpoint, torch_file
from flash.text.classification.plain_pickle import ForeignTensor

READERS = (checkpoint.load, checkpoint.read)


def content(**state: Any) -> dict[str, Any]:
    flash = {
        "format": checkpoint.FORMAT_VERSION,
        "version": "0.1.0",
        "labels": ["toxic", "insult"],
        "multi_label": True,
        "backbone": "linear",
        "backbone_options": {},
    }
    chosen = {
        "thresholds": torch.tensor([0.25, 0.75]),
        "calibration_scale": torch.tensor([2.0, 4.0]),
        "calibration_shift": torch.tensor([-1.0, 0.0]),
    }
    return {"state_dict": {**chosen, **state}, "flash": flash}


def refusals(path: Path) -> str:
    """The one sentence in which both readers refuse a file, without a word of another library."""
    sentences = set()
    for read in READERS:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        sentences.add(str(caught.value))
    (sentence,) = sentences
    assert not re.search(r"weights_only|torch\.load|\x1b|Error|\n", sentence), sentence
    return sentence


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
def test_round_trip_of_plain_values(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("plain") / "model.pt"
    checkpoint.save({**content(), "value": value}, path)
    assert checkpoint.read(path)["value"] == checkpoint.load(path)["value"] == value


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_both_readers_take_every_tensor_that_save_takes(tmp_path: Path, make: Callable[[], Any]) -> None:
    path, tensor = tmp_path / "model.pt", make()
    checkpoint.save({**content(), "optimizer_states": [{"momentum": tensor}]}, path)
    by_torch = checkpoint.load(path)["optimizer_states"][0]["momentum"]
    by_numpy = checkpoint.read(path)["optimizer_states"][0]["momentum"]
    assert torch.equal(by_torch, tensor.detach())
    assert type(by_torch) is torch.Tensor
    assert tuple(by_numpy.shape) == tuple(tensor.shape)
    if isinstance(by_numpy, ForeignTensor):
        assert by_numpy.dtype.startswith("torch.")
    else:
        np.testing.assert_array_equal(by_numpy, tensor.detach().resolve_neg().numpy())


def test_attributes_of_tensors_are_left_out_and_those_of_ordered_dicts_stay(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    weight = torch.nn.Parameter(torch.ones(2))
    weight.register_hook(lambda gradient: gradient)  # type: ignore[no-untyped-call]
    weight.note = Path("x")  # type: ignore[attr-defined]
    state = torch.nn.BatchNorm1d(2).state_dict()
    checkpoint.save({**content(weight=weight), "other": state}, path)
    assert not checkpoint.load(path)["state_dict"]["weight"].requires_grad
    assert checkpoint.load(path)["other"]._metadata[""]["version"] == 2
    assert list(checkpoint.read(path)["other"]) == list(state)


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
def test_save_refuses_and_names(tmp_path: Path, make: Callable[[], Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        checkpoint.save({**content(), "value": make()}, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_as_deep_as_can_be(tmp_path: Path) -> None:
    checkpoint.save({**content(), "value": nested(99)}, tmp_path / "model.pt")
    assert checkpoint.read(tmp_path / "model.pt")["value"] == nested(99)
    assert checkpoint.load(tmp_path / "model.pt")["value"] == nested(99)


def test_save_refuses_what_could_not_be_loaded_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("the model of yesterday")
    with pytest.raises(
        CheckpointError, match=r"checkpoint\['callbacks'\]\[0\], a pathlib\..*Path, cannot be kept"
    ):
        checkpoint.save({**content(), "callbacks": [Path("x")]}, path)
    assert path.read_text() == "the model of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_save_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "model.pt"
    checkpoint.save(content(), path)
    assert [path.name for path in path.parent.iterdir()] == ["model.pt"]


KILLED_WHILE_SAVING = """
import sys, torch
from flash.text.classification import checkpoint, torch_file
from flash.text.classification.plain_pickle import ForeignTensor
weight = torch.zeros(20_000_000)
print("saving", flush=True)
while True:
    checkpoint.save({"state_dict": {"weight": weight}}, sys.argv[1])
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
        partial = list(tmp_path.glob("*.part"))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert partial, "the process was not caught while it was saving"
    assert len(checkpoint.load(path)["state_dict"]["weight"]) == 3


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for read in READERS:
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
    assert re.search(r"model\.pt is truncated at [\d,]+ bytes; copy or save it again", refusals(path))


def legacy(values: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


NO_TORCH_FILE = "is no checkpoint of this library and no torch file; give the file that save_checkpoint wrote"
FOREIGN = {
    "empty": (b"", "is empty (0 bytes); copy or save it again"),
    "csv": (b"id,text\n1,hello\n", NO_TORCH_FILE),
    "pk": (b"PK", NO_TORCH_FILE),
    "one byte": (b"\x80", NO_TORCH_FILE),
    "noise": (bytes(range(200, 256)) * 40, NO_TORCH_FILE),
    "pickle": (
        pickle.dumps({"a": 1}),
        "is a Python pickle, which may hold code, and was not read; give the file that save_checkpoint wrote",
    ),
    "legacy": (
        legacy({"a": torch.ones(2)}),
        "is in the format that torch had before version 1.6, which may hold code, and was not read; "
        "train the model again",
    ),
    "zip": (
        zipped(**{"readme.txt": "hello"}),
        "is a zip file, but no checkpoint of this library and no torch file; give the file that save_checkpoint "
        "wrote",
    ),
}


@pytest.mark.parametrize(("written", "words"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_file(tmp_path: Path, written: bytes, words: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(written)
    assert refusals(path) == f"the checkpoint {path} {words}"


@pytest.mark.parametrize("protocol", [3, 4])
def test_another_version_of_pickle_inside(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pt"
    torch.save(content(), path, pickle_protocol=protocol)
    assert "was not run: it uses version" in refusals(path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "model.pt"
    checkpoint.save(content(), path)
    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in containers, may read everything
    assert "model.pt cannot be read: Permission denied; expected the file" in refusals(path)


def test_anothers_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "\x1b[31mepoch": 3}, path)
    assert "no checkpoint of this library (it holds: state_dict, ?[31mepoch); train" in refusals(path)
    torch.save([1], path)
    assert "(it holds: list)" in refusals(path)


def test_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "flash": {"format": 99, "version": "9.0"}}, path)
    assert re.search(r"format 99, written by version '9\.0'; .* install a newer one", refusals(path))


def test_an_older_format(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "flash": {"format": 1, "version": "0.1.0"}}, path)
    assert refusals(path) == (
        f"{path} has checkpoint format 1, of an older library; this one reads format 3: "
        "train the model again, or load it with version '0.1.0'"
    )


nan = float("nan")
WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"format": True}, "its format is True, expected a number from 1"),
    ({"format": 0}, "its format is 0, expected"),
    ({"format": None}, "its format is missing, expected"),
    ({"labels": None}, "its labels are missing, expected a list of one or more different names"),
    ({"labels": 5}, "its labels are 5, expected"),
    ({"labels": "ab"}, "its labels are 'ab', expected"),
    ({"labels": []}, "its labels are [], expected"),
    ({"labels": ["a", "a"]}, "its labels are ['a', 'a'], expected"),
    ({"labels": ["a", ""]}, "its labels are ['a', ''], expected"),
    ({"labels": ["a", []]}, "its labels are a list, expected"),
    ({"multi_label": 1}, "its multi_label is 1, expected a bool"),
    ({"backbone": None}, "its backbone is missing, expected a str"),
    ({"backbone": "lineer"}, "unknown backbone 'lineer'; did you mean 'linear'?"),
    ({"backbone_options": []}, "its backbone_options is [], expected a dict"),
    ({"backbone_options": {1: 2}}, "unknown option '1'"),
    (
        {"backbone_options": {"buckets": "x"}},
        "option buckets of the linear backbone is 'x'; expected a value such as 4194304",
    ),
    (
        {"backbone_options": {"buckets": 100}},
        "option buckets of the linear backbone is 100; expected a power of two",
    ),
    (
        {"backbone_options": {"buckets": 2**30}},
        "option buckets of the linear backbone is 1073741824; expected a power of two from 64 to 16777216",
    ),
    (
        {"backbone_options": {"char_ngrams": [1, None]}},
        "option char_ngrams of the linear backbone is (1, None); expected a value such as (2",
    ),
    (
        {"backbone_options": {"word_ngrams": 2**40}},
        "option word_ngrams of the linear backbone is 1099511627776; expected a value such",
    ),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG_SETTINGS, ids=[words for _, words in WRONG_SETTINGS])
def test_wrong_settings(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    path, saved = tmp_path / "model.pt", content()
    torch.save({**saved, "flash": saved["flash"] | wrong}, path)
    assert f"the checkpoint {path} is damaged: {words}" in refusals(path)


WRONG_STATES: list[tuple[dict[Any, Any], str]] = [
    (
        {"thresholds": torch.ones(3)},
        "thresholds are a tensor of float32 and shape (3,), expected 2 numbers, one a",
    ),
    ({"thresholds": torch.tensor([0.5, nan])}, "its thresholds are nan to nan, expected numbers from 0 to 1"),
    ({"thresholds": torch.tensor([0.5, 1.5])}, "its thresholds are 0.5 to 1.5, expected numbers from 0 to 1"),
    ({"thresholds": torch.tensor([0, 1])}, "its thresholds are a tensor of int64"),
    (
        {"thresholds": torch.ones(2).bfloat16()},
        "its thresholds are a tensor of torch.BFloat16Storage and shape (2,)",
    ),
    *(
        (wrong, f"its calibration_{name} {words}")
        for name in ("scale", "shift")
        for wrong, words in [
            (
                {f"calibration_{name}": torch.ones(3)},
                "is a tensor of float32 and shape (3,), expected 2 numbers",
            ),
            (
                {f"calibration_{name}": torch.tensor([1, 1])},
                "is a tensor of int64 and shape (2,), expected 2",
            ),
            ({f"calibration_{name}": torch.ones(2).bfloat16()}, "is a tensor of torch.BFloat16Storage"),
            ({f"calibration_{name}": torch.tensor([1, nan])}, "holds nan to nan, expected finite numbers"),
            ({f"calibration_{name}": torch.tensor([1, float("inf")])}, "holds 1.0 to inf, expected finite"),
            (
                {f"calibration_{name}": torch.tensor([1, 1e300], dtype=torch.float64)},
                "holds 1.0 to 1e+300, expected finite numbers",
            ),
        ]
    ),
    (
        {"calibration_scale": torch.tensor([1.0, 0.0])},
        "its calibration_scale holds 0.0 to 1.0, expected finite numbers above 0",
    ),
    (
        {"calibration_scale": torch.tensor([1e-300, 1.0], dtype=torch.float64)},
        "its calibration_scale holds 1e-300 to 1.0, expected finite numbers above 0",
    ),
    ({"thresholds": [0.5, 0.5]}, "its weights hold a list under 'thresholds', expected only tensors"),
    (
        {3: torch.ones(1)},
        "its weights hold a tensor of float32 and shape (1,) under 3, expected only tensors",
    ),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG_STATES, ids=[words for _, words in WRONG_STATES])
def test_wrong_weights(tmp_path: Path, wrong: dict[Any, Any], words: str) -> None:
    path, saved = tmp_path / "model.pt", content()
    torch.save({**saved, "state_dict": saved["state_dict"] | wrong}, path)
    assert words in refusals(path)


@pytest.mark.parametrize("name", ["thresholds", "calibration_scale", "calibration_shift"])
def test_missing_weights(tmp_path: Path, name: str) -> None:
    path, saved = tmp_path / "model.pt", content()
    del saved["state_dict"][name]
    torch.save(saved, path)
    verb = "are" if name == "thresholds" else "is"
    assert f"is damaged: its {name} {verb} missing, expected 2 numbers, one a label" in refusals(path)


class Runs:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    path, evidence = tmp_path / "model.pt", tmp_path / "evidence"
    torch.save({**content(), "callbacks": Runs(evidence)}, path)
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


# ------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def saved_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "model.pt"
    checkpoint.save(content(weight=torch.arange(20.0)), path)
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, saved_bytes: bytes, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "model.pt"
    damaged = bytearray(saved_bytes)
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    for read in READERS:
        with suppress(CheckpointError):  # noticed; anything else that is raised fails the test
            found = read(path)
            assert found["flash"] == content()["flash"]
            np.testing.assert_array_equal(found["state_dict"]["weight"], np.arange(20.0))


def test_a_flipped_bit_of_a_weight(tmp_path: Path, saved_bytes: bytes) -> None:
    path = tmp_path / "model.pt"
    weight = np.arange(20, dtype=np.float32).tobytes()
    assert saved_bytes.count(weight) == 1
    path.write_bytes(saved_bytes.replace(weight, weight[:-1] + b"\x00"))
    assert (
        "is damaged: its part 'archive/data/3' is not as it was written; copy or save it again"
        in refusals(path)
    )


def rezipped(
    whole: bytes, *, compression: int = zipfile.ZIP_STORED, attribute: int = 0, twice: bool = False
) -> bytes:
    """The same members in another zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name)
            member.compress_type, member.external_attr = compression, attribute
            new.writestr(member, old.read(name))
            if twice and name.endswith("/0"):
                with pytest.warns(UserWarning, match="Duplicate name"):
                    new.writestr(member, old.read(name))
    return buffer.getvalue()


ZIPS: dict[str, tuple[dict[str, Any], str]] = {
    "compressed": (
        {"compression": zipfile.ZIP_DEFLATED},
        "its part 'archive/data.pkl' is not as it was written",
    ),
    "folders": ({"attribute": 0x10}, "its part 'archive/data.pkl' is not as it was written"),
    "twice": ({"twice": True}, "its part 'archive/data/0' is not as it was written"),
}


@pytest.mark.parametrize(("how", "words"), ZIPS.values(), ids=ZIPS)
def test_zip_files_that_torch_does_not_write(
    tmp_path: Path, saved_bytes: bytes, how: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(rezipped(saved_bytes))
    assert checkpoint.read(path)["flash"] == checkpoint.load(path)["flash"] == content()["flash"]
    path.write_bytes(rezipped(saved_bytes, **how))
    assert f"{path} is damaged: {words}" in refusals(path)


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    path, was = tmp_path / "model.pt", torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        checkpoint.save(content(weight=torch.arange(20.0)), path)
    finally:
        torch.serialization.set_crc32_options(was)
    np.testing.assert_array_equal(checkpoint.read(path)["state_dict"]["weight"], np.arange(20.0))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("version", "is damaged: it has no version; copy or save it again"),
        (
            "byteorder",
            "was saved on a machine of the other byte order, whose numbers are not read here; save it again",
        ),
    ],
)
def test_parts_beside_the_tensors(tmp_path: Path, saved_bytes: bytes, part: str, words: str) -> None:
    path, buffer = tmp_path / "model.pt", io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved_bytes)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if not name.endswith(f"/{part}"):
                new.writestr(name, old.read(name))
        if part == "byteorder":
            new.writestr("archive/byteorder", {"little": "big", "big": "little"}[sys.byteorder])
    path.write_bytes(buffer.getvalue())
    assert words in refusals(path)


def test_a_huge_file_is_not_read_whole(
    tmp_path: Path, saved_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    damaged = saved_bytes.replace(np.arange(20, dtype=np.float32).tobytes(), bytes(80))
    path.write_bytes(damaged)
    assert "'archive/data/3' is not as it was written" in refusals(path)
    monkeypatch.setattr(torch_file, "MOST_CHECKED", 100)
    monkeypatch.setattr(torch_file, "SMALL_MEMBER", 50)
    np.testing.assert_array_equal(checkpoint.read(path)["state_dict"]["weight"], np.zeros(20))
    path.write_bytes(damaged.replace(b"toxic", b"tonic", 1))
    assert "'archive/data.pkl' is not as it was written" in refusals(path)


# ------------------------------------------------------------------------------------------ writing


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_: Any, file: Any) -> None:
        file.write(b"x" * 1000)
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    path = tmp_path / "model.pt"
    path.write_text("the model of yesterday")
    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(content(), path)
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


def test_tensors_that_torch_does_not_save_together(tmp_path: Path) -> None:
    weight = torch.ones(4)
    with pytest.raises(
        CheckpointError, match=r"m\.pt cannot be written: torch refuses its tensors \(Cannot save"
    ):
        checkpoint.save(content(weight=weight, bits=weight.view(torch.int32)), tmp_path / "m.pt")
    assert list(tmp_path.iterdir()) == []


UNWRITABLE = {
    "folder": ("folder", "folder cannot be written: it is a folder; name a file in it, such as .*model.pt"),
    "file as folder": ("file/m.pt", r"m\.pt cannot be written: Not a directory; choose another folder"),
    "file above": ("file/runs/m.pt", r"m\.pt cannot be written: Not a directory; choose another folder"),
    "long name": ("m" * 300 + ".pt", r"cannot be written: File name too long; choose another folder"),
}


@pytest.mark.parametrize(("path", "words"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_check_writable_says_what_save_would(tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=words) as before:
        checkpoint.check_writable(tmp_path / path)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(content(), tmp_path / path)
    assert str(caught.value) == str(before.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint.check_writable(tmp_path / "runs" / "one" / "model.pt")
    checkpoint.check_writable(str(tmp_path / "model.pt"))
    assert list(tmp_path.iterdir()) == []
