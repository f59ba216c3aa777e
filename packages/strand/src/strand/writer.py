"""The producer's side of a ring."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sennit_core.errors import Corrupt, SennitError, UsageError
from strand import _native
from strand.errors import ConsumerDied, PayloadTooLarge, RingExhausted, StrandAbortError
from strand.layout import consumer_entry_at, write_reason
from strand.owners import RoleLock
from strand.role import NAP_NANOSECONDS, SPINS, Role
from strand.rows import Encoded, RowEncoder

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Buffer

    from strand.batches import BatchEncoder
    from strand.ring import Ring

__all__ = ["StrandWriter"]

_STREAMING, _EOS, _ERROR = 1, 2, 3
_ATTACHED, _LEFT = 1, 2
_DIRECT_BYTES_MIN = 65536  # below this a message in between is cheaper than writing in pieces
_SIGNALS = (_native.TooLarge, _native.Aborted, _native.Exhausted, _native.CorruptRing)


class StrandWriter(Role):
    """Writes records into a ring, and waits when there is no room. For one thread at a time.

    As a context manager it finalizes the stream at the end and aborts it on an exception.
    """

    _core: _native.Producer

    def __init__(self, ring: Ring, lock: RoleLock, native: _native.Producer) -> None:
        """Use `Ring.producer()`."""
        super().__init__(ring, lock, native)
        self._encoder = RowEncoder(ring.header)
        self._blocks = ring.header.is_blocks
        self._arrow_schema: pa.Schema | None = None
        self._arrow_encoder: BatchEncoder | None = None
        native.set_status(_STREAMING)

    @property
    def committed_count(self) -> int:
        """Records published so far."""
        return self._core.committed

    @property
    def payload_bytes_max(self) -> int:
        """The largest payload one record may carry: half of the heap."""
        return self.header.heap_bytes // 2

    def write_bytes(self, payload: Buffer) -> None:
        """Publish one payload of a block ring: one copy into shared memory.

        Raises:
            PayloadTooLarge: more than half of the heap.
            StrandAbortError: the consumer asked to stop.
            ConsumerDied: the ring is full and nobody reads it any more.
        """
        if not self._blocks:
            raise UsageError("write_bytes needs a block ring: open it with strand.BLOCKS")
        write_block = self._core.write_block
        try:
            while threshold := write_block(payload):
                self._wait_for_room(threshold)
        except _SIGNALS as error:
            raise self._translate(error, memoryview(payload).nbytes) from None

    def write_arrow(self, batch: pa.RecordBatch) -> None:
        """Publish an Arrow batch; its schema goes before the first one.

        A batch that takes more than a quarter of the heap is sliced by rows, so that a consumer
        may hold one slice while the next is written.

        Raises:
            PayloadTooLarge: a single row takes more than half of the heap.
            UsageError: the schema differs from that of the first batch.
        """
        from strand.batches import BatchEncoder, encode_schema, slice_batch

        if self._arrow_schema is None:
            self.write_bytes(encode_schema(batch.schema))
            self._arrow_schema = batch.schema
            self._arrow_encoder = BatchEncoder(batch)
        elif not self._arrow_schema.equals(batch.schema):
            raise UsageError(f"the stream's schema is {self._arrow_schema}, not {batch.schema}")
        for piece, size in slice_batch(batch, self.header.heap_bytes // 4):
            if size < _DIRECT_BYTES_MIN:
                self.write_bytes(piece.serialize())
            else:
                self._write_direct(piece, size)

    def write_record_batch(self, records: Iterable[Sequence[Any] | Mapping[str, Any]]) -> int:
        """Publish typed records, tuples in field order or mappings; return how many.

        They become visible together, or in the pieces that the ring has room for.

        Raises:
            UsageError: a record does not fit the schema; those before it were written.
            PayloadTooLarge: its strings and arrays take more than half of the heap; likewise.
            StrandAbortError, ConsumerDied, RingExhausted: as they say; likewise.
        """
        count = 0
        try:
            for record in records:
                self._write_record(self._encoder.encode(record))
                count += 1
        finally:
            self._core.publish()
        return count

    def claim_slot(self) -> tuple[int, int]:
        """Claim the next slot, zeroed, for filling by hand: (byte offset in `memory`, seq).

        Fill the fields, with `claim_heap_bytes` for payloads, then `commit_slot(seq)`. Claiming
        again before that answers with the same slot.
        """
        while True:
            with self._translated():
                slot, threshold = self._core.claim_slot()
            if not threshold:
                return slot, self._core.sealed
            self._core.publish()
            self._wait_for_room(threshold)

    def claim_heap_bytes(self, count: int, align: int = 1) -> tuple[int, int]:
        """Claim contiguous heap bytes for the claimed slot: (byte offset in `memory`, pointer)."""
        while True:
            with self._translated(count):
                offset, threshold = self._core.claim_heap(count, align)
            if not threshold:
                physical = offset & (self.header.heap_bytes - 1)
                return self.header.heap_start + physical, offset
            self._core.publish()
            self._wait_for_room(threshold)

    def commit_slot(self, seq: int) -> None:
        """Publish the record filled in the claimed slot.

        Raises:
            UsageError: not the slot claimed last.
        """
        if seq != self._core.sealed:
            raise UsageError(f"slot {self._core.sealed} is next to be committed, not {seq}")
        self._core.seal()
        self._core.publish()

    @property
    def memory(self) -> memoryview:
        """The whole segment, for filling claimed slots and heap bytes."""
        return self._memory

    def finalize(self) -> None:
        """End the stream; the consumer reads what is left and sees its end."""
        self._core.set_status(_EOS)
        self._let_go()

    def abort(self, message: str = "") -> None:
        """End the stream with an error that carries `message` (316 bytes of it) to the consumer."""
        set_status = self._core.set_status  # refuses before a word is written
        write_reason(self._memory, message)
        set_status(_ERROR)
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
        pid, state = struct.unpack_from("<II", self._memory, entry + 16)
        left = state == _LEFT
        if not left and (state != _ATTACHED or self._ring._is_held(entry)):  # noqa: SLF001
            return
        if not self._core.wait(threshold, 0, 0):  # it may have made room before it went
            raise ConsumerDied(pid=pid, reason="closed its view" if left else "died")

    def _write_direct(self, batch: pa.RecordBatch, size: int) -> None:
        """Publish a batch whose message is written where it will be read."""
        assert self._arrow_encoder is not None
        slot, seq = self.claim_slot()
        try:
            start, offset = self.claim_heap_bytes(size, 64)
            with self._memory[start : start + size] as target:
                self._arrow_encoder.encode_into(target, batch)
        except BaseException:
            self._core.abandon()
            raise
        pointer = self._encoder.pointer(offset, size)
        self._memory[slot : slot + len(pointer)] = pointer
        self.commit_slot(seq)

    def _write_record(self, encoded: Encoded) -> None:
        slots = self.header.slots
        fields = self.header.schema.fields
        null_bits = self.header.schema.null_bits
        memory = self._memory
        slot, _ = self.claim_slot()
        try:
            for at, data in encoded:
                kind = fields[at].kind
                if kind.heap:
                    align = kind.heap_align_in(slots.version)
                    start, offset = self.claim_heap_bytes(len(data), align)
                    memory[start : start + len(data)] = data
                    data = self._encoder.pointer(offset, len(data))
                where = slot + slots.offsets[at]
                memory[where : where + len(data)] = data
                bit = null_bits[at]
                if bit is not None:
                    memory[slot + bit // 8] |= 1 << (bit & 7)
        except BaseException:
            self._core.abandon()
            raise
        self._core.seal()

    @contextmanager
    def _translated(self, asked_bytes: int = 0) -> Iterator[None]:
        try:
            yield
        except _SIGNALS as error:
            raise self._translate(error, asked_bytes) from None

    def _translate(self, error: Exception, asked_bytes: int) -> SennitError:
        if isinstance(error, _native.TooLarge):
            return PayloadTooLarge(
                limit_bytes=self.payload_bytes_max,
                actual_bytes=asked_bytes,
                hint="slice it, or open the ring with a larger heap: a record may take half of it",
            )
        if isinstance(error, _native.Aborted):
            return StrandAbortError(reason="the consumer asked the producer to stop")
        if isinstance(error, _native.Exhausted):
            return RingExhausted(str(error), hint="open the ring with version=6")
        return Corrupt("the ring", found=str(error))
