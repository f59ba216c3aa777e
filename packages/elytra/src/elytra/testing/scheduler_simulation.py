"""A simulated world around the scheduler: workers that die, stall, corrupt results and come back.

One seed decides everything. The scheduler is the real one; what is simulated are workers, messages
(delayed, repeated, out of order) and the clock. Invariants are asserted at each instruction, and at the
end by `check_end`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any, Literal, TypeAlias

from elytra.service.job_options import JobOptions
from elytra.service.messages import (
    AttemptChanged,
    AttemptFailed,
    AttemptFinished,
    AttemptProgressed,
    AttemptStarted,
    CancelRequested,
    DropPartial,
    Event,
    Instruction,
    JobChanged,
    JobSubmitted,
    MergeFailed,
    MergeFinished,
    StartAttempt,
    StartMerge,
    StopAttempt,
    TaskChanged,
    Tick,
    WorkerJoined,
    WorkerLeft,
)
from elytra.service.scheduler import Limits, Scheduler
from sennit_core.records import check_transition, is_terminal

__all__ = ["Scale", "SchedulerSimulation"]

Kind: TypeAlias = Literal["healthy", "slow", "flaky", "stalling", "corrupting"]
_ENGINES = ("local", "remote")
_ENDS = (AttemptFinished, AttemptFailed)
_LEASE_SECONDS = 10.0
_FAULTY_SECONDS = 120.0
_CALM_SECONDS = 5_000.0


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a simulation: the greatest numbers of each."""

    jobs: int = 6
    tasks: int = 10
    workers: int = 6


@dataclass(eq=False)
class _Worker:
    id: str
    engine: str
    slots: int
    kind: Kind
    is_joined: bool = False
    # Attempts that the scheduler assigned to it and of which it has received no end: each uses a slot.
    assigned: set[str] = field(default_factory=set)
    # Increased when it dies: what it was about to send is not sent.
    life: int = 0
    # Whether it has not noticed that it was asked to stop an attempt, and so never ends it.
    is_deaf: bool = False


@dataclass(eq=False)
class _Job:
    submission: JobSubmitted
    poison: frozenset[str]
    state: str = "queued"
    merges: list[tuple[int, ...]] = field(default_factory=list)
    skipped: tuple[str, ...] = ()
    ends: int = 0
    # Whether it was admitted, so that its tasks have records.
    has_run: bool = False


