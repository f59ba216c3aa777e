"""Rings: making one, attaching to one, and taking its roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sennit_core.errors import UsageError
from strand import _native, layout
from strand.closing import Mapped
from strand.header import StrandMap, compute_map, init_header, read_header
from strand.owners import forget_in_child, identify, require_platform
from strand.plain import require_extension
from strand.rows import compile_layout
from strand.schema import StrandSchema
from strand.segment import BufferSegment, Segment, create_segment, open_segment
from strand.stats import RingStats
from strand.view import Start, StrandView
from strand.writer import StrandWriter, WhenUnread

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Ring", "attach_ring", "open_ring"]

Status = Literal["initializing", "streaming", "eos", "error"]
STATUSES: tuple[Status, ...] = ("initializing", "streaming", "eos", "error")

NativeMap = tuple[Any, _native.Layout, int, int, Any]


class Ring(Mapped):
    """A mapped ring. Take a role with `producer()` or `consumer()`; close it when done.

    It may be handed to a process that multiprocessing starts, by fork, spawn or forkserver: roles
    stay here, the other process takes its own.
    """

    def __init__(self, segment: Segment, map: StrandMap, doorbell: Any = None) -> None:  # noqa: A002
        """Use `open_ring` or `attach_ring`."""
        self.map = map
        self.segment = segment
        self.doorbell = doorbell
        self._roles: list[StrandWriter | StrandView] = []
        forget_in_child(self)

    @property
    def schema(self) -> StrandSchema:
        """The record schema."""
        return self.map.schema

    @property
    def name(self) -> str | None:
        """The file in /dev/shm, when this process made a named ring."""
        return None if self.segment.path is None else str(self.segment.path)

    @property
    def status(self) -> Status:
        """Where the stream is: initializing, streaming, eos or error."""
        word, _ = layout.read_status(self.memory)
        return STATUSES[word] if word < len(STATUSES) else "error"

    @property
    def memory(self) -> Any:
        """The mapped segment, an object with the buffer protocol."""
        return self.segment.memory

    def producer(
        self,
        *,
        when_unread: WhenUnread = "raise",
        resume: bool = False,
        timeout_seconds: float | None = None,
    ) -> StrandWriter:
        """Become the ring's one producer. Leaving its `with` finalizes; an exception aborts.

        Args:
            when_unread: what to do when the ring is full and every consumer has left or died:
                raise ConsumerDied, wait for another one, or discard what nobody reads.
            resume: go on where a producer that died stopped.
            timeout_seconds: how long a write waits for room while consumers give nothing back,
                then it raises DeadlineExceeded; None waits as long as it takes.

        Raises:
            RoleTaken: another producer lives.
            ProducerDied: the producer of this stream died; open a new ring, or resume.
            Closed: the stream has ended already.
        """
        writer = StrandWriter(
            self, when_unread=when_unread, resume=resume, timeout_seconds=timeout_seconds
        )
        self._roles.append(writer)
        writer.begin()
        return writer

    def consumer(
        self, start: Start = "oldest", *, categories: Sequence[str] | None = None
    ) -> StrandView:
        """Become a consumer of the ring, one of eight at most; each reads every record.

        Args:
            start: at the oldest record that not every consumer gave back, or at the next to come.
            categories: the strings that `utf8_ref` handles stand for; those of the ring's metadata
                by default.

        Raises:
            RoleTaken: there are eight consumers.
        """
        view = StrandView(self, categories, start)
        self._roles.append(view)
        return view

    def signal_abort(self) -> None:
        """Ask the producer to stop, from any process that has the ring; wakes everybody."""
        require_extension(self)
        _native.signal_abort(*self.native_map())

    def stats(self) -> RingStats:
        """Return the ring's counters: records, occupancy, stalls, wakes."""
        return RingStats.of(self)

    def close(self) -> None:
        """Give up the roles taken here, unmap, and unlink a named ring this process made.

        A producer that has not finalized aborts its stream.
        """
        roles, self._roles = self._roles, []
        for role in roles:
            role.close()
        self.segment.close()

    def _attacher(self) -> Callable[[int], Any]:
        return attach_ring

    # ---- for roles --------------------------------------------------------------------------

    def native_map(self, categories: Sequence[str] | None = None) -> NativeMap:
        """Return how the C core maps this ring."""
        compiled = compile_layout(self.map, categories)
        return self.memory, compiled, self.map.records, self.map.heap_bytes, self.doorbell

    def mark_left(self, index: int) -> None:
        """Mark a dead consumer's entry as left; the caller holds its lock."""
        _native.mark_left(self.native_map(), index)

    def mark_left_if_dead(self, index: int) -> bool:
        """Free the entry of a consumer whose process is gone; whether it was."""
        lock = self.segment.lock(layout.consumer_entry_at(index))
        try:
            if not lock.try_acquire():
                return False
            dead = layout.read_consumer(self.memory, index).state == layout.STATE_ATTACHED
            if dead:
                self.mark_left(index)
            return dead
        finally:
            lock.release()

    def _forget_in_child(self) -> None:
        self._roles = []
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
    """Make a ring.

    Args:
        schema: the record schema, or `BLOCKS` for payloads and Arrow batches.
        records: slots, a power of two.
        heap: bytes for strings, arrays and payloads, a power of two (`"16MiB"`); one record may
            take half of it.
        name: None for anonymous memory handed on by descriptor; else a file in /dev/shm that is
            unlinked when this ring is closed.
        version: layout version: 6 here, 5 to share bytes with a browser.
        metadata: JSON keys of your own, readable by whoever attaches; `"intern"` is the list of
            strings that `utf8_ref` fields refer to.
        query: what the stream answers, any JSON value, for whoever attaches.
        estimated_records: how many records will come, so that a reader can show progress.
        prefault: map every page now, so that no write pays for its first touch.
        buffer: writable memory of your own (an mmap, a bytearray, SharedMemory.buf) to lie in.

    Raises:
        UsageError: parameters that make no ring.
        Conflict: there is a ring of that name.
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
        raise UsageError("a ring lies in a buffer of your own or has a name, not both")
    segment = create_segment(made, name) if buffer is None else _use_buffer(buffer, made)
    if prefault:
        segment.prefault()
    return Ring(segment, made)


def attach_ring(
    fd: int | None = None, *, name: str | None = None, buffer: Buffer | None = None
) -> Ring:
    """Map a ring that somebody else made.

    Args:
        fd: its descriptor, which stays open and yours.
        name: its name, for a named ring.
        buffer: the memory it lies in.

    Raises:
        StrandHeaderError: the subclass that names what is wrong with the segment.
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
