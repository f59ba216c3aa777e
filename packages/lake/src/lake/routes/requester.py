"""The user of a request, from the scope that the gateway's authentication set."""

from __future__ import annotations

from fastapi import Request

from lake.limits import Requester

__all__ = ["requester_of"]


def requester_of(request: Request) -> Requester:
    """Return the user of a request; without authentication it has no name, and may write."""
    principal = getattr(request.state, "principal", None)
    if principal is None:
        return Requester(may_write=True)
    name, role = getattr(principal, "name", principal), getattr(principal, "role", "")
    return Requester(str(name), is_admin=role == "admin", may_write=role in ("writer", "admin"))
