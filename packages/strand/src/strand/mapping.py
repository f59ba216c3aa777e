"""A mapped ring: what its roles use of it. `strand.ring` adds how to acquire the roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from strand import _native, layout
from strand.closing import Mapped
from strand.header import StrandMap
from strand.rows import compile_layout
from strand.segment import Segment

__all__ = ["STATUSES", "RingMapping", "Status"]

Status = Literal["initializing", "streaming", "eos", "error"]
STATUSES: tuple[Status, ...] = ("initializing", "streaming", "eos", "error")

NativeMap = tuple[Any, _native.Layout, int, int, Any]


class RingMapping(Mapped):
    """The memory of a ring, its geometry, and the locks and entries of its roles."""

    def __init__(self, segment: Segment, map: StrandMap, doorbell: Any = None) -> None:  # noqa: A002
        """Own `segment`, whose header is `map`."""
        self.map = map
        self.segment = segment
        self.doorbell = doorbell  # of a fan-in, whose members share it; None: each has its bells

    @property
    def status(self) -> Status:
        """The state of the stream: initializing, streaming, eos or error."""
        word, _ = layout.read_status(self.memory)
        return STATUSES[word] if word < len(STATUSES) else "error"  # a corrupt word, too

    @property
    def memory(self) -> Any:
        """The mapped segment, an object with the buffer protocol."""
        return self.segment.memory

    def signal_abort(self) -> None:
        """Ask the producer to stop; rings every bell."""
        _native.signal_abort(*self.native_map())

    def native_map(self, categories: Sequence[str] | None = None) -> NativeMap:
        """Return the arguments with which the C core maps this ring."""
        compiled = compile_layout(self.map, categories)
        return self.memory, compiled, self.map.records, self.map.heap_bytes, self.doorbell

    def mark_left(self, index: int) -> None:
        """Mark the entry of a dead consumer as left; the caller holds the entry's lock."""
        _native.mark_left(self.native_map(), index)

    def mark_left_if_dead(self, index: int) -> bool:
        """Mark an entry as left if its process has ended; return whether it had."""
        lock = self.segment.lock(layout.consumer_entry_at(index))
        try:
            if not lock.try_acquire():
                return False
            # The lock is free, so an entry that is attached belongs to a process that has ended. No
            # consumer can join the entry between this check and the change: joining takes the lock.
            dead = layout.read_consumer(self.memory, index).state == layout.STATE_ATTACHED
            if dead:
                self.mark_left(index)
            return dead
        finally:
            lock.release()
