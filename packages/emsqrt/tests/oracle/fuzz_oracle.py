"""Plans run by DuckDB, a node at a time with numbered rows: the oracle of the fuzz tests.

What SQL does not promise (the order of rows) is spelled out by numbers; what it does not know
(samples) is worked out by the engine itself in plenty of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

import duckdb
import pyarrow as pa

from emsqrt.expr import Agg, Column, Expr
from emsqrt.expr.sql import sql_name, sql_type, to_sql
from emsqrt.plan import Files, Plan, Scan, SortKey, check
from emsqrt.plan.joining import LEFT_ONLY, join_key_types, right_names, shared_keys
from emsqrt.plan.nodes import (
    Aggregate,
    Distinct,
    Expect,
    Explode,
    Filter,
    Join,
    Limit,
    Project,
    Rename,
    Sample,
    Sort,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.tree import fold
from emsqrt.plan.window import FRAMED, Window
from emsqrt.planner.schemas import schemas_of
from emsqrt.testing import InputRows, run_operator
from sennit_core.schema import DataType, Schema

_N = '"#"'
_FUNCTIONS = {
    "sum": "sum({})",
    "avg": "CAST(avg({}) AS DOUBLE)",
    "min": "min({})",
    "max": "max({})",
    "var": "var_samp({})",
    "stddev": "stddev_samp({})",
    "count": "count({})",
    "median": "quantile_cont(CAST({} AS DOUBLE), 0.5)",
    "approx_count_distinct": "count(DISTINCT {})",
    "first": 'arg_min({}, "#")',
    "last": 'arg_max({}, "#")',
}

ROWS_MAX = 100_000
"""Joins of joins with few keys have any number of rows; such plans are skipped."""


class TooManyRows(Exception):
    """A node of the plan has too many rows to compare."""


class Oracle:
    """A DuckDB that runs plans over some tables. A context manager.

    Args:
        tables: by the first path of the scans that read them.
    """

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        limits = {"threads": 1, "memory_limit": "2GB", "temp_directory": ""}
        self._connection: Any = duckdb.connect(config=limits)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._tables = tables
        self._made = 0
        self._schemas: dict[int, Schema] = {}

    def rows(self, plan: Plan) -> list[tuple[Any, ...]]:
        """Return the rows of a plan, in order; its scans have schemas."""
        self._schemas = schemas_of(plan)
        table = fold(plan, self._visit)
        names = ", ".join(map(sql_name, self._schemas[id(plan)].names))
        found = self._connection.sql(f"SELECT {names} FROM {table} ORDER BY {_N}")
        return rows_of(found.to_arrow_table())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._connection = None

    def _visit(self, node: Plan, inputs: tuple[str, ...]) -> str:
        return _NODES[type(node)](self, node, *inputs)

    def schema(self, node: Plan) -> Schema:
        """Return the columns of a node."""
        return self._schemas[id(node)]

    def make(self, query: str) -> str:
        """Make a table of a query's rows and return its name.

        Raises:
            TooManyRows: it has more than `ROWS_MAX`.
        """
        self._made += 1
        try:
            self._connection.execute(f"CREATE TEMP TABLE t{self._made} AS {query}")
        except duckdb.OutOfMemoryException as error:
            raise TooManyRows(query) from error
        ((rows,),) = self._connection.execute(f"SELECT count(*) FROM t{self._made}").fetchall()
        if rows > ROWS_MAX:
            raise TooManyRows(query)
        return f"t{self._made}"

    def expect_few(self, source: str) -> None:
        """Look how many rows come out of `source` before they are numbered or kept.

        Raises:
            TooManyRows: more than `ROWS_MAX`.
        """
        query = f"SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT {ROWS_MAX + 1})"
        ((rows,),) = self._connection.execute(query).fetchall()
        if rows > ROWS_MAX:
            raise TooManyRows(source)

    def load(self, table: pa.Table) -> str:
        """Make a table of Arrow's and number its rows."""
        numbers = pa.array(range(table.num_rows), pa.int64())
        self._connection.register("input_rows", table.append_column("#", numbers))
        try:
            return self.make("SELECT * FROM input_rows")
        finally:
            self._connection.unregister("input_rows")

    def scan(self, node: Scan) -> str:
        """Load the columns that a scan asks for."""
        assert isinstance(node.source, Files)
        return self.load(self._tables[node.source.paths[0]].select(self.schema(node).names))

    def sample(self, node: Sample, below: str) -> str:
        """Let the engine sample; the test is that it does the same in any memory."""
        schema = self.schema(node)
        names = ", ".join(map(sql_name, schema.names))
        found = self._connection.sql(f"SELECT {names} FROM {below} ORDER BY {_N}")
        table = found.to_arrow_table().cast(schema.to_arrow())
        rows = InputRows(schema, table.to_batches(max_chunksize=777))
        batches = run_operator(node, rows, memory_bytes=256 << 20)
        return self.load(pa.Table.from_batches(batches, schema.to_arrow()))


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return a table's rows as Python values."""
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def differ(
    found: Sequence[tuple[Any, ...]], wanted: Sequence[tuple[Any, ...]], schema: Schema
) -> str | None:
    """Return where two answers differ first, None when they do not.

    Floats agree within 1e-12, or 1e-9 where a column's name begins with "z"; "zh" are estimates.
    """
    if len(found) != len(wanted):
        return f"{len(found)} rows, not {len(wanted)}"
    for number, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if ours == theirs:
            continue
        for name, one, other in zip(schema.names, ours, theirs, strict=True):
            if not _same(one, other, name):
                return f"row {number}, column {name}: {one!r}, not {other!r}"
    return None


