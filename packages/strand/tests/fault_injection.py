"""Kill or stop a process before each visible step: `fault_injection.py SCENARIO v5|v6 kill|stop`.

Runs with an extension that was built with points.h. A scenario is run again and again, each time
with a forked child that sends itself the signal one step later, until a child comes to its end. What
the steps were goes to standard output.
"""

import ctypes
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import strand
from sennit_core.errors import Closed
from strand import _native, layout
from strand.role import Role

NEVER = 1 << 40
HANG_SECONDS = 20  # a guard: the tested behaviour needs milliseconds
RECORDS, HEAP = 4, 1024

TYPED = strand.build_schema(
    [("id", "u32"), ("name", "utf8"), {"name": "data", "type": "bytes", "nullable": True}]
)


class Points:
    """The counter that points.h keeps in the extension."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_native.__file__)
        self._left = ctypes.c_long.in_dll(library, "strand_points_left")
        self._passed = ctypes.c_long.in_dll(library, "strand_points_passed")
        self._signal = ctypes.c_int.in_dll(library, "strand_point_signal")
        self._names = (ctypes.c_char_p * 4096).in_dll(library, "strand_point_names")

    def arm(self, after: int, number: int) -> None:
        self._signal.value = number
        self._left.value = after

    def disarm(self) -> None:
        self._left.value = -1

    def names(self) -> Iterator[str]:
        for name in self._names[: self._passed.value]:
            yield (name or b"?").decode()


class Stalled(Exception):
    """A write found no room."""


class World:
    """One ring, and how records of either version are made, written and read."""

    def __init__(self, version: int, *, preset: bool = True) -> None:
        self.version = version
        schema = strand.BLOCKS if version == 6 else TYPED
        self.ring = strand.open_ring(schema, RECORDS, HEAP, version=version)
        self.first = 0
        if preset:  # so that slots, heap and 32 bits wrap within a few records
            self.first = 2**32 - 3 if version == 6 else 6
            counters = (self.first, self.first, 2**32 - 300, 2**32 - 300)
            struct.pack_into("<4Q", self.ring.memory, layout.PRODUCER_AT, *counters)
            struct.pack_into("<Q", self.ring.memory, layout.JOIN_POSITION_AT, self.first)
            struct.pack_into("<I", self.ring.memory, layout.STATUS_AT, layout.STREAMING)

    def record(self, index: int) -> Any:
        text = bytes([97 + index % 26]) * (index * 67 % 200)
        if self.version == 6:
            return b"%d:" % index + text
        return index, text.decode(), None if index % 2 else b"%d" % index

    def write(self, writer: strand.StrandWriter, index: int) -> None:
        """Write a record in one of the three ways there are."""
        record = self.record(index)
        if self.version == 5:
            writer.write(record)
        elif index % 3 == 0:
            writer.write_bytes(record)
        elif index % 3 == 1:
            claim = writer.claim_payload(len(record) + 9)
            with claim as memory:
                memory[: len(record)] = record
                claim.shrink(len(record))
        else:
            slot, seq = writer.claim_slot()
            at, offset = writer.claim_heap_bytes(len(record), 64)
            writer.memory[at : at + len(record)] = record
            struct.pack_into("<QI", writer.memory, slot, offset, len(record))
            writer.commit_heap()
            writer.commit_slot(seq)

    def read(self, view: strand.StrandView, seq: int) -> Any:
        if self.version == 6:
            return bytes(view._read_block(seq))
        return view.tuples(seq, seq + 1)[0]

    def try_write(self, writer: strand.StrandWriter, index: int) -> bool:
        """Write unless that would wait."""
        wait = writer._wait_for_room
        writer.__dict__["_wait_for_room"] = stall
        try:
            self.write(writer, index)
        except Stalled:
            return False
        finally:
            writer.__dict__["_wait_for_room"] = wait
        return True


def stall(_threshold: int) -> None:
    raise Stalled


class Reader:
    """A consumer in the parent, and what it received of each stream."""

    def __init__(self, world: World, start: Any = "oldest") -> None:
        self.world = world
        self.view = world.ring.consumer(start)
        self.at = self.view.acknowledged_count
        self.streams: list[list[Any]] = [[]]

    def read_available(self) -> None:
        """Read what is there, without waiting."""
        try:
            count = self.view.wait_for_commit(self.at, 0)
        except strand.StreamReset:
            self.at = 0
            self.streams.append([])
            return
        for seq in range(self.at, count):
            self.streams[-1].append(self.world.read(self.view, seq))
            self.at = seq + 1
            self.view.acknowledge_read(self.at)

    def drain(self) -> str:
        """Read on until it is over; answer how."""
        while True:
            with suppress(strand.StreamReset):
                try:
                    over = self.view.wait_for_commit(self.at, HANG_SECONDS) <= self.at
                except strand.ProducerDied:
                    return "died"
                if over:
                    assert self.world.ring.status == "eos", "the wait did not end"
                    return "eos"
                self.read_available()
                continue
            self.at = 0
            self.streams.append([])


class Scenario:
    """What the child does; what the parent does meanwhile, while it is stopped, and afterwards."""

    preset = True

    def __init__(self, version: int) -> None:
        self.world = World(version, preset=self.preset)
        self.ring = self.world.ring

    def child(self, arm: Callable[[], None]) -> None:
        """Call `arm` when the steps begin to count; raise when something is wrong."""
        raise NotImplementedError

    def step(self) -> None:
        """Do what needs no waiting, while the child runs."""

    def stopped(self) -> None:
        """Look at a stopped child's ring: it must not count as dead."""

    def finish(self, survived: bool) -> None:
        """Check what is left, and continue with it."""


