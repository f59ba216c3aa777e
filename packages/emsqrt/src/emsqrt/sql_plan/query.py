"""Convert a SELECT to a plan, clause by clause in the order in which SQL evaluates them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlglot import exp

from emsqrt.expr import Agg, Column, Expr, Literal
from emsqrt.plan import (
    Aggregate,
    Distinct,
    Filter,
    Limit,
    Plan,
    Project,
    Sort,
    SortKey,
    TopK,
    Union,
    Window,
    WindowCall,
)
from emsqrt.sql_plan.errors import fail, refuse
from emsqrt.sql_plan.expressions import AGGREGATES, Converter, key_of
from emsqrt.sql_plan.scope import Scope, fresh, kept
from emsqrt.sql_plan.sources import Sources
from emsqrt.sql_plan.windows import open_window

Node: TypeAlias = Any
Tables: TypeAlias = "dict[str, Plan]"
ALL = 2**53 - 1
"""More rows than any input has: the count of OFFSET without LIMIT."""
_REFUSED = (
    "sample",
    "laterals",
    "pivots",
    "match",
    "prewhere",
    "cluster",
    "sort",
    "connect",
    "kind",
)


def query_plan(node: Node, tables: Tables, text: str) -> Plan:
    """Return the plan of a query: a SELECT, or SELECTs joined by UNION.

    Args:
        node: the syntax tree.
        tables: what it may read from, by name.
        text: the statement, for positions in errors.

    Raises:
        SqlError: an unknown or ambiguous name; an aggregate where none is allowed.
        Unsupported: a construct outside of the covered subset, with its name and position.
    """
    known = dict(tables)
    with_ = node.args.get("with_")
    if with_ is not None:
        if with_.args.get("recursive"):
            refuse(with_, text, "WITH RECURSIVE")
        for each in with_.expressions:
            plan = query_plan(each.this, known, text)
            known[each.alias] = _named(plan, each, text)
    if isinstance(node, exp.Subquery):
        if node.args.get("limit") or node.args.get("order"):
            refuse(node, text, "an order or a limit outside of the brackets")
        return query_plan(node.this, known, text)
    if isinstance(node, exp.SetOperation):
        return _union(node, known, text)
    if not isinstance(node, exp.Select):
        refuse(node, text, type(node).__name__.upper())
    return _Select(node, known, text).plan()


def _named(plan: Plan, cte: Node, text: str) -> Plan:
    """Apply the column names of `WITH t(a, b) AS …`."""
    names = [each.name for each in cte.args["alias"].args.get("columns") or []]
    if not names:
        return plan
    from emsqrt.plan import check

    held = check(plan).names
    if len(names) != len(held):
        fail(cte, text, f"{len(names)} names for {len(held)} columns")
    return Project(plan, tuple((n, Column(h)) for n, h in zip(names, held, strict=True)))


def _union(node: Node, tables: Tables, text: str) -> Plan:
    if not isinstance(node, exp.Union):
        refuse(node, text, type(node).__name__.upper())
    left = query_plan(node.this, tables, text)
    right = query_plan(node.expression, tables, text)
    plan: Plan = Union((left, right), bool(node.args.get("by_name")))
    if node.args.get("distinct"):
        plan = Distinct(plan)
    from emsqrt.sql_plan.scope import scope_of

    scope = scope_of(plan, "")
    convert = Converter(text, lambda each: scope.column(each, text))
    names = [each.held for each in scope.columns]
    keys = [_sort_key(each, convert, names, text) for each in _ordered(node)]
    return _limited(plan, keys, node, text)


@dataclass(slots=True)
class _Select:
    """One SELECT being converted to a plan."""

    node: Node
    tables: Tables
    text: str
    scope: Scope = field(init=False)
    convert: Converter = field(init=False)

    def plan(self) -> Plan:
        self._refuse_the_rest()
        sources = Sources(
            self.text, self.tables, lambda node, tables: query_plan(node, tables, self.text)
        )
        self.scope, conditions = sources.read(self.node)
        self.convert = Converter(self.text, self._column)
        plan = self.scope.plan
        for condition in conditions:
            plan = Filter(plan, self.convert(condition))
        outputs = self._outputs()
        order = [self._meant(each, outputs) for each in _ordered(self.node)]
        wanted = [*(node for _, node in outputs), *(each.this for each in order)]
        having, qualify = (self._condition(key, outputs) for key in ("having", "qualify"))
        plan = self._grouped(plan, [*wanted, *having, *qualify], outputs)
        for condition in having:
            plan = Filter(plan, self.convert(condition))
        plan = self._windowed(plan, [*wanted, *qualify])
        for condition in qualify:
            plan = Filter(plan, self.convert(condition))
        return self._finished(plan, outputs, order)

    def _condition(self, key: str, outputs: list[tuple[str, Node]]) -> list[Node]:
        """Return the condition of HAVING or QUALIFY with aliases replaced, if there is one."""
        clause = self.node.args.get(key)
        if clause is None:
            return []

        def replaced(node: Node) -> Node:
            if not isinstance(node, exp.Column) or node.table:
                return node
            meant = self._pointed(node, outputs)
            return node if meant is node else exp.paren(meant.copy())

        return [clause.this.copy().transform(replaced)]

    def _refuse_the_rest(self) -> None:
        for key in _REFUSED:
            if self.node.args.get(key):
                refuse(self.node, self.text, key.upper())
        for each in self.node.find_all(exp.Exists, exp.Unnest, exp.Lateral):
            refuse(each, self.text, type(each).__name__.upper(), "write a join")
        distinct = self.node.args.get("distinct")
        if distinct is not None and distinct.args.get("on"):
            refuse(distinct, self.text, "DISTINCT ON")

    def _column(self, node: Node) -> Expr:
        return self.scope.column(node, self.text)

    # SELECT -----------------------------------------------------------------------------------

    def _outputs(self) -> list[tuple[str, Node]]:
        """Return the names and expressions of the result, with every `*` expanded."""
        made: list[tuple[str, Node]] = []
        for each in self.node.expressions:
            star = each.this if isinstance(each, exp.Column) else each
            if isinstance(star, exp.Star):
                if any(star.args.get(key) for key in ("except_", "replace", "rename")):
                    refuse(each, self.text, "* with EXCLUDE, REPLACE or RENAME")
                made += self._starred(each)
            else:
                made.append((_output_name(each), each))
        names: list[str] = []
        for name, _ in made:
            names.append(fresh(name, names))
        return [(name, node) for name, (_, node) in zip(names, made, strict=True)]

    def _starred(self, node: Node) -> list[tuple[str, Node]]:
        table = node.table if isinstance(node, exp.Column) else ""
        found = [
            (each.name, exp.column(each.name, table=each.table or None, quoted=True))
            for each in self.scope.columns
            if (each.table.lower() == table.lower() if table else each.starred)
        ]
        if not found:
            reason = f"there is no table {table}" if table else "SELECT * needs a FROM"
            fail(node, self.text, reason)
        return found

    # GROUP BY ---------------------------------------------------------------------------------

    def _grouped(self, plan: Plan, wanted: list[Node], outputs: list[tuple[str, Node]]) -> Plan:
        having, group = self.node.args.get("having"), self.node.args.get("group")
        calls = _unique(each for node in wanted for each in _aggregates_in(node))
        if group is None and not calls:
            if having is not None:
                refuse(having, self.text, "HAVING without an aggregate")
            return plan
        keys = self._keys(group, outputs)
        used: list[str] = []
        made: dict[str, Expr] = {}
        named_keys = []
        for node in keys:
            expr = self.convert(node)
            title = expr.name if isinstance(expr, Column) else _title(node)
            used.append(fresh(title, used))
            named_keys.append((used[-1], expr))
            made[key_of(node)] = Column(used[-1])
        aggs: list[tuple[str, Agg]] = []
        for node in calls:
            used.append(fresh(_title(node), used))
            aggs.append((used[-1], self.convert.aggregate(node)))
            made[key_of(node)] = Column(used[-1])
        self.convert = Converter(self.text, self._ungrouped(named_keys), made)
        return Aggregate(plan, tuple(named_keys), tuple(aggs))

    def _keys(self, group: Node, outputs: list[tuple[str, Node]]) -> list[Node]:
        if group is None:
            return []
        for key in ("grouping_sets", "rollup", "cube", "totals"):
            if group.args.get(key):
                refuse(group, self.text, key.replace("_", " ").upper())
        if group.args.get("all"):
            keys = [node for _, node in outputs if not any(_aggregates_in(node))]
        else:
            keys = [self._pointed(each, outputs) for each in group.expressions]
        return _unique(_bare(each) for each in keys)

    def _pointed(self, node: Node, outputs: list[tuple[str, Node]]) -> Node:
        """Return the expression that a number or an alias in GROUP BY or ORDER BY refers to."""
        if isinstance(node, exp.Literal) and not node.is_string:
            index = int(node.this) if str(node.this).isdigit() else 0
            if not 1 <= index <= len(outputs):
                fail(node, self.text, f"there is no output column {node.this}")
            return _bare(outputs[index - 1][1])
        if isinstance(node, exp.Column) and not node.table:
            hidden = any(each.name.lower() == node.name.lower() for each in self.scope.columns)
            for name, output in outputs:
                if name.lower() == node.name.lower() and not hidden:
                    return _bare(output)
        return node

    def _ungrouped(self, keys: list[tuple[str, Expr]]) -> Callable[[Node], Expr]:
        """Resolve columns after grouping: only expressions that are keys."""

        def column(node: Node) -> Expr:
            wanted = self.scope.column(node, self.text)
            for name, expr in keys:
                if expr.equals(wanted):
                    return Column(name)
            reason = f"{node.sql(dialect='duckdb')} is neither in GROUP BY nor in an aggregate"
            return fail(node, self.text, reason)

        return column

    # OVER -------------------------------------------------------------------------------------

    def _windowed(self, plan: Plan, wanted: list[Node]) -> Plan:
        nodes = _unique(each for node in wanted for each in node.find_all(exp.Window))
        named = {each.name: each for each in self.node.args.get("windows") or []}
        groups: dict[str, tuple[list[Expr], list[SortKey], list[tuple[str, WindowCall]]]] = {}
        used: list[str] = []
        for node in nodes:
            parts, keys, called = open_window(node, self.convert, named)
            used.append(fresh(f"$window_{len(used)}", used))
            group = f"{list(map(str, parts))} {list(map(str, keys))}"
            groups.setdefault(group, (parts, keys, []))[2].append((used[-1], called))
        for name, node in zip(used, nodes, strict=True):
            self.convert.made[key_of(node)] = Column(name)
        for parts, keys, calls in groups.values():
            plan = Window(plan, tuple(parts), tuple(keys), tuple(calls))
        return plan

    # ORDER BY, DISTINCT, LIMIT ------------------------------------------------------------------

    def _meant(self, ordered: Node, outputs: list[tuple[str, Node]]) -> Node:
        """Return a key of ORDER BY with numbers and aliases replaced; aliases have priority."""
        node = ordered.this
        if isinstance(node, exp.Column) and not node.table:
            for name, output in outputs:
                if name.lower() == node.name.lower():
                    node = _bare(output)
                    break
        meant = ordered.copy()
        meant.set("this", self._pointed(node, outputs).copy())
        return meant

    def _finished(self, plan: Plan, outputs: list[tuple[str, Node]], order: list[Node]) -> Plan:
        columns = [(name, self.convert(node)) for name, node in outputs]
        names = [name for name, _ in columns]
        keys: list[SortKey] = []
        hidden: list[tuple[str, Expr]] = []
        for each in order:
            expr = self.convert(each.this)
            held = next((name for name, made in columns if made.equals(expr)), None)
            if held is None:
                held = fresh(f"$order_{len(hidden)}", names)
                hidden.append((held, expr))
            keys.append(_marked(Column(held), each))
        if self.node.args.get("distinct") is not None:
            if hidden:
                fail(
                    order[0], self.text, "with DISTINCT, ORDER BY can only use selected expressions"
                )
            return _limited(Distinct(Project(plan, tuple(columns))), keys, self.node, self.text)
        plan = _limited(Project(plan, (*columns, *hidden)), keys, self.node, self.text)
        return kept(plan, names) if hidden else plan


def _limited(plan: Plan, keys: list[SortKey], node: Node, text: str) -> Plan:
    """Order and limit rows by ORDER BY, LIMIT and OFFSET."""
    limit, offset = node.args.get("limit"), node.args.get("offset")
    if limit is not None and not isinstance(limit, exp.Limit):
        refuse(limit, text, type(limit).__name__.upper())
    if limit is not None and limit.args.get("limit_options") is not None:
        refuse(limit, text, "a LIMIT in percent")
    count = ALL if limit is None else _whole(limit.expression, text)
    skipped = 0 if offset is None else _whole(offset.expression, text)
    if keys and limit is not None:
        return TopK(plan, tuple(keys), count, skipped)
    if keys:
        plan = Sort(plan, tuple(keys))
    return plan if limit is None and offset is None else Limit(plan, count, skipped)


def _whole(node: Node, text: str) -> int:
    if not isinstance(node, exp.Literal) or not str(node.this).isdigit():
        refuse(node, text, "a LIMIT or OFFSET that is not a whole number")
    return int(node.this)


def _ordered(node: Node) -> list[Node]:
    order = node.args.get("order")
    return [] if order is None else list(order.expressions)


def _sort_key(ordered: Node, convert: Converter, names: list[str], text: str) -> SortKey:
    """Return a key of ORDER BY after a UNION, which can only refer to the result's columns."""
    node = ordered.this
    if isinstance(node, exp.Literal) and str(node.this).isdigit():
        if not 1 <= int(node.this) <= len(names):
            fail(node, text, f"there is no output column {node.this}")
        return _marked(Column(names[int(node.this) - 1]), ordered)
    return _marked(convert(node), ordered)


