"""Torch files: those of version 0.1.0 and of plain Lightning are read with a word on converting, all others are refused."""

import io
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from flash.core.errors import CheckpointError
from flash.text import TextClassifier
from flash.text.classification import checkpoint
from flash.text.classification.predictor import Predictor

PUBLISHED = Path(__file__).parent / "published"
TEXTS = ["a banana", "a zebra with a hammer", ""]
CONVERT = (
    r"is a torch file, as version 0\.1\.0 and a plain lightning\.pytorch\.Trainer write it, .* python -c \""
)


@pytest.fixture
def old(make_content: Any, tmp_path: Path) -> Path:
    """A torch file of format 3."""
    content = make_content(weight=torch.arange(20.0), half=torch.ones(2).bfloat16())
    content["flash"]["format"] = 3
    torch.save({**content, "keys": {1: (2, [3.5])}}, tmp_path / "old.pt")
    return tmp_path / "old.pt"


def test_both_readers_take_a_file_of_format_3_and_say_how_to_convert_it(old: Path) -> None:
    with pytest.warns(UserWarning, match=CONVERT):
        loaded = checkpoint.load(old)
    with pytest.warns(UserWarning, match=CONVERT):
        arrays = checkpoint.read(old)
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(20.0))
    np.testing.assert_array_equal(arrays["state_dict"]["weight"], np.arange(20))
    np.testing.assert_array_equal(arrays["state_dict"]["half"], np.ones(2, np.float32))
    assert loaded["keys"] == arrays["keys"] == {1: (2, [3.5])}


def test_the_command_of_the_warning_converts(old: Path) -> None:
    with pytest.warns(UserWarning, match=CONVERT) as caught:
        before = checkpoint.load(old)
    code = re.search('type: python -c "(.*)"$', str(caught[0].message))
    assert code is not None
    subprocess.run([sys.executable, "-c", code[1]], check=True)
    after = checkpoint.load(old)  # without a warning
    assert torch.equal(after["state_dict"]["weight"], before["state_dict"]["weight"])
    assert after["flash"] == {**before["flash"], "format": checkpoint.FORMAT_VERSION}
    assert after["keys"] == before["keys"]


def test_what_a_plain_trainer_of_lightning_writes(trained: Any, make_data: Any, tmp_path: Path) -> None:
    _, _, data = trained
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    plain = pl.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **quiet)
    again = TextClassifier(labels=data.labels, multi_label=True)
    plain.fit(again, datamodule=data)
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    assert zipfile.is_zipfile(tmp_path / "plain.ckpt")
    with pytest.warns(UserWarning, match=CONVERT):
        loaded = TextClassifier.load_from_checkpoint(tmp_path / "plain.ckpt")
    assert torch.equal(loaded(TEXTS), again(TEXTS))
    with pytest.warns(UserWarning, match=CONVERT):
        predictor = Predictor.load(tmp_path / "plain.ckpt")
    assert predictor.logits(TEXTS).tobytes() == again(TEXTS).numpy().tobytes()


