"""The rows of jobs and their tasks."""

from collections.abc import Iterator

import pytest

from elkyn import ElkynStore
from elytra.service.job_table import JobTable
from sennit_core.records import JobInfo, Progress, TaskInfo


@pytest.fixture
def table() -> Iterator[JobTable]:
    with ElkynStore(mode="memory", namespace="sys") as tree:
        yield JobTable(tree)


def job(state: str = "queued") -> JobInfo:
    return JobInfo("j1", "plan", {"op": "scan"}, "h", "local", state, None, "me", 1.0)  # type: ignore[arg-type]


def test_a_removed_job_is_gone_with_its_tasks(table: JobTable) -> None:
    table.put("j1", job())
    table.show("j1", tasks={"t0": TaskInfo("t0", "j1", "o", "pending")}, ephemeral=True)
    table.remove("j1")

    assert table.all() == {}
    assert table.tasks("j1").all() == {}


def test_a_job_is_read_with_its_tasks_and_keeps_its_plan(table: JobTable) -> None:
    table.put("j1", job())
    task, progress = TaskInfo("t0", "j1", "o", "done", 1, "f"), Progress(done=1, total=2)
    table.show("j1", job=job("running"), tasks={"t0": task}, progress=progress)

    shown = table.get("j1")
    assert shown is not None
    assert (shown.state, shown.plan, shown.progress) == ("running", {"op": "scan"}, progress)
    assert table.tasks("j1").get("t0") == task
