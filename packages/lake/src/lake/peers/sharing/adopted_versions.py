"""Waits until a version of a shared dataset has reached this node."""

from __future__ import annotations

import asyncio

__all__ = ["AdoptedVersions"]


class AdoptedVersions:
    """The newest version of each shared dataset at this node, and who waits for a newer one."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def note(self, dataset: str, version: int) -> None:
        """Note a version that is the newest now."""
        self._versions[dataset] = version
        for waiting in self._waiting.pop(dataset, ()):
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, dataset: str, version: int) -> None:
        """Return when a version, or a newer one, is here."""
        while self._versions.get(dataset, 0) < version:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(dataset, set()).add(waiting)
            try:
                await waiting
            finally:
                self._waiting.get(dataset, set()).discard(waiting)
