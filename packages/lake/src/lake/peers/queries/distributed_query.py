"""What is asked of the coordinator of a distributed query, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lake.distributed.partial import MissingShards
    from lake.peers.sql import DistributedPlan, StepRun
    from lake.peers.transport.session import Session
    from sennit_core.records import SnapshotInfo
    from sennit_core.schema import Schema

__all__ = ["ArrivedTable", "Distributed", "DistributedQuery", "DistributedTable", "Placed"]


@dataclass(frozen=True, slots=True)
class DistributedTable:
    """A table of a query.

    Args:
        name: As it is known here.
        snapshot: Its snapshot.
    """

    name: str
    snapshot: SnapshotInfo


@dataclass(frozen=True, slots=True)
class ArrivedTable:
    """A table whose rows are here for this query alone, which only its last step may read.

    Args:
        name: As it is known here.
        schema: Its columns.
        bytes: The size of its rows.
    """

    name: str
    schema: Schema
    bytes: int


TablesHere = Callable[["DistributedPlan", Collection[str]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class DistributedQuery:
    """A query that is to be distributed.

    Args:
        sql: The query, without parameters.
        tables: The tables that it reads.
        user: The user.
        seconds: Its time limit.
        runs: Whether its parts run; False to know where they would, for EXPLAIN.
        allow_partial: Whether shards may be left out that no node has which can be reached.
        arrived: Further tables that it reads.
        here: Returns its tables as an executor of this node reads them for a plan without some shards, given by
            their object ids.
        explained: Whether the rows of all steps are to be counted.
        distrusted: The ids of nodes that compute no part of it; shards are still fetched from them, as these are
            verified.
    """

    sql: str
    tables: Sequence[DistributedTable]
    user: str
    seconds: float
    runs: bool = True
    allow_partial: bool = False
    arrived: Sequence[ArrivedTable] = ()
    here: TablesHere = lambda _plan, _absent: []
    explained: bool = False
    distrusted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Distributed:
    """A distributed query whose parts have arrived.

    Args:
        plan: The plan.
        steps: The steps of the request `merge`.
        folder: The folder of the files, to be removed after the query.
        runs: Where each step has run, by the name of its result.
        senders: The ids of the other nodes that the parts are from, by the names of their files.
        missing: What was left out.
        absent: The object ids of these shards.
    """

    plan: DistributedPlan
    steps: list[dict[str, Any]]
    folder: Path
    runs: Mapping[str, StepRun]
    senders: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[MissingShards, ...] = ()
    absent: frozenset[str] = frozenset()


class Placed(Protocol):
    """Where shards are, and how nodes are reached."""

    def holders(self, name: str) -> list[str]:
        """Return the live nodes that hold a shard, this node first if it does."""
        ...

    def known_holders(self, name: str) -> tuple[str, ...]:
        """Return the names of the nodes that are known to hold a shard, reachable or not."""
        ...

    async def fetch(self, names: Collection[str]) -> None:
        """Fetch shards that this node lacks from any node that has them; see `Exchange.fetch`."""
        ...

    async def session(self, node: str) -> Session:
        """Return a session with a node."""
        ...

    def alive(self) -> list[str]:
        """Return the nodes that can be reached."""
        ...

    def has_same_duckdb(self, node: str) -> bool:
        """Return whether a node has this node's version of DuckDB, whose states it can exchange."""
        ...

    def may_receive(self, node: str, dataset: str, snapshot: str) -> bool:
        """Return whether a node runs fragments that rows come with, and may have all rows of a snapshot."""
        ...

    def name(self, node: str) -> str:
        """Return what a node is called."""
        ...
