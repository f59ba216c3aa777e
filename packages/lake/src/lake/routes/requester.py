"""Who sent a request, as the gateway's authentication left it in the request's scope."""

from __future__ import annotations

from fastapi import Request

from lake.limits import Requester

__all__ = ["requester_of"]


def requester_of(request: Request) -> Requester:
    """Return the user of a request; one without a name where nobody has to sign in."""
    principal = getattr(request.state, "principal", None)
    if principal is None:
        return Requester()
    name, role = getattr(principal, "name", principal), getattr(principal, "role", "")
    return Requester(str(name), is_admin=role == "admin")
