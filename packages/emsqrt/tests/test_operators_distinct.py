"""Distinct rows: sorted, the first of each key, NULL a value like any other."""

import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsqrt import scan
from emsqrt.plan import DatasetRef, Scan
from emsqrt.plan.nodes import Distinct
from emsqrt.testing import GivenRows, run_operator
from sennit_core.errors import Unsupported
from sennit_core.schema import Schema

SCHEMA = Schema.of(k="Int64", t="Utf8")
SCAN = Scan(DatasetRef("t"), SCHEMA)
ROWS = pa.table({"k": [2, None, 2, 1, None], "t": [None, "x", "y", "z", "x"]})


def run(node: Distinct, rows: pa.Table, memory_bytes: int = 4 << 20) -> pa.Table:
    given = GivenRows(SCHEMA, rows.to_batches(max_chunksize=1000))
    found = run_operator(node, given, memory_bytes=memory_bytes)
    return pa.Table.from_batches(found, SCHEMA.to_arrow())


def test_all_columns_tell_rows_apart() -> None:
    found = run(Distinct(SCAN, None), ROWS)
    assert found.to_pydict() == {"k": [1, 2, 2, None], "t": ["z", "y", None, "x"]}


def test_of_chosen_columns_the_first_row_is_kept_whole() -> None:
    found = run(Distinct(SCAN, ("k",)), ROWS)
    assert found.to_pydict() == {"k": [1, 2, None], "t": ["z", None, "x"]}


@pytest.mark.parametrize("memory_bytes", [3 << 20, 64 << 20])
def test_any_number_of_rows(tmp_path: Path, memory_bytes: int) -> None:
    numbers = [(number * 7919) % 30_011 for number in range(60_000)]
    rows = pa.table({"k": numbers, "t": [str(number) for number in range(60_000)]})
    found = run(Distinct(SCAN, ("k",)), rows, memory_bytes)
    firsts = {number: str(at) for at, number in reversed(list(enumerate(numbers)))}
    assert found.to_pydict() == {"k": sorted(firsts), "t": [firsts[k] for k in sorted(firsts)]}


@pytest.mark.parametrize("columns", [None, ("f",), ("t", "f", "h")])
def test_more_columns_than_a_table_of_groups_has_change_nothing(
    columns: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(3)
    floats = [None, 0.0, -0.0, math.nan, -math.nan, 1.5, math.inf]
    rows = pa.table(
        {
            "f": pa.array([dice.choice(floats) for _ in range(900)], pa.float64()),
            "h": pa.array([dice.choice(floats) for _ in range(900)], pa.float32()),
            "t": [dice.choice([None, "", "a", "b"]) for _ in range(900)],
            "_0": pa.array([dice.randrange(2) for _ in range(900)], pa.int8()),
        }
    )
    schema = Schema.of(f="Float64", h="Float32", t="Utf8", _0="Int8")
    node = Distinct(Scan(DatasetRef("rows")), columns)

    def told_apart() -> str:
        batches = run_operator(node, GivenRows(schema, rows.to_batches(max_chunksize=77)))
        assert all(batch.schema == schema.to_arrow() for batch in batches)
        return repr([row for batch in batches for row in batch.to_pylist()])

    expected = told_apart()
    monkeypatch.setattr("emsqrt.operators.distinct.PARTS_MAX", 2)
    assert told_apart() == expected


@pytest.mark.parametrize("columns", [None, ("c0",), tuple(f"c{at}" for at in range(280))])
@pytest.mark.parametrize("suffix", ["csv", "arrow"])
def test_wide_rows_are_told_apart(
    columns: tuple[str, ...] | None, suffix: str, tmp_path: Path
) -> None:
    wide = pa.table({f"c{at}": [5, 3, 5, 3, 3] for at in range(299)} | {"n": [9, 8, 9, 7, 6]})
    pq.write_table(wide, tmp_path / "wide.parquet")
    rows = scan(tmp_path / "wide.parquet").distinct(*columns or ())
    found = rows.sink(tmp_path / f"out.{suffix}")
    found.run("256MiB")
    answer = scan(tmp_path / f"out.{suffix}").collect()
    assert answer["n"].to_pylist() == ([6, 7, 8, 9] if columns is None else [8, 9])
    assert answer["c298"].to_pylist() == ([3, 3, 3, 5] if columns is None else [3, 5])


def test_more_keys_than_a_table_of_groups_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{at}" for at in range(251)) + "\n")
    grouped = scan(path).group_by(*(f"c{at}" for at in range(251))).agg("count(*)")
    for suffix in ("csv", "parquet"):
        with pytest.raises(Unsupported, match="251 columns to group by, over 250"):
            grouped.sink(tmp_path / f"out.{suffix}").run("256MiB")
