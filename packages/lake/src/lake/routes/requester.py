"""The user of a request, from the scope that the gateway's authentication set."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from lake.statements.limits import Requester

__all__ = ["as_requester", "requester_of"]


def requester_of(request: Request) -> Requester:
    """Return the user of a request; without authentication it has no name, and may write."""
    return as_requester(getattr(request.state, "principal", None))


def as_requester(principal: Any) -> Requester:
    """Return the user that a principal of the gateway is; None stands for no authentication."""
    if principal is None:
        return Requester(may_write=True)
    name, role = getattr(principal, "name", principal), getattr(principal, "role", "")
    return Requester(
        str(name),
        is_admin=role == "admin",
        may_write=role in ("writer", "admin"),
        role=role,
        is_owner=bool(getattr(principal, "is_owner", False)),
    )
