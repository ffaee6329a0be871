"""fastText's files: one text per line, and before it its labels as `__label__NAME`.

Imports nothing of the project but errors, files and `Source`; neither torch nor lightning.
"""

import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError
from flash.text.classification.reading.files import File, Files, read_bytes, read_each
from flash.text.classification.reading.mistakes import not_utf8
from flash.text.classification.reading.source import Source

PREFIX = "__label__"


def read_fasttext(files: Files, *, label_prefix: str = PREFIX) -> Source:
    """Files for fastText as the columns `text` and `labels`, a list of names; blank lines are skipped.

    A word is a label wherever it stands in the line, as for fastText. A line without one is a text without labels.

    Args:
        files: as in `read_csv`.
        label_prefix: what a label begins with.

    Raises:
        DataError: no such file, bytes that are not UTF-8, no label in any line.
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
    """A row for each line."""
    words = [line.split() for line in lines]
    texts = [" ".join(word for word in line if not word.startswith(prefix)) for line in words]
    labels = [[word.removeprefix(prefix) for word in line if word.startswith(prefix)] for line in words]
    return pa.table(
        {"text": pa.array(texts, pa.large_string()), "labels": pa.array(labels, pa.list_(pa.large_string()))}
    )
