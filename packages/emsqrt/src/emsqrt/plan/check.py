"""Check the names and types of a whole plan, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from emsqrt.expr import Agg, Expr, SortKey, TypeMismatch, infer
from emsqrt.plan.expectations import spell_rows
from emsqrt.plan.joining import join_schema, union_schema, unique_fields
from emsqrt.plan.nodes import (
    ROW_NUMBER,
    Aggregate,
    Custom,
    Distinct,
    Expect,
    Explode,
    Filter,
    Join,
    Limit,
    NamedAgg,
    Plan,
    Project,
    Rename,
    Sample,
    Scan,
    Sink,
    Sort,
    TopK,
    Union,
    WithColumn,
)
from emsqrt.plan.states import find_states, result_type, state_fields
from emsqrt.plan.tree import fold, inputs_of
from emsqrt.plan.window import Window, window_type
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType, Field, Schema

_UINT64 = DataType("UInt64")


def check(plan: Plan) -> Schema:
    """Return the schema of the plan's output after typing every node.

    Raises:
        UnknownColumn: a column that does not exist; the nearest name is suggested.
        TypeMismatch: operands of incompatible types.
        Unsupported: an operator, function or type that no engine has yet.
        UsageError: another mistake, such as two columns of one name.
    """
    return fold(plan, node_schema)


def node_schema(node: Plan, inputs: tuple[Schema, ...]) -> Schema:
    """Return the output schema of a node whose inputs have these schemas; raises as `check`."""
    if any(isinstance(below, Sink) for below in inputs_of(node)):
        raise UsageError(
            f"a sink ends a plan: a {type(node).__name__.lower()} cannot read from it",
            hint="sink the last step alone, or run two plans",
        )
    match node:
        case Scan():
            return scan_schema(node)
        case Join():
            return join_schema(node, *inputs)
        case Union():
            return union_schema(node, inputs)
        case Custom(schema=schema):
            if not inputs:
                raise UsageError(f"the operator {node.name} reads from nothing")
            return inputs[0] if schema is None else schema
        case _:
            return output_schema(node, inputs[0])


def scan_schema(scan: Scan) -> Schema:
    """Return the columns of `scan`, in order."""
    if scan.schema is None:
        raise UsageError(
            "the scan has no schema yet, so the plan's types are unknown",
            hint="read the source's schema first and put it in Scan(schema=…)",
        )
    return scan.schema if scan.columns is None else scan.schema.select(scan.columns)


def output_schema(node: Plan, schema: Schema) -> Schema:
    """Return the output schema of a node with one input of `schema`; raises as `check`."""
    if type(node) not in _OUTPUTS:
        raise Unsupported(f"operator {type(node).__name__.lower()} above another one")
    return _OUTPUTS[type(node)](node, schema)


def _filter_schema(node: Filter, schema: Schema) -> Schema:
    kind = infer(node.predicate, schema)
    if kind.name != "Bool":
        reason = f"a filter needs Bool, found {node.predicate!s} ({kind})"
        raise TypeMismatch(str(node.predicate), (str(kind),), reason)
    return schema


def _project_schema(node: Project, schema: Schema) -> Schema:
    return _schema(Field(name, infer(expr, schema)) for name, expr in node.columns)


def _with_column_schema(node: WithColumn, schema: Schema) -> Schema:
    added = {name: Field(name, infer(expr, schema)) for name, expr in node.columns}
    _distinct(name for name, _ in node.columns)
    kept = [added.pop(field.name, field) for field in schema]
    return _schema([*kept, *added.values()])


def _limit_schema(node: Limit, schema: Schema) -> Schema:
    if node.count < 0 or node.offset < 0:
        raise UsageError(f"limit needs counts of rows, not {node.count} and {node.offset}")
    return schema


def _sort_schema(node: Sort | TopK, schema: Schema) -> Schema:
    _check_order(node, node.keys, schema)
    if isinstance(node, TopK) and (node.count < 0 or node.offset < 0):
        raise UsageError(f"top_k needs counts of rows, not {node.count} and {node.offset}")
    return schema


def window_schema(node: Window, schema: Schema) -> Schema:
    """Return the input's columns, followed by one for each window function."""
    if not node.functions:
        raise UsageError("a window without functions adds no column")
    for expr in node.partition_by:
        _comparable(expr, infer(expr, schema), "partitioning by")
    if node.order_by:
        _check_order(node, node.order_by, schema)
    kinds = ((name, window_type(call, node.order_by, schema)) for name, call in node.functions)
    return _schema([*schema, *(Field(name, kind) for name, kind in kinds)])


def explode_schema(node: Explode, schema: Schema) -> Schema:
    """Return the input's columns with the list replaced by its item, and possibly a position."""
    kind = schema.field(node.column).type
    if kind.item is None:
        reason = f"explode needs a List, found {node.column} ({kind})"
        raise TypeMismatch(node.column, (str(kind),), reason)
    item = Field(node.as_name or node.column, kind.item)
    fields = [item if field.name == node.column else field for field in schema]
    if node.position is not None:
        fields.append(Field(node.position, DataType("Int64"), node.outer))
    return _schema(fields)


