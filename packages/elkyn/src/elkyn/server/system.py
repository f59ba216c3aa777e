"""What a server answers beside the tree: health, metrics, rules, pages, accounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from elkyn.server import metrics
from elkyn.server.asgi import Scope
from elkyn.server.codec import dump
from elkyn.server.grant import Grant
from elkyn.server.request import MethodNotAllowed, Request, Response
from sennit_core.errors import Denied, NotFound

if TYPE_CHECKING:
    from elkyn.server.app import ElkynApp
    from elkyn.store import ElkynStore

__all__ = ["ROUTES", "SystemCall", "answer_system"]

_JSON = ("content-type", "application/json; charset=utf-8")
_TEXT = ("content-type", metrics.CONTENT_TYPE)
_NO_RULES = b'{"rules":{".read":false,".write":false}}'
_OPEN_RULES = b'{"rules":{".read":true,".write":true}}'


@dataclass(slots=True)
class SystemCall:
    """A request for something beside the tree."""

    app: ElkynApp
    request: Request
    scope: Scope

    @property
    def namespace(self) -> str:
        """The namespace that is asked about."""
        return self.request.query.get("ns") or self.app.settings.default_namespace

    def store(self) -> ElkynStore:
        """Return the store of the namespace."""
        return self.app.open_store(self.namespace)

    async def admin(self, path: str, *, write: bool) -> Grant:
        """Return the grant of an admin; everybody else is refused."""
        caller = await self.app.door.caller(self.scope, self.request.query)
        grant = caller.grant(self.store(), self.namespace, path, write)
        if not grant.identity.admin:
            self.app.door.refused(caller, self.scope, self.namespace, path, write=write)
            raise Denied(f"using {path}", "an admin's credential")
        return grant


Handler: TypeAlias = Callable[[SystemCall], Awaitable[Response]]


async def _healthz(_call: SystemCall) -> Response:
    return Response(200, b'{"status":"ok"}', (_JSON,))


async def _readyz(call: SystemCall) -> Response:
    ready = not call.app.closed
    body = dump({"status": "ready" if ready else "stopping"})
    return Response(200 if ready else 503, body, (_JSON,))


async def _metrics(call: SystemCall) -> Response:
    await call.admin("/metrics", write=False)
    return Response(200, call.app.metrics_text(), (_TEXT,))


async def _rules(call: SystemCall) -> Response:
    path = "/.settings/rules"
    method = call.request.method.upper()
    if method in ("GET", "HEAD"):
        grant = await call.admin(path, write=False)
        rules = call.store().rules
        if rules is None:
            return Response(200, _OPEN_RULES if grant.open else _NO_RULES, (_JSON,))
        return Response(200, rules.source.encode(), (_JSON,))
    if method != "PUT":
        raise MethodNotAllowed(f"Method {method[:20]!r} is not allowed.")
    await call.admin(path, write=True)
    await call.app.on_thread(call.store().set_rules, call.request.body)
    return Response(200, b'{"status":"ok"}', (_JSON,))


async def _socket(_call: SystemCall) -> Response:
    text = "This is a WebSocket: upgrade the connection."
    return Response(426, dump({"error": text}), (_JSON, ("upgrade", "websocket")))


ROUTES: Mapping[str, Handler] = {
    "/healthz": _healthz,
    "/readyz": _readyz,
    "/metrics": _metrics,
    "/.settings/rules.json": _rules,
    "/.ws": _socket,
}
"""Handlers by path; every other reserved path is unknown."""


async def answer_system(call: SystemCall) -> Response:
    """Answer a request for a reserved path.

    Raises:
        NotFound: nothing has that path.
        Denied: it is for admins.
    """
    handler = ROUTES.get(call.request.raw_path)
    if handler is None:
        raise NotFound("page", call.request.raw_path)
    return await handler(call)
