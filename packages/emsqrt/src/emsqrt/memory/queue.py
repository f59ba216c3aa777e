"""Who gets memory next: a state machine without clock or threads, so that it can be simulated.

Within a tenant the first to come is the first to be served; tenants take turns. Whoever's turn it
is waits for room and nobody overtakes, so a large request is served in the end; but a tenant that
waits for its own share alone is passed over meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tenant:
    """One tenant's account.

    Args:
        share_bytes: the most it may hold at once.
        used_bytes: what it holds.
        peak_bytes: the most it held at once.
        granted: requests that were served.
        served_at: the turn in which it was served last, 0 when never.
        waiting: requests that were not, in their order: (ticket, bytes).
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
        total_bytes: what there is.
        shares: the most that a tenant may hold; all there is for those who are not named.
    """

    def __init__(self, total_bytes: int, shares: Mapping[str, int] | None = None) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        self.tenants: dict[str, Tenant] = {}
        self._shares = dict(shares or {})
        self._held: dict[int, tuple[str, int]] = {}
        self._next_ticket = self._turn = 0

    def limit(self, tenant: str) -> int:
        """Return the most that a tenant may hold at once."""
        return min(self.total_bytes, self._shares.get(tenant, self.total_bytes))

    def request(self, tenant: str, size_bytes: int) -> int:
        """Queue a request and return its ticket; `serve` tells when it is granted."""
        assert 0 < size_bytes <= self.limit(tenant), "checked by whoever asks"
        if tenant not in self.tenants:
            self.tenants[tenant] = Tenant(self.limit(tenant))
        self._next_ticket += 1
        self.tenants[tenant].waiting.append((self._next_ticket, size_bytes))
        return self._next_ticket

    def serve(self) -> list[int]:
        """Grant what can be granted now and return the tickets."""
        served: list[int] = []
        while (tenant := self._next_tenant()) is not None:
            account = self.tenants[tenant]
            ticket, size_bytes = account.waiting[0]
            if self.used_bytes + size_bytes > self.total_bytes:
                break  # its turn: nobody overtakes
            account.waiting.popleft()
            self._hold(tenant, account, ticket, size_bytes)
            served.append(ticket)
        return served

    def release(self, ticket: int) -> None:
        """Give back what a granted ticket holds, or leave the queue; twice does nothing."""
        if ticket in self._held:
            tenant, size_bytes = self._held.pop(ticket)
            self.used_bytes -= size_bytes
            self.tenants[tenant].used_bytes -= size_bytes
            return
        for account in self.tenants.values():
            account.waiting = deque(each for each in account.waiting if each[0] != ticket)

    def _next_tenant(self) -> str | None:
        """Return who was served longest ago, of those who wait for more than their own share."""
        found = [
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
        self._turn += 1
        account.served_at = self._turn
