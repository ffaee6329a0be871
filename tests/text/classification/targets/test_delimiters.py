"""The delimiter between names, and columns that seem to have another one."""

import itertools
from typing import Any

import pyarrow as pa
import pytest

from flash.core.errors import DataError
from flash.text.classification.reading.source import Source
from flash.text.classification.targets.delimiters import joins_known_names
from flash.text.classification.targets.encoding import encode_targets
from flash.text.classification.targets.formats import infer_format

LABELS = ["sport", "tech", "food"]


def source(cells: list[str]) -> Source:
    return Source(pa.table({"y": cells}), (("train.csv", len(cells)),))


def joined(delimiter: str, *, alone: bool) -> list[str]:
    """Each set of two or three labels, and each label alone."""
    several = [delimiter.join(some) for size in (2, 3) for some in itertools.combinations(LABELS, size)]
    return [*LABELS, *several] if alone else several


def refused(cells: list[str], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        infer_format(source(cells), "y", **options)
    return str(caught.value)


def names(cells: list[str], **options: Any) -> tuple[str, ...]:
    return infer_format(source(cells), "y", **options).label_set.names


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("between", "character", "readable"),
    [
        ("#", "#", "'#'"),
        (" ", " ", "a space"),
        ("/", "/", "'/'"),
        (" / ", "/", "'/'"),
        ("||", "|", "'|'"),
        ("、", "、", "'、'"),
        ("\uff0c", "\uff0c", "'\uff0c'"),
        ("\uff1b", "\uff1b", "'\uff1b'"),
        ("\n", "\n", "a line break"),
        ("\t", "\t", "a tab"),
        ("\\n", "\\n", "a backslash and an n"),
        ("\u00a0", "\u00a0", "a no-break space"),
        ("+", "+", "'+'"),
        (" & ", "&", "'&'"),
        (" and ", " and ", "' and '"),
        (" or ", " or ", "' or '"),
        ("<br>", "<br>", "'<br>'"),
        (":", ":", "':'"),
        (">", ">", "'>'"),
    ],
)
def test_names_joined_by_a_character_that_nobody_named(
    between: str, character: str, readable: str, alone: bool
) -> None:
    cells = joined(between, alone=alone)
    row = 4 if alone else 1
    assert refused(cells) == (
        f"train.csv: column 'y' holds {readable} in 4 rows: pass label_delimiter={character!r} if it separates labels, "
        f"or multi_label=False if names hold it; the first is train.csv, row {row}: {cells[row - 1]!r}"
    )
    assert refused(cells, multi_label=True).startswith(f"train.csv: column 'y' holds {readable} in 4 rows")
    assert len(names(cells, multi_label=False)) == len(cells)
    assert names(cells, label_delimiter=character) == ("food", "sport", "tech")


@pytest.mark.parametrize("between", [" -> ", " vs ", "%2C", "&#44;", "&amp;", "<br/>"])
def test_names_joined_by_several_characters(between: str) -> None:
    cells = joined(between, alone=True)
    assert refused(cells).startswith(
        f"train.csv: column 'y' holds {between!r} in 4 rows: pass label_delimiter={between!r} if it separates labels"
    )
    assert names(cells, label_delimiter=between) == ("food", "sport", "tech")


@pytest.mark.parametrize(
    "cell", ["<sport, tech>", "sport (ball, other)", "{'a': [sport, tech]}", r"\[sport, tech\]"]
)
def test_a_comma_inside_of_brackets_cuts_no_name(cell: str) -> None:
    cells = ["food", cell, "sport,food"]
    assert refused(cells) == (
        f"train.csv: column 'y' holds ',' inside of brackets in 1 row (train.csv, row 2: {cell!r}); if these are lists, "
        "write them as ['a', 'b'] or a,b; if names hold it, put these in double quotes, or pass multi_label=False where a "
        "cell is one name; or pass label_delimiter=',' if it separates labels inside of brackets, too (rows are counted from 1)"
    )
    assert len(names(cells, label_delimiter=",")) == 4
    assert len(names(cells, multi_label=False)) == 3
    assert set(names(["food", f'"{cell}",sport'])) == {"food", "sport", cell}


