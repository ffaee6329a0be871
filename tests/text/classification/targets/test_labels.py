import pytest
from hypothesis import given
from hypothesis import strategies as st

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
