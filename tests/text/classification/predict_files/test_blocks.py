"""Rows of any file, a block at a time; what is made of them is tested with `streams`."""

import bz2
import gzip
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification.predict_files import blocks
from flash.text.classification.predict_files.blocks import read_blocks
from flash.text.classification.predict_files.inputs import find_format

SLOW_IS_FINE = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SLOW_IS_FINE
@given(content=st.text('"\n\rab ', max_size=30), chunk=st.integers(1, 9))
def test_chunks_cut_rows_where_arrow_does(tmp_path: Path, content: str, chunk: int) -> None:
    (tmp_path / "in.csv").write_bytes(b"text\n" + content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CHUNK", chunk)
        found = []
        with suppress(DataError):  # a quote that is never closed, the one mistake that these characters allow
            found = list(read_blocks(tmp_path / "in.csv", "csv", rows=3))
    assume(found)
    whole = pa.csv.read_csv(
        tmp_path / "in.csv",
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pa.csv.ConvertOptions(
            column_types={"text": pa.large_string()}, strings_can_be_null=False
        ),
    )
    assert pa.concat_tables([block.table for block in found])["text"].to_pylist() == whole["text"].to_pylist()
    assert [block.first for block in found] == np.cumsum([1, *map(len, (b.table for b in found))])[
        :-1
    ].tolist()


def test_text_files_by_header_and_packed_ones(tmp_path: Path) -> None:
    (tmp_path / "tabs.txt").write_bytes(b"\xef\xbb\xbfid\ttext\r\n1\ta,b\r\n")
    (tmp_path / "commas.txt").write_bytes(b'id,text\n1,"a,b"')
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(b'id,text\n1,"a,b"\n'))
    (tmp_path / "packed.txt.bz2").write_bytes(bz2.compress(b"id\ttext\n1\ta,b\n"))
    for name in ("tabs.txt", "commas.txt", "packed.csv.gz", "packed.txt.bz2"):
        found = read_blocks(tmp_path / name, find_format(tmp_path / name, None, "input_format"))
        assert pa.concat_tables([block.table for block in found]).to_pydict() == {
            "id": ["1"],
            "text": ["a,b"],
        }
