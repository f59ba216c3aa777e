"""The states of partial aggregates: the state columns of each function.

A state column is named `<output>$<part>`, and the part determines how the final phase reads it:

```
count  Int64   rows or values counted            isum  Decimal(38,0)  sum of signed integers
min    as the argument                           usum  Decimal(38,0)  sum of UInt64
max    as the argument                           dsum  Decimal(38,s)  sum of Decimal(p,s)
set    List(T)  different values, sorted         fsum  Binary  sum of floats, spec/float-sum.md
values List(T)  all values, sorted               fsum2 Binary  sum of their squares
first  as the argument                           sketch Binary  different values, approximately
last   as the argument
```
A state over no value is NULL, a count 0. Two states of a group merge in any order to equal bits,
except for `first` and `last`: those use the first and the last non-NULL state, in the order in
which the final phase reads them. A sketch is a HyperLogLog of 4096 registers, as in
`_kernel/hll.h`.
"""

from __future__ import annotations

from emsqrt.expr.errors import TypeMismatch
from emsqrt.expr.nodes import Agg
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType, Field, Schema

INT64, FLOAT64, BINARY = map(DataType, ("Int64", "Float64", "Binary"))
SUM_PARTS = ("isum", "usum", "dsum", "fsum")
QUANTILES = ("median", "quantile", "quantile_disc")
_EXTREMES = ("min", "max")
_SUMS = ("sum", "avg", "var", "stddev")
_WITH_DISTINCT = (*_EXTREMES, *_SUMS, "count", "approx_count_distinct")


def state_fields(name: str, agg: Agg, kind: DataType | None) -> tuple[Field, ...]:
    """Return the state columns of `agg` for an output called `name`.

    Args:
        name: the output column's name.
        agg: the aggregate.
        kind: the type of its argument, None for `count()`.

    Raises:
        TypeMismatch: the function does not accept that type.
        Unsupported: the function cannot be combined with `distinct`, or with values of that type.
    """
    if agg.distinct and agg.fn not in _WITH_DISTINCT:
        raise Unsupported(f"{agg!s}: {agg.fn} cannot be combined with distinct")
    return tuple(Field(f"{name}${part}", of) for part, of in _parts(agg, kind))


def _parts(agg: Agg, kind: DataType | None) -> list[tuple[str, DataType]]:
    if kind is None:
        return [("count", INT64)]
    match agg.fn:
        case "min" | "max" | "first" | "last":
            return [(agg.fn, _comparable(agg, kind))]
        case "approx_count_distinct":
            _comparable(agg, kind)
            return [("sketch", BINARY)]
        case "median" | "quantile" | "quantile_disc":
            return [_list_part(agg, kind)]
        case "count" if agg.distinct:
            return [("set", DataType("List", item=_comparable(agg, kind)))]
        case "count":
            return [("count", INT64)]
        case _ if agg.distinct:
            _sum_part(agg, kind)
            return [("set", DataType("List", item=kind))]
        case "sum":
            return [_sum_part(agg, kind)]
        case "avg":
            return [_sum_part(agg, kind), ("count", INT64)]
        case _:
            _sum_part(agg, kind)
            return [("fsum", BINARY), ("fsum2", BINARY), ("count", INT64)]


def _list_part(agg: Agg, kind: DataType) -> tuple[str, DataType]:
    if agg.fn == "quantile_disc":
        _comparable(agg, kind)
    else:
        _sum_part(agg, kind)
    return "values", DataType("List", item=kind)


def _sum_part(agg: Agg, kind: DataType) -> tuple[str, DataType]:
    if kind.is_float:
        return "fsum", BINARY
    if kind.name == "Decimal":
        return "dsum", DataType("Decimal", precision=38, scale=kind.scale)
    if kind.is_integer:
        part = "usum" if kind.name == "UInt64" else "isum"
        return part, DataType("Decimal", precision=38, scale=0)
    raise TypeMismatch(
        str(agg), (str(kind),), f"{agg.fn} takes numbers, found {agg.arg!s} ({kind})"
    )


def _comparable(agg: Agg, kind: DataType) -> DataType:
    if kind.name in ("List", "Struct"):
        raise Unsupported(f"{agg!s}: values of type {kind} have no order")
    return kind


def result_type(agg: Agg, states: tuple[Field, ...]) -> DataType:
    """Return the type of the aggregate whose state columns are `states`."""
    part, of = states[0].name.rpartition("$")[2], states[0].type
    match agg.fn:
        case "count" | "approx_count_distinct":
            return INT64
        case "min" | "max" | "first" | "last":
            return of
        case "quantile_disc":
            assert of.item is not None, "a list has a type of values"
            return of.item
        case "sum":
            if part == "set":
                assert of.item is not None, "a set has a type of values"
                part, of = _sum_part(agg, of.item)
            plain = {"isum": INT64, "usum": DataType("UInt64"), "fsum": FLOAT64}
            return plain.get(part, of)
        case _:
            return FLOAT64


def find_states(name: str, agg: Agg, schema: Schema) -> tuple[Field, ...]:
    """Return the state columns of `agg` in the output of a partial phase.

    Raises:
        UsageError: `schema` has none; it is not the output of the same aggregate's partial phase.
    """
    wanted: list[tuple[str, ...]]
    match agg.fn:
        case "min" | "max" | "first" | "last":
            wanted = [(agg.fn,)]
        case "approx_count_distinct":
            wanted = [("sketch",)]
        case "median" | "quantile" | "quantile_disc":
            wanted = [("values",)]
        case _ if agg.distinct:
            wanted = [("set",)]
        case "count":
            wanted = [("count",)]
        case "sum":
            wanted = [SUM_PARTS]
        case "avg":
            wanted = [SUM_PARTS, ("count",)]
        case _:
            wanted = [("fsum",), ("fsum2",), ("count",)]
    return tuple(_find(name, agg, parts, schema) for parts in wanted)


def _find(name: str, agg: Agg, parts: tuple[str, ...], schema: Schema) -> Field:
    for part in parts:
        if f"{name}${part}" in schema:
            return schema.field(f"{name}${part}")
    raise UsageError(
        f"{name} = {agg!s} has no state column {name}${parts[0]} in the input",
        hint="phase final reads what phase partial of the same aggregate wrote",
    )
