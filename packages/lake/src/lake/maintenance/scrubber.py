"""The scrub: reads everything that is stored, slowly; `lake.maintenance.maintenance` runs it again and again.

A pass reads the objects in the order of their ids and notes where it is in the tree, so a restart
continues it. It sleeps between pieces to stay at its rate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable
from lake.maintenance.scrub import Scrub, ScrubReport
from lake.maintenance.tasks import period_share
from sennit_core.clock import Clock
from sennit_core.errors import Cancelled, Corrupt
from sennit_core.records import Record
from sennit_core.units import MIB

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["RATE_BYTES", "ScrubState", "Scrubber"]

RATE_BYTES = 32 * MIB
_PIECE_BYTES = 256 << 10  # at most this much is read between two checks
_DAY_SECONDS = 24 * 3600.0
_NOTE_SECONDS = 5.0  # how much work a crash may repeat
_ROW = "scrub"


@dataclass(frozen=True, slots=True)
class ScrubState(Record):
    """Where the scrub is; times in Unix seconds.

    Args:
        next_at: When the next pass starts, if none has begun.
        cursor: The last object that the current pass has read; empty between passes.
        started_at: When the current or last pass began; 0 before the first one.
        finished_at: When the last whole pass ended.
        objects: Objects read in the current or last pass.
        bytes_done: Their bytes.
        damaged: Objects that it found to be damaged.
    """

    next_at: float
    cursor: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    objects: int = 0
    bytes_done: int = 0
    damaged: int = 0


class Scrubber:
    """Runs passes.

    Args:
        tree: The `sys` namespace, for the state.
        scrub: Makes a scrub that calls its argument between pieces.
        clock: Source of time.
        rate_bytes: Bytes per second that scheduled passes read at most.
    """

    def __init__(
        self,
        tree: ElkynStore,
        scrub: Callable[[Callable[[], object]], Scrub],
        *,
        clock: Clock,
        rate_bytes: int = RATE_BYTES,
    ) -> None:
        self._rows = CheckedTable(tree, "/maintenance", ScrubState)
        self._scrub = scrub
        self._clock = clock
        self.rate_bytes = rate_bytes
        self._stop = threading.Event()
        self._running = threading.Lock()  # held by a pass: two would disturb each other's cursor

    @property
    def state(self) -> ScrubState | None:
        """The stored state; None before the first pass was planned, or if its row is damaged."""
        try:
            return self._rows.get(_ROW)
        except Corrupt:
            return None  # only costs a pass from the beginning

    def plan(self, days: float) -> None:
        """Set the time of the next pass, which continues an interrupted one.

        The first is anywhere within the first period: many nodes may be set up in one hour.
        """
        share = period_share(first=self.state is None)
        next_at = self._clock.now() + days * _DAY_SECONDS * share
        self._put(replace(self.state or ScrubState(0.0), next_at=next_at))

    def close(self) -> None:
        """Stop a pass that runs; the next one continues there."""
        self._stop.set()

    def run_pass(
        self,
        *,
        rate_bytes: int | None = None,
        days: float = 0.0,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[ScrubReport]:
        """Run a pass, or the rest of one; yield a report after each object and at the end.

        Args:
            rate_bytes: Bytes per second at most; None for no limit.
            days: When the next pass is to start, from now.
            cancelled: Called between pieces; True stops, and the next pass continues here.
        """
        with self._running:
            yield from self._pass(rate_bytes, days, cancelled or self._stop.is_set)

    def _pass(
        self, rate_bytes: int | None, days: float, cancelled: Callable[[], bool]
    ) -> Iterator[ScrubReport]:
        now = self._clock.now()
        before = self.state or ScrubState(now)
        if not before.cursor:
            before = ScrubState(before.next_at, "", now, before.finished_at)
        scrub = self._scrub(_Pace(rate_bytes, self._stop, cancelled))
        state, noted_at = before, time.monotonic()
        try:
            for report in scrub.run(after=before.cursor):
                state = replace(
                    before,
                    cursor=scrub.cursor,
                    objects=before.objects + report.objects,
                    bytes_done=before.bytes_done + report.bytes_done,
                    damaged=before.damaged + scrub.damaged_objects,
                )
                if report.done:
                    pause = days * _DAY_SECONDS * period_share(first=False)
                    ended = self._clock.now()
                    state = replace(state, cursor="", finished_at=ended, next_at=ended + pause)
                elif time.monotonic() - noted_at >= _NOTE_SECONDS:
                    self._put(state)
                    noted_at = time.monotonic()
                yield report
        finally:
            self._put(state)

    def _put(self, state: ScrubState) -> None:
        self._rows.put(_ROW, state)


class _Pace:
    """Called between pieces: keeps to a rate, and raises when the scrub is to stop."""

    def __init__(
        self, rate_bytes: int | None, stop: threading.Event, cancelled: Callable[[], bool]
    ) -> None:
        self._seconds = 0.0 if rate_bytes is None else _PIECE_BYTES / max(rate_bytes, 1)
        self._stop = stop
        self._cancelled = cancelled
        self._due = time.monotonic()

    def __call__(self) -> None:
        if self._cancelled():
            raise Cancelled("the scrub")
        if self._seconds:
            now = time.monotonic()
            # What was not read while other work held it up is not read faster afterwards.
            self._due = max(self._due, now) + self._seconds
            # Short enough to notice a cancellation soon, at any rate.
            while (left := self._due - time.monotonic()) > 0 and not self._cancelled():
                self._stop.wait(min(left, 0.2))
