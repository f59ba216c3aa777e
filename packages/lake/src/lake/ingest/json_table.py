"""Ingest JSON Lines, a JSON array, or a sequence of JSON objects as shards.

The file is read twice: first for the columns and types, then for the values. Objects are rows; the
elements of an array of other values become the column `value`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from emsqrt.io.json_depth import refuse_deep_json
from emsqrt.io.records import CsvDialect
from lake.ingest import json_types
from lake.ingest.encode import MENDED, Report
from lake.ingest.job import Ingested, Job
from lake.ingest.json_documents import JsonDocument
from lake.ingest.json_types import LARGE, Written, infer, is_mixed, merge_fields, settle
from lake.ingest.names import check_width
from lake.ingest.shards import Limits
from lake.ingest.sniff import sniff_encoding
from lake.ingest.source import TextBlock, TextSource
from lake.ingest.tables import write_batches
from sennit_core.errors import BadInput
from sennit_core.schema import DataType
from sennit_core.units import MIB

__all__ = ["ingest_json", "ingest_json_lines"]

# Lines alone end a record: JSON escapes line ends within strings. The delimiter is not used.
_LINES = CsvDialect(delimiter=",", quote=None)
_SHOWN_VALUE = 80
# An integer that a float may not hold exactly; a whole value, not a part of a longer number.
_LONG_INTEGER = re.compile(rb"[:,\[\s]-?\d{16,}\s*[,\]}]")
_IN_ROW = re.compile(r" in row (\d+)")
_BLANK = re.compile(r"\s*")
# Keeps the text of numbers such as 1.10, which a field of mixed types must show unchanged.
_DECODER = json.JSONDecoder(parse_float=Written)


def ingest_json_lines(job: Job, limits: Limits) -> Ingested:
    """Ingest a file with one JSON object per line."""
    return _Reader(job, by_lines=True).ingest(limits)


def ingest_json(job: Job, limits: Limits) -> Ingested:
    """Ingest a JSON array or a sequence of JSON objects, independent of lines."""
    return _Reader(job, by_lines=False).ingest(limits)


class _Reader:
    def __init__(self, job: Job, *, by_lines: bool) -> None:
        self._job = job
        self._by_lines = by_lines
        self._report = Report()
        self._mended = False
        encoding, self._start = sniff_encoding(job.head, job.options)
        self._text = TextSource(job.paths, encoding, _LINES, block_bytes=MIB, what=job.name)

    def ingest(self, limits: Limits) -> Ingested:
        """Infer the types, then write the rows."""
        # Types first, values second: a field may appear, or change its type, in the last row.
        found = pa.schema([])
        for block in self._blocks():
            found = self._widen(found, block)
            if len(found):
                check_width(len(found), self._job.name)
            self._job.context.check()
        if not len(found):
            raise BadInput(what=self._job.name, reason="the JSON has no object with a field")
        batches = (batch for block in self._blocks() for batch in self._read(block, found))
        schema = pa.schema([field.with_type(settle(field.type)) for field in found])
        source = {"encoding": self._text.encoding}
        with closing(batches):
            return write_batches(self._job, limits, schema, batches, self._report, source)

    def _blocks(self) -> Iterator[TextBlock]:
        if self._by_lines:
            return self._text.blocks(self._start, self._job.size)
        document = JsonDocument(self._text, what=self._job.name)
        return document.blocks(self._start, self._job.size)

    def _widen(self, found: pa.Schema, block: TextBlock) -> pa.Schema:
        """Merge the types found so far with the types of a block."""
        if block.mended and not self._mended:
            self._mended = True
            self._report.note(MENDED, line=block.line)
        block_schema = self._infer(block)
        merged = pa.schema(merge_fields(found, block_schema))
        for field in merged:
            index = found.get_field_index(field.name)
            before = found.field(index).type if index >= 0 else pa.null()
            if is_mixed(field.type) and not is_mixed(before):
                self._report_mixed(field.name, before, block)
        return merged

    def _infer(self, block: TextBlock) -> Sequence[pa.Field]:
        try:
            # Arrow infers quickly, but fails on a field of mixed types, and reads integers next to
            # fractions as doubles, which may round them; then the rows are examined one by one.
            table = _parse(block.data, None)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            pass
        else:
            if not any(map(_may_round, table.schema.types)) or not _LONG_INTEGER.search(block.data):
                return _with_large(table)
        rows = [row for row, _ in self._rows(block)]
        return list(infer(rows, _infer_text)) if rows else []

    def _rows(self, block: TextBlock) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the block's objects with their line numbers."""
        text = block.data.decode("utf-8", "surrogateescape")
        at, line = 0, block.line
        while True:
            # `raw_decode` does not skip white space before a value.
            blank = _BLANK.match(text, at)
            begin = blank.end() if blank else at
            line += text.count("\n", at, begin)
            if begin == len(text):
                return
            try:
                row, at = _DECODER.raw_decode(text, begin)
            except (json.JSONDecodeError, RecursionError) as error:
                place = error.pos if isinstance(error, json.JSONDecodeError) else begin
                reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
                line += text.count("\n", begin, place)
                raise self._fault(line, f"this is not JSON: {reason}") from None
            if not isinstance(row, dict):
                raise self._fault(line, f"{str(row)[:_SHOWN_VALUE]} is not a JSON object")
            yield row, line
            line += text.count("\n", begin, at)

    def _report_mixed(self, name: str, before: pa.DataType, block: TextBlock) -> None:
        """Report, or refuse if strict, the first value that makes a column's types mixed."""
        value, line, after = None, block.line, before
        for row, line in self._rows(block):  # noqa: B007 - the last one counts
            value = row.get(name)
            after = json_types.merge(before, infer([value], _infer_text))
            if is_mixed(after):
                break
            before = after
        shown = json.dumps(value, ensure_ascii=False)[:_SHOWN_VALUE]
        old, new = _type_name(before), _type_name(after)
        if pa.types.is_null(before) or old == new:
            note = f"values of several or unsupported types were kept as text; first {shown}"
            self._report.note(note, column=name, line=line)
            return
        if self._job.options.get("strict"):
            raise BadInput(
                what=self._job.name,
                line=line,
                reason=f"column {name!r} is {old} so far, and {shown} is not",
                hint="without strict, the column would become text",
            )
        self._report.widened.append(
            {"column": name, "line": line, "value": shown, "from": old, "to": new}
        )

    def _read(self, block: TextBlock, found: pa.Schema) -> list[pa.RecordBatch]:
        settled = pa.schema([field.with_type(settle(field.type)) for field in found])
        data = block.data
        mixed = {field.name: field.type for field in found if is_mixed(field.type)}
        if mixed:
            lines = []
            for row, _ in self._rows(block):
                for name in mixed.keys() & row.keys():
                    row[name] = json_types.rewrite(row[name], mixed[name])
                lines.append(json.dumps(row))
            data = "\n".join(lines).encode()
        try:
            return list(_parse(data, settled).to_batches())
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise self._place(block, str(error)) from error

    def _place(self, block: TextBlock, message: str) -> BadInput:
        """Convert an error message of Arrow's parser, with the line of the row that it names."""
        line = block.line
        # Arrow counts the rows of a block; the file has lines.
        if match := _IN_ROW.search(message):
            wanted = int(match[1])
            for index, (_, each) in enumerate(self._rows(block)):
                if index == wanted:
                    line = each
        return self._fault(line, _IN_ROW.sub("", message.removeprefix("JSON parse error: ")))

    def _fault(self, line: int, reason: str) -> BadInput:
        return BadInput(what=self._job.name, line=line, reason=reason)


