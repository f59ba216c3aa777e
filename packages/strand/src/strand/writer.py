"""The producer's side of a ring."""

from __future__ import annotations

import struct
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sennit_core.errors import UsageError
from strand import _native
from strand.errors import ConsumerDied, PayloadTooLarge
from strand.layout import consumer_entry_at, write_reason
from strand.owners import RoleLock
from strand.role import NAP_NANOSECONDS, SPINS, Role, translate

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Buffer

    from strand.ring import Ring

__all__ = ["StrandWriter"]

_STREAMING, _EOS, _ERROR = 1, 2, 3
_ATTACHED, _LEFT = 1, 2


class StrandWriter(Role):
    """Writes records into a ring, and waits when there is no room. For one thread at a time.

    As a context manager it finalizes the stream at the end and aborts it on an exception.
    """

    _core: _native.Producer

    def __init__(self, ring: Ring, lock: RoleLock, native: _native.Producer) -> None:
        """Use `Ring.producer()`."""
        super().__init__(ring, lock, native)
        self._header = ring.header
        self._blocks = ring.header.is_blocks
        self._arrow_schema: pa.Schema | None = None
        native.set_status(_STREAMING)

    @property
    def committed_count(self) -> int:
        """Records published so far."""
        return self._core.committed

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload one record may carry: half of the heap."""
        return self._header.heap_bytes // 2

    def write_bytes(self, payload: Buffer) -> None:
        """Publish one payload of a block ring: one copy into shared memory.

        Raises:
            PayloadTooLarge: more than half of the heap.
            StrandAbortError: the consumer asked to stop.
            ConsumerDied: the ring is full and nobody reads it any more.
        """
        if not self._blocks:
            raise UsageError("write_bytes needs a block ring: open it with strand.BLOCKS")
        try:
            while threshold := self._core.write_block(payload):
                self._wait_for_room(threshold)
        except _native.TooLarge:
            actual = memoryview(payload).nbytes
            raise self._too_large(actual) from None
        except (_native.Aborted, _native.CorruptRing) as error:
            raise translate(error) from None

    def write_arrow(self, batch: pa.RecordBatch) -> None:
        """Publish an Arrow batch; its schema goes before the first one.

        A batch that takes more than a quarter of the heap is sliced by rows, so that a consumer
        may hold one slice while the next is written.

        Raises:
            PayloadTooLarge: a single row takes more than half of the heap.
            UsageError: the schema differs from that of the first batch.
        """
        from strand.batches import encode_batch, encode_schema

        if self._arrow_schema is None:
            payload = encode_schema(batch.schema)
            self.write_bytes(payload)
            self._arrow_schema = batch.schema
        elif not self._arrow_schema.equals(batch.schema):
            raise UsageError(f"the stream's schema is {self._arrow_schema}, not {batch.schema}")
        for payload in encode_batch(batch, self._header.heap_bytes // 4):
            self.write_bytes(payload)

    def finalize(self) -> None:
        """End the stream; the consumer reads what is left and sees its end."""
        self._core.set_status(_EOS)
        self._let_go()

    def abort(self, message: str = "") -> None:
        """End the stream with an error that carries `message` (316 bytes of it) to the consumer."""
        native = self._core
        with memoryview(self._ring.memory) as memory:
            write_reason(memory, message)
        native.set_status(_ERROR)
        self._let_go()

    def close(self) -> None:
        """Give up the role; a stream that was not finalized is aborted."""
        if not self.closed:
            self.abort("the producer closed before the end of the stream")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.closed:
            return
        if error is None:
            self.finalize()
        else:
            self.abort(str(error) or type(error).__name__)

    def _wait_for_room(self, threshold: int) -> None:
        """Sleep one nap for `threshold` acknowledged records; raise when nobody will read them."""
        if self._core.wait(threshold, SPINS, NAP_NANOSECONDS):
            return
        entry = consumer_entry_at(0)
        pid, state = struct.unpack_from("<II", self._ring.memory, entry + 16)
        left = state == _LEFT
        if not left and (state != _ATTACHED or self._ring._is_held(entry)):  # noqa: SLF001
            return
        if not self._core.wait(threshold, 0, 0):  # it may have made room before it went
            raise ConsumerDied(pid=pid, reason="closed its view" if left else "died")

    def _too_large(self, actual_bytes: int) -> PayloadTooLarge:
        return PayloadTooLarge(
            limit_bytes=self.payload_bytes_max,
            actual_bytes=actual_bytes,
            hint="slice it, or open the ring with a larger heap: one record may take half of it",
        )
