"""Rings in an event loop: waiting for records and for room without blocking other tasks.

    async with strand.aio.AsyncView(ring.consumer()) as view:
        async for batch in view.batches():
            ...

All access to a ring happens in the loop's thread. Only the sleep is in another thread, one for all
rings of the process. An awaiting task runs 40 us after a publication (p50, two cores; 115 us when both
are busy); a thread that sleeps in C runs after 20 us. While there are records to read, no task sleeps
and neither cost occurs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakKeyDictionary

from sennit_core.errors import DeadlineExceeded
from strand import _native, layout
from strand.closing import AsyncClosing
from strand.errors import LeaseHeld
from strand.producer import NoRoom
from strand.reading import (
    ArrayReader,
    GroupReader,
    PayloadReader,
    Reader,
    batch_reader,
)
from strand.role import NAP_NANOSECONDS
from strand.watching import nap

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa

    from strand.consumer import RingConsumer
    from strand.fanin_view import FanInView
    from strand.view import StrandView
    from strand.writer import StrandWriter

__all__ = ["AsyncFanInView", "AsyncView", "AsyncWriter", "wait_for_commit"]

T = TypeVar("T")

# The counts that tasks wait for, by view: a view has one threshold, which is the lowest of them.
_wanted: WeakKeyDictionary[RingConsumer, list[int]] = WeakKeyDictionary()


async def wait_for_commit(
    view: RingConsumer,
    after: int,
    timeout_seconds: float | None = None,
    min_records: int = 1,
) -> int:
    """Wait until `min_records` more than `after` are published, and return the count.

    Like `StrandView.wait_for_commit`, but other tasks of the loop run meanwhile; several tasks may
    wait for one view. A cancelled wait has no effect on the ring.

    Args:
        view: the consumer that waits.
        after: the committed count that the caller knows.
        timeout_seconds: how long to wait at most; None: no limit.
        min_records: how many more records to wait for.

    Raises:
        LeaseHeld, ProducerDied, StrandAbortError, StreamReset: as `StrandView.wait_for_commit`.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    napped = False
    while True:
        wanted = max(after + 1, min(after + min_records, view.window_start + view.map.records))
        with _wanting(view, wanted) as bell:
            count = _look(view, after, wanted, napped=napped)
            if count is not None:
                return count
            seconds = NAP_NANOSECONDS / 1e9
            if deadline is not None:
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    return view.committed_count
            await nap(view._bell, bell, seconds)  # noqa: SLF001 - of one package
            napped = True


@contextmanager
def _wanting(view: RingConsumer, wanted: int) -> Iterator[int]:
    """Register the lowest count that any task waits for; yield the bell's value before the check."""
    counts = _wanted.setdefault(view, [])
    counts.append(wanted)
    try:
        yield view._arm(min(counts))  # noqa: SLF001
    finally:
        counts.remove(wanted)
        # This task may have been the one with the lowest count: store the next lowest, and check it
        # as every sleeper does after its threshold.
        if counts and not view.closed:
            lowest = min(counts)
            view._arm(lowest)  # noqa: SLF001
            if view.committed_count >= lowest:  # committed before the threshold was stored
                _native.ring_bell(view._bell)  # noqa: SLF001


def _look(view: RingConsumer, after: int, wanted: int, *, napped: bool) -> int | None:
    """Return the count when it is high enough or no more will come for now; None to sleep."""
    committed = view.committed_count
    if view._check_stream(after):  # noqa: SLF001
        committed = view.committed_count
    if committed >= wanted:
        return committed
    if napped or view._status() >= layout.EOS or view._aborted():  # noqa: SLF001
        try:
            return view._count_if_idle(after)  # noqa: SLF001
        except LeaseHeld:
            if len(view._locks) == 1:  # noqa: SLF001
                raise
            return None  # a task with another token may acknowledge meanwhile
    return None


