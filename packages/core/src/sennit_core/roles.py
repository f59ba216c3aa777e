"""The role that a route needs, declared where the route is declared.

    @routes.delete("/api/datasets/{dataset}", openapi_extra=needs("writer"))

The gateway reads the declaration to authorize requests, and OpenAPI shows it as `x-role`.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["ROLE_KEY", "Role", "needs"]

Role = Literal["open", "reader", "writer", "admin"]
"""`open` needs no token. Each of the others includes those before it."""

ROLE_KEY = "x-role"


def needs(role: Role) -> dict[str, Any]:
    """Return the OpenAPI extension that declares the minimum role of a route."""
    return {ROLE_KEY: role}
