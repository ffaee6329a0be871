"""Convert columns of lists written as text, such as `['a', 'b']`, to columns of lists.

The form of all cells of a column is decided once, for every split, before cells are split by a delimiter. Cells with
different forms, or with a form that cannot be read, are an error that names the rows and says what to write instead.
"""

import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flash.core.errors import DataError
from flash.text.classification.reading.mistakes import count_rows
from flash.text.classification.reading.source import Source, plain_column
from flash.text.classification.targets.cell_forms import LONGEST, SUSPICIOUS, Cell, Form, Value, parse_cell
from flash.text.classification.targets.labels import is_text, split_cell

Reading: TypeAlias = Literal["text", "lists", "choices", "tags", "inside", "vectors"]
"""How the cells of a column are read: `text` unchanged; `inside` by splitting what is inside the brackets."""

STRANGE: tuple[Form, ...] = ("objects", "object", "nested", "cut", "broken", "long")
LONGEST_SHOWN = 60  # characters of a cell in a message
_UNIT = r"(?:[01](?:\.[0-9]*)?|\.[0-9]+)"
VECTOR = rf"^\s*{_UNIT}(?:[,;|\s]\s*{_UNIT})+\s*$"
"""A cell such as `0 1 0`, without brackets."""
_HELP: dict[Form, tuple[str, str]] = {
    "objects": (
        "lists of objects written as text",
        "keep the names alone, in pandas: {column}.fillna('[]').map(lambda cell: [item[{key!r}] for item in {load}(cell)])",
    ),
    "object": (
        "objects written as text",
        "make a 0/1 column for each label, in pandas: frame = frame.join(pd.json_normalize("
        "frame[{field!r}].fillna('{{}}').map({load}))), and name these columns as target_fields",
    ),
    "nested": (
        "lists of lists written as text",
        "make one list of each, in pandas: {column}.fillna('[]').map(lambda cell: sum(map(list, {load}(cell)), []))",
    ),
    "cut": (
        "arrays that NumPy wrote with '...' for their middle, which is lost",
        "write the file again from lists, in pandas: {column}.map(list)",
    ),
    "broken": ("lists whose quotes do not pair up", "write them again with json.dumps"),
    "long": (f"lists of more than {LONGEST:,} characters", "write the file as JSON lines or Parquet"),
}
"""For each form: its name in messages, and how to convert it."""


@dataclass(frozen=True)
class _Cells:
    """The distinct cells of a text column, and the index of each row's cell; -1 for a null."""

    source: Source
    field: str
    parsed: list[Cell]
    cells: list[str]
    indices: npt.NDArray[np.int64]

    def having(self, *forms: Form) -> list[int]:
        """Return the indices of the distinct cells with one of these forms, without blank cells."""
        return [index for index, cell in enumerate(self.parsed) if cell.form in forms and cell.text]

    def places(self, chosen: list[int]) -> str:
        """Describe how many rows have one of these cells, and the first of these rows."""
        rows = np.flatnonzero(np.isin(self.indices, chosen))
        cell = self.cells[self.indices[rows[0]]]
        shown = cell if len(cell) <= LONGEST_SHOWN else f"{cell[:LONGEST_SHOWN]}..."
        first = "" if len(rows) == 1 else "the first is "
        return f"{count_rows(len(rows), 'row')} ({self.source.places(rows)}: {first}{shown!r})"


def read_list_cells(
    sources: Mapping[str, Source],
    field: str,
    *,
    multi_label: bool | None = None,
    label_delimiter: str | None = None,
    labels: Collection[str] | None = None,
) -> tuple[dict[str, Source], str | None]:
    """Convert the column `field` of all sources to lists if its cells are lists written as text.

    Args:
        sources: the sources with targets; the first, normally train, decides how all are read.
        field: the target column.
        multi_label: False keeps names in brackets without quotes, such as `[x]`, unchanged.
        label_delimiter: separator of names without quotes inside brackets.
        labels: label names; a cell that is one of these is not a list.

    Returns:
        The sources, and `label_delimiter`, which is None once it has been used.

    Raises:
        DataError: cells with different forms, or with a form that cannot be read.

    Warns:
        UserWarning: cells are read as lists.
    """
    read: dict[str, Source] = {}
    given = frozenset(labels or ())
    reading: Reading = "text"
    for name, source in sources.items():
        cells = _distinct_cells(source, field, reading)
        if cells is None:
            read[name] = source
            continue
        if reading == "text":
            found = _decide(cells, multi_label, label_delimiter, given)
        else:
            found = _follow(cells, reading)
        read[name] = _converted(cells, found, label_delimiter) if found != "text" else source
        if len(read) == 1:
            reading = found
            if reading != "text":
                _announce(cells, reading)
    return read, None if reading == "inside" else label_delimiter


