"""`BudgetPool`: the memory of one host, shared fairly by several engines."""

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

# How soon a waiting run notices that its cancel event was set.
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class TenantStats:
    """Statistics of one tenant.

    Args:
        used_bytes: the sum of the caps of its active runs.
        peak_bytes: the highest `used_bytes` so far.
        runs: runs that were admitted, including processes that only estimate a plan.
        waiting: runs in the queue.
        spilled_bytes: bytes that its runs wrote to spill files, after compression.
    """

    used_bytes: int
    peak_bytes: int
    runs: int
    waiting: int
    spilled_bytes: int


class BudgetPool:
    """Memory that the engines of one process share; hand it to `Engine(config, pool=, tenant=)`.

    A run leases its whole cap from the pool before its process starts, and returns it when the
    process has ended, so the engines' processes together use less than the total. Requests of one
    tenant are served in order of arrival; tenants are served round-robin.

    Args:
        total: the size of the pool, such as "256MiB", "auto" or bytes.
        shares: the most that each tenant may lease at once; other tenants may lease the whole pool.
    """

    def __init__(self, total: str | int, shares: Mapping[str, str | int] | None = None) -> None:
        self.total_bytes = parse_cap(total)
        parsed = {tenant: parse_cap(share) for tenant, share in (shares or {}).items()}
        # `_queue` decides, `_granted` has the tickets that it granted; both are guarded by
        # `_changed`, and each change notifies all waiting threads.
        self._queue = FairQueue(self.total_bytes, parsed)
        self._changed = threading.Condition()
        self._granted: set[int] = set()
        self._spilled: dict[str, int] = {}

    @property
    def peak_bytes(self) -> int:
        """The most memory that was leased at once."""
        return self._queue.peak_bytes

    def limit_bytes(self, tenant: str) -> int:
        """Return the most memory that a tenant may lease at once."""
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
        """Lease a part of the pool for the duration of a `with`; waits until it is granted.

        Args:
            tenant: the tenant that pays for the lease.
            size_bytes: the run's cap.
            deadline_seconds: stop waiting after this time.
            cancel: set by another thread to stop waiting.
            what: the purpose, for errors.

        Raises:
            CapTooSmall: the tenant's share, or the pool, is smaller than `size_bytes`.
            DeadlineExceeded: the lease was not granted in time.
            Cancelled: `cancel` was set.
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
                # Also when `_wait` raised: the ticket is then still in the queue, or was granted in
                # the meantime.
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
        """Run `work`, which estimates a plan, with a cap that doubles each time it is exceeded.

        Each lease is returned before the larger one is requested, at the end of the queue.

        Args:
            tenant: the tenant that pays for the leases.
            size_bytes: the first cap.
            work: called with its cap and the remaining seconds.
            deadline_seconds: stop waiting after this time.
            cancel: set by another thread to stop waiting.

        Returns:
            The result of `work`.

        Raises:
            MemoryCapExceeded: the most that the tenant may lease is too little.
            CapTooSmall, DeadlineExceeded, Cancelled: as `lease` does.
        """
        limit_bytes, started = self.limit_bytes(tenant), time.monotonic()
        what = "estimating the plan"
        while True:
            left_seconds = left_of(deadline_seconds, started)
            try:
                with self.lease(
                    tenant, size_bytes, deadline_seconds=left_seconds, cancel=cancel, what=what
                ):
                    return work(size_bytes, left_of(deadline_seconds, started))
            # The `with` has ended by now, so the larger request waits without holding the smaller
            # lease. Holding it could deadlock two plans that wait for each other's memory.
            except MemoryCapExceeded as error:
                if size_bytes >= limit_bytes:
                    raise MemoryCapExceeded(
                        cap_bytes=limit_bytes,
                        what=f"{what} of {tenant}",
                        hint="configure a larger share of the pool for the tenant",
                    ) from error
            size_bytes = min(2 * size_bytes, limit_bytes)

    def note_spill(self, tenant: str, size_bytes: int) -> None:
        """Add bytes that a run has spilled to its tenant's statistics."""
        with self._changed:
            self._spilled[tenant] = self._spilled.get(tenant, 0) + size_bytes

    def stats(self) -> dict[str, TenantStats]:
        """Return the statistics of each tenant that ever requested memory."""
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
                if cancel is not None:  # setting the event does not wake the condition: poll it
                    left = _LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)
                self._changed.wait(left)


def left_of(deadline_seconds: float | None, started: float) -> float | None:
    """Return the seconds that remain of a deadline that began at `time.monotonic` = `started`."""
    if deadline_seconds is None:
        return None
    return max(0.0, deadline_seconds - (time.monotonic() - started))
