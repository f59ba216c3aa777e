"""PIVOT whose columns come from the data, as plain DuckDB has it."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from lake import Lake
from lake.access.rules import PolicyRule
from lake.sql.pivots import with_named_values
from sennit_core.errors import Denied, SennitError, SqlError, Unsupported

ROWS = "SELECT i % 3 AS k, i AS v, 'n' || (i % 12) AS n, i % 2 = 0 AS even FROM range(99) r(i)"
QUERIES = [
    "PIVOT s ON k USING sum(v)",
    "PIVOT s ON n USING count(*) GROUP BY k ORDER BY k",
    "PIVOT s ON k, even USING sum(v) AS total, max(v) GROUP BY n ORDER BY n LIMIT 3",
    "PIVOT s ON v % 11 USING count(*) GROUP BY even ORDER BY even",
    "PIVOT s ON k || '-' || n USING sum(v)",
    "PIVOT s ON k IN (0, 1), even USING count(*)",
    "WITH a AS (FROM s WHERE v < 50) PIVOT a ON k USING sum(v)",
    "PIVOT (SELECT k, n FROM s WHERE n IN ('n1', 'n2')) ON n USING count(*) GROUP BY k ORDER BY k",
    'SELECT "0" + 1 AS a FROM (PIVOT s ON k USING sum(v))',
    "FROM (PIVOT s ON k USING sum(v)) JOIN (PIVOT s ON even USING sum(v)) ON true",
    "PIVOT s ON coalesce(n, 'on, using') /* ON x */ USING count(*)",
    "PIVOT_WIDER s ON k USING sum(v)",
    "PIVOT s ON k",
    "PIVOT s ON k USING sum(v) GROUP BY even ORDER BY even OFFSET 1",
]


@pytest.fixture(scope="module")
def peer() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE s AS {ROWS}")
    return connection


def texts(row: tuple[Any, ...]) -> list[str]:
    """The values as text, as a HUGEINT is a decimal in results."""
    return list(map(str, row))


@pytest.mark.parametrize("query", QUERIES)
def test_a_pivot_has_the_columns_and_rows_that_duckdb_has(
    lake: Lake, peer: duckdb.DuckDBPyConnection, query: str
) -> None:
    lake.sql(f"CREATE TABLE s AS {ROWS}")
    wanted = peer.sql(query)
    found = lake.sql(query).to_arrow()
    assert found.column_names == wanted.columns
    rows = zip(*found.to_pydict().values(), strict=True)
    assert sorted(map(texts, rows)) == sorted(map(texts, wanted.fetchall()))
    again = lake.sql(query).to_arrow()  # on a connection that has pivoted before
    assert again.column_names == found.column_names


@pytest.mark.slow
def test_new_values_are_new_columns_and_a_result_is_stored(lake: Lake) -> None:
    lake.sql("CREATE TABLE s AS SELECT 'a' AS k, 1 AS v")
    assert lake.sql("PIVOT s ON k USING sum(v)").to_arrow().column_names == ["a"]
    lake.sql("INSERT INTO s VALUES ('b', 2)")
    assert lake.sql("PIVOT s ON k USING sum(v)").to_arrow().column_names == ["a", "b"]


@pytest.mark.slow
def test_a_pivot_has_only_the_columns_of_rows_that_a_policy_shows(lake: Lake) -> None:
    lake.sql("CREATE TABLE s AS FROM (VALUES ('mine', 'ada'), ('secret', 'bob')) v(k, owner)")
    lake.set_policy("s", [PolicyRule("ada", rows="owner = 'ada'")])
    with lake.run("PIVOT s ON k USING count(*)", user="ada", role="reader") as execution:
        names = [column["name"] for column in execution.result()["columns"]]
    assert "mine" in names
    assert "secret" not in names


@pytest.mark.parametrize("verb", ["EXPLAIN", "EXPLAIN ANALYZE"])
def test_a_plan_of_a_pivot_is_that_of_the_pivot(lake: Lake, verb: str) -> None:
    lake.sql(f"CREATE TABLE s AS {ROWS}")
    ((_, plan), *_) = lake.sql(f"{verb} PIVOT s ON k USING sum(v)").rows
    assert plan.count("FILTER") == 3  # one for each of its columns
    assert lake.folder.name not in plan
    for part in ("k || getenv('HOME')", "k || (SELECT content FROM read_text('/etc/hosts'))"):
        with pytest.raises((Denied, SqlError), match=r"getenv|pivot on subquery"):
            lake.sql(f"{verb} PIVOT s ON {part} USING sum(v)")


def test_a_plan_of_a_pivot_shows_no_value_that_a_policy_hides(lake: Lake) -> None:
    lake.sql("CREATE TABLE s AS FROM (VALUES ('mine', 'ada'), ('secret', 'bob')) v(k, owner)")
    lake.set_policy("s", [PolicyRule("ada", rows="owner = 'ada'")])
    for sql in ("EXPLAIN PIVOT s ON k USING count(*) GROUP BY owner", "EXPLAIN PIVOT s ON k"):
        try:
            with lake.run(sql, user="ada", role="reader", format="json") as execution:
                shown = b"".join(map(bytes, execution.payloads())).decode()
        except SennitError as error:
            shown = f"{error} {error.hint}"
        assert "secret" not in shown
        assert "mine" not in shown


@pytest.mark.parametrize(
    "query",
    [
        "PIVOT s ON k IN (SELECT v FROM s) USING count(*)",
        "PIVOT s a JOIN s b ON a.v = b.v ON k USING count(*)",
    ],
)
def test_what_has_no_named_form_is_refused_with_a_hint(lake: Lake, query: str) -> None:
    lake.sql(f"CREATE TABLE s AS {ROWS}")
    with pytest.raises((Unsupported, SennitError)) as refused:
        lake.sql(query)
    assert refused.value.hint


def test_only_lists_without_values_are_changed() -> None:
    for text in ("SELECT 1", "SELECT pivot FROM t", "PIVOT t ON a IN (1) USING sum(b)", "x ON y"):
        assert with_named_values(text) == text
    assert with_named_values("PIVOT t ON a, b IN (1)") == "PIVOT t ON( a) IN ('') , b IN (1)"
