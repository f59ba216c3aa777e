"""A thread that compares memory use with the cap, and stops or ends a run that comes near it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from emsqrt.memory.allocation_limit import AllocationLimit
from emsqrt.memory.usage import Limits, MemoryUse, UsageReader

_MIB = 1 << 20
_LOOK_MS, _LOOK_MS_NEAR = 10, 2
_REPORT_MS = 100
# How long a run may stay above `press_bytes` after it was asked to stop.
_GRACE_SECONDS = 1.0
_OVER = 3
"""The place in `Watch.seen` that ends the measurements (`em_peak`)."""
_ONCE = Limits(0, 0, 0, 0, far_ms=0, near_ms=0, report_ms=0)
"""Limits that every measurement exceeds, so that `UsageReader.watch` measures once."""


# From the top, with the distances of `below` and `lean`:
#
#                below              lean
#     cap     ─────────────────────────────────────────── must not be exceeded
#     breach  ── 1 %, ≥ 1 MiB ──── 1 %, ≥ 512 KiB ─────── end the process
#     press   ── 3 %, ≥ 2 MiB ──── 2 %, ≥ 1 MiB ───────── ask the run to stop
#     near    ── 25 % ──────────── 25 % ───────────────── measure every 2 ms instead of 10
@dataclass(frozen=True, slots=True)
class CapLevels:
    """The levels below a cap of `cap_bytes` at which the watchdog acts."""

    cap_bytes: int
    press_bytes: int
    breach_bytes: int

    @classmethod
    def below(cls, cap_bytes: int) -> Self:
        """Stop the run 3 % (at least 2 MiB) below the cap, end the process 1 % (1 MiB) below it."""
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
    """Callbacks of a watchdog, called on its thread with the memory use that it measured.

    Args:
        on_press: called once, above `press_bytes`: stop the run.
        on_breach: called above `breach_bytes`, or after a second above `press_bytes`. It should
            end the process, which is about to exceed its cap.
        on_look: called ten times a second or more often, to report progress.
    """

    on_press: Callable[[MemoryUse], None]
    on_breach: Callable[[MemoryUse], None]
    on_look: Callable[[MemoryUse], None] = lambda _: None


class Watch:
    """One cap, enforced for the duration of a `with`; made by `Watchdog.watch`."""

    def __init__(
        self, owner: Watchdog, levels: CapLevels, reactions: Reactions, *, limit_allocations: bool
    ) -> None:
        self.levels = levels
        self.seen = memoryview(bytearray(32)).cast("Q")
        """Peak charged bytes, and the rest of the state of `UsageReader.watch`."""
        self._owner = owner
        self._reactions = reactions
        self._allocation_limit = AllocationLimit(levels.breach_bytes) if limit_allocations else None
        # Guards the allocation limit, which the watchdog and the run's thread move.
        self._lock = threading.Lock()
        # `_pressed`: on_press was called, and is not called again. `_over_since`: when use rose
        # above `press_bytes`; None while it is below.
        self._pressed = False
        self._over_since: float | None = None
        # The last measurement, from which `limits` computes when the next report is due.
        self._seen = MemoryUse(0, 0, 0)
        self._idle_min = 0

    def look(self) -> MemoryUse:
        """Measure now, update the peak and move the allocation limit."""
        return self._note(self._owner.look(self))

    def _note(self, use: MemoryUse) -> MemoryUse:
        with self._lock:
            self._seen = use
            if self._allocation_limit is not None:
                self._allocation_limit.move(use)
                self._idle_min = self._allocation_limit.idle_bytes
        return use

    def peak(self) -> int:
        """Measure once more and return the peak of charged bytes."""
        self.look()
        return self.seen[0]

    @property
    def last(self) -> MemoryUse:
        """The last measurement; after the watch that at its end."""
        return self._seen

    def room(self) -> int:
        """Measure and return how much may still be charged below `press_bytes`."""
        return max(0, self.levels.press_bytes - self.look().charged_bytes)

    def forgive(self) -> None:
        """Exempt the address space reserved so far from the allocation limit, until touched."""
        with self._lock:
            if self._allocation_limit is not None:
                self._allocation_limit.forgive()
        self.look()

    def lift_allocation_limit(self) -> None:
        """Stop failing allocations, so that an error can be reported."""
        with self._lock:
            limit, self._allocation_limit = self._allocation_limit, None
            if limit is not None:
                limit.lift()

    def raise_cap(self, cap_bytes: int) -> None:
        """Lift the allocation limit, and raise the cap to `cap_bytes` if that is larger."""
        self.lift_allocation_limit()
        if cap_bytes > self.levels.cap_bytes:
            self.levels = CapLevels.below(cap_bytes)

    @property
    def is_near(self) -> bool:
        """Whether the last measurement was in the cap's last quarter."""
        return self._seen.charged_bytes > self._near_bytes

    @property
    def _near_bytes(self) -> int:
        return self.levels.cap_bytes * 3 // 4

    def limits(self) -> Limits:
        """Return the limits within which no reaction is needed, from the last measurement."""
        use = self._seen
        is_over = use.charged_bytes > self.levels.press_bytes
        return Limits(
            # Report as soon as
            #     use rises above what was reported before, or above `press_bytes`;
            #     shared memory grows or untouched reservations shrink: the allocation limit falls;
            #     `report_ms` have passed.
            charged_max=max(use.charged_bytes, self.levels.press_bytes),
            shmem_max=use.shmem_bytes,
            idle_min=self._idle_min,
            near_bytes=self._near_bytes,
            far_ms=_LOOK_MS,
            near_ms=_LOOK_MS_NEAR,
            report_ms=_LOOK_MS_NEAR if is_over else _REPORT_MS,
        )

    def react(self, use: MemoryUse) -> None:
        """Call the reactions that a measurement asks for."""
        self._note(use)
        self._compare_with_levels(use)
        self._reactions.on_look(use)

    def _compare_with_levels(self, use: MemoryUse) -> None:
        charged = use.charged_bytes
        if charged <= self.levels.press_bytes:
            self._over_since = None
            return
        now = time.monotonic()
        if self._over_since is None:
            self._over_since = now
        # A run that does not stop within a second of being asked is ended, too.
        if charged > self.levels.breach_bytes or now - self._over_since > _GRACE_SECONDS:
            self._reactions.on_breach(use)
        elif not self._pressed:
            self._pressed = True
            self._reactions.on_press(use)

    def __enter__(self) -> Self:
        # The peak belongs to this watch, not to what the process did before.
        self._owner.reader.forget_most()
        self.look()
        self._owner.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        # Before the last `look`: from here on no reaction can run.
        self._owner.end()
        self.lift_allocation_limit()
        self.look()


