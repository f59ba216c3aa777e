"""Migrates a store of format 2 to the key order of format 3, when it is opened.

Format 2 treated integers with leading zeros as text, and sorted text by code points. A row is rewritten
when its key, or a key inside its value, is such an integer or contains a character above U+FFFF. The
migration is one transaction: a crash leaves the store unchanged. If a row has changed, indexes are
dropped and rebuilt in the background.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from elkyn.storage import rows
from elkyn.storage.ephemeral import EphemeralOverlay
from elkyn.storage.indexes import Indexes
from elkyn.storage.row_tree import Tree
from elkyn.tree.paths import as_integer, has_astral, is_canonical
from elkyn.tree.values import Stored, ordered

__all__ = ["is_moved", "move_keys", "needs_move", "order_ephemeral_rows"]

_CHUNK_ROWS = 10_000  # rows whose keys are held in memory at once


def is_moved(key: str) -> bool:
    """Whether `key` sorts differently among its siblings than in format 2."""
    number = as_integer(key) if key[0] <= "9" else None
    return has_astral(key) if number is None else not is_canonical(key)


def needs_move(tree: Tree) -> bool:
    """Whether a store of format 2 contains a moved key; reads every row."""
    # Most stores have no such key, and are then left alone: the mark rises with their next write.
    for row_key, data in tree.raw_rows(b""):
        if row_key != rows.ROOT_ROW and is_moved(_key_of(row_key, data)):
            return True
        if not rows.is_branch(data) and _holds_moved(tree.unpacked(data)):
            return True
    return False


def move_keys(tree: Tree) -> int:
    """Rewrite the moved rows of a format-2 store in the write transaction; returns their number."""
    count, start = 0, b""
    while found := list(islice(_misplaced(tree, start), _CHUNK_ROWS)):
        for row_key in found:
            _move(tree, row_key)
        # Continuing from here may meet rewritten rows, which are already in place.
        start, count = found[-1], count + len(found)
    # Index rows contain the children's keys, also those of maps that happened to be in order.
    Indexes.keep(tree, Indexes.read(tree).declared("", ()))
    return count


def order_ephemeral_rows(ephemeral: EphemeralOverlay | None) -> None:
    """Sort the maps of ephemeral values."""
    if ephemeral is None:
        return
    for path, value in ephemeral.all():
        if (again := ordered(value)) is not value:
            ephemeral.put(path, again)


def _misplaced(tree: Tree, start: bytes) -> Iterator[bytes]:
    """Yield the row keys from `start` on of rows with a wrong key or a wrongly ordered value."""
    for row_key, data in tree.raw_rows(start):
        if row_key != _place_of(row_key, data):
            yield row_key
        elif not rows.is_branch(data):
            value = tree.unpacked(data)
            if ordered(value) is not value:
                yield row_key


def _place_of(row_key: bytes, data: bytes) -> bytes:
    if row_key == rows.ROOT_ROW:
        return row_key
    return rows.child_row(row_key[: rows.node_bytes(row_key)], _key_of(row_key, data))


def _key_of(row_key: bytes, data: bytes) -> str:
    """Return the key of a row of either format."""
    return rows.unpack(data).key or rows.key_of(row_key, rows.node_bytes(row_key))


def _holds_moved(value: Stored) -> bool:
    if type(value) is not dict:
        return False
    return any(is_moved(key) or _holds_moved(child) for key, child in value.items())


def _move(tree: Tree, row_key: bytes) -> None:
    data = tree.raw_row(row_key)
    node = rows.node_in(data)
    value = None if node is not None else ordered(tree.unpacked(data))
    key = "" if row_key == rows.ROOT_ROW else _key_of(row_key, data)
    tree.replace_row(row_key, _place_of(row_key, data), key, value, node)
