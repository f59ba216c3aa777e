"""The consumer's side of a ring."""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sennit_core.errors import Corrupt, DeadlineExceeded, UsageError
from strand import _native
from strand.cursor import RecordCursor
from strand.errors import LeaseHeld, ProducerDied, StrandAbortError
from strand.layout import PRODUCER_AT, SLEEP_AT, read_reason
from strand.owners import RoleLock
from strand.role import NAP_NANOSECONDS, SPINS, Role
from strand.rows import RowDecoder

if TYPE_CHECKING:
    import pyarrow as pa

    from strand.ring import Ring, Status

__all__ = ["StrandView"]

_EOS, _ERROR = 2, 3


class StrandView(Role):
    """Reads records from a ring and gives them back. For one thread at a time."""

    _core: _native.Consumer

    def __init__(self, ring: Ring, lock: RoleLock, native: _native.Consumer) -> None:
        """Use `Ring.consumer()`."""
        super().__init__(ring, lock, native)
        self._arrow_schema: pa.Schema | None = None
        self._decoder = RowDecoder(ring.header, self._memory)

    @property
    def committed_count(self) -> int:
        """Records published so far."""
        return self._core.committed()

    @property
    def acknowledged_count(self) -> int:
        """Records given back so far."""
        return self._core.read

    @property
    def status(self) -> Status:
        """Where the stream is: initializing, streaming, eos or error."""
        return self._ring.status

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
        """
        held_at_most = self._core.read + self.header.records
        wanted = max(after + 1, min(after + min_records, held_at_most))
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            nap = NAP_NANOSECONDS
            if deadline is not None:
                nap = max(0, min(nap, int((deadline - time.monotonic()) * 1e9)))
            if self._core.wait(wanted, SPINS, nap):
                return self._core.committed()
            failure = self._find_failure()
            ended = failure is not None or self._core.status() >= _EOS
            committed = self._core.committed()  # after the status: nothing comes any more
            if committed > after and (ended or self._producer_waits()):
                return committed
            if failure is not None:
                raise failure
            if after > self._core.read and not ended and self._producer_waits():
                raise self._stalled(after)
            if ended or (deadline is not None and time.monotonic() >= deadline):
                return committed

    def allocate_cursor(self) -> RecordCursor:
        """Return a cursor over typed records."""
        return RecordCursor(self, self._decoder)

    def acknowledge_read(self, upto: int) -> None:
        """Give the records below `upto` back: the producer may overwrite them from now on.

        Raises:
            UsageError: beyond what is committed, or below what was acknowledged before.
        """
        try:
            self._core.acknowledge(upto)
        except IndexError:
            raise UsageError(
                f"cannot acknowledge up to {upto}: {self.acknowledged_count} are acknowledged "
                f"and {self.committed_count} committed"
            ) from None

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
        self._require_blocks()
        seq = self._core.read
        while self._has_record(seq, timeout_seconds):
            lease = self._lease(seq)
            payload = memoryview(lease)
            yield payload
            self._release(payload, lease)
            seq += 1
            self._core.acknowledge(seq)

    def batches(
        self, *, copy: bool = True, timeout_seconds: float | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over the Arrow batches of a block ring until the end of the stream.

        Args:
            copy: True gives batches of their own memory. False gives batches that look into the
                ring: each is given back when it is no longer referenced, in order, so holding
                several stalls the producer.
            timeout_seconds: how long to wait for each batch.

        Raises:
            LeaseHeld: the producer has no room because too many batches are held (`copy=False`).
            DeadlineExceeded, ProducerDied, StrandAbortError: as `payloads`.
        """
        from strand.batches import decode_batch, decode_schema

        self._require_blocks()
        held: deque[_native.Lease] = deque()
        seq = self._core.read
        while self._has_record(seq, timeout_seconds, held):
            lease = self._lease(seq)
            seq += 1
            if self._arrow_schema is None:
                self._arrow_schema = decode_schema(lease)
                self._give_back(held, lease)
                continue
            batch = decode_batch(lease, self._arrow_schema, copy=copy)
            self._give_back(held, lease)
            del lease
            yield batch
            del batch
            self._give_back(held)

    def signal_abort(self) -> None:
        """Ask the producer to stop; its next write raises StrandAbortError."""
        self._ring.signal_abort()

    def close(self) -> None:
        """Give up the role; a producer that waits for room learns of it at once."""
        if not self.closed:
            self._core.leave()
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _require_blocks(self) -> None:
        if not self.header.is_blocks:
            raise UsageError("this needs a block ring; read typed records with a cursor")

    def _has_record(
        self,
        seq: int,
        timeout_seconds: float | None,
        held: deque[_native.Lease] | None = None,
    ) -> bool:
        """Wait for record `seq`; False at the end of the stream."""
        if self._core.committed() > seq:
            return True
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            nap = NAP_NANOSECONDS / 1e9
            if deadline is not None:
                nap = max(0.0, min(nap, deadline - time.monotonic()))
            if held:
                self._give_back(held)
            if self.wait_for_commit(seq, nap) > seq:
                return True
            if self._core.status() == _EOS:
                return self._core.committed() > seq
            if deadline is not None and time.monotonic() >= deadline:
                raise DeadlineExceeded("waiting for the next payload", timeout_seconds)

    def _lease(self, seq: int) -> _native.Lease:
        try:
            return self._core.read_block(seq)
        except _native.CorruptRing as error:
            raise Corrupt("the ring", found=str(error)) from None

    def _release(self, payload: memoryview, lease: _native.Lease) -> None:
        try:
            payload.release()
        except BufferError:
            held = True
        else:
            held = not lease.release()
        if held:
            raise LeaseHeld(
                "the previous payload is still looked at, and its bytes are about to be reused",
                hint="copy what you keep (`bytes(payload)`) and drop slices and arrays over it",
            )

    def _give_back(self, held: deque[_native.Lease], lease: _native.Lease | None = None) -> None:
        """Acknowledge, in order, what is no longer looked at; `lease` is the newest."""
        if lease is not None:
            held.append(lease)
        done = 0
        while held and held[0].release():
            held.popleft()
            done += 1
        if done:
            self._core.acknowledge(self._core.read + done)

    def _producer_waits(self) -> bool:
        """Whether the producer sleeps until we acknowledge more than we have."""
        wanted: int = struct.unpack_from("<Q", self._memory, SLEEP_AT)[0]
        return wanted > self._core.read

    def _stalled(self, after: int) -> LeaseHeld:
        count = after - self._core.read
        return LeaseHeld(
            f"{count} records are read and not given back, and the ring has no room for the next",
            hint="acknowledge records and drop zero-copy batches as you go, or open a larger ring",
        )

    def _find_failure(self) -> ProducerDied | StrandAbortError | None:
        """Return why no more will come, when the stream did not end as it should."""
        memory = self._memory
        pid = struct.unpack_from("<I", memory, PRODUCER_AT + 32)[0]
        held = self._ring._is_held(PRODUCER_AT)  # noqa: SLF001
        status = self._core.status()  # after the lock: a producer sets it, then lets go
        if status == _EOS:
            return None
        if status == _ERROR:
            return StrandAbortError(reason=read_reason(memory))
        if self._core.aborted():
            return StrandAbortError(reason="the consumer asked the producer to stop")
        if pid and not held:
            return ProducerDied(pid=pid)
        return None