@pytest.mark.parametrize("between", [",", "|", " / "])
def test_names_joined_inside_of_lists(between: str) -> None:
    lists = [[], ["a"], [f"a{between}b"], ["b"], [f"b{between}c"], ["c"]]
    data = Source(pa.table({"y": lists}), (("train.csv", len(lists)),))
    with pytest.raises(DataError) as caught:
        infer_format(data, "y")
    assert str(caught.value) == (
        f"train.csv: no list in column 'y' holds several names, and 2 rows have names joined by {between.strip()!r} "
        f"(train.csv, row 3: {lists[2][0]!r}); write each name by itself, such as ['a', 'b'], or pass labels=[...] if names "
        "hold it (rows are counted from 1)"
    )
    several = Source(pa.table({"y": [*lists, ["a", "b"]]}), (("train.csv", 7),))
    assert len(infer_format(several, "y").label_set.names) == 5


@pytest.mark.parametrize(
    "cells",
    [
        ["New York", "Paris", "London"],
        ["science/tech", "politics", "science"],
        ["rock and roll", "rock", "pop"],
        ["red", "wine", "red wine", "beer", "cheese", "bread"],
        ["C#", "C++", "C", "F#"],
        ["1", "2", "1.2", "1-2", "1:2"],
        ["pos/low", "pos/high", "pos/mid", "neg/low", "neg/high", "neg/mid"],
        ["Home & Garden", "Home", "Arts & Entertainment"],
        ["card_arrival", "card_linking", "lost_card", "card_lost_or_stolen"],
        ["sci.space", "sci.med", "talk.politics.misc", "talk.politics.guns"],
    ],
)
def test_ordinary_names_hold_spaces_and_slashes(cells: list[str]) -> None:
    assert set(names(cells)) == set(cells)


@pytest.mark.parametrize("other", [";", "|", "#", "\n", "、"])
def test_commas_in_some_rows_and_another_delimiter_in_others(other: str) -> None:
    cells = ["sport", "sport, tech", f"sport{other} tech{other} food", f"tech{other} food", "food", "tech"]
    for options in ({}, {"label_delimiter": ","}):
        message = refused(cells, **options)
        assert message.startswith("train.csv: column 'y' holds ',' in 1 row and ")
        assert (
            f" in 2 rows without it (train.csv, row 3: {cells[2]!r}); write one of them in every row, "
            in message
        )
        assert (
            f"in pandas: frame['y'] = frame['y'].str.replace({other!r}, ','), or pass labels=[...] if"
            in message
        )
    message = refused(cells, label_delimiter=other)  # what the sentence must not lead to
    assert "and ',' in 1 row without it (train.csv, row 2: 'sport, tech')" in message


def test_a_space_in_some_rows_may_be_part_of_names() -> None:
    cells = ["red, wine", "red wine", "wine red", "red"]
    assert refused(cells).endswith("or pass label_delimiter=',' if names hold a space")
    assert names(cells, label_delimiter=",") == ("red", "red wine", "wine", "wine red")


def test_a_delimiter_that_no_cell_holds() -> None:
    assert refused(["a,b", "a", "b"], label_delimiter=";") == (
        "train.csv: column 'y' holds ',' in 1 row: pass label_delimiter=',' if it separates labels, or labels=[...] if "
        "names hold it; the first is train.csv, row 1: 'a,b'"
    )
    assert names(["a#b", "a", "b"], label_delimiter=",") == ("a", "a#b", "b")


@pytest.mark.parametrize(
    ("cells", "typed", "found"),
    [
        (["a\nb", "b"], r"\n", ("a", "b")),
        (["a\tb", "b"], r"\t", ("a", "b")),
        (["a\\nb", "b"], r"\n", ("a", "b")),
        (["a, b", "b"], ", ", ("a", "b")),
        (["1,2-diol, benzene", "benzene"], ", ", ("1,2-diol", "benzene")),
        (["a | b", "b |", "| a"], " | ", ("a", "b")),
        (["a  b", "b"], " ", ("a", "b")),
    ],
)
def test_delimiters_as_they_are_typed(cells: list[str], typed: str, found: tuple[str, ...]) -> None:
    target_format = infer_format(source(cells), "y", label_delimiter=typed)
    assert target_format.label_set.names == found
    assert encode_targets(target_format, source(cells), "y").toarray()[0].tolist() == [1, 1]


def test_known_names_in_another_split() -> None:
    target_format = infer_format(source(["a,b", "a", "c"]), "y")
    with pytest.raises(
        DataError, match=r"add them to labels=\[...\], pass label_delimiter='#' if it separates"
    ):
        encode_targets(target_format, source(["a#c", "b"]), "y")
    assert joins_known_names(pa.array(["0 2"]), ["a", "b", "c"]) == " "
    assert joins_known_names(pa.array(["x y"]), ["a", "b", "c"]) is None
