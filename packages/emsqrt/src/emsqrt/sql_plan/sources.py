"""FROM: tables, subqueries and joins on equality."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

from sqlglot import exp

from emsqrt.expr import Agg, Column, Expr, columns_of
from emsqrt.expr.build import coalesce
from emsqrt.plan import Aggregate, Files, Filter, Join, JoinKind, Plan, Scan, WithColumn
from emsqrt.sql_plan.errors import fail, refuse
from emsqrt.sql_plan.expressions import Converter
from emsqrt.sql_plan.scope import Scope, Visible, apart, fresh, scope_of
from sennit_core.schema import Schema
from sennit_core.text import nearest

Node: TypeAlias = Any
Tables: TypeAlias = "dict[str, Plan]"
Query: TypeAlias = "Callable[[Node, Tables], Plan]"
"""Returns the plan of a query that may read these tables."""

EMPTY_FILE = "/dev/null"
"""The scan of a SELECT without FROM: a plan's scan names at least one file."""
_KINDS: dict[tuple[str, str], JoinKind] = {
    ("", ""): "inner",
    ("", "INNER"): "inner",
    ("LEFT", ""): "left",
    ("LEFT", "OUTER"): "left",
    ("RIGHT", ""): "right",
    ("RIGHT", "OUTER"): "right",
    ("FULL", ""): "full",
    ("FULL", "OUTER"): "full",
    ("", "CROSS"): "cross",
    ("", "SEMI"): "semi",
    ("", "ANTI"): "anti",
    ("LEFT", "SEMI"): "semi",
    ("LEFT", "ANTI"): "anti",
}


class Sources:
    """Combine the items in the FROM of one query."""

    def __init__(self, text: str, tables: Tables, query: Query) -> None:
        self.text = text
        self.tables = tables
        self.query = query

    def read(self, select: Node) -> tuple[Scope, list[Node]]:
        """Return the rows of a SELECT's FROM, and the part of its WHERE that remains to apply."""
        where = select.args.get("where")
        terms = [] if where is None else list(_terms(where.this))
        first = select.args.get("from_")
        if first is None:
            return Scope(_one_row(), ()), terms
        scope = self.table(first.this)
        listed: list[Scope] = []
        for join in [*(first.this.args.get("joins") or []), *(select.args.get("joins") or [])]:
            if self._is_comma(join):
                listed.append(self.table(join.this))
                continue
            scope = self._listed(scope, listed, terms)
            listed = []
            scope = self._join(scope, join)
        return self._listed(scope, listed, terms), terms

    def table(self, node: Node) -> Scope:
        """Return the rows of one table, or of a subquery."""
        if isinstance(node, exp.Subquery):
            alias = node.alias or "subquery"
            scope = scope_of(self.query(node.this, self.tables), alias)
            return _renamed(scope, node, self.text)
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            what = node.this if isinstance(node, exp.Table) else node
            hint = "pass it in tables; files=True reads files" if what is not node else None
            refuse(node, self.text, f"{type(what).__name__} in FROM", hint)
        for key in ("pivots", "sample", "version", "when"):
            if node.args.get(key):
                refuse(node, self.text, f"{key} of a table")
        name = ".".join(part.name for part in node.parts)
        plan = self.tables.get(name)
        if plan is None:
            plan = next((p for n, p in self.tables.items() if n.lower() == name.lower()), None)
        if plan is None:
            fail(node, self.text, f"there is no table {name}", self._known(node, name))
        return _renamed(scope_of(plan, node.alias or node.name), node, self.text)

    def _known(self, node: Node, name: str) -> str:
        """Return a hint for an unknown table."""
        if guess := nearest(name, tuple(self.tables)):
            return f"did you mean {guess}?"
        if self.tables:
            return f"there are {', '.join(self.tables)}"
        quoted = node.this.args.get("quoted")
        return "pass it in tables, or files=True" if quoted else f"a file is in quotes: '{name}'"

    @staticmethod
    def _is_comma(join: Node) -> bool:
        return not any(join.args.get(key) for key in ("on", "using", "side", "kind", "method"))

    def _listed(self, scope: Scope, listed: list[Scope], terms: list[Node]) -> Scope:
        """Join the tables of a list by the equalities of the WHERE, in the order of the list."""
        waiting = list(listed)
        while waiting:
            for right in waiting:
                on, used = self._equalities(scope, apart(scope, right), terms)
                if on:
                    break
            else:
                right, on, used = waiting[0], [], []
            waiting.remove(right)
            terms[:] = [term for term in terms if term not in used]
            scope = self._joined(scope, apart(scope, right), on, "inner" if on else "cross")
        return scope

    def _join(self, left: Scope, join: Node) -> Scope:
        if join.args.get("method") or join.args.get("global"):
            refuse(join, self.text, f"{join.args.get('method') or 'GLOBAL'} JOIN")
        side, kind = join.args.get("side") or "", join.args.get("kind") or ""
        how = _KINDS.get((side.upper(), kind.upper()))
        if how is None:
            refuse(join, self.text, f"{side} {kind} JOIN".strip())
        right = apart(left, self.table(join.this))
        if join.args.get("using"):
            return self._using(left, right, join, how)
        condition = join.args.get("on")
        terms = [] if condition is None else list(_terms(condition))
        if how == "cross" or not terms:
            return self._joined(left, right, [], "cross")
        on, used = self._equalities(left, right, terms)
        rest = [term for term in terms if term not in used]
        if not on:
            refuse(join, self.text, "a join without an equality of its two sides")
        if rest and how != "inner":
            right, rest = self._pushed(right, rest, how)
            if rest:
                refuse(rest[0], self.text, f"this condition in an {how} join")
        scope = self._joined(left, right, on, how)
        for term in rest:
            scope = self._filtered(scope, term)
        return scope

    def _pushed(self, right: Scope, terms: list[Node], how: JoinKind) -> tuple[Scope, list[Node]]:
        """Filter the right side by the conditions on it alone, where the meaning stays the same."""
        if how not in ("left", "semi", "anti"):
            return right, terms
        left_over = []
        for term in terms:
            if not all(self._reads(right, each) for each in term.find_all(exp.Column)):
                left_over.append(term)
                continue
            right = self._filtered(right, term)
        return right, left_over

    def _over(self, scope: Scope) -> Converter:
        return Converter(self.text, lambda node: scope.column(node, self.text))

    def _filtered(self, scope: Scope, condition: Node) -> Scope:
        return Scope(Filter(scope.plan, self._over(scope)(condition)), scope.columns)

    def _using(self, left: Scope, right: Scope, join: Node, how: JoinKind) -> Scope:
        names = [each.name for each in join.args["using"]]
        columns = [exp.column(name) for name in names]
        ours = [left.find(each, self.text) for each in columns]
        theirs = [right.find(each, self.text) for each in columns]
        pairs: list[tuple[Expr, Expr]] = [
            (Column(a.held), Column(b.held)) for a, b in zip(ours, theirs, strict=True)
        ]
        scope = self._joined(left, right, pairs, how)
        if how in ("semi", "anti"):
            return scope
        plan, visible = scope.plan, list(scope.columns)
        for one, two in zip(ours, theirs, strict=True):
            held = one.held
            if how in ("right", "full"):
                held = fresh(f"{one.name}$using", [each.held for each in visible])
                plan = WithColumn(plan, ((held, coalesce(Column(one.held), Column(two.held))),))
            visible[visible.index(two)] = replace(two, starred=False)
            place = visible.index(one)
            visible[place] = replace(one, starred=False)
            visible.insert(place, Visible("", one.name, held, one.type))
        return Scope(plan, tuple(visible))

    def _reads(self, scope: Scope, column: Node) -> bool:
        return any(
            each.name.lower() == column.name.lower()
            and (column.table.lower() == each.table.lower() if column.table else each.starred)
            for each in scope.columns
        )

    def _equalities(
        self, left: Scope, right: Scope, terms: Iterable[Node]
    ) -> tuple[list[tuple[Expr, Expr]], list[Node]]:
        """Return the pairs of expressions that must be equal, left's first, and their terms."""
        pairs, used = [], []
        for term in terms:
            if not isinstance(term, exp.EQ):
                continue
            one, two = term.this, term.expression
            for near, far in ((one, two), (two, one)):
                if self._only(left, right, near) and self._only(right, left, far):
                    pairs.append((self._over(left)(near), self._over(right)(far)))
                    used.append(term)
                    break
        return pairs, used

    def _only(self, scope: Scope, other: Scope, node: Node) -> bool:
        columns = list(node.find_all(exp.Column))
        return bool(columns) and all(
            self._reads(scope, each) and (each.table or not self._reads(other, each))
            for each in columns
        )

    @staticmethod
    def _joined(left: Scope, right: Scope, pairs: list[tuple[Expr, Expr]], how: JoinKind) -> Scope:
        left_plan, left_names = _keyed(left, [one for one, _ in pairs], "left")
        right_plan, right_names = _keyed(right, [two for _, two in pairs], "right")
        on = tuple(zip(left_names, right_names, strict=True))
        plan = Join(left_plan, right_plan, on, how)
        only_left = how in ("semi", "anti")
        return Scope(plan, left.columns if only_left else (*left.columns, *right.columns))


