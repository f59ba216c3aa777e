"""Leave out shards of which a statement's filters need no row, before they are verified and opened.

For each conjunct of a scan's filters (`lake.sql.scan_filters`) that compares a column with constants, DuckDB
itself computes from the bounds of each shard whether a row may satisfy it (`lake.sql.bound_tests`). So types
are compared as in the query. Where a bound is not known, or the expression has an error, the shard is read.

A dataset of which a policy shows a part is read by the policy's own condition alone. Were the user's
conditions compared with its bounds, the time of a query would say what hidden rows have.

The shards that are left are those of a view of the query's own connection, which hides the one that the
instance has for all shards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from lake.ingest.partitions import bucket_of
from lake.sql.bound_tests import Test, test_of
from lake.sql.guard import expression_nodes, open_calculator, query_nodes
from lake.sql.policies import bound_expression
from lake.sql.scan_filters import Columns, Condition, Node, Scan, ViewTree, conjuncts, find_scans
from lake.sql.tables import Table
from lake.sql.types import shard_types
from sennit_core.errors import Conflict

__all__ = [
    "Pruned",
    "ScanReport",
    "ShardsMissing",
    "prune",
    "prune_at_any_time",
    "without_statistics",
]

_STATISTICS = "__lake_statistics"
Parameters: TypeAlias = list[Any] | dict[str, Any] | None


class ShardsMissing(Conflict):
    """A query needs shards of lists that were left out: its time, or a view or policy, is another."""

    def __init__(self) -> None:
        super().__init__(
            "a view or policy of the statement was changed in the meantime", hint="run it again"
        )


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan reads, for EXPLAIN.

    Args:
        name: The dataset, and its alias if it has one.
        read: The number of its shards that the scan needs.
        shards: That of all.
        reasons: What left shards out, such as `statistics of price`.
    """

    name: str
    read: int
    shards: int
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        reasons = f" ({', '.join(self.reasons)})" if self.reasons else ""
        return f"{self.name}: shards: {self.read} of {self.shards}{reasons}"


@dataclass(frozen=True, slots=True)
class Pruned:
    """The datasets of a query with the shards that it needs.

    Args:
        tables: The datasets of which shards are left out, with the rest.
        scans: What each scan reads.
        has_clock: Whether more could be left out at a known time.
    """

    tables: tuple[Table, ...] = ()
    scans: tuple[ScanReport, ...] = ()
    has_clock: bool = False

    def of(self, tables: Sequence[Table]) -> list[Table]:
        """Return tables with the shards that the query needs."""
        left = {table.id: table for table in self.tables}
        return [left.get(table.id, table) for table in tables]


def prune_at_any_time(sql: str, params: Parameters, tables: Sequence[Table]) -> Pruned | None:
    """Return which shards a query needs, before there is a database for it.

    Returns:
        The same as `prune`; None if that depends on the time, so that the query's transaction decides.
    """
    with open_calculator() as connection:
        try:
            found = prune(connection, sql, params, tables, clocks=False)
        except ShardsMissing:
            return None
    if found.has_clock:
        return None
    kept = [replace(each, statistics=None, shards_in_all=None) for each in found.of(tables)]
    return replace(found, tables=tuple(kept))


def prune(  # noqa: PLR0913 - the parts of a query, and how it runs
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    params: Parameters,
    tables: Sequence[Table],
    *,
    explains: bool = False,
    clocks: bool = True,
    mode: str = "READ ONLY",
) -> Pruned:
    """Return which shards a query needs.

    Args:
        connection: That of the query, in its transaction, which an error may end and begin anew.
        sql: The query.
        params: The values of its placeholders.
        tables: The datasets and views that it reads.
        explains: Whether to report scans of datasets that nothing is left out of.
        clocks: Whether `now()` in a constant is that of the connection's transaction.
        mode: How to begin a transaction, if an error has ended it.

    Raises:
        ShardsMissing: It needs shards that a table only has summaries of.
    """
    choosable = [table for table in tables if table.statistics and table.policy is None]
    restricted = [table for table in tables if table.statistics and table.policy is not None]
    if not (choosable or restricted or explains):
        return Pruned()
    chooser = _Choice(connection, params, mode, clocks=clocks)
    shown = chooser.visible(restricted)
    known = _Known(tables)
    nodes = query_nodes(sql)
    if known.is_hard(nodes):
        _check_all([table for table in choosable if table.shards_in_all is not None])
        return Pruned(tuple(shown))
    scans = find_scans(nodes, known.columns_of, known.view_of)
    pruned, reports = chooser.needed(scans, known.datasets, choosable)
    return Pruned((*shown, *pruned), tuple(reports), chooser.has_clock)


