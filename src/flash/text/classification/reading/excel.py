"""Read sheets of Excel and LibreOffice, with python-calamine (the extra `excel`), into tables of text, like CSV.

Whole numbers become text without a decimal point (1, not 1.0), dates become 2024-01-31, booleans TRUE and FALSE.
"""

import io
from collections.abc import Collection, Iterable
from datetime import datetime, time
from typing import Any

import pyarrow as pa

from flash.core.errors import DataError, unknown_name
from flash.core.extras import require
from flash.text.classification.reading.layout import TITLE_LINES, check_header, refuse_title
from flash.text.classification.reading.source import check_columns

EXCEL = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
"""File endings of spreadsheets."""


def read_sheet(
    name: str,
    content: bytes,
    sheet: str | None = None,
    *,
    columns: Iterable[str] | None = None,
    column_names: Iterable[str] | None = None,
    known: Collection[str] = (),
) -> pa.Table:
    """Read one sheet as a table of text; an empty cell is an empty text.

    Args:
        name: the file's name in messages.
        content: the file's bytes.
        sheet: the sheet's name; None for the first.
        columns: the columns to read; None for all.
        column_names: names of the columns, in order, of a sheet without a header.
        known: names that distinguish a header from a row if `columns` is None.

    Raises:
        DataError: the file has another format or a password, or there is no such sheet, no such column, or no row.
        MissingExtraError: python-calamine is not installed.
    """
    rows = _rows(name, content, sheet)
    wanted = None if columns is None else list(columns)
    while rows and not any(rows[-1]):  # drop empty rows at the end
        rows.pop()
    if not rows:
        raise DataError(f"{name} has no rows in the sheet; pass sheet= and the name of the right one")
    if column_names is None:
        if not {*(wanted or ()), *known} & set(rows[0]):
            start = [
                (number, ", ".join(filter(None, row)), row)
                for number, row in enumerate(rows[:TITLE_LINES], 1)
            ]
            refuse_title(name, start, wanted, known, place="row")
        check_header(name, rows[0], rows[:50], wanted, known)
    names = rows.pop(0) if column_names is None else list(column_names)
    if rows and len(names) != len(rows[0]):
        raise DataError(
            f"{name}: column_names= holds {len(names)} names, but the sheet has {len(rows[0])} columns"
        )
    kept = check_columns(names, wanted, name)
    cells = zip(*rows, strict=True) if rows else [()] * len(names)
    table = {column: values for column, values in zip(names, cells, strict=True) if column in kept}
    return pa.table({column: pa.array(table[column], pa.large_string()) for column in kept})


def _rows(name: str, content: bytes, sheet: str | None) -> list[list[str]]:
    calamine = require("python_calamine", "excel")
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
        if sheet is not None and sheet not in book.sheet_names:
            raise DataError(f"{name}: {unknown_name('sheet', sheet, book.sheet_names)}")
        chosen = book.get_sheet_by_index(0) if sheet is None else book.get_sheet_by_name(sheet)
        return [[_as_text(cell) for cell in row] for row in chosen.to_python()]
    except calamine.PasswordError as error:
        raise DataError(f"{name} is locked by a password; save it without one") from error
    except calamine.CalamineError as error:
        raise DataError(
            f"{name} cannot be read as an Excel file: {error}; save it again, or as CSV"
        ) from error


def _as_text(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(" ")
    return str(cell)
