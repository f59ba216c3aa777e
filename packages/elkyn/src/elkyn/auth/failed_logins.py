"""Limits on failed logins that an attacker cannot use to lock the owner of an account out.

Failures are counted per email and address, per address, and per email over all addresses. The last
count limits an attacker with many addresses; it does not apply to an address from which the account
has logged in before, because otherwise any client could lock its owner out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from elkyn.auth.throttle import Throttle
from sennit_core.clock import Clock

__all__ = ["FailedLogins", "client_network"]

_HALF_SECONDS = 60.0  # half-life of the counters of failures
# A user who mistypes is slowed down after ten failures within about a minute; an attacker too.
_PAIR_MAX = 10
# Higher than `_PAIR_MAX`: many users may share one address, as behind a proxy.
_CLIENT_MAX = 100
_EMAIL_MAX = 100
_KNOWN_MAX = 50_000
_IPV6_PREFIX = 64


class FailedLogins:
    """Counts failed logins; thread-safe.

    Args:
        clock: monotonic time.
    """

    def __init__(self, clock: Clock) -> None:
        self._by_pair = Throttle(_PAIR_MAX, _HALF_SECONDS, clock)
        self._by_client = Throttle(_CLIENT_MAX, _HALF_SECONDS, clock)
        self._by_email = Throttle(_EMAIL_MAX, _HALF_SECONDS, clock)
        # Least recently used first; the oldest are forgotten, and then count as any other address.
        self._known: OrderedDict[str, None] = OrderedDict()  # pairs that have logged in
        self._lock = threading.Lock()

    def refuses(self, email: str, client: str | None) -> bool:
        """Whether a login of `email` from an address is over a limit and must wait."""
        network = client_network(client)
        pair = _pair(email, network)
        if self._by_pair.refuses(pair) or (network and self._by_client.refuses(network)):
            return True
        with self._lock:
            is_known = pair in self._known
        return not is_known and self._by_email.refuses(email)

    def failed(self, email: str, client: str | None) -> None:
        """Count a failure."""
        network = client_network(client)
        self._by_pair.failed(_pair(email, network))
        self._by_client.failed(network)
        self._by_email.failed(email)

    def succeeded(self, email: str, client: str | None) -> None:
        """Reset the failures of this address, and remember that the account logs in from it."""
        pair = _pair(email, client_network(client))
        self._by_pair.succeeded(pair)
        with self._lock:
            self._known[pair] = None
            self._known.move_to_end(pair)
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)


def client_network(client: str | None) -> str:
    """Return the network that limits count: an IPv4 address, or the /64 of an IPv6 address.

    An IPv6 client has all addresses of its /64 (RFC 6177): counting single ones would not limit it.
    """
    try:
        address = ip_address(client or "")
    except ValueError:
        return client or ""
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    shift = 128 - _IPV6_PREFIX
    return f"{IPv6Address(int(address) >> shift << shift)}/{_IPV6_PREFIX}"


def _pair(email: str, network: str) -> str:
    return f"{network} {email}"
