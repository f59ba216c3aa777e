"""A stream of the paths that change, without their values, for the dashboard's view of a large tree.

`GET /.settings/changes` sends `data: ["/a/b", …]` for every tick; `["/"]` when too many paths changed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from elkyn.server.admin.system import SystemCall
from elkyn.server.asgi import client_of
from elkyn.server.auth_backend import ClientAuth
from elkyn.server.bodies.codec import dump
from elkyn.server.realtime.feed import Batch, Feed, Opener, Opening
from elkyn.server.realtime.subscribe import ClientStream, serve_stream
from elkyn.storage.transactions import ReadTransaction
from elkyn.tree.paths import Path, format_path
from sennit_core.errors import Denied

if TYPE_CHECKING:
    from elkyn.server.state import ServerState
    from elkyn.store import ElkynStore

__all__ = ["stream_changes"]

_PATHS_MAX = 200  # of one message; more are sent as the root
_EVERY_SECONDS = 0.1


async def stream_changes(call: SystemCall) -> None:
    """Send an admin the paths that change, until one side ends the stream."""
    await call.admin("/.settings/changes", write=False)
    client_auth = await call.app.auth_backend.authenticate(call.scope, call.request.query)
    await serve_stream(
        call.app, _ChangesStream(call, client_auth), call.channel[0], client_of(call.scope)
    )


class _ChangesStream(ClientStream):
    def __init__(self, call: SystemCall, client_auth: ClientAuth) -> None:
        self.store = call.store()
        self.client_auth = client_auth
        self._namespace = call.namespace
        seconds = call.app.settings.keep_alive_seconds
        super().__init__(
            call.channel[1], _begin, self.check, unnamed=True, keep_alive_seconds=seconds
        )

    def feed(self, app: ServerState) -> Feed:
        return _ChangesFeed(self.store, self.wake)

    def check(self) -> None:
        authorizer = self.client_auth.authorizer(
            self.store, self._namespace, "/.settings/changes", write=False
        )
        if not authorizer.principal.admin:
            raise Denied("following changes", "an admin's credential")


def _begin(_view: ReadTransaction) -> Opening:
    return Opening((b": only later changes are sent\n\n",))


class _ChangesFeed(Feed):
    """The paths of a store that change, in batches of a tenth of a second.

    Args:
        store: the store to observe.
        wake: called in the loop with the feed when paths are queued.
    """

    def __init__(self, store: ElkynStore, wake: Callable[[Feed], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        self._lock = threading.Lock()
        # Changed since the last message; one more than `_PATHS_MAX` means "too many". Guarded by
        # `_lock`.
        self._paths: set[Path] = set()
        # True from the first change until `dequeue`: one timer for all changes of a tenth of a
        # second.
        self._woken = False
        self._store = store
        self._end = store.admin.observe(self._changed)

    async def start(self, opener: Opener) -> Opening:
        """Start; the opening does not depend on the current state."""
        with self._store.admin.snapshot() as view:
            return opener(view)

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

    def dequeue(self) -> list[Batch] | None:
        """Return the paths collected so far as one message."""
        with self._lock:
            paths, self._paths, self._woken = self._paths, set(), False
        if not paths:
            return []
        shown = ["/"] if len(paths) > _PATHS_MAX else sorted(map(format_path, paths))
        batch = Batch(())
        # A batch without events, encoded already: the stream sends what is under its key (unnamed
        # messages).
        batch.encoded[True] = b"data: %b\n\n" % dump(shown)
        return [batch]

    def close(self) -> None:
        """Stop observing the store; closing twice is fine."""
        self._end()
