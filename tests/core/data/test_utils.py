"""What a user calls: addresses, folders and archives."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from flash.core.data.utils import download_data
from flash.core.errors import DownloadError

Server: TypeAlias = Any  # of conftest.py, from which tests cannot import
Handler: TypeAlias = Any


def zip_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/") + ".csv", content)
    return buffer.getvalue()


def visible(folder: Path) -> list[str]:
    """What a user sees in the folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_download_data_names_the_file_after_the_address(server: Server, tmp_path: Path) -> None:
    assert download_data(server.url("a/two%20words.csv?version=3#top"), str(tmp_path)) is None  # type: ignore[func-returns-value]
    assert visible(tmp_path) == ["two words.csv"]
    assert server.requests[0][0] == "/a/two%20words.csv?version=3"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "file:///etc/passwd",
            "expected an address that begins with https:// or http:// and holds no user name; a file of this",
        ),
        ("ftp://example.com/x", "'ftp://example.com/x': expected an address"),
        ("data/x.zip", "'data/x.zip': expected an address"),
        ("https:///x.zip", "expected an address"),
        ("http://[::1/x.zip", "'http://[::1/x.zip': expected an address"),
        ("https://me:secret@example.com/x", "'https://example.com/x': expected an address that"),
        ("https://example.com/", "its last part, '', is no file name"),
        ("https://example.com/a/..", "its last part, '..', is no file name"),
        ("https://example.com/..%2F..%2Fx", r"its last part, '../../x', is no file name"),
        ("https://example.com/..%5Cx", "is no file name"),
        ("https://example.com/a%00b", "is no file name"),
    ],
)
def test_addresses_that_are_refused(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(DownloadError) as caught:
        download_data(url, str(tmp_path / "data"))
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "url", ["ftp://example.com/x?key=secret", "https://example.com/?key=secret#x", "http://[::1/x?key=secret"]
)
def test_what_stands_behind_a_question_mark_is_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError) as caught:
        download_data(url, str(tmp_path))
    assert "secret" not in str(caught.value)
    assert url.partition("?")[0] in str(caught.value)


def test_nor_when_the_server_refuses_or_sends_on(server: Server, tmp_path: Path) -> None:
    def send_on(handler: Handler) -> None:
        handler.head(302, Location="ftp://example.com/y?token=secret", Content_Length=0)

    server.plan = [lambda handler: handler.head(404, Content_Length=0), send_on]
    for words in ("the server answers 404", "the server sends on to ftp://example.com/y, which is not https"):
        with pytest.raises(DownloadError) as caught:
            download_data(server.url("x.csv?key=secret"), str(tmp_path))
        assert str(caught.value).startswith(f"cannot download {server.url('x.csv')}: {words}")
        assert "secret" not in str(caught.value)


def test_verbose_says_what_was_done(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.body = zip_of(train=b"a,b\n", more__test=b"a\n")
    for _ in range(2):
        download_data(server.url("set.zip"), str(tmp_path), verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{tmp_path / 'set.zip'} is downloaded",
        f"2 files were unpacked into {tmp_path}",
        f"{tmp_path / 'set.zip'} is there already",
        f"0 files were unpacked into {tmp_path}",
    ]


def test_a_zip_is_unpacked_once_and_again_when_a_file_is_not_whole(server: Server, tmp_path: Path) -> None:
    server.body = zip_of(train=b"a,b\n", more__test=b"a\n")
    download_data(server.url("set.zip"), str(tmp_path))
    assert visible(tmp_path) == ["more", "set.zip", "train.csv"]
    before = (tmp_path / "train.csv").stat()
    download_data(server.url("set.zip"), str(tmp_path))
    after = (tmp_path / "train.csv").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    (tmp_path / "more" / "test.csv").write_bytes(b"")
    (tmp_path / "train.csv").unlink()
    download_data(server.url("set.zip"), str(tmp_path))
    assert (tmp_path / "train.csv").read_bytes() == b"a,b\n"
    assert (tmp_path / "more" / "test.csv").read_bytes() == b"a\n"
    assert len(server.requests) == 1


def test_a_new_archive_is_unpacked_anew(server: Server, tmp_path: Path) -> None:
    server.body = zip_of(train=b"old\n")
    download_data(server.url("set.zip"), str(tmp_path))
    (tmp_path / "set.zip").unlink()
    server.body = zip_of(train=b"new\n")
    download_data(server.url("set.zip"), str(tmp_path))
    assert (tmp_path / "train.csv").read_bytes() == b"new\n"


def test_a_tar_is_unpacked(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("in/x.csv")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"a,b"))
    server.body = buffer.getvalue()
    download_data(server.url("set.tar.gz"), str(tmp_path))
    assert (tmp_path / "in" / "x.csv").read_bytes() == b"a,b"


def test_an_unsafe_archive_leaves_only_itself(server: Server, tmp_path: Path) -> None:
    server.body = zip_of(fine=b"", **{"..__evil": b"x"})
    with pytest.raises(DownloadError, match=r"its member '\.\./evil\.csv' could land outside the folder"):
        download_data(server.url("set.zip"), str(tmp_path / "data"))
    assert visible(tmp_path / "data") == ["set.zip"]
    assert visible(tmp_path) == ["data"]


def test_a_folder_that_cannot_be(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DownloadError, match=r"file\.bin cannot be written \(Not a directory\); make room, or give"
    ):
        download_data(server.url(), str(tmp_path / "file"))
    (tmp_path / "file.bin").mkdir()
    with pytest.raises(DownloadError, match=r"file\.bin is a folder; give another path"):
        download_data(server.url(), str(tmp_path))


def test_the_progress_bar_needs_a_terminal(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download_data(server.url(), str(tmp_path))
    assert capsys.readouterr() == ("", "")
