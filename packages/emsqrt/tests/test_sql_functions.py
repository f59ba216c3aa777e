"""Every function of docs/expressions.md means in SQL what it means as an expression."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fuzz_runs import run_batches

from emsqrt.expr import Agg, Column, Expr, lit, parse_expr
from emsqrt.expr.functions import AGGREGATES, FUNCTIONS
from emsqrt.expr.nodes import call
from emsqrt.expr.parser import ALIASES
from emsqrt.pipeline import scan
from emsqrt.plan import Aggregate, Plan, Project
from emsqrt.sql_plan import sql
from emsqrt.sql_plan.sources import EMPTY_FILE
from sennit_core.errors import SqlError, Unsupported
from sennit_core.schema import Schema

SCHEMA = Schema.of(
    a="Int64", b="Int64", x="Float64", m="Decimal(9,2)", p="Bool", q="Bool", s="Utf8", u="Utf8",
    d="Date", e="Date", t="Timestamp(us)", l="List(Int64)", r="Struct(k:Int64)",
)  # fmt: skip
DAYS = [(date(2024, 2, 29), date(2023, 1, 31)), (date(1969, 12, 31), date(2024, 5, 17))]
MOMENTS = [datetime.combine(DAYS[0][0], time(13, 14, 15)), datetime.combine(DAYS[1][0], time(23))]
ROWS: list[tuple[Any, ...]] = [
    (7, 2, 0.25, Decimal("1.55"), True, False, "Ab c", "b", *DAYS[0], MOMENTS[0], [4], {"k": 9}),
    (-7, 2, 1.0, Decimal("-2.50"), None, True, " x,y ", "x", *DAYS[1], MOMENTS[1], [], {"k": 0}),
    (None,) * 13,
]
T = scan("t.csv", schema=SCHEMA)

OPERANDS = {
    **dict.fromkeys(("add", "sub", "mul", "div", "idiv", "mod"), ("a", "b")),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "nullif"), ("a", "b")),
    **dict.fromkeys(("neg", "abs", "sign", "floor", "ceil", "trunc"), ("a",)),
    **dict.fromkeys(("round",), ("m", "1")),
    **dict.fromkeys(("sqrt", "exp", "ln", "log10", "log2", "sin", "cos", "tan"), ("x",)),
    **dict.fromkeys(("asin", "acos", "atan", "is_nan"), ("x",)),
    **dict.fromkeys(("atan2", "power"), ("x", "a")),
    "pi": (),
    "between": ("a", "b", "7"),
    "is_in": ("a", "7", "8"),
    **dict.fromkeys(("and", "or"), ("p", "q")),
    "not": ("p",),
    "is_null": ("a",),
    **dict.fromkeys(("coalesce", "greatest", "least"), ("a", "b", "3")),
    **dict.fromkeys(("hash", "concat"), ("s", "u")),
    **dict.fromkeys(("upper", "lower", "initcap", "reverse", "length"), ("s",)),
    **dict.fromkeys(("trim", "ltrim", "rtrim"), ("s", "' A'")),
    "replace": ("s", "'b'", "'B'"),
    **dict.fromkeys(("left", "right", "repeat"), ("s", "2")),
    **dict.fromkeys(("lpad", "rpad"), ("s", "6", "'.'")),
    "split_part": ("s", "','", "2"),
    "regexp_replace": ("s", "'[bx]'", "'-'", "'g'"),
    "substr": ("s", "2", "2"),
    **dict.fromkeys(("contains", "starts_with", "ends_with", "strpos"), ("s", "'A'")),
    **dict.fromkeys(("like", "ilike"), ("s", "'%B%'")),
    "regexp_matches": ("s", "'^A'"),
    **dict.fromkeys(("year", "quarter", "month", "week", "day", "dow", "isodow", "doy"), ("d",)),
    **dict.fromkeys(("hour", "minute", "second", "epoch", "epoch_ms"), ("t",)),
    "date_trunc": ("'month'", "d"),
    "date_diff": ("'month'", "d", "e"),
    "date_add": ("'month'", "a", "d"),
    "make_date": ("2024", "b", "5"),
    "strftime": ("t", "'%Y/%m'"),
    **dict.fromkeys(("strptime", "try_strptime"), ("'2024-05-17'", "'%Y-%m-%d'")),
    "list_get": ("l", "1"),
    "struct_get": ("r", "'k'"),
}
"""Each function's operands, spelled alike as an expression and in SQL."""
SQL = {
    "add": "a + b", "sub": "a - b", "mul": "a * b", "div": "a / b", "idiv": "a // b",
    "mod": "a % b", "neg": "-a", "eq": "a = b", "ne": "a <> b", "lt": "a < b", "le": "a <= b",
    "gt": "a > b", "ge": "a >= b", "between": "a between b and 7", "is_in": "a in (7, 8)",
    "and": "p and q", "or": "p or q", "not": "not p", "is_null": "a is null", "concat": "s || u",
    "like": "s like '%B%'", "ilike": "s ilike '%B%'", "trim": "trim(both ' A' from s)",
    "list_get": "l[1]", "struct_get": "r['k']", "starts_with": "s ^@ 'A'", "power": "x ** a",
    "strpos": "position('A' in s)", "substr": "substring(s from 2 for 2)",
    "year": "extract(year from d)", "dow": "date_part('dow', d)", "is_nan": "isnan(x)",
    "date_add": "date_add(d, interval (a) month)",
}  # fmt: skip
"""Spellings that SQL has in addition to, or instead of, a call."""
KEYWORDS = ("between", "and", "or", "not", "div", "concat")
"""What SQL has no call for; and its CONCAT leaves NULL out."""
RENAMED = {name: known for name, known in ALIASES.items() if known in FUNCTIONS}


