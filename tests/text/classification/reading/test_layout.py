"""How a file of cells begins: headers, their absence, and other formats."""

from pathlib import Path
from typing import Any

import pytest

from flash.core.errors import DataError
from flash.text.classification.predict_files.blocks import Dialect, read_blocks
from flash.text.classification.reading.csv import read_csv

ROWS = "The striker scored two late goals against them\tsport\tid1\nA soup of garlic and butter, slowly cooked\tfood\tid2\n"


USUAL = Dialect()


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def refused(read: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*arguments, **keywords)
    return str(caught.value)


def streamed(path: Path, dialect: Dialect = USUAL, kind: str = "csv") -> list[Any]:
    return [(block.first, block.table.to_pydict()) for block in read_blocks(path, kind, dialect)]


def test_a_table_without_a_header_is_named_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", ROWS)
    assert refused(read_csv, path, columns=["text", "labels"]) == (
        f"{path} looks like it has no header: there is no column 'text', and its first line is like a row "
        "('The striker scored two late goals agains...', 'sport', 'id1'); pass the names of its 3 columns in their "
        "order, such as column_names=['text', 'labels', 'column_3']"
    )
    assert "looks like it has no header: its first line is like a row" in refused(streamed, path, kind="tsv")


@pytest.mark.parametrize(
    "content", ["a,sport\nb,sport\n", "12,good\n13,bad\n", "x,https://a.org\ny,https://b.org\n"]
)
def test_values_that_no_column_is_named_after(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "train.csv", content)
    assert "looks like it has no header" in refused(read_csv, path, columns=["text", "labels"])


def test_a_header_that_only_lacks_the_column_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "Kommentar,Etikett\na,x\nb,y\n")
    assert "unknown columns 'text' and 'labels'" in refused(read_csv, path, columns=["text", "labels"])


def test_names_of_columns_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", ROWS)
    names = ["text", "labels", "id"]
    table = read_csv(path, columns=["text", "labels"], column_names=names).table
    assert table["labels"].to_pylist() == ["sport", "food"]
    ((first, rows),) = streamed(path, Dialect(column_names=tuple(names)), "tsv")
    assert (first, rows["id"]) == (1, ["id1", "id2"])
    assert refused(read_csv, path, column_names=["text", "labels"]).startswith(
        f"{path}: column_names= holds 2 names, but the first row has 3 cells between '\\t' ("
    )


def test_given_names_that_are_the_header_after_all(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "text,labels\na,x\n")
    assert read_csv(path, column_names=["text", "labels"]).table.to_pydict() == {
        "text": ["a"],
        "labels": ["x"],
    }


def test_rows_of_a_table_without_a_header_are_counted_from_its_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "a,x\nb\n")
    names = ["text", "labels"]
    assert "1 row is not as wide as the first row, which has 2 columns (row 2 has 1)" in refused(
        read_csv, path, column_names=names
    )
    assert "row 2: 1 cell where the first row has 2 columns" in refused(
        streamed, path, Dialect(column_names=tuple(names))
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_line_that_excel_writes_for_itself(tmp_path: Path, newline: str) -> None:
    path = write(tmp_path / "train.csv", newline.join(["sep=;", "text;labels", "a,b;x", ""]))
    assert read_csv(path).table.to_pydict() == {"text": ["a,b"], "labels": ["x"]}
    assert streamed(path) == [(1, {"text": ["a,b"], "labels": ["x"]})]


def test_files_for_fasttext_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "behind.txt", "a goal __label__sport\n")
    with pytest.raises(DataError, match="is in fastText's format"):
        read_csv(path)
    path = write(tmp_path / "train.txt", " no label here\n__label__sport a goal\n")
    words = f"{path} is in fastText's format (labels as __label__NAME before each text: '__label__sport a goal'); read it"
    assert refused(read_csv, path, columns=["text", "labels"]).startswith(words)
    assert refused(streamed, path).endswith("read it by from_fasttext, or with input_format='fasttext'")


def test_files_of_features_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt", "1 1:0.5 7:0.2\n0,2 3:1\n")
    assert refused(read_csv, path, columns=["text", "labels"]).startswith(
        f"{path} is in svmlight's format (numbered features in place of texts: '1 1:0.5 7:0.2'), from which texts"
    )


def test_one_text_per_line(tmp_path: Path) -> None:
    path = write(tmp_path / "new.txt", 'I like the soup, "really"\nmatch goal referee\n\n')
    with pytest.warns(
        UserWarning, match="has no header and is read as one text per line, the first is 'I like"
    ) as caught:
        ((_, rows),) = streamed(path)
    assert rows == {"text": ['I like the soup, "really"', "match goal referee", ""]}
    assert "pass input_field='I like the soup" in str(caught[0].message)
    with pytest.warns(UserWarning, match="one text per line"):
        assert read_csv(path, columns=["body"]).table.to_pydict() == {"body": rows["text"]}


def test_a_first_line_that_was_asked_for_is_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "new.txt", "what they wrote\na\nb\n")
    dialect = Dialect(known=("what they wrote",))
    assert streamed(path, dialect) == [(1, {"what they wrote": ["a", "b"]})]
    assert read_csv(path, columns=["what they wrote"]).table.num_rows == 2


def test_a_first_line_that_may_be_both_is_refused(tmp_path: Path) -> None:
    for name, line in (("a.txt", "soup"), ("a.csv", "soup oven recipe"), ("a.md", "soup oven")):
        path = write(tmp_path / name, f"{line}\nmatch goal\n")
        assert refused(streamed, path) == (
            f"{path}: the first line, {line!r}, may be a text, or the name of a column; pass column_names=['text'] if "
            f"there is no header, or input_field={line!r} if it is one"
        )
        assert streamed(path, Dialect(column_names=("text",)))[0][1] == {"text": [line, "match goal"]}
