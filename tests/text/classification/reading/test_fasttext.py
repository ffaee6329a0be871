"""fastText's files, whole and in blocks."""

from pathlib import Path

import pytest

from flash.core.errors import DataError
from flash.text.classification.data import TextClassificationData
from flash.text.classification.predict_files.blocks import read_blocks
from flash.text.classification.reading.fasttext import read_fasttext

LINES = "__label__a __label__b some text\n no label\n\n__label__b other, text\n"


def test_rows_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text(LINES)
    texts = ["some text", "no label", "other, text"]
    assert read_fasttext(path).table.to_pydict() == {"text": texts, "labels": [["a", "b"], [], ["b"]]}
    assert [block.table.to_pydict() for block in read_blocks(path, "fasttext")] == [{"text": texts}]
    data = TextClassificationData.from_fasttext(train_file=str(path))
    assert (data.labels, data.multi_label) == (["a", "b"], True)


def test_another_prefix_and_no_label_at_all(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("#a some text\n")
    assert read_fasttext(path, label_prefix="#").table["labels"].to_pylist() == [["a"]]
    with pytest.raises(DataError, match=r"no line has a label \(a word that begins with '__label__'\)"):
        read_fasttext(path)


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"__label__a \xe9\n")
    with pytest.raises(DataError, match="is not UTF-8: byte 0xe9 at offset 11"):
        read_fasttext(tmp_path / "train.txt")
