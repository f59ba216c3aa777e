"""Iterate over a ring: wait for records, yield items, and acknowledge unreferenced ones.

A *reader* converts records to the items of an iteration; it never waits. Three loops drive readers:
`read` here for one ring in this thread, `strand.fanin_view` for several rings, and `strand.aio` in
an event loop.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sennit_core.errors import DeadlineExceeded, UsageError
from strand import layout
from strand.errors import CorruptRecord, LeaseHeld
from strand.header import find_schema
from strand.role import NAP_NANOSECONDS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from strand import _native
    from strand.consumer import RingConsumer

__all__ = [
    "ArrayReader",
    "BatchReader",
    "GatheringReader",
    "GroupReader",
    "PayloadReader",
    "Reader",
    "RowReader",
    "batch_reader",
    "batches",
    "payloads",
    "record_views",
    "rows",
]

GROUP_RECORDS_MAX = 4096  # records between two acknowledgements of an iteration

T = TypeVar("T")


class Reader(ABC, Generic[T]):
    """Converts published records of one view to the items of an iteration."""

    def __init__(self, view: RingConsumer) -> None:
        """Read with `view`."""
        self.view = view
        view._hold_own_position()  # noqa: SLF001 - of one package

    @abstractmethod
    def read_range(self, seq: int, stop: int) -> Iterator[T]:
        """Yield the published records from `seq` up to `stop`; acknowledge each after its use."""

    def acknowledge_released(self) -> None:
        """Acknowledge yielded items that are no longer referenced; called before every wait."""


class GroupReader(Reader[list[tuple[Any, ...]]]):
    """Typed records as lists of tuples."""

    def read_range(self, seq: int, stop: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield lists of at most GROUP_RECORDS_MAX tuples."""
        while seq < stop:
            end = min(stop, seq + GROUP_RECORDS_MAX)
            rows, error = _whole_tuples(self.view, seq, end)
            if rows or error is None:
                yield rows
            # after the yield: a loop left in its middle reads this group again
            self.view.acknowledge_read(seq + len(rows))
            if error is not None:
                raise error
            seq = end


class RowReader(Reader["Iterable[tuple[Any, ...]]"]):
    """Typed records as iterators over tuples, each decoded when it is requested."""

    def read_range(self, seq: int, stop: int) -> Iterator[Iterable[tuple[Any, ...]]]:
        """Yield iterators over at most GROUP_RECORDS_MAX tuples."""
        while seq < stop:
            end = min(stop, seq + GROUP_RECORDS_MAX)
            yield self.view.rows(seq, end)
            # the iterator reads the slots as it goes, so not before it is used up
            self.view.acknowledge_read(end)
            seq = end


class ArrayReader(Reader["np.ndarray[Any, Any]"]):
    """Typed records as numpy structured arrays over the ring itself."""

    def read_range(self, seq: int, stop: int) -> Iterator[np.ndarray[Any, Any]]:
        """Yield one array, or two where the ring wraps."""
        for piece in self.view.records(seq, stop):
            yield piece  # over the slots themselves: they are the caller's until the next item
            seq += len(piece)
            self.view.acknowledge_read(seq)


