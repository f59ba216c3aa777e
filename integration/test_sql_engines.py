"""Both engines behind every interface of a node: equal answers, and the engine's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

import sennit
from nodes import RunningNode, platform, running_node
from sennit.demo import csv_file
from sennit_core.errors import CapTooSmall, MemoryCapExceeded, Unsupported

MADE = {
    "lineitem": """
        select i % 997 as l_orderkey, i % 31 as l_suppkey, (1 + i % 50)::decimal(15,2) as l_quantity,
            (i * 7919 % 1000000 / 100)::decimal(15,2) as l_extendedprice,
            (i % 11 / 100)::decimal(15,2) as l_discount, (i % 9 / 100)::decimal(15,2) as l_tax,
            ['A', 'N', 'R'][1 + i % 3] as l_returnflag, ['F', 'O'][1 + i % 2] as l_linestatus,
            date '1994-01-01' + (i * 31 % 1800)::integer as l_shipdate,
            ['MAIL', 'SHIP', 'RAIL', 'AIR'][1 + i % 4] as l_shipmode from range(30000) t(i)""",
    "orders": """
        select i as o_orderkey, i % 113 as o_custkey, 0::integer as o_shippriority,
            date '1995-01-01' + (i * 17 % 150)::integer as o_orderdate,
            ['1-URGENT', '3-MEDIUM', '5-LOW'][1 + i % 3] as o_orderpriority
        from range(990) t(i)""",
    "customer": """
        select i as c_custkey, i % 5 as c_nationkey, i * 1.5 as c_acctbal,
            ['BUILDING', 'MACHINERY'][1 + i % 2] as c_mktsegment from range(120) t(i)""",
}
TPCH = {
    "Q1": """select l_returnflag, l_linestatus, sum(l_quantity) as sum_qty,
            sum(l_extendedprice) as sum_base_price,
            sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
            sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as sum_charge,
            avg(l_quantity) as avg_qty, avg(l_extendedprice) as avg_price,
            avg(l_discount) as avg_disc, count(*) as count_order
        from lineitem where l_shipdate <= date '1998-12-01' - interval '90' day
        group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus""",
    "Q3": """select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate,
            o_shippriority from customer, orders, lineitem
        where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey
            and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
        group by l_orderkey, o_orderdate, o_shippriority
        order by revenue desc, o_orderdate, l_orderkey limit 10""",
    "Q5": """select c_nationkey, sum(l_extendedprice * (1 - l_discount)) as revenue
        from customer join orders on c_custkey = o_custkey join lineitem on l_orderkey = o_orderkey
        where o_orderdate >= date '1995-01-01' group by c_nationkey order by revenue desc""",
    "Q6": """select sum(l_extendedprice * l_discount) as revenue from lineitem
        where l_shipdate >= date '1994-01-01' and l_shipdate < date '1994-01-01' + interval '1' year
            and l_discount between 0.06 - 0.01 and 0.06 + 0.01 and l_quantity < 24""",
    "Q12": """select l_shipmode,
            sum(case when o_orderpriority = '1-URGENT' then 1 else 0 end) as high,
            sum(case when o_orderpriority <> '1-URGENT' then 1 else 0 end) as low
        from orders join lineitem on o_orderkey = l_orderkey
        where l_shipmode in ('MAIL', 'SHIP') group by l_shipmode order by l_shipmode""",
    "Q13": """select c_count, count(*) as custdist from (
            select c_custkey, count(o_orderkey) as c_count
            from customer left join orders on c_custkey = o_custkey group by c_custkey) c
        group by c_count order by custdist desc, c_count desc""",
    "Q15": """with revenue as (select l_suppkey as supplier, sum(l_extendedprice) as total
            from lineitem group by l_suppkey)
        select supplier, total from revenue order by total desc, supplier limit 3""",
}
FLIGHTS = {
    "groups": """select carrier, count(*) as n, avg(dep_delay) as delay, sum(distance) as miles
        from flights where distance > 500 group by carrier order by carrier""",
    "distinct": """select origin, count(distinct tailnum) as planes from flights group by origin
        order by origin""",
    "window": """select carrier, flight, distance, place from (
            select carrier, flight, distance, time_hour, row_number() over (
                partition by carrier order by distance desc, time_hour, flight, origin) as place
            from flights) ranked where place <= 2 order by carrier, place""",
    "times": """select month(time_hour) as m, max(arr_delay) as worst, min(air_time) as quickest
        from flights group by m order by m""",
    "self join": """select a.carrier, count(*) as n from flights a
        join (select carrier, avg(distance) as mean from flights group by carrier) b
            on a.carrier = b.carrier where a.distance > b.mean group by a.carrier order by n desc""",
    "rows": """select * from flights where dep_delay > 700 order by dep_delay desc, flight""",
    "union": """select origin from flights where month = 1 union select dest from flights
        where month = 2 order by 1""",
}


@pytest.fixture(scope="module")
def loaded(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session of a node that holds the tables for as long as these tests run."""
    folder = tmp_path_factory.mktemp("tables")
    with node.session() as session, duckdb.connect(config={"threads": 1}) as made:
        for name, query in MADE.items():
            path = folder / f"{name}.parquet"
            made.execute(f"copy ({query}) to '{path}' (format parquet)")
            session.put(path)
        with csv_file("flights") as path:
            session.put(path, "flights")
        yield session
        for name in (*MADE, "flights"):
            session.delete(name)


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-12) if isinstance(value, float) else value


