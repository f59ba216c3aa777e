"""Limits on what clients may use of a server; a request over a limit is answered with 429."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from sennit_core.errors import Busy

__all__ = ["BODY_BYTES_MAX", "Limits", "Rate"]

BODY_BYTES_MAX = 64 * 1024 * 1024

_CLIENTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server.

    Args:
        body_bytes: a larger request body is refused with 413.
        body_nodes: values in a body over 64 KiB, or in a message of that size; more are refused
            with 413.
        body_memory_bytes: memory for the bodies of all requests in progress; a request over it is
            refused with 429. A large body counts as six times its size.
        connections: open at once; a further one is answered with 429 and closed.
        requests: in progress at once, streams and sockets not counted.
        streams: event streams open at once.
        sockets: WebSockets open at once.
        listens: open on one socket at once.
        message_bytes: size of one message on a socket, over all its frames.
        requests_per_second: rate of one client address, with a burst of the same number; None for
            no limit.
        user_requests_per_second: rate of one user or API key over all addresses; a socket's requests
            over it are delayed, not refused. None for no limit.
        head_seconds: close a connection on which the head of a request was not received after about
            this time, or nothing more of its body.
        send_seconds: close a connection whose client has read nothing for this time while data wait.
        unsent_bytes: large answers of all clients that wait to be sent; an answer over it is
            refused with 429.
        client_unsent_bytes: the same limit for one client address.
    """

    body_bytes: int = BODY_BYTES_MAX
    body_nodes: int = 4_000_000
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
    """A token bucket for each client; the least recently active clients are forgotten first.

    Attributes:
        bounded: whether a rate limit is set.
    """

    def __init__(self, per_second: float | None) -> None:
        self.bounded = per_second is not None
        self._per_second = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def consume(self, client: str, now: float) -> None:
        """Count a request of `client` at `now` seconds.

        Raises:
            Busy: the client exceeds its rate.
        """
        rate = self._per_second
        if rate is None:
            return
        left = self._left(client, now, rate)
        if left < 1.0:
            raise Busy(f"more than {rate:g} requests a second; try again in a second")
        self._keep(client, left - 1.0, now)

    def delay(self, client: str, now: float) -> float:
        """Count a request of `client`; returns how many seconds to delay it to keep to the rate."""
        rate = self._per_second
        if rate is None:
            return 0.0
        # May become negative: the debt is what the next request of the client has to wait for.
        left = self._left(client, now, rate) - 1.0
        self._keep(client, left, now)
        return max(0.0, -left / rate)

    def _left(self, client: str, now: float, rate: float) -> float:
        burst = max(1.0, rate)
        # A client that was forgotten starts with a full bucket, as one that was never seen.
        left, at = self._buckets.get(client, (burst, now))
        return min(burst, left + (now - at) * rate)

    def _keep(self, client: str, left: float, now: float) -> None:
        self._buckets[client] = (left, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > _CLIENTS_MAX:
            self._buckets.popitem(last=False)