def _same(one: Any, other: Any, name: str) -> bool:
    if one is None or other is None:
        return one is other
    if name.startswith("zh"):
        return bool(abs(one - other) <= 3 + other / 8)
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return one == other
    if isinstance(one, float) or isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        near = 1e-9 if name.startswith("z") else 1e-12
        return one == other or math.isclose(one, other, rel_tol=near, abs_tol=near * 1e-3)
    return bool(one == other)


def _order(keys: Sequence[SortKey], schema: Schema) -> str:
    parts = [
        f"{to_sql(key.expr, schema)} {'DESC' if key.descending else 'ASC'}"
        f" NULLS {'FIRST' if key.nulls_first else 'LAST'}"
        for key in keys
    ]
    return ", ".join([*parts, _N])


def _columns(schema: Schema, source: str = "") -> str:
    return ", ".join(f"{source}{sql_name(name)}" for name in schema.names)


def _cut(oracle: Oracle, table: str, count: int, offset: int) -> str:
    return oracle.make(f"SELECT * FROM {table} ORDER BY {_N} LIMIT {count} OFFSET {offset}")


def _filter(oracle: Oracle, node: Filter, below: str) -> str:
    return oracle.make(
        f"SELECT * FROM {below} WHERE {to_sql(node.predicate, oracle.schema(node.input))}"
    )


def _select(oracle: Oracle, node: Plan, below: str, made: Mapping[str, Expr], source: Plan) -> str:
    inside, schema = oracle.schema(source), oracle.schema(node)
    exprs = [
        f"{_as(to_sql(made.get(field.name, Column(field.name)), inside), field.type)} AS "
        f"{sql_name(field.name)}"
        for field in schema
    ]
    return oracle.make(f"SELECT {', '.join([*exprs, _N])} FROM {below}")


def _as(source: str, kind: DataType) -> str:
    return source if kind.name == "List" else f"CAST({source} AS {sql_type(kind)})"


def _rename(oracle: Oracle, node: Rename, below: str) -> str:
    before = {new: Column(old) for old, new in node.names}
    return _select(oracle, node, below, before, node.input)


def _sort(oracle: Oracle, node: Sort | TopK, below: str) -> str:
    schema = oracle.schema(node)
    order = _order(node.keys, schema)
    return oracle.make(
        f"SELECT {_columns(schema)}, row_number() OVER (ORDER BY {order}) AS {_N} FROM {below}"
    )