def _distinct_cells(source: Source, field: str, reading: Reading) -> _Cells | None:
    """Parse the distinct cells; None if the column is not text, or if neither its cells nor train's look like lists."""
    column = plain_column(source, field)
    if not is_text(column.type):
        return None
    encoded = column.dictionary_encode()
    distinct = encoded.dictionary
    special = pc.match_substring_regex(distinct, f"{SUSPICIOUS}|{VECTOR}")
    if reading == "text" and not pc.any(special).as_py():
        return None
    cells = distinct.to_pylist()
    indices = np.asarray(pc.fill_null(encoded.indices, -1)).astype(np.int64)
    return _Cells(source, field, [parse_cell(cell) for cell in cells], cells, indices)


# --------------------------------------------------------------------------------------- what they are


def _decide(cells: _Cells, multi_label: bool | None, delimiter: str | None, given: frozenset[str]) -> Reading:
    bracketed = cells.having("list", "choices", "tags", "unquoted", *STRANGE)
    plain = cells.having("plain")
    if {cells.cells[index].strip() for index in bracketed} <= given:
        vectors = multi_label is not False and not given >= {"0", "1"} and _are_vectors(cells, plain)
        return "vectors" if vectors else "text"
    strange = [index for index in bracketed if cells.parsed[index].form in STRANGE]
    if strange and plain:
        _refuse_mixture(cells, strange, plain)
    if strange:
        _refuse_form(cells, strange)
    unquoted = _names_in_brackets(cells, plain)
    lists, choices = cells.having("list"), cells.having("choices")
    if choices:
        return "choices" if not unquoted else _refuse_mixture(cells, unquoted, choices)
    if unquoted:
        return _decide_unquoted(cells, unquoted, plain, multi_label, delimiter)
    if lists and (plain or cells.having("tags")):
        _refuse_mixture(cells, lists, plain or cells.having("tags"))
    return "lists" if lists else _decide_tags(cells, plain, given)


def _names_in_brackets(cells: _Cells, plain: list[int]) -> list[int]:
    """Return cells such as `[a, b]` and `{a,b}`; `(a, b)` is included only if every cell has this form."""
    unquoted = cells.having("unquoted")
    round_ones = {index for index in unquoted if cells.cells[index].strip().startswith("(")}
    if round_ones and (plain or not any("," in cells.parsed[index].text for index in round_ones)):
        return [index for index in unquoted if index not in round_ones]
    return unquoted


def _decide_unquoted(
    cells: _Cells, unquoted: list[int], plain: list[int], multi_label: bool | None, delimiter: str | None
) -> Reading:
    quoted = [
        index
        for index in cells.having("list")
        if any(isinstance(value, str) for value in cells.parsed[index].values)
    ]
    tags = cells.having("tags")
    if tags and not plain and all(cells.cells[index].strip().startswith("[") for index in [*tags, *unquoted]):
        return "tags"  # `[a]` beside `[a][b]`
    others = quoted or plain or tags
    inside = {cells.parsed[index].text.strip() for index in unquoted}
    if others:
        names = {cells.parsed[index].text for index in others}
        separated = any((delimiter or ",") in text for text in inside)
        if multi_label is not False and (quoted or separated or inside & names):
            _refuse_mixture(cells, unquoted, others)
        _warn_of_brackets(cells, unquoted)
        return "text"
    if delimiter is not None:
        return "inside"
    if multi_label is False:
        return "text"
    found = next((other for other in (",", ";", "|", " ") if any(other in text for text in inside)), ",")
    raise DataError(
        f"{cells.source.name}: column {cells.field!r} holds names in brackets without quotes in "
        f"{cells.places(unquoted)}: pass label_delimiter={found!r} if the brackets enclose lists of names, or "
        f"multi_label=False if they belong to the names ({cells.source.counting})"
    )


def _decide_tags(cells: _Cells, plain: list[int], given: frozenset[str]) -> Reading:
    """Read `<a><b>` as a list; if no cell has two tags, they may be ordinary names."""
    tags = cells.having("tags")
    several = [index for index in tags if len(cells.parsed[index].values) > 1]
    if several and plain:
        _refuse_mixture(cells, several, plain)
    known = any(given.issuperset(cells.parsed[index].values) for index in tags)
    return "tags" if several or (known and not plain) else "text"


def _are_vectors(cells: _Cells, plain: list[int]) -> bool:
    """Whether the cells are like `0 1 0`, without brackets, and all of one width."""
    if not plain or not all(re.match(VECTOR, cells.cells[index]) for index in plain):
        return False
    return len({len(_numbers(cells.cells[index])) for index in plain}) == 1


def _follow(cells: _Cells, reading: Reading) -> Reading:
    """Check that another split's cells have the forms that train's reading allows."""
    forms: dict[Reading, tuple[Form, ...]] = {
        "lists": ("list", "choices"),
        "choices": ("list", "choices", "plain"),
        "tags": ("tags", "unquoted"),
        "inside": ("unquoted", "list"),
        "vectors": ("list",),
    }
    other = [
        index
        for index in range(len(cells.cells))
        if cells.parsed[index].text and cells.parsed[index].form not in (*forms[reading], "missing")
    ]
    if reading == "vectors":
        other = [index for index in other if not re.match(VECTOR, cells.cells[index])]
    if other:
        raise DataError(
            f"{cells.source.name}: column {cells.field!r} holds other cells than lists in {cells.places(other)}, but "
            f"the training rows hold lists written as text; write every cell as they do ({cells.source.counting})"
        )
    return reading


