"""Numbers that travel through a sort in as few bytes as their files say that they need."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from emsqrt import Engine, EngineConfig, scan
from emsqrt._kernel import KeySpec, RowStore
from emsqrt.io.parquet_scan import ParquetScan, infer_parquet_schema
from emsqrt.memory import MemoryBudget
from emsqrt.operators.columns import Narrow, field_bytes, packed_columns, unpack_arrays
from emsqrt.operators.packing import packed_kind
from sennit_core.errors import BadInput
from sennit_core.schema import DataType
from sennit_core.units import MIB

ROWS = 700
RANGES = {"Int8": 7, "Int16": 15, "Int32": 31, "Int64": 63, "Date": 31, "Decimal(15,2)": 49}


def array_of(numbers: list[int | None], of: DataType) -> Any:
    """Return values that are stored as these integers."""
    if of.name == "Decimal":
        scale = of.scale or 0
        values = [None if each is None else Decimal(each).scaleb(-scale) for each in numbers]
        return pa.array(values, of.to_arrow())
    wide = pa.array(numbers, pa.int32() if of.name == "Date" else of.to_arrow())
    return wide.view(pa.date32()) if of.name == "Date" else wide


@st.composite
def columns(draw: st.DrawFn) -> tuple[DataType, list[int | None], tuple[int, int]]:
    name = draw(st.sampled_from(sorted(RANGES)))
    top = 2 ** RANGES[name]
    least = draw(st.integers(-top, top - 1))
    most = draw(st.integers(least, top - 1) | st.just(min(top - 1, least + 255)))
    value = st.integers(least, most) | st.sampled_from([least, most])
    numbers = draw(st.lists(value | st.none(), min_size=1, max_size=40))
    times = draw(st.sampled_from([1, 20]))
    return DataType.parse(name), numbers * times, (least, most)


@pytest.mark.slow
@given(columns(), st.integers(0, 9))
def test_numbers_round_trip(
    column: tuple[DataType, list[int | None], tuple[int, int]], skip: int
) -> None:
    of, numbers, span = column
    array = array_of([*([None] * skip), *numbers], of).slice(skip)
    rows = len(array)
    order = pa.array(range(rows), pa.int64())
    kind = packed_kind(of, span)
    store = RowStore(memoryview(bytearray(1 << 20)))
    packed = packed_columns([array, order], [array.type, order.type], rows, [kind, 4])
    assert store.add(packed, KeySpec([(1, False, False)]), (0,)) == rows
    store.sort()
    out = memoryview(bytearray(1 << 20))
    size, _ = store.drain(out, 0, rows)
    assert size == rows * (8 + 9 + 1 + field_bytes(kind))
    (found,) = unpack_arrays(out[:size], rows, [kind], [of.to_arrow()])
    assert found.equals(array)


def test_a_type_needs_no_more_than_before() -> None:
    assert packed_kind(DataType("Int8"), (-128, 127)) == 1
    assert packed_kind(DataType("Int64"), (-(2**63), 2**63 - 1)) == 4
    assert packed_kind(DataType("Int64"), (2**62, 2**62 + 255)) == Narrow(4, 1, 2**62)
    assert packed_kind(DataType("Int64"), (0, 256)) == Narrow(4, 2, 0)
    assert packed_kind(DataType("Float64"), (0, 1)) == 10
    assert packed_kind(DataType.parse("Decimal(38,2)"), (0, 1)) == 11
    assert packed_kind(DataType.parse("Decimal(18,2)"), None) == Narrow(11, 8, 0)


def write(path: Path, first: int, **options: Any) -> Any:
    """Write rows of numbers above `first`, in row groups with gaps between them."""
    numbers = [first + 37 * row % 1000 + (row // 300) * 5000 for row in range(ROWS)]
    table = pa.table(
        {
            "id": pa.array([row * 7919 % ROWS for row in range(ROWS)], pa.int32()),
            "n": pa.array([None if row % 11 == 0 else n for row, n in enumerate(numbers)]),
            "day": [date(1992, 1, 1) + timedelta(days=n % 2500) for n in numbers],
            "price": pa.array([Decimal(n) / 100 for n in numbers], pa.decimal128(15, 2)),
            "unsigned": pa.array([n + 2**63 for n in numbers], pa.uint64()),
            "text": [f"t{n}" for n in numbers],
            "nothing": pa.array([None] * ROWS, pa.int64()),
        }
    )
    options |= {"row_group_size": 300, "store_decimal_as_integer": True}
    parquet.write_table(table, path, **options)
    return table


def scanned(path: Path) -> ParquetScan:
    return ParquetScan(path, infer_parquet_schema(path), MemoryBudget(64 * MIB))


def test_a_scan_reports_its_statistics(tmp_path: Path) -> None:
    table = write(tmp_path / "a.parquet", 100)
    spans = scanned(tmp_path / "a.parquet").spans()
    numbers = [n for n in table["n"].to_pylist() if n is not None]
    prices = [int(price * 100) for price in table["price"].to_pylist()]
    assert spans["n"] == (min(numbers), max(numbers))
    assert spans["price"] == (min(prices), max(prices))
    assert "text" not in spans
    assert "nothing" not in spans
    write(tmp_path / "b.parquet", 100, write_statistics=["n"])
    assert set(scanned(tmp_path / "b.parquet").spans()) == {"n"}


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("without_statistics", [False, True])
def test_a_sort_of_files_returns_all_rows(tmp_path: Path, without_statistics: bool) -> None:
    tables = [
        write(tmp_path / "a.parquet", -50),
        write(tmp_path / "b.parquet", 1 << 40, write_statistics=not without_statistics),
    ]
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    target = tmp_path / "out" / "o.parquet"
    scan(str(tmp_path / "*.parquet")).sort("id").sink(target).run(64 * MIB, engine=engine)
    wanted = pa.concat_tables(tables).sort_by("id")
    assert parquet.read_table(target).equals(wanted)


@pytest.mark.slow
def test_a_value_outside_the_statistics_of_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"k": [3, 1, 2], "n": [5, 7, 1 << 50]}), path)
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    largest, less = ((1 << number).to_bytes(8, "little") for number in (50, 5))
    assert data[start:].count(largest) == 2
    path.write_bytes(data[:start] + data[start:].replace(largest, less))
    with pytest.raises(BadInput, match="is outside the range in the file's statistics"):
        scan(path).sort("k").sink(tmp_path / "o.parquet").run(64 * MIB)
