"""The tree in adaptive rows: a small record is one row, a million children are a million rows.

A subtree whose MessagePack is at most `SPLIT_BYTES` is one packed row. A larger map is a branch: a
node, under which every child has its own row, by the same rule; its priority is the row of a child
`.priority`. Scalars are always packed. A branch whose rows have shrunk to `MERGE_BYTES` becomes a
packed row again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import dropwhile, groupby

from elkyn.storage import indexes, rows, shapes
from elkyn.storage.environment import Environment, Txn
from elkyn.storage.indexes import Indexes
from elkyn.storage.log_rows import LogRows
from elkyn.storage.receipts import Receipts
from elkyn.storage.shapes import Shapes
from elkyn.tree.large_map import LargeMap
from elkyn.tree.paths import PRIORITY, Path, order_key, sorted_map
from elkyn.tree.reader import MAP, peek_of
from elkyn.tree.values import Stored, get_at, is_leaf, keys_of, set_at

__all__ = ["DATABASES", "ReadLimit", "Tree"]

DATABASES = ("tree", "meta", "settings", *shapes.DATABASES, *indexes.DATABASES)

SPLIT_BYTES = 1800
"""Rows up to this size fit LMDB's 4 KiB pages; larger values need overflow pages of their own."""

# A third of `SPLIT_BYTES`, so that a map whose size changes around one of the limits is not
# rewritten as a branch and as a row again and again.
MERGE_BYTES = 600
# `_is_small` looks at no more rows than this, so it costs the same for every branch.
_MERGE_ROWS = 32
# Rows per call of `putmulti`: bounds the list that is held for it.
_BULK_ROWS = 1000

_NEXT_NODE = b"next-node"


class ReadLimit(Exception):
    """A read touched more rows than allowed."""


