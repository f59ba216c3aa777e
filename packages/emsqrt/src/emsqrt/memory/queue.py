"""Fair queue of memory requests: a state machine without clock or threads, so it can be simulated.

Requests of one tenant are served in order of arrival; tenants are served round-robin, the tenant
that was served longest ago first. If the next request does not fit, all later ones wait for it, so
a large request cannot starve. A tenant is skipped while its own share is exhausted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tenant:
    """The state of one tenant.

    Args:
        share_bytes: the most memory it may hold at once.
        used_bytes: the memory that it holds now.
        peak_bytes: the most memory it held at once.
        granted: the number of requests that were granted.
        served_at: the number of the grant that it got last, 0 if none.
        waiting: pending requests in order of arrival: (ticket, bytes).
    """

    share_bytes: int
    used_bytes: int = 0
    peak_bytes: int = 0
    granted: int = 0
    served_at: int = 0
    waiting: deque[tuple[int, int]] = field(default_factory=deque)


class FairQueue:
    """Requests for parts of `total_bytes`.

    Args:
        total_bytes: the memory to share.
        shares: the most that each tenant may hold; `total_bytes` for tenants not named.
    """

    def __init__(self, total_bytes: int, shares: Mapping[str, int] | None = None) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        self.tenants: dict[str, Tenant] = {}
        self._shares = dict(shares or {})
        # Granted tickets; those that wait are in their tenant's `waiting`.
        self._held: dict[int, tuple[str, int]] = {}
        self._next_ticket = self._grants = 0

    def limit(self, tenant: str) -> int:
        """Return the most memory that a tenant may hold at once."""
        return min(self.total_bytes, self._shares.get(tenant, self.total_bytes))

    def request(self, tenant: str, size_bytes: int) -> int:
        """Queue a request and return its ticket; `serve` returns the ticket once it is granted."""
        assert 0 < size_bytes <= self.limit(tenant), "checked by the caller"
        if tenant not in self.tenants:
            self.tenants[tenant] = Tenant(self.limit(tenant))
        self._next_ticket += 1
        self.tenants[tenant].waiting.append((self._next_ticket, size_bytes))
        return self._next_ticket

    def serve(self) -> list[int]:
        """Grant all requests that fit now, in order, and return their tickets."""
        served: list[int] = []
        # `_next_tenant` skips a tenant at the limit of its share, which blocks no other one. A
        # request that fits its share but not the pool blocks all that come after it.
        while (tenant := self._next_tenant()) is not None:
            account = self.tenants[tenant]
            ticket, size_bytes = account.waiting[0]
            if self.used_bytes + size_bytes > self.total_bytes:
                break  # later requests must not overtake this one, or it could starve
            account.waiting.popleft()
            self._hold(tenant, account, ticket, size_bytes)
            served.append(ticket)
        return served

    def release(self, ticket: int) -> None:
        """Release a granted ticket, or remove a pending one; a second call does nothing."""
        if ticket in self._held:
            tenant, size_bytes = self._held.pop(ticket)
            self.used_bytes -= size_bytes
            self.tenants[tenant].used_bytes -= size_bytes
            return
        for account in self.tenants.values():
            account.waiting = deque(each for each in account.waiting if each[0] != ticket)

    def _next_tenant(self) -> str | None:
        """Return the tenant that was served longest ago and whose next request fits its share."""
        found = [
            # Served longest ago first; of two that were never served, the one that asked first.
            (account.served_at, account.waiting[0][0], name)
            for name, account in self.tenants.items()
            if account.waiting and account.used_bytes + account.waiting[0][1] <= account.share_bytes
        ]
        return min(found)[2] if found else None

    def _hold(self, tenant: str, account: Tenant, ticket: int, size_bytes: int) -> None:
        self._held[ticket] = tenant, size_bytes
        self.used_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        account.used_bytes += size_bytes
        account.peak_bytes = max(account.peak_bytes, account.used_bytes)
        account.granted += 1
        self._grants += 1
        account.served_at = self._grants
