"""Checks every row of a store and reports inconsistencies.

As a program (`python -m elkyn.storage.verify FOLDER`) it prints one finding per line, because reading some
kinds of damage makes LMDB crash the process.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path as FilePath

import lmdb

from elkyn.storage import rows
from elkyn.storage.consistency import index_problems, log_problems
from elkyn.storage.environment import Environment, Txn
from elkyn.storage.format import KEY, check_transaction, is_older
from elkyn.storage.key_order import is_moved
from elkyn.storage.log_rows import LogRows
from elkyn.storage.row_tree import Tree
from elkyn.storage.shapes import Shapes
from elkyn.tree.paths import PRIORITY, key_problem, order_key
from elkyn.tree.values import VALUE, Stored, ordered
from sennit_core.errors import SennitError

__all__ = ["problems", "problems_apart"]

_PROBLEMS_MAX = 100
# The path that is being read, in a file that both processes map: what was written there survives a
# crash of the one that reads.
_PLACE_BYTES = 4096
_FOUND = 3
_NO_LEAF = (dict, list, type(None))


def problems(env: Environment, txn: Txn, known: Shapes) -> list[str]:
    """Return one sentence for each problem (the first hundred); empty for an undamaged store.

    Every row of the tree is read, and its path, key, value, priority and order are checked; every row
    must be reachable from the root; every index must have exactly the rows of its children; the log
    must be readable, without gaps, and agree with the tree.
    """
    return list(_all_problems(env, txn, known, _Walk(env, txn, known)))


def _all_problems(env: Environment, txn: Txn, known: Shapes, walk: _Walk) -> Iterator[str]:
    try:
        yield from islice(_all(walk, env, txn, known), _PROBLEMS_MAX)
    except lmdb.Error as error:
        yield _unreadable(walk.at, error)


def _unreadable(path: str, error: object) -> str:
    return f"{path}: LMDB cannot read its file here ({error})"


def _all(walk: _Walk, env: Environment, txn: Txn, known: Shapes) -> Iterator[str]:
    good = True
    for problem in chain(walk.tree(), walk.orphans()):
        good = False
        yield problem
    comparable = good and not walk.has_old_keys
    tree = Tree(env, txn, known) if comparable else None  # a damaged tree is not compared
    if tree is not None:
        yield from index_problems(tree, txn)
    yield from log_problems(LogRows(env, txn), tree)


class _Walk:
    def __init__(
        self,
        env: Environment,
        txn: Txn,
        known: Shapes,
        note: Callable[[str], object] = lambda _path: None,
    ) -> None:
        self._txn = txn
        self._db = env.databases["tree"]
        self._meta = env.databases["meta"]
        self._shapes = known
        # Nodes that the walk has reached: one that is reached twice has two parents.
        self._nodes: set[bytes] = set()
        self._note = note
        self.at = "/"
        # False once a page could not be read: rows that were not reached are no orphans then.
        self.whole = True
        # Rows reached; equal to LMDB's count of entries iff there are no orphans.
        self._rows = 0
        # A store of an older format may have its old key order until it is opened for use.
        self._is_older = is_older(txn.get(KEY, db=self._meta))
        self.has_old_keys = False

    def _pass(self, path: str) -> None:
        self.at = path or "/"
        self._note(self.at)

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
            try:
                yield from self._branch(path, node, waiting)
            except lmdb.Error as error:  # other pages may be readable
                self.whole = False
                yield _unreadable(self.at, error)

    def _branch(self, path: str, node: bytes, waiting: list[tuple[str, bytes]]) -> Iterator[str]:
        if node in self._nodes:
            yield f"{path or '/'}: node {node.hex()} has two parents"
            return
        self._nodes.add(node)
        self._pass(path)
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
        moved = problem is None and self._is_older and is_moved(key)
        self.has_old_keys = self.has_old_keys or moved
        if problem is not None or (rows.child_row(node, key) != row_key and not moved):
            yield f"{path}/{key}: its row has another key"
        yield from self._row(f"{path}/{key}", data, waiting)

    def _row(self, path: str, data: bytes, waiting: list[tuple[str, bytes]]) -> Iterator[str]:
        self._pass(path)
        row = rows.unpack(data)
        if row.tag == rows.BRANCH:
            waiting.append((path, bytes(row.payload)))
            return
        try:
            value = self._shapes.unpack(row.tag, row.payload, self._txn)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            yield f"{path or '/'}: cannot be read ({type(error).__name__})"
            return
        if path.endswith(f"/{PRIORITY}"):
            yield from _priority_problems(path.removesuffix(f"/{PRIORITY}"), value)
        else:
            if self._is_older and (again := ordered(value)) is not value:
                self.has_old_keys, value = True, again
            yield from _value_problems(path, value)

    def orphans(self) -> Iterator[str]:
        """Yield the rows that the walk has not reached."""
        if not self.whole:
            return
        self._pass("")
        entries = self._txn.stat(self._db)["entries"]
        if entries == self._rows:
            return
        with self._txn.cursor(db=self._db) as cursor:
            for row_key, _data in cursor:
                node = bytes(row_key[: rows.node_bytes(row_key)])
                if row_key != rows.ROOT_ROW and node not in self._nodes:
                    yield f"node {node.hex()}: a row that is unreachable from the root ({row_key.hex()})"


def _value_problems(path: str, value: Stored) -> Iterator[str]:
    if value is None or type(value) is list:
        yield f"{path or '/'}: holds {'nothing' if value is None else 'a list'}"
    if type(value) is not dict:
        return
    if not value or (len(value) == 1 and PRIORITY in value):
        yield f"{path or '/'}: an empty map"
    if PRIORITY in value:
        yield from _priority_problems(path, value[PRIORITY])
    if VALUE in value:
        if value.keys() != {VALUE, PRIORITY} or type(value[VALUE]) in _NO_LEAF:
            yield f"{path or '/'}: a malformed value with a priority"
        return
    keys = [key for key in value if key != PRIORITY]
    if any(map(key_problem, keys)):
        yield f"{path or '/'}: an invalid key"
    elif sorted(keys, key=order_key) != keys:
        yield f"{path or '/'}: its keys are out of order"
    for key in keys:
        yield from _value_problems(f"{path}/{key}", value[key])


def _priority_problems(path: str, priority: Stored) -> Iterator[str]:
    if type(priority) not in (int, float, str):
        yield f"{path or '/'}: its priority is neither a number nor text"


def problems_apart(folder: FilePath, databases: tuple[str, ...]) -> list[str]:
    """Return the problems of a store that is not open, found by a separate process.

    Args:
        folder: the store's folder.
        databases: the names of its databases.
    """
    with tempfile.NamedTemporaryFile() as place:
        place.truncate(_PLACE_BYTES)
        # `-P`: no module of the current folder is imported.
        command = [sys.executable, "-P", "-m", __name__, str(folder), place.name, *databases]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        at = place.read().rstrip(b"\0").decode(errors="replace")
    found = done.stdout.splitlines()
    # The process crashed while it read a damaged page.
    if done.returncode not in (0, _FOUND):
        found.append(_unreadable(at or "/", f"the process ended with {done.returncode}"))
    return found


def _main() -> int:
    """Print problems as they are found; note the current path in a file, in case LMDB crashes."""
    folder, place, *databases = sys.argv[1:]
    count = 0
    with FilePath(place).open("r+b") as stream, mmap.mmap(stream.fileno(), _PLACE_BYTES) as shown:

        def note(path: str) -> None:
            shown[:] = path.encode()[:_PLACE_BYTES].ljust(_PLACE_BYTES, b"\0")

        try:
            env = Environment(
                FilePath(folder), tuple(databases), sync=False, check=check_transaction
            )
        except SennitError as error:
            sys.stdout.write(f"{error}\n")
            return _FOUND
        known = Shapes(env)
        with env.read() as txn:
            for problem in _all_problems(env, txn, known, _Walk(env, txn, known, note)):
                sys.stdout.write(f"{problem}\n")
                sys.stdout.flush()
                count += 1
        env.close()
    return _FOUND if count else 0


if __name__ == "__main__":
    sys.exit(_main())
