"""Payloads of block rings: sizes, leases, and Arrow batches."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import strand
from sennit_core.errors import Corrupt, UsageError

Pair = tuple[strand.StrandWriter, strand.StrandView]


@pytest.fixture
def pair(ring: strand.Ring) -> Iterator[Pair]:
    with ring.producer() as writer, ring.consumer() as view:
        yield writer, view


def test_payloads_of_half_the_heap_pass_wherever_the_last_one_ended(pair: Pair) -> None:
    writer, view = pair
    for seq, size in enumerate((2048, 1, 2048, 0, 2047, 100, 2048, 1999, 2048)):
        writer.write_bytes(bytes([size & 255]) * size)
        assert bytes(next(view.payloads())) == bytes([size & 255]) * size
        view.acknowledge_read(seq + 1)


def test_a_payload_over_half_of_the_heap_names_the_limit(pair: Pair) -> None:
    writer, _ = pair
    with pytest.raises(strand.PayloadTooLarge) as refused:
        writer.write_bytes(bytes(2049))
    assert (refused.value.limit_bytes, refused.value.actual_bytes) == (2048, 2049)


def test_any_contiguous_buffer_is_a_payload(pair: Pair) -> None:
    writer, view = pair
    payloads: list[Any] = [b"a", bytearray(b"a"), memoryview(b"a"), np.array([97], "u1")]
    for payload in payloads:
        writer.write_bytes(payload)
    writer.finalize()
    assert [bytes(data) for data in view.payloads()] == [b"a"] * 4


def test_a_payload_is_read_only_and_ends_with_the_next(pair: Pair) -> None:
    writer, view = pair
    writer.write_bytes(b"one")
    writer.write_bytes(b"two")
    payloads = view.payloads()
    first = next(payloads)
    with pytest.raises(TypeError):
        first[0] = 0
    assert view.acknowledged_count == 0
    next(payloads)
    assert view.acknowledged_count == 1
    with pytest.raises(ValueError, match="released"):
        bytes(first)


@pytest.mark.parametrize("hold", [lambda p: p[1:2], lambda p: np.frombuffer(p, "u1"), memoryview])
def test_bytes_with_a_live_view_are_not_released(
    pair: Pair, hold: Callable[[memoryview], Any]
) -> None:
    writer, view = pair
    writer.write_bytes(b"one")
    writer.write_bytes(b"two")
    payloads = view.payloads()
    held = hold(next(payloads))
    with pytest.raises(strand.LeaseHeld):
        next(payloads)
    assert view.acknowledged_count == 0
    assert bytes(held) in (b"one", b"n")


def test_a_loop_that_was_left_starts_again_with_the_payload_it_left(pair: Pair) -> None:
    writer, view = pair
    for text in (b"one", b"two", b"three"):
        writer.write_bytes(text)
    writer.finalize()
    for data in view.payloads():
        if bytes(data) == b"two":
            break
    assert [bytes(data) for data in view.payloads()] == [b"two", b"three"]


def test_a_payload_with_a_live_view_outlives_its_ring() -> None:
    with strand.open_ring(strand.BLOCKS, 8, 4096) as ring, ring.producer() as writer:
        writer.write_bytes(b"still here")
        kept = next(ring.consumer().payloads())[:]
    assert bytes(kept) == b"still here"


BATCH = pa.record_batch(
    {
        "when": pa.array([1, 2, None], pa.timestamp("us", "UTC")),
        "price": pa.array(["1.50", None, "-3.25"]).cast(pa.decimal128(9, 2)),
        "tags": [["a", "b"], [], None],
        "at": [{"x": 1, "y": "p"}, None, {"x": 2, "y": None}],
    }
)


@pytest.mark.parametrize("copy", [True, False])
def test_batches_keep_every_type_and_value(pair: Pair, copy: bool) -> None:
    writer, view = pair
    writer.write_arrow(BATCH)
    writer.write_arrow(BATCH.slice(1, 1))
    writer.write_arrow(BATCH.slice(0, 0))
    writer.finalize()
    received = list(view.batches(copy=True)) if copy else []
    if not copy:
        for batch in view.batches(copy=False):
            received.append(pa.record_batch(batch.to_pydict(), schema=batch.schema))
    assert received == [BATCH, BATCH.slice(1, 1), BATCH.slice(0, 0)]


def test_a_large_batch_is_sliced_by_rows_to_what_the_heap_can_hold() -> None:
    batch = pa.record_batch({"n": range(20_000), "s": [f"row {i}" for i in range(20_000)]})
    with strand.open_ring(strand.BLOCKS, 256, "1MiB") as ring, ring.producer() as writer:
        writer.write_arrow(batch)
        writer.finalize()
        received = list(ring.consumer().batches())
    assert len(received) > 1
    assert pa.Table.from_batches(received).combine_chunks().to_batches() == [batch]


def test_zero_copy_batches_view_the_ring_and_are_released_when_dropped(pair: Pair) -> None:
    writer, view = pair
    writer.write_arrow(pa.record_batch({"n": [1, 2, 3]}))
    writer.write_arrow(pa.record_batch({"n": [4, 5, 6]}))
    batches = view.batches(copy=False)
    first = next(batches)
    assert view.acknowledged_count == 1  # the schema
    assert first.column("n").to_numpy(zero_copy_only=True).tolist() == [1, 2, 3]
    second = next(batches)
    assert view.acknowledged_count == 1
    del first
    writer.finalize()
    assert next(batches, None) is None
    assert view.acknowledged_count == 2
    assert second.column("n").to_pylist() == [4, 5, 6]


@pytest.mark.slow
def test_holding_every_zero_copy_batch_is_an_error_and_not_a_deadlock(spawn: Any) -> None:
    with strand.open_ring(strand.BLOCKS, 4, 4096) as ring, ring.consumer() as view:
        spawn("produce-arrow", ring, 50)
        with pytest.raises(strand.LeaseHeld):
            list(view.batches(copy=False))


def test_a_schema_change_is_refused(pair: Pair) -> None:
    writer, _ = pair
    writer.write_arrow(pa.record_batch({"n": [1]}))
    with pytest.raises(UsageError):
        writer.write_arrow(pa.record_batch({"m": [1]}))


def test_payloads_that_are_no_arrow_messages_are_corrupt(pair: Pair) -> None:
    writer, view = pair
    writer.write_bytes(b"not arrow")
    with pytest.raises(Corrupt):
        next(view.batches())