@pytest.mark.sample(2)
@pytest.mark.parametrize("query", [*TPCH.values(), *FLIGHTS.values()], ids=[*TPCH, *FLIGHTS])
def test_both_engines_answer_alike(loaded: sennit.Session, query: str) -> None:
    one = loaded.sql(query, engine="duckdb")
    two = loaded.sql(query, engine="emsqrt")
    assert (one.manifest["engine"], two.manifest["engine"]) == ("duckdb", "emsqrt")
    assert one.columns == two.columns
    assert len(one.rows) > 0
    assert [tuple(map(close, row)) for row in one.rows] == two.rows


def test_parameters_reach_both_engines(loaded: sennit.Session) -> None:
    query = "select count(*) from flights where carrier = $c and distance > $d"
    values = {"c": "UA", "d": 1000}
    answers = [loaded.sql(query, values, engine=e).value for e in ("duckdb", "emsqrt", "auto")]
    assert answers[0] > 0
    assert answers == [answers[0]] * 3


def test_the_command_line_chooses_the_engine(loaded: sennit.Session, node: RunningNode) -> None:
    done = platform(
        "sql", "select count(*) as n from flights", "--engine", "emsqrt", "--json", data=node.data
    )
    answer = json.loads(done.stdout)
    assert (answer["rows"], answer["engine"]) == ([[336_776]], "emsqrt")
    failed = platform("sql", "show tables", "--engine", "emsqrt", data=node.data, check=False)
    assert failed.returncode != 0
    assert "EM-√ answers SELECT" in failed.stderr


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_every_form_of_an_answer_names_its_engine(
    loaded: sennit.Session, node: RunningNode, accept: str
) -> None:
    document = {"sql": "select carrier, count(*) n from flights group by 1 order by 1 limit 2"}
    bodies = []
    for engine in ("duckdb", "emsqrt"):
        answer = httpx.post(
            f"{node.url}/api/query",
            json=document | {"engine": engine},
            headers=node.headers | {"Accept": accept},
            timeout=60,
        )
        assert (answer.status_code, answer.headers["Sennit-Engine"]) == (200, engine)
        bodies.append(answer.text)
    assert bodies[0] == bodies[1]


def test_sql_that_emsqrt_does_not_cover_is_refused_and_auto_answers_it(
    loaded: sennit.Session,
) -> None:
    query = "select count(*) from flights where carrier in (select 'UA')"
    with pytest.raises(Unsupported, match="not covered"):
        loaded.sql(query, engine="emsqrt")
    assert loaded.sql(query).manifest["engine"] == "duckdb"


@pytest.mark.nightly
def test_auto_continues_with_emsqrt_when_duckdb_runs_out_of_memory(tmp_path: Path) -> None:
    rows = 1_500_000
    query = (
        "select count(*), sum(n), max(v) from (select k, count(*) as n, median(v) as v from wide "
        "group by k) groups"
    )
    path = tmp_path / "wide.parquet"
    with duckdb.connect(config={"threads": 1}) as made:
        made.execute(
            f"copy (select md5((i * 7919 % {rows})::varchar) as k, i as v from range({rows}) t(i))"
            f" to '{path}' (format parquet)"
        )
    with (
        running_node(tmp_path / "node", "--api-only", "--memory", "512MiB") as small,
        small.session() as session,
    ):
        session.put(path, "wide")
        with pytest.raises((MemoryCapExceeded, CapTooSmall)):
            session.sql(query, engine="duckdb")
        answer = session.sql(query)
    assert answer.manifest["engine"] == "emsqrt"
    assert answer.rows == [(rows, rows, rows - 1.0)]
