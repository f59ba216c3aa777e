"""Cut a SELECT over a split relation into a fragment, which runs on every unit, and a query that merges.

    SELECT o, agg(x) … GROUP BY g HAVING h ORDER BY s LIMIT n

        fragment   SELECT g, partial(x) … GROUP BY g                         each unit
        merge      SELECT o, merged(x), s … GROUP BY g HAVING h              coordinator
        outer      SELECT … ORDER BY s LIMIT n                               coordinator

There are four ways, from the one that moves least to the one that moves most:

| way        | when                                         | a unit computes         |
|------------|----------------------------------------------|-------------------------|
| `complete` | groups, windows, DISTINCT are by the key     | all but ORDER and LIMIT |
| `partial`  | every aggregate follows from those of parts  | partial aggregates      |
| `distinct` | DISTINCT without aggregates and windows      | its own distinct rows   |
| `rows`     | always                                       | FROM and WHERE          |
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from lake.peers.sql.aggregates import Partials, aggregates_of, to_sql
from lake.peers.sql.distribution import is_aggregated, windows_of
from lake.peers.sql.errors import NotDistributed

__all__ = ["PART", "Cut", "Tail", "cut_block", "split_tail"]

PART = "part"
"""The name, in the query that merges, of the table of a fragment's results."""
_AFTER_WHERE = ("expressions", "group", "having", "qualify")


@dataclass(frozen=True, slots=True)
class Tail:
    """What comes after all rows of a SELECT are there.

    Args:
        names: The names of its results.
        order: The keys of ORDER BY, each over a result of the SELECT.
        limit: The number of rows; None for all.
        offset: The number of rows that are left out first.
    """

    names: tuple[str, ...]
    order: tuple[exp.Ordered, ...]
    limit: int | None
    offset: int

    def over(self, source: exp.Query, types: tuple[str, ...] | None = None) -> exp.Select:
        """Return the query that sorts, limits and names the rows of another one.

        Args:
            source: A query whose results are `o0`, `o1` and so on, then the keys of `order`.
            types: What the results are cast to; None to leave them as they are.
        """
        results = []
        for number, name in enumerate(self.names):
            value: exp.Expr = _result(f"o{number}")
            if types is not None:
                value = exp.Cast(this=value, to=exp.var(types[number]))
            results.append(exp.alias_(value, name, quoted=True))
        outer = exp.Select(expressions=results).from_(source.subquery("t", copy=False))
        return self.sorted(outer)

    def sorted(self, select: exp.Select) -> exp.Select:
        """Return a SELECT over these results with their ORDER BY, LIMIT and OFFSET."""
        if self.order:
            select.set("order", exp.Order(expressions=[each.copy() for each in self.order]))
        if self.limit is not None:
            select = select.limit(self.limit, copy=False)
        return select.offset(self.offset, copy=False) if self.offset else select


@dataclass(frozen=True, slots=True)
class Cut:
    """A block in two.

    Args:
        way: How.
        fragment: The query of each unit.
        merge: The query over their results, a table with the alias `p`, without the tail.
        groups: What the rows of the fragment are grouped by; None if it does not aggregate.
        refused: Why there is no way that moves less; None if there is, or that is known otherwise.
    """

    way: str
    fragment: exp.Select
    merge: exp.Select
    groups: tuple[exp.Expr, ...] | None = None
    refused: str | None = None


def split_tail(query: exp.Query) -> tuple[exp.Query, Tail]:
    """Return a query without ORDER BY and LIMIT, whose results are `o0`, `o1`, …, and its tail.

    Raises:
        NotDistributed: The keys of ORDER BY are not computable from the results.
    """
    names = tuple(each.alias_or_name for each in query.selects)
    limit, offset = _number(query.args.get("limit")), _number(query.args.get("offset"))
    order = query.args.get("order")
    body = query.copy()
    for part in ("order", "limit", "offset"):
        body.set(part, None)
    keys: list[exp.Ordered] = list(order.expressions) if order is not None else []
    if isinstance(body, exp.Select):
        ordered = _sort_keys(body, keys)
    else:
        ordered = [_of_result(key, names) for key in keys]
        body = _numbered(body, len(names))
    return body, Tail(names, tuple(ordered), limit, offset or 0)


