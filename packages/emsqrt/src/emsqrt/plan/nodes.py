"""The plan tree: frozen dataclasses, one per operator, from the scans up to a sink.

A node holds its inputs: `input`, or `left` and `right`, or `inputs`; `emsqrt.plan.tree` walks them.
Two plans are equal when their canonical JSON is, so a plan can be a dictionary's key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from emsqrt.expr import Agg, Expr, SortKey
from emsqrt.plan.arguments import check_arguments
from sennit_core.errors import UsageError
from sennit_core.schema import Schema

Named: TypeAlias = tuple[str, Expr]
NamedAgg: TypeAlias = tuple[str, Agg]
Phase: TypeAlias = Literal["full", "partial", "final"]
JoinKind: TypeAlias = Literal["inner", "left", "right", "full", "semi", "anti", "cross"]

FILE_FORMATS = ("csv", "parquet", "arrow", "jsonl")
TARGET_FORMATS = ("parquet", "csv", "jsonl", "arrow")
STREAM_FORMATS = ("arrow", "json", "csv")
NODES_MAX = 100
"""Operators in one plan, all branches together."""
PHASES: tuple[Phase, ...] = ("full", "partial", "final")
JOIN_KINDS: tuple[JoinKind, ...] = ("inner", "left", "right", "full", "semi", "anti", "cross")
SUFFIX = "_right"
ROW_NUMBER = "$row"
"""The column of a row's number, UInt64, between the phases of a sample."""


@dataclass(frozen=True, slots=True)
class Files:
    """Files to read in this order, all of one format.

    Args:
        paths: paths on the machine that runs the plan.
        format: "csv", "parquet", "arrow" (IPC file or stream) or "jsonl".
        options: JSON values for the reader, such as {"delimiter": ";"}.
    """

    paths: tuple[str, ...]
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A dataset or view by id or name; resolved to `Files` before a plan runs.

    Args:
        dataset: its id or name.
        snapshot: the id of one snapshot. Of this and the next two, one may be set; none means the
            newest.
        version: the number of a snapshot, from 1, or its tag.
        timestamp: a time in ISO 8601, in UTC without an offset: the newest snapshot of then.
    """

    dataset: str
    snapshot: str | None = None
    version: int | str | None = None
    timestamp: str | None = None

    def __post_init__(self) -> None:
        """Refuse two snapshots.

        Raises:
            UsageError: more than one is named.
        """
        named = (self.snapshot, self.version, self.timestamp)
        if sum(each is not None for each in named) > 1:
            raise UsageError("a source has one of snapshot, version and timestamp")


@dataclass(frozen=True, slots=True)
class FileTarget:
    """One file to write: temp, fsync, rename; `options` are JSON values for the writer."""

    path: str
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """A stream of payloads to the caller that runs the plan: "arrow", "json" or "csv"."""

    format: str


Source: TypeAlias = Files | DatasetRef
Target: TypeAlias = FileTarget | StreamTarget


class Plan:
    """A node of a plan with everything below it."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Validate the fields; the dataclass of each kind of node calls it."""
        check_arguments(self, Plan)

    def __eq__(self, other: object) -> bool:
        from emsqrt.plan.wire import canonical_plan

        return isinstance(other, Plan) and canonical_plan(self) == canonical_plan(other)

    def __hash__(self) -> int:
        from emsqrt.plan.wire import canonical_plan

        return hash(canonical_plan(self))


@dataclass(frozen=True, slots=True, eq=False)
class Scan(Plan):
    """Read a source. Without a schema the reader finds it; `columns` prunes and orders.

    `predicate` is a planner's hint and never part of a submitted plan: rows for which it is false
    or NULL are dropped further up, so a reader may leave out whole blocks that have only those.
    """

    source: Source
    schema: Schema | None = None
    columns: tuple[str, ...] | None = None
    predicate: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Filter(Plan):
    """Keep the rows for which `predicate` is true; drop those where it is false or NULL."""

    input: Plan
    predicate: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Project(Plan):
    """Compute exactly these columns; every expression sees the input's columns."""

    input: Plan
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rename(Plan):
    """Rename columns, all at once; `names` holds (from, to) pairs."""

    input: Plan
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class WithColumn(Plan):
    """Add columns, or replace those of the same name in place.

    Every expression sees the input's columns.
    """

    input: Plan
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate(Plan):
    """Group by `keys` and aggregate; the output is sorted by the keys, NULL last.

    Without keys there is exactly one row. Phase "partial" produces states instead of values
    (`partial_schema`), phase "final" reads those and produces the values; it uses only the names
    and functions, as the expressions are those of the partial phase.
    """

    input: Plan
    keys: tuple[Named, ...]
    aggs: tuple[NamedAgg, ...]
    phase: Phase = "full"


