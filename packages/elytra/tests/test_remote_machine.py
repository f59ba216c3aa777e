"""The state machine of the worker protocol: messages and time in, instructions out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytra.backends.remote.instructions import (
    CloseConnection,
    Ended,
    Excluded,
    Instruction,
    Joined,
    Left,
    Progressed,
    Received,
    Rerun,
    Send,
    Started,
)
from elytra.backends.remote.machine import CLOSE_CODES, Machine
from elytra.backends.remote.messages import (
    Ack,
    Cancel,
    Credit,
    Drain,
    Failed,
    FromWorker,
    Hello,
    Message,
    Partial,
    Renew,
    Task,
    Welcome,
)
from elytra.backends.remote.sessions import RemoteLimits

I = TypeVar("I")  # noqa: E741 - an instruction
ENGINE = "0.1.0"
LIMITS = RemoteLimits()
HELLO = Hello(1, f"emsqrt {ENGINE}", "tab", 2, ("a" * 64,), None, (), False)
PLAN, INPUT = "1" * 64, "2" * 64


class World:
    """A machine, its time, and its last instructions."""

    def __init__(self, **limits: Any) -> None:
        numbers = itertools.count()
        self.machine = Machine(
            ENGINE, replace(LIMITS, **limits), new_secret=lambda: f"secret-{next(numbers)}"
        )
        self.now = 100.0
        self.out: list[Instruction] = []

    def record(self, instructions: list[Instruction]) -> list[Instruction]:
        self.out = instructions
        return instructions

    def connect(self, connection: int = 1, token: str = "t1") -> list[Instruction]:
        return self.record(self.machine.connect(connection, token, self.now))

    def say(self, message: FromWorker, connection: int = 1) -> list[Instruction]:
        return self.record(self.machine.receive(connection, message, self.now))

    def join(self, connection: int = 1, token: str = "t1", credit: int = 2) -> str:
        """Connect a worker with credit; return its id."""
        self.connect(connection, token)
        (welcome,) = self.sent(Welcome, self.say(HELLO, connection))
        self.say(Credit(credit), connection)
        return welcome.worker

    def assign(self, attempt: str, worker: str, seconds: float | None = None) -> list[Instruction]:
        """Assign an attempt whose input is ready at once."""
        found = self.machine.assign(attempt, worker, seconds, self.now)
        return self.record(found + self.machine.ready(task(attempt), self.now))

    def wait(self, seconds: float) -> list[Instruction]:
        self.now += seconds
        return self.record(self.machine.tick(self.now))

    def of(self, kind: type[I]) -> list[I]:
        return [each for each in self.out if isinstance(each, kind)]

    def sent(self, kind: type[I], out: list[Instruction] | None = None) -> list[I]:
        messages = (each.message for each in out or self.out if isinstance(each, Send))
        return [each for each in messages if isinstance(each, kind)]


def task(attempt: str) -> Task:
    return Task(attempt, {}, PLAN, "/input", 100, INPUT, {}, "/upload", 15.0)


def result(attempt: str, **changes: Any) -> Partial:
    return replace(Partial(attempt, PLAN, INPUT, HELLO.engine, "3" * 64, b"rows"), **changes)


@pytest.fixture
def world() -> World:
    return World()


def test_inputs_that_a_worker_has_read_are_reported_once_and_not_after_each_task(
    world: World,
) -> None:
    worker = world.join()
    for number, shard in enumerate(("b", "c", "b")):
        attempt = f"a{number}"
        inputs = [{"name": "shard-0", "kind": "shard", "id": shard * 64}]
        found = world.machine.assign(attempt, worker, None, world.now)
        found += world.machine.ready(replace(task(attempt), spec={"inputs": inputs}), world.now)
        world.say(result(attempt))
        counted = world.machine.conclude(attempt, "t1", counts=True)
        assert not [each for each in counted if isinstance(each, Joined)]
        world.say(Credit(1))
    world.wait(1.0)
    (joined,) = world.of(Joined)
    assert joined.cached == ("a" * 64, "b" * 64, "c" * 64)
    world.wait(1.0)
    assert world.of(Joined) == []


def test_a_worker_joins_with_its_first_credit(world: World) -> None:
    world.connect()
    world.say(HELLO)
    (welcome,) = world.sent(Welcome)
    assert not world.of(Joined)
    world.say(Credit(3))
    assert world.of(Joined) == [Joined(welcome.worker, 3, HELLO.cached)]
    assert [each.state for each in world.machine.sessions()] == ["connected"]


def test_tasks_are_sent_as_far_as_the_credit_goes(world: World) -> None:
    worker = world.join(credit=1)
    assert world.sent(Task, world.assign("a-1", worker))
    assert not world.sent(Task, world.assign("b-1", worker))
    world.say(result("a-1"))
    assert not world.sent(Task)
    assert [each.attempt for each in world.sent(Task, world.say(Credit(1)))] == ["b-1"]


def test_a_result_is_acknowledged_and_checked_once(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    world.say(result("a-1"))
    assert world.of(Received) == [Received("a-1", b"rows", "3" * 64)]
    assert world.of(Started) == [Started("a-1")]
    assert world.sent(Ack) == [Ack("a-1")]
    world.machine.conclude("a-1", "t1", counts=True)
    world.say(result("a-1"))
    assert world.out == [Send(1, Ack("a-1"))]


@pytest.mark.parametrize(
    "changes", [{"plan_hash": "9" * 64}, {"input_sha256": "9" * 64}, {"engine": "emsqrt 9"}]
)
def test_a_result_for_something_else_is_a_failure(world: World, changes: dict[str, str]) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    world.say(result("a-1", **changes))
    (ended,) = world.of(Ended)
    assert (ended.attempt, ended.retryable) == ("a-1", True)
    assert not world.of(Received)


def test_a_failure_is_tried_by_the_node(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    world.say(Failed("a-1", "unsupported", "no such function"))
    assert world.of(Rerun) == [Rerun("a-1", "unsupported", "no such function")]


def test_growing_progress_renews_a_lease(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    for done in range(10):
        assert not world.wait(10)
        world.say(Renew("a-1", done))
        assert world.of(Progressed) == [Progressed("a-1", done)]


def test_a_worker_without_progress_is_disconnected(world: World) -> None:
    """Also one that goes on to send the same number."""
    worker = world.join()
    world.assign("a-1", worker)
    world.say(Renew("a-1", 5))
    world.wait(10)
    world.say(Renew("a-1", 5))
    world.wait(10)
    kinds = [type(each) for each in world.out]
    # It leaves before its attempt fails, or the scheduler would assign the task to it again.
    assert kinds == [Left, Ended, CloseConnection]
    (ended,) = world.of(Ended)
    assert (ended.error.code, ended.retryable) == ("worker-lost", True)
    assert not world.machine.sessions()


def test_an_attempt_ends_at_its_deadline_although_it_is_renewed(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker, 20)
    for done in range(4):
        world.wait(5)
        world.say(Renew("a-1", done))
    world.wait(1)
    (ended,) = world.of(Ended)
    assert (ended.error.code, world.sent(Cancel)) == ("deadline-exceeded", [Cancel("a-1")])
    assert world.machine.sessions()


def test_a_stopped_attempt_is_cancelled_and_its_late_result_dropped(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    world.record(world.machine.stop("a-1"))
    (ended,) = world.of(Ended)
    assert (ended.error.code, world.sent(Cancel)) == ("cancelled", [Cancel("a-1")])
    world.say(result("a-1"))
    assert world.out == [Send(1, Ack("a-1"))]
    assert world.machine.stop("a-1") == []


def test_a_lost_connection_has_a_grace(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    world.record(world.machine.disconnect(1, world.now))
    assert world.out == [Joined(worker, 0, ())]
    assert not world.wait(LIMITS.grace_seconds)
    world.wait(0.1)
    assert [type(each) for each in world.out] == [Left, Ended]


def test_a_resumed_worker_keeps_its_attempts(world: World) -> None:
    """Those tasks that it does not have are sent again, as its credit allows."""
    worker = world.join()
    world.assign("a-1", worker)
    world.assign("b-1", worker)
    world.machine.disconnect(1, world.now)
    world.connect(2)
    resumed = replace(HELLO, resume="secret-0", attempts=("a-1",))
    world.say(resumed, 2)
    (welcome,) = world.sent(Welcome)
    assert (welcome.worker, welcome.attempts) == (worker, ("a-1", "b-1"))
    assert [each.attempt for each in world.sent(Task, world.say(Credit(1), 2))] == ["b-1"]
    assert world.of(Joined) == [Joined(worker, 2, HELLO.cached)]
    world.say(result("a-1"), 2)
    assert world.of(Received)


@pytest.mark.parametrize(("token", "secret"), [("t2", "secret-0"), ("t1", "secret-9")])
def test_no_other_client_resumes_a_worker(world: World, token: str, secret: str) -> None:
    worker = world.join()
    world.machine.disconnect(1, world.now)
    world.connect(2, token)
    world.say(replace(HELLO, resume=secret), 2)
    (welcome,) = world.sent(Welcome)
    assert welcome.worker != worker
    assert welcome.attempts == ()


def test_a_second_connection_replaces_the_first(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    world.connect(2)
    world.say(replace(HELLO, resume="secret-0", attempts=("a-1",)), 2)
    (closed,) = world.of(CloseConnection)
    assert (closed.connection, closed.code) == (1, CLOSE_CODES["replaced"])
    assert not world.of(Left)
    world.machine.disconnect(1, world.now)
    assert not world.wait(10)


def test_a_worker_that_drains_gets_no_more(world: World) -> None:
    worker = world.join(credit=1)
    world.assign("a-1", worker)
    world.assign("b-1", worker)
    world.say(Drain())
    assert world.of(Joined) == [Joined(worker, 0, ())]
    assert [each.attempt for each in world.of(Ended)] == ["b-1"]
    world.say(result("a-1"))
    assert world.of(Received)
    world.say(Credit(2))
    assert world.of(Joined) == [Joined(worker, 2, HELLO.cached)]


@pytest.mark.parametrize(
    ("hello", "kind"),
    [(replace(HELLO, version=2), "version"), (replace(HELLO, engine="emsqrt 9.9"), "engine")],
)
def test_another_version_is_refused_with_a_reason(world: World, hello: Hello, kind: str) -> None:
    world.connect()
    world.say(hello)
    (closed,) = world.of(CloseConnection)
    assert closed.code == CLOSE_CODES[kind]
    assert "this node" in closed.reason


def test_a_connection_without_hello_is_closed(world: World) -> None:
    world.connect()
    world.wait(LIMITS.hello_seconds + 0.1)
    (closed,) = world.of(CloseConnection)
    assert closed.code == CLOSE_CODES["silent"]


@pytest.mark.parametrize("message", [Credit(1), Drain(), Renew("a-1", 1), result("a-1")])
def test_the_first_message_is_hello(world: World, message: FromWorker) -> None:
    world.connect()
    world.say(message)
    assert [each.code for each in world.of(CloseConnection)] == [CLOSE_CODES["malformed"]]


def test_an_attempt_of_another_worker_is_out_of_reach(world: World) -> None:
    """A message about it closes the connection, and has no effect on the attempt."""
    mine = world.join(1, "t1")
    world.join(2, "t2")
    world.assign("a-1", mine)
    codes = []
    for message in (result("a-1"), Renew("a-1", 9), Failed("a-1", "internal", "")):
        world.say(message, 2)
        assert not world.of(Received) + world.of(Rerun) + world.of(Ended) + world.of(Progressed)
        codes += [each.code for each in world.of(CloseConnection)]
        if "t2" not in world.machine.excluded:
            world.join(2, "t2")
    assert codes == [CLOSE_CODES["malformed"], CLOSE_CODES["excluded"]]
    assert "t2" in world.machine.excluded
    world.say(result("a-1"), 1)
    assert world.of(Received)


def test_a_flood_closes_the_connection(world: World) -> None:
    world.join()
    for _ in range(int(4 * LIMITS.messages_per_second) - 1):  # after hello and credit
        world.say(Drain())
    assert [each.code for each in world.of(CloseConnection)] == [CLOSE_CODES["too-many"]]
    assert world.say(Drain()) == []


def test_a_token_with_two_faults_is_excluded(world: World) -> None:
    for _ in range(LIMITS.strikes_max):
        world.connect()
        world.record(world.machine.refuse(1, "not MessagePack"))
    assert [each.token for each in world.of(Excluded)] == ["t1"]
    world.connect()
    (closed,) = world.of(CloseConnection)
    assert closed.code == CLOSE_CODES["excluded"]


def test_faults_before_a_result_that_counts_are_forgotten(world: World) -> None:
    for number in range(3):
        worker = world.join()
        world.assign(f"a-{number}", worker)
        world.say(result(f"a-{number}"))
        world.machine.conclude(f"a-{number}", "t1", counts=True)
        world.machine.refuse(1, "not MessagePack")
    assert world.machine.excluded == {}


def test_connections_are_bounded() -> None:
    world = World(token_connections_max=2, connections_max=3)
    closed = []
    for number, token in enumerate(("a", "a", "a", "b", "c")):
        world.connect(number, token)
        closed.append(bool(world.of(CloseConnection)))
    assert closed == [False, False, True, False, True]


def test_a_revoked_token_ends_its_workers(world: World) -> None:
    worker = world.join()
    world.assign("a-1", worker)
    world.record(world.machine.disconnect_token("t1"))
    assert [type(each) for each in world.out] == [Left, Ended, CloseConnection]


def test_a_task_for_a_worker_that_has_left_fails(world: World) -> None:
    world.assign("a-1", "gone")
    (ended,) = world.of(Ended)
    assert ended.error.code == "worker-lost"


ATTEMPTS = [f"{name}-1" for name in "abc"]
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.just(HELLO),
    st.builds(replace, st.just(HELLO), resume=st.sampled_from(["secret-0", "secret-1"])),
    st.builds(Credit, st.integers(1, 3)),
    st.builds(Renew, st.sampled_from(ATTEMPTS), st.integers(0, 5)),
    st.builds(result, st.sampled_from(ATTEMPTS)),
    st.builds(Failed, st.sampled_from(ATTEMPTS), st.just("internal"), st.just("")),
    st.just(Drain()),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), MESSAGES, st.integers(1, 2)),
        st.tuples(
            st.sampled_from(["connect", "disconnect", "refuse"]), st.none(), st.integers(1, 2)
        ),
        st.tuples(st.just("assign"), st.sampled_from(ATTEMPTS), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 20), st.none()),
        st.tuples(st.just("stop"), st.sampled_from(ATTEMPTS), st.none()),
    ),
    max_size=40,
)


@given(STEPS)
def test_any_history_ends_each_attempt_once(steps: list[tuple[str, Any, Any]]) -> None:
    """Whatever two workers do: no attempt has two ends, and none is left without an end."""
    world = World()
    for number in (1, 2):
        world.join(number, f"t{number}")
    open_attempts: set[str] = set()

    def look() -> None:
        for each in world.out:
            if isinstance(each, Ended):
                open_attempts.remove(each.attempt)
            elif isinstance(each, (Received, Rerun)):
                open_attempts.remove(each.attempt)
                world.machine.conclude(each.attempt, "t1", counts=True)

    def assign(attempt: str, _: object) -> None:
        workers = [each.id for each in world.machine.sessions()]
        if attempt not in open_attempts and workers:
            open_attempts.add(attempt)
            world.assign(attempt, workers[0])

    def connect(_: object, connection: int) -> None:
        world.record(world.machine.disconnect(connection, world.now))
        look()
        world.connect(connection, f"t{connection}")

    steps_by_name: dict[str, Callable[[Any, Any], object]] = {
        "say": world.say,
        "assign": assign,
        "wait": lambda seconds, _: world.wait(seconds),
        "connect": connect,
        "disconnect": lambda _, found: world.record(world.machine.disconnect(found, world.now)),
        "refuse": lambda _, found: world.record(world.machine.refuse(found, "malformed")),
        "stop": lambda attempt, _: world.record(world.machine.stop(attempt)),
    }
    for what, value, connection in steps:
        world.out = []
        steps_by_name[what](value, connection)
        look()
    world.wait(LIMITS.attempt_seconds + 1)
    look()
    world.wait(LIMITS.grace_seconds + 1)
    look()
    assert open_attempts == set()