class SchedulerSimulation:
    """One history.

    Args:
        seed: Decides it.
        scale: How large it is.
    """

    def __init__(self, seed: int, scale: Scale = Scale()) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 0.0
        limits = Limits(
            running_jobs_max=self.random.choice((2, 1000)),
            unmerged_bytes_max=self.random.choice((250, 1 << 30)),
        )
        self.scheduler = Scheduler(limits)
        self.jobs: dict[str, _Job] = {}
        self.workers: dict[str, _Worker] = {}
        self.events = 0
        self.counts: Counter[str] = Counter()
        self._is_calm = False
        # What happens next: (time, number, action); the number makes the order of equal times fixed.
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0
        self._states: dict[tuple[str, str], str] = {}
        self._attempt_worker: dict[str, str] = {}
        self._failed_on: dict[str, set[str]] = {}
        self._failures: Counter[str] = Counter()
        self._ended: set[str] = set()
        # (job, task) of each instruction that records a task as done.
        self._recorded: set[tuple[str, str]] = set()
        self._build(scale)

    def run(self) -> None:
        """Run until all jobs have ended; faults stop after two simulated minutes."""
        self._at(0.5, self._tick)
        while self._agenda and (self.scheduler.live_jobs or self.now < _FAULTY_SECONDS):
            self._step()
            if self.now >= _FAULTY_SECONDS and not self._is_calm:
                self._calm_down()
            assert self.now < _CALM_SECONDS, (
                f"seed {self.seed}: jobs that never end: {self._open()}"
            )

    def check_end(self) -> None:
        """Assert what must hold when all jobs have ended."""
        for name, job in self.jobs.items():
            assert job.ends == 1, f"seed {self.seed}: {name} has ended {job.ends} times"
            if job.state == "done":
                self._check_result(name, job)
            if job.has_run:
                recorded = {task for task in job.submission.done if (name, task) in self._recorded}
                assert recorded == set(job.submission.done), (
                    f"seed {self.seed}: {name}: results of a previous run are not on record"
                )
        self._check_slots()

    def _build(self, scale: Scale) -> None:
        for index in range(self.random.randint(1, scale.workers)):
            engine = self.random.choice(_ENGINES)
            kinds: tuple[Kind, ...] = (
                "healthy",
                "healthy",
                "slow",
                "flaky",
                "stalling",
                "corrupting",
            )
            # The slots of the node neither stall nor corrupt results: the node watches its processes.
            kind = self.random.choice(kinds if engine == "remote" else kinds[:4:3])
            worker = _Worker(f"{engine}/w{index}", engine, self.random.randint(1, 3), kind)
            self.workers[worker.id] = worker
            self._at(self.random.expovariate(0.2), partial(self._join, worker))
        for index in range(self.random.randint(1, scale.jobs)):
            at = self.random.uniform(0, _FAULTY_SECONDS / 2)
            self._at(at, partial(self._submit, f"j{index}", scale))

    # Jobs

    def _submit(self, name: str, scale: Scale) -> None:
        random = self.random
        keys = tuple(f"t{index:06d}" for index in range(random.randint(0, scale.tasks)))
        has_merge = len(keys) != 1 or random.random() < 0.5
        options = JobOptions(
            priority=random.choice(("low", "normal", "high")),
            deadline_seconds=random.choice((None, None, None, 20.0, 500.0)),
            on_poison=random.choice(("fail", "skip")),
        )
        done = {
            key: self._partial(name, key) for key in keys if has_merge and random.random() < 0.05
        }
        submission = JobSubmitted(
            name,
            keys,
            has_merge,
            random.choice(_ENGINES),
            random.choice(("ann", "bob", "eve")),
            options,
            {key: random.randint(0, 32 << 20) for key in keys},
            {key: f"object-{random.randint(0, 40)}" for key in keys},
            holds_partials=has_merge,
            done=done,
            first_attempt=random.choice((1, 1001)),
        )
        poison = frozenset(key for key in keys if random.random() < 0.3 / scale.tasks)
        self.jobs[name] = _Job(submission, poison)
        self._states["job", name] = "queued"
        for key in done:
            self._states["task", f"{name}/{key}"] = "done"
        self._send(submission)
        if random.random() < 0.1:
            self._at(random.expovariate(0.05), lambda: self._send(CancelRequested(name)))

    def _partial(self, job: str, key: str) -> dict[str, Any]:
        return {"value": _value(job, key), "bytes": self.random.choice((0, 100, 300))}

    # Workers

    def _join(self, worker: _Worker) -> None:
        worker.is_joined = True
        cached = frozenset(f"object-{self.random.randint(0, 40)}" for _ in range(5))
        lease = _LEASE_SECONDS if worker.engine == "remote" else None
        self._send(WorkerJoined(worker.id, worker.slots, worker.engine, cached, lease))
        if not self._is_calm:
            self._at(self.random.expovariate(0.01), lambda: self._die(worker))

    def _die(self, worker: _Worker, after_seconds: float | None = None) -> None:
        if self._is_calm and after_seconds is None:
            return
        worker.life += 1
        worker.is_joined = worker.is_deaf = False
        lost = sorted(worker.assigned)
        worker.assigned.clear()
        for attempt in lost:
            self._count_failure(attempt, worker.id)
        self._send(WorkerLeft(worker.id, _error("worker-lost")))
        wait = self.random.expovariate(0.1) if after_seconds is None else after_seconds
        self._at(wait, lambda: self._join(worker))

    def _begin(self, start: StartAttempt) -> None:
        """What a worker does with an attempt, from now on."""
        worker, random = self.workers[start.worker], self.random
        assert worker.is_joined, f"seed {self.seed}: {start} to a worker that has left"
        assert len(worker.assigned) < worker.slots, (
            f"seed {self.seed}: {start} to a worker without slots"
        )
        worker.assigned.add(start.attempt)
        attempt, key = start.attempt, start.task
        duration = random.expovariate(0.5) * (20 if worker.kind == "slow" else 1)
        self._report(worker, 0.1 * duration, AttemptStarted(attempt))
        bad = 0.0 if self._is_calm else 0.7
        if key in self.jobs[start.job].poison or (worker.kind == "flaky" and random.random() < bad):
            self._report(
                worker, duration, AttemptFailed(attempt, _error("internal"), retryable=True)
            )
        elif worker.kind == "stalling" and random.random() < bad:
            self.counts["stalls"] += 1
        elif worker.kind == "corrupting" and random.random() < bad:
            # What a backend makes of a result that does not have the form or the hash it should.
            self._report(
                worker, duration, AttemptFailed(attempt, _error("corrupt"), retryable=True)
            )
        else:
            for beat in range(int(duration / 3)):
                self._report(worker, 3.0 * beat, AttemptProgressed(attempt))
            done = AttemptFinished(attempt, self._partial(start.job, key))
            self._report(worker, duration, done)

    def _end_stopped(self, stop: StopAttempt) -> None:
        worker = self.workers[stop.worker]
        # Jobs must end without it, as others are there.
        if worker.kind == "stalling" and not self._is_calm and self.random.random() < 0.5:
            worker.is_deaf = True
            return
        ended = AttemptFailed(stop.attempt, _error("cancelled"), retryable=False)
        self._report(worker, self.random.expovariate(5.0), ended)

    def _report(self, worker: _Worker, delay: float, event: Event) -> None:
        """Send a message of a worker: delayed, perhaps twice, and not if it dies before."""
        life = worker.life
        delay += 0.0 if self._is_calm else self.random.expovariate(5.0)

        def send() -> None:
            # Of several ends a backend passes on the first.
            is_second_end = isinstance(event, _ENDS) and event.attempt in self._ended
            if worker.life == life and not is_second_end:
                self._send(event)

        self._at(delay, send)
        if not self._is_calm and self.random.random() < 0.1:
            self._at(delay + self.random.expovariate(0.2), lambda: self._send_again(event))

    def _send_again(self, event: Event) -> None:
        """Send a repeated message: an end only after the first one, as none come before that."""
        attempt = getattr(event, "attempt", "")
        if not isinstance(event, _ENDS) or attempt in self._ended:
            self.counts["repeated"] += 1
            self._send(event)

    # Messages

    def _send(self, event: Event) -> None:
        self.events += 1
        if isinstance(event, _ENDS):
            self._count_end(event)
        for instruction in self.scheduler.handle(event):
            self._react(instruction)

    def _count_end(self, event: AttemptFinished | AttemptFailed) -> None:
        attempt = event.attempt
        worker = self.workers[self._attempt_worker[attempt]]
        if attempt not in worker.assigned:
            return
        worker.assigned.discard(attempt)
        self._ended.add(attempt)
        if isinstance(event, AttemptFailed) and event.error["code"] != "cancelled":
            self._count_failure(attempt, worker.id)

    def _count_failure(self, attempt: str, worker: str) -> None:
        task = attempt.rsplit("-", 1)[0]
        self._failed_on.setdefault(task, set()).add(worker)
        self._failures[task] += 1

    def _react(self, instruction: Instruction) -> None:  # noqa: C901 - one case each
        match instruction:
            case JobChanged():
                self._job_changed(instruction)
            case TaskChanged():
                name = f"{instruction.job}/{instruction.task}"
                self._move("task", name, instruction.state)
                if instruction.state == "done":
                    self._recorded.add((instruction.job, instruction.task))
                if instruction.state == "poisoned":
                    self._check_poisoned(f"{instruction.job}-{instruction.task}")
            case AttemptChanged():
                if instruction.state == "expired":
                    self._count_failure(instruction.attempt, instruction.worker)
                self._move("attempt", instruction.attempt, instruction.state)
            case StartAttempt():
                assert instruction.attempt not in self._attempt_worker, "an id that was used before"
                self._attempt_worker[instruction.attempt] = instruction.worker
                self._begin(instruction)
            case StopAttempt():
                self._end_stopped(instruction)
            case StartMerge():
                self._merge(instruction)
            case DropPartial():
                self.counts["dropped"] += 1
            case _:
                pass

    def _merge(self, start: StartMerge) -> None:
        values = tuple(partial["value"] for partial in start.partials)
        self.jobs[start.job].merges.append(values)
        event: Event = MergeFinished(start.job, start.number, {"value": sum(values)})
        if not self._is_calm and self.random.random() < 0.2:
            event = MergeFailed(start.job, start.number, _error("worker-lost"), retryable=True)
        for delay in (0.5, 0.7):  # each is reported twice
            self._at(delay, partial(self._send, event))

    def _job_changed(self, change: JobChanged) -> None:
        job = self.jobs[change.job]
        self._move("job", change.job, change.state)
        job.state = change.state
        job.has_run = job.has_run or change.state == "running"
        if is_terminal("job", change.state):
            job.ends += 1
            job.skipped = tuple(each.task for each in change.skipped)
            self.counts[change.state] += 1
            self.counts["skipped"] += len(job.skipped)

    def _move(self, kind: str, name: str, state: str) -> None:
        first = {"job": "queued", "task": "pending", "attempt": "leased"}[kind]
        check_transition(kind, self._states.get((kind, name), first), state)
        self._states[kind, name] = state
        self.counts[f"{kind} {state}"] += 1

    # Time

    def _at(self, delay: float, action: Callable[[], object]) -> None:
        self._number += 1
        heappush(self._agenda, (self.now + delay, self._number, action))

    def _step(self) -> None:
        self.now, _, action = heappop(self._agenda)
        action()

    def _tick(self) -> None:
        self._send(Tick(self.now))
        # Now and then the loop is busy for so long that several leases end in the same tick.
        is_late = not self._is_calm and self.random.random() < 0.1
        self._at(
            self.random.uniform(2.0, 6.0) if is_late else self.random.uniform(0.1, 1.0), self._tick
        )

    def _calm_down(self) -> None:
        """End the faults: from now on workers do what they should, and there are good ones."""
        self._is_calm = True
        for engine in _ENGINES:
            self.workers[engine] = _Worker(engine, engine, 2, "healthy")
            self._join(self.workers[engine])

    def _open(self) -> list[str]:
        return sorted(self.scheduler.live_jobs)

    # Checks

    def _check_poisoned(self, task: str) -> None:
        workers = self._failed_on.get(task, set())
        assert self._failures[task] >= 3, f"seed {self.seed}: {task} is poisoned too early"
        engine = self.jobs[task.split("-", maxsplit=1)[0]].submission.engine
        others = [
            worker
            for worker in self.workers.values()
            if worker.engine == engine
            and worker.is_joined
            and worker.id not in workers
            and not self._is_quarantined(worker)
        ]
        stuck = {worker.id for worker in others if worker.kind in {"stalling", "slow"}}
        bad = {worker.id for worker in others if worker.kind in {"corrupting", "flaky"}}
        untried = len(others) - len(stuck) - len(bad)
        assert len(workers) >= 3 or untried <= 0, f"seed {self.seed}: {task}: {workers} of {others}"

    def _is_quarantined(self, worker: _Worker) -> bool:
        found = self.scheduler._workers.get(worker.id)  # noqa: SLF001 - a check of the scheduler
        return found is not None and found.is_quarantined

    def _check_result(self, name: str, job: _Job) -> None:
        keys = [key for key in job.submission.tasks if key not in job.skipped]
        assert set(job.skipped) <= set(job.submission.tasks), f"seed {self.seed}: {name}"
        if job.skipped:
            assert job.submission.options.on_poison == "skip", f"seed {self.seed}: {name}"
        if job.submission.has_merge:
            # Each task exactly once, in the order of shards, in each attempt at the merge.
            expected = tuple(_value(name, key) for key in keys)
            assert job.merges, f"seed {self.seed}: {name} is done without a merge"
            assert set(job.merges) == {expected}, f"seed {self.seed}: {name}: {job.merges}"

    def _check_slots(self) -> None:
        """Assert that every slot is free: a job with a task for each starts all of them at once."""
        for worker in list(self.workers.values()):
            if worker.is_deaf:
                self._die(worker, after_seconds=0.0)
        # Quarantine ends, and what is under way arrives.
        end = self.now + 700.0
        while self._agenda and self._agenda[0][0] <= end:
            self._step()
        for engine in _ENGINES:
            slots = sum(worker.slots for worker in self.workers.values() if worker.engine == engine)
            name = f"probe-{engine}".replace("-", "")
            keys = tuple(f"t{index:06d}" for index in range(slots))
            self.jobs[name] = _Job(JobSubmitted(name, keys, True, engine), frozenset())
            before = len(self._attempt_worker)
            self._send(self.jobs[name].submission)
            assert len(self._attempt_worker) - before == slots, f"seed {self.seed}: lost slots"


def _value(job: str, key: str) -> int:
    return sum(f"{job}/{key}".encode()) * 7919 % 100_003


def _error(code: str) -> dict[str, Any]:
    return {"error": code, "code": code, "hint": None}
