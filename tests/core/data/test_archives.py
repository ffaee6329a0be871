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
from flash.core.data.archives import is_archive, unpack
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


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / ".set.zip.0.part").mkdir()
    (tmp_path / ".set.zip.0.part" / "train.csv").write_text("half")
    unpack(archive, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more", "set.zip", "train.csv"]


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
    folder.mkdir(exist_ok=True)
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
    (tmp_path / "out").mkdir()
    assert unpack(archive, tmp_path / "out") == 3
    assert contents(tmp_path / "out") == FILES
    assert unpack(archive, tmp_path / "out", again=False) == 0
    (tmp_path / "out" / "train.csv").write_bytes(b"half")
    assert unpack(archive, tmp_path / "out", again=False) == 3
    assert contents(tmp_path / "out") == FILES
    assert set(tmp_path.iterdir()) == {archive, tmp_path / "out"}


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
        refused(archive, folder / "out")
        return
    (folder / "out").mkdir()
    assert unpack(archive, folder / "out") == len(files)
    assert contents(folder / "out") == files


NAMES_OUTSIDE = [
    "../evil",
    "a/../../evil",
    "..",
    "/tmp/evil",
    "//host/evil",
    "..\\evil",
    "C:\\evil",
    "c:evil",
    "line\nbreak",
]


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", NAMES_OUTSIDE)
def test_no_member_lands_outside(tmp_path: Path, ending: str, name: str) -> None:
    archive = write(tmp_path, ending, [("fine.csv", b"a"), (name, b"evil")])
    words = f"{archive} is refused: its member {name!r} could land outside the folder; nothing was unpacked"
    assert refused(archive, tmp_path / "out") == words


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


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", [("x.csv", b"secret")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # the local header's flags, then the directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "is encrypted, password required" in refused(archive, tmp_path / "out")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_bomb(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ending, [("zeros", bytes(3_000_000))])
    (tmp_path / "allowed").mkdir()
    assert unpack(archive, tmp_path / "allowed") == 1  # three megabytes hurt nobody
    (tmp_path / "allowed" / "zeros").unlink()
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
    assert "it unpacks to more than 200,000 files or 1 MiB" in refused(archive, tmp_path / "out")


def test_a_zip_that_declares_less_than_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ".zip", [("zeros", bytes(3_000_000))])
    size = (3_000_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (10).to_bytes(4, "little")))
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
    assert "it is broken or encrypted (" in refused(archive, tmp_path / "out")


def test_the_whole_is_limited_whatever_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ".tar", [("x", bytes(2_000_000)), ("y", bytes(2_000_000))])
    monkeypatch.setattr(archives, "MAX_BYTES", 3 * 2**20)
    assert "it unpacks to more than 200,000 files or 3 MiB" in refused(archive, tmp_path / "out")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_the_members_are_limited(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path, ending, [(f"{number}.csv", b"") for number in range(11)])
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    assert "it unpacks to more than 10 files or 64 MiB" in refused(archive, tmp_path / "out")


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
    assert "it unpacks to more than 200,000 files or 64 MiB" in refused(
        tmp_path / "set.tar", tmp_path / "out"
    )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"<html>not here</html>", b"PK\x03\x04", b"\x1f\x8b\x08\x00"])
def test_not_an_archive(tmp_path: Path, ending: str, content: bytes) -> None:
    archive = tmp_path / f"set{ending}"
    archive.write_bytes(content)
    message = refused(archive, tmp_path / "out")
    assert f"{archive} cannot be unpacked into {tmp_path / 'out'}: it is broken or encrypted (" in message
    assert message.endswith("; delete it and download it again")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_truncated_archive(tmp_path: Path, ending: str) -> None:
    archive = write(tmp_path, ending, list(FILES.items()))
    archive.write_bytes(archive.read_bytes()[:-12])
    assert "is broken" in refused(archive, tmp_path / "out")


def test_a_sum_that_is_wrong_far_behind_the_last_member(tmp_path: Path) -> None:
    behind = bytes(3 * 2**20)  # tar needs none of it, but the sum of the whole stands after it
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
    (folder / "out").mkdir()
    try:
        count = unpack(archive, folder / "out")
    except DownloadError:
        count = 0
    assert len(contents(folder / "out")) == count
    assert {path.name for path in folder.iterdir()} == {archive.name, "out"}


def test_files_are_replaced_and_others_stay(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / "out" / "more").mkdir(parents=True)
    (tmp_path / "out" / "train.csv").write_bytes(b"half")
    (tmp_path / "out" / "more" / "mine.csv").write_bytes(b"mine")
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {**FILES, "more/mine.csv": b"mine"}


def test_a_folder_stands_where_a_file_must_go(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / "out" / "more" / "test.csv").mkdir(parents=True)
    with pytest.raises(
        DownloadError, match=r"its member 'more/test\.csv' would replace .*test\.csv; nothing"
    ):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_file_stands_where_a_folder_must_go(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "more").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"more is a link or a file, and the archive has a folder there"):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {"more": b"mine"}


@pytest.mark.parametrize("ending", [".zip", ".tar"])
@pytest.mark.parametrize("member", ["link/evil.csv", "link/deeper/evil.csv", "more/link/evil.csv"])
def test_a_link_in_the_destination_is_not_followed(tmp_path: Path, ending: str, member: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "more").mkdir(parents=True)
    for link in (tmp_path / "out" / "link", tmp_path / "out" / "more" / "link"):
        link.symlink_to(tmp_path / "elsewhere")
    archive = write(tmp_path, ending, [("train.csv", b"a"), (member, b"")])
    with pytest.raises(
        DownloadError, match=r"link is a link or a file, and the archive has a folder there; nothing"
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
@pytest.mark.parametrize("name", ["set{}", "./set{}"])
def test_an_archive_does_not_replace_itself(tmp_path: Path, ending: str, name: str) -> None:
    archive = write(tmp_path, ending, [("train.csv", b"a"), (name.format(ending), b"evil")])
    before = contents(tmp_path)
    with pytest.raises(DownloadError, match=rf"its member 'set{ending}' would replace {archive}; nothing"):
        unpack(archive, tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "out").mkdir()
    assert unpack(archive, tmp_path / "out") == 2


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    archive = write(tmp_path, ".zip", list(FILES.items()))
    with pytest.raises(
        DownloadError, match=r"set\.zip: Not a directory \(.*\); make room, or give another folder"
    ):
        unpack(archive, archive)


def test_folders_alone_are_no_files(tmp_path: Path) -> None:
    folder, root = tarfile.TarInfo("empty"), tarfile.TarInfo("./")
    folder.type = root.type = tarfile.DIRTYPE
    (tmp_path / "set.tar").write_bytes(tar_bytes((root, b""), (folder, b"")))
    assert unpack(tmp_path / "set.tar", tmp_path) == 0


def test_python_s_own_check_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(member: tarfile.TarInfo, folder: str) -> None:
        raise tarfile.TarError(f"asked about {member.name}")

    monkeypatch.setattr(tarfile, "data_filter", check, raising=False)
    archive = write(tmp_path, ".tar", [("x.csv", b"a")])
    assert "asked about x.csv" in refused(archive, tmp_path / "out")
