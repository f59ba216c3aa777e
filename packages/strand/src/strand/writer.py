"""The producer's side of a ring."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from sennit_core.errors import Closed, Conflict, DeadlineExceeded, UsageError
from strand import _native, layout
from strand.claim import PayloadClaim
from strand.errors import ConsumerDied, ProducerDied, RoleTaken
from strand.failures import Failing, Failure
from strand.header import find_schema, store_schema
from strand.owners import identify
from strand.plain import require_extension
from strand.role import NAP_NANOSECONDS, Role
from strand.stats import Meter, WriterStats

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from strand.batches import BatchEncoder
    from strand.ring import Ring

__all__ = ["NoRoom", "StrandWriter", "WhenUnread"]

WhenUnread = Literal["raise", "wait", "discard"]

_DIRECT_BYTES_MIN = 65536  # below this a message in between is cheaper than writing in pieces


class NoRoom(Exception):
    """There is no room yet, for a caller who waits in a way of his own (`strand.aio`)."""

    def __init__(self, threshold: int) -> None:
        """Say that `threshold` records must be given back first."""
        super().__init__(threshold)
        self.threshold = threshold


class StrandWriter(Failing, _native.Producer, Role):
    """Writes records into a ring, and waits when there is no room. For one thread at a time.

    As a context manager it finalizes the stream at the end and aborts it on an exception.
    """

    timeout_seconds: float | None
    """How long a write waits for room while consumers give nothing back; None waits on."""

    def __init__(
        self,
        ring: Ring,
        *,
        when_unread: WhenUnread = "raise",
        resume: bool = False,
        timeout_seconds: float | None = None,
    ) -> None:
        """Become the ring's one producer.

        Args:
            ring: the ring.
            when_unread: what to do when it is full and every consumer has left or died: raise
                ConsumerDied, wait for another one, or discard what nobody reads.
            resume: go on where a producer that died stopped.
            timeout_seconds: the attribute of that name.

        Raises:
            RoleTaken: another producer lives.
            ProducerDied: the producer of this stream died; open a new ring, or resume.
            Closed: the stream has ended already.
        """
        if when_unread not in ("raise", "wait", "discard"):
            raise UsageError(
                f'when nobody reads, a producer may "raise", "wait" or "discard", not '
                f"{when_unread!r}"
            )
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
        self._may_wait = True
        self.timeout_seconds = timeout_seconds
        # What the current wait for room waits for, and when it began on the monotonic clock.
        self._stall: tuple[int, float] | None = None
        self._dead_consumers: dict[int, str] = {}
        self._plain: tuple[type, np.dtype[Any]] | None = None  # of arrays copied as they lie
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

    # ---- batches ----------------------------------------------------------------------------

    def write_columns(
        self,
        columns: Mapping[str, Any] | np.ndarray[Any, Any],
        nulls: Mapping[str, Any] | None = None,
    ) -> int:
        """Publish typed records given as columns; return how many.

        Args:
            columns: name to numpy array, Arrow array or sequence, all of one length; or one
                structured array. An array of `schema.to_numpy()` itself is copied as it lies.
            nulls: name to a mask that is true where there is no value.

        Raises:
            UsageError: a column that is missing, unknown, of another length, or whose type would
                lose something.
            PayloadTooLarge, StrandAbortError, ConsumerDied, RingExhausted: as they say.
        """
        if nulls is None and self._plain is not None:
            kind, dtype = self._plain
            array = cast("np.ndarray[Any, Any]", columns)
            if (
                type(array) is kind  # no masked array: that has values to leave out
                and array.dtype is dtype
                and array.ndim == 1
                and array.flags.c_contiguous
            ):
                return cast("int", self._scatter(len(array), array))
        from strand.columns import write_columns

        return write_columns(self, columns, nulls)

    def write_arrow(self, batch: pa.RecordBatch) -> None:
        """Publish an Arrow batch.

        A block ring carries it as it is, whatever its types; its schema goes before the first one.
        A batch that takes more than a quarter of the heap is sliced by rows, so that a consumer
        may hold one slice while the next is written. A ring of typed records takes its columns.

        Raises:
            PayloadTooLarge: a single row takes more than half of the heap.
            UsageError: the schema differs from that of the first batch, or from the ring's.
        """
        if not self.map.is_blocks:
            from strand.columns import write_batch

            write_batch(self, batch)
            return
        if self._arrow is None:
            self._start_arrow(batch)
        for piece, size in self._slice_arrow(batch):
            self._write_piece(piece, size)

    def _start_arrow(self, batch: pa.RecordBatch) -> None:
        """Publish the schema, unless this producer goes on with the stream of one that died."""
        from strand.batches import BatchEncoder, decode_schema, encode_schema

        schema = batch.schema
        if self.committed_count == 0:
            message = encode_schema(schema)
            store_schema(self._memory, message)
            self.write_bytes(message)
        else:
            kept = find_schema(self._memory)
            if kept is None:
                raise UsageError(
                    "this stream's Arrow schema is not known to its second producer",
                    hint="end it, and write the batches to a stream of their own",
                )
            schema = decode_schema(kept)
        self._arrow = BatchEncoder(batch)
        self._arrow_schema = schema

    def _slice_arrow(self, batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield the pieces that become payloads, and their sizes."""
        assert self._arrow is not None
        if not batch.schema.equals(self._arrow_schema):
            raise UsageError(f"the stream's schema is {self._arrow_schema}, not {batch.schema}")
        return self._arrow.slices(batch, self.map.heap_bytes // 4)

    def _write_piece(self, piece: pa.RecordBatch, size: int) -> None:
        assert self._arrow is not None
        if size < _DIRECT_BYTES_MIN:
            self.write_bytes(self._arrow.encode(piece))
        else:
            with self.claim_payload(size) as memory:
                self._arrow.encode_into(memory, piece)

    # ---- in place ---------------------------------------------------------------------------

    def claim_payload(self, size: int) -> PayloadClaim:
        """Produce one payload of a block ring where it will be read.

            with writer.claim_payload(1 << 20) as memory:
                file.readinto(memory)

        Leaving the `with` publishes it, an exception drops it; `shrink` on the claim keeps fewer
        bytes. `memory` starts on a cache line and is good until the `with` is left.

        Args:
            size: bytes to claim.

        Raises:
            PayloadTooLarge: more than half of the heap.
            StrandAbortError, ConsumerDied: as in `write_bytes`, on entering.
        """
        if not self.map.is_blocks:
            self._fail(Failure.BLOCKS, None, None)
        return PayloadClaim(self, size)

    def claim_records(self, count: int) -> list[np.ndarray[Any, Any]]:
        """Claim `count` slots and return them as numpy structured arrays to fill, two at most.

        `commit_slots(writer.committed_count, count)` publishes them.
        """
        from strand.columns import claim_records

        return claim_records(self, count)

    # ---- the stream -------------------------------------------------------------------------

    def finalize(self) -> None:
        """End the stream; consumers read what is left and see its end."""
        self._end(layout.EOS)

    def abort(self, message: str = "") -> None:
        """End the stream with an error that carries `message` (316 bytes of it) to consumers."""
        self._end(layout.ERROR, message)

    def reset(self) -> None:
        """Begin a new stream in this ring, after the end of the one before.

        Its records count from 0 again; consumers go on at 0 with their next wait.

        Raises:
            Conflict: a consumer has not given back all records of the stream that ended.
            UsageError: it has not ended.
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
        """Return how much was written, how fast, and how often there was no room."""
        return WriterStats.of(self)

    def close(self) -> None:
        """Give up the role; a stream that was not finalized is aborted."""
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
        """Sleep one nap for `threshold` acknowledged records; raise when nobody will read them."""
        if not self._may_wait:
            raise NoRoom(threshold)
        nap = min(NAP_NANOSECONDS, int(self._seconds_left(threshold) * 1e9))
        try:
            if self._wait(threshold, self.spin_nanoseconds, nap):
                self._stall = None
                return
            self._free_dead_consumers()
            self._check_readers(threshold)
        except ValueError:  # the memory was let go of while we looked at it
            if not self.closed:
                raise

    def _seconds_left(self, threshold: int) -> float:
        """Return how long the current wait for room may go on.

        Raises:
            DeadlineExceeded: It is over. Nothing of the record that had no room was written.
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
        """Free the entries of consumers whose processes are gone."""
        for entry in layout.read_consumers(self._memory):
            if entry.state == layout.STATE_ATTACHED and self._ring.mark_left_if_dead(entry.index):
                self._dead_consumers[entry.index] = "died"

    def _check_readers(self, threshold: int) -> None:
        """Raise when all consumers are gone and that is an error."""
        if self._when_unread != "raise":
            return
        entries = layout.read_consumers(self._memory)
        left = [entry for entry in entries if entry.state == layout.STATE_LEFT]
        if not left or any(entry.state == layout.STATE_ATTACHED for entry in entries):
            return
        if self._wait(threshold, 0, 0):  # it may have made room before it went
            return
        last = max(left, key=lambda entry: entry.read)
        raise ConsumerDied(
            pid=last.pid, reason=self._dead_consumers.get(last.index, "closed its view")
        )

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
        """Go on where a dead producer stopped, which may have been in the middle of a reset."""
        if unbegun:
            with self._block_joins():
                self._rewind()
                layout.write_reason(self._memory, "")
        self.begin()  # rings every bell: the dead one may have published and not woken

    @contextmanager
    def _block_joins(self) -> Iterator[None]:
        """Hold the lock of every entry nobody reads with: joining and rewinding exclude each other.

        Raises:
            Conflict: somebody has unread records, or is joining this moment.
        """
        with ExitStack() as locks:
            for entry in layout.read_consumers(self._memory):
                lock = self._ring.segment.lock(layout.consumer_entry_at(entry.index))
                locks.callback(lock.release)
                if lock.try_acquire():
                    continue
                now = layout.read_consumer(self._memory, entry.index)
                unread = self.committed_count - now.read
                if now.state != layout.STATE_ATTACHED or unread:
                    raise Conflict(
                        f"consumer {now.index} (pid {now.pid}) has {unread} records of the last "
                        "stream to give back",
                        hint="acknowledge them there, or close that view, and reset again",
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
                    hint="let it read on, or mark its consumer slot vacant, and reset again",
                )


def _check_stream(ring: Ring, *, resume: bool) -> bool:
    """Refuse a stream that has ended, or whose producer died when it is not to be resumed.

    True when that producer had not begun it: what stands there may be half of a reset.
    """
    pid, _ = layout.holder_of(ring.memory, layout.PRODUCER_AT)
    status, _ = layout.read_status(ring.memory)
    if status in (layout.EOS, layout.ERROR):
        raise Closed("the ring's stream")
    if pid and not resume:
        raise ProducerDied(pid=pid)
    return pid != 0 and status == layout.INITIALIZING
