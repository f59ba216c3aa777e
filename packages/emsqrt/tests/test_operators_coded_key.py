"""Groups by dictionary codes: the table is that of plain texts, byte for byte."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import AggTable, Columns
from emsqrt.expr import col, count
from emsqrt.external.layout import KINDS, lay_out
from emsqrt.operators.coded_key import coded_key
from emsqrt.operators.columns import to_columns
from emsqrt.plan.states import state_fields
from sennit_core.schema import DataType, Field

TEXT, NUMBER = DataType("Utf8"), DataType("Float64")
AGGS = (count(), col("n").sum(), col("n").min(), col("n").max(), col("n").avg())
KINDS_OF = [(agg, None if agg.arg is None else NUMBER) for agg in AGGS]
LAYOUT = lay_out(
    "full", [TEXT], [(agg, kind, state_fields("a", agg, kind)) for agg, kind in KINDS_OF]
)
ARGUMENTS = [KINDS_OF[at][1] for at, _ in LAYOUT.arguments if KINDS_OF[at][1] is not None]
texts = st.lists(st.text(st.sampled_from("ab\0é"), max_size=20), min_size=1, max_size=40)


def table(size: int = 64 << 10, limit: int = 0) -> AggTable:
    keys = [key.as_tuple() for key in LAYOUT.keys]
    parts = [part.as_tuple() for part in LAYOUT.parts]
    return AggTable(memoryview(bytearray(size)), keys, parts, limit)


def rows_of(filled: AggTable) -> bytes:
    out = memoryview(bytearray(1 << 20))
    filled.sort()
    size, rows = filled.drain(out, 0)
    assert rows == filled.groups
    return bytes(out[:size])


@given(texts, st.data())
def test_codes_and_texts_make_the_same_groups(names: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=3000))
    numbers = pa.array([row * 0.1 for row in rows], pa.float64())
    column = pa.DictionaryArray.from_arrays(
        pa.array(rows, pa.int32()), pa.array(names, pa.string())
    )
    fields = [Field("k", TEXT), *(Field("n", NUMBER) for _ in ARGUMENTS)]
    values = [numbers] * len(ARGUMENTS)
    plain, coded = table(), table()
    found = coded_key(column)
    assert found is not None

    plain.add(to_columns([column.cast(pa.string()), *values], fields, len(rows)))
    coded.add_coded(*found, to_columns(values, fields[1:], len(rows)))

    assert coded.rows == len(rows)
    assert rows_of(coded) == rows_of(plain)


def test_a_full_table_reports_how_many_rows_were_added() -> None:
    names = pa.array([f"{at:04} {'long ' * 40}" for at in range(1000)])
    column = pa.DictionaryArray.from_arrays(pa.array(range(1000), pa.int32()), names)
    found = coded_key(column)
    assert found is not None
    columns = Columns(1000, [(KINDS["Float64"], 0, None, bytes(8000), None)] * len(ARGUMENTS))
    full, refused = table(), table(limit=100)

    added = full.add_coded(*found, columns)

    assert 0 < added == full.groups < 1000
    assert refused.add_coded(*found, columns) == 0
    assert refused.refused_bytes > 100


@pytest.mark.parametrize("codes", [[0, 3], [-1, 0], [0]])
def test_codes_outside_the_dictionary_are_refused(codes: list[int]) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["a", "b", "c"]))
    found = coded_key(column)
    assert found is not None
    columns = Columns(2, [(KINDS["Float64"], 0, None, bytes(16), None)] * len(ARGUMENTS))
    with pytest.raises(ValueError, match="codes"):
        table().add_coded(found[0], pa.array(codes, pa.int32()).buffers()[1], columns)
