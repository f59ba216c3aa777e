"""Serve an accepted WebSocket, by a `Socket` or by a `RefusedSocket`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elkyn.server.asgi import Receive, Scope, Send, client_of
from elkyn.server.auth_backend import ClientAuth
from elkyn.server.realtime.refused_socket import RefusedSocket
from elkyn.server.realtime.socket import Socket
from elkyn.server.realtime.socket_store import SocketStore
from elkyn.server.request import Request
from sennit_core.errors import Closed, SennitError

if TYPE_CHECKING:
    from elkyn.server.state import ServerState
    from elkyn.store import ElkynStore

__all__ = ["serve_socket"]

_TRY_AGAIN_LATER = 1013


async def serve_socket(
    app: ServerState,
    request: Request,
    client_auth: ClientAuth,
    scope: Scope,
    channel: tuple[Receive, Send],
) -> None:
    """Serve an accepted WebSocket until one side closes it."""
    receive, send = channel
    namespace = request.query.get("ns") or app.settings.default_namespace

    def open_store() -> ElkynStore:
        app.settings.origins.check(request.headers)
        return app.open_store(namespace)

    async def reason() -> SennitError | None:
        try:
            await app.on_thread(open_store)
        except SennitError as error:
            return error
        return None

    # SDKs connect to the host that the hello names when they reconnect.
    host = app.settings.host or request.headers.get("host", "")
    try:
        store = await app.on_thread(open_store)
    except SennitError as error:
        # Passes by itself: the SDK reconnects. Other refusals are answered for each request,
        # because an SDK whose connection is closed leaves its promises pending (see
        # `refused_socket`).
        if error.retryable or isinstance(error, Closed):  # SDKs reconnect after a while
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
            return
        client: RefusedSocket | Socket = RefusedSocket(
            app, client_auth, reason, send, client_of(scope)
        )
    else:
        nodes_max = app.settings.limits.body_nodes
        data = SocketStore(store, namespace, app.auth_backend, scope, nodes_max=nodes_max)
        client = Socket(app, data, client_auth, send)
    try:
        with app.clients.registered(client):
            await client.run(receive, host)
    except SennitError:
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
