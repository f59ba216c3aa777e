"""The role that a route needs, declared where the route is declared.

    @routes.delete("/api/datasets/{dataset}", openapi_extra=needs("writer"))

The gateway reads the declaration to authorize requests, and OpenAPI shows it as `x-role`.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["ROLE_KEY", "Role", "needs"]

Role = Literal["open", "reader", "writer", "admin", "worker"]
"""`open` needs no token. `writer` includes `reader`, and `admin` both. `worker` is apart: its routes
accept no other role, and its tokens are accepted nowhere else."""

ROLE_KEY = "x-role"


def needs(role: Role) -> dict[str, Any]:
    """Return the OpenAPI extension that declares the minimum role of a route."""
    return {ROLE_KEY: role}
