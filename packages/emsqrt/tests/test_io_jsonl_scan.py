"""JSON Lines to Arrow: both read paths return the same rows of a block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emsqrt._kernel import JsonlParser, RecordFault
from emsqrt.io.cells import json_cells
from emsqrt.io.jsonl_scan import JsonlOptions, JsonlScan
from emsqrt.io.testing import arrow_of
from emsqrt.memory import MemoryBudget
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

REFUSED = "refused"
SLOWLY = '{"other": NaN}\n'
"""A line that Arrow's reader does not know; all of its block is then read line by line."""
KINDS = (
    *("Bool", "Int8", "Int64", "UInt64", "Float32", "Float64", "Decimal(9,2)", "Decimal(38,38)"),
    *("Utf8", "Binary", "Date", "Time", "Duration", "Timestamp(us)", "Timestamp(ns,UTC)"),
)
SPELLED = (
    *("0", "-0", "1", "1.50", "1e6", "1e7", "1e-3", "255", "10000000", "9999999.99", "1e39"),
    *("9223372036854775808", "0.1", '"5"', '"+5"', '" 5"', '"1_0"', '"٣"', '"0x10"', '"1e2"'),
    *('".5"', '"5."', '"1e400"', '"nan"', '"-Infinity"', '"1"', '"100000000"', '"-0.00"'),
    *("true", '"true"', "{}", '{ "b" : [ 1 , 2.50 , null ] }', "[]", '"x"', '""', '"YWJj"'),
    *('"2013-01-31"', '"0000-01-01"', '"2013-02-29"', '"2013-1-1"', '"2013-01-31T10:00:00"'),
    *('"2013-01-31 10:00"', '"2013-01-31T10:00:00.5Z"', '"2013-01-31T10:00:00+05:30"'),
    *(
        '"10:00"',
        '"10"',
        '"T10:00"',
        '"24:00:00"',
        '"23:59:60"',
        '"10:00:00+01:00"',
        '"10:00:00.5"',
    ),
    r'"\ud83d"',
)
NUMBERS = st.text("0123456789.eE+-_ ", min_size=1, max_size=8).map(json.dumps)
VALUES = st.tuples(st.sampled_from(KINDS), st.sampled_from(SPELLED) | NUMBERS).filter(
    # Of decimals with spare zeros the kernel accepts fewer: those that Arrow's CSV reader accepts.
    lambda value: not value[0].startswith("Decimal") or value[1] in SPELLED
)


def of_kernel(line: str, kind: str) -> Any:
    """Return `v` of a line as JSON, as the text tier reads it."""
    try:
        columns, _ = JsonlParser(bytearray(1 << 16), [("v", kind)]).parse(line.encode(), 0)
    except RecordFault:
        return REFUSED
    return json_cells(arrow_of(columns, 0, kind))[0].as_py()


def of_arrow(text: str, kind: str, folder: Path) -> Any:
    """Return `v` of the first line as JSON, as the tier with pyarrow reads it."""
    path = folder / "in.jsonl"
    path.write_text(text, "utf-8")
    with MemoryBudget(4 << 20) as budget:
        scan = JsonlScan(path, Schema.of(v=kind), JsonlOptions(), budget)
        try:
            with budget.acquire(scan.need_bytes, "scan") as guard:
                (batch,) = scan.batches(guard)
        except BadInput:
            return REFUSED
        batch.validate(full=True)
        return json_cells(batch["v"])[0].as_py()


@pytest.mark.nightly
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=3000, deadline=None
)
@given(VALUES)
@example(("Decimal(9,2)", '"10000000"'))
@example(("Decimal(38,38)", "1"))
@example(("Decimal(38,38)", "7"))
@example(("Decimal(9,2)", "1e-999999999"))
@example(("Decimal(9,2)", r'"\u0031e-999999999"'))
@example(("Decimal(9,2)", "1e-77"))
@example(("Decimal(9,2)", f"0.{'0' * 120}1"))
@example(("Decimal(9,2)", "0E00000"))
@example(("Float32", '"0E00000"'))
@example(("Timestamp(us)", '"2013-01-31T10:00:00.5Z"'))
@example(("Timestamp(ns,UTC)", '"2013-01-31T10:00:00"'))
@example(("Utf8", '{ "b" : [ 1 , 2.50 , null ] }'))
@example(("Utf8", r'"\ud83d"'))
@example(("Float64", '"1_0"'))
@example(("Time", '"24:00:00"'))
@example(("Time", '"10:00:00+01:00"'))
@example(("Duration", '" 5"'))
def test_a_value_is_read_the_same_in_both_tiers(tmp_path: Path, value: tuple[str, str]) -> None:
    kind, text = value
    line = f'{{"v": {text}}}\n'
    wanted = of_kernel(line, kind)

    assert of_arrow(line, kind, tmp_path) == wanted
    assert of_arrow(line + SLOWLY, kind, tmp_path) == wanted


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("List(Binary)", '["YWJj"]', ["YWJj"]),
        ("Struct(b: Binary)", '{"b": "YWJj"}', {"b": "YWJj"}),
        ("List(Timestamp(us))", '["2013-01-31T10:00:00Z"]', REFUSED),
        ("List(Timestamp(us,UTC))", '["2013-01-31T10:00:00"]', REFUSED),
        ("Struct(d: Decimal(9,2))", '{"d": "10000000"}', REFUSED),
        ("List(Date)", '["2013-01-31", null]', ["2013-01-31", None]),
    ],
)
@pytest.mark.parametrize("next_line", ["", SLOWLY])
def test_nested_values_are_read_like_top_level_ones(
    tmp_path: Path, kind: str, text: str, wanted: Any, next_line: str
) -> None:
    found = of_arrow(f'{{"v": {text}}}\n{next_line}', kind, tmp_path)
    assert (found if found is REFUSED else json.loads(found)) == wanted
