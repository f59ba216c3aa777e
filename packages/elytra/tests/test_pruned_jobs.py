"""Shards that a pipeline's filters exclude are not read."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elytra import Elytra, col
from elytra.service.plan_inputs import PlanInputs
from emsqrt.expr import Expr
from emsqrt.plan import DatasetRef, Filter, Scan
from lake.statements.limits import Requester

START = datetime.date(2024, 1, 1)
SHARDS, ROWS = 10, 20


def rows_of(shard: int) -> list[dict[str, Any]]:
    numbers = range(shard * ROWS, (shard + 1) * ROWS)
    return [
        {
            "n": None if shard == 4 else n,
            "f": float("nan") if n == 50 else n / 2,
            "t": f"k{n:04d}",
            "d": START + datetime.timedelta(days=n),
            "m": Decimal(n) / 4,
            "b": shard < 5,
        }
        for n in numbers
    ]


SCHEMA = pa.schema(
    [
        ("n", pa.int64()),
        ("f", pa.float64()),
        ("t", pa.string()),
        ("d", pa.date32()),
        ("m", pa.decimal128(12, 2)),
        ("b", pa.bool_()),
    ]
)


@pytest.fixture(scope="module")
def data(shared_node: Any) -> list[dict[str, Any]]:
    for shard in range(SHARDS):
        shared_node.lake.append("days", pa.Table.from_pylist(rows_of(shard), SCHEMA))
    return [row for shard in range(SHARDS) for row in rows_of(shard)]


def shards_read(node: Any, predicate: Expr) -> int:
    """How many shards a filter leaves."""
    source = node.lake.plan_sources.open(DatasetRef("days"), Requester())
    source.held.close()
    inputs = PlanInputs()
    inputs.add(DatasetRef("days"), source, verify_always=False)
    (ref,) = inputs.shards
    inputs.leave_out_shards(Filter(Scan(ref), predicate))
    return len(inputs.shards[ref])


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (col("n") == 25, 1),
        (col("n") > 185, 1),
        ((col("n") >= 20) & (col("n") < 60), 2),
        (col("n").is_in([1, 199]), 2),
        (col("n").is_null(), 1),
        (col("f") < 10, 2),  # a shard with NaN has no bounds
        (col("t") == "k0030", 1),
        (col("d") < START + datetime.timedelta(days=5), 1),
        (col("m") <= Decimal("5.00"), 2),
        (col("b") == False, 5),  # noqa: E712 - an expression
        ((col("n") == 25) | (col("n") == 99), 10),
        (col("n") + 1 == 25, 10),
        (col("n") == -1, 0),
    ],
)
def test_a_filter_leaves_out_shards(
    shared_node: Any, data: list[dict[str, Any]], predicate: Expr, expected: int
) -> None:
    assert shards_read(shared_node, predicate) == expected


@pytest.mark.slow
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    column=st.sampled_from(["n", "f", "t", "m"]),
    test=st.sampled_from(["<", "<=", "=", ">", ">=", "<>"]),
    value=st.integers(-5, 205),
)
def test_answers_are_those_of_sql_over_all_rows(
    shared_node: Any, data: list[dict[str, Any]], column: str, test: str, value: int
) -> None:
    constant = f"'k{value:04d}'" if column == "t" else str(value)
    where = f"{column} {test} {constant}"
    found = Elytra(shared_node.client).remote("days").filter(where).count().collect()
    assert found.value == shared_node.lake.sql(f"SELECT count(*) FROM days WHERE {where}").value


@pytest.mark.slow
def test_a_task_is_one_of_the_shards_that_are_left(
    shared_node: Any, data: list[dict[str, Any]]
) -> None:
    days = Elytra(shared_node.client).remote("days")
    result = days.filter(col("n").between(25, 45)).select("n").collect()
    assert [n for (n,) in result.rows] == list(range(25, 46))
    assert result.manifest["executions"] == 2
    assert result.manifest["rowsRead"] == 2 * ROWS
    assert days.filter(col("n") == -1).count().collect().value == 0
    assert days.filter(col("n") == -1).select("n").collect().rows == []
    # The other branch of a union needs all rows.
    both = days.filter(col("n") == 25).select("n").union(days.select("n"))
    assert len(both.collect()) == SHARDS * ROWS + 1