def cut_block(
    select: exp.Select,
    tail: Tail,
    *,
    reason: str | None,
    aggregates: frozenset[str],
    uses_states: bool,
) -> list[Cut]:
    """Return the ways to compute a SELECT over a split relation, best first.

    Args:
        select: The SELECT without its tail.
        tail: Its tail, by which a fragment that computes all may leave out rows.
        reason: Why a unit cannot compute the SELECT alone; None if it can.
        aggregates: The names of all aggregate functions.
        uses_states: Whether states of aggregates may be sent.
    """
    if reason is None:
        return [_complete(select, tail)]
    cuts = []
    refused = None
    has_groups = is_aggregated(select, aggregates)
    try:
        if has_groups:
            cuts.append(_partial(select, aggregates, uses_states=uses_states))
        elif select.args.get("distinct") is not None and not windows_of(select):
            cuts.append(_distinct(select))
    except NotDistributed as error:
        refused = error.reason
    return [*cuts, replace(_rows(select), refused=refused)]


def _sort_keys(select: exp.Select, keys: list[exp.Ordered]) -> list[exp.Ordered]:
    """Name the results of a SELECT, add the keys of ORDER BY to them, and return these keys."""
    values = [each.unalias() for each in select.expressions]
    known = {to_sql(value): f"o{number}" for number, value in enumerate(values)}
    results = [exp.alias_(value, f"o{number}", quoted=True) for number, value in enumerate(values)]
    ordered = []
    for key in keys:
        text = to_sql(key.this)
        if text not in known:
            if select.args.get("distinct") is not None:
                raise NotDistributed("ORDER BY of DISTINCT rows by something else")
            known[text] = f"s{len(results)}"
            results.append(exp.alias_(key.this.copy(), known[text], quoted=True))
        copied = key.copy()
        copied.set("this", _result(known[text]))
        ordered.append(copied)
    select.set("expressions", results)
    return ordered


def _of_result(key: exp.Ordered, names: tuple[str, ...]) -> exp.Ordered:
    """Return a key of a set operation's ORDER BY by the number of its result."""
    node = key.this
    copied = key.copy()
    if isinstance(node, exp.Literal) and not node.is_string:
        copied.set("this", _result(f"o{int(node.this) - 1}"))
        return copied
    if isinstance(node, exp.Column) and names.count(node.name) == 1:
        copied.set("this", _result(f"o{names.index(node.name)}"))
        return copied
    raise NotDistributed("ORDER BY of a set operation by something other than a result")


def _numbered(body: exp.Query, count: int) -> exp.Query:
    """Return a set operation with the names `o0`, `o1` and so on."""
    alias = exp.TableAlias(
        this=exp.to_identifier("t", quoted=True),
        columns=[exp.to_identifier(f"o{number}", quoted=True) for number in range(count)],
    )
    return exp.select("*").from_(exp.Subquery(this=body, alias=alias))


def _number(node: exp.Expr | None) -> int | None:
    return None if node is None else int(node.expression.this)


def _result(name: str) -> exp.Column:
    return exp.column(name, table="t", quoted=True)


def _part() -> exp.Table:
    return exp.Table(
        this=exp.to_identifier(PART, quoted=True),
        alias=exp.TableAlias(this=exp.to_identifier("p", quoted=True)),
    )


def _complete(select: exp.Select, tail: Tail) -> Cut:
    fragment = select.copy()
    names = [each.alias for each in select.expressions]
    is_plain = select.args.get("distinct") is None and tail.limit is not None
    if is_plain:
        # Each unit sends the first rows only: those of all units are among them. Its keys are
        # results, which ORDER BY finds by their names.
        sort = [each.copy() for each in tail.order]
        for key in sort:
            key.set("this", exp.column(key.this.name, quoted=True))
        wanted = Tail(tail.names, tuple(sort), (tail.limit or 0) + tail.offset, 0)
        fragment = wanted.sorted(fragment)
    return Cut("complete", fragment, _all_of(names))


