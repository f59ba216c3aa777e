"""Rings: making one, attaching to one, and taking its roles."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from sennit_core.errors import Closed, UsageError
from sennit_core.units import parse_bytes
from strand import _native
from strand.errors import ProducerDied, RoleTaken
from strand.layout import (
    PRODUCER_AT,
    SLEEP_AT,
    Header,
    check_extension,
    consumer_entry_at,
    plan_header,
    read_header,
)
from strand.owners import RoleLock, forget_in_child, identify, is_held, require_platform
from strand.schema import StrandSchema
from strand.segment import Segment, create_segment, open_segment
from strand.view import StrandView
from strand.writer import StrandWriter

__all__ = ["Ring", "attach_ring", "open_ring"]

Status = Literal["initializing", "streaming", "eos", "error"]
STATUSES: tuple[Status, ...] = ("initializing", "streaming", "eos", "error")


class Ring:
    """A mapped ring. Take a role with `producer()` or `consumer()`; close it when done."""

    def __init__(self, segment: Segment, header: Header) -> None:
        """Use `open_ring` or `attach_ring`."""
        self.header = header
        self._segment = segment
        self._roles: list[StrandWriter | StrandView] = []
        forget_in_child(self)

    @property
    def schema(self) -> StrandSchema:
        """The record schema."""
        return self.header.schema

    @property
    def name(self) -> str | None:
        """The file in /dev/shm, when this process made a named ring."""
        return None if self._segment.path is None else str(self._segment.path)

    @property
    def status(self) -> Status:
        """Where the stream is: initializing, streaming, eos or error."""
        word = struct.unpack_from("<I", self.memory, SLEEP_AT + 8)[0]
        return STATUSES[word] if word < len(STATUSES) else "error"

    @property
    def memory(self) -> Any:
        """The mapped segment (an `mmap`); for this package and for inspection."""
        if self._segment.fd < 0:
            raise Closed("the ring")
        return self._segment.memory

    def fileno(self) -> int:
        """The descriptor to hand to another process (`subprocess.Popen(pass_fds=...)`)."""
        if self._segment.fd < 0:
            raise Closed("the ring")
        return self._segment.fd

    def producer(self) -> StrandWriter:
        """Become the ring's one producer. Leaving its `with` finalizes; an exception aborts.

        Raises:
            RoleTaken: another producer lives.
            ProducerDied: the producer of this stream died; open a new ring.
            Closed: the stream has ended already.
        """
        check_extension(self._view())
        lock = self._take("producer", PRODUCER_AT, PRODUCER_AT + 32)
        try:
            pid = struct.unpack_from("<I", self.memory, PRODUCER_AT + 32)[0]
            if pid:
                ended = self.status in ("eos", "error")
                raise Closed("the ring's stream") if ended else ProducerDied(pid=pid)
            who = identify()
            struct.pack_into("<IIQ", self.memory, PRODUCER_AT + 32, who.pid, 0, who.start_ticks)
            native = _native.Producer(self.memory, *self.header.geometry)
        except BaseException:
            lock.release()
            raise
        writer = StrandWriter(self, lock, native)
        self._roles.append(writer)
        return writer

    def consumer(self, *, start: Literal["oldest", "next"] = "oldest") -> StrandView:
        """Become the ring's one consumer.

        Args:
            start: at the oldest record nobody has acknowledged, or at the next one to come.

        Raises:
            RoleTaken: another consumer lives.
        """
        if start not in ("oldest", "next"):
            raise UsageError(f'a consumer starts at "oldest" or "next", not {start!r}')
        check_extension(self._view())
        entry = consumer_entry_at(0)
        lock = self._take("consumer", entry, entry + 16)
        try:
            who = identify()
            struct.pack_into("<I", self.memory, entry + 16, who.pid)
            struct.pack_into("<Q", self.memory, entry + 24, who.start_ticks)
            native = _native.Consumer(self.memory, *self.header.geometry, 0)
        except BaseException:
            lock.release()
            raise
        view = StrandView(self, lock, native)
        if start == "next":
            view.acknowledge_read(view.committed_count)
        self._roles.append(view)
        return view

    def signal_abort(self) -> None:
        """Ask the producer to stop, from any process that has the ring; wakes everybody."""
        _native.signal_abort(self.memory, *self.header.geometry)

    def close(self) -> None:
        """Give up the roles taken here, unmap, and unlink a named ring this process made.

        A producer that has not finalized aborts its stream.
        """
        roles, self._roles = self._roles, []
        for role in roles:
            role.close()
        self._segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        segment = getattr(self, "_segment", None)
        if segment is not None and segment.fd >= 0:
            self.close()

    def _view(self) -> memoryview:
        return memoryview(self.memory)

    def _take(self, role: str, at: int, pid_at: int) -> RoleLock:
        lock = RoleLock(self.fileno(), at)
        if lock.try_acquire():
            return lock
        lock.release()
        raise RoleTaken(role, pid=struct.unpack_from("<I", self.memory, pid_at)[0])

    def _is_held(self, at: int) -> bool:
        return is_held(self._segment.fd, at)

    def _forget_in_child(self) -> None:
        self._roles = []
        if self._segment.creator_lock is not None:
            self._segment.creator_lock.forget()
            self._segment.creator_lock = None  # the parent unlinks, not we


def open_ring(
    schema: StrandSchema,
    records: int = 65536,
    heap: str | int = "16MiB",
    name: str | None = None,
    version: int = 6,
    *,
    metadata: Mapping[str, Any] | None = None,
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

    Raises:
        UsageError: parameters that make no ring.
        Conflict: there is a ring of that name.
        StorageFull: no room in shared memory.
        Unsupported: not on Linux.
    """
    require_platform()
    header = plan_header(
        schema,
        records,
        parse_bytes(heap),
        version=version,
        metadata=metadata,
        creator=identify(),
    )
    return Ring(create_segment(header, name), header)


def attach_ring(fd: int | None = None, *, name: str | None = None) -> Ring:
    """Map a ring that another process made.

    Args:
        fd: its descriptor, which stays open and yours.
        name: its name, for a named ring.

    Raises:
        HeaderError: the subclass that names what is wrong with the segment.
        NotFound: no ring of that name.
    """
    if (fd is None) == (name is None):
        raise UsageError("attach to a ring by descriptor or by name, one of the two")
    require_platform()
    segment = open_segment(fd, name)
    try:
        with memoryview(segment.memory) as view:
            header = read_header(view, os.fstat(segment.fd).st_size)
    except BaseException:
        segment.close()
        raise
    return Ring(segment, header)
