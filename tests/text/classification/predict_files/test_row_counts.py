"""Rows counted without reading them: the numbers that readers find."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flash.text.classification.predict_files import row_counts
from flash.text.classification.predict_files.blocks import Dialect, read_blocks
from flash.text.classification.predict_files.row_counts import count_rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text('ab",\n ', max_size=9).map(lambda text: f"x{text}"), min_size=1, max_size=9),
    chunk=st.integers(1, 20),
    ended=st.booleans(),
)
def test_csv_has_as_many_rows_as_its_reader_finds(
    texts: list[str], chunk: int, ended: bool, tmp_path: Path
) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([["id", "text"], *enumerate(texts)])
    path = tmp_path / "in.csv"
    path.write_text(written.getvalue() if ended else written.getvalue()[:-1], newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_counts, "CHUNK", chunk)
        assert count_rows(path, "csv") == len(texts)
    assert sum(block.table.num_rows for block in read_blocks(path, "csv")) == len(texts)


def test_other_formats(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": 'a "quote'}) + "\n" for _ in range(7)))
    (tmp_path / "in.tsv").write_text('text\n"two\nlines"\n"\n', newline="")
    pa.parquet.write_table(pa.table({"text": ["a"] * 5}), tmp_path / "in.parquet")
    assert count_rows(tmp_path / "in.jsonl", "jsonl") == 7
    assert count_rows(tmp_path / "in.tsv", "tsv", Dialect(quoting=False)) == 3
    assert count_rows(tmp_path / "in.parquet", "parquet") == 5


def test_what_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    (tmp_path / "mac.csv").write_text("text\ra\r", newline="")
    (tmp_path / "no.parquet").write_text("text")
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"text\na\n"))
    for path, kind in [("-", "csv"), ("missing.csv", "csv"), ("in.csv.gz", "csv"), ("no.parquet", "parquet")]:
        assert count_rows(path if path == "-" else tmp_path / path, kind) is None
    assert count_rows(tmp_path / "mac.csv", "csv") is None
    assert count_rows(tmp_path / "in.csv", "csv", Dialect("UTF-16-LE")) is None
    assert count_rows(tmp_path / "in.csv", "csv") == 1
    monkeypatch.setattr(row_counts, "MOST_BYTES", 6)
    assert count_rows(tmp_path / "in.csv", "csv") is None
