"""Deficit round robin: whose task is next, by the bytes that each has received.

Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin" (SIGCOMM 1995), in the form
that charges after service: which task a job gets is known only when a worker was found for it, so a
key is served while its credit is above zero, and its cost is subtracted afterwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["COST_BYTES_MAX", "DeficitRoundRobin", "FairQueue", "task_cost"]

K = TypeVar("K")

_QUANTUM_BYTES = 4 << 20
_TASK_BYTES = 4 << 20
"""The cost of a task of no bytes. A task or merge costs 15 ms (`job_service.WHOLE_BYTES`), the time of
scanning about so much; equal to the quantum, so that tiny tasks of jobs alternate one by one."""
COST_BYTES_MAX = 64 << 20
"""No task costs more, the bytes of the largest shards: an ingest of 100 GB would else keep its user from
all workers for an hour after it has ended."""


def task_cost(size_bytes: int) -> int:
    """Return the cost of a task with so many input bytes."""
    return min(_TASK_BYTES + max(0, size_bytes), COST_BYTES_MAX)


@dataclass(slots=True)
class _Account:
    weight: float
    # Bytes that may still be assigned in this round; negative after a task that cost more.
    credit: float = 0.0
    # Whether it has not been served since it was added.
    is_new: bool = True


class DeficitRoundRobin(Generic[K]):
    """Keys in rotation, each for a quantum of bytes times its weight.

    Args:
        keep_debts: Whether a key that leaves and is added again keeps a negative credit, as long as
            others are there.
    """

    def __init__(self, *, keep_debts: bool = False) -> None:
        self._keep_debts = keep_debts
        # The front is next. An OrderedDict, as removing the front of a dict is not O(1).
        self._ring: OrderedDict[K, _Account] = OrderedDict()
        # Negative credits of keys that left while others waited. Forgotten when the ring is empty.
        self._debts: dict[K, float] = {}
        # A new key goes to the front, so that a small job does not wait for a task of each large one;
        # but only one between two others, or a stream of new ones would starve these.
        self._front_is_free = True

    def __len__(self) -> int:
        return len(self._ring)

    def __contains__(self, key: K) -> bool:
        return key in self._ring

    def add(self, key: K, weight: float = 1.0) -> None:
        """Add a key; if it is there, only its weight changes."""
        if key in self._ring:
            self._ring[key].weight = weight
            return
        self._ring[key] = _Account(weight, self._debts.pop(key, 0.0))
        if self._front_is_free and len(self._ring) > 1:
            self._ring.move_to_end(key, last=False)
            self._front_is_free = False

    def remove(self, key: K) -> None:
        """Remove a key; no effect if it is not there."""
        account = self._ring.pop(key, None)
        if account is None:
            return
        if not self._ring:
            self._debts.clear()
            self._front_is_free = True
        elif self._keep_debts and account.credit < 0:
            self._debts[key] = account.credit

    def charge(self, key: K, cost_bytes: float) -> None:
        """Subtract the cost of a task that was assigned to the key."""
        account = self._ring[key]
        account.credit -= cost_bytes
        if account.is_new:
            account.is_new = False
        else:
            self._front_is_free = True
        if account.credit <= 0:
            self._ring.move_to_end(key)

    def rotation(self) -> Iterator[K]:
        """Yield each key once, in order; the caller charges one and stops, or goes on to the next.

        Each key that is passed over gets a quantum only when its credit is used up, so waiting for a
        worker that fits earns nothing.
        """
        refused: set[K] = set()
        while len(refused) < len(self._ring):
            key, account = next(iter(self._ring.items()))
            if key not in refused:
                if account.credit <= 0:
                    account.credit += _QUANTUM_BYTES * account.weight
                if account.credit > 0:
                    yield key
                    refused.add(key)
            self._ring.move_to_end(key)


class FairQueue(Generic[K]):
    """Jobs with tasks to assign: users have shares by weight, and so have the jobs of a user.

    So a user with many jobs, or with urgent ones, gets no more than another of the same weight.
    """

    def __init__(self) -> None:
        # With debts: a user who submits jobs of one task, one after the other, would else start afresh
        # with each and always be served first.
        self._users: DeficitRoundRobin[str] = DeficitRoundRobin(keep_debts=True)
        # Non-empty: a user without jobs has no entry.
        self._jobs: dict[str, DeficitRoundRobin[K]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, user: str, job: K, weight: float, user_weight: float = 1.0) -> None:
        """Add a job; if it is there, only the weights change.

        Args:
            user: Who has submitted it.
            job: The job.
            weight: Among the jobs of the user.
            user_weight: Of the user among the users; that of the job which was added last counts.
        """
        jobs = self._jobs.get(user)
        if jobs is None:
            jobs = self._jobs[user] = DeficitRoundRobin()
        self._users.add(user, user_weight)
        jobs.add(job, weight)

    def remove(self, user: str, job: K) -> None:
        """Remove a job; no effect if it is not there."""
        jobs = self._jobs.get(user)
        if jobs is None:
            return
        jobs.remove(job)
        if not jobs:
            del self._jobs[user]
            self._users.remove(user)

    def charge(self, user: str, job: K, cost_bytes: float) -> None:
        """Subtract the cost of a task from the user's share and the job's."""
        self._users.charge(user, cost_bytes)
        self._jobs[user].charge(job, cost_bytes)

    def rotation(self) -> Iterator[K]:
        """Yield each job once, in order, until the caller has charged one."""
        for user in self._users.rotation():
            yield from self._jobs[user].rotation()
