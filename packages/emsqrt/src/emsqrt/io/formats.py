"""Format batches as streams of bytes in bounded pieces: Arrow IPC, JSON or CSV.

The JSON document is the one of the HTTP contract: `{"columns": [{"name", "type"}], "rows": [[...]],
"truncated": false}`. CSV is RFC 4180 with as few quotes as possible; NULL is an empty field, the
empty string is `""`. Arrow is an IPC stream that ends with its end-of-stream mark.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from emsqrt.io.cells import has_any, json_text, quoted, text_cells
from emsqrt.io.emitter import BufferedEmitter, Emit
from emsqrt.io.joining import Message
from emsqrt.io.messages import MessageStream
from sennit_core.errors import Unsupported
from sennit_core.schema import Schema

SLICE_BYTES = 1 << 20
_SLICE_ROWS = 1 << 14


class FormatWriter(ABC):
    """Writes batches of one schema; a context manager that finishes when left without an error.

    Small pieces are collected, so nothing is emitted before the first rows, and a small result is
    one piece.
    """

    delimiter = ","
    slice_bytes = SLICE_BYTES
    """Bytes of a batch that are formatted at a time."""

    def __init__(self, schema: pa.Schema, emit: Emit, max_rows: int | None) -> None:
        self.schema = plain_schema(schema)
        self.rows = 0
        self.truncated = False
        self._left = max_rows
        self._pieces = BufferedEmitter(emit)
        self._put = self._pieces.put
        self._begin()

    @property
    def bytes(self) -> int:
        """Length of the stream so far."""
        return self._pieces.bytes

    @property
    def done(self) -> bool:
        """Whether `max_rows` is reached, so that further batches are ignored."""
        return self.truncated

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the batch's rows, up to `max_rows` of them in all."""
        if self._left is not None:
            self.truncated = self.truncated or batch.num_rows > self._left
            batch = batch.slice(0, self._left)
            self._left -= batch.num_rows
        for part in self._slices(batch):
            self._rows(plain_batch(part, self.schema))
            self.rows += part.num_rows

    def finish(self) -> None:
        """Write the end of the stream and emit all collected bytes."""
        self._end()
        self._pieces.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _rows(self, batch: pa.RecordBatch) -> None: ...

    @abstractmethod
    def _end(self) -> None: ...

    def _slices(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Slice a batch, so that the text of a slice needs little memory."""
        if not batch.num_rows:
            return
        row_bytes = max(batch.nbytes // batch.num_rows, 1)
        rows = max(1, min(_SLICE_ROWS, self.slice_bytes // row_bytes))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


class ArrowWriter(FormatWriter):
    """An Arrow IPC stream: schema, record batches, end of stream."""

    def _begin(self) -> None:
        self._stream = MessageStream(self.schema, self._put)

    def _slices(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        if batch.num_rows:
            yield batch

    def write_message(self, message: Message) -> None:
        """Append the rows of a message, which are no more than are left of `max_rows`."""
        if self._left is not None:
            assert message.rows <= self._left, "a message cannot be sliced"
            self._left -= message.rows
        self._stream.write_message(message.data)
        self.rows += message.rows

    def _rows(self, batch: pa.RecordBatch) -> None:
        self._stream.write(batch)

    def _end(self) -> None:
        self._stream.close()


class JsonWriter(FormatWriter):
    """One JSON document, rows as arrays."""

    def _begin(self) -> None:
        columns = [{"name": field.name, "type": type_name(field)} for field in self.schema]
        text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
        self._put(f'{{"columns":{text},"rows":['.encode())

    def _rows(self, batch: pa.RecordBatch) -> None:
        parts: list[Any] = []
        before = ",["
        for column in batch.columns:
            text, bare = json_text(column)
            if bare and text.null_count:
                text, bare = quoted(text), False
            parts += [before + '"', text] if bare else [before, text]
            before = '",' if bare else ","
        last = before.removesuffix(",") if parts else before
        rows = _text_of_rows(_joined([*parts, last + "]"], batch.num_rows, "null"))
        self._put(rows[1:] if self.rows == 0 else rows)

    def _end(self) -> None:
        self._put(f'],"truncated":{"true" if self.truncated else "false"}}}'.encode())


class CsvWriter(FormatWriter):
    """Text with a comma between fields, or `delimiter`, a header, and LF line ends."""

    header = True

    def _begin(self) -> None:
        if self.header:
            names = pa.array(self.schema.names, pa.string())
            quoted_names = _csv_quoted(names, self.delimiter).to_pylist()
            self._put((self.delimiter.join(quoted_names) + "\n").encode())

    def _rows(self, batch: pa.RecordBatch) -> None:
        parts: list[Any] = []
        for column in batch.columns:
            parts += [self._cells(column), self.delimiter]
        self._put(_text_of_rows(_joined([*parts[:-1], "\n"], batch.num_rows, "")))

    def _end(self) -> None:
        pass

    def _cells(self, column: pa.Array) -> pa.Array:
        text = text_cells(column)
        # Numbers and timestamps contain no delimiter, but an interval is a list: [1, 2, 0].
        kind = column.type
        plain = pa.types.is_primitive(kind) and not pa.types.is_interval(kind)
        plain = plain and self.delimiter in ",;\t|"
        return text if plain else _csv_quoted(text, self.delimiter)


class JsonlWriter(FormatWriter):
    """One JSON object a line; NULL is null and every integer is a bare number."""

    row_start, row_end = "{", "}\n"

    def _begin(self) -> None:
        self._names = [json.dumps(name, ensure_ascii=False) + ":" for name in self.schema.names]

    def _rows(self, batch: pa.RecordBatch) -> None:
        parts: list[Any] = []
        before = self.row_start
        for name, column in zip(self._names, batch.columns, strict=True):
            text, bare = _json_line_text(column)
            if bare and text.null_count:
                text, bare = quoted(text), False
            parts += [before + name + '"', text] if bare else [before + name, text]
            before = '",' if bare else ","
        last = (before.removesuffix(",") if parts else before) + self.row_end
        self._put_rows(_text_of_rows(_joined([*parts, last], batch.num_rows, "null")))

    def _put_rows(self, rows: memoryview) -> None:
        self._put(rows)

    def _end(self) -> None:
        pass


class JsonArrayWriter(JsonlWriter):
    """One JSON array of objects, each on a line of its own."""

    row_start, row_end = ",\n{", "}"

    def _begin(self) -> None:
        super()._begin()
        self._put(b"[")

    def _put_rows(self, rows: memoryview) -> None:
        self._put(rows[1:] if self.rows == 0 else rows)  # no comma before the first

    def _end(self) -> None:
        self._put(b"\n]\n")


FORMATS: dict[str, type[FormatWriter]] = {
    "arrow": ArrowWriter,
    "csv": CsvWriter,
    "json": JsonWriter,
    "jsonl": JsonlWriter,
}
_FILES = ("parquet", "xlsx")


def open_format(
    format: str,  # noqa: A002 - the word of the plan and of the contract
    schema: pa.Schema,
    emit: Emit,
    *,
    max_rows: int | None = None,
) -> FormatWriter:
    """Return a writer of "arrow", "json", "csv", "jsonl", "parquet" or "xlsx".

    Args:
        format: the stream's format.
        schema: the batches' Arrow schema; dictionary columns are written as plain values.
        emit: called with each piece, which is only valid during the call.
        max_rows: write no more rows; `truncated` then says whether there were more.

    Raises:
        Unsupported: there is no such format.
    """
    if format in _FILES:
        # Not imported with this module: small queries do not need pyarrow.parquet.
        from emsqrt.io.export_formats import EXPORT_FORMATS

        return EXPORT_FORMATS[format](schema, emit, max_rows)
    if format not in FORMATS:
        known = ", ".join(sorted((*FORMATS, *_FILES)))
        raise Unsupported(f"unknown stream format {format!r}; known: {known}")
    return FORMATS[format](schema, emit, max_rows)


def type_name(field: pa.Field) -> str:
    """Return the contract's name of a field's type, or Arrow's name if the contract has none."""
    if field.metadata or field.type.num_fields:
        return _type_name(field)
    return _plain_type_name(field.type)


def _type_name(field: pa.Field) -> str:
    try:
        return str(Schema.from_arrow(pa.schema([field])).fields[0].type)
    except Unsupported:
        return str(field.type)


@lru_cache(maxsize=1024)
def _plain_type_name(kind: pa.DataType) -> str:
    """Return the name of a type without metadata; Arrow ignores children's metadata in equality."""
    return _type_name(pa.field("", kind))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema with dictionary columns replaced by their values' type."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pa.schema(fields)


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with dictionary columns replaced by their values."""
    if batch.schema.equals(schema):
        return batch
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _joined(parts: list[Any], rows: int, null: str) -> pa.Array:
    """Concatenate columns and constants to one text per row."""
    if len(parts) == 1:
        return pa.array(parts * rows)
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement=null)


def _text_of_rows(rows: pa.Array) -> memoryview:
    """Return the text of all rows, concatenated: that is the array's values buffer."""
    _, offsets, values = rows.buffers()
    ends = memoryview(offsets).cast("B").cast("i")
    return memoryview(values)[ends[rows.offset] : ends[rows.offset + len(rows)]]


def _json_line_text(column: pa.Array) -> tuple[pa.Array, bool]:
    if pa.types.is_integer(column.type):
        return column.cast(pa.string()), False
    if pa.types.is_duration(column.type):
        return column.cast(pa.int64()).cast(pa.string()), False
    return json_text(column)


def _csv_quoted(text: pa.Array, delimiter: str) -> pa.Array:
    """Quote values that contain a delimiter, quote or line end, and empty values."""
    marks = f'{delimiter}"\r\n'
    if not has_any(text, marks.encode()) and not pc.any(pc.equal(text, "")).as_py():
        return text
    needs = pc.match_substring_regex(text, f"^$|[{re.escape(marks)}]")
    return pc.if_else(needs, quoted(pc.replace_substring(text, '"', '""')), text)
