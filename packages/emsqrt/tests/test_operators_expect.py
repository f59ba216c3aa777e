"""Expectations fail a run before anything is written, and samples of a count are exact."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt import scan
from emsqrt.errors import ExpectationFailed
from emsqrt.plan import DatasetRef, Scan
from emsqrt.plan.nodes import Custom, Expect, Sample
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import NotFound
from sennit_core.schema import Schema

SCAN = Scan(DatasetRef("t"))
TABLE = pa.table({"id": [1, 2, 3, 2], "s": ["a", "b", None, "b"]})


def rows(table: pa.Table, cut: int = 2) -> InputRows:
    return InputRows(Schema.from_arrow(table.schema), table.to_batches(max_chunksize=cut))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Expect(SCAN, unique=("id",)), r"expected unique\(id\), found \(2\) 2 times"),
        (Expect(SCAN, unique=("id", "s")), r"unique\(id, s\), found \(2, 'b'\) 2 times"),
        (Expect(SCAN, not_null=("id", "s")), r"expected not_null\(s\), found NULL in row 3"),
        (Expect(SCAN, rows="<=3"), "expected rows <=3, found 4 rows"),
    ],
)
def test_rows_that_are_not_as_expected_fail_the_run(node: Expect, words: str) -> None:
    with pytest.raises(ExpectationFailed, match=words):
        run_operator(node, rows(TABLE))


def test_rows_that_are_as_expected_pass() -> None:
    node = Expect(SCAN, unique=("id",), not_null=("id", "s"), rows="==2")
    out = run_operator(node, rows(TABLE.slice(0, 2)))
    assert pa.Table.from_batches(out).equals(TABLE.slice(0, 2))


def test_many_rows_are_compared_in_little_memory() -> None:
    table = pa.table({"id": [*range(200_000), 77]})
    with pytest.raises(ExpectationFailed, match=r"found \(77\) 2 times"):
        run_operator(Expect(SCAN, unique=("id",)), rows(table, 10_000), memory_bytes=4 << 20)


@pytest.mark.slow
def test_a_failed_expectation_writes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id\n1\n1\n")
    pipeline = scan(source).expect(unique=["id"]).sink(tmp_path / "out.csv")
    with pytest.raises(ExpectationFailed):
        pipeline.run(mem_cap="96MiB")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 3))
def test_a_sample_of_a_count_is_exact_in_order_and_the_same_for_any_cut(
    cut: int, count: int, seed: int
) -> None:
    table = pa.table({"n": list(range(60))})
    node = Sample(SCAN, count=count, seed=seed)
    numbers = [
        [n for batch in run_operator(node, rows(table, size)) for n in batch.column(0).to_pylist()]
        for size in (cut, 60)
    ]
    assert numbers[0] == numbers[1] == sorted(set(numbers[0]))
    assert len(numbers[0]) == min(count, 60)


def test_an_unregistered_operator_is_named() -> None:
    with pytest.raises(NotFound, match="reverse"):
        run_operator(Custom((SCAN,), "reverse"), rows(TABLE))
