"""Arrow's arrays without pandas: the same as `pa.array` makes."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.text.classification.reading import arrow_values

NAMES = st.lists(st.text(max_size=5), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(st.text()))
def test_texts(values: list[str]) -> None:
    found = arrow_values.texts(values)
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.string()))


@settings(deadline=None)
@given(st.text())
def test_a_text(value: str) -> None:
    assert arrow_values.text(value).equals(pa.scalar(value, pa.string()))


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_floats(values: list[float]) -> None:
    found = arrow_values.floats(np.array(values, np.float32))
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.float32()))


def test_a_column_of_a_matrix() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert arrow_values.floats(matrix[:, 1]).to_pylist() == [1, 3, 5]


@settings(deadline=None)
@given(NAMES, st.data())
def test_lists_and_taken(names: list[str], data: st.DataObject) -> None:
    applies = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=len(names), max_size=len(names)), max_size=5)),
        bool,
    ).reshape(-1, len(names))
    rows, columns = np.nonzero(applies)
    expected = [[name for name, here in zip(names, row, strict=True) if here] for row in applies]
    found = arrow_values.lists(arrow_values.texts(names), rows, columns, len(applies))
    found.validate(full=True)
    assert found.equals(pa.array(expected, pa.list_(pa.string())))
    assert arrow_values.taken(arrow_values.texts(names), columns).to_pylist() == [names[c] for c in columns]


def test_pandas_is_not_imported() -> None:
    pytest.importorskip("pandas")
    program = (
        "import sys, numpy as np\nfrom flash.text.classification.reading import arrow_values as a\n"
        "names = a.texts(['a', 'b'])\na.text('x'), a.floats(np.zeros(2, np.float32)), a.taken(names, [1])\n"
        "a.lists(names, [0, 0], [0, 1], 2)\nprint('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
