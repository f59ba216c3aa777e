"""The client's requests about jobs: submit, watch, cancel, read and save their results."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from elytra.client.arrow_stream import open_batches, read_table
from elytra.client.job_handle import Job
from elytra.client.result import Result
from elytra.client.transport import ARROW, Transport
from sennit_core.clock import Clock
from sennit_core.records import DatasetInfo, JobInfo

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.plan import Plan

_FIRST_WAIT_SECONDS = 1.0  # for a short job; Ctrl-C and the job's id must not wait long


class JobRequests:
    """A part of `Client`, which has the connection."""

    if TYPE_CHECKING:
        _transport: Transport
        _clock: Clock

        def dataset(self, id_or_name: str) -> DatasetInfo:
            """Return one dataset."""
            ...

        def watch(self, path: str, *, namespace: str = "default") -> Iterator[Any]:
            """Yield the value at a path of the realtime tree."""
            ...

    def submit(self, plan: Plan | Mapping[str, Any], **options: Any) -> Job:
        """Start a job.

        Args:
            plan: A plan, or its JSON form.
            options: More members of the request: `engine`, `memCap`, `priority`.
        """
        return self.job(self._submit(plan, options)["jobId"])

    def run(
        self,
        plan: Plan | Mapping[str, Any],
        *,
        timeout_seconds: float | None = None,
        **options: Any,
    ) -> Result:
        """Run a job and return its whole result; a timeout or Ctrl-C cancels the job.

        Args:
            plan: A plan, or its JSON form.
            timeout_seconds: How long to wait; None waits without a limit.
            options: More members of the request: `engine`, `memCap`, `priority`.

        Raises:
            SennitError: The job's error.
            DeadlineExceeded: The job ran longer than the timeout.
        """
        began = self._clock.monotonic()
        wait = _FIRST_WAIT_SECONDS if timeout_seconds is None else timeout_seconds
        # The response of a short job has its rows. While this request waits, Ctrl-C closes its
        # connection, and the node cancels the job.
        answer = self._submit(plan, options, min(wait, _FIRST_WAIT_SECONDS))
        job = self.job(answer["jobId"])
        try:
            if answer.get("rows") is not None:
                info = JobInfo.from_known(answer["job"])
                rows = read_table(iter((b64decode(answer["rows"]),)))
                return Result(rows, dict(info.result or {}))
            if timeout_seconds is not None:
                timeout_seconds = max(0.0, timeout_seconds - (self._clock.monotonic() - began))
            return job.result(timeout_seconds)
        except (KeyboardInterrupt, TimeoutError):
            job.cancel()
            raise

    def _submit(
        self, plan: Plan | Mapping[str, Any], options: Mapping[str, Any], wait_seconds: float = 0
    ) -> Any:
        from emsqrt.plan import Plan, plan_to_json

        document = plan_to_json(plan) if isinstance(plan, Plan) else dict(plan)
        path = "/api/jobs"
        if wait_seconds:
            path += f"?wait={wait_seconds:.3f}"
        return self._transport.json("POST", path, {"plan": document, **options})

    def explain(self, plan: Plan | Mapping[str, Any], engine: str = "auto") -> dict[str, Any]:
        """Return which engine and nodes would run a plan now, and the bytes that would move."""
        from emsqrt.plan import Plan, plan_to_json

        document = plan_to_json(plan) if isinstance(plan, Plan) else dict(plan)
        body = {"plan": document, "engine": engine}
        return dict(self._transport.json("POST", "/api/plans/explain", body))

    def job(self, job_id: str) -> Job:
        """Return the handle of a job, without a request to the node."""
        return Job(self, job_id, self._clock)

    def jobs(self) -> list[JobInfo]:
        """Return the jobs that the node has on record, newest first."""
        return [JobInfo.from_known(item) for item in self._transport.json("GET", "/api/jobs")]

    def job_info(self, job_id: str, wait_seconds: float = 0) -> JobInfo:
        """Return the record of a job; if it has not ended, after `wait_seconds`, at most 30."""
        path = f"/api/jobs/{quote(job_id)}"
        if wait_seconds:
            path += f"?wait={wait_seconds:.3f}"
        return JobInfo.from_known(self._transport.json("GET", path))

    def cancel_job(self, job_id: str) -> None:
        """Cancel a job; no effect if it has already ended."""
        self._transport.request("DELETE", f"/api/jobs/{quote(job_id)}")

    def retry_job(self, job_id: str) -> str:
        """Start a job again that failed or was cancelled; return the new job's id."""
        return str(self._transport.json("POST", f"/api/jobs/{quote(job_id)}/retry")["jobId"])

    def watch_job(self, job_id: str) -> Iterator[JobInfo]:
        """Yield the record of a job immediately and after each change."""
        yield self.job_info(job_id)  # raises for an unknown job; the stream would stay silent
        for value in self.watch(f"/jobs/{job_id}", namespace="sys"):
            if isinstance(value, dict) and "state" in value:
                yield JobInfo.from_known(value)

    def job_result(self, job_id: str, manifest: dict[str, Any]) -> Result:
        """Read the whole result of a completed job."""
        with self._result(job_id) as response:
            return Result(read_table(response.iter_bytes()), manifest)

    @contextmanager
    def job_batches(self, job_id: str) -> Iterator[Iterator[pa.RecordBatch]]:
        """Open the result of a completed job as a stream of batches."""
        with self._result(job_id) as response:
            yield open_batches(response.iter_bytes())

    def _result(self, job_id: str) -> Any:
        path = f"/api/jobs/{quote(job_id)}/result"
        return self._transport.stream("GET", path, headers={"Accept": ARROW})

    def save_result(self, job_id: str, name: str, mode: str = "create") -> tuple[str, Job | None]:
        """Save the rows of a completed job as a dataset; safe to repeat.

        Args:
            job_id: A pipeline's job.
            name: The dataset's name.
            mode: "create", "append" or "replace".

        Returns:
            The dataset's id, and the job that ingests the rows; None if it is not on record any
            more, as the rows were committed by an earlier request.

        Raises:
            Conflict: The job is not done, or the mode is "create" and there is such a dataset.
            Denied: The token may not change the dataset.
            StorageFull: The quota has no room for the rows.
        """
        path = f"/api/jobs/{quote(job_id)}/dataset"
        document = {"name": name, "mode": mode}
        answer = self._transport.json("POST", path, document, repeatable=True)
        saved = answer["jobId"]
        return answer["datasetId"], None if saved is None else self.job(saved)
