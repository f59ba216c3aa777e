"""The scheduler of jobs: transitions per second, the cost of a tiny task, fairness of many jobs.

    python benchmarks/bench_elytra_scheduler.py [--tasks 10000] [--jobs 1000]

Three tables:

- the state machine alone: CPU time for state changes of tasks, from one worker to hundreds; with leases,
  which remote workers have, and without;
- end to end: jobs of tiny tasks through the real loop, with records in a real tree and journals on disk,
  on workers that do nothing. The peer is a `ThreadPoolExecutor` with as many threads, which records nothing;
- fairness: a thousand jobs at once, of two users with very different numbers of jobs; the Jain index of what
  each has been given at half time.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from elkyn import ElkynStore
from elytra.backends import NodeFiles, Report, TaskSpec, Workers
from elytra.service.job_store import JobStore
from elytra.service.loop import SchedulerLoop
from elytra.service.messages import (
    AttemptFinished,
    AttemptStarted,
    Event,
    JobSubmitted,
    StartAttempt,
    TaskChanged,
    Tick,
    WorkerJoined,
)
from elytra.service.scheduler import Scheduler
from elytra.service.work import PlanWork, Shard
from elytra.splitter import split
from emsqrt.expr import count
from emsqrt.plan import Aggregate, DatasetRef, Scan
from lake.objects.verification import ShardFile
from sennit_core.clock import SYSTEM
from sennit_core.ids import new_id, task_key
from sennit_core.records import JobInfo, ShardInfo
from sennit_core.schema import Schema

WORKERS = (1, 16, 256)


def measure_core(tasks: int, workers: int, lease_seconds: float | None) -> float:
    """Return state changes of tasks per CPU second of the state machine."""
    scheduler = Scheduler()
    keys = tuple(task_key(index) for index in range(tasks))
    todo: deque[Event] = deque(
        WorkerJoined(f"w{index}", 4, lease_seconds=lease_seconds) for index in range(workers)
    )
    todo.append(JobSubmitted("j", keys))
    changes = events = 0
    began = time.process_time()
    while todo:
        events += 1
        if events % 100 == 0:
            scheduler.handle(Tick(events / 1e5))
        for instruction in scheduler.handle(todo.popleft()):
            if isinstance(instruction, TaskChanged):
                changes += 1
            elif isinstance(instruction, StartAttempt):
                todo.append(AttemptStarted(instruction.attempt))
                todo.append(AttemptFinished(instruction.attempt, {}))
    took = time.process_time() - began
    assert changes == 3 * tasks, "each task is leased, runs and is done"
    return changes / took


def measure_fairness(jobs: int, tasks: int) -> tuple[float, float]:
    """Return the Jain indices at half time: over equal jobs of one user, and over two users.

    One user has nine tenths of the jobs. Workers finish in the order in which they started.
    """
    one = _given(Counter({"ann": jobs}), tasks)
    two = _given(Counter({"ann": jobs * 9 // 10, "eve": jobs // 10}), tasks)
    users = Counter(job[:3] for job in two.elements())
    return jain(one.values()), jain(users.values())


def _given(jobs_of: Mapping[str, int], tasks: int) -> Counter[str]:
    """Return how many tasks each job has been given when the smaller half of all work is done."""
    scheduler, running = Scheduler(), deque[str]()
    names = [f"{user}{index}" for user, count in jobs_of.items() for index in range(count)]
    keys = tuple(task_key(index) for index in range(tasks))
    given: Counter[str] = Counter(dict.fromkeys(names, 0))
    # No user runs out of tasks before that.
    half = min(jobs_of.values()) * tasks // (2 if len(jobs_of) == 1 else 1)
    events: Iterable[Event] = [
        *(JobSubmitted(name, keys, user=name[:3]) for name in names),
        WorkerJoined("w", 16),
    ]
    pending = deque(events)
    while given.total() < half:
        event = pending.popleft() if pending else AttemptFinished(running.popleft(), {})
        for instruction in scheduler.handle(event):
            if isinstance(instruction, StartAttempt):
                running.append(instruction.attempt)
                given[instruction.job] += 1
    return given


def jain(values: Iterable[int]) -> float:
    """Return the index of Jain, Chiu and Hawe (1984): 1 if all are equal, 1/n if one has all."""
    given = list(values)
    return sum(given) ** 2 / (len(given) * sum(value * value for value in given))


class IdleBackend:
    """Workers that end each task at once, on threads of their own.

    Args:
        workers: How many.
    """

    name: ClassVar[str] = "local"

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers)

    def open(self, workers: Workers) -> None:
        """Report the workers."""
        for index in range(self._workers):
            workers.joined(f"idle-{index}")

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        """End a task."""
        del worker
        self.start_merge(task, files, report)

    def start_merge(self, task: TaskSpec, files: NodeFiles, report: Report) -> None:
        """End a merge."""
        del task
        self._threads.submit(_end, files.output.name, report)

    def start_ingest(self, task: object, report: Report) -> None:
        """There are none."""

    def stop(self, task_id: str) -> None:
        """Do nothing: tasks have ended."""

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


def _end(file: str, report: Report) -> None:
    report.started()
    report.finished({"file": file, "bytes": 0, "manifest": {}})


def make_work(folder: Path, tasks: int) -> PlanWork:
    """Return a job that counts the rows of so many shards, which do not exist."""
    ref = DatasetRef("d", "s")
    plan = Aggregate(Scan(ref), (), (("n", count()),))
    shards = tuple(
        Shard(
            ShardInfo(f"{index:064x}", rows=1, bytes=100, partition={}, stats={}),
            ShardFile("d", index, f"/none/{index:064x}"),
        )
        for index in range(tasks)
    )
    cut = split(plan, Schema.of(n="Int64"))
    job = new_id()
    return PlanWork(job, cut, {ref: shards}, {"d": "d"}, folder / job, None)


def measure_end_to_end(tasks: int, workers: int) -> tuple[float, float]:
    """Return CPU and wall milliseconds of the whole process for each task."""
    with tempfile.TemporaryDirectory() as name, ElkynStore(Path(name) / "tree") as tree:
        folder, backend, ended = Path(name) / "jobs", IdleBackend(workers), threading.Event()
        store = JobStore(tree, folder, clock=SYSTEM)
        loop = SchedulerLoop(
            store,
            folder,
            backends={"local": backend},
            node_backend=backend,
            on_end=lambda _: ended.set(),
        )
        work = make_work(folder, tasks)
        began = time.process_time(), time.perf_counter()
        store.add(_record(work.job), {})
        store.begin_tasks(work.job, work.inputs)
        loop.begin(work.job, work)
        ended.wait()
        took = time.process_time() - began[0], time.perf_counter() - began[1]
        loop.close()
        assert store.get(work.job).state == "done", store.get(work.job).error
    return took[0] / tasks * 1e3, took[1] / tasks * 1e3


def _record(job: str) -> JobInfo:
    return JobInfo(job, "plan", None, None, "local", "queued", None, "", SYSTEM.now())


def measure_pool(tasks: int, workers: int) -> float:
    """Return CPU milliseconds for each task of a `ThreadPoolExecutor`."""
    began = time.process_time()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(str, range(tasks)))
    return (time.process_time() - began) / tasks * 1e3


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=1_000)
    arguments = parser.parse_args()

    print(f"{'the state machine alone':<34}{'transitions/s of CPU':>22}")
    for workers in WORKERS:
        for name, lease in (("node", None), ("leases", 30.0)):
            best = max(measure_core(arguments.tasks, workers, lease) for _ in range(3))
            print(f"{f'{workers} workers of 4 slots, {name}':<34}{best:>22,.0f}")

    print(f"\n{f'{arguments.tasks:,} tiny tasks, end to end':<34}{'CPU ms':>10}{'wall ms':>10}")
    for workers in (2, 16):
        cpu, wall = measure_end_to_end(arguments.tasks, workers)
        pool = measure_pool(arguments.tasks, workers)
        print(f"{f'{workers} workers':<34}{cpu:>10.3f}{wall:>10.3f}")
        print(f"{f'{workers} threads of a pool, no records':<34}{pool:>10.3f}")

    one, two = measure_fairness(arguments.jobs, 10)
    print(f"\n{f'{arguments.jobs:,} jobs of 10 tasks at once':<34}{'Jain index':>10}")
    print(f"{'over the jobs of one user':<34}{one:>10.4f}")
    print(f"{'over two users, 9 to 1 jobs':<34}{two:>10.4f}")


if __name__ == "__main__":
    main()
