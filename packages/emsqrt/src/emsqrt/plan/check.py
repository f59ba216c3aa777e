"""Types of a whole plan: every name and every expression, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from emsqrt.expr import Agg, TypeMismatch, infer
from emsqrt.plan.nodes import (
    Aggregate,
    Filter,
    Limit,
    NamedAgg,
    Plan,
    Project,
    Rename,
    Scan,
    Sink,
    WithColumn,
    chain,
)
from emsqrt.plan.states import find_states, result_type, state_fields
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import Field, Schema


def check(plan: Plan) -> Schema:
    """Return the schema of the plan's output after typing every node.

    Raises:
        UnknownColumn: a column that is not there; the nearest name is suggested.
        TypeMismatch: operands that do not go together.
        Unsupported: an operator, function or type that no engine has yet.
        UsageError: anything else that makes no sense, such as two columns of one name.
    """
    scan, *rest = chain(plan)
    if not isinstance(scan, Scan):
        raise UsageError(f"a plan begins with a scan, not with {type(scan).__name__.lower()}")
    schema = scan_schema(scan)
    for node in rest:
        schema = output_schema(node, schema)
    return schema


def scan_schema(scan: Scan) -> Schema:
    """Return the columns that `scan` gives, in their order."""
    if scan.schema is None:
        raise UsageError(
            "the scan has no schema yet, so the plan's types cannot be told",
            hint="read the source's schema first and put it in Scan(schema=…)",
        )
    return scan.schema if scan.columns is None else scan.schema.select(scan.columns)


def output_schema(node: Plan, schema: Schema) -> Schema:
    """Return the schema that one node makes of rows of `schema`; raises what `check` raises."""
    match node:
        case Filter(predicate=predicate):
            kind = infer(predicate, schema)
            if kind.name != "Bool":
                reason = f"a filter needs Bool, found {predicate!s} ({kind})"
                raise TypeMismatch(str(predicate), (str(kind),), reason)
            return schema
        case Project(columns=columns):
            return _schema(Field(name, infer(expr, schema)) for name, expr in columns)
        case WithColumn(columns=columns):
            added = {name: Field(name, infer(expr, schema)) for name, expr in columns}
            _distinct(name for name, _ in columns)
            kept = [added.pop(field.name, field) for field in schema]
            return _schema([*kept, *added.values()])
        case Rename(names=names):
            return _renamed(names, schema)
        case Aggregate():
            return aggregate_schema(node, schema)
        case Limit(count=count, offset=offset):
            if count < 0 or offset < 0:
                raise UsageError(f"limit takes counts of rows, not {count} and {offset}")
            return schema
        case Sink():
            return schema
    raise Unsupported(f"operator {type(node).__name__.lower()} above another one")


def _renamed(names: tuple[tuple[str, str], ...], schema: Schema) -> Schema:
    _distinct(old for old, _ in names)
    changes = {schema.field(old).name: new for old, new in names}
    return _schema(
        Field(changes.get(field.name, field.name), field.type, field.nullable) for field in schema
    )


def aggregate_schema(node: Aggregate, schema: Schema) -> Schema:
    """Return the schema of an aggregate's output, whatever its phase."""
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
        if key.type.name in ("List", "Struct"):
            raise Unsupported(f"grouping by {expr!s} of type {key.type}")
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
