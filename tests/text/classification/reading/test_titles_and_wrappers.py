"""Files whose table does not begin where readers look for it: below a title, under a key, inside of lists."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flash.core.errors import DataError
from flash.text.classification.predict_files.blocks import read_blocks
from flash.text.classification.reading.csv import read_csv
from flash.text.classification.reading.tables import read_json

COLUMNS = ["text", "labels"]


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "Comments of 2026\nid,text,labels\n1,a,x\n",
            ": line 2 looks like the header ('id,text,labels'), and not the first line ('Comments of 2026'); delete the "
            "line above it",
        ),
        ("Comments,,\n\n,,\nid,text,labels\n1,a,x\n", ": line 4 looks like the header"),
        ("Comments\n\nid;text;labels\n1;a;x\n", "; delete the 2 lines above it"),
    ],
)
def test_the_header_below_a_title_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = written(tmp_path, "train.csv", content)
    with pytest.raises(DataError) as error:
        read_csv(path, columns=COLUMNS)
    assert words in str(error.value)
    with pytest.raises(DataError, match="looks like the header"):
        list(read_blocks(path, "csv"))


@pytest.mark.parametrize("orient", ["columns", "index"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_of_pandas_with_an_index_of_texts_is_read(
    tmp_path: Path, orient: Any, indent: int | None
) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "labels": [["x"], []]}, index=["r0", "r1"])
    path = tmp_path / "train.json"
    frame.to_json(path, orient=orient, indent=indent)
    assert read_json(path, columns=COLUMNS).table.to_pylist() == frame.to_dict("records")


def test_a_path_through_a_list_is_offered_its_brackets(tmp_path: Path) -> None:
    rows = [{"text": "a", "tags": []}, {"text": "b", "tags": [{"label": "x"}]}]
    lines = written(tmp_path, "lines.json", "\n".join(map(json.dumps, rows)))
    for path in (lines, written(tmp_path, "array.json", rows)):
        with pytest.raises(
            DataError, match=r"'tags\.label' leads through a list, .*; write 'tags\[\]\.label'"
        ):
            read_json(path, columns=["text", "tags.label"])
        assert read_json(path, columns=["tags[].label"]).table.num_rows == 2


@pytest.mark.parametrize("indent", [None, 2])
def test_rows_under_a_key_are_named_with_the_command_that_turns_them_into_lines(
    tmp_path: Path, indent: int | None
) -> None:
    path = written(tmp_path, "a.json", json.dumps({"version": 1, "data": [{"text": "a"}]}, indent=indent))
    with pytest.raises(DataError) as error:
        list(read_blocks(path, "jsonl"))
    assert "is one JSON object with its rows under 'data'" in str(error.value)
    assert str(error.value).endswith("""jq -c '.["data"][]'""")
    lines = written(tmp_path, "b.json", {"tags": [{"label": "x"}], "text": "a"})
    assert sum(len(block.rows) for block in read_blocks(lines, "jsonl")) == 1
