"""Writes that time out when consumers release nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import strand
import strand.aio
from sennit_core.errors import DeadlineExceeded


@pytest.mark.parametrize("kind", ["record", "batch", "columns", "payload", "claim"])
def test_a_write_fails_after_its_timeout_and_can_be_repeated(kind: str) -> None:
    schema = strand.BLOCKS if kind == "payload" else strand.build_schema([("n", "u32")])
    writes: dict[str, Callable[[Any], object]] = {
        "record": lambda writer: writer.write((4,)),
        "batch": lambda writer: writer.write_record_batch([(4,)]),
        "columns": lambda writer: writer.write_columns({"n": [4]}),
        "payload": lambda writer: writer.write_bytes(b"4"),
        "claim": lambda writer: writer.commit_slot(writer.claim_slot()[1]),
    }
    with strand.open_ring(schema, 4, 256) as ring, ring.consumer() as view:
        writer = ring.producer(timeout_seconds=0.001)
        for n in range(4):
            writer.write_bytes(b"%d" % n) if kind == "payload" else writer.write((n,))
        with pytest.raises(DeadlineExceeded, match="room in the ring"):
            writes[kind](writer)
        assert writer.committed_count == 4
        view.acknowledge_read(1)
        writes[kind](writer)
        assert writer.committed_count == 5
        writer.finalize()


def test_an_async_write_fails_after_its_timeout() -> None:
    async def fill(writer: strand.aio.AsyncWriter) -> None:
        with pytest.raises(DeadlineExceeded, match="room in the ring"):
            await writer.write_record_batch([(n,) for n in range(5)])
        assert writer.writer.committed_count == 4

    schema = strand.build_schema([("n", "u32")])
    with strand.open_ring(schema, 4, 256) as ring, ring.consumer():
        asyncio.run(fill(strand.aio.AsyncWriter(ring.producer(timeout_seconds=0.001))))