class Producing(Scenario):
    """A producer dies; its successor continues, and no published record is lost or doubled."""

    count = 7

    def __init__(self, version: int) -> None:
        super().__init__(version)
        leave_dead_consumer(self.ring)
        self.reader = Reader(self.world)

    def child(self, arm: Callable[[], None]) -> None:
        arm()
        with self.ring.producer() as writer:
            for index in range(self.count):
                self.world.write(writer, index)

    def step(self) -> None:
        """Read when the child waits for room, so that it comes to wait however fast it is."""
        waits_for = struct.unpack_from("<Q", self.ring.memory, layout.SLEEP_AT)[0]
        with suppress(strand.ProducerDied):
            if waits_for:
                self.reader.read_available()

    def stopped(self) -> None:
        self.reader.read_available()
        self.reader.view.wait_for_commit(self.reader.at, 0.005)

    def finish(self, survived: bool) -> None:
        how = self.reader.drain()
        received = self.reader.streams[0]
        expected = [self.world.record(index) for index in range(self.count)]
        assert received == expected[: len(received)], "not an exact prefix"
        if how == "died":
            with self.ring.producer(resume=True) as writer:
                assert writer.committed_count == self.world.first + len(received)
                for index in range(len(received), self.count):
                    self.world.write(writer, index)
                    self.reader.read_available()
            assert self.reader.drain() == "eos"
        assert received == expected
        memory = self.ring.memory
        if self.world.version == 5:  # a plain v5 reader must see the end as well
            for mirror, counter in ((32, 3144), (48, 3160)):
                low = struct.unpack_from("<Q", memory, counter)[0] & 0xFFFFFFFF
                assert struct.unpack_from("<I", memory, mirror)[0] == low


class Consuming(Scenario):
    """One of two consumers joins, reads, leaves and joins again, and dies; the other reads on."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.other = Reader(self.world)
        self.writer = self.ring.producer()
        self.written = 0

    def child(self, arm: Callable[[], None]) -> None:
        arm()
        for start in ("oldest", "next", "oldest"):
            reader = Reader(self.world, start)
            first = reader.at - self.world.first
            while len(reader.streams[0]) < 2:
                reader.view.wait_for_commit(reader.at)
                reader.read_available()
            for at, record in enumerate(reader.streams[0]):
                assert record == self.world.record(first + at), "another record's bytes"
            reader.view.close()

    def step(self) -> None:
        self.other.read_available()
        if self.world.try_write(self.writer, self.written):
            self.written += 1

    def stopped(self) -> None:
        states = [entry.state for entry in layout.read_consumers(self.ring.memory)]
        for _ in range(RECORDS + 1):
            self.step()
        if not self.world.try_write(self.writer, self.written):
            self.writer._wait_for_room(self.other.at + 1)
        else:
            self.written += 1
        assert states == [entry.state for entry in layout.read_consumers(self.ring.memory)]

    def finish(self, survived: bool) -> None:
        for index in range(self.written, self.written + 2 * RECORDS):
            self.other.read_available()
            self.world.write(self.writer, index)  # a dead consumer is passed over within a nap
        self.writer.finalize()
        assert self.other.drain() == "eos"
        total = self.written + 2 * RECORDS
        assert self.other.streams == [[self.world.record(index) for index in range(total)]]


class LastConsumer(Scenario):
    """The only consumer dies; the next one reads the records it had not released."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.writer = self.ring.producer()
        for index in range(RECORDS):
            self.world.write(self.writer, index)

    def child(self, arm: Callable[[], None]) -> None:
        arm()
        reader = Reader(self.world)
        for seq in range(self.world.first, self.world.first + 3):
            self.world.read(reader.view, seq)
            reader.view.acknowledge_read(seq + 1)
        reader.view.close()

    def finish(self, survived: bool) -> None:
        written = RECORDS
        with suppress(strand.ConsumerDied):
            while written < 2 * RECORDS and self.has_reader_or_room(written):
                self.world.write(self.writer, written)
                written += 1
        reader = Reader(self.world)
        while written < 3 * RECORDS:
            reader.read_available()
            self.world.write(self.writer, written)
            written += 1
        self.writer.finalize()
        assert reader.drain() == "eos"
        start = written - len(reader.streams[0])
        assert 0 <= start <= 3
        assert reader.streams == [[self.world.record(at) for at in range(start, written)]]

    def has_reader_or_room(self, written: int) -> bool:
        """Whether a write ends: before the first consumer came, a full ring waits for it."""
        states = [entry.state for entry in layout.read_consumers(self.ring.memory)]
        return any(states) or written < RECORDS


