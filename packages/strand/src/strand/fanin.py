"""Fan-in: several producers, one consumer, one segment, one sleep.

The segment begins with a page of its own, followed by one complete ring for each producer, its
*member*. Producers never wait for each other. All members share one bell, so the consumer sleeps on
a single word for all producers (spec/strand-wire.md, "Fan-in segment").

    | page: header, bell | member 0: header, slots, heap | member 1: … | …
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sennit_core.errors import Closed, UsageError
from strand import _native, layout
from strand.closing import Mapped
from strand.consumer import Start
from strand.errors import (
    BadChecksum,
    BadGeometry,
    BadMagic,
    BadVersion,
    ProducerDied,
    RoleTaken,
    SegmentTooSmall,
)
from strand.fanin_joins import JoinWatch
from strand.fanin_view import FanInView
from strand.header import StrandMap, compute_map, init_header, read_header
from strand.owners import Lock, RoleLock, forget_in_child, identify, is_held, require_platform
from strand.producer import WhenUnread
from strand.ring import Ring
from strand.schema import StrandSchema, fnv1a
from strand.segment import Segment, allocate_segment, open_segment
from strand.stats import RingStats
from strand.writer import StrandWriter

__all__ = ["MEMBERS_MAX", "FanIn", "attach_fan_in", "fan_in"]

MAGIC = 0x4E414653  # "SFAN"
VERSION = 1
MEMBERS_MAX = 1024
BELL_AT = 64
_PAGE = 4096  # members start at pages: their counters are aligned, and lines are not shared
_HEADER = struct.Struct("<IIIIQ")
_CHECKSUM_AT = _HEADER.size


class FanIn(Mapped):
    """A segment of member rings. Acquire a role with `producer()` or `consumer()`; close it when done.

    A fan-in can be passed to processes that multiprocessing starts, by fork, spawn or forkserver. Its
    roles stay with this process; the other process acquires its own.
    """

    def __init__(self, segment: Segment, map: StrandMap, count: int) -> None:  # noqa: A002
        """Use `fan_in` or `attach_fan_in`."""
        self.map = map
        self.segment = segment
        self._whole = memoryview(segment.memory)
        self._doorbell = self._whole[BELL_AT : BELL_AT + 4]
        member_bytes = _member_bytes(map)
        self.rings = [
            _Member(
                MemberSegment(segment, self._whole, _PAGE + index * member_bytes, map.total_bytes),
                map,
                self._doorbell,
            )
            for index in range(count)
        ]
        self._views: list[FanInView] = []
        forget_in_child(self)

    rings: list[Ring]
    """The members."""

    @property
    def schema(self) -> StrandSchema:
        """The record schema."""
        return self.map.schema

    def producer(
        self, *, when_unread: WhenUnread = "raise", timeout_seconds: float | None = None
    ) -> StrandWriter:
        """Become the producer of the first member that has had no producer.

        Args:
            when_unread: as in `Ring.producer`.
            timeout_seconds: likewise.

        Raises:
            RoleTaken: every member has, or has had, a producer.
        """
        for ring in self.rings:
            if _producer_of(ring):  # a member carries one stream, so also one that has ended
                continue
            with suppress(RoleTaken, ProducerDied, Closed):  # another process was faster
                return ring.producer(when_unread=when_unread, timeout_seconds=timeout_seconds)
        raise RoleTaken(
            f"producer in each of its {len(self.rings)} members", pid=_producer_of(self.rings[-1])
        )

    def finalize_vacant(self) -> int:
        """End the members without a producer, so that no consumer waits for them; return how many.

        Call it when a producer's process failed before it claimed its member, or when fewer
        producers than members are needed.
        """
        ended = 0
        for ring in self.rings:
            if not _producer_of(ring):
                with suppress(RoleTaken, ProducerDied, Closed), ring.producer():
                    ended += 1
        return ended

    def consumer(
        self,
        start: Start = "oldest",
        *,
        categories: Sequence[str] | None = None,
        processes: Sequence[Any] = (),
        join_seconds: float | None = None,
    ) -> FanInView:
        """Become a consumer of every member.

        The consumer waits for members that have no producer yet. `processes` and `join_seconds` limit
        that: such a member gets an error in `failures`, which is raised when the other members have
        ended.

        Args:
            start: as in `Ring.consumer`.
            categories: likewise.
            processes: the producers' processes (`multiprocessing.Process` started here, or
                `subprocess.Popen`): one that ended without claiming a member is a ProducerDied.
            join_seconds: how long a member may stay without a producer before it is a
                DeadlineExceeded.

        Raises:
            RoleTaken: there are eight consumers.
        """
        view = FanInView(self.rings, self._doorbell, start, categories)
        if processes or join_seconds is not None:
            view.watch_joins(JoinWatch(self.rings, processes, join_seconds))
        self._views.append(view)
        return view

    def signal_abort(self) -> None:
        """Ask every producer to stop; rings every bell."""
        for ring in self.rings:
            ring.signal_abort()

    def stats(self) -> list[RingStats]:
        """Return the counters of every member."""
        return [ring.stats() for ring in self.rings]

    def close(self) -> None:
        """Release the roles acquired here, and unmap; an unfinished stream is aborted."""
        views, self._views = self._views, []
        for view in views:
            view.close()
        for ring in self.rings:
            ring.close()
        for piece in (self._doorbell, self._whole):
            with suppress(BufferError):  # a payload is still referenced, and keeps the mapping
                piece.release()
        self.segment.close()

    def _attacher(self) -> Callable[[int], Any]:
        return attach_fan_in

    def _forget_in_child(self) -> None:
        self._views = []
        self.segment.forget_in_child()


class MemberSegment(Segment):
    """The part of a fan-in's segment that belongs to one member."""

    def __init__(self, whole: Segment, memory: memoryview, at: int, size: int) -> None:
        """Use `size` bytes from `at` on of `memory`, which is all of `whole`."""
        window: Any = memory[at : at + size]
        super().__init__(-1, window)
        self._whole = whole
        self._at = at
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def lock(self, at: int) -> Lock:
        """Return the lock of the role whose byte is `at` in the member, not acquired yet."""
        # one file for all members: a role byte is where the role is in the file
        return RoleLock(self._whole.fileno(), self._at + at)

    def is_held(self, at: int) -> bool:
        """Whether a process holds the role whose byte is `at` in the member."""
        return is_held(self._whole.fileno(), self._at + at)

    @property
    def is_of_another_user(self) -> bool:
        """Whether another user owns the whole segment's memory."""
        return self._whole.is_of_another_user

    def fileno(self) -> int:
        """Raise UsageError: the descriptor belongs to the whole segment."""
        raise UsageError(
            "a member has no descriptor of its own", hint="pass the fan-in itself to the process"
        )

    def prefault(self) -> None:
        """Do nothing: the pages belong to the whole segment."""

    def close(self) -> None:
        """Release this part of the memory."""
        if not self._closed:
            self._closed = True
            view: Any = self._memory
            with suppress(BufferError):  # still leased; released with the last lease
                view.release()


