"""Several producers and one consumer through one segment."""

import gc
import itertools
import multiprocessing
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import strand
import strand.fanin_view
import strand.producer
from sennit_core.errors import DeadlineExceeded, UsageError
from strand.layout import read_consumer
from strand.schema import fnv1a

FORK = multiprocessing.get_context("fork")
ROWS = strand.build_schema([("id", "u32"), ("member", "u16"), ("name", "utf8")])


@pytest.fixture
def fan() -> Iterator[strand.FanIn]:
    with strand.fan_in(3, ROWS, records=16, heap=1024) as made:
        yield made


@pytest.fixture
def start() -> Iterator[Any]:
    """Start functions in processes of their own, which are waited for in the end."""
    started: list[Any] = []

    def begin(function: Any, *arguments: Any) -> Any:
        process = FORK.Process(target=function, args=arguments)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.join(30)
        assert process.exitcode is not None


def produce(fan: strand.FanIn, member: int, count: int) -> None:
    with fan.producer() as writer:
        for index in range(count):
            writer.write((index, member, f"row {index}"))


def produce_and_die(fan: strand.FanIn, member: int, count: int) -> None:
    writer = fan.producer()
    for index in range(count):
        writer.write((index, member, ""))
    os.kill(os.getpid(), signal.SIGKILL)


def produce_payloads(fan: strand.FanIn, member: int, count: int) -> None:
    with fan.producer() as writer:
        for index in range(count):
            writer.write_bytes(bytes([member]) * (index % 100))


def produce_batches(fan: strand.FanIn, member: int, count: int) -> None:
    with fan.producer() as writer:
        for index in range(count):
            writer.write_arrow(pa.record_batch({"member": [member], f"n{member}": [index]}))


def end_at_once(_fan: strand.FanIn) -> None:
    """Fail before claiming a member."""


def test_a_producer_that_died_before_it_joined_is_noticed(fan: strand.FanIn, start: Any) -> None:
    processes = [start(produce, fan, member, 100) for member in range(2)]
    processes.append(start(end_at_once, fan))
    rows: list[Any] = []
    with fan.consumer(processes=processes) as view:
        with pytest.raises(strand.ProducerDied, match="had not claimed a member") as failure:
            collect(view, rows)
        assert failure.value.pid == processes[2].pid
        assert len(view.failures) == 1
    assert len(rows) == 200
    with pytest.raises(strand.RoleTaken):
        fan.producer()


def test_members_that_no_consumer_claims_are_abandoned_after_a_time(fan: strand.FanIn) -> None:
    with fan.producer() as writer:
        writer.write((1, 2, "three"))
    rows: list[Any] = []
    with fan.consumer(join_seconds=0) as view:
        with pytest.raises(DeadlineExceeded, match="producer of member 1"):
            collect(view, rows)
        assert sorted(view.failures) == [1, 2]
    assert rows == [(1, 2, "three")]


def collect(view: strand.FanInView, into: list[Any]) -> None:
    for row in view:
        into.append(row)  # noqa: PERF402 - keeps what came before an error


def test_every_producers_records_arrive_in_its_order(fan: strand.FanIn, start: Any) -> None:
    for member in range(3):
        start(produce, fan, member, 2000)
    with fan.consumer() as view:
        rows = list(view)
    assert len(rows) == 6000
    for member in range(3):
        mine = [(index, name) for index, by, name in rows if by == member]
        assert mine == [(index, f"row {index}") for index in range(2000)]