def without_statistics(table: Table) -> Table:
    """Return a table that is read whole.

    Raises:
        ShardsMissing: Some of its shards are missing.
    """
    _check_all([table])
    return replace(table, statistics=None)


def _check_all(tables: Sequence[Table]) -> None:
    if any(table.shards_in_all is not None for table in tables):
        raise ShardsMissing


class _Known:
    """The datasets and views that a query may read, by name."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.datasets = {
            key.casefold(): t for t in tables if t.paths is not None for key in (t.name, t.id)
        }
        self._columns: dict[str, Columns] = {}
        self._views: dict[str, ViewTree] = {}
        for table in tables:
            if table.view is not None:
                nodes = query_nodes(table.view.sql)
                root = nodes[0]["node"] if nodes else {}
                self._views[table.name.casefold()] = ViewTree(nodes, root, table.view.columns)

    def columns_of(self, name: str) -> Columns | None:
        """Return the columns of a dataset; None for any other name."""
        folded = name.casefold()
        table = self.datasets.get(folded)
        if table is not None and folded not in self._columns:
            kinds = shard_types(table.schema)
            self._columns[folded] = {key.casefold(): kind for key, kind in kinds.items()}
        return self._columns.get(folded)

    def view_of(self, name: str) -> ViewTree | None:
        """Return the query of a view; None for any other name."""
        return self._views.get(name.casefold())

    def is_hard(self, nodes: Sequence[Node]) -> bool:
        """Return whether a dataset or view may be read other than as a table in FROM, or a CTE hides one."""
        names = {*self.datasets, *self._views}
        return any(
            _is_hard(each, names) for each in (nodes, *(v.nodes for v in self._views.values()))
        )


def _is_hard(nodes: Sequence[Node], known: Collection[str]) -> bool:
    ctes = {
        entry["key"].casefold()
        for node in nodes
        for entry in (node.get("cte_map") or {}).get("map", ())
    } | {node["cte_name"].casefold() for node in nodes if node.get("cte_name")}
    return not ctes.isdisjoint(known) or any(
        node.get("type") == "SHOW_REF"
        # With a schema, the name is that of the view with all shards.
        or (
            node.get("type") == "BASE_TABLE"
            and len((node.get("qualified_name") or {}).get("path") or ()) > 1
        )
        for node in nodes
    )


class _Choice:
    """Chooses shards within the transaction of a query."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, params: Parameters, mode: str, *, clocks: bool
    ) -> None:
        self._connection = connection
        self._mode = mode
        self._params = params
        self._clocks = clocks
        self.has_clock = False

    def needed(
        self, scans: Sequence[Scan], known: Mapping[str, Table], choosable: Sequence[Table]
    ) -> tuple[list[Table], list[ScanReport]]:
        """Return the datasets of which scans need some shards, with these, and what each scan reads."""
        try:
            return self._needed(scans, known, choosable)
        except (duckdb.Error, pa.ArrowException, ValueError, OverflowError):
            # The query finds the error too, if it needs the value.
            _check_all(choosable)
            self._begin_anew()
            return self._needed(scans, known, ())

    def visible(self, tables: Sequence[Table]) -> list[Table]:
        """Return the datasets of which policies show a part, without shards that have no such row."""
        found = []
        for table in tables:
            assert table.policy is not None, "tested before"
            try:
                if table.policy.rows is None:
                    _check_all([table])
                else:
                    nodes = expression_nodes(bound_expression(table.policy.rows, table.policy))
                    scan = _scan_of_policy(table, nodes[0])
                    chosen, _ = _Chooser(self._connection, table, None, clocks=False).choose(scan)
                    found.append(table.with_shards(_present(table, chosen)))
            except (duckdb.Error, pa.ArrowException, ValueError, OverflowError):
                _check_all([table])
                self._begin_anew()
        return found

    def _begin_anew(self) -> None:
        """Leave the transaction that an error has ended, as the query must not find it."""
        self._connection.execute("ROLLBACK")
        self._connection.execute(f"BEGIN TRANSACTION {self._mode}")

    def _needed(
        self, scans: Sequence[Scan], known: Mapping[str, Table], choosable: Sequence[Table]
    ) -> tuple[list[Table], list[ScanReport]]:
        needed: dict[str, set[int]] = {table.id: set() for table in choosable}
        scanned: set[str] = set()
        reports = []
        for scan in scans:
            table = known.get(scan.table.casefold())
            if table is None or table.explained or table.policy is not None:
                continue
            scanned.add(table.id)
            count = len(table.paths or ())
            chosen: Sequence[int] = range(count)
            reasons: Sequence[str] = ()
            if table.id in needed:
                chooser = _Chooser(self._connection, table, self._params, clocks=self._clocks)
                found, reasons = chooser.choose(scan)
                self.has_clock |= chooser.has_clock
                chosen = _present(table, found)
                needed[table.id] |= set(chosen)
            name = table.label or table.name
            if scan.alias not in (scan.table, "") and table.label is None:
                name += f" AS {scan.alias}"
            reports.append(
                ScanReport(name, len(chosen), table.shards_in_all or count, tuple(reasons))
            )
        _check_all([table for table in choosable if table.id not in scanned])
        pruned = [
            table.with_shards(sorted(needed[table.id]))
            for table in choosable
            if table.id in scanned and len(needed[table.id]) < len(table.paths or ())
        ]
        return pruned, reports


