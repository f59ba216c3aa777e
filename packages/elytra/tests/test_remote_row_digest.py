"""The hash by which results of workers are compared: of values, not of bytes."""

from __future__ import annotations

import math
import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elytra.backends.remote.row_digest import row_digest
from sennit_core.schema import Schema

TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int": (pa.int64(), st.integers(-(1 << 63), (1 << 63) - 1)),
    "small": (pa.uint8(), st.integers(0, 255)),
    "flag": (pa.bool_(), st.booleans()),
    "real": (pa.float64(), st.floats(allow_nan=False)),
    "text": (pa.string(), st.text(max_size=5)),
    "raw": (pa.binary(), st.binary(max_size=5)),
    "money": (pa.decimal128(10, 2), st.decimals(-99, 99, places=2)),
    "items": (pa.list_(pa.int32()), st.lists(st.none() | st.integers(0, 9), max_size=3)),
    "pair": (
        pa.struct({"a": pa.int16(), "b": pa.string()}),
        st.fixed_dictionaries({"a": st.none() | st.integers(0, 9), "b": st.text(max_size=2)}),
    ),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in TYPES.items()}),
    max_size=4,
)
ARROW = pa.schema([(name, kind) for name, (kind, _) in TYPES.items()])
SCHEMA = Schema.from_arrow(ARROW)


def digest(*batches: pa.RecordBatch) -> str:
    return row_digest(SCHEMA, batches)


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=ARROW)


@settings(max_examples=10)
@given(ROWS, st.data())
def test_it_does_not_depend_on_how_rows_are_cut(rows: list[dict[str, Any]], data: Any) -> None:
    whole = batch(rows)
    cut = data.draw(st.integers(0, len(rows)))
    assert digest(whole) == digest(whole.slice(0, cut), whole.slice(cut), batch([]))
    assert digest(whole) == digest(*(batch([row]) for row in rows))


@settings(max_examples=30)
@given(ROWS.filter(bool), st.data())
def test_it_changes_with_any_value(rows: list[dict[str, Any]], data: Any) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(list(TYPES)))
    value = data.draw(st.none() | TYPES[name][1])
    changed = [dict(row) for row in rows]
    changed[at][name] = value
    same = batch(rows).equals(batch(changed)) and _bits(rows[at][name]) == _bits(value)
    assert (digest(batch(rows)) == digest(batch(changed))) == same


def _bits(value: Any) -> Any:
    """The bits of a float: Arrow takes the two zeros for equal."""
    return struct.pack("<d", value) if isinstance(value, float) else None


def test_what_is_below_nulls_does_not_count() -> None:
    one, two = (
        pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x01"), pa.array([1, x]).buffers()[1]])
        for x in (0, 77)
    )
    schema = Schema.from_arrow(pa.schema({"n": pa.int64()}))
    digests = {
        row_digest(schema, [pa.record_batch([column], names=["n"])]) for column in (one, two)
    }
    assert len(digests) == 1


def test_all_nans_are_one_and_zeros_are_two() -> None:
    schema = Schema.from_arrow(pa.schema({"x": pa.float64()}))

    def of(value: float) -> str:
        return row_digest(schema, [pa.record_batch([pa.array([value])], names=["x"])])

    (other_nan,) = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0001))
    assert of(math.nan) == of(other_nan) == of(-math.nan)
    assert of(0.0) != of(-0.0)


@pytest.mark.parametrize("encoded", [pa.dictionary(pa.int8(), pa.string()), pa.large_string()])
def test_encodings_do_not_count(encoded: pa.DataType) -> None:
    schema = Schema.from_arrow(pa.schema({"k": pa.string()}))
    plain = pa.array(["a", None, "b", "a"])
    digests = {
        row_digest(schema, [pa.record_batch([column], names=["k"])])
        for column in (plain, plain.cast(encoded))
    }
    assert len(digests) == 1
