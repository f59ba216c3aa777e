"""The producing end of a ring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from sennit_core.errors import UsageError
from strand.claim import PayloadClaim
from strand.failures import Failure
from strand.header import find_schema, store_schema
from strand.producer import RingProducer

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["StrandWriter"]

# Smaller batches are encoded to a buffer and copied: that is faster than writing them in pieces.
_DIRECT_BYTES_MIN = 65536


class StrandWriter(RingProducer):
    """Writes records into a ring, and waits when it is full. Use it from one thread at a time.

    As a context manager it finalizes the stream at the end and aborts it on an exception.
    """

    # ---- batches ----------------------------------------------------------------------------

    def write_columns(
        self,
        columns: Mapping[str, Any] | np.ndarray[Any, Any],
        nulls: Mapping[str, Any] | None = None,
    ) -> int:
        """Publish typed records from columns; return how many.

        Args:
            columns: name to numpy array, Arrow array or sequence, all of one length; or one
                structured array. An array with the dtype `schema.to_numpy()` is written with one
                copy.
            nulls: name to a mask that is true where the value is null.

        Raises:
            UsageError: a column is missing, unknown, of another length, or of a type that cannot be
                converted without loss.
            PayloadTooLarge: one record needs more than half of the heap.
            StrandAbortError, ConsumerDied, RingExhausted: as in `write_record_batch`.
        """
        if nulls is None and self._plain is not None:
            kind, dtype = self._plain
            array = cast("np.ndarray[Any, Any]", columns)
            if (
                type(array) is kind  # not a masked array, which has nulls
                and array.dtype is dtype
                and array.ndim == 1
                and array.flags.c_contiguous
            ):
                return cast("int", self._scatter(len(array), array))
        from strand.columns import write_columns

        return write_columns(self, columns, nulls)

    def write_arrow(self, batch: pa.RecordBatch) -> None:
        """Publish an Arrow batch.

        A block ring carries batches of any type; the schema is published before the first one. A
        batch larger than a quarter of the heap is sliced by rows, so that a consumer may hold one
        slice while the next is written. A ring of typed records stores the batch's columns.

        Raises:
            PayloadTooLarge: a single row needs more than half of the heap.
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
        """Publish the schema, unless this producer resumes the stream of one that died."""
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
                    "cannot resume this Arrow stream: its schema is not in the ring's header",
                    hint="end the stream, and write the batches to a new one",
                )
            schema = decode_schema(kept)
        self._arrow = BatchEncoder(batch)
        self._arrow_schema = schema

    def _slice_arrow(self, batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield the slices of the batch that become payloads, and their sizes."""
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
        """Claim heap bytes of a block ring, to write one payload in place.

            with writer.claim_payload(1 << 20) as memory:
                file.readinto(memory)

        The end of the `with` publishes the payload, an exception drops it; `shrink` on the claim
        keeps fewer bytes. `memory` starts on a cache line and is valid until the end of the `with`.

        Args:
            size: bytes to claim.

        Raises:
            PayloadTooLarge: more than half of the heap.
            StrandAbortError, ConsumerDied: as in `write_bytes`, when the `with` is entered.
        """
        if not self.map.is_blocks:
            self._fail(Failure.BLOCKS, None, None)
        return PayloadClaim(self, size)

    def claim_records(self, count: int) -> list[np.ndarray[Any, Any]]:
        """Claim `count` slots and return them as numpy structured arrays to fill: one or two.

        `commit_slots(writer.committed_count, count)` publishes them.
        """
        from strand.columns import claim_records

        return claim_records(self, count)
