"""The time limit of a statement."""

from __future__ import annotations

import time

__all__ = ["Deadline"]

_LEAST_SECONDS = 0.001


class Deadline:
    """The end of a time limit; of all steps of a statement together."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """The seconds until then; None if there is no limit."""
        if self._until is None:
            return None
        return max(self._until - time.monotonic(), _LEAST_SECONDS)
