"""A handle on a job that runs on a node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from elytra.result import Result
from elytra.transport import wait_for
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Cancelled, InternalError, error_from_json
from sennit_core.records import JobInfo

if TYPE_CHECKING:
    import pyarrow as pa

_ENDED = frozenset({"done", "failed", "cancelled"})


class JobSource(Protocol):
    """What a handle needs from its client."""

    def job_info(self, job_id: str) -> JobInfo:
        """Return the job's state now."""
        ...

    def cancel_job(self, job_id: str) -> None:
        """Ask the job to stop."""
        ...

    def watch_job(self, job_id: str) -> Iterator[JobInfo]:
        """Yield the job's state at once and after each change."""
        ...

    def job_result(self, job_id: str, manifest: dict[str, Any]) -> Result:
        """Read the whole answer."""
        ...

    def job_batches(self, job_id: str) -> AbstractContextManager[Iterator[pa.RecordBatch]]:
        """Open the answer as a stream of batches."""
        ...


class Job:
    """One submitted job; it goes on whether or not anybody waits for it.

    Args:
        source: The client that talks to its node.
        job_id: Its id.
        clock: Time between two looks; injected by tests.
    """

    def __init__(self, source: JobSource, job_id: str, clock: Clock = SYSTEM) -> None:
        self.id = job_id
        self._source = source
        self._clock = clock

    @property
    def info(self) -> JobInfo:
        """The job's record as it is now."""
        return self._source.job_info(self.id)

    @property
    def state(self) -> str:
        """`queued planning running merging done failed` or `cancelled`."""
        return self.info.state

    def wait(self, timeout_seconds: float | None = None) -> JobInfo:
        """Block until the job is done.

        Args:
            timeout_seconds: How long to wait; None waits for ever.

        Raises:
            SennitError: The job failed; the error is the one it failed with.
            Cancelled: Somebody cancelled it.
            DeadlineExceeded: It goes on, but not within the timeout.
        """

        def ended() -> JobInfo | None:
            info = self.info
            return info if info.state in _ENDED else None

        info = wait_for(ended, what=f"job {self.id}", seconds=timeout_seconds, clock=self._clock)
        raise_if_failed(info)
        return info

    def watch(self) -> Iterator[JobInfo]:
        """Yield the job's record at once, after every change, and last when it has ended."""
        for info in self._source.watch_job(self.id):
            yield info
            if info.state in _ENDED:
                return

    def cancel(self) -> None:
        """Ask the job to stop; one that has ended already is left as it is."""
        self._source.cancel_job(self.id)

    def result(self, timeout_seconds: float | None = None) -> Result:
        """Wait for the job, then read its whole answer; raises as `wait` does."""
        info = self.wait(timeout_seconds)
        return self._source.job_result(self.id, dict(info.result or {}))

    def iter_results(self, timeout_seconds: float | None = None) -> Iterator[pa.RecordBatch]:
        """Wait for the job, then yield its answer batch by batch, so that it may exceed memory."""
        self.wait(timeout_seconds)
        with self._source.job_batches(self.id) as batches:
            yield from batches

    def __repr__(self) -> str:
        return f"<Job {self.id}>"


def raise_if_failed(info: JobInfo) -> None:
    """Raise what a job ended with, unless it is done."""
    if info.state == "cancelled":
        raise Cancelled(f"job {info.id}")
    if info.state == "failed":
        if info.error is None:
            raise InternalError(f"job {info.id} failed without an error")
        raise error_from_json(info.error)
