"""The coordinator of distributed queries: from SQL over shared datasets to a query over results.

    plan (executor) ──▶ fragments at the holders of shards ──▶ files ──▶ merge (executor)

Fragments of all steps run at the same time. Their results are files in the lake's staging folder, which
are removed with the query. What cannot be distributed (parameters, views, earlier snapshots, data that
must be sent along) is left to the caller, which fetches the shards.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lake.peers.dispatch import Dispatch, Finished, RunAttempt, StopAttempt, Unit
from lake.peers.fragments import (
    FragmentPiece,
    FragmentRequest,
    FragmentRunner,
    FragmentTable,
)
from lake.peers.machine import Effect
from lake.peers.sql import DistributedPlan, Fragment, Gather, Merge, StepRun, sharded_table
from lake.peers.sql.wire import plan_from_data, tables_to_data
from lake.peers.stop import Stop
from sennit_core.errors import SennitError, Unavailable
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.disk_space import DiskSpace
    from lake.peers.session import Session
    from sennit_core.records import SnapshotInfo

__all__ = ["Distributed", "DistributedQuery", "DistributedTable", "Distributor", "Placed"]

_log = get_logger(__name__)
_TICK_SECONDS = 0.25


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
class DistributedQuery:
    """A query that is to be distributed.

    Args:
        sql: The query, without parameters.
        tables: All tables that it reads.
        user: The user.
        seconds: Its time limit.
        runs: Whether its parts run; False to know where they would, for EXPLAIN.
    """

    sql: str
    tables: Sequence[DistributedTable]
    user: str
    seconds: float
    runs: bool = True


@dataclass(frozen=True, slots=True)
class Distributed:
    """A distributed query whose parts have arrived.

    Args:
        plan: The plan.
        steps: The steps of the request `merge`.
        folder: The folder of the files, to be removed after the query.
        runs: Where each step has run, by the name of its result.
    """

    plan: DistributedPlan
    steps: list[dict[str, Any]]
    folder: Path
    runs: Mapping[str, StepRun]


class Placed(Protocol):
    """Where shards are, and how nodes are reached."""

    def holders(self, name: str) -> list[str]:
        """Return the live nodes that hold a shard, this node first if it does."""
        ...

    async def session(self, node: str) -> Session:
        """Return a session with a node."""
        ...

    def alive(self) -> list[str]:
        """Return the nodes that can be reached."""
        ...

    def name(self, node: str) -> str:
        """Return what a node is called."""
        ...


class Distributor:
    """Runs the parts of distributed queries.

    Args:
        node: This node's id.
        pool: Its executors.
        local: Runs the parts over shards that are here.
        placed: Knows where shards are.
        staging: Folder for results.
        space: Refuses results for which the disk has no room.
    """

    def __init__(
        self,
        node: str,
        pool: ExecutorPool,
        local: FragmentRunner,
        placed: Placed,
        staging: Path,
        space: DiskSpace,
    ) -> None:
        self._node = node
        self._pool = pool
        self._local = local
        self._placed = placed
        self._staging = staging
        self.space = space

    async def run(self, query: DistributedQuery, stop: Stop) -> Distributed | None:
        """Return a query's parts; None if it is not distributed.

        Args:
            query: The query.
            stop: Stops it.

        Raises:
            Unavailable: No node that can be reached holds a shard.
            SennitError: The error of a part, if every holder has one.
        """
        plan = await asyncio.to_thread(self._plan, query)
        data_steps = [step for step in plan.steps if isinstance(step, Fragment | Gather)]
        # Data that would have to be sent along with a fragment; not done yet.
        if any(isinstance(s, Fragment) and (s.broadcasts or s.replicated) for s in data_steps):
            return None
        folder = Path(tempfile.mkdtemp(prefix="distributed-", dir=self._staging))
        try:
            started = [_Step(self, step, query, folder, stop) for step in data_steps]
            results = await asyncio.gather(
                *(step.run() if query.runs else step.assign() for step in started)
            )
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        files = dict(zip((step.result for step in data_steps), results, strict=True))
        steps = [
            {
                "result": step.result,
                "sql": step.sql,
                "files": None if isinstance(step, Merge) else files[step.result].files,
            }
            for step in plan.steps
        ]
        return Distributed(plan, steps, folder, {name: each.run for name, each in files.items()})

    def _plan(self, query: DistributedQuery) -> DistributedPlan:
        planned = [sharded_table(table.name, table.snapshot) for table in query.tables]
        names = [shard.object for table in query.tables for shard in table.snapshot.shards]
        local = [name for name in names if self._node in self._placed.holders(name)[:1]]
        request = {
            "engine": "distribute",
            "sql": query.sql,
            "tables": tables_to_data(planned),
            # States of aggregates only between equal versions of DuckDB; not negotiated yet.
            "options": {
                "nodes": len(self._placed.alive()) + 1,
                "local": local,
                "usesStates": False,
            },
        }
        with self._pool.submit(
            "lake.sql",
            request,
            user=query.user,
            deadline_seconds=query.seconds,
            restartable=True,
        ) as execution:
            return plan_from_data(execution.result()["plan"])


@dataclass(frozen=True, slots=True)
class _Files:
    files: list[str]
    run: StepRun


class _Step:
    """The attempts of one step, driven by a `Dispatch`."""

    def __init__(
        self,
        owner: Distributor,
        step: Fragment | Gather,
        query: DistributedQuery,
        folder: Path,
        stop: Stop,
    ) -> None:
        self._owner = owner
        self._step = step
        self._query = query
        self._snapshots = {table.name.casefold(): table.snapshot for table in query.tables}
        self._folder = folder
        self._stop = stop
        # The shards of each unit, by the table's name.
        self._shards: dict[str, Mapping[str, Sequence[str]]] = {}
        self._attempts: dict[int, RunAttempt] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._received: dict[int, int] = {}
        self._end: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()

    async def run(self) -> _Files:
        """Run all units; return the files of the attempts that count, in the order of their ends."""
        placed = self._owner._placed  # noqa: SLF001 - two halves of one object
        units = self._units()
        node = self._owner._node  # noqa: SLF001
        dispatch = self._dispatch = Dispatch(units, [*placed.alive(), node])
        known = set(placed.alive())
        try:
            self._perform(dispatch.start(self._now()))
            while not self._end.done():
                await asyncio.wait((self._end,), timeout=_TICK_SECONDS)
                if self._stop.stopped:
                    raise Unavailable("the query", hint="it was stopped")
                for lost in known - set(placed.alive()):
                    self._perform(dispatch.node_lost(lost, self._now()))
                known &= set(placed.alive())
                self._perform(dispatch.tick(self._now()))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        end = self._end.result()
        if end.missing:
            raise Unavailable(
                f"{len(end.missing)} of {len(units)} parts of the query",
                hint=f"{end.problem}; see `platform net nodes`",
            )
        files = [str(self._place(attempt)) for attempt in end.attempts]
        moved: dict[str, int] = {}
        for number, attempt in self._attempts.items():
            name = placed.name(attempt.node)
            moved[name] = moved.get(name, 0) + self._received.get(number, 0)
        counted = [self._attempts[number] for number in end.attempts]
        run = StepRun(self._units_by_node(counted), attempts=len(self._attempts), bytes=moved)
        return _Files(files, run)

    async def assign(self) -> _Files:
        """Return where the units would run now, without a result."""
        placed = self._owner._placed  # noqa: SLF001 - two halves of one object
        units = self._units()
        nodes = [*placed.alive(), self._owner._node]  # noqa: SLF001
        effects = Dispatch(units, nodes).start(self._now())
        assigned = [effect for effect in effects if isinstance(effect, RunAttempt)]
        found = self._units_by_node(assigned)
        return _Files([], StepRun(found, missing=len(units) - sum(found.values())))

    def _units_by_node(self, attempts: Sequence[RunAttempt]) -> dict[str, int]:
        found: dict[str, int] = {}
        for attempt in attempts:
            name = self._owner._placed.name(attempt.node)  # noqa: SLF001
            found[name] = found.get(name, 0) + len(attempt.units)
        return found

    def _units(self) -> list[Unit]:
        step = self._step
        if isinstance(step, Gather):
            self._shards = {name: {step.table: (name,)} for name in step.objects}
        else:
            self._shards = {unit.name: unit.shards for unit in step.units}
        sizes = {
            shard.object: shard.bytes
            for snapshot in self._snapshots.values()
            for shard in snapshot.shards
        }
        found = []
        for name, shards in self._shards.items():
            objects = [each for ids in shards.values() for each in ids]
            found.append(Unit(name, sum(sizes[each] for each in objects), self._holders(objects)))
        return found

    def _holders(self, objects: Sequence[str]) -> tuple[str, ...]:
        """Return the nodes that hold all of some shards, this one first."""
        placed = self._owner._placed  # noqa: SLF001
        common: list[str] | None = None
        for name in objects:
            holders = placed.holders(name)
            common = holders if common is None else [node for node in common if node in holders]
        return tuple(common or ())

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case RunAttempt(number):
                    self._attempts[number] = effect
                    self._tasks[number] = asyncio.create_task(self._attempt(effect))
                case StopAttempt(number):
                    self._tasks[number].cancel()
                case Finished():
                    self._end.set_result(effect)

    async def _attempt(self, attempt: RunAttempt) -> None:
        number = attempt.attempt
        try:
            await self._receive(attempt)
        except SennitError as error:
            # An error of the query itself would be the same at every node that has the shards.
            self._place(number).unlink(missing_ok=True)
            retry = getattr(error, "retryable", False)
            self._perform(self._dispatch.failed(number, str(error), self._now(), retry=retry))
        else:
            self._perform(self._dispatch.succeeded(number, self._now()))

    async def _receive(self, attempt: RunAttempt) -> None:
        """Run an attempt, and write its result."""
        query = self._query
        request = FragmentRequest(
            self._step.sql, self._tables(attempt.units), query.user, query.seconds
        )
        place = self._place(attempt.attempt)
        if attempt.node == self._owner._node:  # noqa: SLF001
            local = self._owner._local  # noqa: SLF001
            await asyncio.to_thread(_write_local, local, request, self._stop, place)
            return
        session = await self._owner._placed.session(attempt.node)  # noqa: SLF001
        pieces = session.stream(request, timeout_seconds=query.seconds)
        async with aclosing(pieces):
            with place.open("wb") as file:
                async for message, body in pieces:
                    if not isinstance(message, FragmentPiece):
                        raise Unavailable(f"node {attempt.node[:16]}", hint="a wrong answer")
                    self._received[attempt.attempt] = self._received.get(attempt.attempt, 0) + len(
                        body
                    )
                    self._owner.space.check_disk("the query's parts", len(body))
                    await asyncio.to_thread(file.write, body)

    def _tables(self, units: Sequence[str]) -> tuple[FragmentTable, ...]:
        chosen: dict[str, list[str]] = {}
        for unit in units:
            for table, objects in self._shards[unit].items():
                chosen.setdefault(table, []).extend(objects)
        found = []
        for table, objects in chosen.items():
            snapshot = self._snapshots[table.casefold()]
            found.append(FragmentTable(table, snapshot.dataset, snapshot.id, tuple(objects)))
        return tuple(found)

    def _place(self, attempt: int) -> Path:
        return self._folder / f"{self._step.result}-{attempt}.arrow"

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _write_local(runner: FragmentRunner, request: FragmentRequest, stop: Stop, place: Path) -> None:
    with place.open("wb") as file:
        for piece in runner.run(request, stop):
            file.write(piece)
