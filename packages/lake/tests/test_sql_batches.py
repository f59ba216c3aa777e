"""Results of statements whose columns are known from an earlier run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from lake.sql.batches import read_batches
from lake.sql.guard import check_statement
from lake.sql.known_forms import KnownForms, Repeatable


class Reader:
    """Reads statements as an executor does, and counts those that it bound for their columns."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.bound = 0
        self._connection = connection
        self._forms = KnownForms()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        def bind() -> duckdb.DuckDBPyRelation:
            self.bound += 1
            return self._connection.sql(sql)

        form = check_statement(sql).form
        query = Repeatable(self._forms, self._connection, sql, form, bind)
        with read_batches(query) as (_, batches):
            return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


@pytest.fixture
def reader() -> Iterator[Reader]:
    with duckdb.connect() as connection:
        connection.execute("CREATE VIEW t AS SELECT range AS a, range::VARCHAR AS b FROM range(3)")
        yield Reader(connection)


@pytest.mark.parametrize(
    "template",
    ["SELECT {}", "SELECT a + {} FROM t; ", "FROM t WHERE a < {} -- all", "VALUES ({}, 'x')"],
)
def test_a_statement_that_differs_in_numbers_is_bound_once(reader: Reader, template: str) -> None:
    for number in (1, 2, 30):
        sql = template.format(number)
        with duckdb.connect() as other:
            other.execute("CREATE VIEW t AS SELECT range AS a, range::VARCHAR AS b FROM range(3)")
            assert reader.rows(sql) == other.sql(sql).fetchall()
    assert reader.bound == 1


def test_columns_that_differ_from_those_of_the_run_before_are_read_as_they_are(
    reader: Reader,
) -> None:
    assert reader.rows("SELECT #1 FROM t") == [(0,), (1,), (2,)]
    assert reader.rows("SELECT #2 FROM t") == [("0",), ("1",), ("2",)]
    assert reader.rows("SELECT #1 FROM t") == [(0,), (1,), (2,)]
    assert reader.bound == 3


@pytest.mark.parametrize("sql", ["EXPLAIN SELECT 1", "SHOW TABLES", "PIVOT t ON b USING sum(a)"])
def test_other_statements_are_bound_each_time(reader: Reader, sql: str) -> None:
    assert reader.rows(sql) == reader.rows(sql)
    assert reader.bound == 2


def test_an_error_of_a_known_statement_has_its_position(reader: Reader) -> None:
    reader.rows("SELECT a + 1 FROM t")
    reader._connection.execute("CREATE OR REPLACE VIEW t AS SELECT 1 AS c")
    with pytest.raises(duckdb.BinderException, match=r"LINE 1: SELECT a \+ 2"):
        reader.rows("SELECT a + 2 FROM t")
