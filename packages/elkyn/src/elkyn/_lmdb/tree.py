"""The tree in rows: adaptive, so that a record is one row and a million children are a million.

A subtree whose MessagePack is at most `SPLIT_BYTES` is one packed row. A larger map is a branch: a
node id, under which every child has a row of its own, by the same rule; its priority is the row of
a child `.priority`. Scalars are always packed.
"""

from __future__ import annotations

from collections.abc import Iterator

from elkyn._lmdb import rows
from elkyn._lmdb.environment import Environment, Txn
from elkyn._lmdb.oplog import LogRows
from elkyn.paths import PRIORITY, Path, sorted_map
from elkyn.reading import MAP, peek_of
from elkyn.values import Stored, get_at, is_leaf, keys_of, set_at

__all__ = ["DATABASES", "ReadLimit", "Tree"]

DATABASES = ("tree", "meta", "settings")

SPLIT_BYTES = 1800
"""Rows this small stay inside LMDB's 4 KiB pages; larger values take overflow pages of their own."""

_NEXT_NODE = b"next-node"


class ReadLimit(Exception):
    """A read touched more rows than it was allowed to."""


class Tree:
    """The tree as one transaction sees it.

    Args:
        env: where the databases are.
        txn: a read or the write transaction of `env`.
        rows_max: how many rows one `get` may touch before it raises `ReadLimit`.
    """

    __slots__ = ("_budget", "_meta", "_rows", "_rows_max", "_txn", "env")

    def __init__(self, env: Environment, txn: Txn, rows_max: int | None = None) -> None:
        self.env = env
        self._txn = txn
        self._rows = env.databases["tree"]
        self._meta = env.databases["meta"]
        self._rows_max = rows_max
        self._budget = 0

    @property
    def log(self) -> LogRows:
        """The log in the same transaction."""
        return LogRows(self.env, self._txn)

    def get(self, path: Path) -> Stored:
        """Return the stored form of what is at `path`, None when nothing is."""
        self._budget = 0
        row_key = rows.ROOT_ROW
        for depth in range(len(path) + 1):
            data = self._txn.get(row_key, db=self._rows)
            if data is None:
                return None
            row = rows.unpack(data)
            if row.packed is not None:
                return get_at(rows.unpack_value(row.packed), path[depth:])
            if depth < len(path):
                row_key = rows.child_row(row.branch, path[depth])
        return self._read_branch(row.branch)

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the children of `path` in order; None when it is not a map."""
        row_key = rows.ROOT_ROW
        for depth in range(len(path) + 1):
            data = self._txn.get(row_key, db=self._rows)
            if data is None:
                return None
            row = rows.unpack(data)
            if row.packed is not None:
                return keys_of(get_at(rows.unpack_value(row.packed), path[depth:]))
            if depth < len(path):
                row_key = rows.child_row(row.branch, path[depth])
        keys = {key: True for key, _row in self._children(row.branch)}
        keys.pop(PRIORITY, None)
        return list(sorted_map(keys))

    def peek(self, path: Path) -> Stored:
        """Return the scalar at `path`, `MAP` for a map (its children unread), None for nothing."""
        row_key = rows.ROOT_ROW
        for depth in range(len(path) + 1):
            data = self._txn.get(row_key, db=self._rows)
            if data is None:
                return None
            row = rows.unpack(data)
            if row.packed is not None:
                return peek_of(get_at(rows.unpack_value(row.packed), path[depth:]))
            if depth < len(path):
                row_key = rows.child_row(row.branch, path[depth])
        return MAP

    def _children(self, node: int) -> Iterator[tuple[str, rows.Row]]:
        prefix = rows.node_prefix(node)
        with self._txn.cursor(db=self._rows) as cursor:
            if not cursor.set_range(prefix):
                return
            for row_key, data in cursor:
                if row_key[:8] != prefix:
                    return
                row = rows.unpack(data)
                yield row.key or rows.key_of(row_key), row

    def _read_branch(self, node: int) -> Stored:
        value: dict[str, Stored] = {}
        long = False
        for key, row in self._children(node):
            self._budget += 1
            if self._rows_max is not None and self._budget > self._rows_max:
                raise ReadLimit
            if row.packed is not None:
                value[key] = rows.unpack_value(row.packed)
            else:
                value[key] = self._read_branch(row.branch)
            long = long or row.key is not None
        return (sorted_map(value) if long else value) or None

    def setting(self, name: str) -> bytes | None:
        """Return what is kept under `name` beside the tree."""
        found: bytes | None = self._txn.get(name.encode(), db=self.env.databases["settings"])
        return found

    def put_setting(self, name: str, value: bytes) -> None:
        """Keep `value` under `name` beside the tree."""
        self._txn.put(name.encode(), value, db=self.env.databases["settings"])

    def set(self, path: Path, value: Stored) -> None:
        """Write `value` (None deletes) at `path`; parents left without children vanish."""
        parents: list[tuple[bytes, int]] = []
        row_key, key, depth = rows.ROOT_ROW, "", 0
        data = self._txn.get(row_key, db=self._rows)
        row = None if data is None else rows.unpack(data)
        while row is not None and row.packed is None and depth < len(path):
            parents.append((row_key, row.branch))
            key = path[depth]
            row_key, depth = rows.child_row(row.branch, key), depth + 1
            data = self._txn.get(row_key, db=self._rows)
            row = None if data is None else rows.unpack(data)
        old: Stored = None
        if row is not None and row.packed is None:
            self._free(row.branch)
        elif row is not None and row.packed is not None and depth < len(path):
            old = rows.unpack_value(row.packed)
        new = set_at(old, path[depth:], value)
        if new is not None:
            self._write(row_key, key, new)
        elif row is not None:
            self._txn.delete(row_key, db=self._rows)
            self._prune(parents)

    def _write(self, row_key: bytes, key: str, value: Stored) -> None:
        packed = rows.pack(value)
        if len(packed) <= SPLIT_BYTES or is_leaf(value):
            self._txn.put(row_key, rows.pack_value(key, packed), db=self._rows)
            return
        node = self._new_node()
        self._txn.put(row_key, rows.pack_branch(key, node), db=self._rows)
        for child, inner in value.items():
            self._write(rows.child_row(node, child), child, inner)

    def _new_node(self) -> int:
        node = int.from_bytes(self._txn.get(_NEXT_NODE, db=self._meta) or b"\x01", "big")
        self._txn.put(_NEXT_NODE, (node + 1).to_bytes(8, "big"), db=self._meta)
        return node

    def _free(self, node: int) -> None:
        prefix = rows.node_prefix(node)
        below: list[int] = []
        with self._txn.cursor(db=self._rows) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key()[:8] == prefix:
                row = rows.unpack(cursor.value())
                if row.packed is None:
                    below.append(row.branch)
                found = cursor.delete()
        for inner in below:
            self._free(inner)

    def _prune(self, parents: list[tuple[bytes, int]]) -> None:
        for row_key, node in reversed(parents):
            prefix = rows.node_prefix(node)
            priority = rows.child_row(node, PRIORITY)
            with self._txn.cursor(db=self._rows) as cursor:
                found = cursor.set_range(prefix)
                if found and cursor.key() == priority:
                    found = cursor.next()
                if found and cursor.key()[:8] == prefix:
                    return
            self._txn.delete(priority, db=self._rows)
            self._txn.delete(row_key, db=self._rows)

    def scalar_above(self, path: Path) -> int | None:
        """Return at which depth strictly above `path` a scalar stands, None when none does."""
        row_key = rows.ROOT_ROW
        for depth in range(len(path)):
            data = self._txn.get(row_key, db=self._rows)
            if data is None:
                return None
            row = rows.unpack(data)
            if row.packed is not None:
                value = rows.unpack_value(row.packed)
                for level in range(depth, len(path)):
                    if value is None or is_leaf(value):
                        return None if value is None else level
                    value = value.get(path[level])
                return None
            row_key = rows.child_row(row.branch, path[depth])
        return None
