"""The rows of jobs in the namespace `sys`: `/jobs/{id}`, with `tasks/{key}` and `attempts/{id}` below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from elkyn.records import Table
from sennit_core.records import AttemptInfo, JobInfo, Progress, TaskInfo

if TYPE_CHECKING:
    from elkyn import ElkynStore


class JobTable(Table[JobInfo]):
    """The jobs, with their tasks below them.

    Args:
        tree: The namespace `sys`.
    """

    def __init__(self, tree: ElkynStore) -> None:
        super().__init__(tree, "/jobs", JobInfo)

    def tasks(self, job_id: str) -> Table[TaskInfo]:
        """Return the tasks of a job."""
        return Table(self._tree, f"{self._place(job_id)}/tasks", TaskInfo)

    def persist(self, job_id: str, job: JobInfo) -> None:
        """Make the members of a job durable; what is below it stays, such as its tasks."""
        self._tree.update(self._place(job_id), job.to_json())

    def show(
        self,
        job_id: str,
        *,
        job: JobInfo | None = None,
        tasks: Mapping[str, TaskInfo] | None = None,
        attempts: Mapping[str, AttemptInfo] | None = None,
        progress: Progress | None = None,
        ephemeral: bool = False,
    ) -> None:
        """Write the changed members of a job, in one write.

        Args:
            job_id: the id of the job.
            job: the job's members except the plan, which never changes.
            tasks: changed tasks by key.
            attempts: changed attempts by id.
            progress: replaces the progress in `job`.
            ephemeral: as in `ElkynStore.set`.
        """
        members: dict[str, Any] = {} if job is None else job.to_json()
        members.pop("plan", None)
        if progress is not None:
            members["progress"] = progress.to_json()
        for key, task in (tasks or {}).items():
            members[f"tasks/{key}"] = task.to_json()
        for attempt_id, attempt in (attempts or {}).items():
            members[f"attempts/{attempt_id}"] = attempt.to_json()
        if members:
            self._tree.update(self._place(job_id), members, ephemeral=ephemeral)
