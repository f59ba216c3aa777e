"""The layout of a dataset: what its new shards are partitioned by, and what their rows are sorted by.

A layout is written as in SQL, `month(ts), bucket(16, user)` and `a, b DESC NULLS FIRST`, and stored by the
ids of columns, so that it survives their names. The transforms and their values are those of Apache
Iceberg (iceberg.apache.org/spec, "Partition Transforms"), whose metadata a dataset can publish.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sennit_core.errors import UnknownColumn, Unsupported, UsageError, nearest
from sennit_core.records import PartitionField, ShardInfo, SnapshotInfo, SortField
from sennit_core.schema import DataType, Schema

__all__ = [
    "BUCKETS_MAX",
    "NO_LAYOUT",
    "Layout",
    "check_changed_type",
    "described",
    "field_of_key",
    "layout_of",
    "parse_layout",
    "partition_names",
    "uses_column",
]

BUCKETS_MAX = 4096
_FIELDS_MAX = 8
"""Each field multiplies the number of partitions."""
_TIMES = ("year", "month", "day", "hour")
_INTEGERS = frozenset(
    ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32")
)  # whose hash is that of the number, whatever its width
_BUCKETED = _INTEGERS | {"Utf8", "Binary", "Date", "Time", "Timestamp", "Decimal"}
_IDENTITY = _INTEGERS | {"UInt64", "Bool", "Utf8", "Date", "Decimal"}
_TYPES: dict[str, frozenset[str]] = {
    "identity": _IDENTITY,
    "bucket": _BUCKETED,
    "hour": frozenset(("Timestamp",)),
    **dict.fromkeys(("year", "month", "day"), frozenset(("Date", "Timestamp"))),
}
_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_PARTITION = re.compile(
    rf"""\s*(?: (?P<column>{_NAME})
        | (?P<time>year|month|day|hour)\s*\(\s*(?P<timed>{_NAME})\s*\)
        | bucket\s*\(\s*(?P<buckets>[0-9]{{1,9}})\s*,\s*(?P<bucketed>{_NAME})\s*\)
    )\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_SORT = re.compile(
    rf"""\s*(?P<column>{_NAME})
        (?:\s+(?P<order>asc|desc))?
        (?:\s+nulls\s+(?P<nulls>first|last))?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Layout:
    """How new shards of a dataset are written.

    Args:
        partitioning: Each shard has rows of one value of each field.
        sort_order: The rows of each shard are sorted by these columns.
    """

    partitioning: tuple[PartitionField, ...] = ()
    sort_order: tuple[SortField, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.partitioning or self.sort_order)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Layout:
        """Read the form of executor requests."""
        data = data or {}
        return cls(
            tuple(map(PartitionField.from_json, data.get("partitioning") or ())),
            tuple(map(SortField.from_json, data.get("sortOrder") or ())),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form of executor requests."""
        return {
            "partitioning": [field.to_json() for field in self.partitioning],
            "sortOrder": [field.to_json() for field in self.sort_order],
        }

    def members(self) -> dict[str, Any]:
        """Return the members of a snapshot."""
        return {"partitioning": self.partitioning, "sort_order": self.sort_order}


NO_LAYOUT = Layout()


def layout_of(snapshot: SnapshotInfo) -> Layout:
    """Return the layout of a snapshot."""
    return Layout(snapshot.partitioning, snapshot.sort_order)


def parse_layout(
    schema: Schema,
    columns: Sequence[int],
    *,
    partition_by: Iterable[str] = (),
    sort_by: Iterable[str] = (),
) -> Layout:
    """Return the layout that texts describe.

    Args:
        schema: The columns.
        columns: The id of each.
        partition_by: Such as `country`, `month(ts)` or `bucket(16, user)`.
        sort_by: Such as `ts DESC NULLS FIRST`; NULLs are last by default, as in SQL.

    Raises:
        UsageError: A text is none of these, or two mean the same.
        UnknownColumn: There is no such column.
        Unsupported: A column's type has no such transform, or no order.
    """
    layout = Layout(
        tuple(_partition_field(text, schema, columns) for text in partition_by),
        tuple(_sort_field(text, schema, columns) for text in sort_by),
    )
    if len(layout.partitioning) > _FIELDS_MAX:
        raise UsageError(f"a dataset is partitioned by {_FIELDS_MAX} fields at most")
    keys = [field.key for field in layout.partitioning]
    sorted_by = [field.column for field in layout.sort_order]
    lists: dict[str, list[Any]] = {"PARTITIONED BY": keys, "SORTED BY": sorted_by}
    for what, found in lists.items():
        if len(set(found)) != len(found):
            raise UsageError(f"{what} names a field twice", hint="name each once")
    return layout


def _partition_field(text: str, schema: Schema, columns: Sequence[int]) -> PartitionField:
    found = _PARTITION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise UsageError(
            f"PARTITIONED BY {str(text)[:_SHOWN]!r} is no column and no known transform of one",
            hint="write column, year(column), month(column), day(column), hour(column) or "
            "bucket(16, column)",
        )
    name = found["column"] or found["timed"] or found["bucketed"]
    transform = (found["time"] or ("bucket" if found["bucketed"] else "identity")).lower()
    buckets = int(found["buckets"] or 0)
    if transform == "bucket" and not 1 <= buckets <= BUCKETS_MAX:
        raise UsageError(
            f"bucket({buckets}, {name}): there are 1 to {BUCKETS_MAX} buckets",
            hint="as many as give each bucket some MiB",
        )
    index = _find(schema, _unquoted(name))
    kind = schema.fields[index].type
    if kind.name not in _TYPES[transform]:
        raise Unsupported(
            f"partitioning by {text.strip()}, a column of the type {kind}",
            hint=f"{transform} is for {', '.join(sorted(_TYPES[transform]))}",
        )
    return PartitionField(columns[index], transform, buckets)


def _sort_field(text: str, schema: Schema, columns: Sequence[int]) -> SortField:
    found = _SORT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise UsageError(
            f"SORTED BY {str(text)[:_SHOWN]!r} is no column",
            hint="write column [ASC | DESC] [NULLS FIRST | NULLS LAST]; expressions are not supported",
        )
    index = _find(schema, _unquoted(found["column"]))
    kind = schema.fields[index].type
    if kind.name in ("List", "Struct"):
        raise Unsupported(f"sorting by column {found['column']}, of the type {kind}")
    descending = (found["order"] or "").lower() == "desc"
    return SortField(columns[index], descending, (found["nulls"] or "").lower() == "first")


def _find(schema: Schema, name: str) -> int:
    folded = [each.casefold() for each in schema.names]
    if name.casefold() not in folded:
        raise UnknownColumn(name, schema.names, suggestion=nearest(name, schema.names))
    return folded.index(name.casefold())


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def uses_column(snapshot: SnapshotInfo, column: int) -> str | None:
    """Return how a snapshot's layout uses a column, as words of SQL; None if it does not."""
    if any(field.column == column for field in snapshot.partitioning):
        return "PARTITIONED BY"
    if any(each.column == column for each in snapshot.sort_order):
        return "SORTED BY"
    return None


def check_changed_type(
    snapshot: SnapshotInfo, column: int, name: str, old: DataType, new: DataType
) -> None:
    """Refuse a type whose values are in other partitions than the same values of the old type.

    Raises:
        Unsupported: The hash or the form of the values differs.
    """
    same = old == new or (old.name in _INTEGERS and new.name in _INTEGERS)
    if not same and any(field.column == column for field in snapshot.partitioning):
        raise Unsupported(
            f"changing the type of column {name!r}, by which the dataset is partitioned",
            hint="ALTER TABLE … RESET PARTITIONED BY first",
        )


def partition_names(snapshot: SnapshotInfo, shard: ShardInfo) -> dict[str, Any]:
    """Return a shard's partition with the columns' names of today, such as `{"month(ts)": 642}`.

    A column that was dropped since has no name, and its field is left out.
    """
    ids = snapshot.columns or tuple(range(1, len(snapshot.schema) + 1))
    names = dict(zip(ids, snapshot.schema.names, strict=True))
    found = {}
    for key, value in shard.partition.items():
        field = field_of_key(key)
        if field.column in names:
            found[described(field, names[field.column])] = value
    return found


def field_of_key(key: str) -> PartitionField:
    """Return the field of a key of `ShardInfo.partition`."""
    transform, _, rest = key.rstrip(")").partition("(")
    count, _, column = rest.rpartition(",")
    return PartitionField(int(column), transform, int(count or 0))


def described(field: PartitionField, name: str) -> str:
    """Return a field as it is written in SQL, but for quotes."""
    if field.transform == "identity":
        return name
    return f"{field.transform}({f'{field.buckets}, ' if field.buckets else ''}{name})"
