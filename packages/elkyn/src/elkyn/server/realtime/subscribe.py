"""Serve a GET that asks for an event stream."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from elkyn.auth.authorizer import UNRESTRICTED
from elkyn.errors import NotReadable
from elkyn.server.asgi import Receive, Scope, Send, client_of, direct_send_of
from elkyn.server.auth_backend import ClientAuth
from elkyn.server.handle import check_index
from elkyn.server.realtime.feed import INLINE_ROWS, Feed, Opening, QueryFeed
from elkyn.server.realtime.hub import Follower
from elkyn.server.realtime.stream import Stream, encode_put
from elkyn.server.request import Call
from elkyn.server.resume import id_of, time_at, try_missed
from elkyn.storage.row_tree import ReadLimit
from elkyn.storage.transactions import ReadTransaction
from elkyn.tree.values import present

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet
    from elkyn.server.state import ServerState
    from elkyn.store import ElkynStore

__all__ = ["ClientStream", "open_stream", "serve_stream"]


async def open_stream(
    app: ServerState,
    call: Call,
    store: ElkynStore,
    client_auth: ClientAuth,
    scope: Scope,
    channel: tuple[Receive, Send],
) -> None:
    """Serve an event stream until one side ends it.

    Raises:
        Denied: the client may not read the path; nothing was sent.
    """
    receive, send = channel
    stream = _ClientStream(app, call, store, client_auth, send)
    stream.direct = direct_send_of(scope)
    try:
        try:
            stream.check(INLINE_ROWS)
        except ReadLimit:
            await asyncio.to_thread(stream.check)
        await serve_stream(app, stream, receive, client_of(scope))
    except NotReadable as error:
        await stream.refuse(error.code)


async def serve_stream(
    app: ServerState, stream: ClientStream, receive: Receive, client: str
) -> None:
    """Register and run a stream to the address `client` until one side ends it."""
    with app.clients.registered(stream):
        feed = stream.feed(app)
        if isinstance(feed, Follower):
            # Only followers of whole nodes share batches; a query's window is computed for one
            # client.
            feed.sink = stream.try_send_nowait
        gone = asyncio.create_task(_until_gone(receive, stream))
        try:
            with suppress(asyncio.CancelledError):  # shutdown, and the client does not read
                await stream.run(feed, app.send_buffer.for_client(client))
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
    """A stream that belongs to a client and follows a feed of a store."""

    kind = "sse"
    store: ElkynStore
    client_auth: ClientAuth
    read_set: ReadSet | None = None

    def read_sets(self) -> Iterable[ReadSet]:
        """The read set of the permission to read."""
        return () if self.read_set is None else (self.read_set,)

    def id_at(self, position: int, time_ms: int) -> str:
        """Return the id of the events of a write."""
        return id_of(self.store.admin.terms, position, time_ms)

    @abstractmethod
    def feed(self, app: ServerState) -> Feed:
        """Return the feed that the stream follows."""


class _ClientStream(ClientStream):
    def __init__(
        self, app: ServerState, call: Call, store: ElkynStore, client_auth: ClientAuth, send: Send
    ) -> None:
        self.store = store
        self.client_auth = client_auth
        self._clients = app.clients
        self._call = call
        # The event that the client has seen last, for its first opening only.
        self._resume = call.last_seen
        self._authorizer = UNRESTRICTED  # set by `check`, before anything is read
        super().__init__(
            send,
            self._begin,
            self.check,
            unnamed=call.watch,
            keep_alive_seconds=app.settings.keep_alive_seconds,
            recheck_affected=app.clients.recheck_affected,
        )

    def feed(self, app: ServerState) -> Feed:
        call = self._call
        if call.query is None:
            return app.clients.hub.follow(self.store, call.keys, self.wake, batched=True)
        self.recheck()  # writes since the first check may have changed the permission
        return QueryFeed(self.store, call.path, call.query, self.wake)

    def check(self, rows_max: int | None = None) -> None:
        call = self._call
        authorizer = self.client_auth.authorizer(
            self.store, call.namespace or "", call.path, write=False
        )
        self._authorizer = authorizer
        if not authorizer.unrestricted:
            with self.store.admin.snapshot(rows_max) as view:
                self._record_dependency(authorizer.check_stream(view, call.keys, call.query))
        check_index(call, authorizer)

    def _record_dependency(self, read_set: ReadSet | None) -> None:
        self.read_set = read_set
        self._clients.record_dependency(self, read_set)

    def _begin(self, view: ReadTransaction) -> Opening:
        # Once more in the transaction that the opening is read in: the permission and the value
        # belong to the same state.
        self._record_dependency(self._authorizer.check_stream(view, self._call.keys))
        if self.read_set is not None and self.read_set.paths:
            self.hold_for_recheck()  # writes before the read set was recorded may have changed the permission
        events = None
        if self._resume is not None:
            # Counts the entries to replay as rows: many of them are for a thread.
            view.tree.allow(view.position - self._resume.position)
            events = try_missed(self.store, self._call.keys, self._resume, view.position)
        if events is None:
            value = present(view.get(self._call.keys))
            row = view.tree.log.row(view.position)
            name = self.id_at(view.position, time_at(row))
            frames = [encode_put(value, name, unnamed=self._call.watch)]
        else:
            frames = [self.encode(event) for event in events]
        self._resume = None  # only once: a slow client restarts from a fresh value
        return Opening(frames)
