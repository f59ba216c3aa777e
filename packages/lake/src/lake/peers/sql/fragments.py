"""The units that a fragment runs on, and how many rows each is expected to answer with."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from sqlglot import exp

from lake.peers.sql.aggregates import ExportState
from lake.peers.sql.blocks import Cut, Tail
from lake.peers.sql.drafts import DraftFragment, Drafts
from lake.peers.sql.equalities import ColumnId, column_id
from lake.peers.sql.errors import NotDistributed
from lake.peers.sql.estimates import distinct_values, selectivity, width
from lake.peers.sql.plan import Unit
from lake.peers.sql.schemes import Scheme
from lake.peers.sql.trees import conjuncts

__all__ = ["draft_fragment"]

_EXPRESSION_BYTES = 8
_SUM_BYTES = 16
_UNKNOWN_VALUES = 200
_HAVING = 0.33


def draft_fragment(cut: Cut, scheme: Scheme, tail: Tail, drafts: Drafts) -> DraftFragment:
    """Return the fragment of a block.

    Args:
        cut: The block in two.
        scheme: What is split.
        tail: What the coordinator does with all results.
        drafts: The steps so far.

    Raises:
        NotDistributed: The fragment reads a sharded table that is not split.
    """
    aliases, is_here = [], True
    for table in cut.fragment.find_all(exp.Table):
        found = drafts.references.get(table.alias)
        if table.alias in scheme.keys:
            aliases.append(table.alias)
        elif found is not None and table.name == found.table.name:
            if table.name not in scheme.whole:
                raise NotDistributed("a sharded table is left in a fragment")
            is_here &= found.table.is_here
    by_name: dict[str, list[str]] = {}
    for alias in dict.fromkeys(aliases):
        by_name.setdefault(drafts.references[alias].table.name, []).append(alias)
    if scheme.by == "node":
        units = [Unit("all", {})]
    elif scheme.by == "shard":
        name, alias = next(iter(by_name)), aliases[0]
        units = [Unit(s.object, {name: (s.object,)}) for s in drafts.remaining(alias)]
    else:
        units = _bucket_units(cut.fragment, by_name, drafts)
    remote = [
        unit
        for unit in units
        if not (is_here and drafts.local.issuperset(chain.from_iterable(unit.shards.values())))
    ]
    shards = sum(len(drafts.references[found[0]].table.shards) for found in by_name.values())
    return DraftFragment(
        query=cut.fragment,
        by=scheme.by,
        sharded=tuple(by_name),
        units=tuple(units),
        remote_units=len(remote),
        unit_rows=_unit_rows(
            cut,
            tail,
            _Estimator(drafts, len(units), scheme.keys, _restricted(cut.fragment, drafts)),
        ),
        row_bytes=sum(_bytes(each.unalias(), drafts) for each in cut.fragment.selects),
        shards=shards,
    )


def _bucket_units(
    fragment: exp.Select, by_name: dict[str, list[str]], drafts: Drafts
) -> list[Unit]:
    shards: dict[str, dict[int | None, list[str]]] = {}
    for name, aliases in by_name.items():
        kept = {shard.object for alias in aliases for shard in drafts.remaining(alias)}
        buckets = shards.setdefault(name, {})
        for shard in drafts.references[aliases[0]].table.shards:
            if shard.object in kept:
                buckets.setdefault(shard.bucket, []).append(shard.object)
    required = _required(fragment) & {alias for found in by_name.values() for alias in found}
    sets = [{shard.bucket for shard in drafts.remaining(alias)} for alias in required]
    if sets:
        # A unit without rows of an inner-joined table has no result.
        numbers = set.intersection(*sets)
    else:
        numbers = {bucket for buckets in shards.values() for bucket in buckets}
    ordered = sorted(numbers, key=lambda bucket: (bucket is None, bucket or 0))
    return [
        Unit(
            f"bucket {'NULL' if bucket is None else bucket}",
            {name: tuple(buckets.get(bucket, ())) for name, buckets in shards.items()},
        )
        for bucket in ordered
    ]


def _required(select: exp.Select) -> set[str]:
    """Return the tables in FROM of which every row of the result has one."""
    joins = select.args.get("joins") or ()
    if any(join.side.upper() in ("RIGHT", "FULL") for join in joins):
        return set()
    inner = {join.this.alias for join in joins if not join.side and join.kind.upper() != "ANTI"}
    return {select.args["from_"].this.alias} | inner


def _unit_rows(cut: Cut, tail: Tail, estimator: _Estimator) -> int:
    rows = estimator.rows(cut.fragment, with_groups=False)
    group = cut.fragment.args.get("group")
    if cut.way in ("partial", "distinct"):
        rows = min(rows, estimator.groups(cut.groups or (), per_unit=False))
    elif cut.way == "complete" and group is not None:
        rows = estimator.rows(cut.fragment, with_groups=True)
    if cut.way == "complete" and tail.limit is not None:
        rows = min(rows, tail.limit + tail.offset)
    return max(1, math.ceil(rows))


def _restricted(select: exp.Select, drafts: Drafts) -> dict[ColumnId, float]:
    """Return how many values columns may have that are IN the result of a subquery."""
    found = {}
    for each in conjuncts(select.args.get("where")):
        column = column_id(each.this) if isinstance(each, exp.In) else None
        query = each.args.get("query")
        if column is None or query is None or (start := query.unnest().args.get("from_")) is None:
            continue
        table, where = start.this, query.unnest().args.get("where")
        reference = drafts.references.get(table.alias)
        if (step := drafts.steps.get(table.name)) is not None:
            found[column] = max(1.0, step.rows)
        elif reference is not None and table.name == reference.table.name:
            rows = sum(shard.rows for shard in drafts.remaining(table.alias))
            found[column] = max(1.0, rows * selectivity(conjuncts(where)))
    return found


class _Estimator:
    """Estimates rows of a unit."""

    def __init__(
        self,
        drafts: Drafts,
        units: int,
        split: Collection[str],
        restricted: Mapping[ColumnId, float],
    ) -> None:
        self._restricted = restricted
        self._drafts = drafts
        self._units = max(1, units)
        self._split = split

    def rows(self, query: exp.Expr, *, with_groups: bool) -> float:
        """Return the rows of a query in a unit."""
        if isinstance(query, exp.Subquery):
            return self.rows(query.this, with_groups=with_groups)
        if isinstance(query, exp.SetOperation):
            return self.rows(query.this, with_groups=True) + self.rows(
                query.expression, with_groups=True
            )
        start = query.args.get("from_")
        if start is None:
            return 1
        sources = [start.this, *(join.this for join in query.args.get("joins") or ())]
        # Joins follow foreign keys more often than not: each row of the largest table has one match,
        # which the conditions on the other tables may leave out.
        rows = max(self._source(each) for each in sources)
        rows *= selectivity(conjuncts(query.args.get("where")))
        group = query.args.get("group")
        if with_groups and group is not None:
            rows = min(rows, self.groups(group.expressions, per_unit=True))
            if query.args.get("having") is not None:
                rows *= _HAVING
        return rows

    def groups(self, expressions: Iterable[exp.Expr], *, per_unit: bool) -> float:
        """Return the number of groups in a unit."""
        found = math.prod(self._values(each) for each in expressions)
        return found / self._units if per_unit else found

    def _source(self, node: exp.Expr) -> float:
        if not isinstance(node, exp.Table):
            return self.rows(node, with_groups=True) if isinstance(node, exp.Subquery) else 1
        found = self._drafts.references.get(node.alias)
        if found is None or node.name != found.table.name:
            return 1
        if self._split and node.alias not in self._split:
            return 1  # a small side of a join
        rows = sum(shard.rows for shard in self._drafts.remaining(node.alias))
        return rows / self._units

    def _values(self, node: exp.Expr) -> float:
        columns = list(node.find_all(exp.Column))
        if not columns:
            return 1
        found = math.prod(self._column_values(each) for each in columns)
        return found if isinstance(node, exp.Column) else min(found, _UNKNOWN_VALUES)

    def _column_values(self, column: exp.Column) -> float:
        found = self._drafts.references.get(column.table)
        if found is None:
            return _UNKNOWN_VALUES
        values = distinct_values(found.table, column.name, self._drafts.remaining(column.table))
        return min(values, self._restricted.get((column.table, column.name), values))


def _bytes(node: exp.Expr, drafts: Drafts) -> int:
    if isinstance(node, exp.Column) and node.table in drafts.references:
        return width(drafts.references[node.table].table.type_of(node.name) or "")
    if isinstance(node, ExportState):
        return node.size_bytes
    return _SUM_BYTES if isinstance(node, exp.Sum) else _EXPRESSION_BYTES
