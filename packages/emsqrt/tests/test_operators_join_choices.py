"""A join returns the same rows by any strategy: merged, hashed, in order or not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fuzz_runs import a_run, run_batches, run_files, run_text_plan, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.choices import HASHED, JoinChoice
from emsqrt.operators import make_operator
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import DatasetRef, Join, JoinKind, Scan
from emsqrt.plan.check import check
from emsqrt.testing import InputRows
from sennit_core.schema import Schema

MIB = 1 << 20
HERE = Scan(DatasetRef("here"))
KINDS: tuple[JoinKind, ...] = ("inner", "left", "semi", "anti", "right", "full")
ON = (("k", "k"), ("t", "u"))


def joined(
    left: pa.Table, right: pa.Table, how: JoinKind, choice: JoinChoice, memory_bytes: int = 4 * MIB
) -> tuple[list[dict[str, Any]], int]:
    """The rows, and how many bytes were spilled for them."""
    inputs = [
        InputRows(Schema.from_arrow(side.schema), side.to_batches(max_chunksize=700))
        for side in (left, right)
    ]
    with TemporaryDirectory() as folder, a_run(memory_bytes, Path(folder)) as run:
        run.choose({run.node: choice})
        operator = make_operator(Join(HERE, HERE, ON, how), inputs, run)
        run.map_working_set()
        with closing(operator.batches()) as batches:
            rows = [row for batch in batches for row in batch.to_pylist()]
        return rows, run.meter.to_json()["spilledBytes"]


NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, float("nan"), 1.5, -2.0]))
TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "ab", "b", "\x00"]))
ROWS = st.lists(st.tuples(NUMBERS, TEXTS), max_size=25)


def in_order(rows: list[tuple[float | None, str | None]]) -> list[tuple[float | None, str | None]]:
    """Sorted by the text and then the number: NULL last, NaN before it, both zeros alike."""

    def place(row: tuple[float | None, str | None]) -> tuple[Any, ...]:
        number, text = row
        odd = number is not None and number != number
        value = 0.0 if number is None or odd else number
        return text is None, (text or "").encode(), number is None, odd, value

    return sorted(rows, key=place)


def as_table(rows: list[tuple[float | None, str | None]], text: str, number: str) -> pa.Table:
    columns = {
        "k": pa.array([row[0] for row in rows], pa.float64()),
        text: pa.array([row[1] for row in rows], pa.string()),
        number: pa.array(range(len(rows)), pa.int32()),
    }
    return pa.table(columns)


@pytest.mark.slow
@pytest.mark.parametrize("how", KINDS)
@settings(max_examples=8)
@given(ROWS.map(in_order), ROWS.map(in_order))
def test_sorted_sides_are_merged_to_the_same_rows(
    how: JoinKind, one: list[tuple[float | None, str | None]], other: list[Any]
) -> None:
    left, right = as_table(one, "t", "l"), as_table(other, "u", "r")

    merged, _ = joined(left, right, how, JoinChoice(merge=("t", "k")))

    hashed, _ = joined(left, right, how, HASHED)
    assert str(merged) == str(hashed)  # NaN is like NaN there


def large(rows: int, text: str, number: str, seed: int) -> pa.Table:
    keys = pa.array([(at * seed) % 9973 if at % 50 else None for at in range(rows)], pa.int64())
    texts = pc.cast(pc.bit_wise_and(keys, 3), pa.string())
    filler = pc.binary_join_element_wise(pc.cast(keys, pa.string()), "x" * 60, "")
    return pa.table({"k": keys, text: texts, number: range(rows), f"f{number}": filler})


@pytest.mark.sample(2)
@pytest.mark.parametrize("how", KINDS)
def test_rows_whose_order_is_not_observable_are_the_same(how: JoinKind) -> None:
    left, right = large(6_000, "t", "l", 7), large(12_000, "u", "r", 11)

    in_any_order, less = joined(
        left, right, how, JoinChoice(ordered=False, build_bytes=2 * MIB), 2 * MIB
    )
    ordered, more = joined(left, right, how, HASHED, 2 * MIB)

    assert sorted(map(str, in_any_order)) == sorted(map(str, ordered))
    assert less < more if how not in ("semi", "anti") else less <= more
    assert len(ordered) > 100


@pytest.mark.sample(3)
@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("memory_bytes", [2 * MIB, 32 * MIB])
def test_the_smaller_left_side_may_be_built(how: JoinKind, memory_bytes: int) -> None:
    left, right = large(4_000, "t", "l", 7), large(12_000, "u", "r", 11)

    in_order, _ = joined(left, right, how, JoinChoice(build_left=True), memory_bytes)
    built, _ = joined(left, right, how, JoinChoice(ordered=False, build_left=True), memory_bytes)

    wanted, _ = joined(left, right, how, HASHED)
    assert in_order == wanted
    assert sorted(map(str, built)) == sorted(map(str, wanted))
    assert len(built) > 100


@pytest.mark.slow
@pytest.mark.parametrize("how", KINDS)
def test_sorted_sides_are_merged_in_little_memory(how: JoinKind) -> None:
    order = [("k", "ascending")]
    left, right = (
        large(n, t, c, 3).sort_by(order) for n, t, c in ((9000, "t", "l"), (9000, "u", "r"))
    )

    merged, spilled_bytes = joined(left, right, how, JoinChoice(merge=("k", "t")), 2 * MIB)

    assert spilled_bytes == 0
    assert merged == joined(left, right, how, HASHED, 16 * MIB)[0]


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", KINDS)
def test_whole_plans_return_the_same_in_both_tiers(how: JoinKind, tmp_path: Path) -> None:
    tables = {"l.csv": large(4000, "t", "l", 7), "r.csv": large(5000, "u", "r", 11)}
    sides = []
    for name, table in tables.items():
        schema = Schema.from_arrow(table.schema)
        write_table(table, schema, tmp_path / name)
        sides.append(scan(str(tmp_path / name), schema=schema))
    inputs = {str(tmp_path / name): table for name, table in tables.items()}
    merged = sides[0].sort("t", "k").join(sides[1].sort("u", "k"), {"k": "k", "t": "u"}, how)
    unseen = sides[0].join(sides[1], {"k": "k", "t": "u"}, how).group_by("t").agg(n="count(*)")

    def compare(pipeline: Pipeline) -> None:
        plan = pipeline.plan
        expected = run_batches(plan, inputs, 16 * MIB, tmp_path).rows
        text = run_text_plan(plan, 8 * MIB, tmp_path, check(plan))
        assert text is not None
        assert sorted(text.rows, key=str) == sorted(expected, key=str)
        if pipeline is unseen:
            return
        assert text.rows == expected
        assert run_files(plan, 32 * MIB, tmp_path, "parquet", check(plan)).rows == expected
        assert len(expected) > 20

    compare(merged)
    compare(unseen)
