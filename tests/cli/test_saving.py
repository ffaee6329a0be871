"""What a training saves: a model and its options together, and nothing in the place of what is read."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from flash.cli import saving
from flash.core import files
from flash.core.errors import CheckpointError, FlashError

AnyNamespace: Any = Namespace  # whose constructor has no types


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def given(output: str, source: str = "from_csv", backbone: str = "linear", **options: Any) -> Any:
    return AnyNamespace(
        output=output,
        source=source,
        ckpt_path=None,
        model=AnyNamespace(backbone=backbone),
        **{source: AnyNamespace(**options)},
    )


def refused(options: Any) -> str:
    with pytest.raises(FlashError) as found:
        saving.check(options)
    return str(found.value)


@pytest.mark.parametrize("option", ["train_file", "val_file", "test_file", "predict_file", "export_json"])
def test_a_file_that_is_read_is_never_the_model(option: str, tmp_path: Path) -> None:
    Path("data.csv").write_text("mine")
    Path("link").symlink_to("data.csv")
    sentence = "that this command reads, and would be lost; name another file for the model"
    for output, value, called in (
        ("data.csv", "data.csv", "a file"),
        ("link", "data.csv", "the same file as data.csv"),
        ("data.csv", "link", "the same file as link"),
        ("./data.csv", ["none.csv", "*.csv"], "the same file as data.csv"),
        (f"{tmp_path}/data.csv", "data.csv", "the same file as data.csv"),
    ):
        typed: dict[str, Any] = {option: value}
        assert refused(given(output, **typed)) == f"--output {output} is {called} {sentence}"
    assert Path("data.csv").read_text() == "mine"


def test_the_files_of_an_encoder_and_of_from_toxic() -> None:
    Path("encoder").mkdir()
    Path("encoder/config.json").write_text("mine")
    said = refused(given("encoder/config.json", backbone="encoder"))
    assert said.startswith("--output encoder/config.json is the same file as encoder that this command reads")
    Path(saving.TOXIC_FILE).parent.mkdir(parents=True)
    Path(saving.TOXIC_FILE).write_text("mine")
    assert "is a file that this command reads" in refused(given(saving.TOXIC_FILE, source="from_toxic"))
    saving.check(given("encoder/new.pt", backbone="encoder"))
    saving.check(given("text", input_field="text", val_split=0.1, train_file="s3://bucket/text"))


def test_a_rerun_of_saved_options_replaces_them() -> None:
    Path("mine.yaml").write_text(f"{saving.MARK}\nmodel: {{}}\n")
    rerun = given("mine.pt")
    rerun.config = ["mine.yaml"]
    assert saving.check(rerun) == Path("mine.yaml")
    Path("mine.yaml").write_text("model: {}\n")
    assert refused(rerun).startswith(
        "the options are saved at mine.yaml, which is a file that this command reads"
    )


def test_options_are_not_saved_in_the_place_of_another_file() -> None:
    Path("train.yaml").write_text("mine")
    said = refused(given("train.pt", train_file="train.yaml"))
    assert said == (
        "the options are saved at train.yaml, which is a file that this command reads, and would be lost; "
        "name another --output than train.pt"
    )
    for content in ("services: []", "- a", ":\n\t-", "model: {}\noutput: a.pt\n", "\xff"):
        Path("mine.yaml").write_text(content, "latin-1")
        said = refused(given("mine.pt"))
        assert said == (
            "the options are saved at mine.yaml, where another file is, which would be lost; move it, or name another "
            "--output than mine.pt"
        )
        assert Path("mine.yaml").read_text("latin-1") == content
    Path("folder.yaml").mkdir()
    said = refused(given("folder.pt"))
    assert said == (
        "the options cannot be saved at folder.yaml: it is a folder; name another --output than folder.pt"
    )


def test_options_that_were_saved_before_are_replaced() -> None:
    old = "output: a.pt\nhalf: false\nstrategy: no_freeze\nmodel: {}\ntrainer: {}\nsource: from_csv\n"
    for content in (f"{saving.MARK}\nof any version", old):
        Path("a.yaml").write_text(content)
        assert saving.check(given("a.pt", train_file="a.csv")) == Path("a.yaml")


def test_an_address_is_no_place_for_a_model_of_the_command() -> None:
    said = refused(given("s3://bucket/a.pt"))
    assert said == "--output s3://bucket/a.pt is an address; name a file here, and copy it there"


def test_both_files_are_whole_and_new_or_as_they_were() -> None:
    saving.save(lambda path: path.write_text("first"), "a/b.pt", "one: 1\n")
    assert Path("a/b.pt").read_text() == "first"
    assert Path("a/b.yaml").read_text() == f"{saving.MARK}\none: 1\n"

    def fail(path: Path) -> None:
        path.write_text("half")
        raise CheckpointError(f"{path} cannot be written: No space left on device; free space")

    with pytest.raises(CheckpointError, match="^a/b.pt cannot be written: No space left on device"):
        saving.save(fail, "a/b.pt", "two: 2\n")
    assert Path("a/b.pt").read_text() == "first"
    assert Path("a/b.yaml").read_text() == f"{saving.MARK}\none: 1\n"
    assert sorted(path.name for path in Path("a").iterdir()) == ["b.pt", "b.yaml"]


def test_a_disk_that_is_full_at_last_leaves_both_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems say that they are full when bytes go to the disk, after the model was written."""
    saving.save(lambda path: path.write_text("first"), "b.pt", "one: 1\n")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(CheckpointError, match="^b.pt cannot be written: No space left on device; free space"):
        saving.save(lambda path: path.write_text("second"), "b.pt", "two: 2\n")
    assert Path("b.pt").read_text() == "first"
    assert Path("b.yaml").read_text() == f"{saving.MARK}\none: 1\n"


def test_an_options_file_behind_a_link_is_replaced_there() -> None:
    Path("there").mkdir()
    Path("there/options").write_text(saving.MARK)
    Path("a.yaml").symlink_to("there/options")
    saving.save(lambda path: path.write_text("model"), "a.pt", "one: 1\n")
    assert Path("a.yaml").is_symlink()
    assert Path("there/options").read_text() == f"{saving.MARK}\none: 1\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from flash.cli import saving

steps, left = [], int(sys.argv[1])

def counting(function):
    def step(*arguments, **keywords):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments, **keywords)
    return step

for name in ("replace", "unlink", "rename"):
    setattr(Path, name, counting(getattr(Path, name)))
saving.save(lambda path: path.write_text("new"), "a.pt", "new: 1\\n")
"""


def test_a_process_killed_at_any_step_leaves_no_new_model_beside_old_options() -> None:
    seen = set()
    for steps in range(20):
        Path("a.pt").write_text("old")
        Path("a.yaml").write_text("old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(steps)], check=False)
        model = Path("a.pt").read_text()
        options = Path("a.yaml").read_text() if Path("a.yaml").exists() else None
        seen.add((model, options))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    new = f"{saving.MARK}\nnew: 1\n"
    assert seen == {("old", "old"), ("old", None), ("new", None), ("new", new)}
    assert sorted(os.listdir()) == ["a.pt", "a.yaml"]  # noqa: PTH208  leftovers of the dead are removed
