"""A pool that keeps an executor for short requests, on real processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from emsqrt.executor import Execution, ExecutorPool
from sennit_core.errors import Busy, Cancelled, Closed, DeadlineExceeded

ECHO = "executor_entries:echo"
WAIT = "executor_entries:wait"
UNTIL = "executor_entries:until"


@dataclass
class World:
    """A pool of two executors, both warm, one of them reserved; and what requests may wait for."""

    pool: ExecutorPool
    folder: Path

    def until(self, name: str, *, deaf: bool = False, deadline: float | None = None) -> Execution:
        """A request that ends when its file is there, of the user of that name."""
        request = {"log": str(self.folder / "log"), "go": str(self.folder / name), "deaf": deaf}
        return self.pool.submit(
            UNTIL, request, user=name, restartable=True, deadline_seconds=deadline
        )

    def go(self, name: str) -> None:
        (self.folder / name).touch()

    def await_starts(self, count: int) -> None:
        log = self.folder / "log"
        while not log.exists() or len(log.read_text().splitlines()) < count:
            pass

    def ask(self, user: str) -> str:
        """The answer to a short request."""
        with self.pool.submit(ECHO, {"emit": [user]}, user=user, restartable=True) as execution:
            return b"".join(bytes(payload) for payload in execution.payloads()).decode()


def text_of(execution: Execution) -> str:
    return b"".join(bytes(payload) for payload in execution.payloads()).decode()


@pytest.fixture
def world(open_pool: Callable[..., ExecutorPool], tmp_path: Path) -> World:
    pool = open_pool(2, reserved=1, short_seconds=0.01, user_queue_limit=3)
    with pool.submit(WAIT, {}), pool.submit(WAIT, {}, restartable=True) as second:
        while second.pid == 0:
            pass
    return World(pool, tmp_path)


def test_long_requests_of_two_users_leave_room_for_a_third_and_lose_nothing(world: World) -> None:
    with world.until("ann") as first, world.until("ben") as second:
        world.await_starts(2)
        assert world.ask("cid") == "cid"
        assert not first.done
        assert not second.done
        world.go("ann")
        assert text_of(first) == "one,two"
        world.go("ben")
        assert text_of(second) == "one,two"  # once, although it was started twice
    world.await_starts(3)


@pytest.mark.slow
def test_one_that_does_not_listen_is_killed_and_run_again(world: World) -> None:
    with world.until("ann") as first, world.until("ben", deaf=True) as second:
        world.await_starts(2)
        assert world.ask("cid") == "cid"
        world.go("ben")
        world.go("ann")
        assert (text_of(first), text_of(second)) == ("one,two", "one,two")


def test_a_second_request_runs_and_ends_without_other_requests(world: World) -> None:
    with world.until("ann") as first, world.until("ann2") as second:
        world.await_starts(2)
        world.go("ann2")
        assert text_of(second) == "one,two"
        assert not first.done


def test_output_is_handed_on_at_once_when_a_long_place_is_free(world: World) -> None:
    with world.until("ann") as execution:
        payloads = execution.payloads()
        assert bytes(next(payloads)) == b"one,"
        world.go("ann")
        assert bytes(next(payloads)) == b"two"


def test_cancelling_a_waiting_request_removes_it_from_the_queue(world: World) -> None:
    with world.until("ann"), ExitStack() as rest:
        job = world.pool.submit(ECHO, {}, user="ben")  # may not be restarted: it waits
        rest.enter_context(job)
        assert world.pool.stats().waiting == 1
        job.cancel()
        assert world.pool.stats().waiting == 0
        with pytest.raises(Cancelled):
            list(job.payloads())


def test_a_request_that_was_stopped_for_others_can_be_cancelled(world: World) -> None:
    with world.until("ann"):
        with world.until("ben") as second:
            world.await_starts(2)
            assert world.ask("cid") == "cid"
            assert world.pool.stats().waiting == 1
            second.cancel()
            with pytest.raises(Cancelled):
                second.result()
        assert world.pool.stats().waiting == 0


def test_a_deadline_ends_a_request_that_waits(world: World) -> None:
    with (
        world.until("ann"),
        world.pool.submit(ECHO, {}, user="ben", deadline_seconds=0.05) as job,
        pytest.raises(DeadlineExceeded, match="waiting for an executor"),
    ):
        list(job.payloads())


def test_a_users_requests_wait_up_to_a_bound(world: World) -> None:
    with world.until("ann"), ExitStack() as rest:
        for _ in range(3):
            rest.enter_context(world.pool.submit(ECHO, {}, user="ben"))
        with pytest.raises(Busy, match="3 requests of the same user"):
            world.pool.submit(ECHO, {}, user="ben")
        rest.enter_context(world.pool.submit(ECHO, {}, user="ben", bounded=False))
        assert world.ask("cid") == "cid"


def test_closing_the_pool_ends_waiting_requests(world: World) -> None:
    with world.until("ann") as first:
        waiting = world.pool.submit(ECHO, {}, user="ben")
        world.pool.close()
        with pytest.raises(Closed):
            waiting.result()
        with pytest.raises(Cancelled):
            first.result()
        waiting.close()
