"""Which announced addresses of members are dialed, and when.

`Hints` is a state machine without clock and I/O. Whoever sends forged announcements, which name ids of
members, decides where this node connects, within its own networks, but not how often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lake.peers.members.announcements import Announcement
from sennit_core.errors import Denied, SennitError
from sennit_core.logs import get_logger

__all__ = ["Hints", "follow_hints"]

_log = get_logger(__name__)

DIAL_SECONDS = 1.0
"""Between two dials, to whatever node."""
_RETRY_SECONDS = (10.0, 300.0)
WRONG_KEY_SECONDS = 600.0
REMEMBERED_MAX = 1024


@dataclass(slots=True)
class _Tried:
    """A hint that was dialed; not again before `retry_at`."""

    retry_at: float
    wait: float


class Hints:
    """Chooses what to dial among announced addresses."""

    def __init__(self) -> None:
        # Since when each node and address is announced; of those that are now.
        self._since: dict[tuple[str, str], float] = {}
        # By node and address, the one that was tried last at the end.
        self._tried: dict[tuple[str, str], _Tried] = {}
        self._next_at = 0.0

    def choose(
        self, found: Sequence[Announcement], is_wanted: Callable[[str], bool], now: float
    ) -> tuple[str, str] | None:
        """Return the node and address to dial now; None for nothing.

        Args:
            found: What is announced.
            is_wanted: Whether a node is a member without a session.
            now: Seconds that never run backwards.
        """
        hints = [(each.node, address) for each in found for address in each.addresses]
        self._since = {each: self._since.get(each, now) for each in hints}
        if now < self._next_at:
            return None
        due = [
            (max(self._since[each], self._retry_at(*each)), each)
            for each in hints
            if is_wanted(each[0]) and self._retry_at(*each) <= now
        ]
        if not due:
            return None
        # The one that has waited longest, so that new ones keep no other from its turn.
        _, (node, address) = min(due)
        self._next_at = now + DIAL_SECONDS
        self._note(node, address, now, self._wait(node, address))
        return node, address

    def failed(self, node: str, address: str, now: float) -> None:
        """Note that nothing has answered at an address."""
        self._note(node, address, now, min(2 * self._wait(node, address), _RETRY_SECONDS[1]))

    def refused(self, node: str, address: str, now: float) -> None:
        """Drop a hint: another key is at the address."""
        self._note(node, address, now, WRONG_KEY_SECONDS)

    def _retry_at(self, node: str, address: str) -> float:
        known = self._tried.get((node, address))
        return 0.0 if known is None else known.retry_at

    def _wait(self, node: str, address: str) -> float:
        known = self._tried.get((node, address))
        return _RETRY_SECONDS[0] if known is None else known.wait

    def _note(self, node: str, address: str, now: float, wait: float) -> None:
        self._tried.pop((node, address), None)
        self._tried[node, address] = _Tried(now + wait, min(wait, _RETRY_SECONDS[1]))
        while len(self._tried) > REMEMBERED_MAX:
            del self._tried[next(iter(self._tried))]


class Dialer(Protocol):
    """Starts sessions."""

    async def connect(self, node: str, address: str) -> None:
        """Start a session with a member at an address."""
        ...


async def follow_hints(
    found: Callable[[], Sequence[Announcement]],
    dialer: Dialer,
    is_wanted: Callable[[str], bool],
    now: Callable[[], float],
) -> None:
    """Connect to members where they are announced, for ever; arguments as of `Hints.choose`."""
    hints = Hints()
    while True:
        await asyncio.sleep(DIAL_SECONDS)
        chosen = hints.choose(found(), is_wanted, now())
        if chosen is None:
            continue
        try:
            await dialer.connect(*chosen)
        except Denied as error:
            hints.refused(*chosen, now())
            _log.warning("an announcement on the local network is wrong: %s", error)
        except SennitError:
            hints.failed(*chosen, now())