class Watchdog:
    """The thread that enforces one watch at a time.

    It measures every 10 ms (2 ms in the cap's last quarter), in C and without the interpreter's
    lock until a reaction is needed, and sleeps while there is no watch. A context manager; leaving
    it ends the thread.
    """

    def __init__(self) -> None:
        # The thread is in one of two waits: on `_changed` while there is no watch, in C on `_wake`
        # while there is one. `_is_woken`: the second was ended, and `_wake` is to be read.
        self.reader = UsageReader()
        self._changed = threading.Condition()
        self._watch: Watch | None = None
        # Whether the thread is in the second wait, perhaps still for a watch that is over: it gets the
        # next one when it would measure again, without being woken.
        self._measures = False
        self._is_woken = False
        self._unwatched = memoryview(bytearray(32)).cast("Q")
        """State of `UsageReader.watch` for measurements that belong to no watch."""
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="emsqrt-watchdog", daemon=True)
        self._thread.start()

    def watch(
        self, levels: CapLevels, reactions: Reactions, *, limit_allocations: bool = True
    ) -> Watch:
        """Enforce a cap for the duration of a `with`.

        Args:
            levels: the levels at which to act.
            reactions: the callbacks.
            limit_allocations: make allocations that exceed the cap fail with `MemoryError`.
        """
        return Watch(self, levels, reactions, limit_allocations=limit_allocations)

    def look(self, watch: Watch) -> MemoryUse:
        """Measure once; for `Watch`."""
        return self.reader.watch(_ONCE, self._wake, watch.seen)

    def charged_bytes(self) -> int:
        """Measure once, in C, and return the charged bytes; for one thread at a time."""
        return self.reader.watch(_ONCE, self._wake, self._unwatched).charged_bytes

    def begin(self, watch: Watch) -> None:
        """Start enforcing a watch; for `Watch`."""
        with self._changed:
            assert self._watch is None, "one watch at a time"
            watch.seen[_OVER] = 0
            self._watch = watch
            if not self._measures:
                self._changed.notify()
            # A process that is near its cap is measured more often than the watch before may be.
            elif watch.is_near:
                self._notify()

    def end(self) -> None:
        """Stop enforcing the watch; no reaction runs once this has returned; for `Watch`."""
        with self._changed:
            if self._watch is not None:
                self._watch.seen[_OVER] = 1
            self._watch = None

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
        """End both waits of the thread."""
        self._changed.notify()
        self._is_woken = True
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while (watch := self._next()) is not None:
            use = self.reader.watch(watch.limits(), self._wake, watch.seen)
            with self._changed:
                # The watch may have ended while this thread measured; its reactions must not run
                # any more.
                if watch is self._watch:
                    watch.react(use)

    def _next(self) -> Watch | None:
        """Wait for a watch and return it; None once the watchdog is closed."""
        with self._changed:
            self._measures = False
            self._changed.wait_for(lambda: self._closed or self._watch is not None)
            self._measures = True
            if self._is_woken:
                self._is_woken = False
                os.eventfd_read(self._wake)
            return None if self._closed else self._watch
