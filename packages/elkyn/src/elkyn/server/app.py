"""The raw-ASGI app: `/{path}.json?ns=` over the stores of a process.

Small reads happen in the event loop (under half a millisecond); what touches more rows, and every
body over `_INLINE_BYTES`, goes to a thread; writes go to the committer's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

from elkyn._lmdb.tree import ReadLimit
from elkyn.server.auth import Authorize
from elkyn.server.committer import Committer
from elkyn.server.handle import answer_write, error_response, read, to_write
from elkyn.server.request import Call, Request, Response, parse_call, parse_query
from elkyn.server.stream import run_stream
from elkyn.store import ElkynStore
from elkyn.watch import Subscription
from sennit_core.errors import Closed, InternalError, NotFound, SennitError, TooLarge

__all__ = ["ElkynApp", "elkyn_app"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

KEEP_ALIVE_SECONDS = 25.0
BODY_BYTES_MAX = 64 * 1024 * 1024
_INLINE_BYTES = 64 * 1024
_INLINE_ROWS = 64
_CLOSE_GRACE_SECONDS = 1.0


class StoreMap(Protocol):
    """Stores by namespace: `elkyn.Stores`, or a dict."""

    def __getitem__(self, name: str, /) -> ElkynStore: ...

    def __contains__(self, name: object, /) -> bool: ...


def elkyn_app(
    stores: StoreMap,
    *,
    authorize: Authorize,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    body_bytes_max: int = BODY_BYTES_MAX,
    default_namespace: str = "default",
    create_namespaces: bool = False,
) -> ElkynApp:
    """Return an ASGI app that serves `stores`.

    Args:
        stores: by namespace; stay the caller's to close, after the app.
        authorize: `authorize(scope, namespace, path, write)` raises `Denied` or `Unauthenticated`.
        keep_alive_seconds: silence on an event stream after which a keep-alive is sent.
        body_bytes_max: a larger request body is refused with 413.
        default_namespace: for requests without `?ns=`.
        create_namespaces: ask `stores` also for namespaces it does not list.
    """
    return ElkynApp(
        stores,
        authorize,
        keep_alive_seconds=keep_alive_seconds,
        body_bytes_max=body_bytes_max,
        default_namespace=default_namespace,
        create_namespaces=create_namespaces,
    )


class ElkynApp:
    """See `elkyn_app`. Call `close` when the server begins to stop: it ends all event streams."""

    def __init__(
        self,
        stores: StoreMap,
        authorize: Authorize,
        *,
        keep_alive_seconds: float,
        body_bytes_max: int,
        default_namespace: str,
        create_namespaces: bool,
    ) -> None:
        self._stores = stores
        self._authorize = authorize
        self._keep_alive_seconds = keep_alive_seconds
        self._body_bytes_max = body_bytes_max
        self._default_namespace = default_namespace
        self._create_namespaces = create_namespaces
        self._committer = Committer()
        self._streams: dict[Subscription, asyncio.Task[Any]] = {}
        self._closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the lifespan of the server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown":
                await asyncio.to_thread(self.close)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope, receive)
        if isinstance(answer, Response):
            await _respond(answer, send, head=scope["method"] == "HEAD")
            return
        await self._stream(*answer, receive, send)

    async def _answer(
        self, scope: Scope, receive: Receive
    ) -> Response | tuple[Subscription, Callable[[], None]]:
        try:
            call = parse_call(_request(scope))
            store = self._store(scope, call)
            if call.stream:
                subscription = await asyncio.to_thread(store.watch, call.path)
                return subscription, lambda: self._check(scope, call)
            if call.writes:
                return await self._write(call, store, receive)
            return await _read(call, store)
        except SennitError as error:
            return error_response(error)
        except Exception as error:  # noqa: BLE001 - logged and answered with 500
            return error_response(InternalError(f"{type(error).__name__}: {error}"))

    def _check(self, scope: Scope, call: Call) -> None:
        name = call.namespace or self._default_namespace
        self._authorize(scope, name, call.path, call.writes)

    def _store(self, scope: Scope, call: Call) -> ElkynStore:
        if self._closed:
            raise Closed("the server")
        self._check(scope, call)
        name = call.namespace or self._default_namespace
        if not self._create_namespaces and name not in self._stores:
            raise NotFound("namespace", name)
        return self._stores[name]

    async def _write(self, call: Call, store: ElkynStore, receive: Receive) -> Response:
        body = await self._body(receive)
        if len(body) <= _INLINE_BYTES:
            write = to_write(call, body, store)
        else:
            write = await asyncio.to_thread(to_write, call, body, store)
        await self._committer.commit(store, write)
        if len(body) <= _INLINE_BYTES:
            return answer_write(call, write)
        return await asyncio.to_thread(answer_write, call, write)

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Closed("the connection")
            part = message.get("body", b"")
            size += len(part)
            if size > self._body_bytes_max:
                raise TooLarge("the request body", self._body_bytes_max)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    async def _stream(
        self, subscription: Subscription, check: Callable[[], None], receive: Receive, send: Send
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._streams[subscription] = task
        try:
            with subscription:
                if self._closed:
                    subscription.close()
                await run_stream(
                    subscription,
                    receive,
                    send,
                    keep_alive_seconds=self._keep_alive_seconds,
                    check=check,
                )
        finally:
            del self._streams[subscription]

    def close(self) -> None:
        """End event streams, commit what waits, and answer 503 from now on; safe on any thread.

        Call it when the server starts to stop, before it waits for its connections.
        """
        self._closed = True
        for subscription, task in list(self._streams.items()):
            subscription.close()
            loop = task.get_loop()
            if not loop.is_closed():  # a client that does not read would hold the server up
                loop.call_soon_threadsafe(_cancel_later, loop, task)
        self._committer.close()


def _cancel_later(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    loop.call_later(_CLOSE_GRACE_SECONDS, task.cancel)


async def _read(call: Call, store: ElkynStore) -> Response:
    try:
        with store.snapshot(_INLINE_ROWS) as view:
            return read(call, view)
    except ReadLimit:
        return await asyncio.to_thread(_read_whole, call, store)


def _read_whole(call: Call, store: ElkynStore) -> Response:
    with store.snapshot() as view:
        return read(call, view)


def _request(scope: Scope) -> Request:
    raw = scope.get("raw_path")
    raw_path = quote(scope["path"]) if raw is None else raw.decode("latin-1")
    return Request(
        method=scope["method"],
        raw_path=raw_path.removeprefix(scope.get("root_path", "")).partition("?")[0],
        query=parse_query(scope.get("query_string", b"")),
        headers={k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]},
    )


async def _respond(response: Response, send: Send, *, head: bool) -> None:
    headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in response.headers]
    if response.status not in (204, 304):
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else response.body})
