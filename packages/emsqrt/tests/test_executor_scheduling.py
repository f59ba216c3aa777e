"""Which request runs next: every property of the scheduler, over random histories."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from emsqrt.executor.scheduling import PRIORITIES, Action, Order, Scheduler, State, Ticket
from sennit_core.errors import Busy, UsageError

RUNNING = (State.LONG, State.SHORT, State.OVERDUE, State.STOPPING)


def started(orders: list[Order]) -> list[Ticket]:
    return [ticket for action, ticket in orders if action is Action.START]


class Histories(RuleBasedStateMachine):
    """Any events in any order; the owner of the processes obeys each instruction at once."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.reserved = 3, 1
        self.scheduler = Scheduler(self.size, reserved=self.reserved, waiting_max=8)
        self.tickets: list[Ticket] = []
        self.restarts: Counter[Ticket] = Counter()

    def those(self, *states: State) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.state in states]

    def obey(self, orders: list[Order]) -> None:
        for action, ticket in orders:
            if action is Action.START:
                assert ticket.state in (State.LONG, State.SHORT)
            elif action is Action.RELEASE:
                assert ticket.state is State.LONG
            else:
                assert ticket.state is State.STOPPING
                self.restarts[ticket] += 1

    @rule(
        user=st.sampled_from("abc"),
        restartable=st.booleans(),
        bounded=st.booleans(),
        priority=st.sampled_from(PRIORITIES),
    )
    def arrive(self, user: str, restartable: bool, bounded: bool, priority: str) -> None:
        ticket = Ticket(user, restartable, bounded, priority=priority)
        try:
            self.obey(self.scheduler.arrive(ticket))
        except Busy:
            assert bounded
            assert self.scheduler.waiting >= 8
            return
        self.tickets.append(ticket)

    @precondition(lambda self: self.those(*RUNNING))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.those(*RUNNING)))
        again = ticket.state is State.STOPPING and data.draw(st.booleans())
        self.obey(self.scheduler.finish(ticket, again=again))

    @precondition(lambda self: self.those(State.SHORT))
    @rule(data=st.data())
    def outlive(self, data: st.DataObject) -> None:
        self.obey(self.scheduler.outlive(data.draw(st.sampled_from(self.those(State.SHORT)))))

    @precondition(lambda self: self.those(State.WAITING, State.WAITING_FOR_LONG, State.STOPPING))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiting = self.those(State.WAITING, State.WAITING_FOR_LONG, State.STOPPING)
        ticket = data.draw(st.sampled_from(waiting))
        was_stopping = ticket.state is State.STOPPING
        assert self.scheduler.leave(ticket) is not was_stopping

    @invariant()
    def long_requests_never_hold_the_reserved_executors(self) -> None:
        assert len(self.those(State.LONG)) <= self.size - self.reserved
        assert len(self.those(*RUNNING)) <= self.size

    @invariant()
    def a_new_request_waits_for_short_ones_alone(self) -> None:
        waiting = len(self.those(State.WAITING))
        if waiting:
            assert len(self.those(*RUNNING)) == self.size
            overdue, stopping = len(self.those(State.OVERDUE)), len(self.those(State.STOPPING))
            assert overdue == 0 or stopping >= waiting

    @invariant()
    def no_long_slot_is_free_while_a_request_could_use_it(self) -> None:
        if len(self.those(State.LONG)) < self.size - self.reserved:
            assert not self.those(State.WAITING, State.WAITING_FOR_LONG, State.SHORT, State.OVERDUE)

    @invariant()
    def nothing_is_stopped_twice_or_stopped_that_may_not_be(self) -> None:
        assert all(count == 1 for count in self.restarts.values())
        assert self.scheduler.waiting == len(self.those(State.WAITING, State.WAITING_FOR_LONG))

    def teardown(self) -> None:
        while running := self.those(*RUNNING):
            self.scheduler.finish(running[0])
        assert all(ticket.state is State.GONE for ticket in self.tickets), "one was forgotten"


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=settings().max_examples // 2, stateful_step_count=30, deadline=None
)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.booleans())
def test_users_alternate_and_each_users_requests_run_in_order(
    users: list[str], reserves: bool
) -> None:
    scheduler = Scheduler(2, reserved=int(reserves), waiting_max=100)
    busy = [Ticket("x", restartable=False), Ticket("x")]
    for ticket in busy:
        scheduler.arrive(ticket)
    tickets = [Ticket(user) for user in users]
    for ticket in tickets:
        scheduler.arrive(ticket)
    order: list[Ticket] = []
    free = busy[1]
    while next_ones := started(scheduler.finish(free)):
        (free,) = next_ones
        order.append(free)
    assert len(order) == len(tickets)
    for user in "abc":
        mine = [index for index, ticket in enumerate(order) if ticket.user == user]
        assert [order[index] for index in mine] == [t for t in tickets if t.user == user]
        for one, two in pairwise(mine):
            between = Counter(ticket.user for ticket in order[one + 1 : two])
            assert max(between.values(), default=0) <= 1


