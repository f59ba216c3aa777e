"""Prove that a query over all rows is the union of the same query over each unit.

A *scheme* (`schemes`) says which tables of a query are split into units, by their names in FROM, and which
tables the nodes that run these have whole; every other table becomes whole first. A relation is then one of

    whole (None)     the same on each node
    split (a set)    all its rows are those of the units together, each in one unit; the set has the
                     columns whose value decides the unit: the partition key, and what equals it

and the rules below derive it from the leaves up. What they do not cover raises `NotDistributed`, and
then a part that does not depend on the rest is computed first and becomes whole, or a table is sent whole.

    split × whole, split LEFT whole, split SEMI/ANTI whole      split
    split × split, LEFT, SEMI, ANTI, on equal keys              split
    GROUP BY, DISTINCT, windows by the key                      split
    UNION ALL of split; UNION, INTERSECT, EXCEPT by the key     split
    subqueries whose rows are those of the outer row's key      as their outer query
    x IN (split by its column), where x is the outer key        as their outer query
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from lake.peers.sql.aggregates import aggregates_of, depends_on_order
from lake.peers.sql.equalities import ColumnId, Equalities, column_id
from lake.peers.sql.errors import NotDistributed
from lake.peers.sql.schemes import Scheme
from lake.peers.sql.syntax import Query
from lake.peers.sql.trees import conjuncts, free_aliases, subqueries_of

__all__ = ["Keys", "Localizer", "WholeTables", "is_aggregated", "reads_away", "windows_of"]

Keys = frozenset[ColumnId]


@dataclass(frozen=True, slots=True)
class WholeTables:
    """How a table becomes whole on the nodes.

    Args:
        query: Computes a query first; returns the name of its result.
        table: Gathers the table of that name in FROM; returns the name of its rows.
    """

    query: Callable[[exp.Query], str]
    table: Callable[[str], str]


def is_aggregated(select: exp.Select, aggregates: frozenset[str]) -> bool:
    """Return whether a SELECT has groups, or is one."""
    has_groups = any(select.args.get(each) is not None for each in ("group", "having"))
    return has_groups or bool(aggregates_of(select, aggregates))


def windows_of(select: exp.Select) -> list[exp.Window]:
    """Return the window functions of a SELECT itself."""
    return [
        node
        for node in select.walk(
            prune=lambda each: isinstance(each, exp.Query) and each is not select
        )
        if isinstance(node, exp.Window)
    ]


class Localizer:
    """Derives how the parts of a query are distributed, and changes those that must become whole.

    Args:
        query: The query that is planned.
        scheme: What is split.
        whole: How something else becomes whole.
    """

    def __init__(self, query: Query, scheme: Scheme, whole: WholeTables) -> None:
        self._query = query
        self._key_types: dict[ColumnId, str | None] = {}
        self._scheme = scheme
        self._whole = whole
        types = (self._type_of((alias, key)) for alias, key in scheme.keys.items() if key)
        self._key_type = next(types, None)

    def source(self, select: exp.Select, outer: Keys = frozenset()) -> tuple[Keys | None, bool]:
        """Derive how the rows of FROM and WHERE are distributed, and change these in place.

        Args:
            select: The SELECT.
            outer: The columns of outer queries that decide the unit.

        Returns:
            Its keys, or None if it is whole; and whether each outer row sees only rows of its unit.

        Raises:
            NotDistributed: No rule applies.
        """
        start, joins = select.args.get("from_"), select.args.get("joins") or ()
        keys = None if start is None else self._item(start.this)
        items = [self._item(join.this) for join in joins]
        equal = Equalities(self._type_of)  # now, as it asks for the types of what is in FROM
        equal.add(select.args.get("where"))
        for join in joins:
            if not join.side and join.kind in ("", "INNER", "CROSS"):
                equal.add(join.args.get("on"))
        for join, item in zip(joins, items, strict=True):
            keys = self._join(keys, join, item, equal)
        keys = None if keys is None else equal.closure(keys)
        is_matched = keys is None or bool(keys & outer)
        self._subqueries(select, keys, outer)
        return keys, is_matched

    def query(self, node: exp.Expr, outer: Keys = frozenset()) -> frozenset[str] | None:
        """Derive how a query's result is distributed, and change its parts in place.

        Returns:
            The columns of the result that decide the unit, or None if the result is whole.

        Raises:
            NotDistributed: No rule applies, or its rows may differ between nodes.
        """
        node = node.unnest() if isinstance(node, exp.Subquery) else node
        if node.args.get("limit") or node.args.get("offset"):
            raise NotDistributed("LIMIT in a subquery is the same on all nodes only if they agree")
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer)
        if not isinstance(node, exp.Select):
            raise NotDistributed("a part of the query is no SELECT")
        keys, _ = self.source(node, outer)
        return None if keys is None else self._result(node, keys)

    def is_local(self, select: exp.Select, keys: Keys) -> str | None:
        """Return None if units compute groups, windows and DISTINCT alone; else what they cannot."""
        group = select.args.get("group")
        if is_aggregated(select, self._query.engine.aggregates):
            expressions = group.expressions if group is not None else ()
            sets = group is not None and any(
                group.args.get(each) for each in ("rollup", "cube", "grouping_sets")
            )
            if sets or not any(column_id(each) in keys for each in expressions):
                return "groups are not by the partition key"
        for window in windows_of(select):
            partition = window.args.get("partition_by") or ()
            if not any(column_id(each) in keys for each in partition):
                return "a window is not partitioned by the partition key"
        if select.args.get("distinct") is not None and not self._outputs(select, keys):
            return "DISTINCT does not include the partition key"
        return None

    def _type_of(self, column: ColumnId) -> str | None:
        if column in self._key_types:
            return self._key_types[column]
        table = self._query.sources.get(column[0])
        return None if table is None else table.type_of(column[1])

    def _item(self, node: exp.Expr) -> Keys | None:
        match node:
            case exp.Table():
                return self._table(node)
            case exp.Subquery():
                columns = self._derived(node)
                if columns is None:
                    return None
                found = frozenset((node.alias, column) for column in columns)
                # All keys of a scheme have one type, also where they are results of a subquery.
                self._key_types |= dict.fromkeys(found, self._key_type)
                return found
            case exp.Values():
                return None
        raise NotDistributed("something in FROM is not distributed")

    def _table(self, node: exp.Table) -> Keys | None:
        alias = node.alias
        if alias not in self._query.sources:
            if node.name in self._query.ctes:
                node.set("this", _name(self._whole.query(self._query.ctes[node.name])))
            return None
        if alias in self._scheme.keys:
            key = self._scheme.keys[alias]
            return frozenset() if key is None else frozenset(((alias, key),))
        if self._is_away(alias):
            node.set("this", _name(self._whole.table(alias)))
        return None

    def _derived(self, node: exp.Subquery) -> frozenset[str] | None:
        inner = node.this
        if free_aliases(inner):
            raise NotDistributed("a table in FROM depends on another")
        if self._reads_split(inner):
            attempt = inner.copy()
            try:
                columns = self.query(attempt)
                inner.replace(attempt)
            except NotDistributed:
                pass
            else:
                return columns
        elif not self._reads_away(inner) and not self._differs(inner):
            return None
        alias = node.args["alias"]
        node.replace(exp.Table(this=_name(self._whole.query(inner)), alias=alias.copy()))
        return None

    def _join(
        self, left: Keys | None, join: exp.Join, right: Keys | None, equal: Equalities
    ) -> Keys | None:
        on = join.args.get("on")
        if on is not None and any(True for _ in subqueries_of(on)):
            raise NotDistributed("a subquery in ON is not distributed")
        side, kind = join.side.upper(), join.kind.upper()
        filters = side == "LEFT" or kind in ("SEMI", "ANTI")
        if side == "FULL" or (side == "RIGHT" and left is not None):
            if left is None and right is None:
                return None
            raise NotDistributed(f"a sharded table is on a side that {side} JOIN fills with NULL")
        if side == "RIGHT":
            return right
        if right is None:
            return left
        if left is None:
            if filters:
                raise NotDistributed("a sharded table is joined to one that all nodes have whole")
            return right
        here = Equalities(self._type_of)
        here.add(on)
        matched = here if filters else equal
        if not any(matched.of(key) & right for key in equal.closure(left)):
            raise NotDistributed("sharded tables are not joined on their partition keys")
        return left if filters else left | right

    def _subqueries(self, select: exp.Select, keys: Keys | None, outer: Keys) -> None:
        """Make the subqueries in the expressions of a SELECT computable in each unit."""
        tops = {id(each) for each in conjuncts(select.args.get("where"))}
        known = outer | (keys or frozenset())
        for part in ("expressions", "where", "group", "having", "qualify", "order"):
            found = select.args.get(part)
            for node in found if isinstance(found, list) else [found] if found else []:
                for inner in list(subqueries_of(node)):
                    self._subquery(inner, known, tops)

    def _subquery(self, inner: exp.Query, known: Keys, tops: set[int]) -> None:
        is_correlated = bool(free_aliases(inner))
        if not self._reads_split(inner):
            if self._reads_away(inner) or self._differs(inner):
                self._make_whole(inner, is_correlated=is_correlated)
            return
        attempt = inner.copy()
        try:
            if is_correlated:
                self._correlated(attempt, known)
            else:
                self._member(inner, attempt, known, tops)
        except NotDistributed:
            self._make_whole(inner, is_correlated=is_correlated)
        else:
            inner.replace(attempt)

    def _correlated(self, inner: exp.Query, known: Keys) -> None:
        """Check that a subquery reads rows of the unit of the outer row only."""
        if not isinstance(inner, exp.Select):
            raise NotDistributed("a correlated set operation is not distributed")
        _, is_matched = self.source(inner, known)
        if not is_matched:
            raise NotDistributed("a subquery is not correlated by the partition key")

    def _member(self, inner: exp.Query, attempt: exp.Query, known: Keys, tops: set[int]) -> None:
        """Check that a subquery is that of `key IN (…)`, which rows of one unit decide."""
        parent = inner.parent
        while isinstance(parent, exp.Subquery):
            parent = parent.parent
        # NOT IN is NULL for every row if the subquery has one NULL, in any unit.
        if not isinstance(parent, exp.In) or id(parent) not in tops:
            raise NotDistributed("a subquery reads all rows of a sharded table")
        columns = self.query(attempt)
        first = attempt.selects[0].alias_or_name
        if columns is None or first not in columns or column_id(parent.this) not in known:
            raise NotDistributed("IN does not compare partition keys")

    def _make_whole(self, inner: exp.Query, *, is_correlated: bool) -> None:
        if not is_correlated:
            name = self._whole.query(inner)
            table = exp.Table(
                this=_name(name), alias=exp.TableAlias(this=exp.to_identifier("r", quoted=True))
            )
            inner.replace(exp.select("*").from_(table))
            return
        self._compute_derived(inner)
        for table in list(inner.find_all(exp.Table)):
            if table.name in self._query.ctes:
                table.set("this", _name(self._whole.query(self._query.ctes[table.name])))
            elif table.alias in self._query.sources and self._is_away(table.alias):
                table.set("this", _name(self._whole.table(table.alias)))

    def _compute_derived(self, inner: exp.Query) -> None:
        """Compute queries in FROM of a correlated subquery first, instead of gathering their tables."""
        start = inner.args.get("from_")
        for each in (start, *(inner.args.get("joins") or ())) if start is not None else ():
            node = each.this
            if isinstance(node, exp.Subquery) and self._reads_away(node):
                if free_aliases(node.this):
                    continue
                name, alias = self._whole.query(node.this), node.args["alias"]
                node.replace(exp.Table(this=_name(name), alias=alias.copy()))

    def _set_operation(self, node: exp.SetOperation, outer: Keys) -> frozenset[str] | None:
        left, right = self.query(node.this, outer), self.query(node.expression, outer)
        if left is None and right is None:
            return None
        if left is None or right is None:
            raise NotDistributed("a set operation combines a sharded table with a whole one")
        one = [each.alias_or_name for each in node.this.selects]
        other = [each.alias_or_name for each in node.expression.selects]
        keys = {a for a, b in zip(one, other, strict=False) if a in left and b in right}
        is_bag_union = isinstance(node, exp.Union) and not node.args.get("distinct")
        if not keys and not is_bag_union:
            raise NotDistributed("a set operation does not include the partition key")
        return frozenset(keys)

    def _result(self, select: exp.Select, keys: Keys) -> frozenset[str]:
        reason = self.is_local(select, keys)
        if reason is not None:
            raise NotDistributed(reason)
        return self._outputs(select, keys)

    def _outputs(self, select: exp.Select, keys: Keys) -> frozenset[str]:
        """Return the names of results that are one of the keys, and of no other result."""
        names = Counter(each.alias_or_name for each in select.expressions)
        return frozenset(
            each.alias_or_name
            for each in select.expressions
            if column_id(each.unalias()) in keys and names[each.alias_or_name] == 1
        )

    def _reads_split(self, node: exp.Expr) -> bool:
        return any(table.alias in self._scheme.keys for table in node.find_all(exp.Table))

    def _differs(self, node: exp.Expr) -> bool:
        # All units have to agree, which a single one does.
        return self._scheme.by != "node" and _may_differ(node, self._query.engine.aggregates)

    def _is_away(self, alias: str) -> bool:
        return self._query.sources[alias].name not in self._scheme.whole

    def _reads_away(self, node: exp.Expr) -> bool:
        return reads_away(self._query, node, self._scheme.whole)


def reads_away(query: Query, node: exp.Expr, whole: frozenset[str]) -> bool:
    """Return whether a part of a query reads more than some tables, or a CTE that is computed once."""
    for table in node.find_all(exp.Table):
        source = query.sources.get(table.alias)
        if (source is not None and source.name not in whole) or table.name in query.ctes:
            return True
    return False


def _may_differ(node: exp.Expr, aggregates: frozenset[str]) -> bool:
    """Return whether a query over the same rows may have another result on another node.

    Ties in an order are broken by the order of rows, which threads decide.
    """
    if node.find(exp.Limit, exp.Offset, exp.Window) is not None:
        return True
    return any(
        depends_on_order(found)
        for select in node.find_all(exp.Select)
        for found in aggregates_of(select, aggregates)
    )


def _name(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=True)