class Resetting(Scenario):
    """A producer dies while it begins a new stream: the old one or a new one, never a mixture."""

    preset = False
    old, new = 2, 3

    def __init__(self, version: int) -> None:
        super().__init__(version)
        leave_dead_consumer(self.ring)
        self.reader = Reader(self.world)

    def child(self, arm: Callable[[], None]) -> None:
        writer = self.ring.producer()
        for index in range(self.old):
            self.world.write(writer, index)
        writer.finalize()
        while layout.read_consumer(self.ring.memory, self.reader.view._index or 0).read < self.old:
            time.sleep(0.0005)
        arm()
        writer.reset()
        for index in range(self.new):
            self.world.write(writer, 10 + index)
        writer.finalize()

    def step(self) -> None:
        with suppress(strand.ProducerDied):
            self.reader.read_available()

    def stopped(self) -> None:
        for _ in range(3):
            self.reader.read_available()

    def finish(self, survived: bool) -> None:
        how = self.reader.drain()
        streams = self.reader.streams
        old = [self.world.record(index) for index in range(self.old)]
        new = [self.world.record(10 + index) for index in range(self.new)]
        assert streams[0] == old
        if how == "eos" and len(streams) == 1:  # it died before the old stream was released
            with pytest.raises(Closed):
                self.ring.producer(resume=True)
            assert not survived
            return
        if how == "died":
            received = streams[1] if len(streams) > 1 else []
            assert received == new[: len(received)]
            with self.ring.producer(resume=True) as writer:
                for index in range(writer.committed_count, self.new):
                    self.world.write(writer, 10 + index)
            assert self.reader.drain() == "eos"
        assert streams[0] == old, "the new stream continued the old one"
        assert [stream for stream in streams[1:] if stream] == [new]


class Aborting(Scenario):
    """A consumer dies while it requests an abort: the producer stops, or continues."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.reader = Reader(self.world)
        self.writer = self.ring.producer()

    def child(self, arm: Callable[[], None]) -> None:
        arm()
        self.ring.signal_abort()

    def finish(self, survived: bool) -> None:
        aborted = False
        for index in range(2 * RECORDS):
            try:
                self.world.write(self.writer, index)
            except strand.StrandAbortError:
                aborted = True
                break
            self.reader.read_available()
        assert aborted or not survived
        assert len(self.reader.streams[0]) in (0, 2 * RECORDS)


SCENARIOS: dict[str, type[Scenario]] = {
    "producing": Producing,
    "consuming": Consuming,
    "last-consumer": LastConsumer,
    "resetting": Resetting,
    "aborting": Aborting,
}


def leave_dead_consumer(ring: strand.Ring) -> None:
    """Have an entry that says "attached" and whose process is gone."""
    pid = os.fork()
    if pid == 0:
        ring.consumer()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def run_child(scenario: Scenario, arm: Callable[[], None], points: Points, report: int) -> None:
    """Be the child; say which points were passed when it comes to its end."""
    code = 3
    try:
        scenario.child(arm)
        points.disarm()
        os.write(report, "\n".join(points.names()).encode())
        code = 0
    except BaseException:  # noqa: BLE001 - a child must not return
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    os._exit(code)


def watch(scenario: Scenario, pid: int) -> int:
    """Do the parent's part until the child is gone; return its wait status."""
    started = time.monotonic()
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found and not os.WIFSTOPPED(status):
            return status
        if found:
            scenario.stopped()
            os.kill(pid, signal.SIGCONT)
        scenario.step()
        if time.monotonic() - started > HANG_SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.0002)


def run_once(make: type[Scenario], version: int, number: int, after: int) -> str | None:
    """Run the scenario with the signal at one point; the points when it came to its end."""
    scenario, points = make(version), Points()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        run_child(scenario, lambda: points.arm(after, number), points, writing)
    os.close(writing)
    try:
        status = watch(scenario, pid)
        assert status in (0, number), f"the child ended with {status}"
        scenario.finish(status == 0)
        names = os.read(reading, 1 << 16).decode()
    finally:
        os.close(reading)
        scenario.ring.close()
    done = status == 0 and (number == signal.SIGKILL or len(names.split()) <= after)
    return names if done else None


def main() -> None:
    name, version, how = sys.argv[1:]
    number = signal.SIGKILL if how == "kill" else signal.SIGSTOP
    for module in (strand.consumer, strand.producer):
        vars(module)["NAP_NANOSECONDS"] = 2_000_000
    Role.spin_nanoseconds = 0
    only = os.environ.get("AFTER")
    for after in [int(only)] if only else range(4000):
        try:
            names = run_once(SCENARIOS[name], int(version[1:]), number, after)
        except BaseException:
            sys.stderr.write(f"signal before step {after}\n")
            raise
        if names is not None:
            sys.stdout.write(names + "\n")
            return
    raise AssertionError("no end")


if __name__ == "__main__":
    main()