def _all_of(names: list[str]) -> exp.Select:
    columns = [
        exp.alias_(exp.column(name, table="p", quoted=True), name, quoted=True) for name in names
    ]
    return exp.Select(expressions=columns).from_(_part())


def _distinct(select: exp.Select) -> Cut:
    names = [each.alias for each in select.expressions]
    merge = _all_of(names)
    merge.set("distinct", exp.Distinct())
    values = tuple(each.unalias() for each in select.expressions)
    return Cut("distinct", select.copy(), merge, values)


def _partial(select: exp.Select, aggregates: frozenset[str], *, uses_states: bool) -> Cut:
    partials = Partials(uses_states)
    for each in _groups(select):
        partials.group(each)
    count = len(partials.groups)
    own = {id(node) for node in aggregates_of(select, aggregates)}
    merge = exp.Select()
    for key in ("expressions", "having", "qualify"):
        found = select.args.get(key)
        if isinstance(found, list):
            merge.set(key, [partials.replaced(each, lambda n: id(n) in own) for each in found])
        elif found is not None:
            merge.set(key, partials.replaced(found, lambda n: id(n) in own))
    merge = merge.from_(_part())
    if select.args.get("group") is not None:
        columns = [exp.column(f"g{number}", table="p", quoted=True) for number in range(count)]
        merge.set("group", exp.Group(expressions=columns))
    if select.args.get("distinct") is not None:
        merge.set("distinct", exp.Distinct())
    fragment = _source(select)
    results = [exp.alias_(each, f"g{n}", quoted=True) for n, each in enumerate(partials.groups)]
    results += [exp.alias_(each, f"a{n}", quoted=True) for n, each in enumerate(partials.columns)]
    # A SELECT has a result, even if the query needs none: `SELECT 1 FROM t HAVING true`.
    fragment.set("expressions", results or [exp.alias_(exp.Literal.number(1), "a0", quoted=True)])
    if partials.groups:
        fragment.set("group", exp.Group(expressions=[each.copy() for each in partials.groups]))
    return Cut("partial", fragment, merge, tuple(partials.groups))


def _groups(select: exp.Select) -> list[exp.Expr]:
    """Return the expressions of GROUP BY."""
    group = select.args.get("group")
    if group is None:
        return []
    if any(group.args.get(each) for each in ("rollup", "cube", "grouping_sets")):
        raise NotDistributed("GROUPING SETS are not distributed")
    if any(each.find(exp.Column) is None for each in group.expressions):
        raise NotDistributed("GROUP BY of a constant")
    return list(group.expressions)


def _rows(select: exp.Select) -> Cut:
    """Return the way that moves the columns which the SELECT needs of FROM and WHERE."""
    merge = select.copy()
    sources = [select.args["from_"].this, *(join.this for join in select.args.get("joins") or ())]
    aliases = {each.alias for each in sources}
    names: dict[tuple[str, str], str] = {}
    for key in _AFTER_WHERE:
        found = merge.args.get(key)
        for node in found if isinstance(found, list) else [found] if found is not None else []:
            for column in node.find_all(exp.Column):
                if column.table in aliases:
                    name = names.setdefault((column.table, column.name), f"c{len(names)}")
                    column.set("table", exp.to_identifier("p", quoted=True))
                    column.set("this", exp.to_identifier(name, quoted=True))
    for key in ("joins", "where"):
        merge.set(key, None)
    merge.set("from_", exp.From(this=_part()))
    fragment = _source(select)
    fragment.set(
        "expressions",
        [
            exp.alias_(exp.column(column, table=table, quoted=True), name, quoted=True)
            for (table, column), name in names.items()
        ]
        or [exp.alias_(exp.Literal.number(1), "c0", quoted=True)],
    )
    return Cut("rows", fragment, merge)


def _source(select: exp.Select) -> exp.Select:
    """Return FROM and WHERE of a SELECT."""
    kept = {key: select.args.get(key) for key in ("from_", "joins", "where")}
    result = exp.Select()
    for key, value in kept.items():
        if isinstance(value, list):
            result.set(key, [each.copy() for each in value])
        elif value is not None:
            result.set(key, value.copy())
    return result
