"""Inspect rings without joining them, and remove abandoned ones."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sennit_core.errors import NotFound, SennitError, UsageError
from strand import layout
from strand.errors import StrandHeaderError
from strand.header import StrandMap, has_extension, read_header
from strand.mapping import STATUSES
from strand.owners import RoleLock, identify, is_held, is_word_held
from strand.segment import FOLDER, PREFIX, Segment, borrowed_segment

__all__ = ["Owner", "Reader", "RingFacts", "cleanup", "inspect_ring", "inspect_rings", "list_rings"]


@dataclass(frozen=True)
class Owner:
    """A role and the state of its process: `vacant`, `alive`, `left`, or `dead`."""

    role: str
    pid: int
    state: str


@dataclass(frozen=True)
class Reader:
    """One of the eight consumer entries: process, position, and counts."""

    index: int
    pid: int
    state: str
    read: int
    """Records it acknowledged."""
    sleeps: int
    """Times it went to sleep because there was no record to read."""
    wakes: int
    """Bells it rang because the producer waited for room."""


@dataclass(frozen=True)
class RingFacts:
    """The header and counters of a ring; the counters are not read atomically together."""

    path: str
    version: int
    fingerprint: int
    fields: list[dict[str, Any]]
    metadata: dict[str, Any]
    records: int
    stride: int
    heap_bytes: int
    total_bytes: int
    status: str
    reason: str
    aborted: bool
    generation: int
    """How often the ring was reset."""
    counters: dict[str, int]
    """Counters of the header; `read` is the low-water mark."""
    heap_unread_bytes: int | None
    """Heap bytes of unread payloads; None except for block rings."""
    owners: list[Owner]
    """Creator and producer."""
    consumers: list[Reader]
    """All eight entries; none when the ring has no extension block."""

    @property
    def unread(self) -> int:
        """Published records that some consumer has not acknowledged."""
        return max(0, self.counters["commit"] - self.counters["read"])

    @property
    def ended(self) -> bool:
        """Whether the stream has ended; only a reset begins a new one."""
        return self.status in ("eos", "error")

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-compatible values."""
        return asdict(self)


def inspect_ring(path: Path) -> RingFacts:
    """Read the header, counters and owners of the ring at `path`.

    Args:
        path: the segment's file; `FILE#3` is member 3 of a fan-in.

    Raises:
        NotFound: no such file.
        UsageError: the file is a fan-in, and `path` names no member.
        StrandHeaderError: not a ring, or a damaged one.
    """
    file, _, member = str(path).partition("#")
    found = inspect_rings(Path(file))
    if member.isdecimal() and int(member) < len(found) and found[0].path != file:
        return found[int(member)]
    if member or len(found) > 1:
        raise UsageError(
            f"{file} is a fan-in of {len(found)} rings" if len(found) > 1 else f"no ring {path}",
            hint=f"name one of them: {found[0].path} … {found[-1].path}",
        )
    return found[0]


def inspect_rings(path: Path) -> list[RingFacts]:
    """Read the ring, or all members of the fan-in, in the file at `path`.

    Raises:
        NotFound: no such file.
        StrandHeaderError: not a ring, or a damaged one.
    """
    with borrowed_segment(path) as segment:
        from strand.fanin import MAGIC, attach_fan_in

        with memoryview(segment.memory) as memory:
            if len(memory) < 4 or _word(memory, "<I", 0) != MAGIC:
                return [_inspect(str(path), segment)]
        with attach_fan_in(segment.fileno()) as fan:
            return [_inspect(f"{path}#{at}", ring.segment) for at, ring in enumerate(fan.rings)]


def _inspect(path: str, segment: Segment) -> RingFacts:
    with memoryview(segment.memory) as memory:
        header = read_header(memory, segment.size)
        extended = has_extension(memory)
        word, aborted = layout.read_status(memory) if extended else _plain_status(memory)
        status = STATUSES[word] if 0 <= word < len(STATUSES) else "error"
        counters = _counters(memory) if extended else _plain_counters(memory)
        return RingFacts(
            path=path,
            version=header.version,
            fingerprint=header.fingerprint,
            fields=_describe_fields(header),
            metadata=dict(header.metadata),
            records=header.records,
            stride=header.stride,
            heap_bytes=header.heap_bytes,
            total_bytes=header.total_bytes,
            status=status,
            reason=layout.read_reason(memory) if extended else "",
            aborted=aborted,
            generation=_word(memory, "<I", layout.GENERATION_AT) if extended else 0,
            counters=counters,
            heap_unread_bytes=_heap_unread(memory, header, counters) if extended else None,
            owners=list(_owners(segment, memory, status)) if extended else [],
            consumers=list(_readers(segment, memory)) if extended else [],
        )


def list_rings(prefix: str = "") -> Iterator[RingFacts | tuple[str, StrandHeaderError]]:
    """Yield the facts of this user's named rings; for an invalid file its path and the error."""
    for path in _paths(prefix):
        try:
            yield from inspect_rings(path)
        except StrandHeaderError as error:
            yield str(path), error
        except NotFound:
            continue  # closed meanwhile


