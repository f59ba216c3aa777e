"""The node's ASGI application: access control, then the API, the realtime tree or the playground.

request -> SecurityHeaders -> Cors -> AuthMiddleware (host, origin, token, role) -> Dispatcher
        -> BodyLimit -> FastAPI | Elkyn | Pages
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

import elytra.routes
import lake.routes
from elkyn.records import SYSTEM_NAMESPACE
from elkyn.server.app import elkyn_app
from lake import Lake
from lake.routes import parse_query_request, respond
from lake.routes.requester import as_requester
from lake.statements.limits import Requester
from sennit._asgi import App, Message, Receive, Scope, Send
from sennit.auth import SOCKET, AccessControl, Principal, cookie_name, is_tree_path
from sennit.cors import Cors
from sennit.limits import BodyLimit
from sennit.node import Node
from sennit.route_roles import RouteRoles
from sennit.routes import bundles
from sennit.routes import network as network_routes
from sennit.routes import node as node_routes
from sennit.routes.docs import docs_page
from sennit.routes.pages import Pages
from sennit.security_headers import SecurityHeaders
from sennit_core import errors
from sennit_core.errors import Denied, InternalError, SennitError
from sennit_core.roles import needs

_log = logging.getLogger("sennit.gateway")
_audit = logging.getLogger("sennit.audit")

# Looked up along the class hierarchy (`status_of`), so a subclass needs an entry only if its status
# differs from its parent's.
STATUS_OF_CLASS: dict[type[SennitError], int] = {
    errors.UsageError: 400,
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Cancelled: 409,
    errors.Closed: 409,
    errors.TooLarge: 413,
    errors.StorageFull: 507,
    errors.CapacityError: 422,
    errors.Busy: 429,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    # The node's fault and permanent: neither a 4xx nor a 503, which would invite a retry.
    errors.Corrupt: 500,
}


class Application:
    """The ASGI app of a node, and the parts that the server needs access to."""

    def __init__(self, node: Node) -> None:
        network = node.settings.network
        self.api = create_api(node, cookie_name(network.port))
        self.access = AccessControl.of(
            node.tokens, RouteRoles(self.api.routes), host=network.host, port=network.port,
            hosts=network.allowed_hosts, origins=network.allowed_origins,
        )  # fmt: skip
        self.tree = elkyn_app(
            node.stores,
            authorize=TreeAccess(node),
            keep_alive_seconds=node.settings.elkyn.keep_alive_seconds,
            body_bytes_max=node.settings.security.body_bytes_max,
        )
        # Open streams show lists of datasets, which a new policy may hide.
        node.lake.policies.observe(self.tree.disconnect)
        self.pages = Pages(self.access)
        # Around the API alone: the tree enforces this limit itself.
        limited = BodyLimit(_Queries(self.api, node.lake), node.settings.security.body_bytes_max)
        dispatcher = Dispatcher(limited, self.tree, self.pages, self.access)
        authenticated = AuthMiddleware(dispatcher, self.access)
        # From the outside: headers on every response, refusals included; then CORS, because a
        # preflight has no credentials and must be answered before authentication; then
        # authentication; and the body only after it, as its limit depends on the principal.
        self._app = SecurityHeaders(
            Cors(
                authenticated,
                self.access.origins,
                check_host=self.access.check_host,
                refuse=_refuse,
            )
        )
        self.pages.behind(self._app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End all open streams, so that the server can stop without waiting."""
        self.tree.close()


def create_app(node: Node) -> Application:
    """Return the application that serves `node`."""
    return Application(node)


class AuthMiddleware:
    """ASGI middleware: authenticates and authorizes requests, and writes the audit log."""

    def __init__(self, app: App, access: AccessControl) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        # Header bytes may be any; Latin-1 decodes all of them.
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        method = SOCKET if scope["type"] == "websocket" else scope["method"]
        try:
            principal = self._access.admit(method, scope["path"], headers)
        except SennitError as refusal:
            _audit.warning("refused %s %s: %s", method, scope["path"], refusal)
            await _refuse(scope, receive, send, refusal)
            return
        # A query is logged when it ends, with its outcome (`lake.statements.running`).
        is_query = scope["path"] == "/api/query"
        if principal is not None and method not in {"GET", "HEAD"} and not is_query:
            _audit.info("%s %s by %s", method, scope["path"], principal.name)
        # Also None, for public paths: `BodyLimit` and the tree read it from here.
        scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)


