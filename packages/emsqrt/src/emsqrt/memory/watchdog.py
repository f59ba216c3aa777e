"""A thread that compares memory use with the cap, asks for relief early and ends things in time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from emsqrt.memory.fence import Fence
from emsqrt.memory.usage import Limits, MemoryUse, UsageReader

_MIB = 1 << 20
_LOOK_MS, _LOOK_MS_NEAR = 10, 2
_JUDGE_MS = 100
_GRACE_SECONDS = 1.0
_ONCE = Limits(0, 0, 0, 0, far_ms=0, near_ms=0, judge_ms=0)
"""What everything is beyond."""


@dataclass(frozen=True, slots=True)
class CapLevels:
    """Where the watchdog acts below a cap of `cap_bytes`."""

    cap_bytes: int
    press_bytes: int
    breach_bytes: int

    @classmethod
    def below(cls, cap_bytes: int) -> Self:
        """Ask for relief 3 % (at least 2 MiB) below the cap, end things 1 % (1 MiB) below it."""
        return cls(
            cap_bytes,
            cap_bytes - max(2 * _MIB, cap_bytes * 3 // 100),
            cap_bytes - max(_MIB, cap_bytes // 100),
        )

    @classmethod
    def lean(cls, cap_bytes: int) -> Self:
        """For a process that allocates next to nothing: 2 % (1 MiB) and 1 % (512 KiB) below."""
        return cls(
            cap_bytes,
            cap_bytes - max(_MIB, cap_bytes // 50),
            cap_bytes - max(_MIB // 2, cap_bytes // 100),
        )


@dataclass(frozen=True, slots=True)
class Reactions:
    """What a watchdog calls, on its own thread, with the use that it saw.

    Args:
        on_press: called once over `press_bytes`: stop what can be stopped.
        on_breach: called over `breach_bytes`, or when the pressure lasts for a second; it is
            expected not to return, the process is about to break its word.
        on_look: called ten times a second or more often, for progress.
    """

    on_press: Callable[[MemoryUse], None]
    on_breach: Callable[[MemoryUse], None]
    on_look: Callable[[MemoryUse], None] = lambda _: None


class Watch:
    """One cap held for the length of a `with`; made by `Watchdog.watch`."""

    def __init__(
        self, owner: Watchdog, levels: CapLevels, reactions: Reactions, *, fence: bool
    ) -> None:
        self.levels = levels
        self.seen = memoryview(bytearray(24)).cast("Q")
        """The most that was charged, and what else `UsageReader.watch` remembers of its looks."""
        self._owner = owner
        self._reactions = reactions
        self._fence = Fence(levels.breach_bytes) if fence else None
        self._lock = threading.Lock()
        self._pressed = False
        self._over_since: float | None = None
        self._seen = MemoryUse(0, 0, 0)
        self._idle_min = 0

    def look(self) -> MemoryUse:
        """Read the use now, remember the peak and move the fence."""
        return self._note(self._owner.look(self))

    def _note(self, use: MemoryUse) -> MemoryUse:
        with self._lock:
            self._seen = use
            if self._fence is not None:
                self._fence.move(use)
                self._idle_min = self._fence.idle_bytes
        return use

    def peak(self) -> int:
        """Look once more and return the most bytes that were charged so far."""
        self.look()
        return self.seen[0]

    def room(self) -> int:
        """Look and return how much may still be charged before relief is asked for."""
        return max(0, self.levels.press_bytes - self.look().charged_bytes)

    def forgive(self) -> None:
        """Let what is reserved now stay out of the count until it is touched."""
        with self._lock:
            if self._fence is not None:
                self._fence.forgive()
        self.look()

    def lift_fence(self) -> None:
        """Stop failing allocations, so that an error can be reported."""
        with self._lock:
            fence, self._fence = self._fence, None
            if fence is not None:
                fence.lift()

    def raise_cap(self, cap_bytes: int) -> None:
        """Lift the fence, and let the process come to a larger cap, where that one is larger."""
        self.lift_fence()
        if cap_bytes > self.levels.cap_bytes:
            self.levels = CapLevels.below(cap_bytes)

    def limits(self) -> Limits:
        """Return within which use there is nothing to judge, after what was seen last."""
        use = self._seen
        is_over = use.charged_bytes > self.levels.press_bytes
        return Limits(
            charged_max=max(use.charged_bytes, self.levels.press_bytes),
            shmem_max=use.shmem_bytes,
            idle_min=self._idle_min,
            near_bytes=self.levels.cap_bytes * 3 // 4,
            far_ms=_LOOK_MS,
            near_ms=_LOOK_MS_NEAR,
            judge_ms=_LOOK_MS_NEAR if is_over else _JUDGE_MS,
        )

    def judge(self, use: MemoryUse) -> None:
        """React to what was seen last."""
        self._note(use)
        self._react(use)
        self._reactions.on_look(use)

    def _react(self, use: MemoryUse) -> None:
        charged = use.charged_bytes
        if charged <= self.levels.press_bytes:
            self._over_since = None
            return
        now = time.monotonic()
        if self._over_since is None:
            self._over_since = now
        if charged > self.levels.breach_bytes or now - self._over_since > _GRACE_SECONDS:
            self._reactions.on_breach(use)
        elif not self._pressed:
            self._pressed = True
            self._reactions.on_press(use)

    def __enter__(self) -> Self:
        self._owner.reader.forget_most()
        self.look()
        self._owner.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._owner.end()
        self.lift_fence()
        self.look()


class Watchdog:
    """The thread that judges one watch at a time.

    It looks each 10 ms (2 ms in the cap's last quarter), in C and without the interpreter's lock
    until there is something to judge, and sleeps while nothing is watched. A context manager;
    leaving it ends the thread.
    """

    def __init__(self) -> None:
        self.reader = UsageReader()
        self._changed = threading.Condition()
        self._watch: Watch | None = None
        self._unwatched = memoryview(bytearray(24)).cast("Q")
        """What `UsageReader.watch` remembers of looks that belong to no watch."""
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="emsqrt-watchdog", daemon=True)
        self._thread.start()

    def watch(self, levels: CapLevels, reactions: Reactions, *, fence: bool = True) -> Watch:
        """Hold a cap for the length of a `with`.

        Args:
            levels: where to act.
            reactions: what to call.
            fence: whether single allocations larger than what is left fail with `MemoryError`.
        """
        return Watch(self, levels, reactions, fence=fence)

    def look(self, watch: Watch) -> MemoryUse:
        """Look once; for `Watch`."""
        return self.reader.watch(_ONCE, self._wake, watch.seen)

    def charged_bytes(self) -> int:
        """Look once, in C, and return what is charged; for one thread at a time."""
        return self.reader.watch(_ONCE, self._wake, self._unwatched).charged_bytes

    def begin(self, watch: Watch) -> None:
        """Start judging; for `Watch`."""
        with self._changed:
            assert self._watch is None, "one watch at a time"
            self._watch = watch
            self._notify()

    def end(self) -> None:
        """Stop judging; no reaction runs any more when this returns; for `Watch`."""
        with self._changed:
            self._watch = None
            self._notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._notify()
        self._thread.join()
        self.reader.close()
        os.close(self._wake)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _notify(self) -> None:
        self._changed.notify()
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while (watch := self._next()) is not None:
            use = self.reader.watch(watch.limits(), self._wake, watch.seen)
            with self._changed:
                if watch is self._watch:
                    watch.judge(use)

    def _next(self) -> Watch | None:
        """Return what is watched, once something is; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._watch is not None)
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            return None if self._closed else self._watch
