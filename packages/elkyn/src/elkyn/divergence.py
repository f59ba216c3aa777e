"""Whether a follower holds what its leader never had: nothing of that is told to anybody."""

from __future__ import annotations

import threading
from collections.abc import Callable

from elkyn.errors import Diverged

__all__ = ["Divergence"]


class Divergence:
    """What is known of one store; safe for threads.

    Attributes:
        known: whether the store is not to be read.
    """

    def __init__(self) -> None:
        self.known = False
        self._lock = threading.Lock()
        self._observers: dict[object, Callable[[], object]] = {}

    def check(self) -> None:
        """Refuse to read.

        Raises:
            Diverged: what is there is no past state of the leader, or may be none.
        """
        if self.known:
            raise Diverged

    def note(self, known: bool) -> None:
        """Say that the store has diverged, or that it holds the leader's history (again)."""
        with self._lock:
            changed, self.known = self.known is not known, known
            observers = list(self._observers.values()) if changed else []
        for observer in observers:
            observer()

    def observe(self, observer: Callable[[], object]) -> Callable[[], None]:
        """Call `observer` after each change of `known`; returns what ends that."""
        key = object()
        with self._lock:
            self._observers[key] = observer

        def end() -> None:
            with self._lock:
                self._observers.pop(key, None)

        return end
