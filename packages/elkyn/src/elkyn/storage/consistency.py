"""Consistency checks of a store's index rows and log against its tree."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import ormsgpack

from elkyn.storage import index_rows
from elkyn.storage.environment import Txn
from elkyn.storage.indexes import Definition, Indexes
from elkyn.storage.log_rows import Entry, LogRows, unpack_entry
from elkyn.storage.row_tree import Tree
from elkyn.tree.paths import PRIORITY, Path, format_path

__all__ = ["index_problems", "log_problems"]

# Each compared entry reads its values from the tree.
_COMPARED_ENTRIES = 1000
_KINDS = ("put", "patch", "settings", "start")


def index_problems(tree: Tree, txn: Txn) -> Iterator[str]:
    """Compare every row of every complete index with its child, and every child with its row."""
    indexes = Indexes(tree, txn, Indexes.read(tree))
    known = {one.id: one for one in indexes.definitions.known}
    for one in indexes.definitions.kept:
        if one.state == "ready":
            yield from _definition_problems(tree, txn, indexes, one)
    db = tree.env.databases["index"]
    with txn.cursor(db=db) as cursor:
        found = cursor.first()
        while found:
            number = int.from_bytes(cursor.key()[:4], "big")
            if number not in known:
                yield f"index {number}: rows of an undeclared index"
            found = cursor.set_range((number + 1).to_bytes(4, "big"))


def _definition_problems(tree: Tree, txn: Txn, indexes: Indexes, one: Definition) -> Iterator[str]:
    db = tree.env.databases["index"]
    expected = 0
    heads: dict[bytes, Path] = {}
    for parent in indexes.parents(one):
        heads[index_rows.head(one.id, parent)] = parent
        for key, row_key, data in indexes.rows_of(one, parent):
            expected += 1
            if txn.get(row_key, db=db) != data:
                yield f"{format_path((*parent, key))}: {_named(one)} has no row for it"
    count = 0
    with txn.cursor(db=db) as cursor:
        start = one.id.to_bytes(4, "big")
        found = cursor.set_range(start)
        while found and cursor.key().startswith(start):
            count += 1
            found = cursor.next()
    if count > expected:
        yield from _strays(txn, indexes, one, heads)


def _strays(txn: Txn, indexes: Indexes, one: Definition, heads: dict[bytes, Path]) -> Iterator[str]:
    """Yield the rows that belong to no child."""
    db = indexes.database
    start = one.id.to_bytes(4, "big")
    with txn.cursor(db=db) as cursor:
        found = cursor.set_range(start)
        while found and cursor.key().startswith(start):
            row_key = bytes(cursor.key())
            parent = heads.get(row_key[: index_rows.HEAD_BYTES])
            if parent is None:
                yield f"{_named(one)}: a row for a path that does not exist ({row_key.hex()})"
            else:
                key = _key_of(row_key, cursor.value())
                if key is None or indexes.row_of(one, (*parent, key)) != row_key:
                    where = format_path(parent)
                    yield f"{where}: {_named(one)} has a row that belongs to no child ({row_key.hex()})"
            found = cursor.next()


def _key_of(row_key: bytes, data: bytes) -> str | None:
    try:
        return index_rows.parse(row_key, data).key
    except (ValueError, IndexError):
        return None


def _named(one: Definition) -> str:
    pattern = "/".join("*" if key is None else key for key in one.pattern)
    return f"the index by {'/'.join(one.index.path) or '.value'} below /{pattern}"


def log_problems(log: LogRows, tree: Tree | None) -> Iterator[str]:
    """Check every entry of the log, and compare the newest ones with `tree`, unless it is None."""
    expected: int | None = None
    term = 0
    readable = True
    for position, packed in log.raw(0):
        if expected is not None and position != expected:
            readable = False
            yield f"the log jumps from {expected - 1} to {position}"
        expected = position + 1
        try:
            entry = unpack_entry(position, packed)
        except (ValueError, TypeError, ormsgpack.MsgpackDecodeError):
            readable = False
            yield f"the log's entry {position} cannot be read"
            continue
        if entry.kind not in _KINDS:
            readable = False
            yield f"the log's entry {position} is of an unknown kind"
        if entry.term < term:
            yield f"the log's entry {position} has term {entry.term}, after one of term {term}"
        term = max(term, entry.term)
    if tree is not None and readable:
        yield from _log_against(log, tree)


def _log_against(log: LogRows, tree: Tree) -> Iterator[str]:
    """Compare the values written by the newest entries, unless overwritten, with the tree."""
    written: set[Path] = set()
    above: set[Path] = set()
    last = log.last()
    # From the newest entry back: what a later entry wrote, at, above or below the place, decides
    # there.
    for entry in reversed(list(_newest(log, last))):
        for path, stored in entry.places if entry.kind in ("put", "patch") else ():
            covered = any(path[:depth] in written for depth in range(len(path) + 1))
            own = not covered and path not in above and PRIORITY not in path
            if own and tree.get(path) != stored:
                yield f"{format_path(path)}: differs from the value that the log's entry {entry.position} wrote"
            written.add(path)
            above.update(path[:depth] for depth in range(len(path)))


def _newest(log: LogRows, last: int) -> Iterator[Entry]:
    for position, packed in islice(log.raw(max(0, last - _COMPARED_ENTRIES)), _COMPARED_ENTRIES):
        yield unpack_entry(position, packed)
