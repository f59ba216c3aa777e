"""A consumer of a ring: its position, its waits and its end; `view` adds how records are read."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sennit_core.errors import Corrupt, UsageError
from strand import _native, layout
from strand.closing import Closing
from strand.errors import LeaseHeld, ProducerDied, RoleTaken, StrandAbortError, StreamReset
from strand.failures import Failing, Failure
from strand.mapping import RingMapping, Status
from strand.owners import identify
from strand.plain import require_extension
from strand.role import NAP_NANOSECONDS, Role
from strand.stats import Meter, ViewStats

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["RingConsumer", "Start"]

Start = Literal["oldest", "next"]


class RingConsumer(Failing, _native.Consumer, Role, Closing):
    """A consumer of a ring, base of `StrandView`.

    The modules that read records for a view, such as `columns` and `reading`, know it as this.
    """

    def __init__(
        self, ring: RingMapping, categories: Sequence[str] | None = None, start: Start = "oldest"
    ) -> None:
        """Become a consumer of `ring`.

        Args:
            ring: the ring.
            categories: the strings that `utf8_ref` handles refer to; by default those of the ring's
                metadata (`"intern"`).
            start: the oldest record that some consumer has not acknowledged, or the next one to be
                published.

        Raises:
            RoleTaken: there are eight consumers.
        """
        require_extension(ring)
        native = ring.native_map(categories)
        self._compiled = native[1]
        self._open(*native)
        Role.__init__(self, ring, {})
        # Of a block ring's batches, once it is known; see `strand.reading`.
        self._arrow_schema: pa.Schema | None = None
        self._poisons = os.environ.get("STRAND_DEBUG", "") not in ("", "0")
        # The entry of the view's own consumer; None after it was released or became a token.
        self._index: int | None = None
        # True until the own consumer is used: an iteration began, or records were acknowledged
        # without a token. While it is true, the own consumer moves with the slowest token.
        self._follows_tokens = True
        try:
            self._index = self.register_consumer(start)
        except BaseException:
            self._detach()
            raise
        self.meter = Meter(self.acknowledged_count)

    # ---- consumers --------------------------------------------------------------------------

    def register_consumer(self, start: Start = "oldest") -> int:
        """Register a consumer with a position of its own, and return its token.

        This view can read from the position of its slowest consumer on. The view's own consumer
        counts from the first iteration, or the first acknowledgement without a token; until then it
        moves with the slowest token, so that it does not hold the producer up in a program that
        reads only by tokens.

        Args:
            start: the oldest record that some consumer has not acknowledged, or the next one to be
                published.

        Raises:
            RoleTaken: there are eight consumers.
        """
        if start not in ("oldest", "next"):
            raise UsageError(f'a consumer starts at "oldest" or "next", not {start!r}')
        if self.closed:
            self._fail(Failure.CLOSED, None, None)
        for index in range(layout.CONSUMER_COUNT):
            at = layout.consumer_entry_at(index)
            lock = self._ring.segment.lock(at)
            if not lock.try_acquire():
                lock.release()
                continue
            if layout.read_consumer(self._memory, index).state == layout.STATE_ATTACHED:
                self._ring.mark_left(index)  # its process died; its lock is held here now
            who = identify()
            layout.name_holder(self._memory, at, who.pid, who.start_ticks)
            self._join(index, start == "next")
            self._locks[index] = lock
            return index
        if self._index is not None and self._follows_tokens:
            return self._convert_to_token(start)
        first = layout.read_consumer(self._memory, 0)
        raise RoleTaken("consumer in each of eight entries", pid=first.pid)

    def _convert_to_token(self, start: Start) -> int:
        """Use the own consumer's entry as a token: all eight are in use, and the own one is not read with."""
        token = self._index
        assert token is not None
        self._index = None
        if start == "next":
            self._acknowledge(token, self.committed_count)
        return token

    def release_consumer(self, token: int | None = None) -> None:
        """Release a consumer registered here, by default the view's own; wakes the producer."""
        index = self._entry_of(token)
        self._leave(index)
        self._locks.pop(index).release()
        if index == self._index:
            self._index = None
        else:
            self._follow_tokens()

    def acknowledge_read(self, upto: int, token: int | None = None) -> None:
        """Acknowledge the records below `upto`: the producer may overwrite them from now on.

        Args:
            upto: the first record that is still needed.
            token: the consumer whose position moves; by default the view's own.

        Raises:
            UsageError: `upto` is above the committed count or below the last acknowledgement.
        """
        own = self._index
        if token is None and own is not None:
            self._acknowledge(own, upto)
            self._follows_tokens = False
            return
        index = self._entry_of(token)
        self._acknowledge(index, upto)
        if index == own:
            self._follows_tokens = False
        else:
            self._follow_tokens()

    def _follow_tokens(self) -> None:
        """Move the own consumer to the slowest token, unless the own consumer is used."""
        own = self._index
        if own is None or not self._follows_tokens:
            return
        reads = self._reads
        position = reads.pop(own)
        if reads and (slowest := min(reads.values())) > position:
            self._acknowledge(own, slowest)

    def _hold_own_position(self) -> None:
        """Stop moving the own consumer with the tokens: it is used from now on."""
        self._follows_tokens = False

    @property
    def acknowledged_count(self) -> int:
        """Records acknowledged so far by the view's own consumer."""
        return self.window_start if self._index is None else self._reads[self._index]

    # ---- the stream -------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """The state of the stream: initializing, streaming, eos or error."""
        return self._ring.status

    @property
    def progress(self) -> float | None:
        """Share of the estimated records that were acknowledged; None without an estimate."""
        expected = self.map.estimated_records
        return min(1.0, self.acknowledged_count / expected) if expected else None

    def stats(self) -> ViewStats:
        """Return how many records were read, at what rate, and how often the view slept."""
        sleeps, wakes = self._counts
        count, rate = self.meter.measure(self.acknowledged_count)
        return ViewStats(count, rate, sleeps, wakes)

    def wait_for_commit(
        self, after: int, timeout_seconds: float | None = None, min_records: int = 1
    ) -> int:
        """Wait until `min_records` more than `after` are published, and return the count.

        The count may be less when the producer has no room for more, and may equal `after` at the
        end of the stream or at the timeout.

        Raises:
            LeaseHeld: the producer has no room until records are acknowledged.
            ProducerDied: the producer's process ended, and no record after `after` is left.
            StrandAbortError: the stream was aborted, and no record after `after` is left.
            StreamReset: the producer began a new stream, and `after` counts in the old one.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        spin = self.spin_nanoseconds
        while True:
            wanted = max(after + 1, min(after + min_records, self.window_start + self.map.records))
            nap = NAP_NANOSECONDS
            if deadline is not None:
                nap = max(0, min(nap, int((deadline - time.monotonic()) * 1e9)))
            if self._wait(wanted, spin, nap):
                return self.committed_count
            self._check_stream(after)
            committed = self._count_if_idle(after)
            if self._check_stream(after):
                continue  # the count was of the old stream
            if committed is not None:
                return committed
            if deadline is not None and time.monotonic() >= deadline:
                return self.committed_count

    def _check_stream(self, after: int) -> bool:
        """Whether the ring began a new stream; raise when `after` counts records of the old one."""
        began = self._follow_reset()
        if began and after > 0:
            raise StreamReset(
                f"the producer began a new stream, and record {after} was of the last one",
                hint="read on from record 0",
            )
        return began

    def _count_if_idle(self, after: int) -> int | None:
        """Return the count if no more records will come for now, None to wait on; raise if it failed."""
        try:
            failure = self.find_failure()
        except ValueError:  # another thread released the memory during the call
            if self.closed:
                self._fail(Failure.CLOSED, None, None)
            raise
        ended = failure is not None or self._status() >= layout.EOS
        committed = self.committed_count  # read after the status: once ended, the count is final
        if committed > after and (ended or self._producer_waits()):
            return committed
        if failure is not None:
            raise failure
        if ended:
            return committed
        if after > self.window_start and self._producer_waits():
            raise self._lease_held(after)
        return None

    def _lease_held(self, after: int) -> LeaseHeld:
        """Return the error for a wait that cannot end; it names the consumer that must acknowledge."""
        reads = self._reads
        if self._follows_tokens and self._index is not None and len(reads) > 1:
            del reads[self._index]  # it moves with the slowest token
        slowest = min(reads, key=lambda index: reads[index])
        hint = "acknowledge records and drop zero-copy batches as you go, or open a larger ring"
        if len(self._locks) > 1 and slowest == self._index:
            hint = (
                f"the view's own consumer is at record {reads[slowest]}: acknowledge without a "
                "token as well, or call release_consumer() to read by tokens alone"
            )
        elif len(self._locks) > 1:
            hint = f"acknowledge with token {slowest}, which is at record {reads[slowest]}"
        return LeaseHeld(
            f"{after - self.window_start} records are read and not acknowledged, and the ring has "
            "no room for the next",
            hint=hint,
        )

    def find_failure(self) -> Corrupt | ProducerDied | StrandAbortError | None:
        """Return why the stream failed; None while it runs or when it ended normally."""
        memory = self._memory
        pid, _ = layout.holder_of(memory, layout.PRODUCER_AT)
        held = self._ring.segment.is_held(layout.PRODUCER_AT)
        status = self._status()  # after the lock: a producer sets it, then unlocks
        if status == layout.EOS:
            return None
        if status > layout.ERROR:
            return Corrupt("the stream's status", "0 to 3", str(status))
        if status == layout.ERROR:
            return StrandAbortError(reason=layout.read_reason(memory))
        if self._aborted():
            return StrandAbortError(reason="the consumer asked the producer to stop")
        if pid and not held:
            return ProducerDied(pid=pid)
        return None

    @property
    def is_of_another_user(self) -> bool:
        """Whether another user owns the ring's memory: batches are always copied out of it."""
        return self._ring.segment.is_of_another_user

    def signal_abort(self) -> None:
        """Ask the producer to stop; its next write raises StrandAbortError."""
        self._ring.signal_abort()

    # ---- records ----------------------------------------------------------------------------

    def records(self, start: int, stop: int) -> list[np.ndarray[Any, Any]]:
        """Return records as numpy structured arrays over the ring itself: one, or two where it wraps.

        Args:
            start: the first record.
            stop: one past the last.

        Raises:
            UsageError: records that are not committed, or were acknowledged.
        """
        self.check_range(start, stop)
        return self.map_records(start, stop - start)

    def check_range(self, start: int, stop: int) -> None:
        """Raise unless all records from `start` up to `stop` may be read.

        Raises:
            UsageError: some are not committed, or were acknowledged.
        """
        if not self.window_start <= start <= stop <= self.committed_count:
            raise UsageError(
                f"records {start} to {stop} cannot be read: {self.window_start} to "
                f"{self.committed_count} can",
                hint="wait_for_commit returns the committed count; acknowledged records are gone",
            )

    # ---- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Release every consumer of this view, and wake a producer that waits for room."""
        if self.closed:
            return
        for index in list(self._locks):
            self._leave(index)
        self._detach()

    def _entry_of(self, token: int | None) -> int:
        index = self._index if token is None else token
        if self.closed:
            self._fail(Failure.CLOSED, None, None)
        if index is None or index not in self._locks:
            what = "the view's own consumer was released" if token is None else f"no token {token}"
            raise UsageError(f"{what}: register_consumer() returns a valid token")
        return index

    def _map_slots(self) -> np.ndarray[Any, Any]:
        import numpy as np

        where = self.map
        lease = self._lease(where.index_start, where.records * where.stride)
        return np.frombuffer(memoryview(lease), where.schema.to_numpy(where.version))

    @property
    def _bell(self) -> Any:
        """The word on which a wait of this view sleeps: four bytes."""
        if (doorbell := self._ring.doorbell) is not None:
            return doorbell
        at = layout.consumer_entry_at(min(self._locks)) + layout.CONSUMER_BELL
        return self._memory[at : at + layout.BELL_BYTES]

    def _producer_waits(self) -> bool:
        """Whether the producer waits until this view acknowledges more records."""
        wanted: int = struct.unpack_from("<Q", self._memory, layout.SLEEP_AT)[0]
        return wanted > self.window_start
