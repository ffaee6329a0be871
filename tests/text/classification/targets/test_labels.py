import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text.classification.targets.labels import LabelSet, natural_key, split_cell

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).map(str.strip).filter(bool)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@given(names=st.lists(NAMES, min_size=1, max_size=5))
def test_split_cell_undoes_quoting(names: list[str]) -> None:
    assert split_cell(",".join(map(quoted, names)), ",") == names


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ('"a, b",c', ["a, b", "c"]),
        ('a, "b ""c"" d"', ["a", 'b "c" d']),
        ('5" pipe, x', ['5" pipe', "x"]),
        ('"unclosed, x', ['"unclosed', "x"]),
        ('"a" b, c', ['"a" b', "c"]),
        (',"",', ["", ""]),
    ],
)
def test_cells_with_quotes(cell: str, names: list[str]) -> None:
    assert split_cell(cell, ",") == names


def test_natural_order() -> None:
    names = ["label10", "label2", "b", "10", "9", "a1b10", "a1b9", "007", "7", "B", "9" * 5000, "", "é"]
    assert sorted(names, key=natural_key) == [
        "",
        "007",
        "7",
        "9",
        "10",
        "9" * 5000,
        "B",
        "a1b9",
        "a1b10",
        "b",
        "label2",
        "label10",
        "é",
    ]


def test_a_label_set_knows_its_columns() -> None:
    labels = LabelSet(("x", "y"), True)
    assert (len(labels), labels.index) == (2, {"x": 0, "y": 1})


@pytest.mark.parametrize("names", [(" ",), ("\n",), ("a", "\u3000")])
def test_names_that_are_blank(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="a label name is text and neither empty nor blank, found "):
        LabelSet(names, True)


def test_names_that_differ_by_white_space_at_their_edges() -> None:
    with pytest.raises(DataError) as found:
        LabelSet(("a", "b", "a\n"), True)
    assert str(found.value) == (
        r"the labels 'a' and 'a\n' differ only by white space at their edges; rename one of them"
    )
    assert LabelSet((" a", "b\nc"), True).index == {" a": 0, "b\nc": 1}


def test_many_names_that_are_there_twice() -> None:
    names = tuple(f"label {number}" for number in range(50_000))
    with pytest.raises(DataError, match="label names are there more than once: 'label 0', 'label 1', "):
        LabelSet((*names, *names), True)
