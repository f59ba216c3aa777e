"""Read and validate Arrow data that was not produced by this process.

Arrow's own readers check that buffers are within a message, but not the buffers' contents. An
offset that points beyond its buffer makes the next kernel read arbitrary process memory. So every
batch that another process made goes through `validate_batch`, and every IPC file or stream from
outside is read with `open_arrow`, which also checks each message's metadata (see `arrow_messages`)
before Arrow reads it. A tidy test refuses other uses of Arrow's IPC readers.

Apart from `_arrow`, this is the only module of the package that imports Arrow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from sennit_core.arrow_messages import (
    FILE_MAGIC,
    ROWS_WITHOUT_BYTES,
    Kind,
    MessageHead,
    footer_blocks,
    plain_bytes,
    read_head,
)
from sennit_core.errors import BadInput, SennitError, TooLarge, Unsupported
from sennit_core.units import format_bytes

__all__ = [
    "COLUMNS_MAX",
    "DAMAGE",
    "ArrowReader",
    "check_head",
    "check_schema",
    "open_arrow",
    "validate_batch",
]

COLUMNS_MAX = 1 << 17
DEPTH_MAX = 32
"""Levels of lists and structs. Parquet's readers allow 100 levels; a list counts as two."""

DAMAGE: tuple[type[Exception], ...] = (
    pa.ArrowInvalid,
    pa.ArrowIndexError,
    pa.ArrowKeyError,
    pa.ArrowNotImplementedError,
    pa.ArrowSerializationError,
    pa.ArrowTypeError,
    pa.ArrowCapacityError,
    UnicodeDecodeError,
    EOFError,
    OSError,
)
"""What Arrow raises for damaged input."""


def validate_batch(batch: pa.RecordBatch, what: str) -> pa.RecordBatch:
    """Return the batch after a full validation; call it before any other use of its values.

    Covers all checks of Arrow's `validate(full=True)` (offsets in range and in order, also below
    nulls; UTF-8; dictionary indices; unions; views; run ends; decimals within their precision;
    times of day; null counts), and nulls in nested fields that are declared non-nullable.

    Args:
        batch: Of any origin.
        what: The file or stream, for errors.

    Raises:
        BadInput: A value or an offset is invalid.
    """
    try:
        batch.validate(full=True)
        for field, column in zip(batch.schema, batch.columns, strict=True):
            if pa.types.is_nested(field.type):
                _refuse_hidden_nulls(column)
    except DAMAGE as error:
        raise BadInput(what, reason=str(error)) from error
    return batch


def check_schema(schema: pa.Schema, what: str) -> pa.Schema:
    """Return the schema if its columns can be read safely; raise otherwise.

    Raises:
        BadInput: It has more columns than `COLUMNS_MAX`, a column nested deeper than `DEPTH_MAX`,
            or a name that is not UTF-8.
        Unsupported: A column is a dictionary of nested values, or of dictionaries.
    """
    if len(schema) > COLUMNS_MAX:
        raise BadInput(what, reason=f"it has {len(schema)} columns, at most {COLUMNS_MAX} are read")
    try:
        for field in schema:
            _refuse_depth(field.type, field.name, what)
            _refuse_nested_dictionaries(field.type, field.name)
    except UnicodeDecodeError as error:
        raise BadInput(what, reason="a name in its schema is not UTF-8") from error
    return schema


def check_head(head: MessageHead, schema: pa.Schema) -> None:
    """Check a message's array lengths and null counts against the types of the schema.

    Raises:
        ValueError: They contradict the schema or each other.
    """
    nodes = iter(head.nodes)
    if head.kind == Kind.DICTIONARY:
        _next_node(nodes, "a dictionary", head.rows)
    else:
        for field in schema:
            _check_nodes(field.type, nodes, field.name, rows=head.rows)
    if next(nodes, None) is not None:
        raise ValueError("more arrays than the schema has")


