"""The handle of a job that runs on a node."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from elytra.client.progress_bar import bar_html, follow
from elytra.client.result import Result
from elytra.client.transport import wait_for
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    Cancelled,
    InternalError,
    Unsupported,
    error_from_json,
)
from sennit_core.records import DatasetInfo, JobInfo

if TYPE_CHECKING:
    import pyarrow as pa

_WAIT_SECONDS = 20.0  # for one request, below the client's time limit for an answer
_ENDED = frozenset({"done", "failed", "cancelled"})


class JobSource(Protocol):
    """The methods of a client that a job handle uses."""

    def job_info(self, job_id: str, wait_seconds: float = 0) -> JobInfo:
        """Return the job's record: now, or when it has ended or this time has passed."""
        ...

    def cancel_job(self, job_id: str) -> None:
        """Cancel the job."""
        ...

    def retry_job(self, job_id: str) -> str:
        """Start the job again; return the new job's id."""
        ...

    def watch_job(self, job_id: str) -> Iterator[JobInfo]:
        """Yield the job's record immediately and after each change."""
        ...

    def job_result(self, job_id: str, manifest: dict[str, Any]) -> Result:
        """Read the whole result."""
        ...

    def job_batches(self, job_id: str) -> AbstractContextManager[Iterator[pa.RecordBatch]]:
        """Open the result as a stream of batches."""
        ...

    def submit(self, plan: Any, **options: Any) -> Job:
        """Start a job."""
        ...

    def save_result(self, job_id: str, name: str, mode: str = "create") -> tuple[str, Job | None]:
        """Start to save the result as a dataset; return its id and the job that does it."""
        ...

    def dataset(self, id_or_name: str) -> DatasetInfo:
        """Return the record of a dataset."""
        ...


class Job:
    """One submitted job; it continues to run when the client exits.

    Args:
        source: The client of the job's node.
        job_id: Its id.
        clock: Source of time between two polls; tests inject one.
    """

    def __init__(self, source: JobSource, job_id: str, clock: Clock = SYSTEM) -> None:
        self.id = job_id
        self._source = source
        self._clock = clock

    @property
    def info(self) -> JobInfo:
        """The job's current record."""
        return self._source.job_info(self.id)

    @property
    def state(self) -> str:
        """`queued running merging done failed` or `cancelled`."""
        return self.info.state

    @property
    def check(self) -> dict[str, Any] | None:
        """How the node checks rows of a worker that was found to be wrong after the job had ended.

        `{"state", "token", "since"}`, the state `doubted`, `running`, `confirmed`, `corrected` (read the
        result again; `savedAs` has the datasets that were saved before) or `failed` (with `reason`). None
        for all other jobs.
        """
        found = self.info.check
        return None if found is None else dict(found)

    def wait(self, timeout_seconds: float | None = None) -> JobInfo:
        """Block until the job is done.

        Args:
            timeout_seconds: How long to wait; None waits without a limit.

        Raises:
            SennitError: The job failed; this is the job's error.
            Cancelled: The job was cancelled.
            DeadlineExceeded: The timeout expired; the job continues to run.
        """
        until = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds

        def ended() -> JobInfo | None:
            left = _WAIT_SECONDS if until is None else max(0.0, until - self._clock.monotonic())
            info = self._source.job_info(self.id, min(left, _WAIT_SECONDS))
            return info if info.state in _ENDED else None

        # The node answers at the end of the job; a poll follows only if that takes longer.
        info = wait_for(ended, what=f"job {self.id}", seconds=timeout_seconds, clock=self._clock)
        raise_if_failed(info)
        return info

    def watch(self) -> Iterator[JobInfo]:
        """Yield the job's record immediately and after every change, until the job has ended."""
        for info in self._source.watch_job(self.id):
            yield info
            if info.state in _ENDED:
                return

    def info_within(self, seconds: float) -> JobInfo:
        """Return the job's record: when it has ended, or after this time, at most 20 seconds."""
        return self._source.job_info(self.id, min(seconds, _WAIT_SECONDS))

    def follow(self) -> JobInfo:
        """Show the job's progress until it has ended, in a notebook's cell or on standard error.

        Raises:
            SennitError: The job failed; this is the job's error.
        """
        info = follow(self.watch())
        raise_if_failed(info)
        return info

    def cancel(self) -> None:
        """Cancel the job; no effect if it has already ended."""
        self._source.cancel_job(self.id)

    def result(self, timeout_seconds: float | None = None) -> Result:
        """Wait for the job, then read its whole result; raises as `wait` does."""
        info = self.wait(timeout_seconds)
        return self._source.job_result(self.id, dict(info.result or {}))

    def iter_results(
        self, timeout_seconds: float | None = None
    ) -> Generator[pa.RecordBatch, None, None]:
        """Wait for the job, then yield its result batch by batch; it may be larger than memory."""
        self.wait(timeout_seconds)
        with self._source.job_batches(self.id) as batches:
            yield from batches

    def save_as(
        self, name: str, mode: str = "create", timeout_seconds: float | None = None
    ) -> DatasetInfo:
        """Wait for the job, save its rows as a dataset of the node, and wait for that.

        The rows are saved once, also if this is repeated after a lost connection or a crash.

        Args:
            name: The dataset's name.
            mode: "create", "append" or "replace".
            timeout_seconds: How long to wait for each of the two jobs; they continue to run.

        Raises:
            SennitError: The job failed; this is the job's error.
            Conflict: The mode is "create" and there is such a dataset.
            Denied: The token may not change the dataset.
            StorageFull: The quota has no room for the rows.
        """
        self.wait(timeout_seconds)
        dataset_id, saving = self._source.save_result(self.id, name, mode)
        if saving is not None:
            saving.wait(timeout_seconds)
        return self._source.dataset(dataset_id)

    def resubmit(self, **options: Any) -> Job:
        """Start the same plan again, over the same snapshots, as a new job.

        Args:
            options: As of the first submission: `engine`, `memCap`.

        Raises:
            Unsupported: The plan is not on record: the job is no pipeline, or read an encrypted
                dataset.
        """
        info = self.info
        if info.plan is None:
            raise Unsupported(
                f"job {self.id} has no plan on record", hint="submit its pipeline again"
            )
        return self._source.submit(info.plan, **{"engine": info.engine, **options})

    def retry(self) -> Job:
        """Start a job again that failed or was cancelled, with its options, as a new job.

        Raises:
            Conflict: The job has not ended, or is done.
            NotFound: What it read is gone.
        """
        return Job(self._source, self._source.retry_job(self.id), self._clock)

    def _repr_html_(self) -> str:
        return bar_html(self.info)

    def __repr__(self) -> str:
        return f"<Job {self.id}>"


def raise_if_failed(info: JobInfo) -> None:
    """Raise the error of a job that failed or was cancelled."""
    if info.state == "cancelled":
        raise Cancelled(f"job {info.id}")
    if info.state == "failed":
        if info.error is None:
            raise InternalError(f"job {info.id} failed without an error")
        raise error_from_json(info.error)