class Tree:
    """The tree in one transaction.

    Args:
        env: the environment of the databases.
        txn: a read or the write transaction of `env`.
        known: the shapes of `env`.
        rows_max: rows that one `get` may touch before it raises `ReadLimit`.
    """

    __slots__ = (
        "_branches",
        "_budget",
        "_indexes",
        "_log",
        "_meta",
        "_rows",
        "_rows_max",
        "_shapes",
        "_txn",
        "env",
    )

    def __init__(
        self, env: Environment, txn: Txn, known: Shapes, rows_max: int | None = None
    ) -> None:
        self.env = env
        self._txn = txn
        self._shapes = known
        self._rows = env.databases["tree"]
        self._meta = env.databases["meta"]
        self._rows_max = rows_max
        # Rows that the current read has touched. `get` and `walk` begin at 0.
        self._budget = 0
        self._log: LogRows | None = None
        # Valid for this transaction only: cleared when a branch is freed or moved, because its row
        # key may then hold another row. Node numbers are never reused.
        self._branches: dict[bytes, bytes] = {}  # cache: node by row key, of the branches visited
        self._indexes: Indexes | bool | None = False  # not looked up yet

    @property
    def log(self) -> LogRows:
        """The log in the same transaction."""
        if self._log is None:
            self._log = LogRows(self.env, self._txn)
        return self._log

    @property
    def receipts(self) -> Receipts:
        """The receipts of writes with idempotency keys, in the same transaction."""
        return Receipts(self.env, self._txn)

    @property
    def indexes(self) -> Indexes | None:
        """The indexes in the same transaction, None when there are none."""
        if isinstance(self._indexes, bool):
            self._indexes = Indexes.of(self, self._txn)
        return self._indexes

    def get(self, path: Path) -> Stored:
        """Return the stored form of the value at `path`, None when there is none."""
        self._budget = 0
        found = self._find(path)
        return self._read_branch(found) if type(found) is bytes else found

    def keys(self, path: Path) -> list[str] | None:
        """Return the keys of the children of `path` in order; None when it is not a map."""
        found = self._find(path)
        if type(found) is not bytes:
            return keys_of(found)
        keys = {key: True for key, _row in self._children(found)}
        keys.pop(PRIORITY, None)
        return list(sorted_map(keys))

    def peek(self, path: Path) -> Stored:
        """Return the scalar at `path`, `MAP` for a map (its children unread), None for no value."""
        found = self._find(path)
        return MAP if type(found) is bytes else peek_of(found)

    def walk(
        self,
        path: Path,
        *,
        start: str | None = None,
        reverse: bool = False,
        shallow: bool = False,
    ) -> Iterator[tuple[str, Stored]]:
        """Yield the children of `path` in order, one read at a time.

        Args:
            path: the parent; only a map has children.
            start: begin at this key, or at the next one if there is no such child; any text.
            reverse: iterate backwards.
            shallow: yield `MAP` for large children, instead of reading them.
        """
        self._budget = 0
        found = self._find(path)
        if type(found) is not bytes:
            for key in _walked(keys_of(found) or [], start, reverse):
                yield key, get_at(found, (key,))
            return
        for key, row in self._walk_rows(found, start, reverse):
            self._spend()
            if row.tag != rows.BRANCH:
                yield key, self._unpack(row)
            else:
                yield key, MAP if shallow else self._read_branch(bytes(row.payload))

    def walk_keys(self, path: Path, *, start: str | None = None) -> Iterator[str]:
        """Yield the keys of the children of `path` in order, starting at or after `start`."""
        found = self._find(path)
        if type(found) is not bytes:
            return iter(_walked(keys_of(found) or [], start, reverse=False))
        return (key for key, _row in self._walk_rows(found, start, reverse=False))

    def _walk_rows(
        self, node: bytes, start: str | None, reverse: bool
    ) -> Iterator[tuple[str, rows.Row]]:
        found = self._near_rows(node, start, reverse)
        if start is None:
            yield from found
            return
        first = order_key(start) if start else (1, 0, "")
        if reverse:
            yield from dropwhile(lambda item: order_key(item[0]) > first, found)
        else:
            yield from dropwhile(lambda item: order_key(item[0]) < first, found)

    def _near_rows(
        self, node: bytes, start: str | None, reverse: bool
    ) -> Iterator[tuple[str, rows.Row]]:
        """Yield rows in order from slightly before `start`; sorts long keys with a common prefix."""
        prefix = rows.long_prefix
        scanned = self._scan(node, start, reverse)
        # Rows of long keys with a common prefix are ordered by a hash, so such a group is sorted
        # here.
        for group, together in groupby(scanned, key=lambda item: prefix(item[0], len(node))):
            found: Iterator[tuple[str, rows.Row]] = (
                (row.key or rows.key_of(row_key, len(node)), row) for row_key, row in together
            )
            if group is not None:
                found = iter(sorted(found, key=lambda item: order_key(item[0]), reverse=reverse))
            yield from (item for item in found if item[0] != PRIORITY)

    def _scan(
        self, node: bytes, start: str | None, reverse: bool
    ) -> Iterator[tuple[bytes, rows.Row]]:
        with self._txn.cursor(db=self._rows) as cursor:
            if reverse:
                beyond = cursor.set_range(rows.row_beyond(node, start))
                found = cursor.prev() if beyond else cursor.last()
            else:
                found = cursor.set_range(rows.first_row(node, start))
            while found and cursor.key().startswith(node):
                yield cursor.key(), rows.unpack(cursor.value())
                found = cursor.prev() if reverse else cursor.next()

    def _spend(self) -> None:
        self._budget += 1
        self.allow(self._budget)

    def allow(self, count: int) -> None:
        """Raise `ReadLimit` if touching `count` rows in one read exceeds the limit."""
        if self._rows_max is not None and count > self._rows_max:
            raise ReadLimit

    def shallow(self, path: Path) -> Stored:
        """Return the stored form of the value at `path`, `MAP` for a large map."""
        found = self._find(path)
        return MAP if type(found) is bytes else found

    def _find(self, path: Path) -> Stored | bytes:
        """Return the stored form at `path`, or its node if it is a branch."""
        _row_key, data, passed = self._follow(path)
        if data is None:
            return None
        node = rows.node_in(data)
        if node is not None:
            return node
        value = self._shapes.read(data, self._txn)
        return get_at(value, path[passed:]) if passed < len(path) else value

    def _follow(self, path: Path) -> tuple[bytes, bytes | None, int]:
        """Descend branches towards `path`; return the last row key, its data, and the branches passed."""
        row_key = rows.ROOT_ROW
        for depth, key in enumerate(path):
            node = self._branches.get(row_key)
            if node is None:
                data = self._txn.get(row_key, None, self._rows)
                node = None if data is None else rows.node_in(data)
                if node is None:
                    return row_key, data, depth
                self._branches[row_key] = node
            row_key = rows.child_row(node, key)
        return row_key, self._txn.get(row_key, None, self._rows), len(path)

    def _unpack(self, row: rows.Row) -> Stored:
        return self._shapes.unpack(row.tag, row.payload, self._txn)

    def _children(self, node: bytes) -> Iterator[tuple[str, rows.Row]]:
        start = len(node)
        with self._txn.cursor(db=self._rows) as cursor:
            if not cursor.set_range(node):
                return
            for row_key, data in cursor:
                if row_key[:start] != node:
                    return
                row = rows.unpack(data)
                yield row.key or rows.key_of(row_key, start), row

    def _read_branch(self, node: bytes) -> Stored:
        value: dict[str, Stored] = {}
        long = False
        for key, row in self._children(node):
            self._spend()
            if row.tag == rows.BRANCH:
                value[key] = self._read_branch(bytes(row.payload))
            else:
                value[key] = self._unpack(row)
            long = long or row.key is not None
        # A branch that has no rows left reads as absent, as an empty map does everywhere.
        return (sorted_map(value) if long else value) or None

    def setting(self, name: str) -> bytes | None:
        """Return the setting `name`, which is stored next to the tree."""
        found: bytes | None = self._txn.get(name.encode(), db=self.env.databases["settings"])
        return found

    def put_setting(self, name: str, value: bytes) -> None:
        """Store the setting `name` next to the tree."""
        self._txn.put(name.encode(), value, db=self.env.databases["settings"])

    def put_meta(self, name: bytes, value: bytes) -> None:
        """Store metadata of the store itself, which is not logged."""
        self._txn.put(name, value, db=self.env.databases["meta"])

    def set(self, path: Path, value: Stored) -> None:
        """Write `value` (None deletes) at `path`; parents left without children are deleted."""
        if self.indexes is None:
            self._set(path, value)
        else:
            self.indexes.follow(path, value, self._set)

    def _set(self, path: Path, value: Stored) -> None:
        row_key, data, passed = self._follow(path)
        old: Stored = None
        before = 0 if data is None else len(data)
        if data is not None and (node := rows.node_in(data)) is not None:
            # The size of the old value, for the comparison at the end; a branch counts as
            # `SPLIT_BYTES`.
            before = SPLIT_BYTES
            self._free(node)
        elif data is not None and passed < len(path):
            old = self._shapes.read(data, self._txn)
        # The path ends inside a packed row: the row is unpacked, changed and written again. It has
        # at most `SPLIT_BYTES`, so this costs the same in every tree.
        new = set_at(old, path[passed:], value) if passed < len(path) else value
        size = 0
        if new is not None:
            size = self._write(row_key, path[passed - 1] if passed else "", new)
        elif data is not None:
            self._txn.delete(row_key, db=self._rows)
        # Only a row that halved, or a delete, can make the branches above small: other writes do
        # not look.
        if 2 * size < before:
            self._shrink(path[:passed])

    def _write(self, row_key: bytes, key: str, value: Stored) -> int:
        """Write `value` to the row, as a branch if it is large; returns the row's size in bytes."""
        data = self._packed_row(row_key, key, value)
        if data is None:
            return self._write_branch(row_key, key, value)
        self._txn.put(row_key, data, db=self._rows)
        return len(data)

    def _packed_row(self, row_key: bytes, key: str, value: Stored) -> bytes | None:
        """Return `value` as a packed row; None if it must be a branch."""
        if is_leaf(value):
            return rows.pack_value(key, rows.pack(value))
        # Packing a large map only to find that it is too large would cost as much as writing it.
        if type(value) is LargeMap or not _may_fit(value):
            return None
        tag, packed = self._shapes.pack(value, self._txn, row_key)
        return None if len(packed) > SPLIT_BYTES else rows.pack_value(key, packed, tag)

    def _write_branch(self, row_key: bytes, key: str, value: Stored) -> int:
        node = self._new_node()
        data = rows.pack_branch(key, node)
        self._txn.put(row_key, data, db=self._rows)
        waiting: deque[tuple[bytes, Stored | bytes]] = deque([(node, value)])
        with self._txn.cursor(db=self._rows) as cursor:
            while (
                waiting
            ):  # breadth-first: the rows of later nodes sort after those of earlier ones
                node, value = waiting.popleft()
                if type(value) is bytes:
                    value = rows.unpack_value(value)
                is_large = type(value) is LargeMap
                found: list[tuple[bytes, bytes]] = []
                for child, inner in value.items():
                    row_key = rows.child_row(node, child)
                    packed = self._packed_row(row_key, child, inner)
                    if packed is None:
                        below = self._new_node()
                        # Most of a large map may be queued here: as dicts it would need
                        # several times the memory.
                        held = rows.pack(inner) if is_large and type(inner) is dict else inner
                        waiting.append((below, held))
                        packed = rows.pack_branch(child, below)
                    found.append((row_key, packed))
                    if len(found) == _BULK_ROWS:
                        cursor.putmulti(found)
                        found = []
                cursor.putmulti(found)
        return SPLIT_BYTES

    def raw_rows(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield every row from the row key `start` on, as bytes."""
        with self._txn.cursor(db=self._rows) as cursor:
            if cursor.set_range(start) if start else cursor.first():
                for row_key, data in cursor:
                    yield bytes(row_key), bytes(data)

    def raw_row(self, row_key: bytes) -> bytes:
        """Return the bytes of a row."""
        return bytes(self._txn.get(row_key, None, self._rows))

    def unpacked(self, data: bytes) -> Stored:
        """Return the stored form of the bytes of a row that is not a branch."""
        return self._shapes.read(data, self._txn)

    def replace_row(
        self, old: bytes, new: bytes, key: str, value: Stored, node: bytes | None
    ) -> None:
        """Move a row to another row key: as a branch if there is a `node`, else as `value`."""
        self._branches.clear()
        self._txn.delete(old, db=self._rows)
        if node is None:
            self._write(new, key, value)
        else:
            self._txn.put(new, rows.pack_branch(key, node), db=self._rows)

    def _new_node(self) -> bytes:
        number = int.from_bytes(self._txn.get(_NEXT_NODE, db=self._meta) or b"\x01", "big")
        self._txn.put(_NEXT_NODE, (number + 1).to_bytes(8, "big"), db=self._meta)
        return rows.node_of(number)

    def _free(self, node: bytes) -> None:
        self._branches.clear()
        # One cursor at a time: the nodes below are collected while their parents' rows are deleted.
        waiting = [node]
        while waiting:
            node = waiting.pop()
            with self._txn.cursor(db=self._rows) as cursor:
                found = cursor.set_range(node)
                while found and cursor.key().startswith(node):
                    data = cursor.value()
                    if (below := rows.node_in(data)) is not None:
                        waiting.append(below)
                    found = cursor.delete()

    def _shrink(self, path: Path) -> None:
        """Remove branches above `path` that are now empty, and pack those that have become small."""
        # From the inside out: a branch that became a row may make the one above it small.
        for row_key, key, node in reversed(self._parents(path)):
            if not self._is_small(node):
                return
            value = self._read_branch(node)
            self._free(node)
            if keys_of(value):
                self._write(row_key, key, value)
            else:
                self._txn.delete(row_key, db=self._rows)

    def _parents(self, path: Path) -> list[tuple[bytes, str, bytes]]:
        """Return row, key and node of the branches above `path`."""
        found: list[tuple[bytes, str, bytes]] = []
        row_key, above = rows.ROOT_ROW, ""
        for key in path:
            node = rows.node_in(self._txn.get(row_key, None, self._rows))
            assert node is not None
            found.append((row_key, above, node))
            row_key, above = rows.child_row(node, key), key
        return found

    def _is_small(self, node: bytes) -> bool:
        size = 0
        with self._txn.cursor(db=self._rows) as cursor:
            found = cursor.set_range(node)
            for _row in range(_MERGE_ROWS):
                if not found or not cursor.key().startswith(node):
                    return True
                data = cursor.value()
                size += len(cursor.key()) - len(node) + len(data)
                if size > MERGE_BYTES or rows.is_branch(data):
                    return False
                found = cursor.next()
        return False

    def scalar_above(self, path: Path) -> int | None:
        """Return the depth of a scalar strictly above `path`, None when there is none."""
        _row_key, data, passed = self._follow(path)
        if data is None or rows.node_in(data) is not None:
            return None
        value = self._unpack(rows.unpack(data))
        for level in range(passed, len(path)):
            if value is None or is_leaf(value):
                return None if value is None else level
            value = value.get(path[level])
        return None


def _walked(keys: list[str], start: str | None, reverse: bool) -> list[str]:
    if start is not None:
        first = order_key(start) if start else (1, 0, "")
        if reverse:
            keys = [key for key in keys if order_key(key) <= first]
        else:
            keys = [key for key in keys if order_key(key) >= first]
    return keys[::-1] if reverse else keys


def _may_fit(value: Stored) -> bool:
    """Whether `value` may fit a packed row, by a lower bound of its size, without packing it."""
    left = SPLIT_BYTES
    waiting = [value]
    while waiting and left >= 0:
        inner = waiting.pop()
        left -= len(inner)  # an interned map needs at least a byte for each value
        for child in inner.values():
            if type(child) is dict:
                waiting.append(child)
            elif type(child) is str:
                left -= len(child)
            elif type(child) is LargeMap:
                return False
    return left >= 0