def _one_row() -> Plan:
    """Return the single row that a SELECT without FROM computes its expressions over."""
    nothing = Scan(Files((EMPTY_FILE,), "jsonl"), Schema.of(nothing="Int64"))
    return Aggregate(nothing, (), (("$row", Agg("count")),))


def _keyed(scope: Scope, keys: list[Expr], side: str) -> tuple[Plan, list[str]]:
    """Return the plan with a column for each key, and their names."""
    plan, names = scope.plan, []
    for number, key in enumerate(keys):
        if isinstance(key, Column):
            names.append(key.name)
            continue
        used = {each.held for each in scope.columns} | columns_of(key)
        names.append(fresh(f"${side}_key_{number}", used))
        plan = WithColumn(plan, ((names[-1], key),))
    return plan, names


def _terms(node: Node) -> Iterable[Node]:
    """Yield the conditions that `and` joins."""
    if isinstance(node, exp.Paren):
        yield from _terms(node.this)
    elif isinstance(node, exp.And):
        yield from _terms(node.this)
        yield from _terms(node.expression)
    else:
        yield node


def _renamed(scope: Scope, node: Node, text: str) -> Scope:
    """Apply the column names of `t(a, b)`."""
    alias = node.args.get("alias")
    names = [each.name for each in alias.args.get("columns") or []] if alias is not None else []
    if len(names) > len(scope.columns):
        fail(node, text, f"{len(names)} names for {len(scope.columns)} columns")
    columns = tuple(
        Visible(each.table, names[i] if i < len(names) else each.name, each.held, each.type)
        for i, each in enumerate(scope.columns)
    )
    return Scope(scope.plan, columns)