class ArrowReader:
    """The validated batches of an Arrow IPC file or stream; made by `open_arrow`.

    Args:
        messages: The messages, checked one by one as Arrow asks for them.
        stream: Arrow's reader over them.
    """

    def __init__(self, messages: _Messages, stream: pa.ipc.RecordBatchStreamReader) -> None:
        self._messages = messages
        self._stream = stream
        self.schema: pa.Schema = stream.schema
        self.batches_read = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches in order.

        Raises:
            BadInput: A message or a batch is invalid.
            TooLarge: A batch needs more memory than allowed.
        """
        while True:
            what = self._messages.what
            try:
                batch = self._stream.read_next_batch()
            except StopIteration:
                return
            except SennitError:
                raise
            except DAMAGE as error:
                raise self._messages.damage(error) from error
            yield validate_batch(batch, f"record batch {self.batches_read} of {what}")
            self.batches_read += 1

    def read_all(self) -> pa.Table:
        """Return all batches as one table."""
        return pa.Table.from_batches(list(self), self.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()


@contextmanager
def open_arrow(
    source: pa.NativeFile, what: str, *, batch_bytes_max: int | None = None
) -> Iterator[ArrowReader]:
    """Open an Arrow IPC file (Feather v2) or stream from outside; the first bytes decide which.

    Args:
        source: At its beginning. A stream needs no more than `read`; a file is read by its footer.
        what: The file's name, for errors.
        batch_bytes_max: Largest batch or dictionary after decompression.

    Raises:
        BadInput: It is neither, or it is damaged.
        Unsupported: See `check_schema`.
    """
    messages = _Messages(source, what, batch_bytes_max)
    try:
        messages.start()
        stream = pa.ipc.open_stream(pa.PythonFile(messages, mode="r"))
    except SennitError:
        raise
    except DAMAGE as error:
        raise BadInput(what, reason=f"this is not Arrow IPC: {error}") from error
    with ArrowReader(messages, stream) as reader:
        yield reader


class _Messages:
    """The file that Arrow reads a stream from: the messages of `source`, each checked first.

    An IPC file is presented as a stream too: the schema, then the blocks that its footer names.
    Arrow asks for a message in pieces (mark, length, metadata, body); none spans two messages.
    """

    closed = False

    def __init__(self, source: pa.NativeFile, what: str, batch_bytes_max: int | None) -> None:
        self._source = source
        self.what = what
        self._bytes_max = batch_bytes_max
        self._size = _size_of(source)
        self._blocks: Iterator[tuple[int, int, int]] | None = None
        self._schema: pa.Schema | None = None
        self._unread: bytes = b""  # rest of the magic bytes that were read to detect a file
        self._head: memoryview = memoryview(b"")  # message head that Arrow has not read yet
        self._body: pa.Buffer | None = None
        self._messages = 0

    def start(self) -> None:
        """Read and check the schema."""
        try:
            self._unread = self._source.read(len(FILE_MAGIC))
            if self._unread == FILE_MAGIC:
                self._open_file()
            head = read_head(self._read)
            if head is None or head.kind != Kind.SCHEMA:
                raise ValueError("it does not begin with a schema")
            self._refuse_lack_of(head.body_bytes)
        except (ValueError, struct.error) as error:
            raise BadInput(self.what, reason=f"this is not Arrow IPC: {error}") from error
        self._present(head, pa.py_buffer(self._read(head.body_bytes)))
        schema = pa.ipc.read_schema(pa.py_buffer(bytes(self._head)))
        self._schema = check_schema(schema, self.what)

    def damage(self, error: Exception) -> BadInput:
        """Return the error for a fault that Arrow or a check here found in the current message."""
        place = f"message {self._messages}"
        return BadInput(self.what, reason=f"the Arrow data is damaged or cut off: {place}: {error}")

    def read(self, size: int) -> Any:
        """Return the next `size` bytes, fewer at the end of the stream."""
        if not self._head and self._body is None and size:
            self._advance()
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        body, self._body = self._body, None
        if body is None:
            return b""
        if size < body.size:
            self._body = body.slice(size)
        return body.slice(0, size)

    read_buffer = read

    def _open_file(self) -> None:
        if self._size is None:
            raise ValueError("a file in IPC format can only be read by its footer: send a stream")
        self._blocks = iter(footer_blocks(self._read_at, self._size))
        self._source.seek(8)
        self._unread = b""

    def _advance(self) -> None:
        """Read and check the next message, if there is one."""
        try:
            head = self._next_head()
            if head is None:
                return
            self._messages += 1
            self._refuse_lack_of(head.body_bytes)
            body = self._read_body(head.body_bytes)
            if body.size < head.body_bytes:
                raise ValueError(f"{body.size} of {head.body_bytes} bytes of a body")
            self._check(head, body)
        except (ValueError, struct.error) as error:
            raise self.damage(error) from error
        self._present(head, body)

    def _next_head(self) -> MessageHead | None:
        if self._blocks is not None:
            block = next(self._blocks, None)
            if block is None:
                return None
            self._source.seek(block[0])
        head = read_head(self._read)
        if head is not None and head.kind == Kind.SCHEMA:
            raise ValueError("a second schema")
        return head

    def _check(self, head: MessageHead, body: pa.Buffer) -> None:
        """Refuse a message that would make Arrow allocate too much memory or abort the process."""
        assert self._schema is not None
        plain = plain_bytes(head, lambda at, count: body.slice(at, count).to_pybytes())
        if self._bytes_max is not None and plain > self._bytes_max:
            raise TooLarge(
                f"message {self._messages} of {self.what}",
                limit_bytes=self._bytes_max,
                actual_bytes=plain,
                hint=f"write it in record batches below {format_bytes(self._bytes_max)}",
            )
        most = ROWS_WITHOUT_BYTES + 8 * plain
        longest = max((length for length, _ in head.nodes), default=0)
        if max(longest, head.rows) > most:
            raise ValueError(f"{max(longest, head.rows)} rows in a body of {plain} bytes")
        check_head(head, self._schema)

    def _present(self, head: MessageHead, body: pa.Buffer) -> None:
        prefix = struct.pack("<II", 0xFFFFFFFF, len(head.metadata))
        self._head = memoryview(prefix + head.metadata)
        self._body = body if body.size else None

    def _refuse_lack_of(self, size: int) -> None:
        """Refuse a length beyond the file's end before memory is reserved for it."""
        if self._size is not None and self._source.tell() + size > self._size:
            raise ValueError(f"a body of {size} bytes ends beyond the end of the file")

    def _read(self, size: int) -> bytes:
        piece, self._unread = self._unread[:size], self._unread[size:]
        if len(piece) < size:
            piece += self._source.read(size - len(piece))
        return piece

    def _read_body(self, size: int) -> pa.Buffer:
        assert not self._unread
        return self._source.read_buffer(size) if size else pa.py_buffer(b"")

    def _read_at(self, offset: int, size: int) -> bytes:
        self._source.seek(offset)
        return bytes(self._source.read(size))