# --------------------------------------------------------------------------------- what they become


def _converted(cells: _Cells, reading: Reading, delimiter: str | None) -> Source:
    values = [
        _values(cell, text, reading, delimiter) for cell, text in zip(cells.parsed, cells.cells, strict=True)
    ]
    _one_type(cells, values)
    lists = pa.array(values, _list_type(values))
    indices = pa.array(cells.indices, mask=cells.indices < 0)
    position = cells.source.table.column_names.index(cells.field)
    return replace(
        cells.source, table=cells.source.table.set_column(position, cells.field, lists.take(indices))
    )


def _values(cell: Cell, text: str, reading: Reading, delimiter: str | None) -> list[Value] | None:
    if not cell.text:
        return []
    if cell.form == "missing":
        return None
    if reading == "inside":
        inside = cell.text if cell.form == "unquoted" else cell.text[1:-1]
        return [name for name in split_cell(inside, str(delimiter)) if name]
    if reading == "vectors" and cell.form == "plain":
        return list(_numbers(text))
    return [cell.text.strip()] if cell.form in ("plain", "unquoted") else list(cell.values)


def _numbers(text: str) -> list[Value]:
    words = re.findall(_UNIT, text)
    return [float(word) if "." in word else int(word) for word in words]


def _list_type(values: list[list[Value] | None]) -> pa.DataType:
    kinds = {type(value) for row in values for value in row or [] if value is not None}
    if str in kinds:
        return pa.list_(pa.large_string())
    if float in kinds:
        return pa.list_(pa.float64())
    if kinds == {bool}:
        return pa.list_(pa.bool_())
    return pa.list_(pa.int64() if kinds else pa.null())


def _one_type(cells: _Cells, values: list[list[Value] | None]) -> None:
    """Raise DataError if a column's lists contain both names and numbers."""
    text, numbers = [], []
    for index, row in enumerate(values):
        kinds = {isinstance(value, str) for value in row or [] if value is not None}
        text += [index] * (True in kinds)
        numbers += [index] * (False in kinds)
    if text and numbers:
        raise DataError(
            f"{cells.source.name}: the lists in column {cells.field!r} hold names in {cells.places(text)} and "
            f"numbers in {cells.places(numbers)}; put numbers that are names in quotes ({cells.source.counting})"
        )


# ------------------------------------------------------------------------------------- what is said


def _announce(cells: _Cells, reading: Reading) -> None:
    chosen = [index for index, cell in enumerate(cells.parsed) if cell.form not in ("plain", "missing")]
    chosen = cells.having("choices") or [index for index in chosen if cells.parsed[index].values] or chosen
    kind = "vectors" if reading == "vectors" else "lists"
    warnings.warn(
        f"{cells.source.name}: column {cells.field!r} holds {kind} written as text in "
        f"{cells.places(chosen or cells.having('plain'))}, which are read as {kind}",
        UserWarning,
        stacklevel=6,
    )


def _warn_of_brackets(cells: _Cells, unquoted: list[int]) -> None:
    warnings.warn(
        f"{cells.source.name}: column {cells.field!r} holds a name in brackets in {cells.places(unquoted)}, which stays as it "
        "is; correct the cells unless this is meant",
        UserWarning,
        stacklevel=8,
    )


def _refuse_mixture(cells: _Cells, lists: list[int], others: list[int]) -> NoReturn:
    words = "plain names" if cells.parsed[others[0]].form == "plain" else "other lists"
    raise DataError(
        f"{cells.source.name}: column {cells.field!r} holds what looks like a list in {cells.places(lists)} and "
        f"{words} in {cells.places(others)}; write every cell in one form, such as ['a', 'b'] in all, or a,b in all "
        f"({cells.source.counting})"
    )


def _refuse_form(cells: _Cells, strange: list[int]) -> NoReturn:
    cell = cells.parsed[strange[0]]
    chosen = [index for index in strange if cells.parsed[index].form == cell.form]
    words, help_ = _HELP[cell.form]
    keys = re.findall(r"""['"]?(\w+)['"]?\s*:\s*['"]""", cell.text[:1000])  # quadratic in time
    preferred = [key for key in keys if key in ("name", "label", "value", "text", "title")]
    load = "json.loads" if '"' in cell.text and "'" not in cell.text else "ast.literal_eval"
    column = f"frame[{cells.field!r}] = frame[{cells.field!r}]"
    key = (preferred or keys or ["name"])[0]
    of_lists = re.match(r"""\{\s*['"]?(\w+)['"]?\s*:\s*\[""", cell.text[:1000])  # quadratic in time
    if of_lists:
        help_, key = (
            "keep the list alone, in pandas: {column}.dropna().map(lambda cell: {load}(cell)[{key!r}])",
            of_lists[1],
        )
    advice = help_.format(column=column, field=cells.field, key=key, load=load)
    raise DataError(
        f"{cells.source.name}: column {cells.field!r} holds {words} in {cells.places(chosen)}; {advice} "
        f"({cells.source.counting})"
    )
