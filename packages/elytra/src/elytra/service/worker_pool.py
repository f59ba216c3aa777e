"""The workers of one backend: which are free, which have an input, which are quarantined."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

__all__ = ["Worker", "WorkerPool"]


@dataclass(slots=True, eq=False)
class Worker:
    """A worker that has joined."""

    id: str
    engine: str
    slots: int = 0
    cached: frozenset[str] = frozenset()
    # None: its end is always noticed, as it is a slot of this node, whose process is replaced. Such
    # workers are alike: no leases, no quarantine, and no second attempt for a slow task.
    lease_seconds: float | None = None
    # Ids of the attempts that it runs and whose results count, oldest first.
    attempts: dict[str, None] = field(default_factory=dict)
    # Attempts that it was asked to stop and whose end it has not reported: they still use a slot, so a
    # worker that has stalled gets no further tasks.
    stopping: set[str] = field(default_factory=set)
    # Set from `quarantine.Quarantine`, which remembers it when the worker leaves.
    is_quarantined: bool = False
    # When any attempt of it last progressed: those that wait in its queue make no progress themselves.
    progressed_at: float = 0.0

    @property
    def may_run(self) -> bool:
        """Whether it gets attempts, now or when others end; not if it does not end stopped ones."""
        return len(self.stopping) < self.slots and not self.is_quarantined

    @property
    def is_free(self) -> bool:
        """Whether another attempt may be assigned to it."""
        used = len(self.attempts) + len(self.stopping)
        return used < self.slots and not self.is_quarantined


class WorkerPool:
    """The workers of one backend."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        # Those of `workers` that are free, the one that has waited longest first.
        self._free: OrderedDict[str, Worker] = OrderedDict()
        # The free workers that have an input: what `cached` says, by input. No entry is empty.
        self._holders: dict[str, set[str]] = {}

    @property
    def has_free(self) -> bool:
        """Whether any worker is free."""
        return bool(self._free)

    def set(self, worker: Worker, cached: frozenset[str]) -> None:
        """Add a worker, or change what it has cached."""
        self.workers[worker.id] = worker
        self._forget_inputs(worker)
        worker.cached = cached
        for item in cached:
            self._holders.setdefault(item, set()).add(worker.id)
        self.refresh(worker)

    def remove(self, worker: Worker) -> None:
        """Remove a worker."""
        self._forget_inputs(worker)
        del self.workers[worker.id]
        self._free.pop(worker.id, None)

    def refresh(self, worker: Worker) -> None:
        """Note that a worker may have become free, or is free no more."""
        if not worker.is_free:
            self._free.pop(worker.id, None)
        elif worker.id not in self._free:
            self._free[worker.id] = worker

    def next_free(self) -> Worker:
        """Return the worker that has been free for longest."""
        return next(iter(self._free.values()))

    def use(self, worker: Worker) -> None:
        """Note that an attempt was assigned to a worker: others are next, if it has more slots."""
        if worker.is_free:
            self._free.move_to_end(worker.id)
        else:
            self._free.pop(worker.id, None)

    def holders(self, item: str) -> Iterable[str]:
        """Return the ids of the workers that have an input."""
        return sorted(self._holders.get(item, ()))

    def has_caches(self) -> bool:
        """Whether any worker has reported inputs."""
        return bool(self._holders)

    def free_holder(self, worker_ids: Iterable[str]) -> Worker | None:
        """Return a free worker of these."""
        return next((self._free[each] for each in worker_ids if each in self._free), None)

    def free_untried(self, tried: Collection[str], *, must: bool = False) -> Worker | None:
        """Return a free worker that has not failed a task.

        If an untried worker exists but is busy, the task waits for it: on a worker that has failed it,
        it would probably fail again. If all have failed it, any free one is returned.

        Args:
            tried: Ids of the workers that have failed it.
            must: Whether to return none if all have failed it.
        """
        # Ends after at most as many steps as there are failed workers, plus one.
        for worker in self._free.values():
            if worker.id not in tried:
                return worker
        if must or not self._free or self.has_untried(tried):
            return None
        return self.next_free()

    def has_untried(self, tried: Collection[str]) -> bool:
        """Whether any worker has not failed a task, and gets it when it is free."""
        return any(worker.id not in tried and worker.may_run for worker in self.workers.values())

    def _forget_inputs(self, worker: Worker) -> None:
        for item in worker.cached:
            holders = self._holders.get(item)
            if holders is not None:
                holders.discard(worker.id)
                if not holders:
                    del self._holders[item]