def operand(text: str) -> Expr:
    return parse_expr(text)


def meant(name: str) -> Expr:
    return call(name, *map(operand, OPERANDS[name]))


def spellings() -> dict[str, Expr]:
    """Every way to write each function in SQL, and the expression that it means."""
    found = {f"{name}({', '.join(args)})": meant(name) for name, args in OPERANDS.items()
             if name not in KEYWORDS}  # fmt: skip
    found |= {text: meant(name) for name, text in SQL.items()}
    for alias, name in RENAMED.items():
        if alias not in ("position", "log"):
            found[f"{alias}({', '.join(OPERANDS[name])})"] = meant(name)
    return found


def rows_of(plan: Plan, folder: Path) -> list[Any]:
    columns = [[row[at] for row in ROWS] for at in range(len(SCHEMA))]
    arrays = [pa.array(c, f.type.to_arrow()) for c, f in zip(columns, SCHEMA, strict=True)]
    table = pa.table(arrays, schema=SCHEMA.to_arrow())
    return run_batches(plan, {"t.csv": table}, 64 << 20, folder).rows


def test_the_table_has_every_function() -> None:
    assert set(OPERANDS) == set(FUNCTIONS)


@pytest.mark.slow
def test_every_function_answers_in_sql_as_an_expression_does(tmp_path: Path) -> None:
    found = spellings()
    names = [f"c{at}" for at in range(len(found))]
    listed = ", ".join(f"{text} as {name}" for name, text in zip(names, found, strict=True))
    by_sql = rows_of(sql(f"select {listed} from t", {"t": T}).plan, tmp_path)
    wanted = rows_of(T.select(**dict(zip(names, found.values(), strict=True))).plan, tmp_path)
    assert by_sql == wanted
    assert len(wanted) == len(ROWS)


@pytest.mark.parametrize("unit", ["year", "quarter", "MONTH", "week", "day"])
def test_a_date_made_by_a_cast_is_truncated_to_each_unit(unit: str) -> None:
    query = sql(f"select date_trunc('{unit}', u::date) as c from t", {"t": T})
    truncated = call("date_trunc", lit(unit.lower()), Column("u").cast("Date"))
    assert query.plan == T.select(c=truncated).plan


@pytest.mark.parametrize("name", [*AGGREGATES, "mean", "var_samp", "variance", "stddev_samp"])
def test_every_aggregate_can_be_called_by_its_name(name: str) -> None:
    shared = name in ("quantile", "quantile_disc")
    query = sql(f"select {name}({'b, 0.5' if shared else 'b'}) as c from t", {"t": T})
    known = ALIASES.get(name, name)
    known = "quantile_disc" if known == "quantile" else known  # in SQL, as in DuckDB
    params = (0.5,) if shared else ()
    wanted = Agg(known, Column("b"), False, tuple(map(lit, params)))
    assert isinstance(query.plan, Project)
    assert isinstance(query.plan.input, Aggregate)
    ((_, found),) = query.plan.input.aggs
    assert found.equals(wanted)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("timestamp(3)", "Timestamp(ms)"),
        ("timestamp(0)", "Timestamp(s)"),
        ("Timestamp(us,UTC)", "Timestamp(us,UTC)"),
        ("UInt16", "UInt16"),
        ("Float64", "Float64"),
        ("Utf8", "Utf8"),
        ("bool", "Bool"),
        ("int8", "Int64"),
    ],
)
def test_types_keep_their_parameters_and_have_the_engine_s_names_too(
    written: str, kind: str
) -> None:
    assert sql(f"select null::{written} as c", {}).schema().field("c").type == type_of(kind)


def type_of(name: str) -> Any:
    return Schema.of(c=name).field("c").type


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("a > 1 && p", "&&", "write AND"),
        ("s ~ 'A'", "the operator ~", "regexp_matches"),
        ("date_trunc('eon', d)", "the unit eon", "units: year"),
        ("lenght(s)", "the function lenght", "did you mean length?"),
        ("upper(s, u)", "upper with 2 arguments", None),
        ("l[1:2]", "a slice", None),
        ("s::timestamp(7)", "TIMESTAMP(7)", None),
    ],
)
def test_another_spelling_is_refused_with_the_right_one(
    text: str, words: str, hint: str | None
) -> None:
    with pytest.raises(Unsupported) as caught:
        sql(f"select {text} from t", {"t": T})
    assert words in str(caught.value)
    assert hint is None or hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select 1", [(1,)]),
        ("select 20 + 1 as n, 'x' || 'y' as s", [(21, "xy")]),
        ("select 1 where false", []),
        ("select n * 2 as n from (select 21 as n)", [(42,)]),
        ("select 1 as n union all select 2 order by n desc", [(2,), (1,)]),
        (
            "with k as (select 3 as n) select sum(n), count(*) from k",
            [(3, 1)],
        ),
    ],
)
def test_a_select_without_from_has_one_row(query: str, rows: list[Any], tmp_path: Path) -> None:
    nothing = pa.table({"nothing": pa.array([], pa.int64())})
    ran = run_batches(sql(query).plan, {EMPTY_FILE: nothing}, 64 << 20, tmp_path)
    assert ran.rows == rows


@pytest.mark.parametrize(("query", "words"), [("select *", "needs a FROM"), ("select a", "FROM")])
def test_without_from_there_are_no_columns(query: str, words: str) -> None:
    with pytest.raises(SqlError, match=words):
        sql(query)
