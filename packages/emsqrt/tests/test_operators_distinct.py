"""Distinct rows: sorted, the first of each key, NULL a value like any other."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emsqrt import scan
from emsqrt.external.layout import lay_out
from emsqrt.plan import DatasetRef, Scan
from emsqrt.plan.nodes import Distinct
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import Unsupported
from sennit_core.schema import DataType, Schema

SCHEMA = Schema.of(k="Int64", t="Utf8")
SCAN = Scan(DatasetRef("t"), SCHEMA)
ROWS = pa.table({"k": [2, None, 2, 1, None], "t": [None, "x", "y", "z", "x"]})


def run(node: Distinct, rows: pa.Table, memory_bytes: int = 4 << 20) -> pa.Table:
    inputs = InputRows(SCHEMA, rows.to_batches(max_chunksize=1000))
    found = run_operator(node, inputs, memory_bytes=memory_bytes)
    return pa.Table.from_batches(found, SCHEMA.to_arrow())


def test_all_columns_distinguish_rows() -> None:
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


@pytest.mark.nightly
@pytest.mark.parametrize("columns", [None, ("c0",), tuple(f"c{at}" for at in range(280))])
@pytest.mark.parametrize("suffix", ["csv", "arrow"])
def test_wide_rows_are_distinguished(
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


def test_more_keys_than_a_table_of_groups_has_are_refused() -> None:
    with pytest.raises(Unsupported, match="65536 columns to group by, over 65535"):
        lay_out("full", [DataType("Int64")] * 65_536, [])
