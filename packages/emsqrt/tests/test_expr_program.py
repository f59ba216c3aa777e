"""Programs for the kernel return what the Arrow evaluator returns, or are not made."""

import re
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt._kernel import Columns, ExprProgram
from emsqrt.expr import Expr, ValueOutOfRange, col, lit, parse_expr
from emsqrt.expr.evaluate import evaluate
from emsqrt.expr.nodes import Case, call
from emsqrt.expr.program import Program, compile_program
from emsqrt.expr.testing import SCHEMA, expressions, tables
from emsqrt.expr.vectors import same_values
from emsqrt.external.layout import KINDS
from emsqrt.operators.computed import Computed, compute_all
from sennit_core.schema import DataType, Schema

WIDTHS = {"Bool": 0, "Int64": 8, "UInt64": 8, "Float64": 8, "Decimal": 16}


def columns_of(batch: pa.RecordBatch, names: tuple[str, ...]) -> Columns:
    made = []
    for name in names:
        array = batch.column(name)
        kind = KINDS[DataType.from_arrow(array.type).name]
        validity, *buffers = array.buffers()
        ends, values = buffers if len(buffers) == 2 else (None, buffers[0])
        made.append((kind, array.offset, validity, values, ends))
    return Columns(batch.num_rows, made)


def run(program: Program, batch: pa.RecordBatch, memory_bytes: int = 1 << 16) -> pa.Array:
    opened = program.open(bytearray(memory_bytes))
    rows = batch.num_rows
    width = WIDTHS[program.type.name]
    values = bytearray(rows * width if width else (rows + 7) // 8)
    validity = bytearray((rows + 7) // 8)
    assert opened.run(columns_of(batch, program.columns), 0, values, validity) == rows
    buffers = [pa.py_buffer(validity), pa.py_buffer(values)]
    return pa.Array.from_buffers(program.type.to_arrow(), rows, buffers)


def select(program: Program, batch: pa.RecordBatch, room: int) -> list[int]:
    opened, columns = program.open(bytearray(1 << 16)), columns_of(batch, program.columns)
    start, found = 0, list[int]()
    chosen = memoryview(bytearray(4 * room)).cast("I")
    while start < batch.num_rows:
        rows, count = opened.select(columns, start, chosen)
        start += rows
        found += chosen[:count].tolist()
    return found


@st.composite
def compilable(draw: st.DrawFn, kind: str, depth: int = 3) -> Expr:
    """An expression that is mostly compilable, of the kind of a column of SCHEMA."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(expressions(kind, 0))
    below = compilable(kind, depth - 1)
    if kind == "p":
        other = draw(st.sampled_from("ifsdtmp"))
        one, two, three = (draw(compilable(other, depth - 1)) for _ in range(3))
        forms = [
            call(draw(st.sampled_from(("eq", "ne", "lt", "le", "gt", "ge"))), one, two),
            call("between", one, two, three),
            call(draw(st.sampled_from(("and", "or"))), draw(below), draw(below)),
            ~draw(below),
            one.is_null(),
            one.is_in(draw(st.lists(expressions(other, 0), max_size=3))),
            call("is_nan", draw(compilable("f", depth - 1))),
            draw(compilable("s", 0)).like(draw(st.sampled_from(("a%", "%b", "%a%", "Ab", "a_")))),
            call(draw(st.sampled_from(("starts_with", "ends_with"))), col("s"), "a"),
            call(draw(st.sampled_from(("lt", "eq"))), col("m"), draw(compilable("f", 0))),
        ]
        return draw(st.sampled_from(forms))
    choosing = draw(st.integers(0, 5))
    if choosing == 0:
        return Case(((draw(compilable("p", depth - 1)), draw(below)),), draw(st.none() | below))
    if choosing == 1:
        return call(draw(st.sampled_from(("coalesce", "nullif"))), draw(below), draw(below))
    if kind in "ifm":
        op = draw(st.sampled_from(("add", "sub", "mul") if kind != "m" else ("add", "sub")))
        return draw(st.sampled_from([call(op, draw(below), draw(below)), -draw(below)]))
    return draw(below)


UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))


CASES = given(
    tables(40), st.sampled_from("pppifm").flatmap(compilable), st.sampled_from([9000, 1 << 16])
)


@pytest.mark.slow
@settings(UNHURRIED, max_examples=10)
@CASES
def test_a_program_returns_the_values_of_the_evaluator(
    columns: dict[str, list[Any]], expr: Expr, memory_bytes: int
) -> None:
    agree(columns, expr, memory_bytes)


@pytest.mark.nightly
@UNHURRIED
@CASES
def test_many_programs_return_the_values_of_the_evaluator(
    columns: dict[str, list[Any]], expr: Expr, memory_bytes: int
) -> None:
    agree(columns, expr, memory_bytes)


def agree(columns: dict[str, list[Any]], expr: Expr, memory_bytes: int) -> None:
    arrays = [pa.array(columns[field.name], field.type.to_arrow()) for field in SCHEMA]
    batch = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA.to_arrow()).slice(1)
    program = compile_program(expr, SCHEMA)
    try:
        expected = evaluate(expr, batch)
    except ValueOutOfRange as error:
        with pytest.raises(ValueOutOfRange, match=re.escape(str(error))):
            Computed(expr, SCHEMA)(batch)
        if program is not None and batch.num_rows:
            with pytest.raises(ValueOutOfRange):
                run(program, batch)
        return
    computed = Computed(expr, SCHEMA)(batch)
    computed.validate(full=True)
    assert same_values(computed.to_pylist(), expected.to_pylist())
    if program is None:
        return
    found = run(program, batch, memory_bytes)
    found.validate(full=True)
    assert found.type == expected.type
    assert same_values(found.to_pylist(), expected.to_pylist())
    if program.type.name == "Bool":
        true = [i for i, value in enumerate(expected.to_pylist()) if value]
        assert select(program, batch, 3) == true == select(program, batch, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "i > 5 and s like 'a%' or d < '2013-01-01'",
        "i + 1 > 0 and p",
        "m * (1 - m) between Decimal(2,1) '0.5' and 2",
        "i in (1, 2, null) or s in ('a', 'b')",
        "not (f is null) and f * 2 >= j",
        "d <= Date '1998-12-01' - interval '90' day",
        "t >= '2013-01-01 00:00:00'",
        "m < Decimal(4,1) '12.5'",
        "-i + abs(j) * 2",
        "f / j",
        "false and i // 0 > 1",
    ],
)
def test_these_compile(text: str) -> None:
    assert compile_program(parse_expr(text), SCHEMA) is not None


@pytest.mark.parametrize(
    "text",
    [
        "upper(s) == 'A'",
        "s",
        "d",
        "s like 'a_b'",
        "p and i + 1 > 0",  # the sum must not fail for rows that p decides
        "i // 2 > 1",
        "cast(s as Int64) > 1",
        "case when p then i + 1 else 2 end",
        "d < t",
        "i in (j, 1)",
    ],
)
def test_these_are_not(text: str) -> None:
    assert compile_program(parse_expr(text), SCHEMA) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p and i + 1 > 0", [False, True, None]),
        ("case when p then i + 1 else 2 end", [2, 8, 2]),
        ("coalesce(j, i + 1)", [5, 8, None]),
    ],
)
def test_rows_that_are_not_looked_at_do_not_fail(text: str, expected: list[Any]) -> None:
    schema = Schema.of(p="Bool", i="Int64", j="Int64")
    columns = {"p": [False, True, None], "i": [2**63 - 1, 7, None], "j": [5, None, None]}
    expr = parse_expr(text)
    assert compile_program(expr, schema) is None
    assert compile_program(expr, schema, eager=True) is not None
    assert Computed(expr, schema)(pa.RecordBatch.from_pydict(columns)).to_pylist() == expected


def test_equal_expressions_are_computed_once() -> None:
    exprs = [col("i") * 2, col("i") * 2, col("i") * 3]
    one, two, other = compute_all(exprs, SCHEMA)
    assert one is two is not other


def test_many_expressions_are_not_compared_with_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[Expr] = []

    def same(one: Expr, other: Expr) -> bool:
        compared.append(one)
        return str(one) == str(other)

    monkeypatch.setattr(Expr, "equals", same)
    made = compute_all([col("i") * (number % 40) for number in range(80)], SCHEMA)
    assert len({id(each) for each in made}) == 40
    assert len(compared) <= 80


def test_every_integer_width_is_read() -> None:
    names = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32")
    schema = Schema.of(**{name.lower(): name for name in names})
    arrays = [pa.array([None, 1, 100, 7], field.type.to_arrow()) for field in schema]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema.to_arrow())
    for field in schema:
        for text in (f"{field.name} * 2 > 100", f"{field.name} + 1", f"{field.name} == 7"):
            program = compile_program(parse_expr(text), schema)
            assert program is not None, text
            found = run(program, batch).to_pylist()
            assert same_values(found, evaluate(parse_expr(text), batch).to_pylist())


def test_an_overflow_shows_expression_and_values() -> None:
    program = compile_program(col("i") * 2 + 1, SCHEMA)
    assert program is not None
    batch = pa.RecordBatch.from_pydict({"i": [1, None, 2**62]})
    with pytest.raises(ValueOutOfRange, match=r"no Int64 holds mul\(4611686018427387904, 2\)"):
        run(program, batch)


@pytest.mark.parametrize("op", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("kind", ["Bool", "Int64", "UInt64", "Float64", "Decimal(20,1)", "Utf8"])
def test_many_rows_compare_as_single_ones(op: str, kind: str) -> None:
    """More than are compared in one go, and no multiple of it; NULL in either, both or none."""
    schema = Schema.of(a=kind, b=kind)
    pairs = [(one, two) for one in VALUES[kind] for two in VALUES[kind]] * 30
    arrow = schema.to_arrow()
    batch = pa.RecordBatch.from_arrays(
        [pa.array(side, arrow.types[at]) for at, side in enumerate(zip(*pairs, strict=True))],
        schema=arrow,
    )
    expr = call("or", call(op, col("a"), col("b")), call("is_null", col("a")))
    program = compile_program(expr, schema)
    assert program is not None
    assert run(program, batch).to_pylist() == evaluate(expr, batch).to_pylist()


VALUES: dict[str, list[Any]] = {
    "Bool": [None, False, True],
    "Int64": [None, -(2**63), -1, 0, 2**63 - 1],
    "UInt64": [None, 0, 1, 2**64 - 1],
    "Float64": [None, float("-inf"), -0.0, 0.0, 1.5, float("nan")],
    "Decimal(20,1)": [None, Decimal(-(10**18)), Decimal("-0.1"), Decimal(0), Decimal("0.1")],
    "Utf8": [None, "", "a", "ab", "b"],
}
EDGES = [0, 1, 2**31, 2**62, 2**63 - 1, 2**63, 2**64, 2**127 // 10, 10**37]


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
def test_decimals_are_exact_about_the_widths_of_the_machine(op: str) -> None:
    schema = Schema.of(a="Decimal(38,0)", b="Decimal(38,0)")
    signed = [value * sign for value in EDGES for sign in (1, -1)]
    program = compile_program(call(op, col("a"), col("b")), schema)
    assert program is not None
    for a in signed:
        for b in signed:
            wanted = {"add": a + b, "sub": a - b, "mul": a * b}[op]
            arrays = [pa.array([Decimal(value)], pa.decimal128(38, 0)) for value in (a, b)]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema.to_arrow())
            if abs(wanted) < 10**38:
                assert run(program, batch).to_pylist() == [Decimal(wanted)]
            else:
                with pytest.raises(ValueOutOfRange):
                    run(program, batch)


def test_constants_get_their_zeros_while_they_have_digits_for_them() -> None:
    schema = Schema.of(a="Decimal(4,3)")
    batch = pa.RecordBatch.from_pydict({"a": pa.array([Decimal("0.125")], pa.decimal128(4, 3))})
    program = compile_program(lit(1) - col("a"), schema)
    assert program is not None
    assert program.code == bytes([1, 4, 0, 0, 0, 4, 0, 0, 15, 4, 23, 0])  # constant, column, sub
    assert run(program, batch).to_pylist() == [Decimal("0.875")]
    program = compile_program(lit(Decimal(10**37)) - col("a"), schema)
    assert program is not None
    with pytest.raises(ValueOutOfRange):
        run(program, batch)


def test_decimals_fail_beyond_38_digits() -> None:
    schema = Schema.of(a="Decimal(38,2)")
    program = compile_program(col("a") + lit(Decimal("0.01")), schema)
    assert program is not None
    most = Decimal("9" * 36 + ".99")
    batch = pa.RecordBatch.from_pydict({"a": pa.array([most], pa.decimal128(38, 2))})
    with pytest.raises(ValueOutOfRange):
        run(program, batch)


@UNHURRIED
@given(st.binary(max_size=64), st.binary(max_size=128), st.integers(0, 5))
def test_no_bytes_make_a_program_that_reads_beyond_its_memory(
    code: bytes, constants: bytes, count: int
) -> None:
    try:
        program = ExprProgram(code, constants, count, bytearray(20_000))
    except ValueError:
        return
    batch = pa.RecordBatch.from_pydict({"a": [1, 2, None], "b": ["x", None, "yz"]})
    columns = columns_of(batch, ("a", "b"))
    for call_it in (
        lambda: program.run(columns, 0, bytearray(48), bytearray(1)),
        lambda: program.select(columns, 0, bytearray(12)),
    ):
        try:
            call_it()
        except ValueError:
            continue
