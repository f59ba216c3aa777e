"""From an accepted WebSocket to the `Socket` that serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elkyn.server.asgi import Receive, Scope, Send
from elkyn.server.door import Caller
from elkyn.server.request import Request
from elkyn.server.socket import Socket
from elkyn.server.socket_store import SocketStore
from elkyn.server.wire import control
from sennit_core.errors import SennitError

if TYPE_CHECKING:
    from elkyn.server.app import ElkynApp

__all__ = ["serve_socket"]

_TRY_AGAIN_LATER = 1013


async def serve_socket(
    app: ElkynApp,
    request: Request,
    caller: Caller,
    scope: Scope,
    channel: tuple[Receive, Send],
) -> None:
    """Serve a WebSocket that was accepted until one side ends it."""
    receive, send = channel
    namespace = request.query.get("ns") or app.settings.default_namespace
    try:
        store = await app.on_thread(app.open_store, namespace)
    except SennitError as error:  # told to stop, a client does not try again and again
        await send({"type": "websocket.send", "text": control("s", str(error))})
        await send({"type": "websocket.close", "code": 1008})
        return
    data = SocketStore(store, namespace, app.door, scope, nodes_max=app.settings.limits.body_nodes)
    socket = Socket(app, data, caller, send)
    try:
        with app.clients.joined(socket):
            await socket.run(receive, app.settings.host or request.headers.get("host", ""))
    except SennitError:
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
