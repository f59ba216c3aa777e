"""Schemas of operators with several inputs: join and union."""

from __future__ import annotations

from collections.abc import Sequence

from emsqrt.expr import rules
from emsqrt.expr.errors import TypeMismatch
from emsqrt.plan.nodes import JOIN_KINDS, Join, Union
from sennit_core.errors import Unsupported, UsageError
from sennit_core.schema import DataType, Field, Schema

LEFT_ONLY = ("semi", "anti")


def join_schema(node: Join, left: Schema, right: Schema) -> Schema:
    """Return the columns of a join.

    Raises:
        UsageError: missing or forbidden keys, or a duplicate name.
        UnknownColumn: a key that a side does not have.
        TypeMismatch: keys that cannot be compared.
    """
    types = join_key_types(node, left, right)
    if node.how in LEFT_ONLY:
        return left
    shared = dict(zip(shared_keys(node), _shared_types(node, types), strict=True))
    fields = [_left_field(node, field, shared) for field in left]
    fields += [_right_field(node, field, left) for field in right if field.name not in shared]
    return unique_fields(fields, f"join with suffix {node.suffix!r}")


def join_key_types(node: Join, left: Schema, right: Schema) -> tuple[DataType, ...]:
    """Return, for each pair of keys, the type in which the two sides are compared."""
    if node.how not in JOIN_KINDS:
        raise UsageError(f"no join is {node.how!r}", hint=f"there are {', '.join(JOIN_KINDS)}")
    if node.how == "cross" and node.on:
        raise UsageError("a cross join joins every pair of rows, so it has no keys")
    if node.how != "cross" and not node.on:
        raise UsageError(f"the {node.how} join has no keys", hint="name them in `on`")
    return tuple(_key_type(*pair, left, right) for pair in node.on)


def shared_keys(node: Join) -> tuple[str, ...]:
    """Return the keys with the same name on both sides, which appear once in the output."""
    return tuple(one for one, other in node.on if one == other)


def right_names(node: Join, left: Schema, right: Schema) -> dict[str, str]:
    """Return the output names of the right side's columns, {old: new}."""
    if node.how in LEFT_ONLY:
        return {}
    shared = shared_keys(node)
    kept = (name for name in right.names if name not in shared)
    return {name: name + node.suffix if name in left else name for name in kept}


def union_schema(node: Union, inputs: Sequence[Schema]) -> Schema:
    """Return the columns of a union.

    Raises:
        UsageError: no input, or a different number of columns by position.
        TypeMismatch: columns without a common type.
    """
    if not node.inputs:
        raise UsageError("a union of nothing has no columns")
    if not node.by_name and len({len(schema) for schema in inputs}) > 1:
        counts = ", ".join(str(len(schema)) for schema in inputs)
        raise UsageError(
            f"a union by position needs equally many columns, found {counts}",
            hint="select the same columns in each, or unite by name",
        )
    if node.by_name:
        names = list(dict.fromkeys(name for schema in inputs for name in schema.names))
        parts = [[s.field(name) if name in s else None for s in inputs] for name in names]
    else:
        names = list(inputs[0].names)
        parts = [[schema.fields[index] for schema in inputs] for index in range(len(names))]
    return Schema(tuple(_united(name, part) for name, part in zip(names, parts, strict=True)))


def unique_fields(fields: Sequence[Field], what: str) -> Schema:
    """Return the schema of `fields`, which must have different names."""
    seen: set[str] = set()
    for field in fields:
        if field.name in seen:
            raise UsageError(
                f'{what}: two columns would be called "{field.name}"', hint="rename one before"
            )
        seen.add(field.name)
    return Schema(tuple(fields))


def _key_type(one: str, other: str, left: Schema, right: Schema) -> DataType:
    kinds = left.field(one).type, right.field(other).type
    for name, kind in zip((one, other), kinds, strict=True):
        if kind.name in ("List", "Struct"):
            raise Unsupported(f"joining on {name} of type {kind}")
    joined = rules.join(*kinds)
    if joined is None or (joined.is_float and not all(kind.is_float for kind in kinds)):
        reason = f"a join compares {one} ({kinds[0]}) with {other} ({kinds[1]})"
        raise TypeMismatch(f"{one} == {other}", tuple(map(str, kinds)), reason)
    return joined


def _shared_types(node: Join, types: Sequence[DataType]) -> list[DataType]:
    return [kind for (one, other), kind in zip(node.on, types, strict=True) if one == other]


def _left_field(node: Join, field: Field, shared: dict[str, DataType]) -> Field:
    if node.how not in ("right", "full"):
        return field
    if field.name in shared:
        return Field(field.name, shared[field.name])
    return Field(field.name, field.type)


def _right_field(node: Join, field: Field, left: Schema) -> Field:
    name = field.name + node.suffix if field.name in left else field.name
    return Field(name, field.type, field.nullable or node.how in ("left", "full"))


def _united(name: str, parts: Sequence[Field | None]) -> Field:
    present = [part for part in parts if part is not None]
    kind = present[0].type
    for part in present[1:]:
        joined = rules.join(kind, part.type)
        if joined is None:
            reason = f"a union needs one type for {name}, found {kind} and {part.type}"
            raise TypeMismatch(name, (str(kind), str(part.type)), reason)
        kind = joined
    complete = len(present) == len(parts)
    return Field(name, kind, not complete or any(part.nullable for part in present))
