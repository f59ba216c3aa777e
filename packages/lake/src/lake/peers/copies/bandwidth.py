"""How fast, and at which hours, copies of shared datasets are transferred.

Both sides obey their own limits: a node asks for no more than it may receive, and refuses what it may not
send. What a query waits for comes at once, as a user has asked for it; a sender, which cannot know whether
that is true, sends a peer so much of it in a while, and counts the rest as copies. Peers that wait have
equal shares of what it sends.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from lake.peers.transport.limits import RateLimit
from lake.peers.transport.messages import BODY_BYTES_MAX
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import UsageError
from sennit_core.units import GIB

__all__ = ["CopyBandwidth", "Hours"]

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")
_WINDOWS_MAX = 16
_DAY_MINUTES = 24 * 60
URGENT_BYTES = GIB
URGENT_SECONDS = 3600.0
"""What one peer gets for its queries in this time, before the limits of copies apply to it."""
_WAITS_SECONDS = 5.0
"""A peer that was refused asks again before that (`TransferOptions.busy_seconds`)."""
_SHARE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of the day, in local time.

    Args:
        windows: The minutes of the day at which each begins and ends; one that ends before it
            begins lasts over midnight. Without any it is always.
    """

    windows: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Read windows such as `22:00-06:00, 12:00-13:00`; "" is always.

        Raises:
            UsageError: It is none.
        """
        parts = [each.strip() for each in text.split(",")] if text.strip() else []
        found = [_WINDOW.fullmatch(each) for each in parts]
        windows = tuple(_minutes(each) for each in found if each is not None)
        is_valid = len(windows) == len(parts) <= _WINDOWS_MAX
        if not is_valid or any(start == end or end > _DAY_MINUTES for start, end in windows):
            raise UsageError(
                f"{text[:80]!r} are no hours", hint='such as "22:00-06:00", with commas in between'
            )
        return cls(windows)

    def include(self, minute: int) -> bool:
        """Return whether a minute of the day is within them."""
        return not self.windows or any(
            start <= minute < end if start < end else minute >= start or minute < end
            for start, end in self.windows
        )


class CopyBandwidth:
    """The limits of one node; used in one thread.

    Args:
        bytes_per_second: In each direction; 0 for no limit.
        hours: When copies are transferred at all.
        clock: Source of time.
    """

    def __init__(
        self, bytes_per_second: int = 0, hours: Hours | None = None, clock: Clock = SYSTEM
    ) -> None:
        self._hours = hours or Hours()
        self._clock = clock
        self._receiving = self._sending = None
        # By peer: what it may have for its queries, the bytes that it got since a time, and when it was
        # refused last.
        self._urgent: dict[str, RateLimit] = {}
        self._sent: Counter[str] = Counter()
        self._sent_since = clock.monotonic()
        self._refused_at: dict[str, float] = {}
        if bytes_per_second > 0:
            # A chunk must fit: what is taken at once is not more than the bucket holds.
            burst = max(bytes_per_second, BODY_BYTES_MAX)
            self._receiving = RateLimit(bytes_per_second, burst, clock.monotonic)
            self._sending = RateLimit(bytes_per_second, burst, clock.monotonic)

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self._sending is not None or bool(self._hours.windows)

    def may_receive(self, size: int) -> bool:
        """Return whether so many bytes may be asked for now; they count as received then."""
        return self._is_open() and (self._receiving is None or self._receiving.take(size))

    def not_received(self, size: int) -> None:
        """Give bytes back that were asked for and have not come."""
        if self._receiving is not None:
            self._receiving.give_back(size)

    def may_send(self, peer: str, size: int, *, is_urgent: bool = False) -> bool:
        """Return whether so many bytes may be sent to a peer now; they count as sent then.

        Args:
            peer: The peer.
            size: Bytes.
            is_urgent: Whether the peer says that a query waits for them.
        """
        if is_urgent and self._urgent_of(peer).take(size):
            return True
        now = self._clock.monotonic()
        is_sent = self._is_open() and self._is_next(peer, now) and (
            self._sending is None or self._sending.take(size)
        )  # fmt: skip
        if is_sent:
            self._sent[peer] += size
            self._refused_at.pop(peer, None)
        else:
            self._refused_at[peer] = now
        return is_sent

    def _urgent_of(self, peer: str) -> RateLimit:
        if peer not in self._urgent:
            self._urgent[peer] = RateLimit(
                URGENT_BYTES / URGENT_SECONDS, URGENT_BYTES, self._clock.monotonic
            )
        return self._urgent[peer]

    def _is_next(self, peer: str, now: float) -> bool:
        """Return whether no peer waits that got less: one that asks more often gets no more."""
        if now - self._sent_since >= _SHARE_SECONDS:
            self._sent_since = now
            self._sent.clear()
        self._refused_at = {
            each: at for each, at in self._refused_at.items() if now - at <= _WAITS_SECONDS
        }
        return all(self._sent[peer] <= self._sent[each] for each in self._refused_at)

    def _is_open(self) -> bool:
        if not self._hours.windows:
            return True
        local = datetime.fromtimestamp(self._clock.now())  # noqa: DTZ006 - hours of the office
        return self._hours.include(local.hour * 60 + local.minute)


def _minutes(match: re.Match[str]) -> tuple[int, int]:
    start_hour, start_minute, end_hour, end_minute = map(int, match.groups())
    return start_hour * 60 + start_minute, end_hour * 60 + end_minute
