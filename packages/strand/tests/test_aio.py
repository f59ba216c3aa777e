"""Rings in an event loop."""

import asyncio
import gc
import multiprocessing
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import strand
from sennit_core.errors import Closed, DeadlineExceeded
from strand import aio, watching
from strand.aio import AsyncFanInView, AsyncView, AsyncWriter

FORK = multiprocessing.get_context("fork")
ROWS = strand.build_schema([("id", "u32"), ("name", "utf8")])


@pytest.fixture
def rows_ring() -> Iterator[strand.Ring]:
    with strand.open_ring(ROWS, records=16, heap=1024) as ring:
        yield ring


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not watching._watcher._sleeps


def produce(ring: strand.Ring, count: int) -> None:
    with ring.producer() as writer:
        for index in range(count):
            writer.write((index, f"row {index}"))


def consume(ring: strand.Ring, count: int) -> None:
    with ring.consumer() as view:
        assert list(view) == [(index, f"row {index}") for index in range(count)]


def consume_batches(ring: strand.Ring, count: int) -> None:
    with ring.consumer() as view:
        assert pa.Table.from_batches(view.batches())["n"].to_pylist() == list(range(count))


@pytest.fixture
def start() -> Iterator[Any]:
    started: list[Any] = []

    def begin(function: Any, *arguments: Any) -> None:
        process = FORK.Process(target=function, args=arguments)
        process.start()
        started.append(process)

    yield begin
    for process in started:
        process.join(30)
        assert process.exitcode == 0


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_rows_of_another_process_arrive(rows_ring: strand.Ring, start: Any) -> None:
    start(produce, rows_ring, 2000)

    async def main() -> list[Any]:
        async with AsyncView(rows_ring.consumer()) as view:
            return [row async for row in view]

    assert asyncio.run(main()) == [(index, f"row {index}") for index in range(2000)]


