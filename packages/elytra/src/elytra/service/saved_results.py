"""Save the rows of a finished pipeline as a dataset: an ingest of the job's result file.

The ingest is a job of its own, and everything that holds for the ingest of an upload holds for it:
it resumes after a crash, commits in one step, and counts against quotas. Its upload has an id
that is derived from the job, the name and the mode. So a request that is repeated, because its
response was lost or the node was killed, finds the ingest, or the committed snapshot.

    the job has several files      one executor run copies them into one, in order
    record an upload in place      durable; its id says what was requested
    start its ingest as a job      a repeated start returns the same job
    commit                         the snapshot's id is that of the upload
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from elytra.service.corrections import is_in_doubt
from elytra.service.work import PLAN_ENTRY
from emsqrt.plan import Files, FileTarget, Scan, Sink, plan_to_json
from lake.catalog.catalog import check_dataset_name
from lake.links.local_files import LocalFile
from lake.statements.limits import Requester
from sennit_core.errors import Conflict, NotFound, Unsupported
from sennit_core.ids import derived_id
from sennit_core.records import JobInfo

if TYPE_CHECKING:
    from elytra.service.job_store import JobStore
    from emsqrt.executor import ExecutorPool
    from lake import Lake

SAVE_MODES = ("create", "append", "replace")


class ResultSaver:
    """Turns results of jobs into datasets.

    Args:
        lake: Stores the datasets.
        pool: Joins the files of results that have several.
        store: The records of jobs.
        submit_ingest: Starts the ingest of an upload, as `JobService.submit_ingest`.
    """

    def __init__(
        self,
        lake: Lake,
        pool: ExecutorPool,
        store: JobStore,
        submit_ingest: Callable[..., tuple[str, JobInfo]],
    ) -> None:
        self._lake = lake
        self._pool = pool
        self._store = store
        self._submit_ingest = submit_ingest
        # One at a time: two equal requests must not record two uploads.
        self._lock = threading.Lock()

    def save(
        self, job: JobInfo, files: Sequence[Path], name: str, mode: str, requester: Requester
    ) -> tuple[str, JobInfo | None]:
        """Start to save a result as a dataset; a repeated call returns the same dataset and job.

        Args:
            job: A job that is done.
            files: Its result, Parquet files in order.
            name: The dataset's name.
            mode: `create`, `append` or `replace`.
            requester: Who owns the dataset, if it is created.

        Returns:
            The dataset's id, and the job that ingests the rows; None if that was committed and its
            job is not on record any more.

        Raises:
            Conflict: The mode is `create` and there is such a dataset, or the rows are in doubt.
            Unsupported: The job read an encrypted dataset.
            Denied: The user may not change the dataset.
            StorageFull: The user's quota has no room for the rows.
        """
        check_dataset_name(name)
        self._check_savable(job)
        # Rows that were corrected are others than those that may have been saved before.
        version = ("corrected",) if (job.check or {}).get("state") == "corrected" else ()
        upload_id = derived_id(job.id, name, mode, *version)
        with self._lock:
            # Before an ingest that has failed is started again: the right may be gone by now.
            if self._lake.policies:
                self._lake.policies.check_upload(name, mode, requester)
            try:
                return self._submit_ingest(upload_id, submitted_by=requester.name)
            except NotFound:  # the first request, or one after the upload was ingested and removed
                pass
            dataset = self._lake.catalog.find(name)
            if dataset is not None and self._lake.catalog.has_snapshot(dataset.id, upload_id):
                return dataset.id, None
            file = self._one_file(files, requester.name)
            self._lake.quotas.check_room(
                requester.name, f"the rows of job {job.id}", file.stat().st_size
            )
            # Before there can be a dataset: a worker may be found to be wrong later.
            self._store.change(job.id, lambda job: _saved_as(job, name))
            status = file.stat()
            self._lake.parts.start_in_place(
                f"{name}.parquet",
                LocalFile(str(file), status.st_ino, status.st_size, status.st_mtime_ns),
                mode=mode,
                options={"name": name},
                linked=False,
                upload_id=upload_id,
            )
            return self._submit_ingest(upload_id, submitted_by=requester.name)

    def _check_savable(self, job: JobInfo) -> None:
        if (self._store.note(job.id) or {}).get("sealed"):
            raise Unsupported(
                f"the result of job {job.id} is encrypted, and a new dataset would not be",
                hint="create the dataset encrypted: platform put FILE --encrypt",
            )
        if is_in_doubt(job):
            assert job.check is not None
            raise Conflict(
                f"a worker that computed rows of job {job.id} was found to be wrong, and the check of "
                f"these rows is {job.check['state']}",
                hint="wait: the node checks them by itself; else submit its pipeline again",
            )

    def _one_file(self, files: Sequence[Path], user: str) -> Path:
        """Return a single file with the rows of all; an ingest reads one."""
        if len(files) == 1:
            return files[0]
        joined = files[0].with_name("joined.parquet")
        if joined.exists():  # it has its name only when it is complete
            return joined
        rows = Scan(Files(tuple(map(str, files)), "parquet"))
        plan = Sink(rows, FileTarget(str(joined), "parquet"))
        with self._pool.submit(PLAN_ENTRY, {"plan": plan_to_json(plan)}, user=user) as execution:
            execution.result()
        return joined


def _saved_as(job: JobInfo, name: str) -> JobInfo:
    """Return the record of a job whose rows are saved under a name, which its `check` may have to list."""
    result = dict(job.result or {})
    result["savedAs"] = sorted({*result.get("savedAs", ()), name})
    return replace(job, result=result)
