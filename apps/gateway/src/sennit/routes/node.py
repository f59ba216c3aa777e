"""Routes about the node: health, statistics, nodes, tokens, and the browser's session."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from sennit.join_tokens import JoinTokens
from sennit.logs import log_folder
from sennit.node import Node
from sennit_core.errors import NotFound, Unauthenticated
from sennit_core.roles import needs

_AUDIT_LINES_MAX = 1000
_CAPITAL = re.compile(r"(?=[A-Z])")
_AUDIT_BYTES_MAX = 1 << 20


class TokenRequest(BaseModel):
    """Body of `POST /api/tokens`."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=100)
    role: str


class SessionRequest(BaseModel):
    """Body of `POST /api/session`: a token to exchange for a cookie."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(min_length=1, max_length=200)


def router(node: Node, cookie: str) -> APIRouter:
    """Return the routes about the node itself; `cookie` is the name of the session cookie."""
    routes = APIRouter(tags=["node"])
    _add_health(routes, node)
    _add_statistics(routes, node)
    _add_session(routes, node, cookie)
    _add_tokens(routes, node)
    _add_joining(routes, node)
    _add_audit(routes, node)
    return routes


def _add_health(routes: APIRouter, node: Node) -> None:
    @routes.get("/healthz", openapi_extra=needs("open"))
    def healthz() -> PlainTextResponse:
        """Liveness: the process responds."""
        return PlainTextResponse("ok\n")

    @routes.get("/readyz", openapi_extra=needs("open"))
    def readyz() -> PlainTextResponse:
        """Readiness: the node's tree responds."""
        node.nodes.get(node.node_id)
        return PlainTextResponse("ready\n")


def _add_statistics(routes: APIRouter, node: Node) -> None:
    @routes.get("/api/stats", openapi_extra=needs("reader"))
    def stats() -> dict[str, Any]:
        """Memory limits and usage, executors, uptime."""
        return node.stats()

    @routes.get("/api/nodes", openapi_extra=needs("reader"))
    def nodes() -> list[Any]:
        """All nodes known to this node."""
        return [row.to_json() for row in node.nodes.all().values()]

    @routes.get("/metrics", openapi_extra=needs("reader"))
    def metrics() -> PlainTextResponse:
        """Gauges in Prometheus' text format."""
        return PlainTextResponse(_metrics(node), media_type="text/plain; version=0.0.4")


def _add_session(routes: APIRouter, node: Node, cookie: str) -> None:
    @routes.post("/api/session", openapi_extra=needs("open"))
    def open_session(body: SessionRequest, request: Request) -> JSONResponse:
        """Exchange a token for a session cookie."""
        principal = node.tokens.principal(body.token)
        if principal is None:
            raise Unauthenticated(
                "this node does not know the token", hint="see <data>/admin.token"
            )
        response = JSONResponse({"name": principal.name, "role": principal.role})
        set_session_cookie(response, cookie, body.token, secure=request.url.scheme == "https")
        return response


def _add_tokens(routes: APIRouter, node: Node) -> None:
    @routes.get("/api/tokens", openapi_extra=needs("admin"))
    def tokens() -> list[dict[str, Any]]:
        """Every issued token: id, name and role; of the token of a tab also its owner and end."""
        return node.tokens.list()

    @routes.post("/api/tokens", status_code=201, openapi_extra=needs("admin"))
    def issue_token(body: TokenRequest) -> dict[str, str]:
        """Create a token; it is shown only once."""
        return {"token": node.tokens.issue(body.name, body.role), "role": body.role}

    @routes.delete("/api/tokens/{token_id}", status_code=204, openapi_extra=needs("admin"))
    def revoke_token(token_id: str) -> None:
        """Revoke a token."""
        revoked = node.tokens.revoke(token_id)
        if not revoked:
            raise NotFound(kind="token", name=token_id)
        for each in revoked:
            node.jobs.remote.disconnect_token(each)


def _add_joining(routes: APIRouter, node: Node) -> None:
    tokens = JoinTokens(node.tokens, node.jobs.remote)

    # A writer: who can return wrong rows can change what others see.
    @routes.post("/api/workers/join", status_code=201, openapi_extra=needs("writer"))
    def join(request: Request) -> dict[str, Any]:
        """Create a token with which one tab of this user computes for the node; it expires."""
        return tokens.join(request.scope["state"]["principal"])


def _add_audit(routes: APIRouter, node: Node) -> None:
    @routes.get("/api/audit", openapi_extra=needs("admin"))
    def audit(limit: Annotated[int, Query(ge=1, le=_AUDIT_LINES_MAX)] = 100) -> list[Any]:
        """The newest lines of the audit log, the last one first."""
        return _last_lines(log_folder(node.settings.logging, node.data) / "audit.log", limit)


def _last_lines(path: Path, limit: int) -> list[Any]:
    """Return the last JSON lines of a log, the newest first, from its last megabyte."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _AUDIT_BYTES_MAX))
            lines = file.read().splitlines()
    except FileNotFoundError:  # nothing was logged since the start
        return []
    found = []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):  # the first may be cut, and the last half written
            found.append(json.loads(line))
        if len(found) == limit:
            break
    return found


def set_session_cookie(response: Any, cookie: str, token: str, *, secure: bool) -> None:
    """Set the session cookie: not readable by scripts, not sent with cross-site requests."""
    response.set_cookie(cookie, token, httponly=True, samesite="strict", secure=secure, path="/")


def _metrics(node: Node) -> str:
    stats = node.stats()
    rows = {
        "sennit_uptime_seconds": stats["uptimeSeconds"],
        "sennit_memory_cap_bytes": stats["memory"]["capBytes"],
        "sennit_memory_used_bytes": stats["memory"]["usedBytes"],
        "sennit_executors": len(stats["executors"]),
        "sennit_datasets": stats["datasets"],
        "sennit_remote_workers": len(node.jobs.remote.sessions()),
    }
    for name, value in node.peers.counters().to_json().items():
        rows[f"sennit_peers_{_CAPITAL.sub('_', name).lower()}"] = value
    return "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in rows.items())
