"""A real ring against a list, in any order of operations: claims, wraps, room, consumers, ends.

After each step a second reader, written from the specification alone, decodes what is unread.
"""

import struct
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import strand
from sennit_core.errors import Closed, Conflict, UsageError
from strand.layout import JOIN_POSITION_AT, PRODUCER_AT, STATUS_AT, STREAMING

from .second_reader import RingBytes

RECORDS, HEAP = 4, 256

TYPED = strand.build_schema(
    [
        ("id", "u32"),
        ("a", "utf8"),
        {"name": "b", "type": "bytes", "nullable": True},
        {"name": "n", "type": "i32_array", "nullable": True},
    ]
)


class Stalled(Exception):
    """The writer would have waited for so many acknowledged records."""


def stall(threshold: int) -> None:
    raise Stalled(threshold)


class RingMachine(RuleBasedStateMachine):
    """One producer and its successors, and consumers that come and go.

    `records` holds the stream from record `base` on, `reads` how far each consumer's token is.
    """

    version = 6
    schema = strand.BLOCKS
    preset = (0, 0)

    def __init__(self) -> None:
        super().__init__()
        self.ring = strand.open_ring(self.schema, RECORDS, HEAP, version=self.version)
        self.base, heap = self.preset
        if self.base:
            counters = (self.base, self.base, heap, heap)
            struct.pack_into("<4Q", self.ring.memory, PRODUCER_AT, *counters)
            struct.pack_into("<Q", self.ring.memory, JOIN_POSITION_AT, self.base)
            struct.pack_into("<I", self.ring.memory, STATUS_AT, STREAMING)
            self.mirror(heap)
        self.records: list[Any] = []
        self.pending: list[tuple[int, int]] = []
        self.ended = False
        self.streams = 0
        self.open_writer()
        self.view = self.ring.consumer()
        self.reads = {cast("int", self.view._index): self.base}
        self.reads_for_itself = False

    def mirror(self, heap: int) -> None:
        if self.version == 5:
            struct.pack_into("<3i", self.ring.memory, 28, self.base, self.base, self.base)
            struct.pack_into("<2I", self.ring.memory, 44, heap & 0xFFFFFFFF, heap & 0xFFFFFFFF)

    def open_writer(self, *, resume: bool = False) -> None:
        self.writer: Any = self.ring.producer(resume=resume)
        vars(self.writer)["_wait_for_room"] = stall

    def teardown(self) -> None:
        self.ring.close()

    # ---- the model ------------------------------------------------------------------------------

    @property
    def commit(self) -> int:
        return self.base + len(self.records)

    @property
    def low_water(self) -> int:
        return min(self.reads.values())

    def make(self, size: int) -> Any:
        index = self.commit & 255
        if self.schema is strand.BLOCKS:
            return bytes([index]) * size
        b = None if size % 3 == 0 else bytes([index]) * (size // 3)
        n = None if size % 5 == 0 else [index, -size][: size % 3]
        return index, "é" * (size // 8), b, n

    def write_one(self, record: Any) -> None:
        if self.schema is strand.BLOCKS:
            self.writer.write_bytes(record)
        else:
            self.writer.write(record)

    def check_stall(self, threshold: int) -> None:
        """Only what is unread can be waited for."""
        assert self.low_water < threshold <= self.commit + len(self.pending)

    # ---- writing --------------------------------------------------------------------------------

    @precondition(lambda self: not self.ended and not self.pending)
    @rule(sizes=st.lists(st.integers(0, HEAP // 2), min_size=1, max_size=5))
    def write(self, sizes: list[int]) -> None:
        for size in sizes:
            self.write_or_unblock(self.make(size))

    def write_or_unblock(self, record: Any) -> None:
        try:
            self.write_one(record)
        except Stalled as stalled:
            threshold = int(stalled.args[0])
            self.check_stall(threshold)
            self.unblock(record, threshold)
            return
        except strand.PayloadTooLarge:
            assert self.schema is not strand.BLOCKS
            return
        self.records.append(record)

    def unblock(self, record: Any, threshold: int) -> None:
        """Releasing up to a threshold makes room, first for the slot and then for payloads."""
        while threshold:
            for token in [token for token, read in self.reads.items() if read < threshold]:
                self.acknowledge_up_to(threshold, token)
            before, threshold = threshold, 0
            try:
                self.write_one(record)
            except Stalled as stalled:
                threshold = int(stalled.args[0])
            assert threshold == 0 or threshold > before
        self.records.append(record)

    @precondition(lambda self: not self.ended and not self.pending)
    @rule(size=st.integers(HEAP // 2 + 1, HEAP * 2))
    def write_too_much(self, size: int) -> None:
        too_much = bytes(size) if self.schema is strand.BLOCKS else (1, "x" * size, None, None)
        with pytest.raises(strand.PayloadTooLarge):
            self.write_one(too_much)

    @precondition(lambda self: not self.ended and self.schema is not strand.BLOCKS)
    @rule(sizes=st.lists(st.integers(0, 20), max_size=6))
    def write_batch(self, sizes: list[int]) -> None:
        if self.pending:
            with pytest.raises(UsageError):
                self.writer.write_record_batch([self.make(1)])
            return
        batch = []
        for at, size in enumerate(sizes):
            index = self.commit + at & 255
            batch.append((index, "b" * size, None, [index]))
        before = self.commit
        try:
            assert self.writer.write_record_batch(iter(batch)) == len(batch)
        except Stalled:
            self.writer.abandon()
        written = self.writer._sealed - before
        self.records += batch[:written]
        self.writer.commit_slots(self.commit, 0)  # publishes what a refused batch left sealed

    # ---- claims ---------------------------------------------------------------------------------

    @precondition(lambda self: not self.ended and self.schema is strand.BLOCKS)
    @rule(count=st.integers(0, 6))
    def claim(self, count: int) -> None:
        left = RECORDS - len(self.pending)
        try:
            slots = self.writer.claim_slots(count)
        except UsageError:
            assert count == 0 or count > left
            return
        except Stalled as stalled:
            self.check_stall(int(stalled.args[0]))
            assert self.commit - self.low_water + len(self.pending) + count > RECORDS
            return
        assert [seq for _, seq in slots] == [
            self.commit + len(self.pending) + at for at in range(count)
        ]
        self.pending += slots

    @precondition(lambda self: self.pending)
    @rule(
        sizes=st.lists(st.integers(0, HEAP // 4), min_size=1, max_size=RECORDS),
        wrong=st.sampled_from([0, 0, 0, 1, 2]),
    )
    def commit_claimed(self, sizes: list[int], wrong: int) -> None:
        payloads: list[bytes] = []
        for size, (slot, _) in zip(sizes, self.pending, strict=False):
            try:
                at, offset = self.writer.claim_heap_bytes(size, 8)
            except (Stalled, strand.PayloadTooLarge):
                self.abandon()
                return
            payload = bytes([self.commit + len(payloads) & 255]) * size
            self.writer.memory[at : at + size] = payload
            struct.pack_into("<QI", self.writer.memory, slot, offset, size)
            payloads.append(payload)
        if wrong:
            with pytest.raises(UsageError):
                self.writer.commit_slots(self.commit + wrong, len(payloads))
        self.writer.commit_slots(self.commit, len(payloads))
        del self.pending[: len(payloads)]
        self.records += payloads

    @precondition(lambda self: not self.ended)
    @rule()
    def abandon(self) -> None:
        self.writer.abandon()
        self.pending.clear()

    @precondition(lambda self: not self.ended and not self.pending)
    @precondition(lambda self: self.schema is strand.BLOCKS)
    @rule(size=st.integers(0, HEAP // 2), kept=st.integers(0, HEAP // 2), show=st.booleans())
    def produce_in_place(self, size: int, kept: int, show: bool) -> None:
        kept = min(kept, size)
        payload = self.make(kept)
        claim = self.writer.claim_payload(size)
        try:
            with claim as memory:
                memory[:kept] = payload
                claim.shrink(kept)
                if show and kept == size:
                    self.writer.commit_heap()
        except Stalled:
            return
        self.records.append(payload)

    # ---- consumers ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.reads) < 8)
    @rule(start=st.sampled_from(["oldest", "next"]))
    def register(self, start: Any) -> None:
        join_position = RingBytes(self.ring.memory).join_position
        token = self.view.register_consumer(start)
        first = self.commit if start == "next" else self.low_water
        self.reads[token] = max(first, join_position)
        assert self.view._reads[token] == self.reads[token]

    @precondition(lambda self: len(self.reads) > 1)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from([t for t in self.reads if t != self.view._index]))
        self.view.release_consumer(token)
        del self.reads[token]
        self.follow_tokens()
        with pytest.raises(UsageError):
            self.view.acknowledge_read(self.commit, token)

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.reads)))
        upto = data.draw(st.integers(self.reads[token], self.commit))
        self.acknowledge_up_to(upto, token)
        for wrong in (self.commit + 1, upto - 1):
            if wrong >= 0:
                with pytest.raises(UsageError):
                    self.view.acknowledge_read(wrong, token)

    def acknowledge_up_to(self, upto: int, token: int) -> None:
        self.view.acknowledge_read(upto, token)
        self.reads[token] = upto
        if token == self.view._index:
            self.reads_for_itself = True
        self.follow_tokens()

    def follow_tokens(self) -> None:
        """Move the view's own consumer to its slowest token, while nothing is read with it."""
        own = cast("int", self.view._index)
        others = [read for token, read in self.reads.items() if token != own]
        if others and not self.reads_for_itself:
            self.reads[own] = max(self.reads[own], min(others))

    @precondition(lambda self: len(self.reads) == 1)
    @rule()
    def close_and_come_back(self) -> None:
        read = self.low_water
        self.view.close()
        self.view = self.ring.consumer()
        join_position = RingBytes(self.ring.memory).join_position
        # left entries keep what their last holder read: the furthest counts
        start = self.view.acknowledged_count
        assert max(read, join_position) <= start <= self.commit
        self.reads = {cast("int", self.view._index): start}
        self.reads_for_itself = False

    # ---- the stream -----------------------------------------------------------------------------

    @precondition(lambda self: not self.ended)
    @rule(how=st.sampled_from(["finalize", "abort", "not yet", "not yet"]))
    def end(self, how: str) -> None:
        if how == "not yet":
            return
        getattr(self.writer, how)()
        self.ended = True
        self.pending.clear()
        with pytest.raises(Closed):
            self.write_one(self.make(0))
        with pytest.raises(strand.RoleTaken):
            self.ring.producer()

    @precondition(lambda self: self.ended)
    @rule()
    def reset(self) -> None:
        behind = [token for token, read in self.reads.items() if read != self.commit]
        if behind:
            with pytest.raises(Conflict):
                self.writer.reset()
        for token in behind:
            self.acknowledge_up_to(self.commit, token)
        self.writer.reset()
        self.ended = False
        self.streams += 1
        self.records.clear()
        if self.commit:
            with pytest.raises(strand.StreamReset):
                self.view.wait_for_commit(self.commit, 0)
        else:
            self.view.wait_for_commit(0, 0)
        self.base = 0
        self.reads = dict.fromkeys(self.reads, 0)

    @precondition(lambda self: not self.ended)
    @rule()
    def die_and_be_succeeded(self) -> None:
        """What is left when a producer is killed: its lock is free, its claims have no owner."""
        self.writer._release()
        for lock in self.writer._locks.values():
            lock.release()
        self.writer.closed = True
        with pytest.raises(strand.ProducerDied):
            self.ring.producer()
        self.open_writer(resume=True)
        self.pending.clear()
        self.view.wait_for_commit(0, 0)  # a stream that had not begun begins once more

    # ---- what must hold -------------------------------------------------------------------------

    @invariant()
    def the_ring_holds_what_the_list_holds(self) -> None:
        assert self.view.committed_count == self.commit
        assert self.view.window_start == self.low_water
        unread = self.records[self.low_water - self.base :]
        blocks = self.schema is strand.BLOCKS
        if blocks:
            ours: list[Any] = [
                bytes(self.view._read_block(self.low_water + at)) for at in range(len(unread))
            ]
        else:
            tuples: list[Any] = self.view.tuples(self.low_water, self.commit)
            ours = [(*row[:3], None if row[3] is None else list(row[3])) for row in tuples]
        assert ours == unread

    @invariant()
    def a_second_reader_finds_the_same_bytes(self) -> None:
        second = RingBytes(self.ring.memory)
        second.check_mirrors()
        assert (second.commit, second.low_water) == (self.commit, self.low_water)
        found = [second.record(seq) for seq in range(self.low_water, self.commit)]
        expected = self.records[self.low_water - self.base :]
        blocks = self.schema is strand.BLOCKS
        assert found == ([(payload,) for payload in expected] if blocks else expected)


class TypedMachine(RingMachine):
    schema = TYPED


class V5Machine(TypedMachine):
    version = 5


class V5WrapMachine(V5Machine):
    preset = (2**31 - 400, 2**32 - 100)


class V6WrapMachine(RingMachine):
    preset = (2**32 - 3, 2**32 - 100)


class V6FarMachine(TypedMachine):
    preset = (2**63 - 3, 2**63 - 100)


for machine in (RingMachine, TypedMachine, V5Machine, V5WrapMachine, V6WrapMachine, V6FarMachine):
    name = machine.__name__.removesuffix("Machine")
    globals()[f"Test{name}"] = machine.TestCase
    if machine is V5WrapMachine:  # costs as much as the others together
        pytest.mark.nightly(machine.TestCase)
    machine.TestCase.settings = settings(
        max_examples=settings().max_examples // 3,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
    )
