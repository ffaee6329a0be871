"""Files and folders that are whole or absent, whatever stands in their place before."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flash.core.files import atomic_file, atomic_folder, atomic_path, check_writable, is_folder, overwritten


def write(path: Path, text: str = "new") -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


def write_at_path(path: Path, text: str = "new") -> None:
    with atomic_path(path) as target:
        target.write_text(text)
        target.chmod(0o600)  # as safetensors does


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_name_is_taken_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
        assert len(names(tmp_path)) == 2
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_library_writes_to_a_path_that_nobody_else_enters(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_path(path) as target:
        target.write_text("new")
        (hidden,) = tmp_path.glob(".file.*.part")
        assert hidden.stat().st_mode & 0o777 == 0o700
        assert target.parent == hidden
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["file"]
    write_at_path(tmp_path / "fresh")
    (tmp_path / "usual").touch()
    assert (tmp_path / "fresh").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_of_a_library_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as target:
            target.write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_obeys_the_umask_which_is_never_changed(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "umask", lambda _: pytest.fail("other threads would create files with this mask")
            )
            write(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_old_files_permissions_stay_and_hold_before_the_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o600)
    with atomic_file(path) as file:
        (temporary,) = tmp_path.glob("*.part")
        assert temporary.stat().st_mode & 0o777 == 0o600
        file.write(b"new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_keeps_leading_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(Path("there") / "file")
    for text in ("first", "second"):  # the file that the link leads to is not there, and is
        check_writable(tmp_path / "link")
        write(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_text() == text
    assert names(tmp_path / "there") == ["file"]


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        check_writable(tmp_path / "a")
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("write", [write, write_at_path])
def test_a_pipe_is_written_to_directly(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write(pipe, "through")
    reader.join()
    assert found == ["through"]
    assert names(tmp_path) == ["pipe"]


def test_a_device_is_written_to_directly() -> None:
    check_writable("/dev/null")
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("length", [200, 255])
def test_the_longest_names(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("é" * (length // 2))
    check_writable(path)
    write(path)
    assert names(tmp_path) == [path.name]


def test_folders_are_not_files(tmp_path: Path) -> None:
    for attempt in (write, write_at_path, check_writable):
        with pytest.raises(IsADirectoryError, match="it is a folder"):
            attempt(tmp_path)
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "file")


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root, who runs tests in containers, may write everywhere
    for attempt in (write, check_writable):
        with pytest.raises(PermissionError, match="Permission denied"):
            attempt(tmp_path / "file")


def test_check_writable_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    before = (tmp_path / "file").stat().st_mtime_ns
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new" / "folders" / "file")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").stat().st_mtime_ns == before


@pytest.mark.parametrize("write", [write, write_at_path])
def test_file_and_folder_reach_the_disk(
    tmp_path: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else names(tmp_path)[0])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write(tmp_path / "file")
    assert synced[0].endswith(".part")  # the bytes before the name
    assert synced[1:] == ["folder"]


# ---- folders ----------------------------------------------------------------------------------------------------


def test_a_new_folder_and_those_above_it(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with atomic_folder(target) as work:
        (work / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_an_earlier_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "earlier").write_text("earlier")
    with atomic_folder(target) as work:
        (work / "file").write_text("new")
        assert (target / "earlier").read_text() == "earlier"
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, kind: type[BaseException]) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "earlier").write_text("earlier")
    with pytest.raises(kind), atomic_folder(target) as work:  # noqa: PT012  what happens halfway
        (work / "file").write_text("new")
        raise kind
    assert [path.name for path in target.iterdir()] == ["earlier"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_as_the_folder_takes_its_name_puts_the_earlier_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "earlier").write_text("earlier")
    rename = Path.rename

    def failing(self: Path, other: Path) -> Path:
        if self.name == "whole":
            raise PermissionError(13, "no")
        return rename(self, other)

    with pytest.raises(PermissionError), atomic_folder(target):
        monkeypatch.setattr(Path, "rename", failing)
    assert [path.name for path in target.iterdir()] == ["earlier"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_place_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="File exists|Not a directory"), atomic_folder(tmp_path / "file" / "a"):
        pass


KILLED_BETWEEN_RENAMES = """
import os, signal, sys
from pathlib import Path
from flash.core.files import atomic_folder

rename = Path.rename

def dying(self, other):
    if self.name == "whole":  # the new folder, once the earlier one is aside
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, other)

Path.rename = dying
with atomic_folder(Path(sys.argv[1])) as work:
    (work / "file").write_text("new")
"""


def killed_between_renames(target: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_BETWEEN_RENAMES, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(target.parent) == [".a.0.part"]


def test_a_process_killed_between_the_renames_loses_no_folder(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "earlier").write_text("earlier")
    killed_between_renames(target)
    assert is_folder(target)  # the next look puts it back
    assert names(target) == ["earlier"]
    killed_between_renames(target)
    with atomic_folder(target) as work:  # and so does the next one to write
        assert names(target) == ["earlier"]
        (work / "file").write_text("new")
    assert names(target) == ["file"]
    assert names(tmp_path) == ["a"]


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none", tmp_path / ("a" * 300), "a\0b"):
        assert not is_folder(path)


def test_the_files_of_a_folder_reach_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    with atomic_folder(tmp_path / "a") as work:
        (work / "file").write_text("new")
    inodes = [path.stat().st_ino for path in (tmp_path / "a" / "file", tmp_path / "a", tmp_path)]
    assert synced[:3] == inodes


# ---- what may not be overwritten ----------------------------------------------------------------------------------


def test_the_same_file_by_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link, hard = tmp_path / "file", tmp_path / "link", tmp_path / "hard"
    file.write_text("mine")
    link.symlink_to(file)
    hard.hardlink_to(file)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (file, link, hard, "file", "./folder/../file"):
        assert overwritten(name, ["none", "folder", str(file)]) == str(file)
    assert overwritten(file, [tmp_path]) == tmp_path  # no file of a folder may be lost
    for other in ("none", "folder", tmp_path / "folder" / "new", "a\0b", os.devnull):
        assert overwritten(other, [file, tmp_path, os.devnull]) is None


def test_the_file_behind_standard_input_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    with (tmp_path / "file").open() as opened, (tmp_path / "other").open("w") as other:
        monkeypatch.setattr(sys, "stdin", opened)
        monkeypatch.setattr(sys, "stdout", other)
        assert overwritten(tmp_path / "file", ["-"]) == "-"
        assert overwritten(tmp_path / "other", ["-"]) is None
        assert overwritten("-", ["-", tmp_path / "other"]) == tmp_path / "other"
