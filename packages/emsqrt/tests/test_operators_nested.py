from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.expr import Column
from emsqrt.operators.nested import pack_nested, unpack_nested
from emsqrt.plan import (
    DatasetRef,
    Distinct,
    Join,
    Sample,
    Scan,
    Sort,
    SortKey,
    TopK,
    Window,
    WindowCall,
)
from emsqrt.testing import InputRows, run_operator
from sennit_core.errors import Unsupported
from sennit_core.schema import DataType, Schema

MIB = 1 << 20
HERE = Scan(DatasetRef("here"))
LEAVES = ["Int64", "Utf8", "Bool", "Float64", "Int8", "Decimal(9,2)", "Binary", "Date"]


class Draw:
    """Random nested types and values, all from one number."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def type(self, depth: int = 3) -> str:
        kind = self.random.choice(["leaf", "list", "struct"]) if depth < 3 else "list"
        if depth == 3:
            kind = self.random.choice(["list", "struct"])
        if depth == 0 or kind == "leaf":
            return self.random.choice(LEAVES)
        if kind == "list":
            return f"List({self.type(depth - 1)})"
        names = "abc"[: self.random.randint(1, 3)]
        return "Struct(" + ", ".join(f"{name}: {self.type(depth - 1)}" for name in names) + ")"

    def value(self, of: DataType) -> Any:
        one = self.random
        if one.random() < 0.2:
            return None
        match of.name:
            case "List":
                assert of.item is not None
                return [self.value(of.item) for _ in range(one.choice([0, 0, 1, 2, 5]))]
            case "Struct":
                return {field.name: self.value(field.type) for field in of.fields}
            case "Utf8":
                return "".join(one.choices("aé\0", k=one.randint(0, 4)))
            case "Binary":
                return one.randbytes(one.randint(0, 4))
            case "Bool":
                return one.random() < 0.5
            case "Float64":
                return one.choice([0.5, -1e300, float("inf")])
            case _:
                return one.randint(-99, 99)

    def array(self, of: DataType, rows: int) -> pa.Array:
        values = [self.value(of) for _ in range(rows)]
        return pa.array(values, of.to_arrow())


@given(st.integers(0, 2**32))
def test_packed_values_round_trip(seed: int) -> None:
    draw = Draw(seed)
    of = DataType.parse(draw.type())
    rows = draw.random.choice([0, 1, 3, 40])
    array = draw.array(of, rows)
    start = draw.random.randint(0, rows)
    some = array.slice(start, draw.random.randint(0, rows - start))

    packed = pack_nested(some, of)
    back = unpack_nested(packed, of)

    assert packed.type == pa.binary()
    assert packed.null_count == some.null_count
    back.validate(full=True)
    assert back.to_pylist() == some.to_pylist()
    cut = packed.slice(len(packed) // 2)
    assert unpack_nested(cut, of).to_pylist() == some.to_pylist()[len(packed) // 2 :]


def rows_of(seed: int, rows: int) -> pa.Table:
    draw = Draw(seed)
    kinds = [DataType.parse("List(Struct(a: Utf8, b: List(Int64)))"), DataType.parse(draw.type())]
    keys = [draw.random.randint(0, rows // 3) for _ in range(rows)]
    arrays = [pa.array(keys, pa.int64()), *(draw.array(kind, rows) for kind in kinds)]
    return pa.table(arrays, ["k", "one", "two"])


def input_rows(table: pa.Table) -> InputRows:
    return InputRows(Schema.from_arrow(table.schema), table.to_batches(max_chunksize=700))


@pytest.mark.sample(1)
@pytest.mark.parametrize(("rows", "memory_bytes"), [(500, 16 * MIB), (15_000, 3 * MIB)])
def test_nested_columns_travel_through_a_sort(rows: int, memory_bytes: int) -> None:
    table = rows_of(7, rows)
    node = Sort(HERE, (SortKey(Column("k")),))
    found = pa.Table.from_batches(run_operator(node, input_rows(table), memory_bytes=memory_bytes))
    keys = table["k"].to_pylist()
    wanted = table.take(pa.array(sorted(range(rows), key=keys.__getitem__)))
    assert found.to_pylist() == wanted.to_pylist()


def test_nested_columns_travel_through_top_k_window_sample_and_join() -> None:
    table = rows_of(8, 300)
    rows = table.to_pylist()
    ordered = sorted(rows, key=lambda row: row["k"])
    keys = (SortKey(Column("k")),)

    top = run_operator(TopK(HERE, keys, 9), input_rows(table))
    assert pa.Table.from_batches(top).to_pylist() == ordered[:9]

    lag = WindowCall("lag", Column("one"))
    window = run_operator(Window(HERE, (), keys, (("before", lag),)), input_rows(table))
    before = [None, *(row["one"] for row in ordered[:-1])]
    assert pa.Table.from_batches(window).to_pylist() == [
        {**row, "before": one} for row, one in zip(ordered, before, strict=True)
    ]

    sample = run_operator(Sample(HERE, None, 20, 1), input_rows(table))
    assert all(row in rows for row in pa.Table.from_batches(sample).to_pylist())

    other = pa.table({"k": pa.array([5, 6], pa.int64()), "three": pa.array([[1], None])})
    join = Join(HERE, HERE, (("k", "k"),), "left")
    joined = pa.Table.from_batches(run_operator(join, input_rows(table), input_rows(other)))
    assert joined.to_pylist() == [{**row, "three": [1] if row["k"] == 5 else None} for row in rows]


def test_nested_values_have_no_order_and_no_equality() -> None:
    table = rows_of(9, 3)
    with pytest.raises(Unsupported, match="List"):
        run_operator(Sort(HERE, (SortKey(Column("one")),)), input_rows(table))
    with pytest.raises(Unsupported, match="List"):
        run_operator(Distinct(HERE), input_rows(table))
