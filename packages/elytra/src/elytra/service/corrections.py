"""Run jobs again that had ended with rows of a worker that was found to be wrong later.

    doubt(token)   every job on record that is done and names the token in its result: `doubted`
    one by one     a new run of the same plan over the same versions, on this node   `running`
    equal rows     the result stays                                                  `confirmed`
    other rows     the new files take the place of the old ones                      `corrected`
    no new run     what it read is gone, its user may not read it any more, …        `failed`

Each state is in the member `check` of the job's record, and durable before the next step, so a node that is
killed in between goes on from there. The new run is a job as any other: it is listed, counts as its user's,
resumes after a restart, and can be cancelled. Datasets that were saved from the wrong rows are named, and
not changed: others may have read them, and only their owner knows what follows.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lake.objects.durable import fsync_folder
from sennit_core.clock import Clock
from sennit_core.errors import NotFound, SennitError
from sennit_core.logs import get_logger
from sennit_core.records import JobInfo, is_terminal
from sennit_core.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.service.job_store import JobStore

__all__ = ["Corrections", "is_in_doubt"]

_JOBS_OF_A_TOKEN_MAX = 100
"""The newest ones. A worker that is wrong on purpose makes the node compute so much."""
_RUNS_PER_HOUR = 60
_HOUR_SECONDS = 3600.0
_OPEN = frozenset(("doubted", "running"))
_log = get_logger(__name__)


def is_in_doubt(job: JobInfo) -> bool:
    """Whether a job's rows may be wrong: it has to be run again, or could not be."""
    return job.check is not None and job.check["state"] in {*_OPEN, "failed"}


