"""Routes of the paths outside the tree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from elkyn.replication import routes
from elkyn.server.admin import api, system
from elkyn.server.admin.changes import stream_changes
from elkyn.server.admin.outline import outline
from elkyn.server.admin.pages import page
from elkyn.server.admin.search import search
from elkyn.server.admin.system import SystemCall
from elkyn.server.request import Response
from sennit_core.errors import NotFound

__all__ = ["ROUTES", "answer_system"]

Handler: TypeAlias = Callable[[SystemCall], Awaitable[Response | None]]

ROUTES: Mapping[str, Handler] = {
    "/healthz": system.healthz,
    "/readyz": system.readyz,
    "/metrics": system.counters,
    "/.settings/rules.json": system.rules,
    "/.settings/outline.json": outline,
    "/.settings/search.json": search,
    "/.settings/namespaces.json": api.namespaces,
    "/.settings/simulate.json": api.simulate,
    "/.settings/changes": stream_changes,
    "/.dashboard/server.json": api.server,
    "/.replica": system.upgrade,
    "/.replica/accounts": routes.accounts,
    "/.replica/identify": routes.identify,
    "/.replica/promote": routes.promote,
    "/.replica/status": routes.status,
    "/.replica/write": routes.write,
    "/.ws": system.upgrade,
}
"""Handlers by path; every other reserved path is a page of the dashboard or unknown."""


async def answer_system(call: SystemCall) -> Response | None:
    """Answer a request for a reserved path; None when the answer was a stream, which has ended.

    Raises:
        NotFound: the path has no handler and no page.
        Denied: the path is for admins only.
    """
    path = call.request.raw_path
    handler = ROUTES.get(path)
    if handler is not None:
        return await handler(call)
    found = page(path, call.request.headers.get("if-none-match"))
    if found is None:
        raise NotFound("page", path)
    return found
