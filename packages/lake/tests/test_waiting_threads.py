from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from lake.routes.waiting_threads import WaitingThreads


def test_a_result_and_an_error_arrive_where_the_call_is_awaited() -> None:
    threads = WaitingThreads(2)

    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        return await threads.run(lambda: 7)

    assert asyncio.run(main()) == 7


def test_calls_beyond_the_threads_wait_and_all_are_made() -> None:
    threads, both = WaitingThreads(2), threading.Barrier(2)
    names: set[str] = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name + str(threading.get_ident()))
        both.wait(20)  # two at a time, no more and no fewer
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*(threads.run(partial(work, number)) for number in range(20)))

    assert asyncio.run(main()) == list(range(20))
    assert len(names) == 2


def test_a_cancelled_call_goes_on_and_its_result_is_dropped() -> None:
    threads, go, done = WaitingThreads(1), threading.Event(), threading.Event()

    def work() -> None:
        go.wait(20)
        done.set()

    async def main() -> None:
        call = threads.run(work)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go.set()
        assert await threads.run(done.is_set)

    asyncio.run(main())


def test_a_thread_without_work_ends_and_another_serves_the_next_call() -> None:
    threads = WaitingThreads(1, idle_seconds=0)

    async def main() -> list[threading.Thread]:
        return [await threads.run(threading.current_thread) for _ in range(50)]

    served = asyncio.run(main())
    for thread in served:
        thread.join(20)
    assert not any(thread.is_alive() for thread in served)


def test_a_call_that_outlives_its_loop_harms_nobody() -> None:
    threads, go = WaitingThreads(1), threading.Event()

    async def begin() -> None:
        threads.run(lambda: go.wait(20))

    async def call() -> int:
        return await threads.run(lambda: 3)

    asyncio.run(begin())
    go.set()
    assert asyncio.run(call()) == 3
