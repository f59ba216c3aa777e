"""The job service: submit, list, cancel and fetch the results of jobs.

A submission is validated and bound to a snapshot before it is queued, so an invalid plan is refused
at once. `elytra.service.loop` then runs the job as the scheduler decides.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from elytra.backends import FUNCTION_ENGINE, NODE_ENGINE, NodeBackend, NodeParts
from elytra.backends.ray import RayBackend
from elytra.backends.remote.backend import RemoteBackend
from elytra.backends.remote.function_workers import FunctionWorkers, why_no_functions
from elytra.backends.table import BACKENDS, OpenBackend
from elytra.functions.step import FunctionLimits
from elytra.service.corrections import Corrections
from elytra.service.function_rules import FunctionRules
from elytra.service.javascript_rules import JavascriptRules
from elytra.service.job_access import datasets_of_job, may_read
from elytra.service.job_options import JobOptions
from elytra.service.job_store import JobStore
from elytra.service.loop import JobWork, SchedulerLoop
from elytra.service.maintenance_jobs import KIND, MaintenanceJobs
from elytra.service.messages import CancelRequested, JobChanged, JobSubmitted
from elytra.service.plan_binding import PlanBinder, PlanRequest
from elytra.service.plan_records import record_of
from elytra.service.resumption import resume
from elytra.service.saved_results import ResultSaver
from elytra.service.sealed_results import HeldExecution, SealedResults
from elytra.service.work import (
    PLAN_ENTRY,
    IngestWork,
    PlanWork,
    ingest_result,
    remove_outputs,
)
from emsqrt.plan import (
    Files,
    Limit,
    Plan,
    Scan,
    Sink,
    StreamTarget,
    plan_from_json,
    plan_to_json,
)
from lake.ingestor import dataset_name
from lake.statements.limits import Requester
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    Busy,
    Closed,
    Conflict,
    NotFound,
    SennitError,
    Unavailable,
    Unsupported,
)
from sennit_core.ids import new_id
from sennit_core.logs import get_logger
from sennit_core.records import JobInfo, is_terminal

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from emsqrt.executor import Execution, ExecutorPool
    from lake import Lake
    from lake.uploads.upload import UploadInfo

WHOLE_BYTES = 24 << 20
"""Below this size, tasks of their own for shards cost more than two executors save: a task or merge
costs 15 ms. Measured with flights: 110 ms in 7 tasks and 60 ms whole for 5 MiB of Parquet, 190 and
130 ms for 20 MiB."""
_log = get_logger(__name__)
_JOBS_MAX = 10_000
"""Jobs that have not ended: each holds its plan, its tasks and the leases of its inputs."""
_ROWS_MAX = (1 << 53) - 1  # the largest integer in the JSON of a plan


class JobService:
    """Runs pipelines and ingests, and keeps their records.

    Args:
        tree: The namespace `sys`, in which job records are published.
        lake: Datasets and uploads.
        pool: The executors.
        folder: Where jobs store partials and results.
        workers: Maximum concurrent attempts; should be the number of executors.
        whole_bytes: Input below this size is processed in one task.
        clock: Source of time; tests inject one.
        backends: What opens each backend, by its engine.
        functions: What Python functions of admins' plans may use; None if the node runs none.
        javascript: Whether admins' plans may have JavaScript functions, which are sent to remote workers.
    """

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        tree: ElkynStore,
        lake: Lake,
        pool: ExecutorPool,
        *,
        folder: Path | str | None = None,
        workers: int = 2,
        whole_bytes: int = WHOLE_BYTES,
        clock: Clock = SYSTEM,
        backends: Mapping[str, OpenBackend] = BACKENDS,
        functions: FunctionLimits | None = None,
        javascript: bool = False,
    ) -> None:
        self._lake = lake
        self._pool = pool
        self._clock = clock
        self._folder = Path(folder) if folder is not None else lake.folder / "jobs"
        self._job_store = JobStore(tree, self._folder, clock=clock)
        self._maintenance = MaintenanceJobs(self._job_store, clock=clock)
        lake.maintenance.observer = self._maintenance
        lake.purger.observe(self._forget_results)
        self._sealed = SealedResults(lake.vault)
        node = NodeParts(lake, pool, workers, functions)
        opened = {engine: open_backend(node) for engine, open_backend in backends.items()}
        self.functions = FunctionRules(functions)
        self._binder = PlanBinder(
            lake, self._sealed, self._folder, whole_bytes, frozenset(opened), self.functions,
            JavascriptRules(allowed=javascript),
        )  # fmt: skip
        self._job_store.on_forget = self._sealed.forget
        self._held: dict[str, ExitStack] = {}  # what a job's inputs need: leases, decrypted shards
        self._ingests: dict[str, tuple[str, str]] = {}  # upload id -> (job id, dataset id)
        lake.parts.is_needed = self._is_upload_needed
        # Makes `submit_ingest` return one job for an upload, also to two callers at the same time.
        self._submitting = threading.Lock()
        self._saver = ResultSaver(lake, pool, self._job_store, self.submit_ingest)
        self.corrections = Corrections(self._job_store, self._run_again, clock)
        self._closed = False
        self._remote = opened.get(RemoteBackend.name)
        if javascript:
            opened[FunctionWorkers.name] = FunctionWorkers(self.remote)
        if isinstance(ray := opened.get(RayBackend.name), RayBackend):
            lake.statements.use_cluster(ray)  # of SQL with its engine
        self._loop = SchedulerLoop(
            self._job_store,
            self._folder,
            backends=opened,
            node_backend=cast("NodeBackend", opened[NODE_ENGINE]),
            on_end=self._release,
            on_discredited=self.corrections.doubt,
            weight_of=lambda user: lake.quotas.get(user).job_weight,
        )

    # API for callers

    @property
    def remote(self) -> RemoteBackend:
        """The backend of workers that connect to the node."""
        assert isinstance(self._remote, RemoteBackend), "the table has it"
        return self._remote

    def submit(  # noqa: PLR0913 - options, all by keyword
        self,
        plan: Plan | Mapping[str, Any] | str | bytes,
        *,
        engine: str = "auto",
        mem_cap_bytes: int | None = None,
        options: JobOptions | None = None,
        submitted_by: str = "",
        role: str = "",
        allow_partial: bool = False,
        rerun_of: str | None = None,
    ) -> JobInfo:
        """Start a pipeline.

        Args:
            plan: A plan or its JSON, over datasets and without a Sink.
            engine: The backend; "auto" lets the node choose.
            mem_cap_bytes: Memory cap of each execution; None uses the pool's cap.
            options: How it runs: its priority, deadline and so on.
            submitted_by: The principal.
            role: The principal's role, for access policies.
            allow_partial: Whether shards may be left out that no node has which can be reached.
            rerun_of: The job that this one computes again.

        Raises:
            SennitError: The plan is not valid, names something unknown, or requests an engine that
                the node does not have.
            Denied: A dataset is encrypted, and the lake has no key.
            Unavailable: No node that can be reached has a shard.
            Busy: Too many jobs have not ended.
        """
        self._binder.check_engine(engine)
        parsed = plan if isinstance(plan, Plan) else plan_from_json(plan)
        options = options or JobOptions()
        requester = Requester(submitted_by, is_admin=role == "admin", role=role)
        request = PlanRequest(
            parsed, engine, requester, mem_cap_bytes, options, allow_partial=allow_partial
        )
        job_id, held = new_id(self._clock), ExitStack()
        try:
            bound = self._binder.bind(request, job_id, held)
        except BaseException:
            held.close()
            raise
        job, note = record_of(request, bound, self._clock.now(), rerun_of)
        self._begin(job, bound.work, note, held)
        return job

    def explain(
        self,
        plan: Plan | Mapping[str, Any] | str | bytes,
        *,
        engine: str = "auto",
        submitted_by: str = "",
        role: str = "",
    ) -> dict[str, Any]:
        """Return which engine and nodes would run a pipeline now; arguments and errors as of `submit`.

        The result is that of `POST /api/plans/explain`.
        """
        self._binder.check_engine(engine)
        parsed = plan if isinstance(plan, Plan) else plan_from_json(plan)
        requester = Requester(submitted_by, is_admin=role == "admin", role=role)
        found = self._binder.explain(PlanRequest(parsed, engine, requester))
        if found["engine"] == FUNCTION_ENGINE:
            return {
                **found,
                "engine": RemoteBackend.name,
                "waitsFor": why_no_functions(self.remote.sessions()),
            }
        return found

    def submit_ingest(self, upload_id: str, *, submitted_by: str = "") -> tuple[str, JobInfo]:
        """Seal an upload and ingest it into a dataset; a repeated call returns the same job.

        Returns:
            The id of the new dataset, and the job.

        Raises:
            UploadIncomplete: Parts are missing.
            NotFound: There is no such upload.
        """
        with self._submitting:
            if upload_id in self._ingests:
                job_id, dataset_id = self._ingests[upload_id]
                job = self._job_store.get(job_id)
                if job.state not in {"failed", "cancelled"}:
                    return dataset_id, job
            sealed = self._lake.parts.seal(upload_id)
            job = JobInfo(
                id=new_id(self._clock),
                kind="ingest",
                plan=None,
                plan_hash=None,
                engine=NODE_ENGINE,
                state="queued",
                progress=None,
                submitted_by=submitted_by,
                created_at=self._clock.now(),
                result={"file": sealed.upload.name},
            )
            dataset_id = self._dataset_of(sealed.upload)
            self._start_ingest(job, upload_id, dataset_id, sealed.size)
            return dataset_id, job

    def get(self, job_id: str) -> JobInfo:
        """Return a job's record with its progress; NotFound when it is unknown or was deleted."""
        return self._job_store.get(job_id)

    async def wait(self, job_id: str, seconds: float) -> None:
        """Wait until a job has ended, at most for this time; immediately if there is none."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        with (
            self._job_store.on_end(job_id, lambda: loop.call_soon_threadsafe(ended.set)),
            suppress(TimeoutError),
        ):
            await asyncio.wait_for(ended.wait(), seconds)

    def list(self) -> Sequence[JobInfo]:
        """Return all jobs on record, newest first."""
        return self._job_store.all()

    def may_read(self, job: JobInfo, requester: Requester) -> bool:
        """Return whether a user may see a job's plan, errors and result.

        Its submitter and admins always; others while they may read its datasets whole, since its
        rows come from these.
        """
        return may_read(self._lake, job, self._job_store.note(job.id) or {}, requester)

    def cancel(self, job_id: str) -> JobInfo:
        """Cancel a job; no effect if it has already ended."""
        job = self._job_store.get(job_id)
        if not is_terminal("job", job.state):
            if job.kind == KIND:
                self._maintenance.cancel(job_id)
            else:
                self._loop.post(CancelRequested(job_id))
        return job

    def retry(self, job_id: str, *, submitted_by: str = "", role: str = "") -> JobInfo:
        """Start a job again that failed or was cancelled, as a new job over the same versions.

        Args:
            job_id: The job.
            submitted_by: The principal, whose rights count.
            role: The principal's role.

        Raises:
            Conflict: It has not ended, or is done.
            NotFound: There is no such job, or what it read is gone.
            Unsupported: Its plan was not stored, as it read an encrypted dataset.
        """
        job = self._job_store.get(job_id)
        if job.state not in {"failed", "cancelled"}:
            raise Conflict(
                f"job {job_id} is {job.state}: only a job that failed or was cancelled is retried"
            )
        note = self._job_store.note(job_id) or {}
        if job.kind == "ingest" and "upload" in note:
            return self.submit_ingest(note["upload"], submitted_by=submitted_by)[1]
        if note.get("plan") is None:
            raise Unsupported(
                f"the plan of job {job_id} is not stored", hint="submit the pipeline again"
            )
        return self.submit(
            note["plan"],
            engine=job.engine,
            mem_cap_bytes=note.get("memCapBytes"),
            options=JobOptions.from_json(note.get("options") or {}),
            submitted_by=submitted_by,
            role=role,
            allow_partial=bool(note.get("allowPartial")),
        )

    def _run_again(self, job: JobInfo) -> JobInfo:
        """Start a job again that is done, on this node and for its own user; see `Corrections`."""
        note = self._job_store.note(job.id) or {}
        if note.get("plan") is None or not note.get("resumable"):
            raise Unsupported(
                "its plan is not on record, or read what other versions have replaced"
            )
        options = JobOptions.from_json(note.get("options") or {})
        return self.submit(
            note["plan"],
            engine=NODE_ENGINE,
            mem_cap_bytes=note.get("memCapBytes"),
            options=replace(options, priority="low", deadline_seconds=None),
            submitted_by=job.submitted_by,
            role=str(note.get("role") or ""),
            rerun_of=job.id,
        )

    def result(self, job_id: str) -> Sequence[Path]:
        """Return the Parquet files that hold a job's result, in order.

        Raises:
            Conflict: The job is not done.
            NotFound: There is no such job, or its kind has no rows.
        """
        job = self._job_store.get(job_id)
        if job.state != "done":
            raise Conflict(
                f"job {job_id} is {job.state}, so it has no result",
                hint="wait until it is done" if not is_terminal("job", job.state) else None,
            )
        if job.kind != "plan":
            hint = "an ingest makes a dataset: query that" if job.kind == "ingest" else None
            raise NotFound("result of job", job_id, hint=hint)
        return [self._folder / job_id / "result" / name for name in (job.result or {})["files"]]

    def save(
        self, job_id: str, name: str, mode: str, requester: Requester
    ) -> tuple[str, JobInfo | None]:
        """Start to save a job's result as a dataset, as `ResultSaver.save` says.

        Raises:
            Conflict: The job is not done, its rows are in doubt, or there is such a dataset.
            Unsupported: The job read an encrypted dataset.
        """
        return self._saver.save(
            self._job_store.get(job_id), self.result(job_id), name, mode, requester
        )

    def small_result(self, job_id: str) -> bytes | None:
        """Return a job's result as an Arrow IPC stream, if it is in memory; else None."""
        job = self._job_store.get(job_id)
        return self._job_store.small_results.get(job_id) if job.state == "done" else None

    def open_result(
        self,
        job_id: str,
        format_name: str,
        user: str = "",
        *,
        offset: int = 0,
        limit: int | None = None,
    ) -> HeldExecution:
        """Stream a job's result as "arrow", "json" or "csv"; raises as `result` does.

        The time limit is the same as for a query.

        Args:
            job_id: A completed job.
            format_name: Output format.
            user: The user who requested it; users share the executors fairly.
            offset: Rows to skip.
            limit: Rows to write at most; None for all.
        """
        held = ExitStack()

        def start() -> Execution:
            paths, form = self.result(job_id), "parquet"
            if (self._job_store.note(job_id) or {}).get("sealed"):
                paths, form = self._sealed.open(job_id, paths, held), "arrow"
            rows: Plan = Scan(Files(tuple(str(path) for path in paths), form))
            if offset or limit is not None:
                rows = Limit(rows, _ROWS_MAX if limit is None else limit, offset)
            plan = Sink(rows, StreamTarget(format_name))
            return self._pool.submit(
                PLAN_ENTRY,
                {"plan": plan_to_json(plan)},
                deadline_seconds=self._lake.query_limits.seconds,
                user=user,
                restartable=True,
            )

        return HeldExecution(start, held)

    def recover(self) -> None:
        """Load the jobs of the node's previous run, and continue those that had not ended.

        A pipeline fails if what it read is gone, such as an expired version, or if it was a query.
        """
        unfinished = self._job_store.load()
        self._sealed.forget_others(job.id for job in self._job_store.all())
        for job in self._job_store.all():
            note = self._job_store.note(job.id)
            if job.kind == "ingest" and note is not None:
                self._ingests[note["upload"]] = (job.id, note["dataset"])
        for job in unfinished:
            note = self._job_store.note(job.id)
            # An ingest is repeatable, as its upload is kept until the commit.
            if job.kind == "ingest" and note is not None:
                self._resume_ingest(job, note)
            elif job.kind == "plan" and note is not None:
                self._resume_plan(job, note)
            else:
                self._interrupted(job, "the next run continues it")

        self.corrections.recover(self.remote.wrong_tokens())
        # Linked by a node that ended before it recorded their jobs.
        for upload_id in self._lake.linker.uploads().keys() - self._ingests.keys():
            with suppress(NotFound):
                self.submit_ingest(upload_id)

    def _is_upload_needed(self, upload_id: str) -> bool:
        """Return whether a complete upload has an ingest that may still commit it."""
        try:
            state = self._job_store.get(self._ingests[upload_id][0]).state
        except (KeyError, NotFound):  # a job of long ago
            return False
        return state not in {"failed", "cancelled"}

    def close(self) -> None:
        """Stop all work and wait for it; running jobs count as interrupted, not as cancelled."""
        if self._closed:
            return
        self._closed = True
        self.corrections.close()
        self._loop.close()
        for job_id in list(self._held):
            self._release(job_id)

    # Starting jobs

    def _begin(
        self,
        job: JobInfo,
        work: JobWork,
        note: dict[str, Any],
        held: ExitStack | None = None,
        submission: JobSubmitted | None = None,
    ) -> None:
        held = held or ExitStack()
        try:
            if self._closed:
                raise Closed("the job service")
            # Not those that a restart resumes: it may not lose any.
            if submission is None and len(self._held) >= _JOBS_MAX:
                raise Busy(
                    f"{_JOBS_MAX:,} jobs have not ended", hint="wait for them, or cancel some"
                )
            work.prepare()
            if isinstance(work, IngestWork):  # what it commits must have a record
                self._job_store.add(job, note)
            else:
                self._job_store.publish(job, note)
        except BaseException:
            held.close()
            self._sealed.forget(job.id)
            raise
        # Before the loop may end the job and release it.
        self._held[job.id] = held
        self._job_store.begin_tasks(job.id, work.inputs)
        self._loop.begin(job.id, work, submission)
        if isinstance(work, PlanWork):
            # While its first task runs: a plan writes only to its job's folder, which a restart
            # removes if it has no record.
            self._persist(job.id)

    def _persist(self, job_id: str) -> None:
        """Make a started job durable; cancel it if that fails, because its id is not returned."""
        try:
            self._job_store.persist(job_id)
        except BaseException:
            self._loop.post(CancelRequested(job_id))
            raise

    def _datasets_of(self, job: JobInfo) -> Sequence[str]:
        return datasets_of_job(job, self._job_store.note(job.id) or {})

    def _forget_results(self, dataset: str) -> None:
        """Remove the results of pipelines over a dataset, whose rows are purged."""
        for job in self._job_store.all():
            if job.kind != "plan" or dataset not in self._datasets_of(job):
                continue
            if is_terminal("job", job.state):
                self._job_store.forget(job.id)
            else:  # its shards have the rows
                self._loop.post(CancelRequested(job.id))

    def _release(self, job_id: str) -> None:
        self._held.pop(job_id, ExitStack()).close()

    def _start_ingest(self, job: JobInfo, upload_id: str, dataset_id: str, size: int) -> None:
        work = IngestWork(job.id, upload_id, size, job.submitted_by)
        self._ingests[upload_id] = (job.id, dataset_id)
        note = {"upload": upload_id, "dataset": dataset_id}
        self._begin(job, work, note)

    def _resume_ingest(self, job: JobInfo, note: Mapping[str, Any]) -> None:
        try:
            size = self._lake.parts.seal(note["upload"]).size
        except NotFound as error:
            # The upload is deleted only after its dataset is committed: only the job's record is
            # missing.
            ended = JobChanged(job.id, "failed", error=error.to_json())
            if self._lake.catalog.has_snapshot(note["dataset"], note["upload"]):
                dataset = self._lake.catalog.get(note["dataset"])
                ended = JobChanged(job.id, "done", result=ingest_result(self._lake, dataset))
            self._job_store.record([JobChanged(job.id, "running"), ended])
            return
        except SennitError as error:  # a damaged part costs this job, not the node's start
            ended = JobChanged(job.id, "failed", error=error.to_json())
            self._job_store.record([JobChanged(job.id, "running"), ended])
            return
        self._job_store.record([JobChanged(job.id, "queued")])
        self._start_ingest(self._job_store.get(job.id), note["upload"], note["dataset"], size)

    def _resume_plan(self, job: JobInfo, note: dict[str, Any]) -> None:
        """Continue a pipeline, with the results that its tasks have on disk."""
        held = ExitStack()
        try:
            wrong = self.remote.wrong_tokens()
            now = self._clock.now()
            resumed = resume(job, note, self._binder, held, now=now, wrong_tokens=wrong)
            self._job_store.record([JobChanged(job.id, "queued")])
            queued = self._job_store.get(job.id)
            self._begin(queued, resumed.work, resumed.note, held, resumed.submission)
        except Exception as problem:  # noqa: BLE001 - no job may keep the node from starting
            held.close()
            if not isinstance(problem, SennitError):
                _log.exception("cannot resume job %s", job.id)
            self._interrupted(job, f"submit the job again ({problem})")

    def _interrupted(self, job: JobInfo, hint: str) -> None:
        """Fail a job that cannot be continued."""
        error = Unavailable("the node (it restarted while the job ran)", hint=hint)
        self._job_store.record([JobChanged(job.id, "failed", error=error.to_json())])
        remove_outputs(self._folder / job.id)

    def _dataset_of(self, upload: UploadInfo) -> str:
        """Return the id of the dataset that an upload creates or is appended to."""
        if upload.mode == "create":
            return upload.dataset
        known = self._lake.catalog.find(dataset_name(upload.name, upload.options))
        return upload.dataset if known is None else known.id
