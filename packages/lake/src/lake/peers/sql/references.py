"""What a query uses of each table in its FROM clauses: columns, and conditions that its rows must meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

from lake.peers.sql.aggregates import to_sql
from lake.peers.sql.syntax import Query
from lake.peers.sql.tables import Table
from lake.peers.sql.trees import conjuncts, subqueries_of

__all__ = ["Reference", "condition_sql", "find_references"]


@dataclass(slots=True)
class Reference:
    """A table in a FROM clause.

    Args:
        table: The table.
        columns: The names of the columns that the query uses, in the order of the table's.
        conditions: Conjuncts over columns of this table alone; rows that fail one change no result.
    """

    table: Table
    columns: tuple[str, ...]
    conditions: list[exp.Expr] = field(default_factory=list)


def find_references(query: Query) -> dict[str, Reference]:
    """Return the tables of all FROM clauses of a query, by their names there."""
    trees = (query.tree, *query.ctes.values())
    used: dict[str, set[str]] = {}
    for tree in trees:
        for column in tree.find_all(exp.Column):
            used.setdefault(column.table, set()).add(column.name.casefold())
    found = {}
    for alias, table in query.sources.items():
        names = used.get(alias, set())
        columns = tuple(each.name for each in table.columns if each.name.casefold() in names)
        found[alias] = Reference(table, columns)
    for tree in trees:
        for select in tree.find_all(exp.Select):
            for alias, condition in _conditions(select):
                if alias in found:
                    found[alias].conditions.append(condition)
    return found


def condition_sql(conditions: list[exp.Expr]) -> str | None:
    """Return conditions of one table as SQL over its columns alone; None if there are none."""
    texts = []
    for condition in conditions:
        plain = condition.copy()
        for column in plain.find_all(exp.Column):
            column.set("table", None)
        texts.append(f"({to_sql(plain, copy=False)})")
    return " AND ".join(texts) or None


def _conditions(select: exp.Select) -> Iterator[tuple[str, exp.Expr]]:
    """Yield conjuncts about one table each, with its name in FROM.

    A condition of WHERE is one on the rows of a table only if no outer join fills that table with
    NULL; one of ON concerns the joined table, and others only if the join is an inner one.
    """
    start = select.args.get("from_")
    if start is None:
        return
    preserved = {start.this.alias}
    for join in select.args.get("joins") or ():
        side = join.side.upper()
        own = join.this.alias
        if side in ("RIGHT", "FULL"):
            preserved.clear()
        elif not side and join.kind.upper() != "ANTI":
            # ANTI keeps the rows that do not meet its condition.
            yield from _of_one(join.args.get("on"), preserved)
        if side in ("", "RIGHT"):
            preserved.add(own)
        if side in ("", "LEFT"):
            yield from _of_one(join.args.get("on"), {own})
    yield from _of_one(select.args.get("where"), preserved)


def _of_one(condition: exp.Expr | None, aliases: set[str]) -> Iterator[tuple[str, exp.Expr]]:
    for each in conjuncts(condition):
        tables = {column.table for column in each.find_all(exp.Column)}
        if len(tables) == 1 and tables <= aliases and not any(True for _ in subqueries_of(each)):
            yield tables.pop(), each
