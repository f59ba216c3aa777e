"""The indexes that rules declare (`.indexOn`), maintained in the tree's own transactions.

A definition is a path pattern and the sort criterion of the children of matching paths. Every child has
a row, also one without a value for the criterion. `Tree.set` calls this module, so rows and tree always
agree. The rows of a `building` definition are maintained like those of others, and `build_some` adds
the rows of children that existed before. Queries use only `ready` definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby, islice
from typing import Any, Literal, Protocol, Self, TypeAlias

import ormsgpack

from elkyn.storage import index_rows
from elkyn.storage.environment import Environment, Txn
from elkyn.storage.ephemeral import EphemeralOverlay
from elkyn.storage.index_rows import IndexRow
from elkyn.tree.large_map import LargeMap
from elkyn.tree.ordering import BY_VALUE, MAX_NAME, MIN_NAME, Index, children_of
from elkyn.tree.paths import PRIORITY, Path
from elkyn.tree.query import Query
from elkyn.tree.reader import MAP
from elkyn.tree.values import Stored, get_at, keys_of

__all__ = ["DATABASES", "Definition", "Definitions", "Indexes", "Pattern", "select"]

DATABASES = ("index",)

_BATCH_ROWS = 10_000  # sorted at once: a sort does not release the GIL
_SETTING = "indexes"
# Represents any map in the order of values, where all maps are equal.
_SOME_MAP: Stored = {"": 0}

Pattern: TypeAlias = tuple[str | None, ...]
"""A path with None where any key matches."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One index.

    Args:
        id: the prefix of its rows; never reused.
        pattern: the paths whose children it indexes.
        index: the sort criterion.
        state: a `dropping` definition is no longer maintained, its rows are being removed.
        done: while building, the parent and child up to which children have rows.
    """

    id: int
    pattern: Pattern
    index: Index
    state: Literal["building", "ready", "dropping"] = "building"
    done: tuple[Path, str] | None = None

    def covers(self, path: Path) -> bool:
        """Whether children of `path` are indexed."""
        return len(path) == len(self.pattern) and _match(self.pattern, path)


@dataclass(frozen=True)
class Definitions:
    """All definitions of a store, and the digest of the rules that declare them."""

    rules: str = ""
    next_id: int = 1
    known: tuple[Definition, ...] = ()

    def declared(self, rules: str, wanted: Iterable[tuple[Pattern, Index]]) -> Definitions:
        """Return the definitions for new `rules`: builds the missing ones, drops undeclared ones."""
        left = dict.fromkeys(wanted)
        known, next_id = [], self.next_id
        for old in self.known:
            # A definition that is being dropped is not revived: its rows are incomplete already.
            if old.state != "dropping" and (old.pattern, old.index) in left:
                del left[old.pattern, old.index]
                known.append(old)
            else:
                known.append(replace(old, state="dropping", done=None))
        for pattern, index in left:
            # A new identifier, never one that was used before: rows of a dropped definition are
            # removed in steps, and must not be found by a later one.
            known.append(Definition(next_id, pattern, index))
            next_id += 1
        return Definitions(rules, next_id, tuple(known))

    def with_one(self, changed: Definition) -> Definitions:
        """Return the definitions with the one of the same id replaced."""
        known = tuple(changed if old.id == changed.id else old for old in self.known)
        return replace(self, known=known)

    def without(self, gone: Definition) -> Definitions:
        """Return the definitions without `gone`."""
        return replace(self, known=tuple(old for old in self.known if old.id != gone.id))

    @cached_property
    def kept(self) -> tuple[Definition, ...]:
        """The definitions whose rows are maintained."""
        return tuple(one for one in self.known if one.state != "dropping")

    @cached_property
    def _by_first(self) -> dict[str | None, list[Definition]]:
        found: dict[str | None, list[Definition]] = {}
        for one in self.kept:
            found.setdefault(one.pattern[0] if one.pattern else None, []).append(one)
        return found

    def matching(self, path: Path) -> list[Definition]:
        """Return the maintained definitions with children at, above or below `path`."""
        if not path:
            return list(self.kept)
        near = [*self._by_first.get(None, ()), *self._by_first.get(path[0], ())]
        return [one for one in near if _match(one.pattern, path)]

    @property
    def unfinished(self) -> Definition | None:
        """The next definition to build or drop."""
        return next((one for one in self.known if one.state != "ready"), None)

    def pack(self) -> bytes:
        """Return the definitions as bytes."""
        known = [
            (one.id, one.pattern, one.index.kind, one.index.path, one.state, one.done)
            for one in self.known
        ]
        return ormsgpack.packb((self.rules, self.next_id, known))


@lru_cache(maxsize=64)
def _unpack(packed: bytes) -> Definitions:
    rules, next_id, known = ormsgpack.unpackb(packed)
    return Definitions(rules, next_id, tuple(map(_definition, known)))


def _definition(packed: Any) -> Definition:
    number, pattern, kind, path, state, done = packed
    index = BY_VALUE if kind == "value" else Index("child", tuple(path))
    progress = None if done is None else (tuple(done[0]), done[1])
    return Definition(number, tuple(pattern), index, state, progress)


class IndexedTree(Protocol):
    """The part of `row_tree.Tree` that indexes use: the tree calls this module, not the reverse."""

    env: Environment

    @property
    def indexes(self) -> Indexes | None:
        """The indexes in the same transaction."""
        ...

    def get(self, path: Path) -> Stored: ...
    def keys(self, path: Path) -> list[str] | None: ...
    def peek(self, path: Path) -> Stored: ...
    def shallow(self, path: Path) -> Stored: ...
    def allow(self, count: int) -> None: ...
    def setting(self, name: str) -> bytes | None: ...
    def put_setting(self, name: str, value: bytes) -> None: ...
    def walk_keys(self, path: Path, *, start: str | None = None) -> Iterator[str]: ...
    def walk(
        self, path: Path, *, start: str | None = None, reverse: bool = False, shallow: bool = False
    ) -> Iterator[tuple[str, Stored]]: ...


class IndexedView(Protocol):
    """The part of `transactions.ReadTransaction` that `select` uses."""

    @property
    def tree(self) -> IndexedTree:
        """The durable tree."""
        ...

    @property
    def ephemeral(self) -> EphemeralOverlay | None:
        """The ephemeral values."""
        ...

    def get(self, path: Path) -> Stored: ...


class Indexes:
    """The indexes in one transaction.

    Args:
        tree: the indexed tree.
        txn: the transaction of `tree`.
        definitions: the definitions in it.
    """

    __slots__ = ("_db", "_tree", "_txn", "definitions")

    def __init__(self, tree: IndexedTree, txn: Txn, definitions: Definitions) -> None:
        self.definitions = definitions
        self._tree = tree
        self._txn = txn
        self._db = tree.env.databases["index"]

    @classmethod
    def of(cls, tree: IndexedTree, txn: Txn) -> Self | None:
        """Return the indexes of a transaction; None when there are none."""
        packed = tree.setting(_SETTING)
        return None if packed is None else cls(tree, txn, _unpack(packed))

    @staticmethod
    def read(tree: IndexedTree) -> Definitions:
        """Return the definitions in a transaction."""
        packed = tree.setting(_SETTING)
        return Definitions() if packed is None else _unpack(packed)

    @staticmethod
    def keep(tree: IndexedTree, definitions: Definitions) -> None:
        """Replace the definitions in the write transaction."""
        tree.put_setting(_SETTING, definitions.pack())

    @property
    def database(self) -> Any:
        """The LMDB database of the rows."""
        return self._db

    def parents(self, one: Definition) -> Iterator[Path]:
        """Yield the paths whose children a definition indexes."""
        return self._parents(one.pattern, ())

    def rows_of(self, one: Definition, parent: Path) -> Iterator[tuple[str, bytes, bytes]]:
        """Yield key, expected row key and expected row of each child of `parent`."""
        start = index_rows.head(one.id, parent)
        for key, child in self._tree.walk(parent, shallow=True):
            yield key, *index_rows.row(start, self._indexed(one.index, (*parent, key), child), key)

    def row_of(self, one: Definition, path: Path) -> bytes | None:
        """Return the expected row key of the child at `path`; None when there is no child."""
        place = self._place(one, path)
        return None if place is None else place[0]

    def follow(self, path: Path, value: Stored, write: Callable[[Path, Stored], None]) -> None:
        """Call `write` to put `value` at `path`, and update the rows of the changed children."""
        matching = self.definitions.matching(path)
        replaced = [one for one in matching if len(path) <= len(one.pattern)]
        inside = [one for one in matching if PRIORITY not in path and one not in replaced]
        # Collected before the write, which removes these paths from the tree.
        parents = [(one, parent) for one in replaced for parent in self._parents(one.pattern, path)]
        # The child's row before and after the write: what it is sorted by may be anywhere in the
        # child.
        before = [self._place(one, path) for one in inside]
        write(path, value)
        for one, old in zip(inside, before, strict=True):
            self._move(old, self._place(one, path))
        # The write replaced the parent or something above it: all its rows go, and the new
        # children's come.
        for one, parent in parents:
            self._remove(index_rows.head(one.id, parent))
        if value is not None:
            for one in replaced:
                self._add_below(one, path, value)

    def _place(self, one: Definition, path: Path) -> tuple[bytes, bytes] | None:
        """Return the row of the child at or above `path`; None when there is no child."""
        depth = len(one.pattern)
        child = self._tree.shallow(path[: depth + 1])
        if child is None:
            return None
        value = self._indexed(one.index, path[: depth + 1], child)
        return index_rows.row(index_rows.head(one.id, path[:depth]), value, path[depth])

    def _indexed(self, index: Index, path: Path, child: Stored) -> Stored:
        """Return the indexed value of a child; `child` is `MAP` when it is large."""
        # A large child is not read: only the value that it is sorted by.
        if child is MAP:
            child = self._tree.peek((*path, *index.path))
            return _SOME_MAP if child is MAP else child
        return index.value_of(child)

    def _move(self, before: tuple[bytes, bytes] | None, after: tuple[bytes, bytes] | None) -> None:
        if before == after:
            return
        if before is not None:
            self._txn.delete(before[0], db=self._db)
        if after is not None:
            self._txn.put(*after, db=self._db)

    def _parents(self, pattern: Pattern, path: Path) -> Iterator[Path]:
        """Yield the existing paths at or below `path` that match `pattern`."""
        if len(path) == len(pattern):
            yield path
            return
        key = pattern[len(path)]
        keys = (self._tree.keys(path) or []) if key is None else [key]
        for inner in keys:
            yield from self._parents(pattern, (*path, inner))

    def _add_below(self, one: Definition, path: Path, value: Stored) -> None:
        if len(path) == len(one.pattern):
            start = index_rows.head(one.id, path)
            with self._txn.cursor(db=self._db) as cursor:
                found = (
                    index_rows.row(start, _small(one.index.value_of(child)), key)
                    for key, child in children_of(value)
                )
                # Sorted within a batch: neighbouring rows share pages.
                while batch := sorted(islice(found, _BATCH_ROWS)):
                    cursor.putmulti(batch)
            return
        key = one.pattern[len(path)]
        for inner in (keys_of(value) or []) if key is None else [key]:
            child = get_at(value, (inner,))
            if type(child) is dict or type(child) is LargeMap:
                self._add_below(one, (*path, inner), child)

    def _remove(self, start: bytes, rows_max: int | None = None) -> int:
        """Delete rows with the prefix `start`; returns the number of deleted rows."""
        count = 0
        with self._txn.cursor(db=self._db) as cursor:
            found = cursor.set_range(start)
            while found and cursor.key().startswith(start) and count != rows_max:
                found = cursor.delete()
                count += 1
        return count

    def serving(self, query: Query, path: Path) -> Definition | None:
        """Return the complete index that serves `query` on `path`."""
        for one in self.definitions.matching(path):
            if one.state == "ready" and one.index == query.index and one.covers(path):
                return one
        return None

    def keys(self, query: Query, one: Definition, path: Path) -> Iterator[str]:
        """Yield children's keys in the order of `query`, starting near the start of its range."""
        start = index_rows.head(one.id, path)
        for group, together in groupby(self._walk(query, start), key=lambda row: row.group):
            # Most rows. Rows of a group have equal bytes up to where text was cut: their order
            # needs the values.
            if group is None:
                yield from (row.key for row in together)
                continue
            places = [
                (one.index.position(row.key, self._tree.get((*path, row.key))), row.key)
                for row in together
            ]
            yield from (key for _place, key in sorted(places, reverse=query.from_end))

    def _walk(self, query: Query, start: bytes) -> Iterator[IndexRow]:
        with self._txn.cursor(db=self._db) as cursor:
            if query.from_end:
                beyond = cursor.set_range(start + index_rows.beyond_bytes(query.end))
                found = cursor.prev() if beyond else cursor.last()
            else:
                found = cursor.set_range(start + index_rows.first_bytes(query.start))
            count = 0
            while found and cursor.key().startswith(start):
                count += 1
                self._tree.allow(count)
                yield index_rows.parse(cursor.key(), cursor.value())
                found = cursor.prev() if query.from_end else cursor.next()

    def build_some(self, one: Definition, rows_max: int) -> Definition:
        """Add rows for up to `rows_max` more children; returns the definition with its progress."""
        left = rows_max
        for parent in self._parents_from(one.pattern, (), one.done and one.done[0]):
            after = one.done[1] if one.done is not None and one.done[0] == parent else None
            start = index_rows.head(one.id, parent)
            for key, child in self._tree.walk(parent, start=after, shallow=True):
                value = self._indexed(one.index, (*parent, key), child)
                self._txn.put(*index_rows.row(start, value, key), db=self._db)
                # The walk begins at the child that was done last; its row is written again, which
                # changes nothing.
                left -= key != after
                if left <= 0:
                    return replace(one, done=(parent, key))
        return replace(one, state="ready", done=None)

    def _parents_from(self, pattern: Pattern, path: Path, done: Path | None) -> Iterator[Path]:
        """Yield the paths of `_parents` from `done` on, listing only the keys needed."""
        if len(path) == len(pattern):
            yield path
            return
        key = pattern[len(path)]
        first = None if done is None else done[len(path)]
        keys = self._tree.walk_keys(path, start=first) if key is None else [key]
        for inner in keys:
            yield from self._parents_from(pattern, (*path, inner), done if inner == first else None)

    def drop_some(self, one: Definition, rows_max: int) -> bool:
        """Remove up to `rows_max` rows of a definition; returns whether none are left."""
        return self._remove(one.id.to_bytes(4, "big"), rows_max) < rows_max