@pytest.mark.timeout(60)
def test_no_wake_up_is_lost_when_naps_never_end(
    fan: strand.FanIn, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (strand.fanin_view, strand.producer):  # forked processes inherit it
        monkeypatch.setattr(module, "NAP_NANOSECONDS", 10**15)
        monkeypatch.setattr(module, "SPIN_NANOSECONDS", 0, raising=False)
    for member in range(3):
        start(produce, fan, member, 5000)
    with fan.consumer() as view:
        assert sum(1 for _ in view) == 15000


def test_payloads_of_many_producers_arrive(start: Any) -> None:
    with strand.fan_in(3, strand.BLOCKS, records=8, heap=4096) as fan:
        for member in range(3):
            start(produce_payloads, fan, member, 500)
        with fan.consumer() as view:
            sizes = [len(payload) for payload in view.payloads()]
    assert sorted(sizes) == sorted(3 * [index % 100 for index in range(500)])


@pytest.mark.parametrize("copy", [True, False])
def test_arrow_batches_of_different_schemas_arrive(start: Any, copy: bool) -> None:
    pa.record_batch({"here": [0]})  # loads pyarrow's lazy modules before the processes fork
    with strand.fan_in(2, strand.BLOCKS, records=8, heap="64KiB") as fan:
        for member in range(2):
            start(produce_batches, fan, member, 50)
        seen: dict[int, list[int]] = {0: [], 1: []}
        with fan.consumer() as view:
            for batch in view.batches(copy=copy):
                member = batch["member"][0].as_py()
                seen[member].append(batch[f"n{member}"][0].as_py())
                del batch
    assert seen == {0: list(range(50)), 1: list(range(50))}


def test_numpy_views_and_gathered_batches_of_many_producers(fan: strand.FanIn, start: Any) -> None:
    for member in range(3):
        start(produce, fan, member, 100)
    ids: list[int] = []
    with fan.consumer() as view:
        for batch in view.batches():
            ids += batch["id"].to_pylist()
    assert sorted(ids) == sorted(3 * list(range(100)))


def test_no_producer_starves_while_another_writes_without_end() -> None:
    with strand.fan_in(2, ROWS, records=16, heap=1024) as fan, fan.consumer() as view:
        busy, quiet = fan.producer(), fan.producer()
        busy.write_record_batch([(index, 0, "") for index in range(16)])
        quiet.write((0, 1, ""))
        groups = view.row_groups(0)
        assert {row[1] for row in next(groups)} == {0}
        assert {row[1] for row in next(groups)} == {1}
        busy.write_record_batch([(index, 0, "") for index in range(16)])
        assert {row[1] for row in next(groups)} == {0}


def test_one_producer_more_than_members_is_refused(fan: strand.FanIn) -> None:
    for _ in range(3):
        fan.producer()
    with pytest.raises(strand.RoleTaken, match="3 members") as refused:
        fan.producer()
    assert refused.value.pid == os.getpid()


def test_a_member_whose_producer_has_ended_is_not_returned_again(fan: strand.FanIn) -> None:
    for member in range(3):
        produce(fan, member, 1)
    with pytest.raises(strand.RoleTaken):
        fan.producer()
    with fan.consumer() as view:
        assert sorted(row[1] for row in view) == [0, 1, 2]
        assert view.ended


def test_a_killed_producer_loses_nothing_and_stops_no_other(fan: strand.FanIn, start: Any) -> None:
    dead = start(produce_and_die, fan, 7, 5)
    start(produce, fan, 1, 1000)
    start(produce, fan, 2, 1000)
    rows: list[Any] = []
    with fan.consumer() as view:
        with pytest.raises(strand.ProducerDied) as died:
            collect(view, rows)
        assert died.value.pid == dead.pid
        assert [failure.code for failure in view.failures.values()] == ["producer-died"]
    assert len(rows) == 2005
    assert [row[0] for row in rows if row[1] == 7] == list(range(5))


def test_producers_learn_that_the_consumer_was_killed(fan: strand.FanIn, start: Any) -> None:
    def read_a_little_and_die() -> None:
        next(iter(fan.consumer()))
        os.kill(os.getpid(), signal.SIGKILL)

    writer = fan.producer()
    consumer = start(read_a_little_and_die)
    with pytest.raises(strand.ConsumerDied) as died:
        writer.write_record_batch((index, 0, "") for index in itertools.count())
    assert died.value.pid == consumer.pid


def test_a_stopped_producer_is_not_mistaken_for_dead(fan: strand.FanIn, start: Any) -> None:
    for _ in range(2):
        fan.producer().finalize()
    rows: list[Any] = []

    def read(timeout_seconds: float | None) -> None:
        for group in view.row_groups(timeout_seconds):
            rows.extend(group)

    with fan.consumer() as view:
        slow = start(produce, fan, 2, 20)  # more than fit: it waits for room when it is stopped
        view.wait()
        os.kill(slow.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded):
                read(0.4)
        finally:
            os.kill(slow.pid, signal.SIGCONT)
        read(None)
    assert [row[0] for row in rows] == list(range(20))


def test_an_aborted_producer_is_reported_after_the_records_of_others(fan: strand.FanIn) -> None:
    writer = fan.producer()
    writer.write((1, 0, ""))
    writer.abort("no more")
    produce(fan, 1, 3)
    fan.producer().abort("me too")
    rows: list[Any] = []
    with fan.consumer() as view, pytest.raises(strand.StrandAbortError, match="no more") as raised:
        collect(view, rows)
    assert len(rows) == 4
    assert "member 2 too: the stream was aborted: me too" in raised.value.__notes__


def test_members_that_no_consumer_claims_may_be_ended(fan: strand.FanIn) -> None:
    produce(fan, 0, 2)
    assert fan.finalize_vacant() == 2
    assert fan.finalize_vacant() == 0
    with fan.consumer() as view:
        assert len(list(view)) == 2


def test_wait_returns_the_members_with_records(fan: strand.FanIn) -> None:
    with fan.consumer() as view:
        writers = [fan.producer() for _ in range(3)]
        assert view.wait(0) == []
        writers[1].write((5, 1, ""))
        (ready,) = view.wait()
        assert ready is view.members[1]
        assert ready.tuples(0, 1) == [(5, 1, "")]
        ready.acknowledge_read(1)
        for writer in writers:
            writer.finalize()
        assert view.wait() == []
        assert view.ended


@pytest.mark.timeout(60)
@pytest.mark.parametrize("member", range(3))
def test_a_sleeping_consumer_is_woken_by_whichever_producer(
    fan: strand.FanIn, start: Any, monkeypatch: pytest.MonkeyPatch, member: int
) -> None:
    monkeypatch.setattr(strand.fanin_view, "NAP_NANOSECONDS", 10**15)

    def write_when_it_sleeps() -> None:
        while not read_consumer(fan.rings[member].memory, 0).threshold:
            pass  # until it has stated what is worth waking for
        produce(fan, member, 1)

    idle = [ring.producer() for ring in fan.rings if ring is not fan.rings[member]]
    with fan.consumer() as view:
        start(write_when_it_sleeps)
        assert next(view.row_groups()) == [(0, member, "row 0")]
    assert len(idle) == 2


def test_a_timeout_of_iterating_is_an_error(fan: strand.FanIn) -> None:
    with fan.consumer() as view, pytest.raises(DeadlineExceeded):
        next(view.row_groups(timeout_seconds=0))


def test_an_abort_reaches_every_producer(fan: strand.FanIn) -> None:
    with fan.consumer() as view:
        writers = [fan.producer() for _ in range(3)]
        view.signal_abort()
        for writer in writers:
            with pytest.raises(strand.StrandAbortError):
                writer.write((0, 0, ""))
        with pytest.raises(strand.StrandAbortError):
            list(view)


def test_leaving_a_loop_early_redelivers_the_rest_of_the_group(fan: strand.FanIn) -> None:
    with fan.consumer() as view:
        produce(fan, 0, 3)
        rows = iter(view)
        first, _ = next(rows), next(rows)
        del rows
        assert next(iter(view)) == first


def test_a_members_stream_cannot_be_reset(fan: strand.FanIn) -> None:
    with fan.producer() as writer:
        writer.finalize()
        with pytest.raises(UsageError, match="one stream"):
            writer.reset()


def test_two_consumers_read_everything_each(fan: strand.FanIn) -> None:
    with fan.consumer() as one, fan.consumer() as other:
        for member in range(3):
            produce(fan, member, 2)
        assert sorted(one) == sorted(other)


def test_a_member_is_handed_over_with_the_whole(fan: strand.FanIn) -> None:
    with pytest.raises(UsageError, match="the fan-in itself"):
        fan.rings[0].fileno()


@pytest.mark.parametrize("count", [0, -1, 1025, True, "3"])
def test_a_fan_in_has_a_sensible_number_of_members(count: Any) -> None:
    with pytest.raises(UsageError, match="1 to 1024 members"):
        strand.fan_in(count, ROWS)


@pytest.mark.parametrize(
    ("at", "value", "name"),
    [
        (0, 0, "BadMagic"),
        (4, 2, "BadVersion"),
        (8, 4, "BadChecksum"),
        (24, 0, "BadChecksum"),
        (4096, 0, "BadMagic"),
        (4096 + 24, 0, "BadChecksum"),
    ],
)
def test_a_damaged_fan_in_is_refused(fan: strand.FanIn, at: int, value: int, name: str) -> None:
    struct.pack_into("<I", fan.segment.memory, at, value)
    with pytest.raises(strand.StrandHeaderError) as refused:
        strand.attach_fan_in(fan.fileno())
    assert type(refused.value).__name__ == name


@pytest.mark.parametrize("count", [0, 1, 2, 4, 1025, 2**32 - 1])
@pytest.mark.parametrize("member_bytes", [0, 1, 4096, 8192, 2**63, 2**64 - 4096])
def test_a_signed_header_with_an_impossible_geometry_is_refused(
    fan: strand.FanIn, count: int, member_bytes: int
) -> None:
    head = struct.pack("<IIIIQ", 0x4E414653, 1, count, 0, member_bytes)
    fan.segment.memory[:28] = head + struct.pack("<I", fnv1a(head))
    with pytest.raises(strand.StrandHeaderError):
        strand.attach_fan_in(fan.fileno())


def test_members_that_are_not_alike_are_refused(fan: strand.FanIn) -> None:
    other = strand.compute_map(strand.BLOCKS, 16, 1024)
    strand.init_header(fan.rings[1].memory, other)
    with pytest.raises(strand.StrandHeaderError, match="identical"):
        strand.attach_fan_in(fan.fileno())


def test_a_single_ring_is_no_fan_in() -> None:
    with (
        strand.open_ring(ROWS, 16, 1024) as ring,
        pytest.raises(strand.StrandHeaderError, match="fan-in"),
    ):
        strand.attach_fan_in(ring.fileno())


@pytest.mark.slow
def test_nothing_is_left_after_many_fan_ins() -> None:
    def use() -> None:
        with strand.fan_in(4, strand.BLOCKS, records=4, heap=4096) as fan, fan.consumer() as view:
            for _ in range(4):
                with fan.producer() as writer:
                    writer.write_bytes(b"x")
            assert len([bytes(payload) for payload in view.payloads()]) == 4

    use()
    gc.collect()  # what other tests left to the collector
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    mapped = Path("/proc/self/maps").read_text().count("memfd:strand")
    for _ in range(200):
        use()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    assert Path("/proc/self/maps").read_text().count("memfd:strand") <= mapped