def _present(table: Table, chosen: Sequence[int]) -> Sequence[int]:
    """Return the shards that a scan needs, which must be there.

    Raises:
        ShardsMissing: It needs one of a list that was left out.
    """
    if chosen and chosen[-1] >= len(table.paths or ()):
        raise ShardsMissing
    return chosen


def _scan_of_policy(table: Table, condition: Node) -> Scan:
    kinds = shard_types(table.schema)
    columns = {name.casefold(): kind for name, kind in kinds.items()}

    def column(node: Node) -> str | None:
        names = [name.casefold() for name in node.get("column_names") or ()]
        return names[0] if len(names) == 1 and names[0] in columns else None

    found = [Condition(each, column, tests_null=True) for each in conjuncts(condition)]
    return Scan(table.name, table.name, columns, found)


class _Chooser:
    """Chooses the shards of one dataset."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        params: Parameters,
        *,
        clocks: bool,
    ) -> None:
        self._connection = connection
        self._clocks = clocks
        self.has_clock = False
        self._table = table
        self._names = {name.casefold(): name for name in table.schema.names}
        self._places = {name: place for place, name in enumerate(self._names)}
        self._statistics: dict[str, Any] = table.statistics or {}
        given = params if isinstance(params, dict) else dict(enumerate(params or (), 1))
        self._params = {str(name): value for name, value in given.items()}

    def choose(self, scan: Scan) -> tuple[Sequence[int], Sequence[str]]:
        """Return the numbers of the shards that a scan needs, and what leaves out the others."""
        count = len(self._statistics["rows"])
        kept = [True] * count
        reasons: list[str] = []
        for condition in () if scan.fixed else scan.conditions:
            test = test_of(condition, self)
            if test is None:
                continue
            if test.has_clock and not self._clocks:
                self.has_clock = True
                continue
            found = self._run(test)
            if all(found):
                continue
            kept = [one and two for one, two in zip(kept, found, strict=True)]
            reasons += [reason for reason in self._reasons(test) if reason not in reasons]
        return [number for number in range(count) if kept[number]], reasons

    def statistics_of(self, column: str) -> dict[str, Any] | None:
        """Return the statistics of a column by its name in lower case; None if there are none."""
        found: dict[str, Any] | None = self._statistics["columns"].get(self._names[column])
        return found

    def type_of(self, column: str) -> str:
        """Return the type of a column in DuckDB."""
        return shard_types(self._table.schema)[self._names[column]]

    def bucket_test(self, column: str, constants: Sequence[str]) -> str | None:
        """Return the test for the buckets of constants; None if one has no certain bucket."""
        found = self.statistics_of(column)
        if found is None or "buckets" not in found:
            return None
        kind = self.type_of(column)
        arrow = self._table.schema.to_arrow().field(self._names[column]).type
        numbers = set()
        for constant in constants:
            cast = f"TRY_CAST({constant} AS {kind})"
            # A constant that the column's type does not hold as it is, such as 1.5, has no bucket, and
            # a DOUBLE may equal several BIGINTs.
            is_exact = f"{cast} = {constant} AND typeof({constant}) NOT IN ('DOUBLE', 'FLOAT')"
            row = self._query(f"SELECT {cast} AS v WHERE {is_exact}").to_arrow_table()
            if row.num_rows != 1:
                return None
            numbers.add(bucket_of(row["v"][0].as_py(), arrow, found["bucketCount"]))
        place = self.place(column)
        listed = ", ".join(map(str, sorted(numbers)))
        return f"(NOT k{place} OR coalesce(b{place} IN ({listed}), false))"

    def place(self, column: str) -> int:
        """Return the number of a column in the names of the statistics."""
        return self._places[column]

    def value(self, identifier: str) -> Any:
        """Return the value of a placeholder; None if it has none, or NULL."""
        return self._params.get(identifier)

    def _run(self, test: Test) -> list[bool]:
        """Return for each shard whether it may have a row."""
        columns: dict[str, pa.Array] = {"rows": pa.array(self._statistics["rows"], pa.int64())}
        shown = ["rows"]
        for name in test.columns:
            found, place, kind = self.statistics_of(name), self.place(name), self.type_of(name)
            assert found is not None, "tested before"
            columns[f"a{place}"] = pa.array(found["min"], pa.string())
            columns[f"z{place}"] = pa.array(found["max"], pa.string())
            columns[f"n{place}"] = pa.array(found["nulls"], pa.int64())
            shown += [
                f"CAST(a{place} AS {kind}) AS a{place}",
                f"CAST(z{place} AS {kind}) AS z{place}",
            ]
            shown.append(f"n{place}")
            if "buckets" in found:
                columns[f"b{place}"] = pa.array(found["buckets"], pa.int64())
                columns[f"k{place}"] = pa.array(found["bucketKnown"], pa.bool_())
                shown += [f"b{place}", f"k{place}"]
        self._connection.register(_STATISTICS, pa.table(columns))
        try:
            inner = f"SELECT {', '.join(shown)} FROM {_STATISTICS}"
            # TRY is NULL if a constant is not of the column's type.
            rows = self._query(f"SELECT TRY({test.text}) FROM ({inner})").fetchall()
        finally:
            self._connection.unregister(_STATISTICS)
        return [keep is not False for (keep,) in rows]

    def _query(self, text: str) -> duckdb.DuckDBPyRelation:
        used = {f"p{name}": value for name, value in self._params.items() if f"$p{name}" in text}
        return self._connection.sql(text, params=used or None)

    def _reasons(self, test: Test) -> list[str]:
        found = []
        for column in sorted(test.columns):
            statistics = self.statistics_of(column) or {}
            fields = statistics.get("partitions")
            found += [f"partition {each}" for each in fields or ()]
            found += [] if fields else [f"statistics of {self._names[column]}"]
        return found