class _Member(Ring):
    """A member's ring, which carries a single stream."""

    def producer(
        self,
        *,
        when_unread: WhenUnread = "raise",
        resume: bool = False,
        timeout_seconds: float | None = None,
    ) -> StrandWriter:
        """Become the member's only producer."""
        writer = _MemberWriter(
            self, when_unread=when_unread, resume=resume, timeout_seconds=timeout_seconds
        )
        self._roles.append(writer)
        writer.begin()
        return writer


class _MemberWriter(StrandWriter):
    def reset(self) -> None:
        """Raise UsageError: an ended member stays ended for the consumer."""
        raise UsageError("a member of a fan-in carries one stream", hint="create another fan-in")


def fan_in(
    count: int,
    schema: StrandSchema,
    records: int = 16384,
    heap: str | int = "4MiB",
    *,
    metadata: Mapping[str, Any] | None = None,
    prefault: bool = False,
) -> FanIn:
    """Create a fan-in for `count` producers and one consumer.

    Args:
        count: number of members, 1 to 1024; each producer claims one.
        schema: the record schema, or `BLOCKS` for payloads and Arrow batches.
        records: slots of each member, a power of two.
        heap: bytes for strings, arrays and payloads of each member, a power of two.
        metadata: as in `open_ring`.
        prefault: map every page now, so that no write causes a page fault.

    Raises:
        UsageError: parameters that make no ring.
        StorageFull: no room in shared memory.
        Unsupported: not on Linux.
    """
    require_platform()
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MEMBERS_MAX:
        raise UsageError(f"a fan-in has 1 to {MEMBERS_MAX} members, not {count!r}")
    made = compute_map(schema, records, heap, metadata=metadata)
    member_bytes = _member_bytes(made)
    segment = allocate_segment(_PAGE + count * member_bytes)
    try:
        with memoryview(segment.memory) as whole:
            for index in range(count):
                at = _PAGE + index * member_bytes
                with whole[at : at + made.total_bytes] as member:
                    init_header(member, made, identify())
            head = _HEADER.pack(MAGIC, VERSION, count, 0, member_bytes)
            whole[4:_CHECKSUM_AT] = head[4:]
            struct.pack_into("<I", whole, _CHECKSUM_AT, fnv1a(head))
            _native.store_release(
                whole, 0, MAGIC
            )  # last: a process that sees it also sees every member
        segment.seal()
        if prefault:
            segment.prefault()
    except BaseException:
        segment.close()
        raise
    return FanIn(segment, made, count)


