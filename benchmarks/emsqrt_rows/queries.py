"""TPC-H's queries 1, 3 and 6 as work: SQL for the peers, the same SQL as a plan for us."""

from __future__ import annotations

import json
from pathlib import Path

from emsqrt import scan, sql
from emsqrt.plan import plan_to_json
from emsqrt.race import RaceQuery
from emsqrt_rows.data import DECIMAL_TYPES, Tables
from sennit_core.schema import Field, Schema

QUERIES = {
    "q1": """
select l_returnflag, l_linestatus, sum(l_quantity) as sum_qty,
    sum(l_extendedprice) as sum_base_price,
    sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
    sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as sum_charge,
    avg(l_quantity) as avg_qty, avg(l_extendedprice) as avg_price, avg(l_discount) as avg_disc,
    count(*) as count_order
from lineitem where l_shipdate <= date '1998-09-02'
group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus""",
    "q3": """
select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
from customer join orders on c_custkey = o_custkey join lineitem on l_orderkey = o_orderkey
where c_mktsegment = 'BUILDING' and o_orderdate < date '1995-03-15'
    and l_shipdate > date '1995-03-15'
group by l_orderkey, o_orderdate, o_shippriority order by revenue desc, o_orderdate limit 10""",
    "q6": """
select sum(l_extendedprice * l_discount) as revenue from lineitem
where l_shipdate >= date '1994-01-01' and l_shipdate < date '1995-01-01'
    and l_discount between 0.05 and 0.07 and l_quantity < 24""",
}
_TABLES = {"q1": ("lineitem",), "q3": ("lineitem", "orders", "customer"), "q6": ("lineitem",)}


def query(name: str, kind: str, tables: Tables, scratch: Path, scale: float) -> RaceQuery:
    """Return a query's work; its plan is written beside the scratch folder."""
    paths = {table: tables.path(table, kind, scale) for table in _TABLES[name]}
    sources = {table: scan(str(path), schema=_schema(path, table)) for table, path in paths.items()}
    rows = sql(QUERIES[name], sources)
    plan = scratch.with_name(f"{name}-{kind}.json")
    plan.write_text(json.dumps(plan_to_json(rows.sink(str(scratch / "out.csv")).plan)))
    return RaceQuery(
        title=f"{name} over {kind}",
        tables=paths,
        sql=QUERIES[name],
        words=["run", str(plan)],
        suffix=".csv",
        schema=rows.schema(),
        types=DECIMAL_TYPES if kind == "csv" else {},
        exact=True,
    )


def _schema(path: Path, table: str) -> Schema | None:
    """Return a CSV's columns as found, amounts as decimals."""
    if path.suffix != ".csv":
        return None
    decimals = DECIMAL_TYPES[table]
    found = scan(str(path)).schema()
    return Schema(
        tuple(Field(f.name, "Decimal(15,2)" if f.name in decimals else f.type) for f in found)  # type: ignore[arg-type]
    )
