from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification.reading.files import find_files

# Everything a file can hold but surrogates, which no encoding has.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(read: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*arguments, **keywords)
    return str(caught.value)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


# ---- finding files


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text\na\n")
    assert refused(find_files, f"{tmp_path}/trian.csv", "csv") == (
        f"{tmp_path}/trian.csv does not exist; did you mean '{tmp_path}/train.csv'?"
    )
    assert refused(find_files, f"{tmp_path}/train.tsv.gz", "csv").endswith("; check its path")
    assert refused(find_files, f"{tmp_path}/train.json", "csv").endswith(
        f"train.json does not exist; did you mean '{tmp_path}/train.csv'?"
    )
    write(tmp_path / "single.csv", "text\na\n")  # alike by its ending and four letters more
    assert refused(find_files, f"{tmp_path}/missing.csv", "csv").endswith(
        "missing.csv does not exist; check its path"
    )
    assert refused(find_files, f"{tmp_path}/zzzzzz", "csv") == (
        f"{tmp_path}/zzzzzz does not exist; check its path"
    )
    assert f"there is no folder '{tmp_path}/none'" in refused(find_files, f"{tmp_path}/none/a.csv", "csv")
    assert refused(find_files, f"{tmp_path}/*.tsv", "csv") == (
        f"no file matches '{tmp_path}/*.tsv'; check the folder and the ending"
    )
    assert refused(find_files, tmp_path, "csv") == (
        f"{tmp_path} is a folder, not a file; for every file in it pass '{tmp_path}/*.csv'"
    )
    assert refused(find_files, [], "csv") == (
        "no file given; pass a path such as 'train.csv', a list of paths, or a glob"
    )


def test_a_name_with_brackets_is_itself_before_it_is_a_glob(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].csv", "text\na\n")
    assert find_files(str(path), "csv") == [path]