def attach_fan_in(fd: int) -> FanIn:
    """Map an existing fan-in.

    Args:
        fd: its descriptor; the caller keeps it open and closes it.

    Raises:
        StrandHeaderError: the segment's header is invalid; the subclass says how.
    """
    require_platform()
    segment = open_segment(fd)
    try:
        count, made = _read_fan_in(segment)
    except BaseException:
        segment.close()
        raise
    return FanIn(segment, made, count)


def _read_fan_in(segment: Segment) -> tuple[int, StrandMap]:
    """Check the first page and every member's header; all members must be identical."""
    if segment.size < _PAGE:
        raise SegmentTooSmall(expected=f"{_PAGE} bytes or more", found=str(segment.size))
    head = bytes(segment.memory[:_PAGE])
    magic, version, count, _, member_bytes = _HEADER.unpack_from(head)
    if magic != MAGIC:
        raise BadMagic(what="the fan-in's header", expected=hex(MAGIC), found=hex(magic))
    if version != VERSION:
        raise BadVersion(what="the fan-in's header", expected=str(VERSION), found=str(version))
    checksum = struct.unpack_from("<I", head, _CHECKSUM_AT)[0]
    if checksum != fnv1a(head[:_CHECKSUM_AT]):
        raise BadChecksum(what="the fan-in's header", found=hex(checksum))
    needed = _PAGE + count * member_bytes
    whole_pages = member_bytes >= _PAGE and member_bytes % _PAGE == 0
    if not (1 <= count <= MEMBERS_MAX and whole_pages and needed == segment.size):
        raise BadGeometry(
            what="the fan-in's header",
            expected=f"1 to {MEMBERS_MAX} members of whole pages that fill {segment.size} bytes",
            found=f"{count} members of {member_bytes} bytes",
        )
    with memoryview(segment.memory) as whole:
        maps = []
        for at in range(_PAGE, needed, member_bytes):
            with whole[at : at + member_bytes] as member:
                maps.append(read_header(member))
    if any(other != maps[0] for other in maps) or _member_bytes(maps[0]) != member_bytes:
        raise BadGeometry(
            what="the fan-in's members",
            expected=f"{count} identical headers, {member_bytes} bytes each",
        )
    return count, maps[0]


def _member_bytes(made: StrandMap) -> int:
    return (made.total_bytes + _PAGE - 1) // _PAGE * _PAGE


def _producer_of(ring: Ring) -> int:
    """Return the pid of the member's last producer, or 0."""
    return layout.holder_of(ring.memory, layout.PRODUCER_AT)[0]
