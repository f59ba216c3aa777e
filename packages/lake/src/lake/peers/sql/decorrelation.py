"""Rewrite correlated subqueries so that what they read of a split table is a query that depends on no other.

    x > (SELECT f(sum(t.v)) FROM t WHERE t.k = o.k AND local)
    x > (SELECT f(d.v0) FROM (SELECT t.k AS k0, sum(t.v) AS v0 FROM t
                              WHERE local AND t.k IN (SELECT o.k FROM o WHERE its own conditions)
                              GROUP BY t.k) AS d WHERE d.k0 = o.k)

    EXISTS (SELECT … FROM t WHERE t.k = o.k AND local)
    EXISTS (SELECT 1 FROM (SELECT DISTINCT t.k AS k0 FROM t WHERE local AND …) AS d WHERE d.k0 = o.k)

The units compute the derived table `d`, as any other (`blocks`), and its rows are few where the outer query
has conditions. Both forms are equal for all rows, also with NULL and without rows:

- `t.k = o.k` is never true for a NULL, so the group of NULL is never read.
- A row of the outer query reads at most one group: the compared columns have one type, whose equality is
  that by which GROUP BY collects. So no type with NaN, two zeros or a collation is rewritten.
- Without a group the subquery has no row, which is NULL. So `f` has to be NULL over no rows: arithmetic of
  sum, avg, min and max, and not of count.
- The condition by IN leaves out groups that no row of the outer query reads: a row that WHERE keeps meets all
  of its conjuncts, so also those about `o` alone.

The transformation is that of Kim (1982) with the restriction by outer values of Seshadri et al. (1996, "magic").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from sqlglot import exp

from lake.peers.sql.aggregates import aggregates_of
from lake.peers.sql.distribution import is_aggregated, windows_of
from lake.peers.sql.equalities import ColumnId, column_id
from lake.peers.sql.syntax import Query
from lake.peers.sql.trees import conjuncts, free_aliases, subqueries_of

__all__ = ["decorrelated"]

_KEY_TYPES = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER",
     "UBIGINT", "DATE", "BOOLEAN", "UUID", "VARCHAR")
)  # fmt: skip
_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Neg, exp.Paren)
_AROUND = (exp.Binary, exp.Between, exp.Neg)
"""What a scalar subquery is part of. IN, ANY, ALL and EXISTS tell a NULL from no row."""
_STRICT = (exp.Sum, exp.Avg, exp.Min, exp.Max)
_CLAUSES = ("joins", "group", "having", "qualify", "order", "limit", "offset", "distinct", "with_")
Correlation = tuple[exp.Column, exp.Column]


def decorrelated(query: Query, *, uses_states: bool) -> Query | None:
    """Return a query with the same result; None if it has no subquery that can be rewritten.

    Args:
        query: The query, which stays as it is.
        uses_states: Whether states of aggregates may be sent. Without them the average of all rows may differ
            from that of DuckDB in its last digit, which decides a comparison with an equal number.
    """
    result = replace(query, tree=query.tree.copy(), sources=dict(query.sources))
    rewriting = _Rewriting(result, uses_states=uses_states)
    found = [rewriting.select(each) for each in list(result.tree.find_all(exp.Select))]
    return result if any(found) else None


class _Rewriting:
    """Rewrites the subqueries of one query in place.

    Args:
        query: The query.
        uses_states: See `decorrelated`.
    """

    def __init__(self, query: Query, *, uses_states: bool) -> None:
        self._query = query
        self._uses_states = uses_states
        trees = (query.tree, *query.ctes.values())
        used = {each.name for tree in trees for each in tree.find_all(exp.Identifier)}
        self._names = (name for n in count() if (name := f"d{n}") not in used)

    def select(self, outer: exp.Select) -> bool:
        """Rewrite the subqueries in WHERE of a SELECT; return whether there are such."""
        found = False
        for condition in conjuncts(outer.args.get("where")):
            for inner in list(subqueries_of(condition)):
                if isinstance(inner, exp.Select) and free_aliases(inner):
                    rewritten = self._rewritten(inner, outer)
                    if rewritten is not None:
                        inner.replace(rewritten)
                        found = True
        return found

    def _rewritten(self, inner: exp.Select, outer: exp.Select) -> exp.Select | None:
        """Return what replaces a correlated subquery; None if it stays."""
        table = self._only_table(inner)
        if table is None:
            return None
        parts = self._split_where(inner, table.alias)
        if parts is None:
            return None
        keys, local = parts
        is_exists = isinstance(inner.parent, exp.Exists)
        if is_exists and not is_aggregated(inner, self._query.engine.aggregates):
            values: list[exp.Expr] | None = []
        else:
            values = None if is_exists else self._strict_aggregates(inner, table.alias)
        if values is None:
            return None
        derived = self._derived(table, keys, local, values, outer)
        return self._over(derived, inner, keys, values)

    def _only_table(self, inner: exp.Select) -> exp.Table | None:
        """Return the table of a subquery that has no other clause than FROM and WHERE."""
        start = inner.args.get("from_")
        if start is None or any(inner.args.get(each) for each in _CLAUSES) or windows_of(inner):
            return None
        table = start.this
        is_known = isinstance(table, exp.Table) and table.alias in self._query.sources
        return table if is_known else None

    def _split_where(
        self, inner: exp.Select, alias: str
    ) -> tuple[list[Correlation], list[exp.Expr]] | None:
        """Return the compared columns, those of the table first, and conditions of the table alone."""
        keys: list[Correlation] = []
        local: list[exp.Expr] = []
        for each in conjuncts(inner.args.get("where")):
            tables = {column.table for column in each.find_all(exp.Column)}
            if any(True for _ in subqueries_of(each)):
                return None
            if tables <= {alias}:
                local.append(each)
            elif (pair := self._correlation(each, alias)) is not None:
                keys.append(pair)
            else:
                return None
        return (keys, local) if keys else None

    def _correlation(self, node: exp.Expr, alias: str) -> Correlation | None:
        while isinstance(node, exp.Paren):
            node = node.this
        if not isinstance(node, exp.EQ):
            return None
        left, right = node.this.unnest(), node.expression.unnest()
        if isinstance(right, exp.Column) and right.table == alias:
            left, right = right, left
        own, other = column_id(left), column_id(right)
        if own is None or other is None or own[0] != alias or other[0] == alias:
            return None
        kind = self._type_of(own)
        is_exact = kind in _KEY_TYPES and kind == self._type_of(other)
        return (left, right) if is_exact else None

    def _type_of(self, column: ColumnId) -> str | None:
        table = self._query.sources.get(column[0])
        return None if table is None else table.type_of(column[1])

    def _strict_aggregates(self, inner: exp.Select, alias: str) -> list[exp.Expr] | None:
        """Return the aggregates of a scalar subquery that is NULL over no rows; None if it may not be."""
        parent = inner.parent
        if not isinstance(parent, exp.Subquery) or not isinstance(parent.parent, _AROUND):
            return None
        if len(inner.expressions) != 1:
            return None
        value = inner.expressions[0].unalias()
        found = aggregates_of(value, self._query.engine.aggregates)
        inside = {id(node) for each in found for node in each.walk()}
        is_strict = all(
            id(node) in inside or isinstance(node, (*_ARITHMETIC, exp.Literal))
            for node in value.walk()
        )
        if not found or not is_strict or not all(self._is_plain(each, alias) for each in found):
            return None
        return found

    def _is_plain(self, aggregate: exp.Expr, alias: str) -> bool:
        """Return whether an aggregate is NULL over no rows, of a column of the table."""
        is_known = isinstance(aggregate, _STRICT) and not aggregate.args.get("expressions")
        if not is_known or (isinstance(aggregate, exp.Avg) and not self._uses_states):
            return False
        column = column_id(aggregate.this)
        kind = None if column is None or column[0] != alias else self._type_of(column)
        # Sums of floats depend on the order of rows, and may decide a comparison.
        return kind is not None and (kind in _KEY_TYPES or kind.startswith("DECIMAL"))

    def _derived(
        self,
        table: exp.Table,
        keys: Sequence[Correlation],
        local: Sequence[exp.Expr],
        values: Sequence[exp.Expr],
        outer: exp.Select,
    ) -> exp.Select:
        """Return the query of the groups that rows of the outer query may read."""
        results = [_named(own, f"k{number}") for number, (own, _) in enumerate(keys)]
        results += [_named(value, f"v{number}") for number, value in enumerate(values)]
        found = exp.Select(expressions=results).from_(table.copy())
        conditions = [each.copy() for each in local]
        conditions += [c for own, other in keys for c in self._restrictions(own, other, outer)]
        if conditions:
            found = found.where(*conditions, copy=False)
        if values:
            found.set("group", exp.Group(expressions=[own.copy() for own, _ in keys]))
        else:
            found.set("distinct", exp.Distinct())
        return found

    def _restrictions(
        self, own: exp.Column, other: exp.Column, outer: exp.Select
    ) -> Iterator[exp.Expr]:
        """Yield the condition that a key is one of the outer query's, as far as one table decides that."""
        starts = (outer.args.get("from_"), *(outer.args.get("joins") or ()))
        tables = [each.this for each in starts if each is not None]
        source = next((t for t in tables if t.alias == other.table), None)
        if not isinstance(source, exp.Table) or source.alias not in self._query.sources:
            return
        conditions = [
            each.copy()
            for each in conjuncts(outer.args.get("where"))
            if free_aliases(each) == {source.alias}
            and not any(free_aliases(inner) for inner in subqueries_of(each))
        ]
        if not conditions:  # all of its rows, which leaves out little
            return
        select = exp.Select(expressions=[other.copy()]).from_(source.copy())
        select = select.where(*conditions, copy=False)
        if self._rename(select):
            yield exp.In(this=own.copy(), query=exp.Subquery(this=select))

    def _rename(self, select: exp.Select) -> bool:
        """Give new names to all tables of a copy of a part of the query; False if one has no table."""
        names: dict[str, str] = {}
        for node in select.find_all(exp.Table, exp.Subquery, exp.Values):
            if not node.alias:
                continue
            if not isinstance(node, exp.Table) or node.alias not in self._query.sources:
                return False
            names[node.alias] = next(self._names)
            self._query.sources[names[node.alias]] = self._query.sources[node.alias]
            node.args["alias"].set("this", exp.to_identifier(names[node.alias], quoted=True))
        for column in select.find_all(exp.Column):
            if column.table not in names:
                return False
            column.set("table", exp.to_identifier(names[column.table], quoted=True))
        return True

    def _over(
        self,
        derived: exp.Select,
        inner: exp.Select,
        keys: Sequence[Correlation],
        values: Sequence[exp.Expr],
    ) -> exp.Select:
        """Return the correlated subquery that reads one group."""
        name = next(self._names)
        numbers = {id(value): number for number, value in enumerate(values)}

        def read(node: exp.Expr) -> exp.Expr:
            return exp.column(f"v{numbers[id(node)]}", table=name, quoted=True)

        if values:
            result: exp.Expr = inner.expressions[0].transform(
                lambda node: read(node) if id(node) in numbers else node, copy=False
            )
        else:
            result = _named(exp.Literal.number(1), "found")
        compared = [
            exp.EQ(this=exp.column(f"k{n}", table=name, quoted=True), expression=other.copy())
            for n, (_, other) in enumerate(keys)
        ]
        alias = exp.TableAlias(this=exp.to_identifier(name, quoted=True))
        found = exp.Select(expressions=[result]).from_(exp.Subquery(this=derived, alias=alias))
        return found.where(*compared, copy=False)


def _named(node: exp.Expr, name: str) -> exp.Expr:
    return exp.alias_(node.copy(), name, quoted=True)
