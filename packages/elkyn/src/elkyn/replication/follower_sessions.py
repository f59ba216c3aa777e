"""The leader's side of replication: sends the log of a namespace over a follower's WebSocket.

Each follower occupies at most `WINDOW` unacknowledged frames here, and a file while it needs a
snapshot.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial

from elkyn.replication.filtering import parse_paths
from elkyn.replication.followers import Replication
from elkyn.replication.leader import Sender
from elkyn.replication.messages import ProtocolError, encode
from elkyn.replication.snapshots import Snapshot, make_snapshot
from elkyn.replication.store_adapters import LeaderStore
from elkyn.server.asgi import Receive, Scope, Send
from elkyn.server.request import Request
from elkyn.server.state import ServerState
from sennit_core.errors import Denied, SennitError, UsageError

__all__ = ["FollowerSession", "serve_follower"]

# A tenth of the silence after which a follower reconnects.
_BEAT_SECONDS = 1.0  # without other frames
_SILENCE_SECONDS = 60.0  # of a follower; then it is disconnected


async def serve_follower(
    app: ServerState, request: Request, scope: Scope, channel: tuple[Receive, Send]
) -> None:
    """Serve a follower's accepted socket until one side ends it."""
    receive, send = channel
    try:
        log = await _admitted(app, request, scope)
        session = FollowerSession(app.replication, log, send)
        with app.replication.registered(session):
            await session.run(receive)
    except SennitError as error:
        await send({"type": "websocket.send", "bytes": encode("refuse", error.code, str(error), 0)})
    with suppress(Exception):  # the other side may be gone
        await send({"type": "websocket.close", "code": 1000})


async def _admitted(app: ServerState, request: Request, scope: Scope) -> LeaderStore:
    client_auth = await app.auth_backend.authenticate(scope, request.query)
    namespace = request.query.get("ns") or app.settings.default_namespace
    store = await app.on_thread(app.open_store, namespace)
    authorizer = client_auth.authorizer(store, namespace, "/.replica", write=True)
    # The log holds everything, regardless of what the rules allow to read.
    if not authorizer.principal.admin:
        raise Denied(f"following {namespace}", "an admin's credential")
    paths = parse_paths(_paths(request.query.get("paths") or "[]"))
    loop, acks = asyncio.get_running_loop(), app.replication.acks_of(store)

    def acked(node: str, position: int) -> None:
        # `Sender.receive` runs on a thread for the first message.
        loop.call_soon_threadsafe(acks.note, node, position)

    return LeaderStore(store, paths, acked)


def _paths(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        raise UsageError("paths must be a JSON array of paths")
    return found


class FollowerSession:
    """One follower's connection.

    Args:
        replication: the followers of the server.
        log: the log to send.
        send: ASGI's.
    """

    def __init__(self, replication: Replication, log: LeaderStore, send: Send) -> None:
        self._replication = replication
        self._log = log
        self._sender = Sender(log)
        self._send = send
        self._sender_lock = asyncio.Lock()  # one thread at a time uses the sender
        # Set by commits, by acknowledgements and by `close`: there may be something to send.
        self._woken = asyncio.Event()
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End the connection."""
        self._closed.set()
        self._woken.set()

    async def run(self, receive: Receive) -> None:
        """Serve the follower until one side ends it."""
        loop = asyncio.get_running_loop()

        # Runs on the committing thread.
        def committed(_position: int, _paths: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._woken.set)

        end = self._log.store.admin.observe(committed)
        ends = asyncio.create_task(self._closed.wait())
        tasks = [
            asyncio.create_task(self._listen(receive)),
            asyncio.create_task(self._send_log()),
            ends,
        ]
        try:
            done, _left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._sender.close()

    async def _listen(self, receive: Receive) -> None:
        while True:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    message = await receive()
            except TimeoutError:
                return
            if message["type"] == "websocket.disconnect":
                return
            frame = message.get("bytes")
            if frame is None:
                raise ProtocolError("a follower's message", reason="the frame is text, not binary")
            async with self._sender_lock:
                # The hello reads the log, and may write down a later term; acknowledgements touch
                # memory only.
                if self._sender.node is None:
                    answers = await asyncio.to_thread(self._sender.receive, frame)
                else:
                    answers = self._sender.receive(frame)
            for answer in answers:
                await self._send({"type": "websocket.send", "bytes": answer})
            if self._sender.ended is not None:
                return
            self._woken.set()

    async def _send_log(self) -> None:
        while self._sender.ended is None:
            if self._sender.needs_snapshot:
                await self._make_snapshot()
            frame = await self._next()
            if frame is not None:
                await self._send({"type": "websocket.send", "bytes": frame})
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_SECONDS):
                    await self._woken.wait()
                self._woken.clear()
                continue
            await self._beat()

    async def _next(self) -> bytes | None:
        async with self._sender_lock:
            # Cheap, so that an idle follower costs no thread at each beat.
            if not self._sender.ready:
                return None
            return await asyncio.to_thread(self._sender.next)

    async def _beat(self) -> None:
        frame = self._sender.beat()
        if frame is not None:
            await self._send({"type": "websocket.send", "bytes": frame})

    async def _make_snapshot(self) -> None:
        async with self._replication.snapshots:
            make = partial(make_snapshot, self._log.store, self._log.paths)
            making = asyncio.ensure_future(asyncio.to_thread(make))
            try:
                while not (await asyncio.wait([making], timeout=_BEAT_SECONDS))[0]:
                    # Copying a large store may last longer than the follower's patience with
                    # silence.
                    await self._beat()
            except BaseException:
                # The thread cannot be cancelled: its file is deleted when it is done.
                making.add_done_callback(_discard)
                raise
            self._sender.offer(making.result())


def _discard(making: asyncio.Future[Snapshot]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()
