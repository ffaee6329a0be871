"""Sheets of Excel, written here as the smallest archives that are one."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from flash.core.errors import DataError, MissingExtraError
from flash.text.classification.predict_files.blocks import Dialect, read_blocks
from flash.text.classification.reading import excel
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


# ---- other formats ------------------------------------------------------------------------------------------------

OASIS = "urn:oasis:names:tc:opendocument:xmlns"


def write_ods(path: Path, name: str, rows: list[list[Cell]]) -> None:
    """The XML of LibreOffice."""

    def cell(value: Cell) -> str:
        if value is None:
            return "<table:table-cell/>"
        if isinstance(value, bool):
            return (
                f'<table:table-cell office:value-type="boolean" office:boolean-value="{str(value).lower()}"/>'
            )
        if isinstance(value, float | int):
            return f'<table:table-cell office:value-type="float" office:value="{value}"/>'
        return f'<table:table-cell office:value-type="string"><text:p>{escape(value)}</text:p></table:table-cell>'

    cells = "".join(f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in rows)
    spaces = "".join(f' xmlns:{space}="{OASIS}:{space}:1.0"' for space in ("office", "table", "text"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", f'<m:manifest xmlns:m="{OASIS}:manifest:1.0"/>')
        archive.writestr(
            "content.xml",
            f"<office:document-content{spaces}><office:body><office:spreadsheet>"
            f'<table:table table:name="{name}">{cells}</table:table>'
            "</office:spreadsheet></office:body></office:document-content>",
        )


def write_xlsb(path: Path, name: str, rows: list[list[Cell]]) -> None:
    """The records of Excel's binary workbook."""

    def record(kind: int, data: bytes = b"") -> bytes:
        size = len(data)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return (bytes([kind]) if kind < 128 else bytes([kind & 255, kind >> 8])) + length + data

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value)) + value.encode("utf-16-le")

    def cell(column: int, value: Cell) -> bytes:
        place = struct.pack("<II", column, 0)
        if value is None:
            return record(1, place)
        if isinstance(value, bool):
            return record(4, place + bytes([value]))
        if isinstance(value, float | int):
            return record(5, place + struct.pack("<d", value))
        return record(6, place + text(value))

    sheet = record(0x0194, struct.pack("<IIII", 0, len(rows) - 1, 0, len(rows[0]) - 1)) + record(0x0191)
    for number, row in enumerate(rows):
        sheet += record(0, struct.pack("<IIHHBI", number, 0, 0, 0, 0, 0))
        sheet += b"".join(cell(column, value) for column, value in enumerate(row))
    book = (
        record(0x019C, struct.pack("<II", 0, 1) + text("r1") + text(name)) + record(0x0190) + record(0x0184)
    )
    link = f'<Relationship Id="r1" Type="{RELATION}/worksheet" Target="worksheets/sheet1.bin"/>'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{PACKAGE}/content-types"/>')
        archive.writestr("xl/workbook.bin", book)
        archive.writestr(
            "xl/_rels/workbook.bin.rels",
            f'<Relationships xmlns="{PACKAGE}/relationships">{link}</Relationships>',
        )
        archive.writestr("xl/worksheets/sheet1.bin", sheet + record(0x0192))


def write_xls(path: Path, name: str, rows: list[list[Cell]]) -> None:
    """The records of Excel 97, in a compound file."""

    def record(kind: int, data: bytes = b"") -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def cell(row: int, column: int, value: Cell) -> bytes:
        place = struct.pack("<HHH", row, column, 0)
        if value is None:
            return record(0x0201, place)
        if isinstance(value, bool):
            return record(0x0205, place + bytes([value, 0]))
        if isinstance(value, float | int):
            return record(0x0203, place + struct.pack("<d", value))
        return record(0x0204, place + struct.pack("<HB", len(value), 1) + value.encode("utf-16-le"))

    begin = record(0x0809, struct.pack("<HHHHII", 0x0600, 5, 0, 0, 0, 0))
    title = struct.pack("<BB", len(name), 0) + name.encode("latin-1")
    start = len(begin) + 4 + 6 + len(title) + 4
    stream = begin + record(0x0085, struct.pack("<IBB", start, 0, 0) + title) + record(0x000A)
    stream += record(0x0809, struct.pack("<HHHHII", 0x0600, 0x10, 0, 0, 0, 0))
    stream += b"".join(cell(r, c, v) for r, row in enumerate(rows) for c, v in enumerate(row)) + record(
        0x000A
    )
    stream = stream.ljust(4096, b"\0").ljust(-(-len(stream) // 512) * 512, b"\0")
    count = len(stream) // 512
    # a compound file: header, the table of sectors, the directory, then the stream's sectors
    end, free, table = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
    header = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16) + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<IIIIIIIIII", 0, 1, 1, 0, 4096, end, 0, end, 0, 0) + struct.pack("<I", free) * 108
    sectors = [table, end, *range(3, 2 + count), end]
    fat = struct.pack(f"<{len(sectors)}I", *sectors).ljust(512, b"\xff")

    def entry(title: str, kind: int, child: int, first: int, size: int) -> bytes:
        encoded = title.encode("utf-16-le") + b"\0\0"
        links = struct.pack("<HBBIII", len(encoded), kind, 1, free, free, child)
        return encoded.ljust(64, b"\0") + links + bytes(36) + struct.pack("<IQ", first, size)

    directory = entry("Root Entry", 5, 1, end, 0) + entry("Workbook", 2, free, 2, len(stream))
    path.write_bytes(header + fat + directory.ljust(512, b"\0") + stream)


@pytest.mark.parametrize(("ending", "write"), [("ods", write_ods), ("xlsb", write_xlsb), ("xls", write_xls)])
def test_sheets_of_other_formats(ending: str, write: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, "comments", [["text", "toxic", "score"], ["a & b", 1.0, 0.5], ["é", True, None]])
    expected = {"text": ["a & b", "é"], "toxic": ["1", "TRUE"], "score": ["0.5", ""]}
    assert read_csv(path).table.to_pydict() == expected
    assert [block.table.to_pydict() for block in read_blocks(path, "excel")] == [expected]
    with pytest.raises(DataError, match="unknown sheet 'other'. Known: comments"):
        read_csv(path, sheet="other")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        DataError, match=f"a.{ending} cannot be read as an Excel file: .*; save it again, or as CSV"
    ):
        read_csv(path)
