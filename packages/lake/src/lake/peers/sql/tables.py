"""What the planner knows of a table: its columns, its shards with their bounds, and its partition key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Bounds", "BucketKey", "Column", "Shard", "Table", "key_class"]

_INTEGERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Args:
        name: As it is written; names differ in more than the case of letters.
        type: DuckDB's name of its type, such as `DECIMAL(12,2)`.
    """

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is known of a column's values in a shard; None for what is not.

    Args:
        low: The smallest value, as text that DuckDB casts to the column's type.
        high: The greatest one; `nan` if there may be NaN.
        nulls: The number of NULLs.
    """

    low: str | None = None
    high: str | None = None
    nulls: int | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows that are stored, sent and counted as one object.

    Args:
        object: Its object id.
        rows: Its number of rows.
        bytes: The size of its file.
        bounds: The bounds of its columns, by the columns' names.
        bucket: The bucket of the partition key that all its rows are in; None is that of NULL.
        nodes: The numbers of the nodes that hold it and can be reached; 0 is the coordinator.
    """

    object: str
    rows: int
    bytes: int
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    bucket: int | None = None
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BucketKey:
    """A partition key `bucket(buckets, column)`, which every shard of the table was written with."""

    column: str
    buckets: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a query.

    Args:
        name: As it is written in queries; found in any case of letters.
        columns: Its columns.
        shards: Its rows.
        key: The partition key, if the bucket of every shard is known.
        readers: The numbers of the other nodes that rows of it may be sent to; none unless it is known
            that all users there may read all of it.
    """

    name: str
    columns: tuple[Column, ...]
    shards: tuple[Shard, ...] = ()
    key: BucketKey | None = None
    readers: tuple[int, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether the coordinator has all rows; False for a table without rows, which may have a file."""
        return bool(self.shards) and all(0 in shard.nodes for shard in self.shards)

    def type_of(self, column: str) -> str | None:
        """Return the type of a column by its name in any case of letters."""
        folded = column.casefold()
        return next((each.type for each in self.columns if each.name.casefold() == folded), None)

    def key_class(self) -> tuple[int, str] | None:
        """Return what tables must share so that equal keys are in the same bucket; None without key."""
        if self.key is None:
            return None
        kind = self.type_of(self.key.column)
        return None if kind is None else (self.key.buckets, key_class(kind))


def key_class(kind: str) -> str:
    """Return the name that types share if equal values have equal hashes.

    The hash of an integer is that of the number, of any width (Apache Iceberg, Appendix B).
    """
    upper = kind.upper()
    return "INTEGER" if upper in _INTEGERS else upper
