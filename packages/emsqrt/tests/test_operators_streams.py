"""Union, sample by fraction, explode: rows as they come."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.plan import DatasetRef, Plan, Scan
from emsqrt.plan.check import node_schema
from emsqrt.plan.nodes import Explode, Sample, Union
from emsqrt.testing import InputRows, run_operator
from sennit_core.schema import Schema

SCAN = Scan(DatasetRef("t"))


def rows_of(*tables: pa.Table, cut: int = 2) -> list[InputRows]:
    return [
        InputRows(Schema.from_arrow(table.schema), table.to_batches(max_chunksize=cut))
        for table in tables
    ]


def run(node: Plan, *tables: pa.Table, cut: int = 2) -> pa.Table:
    inputs = rows_of(*tables, cut=cut)
    out = run_operator(node, *inputs)
    schema = node_schema(node, tuple(each.schema for each in inputs))
    return pa.Table.from_batches(out, schema.to_arrow())


def test_union_puts_columns_together_by_position_and_widens() -> None:
    left = pa.table({"a": pa.array([1, 2, 3], pa.int32()), "b": ["x", None, "z"]})
    right = pa.table({"c": pa.array([2**40], pa.int64()), "d": ["w"]})
    found = run(Union((SCAN, SCAN)), left, right)
    assert found.to_pydict() == {"a": [1, 2, 3, 2**40], "b": ["x", None, "z", "w"]}


def test_union_by_name_fills_in_null() -> None:
    left, right = pa.table({"a": [1], "b": ["x"]}), pa.table({"b": ["y"], "c": [1.5]})
    found = run(Union((SCAN, SCAN), by_name=True), left, right)
    assert found.to_pylist() == [
        {"a": 1, "b": "x", "c": None},
        {"a": None, "b": "y", "c": 1.5},
    ]


@pytest.mark.slow
@given(st.integers(1, 50), st.integers(0, 9), st.sampled_from([0.0, 0.1, 0.5, 0.99, 1.0]))
def test_a_sample_depends_on_place_and_seed_alone(cut: int, seed: int, fraction: float) -> None:
    table = pa.table({"n": list(range(200))})
    node = Sample(SCAN, fraction=fraction, seed=seed)
    assert run(node, table, cut=cut).equals(run(node, table, cut=200))


@pytest.mark.slow
def test_samples_are_about_as_large_as_requested_and_differ_by_seed() -> None:
    table = pa.table({"n": list(range(100_000))})
    first = run(Sample(SCAN, fraction=0.1, seed=1), table, cut=9999)
    second = run(Sample(SCAN, fraction=0.1, seed=2), table, cut=9999)
    assert 9_500 < first.num_rows < 10_500
    assert 9_500 < second.num_rows < 10_500
    assert first.column("n").to_pylist() != second.column("n").to_pylist()
    assert run(Sample(SCAN, fraction=1.0), table).num_rows == 100_000


LISTS: list[Any] = [[1, 2], [], None, [None, 3]]


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_explode_returns_a_row_for_each_item(cut: int) -> None:
    table = pa.table({"k": ["a", "b", "c", "d"], "v": pa.array(LISTS, pa.list_(pa.int64()))})
    found = run(Explode(SCAN, "v", position="at"), table, cut=cut)
    assert found.to_pydict() == {
        "k": ["a", "a", "d", "d"],
        "v": [1, 2, None, 3],
        "at": [1, 2, 1, 2],
    }


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_an_outer_explode_keeps_rows_without_items(cut: int) -> None:
    table = pa.table({"v": pa.array(LISTS, pa.list_(pa.int64())), "k": ["a", "b", "c", "d"]})
    found = run(Explode(SCAN, "v", as_name="x", outer=True, position="at"), table, cut=cut)
    assert found.to_pydict() == {
        "x": [1, 2, None, None, None, 3],
        "k": ["a", "a", "b", "c", "d", "d"],
        "at": [1, 2, None, None, 1, 2],
    }


def test_a_long_list_comes_in_several_batches() -> None:
    table = pa.table({"v": pa.array([list(range(100_000)), [7]], pa.list_(pa.int64()))})
    out = run_operator(Explode(SCAN, "v"), *rows_of(table))
    assert len(out) > 2
    assert [n for batch in out for n in batch.column(0).to_pylist()] == [*range(100_000), 7]
