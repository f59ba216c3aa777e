"""The plan tree: frozen dataclasses, one for each operator, from a Scan up to a Sink.

Two plans are equal when their canonical JSON is, so a plan can be a dictionary's key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from emsqrt.expr import Agg, Expr
from sennit_core.schema import Schema

Named: TypeAlias = tuple[str, Expr]
NamedAgg: TypeAlias = tuple[str, Agg]
Phase: TypeAlias = Literal["full", "partial", "final"]

FILE_FORMATS = ("csv", "parquet", "arrow")
TARGET_FORMATS = ("parquet", "csv")
STREAM_FORMATS = ("arrow", "json", "csv")
NODES_MAX = 100
"""Operators in one plan; each is one level of JSON."""
PHASES: tuple[Phase, ...] = ("full", "partial", "final")


@dataclass(frozen=True, slots=True)
class Files:
    """Files to read in this order, all of one format.

    Args:
        paths: paths on the machine that runs the plan.
        format: "csv", "parquet" or "arrow" (IPC file or stream).
        options: JSON values for the reader, such as {"delimiter": ";"}.
    """

    paths: tuple[str, ...]
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A dataset by id or name; resolved to `Files` before a plan runs."""

    dataset: str
    snapshot: str | None = None


@dataclass(frozen=True, slots=True)
class FileTarget:
    """One file to write: temp, fsync, rename."""

    path: str
    format: str


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """A stream of payloads to whoever runs the plan: "arrow", "json" or "csv"."""

    format: str


Source: TypeAlias = Files | DatasetRef
Target: TypeAlias = FileTarget | StreamTarget


class Plan:
    """A node of a plan with everything below it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        from emsqrt.plan.wire import canonical_plan

        return isinstance(other, Plan) and canonical_plan(self) == canonical_plan(other)

    def __hash__(self) -> int:
        from emsqrt.plan.wire import canonical_plan

        return hash(canonical_plan(self))


@dataclass(frozen=True, slots=True, eq=False)
class Scan(Plan):
    """Read a source. Without a schema the reader finds it; `columns` prunes and orders."""

    source: Source
    schema: Schema | None = None
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Filter(Plan):
    """Keep the rows where `predicate` is true; false and NULL go."""

    input: Plan
    predicate: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Project(Plan):
    """Make exactly these columns; every expression sees the input's columns."""

    input: Plan
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rename(Plan):
    """Give columns other names, all at once; `names` holds (from, to) pairs."""

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
    """Group by `keys` and aggregate; rows come out sorted by the keys, NULL last.

    Without keys there is exactly one row. Phase "partial" makes states instead of values
    (`partial_schema`), phase "final" reads those and makes the values; only the names and
    functions count then, the expressions are those of the partial phase.
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
class Sink(Plan):
    """Write the rows to a file or a stream."""

    input: Plan
    target: Target


def input_of(plan: Plan) -> Plan | None:
    """Return the node that `plan` reads from, None for a Scan."""
    return cast("Plan | None", getattr(plan, "input", None))


def chain(plan: Plan) -> tuple[Plan, ...]:
    """Return the nodes from the Scan up to `plan` itself."""
    nodes = [plan]
    while (below := input_of(nodes[-1])) is not None:
        nodes.append(below)
    return tuple(reversed(nodes))
