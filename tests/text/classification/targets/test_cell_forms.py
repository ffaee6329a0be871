"""Which form a cell of text has."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash.text.classification.targets.cell_forms import LONGEST, Cell, parse_cell

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(names=st.lists(NAMES, max_size=5))
def test_what_python_json_and_numpy_write_is_read_back(names: list[str]) -> None:
    for text in (repr(names), json.dumps(names), json.dumps(names, ensure_ascii=False), f"  {names}\n"):
        assert parse_cell(text)[:2] == ("list", tuple(names))
    array = np.array(names, object)
    for text in (str(array), repr(array), repr(tuple(names)), repr({names[0]}) if names else "set()"):
        read = parse_cell(text)
        assert read.form == "list"
        assert set(read.values) == set(names[:1] if text.startswith(("{", "set")) else names)


@given(
    numbers=st.lists(
        st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False), max_size=5
    )
)
def test_numbers_are_read_back(numbers: list[float]) -> None:
    assert parse_cell(repr(numbers))[:2] == ("list", tuple(numbers))
    assert parse_cell(json.dumps(numbers))[:2] == ("list", tuple(numbers))


@given(text=st.text(st.sampled_from("[](){}'\"<>\\,. a0\n:u-"), max_size=12))
def test_any_text_has_a_form(text: str) -> None:
    assert isinstance(parse_cell(text), Cell)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("['a' 'b'\n 'c']", ("a", "b", "c")),
        ("{'a'}", ("a",)),
        ("('a',)", ("a",)),
        ("frozenset({'a', 'b'})", ("a", "b")),
        ("array(['a', 'b'], dtype='<U1')", ("a", "b")),
        ("array([], dtype=object)", ()),
        ("np.array(['a'])", ("a",)),
        ("[np.str_('a'), np.str_(\"b\")]", ("a", "b")),
        ("Index(['a'], dtype='object')", ("a",)),
        ("tensor([0, 1])", (0, 1)),
        ("[0 1 0]", (0, 1, 0)),
        ("[0. 1. 0.]", (0.0, 1.0, 0.0)),
        ("[True, false]", (True, False)),
        ("[u'a', None, nan]", ("a", None, None)),
        ('["caf\\u00e9", "a\\/b"]', ("café", "a/b")),
        (r"['it\'s', '\\']", ("it's", "\\")),
        ("'a', 'b'", ("a", "b")),
        (r"[b'a', b'caf\xc3\xa9']", ("a", "caf\u00e9")),
        ("b'a'", ("a",)),
        ("b''", ()),
        (json.dumps(json.dumps(["a", "b"])), ("a", "b")),
        ("[]", ()),
        ("{}", ()),
        ("( )", ()),
    ],
)
def test_lists(text: str, values: tuple[Any, ...]) -> None:
    read = parse_cell(text)
    assert (read.form, read.values) == ("list", values)
    assert list(map(type, read.values)) == list(map(type, values))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"choices": ["a", "b"]}', "choices"),
        ("{'choices': ['a']}", "choices"),
        ("<a><b>", "tags"),
        ("<http://a/b> <http://c>", "tags"),
        ("[a][b]", "tags"),
        ("[a, b]", "unquoted"),
        ("{New York,b}", "unquoted"),
        ("[007]", "unquoted"),
        ("[1.5.2]", "unquoted"),
        ("[{'id': 28, 'name': 'Action'}]", "objects"),
        ("{'a': 1}", "object"),
        ("{a: 1}", "object"),
        ("[['a'], ['b']]", "nested"),
        ("[[0, 1]]", "nested"),
        ("[" * 40_000 + "]" * 10_000, "nested"),
        ("['a' ... 'b']", "cut"),
        ("['it's', 'b']", "broken"),
        ("['a''b']", "broken"),
        (r"['\x']", "broken"),
        (r'["\ud800"]', "broken"),
        (r"[b'\xff']", "unquoted"),
        ('"[a], b"', "plain"),
        ('"[a" b]"', "plain"),
        ("[" + r"\'" * 20_000 + "]", "unquoted"),
        ("['" + r"\'" * 20_000 + "]", "broken"),
        (r"'" + r"\'" * 20_000, "plain"),
        ("['" + "a" * LONGEST + "']", "long"),
        ("nan", "missing"),
        ("<NA>", "missing"),
        ("[x]|[y]", "plain"),
        ("[a] and [b]", "plain"),
        ("(1)", "plain"),
        ("'tis", "plain"),
        ("it's", "plain"),
        ("__import__('os').abort()", "plain"),
        ("['a', __import__('os')]", "broken"),
        ("", "plain"),
    ],
)
def test_other_forms(text: str, form: str) -> None:
    assert parse_cell(text).form == form
