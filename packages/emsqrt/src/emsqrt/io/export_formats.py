"""Format batches as whole files that are written from front to back: Parquet and Excel (.xlsx).

Both end with what makes them readable, Parquet's footer and the directory of a ZIP archive, so a stream
that was aborted is no file. Memory is bounded by one row group, and by one slice of a sheet.
"""

from __future__ import annotations

import re
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from emsqrt.io.cells import text_cells
from emsqrt.io.formats import FormatWriter
from sennit_core.errors import TooLarge, Unsupported

__all__ = ["EXPORT_FORMATS", "ParquetWriter", "XlsxWriter"]

_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 122_880
_SHEET_ROWS_MAX, _SHEET_COLUMNS_MAX, _CELL_CHARACTERS_MAX = 1_048_576, 16_384, 32_767  # of Excel
# Excel does not open sheets that need ZIP's 64-bit sizes.
_SHEET_BYTES_MAX = (1 << 31) - (64 << 20)
_EXACT_INTEGER_MAX = 10**15
_EPOCH_DAY = 25_569
"""The serial number of 1970-01-01. Those before 1900-03-01 are one off, as Excel counts a day that
was not; such dates are text."""
_FIRST_DAY = 61
_DAY_MS = 86_400_000
_DATE, _STAMP = 1, 2  # indexes of the formats in `_STYLES`
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_KIND}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_KIND}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_KIND}.styles+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook {_MAIN} xmlns:r="{_OFFICE}"><sheets>'
    '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": f'<styleSheet {_MAIN}><numFmts count="2">'
    '<numFmt numFmtId="164" formatCode="yyyy-mm-dd"/>'
    '<numFmt numFmtId="165" formatCode="yyyy-mm-dd hh:mm:ss.000"/></numFmts>'
    '<fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="3"><xf xfId="0"/>'
    '<xf numFmtId="164" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="165" xfId="0" applyNumberFormat="1"/>'
    "</cellXfs>"
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles>'
    "</styleSheet>",
}


class _Sink:
    """A file that can only be written on."""

    closed = False

    def __init__(self, put: Any) -> None:
        self._put = put
        self._position = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._put(view)
        self._position += len(view)
        return len(view)

    def flush(self) -> None:
        """The pieces are flushed by the format writer."""

    def close(self) -> None:
        """The stream is not the sink's."""


class _PositionedSink(_Sink):
    """As `_Sink`, for Arrow, which asks for the position; `zipfile` must not be able to."""

    def tell(self) -> int:
        return self._position


