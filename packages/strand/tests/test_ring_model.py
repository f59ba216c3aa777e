"""A real ring against a list: claims, wraps, back-pressure of slots and heap, in any order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import strand

RECORDS, HEAP = 4, 256


class Stalled(Exception):
    """The writer would have waited for so many acknowledged records."""


def stall(threshold: int) -> None:
    raise Stalled(threshold)


class BlockRing(RuleBasedStateMachine):
    """Writes without waiting, reads and acknowledges; the ring holds what the list holds."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = strand.open_ring(strand.BLOCKS, RECORDS, HEAP)
        self.writer = self.ring.producer()
        self.writer._wait_for_room = stall
        self.view = self.ring.consumer()
        self.unread: list[bytes] = []
        self.read = 0
        self.written = 0

    def teardown(self) -> None:
        self.ring.close()

    @rule(size=st.integers(0, HEAP // 2))
    def write(self, size: int) -> None:
        payload = bytes([self.written & 255]) * size
        threshold = self.attempt(payload)
        if threshold == 0:
            self.unread.append(payload)
            self.written += 1
        else:
            assert self.read < threshold <= self.written
            self.unblock(payload, threshold)

    def attempt(self, payload: bytes) -> int:
        """Write, or return for how many acknowledged records the writer would wait."""
        try:
            self.writer.write_bytes(payload)
        except Stalled as stalled:
            return int(stalled.args[0])
        return 0

    def unblock(self, payload: bytes, threshold: int) -> None:
        """Reading up to the threshold makes room, first for the slot and then for the payload."""
        while threshold:
            if threshold - 1 > self.read:
                self.acknowledge(threshold - 1)
                assert self.attempt(payload) == threshold  # one is not enough
            self.acknowledge(threshold)
            further = self.attempt(payload)
            assert further == 0 or further > threshold
            threshold = further
        self.unread.append(payload)
        self.written += 1

    def acknowledge(self, upto: int) -> None:
        self.view.acknowledge_read(upto)
        del self.unread[: upto - self.read]
        self.read = upto

    @rule(size=st.integers(HEAP // 2 + 1, HEAP * 2))
    def write_too_much(self, size: int) -> None:
        with pytest.raises(strand.PayloadTooLarge):
            self.writer.write_bytes(bytes(size))

    @precondition(lambda self: self.unread)
    @rule(data=st.data())
    def read_some(self, data: st.DataObject) -> None:
        self.acknowledge(self.read + data.draw(st.integers(1, len(self.unread))))

    @rule()
    def reattach(self) -> None:
        self.view.close()
        self.view = self.ring.consumer()

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert self.view.acknowledged_count == self.read
        assert self.view.committed_count == self.written
        found = [bytes(self.view._read_block(self.read + at)) for at in range(len(self.unread))]
        assert found == self.unread


class TypedRing(RuleBasedStateMachine):
    """Batches of rows against a list, with several payloads to a record."""

    def __init__(self) -> None:
        super().__init__()
        schema = strand.build_schema(
            [("id", "u32"), ("a", "utf8"), {"name": "b", "type": "bytes", "nullable": True}]
        )
        self.ring = strand.open_ring(schema, RECORDS, HEAP, version=5)
        self.writer = self.ring.producer()
        self.view = self.ring.consumer()
        self.cursor = self.view.allocate_cursor()
        self.unread: list[tuple[int, str, bytes | None]] = []
        self.read = 0

    def teardown(self) -> None:
        self.ring.close()

    @rule(
        texts=st.lists(
            st.tuples(st.text("ab", max_size=20), st.none() | st.binary(max_size=30)), max_size=4
        )
    )
    def write(self, texts: list[tuple[str, bytes | None]]) -> None:
        start = self.read + len(self.unread)
        batch = [(start + at, a, b) for at, (a, b) in enumerate(texts)]
        room = RECORDS - len(self.unread)
        heap = sum(len(a) + len(b or b"") for _, a, b in self.unread + batch)
        if len(batch) > room or heap > HEAP // 2:
            return  # would wait, and nobody else reads here
        assert self.writer.write_record_batch(batch) == len(batch)
        self.unread += batch

    @precondition(lambda self: self.unread)
    @rule()
    def read_one(self) -> None:
        self.unread.pop(0)
        self.read += 1
        self.view.acknowledge_read(self.read)

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        found = []
        for at in range(len(self.unread)):
            assert self.cursor.seek(self.read + at)
            found.append(self.cursor.to_tuple())
        assert found == self.unread


TestBlockRing = BlockRing.TestCase
TestBlockRing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTypedRing = TypedRing.TestCase
TestTypedRing.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
