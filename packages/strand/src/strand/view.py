"""The consumer's side of a ring."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sennit_core.errors import Corrupt, UsageError
from strand import _native, layout, reading
from strand.closing import Closing
from strand.cursor import RecordCursor
from strand.errors import LeaseHeld, ProducerDied, RoleTaken, StrandAbortError, StreamReset
from strand.failures import Failing, Failure
from strand.owners import identify
from strand.plain import require_extension
from strand.role import NAP_NANOSECONDS, Role
from strand.rows import as_categories
from strand.stats import Meter, ViewStats

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from strand.filters import Bitset, Predicate
    from strand.ring import Ring, Status

__all__ = ["Start", "StrandView"]

Start = Literal["oldest", "next"]


class StrandView(Failing, _native.Consumer, Role, Closing):
    """Reads records from a ring and gives them back. For one thread at a time.

    Up to eight consumers read one ring, each every record; the producer keeps what the slowest of
    them has not given back. Views of bytes and arrays look into the ring: they are good until their
    record is given back (with STRAND_DEBUG=1 it is then overwritten with 0xDD).
    """

    def __init__(
        self, ring: Ring, categories: Sequence[str] | None = None, start: Start = "oldest"
    ) -> None:
        """Become a consumer of `ring`.

        Args:
            ring: the ring.
            categories: the strings that `utf8_ref` handles stand for; those of the ring's metadata
                (`"intern"`) by default.
            start: at the oldest record that not every consumer gave back, or at the next to come.

        Raises:
            RoleTaken: there are eight consumers.
        """
        require_extension(ring)
        native = ring.native_map(categories)
        self._compiled = native[1]
        self._open(*native)
        Role.__init__(self, ring, {})
        self._arrow_schema: pa.Schema | None = None
        self._poisons = os.environ.get("STRAND_DEBUG", "") not in ("", "0")
        # The entry of the view's own consumer; None once it was released or became a token.
        self._index: int | None = None
        # True until the view reads for itself: an iteration began, or something was acknowledged
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

        What this view may read begins at its slowest consumer. The view itself counts as one as
        soon as it is iterated over or acknowledges without a token; until then it moves with the
        slowest token, so that a view which is read by its tokens alone holds nothing back.

        Args:
            start: at the oldest record that not every consumer gave back, or at the next to come.

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
                self._ring.mark_left(index)  # died; its lock is ours now
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
        """Hand the own consumer's entry to a token: all eight are taken, and it is not read with."""
        token = self._index
        assert token is not None
        self._index = None
        if start == "next":
            self._acknowledge(token, self.committed_count)
        return token

    def release_consumer(self, token: int | None = None) -> None:
        """Give up a consumer registered here, the view's own by default; wakes the producer."""
        index = self._entry_of(token)
        self._leave(index)
        self._locks.pop(index).release()
        if index == self._index:
            self._index = None
        else:
            self._follow_tokens()

    def acknowledge_read(self, upto: int, token: int | None = None) -> None:
        """Give the records below `upto` back: the producer may overwrite them from now on.

        Args:
            upto: the first record that is still needed.
            token: whose position moves, the view's own by default.

        Raises:
            UsageError: beyond what is committed, or below what was acknowledged before.
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
        """Move the own consumer to the slowest token, unless the view reads for itself."""
        own = self._index
        if own is None or not self._follows_tokens:
            return
        reads = self._reads
        position = reads.pop(own)
        if reads and (slowest := min(reads.values())) > position:
            self._acknowledge(own, slowest)

    def _hold_own_position(self) -> None:
        """Let the own consumer hold what the view has not acknowledged, whatever the tokens do."""
        self._follows_tokens = False

    @property
    def acknowledged_count(self) -> int:
        """Records given back so far by the view's own consumer."""
        return self.window_start if self._index is None else self._reads[self._index]

    # ---- the stream -------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """Where the stream is: initializing, streaming, eos or error."""
        return self._ring.status

    @property
    def progress(self) -> float | None:
        """Share of the estimated records that were given back; None without an estimate."""
        expected = self.map.estimated_records
        return min(1.0, self.acknowledged_count / expected) if expected else None

    def stats(self) -> ViewStats:
        """Return how much was read, how fast, and how often there was nothing to read."""
        return ViewStats.of(self)

    def wait_for_commit(
        self, after: int, timeout_seconds: float | None = None, min_records: int = 1
    ) -> int:
        """Wait until `min_records` more than `after` are published, and return the count.

        It may be less when the producer has no room for more, and may equal `after` at the end of
        the stream or at the timeout.

        Raises:
            LeaseHeld: the producer cannot go on before something is acknowledged.
            ProducerDied: the producer's process ended, and nothing after `after` is left.
            StrandAbortError: the stream was aborted, and nothing after `after` is left.
            StreamReset: the producer began a new stream, and `after` is of the last one.
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
                continue  # that was the count of the last stream
            if committed is not None:
                return committed
            if deadline is not None and time.monotonic() >= deadline:
                return self.committed_count

    def _check_stream(self, after: int) -> bool:
        """Whether the ring began a new stream; raise when `after` counts records of the last."""
        began = self._follow_reset()
        if began and after > 0:
            raise StreamReset(
                f"the producer began a new stream, and record {after} was of the last one",
                hint="read on from record 0",
            )
        return began

    def _count_if_idle(self, after: int) -> int | None:
        """Return the count when no more will come for now, None to wait on; raise what ended it."""
        try:
            failure = self.find_failure()
        except ValueError:  # the memory was let go of while we looked at it
            if self.closed:
                self._fail(Failure.CLOSED, None, None)
            raise
        ended = failure is not None or self._status() >= layout.EOS
        committed = self.committed_count  # after the status: nothing comes any more
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
        """Return the error of a wait that cannot end: it names the consumer that must move first."""
        reads = self._reads
        if self._follows_tokens and self._index is not None and len(reads) > 1:
            del reads[self._index]  # it moves with the others
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
            f"{after - self.window_start} records are read and not given back, and the ring has "
            "no room for the next",
            hint=hint,
        )

    def find_failure(self) -> Corrupt | ProducerDied | StrandAbortError | None:
        """Return why no more will come, when the stream did not end as it should."""
        memory = self._memory
        pid, _ = layout.holder_of(memory, layout.PRODUCER_AT)
        held = self._ring.segment.is_held(layout.PRODUCER_AT)
        status = self._status()  # after the lock: a producer sets it, then lets go
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

    # ---- typed records ----------------------------------------------------------------------

    def allocate_cursor(self) -> RecordCursor:
        """Return a cursor over typed records: allocate it once, seek as you go."""
        return RecordCursor(self)

    def update_intern_table(self, table: Sequence[str]) -> None:
        """Replace the strings that `utf8_ref` handles stand for; every cursor sees the change.

        Raises:
            UsageError: not a sequence of strings.
        """
        self._compiled.set_intern(as_categories(table))

    def records(self, start: int, stop: int) -> list[np.ndarray[Any, Any]]:
        """Return records as numpy structured arrays over the ring itself: two at most.

        Args:
            start: the first record.
            stop: one past the last.

        Raises:
            UsageError: records that are not committed, or were given back.
        """
        self.check_range(start, stop)
        return self.map_records(start, stop - start)

    def check_range(self, start: int, stop: int) -> None:
        """Refuse records that may not be read.

        Raises:
            UsageError: some are not committed, or were given back.
        """
        if not self.window_start <= start <= stop <= self.committed_count:
            raise UsageError(
                f"records {start} to {stop} cannot be read: {self.window_start} to "
                f"{self.committed_count} can",
                hint="wait_for_commit tells how many there are; what was given back is gone",
            )

    def columns(self, start: int, stop: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the fixed-width fields of records as numpy arrays of their own."""
        from strand.columns import columns

        return columns(self, start, stop)

    def to_arrow(self, start: int, stop: int) -> pa.RecordBatch:
        """Return records as an Arrow batch of its own memory."""
        from strand.columns import to_arrow

        try:
            return to_arrow(self, start, stop)
        except Corrupt:
            for seq in range(start, stop):
                self.tuples(seq, seq + 1)  # raises CorruptRecord, which names the record
            raise

    def find_first(self, field: str, value: Any) -> int:
        """Return the first record whose sorted `field` is not before `value`, by bisection.

        Records before `window_start` do not count; the answer is `committed_count` when there is
        none.

        Raises:
            UsageError: the field is not declared as sorted.
        """
        from strand.filters import find_first

        return find_first(self, field, value)

    def get_filter_bitset(
        self, field: str, predicate: Predicate, start: int | None = None, stop: int | None = None
    ) -> Bitset:
        """Return which records match a predicate (`between`, `eq`, `one_of`) on one field."""
        from strand.filters import get_filter_bitset

        return get_filter_bitset(self, field, predicate, start, stop)

    def constrained_ranges(
        self, bitset: Bitset, fields: Sequence[str] | None = None
    ) -> Mapping[str, tuple[Any, Any]]:
        """Return the least and greatest value of numeric fields among the records of a bitset."""
        from strand.filters import constrained_ranges

        return constrained_ranges(self, bitset, fields)

    # ---- iterating, which gives back by itself ----------------------------------------------

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over typed records as tuples until the end of the stream.

        They are given back in groups, after the last of a group: leaving the loop early means that
        the records of the group it was in come again.
        """
        return reading.rows(self)

    def payloads(self, timeout_seconds: float | None = None) -> Iterator[memoryview]:
        """Iterate over the payloads of a block ring until the end of the stream.

        Each is a read-only view into shared memory, valid until the next one is asked for; then it
        is given back to the producer. Leaving the loop gives the last one back to nobody: iterating
        again starts with it.

        Args:
            timeout_seconds: how long to wait for each payload; None waits as long as it takes.

        Raises:
            DeadlineExceeded: no payload came in time.
            LeaseHeld: something still looks at the previous payload; copy it instead.
            ProducerDied: after everything it published was delivered.
            StrandAbortError: likewise.
        """
        return reading.payloads(self, timeout_seconds)

    def batches(
        self,
        *,
        copy: bool = True,
        timeout_seconds: float | None = None,
        schema: pa.Schema | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over Arrow batches until the end of the stream.

        In a block ring, those that were written; in a ring of typed records, what has come since
        the last one, gathered into columns.

        Args:
            copy: give batches of their own memory. False gives batches that look into the ring of
                blocks: each goes back to the producer when nothing refers to it any more. A ring
                whose memory another user owns is always copied from.
            timeout_seconds: as in `payloads`.
            schema: of a block ring's batches, for a consumer that joins after they began; needed
                only when the schema is too large for the ring's header (about 2.5 KiB, deflated).

        Raises:
            LeaseHeld: without copies, so much is still referred to that the producer cannot go on.
            DeadlineExceeded, ProducerDied, StrandAbortError: as in `payloads`.
        """
        return reading.batches(self, copy=copy, timeout_seconds=timeout_seconds, schema=schema)

    def record_views(self, timeout_seconds: float | None = None) -> Iterator[np.ndarray[Any, Any]]:
        """Iterate over typed records as numpy structured arrays over the ring itself.

        Each is given back when the next one is asked for.
        """
        return reading.record_views(self, timeout_seconds)

    # ---- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Give up the role; a producer that waits for room learns of it at once."""
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
            raise UsageError(f"{what}: register_consumer() gives one that counts")
        return index

    @property
    def _bell(self) -> Any:
        """The word on which a wait of this view sleeps: four bytes."""
        if (doorbell := self._ring.doorbell) is not None:
            return doorbell
        at = layout.consumer_entry_at(min(self._locks)) + layout.CONSUMER_BELL
        return self._memory[at : at + layout.BELL_BYTES]

    def _producer_waits(self) -> bool:
        """Whether the producer sleeps until we acknowledge more than we have."""
        wanted: int = struct.unpack_from("<Q", self._memory, layout.SLEEP_AT)[0]
        return wanted > self.window_start
