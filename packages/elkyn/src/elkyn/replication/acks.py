"""Acknowledged positions of a store's followers, and the writes that wait for them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from sennit_core.errors import UsageError

__all__ = ["Acks", "parse_ack"]

_NODES_MAX = 1000
_REPLICAS_MAX = 100


class Acks:
    """The followers of one store by their id; for one event loop."""

    def __init__(self) -> None:
        # What each follower has on its disk, most recently heard of last; the oldest are forgotten
        # first.
        self._positions: OrderedDict[str, int] = OrderedDict()
        # (position, replicas, future) of each write that waits; its own `wait` removes a future
        # that timed out.
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    def note(self, node: str, position: int) -> None:
        """Record that a follower has everything up to `position` on its disk."""
        self._positions[node] = max(position, self._positions.get(node, 0))
        self._positions.move_to_end(node)
        if len(self._positions) > _NODES_MAX:
            self._positions.popitem(last=False)
        left = []
        for wanted, replicas, done in self._waiting:
            if self.count(wanted) < replicas:
                left.append((wanted, replicas, done))
            elif not done.done():
                done.set_result(None)
        self._waiting = left

    def clear(self) -> None:
        """Forget acknowledgements to the leader of an earlier term."""
        self._positions.clear()

    def count(self, position: int) -> int:
        """Return how many followers have everything up to `position`."""
        return sum(reached >= position for reached in self._positions.values())

    def positions(self) -> dict[str, int]:
        """Return the position of each follower by its id."""
        return dict(self._positions)

    async def wait(self, position: int, replicas: int, seconds: float) -> bool:
        """Wait until `replicas` followers have `position`; False after `seconds`.

        Also returns False when the server stops and cancels the waiting tasks.
        """
        if self.count(position) >= replicas:
            return True
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (position, replicas, done)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await done
        except (TimeoutError, asyncio.CancelledError):
            return False
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        return True


def parse_ack(text: str) -> int:
    """Return how many followers a write waits for: 0 for `local`, 2 for `replicas:2`.

    Raises:
        UsageError: `text` has neither form.
    """
    if text == "local":
        return 0
    kind, _colon, count = text.partition(":")
    if kind != "replicas" or not count.isdecimal() or not 1 <= int(count[:9]) <= _REPLICAS_MAX:
        raise UsageError(f"{text[:40]!r} is not an acknowledgement mode", hint="local, replicas:1")
    return int(count)
