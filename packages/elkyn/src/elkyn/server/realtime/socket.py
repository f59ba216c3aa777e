"""A WebSocket of the realtime protocol: executes the steps of a `Session`, and sends the answers.

Messages to the client keep one order: the events of a commit are sent before the answer to its
write, and the value of a listen before the answer to that listen.

Order of one write by this client, with one of its own listens on the path:

    _do_commit -> committer -> commit -> Channel.deliver  (wake-up 1 of the loop: events)
                                      -> _resolve         (wake-up 2: the future is done)
    loop: flush -> _wake -> _ready;  _committed -> _drain -> send queue: event, then answer

The loop runs wake-ups in the order in which they were queued, so the events of a commit are in
`_ready` when `_committed` drains it. If one of the listens has lost its queue, or a permission is
being checked, the answer waits in `_committed_writes`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from elkyn.auth.authorizer import Authorizer
from elkyn.auth.principal import Principal
from elkyn.errors import NotReadable
from elkyn.replication.followers import wait_until_readable
from elkyn.server.asgi import Receive, Send, client_of
from elkyn.server.auth_backend import ClientAuth
from elkyn.server.bodies.codec import load
from elkyn.server.bodies.large_bodies import RawJson
from elkyn.server.bodies.memory import LARGE_FACTOR
from elkyn.server.realtime import session as steps
from elkyn.server.realtime.feed import Batch, Feed, Opening, QueryFeed
from elkyn.server.realtime.large_messages import Announced, Unparsed
from elkyn.server.realtime.messages import frames_of_batch, push_event
from elkyn.server.realtime.send_queue import SendQueue
from elkyn.server.realtime.session import Listen, Session
from elkyn.server.realtime.socket_store import SocketStore, status_of
from elkyn.server.realtime.wire import control, frames_of, push, reply
from elkyn.server.responses import error_text
from elkyn.storage.writer import Write
from elkyn.tree.events import Event
from elkyn.tree.paths import format_path
from sennit_core.errors import Busy, Closed, Denied, SennitError
from sennit_core.logs import get_logger

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet
    from elkyn.server.state import ServerState

__all__ = ["Socket"]

_SILENCE_SECONDS_MAX = 150.0  # clients send a keep-alive every 45 seconds
_READABLE_SECONDS = 30.0  # shorter than clients wait for an answer to their keep-alives
_IN_FLIGHT_MAX = 1000  # writes of one client; then its next request waits for a commit
_GOING_AWAY = 1001
_BAD_DATA = 1007
_TRY_AGAIN_LATER = 1013

_log = get_logger(__name__)


class Socket:
    """One connection, from the hello message to its end.

    Args:
        app: the server.
        data: the store, with the operations of sockets.
        client_auth: the client's; unauthenticated until it signs in, or as the embedder's hook
            decides.
        send: ASGI's.
    """

    kind = "ws"

    def __init__(
        self, app: ServerState, data: SocketStore, client_auth: ClientAuth, send: Send
    ) -> None:
        limits = app.settings.limits
        self.client_auth = client_auth
        self.store = data.store
        self.namespace = data.namespace
        self.session = Session(
            secrets.token_urlsafe(12),
            listens_max=limits.listens,
            chars_max=limits.message_bytes,
        )
        self._app = app
        self._data = data
        self._send = send
        self._send_buffer = app.send_buffer.for_client(client_of(data.scope))
        self._send_queue = SendQueue(self._send_buffer)
        self._woken = asyncio.Event()
        self._feeds: dict[Listen, Feed] = {}  # the inverse of `_listens`
        self._read_sets: dict[Listen, ReadSet | None] = {}
        self._listens: dict[Feed, Listen] = {}
        self._ready: dict[Feed, None] = {}  # have queued batches; a dict keeps their order
        self._overflowed: dict[Feed, None] = {}  # dropped their queue: to be restarted
        self._in_flight: set[asyncio.Future[None]] = set()  # writes that are not committed yet
        self._committed_writes: deque[tuple[steps.Commit, Write]] = deque()  # not answered yet
        self._batches: deque[tuple[Feed, list[Batch]]] = deque()  # dequeued, not sent yet
        self._pending_authorizations = 0  # events and answers are held back while > 0
        # Rechecks that are running; `run` cancels them at the end.
        self._tasks: set[asyncio.Task[None]] = set()
        # When the client sent its last frame. SDKs send a keep-alive every 45 s, so silence means
        # it is gone.
        self._received_at = asyncio.get_running_loop().time()
        self._finished = False
        # None while the connection is open; `_send_out` closes with it once the send queue is empty.
        self._close_code: int | None = None
        # Memory of the message that is being received or executed; one at a time, as a socket is
        # read only after its last request was handled.
        self._memory = app.body_memory.reserve(client_of(data.scope))

    # The interface to `Clients`.

    def read_sets(self) -> Iterable[ReadSet]:
        """The read sets of the permissions of all listens."""
        return [found for found in self._read_sets.values() if found is not None]

    def tick(self, now: float) -> None:
        """Close a connection that has been silent for too long."""
        if now - self._received_at > _SILENCE_SECONDS_MAX:
            self.close()

    def recheck(self) -> None:
        """Check the permissions of all listens again, before any of them is sent anything more."""
        # At once, and not in the task: nothing may be sent between now and the check.
        self._pending_authorizations += 1
        self._start(self._recheck_listens())

    hold_for_recheck = recheck  # both hold events back until the check has ended

    def revoke(self, reason: str) -> None:
        """Sign the client out, and report that its credential is no longer valid."""
        self.client_auth.sign_out()
        self._queue_message(push("ac", {"s": "expired_token", "d": reason}))
        self.recheck()

    def disconnect_diverged(self) -> None:
        """Close the connection: the client may have seen writes that the leader never had."""
        self._ask_to_reconnect()

    def close(self) -> None:
        """Commit the writes for a disconnect, and close after all queued frames are sent."""
        self._finish()
        self._close_code = self._close_code or _GOING_AWAY
        self._woken.set()

    # The connection.

    async def run(self, receive: Receive, host: str) -> None:
        """Serve the accepted connection until one side ends it."""
        self._queue_message(self.session.hello(host, int(time.time() * 1000)))
        sender = asyncio.create_task(self._send_out())
        # A sender that fails (the client is gone) empties the queue, so that `wait_for_room` does
        # not block.
        sender.add_done_callback(lambda _done: self._send_queue.clear())
        try:
            while await self._handle(await receive()):
                await self._send_queue.wait_for_room()
        finally:
            # First: the writes for a disconnect are queued even if a task fails to end.
            self._finish()
            for task in (sender, *self._tasks):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self._send_queue.clear()
            self._memory.release()

    async def _handle(self, message: Any) -> bool:
        if message["type"] == "websocket.disconnect":
            return False
        self._received_at = asyncio.get_running_loop().time()
        frame = message.get("text")
        if frame is None:
            step: steps.Step | None = steps.End("binary frames are not supported")
        else:
            step = await self._step_of(frame)
        if step is not None:
            if self._app.user_rate.bounded:
                await self._wait_for_rate()
            # One request after the other: this is the back-pressure on the client.
            await self._do(step)
            # Memory of an announced write is held until its last frame has come.
            if not isinstance(step, Announced):
                self._memory.release()
        return True

    async def _step_of(self, frame: str) -> steps.Step | None:
        step = self.session.receive(frame)
        if step is None or isinstance(step, Announced | Unparsed):
            try:
                self._memory.add(len(frame) * LARGE_FACTOR)
            except Busy:
                self._ask_to_reconnect()
                return None
        if isinstance(step, Unparsed):
            step = await asyncio.to_thread(self.session.parse_large, step.text)
        return step

    async def _wait_for_rate(self) -> None:
        """Wait while the client exceeds its rate limit; the socket is not read meanwhile."""
        principal = self.client_auth.principal
        if principal is not None and principal.uid:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self._app.user_rate.delay(principal.uid, now))

    async def _do(self, step: steps.Step) -> None:
        try:
            await self._handlers[type(step)](self, step)
        except _TryLaterError:
            self._ask_to_reconnect()
        except SennitError as error:
            self._reply_error(step, error)
        except Exception as error:  # noqa: BLE001 - logged and answered
            _log.exception("a request on a socket failed")
            self._reply_error(step, error)

    def _reply_error(self, step: Any, error: Exception) -> None:
        if isinstance(error, SennitError):
            status, text = status_of(error), error_text(error)
        else:
            status, text = "internal_error", "Internal server error."
        if isinstance(error, Denied):
            self._data.record_refusal(self.client_auth, step)
        self._queue_message(reply(step.number, status, text))

    async def _send_out(self) -> None:
        while True:
            self._drain()
            while self._send_queue:
                frame = self._send_queue.next()
                self._app.metrics.bytes_out += len(frame)
                await self._send({"type": "websocket.send", "text": frame})
                # Events that came during the send go before messages that are queued from now on.
                self._drain()
            if self._overflowed:
                await self._resynchronise()
            elif self._close_code is not None:
                reason = self.store.admin.divergence.reason or ""
                await self._send(
                    {"type": "websocket.close", "code": self._close_code, "reason": reason}
                )
                return
            else:
                await self._woken.wait()
                self._woken.clear()

    def _queue_message(self, *messages: str) -> None:
        for message in messages:
            self._send_queue.add(frames_of(message))
        self._woken.set()

    # Events.

    def _wake(self, feed: Feed) -> None:
        self._ready[feed] = None
        self._woken.set()

    def _drain(self) -> None:
        """Move queued events to the send queue, so that they are sent before the next message."""
        # The end of the check (`_recheck_listens`) drains again.
        if self._pending_authorizations:
            return
        while self._ready:
            # In the order in which the feeds became ready.
            feed = next(iter(self._ready))
            del self._ready[feed]
            if feed not in self._listens or feed in self._overflowed:  # drained after its restart
                continue
            batches = feed.dequeue()
            if batches is None:
                self._overflowed[feed] = None
            else:
                self._batches.append((feed, batches))
        # After dequeuing and before sending, as in `Stream._step`. It may set
        # `_pending_authorizations` on this socket: then the batches stay in `_batches`.
        self._app.clients.recheck_affected()
        while self._batches and not self._pending_authorizations:
            self._push_events(*self._batches.popleft())

    def _push_events(self, feed: Feed, batches: list[Batch]) -> None:
        listen = self._listens.get(feed)
        if listen is not None:
            for batch in batches:
                self._app.metrics.events += len(batch.events)
                self._send_queue.add(frames_of_batch(listen, batch, self.store.admin.terms))

    async def _resynchronise(self) -> None:
        # One at a time, and only when the send queue is empty: a client that is slow gets fresh values
        # as fast as it reads them, and no faster.
        feed = next(iter(self._overflowed))
        listen = self._listens.get(feed)
        if listen is not None:
            await self._restart(feed, listen)
        self._overflowed.pop(feed, None)
        self._ready[feed] = None
        self._drain()
        self._answer_writes()

    async def _restart(self, feed: Feed, listen: Listen) -> None:
        try:
            # No known hash and no event id: the client's state is unknown here, so it is sent the
            # value.
            again = steps.Attach(0, listen, "", "", "")
            opening = await feed.start(partial(self._data.opening, self._authorizer(listen), again))
            messages = self._admitted(self._messages(listen, opening))
        except _TryLaterError:
            self._ask_to_reconnect()
        except Denied:
            self._drop(listen)
            self._queue_message(self.session.revoked(listen))
        except Closed:
            self._drop(listen)
        else:
            self._queue_message(*messages)

    def _messages(self, listen: Listen, opening: Opening) -> list[str]:
        terms = self.store.admin.terms
        return [
            push_event(listen, frame, terms) if isinstance(frame, Event) else frame
            for frame in opening.frames
        ]

    def _admitted(self, messages: list[str]) -> list[str]:
        """Return `messages`; raises `_TryLaterError` when too many bytes wait to be sent."""
        try:
            self._send_buffer.check(sum(map(len, messages)))
        except Busy:
            raise _TryLaterError from None
        return messages

    def _ask_to_reconnect(self) -> None:
        """Close with "try again later": SDKs reconnect, but would drop a refused listen for good."""
        self._close_code = _TRY_AGAIN_LATER
        self.close()

    # Steps.

    async def _wait_until_readable(self) -> None:
        """Wait until the store may be read; the socket is not read meanwhile."""
        try:
            async with asyncio.timeout(_READABLE_SECONDS):
                await wait_until_readable(self.store)
        except TimeoutError:
            raise _TryLaterError from None

    async def _do_send(self, step: steps.Send) -> None:
        self._queue_message(step.text)

    async def _do_ping(self, _step: steps.Ping) -> None:
        seen = None
        # The position up to which the client has all events of all its listens, so that it can
        # resume from there even if its own paths were not written. Named only if nothing is queued
        # or held back.
        if any(listen.names for listen in self._feeds):
            with (
                suppress(BlockingIOError, NotReadable),
                self.store.admin.snapshot_at(_do_nothing, wait=False) as view,
            ):
                seen = self._data.resume_point(view.position)
            await asyncio.sleep(0)  # the hub delivers what was committed until then
            self._drain()
            if self._overflowed or self._batches or self._pending_authorizations:
                seen = None
        self._queue_message(control("o", seen))

    async def _do_end(self, step: steps.End) -> None:
        self._finish()
        self._close_code = _BAD_DATA
        self._queue_message(control("e", step.reason))

    async def _do_attach(self, step: steps.Attach) -> None:
        await self._wait_until_readable()
        # A listen sees the client's earlier writes. Without this wait most listens right after a
        # put started with the state before it.
        await self._wait_for_writes()
        listen = step.listen
        try:
            authorizer = self._authorizer(listen)
            # Registered before the check: a recheck that runs meanwhile must find this listen.
            feed = self._follow(listen)
            self._record_dependency(listen, await self._data.check_listen(authorizer, listen))
            opening = await feed.start(partial(self._data.opening, authorizer, step))
            if self._feeds.get(listen) is not feed:  # a recheck has ended it meanwhile
                raise Denied(f"listening at {format_path(listen.path)}")
            messages = self._admitted(self._messages(listen, opening))
        except BaseException:
            self.session.forget(listen)
            self._drop(listen)
            raise
        data = self._data.check_index(authorizer, listen)
        if listen.names:
            data = {**data, **self._data.resume_point(opening.position)}
        self._queue_message(*messages, reply(step.number, "ok", data))
        await asyncio.sleep(0)  # clients may start a thousand listens at once: let others run

    def _follow(self, listen: Listen) -> Feed:
        if listen.query is None:
            feed: Feed = self._app.clients.hub.follow(self.store, listen.path, self._wake)
        else:
            feed = QueryFeed(self.store, format_path(listen.path), listen.query, self._wake)
        self._feeds[listen] = feed
        self._listens[feed] = listen
        return feed

    def _drop(self, listen: Listen) -> None:
        # May be called twice: by the client's request and by a recheck that ends at the same time.
        self._read_sets.pop(listen, None)
        feed = self._feeds.pop(listen, None)
        if feed is not None:
            del self._listens[feed]
            self._ready.pop(feed, None)
            self._overflowed.pop(feed, None)
            feed.close()

    async def _do_detach(self, step: steps.Detach) -> None:
        self._drop(step.listen)
        self._queue_message(reply(step.number, "ok"))

    async def _do_commit(self, step: steps.Commit) -> None:
        authorizer = self._data.authorizer(self.client_auth, step.path, write=True)
        is_large = isinstance(step.data, RawJson)
        if is_large:
            await self._check_could_write(step, authorizer)
            write = await asyncio.to_thread(self._data.to_write, step, authorizer)
            leader_proxy = self._app.leader_proxy
            forwards = leader_proxy is not None and leader_proxy.active
            # The leader is sent the parsed data; otherwise they are freed, the write holds them.
            step.data = await asyncio.to_thread(load, step.data.text) if forwards else None
        else:
            write = self._data.to_write(step, authorizer)
        self._app.metrics.writes += 1
        done = self._app.commit_step(self, step, write, authorizer.principal)
        # Not awaited: a client's writes are pipelined and share commits; `_committed` answers each.
        self._in_flight.add(done)
        done.add_done_callback(partial(self._committed, step, write))
        if is_large:
            await self._wait_for_writes()  # its memory is counted until then
        elif len(self._in_flight) >= _IN_FLIGHT_MAX:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)

    async def _do_announced(self, step: Announced) -> None:
        authorizer = self._data.authorizer(self.client_auth, step.path, write=True)
        try:
            await self._check_could_write(step, authorizer)
        except Denied:
            self.session.discard()
            self._memory.release()
            raise

    async def _check_could_write(
        self, step: steps.Commit | Announced, authorizer: Authorizer
    ) -> None:
        await self._wait_for_writes()  # the rules may allow this one because of an earlier one
        await asyncio.to_thread(self._data.check_could_write, authorizer, step)

    def _committed(self, step: steps.Commit, write: Write, done: asyncio.Future[None]) -> None:
        self._in_flight.discard(done)
        # The events of this commit are in `_ready` by now (see the module); they go before the
        # answer.
        self._drain()
        self._committed_writes.append((step, write))
        self._answer_writes()

    def _answer_writes(self) -> None:
        """Answer committed writes, once no listen lacks an event that they caused."""
        while self._committed_writes and not self._overflowed and not self._pending_authorizations:
            step, write = self._committed_writes.popleft()
            error = write.error
            if error is None:
                self._queue_message(reply(step.number, "ok"))
            elif isinstance(error, Exception):
                self._reply_error(step, error)

    async def _do_fetch(self, step: steps.Fetch) -> None:
        await self._wait_until_readable()
        await self._wait_for_writes()
        self._app.metrics.reads += 1
        authorizer = self._data.authorizer(self.client_auth, step.path, write=False)
        value = await self._data.fetch(authorizer, step)
        self._queue_message(*self._admitted([reply(step.number, "ok", value)]))

    async def _wait_for_writes(self) -> None:
        """Wait for the writes that the client sent before the current request.

        Requests of a connection have their effect in the order in which they were sent: a read
        includes every write before it.
        """
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    async def _do_on_disconnect(self, step: steps.OnDisconnect) -> None:
        await self._wait_until_readable()
        await self._wait_for_writes()
        authorizer = self._data.authorizer(self.client_auth, step.path, write=True)
        await asyncio.to_thread(self._data.check_on_disconnect, step, authorizer)
        self.session.keep_for_disconnect(step)
        self._queue_message(reply(step.number, "ok"))

    async def _do_sign_in(self, step: steps.SignIn) -> None:
        principal = await self.client_auth.sign_in(
            step.credential, step.variable, unauthenticated=step.unauthenticated
        )
        self._queue_message(reply(step.number, "ok", _shown(principal)))
        self.recheck()

    async def _do_sign_out(self, step: steps.SignOut) -> None:
        self.client_auth.sign_out()
        self._queue_message(reply(step.number, "ok"))
        self.recheck()

    # Rules and the end.

    def _authorizer(self, listen: Listen) -> Authorizer:
        return self._data.authorizer(self.client_auth, listen.path, write=False)

    def _record_dependency(self, listen: Listen, read_set: ReadSet | None) -> None:
        self._read_sets[listen] = read_set
        self._app.clients.record_dependency(self, read_set)

    async def _recheck_listens(self) -> None:
        try:
            for listen in list(self._feeds):
                await self._recheck_listen(listen)
        finally:
            self._pending_authorizations -= 1
        self._drain()
        self._answer_writes()
        self._woken.set()

    async def _recheck_listen(self, listen: Listen) -> None:
        try:
            read_set = await self._data.check_listen(self._authorizer(listen), listen)
            if listen in self._feeds:
                self._record_dependency(listen, read_set)
        except SennitError:
            if listen in self._feeds:
                self._drop(listen)
                self._queue_message(self.session.revoked(listen))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _finish(self) -> None:
        """End the listens and commit the client's writes for a disconnect; once."""
        if self._finished:
            return
        # Set first, because `close` and `run` both call it.
        self._finished = True
        for listen in list(self._feeds):
            self._drop(listen)
        for path, data in self.session.pop_disconnect_writes():
            try:
                authorizer = self._data.authorizer(self.client_auth, path, write=True)
                step = steps.Commit(0, "put", path, data, None)
                write = self._data.to_write(step, authorizer)
                self._app.commit_step(self, step, write, authorizer.principal)
            except SennitError as error:
                _log.warning("a write for a disconnect was refused: %s", error)

    _handlers: ClassVar[dict[type, Callable[[Socket, Any], Awaitable[None]]]] = {
        steps.Send: _do_send,
        steps.Ping: _do_ping,
        steps.End: _do_end,
        steps.Attach: _do_attach,
        steps.Detach: _do_detach,
        steps.Commit: _do_commit,
        steps.Fetch: _do_fetch,
        steps.OnDisconnect: _do_on_disconnect,
        steps.SignIn: _do_sign_in,
        steps.SignOut: _do_sign_out,
        Announced: _do_announced,
    }


class _TryLaterError(Exception):
    """A value cannot be sent: too much waits to be sent, or the replica stays unreadable."""


def _do_nothing() -> None:
    pass


def _shown(principal: Principal | None) -> dict[str, Any]:
    if principal is None:
        return {"auth": None}
    expires = principal.expires_ms
    return {"auth": principal.as_auth(), "expires": None if expires is None else expires // 1000}
