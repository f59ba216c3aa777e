"""One step of a distributed query: its units at the nodes that hold them, its results as files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from lake.distributed.partial import ShardsUnavailable
from lake.peers.queries.attempts import OF_THE_NODE, Attempts
from lake.peers.queries.dispatch import Dispatch, RunAttempt, Unit
from lake.peers.queries.fragments import (
    FragmentPiece,
    FragmentRequest,
    FragmentRunner,
    FragmentTable,
)
from lake.peers.queries.sent_rows import NOTHING_SENT, SentRows
from lake.peers.sql import Fragment, Gather, StepRun
from lake.peers.transport.limits import ByteLimit
from lake.peers.transport.stop import Stop
from sennit_core.errors import BadInput, SennitError, TooLarge, Unavailable, Unsupported

if TYPE_CHECKING:
    from lake.objects.disk_space import DiskSpace
    from lake.peers.queries.distributed_query import DistributedQuery, Placed
    from lake.statements.deadline import Deadline

__all__ = ["Coordinator", "RowsNotSent", "StepDispatch", "StepResult", "WholeTablesUnavailable"]

_OF_SENT_ROWS = (*OF_THE_NODE, BadInput, TooLarge, Unsupported)
"""Errors that the step may not have without the rows that are sent along."""


class WholeTablesUnavailable(ShardsUnavailable):
    """No node has a unit and the tables that the step reads whole, whatever was known of it."""


class RowsNotSent(ShardsUnavailable):
    """Rows cannot be sent along with a step, whatever was known when it was planned."""


class _MayNotReceive(Unavailable):
    """A node may not have rows that are sent along with a step; the same node is not asked again."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The node that runs distributed queries.

    Args:
        node: Its id.
        local: Runs the parts over shards that are here.
        placed: Knows where shards are.
        space: Refuses results for which the disk has no room.
        bytes_max: What other nodes may send for one query, in bytes; 0 for no limit.
        whole_are_here: Whether the whole shards are on this machine, and are read here where parts would move more.
    """

    node: str
    local: FragmentRunner
    placed: Placed
    space: DiskSpace
    bytes_max: int = 0
    whole_are_here: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step.

    Args:
        files: Arrow IPC streams, each of some units.
        run: Where it has run; None for a query of the coordinator.
        senders: The node that each file is from.
    """

    files: list[str]
    run: StepRun | None = None
    senders: tuple[str, ...] = ()


