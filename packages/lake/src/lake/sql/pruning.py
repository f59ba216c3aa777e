"""Leave out shards of which a query's filters need no row, before they are verified and opened.

For each conjunct of a scan's filters (`lake.sql.scan_filters`) that compares a column with constants, DuckDB
itself computes from the bounds of each shard whether a row may satisfy it: `x > 5` becomes `max_x > 5`, with
the constant as written and the bounds in the column's type. So types are compared as in the query. Where
a bound is not known, or the expression has an error, the shard is read.

The shards that are left are those of a view of the query's own connection, which hides the one that the
instance has for all shards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from lake.ingest.partitions import bucket_of
from lake.sql.guard import expression_text, query_nodes
from lake.sql.scan_filters import Condition, Node, Scan, find_scans
from lake.sql.tables import Table
from lake.sql.types import shard_types
from lake.sql.volatility import volatile_names

__all__ = ["Pruned", "ScanReport", "prune"]

_STATISTICS = "__lake_statistics"
_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_MIRRORED = {"=": "=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_CONSTANT_CLASSES = frozenset(("CONSTANT", "CAST", "FUNCTION", "PARAMETER", "TYPE"))
# The time of the transaction, in which the query runs too.
_CLOCKS = frozenset(("now", "get_current_timestamp", "transaction_timestamp", "today"))
_LIST_MAX = 64
"""A longer IN is compared as a range: each element costs two comparisons for each shard."""
_NODES_MAX = 2000
"""A query with more nodes in a filter is not looked at: its text may be 8 MiB."""
# Functions of a date or time that grow with it.
_GROWING = {"year": 1, "date_trunc": 2}


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
    """

    tables: tuple[Table, ...] = ()
    scans: tuple[ScanReport, ...] = ()


@dataclass(frozen=True, slots=True)
class _Test:
    """A test of shards: an expression over their statistics, and the columns that it is about."""

    text: str
    columns: frozenset[str]


def prune(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    params: list[Any] | dict[str, Any] | None,
    tables: Sequence[Table],
    *,
    explains: bool = False,
) -> Pruned:
    """Return which shards a query needs.

    Args:
        connection: That of the query, in its transaction.
        sql: The query.
        params: The values of its placeholders.
        tables: The datasets that it reads.
        explains: Whether to report scans of datasets that nothing is left out of.
    """
    known = {key.casefold(): t for t in tables if t.paths is not None for key in (t.name, t.id)}
    # A view reads by name too, and would find the connection's view of fewer shards.
    under_views = {name.casefold() for t in tables if t.view is not None for name in t.view.reads}
    choosable = [
        table
        for table in tables
        if table.statistics
        and table.policy is None
        and under_views.isdisjoint((table.name.casefold(), table.id))
    ]
    if not choosable and not explains:
        return Pruned()

    def columns_of(name: str) -> frozenset[str] | None:
        table = known.get(name.casefold())
        return None if table is None else frozenset(map(str.casefold, table.schema.names))

    nodes = query_nodes(sql)
    if _is_hard(nodes, known):
        return Pruned()
    scans = find_scans(nodes, columns_of)
    try:
        return _chosen(connection, scans, known, choosable, params)
    except (duckdb.Error, pa.ArrowException, ValueError, OverflowError):
        # The query finds the error too, if it needs the value. It must not find this transaction,
        # which the error has ended.
        connection.execute("ROLLBACK")
        connection.execute("BEGIN TRANSACTION READ ONLY")
        return _chosen(connection, scans, known, (), params)


def _chosen(
    connection: duckdb.DuckDBPyConnection,
    scans: Sequence[Scan],
    known: Mapping[str, Table],
    choosable: Sequence[Table],
    params: list[Any] | dict[str, Any] | None,
) -> Pruned:
    """Return what scans need, of datasets that have statistics."""
    needed: dict[str, set[int]] = {table.id: set() for table in choosable}
    scanned: set[str] = set()
    reports = []
    for scan in scans:
        table = known.get(scan.table.casefold())
        if table is None or scan.columns is None or table.explained or table.policy is not None:
            continue
        scanned.add(table.id)
        chosen: Sequence[int] = range(len(table.paths or ()))
        reasons: Sequence[str] = ()
        if table.id in needed:
            chosen, reasons = _Chooser(connection, table, params).choose(scan)
            needed[table.id] |= set(chosen)
        name = table.name if scan.alias in (scan.table, "") else f"{table.name} AS {scan.alias}"
        reports.append(ScanReport(name, len(chosen), len(table.paths or ()), tuple(reasons)))
    pruned = [
        _with_shards(table, sorted(needed[table.id]))
        for table in choosable
        if table.id in scanned and len(needed[table.id]) < len(table.paths or ())
    ]
    return Pruned(tuple(pruned), tuple(reports))