def _aggregate(oracle: Oracle, node: Aggregate, below: str) -> str:
    inside, schema = oracle.schema(node.input), oracle.schema(node)
    keys = [f"{to_sql(expr, inside)} AS {sql_name(name)}" for name, expr in node.keys]
    aggs = [
        f"CAST({_call(agg, inside)} AS {sql_type(schema.field(name).type)}) AS {sql_name(name)}"
        for name, agg in node.aggs
    ]
    names = [sql_name(name) for name, _ in node.keys]
    group = f"GROUP BY {', '.join(map(str, range(1, len(keys) + 1)))}" if keys else ""
    order = ", ".join(f"{name} NULLS LAST" for name in names) or "1"
    return oracle.make(
        f"SELECT *, row_number() OVER (ORDER BY {order}) AS {_N} "
        f"FROM (SELECT {', '.join([*keys, *aggs])} FROM {below} {group})"
    )


def _call(agg: Agg, schema: Schema) -> str:
    if agg.arg is None:
        return "count(*)"
    arg = to_sql(agg.arg, schema)
    if agg.fn == "quantile_disc":
        return f"quantile_disc({arg}, {agg.params[0].value})"
    if agg.fn == "quantile":
        return f"quantile_cont(CAST({arg} AS DOUBLE), {agg.params[0].value})"
    return _FUNCTIONS[agg.fn].format(f"DISTINCT {arg}" if agg.distinct else arg)


def _distinct(oracle: Oracle, node: Distinct, below: str) -> str:
    schema = oracle.schema(node)
    keys = ", ".join(map(sql_name, node.columns or schema.names))
    order = ", ".join(f"{sql_name(name)} NULLS LAST" for name in node.columns or schema.names)
    first = f"row_number() OVER (PARTITION BY {keys} ORDER BY {_N}) AS first"
    return oracle.make(
        f"SELECT {_columns(schema)}, row_number() OVER (ORDER BY {order}) AS {_N} "
        f"FROM (SELECT *, {first} FROM {below}) WHERE first = 1"
    )


def _join(oracle: Oracle, node: Join, left: str, right: str) -> str:
    ours, theirs, schema = (oracle.schema(each) for each in (node.left, node.right, node))
    if node.how in LEFT_ONLY:
        columns = _columns(ours, "l.")
        numbers = f"l.{_N}"
    else:
        shared = shared_keys(node)
        kept = right_names(node, ours, theirs)
        parts = [
            f"coalesce(l.{sql_name(name)}, r.{sql_name(name)}) AS {sql_name(name)}"
            if name in shared
            else f"l.{sql_name(name)} AS {sql_name(name)}"
            for name in ours.names
        ]
        parts += [f"r.{sql_name(old)} AS {sql_name(new)}" for old, new in kept.items()]
        columns = ", ".join(parts)
        numbers = f"row_number() OVER (ORDER BY l.{_N} NULLS LAST, r.{_N}) AS {_N}"
    assert len(schema)
    types = join_key_types(node, ours, theirs) if node.on else ()
    on = [
        f"TRY_CAST(l.{sql_name(one)} AS {sql_type(kind)}) = "
        f"TRY_CAST(r.{sql_name(other)} AS {sql_type(kind)})"
        for (one, other), kind in zip(node.on, types, strict=True)
    ]
    words = f"ON {' AND '.join(on)}" if on else ""
    joined = f"{left} l {node.how} JOIN {right} r {words}"
    oracle.expect_few(joined)
    return oracle.make(f"SELECT {columns}, {numbers} FROM {joined}")


def _union(oracle: Oracle, node: Union, *inputs: str) -> str:
    schema = oracle.schema(node)
    queries = []
    for at, (below, table) in enumerate(zip(node.inputs, inputs, strict=True)):
        own = oracle.schema(below)
        sources = [
            (sql_name(field.name) if field.name in own else "NULL")
            if node.by_name
            else sql_name(own.names[place])
            for place, field in enumerate(schema)
        ]
        columns = [
            f"{_as(source, field.type)} AS {sql_name(field.name)}"
            for source, field in zip(sources, schema, strict=True)
        ]
        queries.append(f"SELECT {', '.join(columns)}, {at} AS input, {_N} FROM {table}")
    return oracle.make(
        f"SELECT {_columns(schema)}, row_number() OVER (ORDER BY input, {_N}) AS {_N} "
        f"FROM ({' UNION ALL '.join(queries)})"
    )