def cleanup(prefix: str = "", *, dry_run: bool = False) -> list[str]:
    """Unlink this user's named rings that no live process created or uses; return their paths.

    Args:
        prefix: only rings whose names start with it.
        dry_run: return the paths without unlinking.
    """
    removed = []
    for path in _paths(prefix):
        try:
            with borrowed_segment(path) as segment:
                if _abandon(segment, path, dry_run=dry_run):
                    removed.append(str(path))
        except (SennitError, FileNotFoundError):
            continue  # removed meanwhile, or not a ring
    return removed


def _abandon(segment: Segment, path: Path, *, dry_run: bool) -> bool:
    """Unlink while holding the creator's lock, so that a ring being created is not removed."""
    creator = RoleLock(segment.fd, layout.EXTENSION_AT)
    try:
        if not creator.try_acquire():
            return False
        entries = map(layout.consumer_entry_at, range(layout.CONSUMER_COUNT))
        roles = (layout.PRODUCER_AT, *entries)
        if any(is_held(segment.fd, at) for at in roles):
            return False
        if not dry_run:
            path.unlink()
        return True
    finally:
        creator.release()


def _paths(prefix: str) -> Iterator[Path]:
    for path in sorted(FOLDER.glob(PREFIX + "*")):
        if not path.name.startswith(PREFIX + prefix):
            continue
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(facts.st_mode) and facts.st_uid == os.getuid():
            yield path


def _plain_status(memory: memoryview) -> tuple[int, bool]:
    status, aborted = struct.unpack_from("<i8xi", memory, 40)
    return status, aborted != 0


def _counters(memory: memoryview) -> dict[str, int]:
    names = ("write", "commit", "heap_write", "heap_commit")
    words = struct.unpack_from("<4Q", memory, layout.PRODUCER_AT)
    stalls, rings = struct.unpack_from("<QQ", memory, layout.STALLS_AT)
    entries = layout.read_consumers(memory)
    return {
        **dict(zip(names, words, strict=True)),
        "read": min(layout.low_water_of(entries), words[1]),
        "join_position": _word(memory, "<Q", layout.JOIN_POSITION_AT),
        "stalls": stalls,
        "wakes": rings + sum(entry.rings for entry in entries),
        "sleeps": sum(entry.sleeps for entry in entries),
    }


def _plain_counters(memory: memoryview) -> dict[str, int]:
    """Return the counters of a v5 ring that another implementation created."""
    write, commit, read, _, heap_write, heap_commit = struct.unpack_from("<3iiII", memory, 28)
    return {
        "write": write,
        "commit": commit,
        "heap_write": heap_write,
        "heap_commit": heap_commit,
        "read": read,
    }


def _heap_unread(memory: memoryview, header: StrandMap, counters: dict[str, int]) -> int | None:
    """Return the used heap bytes of a block ring, from the offset of its oldest unread payload."""
    if not header.is_blocks:
        return None
    if counters["read"] >= counters["commit"]:
        return 0
    slot = header.index_start + (counters["read"] & (header.records - 1)) * header.stride
    unread = counters["heap_commit"] - _word(memory, "<Q", slot)
    return min(max(0, unread), header.heap_bytes)


def _owners(segment: Segment, memory: memoryview, status: str) -> Iterator[Owner]:
    for role, at in (("creator", layout.EXTENSION_AT), ("producer", layout.PRODUCER_AT)):
        pid, start_ticks = layout.holder_of(memory, at)
        state = _life(segment, memory, at, pid, start_ticks)
        if role == "producer" and state == "dead" and status in ("eos", "error"):
            state = "left"  # the stream was ended normally before the process ended
        yield Owner(role, pid, state)


def _readers(segment: Segment, memory: memoryview) -> Iterator[Reader]:
    for entry in layout.read_consumers(memory):
        at = layout.consumer_entry_at(entry.index)
        state = "left"
        if entry.state != layout.STATE_LEFT:
            state = _life(segment, memory, at, entry.pid, entry.start_ticks)
        pid, read = entry.pid, entry.read
        yield Reader(entry.index, pid, state, read, entry.sleeps, entry.rings)


def _life(segment: Segment, memory: memoryview, at: int, pid: int, start_ticks: int) -> str:
    if pid == 0:
        return "vacant"
    if segment.is_held(at) or is_word_held(memory, at):
        return "alive"
    return "left" if identify(pid).start_ticks == start_ticks else "dead"


def _word(memory: memoryview, kind: str, at: int) -> int:
    word: int = struct.unpack_from(kind, memory, at)[0]
    return word


def _describe_fields(header: StrandMap) -> list[dict[str, Any]]:
    return [
        {
            "name": field.name,
            "type": field.type,
            "nullable": field.nullable,
            "order": field.order,
            "offset": offset,
        }
        for field, offset in zip(header.schema.fields, header.slots.offsets, strict=True)
    ]
