"""Whose turn it is to commit to a dataset.

Commits are optimistic: one that was overtaken is repeated. A statement whose repetition takes longer than
the pause between two appends would never get through a steady stream of them, so it takes the dataset's
turn for its last step: others commit after it. A turn only orders commits. What may be committed is
decided by the comparison of heads, so a commit that has waited for too long goes on without harm.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

__all__ = ["CommitTurns"]

_WAIT_SECONDS = 20.0
"""The longest time that a commit waits for the turn of another: above the time of a repetition that
merges what was appended, below the time limits of clients."""


class _Turn:
    """A lock that its thread may take again; a class of its own, since weak references need one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()


class CommitTurns:
    """The turns of a lake's datasets; thread-safe."""

    def __init__(self) -> None:
        # Weak, so that the entry of a dataset goes with its last user.
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._lock = threading.Lock()

    @contextmanager
    def claim(self, dataset: str) -> Iterator[None]:
        """Let other commits to a dataset wait until the context is left.

        Args:
            dataset: Its id.
        """
        turn = self._of(dataset)
        with turn.lock:
            yield

    def wait(self, dataset: str | None) -> None:
        """Wait while it is the turn of another thread, but not for long; call it without other locks.

        Args:
            dataset: The id of the dataset to commit to; None for a new one.
        """
        if dataset is None:
            return
        turn = self._of(dataset)
        if turn.lock.acquire(timeout=_WAIT_SECONDS):
            turn.lock.release()

    def _of(self, dataset: str) -> _Turn:
        with self._lock:
            return self._turns.setdefault(dataset, _Turn())