class StepDispatch:
    """The attempts of one step, driven by a `Dispatch`.

    Args:
        coordinator: This node.
        step: The step.
        query: The query that it is of.
        folder: For its results.
        deadline: When the query is to be over.
        stop: Stops the query.
        limit: Of the bytes that the query receives.
        sent: What is sent along with each request.
    """

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        coordinator: Coordinator,
        step: Fragment | Gather,
        query: DistributedQuery,
        folder: Path,
        deadline: Deadline,
        stop: Stop,
        limit: ByteLimit,
        sent: SentRows = NOTHING_SENT,
    ) -> None:
        self._sent = sent
        self._sent_bytes: dict[str, int] = {}
        self._coordinator = coordinator
        self._placed = coordinator.placed
        self._step = step
        self._query = query
        self._snapshots = {table.name.casefold(): table.snapshot for table in query.tables}
        self._folder = folder
        self._deadline = deadline
        self._stop = stop
        self._limit = limit
        # The shards of the tables that each unit reads whole, by the table's name.
        self._whole = {
            name: tuple(s.object for s in self._snapshots[name.casefold()].shards if s.rows)
            for name in (step.replicated if isinstance(step, Fragment) else ())
        }
        # The shards of each unit, by the table's name.
        self._shards: dict[str, Mapping[str, Sequence[str]]] = {}
        self._received: dict[int, int] = {}
        self._errors: dict[str, SennitError] = {}
        self._attempts = Attempts(self._placed, stop, self._receive, self._failed)

    async def run(self) -> StepResult:
        """Run all units; return the files of the attempts that count, by the first of their units.

        Raises:
            ShardsUnavailable: No node could run some units.
            SennitError: The error of the query itself.
            OSError: A result could not be written here.
        """
        units = self._units()
        self._check_holders(units)
        dispatch = Dispatch(units, [*self._placed.alive(), self._coordinator.node])
        end = await self._attempts.finish(dispatch)
        if end.missing:
            raise self._problem(end.missing, end.problem)
        return self._result(end.attempts)

    async def assign(self) -> StepResult:
        """Return where the units would run now, without a result."""
        units = self._units()
        nodes = [*self._placed.alive(), self._coordinator.node]
        effects = Dispatch(units, nodes).start(self._now())
        assigned = [effect for effect in effects if isinstance(effect, RunAttempt)]
        found = self._units_by_node(assigned)
        return StepResult([], StepRun(found, missing=len(units) - sum(found.values())))

    def _result(self, attempts: Sequence[int]) -> StepResult:
        moved: dict[str, int] = {}
        started = self._attempts.started
        for number, attempt in started.items():
            name = self._placed.name(attempt.node)
            moved[name] = moved.get(name, 0) + self._received.get(number, 0)
        # By their units and not by time, so that rows without an order stay where they were.
        order = {unit: number for number, unit in enumerate(self._shards)}
        counted = sorted(
            (started[number] for number in attempts), key=lambda each: order[each.units[0]]
        )
        run = StepRun(
            self._units_by_node(counted),
            attempts=len(started),
            bytes=moved,
            sent=self._sent_bytes,
        )
        files = [str(self._place(each.attempt)) for each in counted]
        return StepResult(files, run, tuple(each.node for each in counted))

    def _units_by_node(self, attempts: Sequence[RunAttempt]) -> dict[str, int]:
        found: dict[str, int] = {}
        for attempt in attempts:
            name = self._placed.name(attempt.node)
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
        # Those of the whole tables are the same for all units.
        whole = self._common(chain.from_iterable(self._whole.values()))
        found = []
        for name in self._shards:
            objects = self._objects(name)
            holders = self._holders(self._common(objects), whole)
            size = sum(sizes[each] for each in objects)
            found.append(Unit(name, size, holders, len(objects)))
        return found

    def _objects(self, unit: str) -> list[str]:
        return [each for ids in self._shards[unit].values() for each in ids]

    def _common(self, objects: Iterable[str]) -> list[str] | None:
        """Return the nodes that hold all of some shards, this one first; None if there are none."""
        common: list[str] | None = None
        for name in objects:
            holders = self._placed.holders(name)
            common = holders if common is None else [node for node in common if node in holders]
        return common

    def _holders(self, own: list[str] | None, whole: list[str] | None) -> tuple[str, ...]:
        """Return the nodes that hold a unit's own shards and those of the whole tables."""
        if own is None or whole is None:
            found = own or whole or []
        else:
            found = [node for node in own if node in whole]
        if isinstance(self._step, Fragment) and self._step.has_states:
            # One that joined after the query was planned may have another version.
            found = [node for node in found if self._placed.has_same_duckdb(node)]
        distrusted = self._query.distrusted
        return tuple(n for n in found if n not in distrusted and self._may_receive(n))

    def _may_receive(self, node: str) -> bool:
        """Return whether a node may have, as of now, what is sent along."""
        return node == self._coordinator.node or all(
            self._placed.may_receive(node, dataset, snapshot)
            for dataset, snapshot in self._sent.origins
        )

    def _check_holders(self, units: Sequence[Unit]) -> None:
        """Refuse a step that cannot be completed before any of it runs."""
        without = [unit.id for unit in units if not unit.holders]
        if without:
            raise self._problem(without, "no node that holds them can be reached")

    def _problem(self, units: Sequence[str], problem: str) -> SennitError:
        """Return the error for units that no node has run."""
        errors = [self._errors[unit] for unit in units if unit in self._errors]
        if self._sent.tables and all(isinstance(error, _OF_SENT_ROWS) for error in errors):
            return RowsNotSent(f"{len(units)} parts with rows that are sent along", hint=problem)
        for unit in units:
            error = self._errors.get(unit)
            if error is not None and not isinstance(error, OF_THE_NODE):
                return error
        if self._whole:
            return WholeTablesUnavailable(f"{len(units)} parts with whole tables", hint=problem)
        lost: list[str] = []
        for unit in units:
            objects = self._objects(unit)
            # If each has a holder, the one that was asked did not say which it could not read.
            lost += [name for name in objects if not self._placed.holders(name)] or objects
        return ShardsUnavailable(
            f"{len(units)} of {len(self._shards)} parts of the query",
            {name: self._placed.known_holders(name) for name in lost},
            hint=f"{problem}; see `platform net nodes`",
        )

    def _failed(self, attempt: RunAttempt, error: SennitError) -> None:
        number = attempt.attempt
        self._place(number).unlink(missing_ok=True)
        self._limit.remove(self._received.get(number, 0))
        self._errors |= dict.fromkeys(attempt.units, error)

    async def _receive(self, attempt: RunAttempt) -> None:
        """Run an attempt, and write its result."""
        seconds = self._deadline.left
        assert seconds is not None, "a distributed query has a time limit"
        request = FragmentRequest(
            self._step.sql,
            self._tables(attempt.units),
            self._query.user,
            seconds,
            self._sent.tables,
        )
        place = self._place(attempt.attempt)
        if attempt.node == self._coordinator.node:
            # Its own: an attempt that is not needed ends while the query goes on.
            stop = Stop()
            self._stop.attach(stop.stop)
            try:
                await asyncio.to_thread(
                    _write_local, self._coordinator.local, request, self._sent.body, stop, place
                )
            except asyncio.CancelledError:
                stop.stop()  # a thread is not cancelled
                raise
            return
        session = await self._placed.session(attempt.node)
        if not self._may_receive(attempt.node):  # nothing is awaited from here until it is sent
            raise _MayNotReceive(
                f"node {attempt.node[:16]}", hint="rows are shared with it no more"
            )
        if self._sent.body:
            name = self._placed.name(attempt.node)
            self._sent_bytes[name] = self._sent_bytes.get(name, 0) + len(self._sent.body)
        pieces = session.stream(request, self._sent.body, timeout_seconds=seconds)
        async with aclosing(pieces):
            with place.open("wb") as file:
                async for message, body in pieces:
                    if not isinstance(message, FragmentPiece):
                        raise Unavailable(f"node {attempt.node[:16]}", hint="a wrong answer")
                    self._limit.add(len(body))
                    received = self._received.get(attempt.attempt, 0) + len(body)
                    self._received[attempt.attempt] = received
                    self._coordinator.space.check_disk("the query's parts", len(body))
                    await asyncio.to_thread(file.write, body)

    def _tables(self, units: Sequence[str]) -> tuple[FragmentTable, ...]:
        chosen: dict[str, list[str]] = {name: list(ids) for name, ids in self._whole.items()}
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


def _write_local(
    runner: FragmentRunner, request: FragmentRequest, body: bytes, stop: Stop, place: Path
) -> None:
    with place.open("wb") as file:
        for piece in runner.run(request, stop, body):
            file.write(piece)