def _window(oracle: Oracle, node: Window, below: str) -> str:
    inside, schema = oracle.schema(node.input), oracle.schema(node)
    parts = [to_sql(part, inside) for part in node.partition_by]
    partition = f"PARTITION BY {', '.join(parts)}" if parts else ""
    order = _order(node.order_by, inside)
    peers = order.removesuffix(_N).removesuffix(", ")
    made = []
    for name, call in node.functions:
        arg = "" if call.arg is None else to_sql(call.arg, inside)
        if call.fn == "count" and not arg:
            arg = "*"
        args = ", ".join([*filter(None, [arg]), *(to_sql(each, inside) for each in call.params)])
        by, frame = order, ""
        if call.fn in ("rank", "dense_rank"):
            by = peers
        elif call.fn in FRAMED:
            window = call.frame_in(node.order_by)
            frame = str(window)
            by = order if window.unit == "rows" else peers
            if by != order and call.fn in ("first_value", "last_value"):
                args += f" ORDER BY {order}"  # peers are in no order otherwise
        over = f"{partition} {f'ORDER BY {by}' if by else ''} {frame}"
        kind = sql_type(schema.field(name).type)
        made.append(f"CAST({call.fn}({args}) OVER ({over}) AS {kind}) AS {sql_name(name)}")
    rows = ", ".join([*(f"{part} NULLS LAST" for part in parts), order])
    return oracle.make(
        f"SELECT {_columns(schema)}, row_number() OVER (ORDER BY {rows}) AS {_N} "
        f"FROM (SELECT *, {', '.join(made)} FROM {below})"
    )


def _explode(oracle: Oracle, node: Explode, below: str) -> str:
    inside = oracle.schema(node.input)
    column, items = sql_name(node.column), sql_name(node.as_name or node.column)
    empty = f"{node.outer} AND ({column} IS NULL OR len({column}) = 0)"
    item = f"unnest(CASE WHEN {empty} THEN [NULL] ELSE {column} END) AS item"
    place = f"unnest(CASE WHEN {empty} THEN [NULL] ELSE range(1, len({column}) + 1) END) AS place"
    columns = [
        f"item AS {items}" if name == node.column else sql_name(name) for name in inside.names
    ]
    if node.position is not None:
        columns.append(f"place AS {sql_name(node.position)}")
    return oracle.make(
        f"SELECT {', '.join(columns)}, row_number() OVER (ORDER BY {_N}, place) AS {_N} "
        f"FROM (SELECT *, {item}, {place} FROM {below})"
    )


_NODES: dict[type[Plan], Callable[..., str]] = {
    Scan: Oracle.scan,
    Filter: _filter,
    Project: lambda oracle, node, below: _select(
        oracle, node, below, dict(node.columns), node.input
    ),
    WithColumn: lambda oracle, node, below: _select(
        oracle, node, below, dict(node.columns), node.input
    ),
    Rename: _rename,
    Sort: _sort,
    TopK: lambda oracle, node, below: _cut(
        oracle, _sort(oracle, node, below), node.count, node.offset
    ),
    Limit: lambda oracle, node, below: _cut(oracle, below, node.count, node.offset),
    Aggregate: _aggregate,
    Distinct: _distinct,
    Join: _join,
    Union: _union,
    Sample: Oracle.sample,
    Window: _window,
    Explode: _explode,
    Expect: lambda _, __, below: below,
}


def difference(plan: Plan, tables: Mapping[str, pa.Table], found: pa.Table) -> str | None:
    """Return how a result differs from DuckDB's; None if it does not.

    Args:
        plan: over files with the names of the tables.
        tables: the rows of each file.
        found: the result.
    """
    with Oracle(tables) as oracle:
        return differ(rows_of(found), oracle.rows(plan), check(plan))
