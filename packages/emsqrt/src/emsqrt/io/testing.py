"""Helpers for tests of the kernel's text readers: columns as Arrow arrays."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from pyarrow import csv

from emsqrt._kernel import Columns, CsvParser, RecordFault, copy_column
from emsqrt.io.formats import TextWriter
from sennit_core.schema import DataType

_NAMES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float double decimal string binary"
_KINDS = {name: kind for kind, name in enumerate(_NAMES.split())} | {"date32[day]": 3}
ROOM = 1 << 16
"""The default memory of a parser in tests."""
BAD = "bad"
"""The result for a text that is not a value of its type."""


def arrow_of(columns: Columns, index: int, kind: str) -> pa.Array:
    """Return a column of the kernel as an Arrow array of its own."""
    _, validity, values, ends = copy_column(columns, index)
    buffers = [None if part is None else pa.py_buffer(part) for part in (validity, ends, values)]
    if ends is None:
        del buffers[1]
    return pa.Array.from_buffers(DataType.parse(kind).to_arrow(), len(columns), buffers)


def columns_of(batch: pa.RecordBatch) -> Columns:
    """Return an Arrow batch as the kernel sees it, without a copy."""
    parts: list[Any] = []
    for column in batch.columns:
        kind = _KINDS.get(str(column.type), 4)
        if pa.types.is_decimal(column.type):
            kind = 11
        buffers = column.buffers()
        ends = buffers[1] if len(buffers) == 3 else None
        parts.append((kind, column.offset, buffers[0], buffers[-1] or b"", ends))
    return Columns(batch.num_rows, parts)


def parse(data: bytes, kinds: list[str], room: int = ROOM, **options: Any) -> list[pa.Array]:
    """Return every column of all records as one array each, copied from the parser's memory."""
    count = options.pop("field_count", len(kinds))
    fields = options.pop("fields", range(len(kinds)))
    parser = CsvParser(
        bytearray(room), field_count=count, columns=list(zip(fields, kinds, strict=True)), **options
    )
    parts: list[list[pa.Array]] = [[] for _ in kinds]
    start = 0
    while start < len(data):
        columns, start = parser.parse(data, start)
        for index, kind in enumerate(kinds):
            parts[index].append(arrow_of(columns, index, kind))
            parts[index][-1].validate(full=True)
    types = [DataType.parse(kind).to_arrow() for kind in kinds]
    return [pa.chunked_array(part, kind) for part, kind in zip(parts, types, strict=True)]


def arrow_reads(data: bytes, kinds: list[str], null_values: tuple[str, ...] = ("",)) -> Any:
    """Return the Arrow tier's result for the same text, or BAD."""
    names = [f"c{index}" for index in range(len(kinds))]
    schema = pa.schema(
        [(name, DataType.parse(kind).to_arrow()) for name, kind in zip(names, kinds, strict=True)]
    )
    try:
        return csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(
                use_threads=False, column_names=names, block_size=len(data) + 1
            ),
            parse_options=csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=len(names) > 1
            ),
            convert_options=csv.ConvertOptions(
                null_values=list(null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                column_types=schema,
            ),
        ).columns
    except pa.ArrowInvalid:
        return BAD


def value(text: str, kind: str) -> Any:
    """Return one value as text of its Arrow scalar; BAD if it is invalid."""
    found = columns_or_fault(text.encode() + b"\n", [kind])
    return found if isinstance(found, str) else shown(found[0][0])


def columns_or_fault(data: bytes, kinds: list[str], room: int = ROOM) -> list[pa.Array] | str:
    """Return the columns, or the name of the error: BAD for a value."""
    try:
        return parse(data, kinds, room=room)
    except RecordFault as fault:
        return BAD if fault.reason == "value" else fault.reason


def to_list(column: Any) -> Any:
    """Return the values of an array."""
    return column.to_pylist()


