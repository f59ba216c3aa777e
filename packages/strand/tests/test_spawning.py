"""Rings and fan-ins handed to processes that multiprocessing starts, by each of its methods."""

import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import strand

ROWS = strand.build_schema([("id", "u32"), ("member", "u16")])


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def start(request: pytest.FixtureRequest) -> Iterator[Any]:
    context: Any = multiprocessing.get_context(request.param)
    started: list[Any] = []

    def begin(function: Any, *arguments: Any) -> Any:
        process = context.Process(target=function, args=arguments)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.join(60)
        assert process.exitcode == 0
        process.close()


def produce(ring: strand.Ring, count: int) -> None:
    with ring, ring.producer() as writer:
        writer.write_record_batch([(index, 0) for index in range(count)])


def consume(ring: strand.Ring, count: int) -> None:
    with ring, ring.consumer() as view:
        assert [row[0] for row in view] == list(range(count))


def produce_in(fan: strand.FanIn, member: int, count: int) -> None:
    with fan, fan.producer() as writer:
        for index in range(count):
            writer.write((index, member))


def consume_from(fan: strand.FanIn, count: int) -> None:
    with fan, fan.consumer() as view:
        assert sum(1 for _ in view) == count


def inherit(ring: strand.Ring, writer: Any) -> None:
    assert writer is None or writer.closed
    with pytest.raises(strand.RoleTaken):
        ring.producer()


@pytest.mark.slow
def test_a_ring_goes_to_a_producer(start: Any) -> None:
    with strand.open_ring(ROWS, records=16, heap=1024) as ring:
        start(produce, ring, 1000)
        with ring.consumer() as view:
            assert [row[0] for row in view] == list(range(1000))


@pytest.mark.sample(1)
def test_a_ring_goes_to_a_consumer(start: Any) -> None:
    with strand.open_ring(ROWS, records=16, heap=1024) as ring:
        start(consume, ring, 1000)
        produce(ring, 1000)


@pytest.mark.sample(1)
def test_a_named_ring_goes_to_a_child_and_stays_its_makers(start: Any) -> None:
    with strand.open_ring(ROWS, 16, 1024, name="test-spawning") as ring:
        start(produce, ring, 10).join()
        strand.attach_ring(name="test-spawning").close()


@pytest.mark.sample(1)
@pytest.mark.slow
def test_a_fan_in_goes_to_its_producers(start: Any) -> None:
    with strand.fan_in(3, ROWS, records=16, heap=1024) as fan:
        for member in range(3):
            start(produce_in, fan, member, 300)
        with fan.consumer() as view:
            rows = list(view)
    for member in range(3):
        assert [index for index, by in rows if by == member] == list(range(300))


@pytest.mark.sample(1)
def test_a_fan_in_goes_to_its_consumer(start: Any) -> None:
    with strand.fan_in(2, ROWS, records=16, heap=1024) as fan:
        start(consume_from, fan, 600)
        writers = [fan.producer(), fan.producer()]
        for index in range(300):
            for member, writer in enumerate(writers):
                writer.write((index, member))
        for writer in writers:
            writer.finalize()


@pytest.mark.sample(1)
def test_roles_stay_with_the_process_that_claimed_them(start: Any) -> None:
    with strand.open_ring(ROWS, 16, 1024) as ring, ring.producer() as writer:
        start(inherit, ring, None).join()
        writer.write((1, 1))


def test_a_ring_is_pickled_for_a_starting_process_alone() -> None:
    with (
        strand.open_ring(ROWS, 16, 1024) as ring,
        strand.fan_in(2, ROWS, 16, 1024) as fan,
    ):
        for made in (ring, fan):
            with pytest.raises(TypeError, match="except to start a process"):
                pickle.dumps(made)
