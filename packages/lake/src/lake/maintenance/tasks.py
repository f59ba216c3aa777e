"""The tasks of the lake's maintenance: what each examines, and where it is.

A task examines keys in their order: the ids of datasets, or the folders of objects. What it has
examined is a row of the tree, `/maintenance/{task}`, so that a restart continues there. One key that
fails (a damaged dataset, a conflict, a full disk) is skipped until the next run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from elkyn.records import CheckedTable
from lake._failpoints import reached
from sennit_core.clock import Clock
from sennit_core.errors import Cancelled, Corrupt, SennitError
from sennit_core.logs import get_logger
from sennit_core.records import Progress, Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["KeyedTask", "Step", "Task", "TaskState", "period_share"]

_log = get_logger(__name__)

_JITTER = 0.15
_random = random.Random()
_NOTE_SECONDS = 1.0  # how much examination without a change a crash may repeat

Work = Callable[[str, Callable[[], None]], int]
"""Does what one key needs, and calls its second argument between steps; returns how much it did."""


@dataclass(frozen=True, slots=True)
class TaskState(Record):
    """Where a task is; times in Unix seconds.

    Args:
        next_at: When the next run starts, if none is interrupted; 0 before it was planned.
        cursor: The last key that the interrupted run has examined; empty between runs.
        started_at: When the current or last run began.
        finished_at: When the last whole run ended.
        examined: Keys examined in the current or last run.
        changed: How much it changed: objects deleted, snapshots expired, commits.
        skipped: Keys that failed.
        problem: The first failure, if any.
    """

    next_at: float = 0.0
    cursor: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    examined: int = 0
    changed: int = 0
    skipped: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Step(Record):
    """How far a run is; the members are as in `TaskState`."""

    examined: int = 0
    total: int = 0
    changed: int = 0
    skipped: int = 0
    problem: str | None = None
    bytes_done: int = 0

    def progress(self, phase: str) -> Progress:
        """Return it as the progress of a job."""
        return Progress(
            done=self.examined,
            total=self.total,
            rows=self.changed,
            bytes_done=self.bytes_done,
            phase=phase,
        )


class Task(Protocol):
    """Something to do again and again."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def period_seconds(self) -> float:
        """About how far apart runs start; 0 for runs on request only."""
        ...

    @property
    def is_long(self) -> bool:
        """Whether a run is worth showing although it changes nothing."""
        ...

    @property
    def state(self) -> TaskState:
        """Where it is."""
        ...

    def plan(self) -> None:
        """Set the time of the next run, which continues an interrupted one."""
        ...

    def run(self, check: Callable[[], None]) -> Iterator[Step]:
        """Run, or continue an interrupted run; `check` raises to stop."""
        ...


class KeyedTask:
    """A task that does something for each key of an ordered list.

    Args:
        name: Its name.
        period_seconds: About how far apart runs start; 0 for runs on request only.
        keys: Returns the keys, in ascending order.
        work: What to do for one.
        tree: The `sys` namespace, for the state.
        clock: Source of time.
    """

    is_long = False

    def __init__(
        self,
        name: str,
        period_seconds: float,
        keys: Callable[[], Sequence[str]],
        work: Work,
        *,
        tree: ElkynStore,
        clock: Clock,
    ) -> None:
        self.name = name
        self.period_seconds = period_seconds
        self._keys = keys
        self._work = work
        self._rows = CheckedTable(tree, "/maintenance", TaskState)
        self._clock = clock

    @property
    def state(self) -> TaskState:
        """Where it is; a damaged row only costs a run from the beginning."""
        try:
            return self._rows.get(self.name) or TaskState()
        except Corrupt:
            return TaskState()

    def plan(self) -> None:
        """Set the time of the next run, which continues an interrupted one.

        The first is anywhere within the first period: many nodes may be set up in one hour.
        """
        state = self.state
        next_at = self._clock.now() + self.period_seconds * period_share(first=not state.started_at)
        self._rows.put(self.name, replace(state, next_at=next_at))

    def run(self, check: Callable[[], None]) -> Iterator[Step]:
        """Run, or continue an interrupted run; yield a step after each key and at the end."""
        state = self.state
        if not state.cursor:
            state = TaskState(
                state.next_at, started_at=self._clock.now(), finished_at=state.finished_at
            )
        keys = [key for key in self._keys() if key > state.cursor]
        noted_at = time.monotonic()
        yield _step(state, len(keys))
        try:
            for place, key in enumerate(keys):
                check()
                changed = state.changed
                state = self._examined(key, state, check)
                if state.changed > changed or time.monotonic() - noted_at >= _NOTE_SECONDS:
                    self._rows.put(self.name, state, ephemeral=True)
                    noted_at = time.monotonic()
                reached("maintenance-examined")
                yield _step(state, len(keys) - place - 1)
            now = self._clock.now()
            next_at = now + self.period_seconds * period_share(first=False)
            state = replace(state, cursor="", finished_at=now, next_at=next_at)
        finally:
            self._rows.put(self.name, state)
        yield _step(state, 0)

    def _examined(self, key: str, state: TaskState, check: Callable[[], None]) -> TaskState:
        changed, problem = 0, None
        try:
            changed = self._work(key, check)
        except Cancelled:
            raise
        except (SennitError, OSError) as error:
            problem = str(error)
            _log.info("maintenance task %s skipped %s: %s", self.name, key, error)
        return replace(
            state,
            cursor=key,
            examined=state.examined + 1,
            changed=state.changed + changed,
            skipped=state.skipped + (problem is not None),
            problem=state.problem or problem,
        )


def period_share(*, first: bool) -> float:
    """Return the share of a period to wait before a run: for the first anything, then 1 ± 15 %."""
    # Not the module's own generator, which a program may have seeded.
    return _random.random() if first else _random.uniform(1 - _JITTER, 1 + _JITTER)


def _step(state: TaskState, left: int) -> Step:
    total = state.examined + left
    return Step(state.examined, total, state.changed, state.skipped, state.problem)
