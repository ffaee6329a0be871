"""Sheets of Excel, written here as the smallest archives that are one."""

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from flash.core.errors import DataError, MissingExtraError
from flash.text.classification.reading import excel
from flash.text.classification.reading.blocks import Dialect, read_blocks
from flash.text.classification.reading.csv import read_csv

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
Cell = str | float | bool | None


def write_sheets(path: Path, sheets: dict[str, list[list[Cell]]]) -> Path:
    names = "".join(f'<sheet name="{name}" sheetId="{i}" r:id="r{i}"/>' for i, name in enumerate(sheets, 1))
    relations = "".join(
        f'<Relationship Id="r{i}" Type="{RELATION}/worksheet" Target="worksheets/sheet{i}.xml"/>'
        for i in range(1, len(sheets) + 1)
    )
    start = f'<Relationship Id="r0" Type="{RELATION}/officeDocument" Target="xl/workbook.xml"/>'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{PACKAGE}/content-types"/>')
        archive.writestr(
            "_rels/.rels", f'<Relationships xmlns="{PACKAGE}/relationships">{start}</Relationships>'
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{MAIN}" xmlns:r="{RELATION}"><sheets>{names}</sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{PACKAGE}/relationships">{relations}</Relationships>',
        )
        for number, rows in enumerate(sheets.values(), 1):
            data = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
            archive.writestr(
                f"xl/worksheets/sheet{number}.xml",
                f'<worksheet xmlns="{MAIN}"><sheetData>{data}</sheetData></worksheet>',
            )
    return path


def _cell(value: Cell) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, bool):
        return f'<c t="b"><v>{int(value)}</v></c>'
    if isinstance(value, float | int):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'


SHEETS: dict[str, list[list[Cell]]] = {
    "comments": [["text", "toxic", "score"], ["a & b", 1.0, 0.5], ["c", True, None], [None, None, None]],
    "other": [["text"], ["z"]],
}


def test_a_sheet_as_text(tmp_path: Path) -> None:
    path = write_sheets(tmp_path / "a.xlsx", SHEETS)
    expected = {"text": ["a & b", "c"], "toxic": ["1", "TRUE"], "score": ["0.5", ""]}
    assert read_csv(path).table.to_pydict() == expected
    assert read_csv(path, columns=["toxic"]).table.to_pydict() == {"toxic": expected["toxic"]}
    assert [block.table.to_pydict() for block in read_blocks(path, "excel")] == [expected]


def test_the_sheet_that_was_asked_for(tmp_path: Path) -> None:
    path = write_sheets(tmp_path / "a.xlsx", SHEETS)
    assert read_csv(path, sheet="other").table.to_pydict() == {"text": ["z"]}
    assert [block.table.to_pydict() for block in read_blocks(path, "excel", Dialect(sheet="other"))] == [
        {"text": ["z"]}
    ]
    with pytest.raises(
        DataError,
        match="unknown sheet 'othr'; did you mean 'other'? Known: comments, other".replace("?", r"\?"),
    ):
        read_csv(path, sheet="othr")


def test_sheets_without_rows_or_header(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="has no rows in the sheet; pass sheet= and the name of the right one"
    ):
        read_csv(write_sheets(tmp_path / "a.xlsx", {"empty": []}))
    path = write_sheets(tmp_path / "b.xlsx", {"rows": [["a", "x"], ["b", "x"]]})
    with pytest.raises(DataError, match="looks like it has no header: there is no column 'text'"):
        read_csv(path, columns=["text", "labels"])
    table = read_csv(path, columns=["text"], column_names=["text", "labels"]).table
    assert table.to_pydict() == {"text": ["a", "b"]}
    with pytest.raises(DataError, match="column_names= holds 1 names, but the sheet has 2 columns"):
        read_csv(path, column_names=["text"])


def test_files_that_are_not_excels(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_text("text,labels\na,x\n")
    with pytest.raises(
        DataError, match="a.xlsx cannot be read as an Excel file: .*; save it again, or as CSV"
    ):
        read_csv(path)
    renamed = write_sheets(tmp_path / "a.csv", SHEETS)
    for read in (read_csv, lambda path: list(read_blocks(path, "csv"))):
        with pytest.raises(
            DataError, match="a.csv is an Excel file: give its name the ending .xlsx, or save it as CSV"
        ):
            read(renamed)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        raise MissingExtraError(f"needs {module} ({extra})")

    monkeypatch.setattr(excel, "require", absent)
    with pytest.raises(MissingExtraError, match=r"needs python_calamine \(excel\)"):
        read_csv(write_sheets(tmp_path / "a.xlsx", SHEETS))


def test_the_header_below_a_title_is_named(tmp_path: Path) -> None:
    rows: list[list[Cell]] = [["Comments", ""], ["text", "labels"], ["a", "x"]]
    with pytest.raises(DataError) as error:
        read_csv(write_sheets(tmp_path / "a.xlsx", {"rows": rows}), columns=["text", "labels"])
    words = "a.xlsx: row 2 looks like the header ('text, labels'), and not the first row ('Comments'); delete the row above"
    assert words in str(error.value)