def shown(scalar: Any) -> str:
    """Return a scalar as text: days and times as their number."""
    if pa.types.is_temporal(scalar.type):
        return "None" if not scalar.is_valid else str(scalar.value)
    return str(scalar.as_py())


def expected(text: str, kind: str) -> str:
    """Return Arrow's result for one value, in the format of `value`."""
    columns = arrow_reads(text.encode() + b"\n", [kind])
    return BAD if columns is BAD else shown(columns[0][0])


BITS64, BITS32 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
TEXT = st.text(alphabet=st.sampled_from('a,"\r\n é;'), max_size=12)


def ints(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    """Draw integers of up to `bits` bits."""
    return (
        st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if signed
        else st.integers(0, 2**bits - 1)
    )


def double(bits: int) -> float:
    """Return the double with these bits."""
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def single(bits: int) -> float:
    """Return the single float with these bits."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


PLAIN = st.decimals(-(10**12), 10**12, allow_nan=False, places=4).map(float)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "Bool": st.booleans(),
    **{f"Int{bits}": ints(bits, signed=True) for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": ints(bits, signed=False) for bits in (8, 16, 32, 64)},
    "Float32": BITS32.map(single) | st.floats(width=32),
    "Float64": BITS64.map(double) | st.floats() | PLAIN,
    "Decimal(38,10)": st.decimals(-(10**27), 10**27, allow_nan=False, places=10),
    "Decimal(9,0)": st.decimals(-999999999, 999999999, allow_nan=False, places=0),
    "Decimal(5,5)": st.decimals("-0.99999", "0.99999", allow_nan=False, places=5),
    "Utf8": TEXT | st.text(max_size=30),
    "Binary": st.binary(max_size=10),
    "Date": st.dates(),
    "Time": st.times(),
    "Timestamp(s)": st.integers(-62167219200, 253402300799),
    "Timestamp(ms)": st.integers(-62167219200000, 253402300799999),
    "Timestamp(us)": st.integers(-62167219200 * 10**6, 253402300799 * 10**6),
    "Timestamp(ns)": st.integers(-(2**63) + 1, 2**63 - 1),
    "Timestamp(us,Europe/Rome)": st.integers(-62167219200 * 10**6, 253402300799 * 10**6),
}


def batches() -> st.SearchStrategy[tuple[list[str], pa.RecordBatch]]:
    """Draw types, and a batch with columns of these types and a few rows."""
    return st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3).flatmap(
        lambda kinds: st.tuples(
            st.just(kinds),
            st.lists(st.tuples(*(st.none() | VALUES[kind] for kind in kinds)), max_size=6).map(
                lambda rows: batch_of(kinds, rows)
            ),
        )
    )


def batch_of(kinds: list[str], rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    """Return rows of values as a batch; timestamps are numbers."""
    arrays = []
    for index, kind in enumerate(kinds):
        values, arrow = [row[index] for row in rows], DataType.parse(kind).to_arrow()
        plain = pa.int64() if kind.startswith("Timestamp") else arrow
        arrays.append(pa.array(values, plain).cast(arrow))
    return pa.RecordBatch.from_arrays(arrays, [f"c{index}" for index in range(len(kinds))])


def pieces(step: Any, count: int, room: int) -> Iterator[bytes]:
    """Yield the output of a writer with buffers of `room` bytes, for `count` rows."""
    out, start = bytearray(room), 0
    while start < count:
        after, size = step(start, out)
        assert after > start, "a row does not fit the buffer"
        yield bytes(out[:size])
        start = after


def by_arrow(writer: type[TextWriter]) -> type[TextWriter]:
    """Return the same writer without the kernel, as an oracle."""
    return type(f"Arrow{writer.__name__}", (writer,), {"_kernel_rows": lambda _: None})


def text_of(writer: type[TextWriter], *written: pa.RecordBatch) -> bytes:
    """Return batches of one schema as a writer writes them."""
    out = io.BytesIO()
    with writer(written[0].schema, out.write, None) as document:
        for batch in written:
            document.write(batch)
    return out.getvalue()
