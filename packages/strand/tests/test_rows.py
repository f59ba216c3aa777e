"""Typed records in and out: every type, nulls, and values that do not fit."""

import math
import struct
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strand
from sennit_core.errors import Corrupt, UnknownColumn, UsageError
from strand.schema import FIELD_TYPES

Pair = tuple[strand.StrandWriter, strand.StrandView]

f32 = st.floats(width=32, allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
).filter(lambda value: value is not None)
VALUES = {
    "i32": st.integers(-(2**31), 2**31 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "f32": f32,
    "f64": st.floats(allow_nan=False),
    "u16": st.integers(0, 2**16 - 1),
    "u8": st.integers(0, 255),
    "bool8": st.booleans(),
    "utf8": st.text(max_size=20),
    "utf8_ref": st.sampled_from(["red", "green"]),
    "json": json_values,
    "bytes": st.binary(max_size=40),
    "i32_array": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8),
    "f32_array": st.lists(f32, max_size=8),
}
FIELDS: list[dict[str, Any]] = [
    {"name": f"{name}{'?' * null}", "type": name, "nullable": bool(null)}
    for name in FIELD_TYPES
    for null in (0, 1)
]
ALL_TYPES = strand.build_schema(FIELDS)
rows = st.tuples(
    *(st.none() | VALUES[f["type"]] if f["nullable"] else VALUES[f["type"]] for f in FIELDS)
)


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, memoryview) and value.format != "B" else value


@given(st.lists(rows, min_size=1, max_size=6), st.sampled_from([5, 6]))
def test_every_type_comes_back_as_it_went_in(records: Any, version: Any) -> None:
    with (
        strand.open_ring(
            ALL_TYPES, 8, "64KiB", version=version, metadata={"intern": ["red", "green"]}
        ) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        assert writer.write_record_batch(records) == len(records)
        cursor = view.allocate_cursor()
        for seq, record in enumerate(records):
            assert cursor.seek(seq)
            assert tuple(map(plain, cursor.to_tuple())) == record


@pytest.fixture
def pair() -> Iterator[Pair]:
    schema = strand.build_schema(
        [("id", "u16"), {"name": "note", "type": "utf8", "nullable": True}, ("xs", "f32_array")]
    )
    with (
        strand.open_ring(schema, 4, 256) as ring,
        ring.producer() as writer,
        ring.consumer() as view,
    ):
        yield writer, view


def test_a_mapping_may_leave_nullable_fields_out(pair: Pair) -> None:
    writer, view = pair
    writer.write_record_batch([{"xs": array("f", [1.5]), "id": 7}])
    cursor = view.allocate_cursor()
    assert cursor.seq == -1
    assert cursor.seek(0)
    assert (cursor.get("id"), cursor.get("note"), cursor.get("xs").tolist()) == (7, None, [1.5])


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ((70000, "a", []), UsageError),
        ((-1, "a", []), UsageError),
        (("1", "a", []), UsageError),
        ((None, "a", []), UsageError),
        ((1, 2, []), UsageError),
        ((1, "a", array("d", [1.0])), UsageError),
        ((1, "a"), UsageError),
        ({"id": 1, "xs": [], "nothing": 0}, UnknownColumn),
        ((1, "\ud800", []), UsageError),
        ((1, "x" * 129, []), strand.PayloadTooLarge),
    ],
)
def test_a_record_that_does_not_fit_leaves_those_before_it_and_the_ring_intact(
    pair: Pair, record: Any, error: type[Exception]
) -> None:
    writer, view = pair
    with pytest.raises(error):
        writer.write_record_batch([(1, "first", []), record])
    assert view.committed_count == 1
    writer.write_record_batch([(2, "second", [])])
    cursor = view.allocate_cursor()
    assert [cursor.seek(seq) and cursor.get("note") for seq in (0, 1)] == ["first", "second"]


def test_a_cursor_does_not_go_where_nothing_is_or_where_it_may_be_overwritten(pair: Pair) -> None:
    writer, view = pair
    cursor = view.allocate_cursor()
    with pytest.raises(UsageError, match="seek"):
        cursor.get("id")
    assert not cursor.seek(0)
    writer.write_record_batch([(1, None, []), (2, None, [])])
    assert cursor.seek(0)
    view.acknowledge_read(1)
    assert not cursor.seek(0)
    with pytest.raises(UsageError, match="overwritten"):
        cursor.get("id")
    with pytest.raises(UsageError, match="cannot acknowledge"):
        view.acknowledge_read(3)


def test_a_slot_may_be_claimed_and_filled_by_hand(pair: Pair) -> None:
    writer, view = pair
    slot, seq = writer.claim_slot()
    offsets = writer.header.slots.offsets
    struct.pack_into("<H", writer.memory, slot + offsets[0], 9)
    start, offset = writer.claim_heap_bytes(4, 64)
    struct.pack_into("<f", writer.memory, start, math.pi)
    struct.pack_into("<QI", writer.memory, slot + offsets[2], offset, 4)
    with pytest.raises(UsageError):
        writer.commit_slot(seq + 1)
    writer.commit_slot(seq)
    cursor = view.allocate_cursor()
    assert cursor.seek(seq)
    assert cursor.get("id") == 9
    assert cursor.get("xs").tolist() == [pytest.approx(math.pi)]


def test_a_heap_pointer_that_leaves_the_heap_is_corrupt(pair: Pair) -> None:
    writer, view = pair
    slot, seq = writer.claim_slot()
    struct.pack_into("<QI", writer.memory, slot + writer.header.slots.offsets[2], 0, 300)
    writer.commit_slot(seq)
    cursor = view.allocate_cursor()
    assert cursor.seek(seq)
    with pytest.raises(Corrupt):
        cursor.get("xs")


def test_a_v5_payload_longer_than_its_pointer_can_say_is_refused() -> None:
    with (
        strand.open_ring(strand.build_schema([("b", "bytes")]), 4, "1MiB", version=5) as ring,
        ring.producer() as writer,
    ):
        writer.write_record_batch([(bytes(65535),)])
        with pytest.raises(strand.PayloadTooLarge):
            writer.write_record_batch([(bytes(65536),)])
