"""`BudgetPool`: one host's memory for several engines, in fair turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from emsqrt.memory.auto import parse_cap
from emsqrt.memory.queue import FairQueue
from sennit_core.errors import Cancelled, CapTooSmall, DeadlineExceeded

_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class TenantStats:
    """One tenant's account.

    Args:
        used_bytes: caps of the runs that go on.
        peak_bytes: the most of them at once.
        runs: that were let in.
        waiting: runs in the queue.
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

    @contextmanager
    def lease(
        self,
        tenant: str,
        size_bytes: int,
        *,
        deadline_seconds: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[None]:
        """Hold a part of the pool for the length of a `with`; waits for its turn.

        Args:
            tenant: for whom.
            size_bytes: the run's cap.
            deadline_seconds: give up waiting after this.
            cancel: set by another thread to give up waiting.

        Raises:
            CapTooSmall: the tenant's share, or the pool, is smaller than that.
            DeadlineExceeded: its turn did not come in time.
            Cancelled: somebody cancelled it.
        """
        limit_bytes = self._queue.limit(tenant)
        if size_bytes > limit_bytes:
            raise CapTooSmall(
                cap_bytes=limit_bytes,
                needed_bytes=size_bytes,
                because=f"a run of {tenant} asks for that much of the shared pool",
            )
        with self._changed:
            ticket = self._queue.request(tenant, size_bytes)
            self._serve()
        try:
            self._wait(ticket, tenant, deadline_seconds, cancel)
            yield
        finally:
            with self._changed:
                self._granted.discard(ticket)
                self._queue.release(ticket)
                self._serve()

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
        tenant: str,
        deadline_seconds: float | None,
        cancel: threading.Event | None,
    ) -> None:
        what = f"a run of {tenant}, waiting for memory"
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