def _marked(expr: Expr, ordered: Node) -> SortKey:
    nulls_first = ordered.args.get("nulls_first")
    assert not isinstance(expr, Literal), "a constant orders nothing"
    return SortKey(expr, bool(ordered.args.get("desc")), bool(nulls_first))


def _aggregates_in(node: Node) -> Iterable[Node]:
    """Yield the aggregates in an expression, except window functions."""
    for each in node.find_all(*AGGREGATES):
        over = each.parent
        while isinstance(over, exp.IgnoreNulls | exp.RespectNulls | exp.Filter):
            over = over.parent
        if not (isinstance(over, exp.Window) and over.this.find(type(each)) is each):
            yield each


def _bare(node: Node) -> Node:
    while isinstance(node, exp.Alias | exp.Paren):
        node = node.this
    return node


def _output_name(node: Node) -> str:
    """Return the name of an output column: its alias, the column's name, or its SQL.

    A cast of a column has the column's name, as in PostgreSQL.
    """
    if isinstance(node, exp.Alias):
        return str(node.alias)
    named = _bare(node)
    while isinstance(named, exp.Cast):
        named = _bare(named.this)
    if isinstance(named, exp.Column | exp.Literal):
        return str(named.name)
    return _title(node)


def _title(node: Node) -> str:
    """The name of an unnamed output column: its SQL."""
    text: str = _bare(node).sql(dialect="duckdb").lower()
    return text


def _unique(nodes: Iterable[Node]) -> list[Node]:
    found: dict[str, Node] = {}
    for each in nodes:
        found.setdefault(key_of(each), each)
    return list(found.values())
