"""Queries with the engine `ray`: their fragments run at the workers of a cluster, and an executor here merges.

The planner and the dispatcher are those of queries over several nodes (`lake.peers`). Here each worker is such a node, which
has all shards, since the node sends a worker what its machine lacks. What may be sent are only shards that the user sees whole.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lake.distributed.distributed_queries import DistributedQueries
from lake.distributed.fragment_cluster import ClusterFragment, ClusterInput, FragmentCluster
from lake.distributed.merged_queries import may_have_parts
from lake.objects.verification import ShardFile
from lake.peers.transport.stop import Stop
from lake.statements.deadline import Deadline
from lake.statements.mentions import split_explain
from lake.statements.queries import QueryExecution
from sennit_core.errors import Busy, Corrupt, Unavailable, Unsupported
from sennit_core.ids import new_id

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.catalog.catalog import Catalog
    from lake.objects.disk_space import DiskSpace
    from lake.peers.queries.distributed_query import Distributed, DistributedQuery, Placed
    from lake.peers.queries.fragments import FragmentRequest
    from lake.peers.transport.messages import Message
    from lake.peers.transport.session import Session
    from lake.statements.request import StatementRequest
    from lake.statements.running import RunningStatement
    from lake.statements.tables import StatementTables

__all__ = ["CLUSTER_ENGINE", "ClusterQueries"]

CLUSTER_ENGINE = "ray"
_WORKERS_MAX = 32
"""Of one query: each has a thread here while it runs a fragment."""
_QUERIES_MAX = 16
"""Whose fragments run at the same time; the next one is refused."""
_LOCAL_ONLY = {
    "view": "views",
    "link": "linked files",
    "policy": "what a policy shows",
    "encrypted": "encrypted datasets",
    "restricted": "datasets that another node restricts",
}
"""Members of tables whose rows do not leave the node's executors."""


class ClusterQueries(DistributedQueries):
    """Starts queries whose fragments run at a cluster.

    Args:
        pool: The executors.
        catalog: The datasets.
        tables: Makes tables of executor requests, and leases their shards.
        space: Refuses results for which the disk has no room.
        cluster: The workers; None if the node has none.
    """

    def __init__(
        self,
        pool: ExecutorPool,
        catalog: Catalog,
        tables: StatementTables,
        space: DiskSpace,
        cluster: FragmentCluster | None = None,
    ) -> None:
        super().__init__(pool, catalog, tables.remote, tables.repair)
        self._tables, self._space = tables, space
        self._slots = threading.BoundedSemaphore(_QUERIES_MAX)
        self.cluster = cluster

    def check(self, request: StatementRequest, tables: Sequence[dict[str, Any]]) -> None:
        """Refuse a statement that cannot run at a cluster, before shards of its tables are fetched.

        Raises:
            Unsupported: There is no cluster, the statement is no query of the form that is split, or it
                reads rows that do not leave the node's executors.
        """
        if self.cluster is None:
            raise Unsupported(
                f'the engine "{CLUSTER_ENGINE}" on a node without a Ray cluster',
                hint='start the node with --ray auto (docs/ray.md), or use the engine "duckdb"',
            )
        _, sql = split_explain(request.sql)
        if not request.describe and not may_have_parts(request, sql):
            raise Unsupported(
                f'the engine "{CLUSTER_ENGINE}" runs a SELECT without parameters, and nothing else',
                hint='write the values into the query, or use the engine "duckdb"',
            )
        found = {
            what for each in tables for member, what in _LOCAL_ONLY.items() if each.get(member)
        }
        if found:
            raise Unsupported(
                f'the engine "{CLUSTER_ENGINE}" cannot read {", ".join(sorted(found))}',
                hint='use the engine "duckdb"',
            )

    def start(
        self,
        request: StatementRequest,
        tables: Sequence[dict[str, Any]],
        release: Any,
        deadline: Deadline,
        statement: RunningStatement,
    ) -> QueryExecution | None:
        """Start a query; None if it is to run in one executor of this node.

        As `DistributedQueries.start`, for a query that was checked, and whose shards are here.

        Raises:
            Busy: Too many queries run at the cluster.
        """
        if not self._slots.acquire(blocking=False):
            raise Busy(f"{_QUERIES_MAX} queries run on Ray; try again")
        try:
            return super().start(request, tables, release, deadline, statement)
        finally:
            self._slots.release()

    def _may_distribute(self, request: StatementRequest, tables: Sequence[dict[str, Any]]) -> bool:
        is_plain = not any(each.get("damage") or each.get("arrived") for each in tables)
        return bool(tables) and is_plain and not request.describe

    def _distribute(self, query: DistributedQuery, stop: Stop) -> Distributed | None:
        """Run the parts of a query on a thread with an event loop of its own: the caller's may run one."""
        # Here, as it needs the network's libraries, which a lake alone does not.
        from lake.peers.queries.distributor import Distributor
        from lake.peers.queries.plan_cache import PlanCache
        from lake.peers.queries.step_dispatch import Coordinator

        assert self.cluster is not None, "checked"
        placed = _Workers(self, self.cluster, stop)
        coordinator = Coordinator(
            "", cast("Any", None), cast("Placed", placed), self._space, whole_are_here=True
        )
        distributor = Distributor(coordinator, self._pool, self._tables.staging, PlanCache())

        async def run() -> Distributed | None:
            loop = asyncio.get_running_loop()
            # Of each fragment one thread waits for the rows while another one writes them.
            loop.set_default_executor(ThreadPoolExecutor(2 * _WORKERS_MAX + 4))
            return await distributor.run(query, stop)

        with ThreadPoolExecutor(1, thread_name_prefix="lake-cluster") as thread:
            return thread.submit(asyncio.run, run()).result()

    def run_fragment(
        self, worker: str, request: FragmentRequest, stop: Stop, body: bytes
    ) -> Iterator[bytes]:
        """Yield the result of a fragment at a worker, as `FragmentRunner.run` does."""
        from lake.peers.queries.fragments import LocalFragments
        from lake.peers.queries.sent_rows import written_rows
        from lake.peers.transport.messages import BODY_BYTES_MAX

        assert self.cluster is not None, "checked"
        staging = self._tables.staging
        local = LocalFragments(self._catalog, self._tables, self._pool, staging)
        request.check(body)
        output = staging / f"cluster-{new_id()}.arrow"
        with local.held(request) as tables, written_rows(request.sent, body, staging) as sent:
            named = _Named()
            members = {**sent, "sent": named.sent(sent["sent"])} if "sent" in sent else sent
            asked = {
                "sql": request.sql,
                "tables": named.tables(tables),
                "format": "arrow",
                **members,
            }
            fragment = ClusterFragment(
                f"sql-{new_id()}", asked, tuple(named.inputs), request.seconds, request.user, output
            )
            try:
                self.cluster.run_fragment(worker, fragment, stop)
                with output.open("rb") as file:
                    while piece := file.read(BODY_BYTES_MAX):
                        yield piece
            except Corrupt as error:
                self._tables.repair.set_aside(error, tables)
                raise
            finally:
                output.unlink(missing_ok=True)


