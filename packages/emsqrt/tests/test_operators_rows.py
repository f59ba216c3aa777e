"""Filter, limit and the operators that map columns."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

from emsqrt.expr import col, count, lit
from emsqrt.operators.computed import STACK_BYTES
from emsqrt.plan import DatasetRef, Filter, Limit, Plan, Project, Rename, Scan, WithColumn
from emsqrt.plan.check import output_schema
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import CapTooSmall, UsageError
from sennit_core.schema import Schema

SCHEMA = Schema.of(a="Int64", s="Utf8")
SCAN = Scan(DatasetRef("t"), SCHEMA)


def batches(*sizes: int) -> Iterable[Any]:
    start = 0
    for size in sizes:
        numbers = list(range(start, start + size))
        yield pa.RecordBatch.from_pydict({"a": numbers, "s": [f"r{n}" for n in numbers]})
        start += size


def run(node: Plan, *sizes: int) -> dict[str, list[Any]]:
    out = run_operator(node, InputRows(SCHEMA, batches(*sizes)), memory_bytes=STACK_BYTES)
    return dict(pa.Table.from_batches(out, output_schema(node, SCHEMA).to_arrow()).to_pydict())


def test_filter_keeps_rows_whose_predicate_is_true() -> None:
    assert run(Filter(SCAN, (col("a") % 2 == 1) | (lit(None, "Bool"))), 3, 2) == {
        "a": [1, 3],
        "s": ["r1", "r3"],
    }


def test_the_memory_of_expressions_is_reserved() -> None:
    rows = InputRows(SCHEMA, batches(2))
    for node in (Filter(SCAN, col("a") > 1), Project(SCAN, (("b", col("a") + 1),))):
        with pytest.raises(CapTooSmall, match="evaluating expressions") as refused:
            run_operator(node, rows, memory_bytes=STACK_BYTES - 1)
        assert refused.value.needed_bytes == STACK_BYTES
        run_operator(node, rows, memory_bytes=STACK_BYTES)


def test_filter_passes_no_empty_batch_on() -> None:
    rows = InputRows(SCHEMA, batches(3))
    assert run_operator(Filter(SCAN, col("a") > 100), rows) == []


def test_project_makes_exactly_its_columns() -> None:
    node = Project(SCAN, (("twice", col("a") * 2), ("one", lit(1))))
    assert run(node, 2) == {"twice": [0, 2], "one": [1, 1]}


def test_with_column_sees_the_input_and_keeps_the_order() -> None:
    node = WithColumn(SCAN, (("a", col("a") + 1), ("b", col("a") * 10)))
    assert run(node, 2) == {"a": [1, 2], "s": ["r0", "r1"], "b": [0, 10]}


def test_rename_may_swap() -> None:
    assert run(Rename(SCAN, (("a", "s"), ("s", "a"))), 1) == {"s": [0], "a": ["r0"]}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Limit(SCAN, 3), [0, 1, 2]),
        (Limit(SCAN, 3, 4), [4, 5, 6]),
        (Limit(SCAN, 99, 5), [5, 6, 7]),
        (Limit(SCAN, 0), []),
        (Limit(SCAN, 5, 100), []),
    ],
)
def test_limit_skips_and_passes_rows_across_batches(node: Limit, expected: list[int]) -> None:
    assert run(node, 2, 2, 4)["a"] == expected


def test_limit_pulls_no_more_once_it_has_its_rows() -> None:
    rows = InputRows(SCHEMA, batches(2, 2, 2))
    run_operator(Limit(SCAN, 3), rows)
    assert rows.pulled == 2


def test_a_scan_is_no_operator_over_rows() -> None:
    with pytest.raises(UsageError, match="scan"):
        run_operator(SCAN)


def test_unused_count_is_typed_when_built() -> None:
    with pytest.raises(UsageError, match="aggregate"):
        run_operator(Filter(SCAN, count() > 1), InputRows(SCHEMA, []))