def _parse(data: bytes, schema: pa.Schema | None) -> pa.Table:
    # Arrow's parser is recursive, so deep nesting could overflow the stack of the process.
    refuse_deep_json(data, "JSON")
    options = arrow_json.ParseOptions(explicit_schema=schema, newlines_in_values=True)
    blocks = arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    with pa.BufferReader(data) as source:
        return arrow_json.read_json(source, read_options=blocks, parse_options=options)


def _infer_text(values: Sequence[str]) -> pa.DataType:
    """Return text, or the timestamp type that Arrow would infer for these strings."""
    lines = "\n".join(json.dumps({"v": value}) for value in values)
    try:
        found = _parse(lines.encode(), None).schema.field("v").type
    except pa.ArrowInvalid:  # a lone surrogate
        return pa.string()
    return found


def _with_large(table: pa.Table) -> list[pa.Field]:
    """Return the columns; integers that a float cannot hold have the type `LARGE`."""
    fields = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if field.type == pa.int64():
            bounds = pc.min_max(column).as_py()
            if max(-(bounds["min"] or 0), bounds["max"] or 0) > json_types.EXACT_MAX:
                field = field.with_type(LARGE)
        fields.append(field)
    return fields


def _may_round(found: pa.DataType) -> bool:
    """Whether Arrow may have rounded an integer to a float."""
    if pa.types.is_nested(found):
        return any(_may_round(found.field(index).type) for index in range(found.num_fields))
    return bool(pa.types.is_floating(found))


def _type_name(found: pa.DataType) -> str:
    return "null" if pa.types.is_null(found) else str(DataType.from_arrow(settle(found)))