def select(query: Query, view: IndexedView, path: Path) -> dict[str, Stored] | None:
    """Return the children of `path` that `query` selects; None when an ephemeral write covers `path`.

    With a complete index it reads little more than the result, else one child after the other.
    """
    touched: set[str] = set()
    if view.ephemeral is not None:
        if view.ephemeral.covering(path) is not None:
            return None
        # Children with ephemeral parts: the index has their durable values, so they are sorted in
        # separately.
        touched = {place[len(path)] for place, _value in view.ephemeral.below(path)}
    children = _in_order(query, view.tree, path)
    if children is None:
        found = query.select(item for item in view.tree.walk(path) if item[0] not in touched)
    else:
        found = _window(query, (item for item in children if item[0] not in touched))
    if not touched:
        return found
    changed = {key: view.get((*path, key)) for key in touched}
    found.update((key, child) for key, child in changed.items() if child is not None)
    return query.select(found.items())


def _in_order(query: Query, tree: IndexedTree, path: Path) -> Iterator[tuple[str, Stored]] | None:
    if query.index.kind == "key":
        bound = query.end if query.from_end else query.start
        first = None if bound is None or bound.value in (MIN_NAME, MAX_NAME) else str(bound.value)
        return tree.walk(path, start=first, reverse=query.from_end)
    indexes = tree.indexes
    one = None if indexes is None else indexes.serving(query, path)
    if indexes is None or one is None:
        return None
    return ((key, tree.get((*path, key))) for key in indexes.keys(query, one, path))


def _window(query: Query, children: Iterable[tuple[str, Stored]]) -> dict[str, Stored]:
    """Return the first `children` that `query` selects, up to its limit.

    They must be in the order of `query`, or in reverse when it counts from the end.
    """
    found: list[tuple[str, Stored]] = []
    edge = query.lower[0] if query.from_end else query.upper[0]
    for key, child in children:
        place = query.index.position(key, child)
        # The children come in order: nothing after this one can match.
        if place < edge if query.from_end else place > edge:
            break
        if query.matches(place):
            found.append((key, child))
            if len(found) == query.limit:
                break
    return dict(found[::-1] if query.from_end else found)


def _small(value: Stored) -> Stored:
    """Return the form of a value in a row: maps compare equal."""
    return _SOME_MAP if type(value) is LargeMap else value


def _match(pattern: Pattern, path: Path) -> bool:
    return all(key is None or key == found for key, found in zip(pattern, path, strict=False))
