"""Retry a request with growing delays until a time limit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from emsqrt.spill.clients import RequestFailed

T = TypeVar("T")

_FIRST_SECONDS = 0.05
_LONGEST_SECONDS = 5.0


class Retry:
    """Exponential backoff with jitter.

    Args:
        max_ms: no new attempt starts later than this after the first one.
        check: called before each new attempt; an exception that it raises ends the retries.
        sleep, clock: replaced in tests.
    """

    def __init__(
        self,
        max_ms: int,
        check: Callable[[], None] = lambda: None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_seconds = max_ms / 1000
        self._check = check
        self._sleep = sleep
        self._clock = clock

    def run(self, request: Callable[[], T]) -> T:
        """Return the result of the request, or raise the last `RequestFailed`."""
        until = self._clock() + self._max_seconds
        delay = _FIRST_SECONDS
        while True:
            try:
                return request()
            except RequestFailed as error:
                # Jitter: requests that failed together do not come back together.
                wait = delay * random.uniform(0.5, 1.0)
                # The pause counts: no attempt begins after the time limit.
                if not error.retryable or self._clock() + wait > until:
                    raise
            self._check()
            self._sleep(wait)
            delay = min(2 * delay, _LONGEST_SECONDS)
