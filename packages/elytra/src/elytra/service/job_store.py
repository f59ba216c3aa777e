"""The records of jobs and tasks: in memory while the node runs, published in the tree.

The submission of a job is durable before it is acknowledged, and so is its end before a waiting
client hears of it; its other states, those of tasks and progress are written without fsync, and
progress at most ten times per second and job. A restart needs the submission, which is stored unchanged in
`work.json` of the job's folder, because the tree does not keep empty lists.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.service.job_table import JobTable
from elytra.service.messages import AttemptChanged, Change, JobChanged, TaskChanged
from elytra.service.small_results import SmallResults
from lake.objects.durable import write_whole
from sennit_core.clock import Clock
from sennit_core.errors import NotFound, SennitError
from sennit_core.hashing import canonical_json
from sennit_core.logs import get_logger
from sennit_core.private_files import make_private_folder
from sennit_core.records import AttemptInfo, JobInfo, Progress, TaskInfo, TaskState, is_terminal

if TYPE_CHECKING:
    from elkyn import ElkynStore

# Each publication is a transaction of the tree.
PROGRESS_SECONDS_MIN = 0.1
_NOTE = "work.json"
_log = get_logger(__name__)


class JobStore:
    """Stores the records of jobs.

    Args:
        tree: The namespace `sys`.
        folder: Parent of the jobs' folders.
        clock: Source of the records' timestamps.
        remembered_max: Ended jobs to keep, with their results; older ones are deleted.
    """

    def __init__(
        self, tree: ElkynStore, folder: Path, *, clock: Clock, remembered_max: int = 200
    ) -> None:
        self.folder = folder
        self.on_forget: Callable[[str], object] = str  # called with the id of a job that is gone
        self.small_results = SmallResults()
        self._rows = JobTable(tree)
        self._clock = clock
        self._remembered_max = remembered_max
        self._lock = threading.RLock()
        # The records; the tree shows copies of them. Once a job is added, a failed write to the
        # tree costs the copy only.
        self._jobs: dict[str, JobInfo] = {}
        # Submissions of jobs that are published and not yet durable.
        self._unsaved: dict[str, dict[str, Any]] = {}
        # Tasks and progress of jobs that have not ended.
        self._tasks: dict[str, dict[str, TaskInfo]] = {}
        # The attempts of these that have not ended.
        self._attempts: dict[str, dict[str, AttemptInfo]] = {}
        self._progress: dict[str, _JobProgress] = {}
        # Called at the end of a job, by its id.
        self._waiting: dict[str, set[Callable[[], object]]] = {}

    def load(self) -> list[JobInfo]:
        """Load the records of a previous run of the node; return the jobs that had not ended."""
        with self._lock:
            for job_id, job in sorted(self._rows.all().items()):
                note = self.note(job_id)
                if note is None and job.kind == "plan":
                    # It ended before its submission was durable, so its id was not returned, and
                    # what it read, and whether its result is encrypted, is not known.
                    self._rows.remove(job_id)
                    continue
                self._jobs[job_id] = replace(job, plan=(note or {}).get("plan"))
            # A folder without a record: its job was never accepted, or was forgotten.
            for folder in self.folder.iterdir() if self.folder.exists() else ():
                if folder.name not in self._jobs:
                    shutil.rmtree(folder, ignore_errors=True)
            return [job for job in self._jobs.values() if not is_terminal("job", job.state)]

    def note(self, job_id: str) -> dict[str, Any] | None:
        """Return the submission of a job; None when its file is missing."""
        held = self._unsaved.get(job_id)
        if held is not None:
            return held
        try:
            note: dict[str, Any] = json.loads((self.folder / job_id / _NOTE).read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return note

    def add(self, job: JobInfo, note: dict[str, Any]) -> None:
        """Store a new job durably.

        Args:
            job: Its record.
            note: The submission.
        """
        self.publish(job, note)
        try:
            self.persist(job.id)
        except BaseException:  # a job that cannot be recorded is not accepted
            with suppress(SennitError):
                self.forget(job.id)
            raise

    def publish(self, job: JobInfo, note: dict[str, Any]) -> None:
        """Show a new job, which may then be started; only `persist` makes it durable.

        Args:
            job: Its record.
            note: The submission.
        """
        with self._lock:
            make_private_folder(self.folder / job.id)
            self._unsaved[job.id] = note
            self._rows.put(job.id, job, ephemeral=True)
            self._jobs[job.id] = job
            self._forget_oldest()

    def persist(self, job_id: str) -> None:
        """Make a published job durable, in whichever state it is by now.

        After a crash before this, `load` removes what there is of the job: nobody knows its id.
        """
        # The submission before the record: a recorded job can always be restarted. Without the lock:
        # meanwhile the job runs, and its states are recorded.
        note = self._unsaved.get(job_id)
        if note is None:  # it was forgotten meanwhile
            return
        write_whole(self.folder / job_id / _NOTE, canonical_json(note))
        with self._lock:
            self._unsaved.pop(job_id, None)
            job = self._jobs.get(job_id)
            # The end of a job is a durable write, and made the whole record durable.
            if job is not None and not is_terminal("job", job.state):
                self._rows.persist(job_id, job)

    def change(self, job_id: str, change: Callable[[JobInfo], JobInfo]) -> JobInfo:
        """Change the record of an ended job; it is durable when this returns.

        Raises:
            NotFound: It is unknown or was deleted.
        """
        with self._lock:
            job = change(self.get(job_id))
            assert is_terminal("job", job.state), "the scheduler records the others"
            self._rows.persist(job_id, job)
            self._jobs[job_id] = job
            return job

    def get(self, job_id: str) -> JobInfo:
        """Return a job; NotFound when it is unknown or was deleted."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                raise NotFound("job", job_id, hint="`platform jobs` lists the known jobs")
            progress = self._progress.get(job_id)
            return job if progress is None else replace(job, progress=progress.sum())

    def all(self) -> list[JobInfo]:
        """Return all jobs, newest first."""
        with self._lock:
            return [self.get(job_id) for job_id in sorted(self._jobs, reverse=True)]

    @contextmanager
    def on_end(self, job_id: str, call: Callable[[], object]) -> Iterator[None]:
        """Call a function at the end of a job; immediately if it has ended or is unknown.

        Args:
            job_id: The job.
            call: Must not block; it is called once, by another thread, during the `with` only.
        """
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or is_terminal("job", job.state):
                call()
            else:
                self._waiting.setdefault(job_id, set()).add(call)
        try:
            yield
        finally:
            with self._lock:
                waiting = self._waiting.get(job_id, set())
                waiting.discard(call)
                if not waiting:
                    self._waiting.pop(job_id, None)

    def begin_tasks(self, job_id: str, inputs: dict[str, tuple[str | None, int | None]]) -> None:
        """Add the tasks of a job, each with its (shard's object, input bytes)."""
        with self._lock:
            self._tasks[job_id] = {
                key: TaskInfo(key, job_id, shard, "pending") for key, (shard, _) in inputs.items()
            }
            self._progress[job_id] = _JobProgress({key: size for key, (_, size) in inputs.items()})

    def record(self, changes: Iterable[Change]) -> None:
        """Record the scheduler's state changes, with one write per job."""
        jobs: dict[str, JobInfo] = {}
        tasks: dict[str, dict[str, TaskInfo]] = {}
        attempts: dict[str, dict[str, AttemptInfo]] = {}
        with self._lock:
            for change in changes:
                if isinstance(change, JobChanged):
                    jobs[change.job] = self._change_job(change)
                elif change.task not in self._tasks.get(change.job, {}):
                    continue
                elif isinstance(change, AttemptChanged):
                    changed = self._change_attempt(change)
                    attempts.setdefault(change.job, {})[change.attempt] = changed
                else:
                    tasks.setdefault(change.job, {})[change.task] = self._change_task(change)
            # One write for each job, so that its state and its tasks never disagree in the tree.
            for job_id in {**jobs, **tasks, **attempts}:
                self._show(
                    job_id,
                    job=jobs.get(job_id),
                    tasks=tasks.get(job_id),
                    attempts=attempts.get(job_id),
                )
            for job_id in jobs:
                if is_terminal("job", self._jobs[job_id].state):
                    self._tasks.pop(job_id, None)
                    self._attempts.pop(job_id, None)
                    self._progress.pop(job_id, None)
                    for call in self._waiting.pop(job_id, ()):
                        call()

    def progress(self, job_id: str, task: str, progress: Progress) -> None:
        """Record the progress of an attempt; `show_progress` publishes it later."""
        live = self._progress.get(job_id)  # no lock: this thread must not wait for a write
        if live is not None:
            live.set(task, progress)

    def show_progress(self) -> None:
        """Publish progress that has changed, at most every 0.1 s for each job."""
        with self._lock:
            for job_id, live in self._progress.items():
                now = self._clock.monotonic()
                # Written without a sync, and only when something changed.
                if live.changed and now - live.shown_at >= PROGRESS_SECONDS_MIN:
                    live.changed, live.shown_at = False, now
                    self._show(job_id, progress=live.sum())

    def _change_job(self, change: JobChanged) -> JobInfo:
        now = self._clock.now()
        job = self._jobs[change.job]
        # The record of an ingest names its file from the start; a state change must keep it.
        result = {**(job.result or {}), **(change.result or {})} or None
        job = replace(job, state=change.state, error=change.error, result=result)
        if change.state == "running" and job.started_at is None:
            job = replace(job, started_at=now)
        if is_terminal("job", change.state):
            job = replace(job, finished_at=now)
        live = self._progress.get(change.job)
        if live is not None:
            live.phase = live.phase if change.state in {"running", "done"} else change.state
            ended = is_terminal("job", change.state)
            job = replace(job, progress=live.total(change.result) if ended else live.sum())
        self._jobs[change.job] = job
        return job

    def _change_task(self, change: TaskChanged) -> TaskInfo:
        tasks = self._tasks[change.job]
        tasks[change.task] = task = replace(
            tasks[change.task],
            state=change.state,
            attempts=change.attempts,
            partial=(change.partial or {}).get("file"),
        )
        self._progress[change.job].end(change.task, change.state)
        return task

    def _change_attempt(self, change: AttemptChanged) -> AttemptInfo:
        attempts = self._attempts.setdefault(change.job, {})
        now = self._clock.now()
        attempt = attempts.pop(change.attempt, None) or AttemptInfo(
            change.attempt, change.job, change.task, change.worker, "leased", now
        )
        attempt = replace(attempt, state=change.state, error=change.error)
        if is_terminal("attempt", change.state):
            return replace(attempt, finished_at=now)
        attempts[change.attempt] = attempt
        return attempt

    def _show(
        self,
        job_id: str,
        *,
        job: JobInfo | None = None,
        tasks: Mapping[str, TaskInfo] | None = None,
        attempts: Mapping[str, AttemptInfo] | None = None,
        progress: Progress | None = None,
    ) -> None:
        # After a crash, a job that had not ended is queued again or has failed, whatever else it was.
        ephemeral = job is None or not is_terminal("job", job.state)
        try:
            self._rows.show(
                job_id,
                job=job,
                tasks=tasks,
                attempts=attempts,
                progress=progress,
                ephemeral=ephemeral,
            )
        except SennitError as error:  # the job continues; `get` reads from memory
            _log.warning("cannot publish job %s in the tree: %s", job_id, error)

    def forget(self, job_id: str) -> None:
        """Remove an ended job with its result."""
        with self._lock:
            del self._jobs[job_id]
            self._unsaved.pop(job_id, None)
            self.small_results.drop(job_id)
            self._rows.remove(job_id)
            shutil.rmtree(self.folder / job_id, ignore_errors=True)
            self.on_forget(job_id)

    def _forget_oldest(self) -> None:
        ended = [job.id for job in self._jobs.values() if is_terminal("job", job.state)]
        for job_id in sorted(ended)[: max(0, len(ended) - self._remembered_max)]:
            self.forget(job_id)


