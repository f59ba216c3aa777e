"""The scheduled scrub, as a task of the lake's maintenance."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lake.maintenance.scrubber import Scrubber
from lake.maintenance.tasks import Step, TaskState
from sennit_core.logs import get_logger

__all__ = ["ScrubTask"]

_log = get_logger(__name__)


class ScrubTask:
    """The scrub as a task; its state is the scrubber's own.

    Args:
        scrubber: Runs the passes.
        days: About how far apart they start; 0 for passes on request only.
    """

    name = "scrub"
    is_long = True

    def __init__(self, scrubber: Scrubber, days: float) -> None:
        self._scrubber = scrubber
        self._days = days
        self.period_seconds = days * 24 * 3600.0

    @property
    def state(self) -> TaskState:
        """Where the scrub is."""
        own = self._scrubber.state
        if own is None:
            return TaskState()
        problem = f"{own.damaged} damaged objects" if own.damaged else None
        return TaskState(
            own.next_at, own.cursor, own.started_at, own.finished_at, own.objects, own.damaged,
            problem=problem,
        )  # fmt: skip

    def plan(self) -> None:
        """Set the time of the next pass."""
        self._scrubber.plan(self._days)

    def run(self, check: Callable[[], None]) -> Iterator[Step]:
        """Run a pass at the scrubber's rate, or the rest of one."""

        def cancelled() -> bool:
            check()
            return False

        rate = self._scrubber.rate_bytes
        passes = self._scrubber.run_pass(rate_bytes=rate, days=self._days, cancelled=cancelled)
        for report in passes:
            if report.done and report.findings:
                _log.error("the scrub found damage: `platform verify` lists it")
            yield Step(
                report.objects,
                report.objects,
                len(report.findings),
                problem=report.findings[0].problem if report.findings else None,
                bytes_done=report.bytes_done,
            )
