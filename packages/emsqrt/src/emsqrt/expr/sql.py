"""Expressions in DuckDB's SQL, with the meaning of `docs/plan-ir.md` rather than DuckDB's own.

This produces text only and does not import DuckDB. DuckDB is the oracle of the tests, and SQL lets
its readers understand a plan. An expression without an SQL form of the same meaning is refused by
name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from emsqrt.expr import rules
from emsqrt.expr.check import bind
from emsqrt.expr.literals import spell
from emsqrt.expr.nodes import Expr
from emsqrt.expr.typed import Typed
from sennit_core.errors import Unsupported
from sennit_core.schema import DataType, Schema

Form: TypeAlias = Callable[[Typed, list[str]], str]
"""Accepts a typed call and its operands' SQL, and returns its SQL."""

_TYPES = {
    "Bool": "BOOLEAN",
    "Int8": "TINYINT",
    "Int16": "SMALLINT",
    "Int32": "INTEGER",
    "Int64": "BIGINT",
    "UInt8": "UTINYINT",
    "UInt16": "USMALLINT",
    "UInt32": "UINTEGER",
    "UInt64": "UBIGINT",
    "Float32": "FLOAT",
    "Float64": "DOUBLE",
    "Utf8": "VARCHAR",
    "Binary": "BLOB",
    "Date": "DATE",
    "Time": "TIME",
    "Duration": "INTERVAL",
}
_TIMESTAMPS = {"s": "TIMESTAMP_S", "ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}
_OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "concat": "||",
    "and": "AND",
    "or": "OR",
    "eq": "=",
    "ne": "<>",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "like": "LIKE",
    "ilike": "ILIKE",
}
_COMPARING = ("eq", "ne", "lt", "le", "gt", "ge", "between", "is_in", "nullif")
_PLAIN = (
    *("abs", "coalesce", "greatest", "least", "nullif", "upper", "lower", "length", "contains"),
    *("starts_with", "ends_with", "replace", "substr", "left", "right", "repeat", "split_part"),
    *("regexp_matches", "regexp_replace"),
    *("sqrt", "exp", "ln", "log10", "log2", "sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
)


def to_sql(expr: Expr, schema: Schema) -> str:
    """Return `expr` over rows of `schema` as SQL for DuckDB.

    Raises:
        Unsupported: DuckDB has no form with the same meaning; names the function or cast.
        UnknownColumn, TypeMismatch, UsageError: as `emsqrt.expr.check.bind`.
    """
    return _sql(bind(expr, schema))


def sql_type(kind: DataType) -> str:
    """Return DuckDB's name of a type."""
    if kind.name == "Decimal":
        return f"DECIMAL({kind.precision},{kind.scale})"
    if kind.name == "Timestamp":
        return "TIMESTAMPTZ" if kind.zone else _TIMESTAMPS[kind.unit or "us"]
    if kind.name not in _TYPES:
        raise Unsupported(f"type {kind} in SQL")
    return _TYPES[kind.name]


def sql_name(name: str) -> str:
    """Return a column's name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _sql(typed: Typed) -> str:
    kinds = {arg.type for arg in typed.args if arg.type.name == "Decimal"}
    if typed.op in _COMPARING and len(kinds) > 1:
        named = " with ".join(sorted(map(str, kinds)))
        raise Unsupported(f"comparing {named} in SQL: no type of DuckDB holds both")
    args = [_sql(arg) for arg in typed.args]
    if typed.op in _OPERATORS:
        return f"({f' {_OPERATORS[typed.op]} '.join(args)})"
    if typed.op in _PLAIN:
        return f"{typed.op}({', '.join(args)})"
    form = _FORMS.get(typed.op)
    if form is None:
        raise Unsupported(f"function {typed.op} in SQL")
    return form(typed, args)


def _literal(typed: Typed, _: list[str]) -> str:
    kind = sql_type(typed.type)
    if typed.value is None:
        return f"CAST(NULL AS {kind})"
    match typed.value:
        case bool():
            return "TRUE" if typed.value else "FALSE"
        case str():
            return _text(typed.value)
        case float():
            return f"CAST({_text(repr(typed.value))} AS {kind})"
        case bytes():
            escaped = "".join(rf"\x{byte:02X}" for byte in typed.value)
            return f"CAST({_text(escaped)} AS BLOB)"
        case _:
            return f"CAST({_text(str(spell(typed.value, typed.type)))} AS {kind})"


def _case(_: Typed, args: list[str]) -> str:
    *pairs, default = args
    branches = zip(pairs[::2], pairs[1::2], strict=True)
    return f"CASE {' '.join(f'WHEN {w} THEN {t}' for w, t in branches)} ELSE {default} END"


def _idiv(_: Typed, args: list[str]) -> str:
    return f"({args[0]} // nullif({args[1]}, 0))"


def _mod(typed: Typed, args: list[str]) -> str:
    left, right = args
    if typed.type.is_float:
        return f"({left} % {right})"
    minus = "" if typed.type.name == "UInt64" else " WHEN -1 THEN 1"
    return f"({left} % CASE {right} WHEN 0 THEN NULL{minus} ELSE {right} END)"


def _neg(typed: Typed, args: list[str]) -> str:
    return f"(-{args[0]})" if typed.type.is_float else f"(0 - {args[0]})"


def _rounding(typed: Typed, args: list[str]) -> str:
    if typed.type.is_integer:
        return args[0]
    digits = "".join(f", {digits.value}" for digits in typed.args[1:])
    called = f"{typed.op}({args[0]}{digits})"
    return called if typed.type.is_float else f"CAST({called} AS {sql_type(typed.type)})"


def _is_in(_: Typed, args: list[str]) -> str:
    value, *others = args
    return f"({value} IN ({', '.join(others)}))" if others else "FALSE"


def _part(typed: Typed, args: list[str]) -> str:
    _same_moment(typed)
    name = {"dow": "dayofweek", "doy": "dayofyear"}.get(typed.op, typed.op)
    return f"CAST({name}({args[0]}) AS BIGINT)"


def _cast(typed: Typed, args: list[str]) -> str:
    source, target = typed.args[0].type, typed.type
    word = "CAST" if typed.value else "TRY_CAST"
    exact = rules.widens(source, target) or (source.is_integer and target.name != "Bool")
    day = source.name == "Date" and target == DataType("Timestamp", unit="us")
    if (exact or day) and target.name != "Float32":
        return f"{word}({args[0]} AS {sql_type(target)})"
    if source.is_float and target.is_integer:
        fraction = "NULL" if not typed.value else "error('a fraction has no integer')"
        whole = f"CASE WHEN {args[0]} IS NULL OR {args[0]} = trunc({args[0]}) THEN {args[0]}"
        return f"{word}({whole} ELSE {fraction} END AS {sql_type(target)})"
    raise Unsupported(f"cast from {source} to {target} in SQL: DuckDB's has another meaning")


def _sign(typed: Typed, args: list[str]) -> str:
    (x,) = args
    if typed.type.is_float:
        return f"(CASE WHEN isnan({x}) THEN {x} ELSE CAST(sign({x}) AS DOUBLE) END)"
    return f"CAST(sign({x}) AS BIGINT)"


def _pad(typed: Typed, args: list[str]) -> str:
    fill = args[2] if len(args) > 2 else "' '"
    return f"{typed.op}({args[0]}, CAST({args[1]} AS INTEGER), {fill})"


def _same_moment(typed: Typed) -> None:
    kind = typed.args[0].type
    if kind.zone:
        raise Unsupported(f"{typed.op} of {kind} in SQL: it would use a local zone")
    if kind.unit == "ns":
        raise Unsupported(f"{typed.op} of {kind} in SQL: it would be rounded to microseconds")


def _date_trunc(typed: Typed, args: list[str]) -> str:
    _same_moment(typed)
    return f"CAST(date_trunc({args[1]}, {args[0]}) AS {sql_type(typed.type)})"


def _date_diff(typed: Typed, args: list[str]) -> str:
    """Truncate first: DuckDB's own counts toward zero before 1970."""
    _same_moment(typed)
    start, end, unit = args
    return f"date_diff({unit}, date_trunc({unit}, {start}), date_trunc({unit}, {end}))"


def _date_add(typed: Typed, args: list[str]) -> str:
    _same_moment(typed)
    timestamp, count, _ = args
    unit = typed.args[2].value
    made = f"to_{unit}s(CAST({count} AS {_INTERVALS[unit]}))"
    return f"CAST({timestamp} + {made} AS {sql_type(typed.type)})"


def _epoch(typed: Typed, args: list[str]) -> str:
    _same_moment(typed)
    if typed.op == "epoch":
        return f"epoch({args[0]})"
    return f"epoch_ms(date_trunc('millisecond', {args[0]}))"  # which rounds to the nearest


_INTERVALS = {
    **dict.fromkeys(("year", "quarter", "month", "week", "day"), "INTEGER"),
    **dict.fromkeys(("hour", "minute", "microsecond"), "BIGINT"),
    **dict.fromkeys(("second", "millisecond"), "DOUBLE"),
}

_FORMS: dict[str, Form] = {
    "column": lambda typed, _: sql_name(typed.value),
    "literal": _literal,
    "case": _case,
    "cast": _cast,
    "idiv": _idiv,
    "mod": _mod,
    "neg": _neg,
    "is_in": _is_in,
    "not": lambda _, args: f"(NOT {args[0]})",
    "is_null": lambda _, args: f"({args[0]} IS NULL)",
    "is_nan": lambda _, args: f"isnan({args[0]})",
    "between": lambda _, args: f"({args[0]} BETWEEN {args[1]} AND {args[2]})",
    "trim": lambda _, args: f"trim({args[0]}, {args[1] if args[1:] else _text(' ')})",
    "ltrim": lambda _, args: f"ltrim({args[0]}, {args[1] if args[1:] else _text(' ')})",
    "rtrim": lambda _, args: f"rtrim({args[0]}, {args[1] if args[1:] else _text(' ')})",
    **dict.fromkeys(("lpad", "rpad"), _pad),
    "strpos": lambda _, args: f"CAST(strpos({args[0]}, {args[1]}) AS BIGINT)",
    "power": lambda _, args: f"pow({args[0]}, {args[1]})",
    "sign": _sign,
    "date_trunc": _date_trunc,
    "date_diff": _date_diff,
    "date_add": _date_add,
    **dict.fromkeys(("epoch", "epoch_ms"), _epoch),
    "make_date": lambda _, args: f"make_date({', '.join(args)})",
    "struct_get": lambda _, args: f"struct_extract({args[0]}, {args[1]})",
    "list_get": lambda _, args: f"list_extract({args[0]}, {args[1]})",
    **dict.fromkeys(("round", "floor", "ceil", "trunc"), _rounding),
    **dict.fromkeys(("year", "month", "day", "hour", "minute", "second"), _part),
    **dict.fromkeys(("quarter", "week", "dow", "isodow", "doy"), _part),
}


def select(outputs: list[tuple[str, Expr]], schema: Schema, table: str) -> str:
    """Return a SELECT of named expressions from `table`."""
    columns = ", ".join(f"{to_sql(expr, schema)} AS {sql_name(name)}" for name, expr in outputs)
    return f"SELECT {columns} FROM {table}"