class GatheringReader(Reader["pa.RecordBatch"]):
    """Typed records as Arrow batches, copied."""

    def read_range(self, seq: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield one batch."""
        from strand.columns import to_arrow

        try:
            batch, error = to_arrow(self.view, seq, stop), None
        except CorruptRecord as damage:
            stop, error = damage.record, damage
            batch = to_arrow(self.view, seq, stop)
        self.view.acknowledge_read(stop)  # before the yield: the batch is a copy
        if batch.num_rows or error is None:
            yield batch
        if error is not None:
            raise error


class PayloadReader(Reader[memoryview]):
    """The payloads of a block ring, not copied."""

    def __init__(self, view: RingConsumer) -> None:
        """Read with `view`.

        Raises:
            UsageError: a ring of typed records.
        """
        if not view.map.is_blocks:
            raise UsageError("this needs a block ring; read typed records with a cursor")
        super().__init__(view)

    def read_range(self, seq: int, stop: int) -> Iterator[memoryview]:
        """Yield each payload; it becomes invalid when the next one is requested."""
        for at in range(seq, stop):
            lease = self.view._read_block(at)  # noqa: SLF001 - of one package
            payload = memoryview(lease)
            yield payload
            _end_lease(payload, lease)
            self.view.acknowledge_read(at + 1)


class BatchReader(Reader["pa.RecordBatch"]):
    """The Arrow batches of a block ring, over the ring itself or copied."""

    def __init__(self, view: RingConsumer, *, copy: bool, schema: pa.Schema | None = None) -> None:
        """Read with `view`; `schema` replaces one that was missed and is not in the header.

        Raises:
            UsageError: a ring of typed records.
        """
        super().__init__(view)
        # Another user's producer could change a batch after it was validated.
        self._copy = copy or view.is_of_another_user
        self._held: deque[_native.Lease] = deque()
        if schema is not None:
            view._arrow_schema = schema  # noqa: SLF001

    def read_range(self, seq: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the batches; without copies, each is acknowledged once it is not referenced."""
        from strand.batches import decode_batch, decode_schema

        view = self.view
        for at in range(seq, stop):
            lease = view._read_block(at)  # noqa: SLF001
            if at == 0:
                view._arrow_schema = decode_schema(lease)  # noqa: SLF001
                self._hold(lease)
                continue
            batch = decode_batch(lease, self._schema(), copy=self._copy)
            self._hold(lease)
            del lease
            yield batch
            del batch
            self.acknowledge_released()

    def acknowledge_released(self) -> None:
        """Acknowledge, in order, the payloads that are no longer referenced."""
        done = 0
        while self._held and self._held[0].release():
            self._held.popleft()
            done += 1
        if done:
            self.view.acknowledge_read(self.view.acknowledged_count + done)

    def _hold(self, lease: _native.Lease) -> None:
        self._held.append(lease)
        self.acknowledge_released()

    def _schema(self) -> pa.Schema:
        """Return the stream's schema, from its first payload or from the header."""
        from strand.batches import decode_schema

        view = self.view
        if view._arrow_schema is None:  # noqa: SLF001
            message = find_schema(view.memory)
            if message is None:
                raise UsageError(
                    "this consumer joined after the stream's Arrow schema was published, and the "
                    "ring's header has no room for a copy of it",
                    hint="pass the schema: view.batches(schema=...)",
                )
            view._arrow_schema = decode_schema(message)  # noqa: SLF001
        return view._arrow_schema  # noqa: SLF001


def batch_reader(
    view: RingConsumer, *, copy: bool = True, schema: pa.Schema | None = None
) -> Reader[pa.RecordBatch]:
    """Return the reader of Arrow batches that suits the ring."""
    if view.map.is_blocks:
        return BatchReader(view, copy=copy, schema=schema)
    return GatheringReader(view)


# ---- loops --------------------------------------------------------------------------------------


def rows(view: RingConsumer) -> Iterator[tuple[Any, ...]]:
    """Iterate over tuples without a Python frame for each; see `StrandView.__iter__`."""
    return chain.from_iterable(read(RowReader(view)))


def record_views(
    view: RingConsumer, timeout_seconds: float | None
) -> Iterator[np.ndarray[Any, Any]]:
    """Yield numpy structured arrays; see `StrandView.record_views`."""
    return read(ArrayReader(view), timeout_seconds)


def payloads(view: RingConsumer, timeout_seconds: float | None) -> Iterator[memoryview]:
    """Yield the payloads of a block ring; see `StrandView.payloads`."""
    return read(PayloadReader(view), timeout_seconds)


def batches(
    view: RingConsumer,
    *,
    copy: bool,
    timeout_seconds: float | None,
    schema: pa.Schema | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield Arrow batches; see `StrandView.batches`."""
    return read(batch_reader(view, copy=copy, schema=schema), timeout_seconds)


def read(reader: Reader[T], timeout_seconds: float | None = None) -> Iterator[T]:
    """Yield the items of `reader` until the end of the stream."""
    view = reader.view
    view._follow_reset()  # noqa: SLF001 - of one package
    seq = view.window_start
    while has_record(reader, seq, timeout_seconds):
        stop = view.committed_count
        yield from reader.read_range(seq, stop)
        seq = stop


def has_record(reader: Reader[Any], seq: int, timeout_seconds: float | None) -> bool:
    """Wait for record `seq`; False at the end of the stream."""
    view = reader.view
    view._check_stream(seq)  # noqa: SLF001 - of one package
    if view.committed_count > seq:
        return True
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        # One nap at a time: in between, released items are acknowledged, without which the producer
        # might wait for this consumer, and a dead producer is noticed.
        nap = NAP_NANOSECONDS / 1e9
        if deadline is not None:
            nap = max(0.0, min(nap, deadline - time.monotonic()))
        reader.acknowledge_released()
        if view.wait_for_commit(seq, nap) > seq:
            return True
        if view._status() == layout.EOS:  # noqa: SLF001 - likewise
            # counted after the status: once the stream has ended, the count is final
            return view.committed_count > seq
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExceeded("waiting for the next record", timeout_seconds)


def _whole_tuples(
    view: RingConsumer, start: int, stop: int
) -> tuple[list[tuple[Any, ...]], CorruptRecord | None]:
    """Return the records before the first that cannot be decoded, and the error of that one."""
    try:
        return view.tuples(start, stop), None
    except CorruptRecord as error:
        return view.tuples(start, error.record), error


def _end_lease(payload: memoryview, lease: _native.Lease) -> None:
    try:
        payload.release()
    except BufferError:
        held = True
    else:
        held = not lease.release()
    if held:
        raise LeaseHeld(
            "the previous payload is still referenced, and its bytes are about to be reused",
            hint="copy what you keep (`bytes(payload)`) and drop slices and arrays over it",
        )
