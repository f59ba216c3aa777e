"""The calls in progress: who makes them, how many at once, and how long they may wait."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lake.statements.limits import Requester
from sennit_core.errors import Busy

__all__ = ["Call", "Caller", "Calls"]

CALLER_MAX = 16
"""Calls of one credential at once: a quarter of all threads, so that four may be stuck."""
_MESSAGE_SECONDS = 60.0
"""Time for a client to go on; a call that waits occupies a thread."""
_WATCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client.

    Args:
        key: The digest of its credential: two tokens of the same name are two callers.
        token: The credential.
        requester: Its name and rights.
    """

    key: bytes
    token: str
    requester: Requester


class Call:
    """One call.

    Args:
        caller: Who makes it.
        context: Of gRPC.
    """

    def __init__(self, caller: Caller, context: Any) -> None:
        self.caller = caller
        self.context = context
        # None while the call has no time limit of its own, because something else limits it.
        self._until: float | None = None
        self.expect_message()

    @property
    def requester(self) -> Requester:
        """The client's name and rights."""
        return self.caller.requester

    @property
    def is_active(self) -> bool:
        """Whether the client still waits."""
        return bool(self.context.is_active())

    @property
    def seconds(self) -> float | None:
        """The deadline that the client set, from now."""
        left: float | None = self.context.time_remaining()
        return None if left is None else max(left, 0.001)

    def expect_message(self) -> None:
        """Set a limit of a minute: for the next message, or to receive a short answer."""
        self.allow(_MESSAGE_SECONDS)

    def allow(self, seconds: float | None) -> None:
        """End the call after this time; None for no limit."""
        self._until = None if seconds is None else time.monotonic() + seconds

    def end_if_overdue(self, now: float) -> None:
        """End the call if its time is over."""
        if self._until is not None and now > self._until:
            self.context.cancel()


class Calls:
    """All calls of a server; a thread ends those whose client does not go on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[Call] = set()
        self._by_caller: Counter[bytes] = Counter()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="flight-calls", daemon=True)
        self._thread.start()

    @contextmanager
    def admit(self, caller: Caller, context: Any) -> Iterator[Call]:
        """Count a call while it is in progress.

        Raises:
            Busy: The caller makes too many at once.
        """
        call = Call(caller, context)
        with self._changed:
            if self._by_caller[caller.key] >= CALLER_MAX:
                raise Busy(f"{CALLER_MAX} calls of this token are in progress")
            self._by_caller[caller.key] += 1
            self._open.add(call)
        try:
            yield call
        finally:
            with self._changed:
                self._open.discard(call)
                self._by_caller[caller.key] -= 1
                if not self._by_caller[caller.key]:
                    del self._by_caller[caller.key]
                self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Wait until all calls have ended, at most for this time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open, seconds)
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            now = time.monotonic()
            with self._changed:
                calls = tuple(self._open)
            for call in calls:
                call.end_if_overdue(now)