class Dispatcher:
    """Dispatches a request by its path: API, realtime tree or pages."""

    def __init__(self, api: App, tree: App, pages: App, access: AccessControl) -> None:
        self._api = api
        self._tree = tree
        self._pages = pages
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        path = scope.get("path", "")
        if scope["type"] == "lifespan":
            target = self._api
        elif path.startswith("/db/"):
            # A copy: the middleware around this one still sees the path as it was sent.
            scope = {**scope, "path": path.removeprefix("/db")}
            target = self._tree
        elif is_tree_path(path):
            target = self._tree
        else:
            target = self._api if self._access.is_guarded(path) else self._pages
        await target(scope, receive, send)


class _Queries:
    """Handles POST /api/query without FastAPI's layers, which cost more than a small query.

    A request without a valid JSON body goes to the API, which reports the error.
    """

    def __init__(self, api: FastAPI, lake: Lake) -> None:
        self._api = api
        self._lake = lake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope["type"], scope["path"], scope.get("method")) != ("http", "/api/query", "POST"):
            await self._api(scope, receive, send)
            return
        message = await receive()  # the whole body: `BodyLimit` has read it
        content_type = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        query = parse_query_request(content_type, message.get("body", b""))
        # The API has better errors for a malformed request than this short way.
        if query is None:
            await self._api(scope, _replayed(message, receive), send)
            return
        request = Request({**scope, "app": self._api}, receive)
        try:
            response = await respond(self._lake, query, request)
        except SennitError as error:
            response = await _on_error(request, error)
        except Exception as error:  # noqa: BLE001 - logged and answered, as by the API
            response = await _on_surprise(request, error)
        await response(scope, receive, send)


