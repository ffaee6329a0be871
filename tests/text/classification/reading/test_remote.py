"""Files behind URLs: fsspec's memory, and a server on this machine."""

import gzip
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import fsspec
import pytest

from flash.core.errors import DataError, MissingExtraError
from flash.text.classification.predict_files.blocks import read_blocks
from flash.text.classification.predict_files.writers import open_output
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.reading.files import ending

ROW = {"text": ["a"], "labels": ["x"]}


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    served = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_reading_whole_and_in_blocks(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/data/a.csv", b"text,labels\na,x\n")
    memory.pipe("/data/b.csv.gz", gzip.compress(b"text,labels\na,x\n"))
    for url in ("memory://data/a.csv", "memory://data/b.csv.gz"):
        assert read_csv(url).table.to_pydict() == ROW
        assert [block.table.to_pydict() for block in read_blocks(url, "csv")] == [ROW]
    assert [name for name, _ in read_csv("memory://data/*").parts] == [
        "memory:///data/a.csv",
        "memory:///data/b.csv.gz",
    ]


def test_files_that_are_not_there(memory: fsspec.AbstractFileSystem, server: str) -> None:
    with pytest.raises(
        DataError, match="memory://a.csv cannot be read: there is no such file; check the address"
    ):
        read_csv("memory://a.csv")
    with pytest.raises(DataError, match=r"no file matches 'memory://\*\.csv'"):
        read_csv("memory://*.csv")
    with pytest.raises(DataError, match=r"/a\.csv cannot be read: there is no such file"):
        read_csv(f"{server}/a.csv")
    with pytest.raises(
        DataError, match=r"http://127\.0\.0\.1:9/a\.csv cannot be read: Cannot connect to host"
    ):
        read_csv("http://127.0.0.1:9/a.csv")
    with pytest.raises(DataError, match="none://a.csv cannot be read: Protocol not known: none"):
        read_csv("none://a.csv")


def test_reading_from_a_server(server: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,labels\na,x\n")
    assert read_csv(f"{server}/a.csv?token=b").table.to_pydict() == ROW
    assert ending(f"{server}/a.csv.gz?token=b.c") == ".csv"
    with pytest.raises(DataError, match="cannot be written: http:// only gives files; name another place"):
        open_output(f"{server}/b.csv").__enter__()


def test_a_protocol_whose_package_is_not_installed() -> None:
    with pytest.raises(MissingExtraError) as caught:
        read_csv("s3://bucket/a.csv")
    assert str(caught.value) == (
        's3://bucket/a.csv needs a package for s3://, which is not installed; type: pip install "fsspec[s3]"'
    )


def test_output_appears_whole_or_not_at_all(memory: fsspec.AbstractFileSystem) -> None:
    with open_output("memory://out.csv") as file:
        file.write(b"text\na\n")
        file.flush()
    assert memory.cat("/out.csv") == b"text\na\n"

    def stopped() -> None:
        with open_output("memory://other.csv") as file:
            file.write(b"text\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not memory.exists("/other.csv")