def test_the_command_says_how_to_convert(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes((PUBLISHED / "linear-3.pt").read_bytes())
    command = [sys.executable, "-m", "flash", "predict", str(path), "--input", "-"]
    done = subprocess.run(command, input="text\nthe hammer\n", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1].startswith('"the hammer","tool",')
    assert done.stderr.startswith(
        f"flash: warning: {path} is a torch file, as version 0.1.0 and a plain lightning.pytorch.Trainer write it, which "
        'takes longer to read; to convert it, type: python -c "from flash.text.classification.checkpoint import '
        f"convert; convert('{path}')\"\n"
    )


# What is refused


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


FOREIGN_FILE = "is no model file of this library and no torch file; give the file that save_checkpoint wrote"
PICKLE = "is a Python pickle, which may hold code, and was not read; give the file that save_checkpoint wrote"
FOREIGN = {
    "empty": (b"", "is empty (0 bytes); copy or save it again"),
    "csv": (b"id,text\n1,hello\n", FOREIGN_FILE),
    "pk": (b"PK", FOREIGN_FILE),
    "one byte": (b"\x80", FOREIGN_FILE),
    "noise": (bytes(range(200, 256)) * 40, FOREIGN_FILE),
    "pickle": (pickle.dumps({"a": 1}), PICKLE),
    "of torch before 1.6": (legacy({"a": torch.ones(2)}), PICKLE),
    "zip": (
        zipped(**{"readme.txt": "hello"}),
        "is a zip file, but no model file of this library and no torch file; give the file that save_checkpoint wrote",
    ),
}


@pytest.mark.parametrize(("written", "words"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_file(refusals: Any, tmp_path: Path, written: bytes, words: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(written)
    assert refusals(path) == f"the checkpoint {path} {words}"


def test_anothers_checkpoint(refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "\x1b[31mepoch": 3}, path)
    assert "is no checkpoint of this library (it holds: state_dict, ?[31mepoch); train" in refusals(path)
    torch.save([1], path)
    assert "(it holds: list)" in refusals(path)


def test_newer_and_older_formats(refusals: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {}, "flash": {"format": 99, "version": "9.0"}}, path)
    assert re.search(r"format 99, written by version '9\.0'; .* install a newer one", refusals(path))
    torch.save({"state_dict": {}, "flash": {"format": 1, "version": "0.1.0"}}, path)
    assert refusals(path) == (
        f"{path} has checkpoint format 1, of an unpublished version; this library reads formats 3 to 4: train the "
        "model again"
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
    assert refusals(path) == (
        f"the checkpoint {path} holds more than tensors and plain values, which could be code and was not run; give the "
        "file that save_checkpoint wrote"
    )
    assert not evidence.exists()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_file(refusals: Any, old: Path, share: float) -> None:
    old.write_bytes(old.read_bytes()[: int(old.stat().st_size * share)])
    assert re.search(r"old\.pt is truncated at [\d,]+ bytes; copy or save it again", refusals(old))


def test_a_flipped_bit_of_a_weight(refusals: Any, old: Path) -> None:
    weight, saved = np.arange(20, dtype=np.float32).tobytes(), old.read_bytes()
    assert saved.count(weight) == 1
    old.write_bytes(saved.replace(weight, weight[:-1] + b"\x00"))
    assert refusals(old) == (
        f"the checkpoint {old} is damaged: its parts are not as they were written; copy or save it again"
    )


def test_a_member_that_torch_needs(refusals: Any, old: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(old) as archive, zipfile.ZipFile(buffer, "w") as new:
        for name in archive.namelist():
            if not name.endswith("/version"):
                new.writestr(name, archive.read(name))
    old.write_bytes(buffer.getvalue())
    assert "is damaged: torch cannot put its tensors together; copy or save it again" in refusals(old)


def test_compressed_members_are_refused(refusals: Any, old: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(old) as archive, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in archive.namelist():
            new.writestr(name, archive.read(name))
    old.write_bytes(buffer.getvalue())
    assert "is damaged: its parts are not as they were written; copy or save it again" in refusals(old)


def test_a_file_without_checksums_is_read(make_content: Any, tmp_path: Path) -> None:
    path, was = tmp_path / "model.pt", torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(make_content(weight=torch.arange(20.0)), path)
    finally:
        torch.serialization.set_crc32_options(was)
    with pytest.warns(UserWarning, match=CONVERT):
        found = checkpoint.read(path)
    np.testing.assert_array_equal(found["state_dict"]["weight"], np.arange(20.0))


def test_conversion_of_a_damaged_file_leaves_it_as_it_was(old: Path) -> None:
    old.write_bytes(old.read_bytes()[:-9])
    written = old.read_bytes()
    with pytest.raises(CheckpointError, match="is truncated"):
        checkpoint.convert(old)
    assert old.read_bytes() == written
