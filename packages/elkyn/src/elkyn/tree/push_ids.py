"""Push ids: 20 characters that sort by the time they were made (Firebase's scheme).

Eight characters hold the milliseconds since 1970, twelve are random; within one millisecond the
random part counts up, so the ids of one process are strictly increasing.
"""

from __future__ import annotations

import secrets
import threading

from sennit_core.clock import SYSTEM, Clock

__all__ = ["PushIds"]

# In the order of ASCII, so that ids sort as their numbers do (Firebase, "The 2^120 Ways to Ensure
# Unique Identifiers", 2015).
_ALPHABET = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_RANDOM_BITS = 72


class PushIds:
    """Generates push ids; one for each store. Thread-safe."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> str:
        """Return an id greater than every id returned before."""
        with self._lock:
            stamp = int(self._clock.now() * 1000) << _RANDOM_BITS
            if stamp >> _RANDOM_BITS > self._last >> _RANDOM_BITS:
                self._last = stamp | secrets.randbits(_RANDOM_BITS)
            else:  # the same millisecond, or a clock that was set back
                self._last += 1
            number = self._last
        return "".join(_ALPHABET[number >> shift & 63] for shift in range(114, -1, -6))
