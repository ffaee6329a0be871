"""Temporary files: what a dead process left is removed, what a living one writes is not."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flash.core import temporary
from flash.core.files import atomic_file, atomic_folder, atomic_path, check_writable


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_file(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(b"new")


def write_at_path(path: Path) -> None:
    with atomic_path(path) as target:
        target.write_text("new")


def write_folder(path: Path) -> None:
    with atomic_folder(path) as work:
        (work / "file").write_text("new")


WRITE = {"atomic_file": write_file, "atomic_path": write_at_path, "atomic_folder": write_folder}

HALFWAY = """
import os, signal, sys
from pathlib import Path
from flash.core import files

with getattr(files, sys.argv[1])(Path(sys.argv[2])):
    print("writing", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start(kind: str, target: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing, which is killed once its input is closed."""
    command = [sys.executable, "-c", HALFWAY, kind, str(target)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("kind", WRITE)
def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_are_not(
    kind: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    living, dead, later = start(kind, target), start(kind, target), start(kind, target)
    assert names(tmp_path) == [".target.0.part", ".target.1.part", ".target.2.part"]
    for process in (dead, later):
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    WRITE[kind](target)
    assert names(tmp_path) == [".target.0.part", "target"]
    living.communicate()
    WRITE[kind](target)
    assert names(tmp_path) == ["target"]


def test_looking_whether_a_file_can_be_written_removes_leftovers(tmp_path: Path) -> None:
    start("atomic_path", tmp_path / "target").communicate()
    assert names(tmp_path) == [".target.0.part"]
    check_writable(tmp_path / "target")
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", WRITE.values())
def test_files_that_look_like_ours_of_other_targets_and_links_stay(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / ".target.0.part").symlink_to(tmp_path / "mine")
    for name in ("mine", ".other.0.part", ".target.8.part", ".target.part", "target.part"):
        (tmp_path / name).write_text("mine")
    before = names(tmp_path)
    write(tmp_path / "target")
    assert names(tmp_path) == sorted([*before, "target"])
    assert (tmp_path / "mine").read_text() == "mine"


def test_many_writers_at_a_time_each_have_a_file_of_their_own(tmp_path: Path) -> None:
    target, barrier = tmp_path / "target", threading.Barrier(2 * temporary.NAMES)

    def write(number: int) -> None:
        with atomic_file(target) as file:
            file.write(b"%d" % number * 1000)
            barrier.wait()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2 * temporary.NAMES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["target"]
    content = target.read_bytes()
    assert content == content[: len(content) // 1000] * 1000


def test_a_file_that_another_writer_takes_for_a_leftover_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, part, lock = tmp_path / "target", tmp_path / ".target.0.part", temporary._lock
    others: list[threading.Timer] = []

    def remove(handle: int) -> None:
        part.unlink()
        os.close(handle)

    def taken_first(handle: int, *, wait: bool = False) -> bool:
        if not others:
            other = os.open(part, os.O_RDONLY)
            assert lock(other)
            others.append(threading.Timer(0.05, remove, [other]))
            others[0].start()
        return lock(handle, wait=wait)

    monkeypatch.setattr(temporary, "_lock", taken_first)
    with atomic_file(target) as file:
        others[0].join()
        file.write(b"whole")
    assert target.read_bytes() == b"whole"
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("write", WRITE.values())
def test_a_file_system_without_locks(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".target.0.part").write_text("of whom?")
    monkeypatch.setattr(temporary, "_lock", lambda handle, *, wait=False: False)
    write(tmp_path / "target")
    assert names(tmp_path) == [".target.0.part", "target"]


def test_what_this_process_writes_can_be_removed_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file") as file:  # noqa: PT012
        file.write(b"half")
        temporary.remove_own()
        assert names(tmp_path) == ["folder"]
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "folder") as work:  # noqa: PT012
        (work / "file").touch()
        temporary.remove_own()
        assert names(tmp_path) == ["folder"]
    assert names(tmp_path) == ["folder"]


def test_of_two_that_exchange_a_folder_one_waits_for_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that looks between the two renames sees the new folder."""
    target = tmp_path / "a"
    write_folder(target)
    rename, found = Path.rename, []

    def look() -> None:
        temporary.put_back(target)
        found.append(target.is_dir())

    def slow(self: Path, other: Path) -> Path:
        if self.name != "whole":
            return rename(self, other)
        reader = threading.Thread(target=look)
        reader.start()
        reader.join(5 * temporary.WAIT)
        moved = rename(self, other)
        reader.join()
        return moved

    monkeypatch.setattr(Path, "rename", slow)
    with atomic_folder(target) as work:
        (work / "second").touch()
    assert found == [True]
    assert names(target) == ["second"]
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208
