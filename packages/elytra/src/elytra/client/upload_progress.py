"""Thread-safe upload progress that never decreases and never exceeds the total."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from sennit_core.clock import SYSTEM, Clock

_WINDOW_SECONDS = 10.0  # long enough to smooth parts of 16 MiB on a slow line

OnProgress: TypeAlias = Callable[[int, int], object]
"""Called with (bytes done, bytes total)."""


class TransferProgress:
    """Sums the bytes sent of each part.

    A retried part starts again at zero; the reported sum does not change until the part has caught
    up, so the callback sees only increasing numbers.

    Args:
        total_bytes: Size of the whole transfer.
        on_progress: Called with each larger sum, one call at a time.
    """

    def __init__(self, total_bytes: int, on_progress: OnProgress | None = None) -> None:
        self._total_bytes = total_bytes
        self._on_progress = on_progress
        self._part_bytes: dict[int, int] = {}
        self._sum_bytes = 0
        self._shown_bytes = -1
        self._lock = threading.Lock()

    def set(self, part: int, bytes_done: int) -> None:
        """Set how many bytes of a part are done; fewer than before when the part is retried."""
        with self._lock:
            self._sum_bytes += bytes_done - self._part_bytes.get(part, 0)
            self._part_bytes[part] = bytes_done
            done = min(self._sum_bytes, self._total_bytes)
            if done > self._shown_bytes:
                self._shown_bytes = done
                if self._on_progress is not None:
                    self._on_progress(done, self._total_bytes)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a transfer is, and how fast.

    Args:
        done_bytes: Bytes that are there.
        total_bytes: All bytes.
        bytes_per_second: The rate of the last ten seconds; 0 until it is known.
        seconds_left: How long the rest takes at this rate; None until it is known.
    """

    done_bytes: int
    total_bytes: int
    bytes_per_second: float
    seconds_left: float | None


def with_rate(show: Callable[[Transfer], object], clock: Clock = SYSTEM) -> OnProgress:
    """Return a callback for `on_progress` that shows the rate and the time left too.

    Args:
        show: Called with each progress.
        clock: Source of time.
    """
    # The first call may report bytes that an earlier attempt has sent: the rate is from there on.
    samples: deque[tuple[float, int]] = deque()

    def on_progress(done: int, total: int) -> None:
        now = clock.monotonic()
        samples.append((now, done))
        while len(samples) > 2 and samples[1][0] <= now - _WINDOW_SECONDS:
            samples.popleft()
        seconds, sent = now - samples[0][0], done - samples[0][1]
        rate = sent / seconds if seconds > 0 else 0.0
        show(Transfer(done, total, rate, (total - done) / rate if rate else None))

    return on_progress