def test_two_long_requests_leave_room_for_a_third_user() -> None:
    scheduler = Scheduler(2, reserved=1)
    first, second, third = Ticket("ann"), Ticket("ben"), Ticket("cid")
    assert scheduler.arrive(first) == [(Action.START, first)]
    assert scheduler.arrive(second) == [(Action.START, second)]
    assert (first.state, second.state) == (State.LONG, State.SHORT)
    assert scheduler.outlive(second) == []  # no request waits, so it continues
    assert scheduler.arrive(third) == [(Action.RESTART, second)]
    assert scheduler.finish(second, again=True) == [(Action.START, third)]
    assert scheduler.finish(third) == []
    assert scheduler.finish(first) == [(Action.START, second)]
    assert second.state is State.LONG


def test_a_short_request_becomes_long_where_it_is_when_there_is_room() -> None:
    scheduler = Scheduler(2, reserved=1)
    first, second = Ticket("ann"), Ticket("ann")
    scheduler.arrive(first)
    scheduler.arrive(second)
    assert scheduler.finish(first) == [(Action.RELEASE, second)]


def test_a_request_that_must_not_restart_never_gets_a_reserved_executor() -> None:
    scheduler = Scheduler(2, reserved=1)
    first, second = Ticket(restartable=False), Ticket(restartable=False)
    assert started(scheduler.arrive(first)) == [first]
    assert scheduler.arrive(second) == []
    assert started(scheduler.arrive(short := Ticket())) == [short]
    assert scheduler.finish(short) == []
    assert started(scheduler.finish(first)) == [second]


def test_a_single_executor_is_for_everything() -> None:
    scheduler = Scheduler(1)
    job, query = Ticket("ann", restartable=False), Ticket("ben")
    assert started(scheduler.arrive(job)) == [job]
    assert scheduler.arrive(query) == []
    assert scheduler.outlive(job) == []
    assert started(scheduler.finish(job)) == [query]


def test_the_bounds_hold_for_each_user_and_for_all() -> None:
    scheduler = Scheduler(1, waiting_max=3, user_waiting_max=2)
    for ticket in (Ticket("ann"), Ticket("ann"), Ticket("ann")):
        scheduler.arrive(ticket)
    with pytest.raises(Busy, match="2 requests of the same user"):
        scheduler.arrive(Ticket("ann"))
    scheduler.arrive(Ticket("ben"))
    with pytest.raises(Busy, match="1 executors are busy and 3 requests wait"):
        scheduler.arrive(Ticket("cid"))
    assert scheduler.arrive(Ticket("cid", bounded=False)) == []
    assert scheduler.waiting == 4


@pytest.mark.parametrize("reserved", [-1, 2, 3])
def test_an_executor_at_least_is_not_reserved(reserved: int) -> None:
    with pytest.raises(UsageError, match="reserved"):
        Scheduler(2, reserved=reserved)


def test_interactive_requests_overtake_batch_requests_without_starving_them() -> None:
    scheduler = Scheduler(1)
    scheduler.arrive(running := Ticket("x"))
    for index in range(3):
        scheduler.arrive(Ticket(f"batch {index}", priority="batch"))
    for index in range(10):
        scheduler.arrive(Ticket(f"interactive {index}"))

    order = []
    while found := started(scheduler.finish(running)):
        (running,) = found
        order.append(running.priority[0])

    assert "".join(order) == "iiiibiiiibiib"


def test_a_batch_request_starts_at_once_while_an_executor_is_free() -> None:
    scheduler = Scheduler(2, reserved=1)
    one, two = Ticket(priority="batch"), Ticket(priority="batch")
    assert started(scheduler.arrive(one)) == [one]
    assert started(scheduler.arrive(two)) == [two]
    assert scheduler.outlive(two) == []
    query = Ticket()
    assert scheduler.arrive(query) == [(Action.RESTART, two)]
    assert started(scheduler.finish(two, again=True)) == [query]