class ParquetWriter(FormatWriter):
    """A Parquet file with zstd, in row groups of about 8 MiB of Arrow data."""

    def _begin(self) -> None:
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = self._held_rows = 0
        self._file = pa.PythonFile(_PositionedSink(self._put), mode="w")
        try:
            self._parquet = pq.ParquetWriter(self._file, self.schema, compression="zstd")
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise Unsupported(
                f"a Parquet file cannot hold these columns: {error}", hint="CAST them in SQL"
            ) from None

    def _rows(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_bytes >= _GROUP_BYTES or self._held_rows >= _GROUP_ROWS:
            self._write_group()

    def _end(self) -> None:
        self._write_group()
        self._parquet.close()

    def _write_group(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held, self.schema)
            self._parquet.write_table(table, row_group_size=max(1, len(table)))
            self._held.clear()
            self._held_bytes = self._held_rows = 0


class XlsxWriter(FormatWriter):
    """An Excel workbook of one sheet, with a row of names.

    Text is always a cell of text, so a value that begins with `=` is no formula. What a number of Excel
    cannot hold exactly (integers of 16 digits, decimals, NaN) and times with fractions of milliseconds or
    a zone are text too.
    """

    def _begin(self) -> None:
        if len(self.schema) > _SHEET_COLUMNS_MAX:
            raise Unsupported(f"a sheet has {_SHEET_COLUMNS_MAX:,} columns at most")
        self._archive = zipfile.ZipFile(_Sink(self._put), "w", zipfile.ZIP_DEFLATED)
        for name, text in _PARTS.items():
            # With a fixed time, so that equal results are equal files.
            self._archive.writestr(_entry(name), _DECLARATION + text)
        self._sheet = self._archive.open(_entry("xl/worksheets/sheet1.xml"), "w")
        self._sheet_bytes = 0
        self._put_text(f"{_DECLARATION}<worksheet {_MAIN}><sheetData>".encode())
        names = pa.RecordBatch.from_arrays(
            [pa.array([name], pa.string()) for name in self.schema.names], self.schema.names
        )
        self._put_rows(names, 1)

    def _rows(self, batch: pa.RecordBatch) -> None:
        if self.rows + batch.num_rows >= _SHEET_ROWS_MAX:
            raise Unsupported(
                f"a sheet of Excel has {_SHEET_ROWS_MAX:,} rows at most",
                hint="export fewer rows with LIMIT, or CSV or Parquet",
            )
        self._put_rows(batch, batch.num_rows)

    def _put_rows(self, batch: pa.RecordBatch, count: int) -> None:
        cells = [
            _cells(column, name)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        if not cells:
            self._put_text(b"<row/>" * count)
            return
        rows = pc.binary_join_element_wise("<row>", *cells, "</row>", "")
        self._put_text("".join(rows.to_pylist()).encode())

    def _put_text(self, text: bytes) -> None:
        self._sheet_bytes += len(text)
        if self._sheet_bytes > _SHEET_BYTES_MAX:
            raise TooLarge(
                what="the sheet", limit_bytes=_SHEET_BYTES_MAX, hint="export CSV or Parquet"
            )
        self._sheet.write(text)

    def _end(self) -> None:
        self._put_text(b"</sheetData></worksheet>")
        self._sheet.close()
        self._archive.close()


EXPORT_FORMATS: dict[str, type[FormatWriter]] = {"parquet": ParquetWriter, "xlsx": XlsxWriter}


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _cells(column: pa.Array, name: str) -> pa.Array:
    """Return a column's cells as XML."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return _tagged(pc.if_else(column, "1", "0"), '<c t="b"><v>')
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            small = pc.less(column, pa.scalar(_EXACT_INTEGER_MAX, pa.uint64()))
        else:
            wide = column.cast(pa.int64())
            small = pc.and_(
                pc.less(wide, _EXACT_INTEGER_MAX), pc.greater(wide, -_EXACT_INTEGER_MAX)
            )
        return _numbers(column, small, name)
    if pa.types.is_floating(kind):
        return _numbers(column, pc.is_finite(column), name)
    if pa.types.is_date32(kind):
        days = pc.add(column.cast(pa.int32()).cast(pa.int64()), _EPOCH_DAY)
        return _serials(column, days, pc.greater_equal(days, _FIRST_DAY), _DATE, name)
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return _stamps(column, name)
    return _texts(column, name)


def _numbers(column: pa.Array, is_number: pa.BooleanArray, name: str) -> pa.Array:
    return _either(_tagged(text_cells(column), "<c><v>"), is_number, column, name)


def _stamps(column: pa.Array, name: str) -> pa.Array:
    whole = column.cast(pa.timestamp("ms"), safe=False)
    fits = pc.equal(whole.cast(column.type, safe=False), column)
    ms = whole.cast(pa.int64())
    fits = pc.and_(fits, pc.greater_equal(ms, (_FIRST_DAY - _EPOCH_DAY) * _DAY_MS))
    days = pc.add(pc.divide(ms.cast(pa.float64()), float(_DAY_MS)), float(_EPOCH_DAY))
    return _serials(column, days, fits, _STAMP, name)


def _serials(
    column: pa.Array, days: pa.Array, fits: pa.BooleanArray, style: int, name: str
) -> pa.Array:
    return _either(_tagged(text_cells(days), f'<c s="{style}"><v>'), fits, column, name)


def _either(cells: pa.Array, fits: pa.BooleanArray, column: pa.Array, name: str) -> pa.Array:
    if pc.all(fits, min_count=0).as_py() is not False:
        return cells
    # NULL in `fits` is NULL in both.
    return pc.if_else(pc.fill_null(fits, True), cells, _texts(column, name))


def _texts(column: pa.Array, name: str) -> pa.Array:
    text = text_cells(column)
    longest = pc.max(pc.utf8_length(text)).as_py() or 0
    if longest > _CELL_CHARACTERS_MAX:
        raise Unsupported(
            f"column {name!r} has a text of {longest:,} characters; a cell of Excel has "
            f"{_CELL_CHARACTERS_MAX:,} at most",
            hint="export CSV or Parquet",
        )
    for mark, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = pc.replace_substring(text, mark, escaped)
    if pc.any(
        pc.match_substring_regex(text, "[\\x00-\\x08\\x0b-\\x1f\\x{fffe}\\x{ffff}]|_x")
    ).as_py():
        text = pa.array([None if t is None else _CONTROL.sub(_escape, t) for t in text.to_pylist()])
    opening = '<c t="inlineStr"><is><t xml:space="preserve">'
    return _tagged(text.cast(pa.string()), opening, "</t></is></c>")


def _escape(found: re.Match[str]) -> str:
    """Return a character as Excel writes those that XML has not: `_x0007_`."""
    return f"_x{ord(found[0]):04X}_"


def _tagged(text: pa.Array, opening: str, closing: str = "</v></c>") -> pa.Array:
    tagged = pc.binary_join_element_wise(opening, text, closing, "")
    return pc.fill_null(tagged, "<c/>")