def _is_hard(nodes: Sequence[Node], known: Collection[str]) -> bool:
    """Return whether a query may read a dataset other than as a scan in FROM, or under a CTE's name."""
    ctes = {
        entry["key"].casefold()
        for node in nodes
        for entry in (node.get("cte_map") or {}).get("map", ())
    } | {node["cte_name"].casefold() for node in nodes if node.get("cte_name")}
    return not ctes.isdisjoint(known) or any(
        node.get("type") == "SHOW_REF"
        # With a schema, the name is that of the view with all shards.
        or (node.get("type") == "BASE_TABLE" and len(_path(node)) > 1)
        for node in nodes
    )


def _path(node: Node) -> Sequence[str]:
    return (node.get("qualified_name") or {}).get("path") or ()


def _with_shards(table: Table, numbers: Sequence[int]) -> Table:
    paths, files = table.paths or (), table.shard_files
    return replace(
        table,
        paths=tuple(paths[number] for number in numbers),
        shard_files=tuple(files[number] for number in numbers) if files else (),
    )


class _Chooser:
    """Chooses the shards of one dataset."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        params: list[Any] | dict[str, Any] | None,
    ) -> None:
        self._connection = connection
        self._table = table
        self._names = {name.casefold(): name for name in table.schema.names}
        self._places = {name: place for place, name in enumerate(self._names)}
        self._statistics: dict[str, Any] = table.statistics or {}
        given = params if isinstance(params, dict) else dict(enumerate(params or (), 1))
        self._params = {str(name): value for name, value in given.items()}

    def choose(self, scan: Scan) -> tuple[Sequence[int], Sequence[str]]:
        """Return the numbers of the shards that a scan needs, and what leaves out the others."""
        count = len(self._table.paths or ())
        kept = [True] * count
        reasons: list[str] = []
        for condition in () if scan.fixed else scan.conditions:
            test = _Translation(self, condition).test(condition.node)
            found = None if test is None else self._run(test)
            if test is None or found is None or all(found):
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
            # A constant that the column's type does not hold as it is, such as 1.5, has no bucket.
            row = self._query(f"SELECT {cast} AS v WHERE {cast} = {constant}").to_arrow_table()
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

    def _run(self, test: _Test) -> list[bool]:
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

    def _reasons(self, test: _Test) -> list[str]:
        found = []
        for column in sorted(test.columns):
            statistics = self.statistics_of(column) or {}
            fields = statistics.get("partitions")
            found += [f"partition {each}" for each in fields or ()]
            found += [] if fields else [f"statistics of {self._names[column]}"]
        return found


class _Translation:
    """Translates a condition on rows to one on the bounds of their shard."""

    def __init__(self, chooser: _Chooser, condition: Condition) -> None:
        self._chooser = chooser
        self._condition = condition

    def test(self, node: Node, depth: int = 0) -> _Test | None:
        """Return the test of a condition; None if it is not understood."""
        if depth > 100:
            return None
        match node.get("type"):
            case "CONJUNCTION_AND":
                found = [self.test(child, depth + 1) for child in node["children"]]
                return _joined([each for each in found if each is not None], " AND ")
            case "CONJUNCTION_OR":
                found = [self.test(child, depth + 1) for child in node["children"]]
                known = [each for each in found if each is not None]
                return _joined(known, " OR ") if len(known) == len(found) else None
            case "COMPARE_BETWEEN":
                low = self._compare(node["input"], ">=", [node["lower"]])
                high = self._compare(node["input"], "<=", [node["upper"]])
                return _joined([each for each in (low, high) if each is not None], " AND ")
            case "COMPARE_IN":
                return self._compare(node["children"][0], "=", node["children"][1:])
            case "OPERATOR_IS_NULL" | "OPERATOR_IS_NOT_NULL" as kind:
                return self._null_test(node["children"][0], is_null=kind == "OPERATOR_IS_NULL")
            case kind if kind in _COMPARISONS:
                sign, left, right = _COMPARISONS[kind], node["left"], node["right"]
                return self._compare(left, sign, [right]) or self._compare(
                    right, _MIRRORED[sign], [left]
                )
        return None

    def _compare(self, value: Node, sign: str, constants: Sequence[Node]) -> _Test | None:
        found = self._bounds(value)
        if found is None:
            return None
        column, wrap, is_plain = found
        texts = [self._constant(each, column) for each in constants]
        if not texts or None in texts:
            return None
        place = self._chooser.place(column)
        known = [text for text in texts if text is not None]
        low, high = wrap(f"a{place}"), wrap(f"z{place}")
        if sign == "=":
            if len(known) > _LIST_MAX:
                listed = ", ".join(known)
                tests = [f"{low} <= greatest({listed}) AND {high} >= least({listed})"]
            else:
                tests = [f"{low} <= {text} AND {high} >= {text}" for text in known]
        else:
            tests = [f"{low if sign[0] == '<' else high} {sign} {known[0]}"]
        text = " OR ".join(f"coalesce({each}, true)" for each in tests)
        # A shard with NULLs alone has no bounds, and no row that compares.
        text = f"(coalesce(n{place} < rows, true) AND ({text}))"
        if sign == "=" and is_plain and len(known) <= _LIST_MAX:
            bucket = self._chooser.bucket_test(column, known)
            text = f"({text} AND {bucket})" if bucket else text
        return _Test(text, frozenset((column,)))

    def _bounds(self, node: Node) -> tuple[str, Callable[[str], str], bool] | None:
        """Return the column of a value, and how its bounds become those of the value."""
        column = self._column(node)
        if column is not None:
            return column, str, True
        kind = node.get("type")
        if kind == "OPERATOR_CAST" and _type_name(node) == "DATE" and not node.get("try_cast"):
            column = self._time(node["child"])
            return None if column is None else (column, lambda text: f"CAST({text} AS DATE)", False)
        if kind == "FUNCTION" and node["function_name"] in _GROWING:
            return self._growing(node)
        return None

    def _growing(self, node: Node) -> tuple[str, Callable[[str], str], bool] | None:
        name = node["function_name"]
        arguments = [each["expression"] for each in node["arguments"]]
        if len(arguments) != _GROWING[name] or list(_path(node)) != [name]:
            return None
        column = self._time(arguments[-1])
        unit = self._constant(arguments[0], column) if column and len(arguments) > 1 else ""
        if column is None or unit is None:
            return None
        before = f"{unit}, " if unit else ""
        return column, lambda text: f"{name}({before}{text})", False

    def _time(self, node: Node) -> str | None:
        column = self._column(node)
        if column is None or not self._chooser.type_of(column).startswith(("DATE", "TIMESTAMP")):
            return None
        return column

    def _null_test(self, node: Node, *, is_null: bool) -> _Test | None:
        column = self._column(node)
        if column is None or (is_null and not self._condition.tests_null):
            return None
        place = self._chooser.place(column)
        text = f"n{place} > 0" if is_null else f"n{place} < rows"
        return _Test(f"coalesce({text}, true)", frozenset((column,)))

    def _column(self, node: Node) -> str | None:
        column = self._condition.column(node)
        return column if column and self._chooser.statistics_of(column) is not None else None

    def _constant(self, node: Node, column: str) -> str | None:
        """Return the text of a constant expression; None if it is none, or of a doubtful type."""
        if self._chooser.type_of(column) == "VARCHAR" and not self._is_text(node):
            return None  # the column might be cast, which keeps no order
        if not self._is_constant(node):
            return None
        return expression_text(node)

    def _is_text(self, node: Node) -> bool:
        if node.get("class") == "PARAMETER":
            return isinstance(self._chooser.value(node["identifier"]), str)
        literal = node.get("literal") or {}
        return node.get("class") == "CONSTANT" and literal.get("kind") == "STRING"

    def _is_constant(self, node: Node) -> bool:
        waiting, seen = [node], 0
        while waiting:
            each = waiting.pop()
            seen += 1
            kind = each.get("class")
            if kind not in _CONSTANT_CLASSES or seen > _NODES_MAX:
                return False
            if kind == "PARAMETER" and self._chooser.value(each["identifier"]) is None:
                return False
            if kind == "FUNCTION" and not _is_repeatable(each):
                return False
            if kind == "CAST":
                waiting.append(each["child"])
            elif kind == "FUNCTION":
                waiting += [argument["expression"] for argument in each["arguments"]]
        return True


def _is_repeatable(node: Node) -> bool:
    name = node["function_name"].casefold()
    return name in _CLOCKS or name not in volatile_names()


def _type_name(node: Node) -> str:
    return str((node.get("type_expr") or {}).get("type_name", "")).upper()


def _joined(tests: list[_Test], word: str) -> _Test | None:
    if not tests:
        return None
    text = word.join(test.text for test in tests)
    return _Test(f"({text})", frozenset().union(*(test.columns for test in tests)))
