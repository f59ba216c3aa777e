"""Filtering of a log for partial replicas: entries cut to some subtrees, at the same positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from elkyn.storage.log_rows import Entry, pack_entry, unpack_entry
from elkyn.tree.paths import ROOT, Path, format_path, parse_path
from elkyn.tree.values import Stored, get_at
from sennit_core.errors import UsageError

__all__ = ["cut_entry", "cut_row", "parse_paths"]


def parse_paths(texts: Iterable[str]) -> tuple[Path, ...]:
    """Return the subtrees of a replica, sorted; empty means the whole tree.

    Raises:
        UsageError: one subtree is inside another.
    """
    paths = tuple(sorted({parse_path(text) for text in texts}))
    if paths == (ROOT,):
        return ()
    for above, below in pairwise(paths):
        if below[: len(above)] == above:
            both = f"{format_path(below)} is inside {format_path(above)}"
            raise UsageError(f"a replica's paths overlap: {both}", hint="list only the upper one")
    return paths


def cut_entry(entry: Entry, paths: Sequence[Path]) -> Entry:
    """Return `entry` cut to `paths`, without any place if it changes none of them."""
    if entry.kind not in ("put", "patch"):
        return entry
    places = [cut for place in entry.places for cut in _cut(place, paths)]
    if places == entry.places:
        return entry
    if len(places) == 1:
        # An entry that changes nothing here is kept without places, so that positions have no gaps.
        return entry._replace(kind="put", base=places[0][0], places=places)
    return entry._replace(kind="patch", base=ROOT, places=places)


def _cut(place: tuple[Path, Stored], paths: Sequence[Path]) -> list[tuple[Path, Stored]]:
    where, value = place
    depth = len(where)
    found: list[tuple[Path, Stored]] = []
    for path in paths:
        # The write is inside the subtree: unchanged.
        if where[: len(path)] == path:
            return [place]
        # The write is above the subtree: only the subtree's part of its value.
        if path[:depth] == where:
            found.append((path, get_at(value, path[depth:])))
    return found


def cut_row(position: int, row: bytes, paths: Sequence[Path]) -> bytes:
    """Return the log row of a replica of `paths`."""
    entry = unpack_entry(position, row)
    cut = cut_entry(entry, paths)
    if cut is entry:
        return row
    # No receipt: made of the cut places it would be another result than the write's.
    return pack_entry(cut._replace(idempotency_key=None))