class _JobProgress:
    """The progress of a job: the sum over its tasks."""

    def __init__(self, input_bytes: dict[str, int | None]) -> None:
        self._input_bytes = input_bytes
        self._tasks: dict[str, Progress] = {}
        # Tasks whose result counts; a later report of a stopped attempt does not change them.
        self._done: set[str] = set()
        # Executions report from their own threads.
        self._lock = threading.Lock()
        self._peak_bytes = 0
        self.phase = ""
        self.changed = False
        self.shown_at = float("-inf")

    def set(self, task: str, progress: Progress) -> None:
        with self._lock:
            self._tasks[task] = progress
            self._peak_bytes = max(self._peak_bytes, progress.memory_bytes)
            self.phase = progress.phase or self.phase
            self.changed = True

    def end(self, task: str, state: TaskState) -> None:
        with self._lock:
            self.changed = True
            if state == "done":
                self._done.add(task)
                return
            if state == "pending":
                self._done.discard(task)  # its result is not used any more
            if task not in self._done:
                self._tasks.pop(task, None)  # the next attempt starts at zero

    def sum(self) -> Progress:
        with self._lock:
            parts = list(self._tasks.values())
            working = [part for task, part in self._tasks.items() if task not in self._done]
            bytes_done = sum(self._bytes_done(task) for task in self._input_bytes)
            rows = sum(part.rows for task, part in self._tasks.items() if task in self._input_bytes)
        known = [size for size in self._input_bytes.values() if size is not None]
        return Progress(
            done=len(self._done),
            total=len(self._input_bytes),
            bytes_done=bytes_done,
            bytes_total=sum(known) if known else None,
            rows=rows,
            memory_bytes=sum(part.memory_bytes for part in working),
            cap_bytes=max((part.cap_bytes or 0 for part in parts), default=0) or None,
            spilled_bytes=sum(part.spilled_bytes for part in parts),
            phase=self.phase,
        )

    def total(self, result: Mapping[str, Any] | None) -> Progress:
        """Return the final progress of an ended job; its memory is the largest peak of a task."""
        totals = result or {}
        progress = self.sum()
        return replace(
            progress,
            rows=int(totals.get("rowsRead") or totals.get("rows") or progress.rows),
            memory_bytes=max(self._peak_bytes, int(totals.get("peakBytes") or 0)),
            cap_bytes=totals.get("capBytes") or progress.cap_bytes,
        )

    def _bytes_done(self, task: str) -> int:
        size = self._input_bytes[task]
        reported = self._tasks.get(task)
        if task in self._done:
            return size or 0
        return 0 if reported is None else min(reported.bytes_done, size or reported.bytes_done)
