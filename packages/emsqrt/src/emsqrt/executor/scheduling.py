"""Which request runs next in a pool: a state machine without a clock, a lock or I/O.

The run time of a request is unknown in advance, and a running process cannot be suspended without
keeping its memory. So the scheduler guesses as TAGS does (Harchol-Balter, "Task assignment with
unknown duration", JACM 49:2, 2002): a request that proves to be long is stopped and run again
elsewhere.

```
arrive -> waiting -+-> long ------------------------------> gone      at most size - reserved
                   |    ^ ^
                   |    | +---- released in place
                   +-> short -> overdue -> stopping -+               at most `reserved`
                        |          |                 v
                        +----------+-> gone     waiting for long
```

- At most `size - reserved` requests are long. A long request may run until its deadline.
- The other executors are for short requests. Their output is held back, so a short request that
  is still running when its time is over (`outlive`) can be stopped and run again from the start,
  unseen by its caller. That happens when a new request waits, and at most once to each request.
- A short request becomes long in place as soon as there is room for one more long request.
- Interactive requests precede batch ones; after four of them a batch request that waits is next.
- Within a priority, users are served in rotation; the requests of one user run in order of arrival.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum

from sennit_core.errors import Busy, UsageError

__all__ = ["PRIORITIES", "Action", "Order", "Scheduler", "State", "Ticket"]

PRIORITIES = ("interactive", "batch")
_OVERTAKING_MAX = 4
"""Interactive requests that may start while a batch request waits: it gets every fifth start."""


class State(Enum):
    """The state of a request."""

    WAITING = "waiting"
    WAITING_FOR_LONG = "waiting for long"
    LONG = "long"
    SHORT = "short"
    OVERDUE = "overdue"
    STOPPING = "stopping"
    GONE = "gone"


class Action(Enum):
    """What the owner of the processes must do."""

    START = "start"
    RELEASE = "release"
    """Hand on the output of a request that was started as short."""
    RESTART = "restart"
    """Stop it, drop its output, and report `finish(again=True)` when its executor is free."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request.

    Args:
        user: the user whose queue it waits in.
        restartable: whether it may be stopped and run again before its output was read. A request
            that may not waits for a long place.
        bounded: whether the queue limits apply to it.
        priority: one of `PRIORITIES`.
    """

    user: str = ""
    restartable: bool = True
    bounded: bool = True
    state: State = State.GONE
    priority: str = "interactive"


Order = tuple[Action, Ticket]


class Scheduler:
    """Decides what runs; each method accepts an event and returns what to do now.

    Args:
        size: executors.
        reserved: executors that no long request may hold.
        waiting_max: bounded requests that may wait.
        user_waiting_max: bounded requests of one user that may wait; None for `waiting_max`.
    """

    def __init__(
        self,
        size: int,
        *,
        reserved: int = 0,
        waiting_max: int = 256,
        user_waiting_max: int | None = None,
    ) -> None:
        if not 0 <= reserved < size:
            raise UsageError(f"{reserved} of {size} executors cannot be reserved")
        self._size = size
        self._long_max = size - reserved
        self._waiting_max = waiting_max
        self._user_waiting_max = waiting_max if user_waiting_max is None else user_waiting_max
        self._waiting = _Queue(State.WAITING)
        self._waiting_for_long = _Queue(State.WAITING_FOR_LONG)
        # Requests that hold an executor, in order of their start; `_long` counts the long ones.
        self._running: dict[Ticket, None] = {}
        self._long = 0

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""
        return len(self._waiting) + len(self._waiting_for_long)

    def arrive(self, ticket: Ticket) -> list[Order]:
        """Add a new request.

        Raises:
            Busy: it would have to wait, and too many requests already do.
        """
        can_be_short = ticket.restartable or self._long_max == self._size
        queue = self._waiting if can_be_short else self._waiting_for_long
        queue.add(ticket)
        orders = self._settle()
        if not orders and ticket.bounded:
            self._check_bounds(ticket, queue)
        return orders

    def leave(self, ticket: Ticket) -> bool:
        """Remove a request that waits, or would wait again; return whether it held no executor."""
        if ticket.state is State.STOPPING:
            ticket.restartable = False
            return False
        for queue in (self._waiting, self._waiting_for_long):
            if ticket.state is queue.state:
                queue.remove(ticket)
                return True
        return False

    def outlive(self, ticket: Ticket) -> list[Order]:
        """Record that a request has run for longer than short ones may."""
        if ticket.state is State.SHORT:
            ticket.state = State.OVERDUE
        return self._settle()

    def finish(self, ticket: Ticket, *, again: bool = False) -> list[Order]:
        """Record that the executor of a request is free.

        Args:
            ticket: the request.
            again: whether it was stopped by `Action.RESTART`, and so has to run again.
        """
        del self._running[ticket]
        if ticket.state is State.LONG:
            self._long -= 1
        ticket.state = State.GONE
        if again and ticket.restartable:
            self._waiting_for_long.add(ticket)
        return self._settle()

    def _settle(self) -> list[Order]:
        orders: list[Order] = []
        while self._long < self._long_max and (order := self._fill_long()) is not None:
            orders.append(order)
        # Every long place is in use, or nothing waits: the next request has to start as short.
        while self._waiting and len(self._running) < self._size:
            orders.append(self._start(self._waiting.pop(), State.SHORT))
        orders.extend(self._restarts())
        return orders

    def _fill_long(self) -> Order | None:
        """Start one long request. Requests that were stopped for others precede new ones."""
        # A long place is free, and short or stopping requests are at most `reserved`, so an
        # executor is free as well.
        if self._waiting_for_long:
            return self._start(self._waiting_for_long.pop(), State.LONG)
        for ticket in self._running:
            if ticket.state in (State.SHORT, State.OVERDUE):
                ticket.state = State.LONG
                self._long += 1
                return Action.RELEASE, ticket
        if self._waiting and len(self._running) < self._size:
            return self._start(self._waiting.pop(), State.LONG)
        return None

    def _restarts(self) -> list[Order]:
        states = [ticket.state for ticket in self._running]
        wanted = len(self._waiting) - states.count(State.STOPPING)
        overdue = [ticket for ticket in self._running if ticket.state is State.OVERDUE]
        for ticket in overdue[: max(wanted, 0)]:
            ticket.state = State.STOPPING
        return [(Action.RESTART, ticket) for ticket in overdue[: max(wanted, 0)]]

    def _start(self, ticket: Ticket, state: State) -> Order:
        assert len(self._running) < self._size, "a request is started only when an executor is free"
        ticket.state = state
        self._running[ticket] = None
        self._long += state is State.LONG
        return Action.START, ticket

    def _check_bounds(self, ticket: Ticket, queue: _Queue) -> None:
        own = self._waiting.count(ticket.user) + self._waiting_for_long.count(ticket.user)
        if self.waiting > self._waiting_max:
            problem = f"{self._size} executors are busy and {self._waiting_max} requests wait"
        elif own > self._user_waiting_max:
            problem = f"{self._user_waiting_max} requests of the same user wait already"
        else:
            return
        queue.remove(ticket)
        raise Busy(problem, hint="try again when some of them have been answered")


class _Queue:
    """Waiting requests: interactive ones first, which may overtake batch ones a few times."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._lanes = {priority: _Lane() for priority in PRIORITIES}
        # Interactive requests that were popped since the last batch request while one waited.
        self._overtaking = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def count(self, user: str) -> int:
        return sum(lane.count(user) for lane in self._lanes.values())

    def add(self, ticket: Ticket) -> None:
        ticket.state = self.state
        self._lanes[ticket.priority].add(ticket)

    def pop(self) -> Ticket:
        interactive, batch = (self._lanes[priority] for priority in PRIORITIES)
        if batch and (not interactive or self._overtaking == _OVERTAKING_MAX):
            self._overtaking = 0
            return batch.pop()
        self._overtaking = self._overtaking + 1 if batch else 0
        return interactive.pop()

    def remove(self, ticket: Ticket) -> None:
        self._lanes[ticket.priority].remove(ticket)
        ticket.state = State.GONE


class _Lane:
    """Requests of one priority. Users are served in rotation, each user's in order of arrival."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def count(self, user: str) -> int:
        return len(self._users.get(user, ()))

    def add(self, ticket: Ticket) -> None:
        self._users.setdefault(ticket.user, deque()).append(ticket)
        self._length += 1

    def pop(self) -> Ticket:
        user, tickets = next(iter(self._users.items()))
        ticket = tickets.popleft()
        self._users.move_to_end(user)
        self._shrink(user)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        self._users[ticket.user].remove(ticket)
        self._shrink(ticket.user)

    def _shrink(self, user: str) -> None:
        self._length -= 1
        if not self._users[user]:
            del self._users[user]
