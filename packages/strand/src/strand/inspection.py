"""Looking at rings from outside, and removing those that nobody holds any more."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sennit_core.errors import NotFound, SennitError
from strand.errors import StrandHeaderError
from strand.header import StrandMap, has_extension, read_header
from strand.layout import (
    CONSUMER_COUNT,
    EXTENSION_AT,
    PRODUCER_AT,
    SLEEP_AT,
    consumer_entry_at,
    read_reason,
)
from strand.owners import RoleLock, identify, is_held
from strand.ring import STATUSES
from strand.segment import FOLDER, PREFIX, Segment, borrowed_segment

__all__ = ["Owner", "RingFacts", "cleanup", "inspect_ring", "list_rings"]


@dataclass(frozen=True)
class Owner:
    """A role and its process: `vacant`, `alive`, `left`, or `dead`."""

    role: str
    pid: int
    state: str


@dataclass(frozen=True)
class RingFacts:
    """What a ring's segment says at one moment; the counters are not read together."""

    path: str
    version: int
    fields: list[dict[str, Any]]
    metadata: dict[str, Any]
    records: int
    stride: int
    heap_bytes: int
    total_bytes: int
    status: str
    reason: str
    aborted: bool
    counters: dict[str, int]
    owners: list[Owner]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def inspect_ring(path: Path) -> RingFacts:
    """Read the header, counters and owners of the ring at `path`.

    Raises:
        NotFound: no such file.
        StrandHeaderError: not a ring, or a damaged one.
    """
    with borrowed_segment(path) as segment, memoryview(segment.memory) as memory:
        header = read_header(memory, segment.size)
        extended = has_extension(memory)
        status, aborted = _status(memory, extended)
        return RingFacts(
            path=str(path),
            version=header.version,
            fields=_describe_fields(header),
            metadata=dict(header.metadata),
            records=header.records,
            stride=header.slots.stride,
            heap_bytes=header.heap_bytes,
            total_bytes=header.total_bytes,
            status=STATUSES[status] if status < len(STATUSES) else "error",
            reason=read_reason(memory) if extended else "",
            aborted=aborted,
            counters=_counters(memory, extended),
            owners=list(_owners(segment, memory)) if extended else [],
        )


def list_rings(prefix: str = "") -> Iterator[RingFacts | tuple[str, StrandHeaderError]]:
    """Yield the facts of this user's named rings, or the path and what is wrong with it."""
    for path in _paths(prefix):
        try:
            yield inspect_ring(path)
        except StrandHeaderError as error:
            yield str(path), error
        except NotFound:
            continue  # closed meanwhile


def cleanup(prefix: str = "", *, dry_run: bool = False) -> list[str]:
    """Unlink this user's named rings whose creator and roles are all gone; return their paths.

    Args:
        prefix: only rings whose name starts so.
        dry_run: only tell.
    """
    removed = []
    for path in _paths(prefix):
        try:
            with borrowed_segment(path) as segment:
                if _abandon(segment, path, dry_run=dry_run):
                    removed.append(str(path))
        except (SennitError, FileNotFoundError):
            continue  # gone meanwhile, or nothing that was ever mapped
    return removed


def _abandon(segment: Segment, path: Path, *, dry_run: bool) -> bool:
    """Unlink while holding the creator's lock, so that a ring being made is not pulled away."""
    creator = RoleLock(segment.fd, EXTENSION_AT)
    try:
        if not creator.try_acquire():
            return False
        roles = (PRODUCER_AT, *map(consumer_entry_at, range(CONSUMER_COUNT)))
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


def _status(memory: memoryview, extended: bool) -> tuple[int, bool]:
    if extended:
        status, aborted = struct.unpack_from("<II", memory, SLEEP_AT + 8)
    else:
        status, aborted = struct.unpack_from("<i8xi", memory, 40)
    return status, aborted != 0


def _counters(memory: memoryview, extended: bool) -> dict[str, int]:
    if extended:
        names = ("write", "commit", "heap_write", "heap_commit")
        counters = dict(zip(names, struct.unpack_from("<4Q", memory, PRODUCER_AT), strict=True))
        counters["read"] = struct.unpack_from("<Q", memory, consumer_entry_at(0))[0]
        return counters
    write, commit, read, _, heap_write, heap_commit = struct.unpack_from("<3iiII", memory, 28)
    return {
        "write": write,
        "commit": commit,
        "heap_write": heap_write,
        "heap_commit": heap_commit,
        "read": read,
    }


def _owners(segment: Segment, memory: memoryview) -> Iterator[Owner]:
    pid, start_ticks = struct.unpack_from("<IQ", memory, EXTENSION_AT + 4)
    yield Owner("creator", pid, _life(segment, EXTENSION_AT, pid, start_ticks))
    pid, start_ticks = struct.unpack_from("<I4xQ", memory, PRODUCER_AT + 32)
    yield Owner("producer", pid, _life(segment, PRODUCER_AT, pid, start_ticks))
    entry = consumer_entry_at(0)
    pid, state, start_ticks = struct.unpack_from("<IIQ", memory, entry + 16)
    life = "left" if state == 2 else _life(segment, entry, pid, start_ticks)
    yield Owner("consumer", pid, life)


def _life(segment: Segment, at: int, pid: int, start_ticks: int) -> str:
    if pid == 0:
        return "vacant"
    if is_held(segment.fd, at):
        return "alive"
    return "left" if identify(pid).start_ticks == start_ticks else "dead"


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
