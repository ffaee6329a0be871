"""The reader of fastText's format: one text per line, with its labels as `__label__NAME`."""

import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError
from flash.text.classification.reading.files import File, Files, read_bytes, read_each
from flash.text.classification.reading.mistakes import not_utf8
from flash.text.classification.reading.source import Source

PREFIX = "__label__"


def read_fasttext(files: Files, *, label_prefix: str = PREFIX) -> Source:
    """Read fastText files into the columns `text` and `labels`, a list of names; blank lines are skipped.

    As in fastText, a label may be anywhere in the line. A line without labels is a text with an empty label set.

    Args:
        files: as in `read_csv`.
        label_prefix: prefix of a label.

    Raises:
        DataError: no such file, bytes that are not UTF-8, or no label in any line.
    """
    return read_each(files, "txt", lambda path: _fasttext_table(path, label_prefix))


def _fasttext_table(path: File, prefix: str) -> pa.Table:
    try:
        content = bytes(read_bytes(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path, read_bytes(path))) from error
    table = fasttext_rows([line for line in content.split("\n") if line.strip()], prefix)
    if table.num_rows and not pc.any(pc.greater(pc.list_value_length(table["labels"]), 0)).as_py():
        raise DataError(
            f"{path}: no line has a label (a word that begins with {prefix!r}); is it fastText's format?"
        )
    return table


def fasttext_rows(lines: list[str], prefix: str = PREFIX) -> pa.Table:
    """Parse lines into the columns `text` and `labels`."""
    words = [line.split() for line in lines]
    texts = [" ".join(word for word in line if not word.startswith(prefix)) for line in words]
    labels = [[word.removeprefix(prefix) for word in line if word.startswith(prefix)] for line in words]
    return pa.table(
        {"text": pa.array(texts, pa.large_string()), "labels": pa.array(labels, pa.list_(pa.large_string()))}
    )
