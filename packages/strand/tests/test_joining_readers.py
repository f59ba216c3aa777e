"""Consumers that join a stream of Arrow batches after its schema has gone by."""

import struct
from typing import Any

import pyarrow as pa
import pytest

import strand
from sennit_core.errors import UsageError
from strand.header import find_schema, store_schema


def batch(number: int) -> pa.RecordBatch:
    return pa.record_batch({"n": [number, number + 1], "s": ["a", None]})


def wide_schema(columns: int) -> pa.Schema:
    return pa.schema([(f"a column called {hash((7, at))}", pa.int64()) for at in range(columns)])


def wide_batch(columns: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{}], wide_schema(columns))


@pytest.fixture
def ring() -> Any:
    with strand.open_ring(strand.BLOCKS, records=8, heap="64KiB") as made:
        yield made


@pytest.mark.parametrize("copy", [True, False])
def test_a_consumer_that_joins_at_the_next_batch_decodes_it(ring: strand.Ring, copy: bool) -> None:
    with ring.consumer() as early, ring.producer() as writer:
        writer.write_arrow(batch(0))
        with ring.consumer("next") as joined:
            writer.write_arrow(batch(1))
            assert next(joined.batches(copy=copy)).to_pydict() == batch(1).to_pydict()
        assert next(early.batches()).to_pydict() == batch(0).to_pydict()


def test_a_consumer_that_joins_at_the_oldest_mid_stream_decodes_it(ring: strand.Ring) -> None:
    with ring.consumer() as early, ring.producer() as writer:
        for number in range(20):
            writer.write_arrow(batch(number))
            early.acknowledge_read(writer.committed_count)
        writer.write_arrow(batch(20))
        with ring.consumer("oldest") as joined:
            assert joined.window_start == 21
            assert next(joined.batches()).to_pydict() == batch(20).to_pydict()


def test_a_view_that_stops_iterating_continues_later(ring: strand.Ring) -> None:
    with ring.consumer() as view, ring.producer() as writer:
        for number in range(3):
            writer.write_arrow(batch(number))
            assert next(view.batches()).to_pydict() == batch(number).to_pydict()


def test_a_schema_too_large_for_the_header_must_be_passed(ring: strand.Ring) -> None:
    with ring.consumer() as early, ring.producer() as writer:
        writer.write_arrow(wide_batch(300))
        with ring.consumer("next") as joined:
            writer.write_arrow(wide_batch(300))
            with pytest.raises(UsageError, match="joined after") as refused:
                next(joined.batches())
            assert "batches(schema=" in (refused.value.hint or "")
            again = next(joined.batches(schema=wide_schema(300)))
        assert again == next(early.batches())


def test_a_schema_of_a_hundred_columns_fits(ring: strand.Ring) -> None:
    assert store_schema(ring.memory, wide_schema(100).serialize())
    message = find_schema(ring.memory)
    assert pa.ipc.read_schema(pa.py_buffer(message)) == wide_schema(100)


def test_a_new_stream_leaves_a_new_schema(ring: strand.Ring) -> None:
    with ring.producer() as writer:
        writer.write_arrow(batch(0))
        writer.finalize()
        with ring.consumer() as view:
            assert len(list(view.batches())) == 1
            writer.reset()
            other = pa.record_batch({"x": [1.5]})
            writer.write_arrow(other)
            with ring.consumer("next") as joined:
                writer.write_arrow(other)
                assert next(joined.batches()) == other
            assert next(view.batches()) == other


def test_a_producer_that_resumes_a_stream_continues_with_the_schema(ring: strand.Ring) -> None:
    with ring.consumer() as view:
        first = ring.producer()
        first.write_arrow(batch(0))
        first._forget_in_child()  # what a kill leaves: neither an end nor a lock
        with ring.producer(resume=True) as second:
            with pytest.raises(UsageError, match="the stream's schema is"):
                second.write_arrow(pa.record_batch({"x": [1.5]}))
            second.write_arrow(batch(1))
        assert [found.to_pydict() for found in view.batches()] == [
            batch(0).to_pydict(),
            batch(1).to_pydict(),
        ]


def test_batches_do_not_follow_payloads_of_another_kind(ring: strand.Ring) -> None:
    with ring.producer() as writer:
        writer.write_bytes(b"no Arrow")
        with pytest.raises(UsageError, match="cannot resume this Arrow stream"):
            writer.write_arrow(batch(0))
        writer.finalize()


def test_there_is_none_before_the_first_batch(ring: strand.Ring) -> None:
    assert find_schema(ring.memory) is None


@pytest.mark.parametrize("damage", [b"\xff" * 8, b"\x05\x00\x00\x00junk!", b"\xff\xff\xff\xff"])
def test_damaged_free_bytes_are_refused(ring: strand.Ring, damage: bytes) -> None:
    store_schema(ring.memory, batch(0).schema.serialize())
    length = struct.unpack_from("<I", ring.memory, 98)[0]
    at = (98 + 4 + length + 3) & ~3
    ring.memory[at : at + len(damage)] = damage
    with pytest.raises(strand.StrandHeaderError, match="Arrow schema"):
        find_schema(ring.memory)


def test_without_room_for_metadata_later_readers_get_no_schema() -> None:
    metadata = {"x": "y" * 2920}
    with (
        strand.open_ring(strand.BLOCKS, 8, 4096, metadata=metadata) as ring,
        ring.consumer() as view,
        ring.producer() as writer,
    ):
        writer.write_arrow(batch(0))
        assert find_schema(ring.memory) is None
        assert next(view.batches()).to_pydict() == batch(0).to_pydict()
