"""The consuming end of a ring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from strand import reading
from strand.consumer import RingConsumer
from strand.cursor import RecordCursor
from strand.rows import as_categories

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from strand.filters import Bitset, Predicate

__all__ = ["StrandView"]


class StrandView(RingConsumer):
    """Reads records from a ring and acknowledges them. Use it from one thread at a time.

    Up to eight consumers read one ring, each every record; the producer keeps the records that the
    slowest of them has not acknowledged. Views of bytes and arrays point into the ring: they are
    valid until their record is acknowledged (with STRAND_DEBUG=1 it is then overwritten with 0xDD).
    """

    # ---- typed records ----------------------------------------------------------------------

    def allocate_cursor(self) -> RecordCursor:
        """Return a cursor over typed records: allocate it once, then seek from record to record."""
        return RecordCursor(self)

    def update_intern_table(self, table: Sequence[str]) -> None:
        """Replace the strings that `utf8_ref` handles refer to; every cursor sees the change.

        Raises:
            UsageError: not a sequence of strings.
        """
        self._compiled.set_intern(as_categories(table))

    def columns(self, start: int, stop: int) -> dict[str, np.ndarray[Any, Any]]:
        """Copy the fixed-width fields of records into numpy arrays."""
        from strand.columns import columns

        return columns(self, start, stop)

    def to_arrow(self, start: int, stop: int) -> pa.RecordBatch:
        """Copy records into an Arrow batch."""
        from strand.columns import to_arrow

        return to_arrow(self, start, stop)

    def find_first(self, field: str, value: Any) -> int:
        """Return the first record whose sorted `field` is not before `value`, by bisection.

        Only records from `window_start` on are searched; returns `committed_count` when there is no
        such record.

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

    # ---- iterating, which acknowledges automatically ----------------------------------------

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Iterate over typed records as tuples until the end of the stream.

        Records are acknowledged in groups, after the last of each group: a loop left early repeats
        the records of its current group in the next iteration.
        """
        return reading.rows(self)

    def payloads(self, timeout_seconds: float | None = None) -> Iterator[memoryview]:
        """Iterate over the payloads of a block ring until the end of the stream.

        Each is a read-only view into shared memory, valid until the next one is requested; then it
        is acknowledged. When the loop is left, the last payload is not acknowledged: the next
        iteration starts with it.

        Args:
            timeout_seconds: how long to wait for each payload; None: no limit.

        Raises:
            DeadlineExceeded: no payload arrived in time.
            LeaseHeld: the previous payload is still referenced; copy it instead.
            ProducerDied: the producer died; raised after all published payloads.
            StrandAbortError: the stream was aborted; likewise.
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

        A block ring yields the batches that were written; a ring of typed records yields the records
        published since the last batch, as columns.

        Args:
            copy: yield copies. False yields batches over the memory of a block ring: each is
                acknowledged when the last reference to it is dropped. A ring whose memory another
                user owns is always copied from.
            timeout_seconds: as in `payloads`.
            schema: the schema of a block ring's batches, for a consumer that joins after the first
                one; needed only when the schema is too large for the ring's header (about 2.5 KiB,
                deflated).

        Raises:
            LeaseHeld: without copies, so many batches are referenced that the producer has no room.
            DeadlineExceeded, ProducerDied, StrandAbortError: as in `payloads`.
        """
        return reading.batches(self, copy=copy, timeout_seconds=timeout_seconds, schema=schema)

    def record_views(self, timeout_seconds: float | None = None) -> Iterator[np.ndarray[Any, Any]]:
        """Iterate over typed records as numpy structured arrays over the ring itself.

        Each is acknowledged when the next one is requested.
        """
        return reading.record_views(self, timeout_seconds)
