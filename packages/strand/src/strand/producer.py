"""The producer of a ring: its waits and its stream; `writer` adds how records are written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from sennit_core.errors import Closed, Conflict, DeadlineExceeded, UsageError
from strand import _native, layout
from strand.errors import ConsumerDied, ProducerDied, RoleTaken
from strand.failures import Failing, Failure
from strand.mapping import RingMapping
from strand.owners import identify
from strand.plain import require_extension
from strand.role import NAP_NANOSECONDS, Role
from strand.stats import Meter, WriterStats

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from strand.batches import BatchEncoder

__all__ = ["NoRoom", "RingProducer", "WhenUnread"]

WhenUnread = Literal["raise", "wait", "discard"]


class NoRoom(Exception):
    """Raised instead of waiting for room, to a caller that waits by itself (`strand.aio`)."""

    def __init__(self, threshold: int) -> None:
        """Store that `threshold` records must be acknowledged first."""
        super().__init__(threshold)
        self.threshold = threshold


class RingProducer(Failing, _native.Producer, Role):
    """The producer of a ring, base of `StrandWriter`.

    The modules that write records for a writer, `columns` and `claim`, know it as this.
    """

    timeout_seconds: float | None
    """How long a write waits for room while no record is acknowledged; None: no limit."""

    def __init__(
        self,
        ring: RingMapping,
        *,
        when_unread: WhenUnread = "raise",
        resume: bool = False,
        timeout_seconds: float | None = None,
    ) -> None:
        """Become the ring's only producer.

        Args:
            ring: the ring.
            when_unread: what to do when the ring is full and every consumer has left or died: raise
                ConsumerDied, wait for a new consumer, or discard the unread records.
            resume: continue the stream of a producer that died.
            timeout_seconds: the attribute of that name.

        Raises:
            RoleTaken: the ring has a live producer.
            ProducerDied: the producer of this stream died; open a new ring, or resume.
            Closed: the stream has ended already.
        """
        if when_unread not in ("raise", "wait", "discard"):
            raise UsageError(f'when_unread is "raise", "wait" or "discard", not {when_unread!r}')
        require_extension(ring)
        lock = ring.segment.lock(layout.PRODUCER_AT)
        if not lock.try_acquire():
            lock.release()
            raise RoleTaken("producer", pid=layout.holder_of(ring.memory, layout.PRODUCER_AT)[0])
        try:
            unbegun = _check_stream(ring, resume=resume)
            who = identify()
            layout.name_holder(ring.memory, layout.PRODUCER_AT, who.pid, who.start_ticks)
            self._open(*ring.native_map())
        except BaseException:
            lock.release()
            raise
        Role.__init__(self, ring, {layout.PRODUCER_AT: lock})
        self._ended = False
        self.meter = Meter(self.committed_count)
        self._when_unread = when_unread
        self._may_wait = True  # False while strand.aio writes: it waits by itself, see NoRoom
        self.timeout_seconds = timeout_seconds
        # The threshold of the current wait for room, and its start on the monotonic clock. A new
        # threshold restarts the time: consumers have acknowledged records meanwhile.
        self._stall: tuple[int, float] | None = None
        self._dead_consumers: dict[int, str] = {}
        self._plain: tuple[type, np.dtype[Any]] | None = (
            None  # type and dtype of arrays that are written with one copy
        )
        self._arrow: BatchEncoder | None = None
        self._arrow_schema: pa.Schema | None = None
        self._set_policy()
        if resume:
            try:
                self._resume_stream(unbegun=unbegun)
            except BaseException:
                self._detach()
                raise

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload one record may carry: half of the heap."""
        return self.map.heap_bytes // 2

    # ---- the stream -------------------------------------------------------------------------

    def finalize(self) -> None:
        """End the stream; consumers read the remaining records and then its end."""
        self._end(layout.EOS)

    def abort(self, message: str = "") -> None:
        """End the stream with an error that carries `message` (316 bytes of it) to consumers."""
        self._end(layout.ERROR, message)

    def reset(self) -> None:
        """Begin a new stream in this ring, after the end of the previous one.

        Its records are numbered from 0 again; consumers continue at 0 with their next wait.

        Raises:
            Conflict: a consumer has not acknowledged all records of the ended stream.
            UsageError: the stream has not ended.
        """
        if self.closed:
            self._fail(Failure.CLOSED, None, None)
        if not self._ended:
            raise UsageError("finalize or abort the stream before the next one begins")
        with self._block_joins():
            self._open(*self._ring.native_map())
            self._rewind()
            layout.write_reason(self._memory, "")
        self._ended = False
        self.meter = Meter(0)
        self._arrow = None
        self._set_policy()

    def stats(self) -> WriterStats:
        """Return how many records were written, at what rate, and how often there was no room."""
        stalls, wakes = self._counts
        count, rate = self.meter.measure(self.committed_count)
        return WriterStats(count, rate, stalls, wakes)

    def close(self) -> None:
        """Release the role; a stream that was not finalized is aborted."""
        if self.closed:
            return
        if not self._ended:
            self.abort("the producer closed before the end of the stream")
        self._detach()

    def __enter__(self) -> Self:
        if not self._ended:
            self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.closed:
            return
        if not self._ended and error is None:
            self.finalize()
        elif not self._ended:
            self.abort(str(error) or type(error).__name__)
        self.close()

    # ---- called by C, off the fast path ------------------------------------------------------

    def _wait_for_room(self, threshold: int) -> None:
        """Sleep one nap for `threshold` acknowledged records; raise if no consumer will read them."""
        if not self._may_wait:
            raise NoRoom(threshold)
        nap = min(NAP_NANOSECONDS, int(self._seconds_left(threshold) * 1e9))
        try:
            if self._wait(threshold, self.spin_nanoseconds, nap):
                self._stall = None
                return
            self._free_dead_consumers()
            self._check_readers(threshold)
        except ValueError:  # another thread released the memory during the call
            if not self.closed:
                raise

    def _seconds_left(self, threshold: int) -> float:
        """Return the time left for the current wait for room.

        Raises:
            DeadlineExceeded: No time is left. No part of the record that had no room was written.
        """
        if self.timeout_seconds is None:
            return NAP_NANOSECONDS / 1e9
        now = time.monotonic()
        if self._stall is None or self._stall[0] != threshold:  # consumers made progress
            self._stall = (threshold, now)
        left = self._stall[1] + self.timeout_seconds - now
        if left <= 0 and not self._wait(threshold, 0, 0):
            self._stall = None
            raise DeadlineExceeded("waiting for room in the ring", self.timeout_seconds)
        return max(left, 0.0)

    def _set_policy(self) -> None:
        if self._when_unread == "discard":
            self._discard_unread()
        elif self._when_unread == "raise":
            self._raise_unread()

    def _free_dead_consumers(self) -> None:
        """Mark the entries of consumers as left whose processes have ended."""
        for entry in layout.read_consumers(self._memory):
            if entry.state == layout.STATE_ATTACHED and self._ring.mark_left_if_dead(entry.index):
                self._dead_consumers[entry.index] = "died"

    def _check_readers(self, threshold: int) -> None:
        """Raise ConsumerDied when all consumers have left and `when_unread` is "raise"."""
        if self._when_unread != "raise":
            return
        entries = layout.read_consumers(self._memory)
        left = [entry for entry in entries if entry.state == layout.STATE_LEFT]
        if not left or any(entry.state == layout.STATE_ATTACHED for entry in entries):
            return
        if self._wait(threshold, 0, 0):  # it may have acknowledged before it left
            return
        last = max(left, key=lambda entry: entry.read)
        raise ConsumerDied(
            pid=last.pid, reason=self._dead_consumers.get(last.index, "closed its view")
        )

    def _map_slots(self) -> np.ndarray[Any, Any]:
        import numpy as np

        where = self.map
        dtype = where.schema.to_numpy(where.version)
        return np.frombuffer(self.memory, dtype, where.records, where.index_start)

    @property
    def _bell(self) -> memoryview:
        """The word on which a wait for room sleeps: four bytes."""
        at = layout.PRODUCER_BELL_AT
        return self._memory[at : at + layout.BELL_BYTES]

    def _end(self, status: int, message: str = "") -> None:
        if self.closed or self._ended:
            self._fail(Failure.CLOSED, None, None)
        if status == layout.ERROR:
            layout.write_reason(self._memory, message)
        self._set_status(status)
        self._ended = True
        self._release()

    def _resume_stream(self, *, unbegun: bool) -> None:
        """Continue after a dead producer, which may have died in the middle of a reset."""
        if unbegun:
            with self._block_joins():
                self._rewind()
                layout.write_reason(self._memory, "")
        self.begin()  # rings every bell: the dead producer may have published without waking

    @contextmanager
    def _block_joins(self) -> Iterator[None]:
        """Hold the locks of all unused entries, so that no consumer joins during a reset.

        Raises:
            Conflict: a consumer has unread records, or is joining now.
        """
        with ExitStack() as locks:
            for entry in layout.read_consumers(self._memory):
                lock = self._ring.segment.lock(layout.consumer_entry_at(entry.index))
                locks.callback(lock.release)
                if lock.try_acquire():
                    continue  # vacant, left or dead: held until the reset is done
                now = layout.read_consumer(self._memory, entry.index)
                unread = self.committed_count - now.read
                if now.state != layout.STATE_ATTACHED or unread:
                    raise Conflict(
                        f"consumer {now.index} (pid {now.pid}) has {unread} unacknowledged records "
                        "of the ended stream",
                        hint="acknowledge them there, or close that view, then reset again",
                    )
            self._check_plain_readers()
            yield

    def _check_plain_readers(self) -> None:
        """Refuse to rewind a v5 ring while a plain v5 reader has unread records."""
        if self.map.version != 5:
            return
        for read in layout.read_plain_consumers(self._memory):
            if read < self.committed_count:
                raise Conflict(
                    f"a plain v5 reader has read {read} of {self.committed_count} records",
                    hint="let it read the rest, or mark its consumer slot vacant, then reset again",
                )


def _check_stream(ring: RingMapping, *, resume: bool) -> bool:
    """Raise if the stream has ended, or if its producer died and `resume` is false.

    Return whether that producer died before it began: the header may be half of a reset.
    """
    pid, _ = layout.holder_of(ring.memory, layout.PRODUCER_AT)
    status, _ = layout.read_status(ring.memory)
    if status in (layout.EOS, layout.ERROR):
        raise Closed("the ring's stream")
    if pid and not resume:
        raise ProducerDied(pid=pid)
    return pid != 0 and status == layout.INITIALIZING
