"""Files that torch did not write, or not to their end, and damage to those that it did: a sentence for each."""

import io
import pickle
import re
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.core.errors import CheckpointError
from flash.text.classification import checkpoint, torch_file


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_file(make_content: Any, refusals: Any, tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(make_content(weight=torch.zeros(1000)), path)
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
def test_foreign_file(refusals: Any, tmp_path: Path, written: bytes, words: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(written)
    assert refusals(path) == f"the checkpoint {path} {words}"


# ------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def saved_bytes(make_content: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "model.pt"
    checkpoint.save(make_content(weight=torch.arange(20.0)), path)
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_changes_nothing(
    make_content: Any, tmp_path_factory: pytest.TempPathFactory, saved_bytes: bytes, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "model.pt"
    damaged = bytearray(saved_bytes)
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    for read in (checkpoint.load, checkpoint.read):
        with suppress(CheckpointError):  # noticed; anything else that is raised fails the test
            found = read(path)
            assert found["flash"] == make_content()["flash"]
            np.testing.assert_array_equal(found["state_dict"]["weight"], np.arange(20.0))


def test_a_flipped_bit_of_a_weight(refusals: Any, tmp_path: Path, saved_bytes: bytes) -> None:
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
    make_content: Any, refusals: Any, tmp_path: Path, saved_bytes: bytes, how: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(rezipped(saved_bytes))
    assert checkpoint.read(path)["flash"] == checkpoint.load(path)["flash"] == make_content()["flash"]
    path.write_bytes(rezipped(saved_bytes, **how))
    assert f"{path} is damaged: {words}" in refusals(path)


def test_a_file_without_checksums_is_read(make_content: Any, tmp_path: Path) -> None:
    path, was = tmp_path / "model.pt", torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        checkpoint.save(make_content(weight=torch.arange(20.0)), path)
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
def test_parts_beside_the_tensors(
    refusals: Any, tmp_path: Path, saved_bytes: bytes, part: str, words: str
) -> None:
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
    refusals: Any, tmp_path: Path, saved_bytes: bytes, monkeypatch: pytest.MonkeyPatch
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