def _replayed(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def create_api(node: Node, cookie: str) -> FastAPI:
    """Return the API of a node; each route declares the role that it needs.

    Args:
        node: The node.
        cookie: Name of the session cookie.
    """
    # FastAPI's own documentation pages load scripts from other hosts; the routes below replace
    # them.
    api = FastAPI(
        title="Sennit", version=node.version, docs_url=None, redoc_url=None, openapi_url=None
    )
    api.include_router(node_routes.router(node, cookie))
    api.include_router(network_routes.router(node.peers, node.lake))
    api.include_router(bundles.router(node.peers, node.lake))
    api.include_router(lake.routes.router(node.lake, node.jobs.submit_ingest))
    api.include_router(elytra.routes.router(node.jobs))
    api.add_exception_handler(SennitError, _on_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(Exception, _on_surprise)

    @api.head("/api/openapi.json", include_in_schema=False, openapi_extra=needs("reader"))
    @api.get("/api/openapi.json", include_in_schema=False, openapi_extra=needs("reader"))
    def openapi() -> JSONResponse:
        """The OpenAPI document of this API."""
        return JSONResponse(api.openapi())

    @api.get("/docs", include_in_schema=False, openapi_extra=needs("reader"))
    def docs() -> HTMLResponse:
        """The API documentation as one page without external resources."""
        return HTMLResponse(docs_page(api.openapi()))

    return api


class _Refusal(JSONResponse):
    """A JSON error in ASCII: it may quote request text, which may contain a lone surrogate."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def status_of(error: SennitError) -> int:
    """Return the HTTP status of an error: of its nearest class in the table, else 500."""
    return next((STATUS_OF_CLASS[c] for c in type(error).__mro__ if c in STATUS_OF_CLASS), 500)


class TreeAccess:
    """Checks the role of a request for a tree, and access policies for the platform's own.

    Args:
        node: Has the policies.
    """

    def __init__(self, node: Node) -> None:
        self._lake = node.lake
        self._jobs = node.jobs

    def __call__(self, scope: Mapping[str, Any], namespace: str, path: str, write: bool) -> None:
        """Refuse a request by raising `Denied`."""
        principal = _check_tree_role(scope, namespace, path, write)
        if namespace == SYSTEM_NAMESPACE and not self._may_watch(path, as_requester(principal)):
            raise Denied(
                action=f"reading {namespace}:{path} while datasets have access policies",
                needed="admin",
                hint="read one record by its id, or use the routes below /api",
            )

    def _may_watch(self, path: str, requester: Requester) -> bool:
        keys = [key for key in path.split("/") if key]
        if not self._lake.policies or requester.is_trusted or keys[:1] != ["jobs"]:
            return self._lake.policies.may_watch(path, requester)
        try:
            return bool(keys[1:]) and self._jobs.may_read(self._jobs.get(keys[1]), requester)
        except errors.NotFound:
            return True


def _check_tree_role(scope: Mapping[str, Any], namespace: str, path: str, write: bool) -> Principal:
    """Check the role of a request for a tree; only the platform writes `sys`."""
    principal: Principal | None = scope.get("state", {}).get("principal")
    # For an admin too: jobs and datasets are rows there, whose files would no longer match.
    if write and namespace == SYSTEM_NAMESPACE:
        raise Denied(
            action=f"writing {namespace}:{path}",
            needed="the platform itself",
            hint="the platform's own state changes only through /api",
        )
    needed = "writer" if write else "reader"
    if namespace == SYSTEM_NAMESPACE and _is_of_peers(path):
        needed = "admin"
    if principal is None or not principal.may(needed):
        raise Denied(action=f"using {namespace}:{path}", needed=needed)
    return principal


def _is_of_peers(path: str) -> bool:
    """Whether a path of `sys` shows what nodes share with single other nodes, or contains it."""
    # Queued appends have the values of their statements.
    return [key for key in path.split("/") if key][:1] in (
        [], ["peers"], ["queued"], ["foreign-bytes"], ["forks"],
    )  # fmt: skip


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: SennitError) -> None:
    if scope["type"] == "websocket":
        # ASGI: the connect event comes first; a close before an accept refuses the handshake with
        # 403.
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    body = refusal.to_json()
    if is_tree_path(scope["path"]):  # Elkyn's error format: its clients show only this text
        body = {"error": f"{refusal}; {refusal.hint}" if refusal.hint else str(refusal)}
    await _Refusal(body, status_code=status_of(refusal))(scope, receive, send)


async def _on_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SennitError)
    status = status_of(error)
    # Not the client's mistakes: any client could fill the log with them.
    if status >= 500:
        _log.error("%s: %s", error.code, error)
    headers = {"retry-after": "1"} if isinstance(error, errors.Busy) else None
    return _Refusal(error.to_json(), status_code=status, headers=headers)


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"where": ".".join(map(str, problem["loc"])), "problem": problem["msg"]}
        for problem in error.errors()
    ]
    first = problems[0] if problems else {"where": "body", "problem": "not valid"}
    body = {
        "error": f"{first['where']}: {first['problem']}",
        "code": "usage",
        "hint": "see /docs for the parameters of this route",
        "details": {"problems": problems},
    }
    return _Refusal(body, status_code=422)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    route = f"{request.method} {request.url.path}"
    code, problem = {
        404: ("not-found", f"there is no route {route}"),
        405: ("usage", f"this path does not support {route}"),
    }.get(error.status_code, ("usage", error.detail))
    body: dict[str, Any] = {"error": problem, "code": code, "hint": "see /docs for the routes"}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _on_surprise(request: Request, error: Exception) -> JSONResponse:
    _log.exception("unexpected error at %s %s", request.method, request.url.path, exc_info=error)
    internal = InternalError("the node met an unexpected error", hint="`platform logs` shows it")
    # The server closes the connection after an exception; the header keeps clients from reusing it.
    return JSONResponse(internal.to_json(), status_code=500, headers={"connection": "close"})
