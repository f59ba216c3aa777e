"""A GET that stays: from a call to the event stream that serves it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from elkyn._lmdb.tree import ReadLimit
from elkyn.errors import NotReadable
from elkyn.server.asgi import Receive, Scope, Send, client_of, direct_of
from elkyn.server.door import Caller
from elkyn.server.feed import INLINE_ROWS, Feed, Opening, QueryFeed
from elkyn.server.grant import FULL
from elkyn.server.handle import check_index
from elkyn.server.hub import Follower
from elkyn.server.request import Call
from elkyn.server.resume import id_of, time_at, try_missed
from elkyn.server.stream import Stream, encode_put
from elkyn.txn import ReadTransaction
from elkyn.values import present

if TYPE_CHECKING:
    from elkyn.rules.footprint import ReadSet
    from elkyn.server.app import ElkynApp
    from elkyn.store import ElkynStore

__all__ = ["ClientStream", "open_stream", "serve_stream"]


async def open_stream(
    app: ElkynApp,
    call: Call,
    store: ElkynStore,
    caller: Caller,
    scope: Scope,
    channel: tuple[Receive, Send],
) -> None:
    """Serve an event stream until one side ends it.

    Raises:
        Denied: the caller may not read there; nothing was sent.
    """
    receive, send = channel
    stream = _ClientStream(app, call, store, caller, send)
    stream.direct = direct_of(scope)
    try:
        try:
            stream.check(INLINE_ROWS)
        except ReadLimit:
            await asyncio.to_thread(stream.check)
        await serve_stream(app, stream, receive, client_of(scope))
    except NotReadable as error:
        await stream.refuse(error.code)


async def serve_stream(app: ElkynApp, stream: ClientStream, receive: Receive, client: str) -> None:
    """Run a stream to the address `client` among the open ones until one side ends it."""
    with app.clients.joined(stream):
        feed = stream.feed(app)
        if isinstance(feed, Follower):
            feed.sink = stream.take_at_once
        gone = asyncio.create_task(_until_gone(receive, stream))
        try:
            with suppress(asyncio.CancelledError):  # the server stops, and the client reads nothing
                await stream.run(feed, app.unsent.share(client))
        finally:
            feed.close()
            app.metrics.events += stream.events_sent
            app.metrics.bytes_out += stream.bytes_sent
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


async def _until_gone(receive: Receive, stream: Stream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.close()


class ClientStream(Stream):
    """A stream that belongs to a caller and follows a feed of a store."""

    kind = "sse"
    store: ElkynStore
    caller: Caller
    footprint: ReadSet | None = None

    def footprints(self) -> Iterable[ReadSet]:
        """What the permission to read rests on."""
        return () if self.footprint is None else (self.footprint,)

    def id_at(self, position: int, time_ms: int) -> str:
        """Return the id of the events of a write."""
        return id_of(self.store.terms, position, time_ms)

    @abstractmethod
    def feed(self, app: ElkynApp) -> Feed:
        """Begin to follow."""


class _ClientStream(ClientStream):
    def __init__(
        self, app: ElkynApp, call: Call, store: ElkynStore, caller: Caller, send: Send
    ) -> None:
        self.store = store
        self.caller = caller
        self._clients = app.clients
        self._call = call
        self._resume = call.last_seen
        self._granted = FULL  # set by `check`, before anything is read
        super().__init__(
            send,
            self._begin,
            self.check,
            unnamed=call.watch,
            keep_alive_seconds=app.settings.keep_alive_seconds,
            settle=app.clients.settle,
        )

    def feed(self, app: ElkynApp) -> Feed:
        call = self._call
        if call.query is None:
            return app.clients.hub.follow(self.store, call.keys, self.wake, patient=True)
        self.recheck()  # what was written since the first check
        return QueryFeed(self.store, call.path, call.query, self.wake)

    def check(self, rows_max: int | None = None) -> None:
        call = self._call
        grant = self.caller.grant(self.store, call.namespace or "", call.path, write=False)
        self._granted = grant
        if not grant.unlimited:
            with self.store.snapshot(rows_max) as view:
                self._rest_on(grant.judge(view, call.keys, call.query))
        check_index(call, grant)

    def _rest_on(self, footprint: ReadSet | None) -> None:
        self.footprint = footprint
        self._clients.rest(self, footprint)

    def _begin(self, view: ReadTransaction) -> Opening:
        self._rest_on(self._granted.judge(view, self._call.keys))
        if self.footprint is not None and self.footprint.paths:
            self.suspect()  # of what was written before it was known what that rests on
        events = None
        if self._resume is not None:
            view.tree.allow(view.position - self._resume.position)
            events = try_missed(self.store, self._call.keys, self._resume, view.position)
        if events is None:
            value = present(view.get(self._call.keys))
            row = view.tree.log.row(view.position)
            name = self.id_at(view.position, time_at(row))
            frames = [encode_put(value, name, unnamed=self._call.watch)]
        else:
            frames = [self.encode(event) for event in events]
        self._resume = None  # once: a slow client starts from a fresh value
        return Opening(frames)
