"""Bounds on what clients may ask of a server; over them the answer is 429, and soon again is fine."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from sennit_core.errors import Busy

__all__ = ["BODY_BYTES_MAX", "Limits", "Rate"]

BODY_BYTES_MAX = 64 * 1024 * 1024

_CLIENTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes.

    Args:
        body_bytes: a larger request body is refused with 413.
        body_nodes: of a body over 64 KiB, and of a message as large; more are refused with 413.
        body_memory_bytes: that the bodies of all requests under way may take; one more is refused
            with 429. A large body counts as six times its size.
        connections: open at once; one more is answered with 429 and closed.
        requests: answered at once, streams and sockets not counted.
        streams: event streams open at once.
        sockets: WebSockets open at once.
        listens: of one socket.
        message_bytes: of one message on a socket, however many frames it comes in.
        requests_per_second: of one client address, with a burst of as many; None for no bound.
        user_requests_per_second: of one user or key, wherever they ask from; what comes too early on
            a socket waits. None for no bound.
        head_seconds: a connection that has begun a request, or not even that, is closed when the
            head of the request is not there after about so long, or nothing of its body has come.
        send_seconds: a connection whose client takes nothing for so long of what waits for it is
            closed.
        unsent_bytes: of large answers that clients have not taken yet, all together; one more is
            refused with 429.
        client_unsent_bytes: the same of one client address.
    """

    body_bytes: int = BODY_BYTES_MAX
    body_nodes: int = 2_000_000
    body_memory_bytes: int = 1024 * 1024 * 1024
    connections: int = 100_000
    requests: int = 20_000
    streams: int = 50_000
    sockets: int = 20_000
    listens: int = 10_000
    message_bytes: int = 64 * 1024 * 1024
    requests_per_second: float | None = None
    user_requests_per_second: float | None = None
    head_seconds: float = 20.0
    send_seconds: float = 60.0
    unsent_bytes: int = 512 * 1024 * 1024
    client_unsent_bytes: int = 128 * 1024 * 1024


class Rate:
    """A token bucket for each client; the longest silent are forgotten first.

    Attributes:
        bounded: whether there is a bound at all.
    """

    def __init__(self, per_second: float | None) -> None:
        self.bounded = per_second is not None
        self._per_second = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> None:
        """Count a request of `client` at `now` seconds.

        Raises:
            Busy: the client asks more often than it may.
        """
        rate = self._per_second
        if rate is None:
            return
        left = self._left(client, now, rate)
        if left < 1.0:
            raise Busy(f"more than {rate:g} requests a second; try again in a second")
        self._keep(client, left - 1.0, now)

    def delay(self, client: str, now: float) -> float:
        """Count a request of `client`; returns how many seconds too early it comes."""
        rate = self._per_second
        if rate is None:
            return 0.0
        left = self._left(client, now, rate) - 1.0
        self._keep(client, left, now)
        return max(0.0, -left / rate)

    def _left(self, client: str, now: float, rate: float) -> float:
        burst = max(1.0, rate)
        left, at = self._buckets.get(client, (burst, now))
        return min(burst, left + (now - at) * rate)

    def _keep(self, client: str, left: float, now: float) -> None:
        self._buckets[client] = (left, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > _CLIENTS_MAX:
            self._buckets.popitem(last=False)
