"""Effects of the logs, which are performed one after the other: what is not stored must not be sent.

A disk that is full, or fails, holds up all that follows. Then the queue is bounded by its callers, which ask
`is_full` before they let a machine work, and by what is only sent: that is dropped, as the machines repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from lake.peers.sharing.publications import StoreLog
from lake.peers.transport.machine import Effect, Send
from sennit_core.errors import SennitError
from sennit_core.logs import get_logger

__all__ = ["EFFECTS_MAX", "EffectQueue"]

_log = get_logger(__name__)
EFFECTS_MAX = 1024
_RETRY_SECONDS = (1.0, 60.0)
"""Between two attempts at storing an entry: at first, and at most."""


class EffectQueue:
    """Effects in their order; used in one event loop.

    Args:
        perform: Performs an effect.
        sleep: Waits for seconds.
    """

    def __init__(
        self,
        perform: Callable[[Effect], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._perform = perform
        self._sleep = sleep
        self._effects: asyncio.Queue[Effect] = asyncio.Queue()
        self.problem = ""
        """Why the first of them cannot be stored; empty if it can."""

    def __len__(self) -> int:
        return self._effects.qsize()

    @property
    def is_full(self) -> bool:
        """Whether no machine should work that leads to more."""
        return len(self) >= EFFECTS_MAX

    def put(self, effects: Iterable[Effect]) -> None:
        """Add effects; what is only sent is dropped while the queue is full."""
        for effect in effects:
            if not (self.is_full and isinstance(effect, Send)):
                self._effects.put_nowait(effect)

    async def run(self) -> None:
        """Perform effects until it is cancelled."""
        while True:
            effect = await self._effects.get()
            seconds, most = _RETRY_SECONDS
            # On a full disk, what follows an entry waits with it.
            while not await self._is_performed(effect):
                if not isinstance(effect, StoreLog):
                    break  # the machines repeat what did not arrive
                await self._sleep(seconds)
                seconds = min(2 * seconds, most)
            self.problem = ""

    async def _is_performed(self, effect: Effect) -> bool:
        try:
            await self._perform(effect)
        except SennitError as error:
            _log.error("the network: %s", error)
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001 - logged; a defect must not end all that follows
            _log.exception("the network: an unexpected error")
            self.problem = f"{type(error).__name__}: {error}"
        else:
            return True
        return False
