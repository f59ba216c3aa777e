"""A thread that compares memory use with the cap, asks for relief early and ends things in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from emsqrt.memory.fence import Fence
from emsqrt.memory.usage import MemoryUse, UsageReader

_MIB = 1 << 20
_LOOK_SECONDS = 0.01
_LOOK_SECONDS_NEAR = 0.002
_GRACE_SECONDS = 1.0


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


class Watchdog:
    """Watches this process while its context is open.

    1. Each 10 ms (2 ms in the last quarter) it looks, remembers the peak and moves the fence.
    2. Over `press_bytes` it calls `on_press` once: stop what can be stopped.
    3. Over `breach_bytes`, or when the pressure lasts for a second, it calls `on_breach`, which
       is expected not to return: the process is about to break its word.

    Args:
        levels: where to act.
        on_press: called from the watchdog's thread with the use that was seen.
        on_breach: called from the watchdog's thread with the use that was seen.
        on_look: called at each look, for progress.
        fence: whether single allocations larger than what is left fail with `MemoryError`.
    """

    def __init__(
        self,
        levels: CapLevels,
        on_press: Callable[[MemoryUse], None],
        on_breach: Callable[[MemoryUse], None],
        *,
        on_look: Callable[[MemoryUse], None] | None = None,
        fence: bool = True,
    ) -> None:
        self._levels = levels
        self._on_press = on_press
        self._on_breach = on_breach
        self._on_look = on_look
        self._reader = UsageReader()
        self._fence = Fence(levels.cap_bytes) if fence else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="emsqrt-watchdog", daemon=True)
        self._lock = threading.Lock()
        self._pressed = False
        self._over_since: float | None = None
        self.peak_bytes = 0

    def look(self) -> MemoryUse:
        """Read the use now, remember the peak and move the fence."""
        use = self._reader.read()
        self.peak_bytes = max(self.peak_bytes, use.charged_bytes)
        with self._lock:
            if self._fence is not None:
                self._fence.move(use)
        return use

    def lift_fence(self) -> None:
        """Stop failing allocations, so that an error can be reported."""
        with self._lock:
            fence, self._fence = self._fence, None
            if fence is not None:
                fence.lift()

    def __enter__(self) -> Self:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.lift_fence()
        self.look()
        self._reader.close()

    def _watch(self) -> None:
        wait_seconds = _LOOK_SECONDS
        while not self._stop.wait(wait_seconds):
            use = self.look()
            self._judge(use)
            if self._on_look is not None:
                self._on_look(use)
            near = use.charged_bytes * 4 > self._levels.cap_bytes * 3
            wait_seconds = _LOOK_SECONDS_NEAR if near else _LOOK_SECONDS

    def _judge(self, use: MemoryUse) -> None:
        charged = use.charged_bytes
        if charged <= self._levels.press_bytes:
            self._over_since = None
            return
        now = time.monotonic()
        if self._over_since is None:
            self._over_since = now
        if charged > self._levels.breach_bytes or now - self._over_since > _GRACE_SECONDS:
            self._on_breach(use)
        elif not self._pressed:
            self._pressed = True
            self._on_press(use)
