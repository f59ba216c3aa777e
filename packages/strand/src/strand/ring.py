"""Create rings, attach to them, and acquire their roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sennit_core.errors import UsageError
from strand.consumer import Start
from strand.header import StrandMap, compute_map, init_header, read_header
from strand.mapping import RingMapping
from strand.owners import forget_in_child, identify, require_platform
from strand.plain import require_extension
from strand.producer import WhenUnread
from strand.schema import StrandSchema
from strand.segment import BufferSegment, Segment, create_segment, open_segment
from strand.stats import RingStats
from strand.view import StrandView
from strand.writer import StrandWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Ring", "attach_ring", "open_ring"]


class Ring(RingMapping):
    """A mapped ring. Acquire a role with `producer()` or `consumer()`; close the ring when done.

    A ring can be passed to a process that multiprocessing starts, by fork, spawn or forkserver. Its
    roles stay with this process; the other process acquires its own.
    """

    def __init__(self, segment: Segment, map: StrandMap, doorbell: Any = None) -> None:  # noqa: A002
        """Use `open_ring` or `attach_ring`."""
        super().__init__(segment, map, doorbell)
        # Roles acquired through this object, which `close` closes; never those of another process.
        self._roles: list[StrandWriter | StrandView] = []
        forget_in_child(self)

    @property
    def schema(self) -> StrandSchema:
        """The record schema."""
        return self.map.schema

    @property
    def name(self) -> str | None:
        """The file in /dev/shm of a named ring that this process created, else None."""
        return None if self.segment.path is None else str(self.segment.path)

    def producer(
        self,
        *,
        when_unread: WhenUnread = "raise",
        resume: bool = False,
        timeout_seconds: float | None = None,
    ) -> StrandWriter:
        """Become the ring's only producer. Leaving its `with` finalizes; an exception aborts.

        Args:
            when_unread: what to do when the ring is full and every consumer has left or died:
                raise ConsumerDied, wait for a new consumer, or discard the unread records.
            resume: continue the stream of a producer that died.
            timeout_seconds: how long a write waits for room while no record is acknowledged, before
                it raises DeadlineExceeded; None: no limit.

        Raises:
            RoleTaken: the ring has a live producer.
            ProducerDied: the producer of this stream died; open a new ring, or resume.
            Closed: the stream has ended already.
        """
        writer = StrandWriter(
            self, when_unread=when_unread, resume=resume, timeout_seconds=timeout_seconds
        )
        self._roles.append(writer)
        writer.begin()  # consumers see a stream before its first record
        return writer

    def consumer(
        self, start: Start = "oldest", *, categories: Sequence[str] | None = None
    ) -> StrandView:
        """Become a consumer of the ring, one of at most eight; each reads every record.

        Args:
            start: the oldest record that some consumer has not acknowledged, or the next one to be
                published.
            categories: the strings that `utf8_ref` handles refer to; by default those of the ring's
                metadata.

        Raises:
            RoleTaken: there are eight consumers.
        """
        view = StrandView(self, categories, start)
        self._roles.append(view)
        return view

    def signal_abort(self) -> None:
        """Ask the producer to stop, from any process attached to the ring; rings every bell."""
        require_extension(self)
        super().signal_abort()

    def stats(self) -> RingStats:
        """Return the ring's counters: records, occupancy, stalls, wakes."""
        return RingStats.read(self.memory, self.map.records)

    def close(self) -> None:
        """Release the roles acquired here, unmap, and unlink a named ring that this process created.

        A producer that has not finalized aborts its stream.
        """
        roles, self._roles = self._roles, []
        # before the segment: roles write their last words to the memory and release their locks
        for role in roles:
            role.close()
        self.segment.close()

    def _attacher(self) -> Callable[[int], Any]:
        return attach_ring

    def _forget_in_child(self) -> None:
        self._roles = []  # each of them forgets its own locks
        self.segment.forget_in_child()


def open_ring(  # noqa: PLR0913 - a ring has these parameters
    schema: StrandSchema,
    records: int = 65536,
    heap: str | int = "16MiB",
    name: str | None = None,
    version: int = 6,
    *,
    metadata: Mapping[str, Any] | None = None,
    query: Any = None,
    estimated_records: int | None = None,
    prefault: bool = False,
    buffer: Buffer | None = None,
) -> Ring:
    """Create a ring.

    Args:
        schema: the record schema, or `BLOCKS` for payloads and Arrow batches.
        records: slots, a power of two.
        heap: bytes for strings, arrays and payloads, a power of two (`"16MiB"`); one record may
            use half of it.
        name: None for anonymous memory, shared by descriptor; else a file in /dev/shm that is
            unlinked when this ring is closed.
        version: layout version: 6 by default, 5 for readers of the public v5 format.
        metadata: JSON keys of your own, readable by every attached process; `"intern"` is the list
            of strings that `utf8_ref` fields refer to.
        query: the query that the stream is the result of: any JSON value, for attached processes.
        estimated_records: how many records are expected, so that a consumer can report progress.
        prefault: map every page now, so that no write causes a page fault.
        buffer: writable memory of your own (an mmap, a bytearray, SharedMemory.buf) for the ring.

    Raises:
        UsageError: parameters that make no ring.
        Conflict: a ring of that name exists.
        StorageFull: no room in shared memory.
        Unsupported: not on Linux.
    """
    require_platform()
    made = compute_map(
        schema,
        records,
        heap,
        version=version,
        query=query,
        estimated_records=estimated_records,
        metadata=metadata,
    )
    if buffer is not None and name is not None:
        raise UsageError("pass a buffer or a name for the ring, not both")
    segment = create_segment(made, name) if buffer is None else _use_buffer(buffer, made)
    if prefault:
        segment.prefault()
    return Ring(segment, made)


def attach_ring(
    fd: int | None = None, *, name: str | None = None, buffer: Buffer | None = None
) -> Ring:
    """Map an existing ring.

    Args:
        fd: its descriptor; the caller keeps it open and closes it.
        name: its name, for a named ring.
        buffer: the memory that contains it.

    Raises:
        StrandHeaderError: the segment's header is invalid; the subclass says how.
        NotFound: no ring of that name.
    """
    if sum(how is not None for how in (fd, name, buffer)) != 1:
        raise UsageError("attach to a ring by descriptor, by name or in a buffer: one of the three")
    require_platform()
    segment = open_segment(fd, name) if buffer is None else BufferSegment(buffer)
    try:
        made = read_header(segment.memory, segment.size)
    except BaseException:
        segment.close()
        raise
    return Ring(segment, made)


def _use_buffer(buffer: Buffer, made: StrandMap) -> BufferSegment:
    segment = BufferSegment(buffer)
    try:
        init_header(segment.memory, made, identify())
    except BaseException:
        segment.close()
        raise
    return segment
