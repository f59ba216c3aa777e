"""Advisory locks of datasets: they order commits, and do not decide what may be committed.

Commits are optimistic: one that was overtaken is repeated. A statement whose repetition needs longer than
the pause between two appends would never commit under a steady stream of them. So it locks the dataset for
its last step, and others commit after it. Correctness rests on the comparison of heads alone: a commit
that has waited too long continues without the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

__all__ = ["AdvisoryLocks"]

_WAIT_SECONDS = 20.0
"""The longest wait of a commit: above the time of merging what was appended, below the time limits of
clients."""


class _Lock:
    """A lock that its thread can acquire again; a class of its own, since weak references need one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()


class AdvisoryLocks:
    """The locks of a lake's datasets; thread-safe."""

    def __init__(self) -> None:
        # Weak, so that the entry of a dataset goes with its last user.
        self._locks: WeakValueDictionary[str, _Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, dataset: str) -> Iterator[None]:
        """Let other commits to a dataset wait until the context is left.

        Args:
            dataset: Its id.
        """
        found = self._of(dataset)
        with found.lock:
            yield

    def wait(self, dataset: str | None) -> None:
        """Wait while another thread holds the lock, within a limit; call it without other locks.

        Args:
            dataset: The id of the dataset to commit to; None for a new one.
        """
        if dataset is None:
            return
        found = self._of(dataset)
        if found.lock.acquire(timeout=_WAIT_SECONDS):
            found.lock.release()

    def _of(self, dataset: str) -> _Lock:
        with self._lock:
            return self._locks.setdefault(dataset, _Lock())
