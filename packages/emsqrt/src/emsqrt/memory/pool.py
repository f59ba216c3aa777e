"""`BudgetPool`: one host's memory for several engines, in fair turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from emsqrt.memory.auto import parse_cap
from emsqrt.memory.queue import FairQueue
from sennit_core.errors import Cancelled, CapTooSmall, DeadlineExceeded, MemoryCapExceeded

T = TypeVar("T")

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class TenantStats:
    """One tenant's account.

    Args:
        used_bytes: caps of the runs that go on.
        peak_bytes: the most of them at once.
        runs: that were let in, processes that only look at a plan among them.
        waiting: those in the queue.
        spilled_bytes: written to spill by its runs, as it is stored.
    """

    used_bytes: int
    peak_bytes: int
    runs: int
    waiting: int
    spilled_bytes: int


class BudgetPool:
    """Memory that the engines of one process share; hand it to `Engine(config, pool=, tenant=)`.

    A run takes its whole cap out of the pool before its process starts, and gives it back when that
    has ended; so the sum of what the engines' processes hold stays below the total. Within a tenant
    the first to come is the first to be served, and tenants take turns.

    Args:
        total: such as "256MiB", "auto" or bytes.
        shares: the most that each tenant may hold at once; the whole for those not named.
    """

    def __init__(self, total: str | int, shares: Mapping[str, str | int] | None = None) -> None:
        self.total_bytes = parse_cap(total)
        parsed = {tenant: parse_cap(share) for tenant, share in (shares or {}).items()}
        self._queue = FairQueue(self.total_bytes, parsed)
        self._changed = threading.Condition()
        self._granted: set[int] = set()
        self._spilled: dict[str, int] = {}

    @property
    def peak_bytes(self) -> int:
        """The most that was let out at once."""
        return self._queue.peak_bytes

    def limit_bytes(self, tenant: str) -> int:
        """Return the most that a tenant may hold at once."""
        return self._queue.limit(tenant)

    @contextmanager
    def lease(
        self,
        tenant: str,
        size_bytes: int,
        *,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
        what: str = "a run",
    ) -> Iterator[None]:
        """Hold a part of the pool for the length of a `with`; waits for its turn.

        Args:
            tenant: for whom.
            size_bytes: the run's cap.
            deadline_seconds: give up waiting after this.
            cancel: set by another thread to give up waiting.
            what: what it is for, in errors.

        Raises:
            CapTooSmall: the tenant's share, or the pool, is smaller than that.
            DeadlineExceeded: its turn did not come in time.
            Cancelled: somebody cancelled it.
        """
        limit_bytes = self.limit_bytes(tenant)
        what = f"{what} of {tenant}"
        if size_bytes > limit_bytes:
            raise CapTooSmall(
                cap_bytes=limit_bytes,
                needed_bytes=size_bytes,
                because=f"{what} asks for that much of the shared pool",
            )
        with self._changed:
            ticket = self._queue.request(tenant, size_bytes)
            self._serve()
        try:
            self._wait(ticket, f"{what}, waiting for memory", deadline_seconds, cancel)
            yield
        finally:
            with self._changed:
                self._granted.discard(ticket)
                self._queue.release(ticket)
                self._serve()

    def lease_enough(
        self,
        tenant: str,
        size_bytes: int,
        work: Callable[[int, float | None], T],
        *,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
    ) -> T:
        """Return what a look at a plan gives, which holds twice as much after each breach.

        All is given back before more is asked for, at the end of the line.

        Args:
            tenant: for whom.
            size_bytes: the first cap on it.
            work: is given its cap and the seconds that are left.
            deadline_seconds: give up waiting after this.
            cancel: set by another thread to give up waiting.

        Raises:
            MemoryCapExceeded: all that the tenant may hold is too little.
            CapTooSmall, DeadlineExceeded, Cancelled: as `lease` does.
        """
        limit_bytes, started = self.limit_bytes(tenant), time.monotonic()
        what = "a look at a plan"
        while True:
            left_seconds = left_of(deadline_seconds, started)
            try:
                with self.lease(
                    tenant, size_bytes, deadline_seconds=left_seconds, cancel=cancel, what=what
                ):
                    return work(size_bytes, left_of(deadline_seconds, started))
            except MemoryCapExceeded as error:
                if size_bytes >= limit_bytes:
                    raise MemoryCapExceeded(
                        cap_bytes=limit_bytes,
                        what=f"{what} of {tenant}",
                        hint="give the tenant a larger share of the pool",
                    ) from error
            size_bytes = min(2 * size_bytes, limit_bytes)

    def note_spill(self, tenant: str, size_bytes: int) -> None:
        """Add what a run of a tenant has spilled to its account."""
        with self._changed:
            self._spilled[tenant] = self._spilled.get(tenant, 0) + size_bytes

    def stats(self) -> dict[str, TenantStats]:
        """Return the account of each tenant that ever asked."""
        with self._changed:
            return {
                name: TenantStats(
                    account.used_bytes,
                    account.peak_bytes,
                    account.granted,
                    len(account.waiting),
                    self._spilled.get(name, 0),
                )
                for name, account in self._queue.tenants.items()
            }

    def _serve(self) -> None:
        self._granted.update(self._queue.serve())
        self._changed.notify_all()

    def _wait(
        self,
        ticket: int,
        what: str,
        deadline_seconds: float | None,
        cancel: threading.Event | None,
    ) -> None:
        started = time.monotonic()
        with self._changed:
            while ticket not in self._granted:
                if cancel is not None and cancel.is_set():
                    raise Cancelled(what)
                left = None
                if deadline_seconds is not None:
                    left = deadline_seconds - (time.monotonic() - started)
                    if left <= 0:
                        raise DeadlineExceeded(what, deadline_seconds)
                if cancel is not None:  # an event wakes nobody who waits for something else
                    left = _LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)
                self._changed.wait(left)


def left_of(deadline_seconds: float | None, started: float) -> float | None:
    """Return what is left of a number of seconds since `time.monotonic` was `started`."""
    if deadline_seconds is None:
        return None
    return max(0.0, deadline_seconds - (time.monotonic() - started))
