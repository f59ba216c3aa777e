"""Sorting batches: columns left out of packed rows are restored from their keys."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from emsqrt.expr import SortKey, col
from emsqrt.plan import DatasetRef, Scan
from emsqrt.plan.nodes import Sort
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

SCHEMA = Schema.of(
    flag="Bool",
    tiny="Int8",
    day="Date",
    at="Timestamp(us)",
    price="Decimal(18,2)",
    wide="Decimal(38,2)",
    ratio="Float64",
    name="Utf8",
    id="Int64",
)
ROWS = 700


def make(null_every: int) -> Any:
    def values(make_one: Any) -> list[Any]:
        return [
            None if null_every and row % null_every == 0 else make_one(row * 7919 % 101)
            for row in range(ROWS)
        ]

    made = [
        values(lambda value: value % 2 == 0),
        values(lambda value: value - 50),
        values(lambda value: value - 30),
        values(lambda value: value * 10**6 - 5),
        values(lambda value: Decimal(value - 50) * 10**14),
        values(lambda value: Decimal(value - 50) * 10**30),
        values(lambda value: -0.0 if value % 2 else value / 7),
        values(lambda value: f"a\0{value}"),
        list(range(ROWS)),
    ]
    arrow = SCHEMA.to_arrow()
    arrays = [pa.array(column, kind) for column, kind in zip(made, arrow.types, strict=True)]
    return pa.record_batch(arrays, schema=arrow)


def sorted_rows(batch: Any, keys: tuple[SortKey, ...]) -> list[dict[str, Any]]:
    node = Sort(Scan(DatasetRef("t"), SCHEMA), keys)
    batches = run_operator(node, InputRows(SCHEMA, [batch]), memory_bytes=4 << 20)
    return list(pa.Table.from_batches(batches, SCHEMA.to_arrow()).to_pylist())


@pytest.mark.sample(9)
@pytest.mark.parametrize("name", SCHEMA.names)
@pytest.mark.parametrize("null_every", [0, 3])
@pytest.mark.parametrize("descending", [False, True])
def test_every_column_round_trips_under_any_order_by(
    name: str, null_every: int, descending: bool
) -> None:
    batch = make(null_every)
    key = SortKey(col(name), descending=descending, nulls_first=descending)
    found = sorted_rows(batch, (key,))

    def order(row: dict[str, Any]) -> tuple[bool, Any]:
        value = row[name]
        return (value is None) != descending, 0 if value is None else value

    expected = sorted(batch.to_pylist(), key=order)
    if descending:
        nulls = [row for row in batch.to_pylist() if row[name] is None]
        rest = [row for row in batch.to_pylist() if row[name] is not None]
        expected = nulls + sorted(rest, key=lambda row: row[name], reverse=True)
    assert list(map(repr, found)) == list(map(repr, expected))


def test_a_column_may_be_ordered_by_twice_and_by_expressions_of_it() -> None:
    batch = make(0)
    keys = (SortKey(col("tiny") * -1), SortKey(col("tiny")), SortKey(col("id"), descending=True))
    found = sorted_rows(batch, keys)
    assert found == sorted(batch.to_pylist(), key=lambda row: (-row["tiny"], -row["id"]))


@pytest.mark.parametrize("rows", [1, 3, ROWS])
def test_rows_that_are_all_key_round_trip(rows: int) -> None:
    schema = Schema.of(tiny="Int8", id="Int64")
    batch = make(3).select(list(schema.names)).slice(0, rows)
    keys = (SortKey(col("tiny")), SortKey(col("id"), descending=True))
    node = Sort(Scan(DatasetRef("t"), schema), keys)
    (found,) = run_operator(node, InputRows(schema, [batch]), memory_bytes=4 << 20)

    def order(row: dict[str, Any]) -> tuple[bool, int, int]:
        return row["tiny"] is None, row["tiny"] or 0, -row["id"]

    assert found.to_pylist() == sorted(batch.to_pylist(), key=order)


def test_a_decimal_longer_than_its_type_is_bad_input() -> None:
    batch = make(0)
    beyond = pa.array([Decimal(10) ** 19] * ROWS, pa.decimal128(38, 2)).buffers()
    forged = pa.Array.from_buffers(pa.decimal128(18, 2), ROWS, beyond)
    batch = batch.set_column(4, SCHEMA.to_arrow().field("price"), forged)
    with pytest.raises(BadInput, match="more digits than its type"):
        sorted_rows(batch, (SortKey(col("id")),))
