"""A stream of the paths that change, without their values: what a view of a large tree needs.

`GET /.settings/changes` sends `data: ["/a/b", …]` for every tick; `["/"]` when too much changed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from elkyn.paths import Path, format_path
from elkyn.server.codec import dump
from elkyn.server.feed import Batch, Feed, Opener, Opening

if TYPE_CHECKING:
    from elkyn.store import ElkynStore

__all__ = ["ChangesFeed"]

_PATHS_MAX = 200
_EVERY_SECONDS = 0.1


class ChangesFeed(Feed):
    """The paths of a store that change, gathered for a tenth of a second each.

    Args:
        store: whose paths.
        wake: called in the loop with the feed when something waits.
    """

    def __init__(self, store: ElkynStore, wake: Callable[[Feed], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        self._lock = threading.Lock()
        self._paths: set[Path] = set()
        self._woken = False
        self._end = store.observe(self._changed)

    async def start(self, opener: Opener) -> Opening:
        """Start with nothing: what there is now is no change."""
        return Opening((b": listening\n\n",))

    def _changed(self, _position: int, paths: Sequence[Path]) -> None:
        with self._lock:
            if len(self._paths) <= _PATHS_MAX:
                self._paths.update(paths[: _PATHS_MAX + 1])
            if self._woken or not self._paths:
                return
            self._woken = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._later)

    def _later(self) -> None:
        self._loop.call_later(_EVERY_SECONDS, self._wake, self)

    def take(self) -> list[Batch] | None:
        """Return the paths gathered so far as one message."""
        with self._lock:
            paths, self._paths, self._woken = self._paths, set(), False
        if not paths:
            return []
        shown = ["/"] if len(paths) > _PATHS_MAX else sorted(map(format_path, paths))
        batch = Batch(())
        batch.encoded[True] = b"data: %b\n\n" % dump(shown)
        return [batch]

    def close(self) -> None:
        """End it; closing twice is fine."""
        self._end()
