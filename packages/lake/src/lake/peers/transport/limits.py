"""What one peer may ask of this node, and how often; and how much it may answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sennit_core.errors import Busy, TooLarge
from sennit_core.units import MIB

__all__ = ["ByteLimit", "PeerLimits", "RateLimit", "Slots"]


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """Limits of one peer's session.

    Args:
        messages_per_second: Messages and requests together, in the long run; and answers that nobody
            asked for. Each 4 KiB of a head, and each 64 KiB of a body, counts as one more.
        messages_burst: As many may come at once.
        requests_max: Requests that are served at the same time.
        request_bytes_max: Bytes of their bodies, together.
    """

    messages_per_second: float = 500.0
    messages_burst: int = 2000
    requests_max: int = 64
    request_bytes_max: int = 16 * MIB


class RateLimit:
    """A token bucket.

    Args:
        per_second: Tokens that are added in a second.
        burst: The most that there are.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._filled_at = clock()

    def take(self, tokens: float = 1.0) -> bool:
        """Take tokens if there are enough; return whether there were."""
        if self.wait_seconds(tokens) > 0:
            return False
        self._tokens -= tokens
        return True

    def give_back(self, tokens: float) -> None:
        """Return tokens that were taken and not used."""
        self._tokens = min(self._burst, self._tokens + tokens)

    def wait_seconds(self, tokens: float) -> float:
        """Return after how many seconds there are so many tokens, or all that it can hold."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        missing = min(tokens, self._burst) - self._tokens
        return max(missing, 0.0) / self._per_second


class ByteLimit:
    """Limits the bytes that other nodes send for one query.

    Args:
        bytes_max: Of all of them together; 0 for no limit.
        used: Bytes that have come already.
    """

    def __init__(self, bytes_max: int, used: int = 0) -> None:
        self._bytes_max = bytes_max
        self._used = used

    def add(self, size: int) -> None:
        """Count bytes that have come, before they are written.

        Raises:
            TooLarge: They are too many.
        """
        if self._bytes_max and self._used + size > self._bytes_max:
            raise TooLarge(
                "what other nodes send for this query", self._bytes_max, self._used + size,
                hint="ask for fewer rows or columns, or ask an admin to raise network.query_bytes",
            )  # fmt: skip
        self._used += size

    def remove(self, size: int) -> None:
        """Count bytes of an answer that is not used no more."""
        self._used -= size


class Slots:
    """Limits what is served at the same time, as each holds a thread until its peer has read all of it.

    Args:
        what: What is served, for errors.
        total: Of all peers together.
        of_peer: Of one of them.
    """

    def __init__(self, what: str, *, total: int = 32, of_peer: int = 16) -> None:
        self._what = what
        self._total = total
        self._of_peer = of_peer
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, peer: str) -> Iterator[None]:
        """Hold a slot until the context is left.

        Raises:
            Busy: There is none for the peer.
        """
        if self._taken.total() >= self._total or self._taken[peer] >= self._of_peer:
            raise Busy("the node", hint=f"it runs too many {self._what} of other nodes")
        self._taken[peer] += 1
        try:
            yield
        finally:
            self._taken[peer] -= 1
            self._taken += Counter()  # without the peers that have none