class AsyncView(AsyncClosing):
    """A view for one event loop: iterates without blocking it, and acknowledges automatically."""

    def __init__(self, view: StrandView) -> None:
        """Read with `view`, which this object owns and closes."""
        self.view = view

    async def wait_for_commit(
        self, after: int, timeout_seconds: float | None = None, min_records: int = 1
    ) -> int:
        """Wait until `min_records` more than `after` are published: see `wait_for_commit`."""
        return await wait_for_commit(self.view, after, timeout_seconds, min_records)

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        """Iterate over typed records as tuples; see `StrandView.__iter__`."""
        async for group in self.row_groups():
            for row in group:
                yield row

    def row_groups(
        self, timeout_seconds: float | None = None
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """Iterate over typed records as lists of tuples: faster than one by one."""
        return _read(GroupReader(self.view), timeout_seconds)

    def payloads(self, timeout_seconds: float | None = None) -> AsyncIterator[memoryview]:
        """Iterate over the payloads of a block ring; see `StrandView.payloads`."""
        return _read(PayloadReader(self.view), timeout_seconds)

    def batches(
        self,
        *,
        copy: bool = True,
        timeout_seconds: float | None = None,
        schema: pa.Schema | None = None,
    ) -> AsyncIterator[pa.RecordBatch]:
        """Iterate over Arrow batches; see `StrandView.batches`."""
        return _read(batch_reader(self.view, copy=copy, schema=schema), timeout_seconds)

    def record_views(
        self, timeout_seconds: float | None = None
    ) -> AsyncIterator[np.ndarray[Any, Any]]:
        """Iterate over typed records as numpy arrays; see `StrandView.record_views`."""
        return _read(ArrayReader(self.view), timeout_seconds)

    def close(self) -> None:
        """Release the role; a waiting task gets Closed."""
        if not self.view.closed:
            _native.ring_bell(self.view._bell)  # noqa: SLF001
        self.view.close()


class AsyncFanInView(AsyncClosing):
    """A fan-in's consumer for one event loop: iterates round-robin, without blocking the loop."""

    def __init__(self, view: FanInView) -> None:
        """Read with `view`, which this object owns and closes."""
        self.view = view

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        """Iterate over typed records as tuples; see `FanInView.__iter__`."""
        async for group in self.row_groups():
            for row in group:
                yield row

    def row_groups(
        self, timeout_seconds: float | None = None
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """Iterate over typed records as lists of tuples, each list of one producer."""
        return self._read_round_robin(GroupReader, timeout_seconds)

    def payloads(self, timeout_seconds: float | None = None) -> AsyncIterator[memoryview]:
        """Iterate over the payloads of a fan-in of block rings; see `StrandView.payloads`."""
        return self._read_round_robin(PayloadReader, timeout_seconds)

    def batches(
        self, *, copy: bool = True, timeout_seconds: float | None = None
    ) -> AsyncIterator[pa.RecordBatch]:
        """Iterate over Arrow batches, each of one producer; see `StrandView.batches`."""
        return self._read_round_robin(partial(batch_reader, copy=copy), timeout_seconds)

    def close(self) -> None:
        """Release the role in every member."""
        self.view.close()

    async def _read_round_robin(
        self, make: Callable[[StrandView], Reader[T]], timeout_seconds: float | None
    ) -> AsyncIterator[T]:
        view = self.view
        readers = [make(member) for member in view.members]
        positions = [member.window_start for member in view.members]
        while not view.ended:
            for item in view._sweep(readers, positions):  # noqa: SLF001
                yield item
            await asyncio.sleep(0)
            deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
            while (bell := view._arm(positions, readers)) is not None:  # noqa: SLF001
                seconds = NAP_NANOSECONDS / 1e9
                if deadline is not None and (seconds := deadline - time.monotonic()) <= 0:
                    raise DeadlineExceeded("waiting for the next record", timeout_seconds)
                await nap(view.doorbell, bell, seconds)
        view._raise_failures()  # noqa: SLF001


async def _read(reader: Reader[T], timeout_seconds: float | None) -> AsyncIterator[T]:
    view = reader.view
    view._follow_reset()  # noqa: SLF001
    seq = view.window_start
    while await _has_record(reader, seq, timeout_seconds):
        stop = view.committed_count
        for item in reader.read_range(seq, stop):
            yield item
        seq = stop


async def _has_record(reader: Reader[Any], seq: int, timeout_seconds: float | None) -> bool:
    """Wait for record `seq`; False at the end of the stream. Always yields to other tasks."""
    view = reader.view
    await asyncio.sleep(0)
    view._check_stream(seq)  # noqa: SLF001
    if view.committed_count > seq:
        return True
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        seconds = NAP_NANOSECONDS / 1e9
        if deadline is not None:
            seconds = max(0.0, min(seconds, deadline - time.monotonic()))
        reader.acknowledge_released()
        if await wait_for_commit(view, seq, seconds) > seq:
            return True
        if view._status() == layout.EOS:  # noqa: SLF001
            return view.committed_count > seq
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExceeded("waiting for the next record", timeout_seconds)


class AsyncWriter:
    """A writer for one event loop: waits for room without blocking it.

    A call writes immediately when there is room. Calls of several tasks are serialized. After a
    cancelled call, `committed_count` says what was written: a single record or payload not at all,
    a batch up to some record. As a context manager it finalizes the stream at the end and aborts
    it on an exception.
    """

    def __init__(self, writer: StrandWriter) -> None:
        """Write with `writer`, which this object owns and closes."""
        self.writer = writer
        self._write_lock = asyncio.Lock()

    @property
    def committed_count(self) -> int:
        """Records published so far."""
        return self.writer.committed_count

    async def write(self, record: Any) -> None:
        """Publish one typed record; see `StrandWriter.write`."""
        async with self._write_lock:
            await self._attempt(partial(self.writer.write, record))

    async def write_bytes(self, payload: Any) -> None:
        """Publish one payload of a block ring; see `StrandWriter.write_bytes`."""
        async with self._write_lock:
            await self._attempt(partial(self.writer.write_bytes, payload))

    async def write_record_batch(self, records: Sequence[Any]) -> int:
        """Publish typed records; return how many. See `StrandWriter.write_record_batch`."""
        rest = list(records)
        return await self._write_parts(
            lambda done: self.writer.write_record_batch(rest[done:] if done else rest)
        )

    async def write_columns(
        self,
        columns: Mapping[str, Any] | np.ndarray[Any, Any],
        nulls: Mapping[str, Any] | None = None,
    ) -> int:
        """Publish typed records from columns; see `StrandWriter.write_columns`."""
        return await self._write_parts(
            lambda done: self.writer.write_columns(
                _skip(columns, done), None if nulls is None else _skip(nulls, done)
            )
        )

    async def write_arrow(self, batch: pa.RecordBatch) -> None:
        """Publish an Arrow batch; see `StrandWriter.write_arrow`."""
        writer = self.writer
        if not writer.map.is_blocks:
            await self._write_parts(lambda done: writer.write_arrow(batch.slice(done)))
            return
        async with self._write_lock:
            if writer._arrow is None:  # noqa: SLF001 - of one package
                await self._attempt(partial(writer._start_arrow, batch))  # noqa: SLF001
            for piece, size in writer._slice_arrow(batch):  # noqa: SLF001
                await self._attempt(partial(writer._write_piece, piece, size))  # noqa: SLF001

    def finalize(self) -> None:
        """End the stream; consumers read the remaining records and then its end."""
        self.writer.finalize()

    def abort(self, message: str = "") -> None:
        """End the stream with an error that carries `message` to consumers."""
        self.writer.abort(message)

    def close(self) -> None:
        """Release the role; a stream that was not finalized is aborted."""
        self.writer.close()

    async def __aenter__(self) -> Self:
        self.writer.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.__exit__(kind, error, trace)

    async def _write_parts(self, write: Callable[[int], Any]) -> int:
        """Call `write(done)` and retry after waits; `done` is the number of records published."""
        async with self._write_lock:
            before = self.writer.committed_count
            await self._attempt(lambda: write(self.writer.committed_count - before))
            return self.writer.committed_count - before

    async def _attempt(self, write: Callable[[], T]) -> T:
        """Call `write`; when there is no room, wait and call it again."""
        writer = self.writer
        while True:
            writer._may_wait = False  # noqa: SLF001
            try:
                return write()
            except NoRoom as short:
                threshold = short.threshold
            finally:
                writer._may_wait = True  # noqa: SLF001
            await _wait_for_room(writer, threshold)


async def _wait_for_room(writer: StrandWriter, threshold: int) -> None:
    """Sleep one nap for `threshold` acknowledged records; raise if no consumer will read them."""
    bell = writer._arm(threshold)  # noqa: SLF001
    try:
        if writer._wait(threshold, 0, 0):  # noqa: SLF001
            return
        seconds = writer._seconds_left(threshold)  # noqa: SLF001
        writer._check_readers(threshold)  # noqa: SLF001
        seconds = min(seconds, NAP_NANOSECONDS / 1e9)
        if not await nap(writer._bell, bell, seconds):  # noqa: SLF001
            writer._free_dead_consumers()  # noqa: SLF001
            writer._check_readers(threshold)  # noqa: SLF001
    except BaseException:
        writer._disarm()  # noqa: SLF001 - the wait was cancelled
        raise


def _skip(columns: Any, count: int) -> Any:
    """Return the columns without their first rows."""
    if count == 0:
        return columns
    if isinstance(columns, Mapping):
        return {name: values[count:] for name, values in columns.items()}
    return columns[count:]