def _size_of(source: pa.NativeFile) -> int | None:
    """Return the length of a file; None for a stream, which Arrow too calls seekable."""
    try:
        return int(source.size())
    except (OSError, AttributeError):
        return None


def _next_node(nodes: Iterator[tuple[int, int]], what: str, rows: int | None) -> int:
    """Check one array's length and null count; return the null count."""
    length, nulls = next(nodes, (-1, 0))
    if length < 0:
        raise ValueError(f"{what} has no array, or one of negative length")
    if not 0 <= nulls <= length:
        raise ValueError(f"{what} has {nulls} nulls in {length} rows")
    if rows is not None and length != rows:
        raise ValueError(f"{what} has {length} rows, its batch {rows}")
    return nulls


def _check_nodes(
    kind: Any, nodes: Iterator[tuple[int, int]], what: str, *, rows: int | None, full: bool = False
) -> None:
    """Check the arrays of one type, depth first; `full` means that this array must have no nulls.

    Arrow's classes for maps and run-end-encoded arrays abort the process on nulls in such an array.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    nulls = _next_node(nodes, what, rows)
    encoded = types.is_run_end_encoded(kind)
    if nulls and (full or encoded or types.is_union(kind)):
        raise ValueError(f"{what} is {kind} and cannot have {nulls} nulls")
    if types.is_map(kind):
        entries = _next_node(nodes, what, None)
        if entries:
            raise ValueError(f"{what} has a map of {entries} null entries")
        _check_nodes(kind.key_type, nodes, what, rows=None, full=True)
        _check_nodes(kind.item_type, nodes, what, rows=None)
    elif encoded:
        _check_nodes(kind.run_end_type, nodes, what, rows=None, full=True)
        _check_nodes(kind.value_type, nodes, what, rows=None)
    else:
        for at in range(kind.num_fields):
            _check_nodes(kind.field(at).type, nodes, what, rows=None)


def _refuse_depth(kind: Any, name: str, what: str, depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        raise BadInput(what, reason=f"column {name!r} is nested deeper than {DEPTH_MAX} levels")
    for at in range(kind.num_fields):
        _refuse_depth(kind.field(at).type, name, what, depth + 1)


def _refuse_nested_dictionaries(kind: Any, name: str) -> None:
    """Refuse dictionaries whose values are more than one array: their metadata names no types."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        value = kind.value_type
        if isinstance(value, pa.BaseExtensionType):
            value = value.storage_type
        if pa.types.is_nested(value) or pa.types.is_dictionary(value):
            raise Unsupported(
                f"column {name!r} is a dictionary of {value}",
                hint="cast the column to its value type first",
            )
        return
    if pa.types.is_run_end_encoded(kind):
        _refuse_nested_dictionaries(kind.value_type, name)
        return
    for at in range(kind.num_fields):
        _refuse_nested_dictionaries(kind.field(at).type, name)


def _refuse_hidden_nulls(array: pa.Array) -> None:
    """Refuse nulls in nested non-nullable fields; writers trust the declaration."""
    kind = array.type
    if pa.types.is_struct(kind):
        for at in range(kind.num_fields):
            child = array.field(at)
            if not kind.field(at).nullable and _has_nulls_of_its_own(child, array):
                raise pa.ArrowInvalid(f"field {kind.field(at).name!r} has nulls, declared non-null")
            if pa.types.is_nested(child.type):
                _refuse_hidden_nulls(child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not kind.value_field.nullable and array.values.null_count:
            raise pa.ArrowInvalid(f"{kind} has nulls, declared non-null")
        if pa.types.is_nested(kind.value_type):
            _refuse_hidden_nulls(array.values)


def _has_nulls_of_its_own(child: pa.Array, parent: pa.Array) -> bool:
    """Whether a struct's field is null in a row where the struct is not."""
    if not child.null_count or not parent.null_count:
        return bool(child.null_count)
    import pyarrow.compute as pc

    return bool(pc.any(pc.and_(child.is_null(), parent.is_valid())).as_py())
