"""What of a query may be split between nodes, and which tables the nodes that take part have whole.

    scheme    units                                   each unit runs where
    shard     the shards of one table                 the shard is, and the whole tables are
    bucket    the buckets of tables of one kind       all shards of the bucket are, and the whole tables
    node      one, which reads whole tables only      all of them are

A table is whole for a scheme if every unit has a holder that has all shards of the table. Then nothing but
SQL and the ids of shards is sent to these holders, each of which checks what the asking node may read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sqlglot import exp

from lake.peers.sql.tables import Shard, Table

__all__ = ["Scheme", "Schemes"]

_SCHEMES_MAX = 12
"""Each costs some milliseconds, and a query of more tables than this has other problems."""

_WHOLE_SHARDS_MAX = 500
"""Of all whole tables of a scheme: each request names them, and a request is bounded."""

_HERE = frozenset((0,))
"""A table that only the coordinator has may be one that no part can name: rows that a user sees."""

Nodes = frozenset[int]


@dataclass(frozen=True, slots=True)
class Scheme:
    """Which tables of a fragment are split, and which are whole.

    Args:
        by: `shard`: one table, by its shards; `bucket`: all tables of one kind of partition key; `node`:
            no table.
        keys: The partition key of each split table, by the name of the table in FROM; None if it is
            split by shards, whose rows may have any key.
        whole: The names of the tables that a node with a unit has whole.
    """

    by: str
    keys: Mapping[str, str | None]
    whole: frozenset[str] = frozenset()


class Schemes:
    """The schemes of the queries of one statement.

    Args:
        sources: The table that each name in a FROM clause is of.
        uses_whole: Whether tables may be whole at other nodes than the coordinator.
    """

    def __init__(self, sources: Mapping[str, Table], *, uses_whole: bool) -> None:
        self._sources = sources
        self._uses_whole = uses_whole
        # The nodes that have all shards of a table, by its name.
        self._having: dict[str, Nodes] = {}

    def of(self, body: exp.Select) -> Iterator[Scheme]:
        """Yield what may be split, the schemes with more tables first."""
        read = self._read(body)
        classes: dict[tuple[int, str], dict[str, str]] = {}
        for alias, table in read.items():
            kind, key = table.key_class(), table.key
            if kind is not None and key is not None:
                # Names are in lower case in the tree.
                classes.setdefault(kind, {})[alias] = key.column.lower()
        away = [alias for alias, table in read.items() if not table.is_here]
        found = [Scheme("bucket", dict(keys)) for keys in classes.values()]
        for keys in classes.values():
            if len(keys) > 1:
                found += [Scheme("bucket", {alias: keys[alias]}) for alias in keys if alias in away]
        found += [Scheme("shard", {alias: None}) for alias in away]
        for scheme in found[:_SCHEMES_MAX]:
            placed = self._placed(scheme, read)
            if placed is not None:
                yield placed

    def at_one_node(self, body: exp.Select) -> Scheme | None:
        """Return the scheme of a node that has all tables of a query; None if there is none."""
        read = self._read(body)
        if not self._uses_whole or all(table.is_here for table in read.values()):
            return None
        found = self._placed(Scheme("node", {}), read)
        names = {table.name for table in read.values()}
        return found if found is not None and found.whole == names else None

    def _read(self, body: exp.Select) -> dict[str, Table]:
        names = (table.alias for table in body.find_all(exp.Table))
        return {name: self._sources[name] for name in names if name in self._sources}

    def _placed(self, scheme: Scheme, read: Mapping[str, Table]) -> Scheme | None:
        """Return a scheme with what is whole; None if a unit has no node for all of its shards."""
        split = {read[alias].name: read[alias] for alias in scheme.keys}
        others = {t.name: t for t in read.values() if t.name not in split}
        if scheme.by == "node":
            units = {frozenset(n for t in read.values() for s in t.shards for n in s.nodes)}
        else:
            units = set(_nodes_of_units(scheme.by, split.values()))
        if not all(units):
            return None
        whole: set[str] = set()
        shards_left = _WHOLE_SHARDS_MAX
        if self._uses_whole:
            # The small ones first: which of two tables are whole at all these nodes may depend on the order.
            for table in sorted(others.values(), key=lambda t: sum(s.bytes for s in t.shards)):
                having = self._having_whole(table)
                narrowed = {nodes & having for nodes in units}
                if having == _HERE or len(table.shards) > shards_left:
                    continue
                if not table.shards or all(narrowed):
                    units = narrowed if table.shards else units
                    shards_left -= len(table.shards)
                    whole.add(table.name)
        return replace(scheme, whole=frozenset(whole))

    def _having_whole(self, table: Table) -> Nodes:
        if table.name not in self._having:
            self._having[table.name] = _common(table.shards)
        return self._having[table.name]


def _nodes_of_units(by: str, tables: Iterable[Table]) -> Iterator[Nodes]:
    """Yield the nodes that hold each unit; a shard that no node holds is missing in any plan."""
    held = [shard for table in tables for shard in table.shards if shard.nodes]
    if by == "shard":
        yield from {frozenset(shard.nodes) for shard in held}
        return
    buckets: dict[int | None, list[Shard]] = {}
    for shard in held:
        buckets.setdefault(shard.bucket, []).append(shard)
    yield from map(_common, buckets.values())


def _common(shards: Iterable[Shard]) -> Nodes:
    """Return the nodes that hold all of some shards; none of none."""
    found: Nodes | None = None
    for nodes in {shard.nodes for shard in shards}:
        found = frozenset(nodes) if found is None else found & frozenset(nodes)
    return found or frozenset()
