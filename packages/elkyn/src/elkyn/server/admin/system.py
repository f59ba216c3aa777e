"""Requests outside the tree, and the handlers of health, metrics and rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.auth.authorizer import Authorizer
from elkyn.server import metrics
from elkyn.server.asgi import Receive, Scope, Send, client_of
from elkyn.server.bodies.codec import dump
from elkyn.server.request import MethodNotAllowed, Request, Response
from sennit_core.errors import Denied

if TYPE_CHECKING:
    from elkyn.server.state import ServerState
    from elkyn.store import ElkynStore

__all__ = ["SystemCall", "counters", "healthz", "readyz", "rules", "upgrade"]

_JSON = ("content-type", "application/json; charset=utf-8")
_TEXT = ("content-type", metrics.CONTENT_TYPE)
_NO_RULES = b'{"rules":{".read":false,".write":false}}'
_OPEN_RULES = b'{"rules":{".read":true,".write":true}}'


@dataclass(slots=True)
class SystemCall:
    """A request for a path outside the tree."""

    app: ServerState
    request: Request
    scope: Scope
    channel: tuple[Receive, Send]

    @property
    def namespace(self) -> str:
        """The namespace of the request."""
        return self.request.query.get("ns") or self.app.settings.default_namespace

    def store(self) -> ElkynStore:
        """Return the store of the namespace."""
        return self.app.open_store(self.namespace)

    async def admin(self, path: str, *, write: bool, namespace: str | None = None) -> Authorizer:
        """Return the authorizer of an admin; refuse any other client.

        Args:
            path: the path to name in the log of refusals.
            write: whether the request changes something.
            namespace: default: that of the request.
        """
        name = namespace or self.namespace
        client_auth = await self.app.auth_backend.authenticate(self.scope, self.request.query)
        authorizer = client_auth.authorizer(self.app.open_store(name), name, path, write)
        if not authorizer.principal.admin:
            self.app.auth_backend.record_refusal(
                client_auth, client_of(self.scope), name, path, write=write
            )
            raise Denied(f"using {path}", "an admin's credential")
        return authorizer


async def healthz(_call: SystemCall) -> Response:
    """Answer that the process is alive."""
    return Response(200, b'{"status":"ok"}', (_JSON,))


async def readyz(call: SystemCall) -> Response:
    """Answer whether the server is ready to serve requests."""
    app = call.app
    if app.closed:
        reason: str | None = "stopping"
    else:
        reason = None if app.leader_proxy is None else app.leader_proxy.unreadable
    body = dump({"status": reason or "ready"})
    return Response(200 if reason is None else 503, body, (_JSON,))


async def counters(call: SystemCall) -> Response:
    """Answer the metrics, for Prometheus."""
    await call.admin("/metrics", write=False)
    return Response(200, call.app.metrics_text(), (_TEXT,))


async def rules(call: SystemCall) -> Response:
    """Answer the rules of a namespace as they were uploaded, or replace them."""
    path = "/.settings/rules"
    method = call.request.method.upper()
    if method in ("GET", "HEAD"):
        authorizer = await call.admin(path, write=False)
        call.store().admin.divergence.check()
        known = call.store().rules
        if known is None:
            return Response(
                200, _OPEN_RULES if authorizer.open_without_rules else _NO_RULES, (_JSON,)
            )
        strict = call.request.query.get("format") == "strict"  # without comments
        return Response(200, dump(known.to_json()) if strict else known.source.encode(), (_JSON,))
    if method != "PUT":
        raise MethodNotAllowed(f"Method {method[:20]!r} is not allowed.")
    await call.admin(path, write=True)
    await call.app.on_thread(call.store().set_rules, call.request.body)
    return Response(200, b'{"status":"ok"}', (_JSON,), call.store().position)


async def upgrade(_call: SystemCall) -> Response:
    """Answer a plain HTTP request for a WebSocket endpoint."""
    text = "This is a WebSocket endpoint: upgrade the connection."
    return Response(426, dump({"error": text}), (_JSON, ("upgrade", "websocket")))
