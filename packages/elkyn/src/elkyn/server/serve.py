"""`elkyn serve`: the app under uvicorn, on loopback, stopped promptly."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import urlsplit

from elkyn.namespaces import open_namespaces
from elkyn.server.app import ElkynApp, elkyn_app
from elkyn.server.asgi import Receive, Scope, Send
from elkyn.server.auth import read_or_create_token, require_token
from elkyn.server.door import Authorize
from sennit_core.errors import Denied, Unsupported, UsageError

__all__ = ["DEFAULT_PORT", "serve"]

DEFAULT_PORT = 9000
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_STOP_SECONDS = 3


def serve(
    data: FilePath,
    *,
    port: int = DEFAULT_PORT,
    namespace: str = "default",
    emulator: bool = False,
    ready: Callable[[str, str | None], object] = lambda _url, _token: None,
) -> None:
    """Serve the namespaces below `data` on 127.0.0.1 until SIGINT or SIGTERM.

    Args:
        data: folder of the namespaces; holds `admin.token` (0600) too.
        port: 0 picks a free one.
        namespace: made at the start, and meant by requests without `?ns=`.
        emulator: as the Firebase emulator: `Bearer owner` is the admin, namespaces are made on
            first use. For tests and development on this machine.
        ready: called with the URL and the token (None in emulator mode) once requests are served.

    Raises:
        UsageError: the port is taken.
    """
    uvicorn = _uvicorn()
    data.mkdir(parents=True, exist_ok=True)
    token = None if emulator else read_or_create_token(data / "admin.token")
    authorize = _local_only(require_token("owner")) if token is None else require_token(token)
    with _listen(port) as listener, open_namespaces(data) as stores:
        stores[namespace]
        app = elkyn_app(
            stores, authorize=authorize, default_namespace=namespace, create_namespaces=emulator
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            _announced(app, lambda: ready(url, token)),
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        _run(uvicorn, config, app, listener)


def _uvicorn() -> Any:
    try:
        import uvicorn
    except ImportError:
        raise Unsupported(
            "serving needs uvicorn", hint="pip install 'sennit-elkyn[server]'"
        ) from None
    return uvicorn


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        hint = "choose another with --port, or 0 for a free one"
        raise UsageError(f"port {port} cannot be used: {error.strerror}", hint=hint) from None
    return listener


def _run(uvicorn: Any, config: Any, app: ElkynApp, listener: socket.socket) -> None:
    class Server(uvicorn.Server):  # type: ignore[misc]  # untyped when the extra is missing
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # uvicorn waits for open responses before it tells the app: end the streams first.
            await asyncio.to_thread(app.close)
            await super().shutdown(sockets=sockets)

    # uvicorn raises the signal again when it is done: make that an exception, stores are to close.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _announced(app: ElkynApp, ready: Callable[[], object]) -> Callable[..., Any]:
    async def announced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return

        async def told(message: Scope) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                ready()

        await app(scope, receive, told)

    return announced


def _local_only(authorize: Authorize) -> Authorize:
    """Keep web pages of other origins out: everybody knows the emulator's token."""

    def checked(scope: Mapping[str, Any], namespace: str, path: str, write: bool) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        for address in (f"//{headers.get(b'host', '')}", origin):
            if address is not None and urlsplit(address).hostname not in _LOOPBACK:
                raise Denied("reaching the emulator from another host or origin", "localhost")
        authorize(scope, namespace, path, write)

    return checked
