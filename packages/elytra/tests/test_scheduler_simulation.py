"""Hundreds of random histories with repeated and delayed messages; every job must end."""

import random
from dataclasses import dataclass, field

import pytest

from elytra.service.messages import (
    AttemptFailed,
    AttemptFinished,
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
    TaskChanged,
    WorkerJoined,
    WorkerLeft,
)
from elytra.service.scheduler import Limits, Scheduler
from sennit_core.records import check_transition

ERROR = {"error": "boom", "code": "internal", "hint": None}
ENDED = {"done", "failed", "cancelled"}


@dataclass
class World:
    """Everything around the scheduler, driven by one seed."""

    seed: int
    now: float = 0.0
    calm: bool = False
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    tasks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    merged: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    delivered: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    on_the_way: list[tuple[float, Event]] = field(default_factory=list)
    workers: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.scheduler = Scheduler(Limits(running_jobs_max=self.dice.randint(1, 3)))

    def handle(self, event: Event) -> None:
        if isinstance(event, AttemptFinished):
            self.delivered.append(event.attempt)
        for instruction in self.scheduler.handle(event):
            self.record(instruction)
            self.react(instruction)

    def send(self, event: Event) -> None:
        copies = 1 if self.calm else self.dice.choice([1, 1, 1, 2])
        for _ in range(copies):
            delay = self.dice.expovariate(2.0) if self.calm else self.dice.expovariate(0.2)
            self.on_the_way.append((self.now + delay, event))

    def record(self, instruction: Instruction) -> None:
        match instruction:
            case JobChanged():
                self.move("job", instruction.job, instruction.state)
            case TaskChanged():
                self.move("task", f"{instruction.job}/{instruction.task}", instruction.state)
            case DropPartial():
                self.dropped.append(instruction.attempt)
            case _:
                pass

    def move(self, kind: str, name: str, state: str) -> None:
        first = {"job": "queued", "task": "pending"}[kind]
        check_transition(kind, self.states.get((kind, name), first), state)
        self.states[kind, name] = state

    def react(self, instruction: Instruction) -> None:
        match instruction:
            case StartAttempt():
                self.attempt(instruction.attempt)
            case StartMerge():
                self.merged.setdefault(instruction.job, []).append(
                    tuple(partial["attempt"] for partial in instruction.partials)
                )
                failed = self.dice.random() < 0.2
                self.send(
                    MergeFailed(instruction.job, instruction.number, ERROR, retryable=True)
                    if failed
                    else MergeFinished(instruction.job, instruction.number, {})
                )
            case _:
                pass

    def attempt(self, attempt: str) -> None:
        self.send(AttemptStarted(attempt))
        if self.dice.random() < 0.2:
            self.send(AttemptFailed(attempt, ERROR, retryable=self.dice.random() < 0.9))
        else:
            self.send(AttemptFinished(attempt, {"attempt": attempt}))

    def churn(self) -> None:
        dice = self.dice.random()
        name = f"w{self.dice.randint(0, 4)}"
        if dice < 0.10:
            job = f"j{len(self.known_jobs())}"
            self.states["job", job] = "queued"
            self.tasks[job] = tuple(f"t{index:06d}" for index in range(self.dice.randint(0, 6)))
            self.handle(JobSubmitted(job, self.tasks[job]))
        elif dice < 0.2:
            self.handle(WorkerJoined(name, self.dice.randint(1, 3)))
        elif dice < 0.22:
            self.handle(WorkerLeft(name, ERROR))
        elif dice < 0.26 and self.known_jobs():
            self.handle(CancelRequested(self.dice.choice(self.known_jobs())))

    def known_jobs(self) -> list[str]:
        return [name for kind, name in self.states if kind == "job"]

    def step(self) -> None:
        self.now += self.dice.expovariate(1.0)
        if not self.calm:
            self.churn()
        due = [message for message in self.on_the_way if message[0] <= self.now]
        self.on_the_way = [message for message in self.on_the_way if message[0] > self.now]
        for _, event in due:
            self.handle(event)

    def run(self) -> None:
        for _ in range(120):
            self.step()
        self.calm = True
        self.handle(WorkerJoined("steady", 2))
        for _ in range(5_000):
            if not self.scheduler.live_jobs:
                break
            self.step()


@pytest.mark.sample(4)
@pytest.mark.parametrize("block", range(10))
def test_every_job_ends_and_merges_each_task_once(block: int) -> None:
    outcomes: list[str] = []
    for seed in range(block * 50, block * 50 + 50):
        world = World(seed)
        world.run()

        jobs = {name: world.states["job", name] for name in world.known_jobs()}
        assert set(jobs.values()) <= ENDED, f"seed {seed}: {jobs}"
        outcomes += jobs.values()
        for job, merges in world.merged.items():
            assert set(merges) == {merges[0]}, f"seed {seed}: merges of {job} differ"
            merged_tasks = tuple(attempt.split("-")[1] for attempt in merges[0])
            assert merged_tasks == world.tasks[job], f"seed {seed}: {job}"
        used = {attempt for merges in world.merged.values() for attempt in merges[0]}
        assert used <= set(world.delivered)
        assert len(set(world.delivered)) + len(world.dropped) >= len(world.delivered)
    assert {"done", "failed", "cancelled"} == set(outcomes)


def test_a_history_replays_to_the_same_instructions() -> None:
    first, second = World(7), World(7)
    first.run()
    second.run()

    assert first.states == second.states
    assert first.merged == second.merged
