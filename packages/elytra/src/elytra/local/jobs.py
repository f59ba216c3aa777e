"""Jobs of a local session: plans on threads of this process, with the handles of a node's jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from elytra.client.job_handle import Job
from elytra.client.result import Result
from elytra.local.run import LocalRun
from emsqrt.engine import Engine
from emsqrt.plan import Plan, check
from sennit_core.clock import SYSTEM
from sennit_core.errors import (
    Cancelled,
    Conflict,
    InternalError,
    NotFound,
    SennitError,
    Unsupported,
)
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo, JobInfo, is_terminal

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor.execution import Execution
    from sennit_core.arrow_ipc import ArrowReader


class LocalJobs:
    """The jobs of a session; each writes its result to a file, which the session deletes.

    Args:
        engine: Runs their plans.
        open_run: Executes a plan, after the sources that it reads were computed.
        new_file: Returns the path of a new file of the session.
    """

    def __init__(
        self,
        engine: Engine,
        open_run: Callable[[Plan, LocalRun], AbstractContextManager[Execution]],
        new_file: Callable[[], Path],
    ) -> None:
        self._engine = engine
        self._open_run = open_run
        self._new_file = new_file
        # Guards the dicts; notified of each change of a record.
        self._changed = Condition()
        self._infos: dict[str, JobInfo] = {}
        self._threads: dict[str, Thread] = {}
        self._runs: dict[str, LocalRun] = {}
        # What was started, for `retry_job`.
        self._submitted: dict[str, tuple[Plan, str | int | None]] = {}

    def start(self, plan: Plan, mem_cap: str | int | None) -> Job:
        """Start a plan and return its handle."""
        job = JobInfo(
            id=new_id(),
            kind="plan",
            plan=None,
            plan_hash=None,
            engine="local",
            state="running",
            progress=None,
            submitted_by="",
            created_at=SYSTEM.now(),
            started_at=SYSTEM.now(),
        )
        path = self._new_file()
        run = LocalRun(
            self._engine,
            mem_cap,
            on_progress=lambda progress: self._change(job.id, progress=progress),
        )
        # A daemon, so that a session that was not closed does not keep the process alive.
        thread = Thread(target=self._run, args=(job.id, plan, run, path), daemon=True)
        with self._changed:
            self._infos[job.id] = job
            self._threads[job.id] = thread
            self._runs[job.id] = run
            self._submitted[job.id] = plan, mem_cap
        thread.start()
        return Job(self, job.id)

    def close(self) -> None:
        """Cancel the jobs that run and wait for their threads."""
        for job_id in list(self._infos):
            self.cancel_job(job_id)
        for thread in list(self._threads.values()):
            thread.join()

    # What a job's handle uses

    def job_info(self, job_id: str, wait_seconds: float = 0) -> JobInfo:
        """Return a job's record: now, or when it has ended or this time has passed."""
        with self._changed:
            self._changed.wait_for(
                lambda: is_terminal("job", self._info(job_id).state), timeout=wait_seconds
            )
            return self._info(job_id)

    def cancel_job(self, job_id: str) -> None:
        """Stop a job; no effect if it has ended."""
        with self._changed:
            if is_terminal("job", self._info(job_id).state):
                return
            run = self._runs[job_id]
        run.cancel()

    def retry_job(self, job_id: str) -> str:
        """Start a job again that failed or was cancelled; return the new job's id."""
        with self._changed:
            info = self._info(job_id)
            plan, mem_cap = self._submitted[job_id]
        if info.state not in {"failed", "cancelled"}:
            raise Conflict(
                f"job {job_id} is {info.state}: only a job that failed or was cancelled is retried"
            )
        return self.start(plan, mem_cap).id

    def watch_job(self, job_id: str) -> Iterator[JobInfo]:
        """Yield a job's record immediately and after each change."""
        shown: JobInfo | None = None
        while shown is None or not is_terminal("job", shown.state):
            with self._changed:
                while self._info(job_id) is shown:
                    self._changed.wait()
                shown = self._info(job_id)
            yield shown

    def job_result(self, job_id: str, manifest: dict[str, Any]) -> Result:
        """Read the whole result of a completed job."""
        with self._open(job_id) as reader:
            return Result(reader.read_all(), manifest)

    @contextmanager
    def job_batches(self, job_id: str) -> Iterator[Iterator[pa.RecordBatch]]:
        """Open the result of a completed job batch by batch."""
        with self._open(job_id) as reader:
            yield iter(reader)

    @contextmanager
    def _open(self, job_id: str) -> Iterator[ArrowReader]:
        import pyarrow as pa

        from sennit_core.arrow_ipc import open_arrow

        path = self._file(job_id)
        with pa.OSFile(str(path)) as file, open_arrow(file, str(path)) as reader:
            yield reader

    def submit(self, plan: Any, **options: Any) -> Job:
        """Start a plan again."""
        return self.start(plan, options.get("memCap"))

    def save_result(self, job_id: str, name: str, mode: str = "create") -> tuple[str, Job | None]:
        """Refuse: there is no node to save a dataset on."""
        del job_id, name, mode
        raise Unsupported(
            "save_as stores a dataset on a node, and Elytra.local() has none",
            hint="write_parquet(path)",
        )

    def dataset(self, id_or_name: str) -> DatasetInfo:
        """Refuse: there are no datasets."""
        raise NotFound("dataset", id_or_name)

    def _file(self, job_id: str) -> Path:
        with self._changed:
            info = self._info(job_id)
        if info.state != "done":
            raise Conflict(f"job {job_id} is {info.state}, so it has no result")
        return Path((info.result or {})["file"])

    def _info(self, job_id: str) -> JobInfo:
        if job_id not in self._infos:
            raise NotFound("job", job_id)
        return self._infos[job_id]

    # On the job's thread

    def _run(self, job_id: str, plan: Plan, run: LocalRun, path: Path) -> None:
        try:
            manifest = self._write(plan, run, path)
        except Cancelled:
            self._end(job_id, state="cancelled")
        except SennitError as error:
            self._end(job_id, state="failed", error=error.to_json())
        except BaseException as problem:  # noqa: BLE001 - a thread that ends must end its job
            unexpected = InternalError(f"{type(problem).__name__}: {problem}")
            self._end(job_id, state="failed", error=unexpected.to_json())
        else:
            self._end(job_id, state="done", result={**manifest, "file": str(path)})

    def _write(self, plan: Plan, run: LocalRun, path: Path) -> dict[str, Any]:
        import pyarrow as pa

        with (
            self._open_run(plan, run) as execution,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_stream(file, check(plan).to_arrow()) as writer,
        ):
            for batch in execution.batches():
                writer.write_batch(batch)
            return execution.result()

    def _end(self, job_id: str, **changes: Any) -> None:
        self._change(job_id, finished_at=SYSTEM.now(), **changes)
        with self._changed:
            self._runs.pop(job_id, None)
            self._threads.pop(job_id, None)

    def _change(self, job_id: str, **changes: Any) -> None:
        with self._changed:
            self._infos[job_id] = replace(self._infos[job_id], **changes)
            self._changed.notify_all()
