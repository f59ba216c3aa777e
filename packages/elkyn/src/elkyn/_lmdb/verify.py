"""Looks at every row of a store and says what does not fit together.

As a program (`python -m elkyn._lmdb.verify FOLDER`) it prints that, one finding a line: LMDB ends the
process that looks at some kinds of damage.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

import lmdb
import ormsgpack

from elkyn._lmdb import rows
from elkyn._lmdb.environment import Environment, Txn
from elkyn._lmdb.oplog import LogRows, unpack_entry
from elkyn._lmdb.shapes import Shapes
from elkyn.paths import PRIORITY, key_problem, order_key
from elkyn.values import VALUE, Stored

__all__ = ["problems", "problems_apart"]

_PROBLEMS_MAX = 100


def problems(env: Environment, txn: Txn, known: Shapes) -> list[str]:
    """Return what is wrong, one sentence for each finding (the first hundred); empty when all is well.

    Every row of the tree is read and its place, key, value and order are checked; every row must be
    reached from the root; the log must be without gaps and readable.
    """
    walk = _Walk(env, txn, known)
    try:
        return list(islice(_all(walk, env, txn), _PROBLEMS_MAX))
    except lmdb.Error as error:
        return [*walk.found, f"LMDB cannot read its own file: {error}"]


def _all(walk: _Walk, env: Environment, txn: Txn) -> Iterator[str]:
    yield from walk.tree()
    yield from walk.orphans()
    yield from _log_problems(LogRows(env, txn))


class _Walk:
    def __init__(self, env: Environment, txn: Txn, known: Shapes) -> None:
        self._txn = txn
        self._db = env.databases["tree"]
        self._meta = env.databases["meta"]
        self._shapes = known
        self._nodes: set[bytes] = set()
        self.found: list[str] = []
        self._rows = 0

    def tree(self) -> Iterator[str]:
        """Walk from the root."""
        data = self._txn.get(rows.ROOT_ROW, db=self._db)
        if data is None:
            return
        self._rows = 1
        waiting: list[tuple[str, bytes]] = []
        yield from self._row("", data, waiting)
        while waiting:
            path, node = waiting.pop()
            yield from self._branch(path, node, waiting)

    def _branch(self, path: str, node: bytes, waiting: list[tuple[str, bytes]]) -> Iterator[str]:
        if node in self._nodes:
            yield f"{path or '/'}: node {node.hex()} has two parents"
            return
        self._nodes.add(node)
        children = 0
        with self._txn.cursor(db=self._db) as cursor:
            found = cursor.set_range(node)
            while found and cursor.key().startswith(node):
                children += cursor.key() != rows.child_row(node, PRIORITY)
                self._rows += 1
                yield from self._child(path, node, bytes(cursor.key()), cursor.value(), waiting)
                found = cursor.next()
        if not children:
            yield f"{path or '/'}: a branch without children"

    def _child(
        self,
        path: str,
        node: bytes,
        row_key: bytes,
        data: bytes,
        waiting: list[tuple[str, bytes]],
    ) -> Iterator[str]:
        try:
            key = rows.unpack(data).key or rows.key_of(row_key, len(node))
        except (ValueError, IndexError):
            yield f"{path or '/'}: a row without a readable key ({row_key.hex()})"
            return
        problem = None if key == PRIORITY else key_problem(key)
        if problem is not None or rows.child_row(node, key) != row_key:
            yield f"{path}/{key}: its row has another key"
        yield from self._row(f"{path}/{key}", data, waiting)

    def _row(self, path: str, data: bytes, waiting: list[tuple[str, bytes]]) -> Iterator[str]:
        row = rows.unpack(data)
        if row.tag == rows.BRANCH:
            waiting.append((path, bytes(row.payload)))
            return
        try:
            value = rows.unpack_value(row.payload)
            if row.tag == rows.FLAT:
                value = self._shapes.unfold_flat(value, self._txn)
            elif row.tag == rows.FOLDED:
                value = self._shapes.unfold(value, self._txn)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            yield f"{path or '/'}: cannot be read ({type(error).__name__})"
            return
        yield from _value_problems(path, value)

    def orphans(self) -> Iterator[str]:
        """Name the rows that the walk has not come by."""
        entries = self._txn.stat(self._db)["entries"]
        if entries == self._rows:
            return
        with self._txn.cursor(db=self._db) as cursor:
            for row_key, _data in cursor:
                node = bytes(row_key[: rows.node_bytes(row_key)])
                if row_key != rows.ROOT_ROW and node not in self._nodes:
                    yield f"node {node.hex()}: a row that no path leads to ({row_key.hex()})"


def _value_problems(path: str, value: Stored) -> Iterator[str]:
    if value is None or type(value) is list:
        yield f"{path or '/'}: holds {'nothing' if value is None else 'a list'}"
    if type(value) is not dict:
        return
    if not value or (len(value) == 1 and PRIORITY in value):
        yield f"{path or '/'}: an empty map"
    if VALUE in value:
        return
    keys = [key for key in value if key != PRIORITY]
    if any(map(key_problem, keys)):
        yield f"{path or '/'}: a key that no path can hold"
    elif sorted(keys, key=order_key) != keys:
        yield f"{path or '/'}: its keys are out of order"
    for key in keys:
        yield from _value_problems(f"{path}/{key}", value[key])


def _log_problems(log: LogRows) -> Iterator[str]:
    expected: Any = None
    for position, packed in log.raw(0):
        if expected is not None and position != expected:
            yield f"the log goes from {expected - 1} to {position}"
        expected = position + 1
        try:
            unpack_entry(position, packed)
        except (ValueError, TypeError, ormsgpack.MsgpackDecodeError):
            yield f"the log's entry {position} cannot be read"


def problems_apart(folder: FilePath, databases: tuple[str, ...]) -> list[str]:
    """Return the problems of a store that nobody has open, found by a process of its own.

    Args:
        folder: of the store.
        databases: the names of those it has.
    """
    command = [sys.executable, "-m", __name__, str(folder), *databases]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = done.stdout.splitlines()
    if done.returncode and not found:
        return [f"LMDB cannot read its own file: it ended with {done.returncode}"]
    return found


def _main() -> int:
    env = Environment(FilePath(sys.argv[1]), tuple(sys.argv[2:]), sync=False)
    with env.read() as txn:
        found = problems(env, txn, Shapes(env))
    sys.stdout.writelines(f"{problem}\n" for problem in found)
    env.close()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main())
