"""Archives that want out of their folder, lie about themselves, or are merely broken."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flash.core.data import archives
from flash.core.data.archives import all_there, is_archive, unpack
from flash.core.errors import DownloadError

FILES = {"train.csv": b"text,toxic\nhello,0\n", "more/test.csv": b"text\n" * 1000, "more/empty.csv": b""}
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tbz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".txz": lzma.compress,
}
ENDINGS = [".zip", *COMPRESSED]


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write(folder: Path, ending: str, files: list[tuple[str, bytes]]) -> Path:
    """An archive of that kind with those members, names as they are."""
    path = folder / f"set{ending}"
    if ending == ".zip":
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore", UserWarning)  # zipfile's word on duplicate names
            for name, content in files:
                member = zipfile.ZipInfo("placeholder")
                member.filename, member.compress_type = name, zipfile.ZIP_DEFLATED
                archive.writestr(member, content)
    else:
        path.write_bytes(
            COMPRESSED[ending](tar_bytes(*((tarfile.TarInfo(name), content) for name, content in files)))
        )
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def refused(archive: Path, folder: Path) -> str:
    """The words an unsafe archive is refused with, once it is sure that it left nothing."""
    before = contents(archive.parent)
    with pytest.raises(DownloadError) as caught:
        unpack(archive, folder)
    assert contents(archive.parent) == before
    assert not any(folder.iterdir())
    return str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_come_out_as_they_went_in(tmp_path: Path, ending: str) -> None:
    archive = write(tmp_path, ending, list(FILES.items()))
    assert is_archive(archive.name)
    assert unpack(archive, tmp_path / "out") == {name: len(content) for name, content in FILES.items()}
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("name", ["x.csv", "x.gz", "zip", "x.zip.part", "tar.txt"])
def test_other_files_are_no_archives(name: str) -> None:
    assert not is_archive(name)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ending=st.sampled_from(ENDINGS),
    files=st.dictionaries(
        st.lists(
            st.text("aä字 ._-", min_size=1, max_size=4).filter(lambda part: part.strip(".")),
            min_size=1,
            max_size=3,
        ).map("/".join),
        st.binary(max_size=300),
        max_size=5,
    ),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, ending: str, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("round")
    archive = write(folder, ending, list(files.items()))
    if any(other.startswith(name + "/") for name in files for other in files):
        message = refused(archive, folder / "out")
        assert "is both a file and a folder" in message or "is there twice" in message
        return
    members = unpack(archive, folder / "out")
    assert contents(folder / "out") == files
    assert members == {name: len(content) for name, content in files.items()}
    assert all_there(members, folder / "out")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil", "'../evil' would land outside the folder"),
        ("fine/../../evil", "'fine/../../evil' would land outside the folder"),
        ("..\\evil", "would land outside the folder"),
        ("..", "would land outside the folder"),
        ("/tmp/evil", "'/tmp/evil' has an absolute name"),
        ("\\evil", "has an absolute name"),
        ("//host/share/evil", "has an absolute name"),
        ("C:\\evil", "has a drive letter, colon or control character"),
        ("c:evil", "has a drive letter, colon or control character"),
        ("file.txt:stream", "has a drive letter, colon or control character"),
        ("line\nbreak", "has a drive letter, colon or control character"),
    ],
)
def test_no_member_lands_outside(tmp_path: Path, ending: str, name: str, words: str) -> None:
    archive = write(tmp_path, ending, [("fine.csv", b"a"), (name, b"evil")])
    message = refused(archive, tmp_path / "out")
    assert message.startswith(f"{archive} is refused: its member ")
    assert words in message
    assert message.endswith("; nothing was unpacked")


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", [("made\\on\\windows.csv", b"a")])
    assert unpack(archive, tmp_path / "out") == {"made/on/windows.csv": 1}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("goal", ["fine.csv", "/etc/passwd", "../../x"])
def test_no_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes, goal: str) -> None:
    member = tarfile.TarInfo("odd")
    member.type, member.linkname = kind, goal
    (tmp_path / "set.tar").write_bytes(tar_bytes((tarfile.TarInfo("fine.csv"), b"a"), (member, b"")))
    assert "its member 'odd' is a link or a device" in refused(tmp_path / "set.tar", tmp_path / "out")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_no_links_and_devices_in_a_zip(tmp_path: Path, kind: int) -> None:
    member = zipfile.ZipInfo("odd")
    member.create_system, member.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    assert "its member 'odd' is a link or a device" in refused(tmp_path / "set.zip", tmp_path / "out")


@pytest.mark.parametrize("ending", [".zip", ".tar.bz2"])
@pytest.mark.parametrize("again", ["a/x.csv", "a//x.csv", "./a/x.csv", "a\\x.csv"])
def test_no_member_twice(tmp_path: Path, ending: str, again: str) -> None:
    archive = write(tmp_path, ending, [("a/x.csv", b"1"), (again, b"2")])
    assert "its member 'a/x.csv' is there twice" in refused(archive, tmp_path / "out")


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_no_member_is_file_and_folder(tmp_path: Path, ending: str) -> None:
    archive = write(tmp_path, ending, [("a", b"1"), ("a/x.csv", b"2")])
    assert "its member 'a' is both a file and a folder" in refused(archive, tmp_path / "out")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", [("x.csv", b"secret")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the local header's flags, then the directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "its member 'x.csv' is encrypted (unpack it by hand with its password)" in refused(
        archive, tmp_path / "out"
    )


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_bomb(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ending, [("zeros", bytes(3_000_000))])
    assert unpack(archive, tmp_path / "allowed") == {"zeros": 3_000_000}  # three megabytes hurt nobody
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
    (tmp_path / "allowed" / "zeros").unlink()
    message = refused(archive, tmp_path / "out")
    assert (
        "it unpacks to more than 1 MiB, more than a sound archive of its size holds (at most 200 times"
        in message
    )


def test_a_zip_that_declares_less_than_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ".zip", [("zeros", bytes(3_000_000))])
    size = (3_000_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (10).to_bytes(4, "little")))
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
    assert "it is broken or not the kind of archive its name says" in refused(archive, tmp_path / "out")


def test_the_whole_is_limited_whatever_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ".tar", [("x", bytes(2_000_000)), ("y", bytes(2_000_000))])
    monkeypatch.setattr(archives, "MAX_BYTES", 3 * 2**20)
    assert "it unpacks to more than 3 MiB" in refused(archive, tmp_path / "out")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_the_members_are_limited(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ending, [(f"{number}.csv", b"") for number in range(11)])
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    assert "it holds more than 10 members" in refused(archive, tmp_path / "out")


def test_holes_in_a_sparse_file_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = tarfile.TarInfo("sparse")
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "sparse",
        "GNU.sparse.size": str(2**30),
        "GNU.sparse.map": "0,4",
    }
    (tmp_path / "set.tar").write_bytes(tar_bytes((member, b"data")))
    assert "it unpacks to more than 64 MiB" in refused(tmp_path / "set.tar", tmp_path / "out")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"<html>not here</html>", b"PK\x03\x04", b"\x1f\x8b\x08\x00"])
def test_not_an_archive(tmp_path: Path, ending: str, content: bytes) -> None:
    archive = tmp_path / f"set{ending}"
    archive.write_bytes(content)
    message = refused(archive, tmp_path / "out")
    assert f"{archive} cannot be unpacked: it is broken or not the kind of archive its name says (" in message
    assert message.endswith("; delete it and download it again")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_truncated_archive(tmp_path: Path, ending: str) -> None:
    archive = write(tmp_path, ending, list(FILES.items()))
    archive.write_bytes(archive.read_bytes()[:-12])
    assert "is broken" in refused(archive, tmp_path / "out")


def test_a_sum_that_is_wrong_far_behind_the_last_member(tmp_path: Path) -> None:
    behind = bytes(3 * archives.BLOCK)  # tar needs none of it, but the sum of the whole stands after it
    spoilt = bytearray(gzip.compress(tar_bytes((tarfile.TarInfo("x.csv"), b"a")) + behind))
    spoilt[-8] ^= 1
    (tmp_path / "set.tgz").write_bytes(spoilt)
    assert "(CRC check failed" in refused(tmp_path / "set.tgz", tmp_path / "out")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ending=st.sampled_from([".zip", ".tar", ".tar.gz", ".tar.xz"]), data=st.data())
def test_spoilt_bytes_never_end_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spoilt")
    archive = write(folder, ending, list(FILES.items()))
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content)
    try:
        members = unpack(archive, folder / "out")
    except DownloadError:
        members = {}
    assert set(contents(folder / "out")) == set(members)
    assert {path.name for path in folder.iterdir()} == {archive.name, "out"}


def test_files_are_replaced_and_others_stay(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / "out" / "more").mkdir(parents=True)
    (tmp_path / "out" / "train.csv").write_bytes(b"half")
    (tmp_path / "out" / "more" / "mine.csv").write_bytes(b"mine")
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {**FILES, "more/mine.csv": b"mine"}


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / "out" / ".set.zip.abc.unpacking").mkdir(parents=True)
    (tmp_path / "out" / ".set.zip.abc.unpacking" / "train.csv").write_bytes(b"half")
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_a_folder_stands_where_a_file_must_go(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / "out" / "more" / "test.csv").mkdir(parents=True)
    with pytest.raises(
        DownloadError, match=r"test\.csv is a folder, and the archive holds a file of that name"
    ):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_file_stands_where_a_folder_must_go(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "more").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"more is a file, and the archive holds a folder of that name"):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {"more": b"mine"}


@pytest.mark.parametrize("ending", [".zip", ".tar"])
@pytest.mark.parametrize("member", ["link/evil.csv", "link/deeper/evil.csv", "more/link/evil.csv", "link/"])
def test_a_link_in_the_destination_is_not_followed(tmp_path: Path, ending: str, member: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "more").mkdir(parents=True)
    for link in (tmp_path / "out" / "link", tmp_path / "out" / "more" / "link"):
        link.symlink_to(tmp_path / "elsewhere")
    folder = tarfile.TarInfo(member)
    folder.type = tarfile.DIRTYPE if member.endswith("/") else tarfile.REGTYPE
    archive = write(tmp_path, ending, [("train.csv", b"a"), (member, b"")])
    if ending == ".tar":
        archive.write_bytes(tar_bytes((tarfile.TarInfo("train.csv"), b"a"), (folder, b"")))
    with pytest.raises(
        DownloadError, match=r"link is a link, and what the archive holds below it could land else"
    ):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "out" / "train.csv").exists()


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", [("x.csv", b"new")])
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.csv").write_bytes(b"mine")
    (tmp_path / "out" / "x.csv").symlink_to(tmp_path / "mine.csv")
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "mine.csv").read_bytes() == b"mine"
    assert (tmp_path / "out" / "x.csv").read_bytes() == b"new"


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", ["set{}", ".set{}.json", "./set{}"])
def test_an_archive_replaces_neither_itself_nor_its_note(tmp_path: Path, ending: str, name: str) -> None:
    name = name.format(ending)
    archive = write(tmp_path, ending, [("train.csv", b"a"), (name, b"evil")])
    before = contents(tmp_path)
    with pytest.raises(DownloadError) as caught:
        unpack(archive, tmp_path)
    words = f"its member {name.removeprefix('./')!r} would replace the archive itself, or the note on it"
    assert words in str(caught.value)
    assert contents(tmp_path) == before
    assert set(unpack(archive, tmp_path / "out")) == {"train.csv", name.removeprefix("./")}


def test_a_file_stands_where_an_empty_folder_must_go(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("x")
    folder.type = tarfile.DIRTYPE
    (tmp_path / "set.tar").write_bytes(tar_bytes((tarfile.TarInfo("a.csv"), b"a"), (folder, b"")))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"x is a file, and the archive holds a folder of that name"):
        unpack(tmp_path / "set.tar", tmp_path / "out")
    assert contents(tmp_path / "out") == {"x": b"mine"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    with pytest.raises(
        DownloadError, match=r"cannot be unpacked into .*set\.zip.*: (File exists|Not a directory) \("
    ):
        unpack(archive, archive / "deeper")


def test_empty_folders_and_empty_archives(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("empty")
    folder.type = tarfile.DIRTYPE
    root = tarfile.TarInfo("./")
    root.type = tarfile.DIRTYPE
    (tmp_path / "set.tar").write_bytes(tar_bytes((root, b""), (folder, b"")))
    assert unpack(tmp_path / "set.tar", tmp_path / "out") == {}
    assert (tmp_path / "out" / "empty").is_dir()


def test_python_s_own_check_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(member: tarfile.TarInfo, folder: str) -> None:
        raise tarfile.TarError(f"asked about {member.name}")

    monkeypatch.setattr(tarfile, "data_filter", check, raising=False)
    archive = write(tmp_path, ".tar", [("x.csv", b"a")])
    assert "asked about x.csv" in refused(archive, tmp_path / "out")


@pytest.mark.parametrize(("change", "there"), [(None, True), (b"short", False), ("unlink", False)])
def test_all_there(tmp_path: Path, change: bytes | str | None, there: bool) -> None:
    members = unpack(write(tmp_path, ".zip", list(FILES.items())), tmp_path)
    if isinstance(change, bytes):
        (tmp_path / "train.csv").write_bytes(change)
    elif change:
        (tmp_path / "train.csv").unlink()
    assert all_there(members, tmp_path) is there


@pytest.mark.parametrize("members", [None, [], "x", 3, ["train.csv"]])
def test_what_is_no_list_of_members_is_never_there(tmp_path: Path, members: object) -> None:
    assert not all_there(members, tmp_path)