@dataclass(frozen=True, slots=True, eq=False)
class Limit(Plan):
    """Skip `offset` rows, pass on `count` rows, and stop reading."""

    input: Plan
    count: int
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Sort(Plan):
    """Order the rows by `keys`; rows with equal keys stay in input order.

    Args:
        input: the rows.
        keys: what to order by, most significant first.
        merge: each file of the scan below is in this order already, so files are merged and no row
            is sorted; the run fails if one is not. Without effect above anything but a scan of Arrow
            files.
    """

    input: Plan
    keys: tuple[SortKey, ...]
    merge: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TopK(Plan):
    """The rows `offset` to `offset + count` of `Sort(input, keys)`, and in that order."""

    input: Plan
    keys: tuple[SortKey, ...]
    count: int
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Distinct(Plan):
    """One row of each set of equal rows, sorted by the compared columns, NULL last.

    Without `columns` all are compared. With them the first row in input order represents those that
    agree in these columns, and keeps its other columns.
    """

    input: Plan
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Join(Plan):
    """Join rows whose columns `on` (left name, right name) are equal; NULL equals nothing.

    Columns: those of `left`, then those of `right` without the keys that have the same name on both
        sides; a name that is already in use gets `suffix`. Such a key has the value of the side
        that has a row. "semi" and "anti" return the columns of `left` alone; "cross" has no `on`.
        Rows are in the order of `left`, the matches of one row in the order of `right`, and the
        rows of `right` without a match ("right", "full") last.
    """

    left: Plan
    right: Plan
    on: tuple[tuple[str, str], ...]
    how: JoinKind = "inner"
    suffix: str = SUFFIX


@dataclass(frozen=True, slots=True, eq=False)
class Union(Plan):
    """All rows of all inputs, one input after the other; duplicates are kept.

    Columns match by position and have the names of the first input, or match `by_name`: then a
    column that an input does not have is NULL there. Types widen to a common type.
    """

    inputs: tuple[Plan, ...]
    by_name: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Explode(Plan):
    """One row for each item of the list in `column`, with the item in place of the list.

    Args:
        input: the rows.
        column: a column of type List.
        as_name: the name of the item's column; as `column` when None.
        outer: keep a row whose list is empty or NULL, with NULL for the item.
        position: the name of a further column, Int64, that counts a list's items from 1.
    """

    input: Plan
    column: str
    as_name: str | None = None
    outer: bool = False
    position: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sample(Plan):
    """Some of the rows, in their order; which ones depends only on `seed` and the row numbers.

    Args:
        input: the rows.
        fraction: from 0 to 1; the probability of each row.
        count: exactly this many rows, or all when there are fewer; either this or `fraction`.
        seed: any whole number from 0.
        first_row: the number of the first row: how many rows of the whole input are before these.
        phase: of a sample by count. "partial" adds the number of each row in the column
            `ROW_NUMBER`; "final" reads the rows of partial phases over parts of the input in any
            order, and finds the sample of all of them by these numbers.
    """

    input: Plan
    fraction: float | None = None
    count: int | None = None
    seed: int = 0
    first_row: int = 0
    phase: Phase = "full"


@dataclass(frozen=True, slots=True, eq=False)
class Expect(Plan):
    """Pass all rows on, and fail the run if they violate an expectation.

    Args:
        input: the rows.
        unique: no two rows agree in all these columns (NULL equals NULL here).
        not_null: none of these columns contains a NULL.
        rows: a comparison with the number of rows: ">0", "<=100", "==7".
    """

    input: Plan
    unique: tuple[str, ...] = ()
    not_null: tuple[str, ...] = ()
    rows: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Custom(Plan):
    """An operator of another package, by the name of its entry point.

    Args:
        inputs: the nodes that it reads from, one or more.
        name: its name in the entry point group `emsqrt.operators`.
        options: JSON values for it.
        schema: the columns of its output; those of the first input when None.
    """

    inputs: tuple[Plan, ...]
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: Schema | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sink(Plan):
    """Write the rows to a file or a stream."""

    input: Plan
    target: Target
