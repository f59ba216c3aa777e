"""A distributed plan: what runs where, in which order, and what it moves.

    steps        in order; each makes one table, from tables and the results of earlier steps
      Fragment   SQL that the holder of a unit's shards runs, for one or more units at a time; the
                 table has the rows of all units
      Gather     rows of one table, fetched from the holders of its shards
      Merge      SQL that the coordinator runs
    final_sql    SQL that the coordinator runs last; its result is that of the original query

An executor of a plan creates the table of a step by running the step's SQL over empty tables, in the
database where the next steps run (the type of a state has no name in SQL), then adds the rows that
arrive. So a step without units is an empty table with the right types, and values
that Arrow sends as another type (HUGEINT as DECIMAL, aggregate states as STRUCT) are what they were.
Rows are collected by unit, not by node: the retry of a unit replaces its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from lake.peers.sql.tables import Column

__all__ = [
    "Broadcast",
    "Cost",
    "DistributedPlan",
    "Fragment",
    "Gather",
    "Merge",
    "Step",
    "Unit",
    "computed_first",
]


@dataclass(frozen=True, slots=True)
class Unit:
    """What one run of a fragment reads: shards that one node must have together.

    Args:
        name: `bucket 3`, `bucket NULL`, the object id of its only shard, or `all` for that of a node.
        shards: The object ids of the shards of each sharded table, by the table's name. A table may
            have none: it is empty in this unit.
    """

    name: str
    shards: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A result of an earlier step that is sent along with a fragment.

    Args:
        result: The name of the table of the result.
        tables: The tables that it comes from: no node gets it that may not have rows of all of them.
        columns: Its columns, with types that any node can declare.
    """

    result: str
    tables: tuple[str, ...]
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Fragment:
    """A query that runs on every unit.

    Args:
        result: The name of the table of its results.
        sql: The query, over the tables' own names.
        by: `shard` or `bucket`; `node` for one unit, which reads whole tables only.
        sharded: The tables that are restricted to the shards of the unit.
        replicated: The tables that are read whole, of which a node that runs a unit has all shards.
        broadcasts: What is sent along with it.
        units: What it runs on.
        unit_rows: The estimated number of rows of a unit's result.
        bytes: The estimated size of all results, and of what is sent along.
        shards: The number of shards before pruning.
        has_states: Whether results are states of aggregates, which one version of DuckDB reads.
    """

    result: str
    sql: str
    by: str
    sharded: tuple[str, ...]
    replicated: tuple[str, ...]
    broadcasts: tuple[Broadcast, ...]
    units: tuple[Unit, ...]
    unit_rows: int
    bytes: int
    shards: int
    has_states: bool = False


@dataclass(frozen=True, slots=True)
class Gather:
    """Rows of a table that come to the coordinator.

    Args:
        result: The name of the table of these rows.
        sql: What each shard is asked, over the table's own name.
        table: The table.
        columns: Those that the query uses.
        condition: The filter in the SQL, which no row of the result fails; None for all rows.
        objects: The object ids of the shards that pruning left.
        bytes: The estimated size of the rows.
        shards: The number of shards before pruning.
        reason: Why no fragment computes more of the query.
    """

    result: str
    sql: str
    table: str
    columns: tuple[str, ...]
    condition: str | None
    objects: tuple[str, ...]
    bytes: int
    shards: int
    reason: str


@dataclass(frozen=True, slots=True)
class Merge:
    """A query of the coordinator whose result later steps read.

    Args:
        result: The name of the table of its result.
        sql: The query.
        reads: The tables and results of earlier steps that it reads.
        rows: The estimated number of its rows.
        bytes: Their estimated size.
    """

    result: str
    sql: str
    reads: tuple[str, ...]
    rows: int
    bytes: int


Step = Fragment | Gather | Merge


@dataclass(frozen=True, slots=True)
class Cost:
    """Estimated bytes over the network.

    Args:
        push: With the best fragments; None if no part of the query can run on shards.
        gather: If all rows that the query needs come to the coordinator.
        is_local: Whether the coordinator has all shards that the query needs.
    """

    push: int | None
    gather: int
    is_local: bool


@dataclass(frozen=True, slots=True)
class DistributedPlan:
    """How to answer a query over tables whose shards are on several nodes.

    Args:
        sql: The original query.
        strategy: `local`, `push`, `gather`, or `mixed` for fragments and gathered rows.
        steps: What makes the tables that `final_sql` reads, in order.
        final_sql: The last query of the coordinator.
        reads: The tables and results of steps that it reads.
        columns: The columns of the result, with the types of the original query.
        cost: What each strategy would move.
        reasons: Why the query, or which part of it, is not pushed.
    """

    sql: str
    strategy: str
    steps: tuple[Step, ...]
    final_sql: str
    reads: tuple[str, ...]
    columns: tuple[Column, ...]
    cost: Cost
    reasons: tuple[str, ...]

    @property
    def fragments(self) -> tuple[Fragment, ...]:
        """The steps that run on units."""
        return tuple(step for step in self.steps if isinstance(step, Fragment))

    @property
    def gathers(self) -> tuple[Gather, ...]:
        """The steps that fetch rows."""
        return tuple(step for step in self.steps if isinstance(step, Gather))

    @property
    def reads_in_place(self) -> frozenset[str]:
        """The tables of which the coordinator reads its own shards: no step makes them."""
        merges = (step.reads for step in self.steps if isinstance(step, Merge))
        read = {*self.reads, *chain.from_iterable(merges)}
        return frozenset(read - {step.result for step in self.steps})

    @property
    def moved_bytes(self) -> int:
        """The estimate of what the plan moves."""
        return sum(step.bytes for step in self.steps if not isinstance(step, Merge))


def computed_first(steps: Sequence[Step]) -> frozenset[str]:
    """Return the results of the coordinator's queries that fragments depend on.

    They are computed once, and kept as what has arrived is: a query with ties may have another result the next
    time, and the last query may read it too.
    """
    by_result = {step.result: step for step in steps}
    waiting = [b.result for step in steps if isinstance(step, Fragment) for b in step.broadcasts]
    found: set[str] = set()
    while waiting:
        step = by_result.get(waiting.pop())
        if isinstance(step, Merge) and step.result not in found:
            found.add(step.result)
            waiting += step.reads
    return frozenset(found)
