"""TPC-H's queries 1, 3 and 6 as SQL, run by the engine under a cap: to the last digit DuckDB's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from plain_rows import plain

from emsqrt import scan, sql
from emsqrt.pipeline import Pipeline
from sennit_core.schema import Schema

SCHEMAS = {
    "lineitem": Schema.of(
        l_orderkey="Int64",
        l_quantity="Decimal(15,2)",
        l_extendedprice="Decimal(15,2)",
        l_discount="Decimal(15,2)",
        l_tax="Decimal(15,2)",
        l_returnflag="Utf8",
        l_linestatus="Utf8",
        l_shipdate="Date",
    ),
    "orders": Schema.of(
        o_orderkey="Int64", o_custkey="Int64", o_orderdate="Date", o_shippriority="Int32"
    ),
    "customer": Schema.of(c_custkey="Int64", c_mktsegment="Utf8"),
}
MADE = {
    "lineitem": """
        SELECT i % 97 AS l_orderkey, (1 + i % 50)::DECIMAL(15,2) AS l_quantity,
            (i * 7919 % 1000000 / 100)::DECIMAL(15,2) AS l_extendedprice,
            (i % 11 / 100)::DECIMAL(15,2) AS l_discount, (i % 9 / 100)::DECIMAL(15,2) AS l_tax,
            ['A', 'N', 'R'][1 + i % 3] AS l_returnflag, ['F', 'O'][1 + i % 2] AS l_linestatus,
            DATE '1994-01-01' + (i * 31 % 1800)::INTEGER AS l_shipdate FROM range(2000) t(i)""",
    "orders": """
        SELECT i AS o_orderkey, i % 13 AS o_custkey,
            DATE '1995-01-01' + (i * 17 % 150)::INTEGER AS o_orderdate, 0::INTEGER AS o_shippriority
        FROM range(90) t(i)""",
    "customer": """
        SELECT i AS c_custkey, ['BUILDING', 'MACHINERY'][1 + i % 2] AS c_mktsegment
        FROM range(15) t(i)""",
}
QUERIES = {
    "Q1": """
        select l_returnflag, l_linestatus, sum(l_quantity) as sum_qty,
            sum(l_extendedprice) as sum_base_price,
            sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
            sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as sum_charge,
            avg(l_quantity) as avg_qty, avg(l_extendedprice) as avg_price,
            avg(l_discount) as avg_disc, count(*) as count_order
        from lineitem where l_shipdate <= date '1998-12-01' - interval '90' day
        group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus""",
    "Q3": """
        select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate,
            o_shippriority
        from customer, orders, lineitem
        where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey
            and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
        group by l_orderkey, o_orderdate, o_shippriority
        order by revenue desc, o_orderdate limit 10""",
    "Q6": """
        select sum(l_extendedprice * l_discount) as revenue from lineitem
        where l_shipdate >= date '1994-01-01' and l_shipdate < date '1994-01-01' + interval '1' year
            and l_discount between 0.06 - 0.01 and 0.06 + 0.01 and l_quantity < 24""",
}


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Any, dict[str, Pipeline]]]:
    folder: Path = tmp_path_factory.mktemp("tpch")
    with duckdb.connect(config={"threads": 1}) as connection:
        for name, query in MADE.items():
            connection.execute(f"CREATE TABLE {name} AS {query}")
            connection.execute(f"COPY {name} TO '{folder / name}.csv'")
        tables = {name: scan(folder / f"{name}.csv", schema=of) for name, of in SCHEMAS.items()}
        yield connection, tables


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", QUERIES)
def test_an_answer_is_duckdbs(name: str, reference: tuple[Any, dict[str, Pipeline]]) -> None:
    connection, tables = reference
    table = sql(QUERIES[name], tables).collect("96MiB")
    ours = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    theirs = connection.execute(QUERIES[name]).fetchall()
    assert len(theirs) > 0
    for found, wanted in zip(ours, theirs, strict=True):
        exact = [(a, b) for a, b in zip(found, wanted, strict=True) if not isinstance(a, float)]
        assert [a for a, _ in exact] == [b for _, b in exact]
    assert list(plain(ours)) == list(plain(theirs))
