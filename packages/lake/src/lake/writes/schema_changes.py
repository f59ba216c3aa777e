"""Changes of a dataset's columns: metadata alone, no shard is written.

Each is a function of the head to the same snapshot with other columns, so it applies to whatever is
the head when it is committed. `ALTERATIONS` has them by the names that executors use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lake.catalog.file_schemas import column_ids, file_schemas_of
from lake.catalog.layouts import check_changed_type, parse_layout, uses_column
from sennit_core.errors import Conflict, SqlError, UnknownColumn, Unsupported, nearest
from sennit_core.records import ColumnDefault, SnapshotInfo
from sennit_core.schema import DataType, Field, Schema

__all__ = ["ALTERATIONS", "alter", "can_widen", "find_column"]

_INTEGERS = {"Int8": 8, "Int16": 16, "Int32": 32, "Int64": 64}
_UNSIGNED = {"UInt8": 8, "UInt16": 16, "UInt32": 32, "UInt64": 64}
_FLOATS = {"Float32": 24, "Float64": 53}
"""Bits of the integers that each type holds exactly."""
_UNITS = {"s": 0, "ms": 3, "us": 6}
"""Decimal places of a second; nanoseconds have a smaller range."""


def alter(head: SnapshotInfo, change: dict[str, Any]) -> SnapshotInfo:
    """Return the head with other columns.

    Args:
        head: The snapshot.
        change: `do` is a key of `ALTERATIONS`; the rest are the function's arguments.

    Raises:
        UnknownColumn: There is no such column.
        Conflict: There is one of this name already.
        Unsupported: The type cannot hold all values of the old one.
    """
    arguments = {name: value for name, value in change.items() if name != "do"}
    # Every shard keeps the index of the columns that it was written with.
    known = replace(
        head,
        columns=column_ids(head),
        last_column=max((head.last_column, *column_ids(head))),
        file_schemas=file_schemas_of(head),
    )
    return ALTERATIONS[change["do"]](known, **arguments)


def find_column(schema: Schema, name: str) -> int:
    """Return the index of a column; names are compared case-insensitively, as in SQL."""
    folded = [each.casefold() for each in schema.names]
    if name.casefold() not in folded:
        raise UnknownColumn(name, schema.names, suggestion=nearest(name, schema.names))
    return folded.index(name.casefold())


def can_widen(old: DataType, new: DataType) -> bool:
    """Return whether every value of one type is a value of the other."""
    if old == new:
        return True
    if new.name in _INTEGERS:
        return _bits(old) is not None and _signed_bits(old) <= _INTEGERS[new.name]
    if new.name in _UNSIGNED:
        return old.name in _UNSIGNED and _UNSIGNED[old.name] <= _UNSIGNED[new.name]
    if new.name in _FLOATS:
        return old.name == "Float32" or (
            _bits(old) is not None and _signed_bits(old) <= _FLOATS[new.name] + 1
        )
    if new.name == "Decimal":
        return _is_wider_decimal(old, new)
    if new.name == "Timestamp" and new.unit in _UNITS:
        if old.name == "Date":
            return new.zone is None
        same_zone = old.name == "Timestamp" and old.zone == new.zone
        return same_zone and old.unit in _UNITS and _UNITS[old.unit] <= _UNITS[new.unit]
    return False


def _add(head: SnapshotInfo, column: str, type: str, if_missing: bool) -> SnapshotInfo:  # noqa: A002
    folded = [name.casefold() for name in head.schema.names]
    if column.casefold() in folded:
        if if_missing:
            return head
        raise _exists(column)
    fields = (*head.schema.fields, Field(column, DataType.parse(type)))
    number = head.last_column + 1
    return replace(head, schema=Schema(fields), columns=(*head.columns, number), last_column=number)


def _drop(head: SnapshotInfo, column: str, if_exists: bool) -> SnapshotInfo:
    if if_exists and column.casefold() not in [name.casefold() for name in head.schema.names]:
        return head
    index = find_column(head.schema, column)
    if len(head.schema) == 1:
        raise Unsupported(
            "dropping the only column", hint="DROP TABLE removes the dataset with its rows"
        )
    used = uses_column(head, head.columns[index])
    if used is not None:
        raise Unsupported(
            f"dropping column {column!r}, which the dataset is {used.lower()}",
            hint=f"ALTER TABLE … RESET {used} first",
        )
    fields = head.schema.fields
    return replace(
        head,
        schema=Schema((*fields[:index], *fields[index + 1 :])),
        columns=(*head.columns[:index], *head.columns[index + 1 :]),
        defaults=_other_defaults(head, index),
    )


def _rename(head: SnapshotInfo, column: str, to: str) -> SnapshotInfo:
    index = find_column(head.schema, column)
    others = [each for place, each in enumerate(head.schema.names) if place != index]
    if to.casefold() in [name.casefold() for name in others]:
        raise _exists(to)
    return _with_field(head, index, replace(head.schema.fields[index], name=to))


def _change_type(head: SnapshotInfo, column: str, type: str) -> SnapshotInfo:  # noqa: A002
    index = find_column(head.schema, column)
    field, wanted = head.schema.fields[index], DataType.parse(type)
    if not can_widen(field.type, wanted):
        raise Unsupported(
            f"changing the type of column {field.name!r} from {field.type} to {wanted}, which does "
            "not hold all its values",
            hint="CREATE OR REPLACE TABLE … AS SELECT … can convert them",
        )
    check_changed_type(head, head.columns[index], field.name, field.type, wanted)
    return _with_field(head, index, replace(field, type=wanted))


def _set_nullable(head: SnapshotInfo, column: str, nullable: bool) -> SnapshotInfo:
    index = find_column(head.schema, column)
    return _with_field(head, index, replace(head.schema.fields[index], nullable=nullable))


def _set_default(head: SnapshotInfo, column: str, sql: str | None) -> SnapshotInfo:
    index = find_column(head.schema, column)
    others = _other_defaults(head, index)
    if sql is None:
        return replace(head, defaults=others)
    return replace(head, defaults=(*others, ColumnDefault(head.columns[index], sql)))


def _other_defaults(head: SnapshotInfo, index: int) -> tuple[ColumnDefault, ...]:
    return tuple(each for each in head.defaults if each.column != head.columns[index])


def _reorder(head: SnapshotInfo, columns: Sequence[str]) -> SnapshotInfo:
    indexes = [find_column(head.schema, name) for name in columns]
    if sorted(indexes) != list(range(len(head.schema))):
        raise SqlError(
            "the order names a column twice, or not at all",
            hint=f"the columns are {', '.join(head.schema.names)}",
        )
    return replace(
        head,
        schema=Schema(tuple(head.schema.fields[index] for index in indexes)),
        columns=tuple(head.columns[index] for index in indexes),
    )


def _partition(head: SnapshotInfo, fields: Sequence[str]) -> SnapshotInfo:
    layout = parse_layout(head.schema, head.columns, partition_by=fields)
    return replace(head, partitioning=layout.partitioning)


def _sort(head: SnapshotInfo, fields: Sequence[str]) -> SnapshotInfo:
    layout = parse_layout(head.schema, head.columns, sort_by=fields)
    return replace(head, sort_order=layout.sort_order)


ALTERATIONS: dict[str, Callable[..., SnapshotInfo]] = {
    "add": _add,
    "drop": _drop,
    "rename": _rename,
    "type": _change_type,
    "nullable": _set_nullable,
    "default": _set_default,
    "reorder": _reorder,
    "partitioned": _partition,
    "sorted": _sort,
}


def _with_field(head: SnapshotInfo, index: int, field: Field) -> SnapshotInfo:
    fields = head.schema.fields
    return replace(head, schema=Schema((*fields[:index], field, *fields[index + 1 :])))


def _exists(column: str) -> Conflict:
    return Conflict(f"there is a column {column!r} already", hint="use another name")


def _bits(kind: DataType) -> int | None:
    return _INTEGERS.get(kind.name) or _UNSIGNED.get(kind.name)


def _signed_bits(kind: DataType) -> int:
    """Return the bits of the smallest signed integer that holds an integer type."""
    return _INTEGERS.get(kind.name) or _UNSIGNED[kind.name] + 1


def _is_wider_decimal(old: DataType, new: DataType) -> bool:
    assert new.precision is not None
    assert new.scale is not None
    bits = _bits(old)
    if bits is not None:
        digits = len(str(1 << (_signed_bits(old) - 1)))
        return new.precision - new.scale >= digits
    if old.precision is None or old.scale is None:
        return False
    return new.scale >= old.scale and new.precision - new.scale >= old.precision - old.scale
