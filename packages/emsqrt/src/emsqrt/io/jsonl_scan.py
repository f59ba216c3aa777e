"""Read JSON Lines to Arrow, one bounded block at a time.

A block is parsed by Arrow's reader if Arrow accepts it. If not (a number in quotes, NaN, a value
that does not fit), it is parsed again line by line: that accepts more spellings, finds the position
of an error, and applies the policy of `badRows`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import time
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from emsqrt.io.bad_rows import BadRows
from emsqrt.io.csv_scan import block_bytes_for, hold_block, need_because, wanting_memory
from emsqrt.io.json_lines import (
    JsonlOptions,
    Number,
    lines_of,
    parse_line,
    split_lines,
)
from emsqrt.io.records import RecordBlock
from emsqrt.io.sources import ByteSource, line_at, open_source
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

__all__ = ["JsonlOptions", "JsonlScan"]

_BLOCK_COPIES = 8
"""Raw block, parser's copy, columns, and the casts from text: as a multiple of the block."""
_LINE_BYTES_MAX = 64 << 20


class JsonlScan:
    """Reads one JSON Lines file; `bytes_done` is updated during iteration.

    Args:
        source: the file.
        schema: the columns to read, in order, with their types; a missing member is NULL.
        options: the plan's options.
        budget: the budget for a block and its columns.
        bad_rows: receives lines that violate the schema.
        block_bytes: read this much at a time; None chooses it by the budget.
    """

    def __init__(
        self,
        source: ByteSource | Path,
        schema: Schema,
        options: JsonlOptions,
        budget: MemoryBudget,
        bad_rows: BadRows | None = None,
        block_bytes: int | None = None,
    ) -> None:
        self._source = open_source(source) if isinstance(source, Path) else source
        self._options, self._budget = options, budget
        self._bad_rows = bad_rows or BadRows()
        self._block_bytes = block_bytes or block_bytes_for(budget)
        self._schema = schema.to_arrow()
        self._kinds = {field.name: field.type for field in schema}
        self._by_lines = any(_needs_cells(field.type) for field in self._schema)
        self._has_decimals = any(_has_decimals(field.type) for field in self._schema)
        self._native = pa.schema([field.with_type(_native(field.type)) for field in self._schema])
        self.need_bytes = self._block_bytes * _BLOCK_COPIES + self._source.need_bytes
        self.need_because = need_because(self._source, self._block_bytes)
        self.record_copies = _BLOCK_COPIES
        self.bytes_done = 0
        self._line = 1
        """The line of the block's first record, if lines are counted while reading."""
        self._counts_lines = options.bad_rows != "fail" or not self._source.can_reopen

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield a batch for each block; `guard` holds `need_bytes` and grows for a long line."""
        longest = self._options.record_bytes_max or min(
            _LINE_BYTES_MAX, max(self._block_bytes, self._budget.free_bytes // _BLOCK_COPIES)
        )
        with self._source.open() as stream:
            blocks = split_lines(
                stream,
                block_bytes=self._block_bytes,
                record_bytes_max=longest,
                what=self._source.name,
            )
            if self._options.record_bytes_max is None and longest < _LINE_BYTES_MAX:
                blocks = wanting_memory(blocks, self._budget, longest, _BLOCK_COPIES)
            for block in blocks:
                hold_block(block, guard, self.need_bytes, _BLOCK_COPIES, self._source.name)
                batch = self._parse(block)
                if self._counts_lines:
                    self._line += bytes(block.data).count(b"\n")
                self.bytes_done = stream.stored_bytes
                del block
                yield batch
                del batch
            guard.resize(self.need_bytes)

    def _parse(self, block: RecordBlock) -> Any:
        with suppress(ValueError, pa.ArrowNotImplementedError):
            if not self._by_lines and not (self._has_decimals and _FAR.search(block.data)):
                return self._parse_fast(block.data)
        return self._parse_slowly(bytes(block.data), block.offset)

    def _parse_fast(self, data: memoryview) -> Any:
        if not bytes(data[:64]).strip() and not bytes(data).strip():
            return pa.RecordBatch.from_pylist([], schema=self._schema)
        with pa.BufferReader(pa.py_buffer(data)) as source:
            table = pj.read_json(
                source,
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(
                    explicit_schema=self._native, unexpected_field_behavior="ignore"
                ),
            )
        batch = table.combine_chunks().to_batches()[0]
        columns = [_from_native(batch.column(field.name), field.type) for field in self._schema]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _parse_slowly(self, data: bytes, offset: int) -> Any:
        """Parse a block line by line: accept all spellings, and find every error."""
        rows: list[list[Any]] = []
        for start, line in lines_of(data):
            value = parse_line(line)
            if isinstance(value, str):
                self._refuse(data, start, offset, value)
                continue
            row = self._row(value, (data, start, offset))
            if row is not None:
                rows.append(row)
        columns = [
            pa.array([row[at] for row in rows], field.type) for at, field in enumerate(self._schema)
        ]
        if not columns:
            return pa.RecordBatch.from_pylist([{}] * len(rows))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _row(self, value: dict[str, Any], place: tuple[bytes, int, int]) -> list[Any] | None:
        row: list[Any] = []
        for field in self._schema:
            cell = value.get(field.name)
            try:
                row.append(None if cell is None else _cell(cell, field.type))
            except (ValueError, ArithmeticError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
                if self._options.bad_rows == "null":
                    self._bad_rows.nulled_values += 1
                    row.append(None)
                    continue
                shown = _json_text(cell)[:80].encode("utf-8", "backslashreplace").decode()
                reason = f"column {field.name!r} is {self._kinds[field.name]}, and {shown} is not"
                self._refuse(*place, reason)
                return None
        return row

    def _refuse(self, data: bytes, start: int, offset: int, reason: str) -> None:
        """Reject a line, or fail: a line that is not an object has no value to set to NULL."""
        name = self._source.name
        line = (
            self._line + data.count(b"\n", 0, start)
            if self._counts_lines
            else line_at(self._source, offset + start)
        )
        if self._options.bad_rows == "reject":
            end = data.find(b"\n", start) + 1 or len(data)
            self._bad_rows.reject(name, line, offset + start, reason, data[start:end])
            return
        raise BadInput(name, line=line, byte_offset=offset + start, reason=reason)


def _native(kind: Any) -> Any:
    """Return the type to read with Arrow's reader if it does not parse `kind` correctly.

    Arrow's reader confuses timestamps with and without a zone, and accepts decimals with too many
    digits, even beyond 128 bits; a Decimal256 has room for all that it accepts.
    """
    if pa.types.is_list(kind):
        return pa.list_(_native(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_native(field.type)) for field in kind])
    if pa.types.is_duration(kind):
        return pa.int64()
    if pa.types.is_decimal(kind):
        return pa.decimal256(76 - kind.scale, kind.scale)
    is_text = pa.types.is_temporal(kind) or pa.types.is_binary(kind)
    return pa.string() if is_text else kind


def _needs_cells(kind: Any) -> bool:
    """Return whether a nested type contains bytes or times of day, which no cast can parse."""
    return any(_is_cell(each) or _needs_cells(each) for each in _inner(kind))


def _has_decimals(kind: Any) -> bool:
    return pa.types.is_decimal(kind) or any(map(_has_decimals, _inner(kind)))


def _inner(kind: Any) -> list[Any]:
    if pa.types.is_list(kind):
        return [kind.value_type]
    return [field.type for field in kind] if pa.types.is_struct(kind) else []


def _is_cell(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_time(kind))


def _from_native(column: Any, kind: Any) -> Any:
    if _is_cell(kind):
        return pa.array([_cell(text, kind) for text in column.to_pylist()], kind)
    return column if column.type == kind else column.cast(kind)


def _cell(value: Any, kind: Any) -> Any:
    """Return a Python value of a type, from any JSON value that can represent it."""
    if value is None:
        return None
    if pa.types.is_list(kind) and isinstance(value, list):
        return [_cell(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: _cell(value.get(field.name), field.type) for field in kind}
    if pa.types.is_string(kind):
        return _text(value)
    if pa.types.is_boolean(kind):
        if isinstance(value, bool):
            return value
        raise ValueError(value)
    if not isinstance(value, str):
        raise ValueError(value)
    if pa.types.is_binary(kind):
        return _octets(value)
    return _scalar(value, kind)


def _text(value: Any) -> str:
    text = str(value) if isinstance(value, str) else _json_text(value)
    text.encode("utf-8")  # fails for half of a surrogate pair
    return text


def _json_text(value: Any) -> str:
    """Return a JSON value as text without spaces, its numbers as they were written."""
    write = partial(json.dumps, ensure_ascii=False)
    match value:
        case Number():
            return str(value)
        case dict():
            members = (f"{write(key)}:{_json_text(inner)}" for key, inner in value.items())
            return f"{{{','.join(members)}}}"
        case list():
            return f"[{','.join(map(_json_text, value))}]"
        case _:
            return write(value)


def _octets(value: str) -> bytes:
    if isinstance(value, Number):
        raise ValueError(value)
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(value) from error


def _scalar(text: str, kind: Any) -> Any:
    """Return the value of a number or a text."""
    spelling = _spelling_of(kind)
    if spelling is not None and not spelling.fullmatch(text):
        raise ValueError(text)
    if pa.types.is_decimal(kind):
        return _decimal(Decimal(text), kind)
    if pa.types.is_duration(kind):
        return pa.scalar(str(text), pa.string()).cast(pa.int64()).cast(kind).as_py()
    if pa.types.is_time(kind):
        return time.fromisoformat(text)
    if pa.types.is_floating(kind):
        return float(text)
    made = pa.scalar(str(text), pa.string()).cast(kind)
    return made.value if pa.types.is_timestamp(kind) else made.as_py()


def _decimal(number: Decimal, kind: Any) -> Decimal:
    """Return a number with the digits of its type; pyarrow does not survive every exponent."""
    if number and not -kind.scale <= number.adjusted() < kind.precision - kind.scale:
        raise ValueError(number)
    return number.quantize(Decimal(1).scaleb(-kind.scale), context=_EXACT)


def _spelling_of(kind: Any) -> re.Pattern[str] | None:
    """Return the pattern of a type's values if Python's parser accepts more than that."""
    if pa.types.is_decimal(kind):
        return _DECIMAL
    if pa.types.is_floating(kind):
        return _FLOAT
    return _CLOCK if pa.types.is_time(kind) else None


_FAR = re.compile(
    rb"""[0-9]{38}|[\[:,\s"][+-]?[0-9.]+[eE]-[0-9]{2}|\\u00(3[0-9]|2[bdeBDE]|[46]5)"""
)
"""Numbers with many decimal places, perhaps in escapes: when they are parsed as decimals, Arrow
returns wrong values or crashes."""
_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation])
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FLOAT = re.compile(rf"{_DECIMAL.pattern}|[+-]?(inf(inity)?|nan)", re.IGNORECASE)
_CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?")
