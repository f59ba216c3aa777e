"""Plans that leave the query as it is: its tables come to the coordinator, or are there.

The last query is the text of the user, so nothing that the planner misread can change its result. If
sqlglot did not read it, DuckDB's own syntax tree decides which columns are needed: those whose names
occur anywhere in it, and all of them where a query may mean columns that it does not name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lake.peers.sql.drafts import Drafts, narrowest, quoted
from lake.peers.sql.engine import Engine
from lake.peers.sql.estimates import width
from lake.peers.sql.plan import Cost, DistributedPlan, Gather
from lake.peers.sql.tables import Column, Table

__all__ = ["gather_all", "gather_plan", "gathers_of_query", "local_plan"]

_ALL_COLUMNS = frozenset(("STAR", "PIVOT", "SHOW_REF", "COLUMN_DATA", "SUMMARIZE"))


def local_plan(sql: str, tables: Sequence[Table], engine: Engine) -> DistributedPlan:
    """Return the plan of a query over tables that the coordinator has."""
    return gather_plan(sql, (), _columns(sql, tables, engine), Cost(None, 0, True), (), tables)


def gather_all(
    sql: str, tables: Sequence[Table], engine: Engine, local: frozenset[str], reason: str
) -> DistributedPlan:
    """Return the plan that gathers all tables of a query that was not understood."""
    columns = _columns(sql, tables, engine)
    names = _names(sql, tables, engine)
    away = [table for table in tables if not table.is_here]
    gathers = [_whole(table, names, local, reason) for table in away]
    if not has_columns(sql, tables, gathers, columns, engine):
        gathers = [_whole(table, None, local, reason) for table in away]
    objects = {name for each in gathers for name in each.objects}
    cost = Cost(None, sum(each.bytes for each in gathers), objects <= local)
    return gather_plan(sql, gathers, columns, cost, (reason,), tables)


def has_columns(
    sql: str,
    tables: Sequence[Table],
    gathers: Iterable[Gather],
    columns: tuple[Column, ...],
    engine: Engine,
) -> bool:
    """Return whether a query has the same columns if only some of its tables' columns are there."""
    kept = {each.table: each.columns for each in gathers}
    pruned = [
        replace(
            table,
            columns=tuple(c for c in table.columns if c.name in kept.get(table.name, (c.name,))),
        )
        for table in tables
    ]
    return _columns(sql, pruned, engine) == columns


def gathers_of_query(drafts: Drafts, aliases: Iterable[str], reason: str) -> list[Gather]:
    """Return what gathers the columns and rows that a query uses of each table that is not here.

    Args:
        drafts: What is known of the query.
        aliases: The names in its FROM clauses.
        reason: Why, for EXPLAIN.
    """
    by_table: dict[str, list[str]] = {}
    for alias in aliases:
        table = drafts.references[alias].table
        if not table.is_here:
            by_table.setdefault(table.name, []).append(alias)
    return [drafts.gather_step(found, name, reason) for name, found in by_table.items()]


def gather_plan(
    sql: str,
    gathers: Sequence[Gather],
    columns: tuple[Column, ...],
    cost: Cost,
    reasons: tuple[str, ...],
    tables: Sequence[Table],
) -> DistributedPlan:
    """Return the plan whose last query is the user's."""
    gathered = {each.table for each in gathers}
    return DistributedPlan(
        sql=sql,
        strategy="local" if cost.is_local else "gather",
        steps=tuple(gathers),
        final_sql=sql,
        # The query may name more than it reads.
        reads=tuple(t.name for t in tables if t.is_here or t.name in gathered),
        columns=columns,
        cost=cost,
        reasons=() if cost.is_local else reasons,
    )


def _whole(
    table: Table, names: frozenset[str] | None, local: frozenset[str], reason: str
) -> Gather:
    used = [each for each in table.columns if names is None or each.name.casefold() in names]
    columns = tuple(each.name for each in used) or (narrowest(table),)
    shards = [shard for shard in table.shards if shard.rows]
    rows = sum(shard.rows for shard in shards if shard.object not in local)
    size = sum(width(table.type_of(name) or "") for name in columns)
    listed = ", ".join(map(quoted, columns))
    return Gather(
        result=table.name,
        sql=f"SELECT {listed} FROM {quoted(table.name)}",
        table=table.name,
        columns=columns,
        condition=None,
        objects=tuple(shard.object for shard in shards),
        bytes=rows * size,
        shards=len(table.shards),
        reason=reason,
    )


def _columns(sql: str, tables: Sequence[Table], engine: Engine) -> tuple[Column, ...]:
    """Return the columns of the result; none if the query is not valid, which DuckDB will say."""
    try:
        with engine.empty(tables) as empty:
            return empty.columns(sql)
    except Exception:  # noqa: BLE001 - the plan's last query has the error
        return ()


def _names(sql: str, tables: Sequence[Table], engine: Engine) -> frozenset[str] | None:
    """Return the texts in a statement's tree, in lower case; None if it may mean other columns."""
    try:
        nodes = list(_nodes(engine.tree(sql)))
    except Exception:  # noqa: BLE001 - no tree, no names
        return None
    if not nodes or nodes[0].get("error"):
        return None  # PIVOT, which has no tree
    names: set[str] = {table.name.casefold() for table in tables}
    for node in nodes:
        names |= {str(node[key]).casefold() for key in ("alias", "table_name") if node.get(key)}
    for node in nodes:
        kind = str(node.get("type", "")).upper()
        natural = str(node.get("ref_type", "")).upper() == "NATURAL"
        columns: list[Any] = node.get("column_names") or []
        # `SELECT t FROM t` is a struct of all columns.
        is_row = len(columns) == 1 and str(columns[0]).casefold() in names
        if kind in _ALL_COLUMNS or natural or is_row or node.get("column_name_alias"):
            return None
    return frozenset(
        text.casefold() for node in nodes for value in node.values() for text in _texts(value)
    )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (each for each in value if isinstance(each, str))
