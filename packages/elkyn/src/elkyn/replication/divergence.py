"""Whether a follower may be read: it must hold a complete past state of its leader."""

from __future__ import annotations

import threading
from collections.abc import Callable

from elkyn.errors import Diverged, NotSynced

__all__ = ["Divergence"]


class Divergence:
    """The divergence state of one store; thread-safe. A store without a leader is always readable.

    Attributes:
        diverged: whether the store holds writes that the leader never had, or may hold some.
        unsynced: whether the store has never held a full state of the leader.
    """

    def __init__(self) -> None:
        self.diverged = self.unsynced = False
        self._lock = threading.Lock()
        self._observers: dict[object, Callable[[], object]] = {}

    @property
    def known(self) -> bool:
        """Whether reads are refused, for either reason."""
        return self.diverged or self.unsynced

    @property
    def reason(self) -> str | None:
        """The code of the error that reads raise; None when the store can be read."""
        if self.diverged:
            return Diverged.code
        return NotSynced.code if self.unsynced else None

    def check(self) -> None:
        """Raise if the store must not be read.

        Raises:
            Diverged: the tree is not, or may not be, a past state of the leader.
            NotSynced: the follower has never received the leader's state.
        """
        if self.diverged:
            raise Diverged
        if self.unsynced:
            raise NotSynced

    def note(self, diverged: bool) -> None:
        """Record whether the store holds writes that the leader never had."""
        self._change(diverged, self.unsynced)

    def note_unsynced(self, unsynced: bool) -> None:
        """Record whether the first full state of the leader is still missing."""
        self._change(self.diverged, unsynced)

    def _change(self, diverged: bool, unsynced: bool) -> None:
        with self._lock:
            before = self.known
            self.diverged, self.unsynced = diverged, unsynced
            # Called outside of the lock: an observer may read `known`, or end its own observation.
            observers = list(self._observers.values()) if before is not self.known else []
        for observer in observers:
            observer()

    def observe(self, observer: Callable[[], object]) -> Callable[[], None]:
        """Call `observer` after each change of `known`; returns the function that stops it."""
        key = object()
        with self._lock:
            self._observers[key] = observer

        def end() -> None:
            with self._lock:
                self._observers.pop(key, None)

        return end