class Corrections:
    """Checks the jobs of one node, one at a time, on a thread that starts with the first of them.

    Args:
        store: The records of jobs.
        run_again: Submits a job's plan again, on this node; the new job's record names the old one.
        clock: Source of time.
    """

    jobs_of_a_token_max: ClassVar[int] = _JOBS_OF_A_TOKEN_MAX

    def __init__(
        self, store: JobStore, run_again: Callable[[JobInfo], JobInfo], clock: Clock
    ) -> None:
        self._store = store
        self._run_again = run_again
        self._clock = clock
        # Guards all below; notified at each change. The store's lock is never taken under it.
        self._changed = threading.Condition()
        self._tokens: deque[str] = deque()
        self._jobs: deque[str] = deque()
        # When the runs of the last hour were started.
        self._started: deque[float] = deque()
        self._is_closing = False
        # Set at the end of the new run that the thread waits for, and when the node closes.
        self._interrupt = threading.Event()
        self._thread: threading.Thread | None = None

    def doubt(self, token: str) -> None:
        """Check the jobs that are done with rows of a token; a repeated call has no effect."""
        with self._changed:
            self._tokens.append(token)
            self._wake()

    def recover(self, tokens: Iterable[str]) -> None:
        """Go on after a restart of the node.

        Args:
            tokens: All that were found to be wrong: the node may have ended before it noted the jobs.
        """
        jobs = self._store.all()
        originals = {job.id for job in jobs if job.check and job.check["state"] in _OPEN}
        for job in jobs:  # of which the outcome is noted already
            is_needed = job.rerun_of is None or job.rerun_of in originals
            if not is_needed and is_terminal("job", job.state):
                self._store.forget(job.id)
        with self._changed:
            self._jobs += sorted(originals)
            self._tokens += tokens
            if self._jobs or self._tokens:
                self._wake()

    def jobs_of(self, token: str) -> Sequence[str]:
        """Return the ids of the jobs that were doubted because of a token, the oldest first."""
        jobs = reversed(self._store.all())
        return [job.id for job in jobs if job.check is not None and job.check["token"] == token]

    def close(self) -> None:
        """Stop; what has not ended goes on after the next start."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._interrupt.set()
        if self._thread is not None:
            self._thread.join()

    # On the thread

    def _wake(self) -> None:
        if self._thread is None and not self._is_closing:
            self._thread = threading.Thread(
                target=self._run, name="elytra-corrections", daemon=True
            )
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while not self._is_closing:
            try:
                self._step()
            except NotFound:
                pass  # the job was deleted meanwhile
            except Exception:  # noqa: BLE001 - one job must not end the checks of others
                _log.exception("the check of a job failed unexpectedly")

    def _step(self) -> None:
        """Mark the jobs of a token, or check a job, or wait."""
        with self._changed:
            token = self._tokens.popleft() if self._tokens else None
            if token is None:
                seconds = self._seconds_to_next_run() if self._jobs else None
                if seconds != 0:
                    if not self._is_closing:
                        self._changed.wait(seconds)
                    return
                job_id = self._jobs.popleft()
        if token is not None:
            self._mark(token)
            return
        try:
            self._check(job_id)
        except (OSError, ValueError) as problem:  # a file cannot be read or written
            self._fail(self._store.get(job_id), f"its rows cannot be compared: {problem}")

    def _seconds_to_next_run(self) -> float:
        now = self._clock.monotonic()
        while self._started and now - self._started[0] >= _HOUR_SECONDS:
            self._started.popleft()
        if len(self._started) < _RUNS_PER_HOUR:
            return 0.0
        return _HOUR_SECONDS - (now - self._started[0])

    def _mark(self, token: str) -> None:
        found = [
            job
            for job in self._store.all()
            if job.state == "done" and token in (job.result or {}).get("tokens", ())
            if not is_in_doubt(job)
        ]
        check: dict[str, Any] = {"state": "doubted", "token": token, "since": self._clock.now()}
        why = f"more than {self.jobs_of_a_token_max} jobs have rows of this worker"
        failed = {**check, "state": "failed", "reason": f"{why}: submit it again"}
        for job in found[self.jobs_of_a_token_max :]:
            self._store.change(job.id, lambda job: replace(job, check=failed))
        for job in found[: self.jobs_of_a_token_max]:
            self._store.change(job.id, lambda job: replace(job, check=check))
            self._jobs.append(job.id)

    def _check(self, job_id: str) -> None:
        job = self._store.get(job_id)
        if job.check is None or job.check["state"] not in _OPEN:
            return
        try:
            again = self._new_run(job)
        except SennitError as error:
            self._fail(job, f"it cannot be run again: {error}")
            return
        if not self._wait(again.id):
            return  # the node closes
        again = self._store.get(again.id)
        if again.state == "done":
            self._compare(job, again)
        else:
            problem = (again.error or {}).get("error", "by its user")
            self._fail(job, f"its new run is {again.state}: {problem}")
        self._store.forget(again.id)

    def _new_run(self, job: JobInfo) -> JobInfo:
        for each in self._store.all():
            if each.rerun_of == job.id:  # of a previous run of the node
                return each
        self._started.append(self._clock.monotonic())
        again = self._run_again(job)
        self._store.change(job.id, lambda job: _checked(job, state="running", job=again.id))
        return again

    def _wait(self, job_id: str) -> bool:
        """Wait for the end of a job; return False if the node closes first."""
        # No lock is held: the store calls `set` under its own.
        self._interrupt.clear()
        with self._store.on_end(job_id, self._interrupt.set):
            while not self._is_closing:
                if is_terminal("job", self._store.get(job_id).state):
                    return True
                self._interrupt.wait()
                self._interrupt.clear()
        return False

    def _compare(self, job: JobInfo, again: JobInfo) -> None:
        """Keep the rows of a job if they are those of its new run, else put these in their place."""
        old, new = (self._files(each) for each in (job, again))
        if _digest(old) == _digest(new):
            self._store.change(job.id, lambda job: _checked(_of_node(job), state="confirmed"))
            return
        folder = self._store.folder / job.id / "result"
        names = [f"corrected-{index}.parquet" for index in range(len(new))]
        for name, path in zip(names, new, strict=True):
            (folder / name).unlink(missing_ok=True)  # of a check that a kill ended
            os.link(path, folder / name)
        fsync_folder(folder)

        def corrected(job: JobInfo) -> JobInfo:
            # A dataset that is saved from now on has the right rows: `savedAs` goes to the mark.
            saved = (job.result or {}).get("savedAs")
            job = replace(job, result={**(again.result or {}), "files": names})
            return _checked(_of_node(job), state="corrected", savedAs=saved)

        self._store.small_results.drop(job.id)
        done = self._store.change(job.id, corrected)
        saved = (done.check or {}).get("savedAs")
        _log.warning("job %s had wrong rows, which are replaced; saved as: %s", job.id, saved)
        for path in old:
            path.unlink(missing_ok=True)

    def _fail(self, job: JobInfo, reason: str) -> None:
        self._store.change(job.id, lambda job: _checked(job, state="failed", reason=reason))

    def _files(self, job: JobInfo) -> list[Path]:
        folder = self._store.folder / job.id / "result"
        return [folder / name for name in (job.result or {})["files"]]


def _checked(record: JobInfo, state: str, **members: Any) -> JobInfo:
    """Return a record with a changed mark; members without a value are left out."""
    check = {**(record.check or {}), "job": None, "state": state, **members}
    return replace(record, check={name: each for name, each in check.items() if each is not None})


def _of_node(job: JobInfo) -> JobInfo:
    """Return the record of a job whose rows are all the node's: no worker that is wrong concerns it."""
    found = {name: each for name, each in (job.result or {}).items() if name != "tokens"}
    return replace(job, result=found)


def _digest(paths: Sequence[Path]) -> str:
    """Return the hash of the rows of a result; its files have one schema."""
    import pyarrow.parquet as pq

    from elytra.backends.remote.row_digest import row_digest

    def batches() -> Iterator[pa.RecordBatch]:
        for path in paths:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches()

    schema = Schema.from_arrow(pq.read_schema(paths[0]))
    return row_digest(schema, batches())