@pytest.mark.timeout(60)
def test_no_wake_up_is_lost_when_naps_never_end(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_NAP_SECONDS", 1e6)
    monkeypatch.setattr(aio, "NAP_NANOSECONDS", 10**15)
    rings = [strand.open_ring(ROWS, records=16, heap=1024) for _ in range(2)]

    async def write(writer: AsyncWriter) -> None:
        async with writer:
            for index in range(2000):
                await writer.write((index, f"row {index}"))

    async def read(view: AsyncView) -> int:
        return sum([len(group) async for group in view.row_groups()])

    async def main() -> tuple[int, None]:
        return await asyncio.gather(
            read(AsyncView(rings[0].consumer())), write(AsyncWriter(rings[1].producer()))
        )

    start(produce, rings[0], 2000)
    start(consume, rings[1], 2000)
    assert asyncio.run(main())[0] == 2000
    for ring in rings:
        ring.close()


def test_one_loop_reads_many_rings_at_once(start: Any) -> None:
    rings = [strand.open_ring(ROWS, records=16, heap=1024) for _ in range(5)]
    for ring in rings:
        start(produce, ring, 500)

    async def count(ring: strand.Ring) -> int:
        async with AsyncView(ring.consumer()) as view:
            return sum([len(group) async for group in view.row_groups()])

    async def main() -> list[int]:
        return await asyncio.gather(*map(count, rings))

    assert asyncio.run(main()) == [500] * 5
    for ring in rings:
        ring.close()


def produce_in(fan: strand.FanIn, member: int, count: int) -> None:
    with fan.producer() as writer:
        for index in range(count):
            writer.write((index, f"by {member}"))


@pytest.mark.timeout(60)
def test_one_loop_reads_many_producers(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_NAP_SECONDS", 1e6)
    with strand.fan_in(3, ROWS, records=16, heap=1024) as fan:
        for member in range(3):
            start(produce_in, fan, member, 1000)

        async def main() -> list[Any]:
            async with AsyncFanInView(fan.consumer()) as view:
                return [row async for row in view]

        rows = asyncio.run(main())
    for member in range(3):
        assert [index for index, by in rows if by == f"by {member}"] == list(range(1000))


def test_a_failed_producer_is_reported_at_the_end_of_a_fan_in() -> None:
    async def main(fan: strand.FanIn) -> None:
        async with AsyncFanInView(fan.consumer()) as view:
            with pytest.raises(DeadlineExceeded):
                await anext(aiter(view.row_groups(timeout_seconds=0.01)))
            fan.producer().abort("no more")
            produce_in(fan, 1, 5)
            payloads = aiter(view.row_groups())
            assert len(await anext(payloads)) == 5
            with pytest.raises(strand.StrandAbortError, match="no more"):
                await anext(payloads)

    with strand.fan_in(2, ROWS, records=16, heap=1024) as fan:
        asyncio.run(main(fan))


def test_other_tasks_run_while_one_waits(rows_ring: strand.Ring) -> None:
    async def main() -> int:
        view = rows_ring.consumer()
        waiting = asyncio.create_task(aio.wait_for_commit(view, 0))
        await settle()
        rows_ring.producer().write((1, "now"))
        return await waiting

    assert asyncio.run(main()) == 1


def test_iterating_lets_other_tasks_run_though_there_is_always_something(
    rows_ring: strand.Ring,
) -> None:
    async def main() -> list[str]:
        order = []

        async def other() -> None:
            order.append("other")

        async with AsyncView(rows_ring.consumer()) as view:
            writer = rows_ring.producer()
            writer.write((0, ""))
            asyncio.create_task(other())  # noqa: RUF006 - it runs below
            async for row in view:
                order.append(str(row[0]))
                if row[0] == 3:
                    return order
                writer.write((row[0] + 1, ""))
        return order

    assert "other" in asyncio.run(main())


def test_payloads_batches_and_arrays_arrive() -> None:
    async def main() -> None:
        with strand.open_ring(strand.BLOCKS, 8, 4096) as ring:
            with ring.producer() as writer:
                writer.write_bytes(b"one")
                writer.write_bytes(b"two")
            async with AsyncView(ring.consumer()) as view:
                assert [bytes(data) async for data in view.payloads()] == [b"one", b"two"]
        with strand.open_ring(ROWS, 8, 4096) as ring:
            with ring.producer() as writer:
                writer.write_record_batch([(1, "a"), (2, "b")])
            async with AsyncView(ring.consumer()) as view, AsyncView(ring.consumer()) as other:
                assert [batch.to_pydict() async for batch in view.batches()] == [
                    {"id": [1, 2], "name": ["a", "b"]}
                ]
                assert [array["id"].tolist() async for array in other.record_views()] == [[1, 2]]

    asyncio.run(main())


def test_the_end_and_the_errors_of_a_stream_arrive(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = AsyncView(rows_ring.consumer())
        writer = rows_ring.producer()
        with pytest.raises(DeadlineExceeded):
            await anext(aiter(view.row_groups(timeout_seconds=0.01)))
        waiting = asyncio.create_task(view.wait_for_commit(0))
        await settle()
        writer.abort("that is all")
        with pytest.raises(strand.StrandAbortError, match="that is all"):
            await waiting

    asyncio.run(main())


def test_a_dead_producer_is_noticed(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = rows_ring.consumer()
        writer = rows_ring.producer()
        waiting = asyncio.create_task(aio.wait_for_commit(view, 0))
        await settle()
        writer._locks[3136].release()  # as if its process were killed
        with pytest.raises(strand.ProducerDied):
            await waiting

    asyncio.run(main())


def test_a_wait_with_a_timeout_returns_the_available_records(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = rows_ring.consumer()
        rows_ring.producer().write((1, ""))
        assert await aio.wait_for_commit(view, 1, timeout_seconds=0.01) == 1
        assert await aio.wait_for_commit(view, 0, min_records=5, timeout_seconds=0) == 1

    asyncio.run(main())


@pytest.mark.timeout(60)
def test_several_tasks_wait_for_different_counts_of_one_view(
    rows_ring: strand.Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_NAP_SECONDS", 1e6)
    monkeypatch.setattr(aio, "NAP_NANOSECONDS", 10**15)

    async def main() -> None:
        view, writer = rows_ring.consumer(), rows_ring.producer()
        early = asyncio.create_task(aio.wait_for_commit(view, 0))
        pending = asyncio.create_task(aio.wait_for_commit(view, 0, min_records=3))
        await settle()
        writer.write((1, ""))
        assert await early == 1
        assert not pending.done()
        writer.write_record_batch([(2, ""), (3, "")])
        assert await pending == 3

    asyncio.run(main())


def test_a_cancelled_wait_loses_nothing(rows_ring: strand.Ring) -> None:
    async def main() -> list[Any]:
        async with AsyncView(rows_ring.consumer()) as view:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await anext(aiter(view))
            produce(rows_ring, 3)
            return [row[0] async for row in view]

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_cancelled_wait_leaves_nothing(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = rows_ring.consumer()
        for _ in range(50):
            waiting = asyncio.create_task(aio.wait_for_commit(view, 0))
            await settle()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        view.close()

    asyncio.run(main())
    threads = [thread for thread in threading.enumerate() if thread.name == "strand-watcher"]
    assert len(threads) <= 1


@pytest.mark.slow
def test_a_view_that_was_awaited_is_not_kept(rows_ring: strand.Ring) -> None:
    async def main() -> weakref.ref[Any]:
        with rows_ring.consumer() as view:
            await aio.wait_for_commit(view, 0, timeout_seconds=0.01)
            rows_ring._roles.clear()
            return weakref.ref(view)

    reference = asyncio.run(main())
    gc.collect()
    assert reference() is None


def test_a_task_that_waits_learns_of_a_closed_view(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = AsyncView(rows_ring.consumer())
        waiting = asyncio.create_task(view.wait_for_commit(0))
        await settle()
        view.close()
        with pytest.raises(Closed):
            await waiting

    asyncio.run(main())


def test_a_loop_may_be_closed_under_a_wait(rows_ring: strand.Ring) -> None:
    view = rows_ring.consumer()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(aio.wait_for_commit(view, 0))
    loop.run_until_complete(settle())
    loop.close()
    rows_ring.producer().write((1, ""))  # rings a bell that no task of that loop waits for
    assert asyncio.run(aio.wait_for_commit(view, 0)) == 1
    waiting.get_coro().close()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_child_process_waits_with_a_thread_of_its_own(rows_ring: strand.Ring, start: Any) -> None:
    async def main(ring: strand.Ring) -> None:
        assert await aio.wait_for_commit(ring.consumer(), 0, timeout_seconds=10) == 1

    async def wait_here() -> None:
        await aio.wait_for_commit(rows_ring.consumer(), 0, timeout_seconds=0.01)

    asyncio.run(wait_here())
    with strand.open_ring(ROWS, 16, 1024) as other:
        start(lambda: asyncio.run(main(other)))
        other.producer().write((1, ""))


def test_a_writer_waits_for_room_while_other_tasks_run(rows_ring: strand.Ring, start: Any) -> None:
    async def main() -> None:
        async with AsyncWriter(rows_ring.producer()) as writer:
            await writer.write_record_batch([(index, f"row {index}") for index in range(16)])
            blocked = asyncio.create_task(writer.write((16, "row 16")))
            await settle()
            assert not blocked.done()
            start(consume, rows_ring, 17)
            await blocked

    asyncio.run(main())


def test_everything_larger_than_the_ring_is_written_in_parts(
    rows_ring: strand.Ring, start: Any
) -> None:
    names = [f"row {index}" for index in range(400)]

    async def main() -> None:
        async with AsyncWriter(rows_ring.producer()) as writer:
            records = list(enumerate(names))
            assert await writer.write_record_batch(records[:100]) == 100
            ids = np.arange(100, 200, dtype="u4")
            assert await writer.write_columns({"id": ids, "name": names[100:200]}) == 100
            batch = pa.record_batch(
                {"id": pa.array(range(200, 400), pa.uint32()), "name": names[200:]}
            )
            await writer.write_arrow(batch)
            assert writer.committed_count == 400

    start(consume, rows_ring, 400)
    asyncio.run(main())


def test_arrow_batches_go_through_a_block_ring(start: Any) -> None:
    pa.record_batch({"here": [0]})  # loads pyarrow's lazy modules before the process forks
    with strand.open_ring(strand.BLOCKS, records=4, heap=4096) as ring:
        start(consume_batches, ring, 1000)

        async def main() -> None:
            async with AsyncWriter(ring.producer()) as writer:
                for begin in range(0, 1000, 250):
                    await writer.write_arrow(pa.record_batch({"n": range(begin, begin + 250)}))

        asyncio.run(main())


def test_tasks_that_write_do_not_mix_their_batches(rows_ring: strand.Ring) -> None:
    async def main() -> list[int]:
        view = AsyncView(rows_ring.consumer())
        async with AsyncWriter(rows_ring.producer()) as writer:
            tasks = [
                asyncio.create_task(writer.write_record_batch([(member, "")] * 40))
                for member in range(3)
            ]
            reading = asyncio.create_task(collect(view.row_groups()))
            await asyncio.gather(*tasks)
        return [row[0] for group in await reading for row in group]

    assert asyncio.run(main()) == 40 * [0] + 40 * [1] + 40 * [2]


async def collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def test_a_cancelled_write_has_written_nothing(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = rows_ring.consumer()
        async with AsyncWriter(rows_ring.producer()) as writer:
            await writer.write_record_batch([(index, "x" * 32) for index in range(16)])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await writer.write((99, "too much"))
            assert writer.committed_count == 16
            view.acknowledge_read(16)
            await writer.write((16, "again"))
            assert view.tuples(16, 17) == [(16, "again")]

    asyncio.run(main())


def test_a_writer_is_notified_when_the_last_reader_leaves(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = rows_ring.consumer()
        writer = AsyncWriter(rows_ring.producer())
        await writer.write_record_batch([(index, "") for index in range(16)])
        blocked = asyncio.create_task(writer.write((16, "")))
        await settle()
        view.close()
        with pytest.raises(strand.ConsumerDied):
            await blocked

    asyncio.run(main())


def test_a_writer_learns_of_an_abort_while_it_waits(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = rows_ring.consumer()
        writer = AsyncWriter(rows_ring.producer())
        await writer.write_record_batch([(index, "") for index in range(16)])
        blocked = asyncio.create_task(writer.write((16, "")))
        await settle()
        view.signal_abort()
        with pytest.raises(strand.StrandAbortError):
            await blocked

    asyncio.run(main())


def test_an_error_in_the_loop_aborts_the_stream(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        async with AsyncWriter(rows_ring.producer()):
            raise ZeroDivisionError("no more")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    with rows_ring.consumer() as view, pytest.raises(strand.StrandAbortError, match="no more"):
        view.wait_for_commit(0)


def test_a_ring_that_was_awaited_is_unmapped_when_it_is_closed() -> None:
    async def main(ring: strand.Ring) -> None:
        waiting = asyncio.create_task(aio.wait_for_commit(ring.consumer(), 0))
        await settle()
        ring.producer().write((1, ""))
        assert await waiting == 1

    mapped = Path("/proc/self/maps").read_text().count("memfd:strand")
    with strand.open_ring(ROWS, 16, 1024) as ring:
        asyncio.run(main(ring))
    while Path("/proc/self/maps").read_text().count("memfd:strand") > mapped:
        gc.collect()  # at last when the watching thread goes back to sleep


@pytest.mark.slow
def test_nothing_is_opened_that_stays_open(rows_ring: strand.Ring) -> None:
    async def main() -> None:
        view = rows_ring.consumer()
        await aio.wait_for_commit(view, 0, timeout_seconds=0.001)
        view.close()

    asyncio.run(main())
    gc.collect()  # what other tests left to the collector
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(50):
        asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
