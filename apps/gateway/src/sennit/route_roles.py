"""The roles that the routes of the API declare, looked up before a request reaches its route.

A role is declared beside its route, by `sennit_core.roles.needs`; there is no other table. Requests
for the realtime tree are not routes of the API: `sennit.auth` knows their roles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from sennit.auth import SAFE_METHODS, SOCKET
from sennit_core.roles import ROLE_KEY

__all__ = ["RouteRoles", "declared_roles"]

_ORDER = ("open", "reader", "writer", "admin", "worker")
_SOCKET_ROLE_KEY = "x-websocket-role"
"""Declared at the GET route of a path that accepts WebSockets too, if their role is another one."""


class RouteRoles:
    """The minimum role for each method and path of the API.

    Args:
        routes: The routes of the application.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._roles: dict[str, dict[str, str]] = {}  # by the path as declared, then by method
        self._patterns: list[tuple[re.Pattern[str], dict[str, str]]] = []
        for route, roles in declared_roles(routes):
            if route.path not in self._roles:
                self._roles[route.path] = {}
                self._patterns.append((route.path_regex, self._roles[route.path]))
            self._roles[route.path] |= roles
        self._folders = frozenset(map(_folder, self._roles))

    def is_api(self, path: str) -> bool:
        """Whether `path` is in a top-level folder of the API's routes."""
        return _folder(path) in self._folders

    def needed(self, method: str, path: str) -> str:
        """Return the minimum role of a request.

        A path that no route has needs an admin unless the method is safe. With a method that the
        path does not have, any role of the path suffices, because the answer is always 405.
        """
        methods = self._methods(path)
        if methods is None:
            return "reader" if method in (*SAFE_METHODS, SOCKET) else "admin"
        return methods.get(method) or min(methods.values(), key=_ORDER.index)

    def _methods(self, path: str) -> Mapping[str, str] | None:
        # Most requests are for paths without parameters, which need no regular expression.
        fixed = self._roles.get(path)
        if fixed is not None:
            return fixed
        # The router's own expressions decide, for fixed paths too: their `$` also matches before a
        # line end, so `/api/tokens\n` is answered by the route of `/api/tokens`.
        return next((methods for regex, methods in self._patterns if regex.match(path)), None)


def declared_roles(routes: Iterable[BaseRoute]) -> Iterator[tuple[APIRoute, dict[str, str]]]:
    """Yield each route with the declared role of each of its methods; "admin" when undeclared."""
    for route in routes:
        # FastAPI keeps the router that a route was included with.
        inside = getattr(route, "original_router", None)
        if inside is not None:
            yield from declared_roles(inside.routes)
        elif isinstance(route, APIRoute):
            declared = route.openapi_extra or {}
            roles: dict[str, str] = dict.fromkeys(
                route.methods or (), declared.get(ROLE_KEY, "admin")
            )
            if _SOCKET_ROLE_KEY in declared:
                roles[SOCKET] = declared[_SOCKET_ROLE_KEY]
            yield route, roles


def _folder(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""
