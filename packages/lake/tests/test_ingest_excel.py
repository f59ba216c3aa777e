"""Excel workbooks: the sheet is read as a CSV file of the same values would be."""

# ruff: noqa: DTZ001 - Excel has no time zones

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from typing import Any

import openpyxl
import pytest

from sennit_core.errors import BadInput, SennitError, TooLarge, UsageError

from .conftest import Encode


def book(
    *sheets: Sequence[Sequence[Any]], change: Callable[[Any], object] = lambda _: None
) -> bytes:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for index, rows in enumerate(sheets):
        sheet = made.create_sheet(f"Sheet {index + 1}")
        for row in rows:
            sheet.append(row)
    change(made)
    data = io.BytesIO()
    made.save(data)
    return data.getvalue()


TABLE: list[list[Any]] = [
    ["id", "code", "price", "day", "at", "ok", "note"],
    [1, "007", 1.5, date(2024, 1, 2), datetime(2024, 1, 2, 3, 4, 5), True, "x, y"],
    [2, "010", 2, date(2024, 1, 3), datetime(2024, 1, 3), False, 'say "hi"\nyou'],
    [3, None, None, None, None, None, "NA"],
]


def test_cells_have_the_types_of_the_same_csv(encode: Encode) -> None:
    found = encode(book(TABLE), "t.xlsx")

    assert found.types == {
        "id": "Int64", "code": "Utf8", "price": "Float64", "day": "Date",
        "at": "Timestamp(us)", "ok": "Bool", "note": "Utf8",
    }  # fmt: skip
    assert found.table.to_pylist()[0] == {
        "id": 1, "code": "007", "price": 1.5, "day": date(2024, 1, 2),
        "at": datetime(2024, 1, 2, 3, 4, 5), "ok": True, "note": "x, y",
    }  # fmt: skip
    assert found.table.column("note")[1].as_py() == 'say "hi"\nyou'
    assert found.source["format"] == "xlsx"
    assert found.source["sheet"] == "Sheet 1"
    assert found.table.column("code").null_count == 1


@pytest.mark.parametrize(("sheet", "value"), [("Sheet 2", 2), (2, 2), (1, 1), (None, 1)])
def test_the_sheet_is_chosen(encode: Encode, sheet: Any, value: int) -> None:
    data = book([["a", "b"], [1, 1]], [["a", "b"], [2, 2]])

    assert encode(data, "t.xlsx", sheet=sheet).table.column("a")[0].as_py() == value


@pytest.mark.parametrize("sheet", ["Sheet 3", 3, 0, -1, True, [1]])
def test_a_sheet_that_is_not_there_is_named(encode: Encode, sheet: Any) -> None:
    with pytest.raises(UsageError, match="sheet"):
        encode(book([["a"], [1]]), "t.xlsx", sheet=sheet)


def test_titles_above_and_empty_rows_and_columns_around_are_left_out(encode: Encode) -> None:
    rows: list[list[Any]] = [
        [],
        [None, "Report"],
        [],
        [None, "a", "b", "c"],
        [None, 1, "x", 2.5],
        [],
    ]
    found = encode(book([*rows, [None, 2, None, None], [], []]), "t.xlsx")

    assert found.table.to_pylist() == [
        {"a": 1, "b": "x", "c": 2.5},
        {"a": 2, "b": None, "c": None},
    ]
    assert found.report["notes"][0]["note"] == "above the table, not read: Report"


def test_errors_are_null_and_counted(encode: Encode) -> None:
    found = encode(book([["a", "b"], [1, "#DIV/0!"], [2, 3], [4, "#REF!"]]), "t.xlsx")

    assert found.table.column("b").to_pylist() == [None, 3, None]
    assert found.report["notes"][0]["note"] == "2 cells with an Excel error are NULL"


def test_a_row_that_is_too_wide_is_named_with_its_row(encode: Encode) -> None:
    rows: list[list[Any]] = [["a", "b"], *[[1, 2]] * 300, [1, 2, 3]]

    with pytest.raises(BadInput, match="3 fields, the header 2") as raised:
        encode(book(rows), "t.xlsx")
    assert raised.value.line == 302


def test_times_and_long_numbers_stay_as_they_are(encode: Encode) -> None:
    found = encode(book([["a", "b"], [time(1, 2, 3), 12345678901234567890]]), "t.xlsx")

    assert found.table.column("a")[0].as_py() == "01:02:03"


def bomb(entry: str, size: int) -> bytes:
    """A workbook with an entry of zeros, which packs to a thousandth."""
    data = io.BytesIO(book([["a"], [1]]))
    with zipfile.ZipFile(data, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, bytes(size))
    return data.getvalue()


def test_a_bomb_is_refused_by_its_declared_size(encode: Encode) -> None:
    with pytest.raises(TooLarge, match="unpacked"):
        encode(bomb("xl/worksheets/sheet9.xml", 300 << 20), "t.xlsx")
    with pytest.raises(TooLarge, match="the texts of"):
        encode(bomb("xl/theme/other.xml", 200 << 20), "t.xlsx")


def test_a_sheet_that_claims_too_many_rows_or_a_false_size_is_bounded(encode: Encode) -> None:
    def sheet_with(text: str) -> bytes:
        source = io.BytesIO(book([["a", "b"], [1, 2]]))
        out = io.BytesIO()
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                if name.startswith("xl/worksheets/"):
                    data = text.encode()
                new.writestr(name, data)
        return out.getvalue()

    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    cells = '<row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row>'
    wide = f'<worksheet {main}><dimension ref="A1:XFD1048576"/><sheetData>{cells}</sheetData></worksheet>'
    assert encode(sheet_with(wide), "t.xlsx").table.num_rows == 1
    far = f'<worksheet {main}><sheetData>{cells}<row r="99999999999"><c><v>1</v></c></row></sheetData></worksheet>'
    with pytest.raises(BadInput, match="1,048,576 rows"):
        encode(sheet_with(far), "t.xlsx")
    lol = (
        f'<!DOCTYPE a [<!ENTITY a "{"x" * 1000}">'
        + "".join(f'<!ENTITY a{i} "{f"&a{i - 1 if i else str()};" * 10}">' for i in range(9))
        + f"]><worksheet {main}><sheetData><row><c t='inlineStr'><is><t>&a8;</t></is></c></row></sheetData></worksheet>"
    )
    with pytest.raises(SennitError):
        encode(sheet_with(lol), "t.xlsx")


@pytest.mark.parametrize("cut", [100, 1000, -50])
def test_a_damaged_workbook_is_refused(encode: Encode, cut: int) -> None:
    with pytest.raises(BadInput):
        encode(book(TABLE)[:cut], "t.xlsx")


def test_an_empty_sheet_is_refused(encode: Encode) -> None:
    with pytest.raises(BadInput, match="the sheet 'Sheet 1' is empty"):
        encode(book([]), "t.xlsx")