class _Named:
    """Replaces the paths of a request by names; collects the files."""

    def __init__(self) -> None:
        self.inputs: list[ClusterInput] = []

    def tables(self, tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return tables whose paths are names of inputs."""
        found = []
        for table in tables:
            shards = [
                ShardFile(table["name"], index, path, bool(table.get("verifyAlways")))
                for index, path in enumerate(table["paths"])
            ]
            names = [self._name("shard", shard.path, shard) for shard in shards]
            found.append({**table, "paths": names})
        return found

    def sent(self, tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return tables of rows that come with a fragment, whose files are names of inputs."""
        return [
            {**table, "files": [self._name("partial", path, None) for path in table["files"]]}
            for table in tables
        ]

    def _name(self, kind: str, path: str, shard: ShardFile | None) -> str:
        name = f"{kind}-{len(self.inputs)}"
        self.inputs.append(ClusterInput(name, path, shard))
        return name


class _Workers:
    """The workers as the nodes of `lake.peers.queries.distributed_query.Placed`: each has every shard."""

    def __init__(self, queries: ClusterQueries, cluster: FragmentCluster, stop: Stop) -> None:
        self._queries, self._cluster, self._stop = queries, cluster, stop
        # Of one query: workers that join later would change what its planner assumed.
        self._names = sorted(cluster.workers())[:_WORKERS_MAX]
        if not self._names:
            raise Unavailable("Ray", message="Ray has no worker at the moment", hint="try again")

    def holders(self, name: str) -> list[str]:
        del name
        return self.alive()

    def known_holders(self, name: str) -> tuple[str, ...]:
        del name
        return tuple(self._names)

    async def fetch(self, names: Collection[str]) -> None:
        raise Unavailable("Ray", message=f"no worker of Ray could read {len(names)} shards")

    async def session(self, node: str) -> Session:
        return cast("Session", _WorkerSession(self._queries, node, self._stop))

    def alive(self) -> list[str]:
        there = set(self._cluster.workers())
        return [name for name in self._names if name in there]

    def has_same_duckdb(self, node: str) -> bool:
        del node
        return True  # others may not join

    def may_receive(self, node: str, dataset: str, snapshot: str) -> bool:
        del node, dataset, snapshot
        return True  # the cluster is of the node's own site, and the user may read it

    def name(self, node: str) -> str:
        return node


@dataclass(frozen=True, slots=True)
class _WorkerSession:
    """What a fragment needs of `lake.peers.transport.session.Session`."""

    queries: ClusterQueries
    worker: str
    stop: Stop

    async def stream(
        self, request: FragmentRequest, body: bytes = b"", *, timeout_seconds: float
    ) -> AsyncGenerator[tuple[Message, bytes], None]:
        from lake.peers.queries.fragments import stream_pieces

        del timeout_seconds  # the worker keeps the request's own

        def run(stop: Stop) -> Iterator[bytes]:
            self.stop.attach(stop.stop)
            return self.queries.run_fragment(self.worker, request, stop, body)

        pieces = stream_pieces(run)
        try:
            async for message, piece in pieces:
                yield message, bytes(piece)
        finally:
            await pieces.aclose()
