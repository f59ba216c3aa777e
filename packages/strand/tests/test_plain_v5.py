"""Rings whose header another implementation of layout version 5 made, byte by byte from the spec."""

import json
import struct
from typing import Any

import pytest

import strand
from sennit_core.errors import Corrupt
from strand import errors
from strand.schema import fnv1a

RECORDS, HEAP = 8, 256
U32, UTF8 = 1, 8
VACANT = 0x7FFFFFFF
EOS = 2


def plain_header(metadata_bytes: int = 0, *, heap: int = HEAP) -> bytearray:
    """Return a v5 ring of (id u32, name utf8) with nothing behind its metadata."""
    schema = struct.pack("<HBBHBBH", 2, U32, 0, 0, UTF8, 0, 4)
    stride = 12
    ring = bytearray(4096 + RECORDS * stride + heap)
    head = struct.pack("<6I", 0x5354524E, 5, fnv1a(schema), stride, RECORDS, heap)
    metadata = json.dumps({"columns": ["id", "name"], "pad": "x" * metadata_bytes}).encode()
    struct.pack_into("<24sI", ring, 0, head, fnv1a(head))
    struct.pack_into("<8i", ring, 56, *[VACANT] * 8)
    struct.pack_into("<I", ring, 88, len(schema))
    ring[92 : 92 + len(schema)] = schema
    struct.pack_into("<I", ring, 92 + len(schema), len(metadata))
    ring[96 + len(schema) : 96 + len(schema) + len(metadata)] = metadata
    return ring


def put_records(ring: bytearray, count: int, read: int = 0) -> None:
    """Publish records as a plain v5 writer does, and end the stream."""
    heap_at = 4096 + RECORDS * 12
    for seq in range(count):
        text = b"name %d" % seq
        offset = 16 * seq
        ring[heap_at + offset : heap_at + offset + len(text)] = text
        struct.pack_into("<IIH", ring, 4096 + 12 * seq, seq, offset, len(text))
    struct.pack_into("<6I", ring, 28, count, count, read, EOS, 16 * count, 16 * count)


def expected(start: int, stop: int) -> list[tuple[Any, ...]]:
    return [(seq, f"name {seq}") for seq in range(start, stop)]


def test_a_ring_that_another_v5_implementation_filled_is_read() -> None:
    memory = plain_header()
    put_records(memory, 5)
    with strand.attach_ring(buffer=memory) as ring, ring.consumer() as view:
        assert list(view) == expected(0, 5)
        assert view.status == "eos"


def test_reading_it_begins_where_its_read_cursor_is() -> None:
    memory = plain_header()
    put_records(memory, 5, read=2)
    with strand.attach_ring(buffer=memory) as ring, ring.consumer() as view:
        assert list(view) == expected(2, 5)


def test_a_producer_writes_to_a_header_that_another_v5_implementation_made() -> None:
    memory = plain_header()
    with strand.attach_ring(buffer=memory) as ring, ring.consumer() as view:
        with ring.producer() as writer:
            writer.write_record_batch(expected(0, 5))
        assert list(view) == expected(0, 5)
    assert struct.unpack_from("<II", memory, 32) == (5, 5)  # committed and read, for plain readers


def test_a_header_with_metadata_where_our_counters_would_be_is_read_and_has_no_roles() -> None:
    memory = plain_header(3500)
    assert strand.read_header(memory).metadata["columns"] == ["id", "name"]
    with strand.attach_ring(buffer=memory) as ring:
        for claim_role in (ring.consumer, ring.producer, ring.signal_abort):
            with pytest.raises(errors.NoExtension, match=r"end by byte 3072, found an end at byte"):
                claim_role()


def test_a_v5_ring_with_something_else_behind_its_header_is_refused() -> None:
    memory = plain_header()
    memory[3500] = 1
    with (
        strand.attach_ring(buffer=memory) as ring,
        pytest.raises(errors.NoExtension, match="zeros"),
    ):
        ring.consumer()


def test_a_heap_that_is_no_power_of_two_is_named() -> None:
    with pytest.raises(Corrupt, match="heap capacity a power of two"):
        strand.read_header(plain_header(heap=300))
