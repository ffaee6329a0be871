"""Make Arrow arrays from NumPy and Python values through buffers.

`pa.array` and `pa.scalar` import pandas, if installed, to check for its types; that import takes longer than a small
prediction. Imports nothing of the project.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def floats(values: npt.NDArray[np.float32]) -> pa.FloatArray:
    """A column of float32."""
    return pa.FloatArray.from_buffers(
        pa.float32(), len(values), [None, pa.py_buffer(_whole(values, np.float32))]
    )


def texts(values: Sequence[str]) -> pa.StringArray:
    """A column of strings, less than 2 GB in total."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)])
    return pa.StringArray.from_buffers(
        len(encoded), pa.py_buffer(_whole(ends, np.int32)), pa.py_buffer(b"".join(encoded))
    )


def text(value: str) -> pa.StringScalar:
    """One string."""
    return texts([value])[0]


def lists(values: pa.StringArray, rows: npt.ArrayLike, columns: npt.ArrayLike, count: int) -> pa.ListArray:
    """One list for each of `count` rows; `values[columns[i]]` goes into the list of row `rows[i]`; `rows` must ascend."""
    ends = np.cumsum(np.bincount(np.asarray(rows, np.int64), minlength=count))
    return pa.ListArray.from_arrays(_integers(np.concatenate([[0], ends])), values.take(_integers(columns)))


def taken(values: pa.StringArray, columns: npt.ArrayLike) -> pa.StringArray:
    """`values[columns[i]]` for each i."""
    return values.take(_integers(columns))


def _integers(values: npt.ArrayLike) -> pa.Int32Array:
    whole = _whole(values, np.int32)
    return pa.Int32Array.from_buffers(pa.int32(), len(whole), [None, pa.py_buffer(whole)])


def _whole(values: npt.ArrayLike, kind: type[np.generic]) -> npt.NDArray[np.generic]:
    return np.ascontiguousarray(values, kind)
