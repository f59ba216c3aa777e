"""The raw-ASGI app: Firebase's REST protocol, event streams and sockets over stores.

Small reads run in the event loop (under half a millisecond). Reads of more rows, and bodies over
`INLINE_BYTES`, run on a worker thread; writes run on the committer's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from elkyn.auth.authorizer import Authorizer
from elkyn.namespaces import StoreMap
from elkyn.replication.acks import parse_ack
from elkyn.replication.follower_sessions import serve_follower
from elkyn.replication.followers import wait_for_position
from elkyn.replication.leader_proxy import LeaderProxy
from elkyn.server.access_log import AccessLog
from elkyn.server.admin.pages import opened_by_browser, to_dashboard
from elkyn.server.admin.system import SystemCall
from elkyn.server.asgi import (
    COUNTED,
    Receive,
    Scope,
    Send,
    client_of,
    send_response,
    to_request,
)
from elkyn.server.auth_backend import Authorize, ClientAuth, HookBackend
from elkyn.server.bodies.memory import INLINE_BYTES, read_body
from elkyn.server.handle import answer_write, read, to_write
from elkyn.server.limits import BODY_BYTES_MAX, Limits
from elkyn.server.realtime.connect import serve_socket
from elkyn.server.realtime.feed import INLINE_ROWS
from elkyn.server.realtime.subscribe import open_stream
from elkyn.server.request import Call, Request, Response, is_reserved
from elkyn.server.responses import error_response
from elkyn.server.routes import answer_system
from elkyn.server.send_buffer import LARGE_BYTES
from elkyn.server.settings import KEEP_ALIVE_SECONDS, Settings
from elkyn.server.state import ServerState
from elkyn.storage.row_tree import ReadLimit
from elkyn.store import ElkynStore
from sennit_core.errors import (
    Busy,
    Closed,
    DeadlineExceeded,
    Denied,
    NotFound,
    SennitError,
)

__all__ = ["ElkynApp", "elkyn_app"]

_SIGN_IN_BYTES_MAX = 1024 * 1024
_UNREAD = Request("GET", "/")
_NONE: Mapping[str, Any] = {}


def elkyn_app(
    stores: StoreMap,
    *,
    authorize: Authorize,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    body_bytes_max: int = BODY_BYTES_MAX,
    default_namespace: str = "default",
    create_namespaces: bool = False,
) -> ElkynApp:
    """Return an ASGI app that serves `stores` to the clients that `authorize` accepts.

    Args:
        stores: by namespace; the caller closes them, after the app.
        authorize: `authorize(scope, namespace, path, write)` raises `Denied` or `Unauthenticated`;
            returns None for full access, or the `Principal` that the namespace's rules check.
        keep_alive_seconds: silence on an event stream after which a keep-alive is sent.
        body_bytes_max: a larger request body is refused with 413; a larger message on a socket
            closes the socket.
        default_namespace: for requests without `?ns=`.
        create_namespaces: look up in `stores` also namespaces that it does not list.
    """
    settings = Settings(
        default_namespace=default_namespace,
        create_namespaces=create_namespaces,
        keep_alive_seconds=keep_alive_seconds,
        limits=Limits(body_bytes=body_bytes_max, message_bytes=body_bytes_max),
    )
    return ElkynApp(stores, HookBackend(authorize), settings)


class ElkynApp(ServerState):
    """An ASGI app over stores. Call `close` when the server begins to stop: it ends all streams.

    Args:
        stores: by namespace; the caller closes them, after the app.
        auth_backend: authenticates clients.
        settings: everything else.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the lifespan of the server."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown":
                await asyncio.to_thread(self.close)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        opened = self.metrics.open
        opened["http"] += 1
        request, number = _UNREAD, None
        try:
            request = to_request(scope)
            number = AccessLog.begin(request)
            shared = send
            if "origin" in request.headers:
                shared = self.settings.origins.streaming(request.headers, send)
            response = await self._answer(request, scope, receive, shared)
        except asyncio.CancelledError:  # shutdown: the server's grace period has ended
            response = error_response(Closed("the server"))
        except Exception as error:  # noqa: BLE001 - answered, and logged when unexpected
            response = error_response(error)
        finally:
            opened["http"] -= 1
        AccessLog.end(number, request, client_of(scope), response, started)
        if response is not None:
            if len(response.body) > LARGE_BYTES:
                await self._send_large(request, response, scope, send)
            else:
                await self._send(request, response, scope, send)

    async def _send(self, request: Request, response: Response, scope: Scope, send: Send) -> None:
        self.count_answer(request, response)
        await send_response(response, scope, send)

    async def _send_large(
        self, request: Request, response: Response, scope: Scope, send: Send
    ) -> None:
        try:
            with self.send_buffer.for_client(client_of(scope)).hold(len(response.body)):
                await self._send(request, response, scope, send)
        except Busy as error:
            await self._send(request, error_response(error), scope, send)

    async def _answer(
        self, request: Request, scope: Scope, receive: Receive, send: Send
    ) -> Response | None:
        known = scope.get("extensions", _NONE)
        # The fast path counted the request before it found that it must wait.
        if COUNTED not in known:
            self.admit(client_of(scope))
        self.settings.origins.check(request.headers)
        if request.method == "OPTIONS":
            return self.settings.origins.preflight(request.headers)
        if self.leader_proxy is not None and self.leader_proxy.is_for_leader(
            request, self.auth_backend.owns
        ):
            return await self._forward(self.leader_proxy, request, scope, receive)
        if not request.raw_path.endswith(".json") or request.raw_path.startswith("/."):
            owned = self.auth_backend.owns(request.raw_path)
            if owned or is_reserved(request.raw_path) or self._is_browsed(request):
                return await self._answer_system(request, scope, (receive, send), owned=owned)
        client_auth = known.get(COUNTED) or await self._credential(scope, request)
        call, store = self.parse(request)
        # A client reads its own writes at any server: the position of its write came with the
        # answer.
        if call.position_min is not None:
            await wait_for_position(store, call.position_min, self.settings.ack_seconds)
        try:
            authorizer = client_auth.authorizer(store, call.namespace or "", call.path, call.writes)
            if call.stream:
                await self._stream(call, store, client_auth, scope, (receive, send))
                return None
            if call.writes:
                return await self._write(call, store, authorizer, (scope, receive))
            self.metrics.reads += 1
            return await _read(call, store, authorizer)
        except Denied:
            self.record_refusal(client_auth, client_of(scope), call)
            raise

    async def _credential(self, scope: Scope, request: Request) -> ClientAuth:
        client_auth = await self.auth_backend.authenticate(scope, request.query)
        if self.user_rate.bounded:
            self.count_user(client_auth)
        return client_auth

    async def _forward(
        self, leader_proxy: LeaderProxy, request: Request, scope: Scope, receive: Receive
    ) -> Response:
        if not self.auth_backend.owns(request.raw_path):
            await self.auth_backend.check_forwarded_credential(scope, request.query)
        return await leader_proxy.forward(self, request, scope, receive)

    async def _stream(
        self,
        call: Call,
        store: ElkynStore,
        client_auth: ClientAuth,
        scope: Scope,
        channel: tuple[Receive, Send],
    ) -> None:
        self.metrics.open["http"] -= 1  # counted as a stream instead
        try:
            await open_stream(self, call, store, client_auth, scope, channel)
        finally:
            self.metrics.open["http"] += 1

    def _is_browsed(self, request: Request) -> bool:
        return self.settings.dashboard is not None and opened_by_browser(request)

    async def _answer_system(
        self, request: Request, scope: Scope, channel: tuple[Receive, Send], *, owned: bool
    ) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            limit = _SIGN_IN_BYTES_MAX if owned else self.settings.limits.body_bytes
            with self.body_memory.reserve(client_of(scope)) as held:
                request.body = await read_body(scope, channel[0], limit, held)
                return await self._answer_own(request, scope, channel, owned=owned)
        return await self._answer_own(request, scope, channel, owned=owned)

    async def _answer_own(
        self, request: Request, scope: Scope, channel: tuple[Receive, Send], *, owned: bool
    ) -> Response | None:
        if owned:
            return await self.auth_backend.respond(scope, request)
        if not is_reserved(request.raw_path):
            return to_dashboard(request, scope.get("root_path", ""))
        return await answer_system(SystemCall(self, request, scope, channel))

    async def _write(
        self, call: Call, store: ElkynStore, authorizer: Authorizer, incoming: tuple[Scope, Receive]
    ) -> Response:
        self.metrics.writes += 1
        if call.ack is not None:
            parse_ack(call.ack)
        with self.body_memory.reserve(client_of(incoming[0])) as held:
            limit = self.settings.limits.body_bytes
            check = partial(_check_could_write, call, store, authorizer)
            # A list, so that `_commit` can free the body before the write waits for its commit.
            bodies = [await read_body(*incoming, limit, held, check)]
            response = await self._commit(call, store, authorizer, bodies)
        # After the memory was released: waiting for followers holds no body.
        replicas = self.settings.ack if call.ack is None else parse_ack(call.ack)
        await self.replication.replicated(store, response.position, replicas)
        return response

    async def _commit(
        self, call: Call, store: ElkynStore, authorizer: Authorizer, bodies: list[bytes]
    ) -> Response:
        """Commit the write in the only item of `bodies`; the list lets this free the body early."""
        large = len(bodies[0]) > INLINE_BYTES
        make = partial(
            to_write, call, bodies.pop(), store, authorizer, self.settings.limits.body_nodes
        )
        write = await asyncio.to_thread(make) if large else make()
        # `make` still refers to the body.
        del make
        await self.committer.commit(store, write)
        if large:
            response = await asyncio.to_thread(answer_write, call, write)
        else:
            response = answer_write(call, write)
        response.position = write.position
        return response

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            request = to_request(scope)
            self.admit(client_of(scope))
            if request.raw_path == "/.replica":
                self.settings.origins.check(request.headers)
                await send({"type": "websocket.accept"})
                await serve_follower(self, request, scope, (receive, send))
                return
            if request.raw_path != "/.ws" or request.query.get("v", "5") != "5":
                raise NotFound("socket", request.raw_path)
            client_auth = await self.auth_backend.authenticate(scope, request.query, anonymous=True)
        except SennitError as error:
            await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:100]})
            return
        await send({"type": "websocket.accept"})
        await serve_socket(self, request, client_auth, scope, (receive, send))


async def _check_could_write(call: Call, store: ElkynStore, authorizer: Authorizer) -> None:
    """Raise `Denied` when the rules refuse a write for every possible body."""
    if authorizer.unrestricted:
        return
    path = (*call.keys, call.new_key(store)) if call.method == "POST" else call.keys

    def check(rows_max: int | None) -> None:
        with store.admin.snapshot(rows_max) as view:
            authorizer.check_could_write(view, path, below=call.method == "PATCH")

    try:
        check(INLINE_ROWS)
    except ReadLimit:
        await asyncio.to_thread(check, None)


async def _read(call: Call, store: ElkynStore, authorizer: Authorizer) -> Response:
    try:
        with store.admin.snapshot(INLINE_ROWS) as view:
            return read(call, view, authorizer)
    except ReadLimit:
        pass
    try:
        async with asyncio.timeout(call.read_seconds_max):
            return await asyncio.to_thread(_read_whole, call, store, authorizer)
    except TimeoutError:
        raise DeadlineExceeded("the read", call.read_seconds_max) from None


def _read_whole(call: Call, store: ElkynStore, authorizer: Authorizer) -> Response:
    with store.admin.snapshot() as view:
        return read(call, view, authorizer)
