"""Resume event streams: find the events that a reconnecting client missed, in the store's oplog.

An id is `position.term.time` of a write. After a promotion, a restore or a loss another write may be
at that position, with another term or time: then the client cannot resume and gets a fresh value. An
id without a time is compared by its term alone, 1 if it has none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from elkyn.errors import PositionGone
from elkyn.storage.log_rows import time_in
from elkyn.storage.oplog import Entry
from elkyn.tree.events import Changes, Event
from elkyn.tree.paths import Path, format_path
from elkyn.tree.values import get_at

if TYPE_CHECKING:
    from elkyn.storage.terms import Terms
    from elkyn.store import ElkynStore

__all__ = [
    "ResumePoint",
    "id_of",
    "mark_of",
    "missed_events",
    "parse_id",
    "same_history",
    "time_at",
    "try_missed",
]

# MessagePack [term, time_ms, …]: an array header and two integers of at most 9 bytes each.
_START_BYTES = 32  # of a row; they include its term and time
_ID = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20})(?:\.([0-9]{1,20}))?)?", re.ASCII)
_ENTRIES_MAX = 1000  # replayed at most; over more a client gets a fresh value


class ResumePoint(NamedTuple):
    """The last event that a client has seen; `time_ms` is None when its id has no time."""

    position: int
    term: int = 1
    time_ms: int | None = None


def id_of(terms: Terms, position: int, time_ms: int) -> str:
    """Return the id of the events of a write; `time_ms` is 0 when no client can resume from it."""
    if not position:
        return "0"
    # Most stores have never been promoted: then the term is 1, and nothing is looked up.
    term = terms.term_at(position) if len(terms.leads) > 1 else 1
    return f"{position}.{term}.{time_ms}"


def parse_id(text: str) -> ResumePoint | None:
    """Parse an id; None when it is not in the format of ids."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    position, term, time_ms = found.groups()
    return ResumePoint(int(position), int(term or 1), None if time_ms is None else int(time_ms))


def time_at(row: bytes | None) -> int:
    """Return the time in a row of the log, for its id; 0 when the row was trimmed."""
    return 0 if row is None else time_in(row)


def mark_of(position: int, row: bytes | None) -> str:
    """Return a mark of the row at a position, which differs from another store's row there."""
    if row is None:
        return ""
    # Of the start only: a row may have megabytes, and term and time distinguish two histories.
    start = hashlib.blake2b(row[:_START_BYTES], digest_size=6)
    return f"{position}:{start.hexdigest()}"


def same_history(store: ElkynStore, mark: str) -> bool:
    """Whether a store has the row of a mark, or one with the same mark."""
    position = mark.partition(":")[0]
    if not (position.isdecimal() and position.isascii() and len(position) < 20):
        return False
    return mark_of(int(position), store.oplog.row(int(position))) == mark


def try_missed(store: ElkynStore, path: Path, seen: ResumePoint, until: int) -> list[Event] | None:
    """Return the events at `path` between two positions; None when a fresh value is needed.

    A fresh value is needed when the log does not reach back to `seen` or has another write there,
    when more than `_ENTRIES_MAX` entries follow, and when ephemeral values, which the log does not
    hold, have changed since.
    """
    after = seen.position
    # The position is of another leader's history: a different write may be there.
    if store.admin.terms.term_at(after) != seen.term:
        return None
    # Ahead of the snapshot, so of another store; or ephemeral values have changed since, of which
    # the log has no entry.
    if after > until or after <= store.admin.ephemeral_position:
        return None
    # Catches a store that was restored or emptied: same position and term, another write.
    if seen.time_ms is not None and time_at(store.oplog.row(after)) != (seen.time_ms or None):
        return None
    try:
        # May read past `until`, as it is a later transaction; those entries are cut off below.
        entries = store.oplog.read(after, _ENTRIES_MAX)
    except PositionGone:
        return None
    reached = entries[-1].position if entries else after
    if reached < until:
        return None
    return list(missed_events((e for e in entries if e.position <= until), path))


def missed_events(entries: Iterable[Entry], path: Path) -> Iterator[Event]:
    """Yield the events of `entries` at `path`; a write that sets an equal value counts too."""
    for entry in entries:
        if entry.kind in ("put", "patch"):
            event = _event_of(entry, path)
            if event is not None:
                yield event


def _event_of(entry: Entry, path: Path) -> Event | None:
    depth = len(path)
    inside = []
    for place, value in entry.places:
        # The write replaced `path` or an ancestor: the client gets its whole new value. No other
        # place of the entry can be below, because the places of a write never contain each other.
        if path[: len(place)] == place:
            whole = ((), get_at(value, path[len(place) :]))
            return _event(entry, "put", "/", (whole,))
        if place[:depth] == path:
            inside.append((place[depth:], value))
    if not inside:
        return None
    if len(inside) == 1:
        where = format_path(inside[0][0])
        return _event(entry, "put", where, tuple(inside))
    return _event(entry, "patch", "/", tuple(inside))


def _event(entry: Entry, kind: Literal["put", "patch"], path: str, changes: Changes) -> Event:
    return Event(kind, path, position=entry.position, time_ms=entry.time_ms, changes=changes)