def _check_order(node: Plan, keys: tuple[SortKey, ...], schema: Schema) -> None:
    if not keys:
        raise UsageError(f"{type(node).__name__.lower()} needs at least one key to sort by")
    for key in keys:
        _comparable(key.expr, infer(key.expr, schema), "sorting by")


def _distinct_schema(node: Distinct, schema: Schema) -> Schema:
    columns = node.columns
    if columns is not None and not columns:
        raise UsageError("distinct by no column at all", hint="leave `columns` out to compare all")
    for field in schema if columns is None else schema.select(columns):
        if field.type.name in ("List", "Struct"):
            raise Unsupported(f"distinct by {field.name} of type {field.type}")
    return schema


def _sample_schema(node: Sample, schema: Schema) -> Schema:
    if (node.fraction is None) == (node.count is None):
        raise UsageError("sample needs either a fraction of the rows or a count of them")
    if node.fraction is not None and not 0 <= node.fraction <= 1:
        raise UsageError(f"sample needs a fraction from 0 to 1, not {node.fraction}")
    if min(node.seed, node.first_row, node.count or 0) < 0:
        raise UsageError("sample needs a count, a seed and a first row from 0")
    if node.phase == "full":
        return schema
    if node.count is None:
        raise UsageError(f"a sample of a fraction has no phase {node.phase}")
    if node.phase == "partial":
        return unique_fields((*schema, Field(ROW_NUMBER, _UINT64)), "partial sample")
    if schema.field(ROW_NUMBER).type != _UINT64:
        raise UsageError(f"the column {ROW_NUMBER} is not that of a partial sample")
    return Schema(tuple(field for field in schema if field.name != ROW_NUMBER))


def _expect_schema(node: Expect, schema: Schema) -> Schema:
    if not node.unique and not node.not_null and node.rows is None:
        raise UsageError("expect expects nothing", hint="use unique, not_null or rows")
    for field in schema.select(node.unique):
        if field.type.name in ("List", "Struct"):
            raise Unsupported(f"expecting {field.name} of type {field.type} to be unique")
    schema.select(node.not_null)
    if node.rows is not None:
        spell_rows(node.rows)
    return schema


def _comparable(expr: Expr, kind: DataType, doing: str) -> None:
    if kind.name in ("List", "Struct"):
        raise Unsupported(f"{doing} {expr!s} of type {kind}")


def _rename_schema(node: Rename, schema: Schema) -> Schema:
    _distinct(old for old, _ in node.names)
    changes = {schema.field(old).name: new for old, new in node.names}
    return _schema(
        Field(changes.get(field.name, field.name), field.type, field.nullable) for field in schema
    )


def aggregate_schema(node: Aggregate, schema: Schema) -> Schema:
    """Return the schema of an aggregate's output, in any phase."""
    if not node.keys and not node.aggs:
        raise UsageError("an aggregate without keys and without aggs makes no column")
    if node.phase == "partial":
        return partial_schema(node, schema)
    if node.phase == "final":
        keys = [Field(name, schema.field(name).type) for name, _ in node.keys]
        states = [find_states(name, agg, schema) for name, agg in node.aggs]
    else:
        keys = _key_fields(node, schema)
        states = [_states(named, schema) for named in node.aggs]
    results = [
        Field(name, result_type(agg, of)) for (name, agg), of in zip(node.aggs, states, strict=True)
    ]
    return _schema([*keys, *results])


def partial_schema(node: Aggregate, schema: Schema | None = None) -> Schema:
    """Return the schema of the aggregate's partial phase: keys, then state columns.

    Args:
        node: the aggregate, in phase full or partial.
        schema: the schema of its input; by default that of `check(node.input)`.
    """
    rows = check(node.input) if schema is None else schema
    states = [field for named in node.aggs for field in _states(named, rows)]
    return _schema([*_key_fields(node, rows), *states])


def _key_fields(node: Aggregate, schema: Schema) -> list[Field]:
    keys = [Field(name, infer(expr, schema)) for name, expr in node.keys]
    for (_, expr), key in zip(node.keys, keys, strict=True):
        _comparable(expr, key.type, "grouping by")
    return keys


def _states(named: NamedAgg, schema: Schema) -> tuple[Field, ...]:
    name, agg = named
    if not isinstance(agg, Agg):
        raise UsageError(f"{name}: {agg!s} is not an aggregate", hint="such as sum(x) or count()")
    return state_fields(name, agg, None if agg.arg is None else infer(agg.arg, schema))


def _schema(fields: Iterable[Field]) -> Schema:
    made = tuple(fields)
    _distinct(field.name for field in made)
    return Schema(made)


def _distinct(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f'two columns would be called "{name}"')
        seen.add(name)


_OUTPUTS: dict[type[Plan], Callable[[Any, Schema], Schema]] = {
    Filter: _filter_schema,
    Project: _project_schema,
    WithColumn: _with_column_schema,
    Rename: _rename_schema,
    Aggregate: aggregate_schema,
    Window: window_schema,
    Explode: explode_schema,
    Limit: _limit_schema,
    Sort: _sort_schema,
    TopK: _sort_schema,
    Distinct: _distinct_schema,
    Sample: _sample_schema,
    Expect: _expect_schema,
    Sink: lambda _, schema: schema,
}
